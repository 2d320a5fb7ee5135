#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/admission.h"
#include "workers/commands.h"
#include "workers/conn_internal.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/held.h"
#include "workers/session.h"

/* What a close frame waits behind; more is dropped, for the client resumes anyway. */
#define CLOSE_QUEUE_MAX_BYTES 65536
#define RATE_BURST 2   /* seconds' worth */
#define CONTROL_RATE 1000 /* control frames a second that one client may send */
#define ECHO_MAX_BYTES (32 << 20) /* of a message to /echo, whatever max-message-size is */

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
    c->last_read_ms = now_ms;
    conn_leave_early(c);
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

/* The user is not known yet: what is wanted waits. error: 0, or what went wrong already. */
static void wait_with(struct conn *c, struct resume *resume, struct filter *filter, int error)
{
    c->device.filter = filter;
    if (device_set_resume(&c->device, resume) != 0 || error)
        conn_close(c, CLOSE_INTERNAL);
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
    else
        fate_opened(c);
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
    int now = claims ? admission_begin(c, claims, false, false) : 0;
    if (now > 0)
        open_session(c, claims, resume, filter);
    else
        wait_with(c, resume, filter, now);
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

/* A fresh token during the connection. False when the connection is being closed instead. */
static bool renew(struct conn *c, const struct token_claims *claims)
{
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

bool conn_authenticated(struct conn *c, const struct token_claims *claims, struct resume *resume,
                        struct filter *filter, bool is_lower)
{
    int now = admission_begin(c, claims, true, is_lower);
    if (c->state == CONN_AUTH) {
        /* The frame's wishes come before those of the query. */
        struct resume *before = device_take_resume(&c->device);
        struct resume *asked = resume ? resume : before;
        struct filter *wanted = filter ? filter : c->device.filter;
        if (asked != before)
            free(before);
        if (wanted != c->device.filter)
            filter_free(c->device.filter);
        c->device.filter = NULL;
        if (now > 0)
            return open_session(c, claims, asked, wanted);
        wait_with(c, asked, wanted, now);
        return false;
    }
    free(resume);
    filter_free(filter);
    if (now < 0)
        conn_close(c, CLOSE_INTERNAL);
    return c->state == CONN_OPEN && now > 0 && renew(c, claims);
}

void conn_admitted(struct conn *c, const struct token_claims *claims, bool is_reply_due,
                   bool is_lower)
{
    bool is_good = false;
    if (c->state == CONN_AUTH) {
        struct resume *resume = device_take_resume(&c->device);
        struct filter *filter = c->device.filter;
        c->device.filter = NULL;
        is_good = open_session(c, claims, resume, filter);
    } else if (c->state == CONN_OPEN) {
        is_good = renew(c, claims);
    }
    if (is_good && is_reply_due)
        commands_auth_ok(c, claims, is_lower);
    conn_go_on(c);
}

void conn_go_on(struct conn *c)
{
    conn_mark(c); /* it is read from again */
}

/* ---- what the client says ---- */

/* client-message-rate a second, bursts of RATE_BURST times as many. */
static bool is_within_rate(struct conn *c)
{
    uint32_t rate = (uint32_t)c->worker->opt->client_message_rate;
    return !rate || bucket_take(&c->rate, worker_now_ms(c->worker), rate, rate * RATE_BURST, 1);
}

/* True when the message may be looked at. */
static bool on_whole(void *data)
{
    struct conn *c = data;
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

static void hear(struct conn *c, const char *text, size_t len)
{
    if (!admission_is_awaited(c))
        commands_on_message(c, text, len);
    else if (admission_keep(c, text, len) != 0)
        conn_close(c, CLOSE_INTERNAL);
}

static void on_text(void *data, const char *text, size_t len)
{
    struct conn *c = data;
    if (c->is_echo)
        send_back(c, FRAME_TEXT, text, len);
    else
        hear(c, text, len);
}

void conn_hear(struct conn *c, const char *text, size_t len)
{
    if (is_listening(c))
        hear(c, text, len);
}

static void on_binary(void *data, const void *bytes, size_t len)
{
    struct conn *c = data;
    if (c->is_echo)
        send_back(c, FRAME_BINARY, bytes, len);
    else
        conn_close(c, CLOSE_BINARY);
}

/* Pings are for clients that wonder, pongs for those that were asked: a few a minute. */
static bool admit_control(struct conn *c)
{
    if (!is_listening(c)) /* nothing follows our close frame */
        return false;
    if (bucket_take(&c->control, worker_now_ms(c->worker), CONTROL_RATE, CONTROL_RATE * RATE_BURST,
                    1))
        return true;
    conn_close(c, CLOSE_RATE);
    return false;
}

static void on_pong(void *data)
{
    admit_control(data);
}

/* A pong, for a ping that came. */
static void on_send(void *data, const void *frame, size_t len)
{
    struct conn *c = data;
    if (!admit_control(c))
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

/* A close frame is to follow. On /echo all that was said comes back before it, which is what /echo
 * is for. */
static void shorten_queue(struct conn *c)
{
    if (c->outq.bytes > CLOSE_QUEUE_MAX_BYTES && !c->is_echo)
        outq_drop_frames(&c->outq);
}

static void on_close(void *data, int code)
{
    struct conn *c = data;
    c->close_frame_received = true;
    if (is_listening(c)) {
        conn_end_websocket(c, CLOSE_CLIENT, code);
        /* It may have asked something just before: what waits still goes out, if it is not much. */
        shorten_queue(c);
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
    .on_whole = on_whole,
    .on_text = on_text,
    .on_binary = on_binary,
    .on_close = on_close,
    .on_send = on_send,
    .on_pong = on_pong,
    .on_error = on_error,
};

void conn_ws_input(struct conn *c, const unsigned char *bytes, size_t len)
{
    if (c->is_deaf || c->state == CONN_DEAD)
        return;
    struct wsock_terms terms = {
        .max_message_bytes = c->is_echo ? ECHO_MAX_BYTES : (size_t)c->worker->opt->max_message_size,
        .is_deflate = c->deflate_bits != 0,
    };
    if (wsock_feed(c->worker->conns->wsocks, &c->wsock, terms, c, bytes, len) != 0) {
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
    case CONN_PROXY:
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
        if (reason == CLOSE_SLOW || reason == CLOSE_OVERLOAD)
            outq_drop_frames(&c->outq);
        shorten_queue(c);
        send_close(c, row->code, row->reason);
        break;
    case CONN_CLOSING:
    case CONN_DEAD:
        break;
    }
}

void conn_shed(struct conn *c)
{
    if (!is_listening(c)) {
        conn_drop(c, CLOSE_OVERLOAD);
        return;
    }
    conn_close(c, CLOSE_OVERLOAD);
    wsock_release(c->worker->conns->wsocks, c->wsock);
    c->wsock = NULL;
    c->is_deaf = true; /* what was given up was the beginning of a message */
    close_tcp_after_flush(c);
}

size_t conn_held_bytes(const struct conn *c)
{
    const struct held *held = c->device.busy->held;
    return c->outq.bytes + conn_kept_bytes(c) + http_held_bytes(c->http) +
           wsock_held_bytes(c->wsock) + (held ? held->bytes : 0);
}

/* ---- sending ---- */

/*
 * send-buffer-limit is hard, half of it soft. Above the soft one only the newest message of each
 * key waits. Above the hard one a client with too many answers of its own is closed, and so is
 * everybody with slow-consumer = disconnect; else a broadcast takes the place of older ones, and
 * messages to the user are refused: session_lag.c gets them from the list when there is room. That
 * the list is more than the queue takes is no fault of the client's: it comes in pieces to
 * everybody. For /echo there is no limit here: nothing is read from it while much waits, and that
 * one of its messages is large is what it is for.
 */
enum verdict { QUEUE, REFUSE, LEAVE };

static size_t limit_of(const struct conn *c)
{
    return (size_t)c->worker->opt->send_buffer_limit;
}

/* What waits, but broadcasts: these can be given up, so nothing waits for them to leave. */
static size_t kept_bytes(const struct conn *c)
{
    return c->outq.bytes - c->outq.broadcast_bytes;
}

static void conflate(struct conn *c, const struct frame *f)
{
    int taken = outq_start_conflating(&c->outq);
    if (taken > 0)
        counters_add(CTR_messages_conflated, (uint64_t)taken);
    if (outq_conflate(&c->outq, f))
        counters_inc(CTR_messages_conflated);
}

/* However much else waits, a quarter of the limit is there for broadcasts: the newest come. */
static enum verdict judge_broadcast(struct conn *c, const struct frame *f)
{
    size_t limit = limit_of(c);
    while (c->outq.bytes + f->len > limit && c->outq.broadcast_bytes + f->len > limit / 4) {
        counters_inc(CTR_messages_dropped_slow);
        if (!outq_drop_broadcast(&c->outq))
            return LEAVE; /* too big for what is left: it is the one that is dropped */
    }
    return QUEUE;
}

static enum verdict judge(struct conn *c, const struct frame *f)
{
    size_t limit = limit_of(c);
    bool conflates = c->worker->opt->slow_consumer == SLOW_CONSUMER_CONFLATE;
    if (!is_listening(c))
        return LEAVE;
    if (c->is_echo)
        return QUEUE;
    if (c->outq.bytes + f->len > limit / 2 && !c->is_blocked) {
        /* Much in one turn is no sign of a slow client: only what its socket refuses counts. */
        conn_write(c, INT_MAX);
        if (!is_listening(c))
            return LEAVE;
    }
    if (conflates && (c->outq.keys || c->outq.bytes + f->len > limit / 2))
        conflate(c, f);
    if (c->outq.bytes + f->len <= limit || !c->outq.head)
        return QUEUE;
    if (f->kind == FRAME_REPLY && c->outq.reply_bytes + f->len <= limit)
        return QUEUE;
    if (f->kind == FRAME_REPLY || (!conflates && !f->is_stored)) {
        conn_close(c, CLOSE_SLOW);
        return LEAVE;
    }
    return f->kind == FRAME_BROADCAST ? judge_broadcast(c, f) : REFUSE;
}

static void queue(struct conn *c, struct frame *f)
{
    if (outq_push(&c->outq, f) != 0)
        conn_close(c, CLOSE_INTERNAL);
    else
        fate_queued(c, f);
    conn_mark(c);
}

bool conn_offer(struct conn *c, struct frame *f)
{
    f = conn_form(c, f);
    enum verdict verdict = judge(c, f);
    if (verdict == QUEUE)
        queue(c, f);
    else if (verdict == LEAVE)
        fate_left(c, f);
    return verdict != REFUSE;
}

void conn_send(struct conn *c, struct frame *f)
{
    if (!conn_offer(c, f))
        counters_inc(CTR_messages_dropped_slow);
}

bool conn_is_drained(const struct conn *c, size_t next_bytes)
{
    size_t kept = kept_bytes(c), limit = limit_of(c);
    return c->state == CONN_OPEN &&
           (kept == 0 || (kept <= limit / 4 && kept + next_bytes <= limit / 2));
}

bool conn_catch_up(struct conn *c, struct frame *f)
{
    f = conn_form(c, f);
    if (is_listening(c) && !c->is_blocked && kept_bytes(c) + f->len > limit_of(c) / 2)
        conn_write(c, INT_MAX);
    if (!is_listening(c))
        return true;
    if (kept_bytes(c) > 0 && kept_bytes(c) + f->len > limit_of(c) / 2)
        return false;
    queue(c, f);
    return true;
}

void conn_send_text(struct conn *c, const char *text, size_t len)
{
    send_back(c, FRAME_TEXT, text, len);
}
