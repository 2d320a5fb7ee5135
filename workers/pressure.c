#include "config.h"

#include "workers/pressure.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/log.h"
#include "workers/conn.h"

#define CALM_MS 1000   /* between two measurements, where nothing depends on them */
#define ALERT_MS 100
#define TRIM_MS 1000   /* between two looks at what the heap keeps: it walks all free chunks */
#define WORTH_BYTES 4096 /* who holds less is not closed for it */

struct pressure {
    struct worker *w;
    int64_t next_ms, next_trim_ms;
    long page_bytes;
    bool is_high;
};

struct pressure *pressure_new(struct worker *w)
{
    struct pressure *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->w = w;
    p->page_bytes = sysconf(_SC_PAGESIZE);
    if (w->opt->max_memory && w->start->memory_fd < 0)
        log_error("memory-unknown", "reason", "/proc/self/statm cannot be read");
    return p;
}

void pressure_free(struct pressure *p)
{
    free(p);
}

bool pressure_is_high(const struct pressure *p)
{
    return p && p->is_high;
}

uint64_t pressure_high_bytes(const struct options *opt)
{
    return (uint64_t)opt->max_memory / 8 * 7;
}

/* 0: not known. */
static uint64_t measure(const struct pressure *p)
{
    char text[128];
    unsigned long long size, resident, shared;
    ssize_t n = p->w->start->memory_fd < 0
                    ? -1
                    : pread(p->w->start->memory_fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    if (sscanf(text, "%llu %llu %llu", &size, &resident, &shared) != 3 || resident < shared)
        return 0;
    return (resident - shared) * (uint64_t)p->page_bytes;
}

/* What the heap keeps of what was freed is given back. Returns what is held then. */
static uint64_t trim(struct pressure *p)
{
    conns_trim(p->w->conns);
    p->next_trim_ms = worker_now_ms(p->w) + TRIM_MS;
    return measure(p);
}

/* ---- shedding ---- */

struct shedding {
    size_t most;    /* that one holds */
    uint64_t excess; /* still to be freed */
    size_t closed;
};

static void find_most(void *data, struct conn *c)
{
    struct shedding *s = data;
    size_t held = conn_held_bytes(c);
    if (held > s->most)
        s->most = held;
}

static void close_largest(void *data, struct conn *c)
{
    struct shedding *s = data;
    size_t held = conn_held_bytes(c);
    if (!s->excess || held < s->most / 2)
        return;
    s->excess = held < s->excess ? s->excess - held : 0;
    s->closed++;
    conn_shed(c);
}

static void shed(struct pressure *p, uint64_t excess)
{
    struct shedding s = {.excess = excess};
    conns_each(p->w->conns, find_most, &s);
    if (s.most >= WORTH_BYTES)
        conns_each(p->w->conns, close_largest, &s);
    log_warning("memory-shed", "over_bytes", LOG_INT(excess), "closed", LOG_INT(s.closed));
}

/* ---- each turn ---- */

static void set_high(struct pressure *p, bool is_high, uint64_t bytes)
{
    if (p->is_high == is_high)
        return;
    p->is_high = is_high;
    if (is_high)
        log_warning("memory-high", "bytes", LOG_INT(bytes), "max", LOG_INT(p->w->opt->max_memory));
    else
        log_notice("memory-fine", "bytes", LOG_INT(bytes));
}

void pressure_turn(struct pressure *p)
{
    int64_t now_ms = worker_now_ms(p->w);
    uint64_t max = (uint64_t)p->w->opt->max_memory, high = pressure_high_bytes(p->w->opt);
    if (now_ms < p->next_ms)
        return;
    p->next_ms = now_ms + (max ? ALERT_MS : CALM_MS);
    uint64_t bytes = measure(p);
    if (max && bytes > high && (bytes > max || now_ms >= p->next_trim_ms))
        bytes = trim(p);
    if (max && bytes > max) {
        shed(p, bytes - max);
        bytes = trim(p);
    }
    counters_set(CTR_memory_bytes, bytes);
    if (max)
        set_high(p, p->is_high ? bytes > high - high / 16 : bytes > high, bytes);
}
