/*
 * counters.h - counters in shared memory: one padded slot for each worker, single writer, many
 * readers.
 *
 * The master makes the segment and never writes a worker's live slot; a worker writes its own slot
 * only; everybody reads. Values are 64-bit, written with relaxed atomics. A slot's totals outlive
 * its worker: the successor goes on from them, so totals never go backwards. Layout is seen by
 * several processes: fixed-width fields, static asserts.
 */
#ifndef BELFRY_SHARED_COUNTERS_H
#define BELFRY_SHARED_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/closes.h"
#include "shared/text.h"

enum counter {
#define COUNTER(name, kind, group, help) CTR_##name,
#include "shared/counters.def"
#undef COUNTER
#define CLOSE(name, code, reason, word, client, help) CTR_CLOSED_##name,
#include "shared/closes.def"
#undef CLOSE
    COUNTERS
};

/* The row of a close reason: CTR_CLOSED_FIRST + CLOSE_x, the tables being in one order. */
#define CTR_CLOSED_FIRST (COUNTERS - (int)CLOSE_REASONS)

/* The rows of the group "latency", in order; the last is of what took longer than all bounds. */
#define COUNTERS_LATENCY_ROWS ((int)CTR_delivered_later - (int)CTR_delivered_in_50us + 1)

/* What a worker is doing: its last words, should it die of it. */
enum doing {
#define DOING(name, words) DOING_##name,
#include "shared/doing.def"
#undef DOING
    DOINGS
};

enum counter_kind { COUNTER_TOTAL, COUNTER_GAUGE };

struct counter_row {
    const char *name; /* closed_no_pong for rows of the close table */
    enum counter_kind kind;
    const char *group; /* lower case; "closes" for the close table */
    const char *help;
};

extern const struct counter_row counters_table[COUNTERS];

enum slot_state { SLOT_EMPTY, SLOT_STARTING, SLOT_READY, SLOT_DRAINING, SLOT_STOPPING };
enum instance_state { INSTANCE_STARTING, INSTANCE_RUNNING, INSTANCE_DRAINING, INSTANCE_STOPPING };

#define COUNTERS_MAX_SLOTS 256
#define COUNTERS_SLOT_BYTES 4096
#define COUNTERS_RELOAD_BYTES 256

/* One worker's slot. pid, generation, state and restarts are the master's; on_the_way is also
 * those workers' that take; the rest is the worker's, and outlives it. */
struct counters_slot {
    uint32_t pid;
    uint32_t generation;
    uint32_t state;      /* enum slot_state */
    uint32_t restarts;   /* times the slot's worker died unasked */
    uint64_t heartbeat_ms; /* monotonic clock of the worker's last turn */
    uint64_t doing_serial; /* connection that is handled; 0: none */
    uint32_t doing;        /* enum doing */
    uint32_t on_the_way;   /* WebSockets it gave away that no other has yet: taken out by those */
    uint64_t values[COUNTERS];
} __attribute__((aligned(COUNTERS_SLOT_BYTES)));

_Static_assert(sizeof(struct counters_slot) == COUNTERS_SLOT_BYTES, "one slot is one page");

/* The segment's head: what the master says about the instance. */
struct counters_head {
    uint32_t slots;
    uint32_t state;        /* enum instance_state */
    uint32_t generation;
    uint32_t workers;      /* configured */
    uint64_t started_at_ms; /* wall clock */
    uint64_t last_reload_at_ms;
    char instance_id[40];
    char version[24];
    uint64_t identity;     /* of this segment; random */
    uint64_t moves;        /* of WebSockets from slot to slot; all add to it */
    uint64_t earlier_restarts; /* of the version before, whose slots were laid out differently */
    uint64_t earlier[COUNTERS]; /* its totals; part of every sum */
    uint32_t reload_writes;     /* odd while the three are written: last_reload_at_ms and these */
    uint32_t last_reload_ok;
    char last_reload[COUNTERS_RELOAD_BYTES];
};

struct counters {
    struct counters_head *head;
    struct counters_slot *slots;
    size_t bytes;
    int fd; /* segment.h; only while head is there */
};

/* Makes the segment (inherited by fork). 0 or negative errno. */
int counters_create(struct counters *c, uint32_t slots);
/* Maps the segment of another master (fd given on success) with the same counters_layout. 0,
 * -EPROTO or another negative errno. */
int counters_adopt(struct counters *c, int fd);
/* What must be equal where a segment is shared: names, kinds, order and sizes, as a hash. */
uint64_t counters_layout(void);
void counters_destroy(struct counters *c);

