#include "config.h"

#include "workers/canary.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "workers/store.h"
#include "workers/subscriber.h"

#define RETRY_S 0.1
#define GRACE_S 0.05
#define PLAIN_PROBES 12  /* between two tries of what was refused */
#define LIFE_INTERVALS 3 /* of a probe: its key's, and the longest wait for its echo */

/* One probe at a time. Its text is its number, so that a late echo of an earlier one counts for
 * nothing. */
struct canary {
    struct worker *w;
    struct ev_timer tick;
    uint64_t number;
    int64_t sent_us;           /* monotonic */
    bool is_awaited;           /* published, no echo yet */
    bool is_late;              /* due, and one more look at the sockets is taken first */
    unsigned plain;            /* scripts or writes are refused: so many probes by PUBLISH alone */
    unsigned waits;            /* intervals the echo was awaited while others came */
    uint64_t received;         /* messages that had come by then */
    struct store_call *call;   /* the publication, until Redis answered it */
};

static void tick_after(struct canary *c, double seconds);

/* It answers, and even publishes, but what producers write goes to another server now: both links
 * look for that one. */
static void on_demoted(struct canary *c)
{
    c->is_awaited = false;
    counters_inc(CTR_redis_probe_failures);
    log_warning("delivery-probe-refused", "reason", "Redis is a read-only replica");
    store_reset(c->w->store, "a read-only replica");
    subscriber_reset(c->w->subscriber, "a read-only replica");
}

static void on_published(void *data, int error, int64_t receivers)
{
    struct canary *c = data;
    (void)receivers;
    c->call = NULL;
    if (error == -EROFS) {
        on_demoted(c);
    } else if (error == -EIO && !c->plain) {
        c->plain = PLAIN_PROBES;
        c->is_awaited = false; /* it was not published: that it does not come back says nothing */
        tick_after(c, RETRY_S);
    }
    if (error)
        return; /* else the command link's trouble; the tick counts the probe as failed */
    counters_set(CTR_redis_latency_us, (uint64_t)(clock_mono_us() - c->sent_us));
}

static double interval(const struct canary *c)
{
    return (double)c->w->opt->redis_probe_interval / 1000.;
}

/* The next tick after so many seconds, the others at the interval. */
static void tick_after(struct canary *c, double seconds)
{
    ev_timer_stop(c->w->loop, &c->tick);
    ev_timer_set(&c->tick, seconds < interval(c) ? seconds : interval(c), interval(c));
    ev_timer_start(c->w->loop, &c->tick);
}

static uint64_t received_so_far(void)
{
    return counters_self->values[CTR_messages_received];
}

static void probe(struct canary *c)
{
    char text[32];
    c->is_late = false;
    c->waits = 0;
    c->received = received_so_far();
    if (!subscriber_is_up(c->w->subscriber))
        return;
    int len = snprintf(text, sizeof(text), "%llu", (unsigned long long)++c->number);
    c->sent_us = clock_mono_us();
    struct text_span span = {text, (size_t)len};
    const char *channel = subscriber_probe_channel(c->w->subscriber);
    c->call = c->plain ? store_publish(c->w->store, channel, span, on_published, c)
                       : store_probe(c->w->store, channel, span, LIFE_INTERVALS *
                                     c->w->opt->redis_probe_interval, on_published, c);
    c->is_awaited = c->call != NULL;
    if (c->call && c->plain)
        c->plain--;
    if (!c->call) /* the command link is not up yet: soon */
        tick_after(c, RETRY_S);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)events;
    struct canary *c = t->data;
    if (c->is_awaited && !c->is_late) {
        /* A worker that was busy or stopped finds its timer due before it looked at the socket. */
        c->is_late = true;
        tick_after(c, GRACE_S);
        return;
    }
    /* Messages came, but not this one: it stands behind a backlog, which a reset would lose. */
    if (c->is_awaited && received_so_far() != c->received && ++c->waits < LIFE_INTERVALS) {
        c->is_late = false;
        c->received = received_so_far();
        return;
    }
    bool is_lost = c->is_awaited, is_answered = !c->call;
    c->is_awaited = false;
    store_cancel(c->call);
    c->call = NULL;
    if (is_lost)
        counters_inc(CTR_redis_probe_failures);
    /* A publication that Redis did not even answer says nothing about the other link; the command
     * link's own time limit deals with that. */
    if (is_lost && is_answered && subscriber_is_up(c->w->subscriber)) {
        log_warning("delivery-probe-lost", "waited_ms",
                    LOG_INT((clock_mono_us() - c->sent_us) / 1000));
        subscriber_reset(c->w->subscriber, "a probe message did not come back");
        return;
    }
    probe(c);
}

struct canary *canary_new(struct worker *w)
{
    struct canary *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->w = w;
    ev_timer_init(&c->tick, on_tick, interval(c), interval(c));
    c->tick.data = c;
    ev_timer_start(w->loop, &c->tick);
    return c;
}

void canary_free(struct canary *c)
{
    if (!c)
        return;
    ev_timer_stop(c->w->loop, &c->tick);
    store_cancel(c->call);
    free(c);
}

void canary_on_subscribed(struct canary *c)
{
    store_cancel(c->call);
    c->call = NULL;
    c->is_awaited = false;
    c->plain = 0;
    tick_after(c, interval(c));
    probe(c);
}

void canary_on_echo(struct canary *c, const char *payload, size_t len)
{
    char text[32];
    int expected = snprintf(text, sizeof(text), "%llu", (unsigned long long)c->number);
    if (!c->is_awaited || len != (size_t)expected || memcmp(payload, text, len))
        return;
    c->is_awaited = false;
    counters_set(CTR_redis_delivery_probe_us, (uint64_t)(clock_mono_us() - c->sent_us));
    counters_set(CTR_redis_delivery_probe_at_ms, (uint64_t)clock_wall_ms());
}
