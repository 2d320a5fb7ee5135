#include "config.h"

#include "workers/drain.h"

#include <stdlib.h>

#include "shared/chance.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "workers/acceptor.h"
#include "workers/conn.h"
#include "workers/handover.h"
#include "workers/session.h"

/* A stop ends within 5 s by contract; the master kills a little before that. */
#define STOP_LIMIT_MS 4000
/* After the last WebSocket was told to go: close handshakes, and answers that are awaited. */
#define GRACE_MS 6000
/* For giving connections to other workers, however short drain-time is; less than the grace. */
#define GIVE_MS 5000
/* Accepted, and their request may be on its way: closing would reset it. */
#define FRESH_MS 2000
#define TICK_MS 50

struct drain {
    struct worker *w;
    enum drain_phase phase;
    struct ev_timer tick;
    int64_t began_ms;      /* monotonic, as all times here */
    int64_t over_ms;       /* to spread the closing over */
    int64_t until_ms;      /* exit then, whoever is left */
    int64_t lame_until_ms; /* accept until then; 0: no more */
    int64_t quiet_ms;      /* since when only fresh or resting HTTP is left; 0: not yet */
    uint64_t to_close;     /* WebSockets when it began */
    uint64_t closed;
    bool was_moving;       /* there were WebSockets to give to other workers */
    enum close_reason reason;
    uint64_t random;       /* chance.h: who is closed next */
};

/* ---- a drain, step by step ---- */

static bool is_open_websocket(const struct conn *c)
{
    return c->state == CONN_AUTH || c->state == CONN_OPEN;
}

static void close_one(const struct drain *d, struct conn *c)
{
    if (d->reason == CLOSE_DROPPED)
        conn_drop(c, CLOSE_DROPPED);
    else
        conn_close(c, d->reason);
}

/* Who is there, in the eyes of a drain. */
struct census {
    struct drain *drain;
    uint64_t open;   /* WebSockets that are to be closed */
    uint64_t moving; /* WebSockets that are to be given to another worker */
    uint64_t busy;   /* closing ones, and HTTP with a request or answer under way */
    uint64_t fresh;  /* HTTP or TLS without a request yet */
    uint64_t due;    /* of open: how many to close now */
};

static void census_count(void *data, struct conn *c)
{
    struct census *census = data;
    if (handover_wants(census->drain->w->handover, c))
        census->moving++;
    else if (is_open_websocket(c))
        census->open++;
    else if (c->state == CONN_CLOSING || c->reply || c->http || c->outq.bytes)
        census->busy++;
    else if (!c->had_request && !c->is_metrics)
        census->fresh++;
}

/* Selection sampling (Knuth, TAOCP volume 2, algorithm S): each open connection is as likely as any
 * other, in one pass. */
static void census_close(void *data, struct conn *c)
{
    struct census *census = data;
    if (!census->due || !is_open_websocket(c) || handover_wants(census->drain->w->handover, c))
        return;
    if (chance_next(&census->drain->random) % census->open < census->due) {
        close_one(census->drain, c);
        census->drain->closed++;
        census->due--;
    }
    census->open--;
}

static void leave(struct drain *d)
{
    ev_break(d->w->loop, EVBREAK_ALL);
}

/* True when nobody is left to whom anything is owed. */
static bool is_drained(struct drain *d, const struct census *census, int64_t now_ms)
{
    if (now_ms >= d->until_ms)
        return true;
    if (d->lame_until_ms)
        return false;
    if (census->open || census->moving || census->busy || !handover_is_flushed(d->w->handover)) {
        d->quiet_ms = 0;
        return false;
    }
    if (!d->quiet_ms)
        d->quiet_ms = now_ms;
    return !census->fresh || now_ms - d->quiet_ms >= FRESH_MS;
}

/* Nobody is left to take connections over: they are closed in the time that remains. */
static void spread_anew(struct drain *d, uint64_t open, int64_t *passed_ms)
{
    d->began_ms += *passed_ms;
    d->over_ms = d->over_ms > *passed_ms ? d->over_ms - *passed_ms : 0;
    d->to_close = open;
    d->closed = 0;
    *passed_ms = 0;
}

static void end_lameness(struct drain *d)
{
    acceptor_stop(d->w->acceptor, false);
    d->lame_until_ms = 0;
}