/* The slot this process writes; a private one before counters_attach. Documented global: it is what
 * makes counting one instruction anywhere in a worker. */
extern struct counters_slot *counters_self;
/* Makes slot the one this process writes, and zeroes its gauges. */
void counters_attach(struct counters *c, uint32_t slot);
/* Master: a worker is gone: state SLOT_EMPTY, gauges zeroed, totals kept. */
void counters_retire(struct counters *c, uint32_t slot);

static inline void counters_add(enum counter id, uint64_t n)
{
    uint64_t *v = &counters_self->values[id];
    __atomic_store_n(v, __atomic_load_n(v, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline void counters_inc(enum counter id)
{
    counters_add(id, 1);
}
static inline void counters_dec(enum counter id)
{
    counters_add(id, (uint64_t)-1);
}
static inline void counters_set(enum counter id, uint64_t value)
{
    __atomic_store_n(&counters_self->values[id], value, __ATOMIC_RELAXED);
}

static inline void counters_doing(enum doing what, uint64_t serial)
{
    __atomic_store_n(&counters_self->doing_serial, serial, __ATOMIC_RELAXED);
    __atomic_store_n(&counters_self->doing, (uint32_t)what, __ATOMIC_RELAXED);
}
const char *counters_doing_words(uint32_t what); /* "unknown" for none */

/* A WebSocket leaves for another worker, and arrives there. Meanwhile it is counted as on the way,
 * so that their sum stays what it is. */
void counters_depart(struct counters *c);
void counters_arrive(struct counters *c, uint32_t from_slot);
/* A turn of the loop took so long: rows loop_busy_us and loop_turns_... */
void counters_turn(uint64_t us);
/* n deliveries took so long: rows delivery_us and delivered_in_... */
void counters_delivered(uint64_t us, uint64_t n);
/* Of n deliveries in each row: the time that this share of them took at most, as if they lay evenly
 * between the bounds; the last bound, if they took longer; -1 when there are none. */
double counters_quantile_us(const uint64_t n[COUNTERS_LATENCY_ROWS], double share);

uint64_t counters_get(const struct counters *c, uint32_t slot, enum counter id);
/* Sum over all slots, empty ones included, and earlier totals; of websockets, those on the way,
 * too. */
uint64_t counters_sum(const struct counters *c, enum counter id);
/* Unasked deaths of workers, likewise. */
uint64_t counters_restarts(const struct counters *c);

/* How the last reload or upgrade went. */
struct counters_reload {
    int64_t at_ms; /* wall clock */
    bool ok;
    char message[COUNTERS_RELOAD_BYTES]; /* cut, where it is longer */
};

void counters_set_reload(struct counters *c, int64_t at_ms, bool ok, const char *message);
/* False: there was none. */
bool counters_get_reload(const struct counters *c, struct counters_reload *out);

/* Master, between two workers of a slot: counts what only it can know of the dead one. */
void counters_add_for_dead(struct counters *c, uint32_t slot, enum counter id, uint64_t n);

/* The totals as lines "NAME VALUE", for a version whose table may be another one; and what such
 * lines say, as earlier totals: names this version does not know are left out, and nothing ever
 * goes back. */
void counters_write_totals(const struct counters *c, struct text_buf *out);
void counters_take_earlier(struct counters *c, struct text_span lines);

/* Appends a JSON object of one group's counters, of one slot (slot >= 0) or of all (slot < 0):
 * {"name":n,...}. "All" is the sum; of gauges in _us or _ms it is the largest, for their sum says
 * nothing. */
void counters_json_group(const struct counters *c, int slot, const char *group,
                         struct text_buf *out);
/* Appends Prometheus text (exposition format 0.0.4): HELP and TYPE once for each row, one sample
 * for each slot that ever had a worker (totals outlive it), label worker="N". Names:
 * belfry_NAME_total for totals, belfry_NAME for gauges; *_us and *_ms rows are written in seconds
 * as belfry_NAME_seconds (base units). The rows of the close table are one metric:
 * belfry_closes_total{reason="no_pong",code="0",worker="0"}; those of the groups "latency" and
 * "turns" are the histograms belfry_delivery_seconds and belfry_loop_turn_seconds. The same rows of
 * all workers together follow as belfry_instance_NAME, without label: beside the workers' samples
 * they would count twice in every sum. */
void counters_prometheus(const struct counters *c, struct text_buf *out);

#endif
