#include "config.h"

#include "workers/wheel.h"

#include <ev.h>
#include <stddef.h>
#include <stdlib.h>

#include "shared/clock.h"

#define WHEEL_TICK_MS 100
#define WHEEL_SLOTS 512 /* a turn of 51 s: most deadlines are nearer, a ping-interval away */
#define WHEEL_BOUND 4096 /* entries looked at in one call */
#define WHEEL_DUE 128    /* that fire in one call: all who came together are pinged together, at 10
                            us each, and the loop is to do other things meanwhile */
#define WHEEL_AGAIN_S 0.001

struct wheel {
    struct ev_timer timer;
    struct ev_loop *loop;
    wheel_fn *on_due;
    void *data;
    size_t armed;
    int64_t tick; /* everything up to this tick was looked at, but for what stands in due */
    struct wheel_entry due; /* taken out of passed slots; judged one by one */
    struct wheel_entry slots[WHEEL_SLOTS];
};

/* ---- rings with a sentinel ---- */

static void ring_init(struct wheel_entry *ring)
{
    ring->next = ring->prev = ring;
}

static bool ring_is_empty(const struct wheel_entry *ring)
{
    return ring->next == ring;
}

static void ring_add(struct wheel_entry *ring, struct wheel_entry *e)
{
    e->prev = ring->prev;
    e->next = ring;
    ring->prev->next = e;
    ring->prev = e;
}

static void ring_remove(struct wheel_entry *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->next = e->prev = NULL;
}

/* Moves all of from to the end of to. */
static void ring_move(struct wheel_entry *to, struct wheel_entry *from)
{
    if (ring_is_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    ring_init(from);
}

/* ---- life ---- */

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct wheel *w = timer->data;
    (void)revents;
    bool again = wheel_advance(w, wheel_now_ms(w));
    if (w->armed == 0) {
        ev_timer_stop(loop, timer);
        return;
    }
    if (again) {
        /* ev_timer_again takes repeat for the next round; the tick's length comes back with it. */
        ev_timer_stop(loop, timer);
        ev_timer_set(timer, WHEEL_AGAIN_S, WHEEL_TICK_MS / 1e3);
        ev_timer_start(loop, timer);
    }
}

struct wheel *wheel_new(struct ev_loop *loop, wheel_fn *on_due, void *data)
{
    struct wheel *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->loop = loop;
    w->on_due = on_due;
    w->data = data;
    ring_init(&w->due);
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        ring_init(&w->slots[i]);
    ev_timer_init(&w->timer, on_timer, WHEEL_TICK_MS / 1e3, WHEEL_TICK_MS / 1e3);
    w->timer.data = w;
    return w;
}

static void ring_forget(struct wheel_entry *ring)
{
    while (!ring_is_empty(ring))
        ring_remove(ring->next);
}

void wheel_free(struct wheel *w)
{
    if (!w)
        return;
    /* Entries outlive the wheel in their objects and must not look armed. */
    ring_forget(&w->due);
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        ring_forget(&w->slots[i]);
    if (w->loop)
        ev_timer_stop(w->loop, &w->timer);
    free(w);
}

int64_t wheel_now_ms(const struct wheel *w)
{
    return w->loop ? clock_mono_coarse_ms() : w->tick * WHEEL_TICK_MS;
}

/* ---- arming ---- */

/* Puts an entry where it is found first after its time, and never where the hand is now. */
static void place(struct wheel *w, struct wheel_entry *e)
{
    int64_t tick = e->at_ms / WHEEL_TICK_MS + (e->at_ms % WHEEL_TICK_MS > 0);
    if (tick <= w->tick)
        tick = w->tick + 1;
    ring_add(&w->slots[(uint64_t)tick % WHEEL_SLOTS], e);
}

void wheel_arm(struct wheel *w, struct wheel_entry *e, int64_t at_ms)
{
    if (e->next)
        wheel_disarm(w, e);
    if (w->armed == 0 && w->loop) {
        /* Nothing was watched meanwhile: the hand jumps to now. */
        int64_t now_tick = wheel_now_ms(w) / WHEEL_TICK_MS;
        if (now_tick > w->tick)
            w->tick = now_tick;
        if (!ev_is_active(&w->timer)) {
            ev_timer_set(&w->timer, WHEEL_TICK_MS / 1e3, WHEEL_TICK_MS / 1e3);
            ev_timer_start(w->loop, &w->timer);
        }
    }
    e->at_ms = at_ms;
    place(w, e);
    w->armed++;
}

void wheel_disarm(struct wheel *w, struct wheel_entry *e)
{
    if (!e->next)
        return;
    ring_remove(e);
    w->armed--;
}

bool wheel_is_armed(const struct wheel_entry *e)
{
    return e->next != NULL;
}

/* ---- time passes ---- */

static void collect(struct wheel *w, int64_t now_tick)
{
    int64_t passed = now_tick - w->tick;
    if (passed > WHEEL_SLOTS)
        passed = WHEEL_SLOTS;
    for (int64_t i = 0; i < passed; i++)
        ring_move(&w->due, &w->slots[(uint64_t)(now_tick - i) % WHEEL_SLOTS]);
    if (now_tick > w->tick)
        w->tick = now_tick;
}

bool wheel_advance(struct wheel *w, int64_t now_ms)
{
    int64_t now_tick = now_ms / WHEEL_TICK_MS;
    /* A clock that was set back would leave everything waiting for the difference: follow it. */
    if (now_tick < w->tick - 1) {
        for (size_t i = 0; i < WHEEL_SLOTS; i++)
            ring_move(&w->due, &w->slots[i]);
        w->tick = now_tick;
    }
    collect(w, now_tick);
    for (int left = WHEEL_BOUND, fired = 0; !ring_is_empty(&w->due); left--) {
        if (left == 0 || fired == WHEEL_DUE)
            return true;
        struct wheel_entry *e = w->due.next;
        ring_remove(e);
        if (e->at_ms > now_ms) {
            place(w, e); /* some turns of the wheel away */
            continue;
        }
        w->armed--;
        fired++;
        w->on_due(w->data, e);
    }
    return false;
}
