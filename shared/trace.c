#include "config.h"

#include "shared/trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/segment.h"
#include "shared/text.h"

#define PAGE_BYTES 4096
#define TICKET_MASK ((1u << TRACE_TICKET_BITS) - 1)
#define WORDS (sizeof(struct trace_record) / sizeof(uint64_t))

struct trace_ring {
    uint64_t count; /* records written so far; number of the newest */
    uint64_t mask;  /* size - 1 */
    uint64_t reserved[6];
    struct trace_record records[];
};
_Static_assert(sizeof(struct trace_ring) == 64, "records are cache lines");

struct trace_ring *trace_self;
static int64_t now_us; /* of this process's turn */

/* ---- the segment ---- */

static size_t ring_bytes(uint32_t size)
{
    size_t bytes = sizeof(struct trace_ring) + size * sizeof(struct trace_record);
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static struct trace_ring *ring_of(const struct trace *t, uint32_t slot)
{
    if (!t->segment || slot >= t->slots)
        return NULL;
    return (struct trace_ring *)(void *)((char *)t->segment + slot * ring_bytes(t->size));
}

uint32_t trace_rounded(uint32_t size)
{
    uint32_t rounded = size ? 1 : 0;
    while (rounded < size)
        rounded *= 2;
    return rounded;
}

int trace_create(struct trace *t, uint32_t slots, uint32_t size)
{
    *t = (struct trace){.slots = slots};
    if (!size)
        return 0;
    if (size > TRACE_MAX_RECORDS || !slots)
        return -EINVAL;
    uint32_t rounded = trace_rounded(size);
    size_t bytes = slots * ring_bytes(rounded);
    /* Most slots never have a worker: their pages are neither touched nor reserved. */
    void *at;
    int fd, error = segment_create("belfry-trace", bytes, &at, &fd);
    if (!error)
        *t = (struct trace){at, bytes, slots, rounded, fd};
    return error;
}

int trace_adopt(struct trace *t, uint32_t slots, uint32_t size, int fd)
{
    void *at;
    size_t bytes;
    if (!slots || !size || size > TRACE_MAX_RECORDS || size & (size - 1))
        return -EPROTO;
    int error = segment_map(fd, slots * ring_bytes(size), &at, &bytes);
    if (error)
        return error;
    *t = (struct trace){at, bytes, slots, size, fd};
    return 0;
}

uint64_t trace_layout(void)
{
    static const char layout[] = "64 64"
#define TRACE(name, word, about, help) " " word
#define TRACE_END(name, word, help) "/" word
#include "shared/trace.def"
#undef TRACE
#undef TRACE_END
        ;
    return text_hash64(layout, sizeof(layout) - 1);
}

void trace_destroy(struct trace *t)
{
    if (!t || !t->segment)
        return;
    const char *self = (const char *)trace_self, *from = t->segment;
    if (self >= from && self < from + t->bytes)
        trace_self = NULL;
    segment_free(t->segment, t->bytes, t->fd);
    *t = (struct trace){0};
}

void trace_attach(const struct trace *t, uint32_t slot)
{
    trace_self = t ? ring_of(t, slot) : NULL;
    if (trace_self)
        trace_self->mask = t->size - 1;
}

/* ---- writing ---- */

void trace_set_time(int64_t wall_us)
{
    now_us = wall_us;
}

/* Detail, fate and end are one word: it is written last, and read first. */
static void store_last(struct trace_record *to, uint32_t detail, uint32_t fate, uint32_t end)
{
    const struct {
        uint32_t detail;
        uint16_t fate, end;
    } last = {detail, (uint16_t)fate, (uint16_t)end};
    uint64_t word;
    _Static_assert(sizeof(last) == sizeof(word) &&
                       offsetof(struct trace_record, detail) % sizeof(word) == 0 &&
                       offsetof(struct trace_record, end) -
                               offsetof(struct trace_record, detail) == 6,
                   "the last word of a record");
    memcpy(&word, &last, sizeof(word));
    __atomic_store_n(&((uint64_t *)(void *)to)[WORDS - 1], word, __ATOMIC_RELEASE);
}

/*
 * Word by word, so that a reader that comes in between reads an old or a new word, and nothing the
 * language leaves undefined. H.-J. Boehm, "Can seqlocks get along with programming language memory
 * models?", section 4.
 */
static void store_words(struct trace_record *to, const struct trace_record *from)
{
    __atomic_store_n(&to->at_us, now_us, __ATOMIC_RELAXED);
    __atomic_store_n(&to->id_hash, from->id_hash, __ATOMIC_RELAXED);
    __atomic_store_n(&to->user_hash, from->user_hash, __ATOMIC_RELAXED);
    __atomic_store_n(&to->serial, from->serial, __ATOMIC_RELAXED);
    __atomic_store_n(&to->position, from->position, __ATOMIC_RELAXED);
    __atomic_store_n(&to->end_us, from->end_us, __ATOMIC_RELAXED);
    store_last(to, from->detail, from->fate, from->end);
}

trace_ticket trace_add(const struct trace_record *r)
{
    struct trace_ring *ring = trace_self;
    uint64_t number = ring->count + 1;
    struct trace_record *to = &ring->records[(number - 1) & ring->mask];
    __atomic_store_n(&to->number, 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    store_words(to, r);
    __atomic_store_n(&to->number, number, __ATOMIC_RELEASE);
    __atomic_store_n(&ring->count, number, __ATOMIC_RELEASE);
    return (trace_ticket)(number & TICKET_MASK);
}

/* The record a ticket was given for, NULL when another stands there now. */
static struct trace_record *find_ticket(trace_ticket ticket)
{
    struct trace_ring *ring = trace_self;
    if (!ring || !ticket)
        return NULL;
    uint64_t age = (ring->count - ticket) & TICKET_MASK;
    if (age > ring->mask || age >= ring->count)
        return NULL;
    return &ring->records[(ring->count - age - 1) & ring->mask];
}

void trace_finish(trace_ticket ticket, enum trace_end end, uint64_t position)
{
    struct trace_record *r = find_ticket(ticket);
    if (!r || r->end != TRACE_END_WAITING)
        return;
    __atomic_store_n(&r->position, position, __ATOMIC_RELAXED);
    __atomic_store_n(&r->end_us, now_us, __ATOMIC_RELAXED);
    store_last(r, r->detail, r->fate, end);
}

void trace_relabel(uint64_t id_hash, uint64_t serial, enum trace_fate from, enum trace_fate to)
{
    struct trace_ring *ring = trace_self;
    if (!ring || !ring->count)
        return;
    struct trace_record *r = &ring->records[(ring->count - 1) & ring->mask];
    if (r->fate == from && r->id_hash == id_hash && r->serial == serial)
        store_last(r, r->detail, to, r->end);
}

/* ---- reading ---- */

static bool read_record(const struct trace_ring *ring, uint64_t mask, uint64_t number,
                        struct trace_record *out)
{
    const struct trace_record *from = &ring->records[(number - 1) & mask];
    const uint64_t *at = (const uint64_t *)(const void *)from;
    uint64_t words[WORDS];
    if (__atomic_load_n(&from->number, __ATOMIC_ACQUIRE) != number)
        return false;
    words[WORDS - 1] = __atomic_load_n(&at[WORDS - 1], __ATOMIC_ACQUIRE);
    for (size_t i = 1; i < WORDS - 1; i++)
        words[i] = __atomic_load_n(&at[i], __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&from->number, __ATOMIC_RELAXED) != number)
        return false;
    words[0] = number;
    memcpy(out, words, sizeof(words));
    return out->fate > TRACE_NONE && out->fate < TRACE_FATES && out->end < TRACE_ENDS;
}

uint64_t trace_count(const struct trace *t, uint32_t slot)
{
    const struct trace_ring *ring = ring_of(t, slot);
    return ring ? __atomic_load_n(&ring->count, __ATOMIC_ACQUIRE) : 0;
}

bool trace_read(const struct trace *t, uint32_t slot, uint64_t number, struct trace_record *out)
{
    const struct trace_ring *ring = ring_of(t, slot);
    return ring && number && read_record(ring, t->size - 1, number, out);
}

/* A quick look, without a copy: most records are somebody else's. A torn look is put right by
 * is_wanted. */
static bool may_be_wanted(const struct trace_ring *ring, uint64_t mask, uint64_t number,
                          uint64_t user_hash, uint64_t id_hash)
{
    const struct trace_record *r = &ring->records[(number - 1) & mask];
    uint64_t id = __atomic_load_n(&r->id_hash, __ATOMIC_RELAXED);
    uint64_t user = __atomic_load_n(&r->user_hash, __ATOMIC_RELAXED);
    return (!user || user == user_hash) && (!id || id == id_hash);
}

static bool is_wanted(const struct trace_record *r, uint64_t user_hash, uint64_t id_hash)
{
    switch (trace_about((enum trace_fate)r->fate)) {
    case TRACE_ABOUT_MESSAGE:
        return r->id_hash == id_hash && (!r->user_hash || r->user_hash == user_hash);
    case TRACE_ABOUT_USER:
        return r->user_hash == user_hash;
    case TRACE_ABOUT_WORKER:
        return true;
    case TRACE_ABOUT_ANSWER:
        break;
    }
    return false;
}

static void reverse(struct trace_record *r, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        struct trace_record other = r[i];
        r[i] = r[n - 1 - i];
        r[n - 1 - i] = other;
    }
}

