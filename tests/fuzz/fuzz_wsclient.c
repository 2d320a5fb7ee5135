/*
 * fuzz_wsclient.c - what a server says to belfryctl (src/wsclient.c). The input is the head of its
 * answer and what follows, as it comes over the socket.
 *
 * Holds: a head is read as the same whole and in pieces, and is never longer than the limit; an
 * upgrade is taken only with the right accept value, and a refusal told in words; the same messages
 * and the same end whether the bytes came with the head or after it.
 */
#include "config.h"

#include "src/wsclient.c"

#include "tests/fuzz/fuzz.h"

#define MESSAGES_MAX 200
#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455, section 1.3, with its accept value */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static void check_response(const uint8_t *data, size_t size)
{
    struct wsclient_response whole = {0}, part = {0};
    int result = 0, so_far = 0;
    char *copy = fuzz_copy((struct text_span){(const char *)data, size});
    result = wsclient_response_parse(copy, size, &whole);
    free(copy);
    FUZZ_CHECK(result == 0 || result == 1 || result == -EBADMSG || result == -EMSGSIZE);
    if (result == 1)
        FUZZ_CHECK(whole.head_bytes <= size && whole.head_bytes <= WSCLIENT_HEAD_MAX_BYTES);
    for (size_t len = 0; len <= size && !so_far && len < 600; len++) {
        copy = fuzz_copy((struct text_span){(const char *)data, len});
        so_far = wsclient_response_parse(copy, len, &part);
        free(copy);
    }
    if (result == 1 && whole.head_bytes < 600)
        FUZZ_CHECK(so_far == 1 && !memcmp(&whole, &part, sizeof(whole)));
}

/* What becomes of the upgrade. */
static void check_answer(const uint8_t *data, size_t size)
{
    const struct wsclient_config config = {.subprotocol = "belfry"};
    struct wsclient c = {0};
    char why[300] = "";
    int fds[2];
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    if (size)
        (void)!send(fds[1], data, size, MSG_NOSIGNAL);
    shutdown(fds[1], SHUT_WR);
    c.fd = fds[0];
    int result = read_response(&c, &config, KEY, clock_mono_ms() + 1000, why, sizeof(why));
    FUZZ_CHECK(result == 0 || result == -ECONNRESET || *why);
    if (result == 0) {
        FUZZ_CHECK(memmem(data, size, ACCEPT, strlen(ACCEPT)));
        FUZZ_CHECK(c.early_taken <= c.early.len);
    }
    text_buf_free(&c.early);
    close(fds[0]);
    close(fds[1]);
}

/* A client behind its upgrade: early bytes that came with the head, the rest over the socket. */
static struct text_buf hear(struct text_span early, struct text_span late)
{
    struct text_buf heard = {0};
    struct text_span message;
    int fds[2], result;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    struct wsclient *c = calloc(1, sizeof(*c));
    FUZZ_CHECK(c);
    c->fd = fds[0];
    c->last = &c->first;
    if (early.len)
        text_add(&c->early, early.ptr, early.len);
    FUZZ_CHECK(start_frames(c) == 0);
    if (late.len)
        (void)!send(fds[1], late.ptr, late.len, MSG_NOSIGNAL);
    shutdown(fds[1], SHUT_WR);
    for (int i = 0; i < MESSAGES_MAX; i++) {
        if ((result = wsclient_next(c, clock_mono_ms() + 1000, &message)) != 1)
            break;
        FUZZ_CHECK(text_is_utf8(message.ptr, message.len));
        text_addf(&heard, "%zu:", message.len);
        text_add(&heard, message.ptr, message.len);
    }
    FUZZ_CHECK(result == 0 || result == 1);
    text_addf(&heard, "%d %s", wsclient_close_code(c), wsclient_close_reason(c));
    wsclient_free(c);
    close(fds[1]);
    return heard;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_response(data, size);
    check_answer(data, size);
    const char *head = memmem(data, size, "\r\n\r\n", 4);
    struct text_span frames = {(const char *)data, size};
    if (head) {
        frames.ptr = head + 4;
        frames.len = size - (size_t)(frames.ptr - (const char *)data);
    }
    struct text_buf early = hear(frames, (struct text_span){0});
    struct text_buf late = hear((struct text_span){0}, frames);
    FUZZ_CHECK(fuzz_same(fuzz_span(&early), fuzz_span(&late)));
    text_buf_free(&early);
    text_buf_free(&late);
    return 0;
}
