#include "config.h"

#include "tests/bench/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The sample of RFC 6455, section 1.3: the answer is known without computing it. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

#define OPCODE 0x0f
#define OPCODE_TEXT 1
#define OPCODE_BINARY 2
#define OPCODE_CLOSE 8
#define OPCODE_PING 9
#define MASKED 0x80
#define SEEN_BITS 64

static void become_live(struct client *c, const struct client_rules *r)
{
    c->state = CLIENT_LIVE;
    r->tally->live++;
    int64_t now_ns = bench_now_ns();
    hist_add(&r->tally->back, (uint64_t)(now_ns - r->share->ordered_ns));
    if (c->closed_ns) {
        struct crowd_phase *phase = &r->tally->phases[r->share->phase];
        uint64_t away_ns = (uint64_t)(now_ns - c->closed_ns);
        c->closed_ns = 0;
        if (away_ns > phase->away_ns)
            phase->away_ns = away_ns;
    }
}

/* ---- opening ---- */

void client_request(const struct client *c, const struct bench *b, struct text_buf *out)
{
    char user[BENCH_USER_BYTES];
    bench_user(b, c->user, user);
    text_adds(out, "GET ");
    bench_expand(out, b->path, c->token, user);
    uint32_t last_seq = c->streams[STREAM_STORED].last_seq;
    char mark = strchr(b->path, '?') ? '&' : '?';
    if (c->is_resuming && c->last_id[0])
        text_addf(out, "%clast_id=%s", mark, c->last_id);
    else if (c->is_resuming && last_seq > 0)
        text_addf(out, "%clast_id=%" PRIu32 "-%s-%" PRIu32, mark, b->run, user, last_seq);
    text_addf(out,
              " HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n",
              b->host, b->port);
    if (b->protocol)
        text_addf(out, "Sec-WebSocket-Protocol: %s\r\n", b->protocol);
    text_adds(out, "\r\n");
}

/* A masked text frame (RFC 6455, section 5.3) with the key 0, which leaves the bytes as they
 * are. */
static void send_hello(struct client *c, const struct client_rules *r)
{
    char user[BENCH_USER_BYTES];
    struct text_buf text = {0}, frame = {0};
    bench_expand(&text, r->b->hello, c->token, bench_user(r->b, c->user, user));
    text_addc(&frame, (char)0x81);
    if (text.len < 126) {
        text_addc(&frame, (char)(MASKED | (int)text.len));
    } else {
        text_addc(&frame, (char)(MASKED | 126));
        text_addc(&frame, (char)(text.len >> 8));
        text_addc(&frame, (char)text.len);
    }
    text_add(&frame, "\0\0\0\0", 4);
    text_add(&frame, text.data, text.len);
    if (!frame.failed && !text.failed)
        r->send(c, frame.data, frame.len);
    text_buf_free(&text);
    text_buf_free(&frame);
}

