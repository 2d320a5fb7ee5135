#include "config.h"

#include <string.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "workers/deflate.h"
#include "workers/delivery.h"
#include "workers/fate.h"
#include "workers/session_parts.h"

/*
 * Broadcasts wait here until the end of the turn, and all that wait leave for a device together. A
 * walk over all connections stops after a slice of time and goes on in the next turn, so that no
 * message to a user waits for a broadcast to everybody. Each broadcast has a number, and each
 * device that of the newest it was given; so a device gets each one once and in order, whoever
 * comes or goes meanwhile, and whatever came before a message to its user is given before it
 * (session_settle). What came when a walk began is over when it ends; what came later is, for those
 * that were met before, a matter of the next walk.
 */
#define SLICE_US 2000
#define CLOCK_EVERY 16     /* connections */
#define BYTES_MAX (1 << 20) /* that wait; beyond, a walk goes on to its end */

static bool is_room(const struct broadcasts *b, size_t len)
{
    return b->count < SESSION_BROADCASTS_MAX && (!b->count || b->bytes + len <= BYTES_MAX);
}

/* How many of those that wait the device was not given. */
static uint32_t lacks(const struct broadcasts *b, const struct device *d)
{
    uint32_t n = b->newest - d->heard;
    return n < b->count ? n : b->count;
}

/* ---- to one device ---- */

static void forget(struct joined *j)
{
    frame_unref(j->frame);
    *j = (struct joined){NULL, 0};
}

static void forget_joined(struct broadcasts *b)
{
    forget(&b->plain);
    forget(&b->deflated);
}

/* The last n as one frame, made when it is first asked for; NULL: one by one. Most devices lack the
 * same, so one is kept, and another for those that are sent deflated frames. */
static struct frame *joined(struct sessions *s, uint32_t n, size_t limit, bool is_deflated)
{
    struct broadcasts *b = &s->broadcasts;
    struct joined *j = is_deflated ? &b->deflated : &b->plain;
    struct frame *parts[SESSION_BROADCASTS_MAX];
    size_t bytes = 0;
    if (j->count == n)
        return j->frame;
    for (uint32_t i = 0; i < n; i++) {
        parts[i] = b->frames[b->count - n + i];
        if (is_deflated)
            parts[i] = frame_for_window(parts[i], s->w->deflate, DEFLATE_WINDOW_MAX);
        bytes += parts[i]->len;
    }
    forget(j);
    j->frame = bytes <= limit ? frame_join(FRAME_BROADCAST, parts, n) : NULL;
    j->count = n;
    return j->frame;
}

/* Nothing about this device asks for looking at each message: it is live, hears everything, and has
 * room. What its socket may not take is split again (outq_split) before anything is dropped. */
static struct frame *at_once(struct sessions *s, const struct device *d, uint32_t n)
{
    const struct broadcasts *b = &s->broadcasts;
    const struct conn *c = d->conn;
    size_t limit = (size_t)s->w->opt->send_buffer_limit / 2;
    bool is_deflated = c->deflate_bits != 0;
    if (d->state != DEVICE_LIVE || d->busy->lag || d->filter || c->state != CONN_OPEN ||
        c->is_blocked || c->outq.keys)
        return NULL;
    if (n > 1 && is_deflated && c->deflate_bits < DEFLATE_WINDOW_MAX)
        return NULL; /* rare: what is joined is not for its window */
    struct frame *f = n == 1 ? b->frames[b->count - 1] : joined(s, n, limit, is_deflated);
    return f && c->outq.bytes + f->len <= limit ? f : NULL;
}

static void give(struct sessions *s, struct device *d, uint32_t n)
{
    struct broadcasts *b = &s->broadcasts;
    struct frame *f = at_once(s, d, n);
    d->heard = b->newest;
    if (f) {
        counters_add(CTR_deliveries, n);
        conn_send_now(d->conn, f);
        return;
    }
    if (d->state == DEVICE_ADOPTED)
        return; /* it gets what its user's expected ones hold */
    for (uint32_t i = b->count - n; i < b->count; i++)
        session_relay_to(s, d, b->frames[i]);
    if (d->user && session_lag_needs_list(s, d))
        session_want_reading(s, d->user);
}

void session_settle_device(struct sessions *s, struct device *d)
{
    uint32_t n = lacks(&s->broadcasts, d);
    if (n)
        give(s, d, n);
}

