#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/commands.h"
#include "workers/conn_internal.h"
#include "workers/filter.h"
#include "workers/session.h"

/* What a close frame waits behind; more is dropped, for the client resumes anyway. */
#define CLOSE_QUEUE_MAX_BYTES 65536
#define RATE_UNIT 1000 /* rate_tokens of one message */
#define RATE_BURST 2   /* seconds' worth */
#define NO_STATUS 1005

static bool is_listening(const struct conn *c)
{
    return c->state == CONN_AUTH || c->state == CONN_OPEN;
}

/* ---- becoming a WebSocket ---- */

static void become_websocket(struct conn *c)
{
    int64_t now_ms = worker_now_ms(c->worker);
    c->state = CONN_AUTH;
    c->was_ws = c->is_counted_ws = true;
    c->last_read_ms = c->rate_at_ms = now_ms;
    c->rate_tokens = (uint32_t)c->worker->opt->client_message_rate * RATE_BURST * RATE_UNIT;
    counters_inc(CTR_websockets);
    counters_inc(CTR_websockets_opened);
    conn_set_phase(c, c->worker->opt->auth_timeout);
}

static void take_claims(struct conn *c, const struct token_claims *claims)
{
    c->is_admin = claims->is_admin;
    c->token_expires_ms =
        claims->expires_at_ms ? claims->expires_at_ms + c->worker->opt->jwt_leeway : 0;
}

/* The user is known. False when the connection is being closed instead. */
static bool open_session(struct conn *c, const struct token_claims *claims, struct resume *resume,
                         struct filter *filter)
{
    take_claims(c, claims);
    c->state = CONN_OPEN;
    conn_set_phase(c, 0);
    int error = session_open(c->worker, &c->device, claims, resume, filter);
    if (error)
        conn_close(c, error == -EDQUOT ? CLOSE_USER_LIMIT : CLOSE_INTERNAL);
    return error == 0;
}

void conn_upgraded(struct conn *c, const struct token_claims *claims, struct resume *resume,
                   struct filter *filter)
{
    if (c->state != CONN_HTTP) {
        free(resume);
        filter_free(filter);
        return;
    }
    become_websocket(c);
    if (claims) {
        open_session(c, claims, resume, filter);
    } else {
        c->device.resume = resume;
        c->device.filter = filter;
    }
}

void conn_upgraded_echo(struct conn *c)
{
    if (c->state != CONN_HTTP)
        return;
    become_websocket(c);
    c->is_echo = true;
    c->state = CONN_OPEN;
    conn_set_phase(c, 0);
}

bool conn_authenticated(struct conn *c, const struct token_claims *claims, struct resume *resume,
                        struct filter *filter)
{
    if (c->state == CONN_AUTH) {
        /* The frame's wishes come before those of the query. */
        struct resume *asked = resume ? resume : c->device.resume;
        struct filter *wanted = filter ? filter : c->device.filter;
        if (asked != c->device.resume)
            free(c->device.resume);
        if (wanted != c->device.filter)
            filter_free(c->device.filter);
        c->device.resume = NULL;
        c->device.filter = NULL;
        return open_session(c, claims, asked, wanted);
    }
    free(resume);
    filter_free(filter);
    if (c->state != CONN_OPEN)
        return false;
    const struct user *u = c->device.user;
    if (!u || u->id_len != claims->user_id_len ||
        memcmp(u->id, claims->user_id, claims->user_id_len) != 0) {
        conn_close(c, CLOSE_AUTH);
        return false;
    }
    take_claims(c, claims);
    conn_arm(c);
    return true;
}

/* ---- what the client says ---- */

/* Token bucket: client-message-rate a second, bursts of RATE_BURST times as many. */
static bool is_within_rate(struct conn *c)
{
    uint64_t rate = (uint64_t)c->worker->opt->client_message_rate;
    if (rate == 0)
        return true;
    int64_t now_ms = worker_now_ms(c->worker);
    uint64_t full = rate * RATE_BURST * RATE_UNIT;
    uint64_t passed_ms = now_ms > c->rate_at_ms ? (uint64_t)(now_ms - c->rate_at_ms) : 0;
    if (passed_ms > RATE_BURST * 1000)
        passed_ms = RATE_BURST * 1000; /* full again */
    uint64_t tokens = c->rate_tokens + passed_ms * rate;
    c->rate_at_ms = now_ms;
    c->rate_tokens = (uint32_t)(tokens < full ? tokens : full);
    if (c->rate_tokens < RATE_UNIT)
        return false;
    c->rate_tokens -= RATE_UNIT;
    return true;
}

/* True when the message may be looked at. */
static bool admit(struct conn *c)
{
    if (!is_listening(c))
        return false;
    if (is_within_rate(c))
        return true;
    conn_close(c, CLOSE_RATE);
    return false;
}

static void send_back(struct conn *c, int opcode, const void *bytes, size_t len)
{
    struct frame *f = frame_data(FRAME_REPLY, opcode, bytes, len);
    if (f)
        conn_send(c, f);
    else
        conn_close(c, CLOSE_INTERNAL);
    frame_unref(f);
}

static void on_text(void *data, const char *text, size_t len)
{
    struct conn *c = data;
    if (!admit(c))
        return;
    if (c->is_echo)
        send_back(c, FRAME_TEXT, text, len);
    else
        commands_on_message(c, text, len);
}

static void on_binary(void *data, const void *bytes, size_t len)
{
    struct conn *c = data;
    if (!admit(c))
        return;
    if (c->is_echo)
        send_back(c, FRAME_BINARY, bytes, len);
    else
        conn_close(c, CLOSE_BINARY);
}