/* Closes as many as the time that passed asks for; ends the process when nobody is left. */
static void step(struct drain *d)
{
    int64_t now_ms = clock_mono_ms(), passed_ms = now_ms - d->began_ms;
    struct census census = {.drain = d};
    if (d->lame_until_ms && (now_ms >= d->lame_until_ms || !acceptor_has_clients(d->w->acceptor)))
        end_lameness(d);
    if (passed_ms >= d->over_ms && passed_ms >= GIVE_MS)
        handover_give_up(d->w->handover);
    conns_each(d->w->conns, census_count, &census);
    if (d->was_moving && !census.moving)
        spread_anew(d, census.open, &passed_ms);
    d->was_moving = census.moving > 0;

    uint64_t goal = d->to_close;
    if (passed_ms < d->over_ms)
        goal = (uint64_t)((double)goal * (double)passed_ms / (double)d->over_ms);
    else
        census.due = census.open; /* also those that came while draining */
    if (!census.due && goal > d->closed)
        census.due = goal - d->closed < census.open ? goal - d->closed : census.open;
    if (is_drained(d, &census, now_ms))
        leave(d);
    else if (census.due) {
        session_finish_broadcasts(d->w);
        conns_each(d->w->conns, census_close, &census);
    }
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct drain *d = timer->data;
    (void)loop;
    (void)events;
    if (d->phase == DRAIN_DRAINING)
        step(d);
    else if (clock_mono_ms() >= d->until_ms)
        leave(d);
}

/* ---- orders ---- */

void drain_begin(struct drain *d, const struct control_drain *order, struct ipc_message *m)
{
    struct worker *w = d->w;
    if (d->phase == DRAIN_STOPPING)
        return;
    d->reason = order->restart ? CLOSE_RESTART : CLOSE_SHUTDOWN;
    if (order->drop) /* clients that a frame would keep away */
        d->reason = CLOSE_DROPPED;
    d->phase = DRAIN_DRAINING;
    d->began_ms = clock_mono_ms();
    d->over_ms = order->over_ms > 0 ? order->over_ms : 0;
    d->until_ms = d->began_ms + d->over_ms + GRACE_MS;
    d->closed = 0;
    d->quiet_ms = 0;
    w->is_draining = true;
    w->is_replaced = order->restart;
    d->lame_until_ms = order->lame_ms ? d->began_ms + order->lame_ms : 0;
    if (!d->lame_until_ms)
        acceptor_stop(w->acceptor, order->restart);
    handover_give(w->handover, m->fds, m->fd_count);
    m->fd_count = 0;
    struct census census = {.drain = d};
    conns_each(w->conns, census_count, &census);
    d->to_close = census.open;
    log_info("worker-draining", "websockets", LOG_INT(census.open + census.moving), "to_give",
             LOG_INT(census.moving), "over_ms", LOG_INT(d->over_ms));
    ev_timer_again(w->loop, &d->tick);
    step(d);
}

static void close_for_stop(void *data, struct conn *c)
{
    (void)data;
    conn_close(c, CLOSE_SHUTDOWN);
}

void drain_stop(struct drain *d, const char *why)
{
    struct worker *w = d->w;
    if (d->phase == DRAIN_STOPPING)
        return;
    log_info("worker-stopping", "reason", why, "connections", LOG_INT(conns_count(w->conns)));
    d->phase = DRAIN_STOPPING;
    d->until_ms = clock_mono_ms() + STOP_LIMIT_MS;
    w->is_draining = true;
    w->is_replaced = false;
    acceptor_stop(w->acceptor, false);
    session_finish_broadcasts(w);
    handover_give_up(w->handover);
    conns_each(w->conns, close_for_stop, NULL);
    ev_timer_again(w->loop, &d->tick);
}

/* ---- life ---- */

enum drain_phase drain_phase(const struct drain *d)
{
    return d->phase;
}

void drain_end_turn(struct drain *d)
{
    if (d->phase == DRAIN_STOPPING && conns_count(d->w->conns) == 0)
        leave(d);
}

struct drain *drain_new(struct worker *w)
{
    struct drain *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->w = w;
    d->random = chance_seed();
    ev_timer_init(&d->tick, on_tick, 0., TICK_MS / 1000.);
    d->tick.data = d;
    return d;
}

void drain_free(struct drain *d)
{
    if (!d)
        return;
    ev_timer_stop(d->w->loop, &d->tick);
    free(d);
}
