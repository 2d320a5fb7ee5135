#include "config.h"

#include "src/rates.h"

#include <stdlib.h>
#include <time.h>

#include "shared/clock.h"

static const struct column {
    enum counter counter;
    const char *name;
} columns[] = {
    {CTR_messages_received, "received"},    {CTR_deliveries, "delivered"},
    {CTR_commands, "commands"},             {CTR_received_bytes, "received_bytes"},
    {CTR_sent_bytes, "sent_bytes"},         {CTR_websockets_opened, "opened"},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))
#define SAMPLES (RATES_WINDOW_S + 1)

/* One slot at one time. */
struct cell {
    uint64_t values[COLUMNS];
    uint64_t latency[COUNTERS_LATENCY_ROWS];
    uint64_t cpu_us; /* of the process */
    uint32_t pid;    /* 0: none */
};

struct rates {
    struct ev_loop *loop;
    const struct counters *counters;
    struct ev_timer tick;
    uint64_t taken; /* samples so far */
    int64_t at_us[SAMPLES];
    struct cell cells[]; /* SAMPLES times all slots */
};

/* Processor time of another process: clock_getcpuclockid(3). 0: not known. */
static uint64_t cpu_us_of(uint32_t pid)
{
    clockid_t id;
    struct timespec t;
    if (!pid || clock_getcpuclockid((pid_t)pid, &id) != 0 || clock_gettime(id, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static struct cell cell_of(const struct rates *r, uint32_t slot)
{
    struct cell c;
    for (size_t i = 0; i < COLUMNS; i++)
        c.values[i] = counters_get(r->counters, slot, columns[i].counter);
    for (int i = 0; i < COUNTERS_LATENCY_ROWS; i++)
        c.latency[i] =
            counters_get(r->counters, slot, (enum counter)((int)CTR_delivered_in_50us + i));
    c.pid = __atomic_load_n(&r->counters->slots[slot].pid, __ATOMIC_RELAXED);
    c.cpu_us = cpu_us_of(c.pid);
    return c;
}

void rates_look(struct rates *r)
{
    uint32_t slots = r->counters->head->slots;
    size_t at = r->taken++ % SAMPLES;
    r->at_us[at] = clock_mono_us();
    for (uint32_t slot = 0; slot < slots; slot++)
        r->cells[at * slots + slot] = cell_of(r, slot);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop, (void)events;
    rates_look(timer->data);
}

struct rates *rates_new(struct ev_loop *loop, const struct counters *counters)
{
    struct rates *r =
        calloc(1, sizeof(*r) + SAMPLES * counters->head->slots * sizeof(struct cell));
    if (!r)
        return NULL;
    r->loop = loop;
    r->counters = counters;
    rates_look(r);
    ev_timer_init(&r->tick, on_tick, 1., 1.);
    r->tick.data = r;
    ev_timer_start(loop, &r->tick);
    return r;
}

void rates_free(struct rates *r)
{
    if (!r)
        return;
    ev_timer_stop(r->loop, &r->tick);
    free(r);
}

/* What happened in a slot between an old sample and now, added to sum. */
static void add_difference(const struct rates *r, size_t old_at, uint32_t slot, struct cell *sum)
{
    const struct cell *old = &r->cells[old_at * r->counters->head->slots + slot];
    struct cell now = cell_of(r, slot);
    for (size_t i = 0; i < COLUMNS; i++) /* totals never go back */
        sum->values[i] += now.values[i] - old->values[i];
    for (int i = 0; i < COUNTERS_LATENCY_ROWS; i++)
        sum->latency[i] += now.latency[i] - old->latency[i];
    uint64_t before = now.pid == old->pid ? old->cpu_us : 0;
    if (now.pid && now.cpu_us >= before && now.cpu_us) {
        sum->cpu_us += now.cpu_us - before;
        sum->pid = now.pid;
    }
}

/* Of deliveries: {"p50", "p99"} in ms, or null. */
static void add_latency(const struct cell *sum, struct text_buf *out)
{
    double half_us = counters_quantile_us(sum->latency, 0.5);
    text_adds(out, ",\"delivery_ms\":");
    if (half_us < 0)
        text_adds(out, "null");
    else
        text_addf(out, "{\"p50\":%.3f,\"p99\":%.3f}", half_us / 1000,
                  counters_quantile_us(sum->latency, 0.99) / 1000);
}

void rates_write(const struct rates *r, int slot, struct text_buf *out)
{
    size_t old_at = r->taken < SAMPLES ? 0 : r->taken % SAMPLES;
    double seconds = (double)(clock_mono_us() - r->at_us[old_at]) / 1e6;
    struct cell sum = {.pid = 0};
    for (uint32_t i = 0; i < r->counters->head->slots; i++)
        if (slot < 0 || i == (uint32_t)slot)
            add_difference(r, old_at, i, &sum);
    if (seconds < 0.001)
        seconds = 0.001;
    text_addf(out, "{\"seconds\":%.3f", seconds);
    for (size_t i = 0; i < COLUMNS; i++)
        text_addf(out, ",\"%s\":%.1f", columns[i].name, (double)sum.values[i] / seconds);
    add_latency(&sum, out);
    if (sum.pid)
        text_addf(out, ",\"cpu_percent\":%.1f}", (double)sum.cpu_us / seconds / 1e4);
    else
        text_adds(out, ",\"cpu_percent\":null}");
}
