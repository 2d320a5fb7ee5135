#include "config.h"

#include <errno.h>
#include <string.h>

#include "shared/log.h"
#include "workers/delivery.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/session_parts.h"

/* ---- one device ---- */

bool session_wants(const struct device *d, const struct frame *f)
{
    return f->kind == FRAME_REPLY || filter_allows(d->filter, f->type_hash);
}

void session_give(struct device *d, struct frame *f)
{
    if (!session_wants(d, f)) {
        counters_inc(CTR_deliveries_filtered);
        fate_device(d, f, TRACE_FILTERED);
        return;
    }
    struct sessions *s = d->conn->worker->sessions;
    if (f->kind == FRAME_USER && session_lag_is_stalled(d))
        session_lag_note(s, d, f);
    else if (f->kind == FRAME_USER && !conn_offer(d->conn, f))
        session_lag_begin(s, d, f);
    else {
        counters_inc(CTR_deliveries);
        if (f->kind != FRAME_USER)
            conn_send(d->conn, f);
    }
}

void session_give_held(struct device *d, const struct held *h, const uint32_t *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (h->items[items[i]].frame)
            session_give(d, h->items[items[i]].frame);
        else {
            counters_inc(CTR_messages_dropped_slow);
            fate_id(d, h->items[items[i]].id_hash, TRACE_DROPPED);
        }
    }
}

/*
 * Frames given up by held.c come from the list instead, if they were stored: from a reading that
 * starts now, not from one under way. An attaching device just waits for the next one; for a device
 * under repair no other may be served before it, because what it misses is told by what the user's
 * devices know.
 */
void session_hold(struct sessions *s, struct device *d, struct frame *f)
{
    struct held_limits limits = {
        .max_bytes = (size_t)s->w->opt->send_buffer_limit,
        .max_ids = (size_t)s->w->opt->history_size + HELD_MAX_FRAMES,
    };
    if (session_lag_hold(s, d, f))
        return;
    fate_device(d, f, TRACE_HELD);
    struct device_busy *busy = device_busy(d);
    int rc = busy ? held_add(&busy->held, f, &limits) : -ENOMEM;
    if (rc == -ENOMEM) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    if (!rc || !d->in_reading)
        return;
    d->in_reading = false;
    if (d->state == DEVICE_REPAIRING)
        d->user->is_spoiled = true;
    if (++d->overflows >= SESSION_SPOILED_MAX)
        conn_close(d->conn, CLOSE_SLOW);
}

/* Whom a message is for, of the user's devices. */
struct audience {
    struct text_span except; /* raw JSON string naming a connection; len 0: nobody */
    bool is_left_out;        /* those only for which it was left out */
};

static bool is_for(struct device *d, const struct frame *f, const struct audience *a)
{
    char id[CONN_ID_BYTES];
    if (d->state == DEVICE_ADOPTED)
        return false;
    /* Read from the list by the worker it came from. */
    if (f->has_id && recent_knows(session_adopted_recent(d, NULL), f->id_hash))
        return false;
    if (a->except.len && text_span_eq(a->except, conn_id(d->conn, id)))
        return false;
    if (a->is_left_out && !session_is_left_out(d, f->id_hash))
        return false;
    session_left_out_take(d, f->id_hash);
    return true;
}

void session_relay_to(struct sessions *s, struct device *d, struct frame *f)
{
    if (d->state == DEVICE_LIVE || session_lag_is_stalled(d) ||
        (d->busy->lag && f->kind != FRAME_USER))
        session_give(d, f);
    else if (session_is_waiting(d))
        session_hold(s, d, f);
}

static void relay(struct sessions *s, struct user *u, struct frame *f, struct audience audience)
{
    bool needs_list = false;
    session_walk(s, u);
    for (struct device *d = u->devices, *next; d; d = next) {
        next = d->next;
        if (!is_for(d, f, &audience))
            continue;
        session_relay_to(s, d, f);
        needs_list |= session_lag_needs_list(s, d);
    }
    if (!session_walked(s, u) && needs_list)
        session_want_reading(s, u);
}