size_t trace_find(const struct trace *t, uint32_t slot, uint64_t user_hash, uint64_t id_hash,
                  struct trace_record *out, bool *is_cut)
{
    static const size_t most[] = {TRACE_FOUND_MESSAGE, TRACE_FOUND_USER, TRACE_FOUND_WORKER, 0};
    size_t found[4] = {0}, n = 0;
    const struct trace_ring *ring = ring_of(t, slot);
    uint64_t last = trace_count(t, slot);
    uint64_t first = last > t->size ? last - t->size : 0;
    for (uint64_t number = last; ring && number > first; number--) {
        struct trace_record r;
        if (!may_be_wanted(ring, t->size - 1, number, user_hash, id_hash) ||
            !read_record(ring, t->size - 1, number, &r) || !is_wanted(&r, user_hash, id_hash))
            continue;
        enum trace_about about = trace_about((enum trace_fate)r.fate);
        if (found[about] < most[about]) {
            found[about]++;
            out[n++] = r;
        } else if (is_cut && about != TRACE_ABOUT_WORKER)
            *is_cut = true;
    }
    reverse(out, n);
    return n;
}

/* ---- words ---- */

static const struct {
    const char *word;
    enum trace_about about;
} fates[TRACE_FATES] = {
    {"", TRACE_ABOUT_ANSWER},
#define TRACE(name, word, about, help) {word, TRACE_ABOUT_##about},
#include "shared/trace.def"
#undef TRACE
};

