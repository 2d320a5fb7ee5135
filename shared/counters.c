/*
 * counters.c - see counters.h.
 */
#include "config.h"

#include "shared/counters.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

#include "shared/chance.h"
#include "shared/closes.h"
#include "shared/segment.h"

#define CLOSED_NAME_BYTES 32
#define SUM_TRIES 16

#define GROUP_CONNECTIONS "connections"
#define GROUP_HTTP "http"
#define GROUP_MESSAGES "messages"
#define GROUP_CLIENT "client"
#define GROUP_REDIS "redis"
#define GROUP_PROCESS "process"
#define GROUP_LATENCY "latency"
#define GROUP_TURNS "turns"

/* "closed_" and the close table's name, made when the program is loaded. */
static char closed_names[CLOSE_REASONS][CLOSED_NAME_BYTES];

#define CLOSE(name, code, reason, word, client, help) \
    _Static_assert(sizeof "closed_" #name <= CLOSED_NAME_BYTES, "CLOSED_NAME_BYTES is too small");
#include "shared/closes.def"
#undef CLOSE

const struct counter_row counters_table[COUNTERS] = {
#define COUNTER(name, kind, group, help) {#name, COUNTER_##kind, GROUP_##group, help},
#include "shared/counters.def"
#undef COUNTER
#define CLOSE(name, code, reason, word, client, help) \
    {closed_names[CLOSE_##name], COUNTER_TOTAL, "closes", help},
#include "shared/closes.def"
#undef CLOSE
};

__attribute__((constructor)) static void make_closed_names(void)
{
    static const char *const upper[CLOSE_REASONS] = {
#define CLOSE(name, code, reason, word, client, help) #name,
#include "shared/closes.def"
#undef CLOSE
    };
    for (int i = 0; i < CLOSE_REASONS; i++) {
        memcpy(closed_names[i], "closed_", 7);
        for (size_t j = 0; upper[i][j]; j++) {
            char c = upper[i][j];
            closed_names[i][7 + j] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
    }
}

/* A row for each bound, and one behind them of what is longer. */
static const uint32_t latency_bounds_us[] = {50,    100,   200,   500,    1000,   2000,    5000,
                                             10000, 20000, 50000, 100000, 250000, 1000000,
                                             5000000};
static const uint32_t turn_bounds_us[] = {1000,  2000,   5000,   10000, 20000,
                                          50000, 100000, 250000, 1000000};
#define BOUNDS(array) ((int)(sizeof(array) / sizeof((array)[0])))
_Static_assert(CTR_delivered_in_50us + BOUNDS(latency_bounds_us) == CTR_delivered_later,
               "a row for each");
_Static_assert(CTR_loop_turns_to_1ms + BOUNDS(turn_bounds_us) == CTR_loop_turns_longer,
               "a row for each");
_Static_assert(CTR_delivered_later + 1 == CTR_loop_turns_to_1ms, "histograms stand together");
_Static_assert(CTR_loop_turns_longer + 1 == CTR_CLOSED_FIRST, "and before closes");

static const struct histogram {
    enum counter first; /* row of the first bound */
    enum counter sum;   /* row of all that was measured, added up */
    const uint32_t *bounds_us;
    int bounds;
    const char *name;
    const char *help;
} latency = {CTR_delivered_in_50us, CTR_delivery_us, latency_bounds_us, BOUNDS(latency_bounds_us),
             "delivery_seconds",
             "From the turn that read a message from Redis to the end of its write to a device."},
  turns = {CTR_loop_turns_to_1ms, CTR_loop_busy_us, turn_bounds_us, BOUNDS(turn_bounds_us),
           "loop_turn_seconds",
           "How long turns of the loop took: whatever comes meanwhile waits."};

static struct counters_slot private_slot;
struct counters_slot *counters_self = &private_slot;

_Static_assert(sizeof(struct counters_head) <= COUNTERS_SLOT_BYTES, "the head is one page");
_Static_assert(offsetof(struct counters_slot, values) == 40, "seen by several processes");
_Static_assert(offsetof(struct counters_head, earlier) == 120, "seen by several processes");

static size_t segment_bytes(uint32_t slots)
{
    return COUNTERS_SLOT_BYTES * ((size_t)slots + 1);
}

static void set_segment(struct counters *c, void *at, size_t bytes, int fd)
{
    struct counters_slot *slots = (void *)((char *)at + COUNTERS_SLOT_BYTES);
    *c = (struct counters){.head = at, .slots = slots, .bytes = bytes, .fd = fd};
}

int counters_create(struct counters *c, uint32_t slots)
{
    if (slots == 0 || slots > COUNTERS_MAX_SLOTS)
        return -EINVAL;
    void *at;
    int fd, error = segment_create("belfry-counters", segment_bytes(slots), &at, &fd);
    if (error)
        return error;
    set_segment(c, at, segment_bytes(slots), fd);
    c->head->slots = slots;
    c->head->identity = chance_seed();
    return 0;
}

int counters_adopt(struct counters *c, int fd)
{
    void *at;
    size_t bytes;
    int error = segment_map(fd, segment_bytes(1), &at, &bytes);
    if (error)
        return error;
    const struct counters_head *head = at;
    if (!head->slots || head->slots > COUNTERS_MAX_SLOTS || segment_bytes(head->slots) != bytes) {
        segment_free(at, bytes, -1);
        return -EPROTO;
    }
    set_segment(c, at, bytes, fd);
    return 0;
}

uint64_t counters_layout(void)
{
    struct text_buf b = {0};
    text_addf(&b, "%zu %zu", sizeof(struct counters_head), offsetof(struct counters_slot, values));
    for (int i = 0; i < COUNTERS; i++)
        text_addf(&b, " %s %d", counters_table[i].name, (int)counters_table[i].kind);
    uint64_t hash = b.failed ? 0 : text_hash64(b.data, b.len);
    text_buf_free(&b);
    return hash;
}

void counters_destroy(struct counters *c)
{
    if (!c || !c->head)
        return;
    if (counters_self >= c->slots && counters_self < c->slots + c->head->slots)
        counters_self = &private_slot;
    segment_free(c->head, c->bytes, c->fd);
    *c = (struct counters){0};
}

static void zero_gauges(struct counters_slot *slot)
{
    for (int i = 0; i < COUNTERS; i++)
        if (counters_table[i].kind == COUNTER_GAUGE)
            __atomic_store_n(&slot->values[i], 0, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->on_the_way, 0, __ATOMIC_RELAXED);
}

void counters_attach(struct counters *c, uint32_t slot)
{
    counters_self = &c->slots[slot];
    zero_gauges(counters_self);
}

void counters_retire(struct counters *c, uint32_t slot)
{
    struct counters_slot *s = &c->slots[slot];
    __atomic_store_n(&s->pid, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&s->heartbeat_ms, 0, __ATOMIC_RELAXED);
    zero_gauges(s);
    __atomic_store_n(&s->state, SLOT_EMPTY, __ATOMIC_RELEASE);
}

const char *counters_doing_words(uint32_t what)
{
    static const char *const words[DOINGS] = {
#define DOING(name, text) text,
#include "shared/doing.def"
#undef DOING
    };
    return what < DOINGS ? words[what] : "unknown";
}

/* n times so long. */
static void measured(const struct histogram *h, uint64_t us, uint64_t n)
{
    int i = 0;
    while (i < h->bounds && us > h->bounds_us[i])
        i++;
    counters_add((enum counter)((int)h->first + i), n);
    counters_add(h->sum, us * n);
}

void counters_turn(uint64_t us)
{
    measured(&turns, us, 1);
}

void counters_delivered(uint64_t us, uint64_t n)
{
    measured(&latency, us, n);
}

double counters_quantile_us(const uint64_t n[COUNTERS_LATENCY_ROWS], double share)
{
    uint64_t all = 0, below = 0;
    for (int i = 0; i < COUNTERS_LATENCY_ROWS; i++)
        all += n[i];
    for (int i = 0; i < latency.bounds; i++) {
        double from = i ? latency.bounds_us[i - 1] : 0, to = latency.bounds_us[i];
        if (n[i] && (double)(below + n[i]) >= share * (double)all)
            return from + (to - from) * (share * (double)all - (double)below) / (double)n[i];
        below += n[i];
    }
    return all ? (double)latency.bounds_us[latency.bounds - 1] : -1;
}

uint64_t counters_get(const struct counters *c, uint32_t slot, enum counter id)
{
    return __atomic_load_n(&c->slots[slot].values[id], __ATOMIC_RELAXED);
}

void counters_depart(struct counters *c)
{
    __atomic_add_fetch(&c->head->moves, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&counters_self->on_the_way, 1, __ATOMIC_SEQ_CST);
    counters_dec(CTR_websockets);
}

void counters_arrive(struct counters *c, uint32_t from_slot)
{
    uint32_t *way = &c->slots[from_slot].on_the_way;
    uint32_t n = __atomic_load_n(way, __ATOMIC_RELAXED);
    __atomic_add_fetch(&c->head->moves, 1, __ATOMIC_SEQ_CST);
    counters_inc(CTR_websockets);
    /* None, when who gave it is gone. */
    while (n && !__atomic_compare_exchange_n(way, &n, n - 1, false, __ATOMIC_SEQ_CST,
                                             __ATOMIC_RELAXED))
        ;
}

/* One writer. Readers look whether it was at work meanwhile: Boehm, "Can seqlocks get along with
 * programming language memory models?" (2012). */
void counters_set_reload(struct counters *c, int64_t at_ms, bool ok, const char *message)
{
    struct counters_head *h = c->head;
    uint32_t writes = h->reload_writes;
    __atomic_store_n(&h->reload_writes, writes + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    h->last_reload_at_ms = (uint64_t)at_ms;
    h->last_reload_ok = ok;
    snprintf(h->last_reload, sizeof h->last_reload, "%s", message);
    __atomic_store_n(&h->reload_writes, writes + 2, __ATOMIC_RELEASE);
}

bool counters_get_reload(const struct counters *c, struct counters_reload *out)
{
    const struct counters_head *h = c->head;
    for (int i = 0; i < SUM_TRIES; i++) {
        uint32_t before = __atomic_load_n(&h->reload_writes, __ATOMIC_ACQUIRE);
        out->at_ms = (int64_t)h->last_reload_at_ms;
        out->ok = h->last_reload_ok;
        memcpy(out->message, h->last_reload, sizeof out->message);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && __atomic_load_n(&h->reload_writes, __ATOMIC_RELAXED) == before)
            break;
    }
    out->message[sizeof out->message - 1] = '\0';
    return out->at_ms != 0;
}

static uint64_t sum_once(const struct counters *c, enum counter id)
{
    uint64_t sum = __atomic_load_n(&c->head->earlier[id], __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < c->head->slots; i++) {
        if (id == CTR_websockets)
            sum += __atomic_load_n(&c->slots[i].on_the_way, __ATOMIC_RELAXED);
        sum += counters_get(c, i, id);
    }
    return sum;
}

/* What moved from a slot that was not read yet to one that was would be missed. */
uint64_t counters_sum(const struct counters *c, enum counter id)
{
    uint64_t sum = 0, moves;
    for (int i = 0; i < SUM_TRIES; i++) {
        moves = __atomic_load_n(&c->head->moves, __ATOMIC_ACQUIRE);
        sum = sum_once(c, id);
        if (id != CTR_websockets || __atomic_load_n(&c->head->moves, __ATOMIC_ACQUIRE) == moves)
            break;
    }
    return sum;
}

uint64_t counters_restarts(const struct counters *c)
{
    uint64_t sum = c->head->earlier_restarts;
    for (uint32_t i = 0; i < c->head->slots; i++)
        sum += __atomic_load_n(&c->slots[i].restarts, __ATOMIC_RELAXED);
    return sum;
}

void counters_add_for_dead(struct counters *c, uint32_t slot, enum counter id, uint64_t n)
{
    uint64_t *v = &c->slots[slot].values[id];
    __atomic_store_n(v, __atomic_load_n(v, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

/* ---- totals for and of another version ---- */

#define RESTARTS_NAME "restarts" /* no counter of the table, but a total like any other */

void counters_write_totals(const struct counters *c, struct text_buf *out)
{
    text_addf(out, RESTARTS_NAME " %llu\n", (unsigned long long)counters_restarts(c));
    for (int i = 0; i < COUNTERS; i++)
        if (counters_table[i].kind == COUNTER_TOTAL)
            text_addf(out, "%s %llu\n", counters_table[i].name,
                      (unsigned long long)counters_sum(c, (enum counter)i));
}

/* Where a total of this name is kept; NULL: this version has none. */
static uint64_t *find_earlier(struct counters *c, struct text_span name)
{
    if (text_span_eq(name, RESTARTS_NAME))
        return &c->head->earlier_restarts;
    for (int i = 0; i < COUNTERS; i++)
        if (counters_table[i].kind == COUNTER_TOTAL && text_span_eq(name, counters_table[i].name))
            return &c->head->earlier[i];
    return NULL;
}

void counters_take_earlier(struct counters *c, struct text_span lines)
{
    const char *at = lines.ptr, *end = lines.ptr + lines.len;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *blank = memchr(at, ' ', (size_t)((stop ? stop : end) - at));
        struct text_span name = {at, blank ? (size_t)(blank - at) : 0};
        uint64_t *to = blank && stop ? find_earlier(c, name) : NULL;
        /* A digit, for strtoull would look for one behind the line's end. */
        bool is_number = to && blank[1] >= '0' && blank[1] <= '9';
        uint64_t value = is_number ? strtoull(blank + 1, NULL, 10) : 0; /* ends at the line's end */
        if (is_number && value > *to)
            __atomic_store_n(to, value, __ATOMIC_RELAXED);
        if (!stop)
            return;
        at = stop + 1;
    }
}

static bool name_ends(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* A sum of latencies or of points in time would say nothing. */
static uint64_t over_all(const struct counters *c, enum counter id)
{
    const struct counter_row *row = &counters_table[id];
    if (row->kind == COUNTER_TOTAL || !(name_ends(row->name, "_us") || name_ends(row->name, "_ms")))
        return counters_sum(c, id);
    uint64_t most = 0;
    for (uint32_t i = 0; i < c->head->slots; i++) {
        uint64_t v = counters_get(c, i, id);
        if (v > most)
            most = v;
    }
    return most;
}

void counters_json_group(const struct counters *c, int slot, const char *group,
                         struct text_buf *out)
{
    bool first = true;
    text_addc(out, '{');
    for (int i = 0; i < COUNTERS; i++) {
        if (strcmp(counters_table[i].group, group) != 0)
            continue;
        uint64_t v = slot < 0 ? over_all(c, (enum counter)i)
                              : counters_get(c, (uint32_t)slot, (enum counter)i);
        text_addf(out, "%s\"%s\":%llu", first ? "" : ",", counters_table[i].name,
                  (unsigned long long)v);
        first = false;
    }
    text_addc(out, '}');
}

/* --- Prometheus --- */

/* A slot that a worker has had at some time: its totals must not vanish with the worker. */
static bool in_use(const struct counters_slot *s)
{
    return __atomic_load_n(&s->state, __ATOMIC_RELAXED) != SLOT_EMPTY ||
           __atomic_load_n(&s->pid, __ATOMIC_RELAXED) != 0 ||
           __atomic_load_n(&s->generation, __ATOMIC_RELAXED) != 0;
}

static void add_head(struct text_buf *out, const char *name, const char *type, const char *help)
{
    text_addf(out, "# HELP %s ", name);
    for (; *help; help++) { /* exposition format 0.0.4: backslash and line feed are escaped */
        if (*help == '\\')
            text_adds(out, "\\\\");
        else if (*help == '\n')
            text_adds(out, "\\n");
        else
            text_addc(out, *help);
    }
    text_addf(out, "\n# TYPE %s %s\n", name, type);
}

/* Name of a row's samples, in base units. */
struct sample_name {
    char text[128];
    unsigned long long per_second; /* what the value is divided by; 1: no time */
};

static void sample_name(enum counter id, const char *prefix, struct sample_name *out)
{
    const struct counter_row *row = &counters_table[id];
    out->per_second = name_ends(row->name, "_us")   ? 1000000
                      : name_ends(row->name, "_ms") ? 1000
                                                    : 1;
    int stem = (int)strlen(row->name) - (out->per_second == 1 ? 0 : 3);
    snprintf(out->text, sizeof out->text, "%s%.*s%s%s", prefix, stem, row->name,
             out->per_second == 1 ? "" : "_seconds", row->kind == COUNTER_TOTAL ? "_total" : "");
}

static const char *type_of(enum counter id)
{
    return counters_table[id].kind == COUNTER_TOTAL ? "counter" : "gauge";
}

static void add_value(struct text_buf *out, unsigned long long v, unsigned long long per_second)
{
    text_addf(out, " %llu", v / per_second);
    if (per_second == 1000000)
        text_addf(out, ".%06llu", v % per_second);
    else if (per_second == 1000)
        text_addf(out, ".%03llu", v % per_second);
    text_addc(out, '\n');
}

static void add_row(const struct counters *c, enum counter id, struct text_buf *out)
{
    struct sample_name n;
    sample_name(id, "belfry_", &n);
    add_head(out, n.text, type_of(id), counters_table[id].help);
    for (uint32_t i = 0; i < c->head->slots; i++) {
        if (!in_use(&c->slots[i]))
            continue;
        text_addf(out, "%s{worker=\"%u\"}", n.text, i);
        add_value(out, counters_get(c, i, id), n.per_second);
    }
}

/* One row of all workers, a family of its own: see counters.h. */
static void add_row_in_all(const struct counters *c, enum counter id, struct text_buf *out)
{
    struct sample_name n;
    sample_name(id, "belfry_instance_", &n);
    add_head(out, n.text, type_of(id), counters_table[id].help);
    text_adds(out, n.text);
    add_value(out, over_all(c, id), n.per_second);
}

static void add_closes(const struct counters *c, struct text_buf *out)
{
    const char *name = "belfry_closes_total";
    add_head(out, name, "counter",
             "WebSocket connections ended, by reason; code 0 is no close frame of ours.");
    for (int r = 0; r < CLOSE_REASONS; r++)
        for (uint32_t i = 0; i < c->head->slots; i++) {
            if (!in_use(&c->slots[i]))
                continue;
            unsigned long long v = counters_get(c, i, (enum counter)(CTR_CLOSED_FIRST + r));
            text_addf(out, "%s{reason=\"%s\",code=\"%d\",worker=\"%u\"} %llu\n", name,
                      closes_table[r].name, closes_table[r].code, i, v);
        }
    name = "belfry_instance_closes_total";
    add_head(out, name, "counter", "WebSocket connections ended, of all workers, by reason.");
    for (int r = 0; r < CLOSE_REASONS; r++)
        text_addf(out, "%s{reason=\"%s\",code=\"%d\"} %llu\n", name, closes_table[r].name,
                  closes_table[r].code,
                  (unsigned long long)counters_sum(c, (enum counter)(CTR_CLOSED_FIRST + r)));
}

/* One slot's, or everybody's (slot < 0). Buckets count all that is below their bound. */
static void add_histogram_of(const struct counters *c, int slot, const struct histogram *h,
                             const char *name, struct text_buf *out)
{
    char label[32] = "", braces[32] = "";
    unsigned long long n = 0;
    if (slot >= 0) {
        snprintf(label, sizeof label, "worker=\"%d\",", slot);
        snprintf(braces, sizeof braces, "{worker=\"%d\"}", slot);
    }
    for (int i = 0; i <= h->bounds; i++) {
        enum counter id = (enum counter)((int)h->first + i);
        n += slot < 0 ? counters_sum(c, id) : counters_get(c, (uint32_t)slot, id);
        text_addf(out, "%s_bucket{%sle=\"", name, label);
        uint32_t us = i < h->bounds ? h->bounds_us[i] : 0;
        if (!us)
            text_addf(out, "+Inf\"} %llu\n", n);
        else if (us % 1000)
            text_addf(out, "0.%06u\"} %llu\n", us, n);
        else
            text_addf(out, "%u.%03u\"} %llu\n", us / 1000000, us / 1000 % 1000, n);
    }
    text_addf(out, "%s_sum%s", name, braces);
    add_value(out, slot < 0 ? counters_sum(c, h->sum) : counters_get(c, (uint32_t)slot, h->sum),
              1000000);
    text_addf(out, "%s_count%s %llu\n", name, braces, n);
}

static void add_histogram(const struct counters *c, const struct histogram *h,
                          struct text_buf *out)
{
    char name[64];
    snprintf(name, sizeof name, "belfry_%s", h->name);
    add_head(out, name, "histogram", h->help);
    for (uint32_t i = 0; i < c->head->slots; i++)
        if (in_use(&c->slots[i]))
            add_histogram_of(c, (int)i, h, name, out);
    snprintf(name, sizeof name, "belfry_instance_%s", h->name);
    add_head(out, name, "histogram", h->help);
    add_histogram_of(c, -1, h, name, out);
}

void counters_prometheus(const struct counters *c, struct text_buf *out)
{
    for (int i = 0; i < CTR_delivered_in_50us; i++)
        add_row(c, (enum counter)i, out);
    for (int i = 0; i < CTR_delivered_in_50us; i++)
        add_row_in_all(c, (enum counter)i, out);
    add_histogram(c, &latency, out);
    add_histogram(c, &turns, out);
    add_closes(c, out);
}
