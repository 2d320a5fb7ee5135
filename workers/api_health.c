#include "config.h"

#include "shared/clock.h"
#include "workers/api.h"
#include "workers/pressure.h"

/* A probe is due each interval and may take one to come back; half of one is slack for the timers.
 * Late by more than that is within the three intervals that are promised. */
#define PROBE_LATE_HALF_INTERVALS 5

void api_add_timestamp(const struct worker *w, struct text_buf *out)
{
    char now[CLOCK_ISO_BYTES];
    clock_format_us(clock_wall_us(), w->style.with_zone, now);
    text_addf(out, "\"timestamp\":\"%s\"", now);
}

static bool slot_is_ready(const struct counters *c, uint32_t slot)
{
    return __atomic_load_n(&c->slots[slot].state, __ATOMIC_RELAXED) == SLOT_READY;
}

uint32_t api_ready_workers(const struct worker *w)
{
    const struct counters *c = w->start->counters;
    uint32_t ready = 0;
    for (uint32_t i = 0; i < c->head->slots; i++)
        ready += slot_is_ready(c, i);
    return ready;
}

long long api_uptime_s(const struct worker *w)
{
    int64_t up_ms = clock_wall_ms() - (int64_t)w->start->counters->head->started_at_ms;
    return up_ms > 0 ? up_ms / 1000 : 0;
}

/* Redis as all serving workers see it: as bad as the worst of them. */
struct redis_view {
    uint32_t workers;
    bool is_connected;
    bool is_delivering;
    bool has_probe; /* every worker has one */
    uint64_t latency_us;
    uint64_t probe_us;
    uint64_t memory_bytes; /* of the largest */
    bool is_memory_high;   /* new connections are refused */
};

static void look_at(struct redis_view *view, const struct counters *c, uint32_t slot,
                    int64_t now_ms, int64_t late_ms)
{
    uint64_t latency_us = counters_get(c, slot, CTR_redis_latency_us);
    uint64_t probe_us = counters_get(c, slot, CTR_redis_delivery_probe_us);
    int64_t probe_at_ms = (int64_t)counters_get(c, slot, CTR_redis_delivery_probe_at_ms);
    int64_t started_ms = (int64_t)counters_get(c, slot, CTR_started_at_ms);

    uint64_t memory_bytes = counters_get(c, slot, CTR_memory_bytes);

    view->workers++;
    if (memory_bytes > view->memory_bytes)
        view->memory_bytes = memory_bytes;
    if (!counters_get(c, slot, CTR_redis_subscriber_up) ||
        !counters_get(c, slot, CTR_redis_command_up))
        view->is_connected = false;
    if (!probe_at_ms)
        view->has_probe = false;
    if (now_ms - (probe_at_ms > started_ms ? probe_at_ms : started_ms) > late_ms)
        view->is_delivering = false;
    if (latency_us > view->latency_us)
        view->latency_us = latency_us;
    if (probe_us > view->probe_us)
        view->probe_us = probe_us;
}

static struct redis_view view_redis(const struct worker *w)
{
    const struct counters *c = w->start->counters;
    struct redis_view view = {.is_connected = true, .is_delivering = true, .has_probe = true};
    int64_t late_ms = w->opt->redis_probe_interval * PROBE_LATE_HALF_INTERVALS / 2;
    for (uint32_t i = 0; i < c->head->slots; i++) {
        if (slot_is_ready(c, i))
            look_at(&view, c, i, clock_wall_ms(), late_ms);
    }
    uint64_t high_bytes = pressure_high_bytes(w->opt);
    view.is_memory_high = high_bytes && view.memory_bytes > high_bytes;
    if (!view.workers)
        view.is_connected = view.is_delivering = view.has_probe = false;
    return view;
}

/* The instance: a worker that another one replaces is no reason to send clients elsewhere. */
static bool is_draining(const struct worker *w)
{
    uint32_t state = __atomic_load_n(&w->start->counters->head->state, __ATOMIC_RELAXED);
    return (w->is_draining && !w->is_replaced) || state == INSTANCE_DRAINING ||
           state == INSTANCE_STOPPING;
}

static void add_redis(const struct redis_view *view, struct text_buf *out)
{
    text_addf(out, "\"redis\":{\"status\":\"%s\"",
              view->is_connected ? "connected" : "disconnected");
    if (view->is_connected)
        text_addf(out, ",\"latency_ms\":%.3f", (double)view->latency_us / 1000);
    else
        text_adds(out, ",\"latency_ms\":null");
    if (view->has_probe)
        text_addf(out, ",\"last_delivery_probe_ms\":%.3f}", (double)view->probe_us / 1000);
    else
        text_adds(out, ",\"last_delivery_probe_ms\":null}");
}

void api_health(const struct request *rq)
{
    const struct worker *w = rq->worker;
    struct text_buf body = {0};
    struct text_span live;
    if (text_query_find(http_query(rq->http), "live", &live)) {
        text_adds(&body, "{\"status\":\"alive\",");
        api_add_timestamp(w, &body);
        text_addc(&body, '}');
        reply_json(rq->reply, 200, &body);
        return;
    }
    struct redis_view view = view_redis(w);
    const char *status = "healthy";
    if (is_draining(w))
        status = "draining";
    else if (!view.is_connected || !view.is_delivering)
        status = "degraded";
    text_addf(&body,
              "{\"status\":\"%s\",\"total_connections\":%llu,\"connected_users\":%u,"
              "\"workers\":%u,",
              status, (unsigned long long)counters_sum(w->start->counters, CTR_websockets),
              usertable_users(w->start->users), view.workers);
    add_redis(&view, &body);
    text_addf(&body, ",\"memory\":{\"status\":\"%s\",\"max_worker_bytes\":%llu},",
              view.is_memory_high ? "high" : "ok", (unsigned long long)view.memory_bytes);
    api_add_timestamp(w, &body);
    text_addc(&body, '}');
    reply_json(rq->reply, status[0] == 'h' ? 200 : 503, &body);
}
