/*
 * fuzz_http.c - requests (workers/http.c). The input is one or more of them, as a client sends
 * them without waiting.
 *
 * Holds: the same whole, byte by byte and in pieces; never more kept than the limits allow; nothing
 * is used beyond the end of a request; nothing of a request's head holds a line's end or a NUL.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include "workers/http.h"

#define MAX_HEAD 1000
#define MAX_BODY 300
#define REQUESTS_MAX 8

static const struct http_limits limits = {MAX_HEAD, MAX_BODY};
static const char *const names[] = {"Host",           "Content-Length", "Transfer-Encoding",
                                    "Connection",     "Upgrade",        "Origin",
                                    "Authorization",  "Expect",         "Sec-WebSocket-Key",
                                    "Sec-WebSocket-Protocol", "x"};
#define NAMES (sizeof(names) / sizeof(names[0]))

static bool is_printable(struct text_span s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' && s.ptr[i] != '\t')
            return false;
    return true;
}

static size_t walk_list(struct text_span value)
{
    struct text_span item;
    size_t count = 0;
    while (http_list_next(&value, &item)) {
        FUZZ_CHECK(item.len > 0);
        fuzz_touch(item);
        count++;
    }
    return count;
}

/* A whole request holds what it must. */
static void check_request(const struct http *h)
{
    struct text_span value;
    size_t head = http_path(h).len + http_query(h).len;
    FUZZ_CHECK(http_is_started(h));
    FUZZ_CHECK(strlen(http_method(h)) > 0);
    FUZZ_CHECK(http_path(h).len > 0);
    FUZZ_CHECK(is_printable(http_path(h)) && is_printable(http_query(h)));
    FUZZ_CHECK(!memchr(http_path(h).ptr, '?', http_path(h).len));
    FUZZ_CHECK(http_minor_version(h) == 0 || http_minor_version(h) == 1);
    FUZZ_CHECK(http_minor_version(h) == 0 || http_header_count(h, "Host") == 1);
    FUZZ_CHECK(http_body(h).len <= MAX_BODY);
    fuzz_touch(http_body(h));
    for (size_t i = 0; i < NAMES; i++) {
        int count = http_header_count(h, names[i]);
        bool is_there = http_header(h, names[i], &value);
        FUZZ_CHECK(is_there == (count > 0));
        FUZZ_CHECK(count <= HTTP_MAX_HEADERS);
        if (!is_there)
            continue;
        FUZZ_CHECK(is_printable(value));
        FUZZ_CHECK(value.len <= MAX_HEAD);
        head += value.len;
        walk_list(value);
        http_header_has(h, names[i], "websocket");
    }
    FUZZ_CHECK(head <= MAX_HEAD);
    FUZZ_CHECK(!http_is_upgrade(h) || http_header_count(h, "Upgrade") > 0);
    (void)http_keep_alive(h);
}

/* Everything that can be asked about a request, the same of both. */
static void check_same(const struct http *a, const struct http *b)
{
    struct text_span of_a, of_b;
    FUZZ_CHECK(!strcmp(http_method(a), http_method(b)));
    FUZZ_CHECK(fuzz_same(http_path(a), http_path(b)));
    FUZZ_CHECK(fuzz_same(http_query(a), http_query(b)));
    FUZZ_CHECK(fuzz_same(http_body(a), http_body(b)));
    FUZZ_CHECK(http_keep_alive(a) == http_keep_alive(b));
    FUZZ_CHECK(http_is_upgrade(a) == http_is_upgrade(b));
    for (size_t i = 0; i < NAMES; i++) {
        bool in_a = http_header(a, names[i], &of_a), in_b = http_header(b, names[i], &of_b);
        FUZZ_CHECK(in_a == in_b && (!in_a || fuzz_same(of_a, of_b)));
    }
}

/* Feeds in pieces of that many bytes; the result, and how many bytes were used. */
static int feed(struct http *h, const uint8_t *bytes, size_t len, size_t step, size_t *used)
{
    int result = 0;
    *used = 0;
    while (*used < len && !result) {
        size_t n = len - *used < step ? len - *used : step, taken = 0;
        char *copy = fuzz_copy((struct text_span){(const char *)bytes + *used, n});
        result = http_feed(h, copy, n, &taken);
        free(copy);
        FUZZ_CHECK(taken <= n);
        FUZZ_CHECK(result != 0 || taken == n);
        *used += taken;
    }
    return result;
}

static bool is_refusal(int result)
{
    return result == -400 || result == -405 || result == -413 || result == -431 ||
           result == -501 || result == -505;
}

static void respond(const struct http *h, int result)
{
    struct text_buf out = {0};
    http_respond(&out, result < 0 ? -result : 200, "text/plain", NULL, http_body(h),
                 result > 0 && http_keep_alive(h), false);
    FUZZ_CHECK(!out.failed && out.len > 0);
    text_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t steps[] = {1, 7};
    for (int request = 0; size > 0 && request < REQUESTS_MAX; request++) {
        size_t used, taken;
        struct http *whole = http_new(&limits);
        FUZZ_CHECK(whole);
        int result = feed(whole, data, size, size, &used);
        FUZZ_CHECK(result == 0 || result == 1 || is_refusal(result));
        for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
            struct http *pieces = http_new(&limits);
            FUZZ_CHECK(pieces);
            FUZZ_CHECK(feed(pieces, data, size, steps[i], &taken) == result);
            if (result == 1) {
                FUZZ_CHECK(taken == used);
                check_same(whole, pieces);
            }
            http_free(pieces);
        }
        if (result == 1)
            check_request(whole);
        respond(whole, result);
        http_free(whole);
        if (result != 1)
            break;
        data += used;
        size -= used;
    }
    return 0;
}
