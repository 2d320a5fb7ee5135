/*
 * ip.h - client addresses: reading, writing, ranges of them. Pure.
 *
 * One form for both families: an IPv4 address is the IPv6 one that stands for it (RFC 4291, section
 * 2.5.5.2), so that a client is the same whether it came over a dual-stack socket or not.
 */
#ifndef BELFRY_SHARED_IP_H
#define BELFRY_SHARED_IP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shared/text.h"

#define IP_TEXT_BYTES 46 /* INET6_ADDRSTRLEN */

struct ip {
    unsigned char bytes[16]; /* all zero: none, as of a unix socket's client */
};

struct ip_range {
    struct ip first;
    unsigned bits; /* of 128 that are equal */
};

bool ip_is_none(const struct ip *ip);
bool ip_is_v4(const struct ip *ip);
/* None for NULL and other families. */
struct ip ip_from_sockaddr(const struct sockaddr *sa);
struct ip ip_from_v4(const unsigned char bytes[4]);
/* An address as proxies write it: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1],
 * [2001:db8::1]:80. 0 or -EINVAL. */
int ip_parse(struct text_span text, struct ip *out);
/* "" for none. */
const char *ip_format(const struct ip *ip, char out[IP_TEXT_BYTES]);
/* What limits count by, never 0 but for none: an address, or a customer's /64 of IPv6. */
uint64_t ip_customer(const struct ip *ip);
/* ADDR or ADDR/BITS; bits of ADDR beyond BITS must be zero. 0, or -EINVAL with *reason a constant
 * text. */
int ip_range_parse(const char *text, struct ip_range *out, const char **reason);
bool ip_range_has(const struct ip_range *range, const struct ip *ip);

#endif
