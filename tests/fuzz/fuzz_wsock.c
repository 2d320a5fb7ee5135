/*
 * fuzz_wsock.c - frames that come in (workers/wsock.c). The input is what a client sends;
 * permessage-deflate is negotiated where the first frame is a deflated one.
 *
 * Holds: the same events whole, byte by byte, and when another process goes on in between
 * (wsock_save); text is UTF-8, no message is larger than the limit, nothing is told after a close
 * or an error; at a message border no context is kept; what wsock_save writes tells nothing when
 * it is fed.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include "workers/deflate.h"
#include "workers/frame.h"
#include "workers/wsock.h"

#define MAX_MESSAGE 200
#define INPUT_MAX_BYTES 700 /* more is only slower */

static bool is_over; /* close or error was told */
static struct deflate *deflate;
static struct wsock_terms terms;

static void tell(void *data, const char *word, const void *bytes, size_t len)
{
    struct text_buf *told = data;
    FUZZ_CHECK(!is_over);
    text_addf(told, "%s %zu ", word, len);
    text_add(told, bytes, len);
    text_addc(told, '\n');
}

static void on_text(void *data, const char *text, size_t len)
{
    FUZZ_CHECK(len <= MAX_MESSAGE);
    FUZZ_CHECK(text_is_utf8(text, len));
    tell(data, "text", text, len);
}

static void on_binary(void *data, const void *bytes, size_t len)
{
    FUZZ_CHECK(len <= MAX_MESSAGE);
    tell(data, "binary", bytes, len);
}

static void on_pong(void *data)
{
    tell(data, "pong", "", 0);
}

static void on_close(void *data, int code)
{
    FUZZ_CHECK((code >= 1000 && code <= 1014 && code != 1004 && code != 1006) ||
               (code >= 3000 && code < 5000));
    tell(data, "close", &code, sizeof(code));
    is_over = true;
}

static void on_send(void *data, const void *frame, size_t len)
{
    const unsigned char *bytes = frame;
    FUZZ_CHECK(len >= 2 && len <= FRAME_CONTROL_MAX);
    FUZZ_CHECK(bytes[0] == (0x80 | FRAME_PONG) && bytes[1] == len - 2);
    tell(data, "send", frame, len);
}

static void on_error(void *data, enum close_reason reason)
{
    FUZZ_CHECK(reason == CLOSE_PROTOCOL || reason == CLOSE_UTF8 ||
               reason == CLOSE_TOO_BIG || (terms.is_deflate && reason == CLOSE_DEFLATE));
    tell(data, "error", &reason, sizeof(reason));
    is_over = true;
}

static const struct wsock_events events = {NULL,     on_text, on_binary, on_pong,
                                           on_close, on_send, on_error};

struct side {
    struct wsock_pool *pool;
    struct wsock *wsock;
    struct text_buf told;
};

static struct side begin(void)
{
    struct side s = {.pool = wsock_pool_new(deflate, &events)};
    FUZZ_CHECK(s.pool);
    is_over = false;
    return s;
}

static void feed(struct side *s, const uint8_t *bytes, size_t len)
{
    char *copy = fuzz_copy((struct text_span){(const char *)bytes, len});
    FUZZ_CHECK(wsock_feed(s->pool, &s->wsock, terms, &s->told, (unsigned char *)copy, len) == 0);
    FUZZ_CHECK(wsock_pool_idle(s->pool) <= 1);
    free(copy);
}

static void end(struct side *s)
{
    wsock_release(s->pool, s->wsock);
    wsock_pool_free(s->pool);
    s->pool = NULL;
    s->wsock = NULL;
}

/* Another process goes on. */
static void move(struct side *s)
{
    struct text_buf saved = {0};
    size_t before = s->told.len;
    bool is_moved = !is_over;
    if (!is_moved)
        return;
    wsock_save(s->wsock, &saved);
    FUZZ_CHECK(!saved.failed && (saved.len > 0) == (s->wsock != NULL));
    FUZZ_CHECK(saved.len <= deflate_bound(MAX_MESSAGE) + 300);
    end(s);
    s->pool = wsock_pool_new(deflate, &events);
    FUZZ_CHECK(s->pool);
    feed(s, (uint8_t *)saved.data, saved.len);
    FUZZ_CHECK(s->told.len == before);
    text_buf_free(&saved);
}

/* What is told of these bytes in pieces of that size, moved after every so many. */
static struct text_buf in_pieces(const uint8_t *bytes, size_t len, size_t step, size_t moves)
{
    struct side s = begin();
    for (size_t at = 0, n = 0; at < len; at += step, n++) {
        feed(&s, bytes + at, len - at < step ? len - at : step);
        if (moves && n % moves == 0)
            move(&s);
    }
    end(&s);
    FUZZ_CHECK(!s.told.failed);
    return s.told;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        size_t step, moves;
    } ways[] = {{1, 0}, {5, 0}, {1, 7}, {13, 1}};
    if (!size || size > INPUT_MAX_BYTES)
        return 0;
    if (!deflate)
        FUZZ_CHECK(deflate = deflate_new(16));
    terms = (struct wsock_terms){MAX_MESSAGE, data[0] & 0x40};
    struct text_buf whole = in_pieces(data, size, size, 0);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct text_buf pieces = in_pieces(data, size, ways[i].step, ways[i].moves);
        FUZZ_CHECK(fuzz_same(fuzz_span(&whole), fuzz_span(&pieces)));
        text_buf_free(&pieces);
    }
    text_buf_free(&whole);
    return 0;
}