/* 0 until the head is whole. */
static long take_head(struct client *c, const struct client_rules *r, const char *bytes, size_t len)
{
    const char *end = memmem(bytes, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head = (size_t)(end - bytes) + 4;
    if (head < 12 || memcmp(bytes, "HTTP/1.1 101", 12) != 0 ||
        !memmem(bytes, head, ACCEPT, strlen(ACCEPT))) {
        bench_say("handshake refused: %.*s", (int)(head < 40 ? head : 40), bytes);
        return -ECONNREFUSED;
    }
    c->state = CLIENT_OPEN;
    if (r->b->hello)
        send_hello(c, r);
    if (r->b->is_open_ready)
        become_live(c, r);
    return (long)head;
}

/* ---- messages ---- */

/* Number `seq` came: is it the next one? */
static void note(struct client *c, struct crowd_tally *t, unsigned stream, uint32_t seq)
{
    uint32_t *last_seq = &c->streams[stream].last_seq;
    uint64_t *seen = &c->streams[stream].seen;
    t->delivered++;
    if (seq > *last_seq) {
        uint32_t step = seq - *last_seq;
        t->lost += step - 1;
        *seen = step < SEEN_BITS ? *seen << step | 1 : 1;
        *last_seq = seq;
        return;
    }
    uint32_t age = *last_seq - seq;
    if (age < SEEN_BITS && !(*seen >> age & 1)) {
        *seen |= (uint64_t)1 << age;
        t->disordered++;
        t->lost--;
    } else {
        t->repeated++;
        t->delivered--;
    }
}

static uint64_t number(const char **at, const char *end)
{
    uint64_t value = 0;
    while (*at < end && **at >= '0' && **at <= '9')
        value = value * 10 + (uint64_t)(*(*at)++ - '0');
    return value;
}

static bool skip(const char **at, const char *end, const char *text)
{
    size_t len = strlen(text);
    if ((size_t)(end - *at) < len || memcmp(*at, text, len) != 0)
        return false;
    *at += len;
    return true;
}

void client_note_silence(const struct client *c, const struct client_rules *r, int64_t now_ns)
{
    struct crowd_phase *phase = &r->tally->phases[r->share->phase];
    int64_t from_ns = r->share->phase_from_ns;
    if (c->heard_ns > from_ns)
        from_ns = c->heard_ns;
    if (now_ns - from_ns > (int64_t)phase->silence_ns)
        phase->silence_ns = (uint64_t)(now_ns - from_ns);
}

static void note_flow(struct client *c, const struct client_rules *r, int64_t sent_ns,
                      int64_t now_ns)
{
    struct crowd_phase *phase = &r->tally->phases[r->share->phase];
    client_note_silence(c, r, now_ns);
    c->heard_ns = now_ns;
    phase->delivered++;
    hist_add(&phase->latency, now_ns > sent_ns ? (uint64_t)(now_ns - sent_ns) : 0);
}

/* Nchan's ws+meta.nchan: "id: ID\n", other such lines, an empty one, the message. */
static void take_meta(struct client *c, const char *bytes, size_t len)
{
    static const char name[] = "id: ";
    const char *end = memchr(bytes, '\n', len);
    size_t head = sizeof(name) - 1;
    if (!end || len < head || memcmp(bytes, name, head) != 0)
        return;
    size_t id = (size_t)(end - bytes) - head;
    if (id >= sizeof(c->last_id))
        return;
    memcpy(c->last_id, bytes + head, id);
    c->last_id[id] = '\0';
}

/* One frame may hold several messages (Centrifugo's does). */
static void take_messages(struct client *c, const struct client_rules *r, const char *bytes,
                          size_t len, int64_t now_ns)
{
    static const char mark[] = "\"run\":";
    const char *at = bytes, *end = bytes + len;
    while ((at = memmem(at, (size_t)(end - at), mark, sizeof(mark) - 1))) {
        at += sizeof(mark) - 1;
        if (number(&at, end) != r->b->run || !skip(&at, end, ",\"seq\":"))
            continue;
        uint32_t seq = (uint32_t)number(&at, end);
        if (!skip(&at, end, ",\"sent_ns\":"))
            continue;
        int64_t sent_ns = (int64_t)number(&at, end);
        uint64_t stream = skip(&at, end, ",\"stream\":") ? number(&at, end) : STREAM_STORED;
        if (stream >= STREAMS)
            continue;
        note(c, r->tally, (unsigned)stream, seq);
        if (r->share->phase_from_ns)
            note_flow(c, r, sent_ns, now_ns);
        else if (sent_ns >= r->share->measure_from_ns && now_ns >= sent_ns)
            hist_add(&r->tally->latency, (uint64_t)(now_ns - sent_ns));
    }
}

static void take_text(struct client *c, const struct client_rules *r, const char *bytes, size_t len,
                      int64_t now_ns)
{
    static const char refused[] = "\"recovered\":false";
    if (c->state == CLIENT_OPEN) {
        if (c->is_resuming && memmem(bytes, len, refused, sizeof(refused) - 1))
            r->tally->unrecovered++;
        become_live(c, r);
    }
    if (r->b->protocol)
        take_meta(c, bytes, len);
    take_messages(c, r, bytes, len, now_ns);
}

static void answer_ping(struct client *c, const struct client_rules *r, const char *payload,
                        size_t len)
{
    char frame[6 + 125] = {(char)0x8a, (char)(MASKED | (int)len)};
    memcpy(frame + 6, payload, len);
    r->send(c, frame, 6 + len);
}

/* Length of the frame's head, 0 until it is whole; the payload's in *payload_len. */
static size_t frame_head(const unsigned char *p, size_t len, uint64_t *payload_len)
{
    size_t bytes = len < 2 ? 0 : p[1] == 126 ? 2 : p[1] == 127 ? 8 : 0;
    if (len < 2 + bytes)
        return 0;
    *payload_len = bytes ? 0 : p[1];
    for (size_t i = 0; i < bytes; i++)
        *payload_len = *payload_len << 8 | p[2 + i];
    return 2 + bytes;
}

long client_feed(struct client *c, const struct client_rules *r, const char *bytes, size_t len)
{
    size_t used = 0;
    int64_t now_ns = bench_now_ns();
    if (c->state == CLIENT_SHAKING) {
        long head = take_head(c, r, bytes, len);
        if (head <= 0)
            return head;
        used = (size_t)head;
    }
    for (;;) {
        const char *at = bytes + used;
        uint64_t payload = 0;
        size_t head = frame_head((const unsigned char *)at, len - used, &payload);
        if (!head || payload > len - used - head)
            return (long)used;
        int opcode = at[0] & OPCODE;
        if (opcode == OPCODE_TEXT || opcode == OPCODE_BINARY)
            take_text(c, r, at + head, (size_t)payload, now_ns);
        else if (opcode == OPCODE_PING && payload < 126)
            answer_ping(c, r, at + head, (size_t)payload);
        else if (opcode == OPCODE_CLOSE)
            return -ECONNRESET;
        used += head + (size_t)payload;
    }
}

void client_end(struct client *c, const struct client_rules *r, enum bench_stream stream,
                uint32_t last_seq)
{
    if (last_seq > c->streams[stream].last_seq)
        r->tally->lost += last_seq - c->streams[stream].last_seq;
}
