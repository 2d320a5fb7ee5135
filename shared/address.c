#include "config.h"

#include "shared/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "shared/text.h"

_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == ADDRESS_PATH_BYTES, "sun_path");

static void set_v4(struct address *a, struct in_addr host, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = host};
    memcpy(&a->storage, &in, sizeof(in));
    a->len = sizeof(in);
    a->port = port;
}

static void set_v6(struct address *a, const struct in6_addr *host, uint16_t port)
{
    struct sockaddr_in6 in6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = *host};
    memcpy(&a->storage, &in6, sizeof(in6));
    a->len = sizeof(in6);
    a->port = port;
}

static const char *parse_unix(const char *path, struct address *a)
{
    size_t len = strlen(path);
    if (!len)
        return "unix: without a path";
    if (len >= sizeof(a->path))
        return "the socket's path is too long (107 bytes)";
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, path, len + 1);
    memcpy(&a->storage, &un, sizeof(un));
    a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    a->is_unix = true;
    memcpy(a->path, path, len + 1);
    return NULL;
}

static const char *parse_port(const char *text, uint16_t *port)
{
    int64_t n;
    if (text_parse_count(text, &n) < 0 || n > UINT16_MAX)
        return "the port is not a number from 0 to 65535";
    *port = (uint16_t)n;
    return NULL;
}

static const char *parse_v6(const char *text, struct address *a)
{
    char host[INET6_ADDRSTRLEN];
    const char *close = strchr(text, ']');
    if (!close || close[1] != ':')
        return "an IPv6 address is written [ADDR]:PORT";
    size_t len = (size_t)(close - text) - 1;
    if (len >= sizeof(host))
        return "not an IPv6 address";
    memcpy(host, text + 1, len);
    host[len] = '\0';
    struct in6_addr in6;
    uint16_t port = 0;
    if (inet_pton(AF_INET6, host, &in6) != 1)
        return "not an IPv6 address (numbers only)";
    const char *reason = parse_port(close + 2, &port);
    if (!reason)
        set_v6(a, &in6, port);
    return reason;
}

static const char *parse_v4(const char *text, struct address *a)
{
    char host[32];
    const char *colon = strchr(text, ':');
    if (!colon)
        return "no port: write ADDR:PORT, [ADDR]:PORT, *:PORT or unix:PATH";
    if (strchr(colon + 1, ':'))
        return "a colon too many: an IPv6 address is written [ADDR]:PORT";
    size_t len = (size_t)(colon - text);
    if (!len)
        return "no address before the port: write 127.0.0.1:PORT, or *:PORT for all of them";
    static const char no_name[] = "not an address (numbers only, * or localhost)";
    if (len >= sizeof(host))
        return no_name;
    memcpy(host, text, len);
    host[len] = '\0';
    uint16_t port = 0;
    const char *reason = parse_port(colon + 1, &port);
    if (reason)
        return reason;
    struct in_addr in;
    if (!strcmp(host, "*")) {
        set_v6(a, &in6addr_any, port);
        a->is_dual = true;
    } else if (!strcmp(host, "localhost")) {
        in.s_addr = htonl(INADDR_LOOPBACK);
        set_v4(a, in, port);
    } else if (inet_pton(AF_INET, host, &in) == 1)
        set_v4(a, in, port);
    else
        return no_name;
    return NULL;
}

int address_parse(const char *text, struct address *out, const char **reason)
{
    struct address a = {0};
    const char *why;
    if (!strncmp(text, "unix:", 5))
        why = parse_unix(text + 5, &a);
    else if (text[0] == '[')
        why = parse_v6(text, &a);
    else
        why = parse_v4(text, &a);
    if (why) {
        *reason = why;
        return -EINVAL;
    }
    *out = a;
    return 0;
}

int address_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct address *out)
{
    struct address a = {0};
    if (len > sizeof(a.storage))
        return -EAFNOSUPPORT;
    if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        set_v4(&a, in.sin_addr, ntohs(in.sin_port));
    } else if (len >= sizeof(struct sockaddr_in6) && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        set_v6(&a, &in6.sin6_addr, ntohs(in6.sin6_port));
    } else if (len >= offsetof(struct sockaddr_un, sun_path) && sa->sa_family == AF_UNIX) {
        a.is_unix = true; /* clients' sockets have no name: an empty path */
        memcpy(&a.storage, sa, len);
        a.len = len;
        size_t n = len - offsetof(struct sockaddr_un, sun_path);
        if (n >= sizeof(a.path))
            n = sizeof(a.path) - 1;
        memcpy(a.path, (const char *)sa + offsetof(struct sockaddr_un, sun_path), n);
    } else
        return -EAFNOSUPPORT;
    *out = a;
    return 0;
}

void address_any_v4(uint16_t port, struct address *out)
{
    *out = (struct address){0};
    set_v4(out, (struct in_addr){htonl(INADDR_ANY)}, port);
}

void address_format(const struct address *a, char out[ADDRESS_TEXT_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->is_unix) {
        snprintf(out, ADDRESS_TEXT_BYTES, "unix:%s", a->path);
    } else if (a->is_dual) {
        snprintf(out, ADDRESS_TEXT_BYTES, "*:%u", a->port);
    } else if (a->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &a->storage, sizeof(in6));
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
        snprintf(out, ADDRESS_TEXT_BYTES, "[%s]:%u", host, a->port);
    } else {
        struct sockaddr_in in;
        memcpy(&in, &a->storage, sizeof(in));
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
        snprintf(out, ADDRESS_TEXT_BYTES, "%s:%u", host, a->port);
    }
}

bool address_is_local(const struct address *a)
{
    if (a->is_unix)
        return true;
    if (a->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &a->storage, sizeof(in6));
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
            return in6.sin6_addr.s6_addr[12] == 127;
        return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
    }
    struct sockaddr_in in;
    memcpy(&in, &a->storage, sizeof(in));
    return ntohl(in.sin_addr.s_addr) >> 24 == 127;
}

/* Everything else in the structure was zeroed by the setters. */
static bool is_same(const struct address *a, const struct address *b)
{
    return a->len == b->len && !memcmp(&a->storage, &b->storage, a->len);
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->is_unix != b->is_unix)
        return false;
    if (a->is_unix)
        return !strcmp(a->path, b->path);
    if (!a->port || a->port != b->port)
        return false;
    struct address any;
    address_any_v4(a->port, &any);
    if (a->is_dual && b->storage.ss_family == AF_INET)
        return is_same(b, &any);
    if (b->is_dual && a->storage.ss_family == AF_INET)
        return is_same(a, &any);
    return is_same(a, b);
}
