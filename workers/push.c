#include "config.h"

#include "workers/push.h"

#include <string.h>

#define DIGITS_MAX 10      /* of a length or a number: no push needs more */
#define NAME_MAX_BYTES 65536 /* of a kind or channel */

/* What is left to read; ptr NULL once it was not as expected, or not there. */
struct rest {
    const char *ptr;
    const char *end;
    bool is_cut;
};

static long long stop(struct rest *r, bool is_cut)
{
    r->ptr = NULL;
    r->is_cut = is_cut;
    return 0;
}

/* The type's byte, digits, CR LF. */
static long long take_number(struct rest *r, char type)
{
    long long value = 0;
    const char *p = r->ptr, *first;
    if (!p)
        return 0;
    if (p == r->end || *p != type)
        return stop(r, p == r->end);
    for (first = ++p; p < r->end && *p >= '0' && *p <= '9' && p - first < DIGITS_MAX; p++)
        value = value * 10 + (*p - '0');
    if (r->end - p < 2)
        return stop(r, p == r->end || (*p == '\r' && p > first));
    if (*first == '0' && p - first > 1) /* hiredis takes no leading zeros */
        return stop(r, false);
    if (p == first || p[0] != '\r' || p[1] != '\n')
        return stop(r, false);
    r->ptr = p + 2;
    return value;
}

static struct text_span take_string(struct rest *r, long long max)
{
    long long len = take_number(r, '$');
    const char *p = r->ptr;
    if (!p)
        return (struct text_span){0};
    if (len > max || r->end - p < len + 2 || p[len] != '\r' || p[len + 1] != '\n') {
        stop(r, len <= max && r->end - p < len + 2);
        return (struct text_span){0};
    }
    r->ptr = p + len + 2;
    return (struct text_span){p, (size_t)len};
}

/* The third part. True: it is a payload larger than the limit. */
static bool take_last(struct rest *r, const char *bytes, size_t max_payload, struct push *p)
{
    p->is_number = r->ptr && r->ptr < r->end && *r->ptr == ':';
    if (p->is_number) {
        p->number = take_number(r, ':');
        return false;
    }
    struct rest at = *r;
    long long len = take_number(&at, '$');
    if (!at.ptr || (size_t)len <= max_payload) {
        p->payload = take_string(r, len);
        return false;
    }
    p->payload = (struct text_span){NULL, (size_t)len};
    p->size = (uint64_t)(at.ptr - bytes) + (uint64_t)len + 2;
    return true;
}

enum push_result push_read(const char *bytes, size_t len, size_t max_payload, struct push *out)
{
    static const char array[] = "*3\r\n";
    struct rest r = {bytes, bytes + len, false};
    struct push p = {0};
    if (len < 4)
        return memcmp(bytes, array, len) == 0 ? PUSH_CUT : PUSH_OTHER;
    if (memcmp(bytes, array, 4) != 0)
        return PUSH_OTHER;
    r.ptr += 4;
    p.kind = take_string(&r, NAME_MAX_BYTES);
    p.channel = take_string(&r, NAME_MAX_BYTES);
    bool is_large = r.ptr && take_last(&r, bytes, max_payload, &p);
    if (!r.ptr && !is_large)
        return r.is_cut ? PUSH_CUT : PUSH_OTHER;
    if (!is_large)
        p.size = (uint64_t)(r.ptr - bytes);
    *out = p;
    return is_large ? PUSH_LARGE : PUSH_WHOLE;
}