static void on_send(void *data, const void *frame, size_t len)
{
    struct conn *c = data;
    if (!is_listening(c)) /* nothing follows our close frame */
        return;
    if (outq_push_control(&c->outq, frame, len) != 0)
        conn_drop(c, CLOSE_INTERNAL);
    conn_mark(c);
}

/* The last of our words is queued, and the peer's are of no interest any more. */
static void close_tcp_after_flush(struct conn *c)
{
    c->close_after_flush = true;
    conn_mark(c);
}

/* Queues our close frame behind what waits. */
static void send_close(struct conn *c, int code, const char *reason)
{
    unsigned char frame[FRAME_CONTROL_MAX];
    size_t len = frame_close(frame, code, reason);
    c->close_frame_sent = true;
    c->closing_ms = worker_now_ms(c->worker);
    c->state = CONN_CLOSING;
    if (outq_push_bytes(&c->outq, frame, len) != 0) {
        conn_end(c);
        return;
    }
    conn_set_phase(c, CONN_CLOSE_TIMEOUT_MS);
    conn_mark(c);
}

static void on_close(void *data, int code)
{
    struct conn *c = data;
    c->close_frame_received = true;
    if (is_listening(c)) {
        conn_end_websocket(c, CLOSE_CLIENT, code);
        /* It may have asked something just before: what waits still goes out, if it is not much. */
        if (c->outq.bytes > CLOSE_QUEUE_MAX_BYTES)
            outq_drop_frames(&c->outq);
        send_close(c, code, ""); /* RFC 6455, section 5.5.1: the same code comes back */
    }
    c->is_deaf = true;
    close_tcp_after_flush(c);
}

static void on_error(void *data, enum close_reason reason)
{
    struct conn *c = data;
    conn_close(c, reason);
    c->is_deaf = true; /* not even its close frame could be found in what follows */
    close_tcp_after_flush(c);
}

const struct wsock_events conn_ws_events = {
    .on_text = on_text,
    .on_binary = on_binary,
    .on_close = on_close,
    .on_send = on_send,
    .on_error = on_error,
};

void conn_ws_input(struct conn *c, const unsigned char *bytes, size_t len)
{
    if (c->is_deaf || c->state == CONN_DEAD)
        return;
    if (wsock_feed(c->worker->conns->wsocks, &c->wsock, c, bytes, len) != 0) {
        conn_close(c, CLOSE_INTERNAL);
        c->is_deaf = true;
        close_tcp_after_flush(c);
    }
}

void conn_ws_ping(struct conn *c)
{
    unsigned char frame[FRAME_HEADER_MAX];
    size_t len = frame_header(frame, FRAME_PING, true, 0);
    if (outq_push_control(&c->outq, frame, len) != 0) {
        conn_drop(c, CLOSE_INTERNAL);
        return;
    }
    counters_inc(CTR_pings_sent);
    conn_mark(c);
}

/* ---- closing ---- */

void conn_close(struct conn *c, enum close_reason reason)
{
    const struct close_row *row = &closes_table[reason];
    switch ((enum conn_state)c->state) {
    case CONN_TLS:
        conn_end(c);
        break;
    case CONN_HTTP:
        if (c->reply || c->outq.head)
            close_tcp_after_flush(c);
        else
            conn_end(c);
        break;
    case CONN_AUTH:
    case CONN_OPEN:
        if (row->code == 0) {
            conn_drop(c, reason);
            break;
        }
        conn_end_websocket(c, reason, row->code);
        if (reason == CLOSE_SLOW || c->outq.bytes > CLOSE_QUEUE_MAX_BYTES)
            outq_drop_frames(&c->outq);
        send_close(c, row->code, row->reason);
        break;
    case CONN_CLOSING:
    case CONN_DEAD:
        break;
    }
}

/* ---- sending ---- */

/* Makes room for a message of the same key that waits. */
static void conflate(struct conn *c, const struct frame *f)
{
    if (f->conflate_key && f->kind != FRAME_REPLY && outq_conflate(&c->outq, f->conflate_key))
        counters_inc(CTR_messages_conflated);
}

/* Applies send-buffer-limit to one more frame. False: it is not to be queued. */
static bool make_room(struct conn *c, const struct frame *f)
{
    const struct options *opt = c->worker->opt;
    size_t limit = (size_t)opt->send_buffer_limit;
    bool conflates = opt->slow_consumer == SLOW_CONSUMER_CONFLATE;
    if (c->outq.bytes + f->len <= limit / 2)
        return true;
    if (!c->is_blocked) {
        /* Much in one turn is no sign of a slow client: only what its socket refuses counts. */
        conn_write(c, INT_MAX);
        if (!is_listening(c))
            return false;
    }
    if (conflates && c->outq.bytes + f->len > limit / 2)
        conflate(c, f);
    if (c->outq.bytes + f->len <= limit || !c->outq.head)
        return true;
    if (f->kind == FRAME_REPLY && c->outq.reply_bytes + f->len <= limit)
        return true;
    if (f->kind == FRAME_REPLY || !conflates) {
        conn_close(c, CLOSE_SLOW);
        return false;
    }
    /* Seam: who lags is to be given what it missed from the list once its queue has run dry. */
    c->is_lagging = true;
    counters_inc(CTR_messages_dropped_slow);
    return false;
}

void conn_send(struct conn *c, struct frame *f)
{
    if (!is_listening(c) || !make_room(c, f))
        return;
    if (outq_push(&c->outq, f) != 0)
        conn_close(c, CLOSE_INTERNAL);
    conn_mark(c);
}

void conn_send_text(struct conn *c, const char *text, size_t len)
{
    send_back(c, FRAME_TEXT, text, len);
}