/* ---- messages ---- */

void session_refuse(const char *channel, enum json_result why, size_t len)
{
    counters_inc(why == JSON_INVALID_UTF8 ? CTR_messages_invalid_utf8
                 : why == JSON_NOT_OBJECT ? CTR_messages_not_object
                                          : CTR_messages_invalid_json);
    log_warning("message-invalid", "channel", channel, "why", json_result_text(why), "bytes",
                LOG_INT(len));
}

struct frame *session_make_frame(enum frame_kind kind, const struct message *m)
{
    struct frame *f = frame_text(kind, m->raw.ptr, m->raw.len);
    if (!f) {
        log_error("no-memory", "for", "message");
        return NULL;
    }
    f->type_hash = m->type_hash;
    if (kind != FRAME_REPLY) {
        f->id_hash = m->id_hash;
        f->has_id = m->has_id;
        f->conflate_key = m->conflate_key;
        f->timestamp_us = kind == FRAME_USER ? m->timestamp_us : 0;
        delivery_read(f);
    }
    return f;
}

/* Which other devices marked read is for all of the user's devices but the one that said so; it
 * passes every filter and is no message to be remembered. */
static bool relay_marked_read(struct sessions *s, struct user *u, const struct message *m)
{
    struct text_span origin;
    if (m->type_hash != s->marked_read_type || !json_string_plain(m->origin, &origin))
        return false;
    struct frame *f = session_make_frame(FRAME_REPLY, m);
    if (f) {
        session_hold_expected(u, f);
        relay(s, u, f, (struct audience){.except = origin});
    }
    frame_unref(f);
    return true;
}

static void refuse_user(const struct sessions *s, const struct user *u, enum json_result why,
                        size_t len)
{
    struct text_buf channel = {0};
    keys_expand(&channel, s->w->start->keys->user_channel, u->id, u->id_len);
    session_refuse(channel.failed ? "" : channel.data, why, len);
    text_buf_free(&channel);
}

void session_prefetch(const struct user *u)
{
    __builtin_prefetch(u->recent);
    __builtin_prefetch(u->devices);
}

/* A device is a part of its connection. */
void session_prefetch_more(const struct user *u)
{
    const struct conn *c = u->devices ? u->devices->conn : NULL;
    recent_prefetch(u->recent);
    for (size_t at = 0; c && at < sizeof(*c); at += 64)
        __builtin_prefetch((const char *)c + at);
}

void session_on_message(struct worker *w, struct user *u, struct text_span payload)
{
    struct sessions *s = w->sessions;
    struct message m;
    int64_t now_ms = worker_now_ms(w);
    enum json_result result = message_read(payload.ptr, payload.len, &m);
    counters_inc(CTR_messages_received);
    if (result != JSON_OK) {
        refuse_user(s, u, result, payload.len);
        return;
    }
    session_settle(w, u);
    if (m.origin.len && relay_marked_read(s, u, &m))
        return;
    struct frame *f = u->expected ? session_make_frame(FRAME_USER, &m) : NULL;
    if (f)
        session_hold_expected(u, f);
    bool is_repeat = m.has_id && recent_is_repeat(u->recent, m.id_hash, now_ms);
    bool is_passed = is_repeat && !session_is_left_out_for_any(u, m.id_hash);
    if (is_passed) {
        counters_inc(CTR_messages_duplicate);
        fate_received(u, m.id_hash, TRACE_DUPLICATE);
    }
    if (is_passed || !u->devices) {
        frame_unref(f);
        return;
    }
    if (!f)
        f = session_make_frame(FRAME_USER, &m);
    if (!f)
        return; /* not remembered: repair may still bring it */
    (void)recent_add(&u->recent, s->known_limit, m.id_hash, RECENT_LIVE, now_ms);
    fate_received(u, m.id_hash, TRACE_RECEIVED);
    relay(s, u, f, (struct audience){.is_left_out = is_repeat});
    frame_unref(f);
}