void session_settle(struct worker *w, struct user *u)
{
    struct sessions *s = w->sessions;
    if (!s->broadcasts.count)
        return;
    for (struct device *d = u->devices, *next; d; d = next) {
        next = d->next;
        session_settle_device(s, d);
    }
}

/* ---- to all ---- */

static void begin_walk(struct sessions *s)
{
    s->broadcasts.walked_to = s->broadcasts.newest;
    s->broadcasts.is_walking = true;
    conns_walk(s->w->conns);
}

static void end_walk(struct broadcasts *b)
{
    uint32_t kept = b->newest - b->walked_to, done = b->count - kept;
    for (uint32_t i = 0; i < done; i++) {
        b->bytes -= b->frames[i]->len;
        frame_unref(b->frames[i]);
    }
    memmove(b->frames, b->frames + done, kept * sizeof(b->frames[0]));
    b->count = kept;
    b->is_walking = false;
    if (b->plain.count > kept)
        forget(&b->plain);
    if (b->deflated.count > kept)
        forget(&b->deflated);
}

/* True when all were met; until_us 0: whatever time it takes. */
static bool walk(struct sessions *s, int64_t until_us)
{
    struct conn *c;
    if (!s->broadcasts.is_walking)
        begin_walk(s);
    for (unsigned i = 1; (c = conns_walk_next(s->w->conns)); i++) {
        if (c->device.user)
            session_settle_device(s, &c->device);
        if (until_us && i % CLOCK_EVERY == 0 && delivery_measure(clock_mono_us()) >= until_us)
            return false;
    }
    end_walk(&s->broadcasts);
    return true;
}

bool session_relay_broadcasts(struct worker *w)
{
    struct broadcasts *b = &w->sessions->broadcasts;
    int64_t until_us = b->count ? clock_mono_us() + SLICE_US : 0;
    while (b->count && walk(w->sessions, until_us))
        ;
    return b->count > 0;
}

void session_finish_broadcasts(struct worker *w)
{
    while (w->sessions->broadcasts.count)
        walk(w->sessions, 0);
}

void session_broadcasts_free(struct sessions *s)
{
    struct broadcasts *b = &s->broadcasts;
    forget_joined(b);
    for (uint32_t i = 0; i < b->count; i++)
        frame_unref(b->frames[i]);
    b->count = 0;
    recent_free(b->recent);
}

/* ---- they come ---- */

/* The frame of a broadcast that is to be relayed; NULL otherwise. */
static struct frame *read_broadcast(struct sessions *s, const char *payload, size_t len)
{
    struct message m;
    int64_t now_ms = worker_now_ms(s->w);
    enum json_result result = message_read(payload, len, &m);
    counters_inc(CTR_messages_received);
    counters_inc(CTR_broadcasts_received);
    if (result != JSON_OK) {
        session_refuse(s->w->start->keys->broadcast_channel, result, len);
        return NULL;
    }
    if (m.has_id && recent_is_repeat(s->broadcasts.recent, m.id_hash, now_ms)) {
        counters_inc(CTR_messages_duplicate);
        fate_received(NULL, m.id_hash, TRACE_DUPLICATE);
        return NULL;
    }
    struct frame *f = session_make_frame(FRAME_BROADCAST, &m);
    if (!f)
        return NULL;
    if (m.has_id)
        (void)recent_add(&s->broadcasts.recent, s->known_limit, m.id_hash, RECENT_PASSING, now_ms);
    fate_received(NULL, m.id_hash, TRACE_BROADCAST);
    return f;
}

static void hold_for_expected(void *data, struct user *u)
{
    session_hold_expected(u, data);
}

void session_on_broadcast(struct worker *w, const char *payload, size_t len)
{
    struct sessions *s = w->sessions;
    struct broadcasts *b = &s->broadcasts;
    struct frame *f = read_broadcast(s, payload, len);
    if (!f)
        return;
    if (s->expected_count)
        hub_each(w->hub, hold_for_expected, f);
    while (!is_room(b, f->len)) {
        counters_inc(CTR_turn_bound_hits);
        walk(s, 0);
    }
    forget_joined(b);
    b->frames[b->count++] = f;
    b->bytes += f->len;
    b->newest++;
}
