/*
 * address.h - addresses to listen on: the one parser of the options listen and metrics-listen.
 *
 * Master (binds), options (check), belfryctl. Pure: numbers only, no resolver, no interface names.
 * Forms: ADDR:PORT with an IPv4 address, [ADDR]:PORT with an IPv6 one, *:PORT (every address of
 * both families), localhost:PORT (127.0.0.1), unix:PATH. Port 0 takes a free one.
 */
#ifndef BELFRY_SHARED_ADDRESS_H
#define BELFRY_SHARED_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDRESS_TEXT_BYTES 128 /* room for any address as text */
#define ADDRESS_PATH_BYTES 108 /* sun_path of unix(7), its NUL included */

struct address {
    struct sockaddr_storage storage; /* as for bind(2) */
    socklen_t len;
    bool is_unix;
    bool is_dual;  /* *:PORT: bind [::] with IPV6_V6ONLY off, or 0.0.0.0 where there is no IPv6
                      (address_any_v4); every other IPv6 address is bound with IPV6_V6ONLY on */
    uint16_t port; /* host order; 0 for unix */
    char path[ADDRESS_PATH_BYTES]; /* "" unless unix */
};

/* 0, or -EINVAL with *reason a constant text. */
int address_parse(const char *text, struct address *out, const char **reason);
/* From the kernel (getsockname): the port that was taken. 0 or -EAFNOSUPPORT. */
int address_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct address *out);
/* What *:PORT is on a machine without IPv6. */
void address_any_v4(uint16_t port, struct address *out);
/* As address_parse reads it. */
void address_format(const struct address *a, char out[ADDRESS_TEXT_BYTES]);
/* True for loopback addresses and unix sockets: only this machine can connect. */
bool address_is_local(const struct address *a);
/* True when both ask for the same socket (*:PORT is also 0.0.0.0:PORT). Not for port 0. */
bool address_equal(const struct address *a, const struct address *b);

#endif