static const char *const ends[TRACE_ENDS] = {
#define TRACE_END(name, word, help) word,
#include "shared/trace.def"
#undef TRACE_END
};

const char *trace_fate_word(uint32_t fate)
{
    return fate > TRACE_NONE && fate < TRACE_FATES ? fates[fate].word : "unknown";
}

const char *trace_end_word(uint32_t end)
{
    return end < TRACE_ENDS ? ends[end] : "unknown";
}

enum trace_fate trace_fate_of(const char *word, size_t len)
{
    for (int i = TRACE_NONE + 1; i < TRACE_FATES; i++)
        if (text_span_eq((struct text_span){word, len}, fates[i].word))
            return (enum trace_fate)i;
    return TRACE_NONE;
}

enum trace_end trace_end_of(const char *word, size_t len)
{
    for (int i = 0; i < TRACE_ENDS; i++)
        if (text_span_eq((struct text_span){word, len}, ends[i]))
            return (enum trace_end)i;
    return TRACE_ENDS;
}

enum trace_about trace_about(enum trace_fate fate)
{
    return fate < TRACE_FATES ? fates[fate].about : TRACE_ABOUT_ANSWER;
}

const char *trace_connection(const char *instance_id, uint64_t serial,
                             char out[TRACE_CONNECTION_BYTES])
{
    size_t len = strlen(instance_id);
    snprintf(out, TRACE_CONNECTION_BYTES, "%.8s-%x-%llx", instance_id + (len > 8 ? len - 8 : 0),
             (unsigned)(serial % TRACE_SERIAL_SLOTS), (unsigned long long)serial);
    return out;
}
