/*
 * redisurl.h - redis-url taken apart.
 *
 * Master (check), workers, belfryctl, libbelfry. Pure. Forms:
 * redis://[USER:PASSWORD@]HOST[:PORT][/DB] (IPv6 in brackets, user and password percent-decoded,
 * ":PASSWORD@" without user), rediss:// the same over TLS where built in, unix:///PATH[?db=N]
 * (user:password@ allowed before the path), embedded (only the master understands it).
 */
#ifndef BELFRY_SHARED_REDISURL_H
#define BELFRY_SHARED_REDISURL_H

#include <stdbool.h>

struct redisurl {
    bool is_unix;
    bool is_tls;
    bool is_embedded;
    char host[256]; /* or the socket's path */
    int port;
    int db;
    char user[128]; /* "" : none */
    char password[512]; /* "" : none */
};

/* 0, or -EINVAL with *reason a constant text that never contains any of the input. */
int redisurl_parse(const char *url, struct redisurl *out, const char **reason);
/* "redis://host:6379/0" without credentials, for logs and status. */
void redisurl_describe(const struct redisurl *u, char *out, unsigned long cap);

#endif
