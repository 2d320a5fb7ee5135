#include "config.h"

#include "shared/redisurl.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "shared/text.h"

#define DEFAULT_PORT 6379
#define DB_MAX 1000000 /* the server knows how many it has; this only keeps out nonsense */

static bool starts_with(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix));
}

static bool parse_number(struct text_span text, int64_t max, int *out)
{
    char digits[16];
    int64_t n;
    if (!text.len || text.len >= sizeof(digits))
        return false;
    memcpy(digits, text.ptr, text.len);
    digits[text.len] = '\0';
    if (text_parse_count(digits, &n) < 0 || n > max)
        return false;
    *out = (int)n;
    return true;
}

/* Percent-decodes one part; NULL or the reason why not. */
static const char *decode(struct text_span in, char *out, size_t cap, const char *too_long)
{
    int n = text_percent_decode(in, false, out, cap);
    if (n == -ENOSPC)
        return too_long;
    return n < 0 ? "a % that is not followed by two hexadecimal digits (write %25 for it)" : NULL;
}

/* USER:PASSWORD before the '@'. */
static const char *parse_credentials(struct text_span in, struct redisurl *out)
{
    const char *colon = memchr(in.ptr, ':', in.len);
    if (!colon)
        return "credentials without a colon: write USER:PASSWORD@ or :PASSWORD@";
    struct text_span user = {in.ptr, (size_t)(colon - in.ptr)};
    struct text_span password = {colon + 1, in.len - user.len - 1};
    const char *reason = decode(user, out->user, sizeof(out->user), "the user is too long");
    if (reason)
        return reason;
    if (user.len && !password.len)
        return "a user without a password";
    return decode(password, out->password, sizeof(out->password), "the password is too long");
}

/* HOST[:PORT] or [v6][:PORT]. */
static const char *parse_host(struct text_span in, struct redisurl *out)
{
    struct text_span host = in, port = {0};
    bool has_port = false;
    if (in.len && in.ptr[0] == '[') {
        const char *close = memchr(in.ptr, ']', in.len);
        if (!close)
            return "[ without ]";
        host = (struct text_span){in.ptr + 1, (size_t)(close - in.ptr) - 1};
        size_t rest = in.len - host.len - 2;
        if (rest && close[1] != ':')
            return "something other than :PORT after ]";
        has_port = rest > 0;
        port = (struct text_span){close + 2, has_port ? rest - 1 : 0};
    } else {
        const char *colon = memchr(in.ptr, ':', in.len);
        if (colon) {
            host.len = (size_t)(colon - in.ptr);
            has_port = true;
            port = (struct text_span){colon + 1, in.len - host.len - 1};
            if (memchr(port.ptr, ':', port.len))
                return "a colon too many (IPv6 addresses stand in brackets)";
        }
    }
    if (!host.len)
        return "no host";
    if (has_port && (!parse_number(port, 65535, &out->port) || out->port == 0))
        return "the port is not a number from 1 to 65535";
    return decode(host, out->host, sizeof(out->host), "the host is too long");
}

/* "?db=N", the only query there is. */
static const char *parse_query(struct text_span query, struct redisurl *out)
{
    if (!query.len)
        return NULL;
    if (query.len < 3 || memcmp(query.ptr, "db=", 3))
        return "an unknown word after ? (only db=N is known)";
    struct text_span number = {query.ptr + 3, query.len - 3};
    return parse_number(number, DB_MAX, &out->db) ? NULL : "the database is not a number";
}

/* Takes off what follows '?'. */
static struct text_span cut_query(struct text_span *rest)
{
    const char *mark = rest->len ? memchr(rest->ptr, '?', rest->len) : NULL;
    if (!mark)
        return (struct text_span){0};
    struct text_span query = {mark + 1, rest->len - (size_t)(mark - rest->ptr) - 1};
    rest->len = (size_t)(mark - rest->ptr);
    return query;
}

/* rest: what follows "scheme://". */
static const char *parse_rest(struct text_span rest, struct redisurl *out)
{
    /* The authority ends at the first slash (RFC 3986, section 3.2): a slash in a password is
     * written %2F. */
    const char *slash = rest.len ? memchr(rest.ptr, '/', rest.len) : NULL;
    struct text_span authority = {rest.ptr, slash ? (size_t)(slash - rest.ptr) : rest.len};
    if (!slash) { /* "redis://host?db=3" */
        struct text_span query = cut_query(&authority);
        rest = (struct text_span){query.ptr ? query.ptr - 1 : rest.ptr,
                                  query.ptr ? query.len + 1 : 0};
    } else
        rest = (struct text_span){slash, rest.len - authority.len};
    const char *at = authority.len ? memrchr(authority.ptr, '@', authority.len) : NULL;
    const char *reason = NULL;
    if (at) {
        size_t len = (size_t)(at - authority.ptr);
        reason = parse_credentials((struct text_span){authority.ptr, len}, out);
        authority = (struct text_span){at + 1, authority.len - len - 1};
    }
    if (reason)
        return reason;
    struct text_span query = cut_query(&rest);
    if (out->is_unix) {
        if (authority.len)
            return "a host in a unix URL: write unix:///PATH";
        if (rest.len < 2)
            return "no path: write unix:///PATH";
        reason = decode(rest, out->host, 108, "the socket's path is too long (107 bytes)");
    } else {
        reason = parse_host(authority, out);
        if (!reason && rest.len > 1 &&
            !parse_number((struct text_span){rest.ptr + 1, rest.len - 1}, DB_MAX, &out->db))
            return "the database after the host is not a number";
    }
    return reason ? reason : parse_query(query, out);
}

static bool has_bad_byte(const char *url)
{
    for (const char *p = url; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7F)
            return true;
    return false;
}

static const char *parse(const char *url, struct redisurl *u)
{
    if (!strcmp(url, "embedded")) {
        u->is_embedded = true;
        return NULL;
    }
    if (has_bad_byte(url))
        return "a blank or control character (write blanks as %20)";
    const char *rest;
    if (starts_with(url, "redis://"))
        rest = url + strlen("redis://");
    else if (starts_with(url, "rediss://")) {
#ifndef HAVE_HIREDIS_SSL
        return "rediss:// is not in this build (hiredis_ssl was not found)";
#endif
        u->is_tls = true;
        rest = url + strlen("rediss://");
    } else if (starts_with(url, "unix://")) {
        u->is_unix = true;
        rest = url + strlen("unix://");
    } else
        return "does not begin with redis://, rediss:// or unix://, and is not the word embedded";
    u->port = u->is_unix ? 0 : DEFAULT_PORT;
    return parse_rest(text_span_of(rest), u);
}

int redisurl_parse(const char *url, struct redisurl *out, const char **reason)
{
    struct redisurl u = {0};
    const char *why = parse(url, &u);
    if (why) {
        *reason = why;
        return -EINVAL;
    }
    *out = u;
    return 0;
}

void redisurl_describe(const struct redisurl *u, char *out, unsigned long cap)
{
    if (u->is_embedded)
        snprintf(out, cap, "embedded");
    else if (u->is_unix)
        snprintf(out, cap, u->db ? "unix://%s?db=%d" : "unix://%s", u->host, u->db);
    else
        snprintf(out, cap, strchr(u->host, ':') ? "%s://[%s]:%d/%d" : "%s://%s:%d/%d",
                 u->is_tls ? "rediss" : "redis", u->host, u->port, u->db);
}
