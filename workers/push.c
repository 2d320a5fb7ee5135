#include "config.h"

#include "workers/push.h"

#include <string.h>

#define DIGITS_MAX 10 /* of a length or a number: no push needs more */

/* What is left to read; ptr NULL once it was not as expected. */
struct rest {
    const char *ptr;
    const char *end;
};

/* The type's byte, digits, CR LF. */
static long long take_number(struct rest *r, char type)
{
    long long value = 0;
    const char *p = r->ptr, *first = p + 1;
    if (!p || r->end - p < 4 || *p != type)
        goto other;
    for (p = first; p < r->end && *p >= '0' && *p <= '9' && p - first < DIGITS_MAX; p++)
        value = value * 10 + (*p - '0');
    if (p == first || r->end - p < 2 || p[0] != '\r' || p[1] != '\n')
        goto other;
    r->ptr = p + 2;
    return value;
other:
    r->ptr = NULL;
    return 0;
}

static struct text_span take_string(struct rest *r)
{
    long long len = take_number(r, '$');
    const char *p = r->ptr;
    if (!p || r->end - p < len + 2 || p[len] != '\r' || p[len + 1] != '\n') {
        r->ptr = NULL;
        return (struct text_span){0};
    }
    r->ptr = p + len + 2;
    return (struct text_span){p, (size_t)len};
}

size_t push_read(const char *bytes, size_t len, struct push *out)
{
    struct rest r = {bytes, bytes + len};
    struct push p = {0};
    if (len < 4 || memcmp(bytes, "*3\r\n", 4) != 0)
        return 0;
    r.ptr += 4;
    p.kind = take_string(&r);
    p.channel = take_string(&r);
    p.is_number = r.ptr && r.ptr < r.end && *r.ptr == ':';
    if (p.is_number)
        p.number = take_number(&r, ':');
    else
        p.payload = take_string(&r);
    if (!r.ptr)
        return 0;
    *out = p;
    return (size_t)(r.ptr - bytes);
}
