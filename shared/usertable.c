/*
 * usertable.c - see usertable.h.
 *
 * Every change that another process can see half done is one store of an aligned word: a row enters
 * its chain by the store to the bucket and leaves it by the store to its predecessor. So a process
 * killed anywhere leaves whole chains; what may be wrong is a row's total or the stripe's count of
 * users, and both are counted anew when the mutex tells of the death. A row between the free list
 * and a chain is lost for good: one for each death at that point.
 */
#include "config.h"

#include "shared/usertable.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include "shared/segment.h"
#include "shared/text.h"

#define STRIPES 128u
#define SWEEP_BUCKETS 64u /* looked at under one lock */
#define CAPACITY_MAX (1u << 30)
#define NONE 0u /* row numbers begin at 1, so that fresh memory is an empty table */

struct stripe {
    pthread_mutex_t mutex;
    uint32_t users; /* rows in the chains of this stripe */
} __attribute__((aligned(128)));

struct row {
    uint64_t user_hash;
    uint32_t next;  /* in the chain or in the free list */
    uint32_t total; /* of counts */
    uint16_t counts[];
};

_Static_assert(offsetof(struct row, counts) == 16, "seen by several processes");

struct head {
    uint32_t columns;
    uint32_t capacity;
    uint32_t bucket_mask;
    uint32_t fresh;     /* rows ever taken; above it memory is untouched */
    uint64_t free_list; /* top row in the low half; the high half counts, against ABA */
    struct stripe stripes[STRIPES];
};

struct usertable {
    struct head *head;
    uint32_t *buckets;
    unsigned char *rows;
    size_t row_bytes;
    size_t map_bytes;
    int fd;
};

static struct row *row_at(const struct usertable *t, uint32_t number)
{
    return (struct row *)(void *)(t->rows + t->row_bytes * (number - 1));
}

static uint32_t load(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static int init_mutexes(struct head *head)
{
    pthread_mutexattr_t attr;
    int e = pthread_mutexattr_init(&attr);
    if (e)
        return -e;
    e = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (!e)
        e = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (uint32_t i = 0; !e && i < STRIPES; i++)
        e = pthread_mutex_init(&head->stripes[i].mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return -e;
}

static uint32_t bucket_count(uint32_t capacity)
{
    uint32_t buckets = STRIPES;
    while (buckets < capacity)
        buckets *= 2;
    return buckets;
}

static size_t row_size(uint32_t columns)
{
    return (sizeof(struct row) + 2 * (size_t)columns + 7) & ~(size_t)7;
}

/* Where the rows begin. */
static size_t rows_offset(uint32_t buckets)
{
    return sizeof(struct head) + sizeof(uint32_t) * (size_t)buckets;
}

static bool is_size(uint32_t capacity, uint32_t columns)
{
    return capacity && capacity <= CAPACITY_MAX && columns && columns <= UINT16_MAX;
}

/* The parts of a mapped segment. */
static void set_parts(struct usertable *t, void *at, uint32_t buckets, uint32_t columns)
{
    t->head = at;
    t->buckets = (uint32_t *)(void *)((char *)at + sizeof(struct head));
    t->rows = (unsigned char *)at + rows_offset(buckets);
    t->row_bytes = row_size(columns);
}

int usertable_create(uint32_t capacity, uint32_t columns, struct usertable **out)
{
    if (!is_size(capacity, columns))
        return -EINVAL;
    struct usertable *t = calloc(1, sizeof *t);
    if (!t)
        return -ENOMEM;
    uint32_t buckets = bucket_count(capacity);
    /* The whole is reserved and only what is touched is memory: rows come densely from the start.
     * */
    t->map_bytes = rows_offset(buckets) + row_size(columns) * capacity;
    void *at;
    int r = segment_create("belfry-users", t->map_bytes, &at, &t->fd);
    if (r < 0) {
        free(t);
        return r;
    }
    set_parts(t, at, buckets, columns);
    t->head->columns = columns;
    t->head->capacity = capacity;
    t->head->bucket_mask = buckets - 1;
    r = init_mutexes(t->head);
    if (r < 0) {
        usertable_free(t);
        return r;
    }
    *out = t;
    return 0;
}

int usertable_adopt(int fd, struct usertable **out)
{
    struct usertable *t = calloc(1, sizeof *t);
    void *at;
    if (!t)
        return -ENOMEM;
    int error = segment_map(fd, sizeof(struct head), &at, &t->map_bytes);
    if (error) {
        free(t);
        return error;
    }
    const struct head *head = at;
    uint32_t buckets = bucket_count(head->capacity < CAPACITY_MAX ? head->capacity : CAPACITY_MAX);
    if (!is_size(head->capacity, head->columns) || head->bucket_mask != buckets - 1 ||
        rows_offset(buckets) + row_size(head->columns) * head->capacity != t->map_bytes) {
        segment_free(at, t->map_bytes, -1);
        free(t);
        return -EPROTO;
    }
    set_parts(t, at, buckets, head->columns);
    t->fd = fd;
    *out = t;
    return 0;
}

int usertable_fd(const struct usertable *t)
{
    return t->fd;
}

uint64_t usertable_layout(void)
{
    const size_t sizes[] = {sizeof(struct head), sizeof(struct stripe), sizeof(struct row),
                            STRIPES, sizeof(pthread_mutex_t)};
    return text_hash64((const char *)sizes, sizeof(sizes));
}

void usertable_free(struct usertable *t)
{
    if (!t)
        return;
    segment_free(t->head, t->map_bytes, t->fd);
    free(t);
}

/* --- rows --- */

static uint32_t take_row(struct usertable *t)
{
    uint64_t top = __atomic_load_n(&t->head->free_list, __ATOMIC_ACQUIRE);
    while ((uint32_t)top != NONE) {
        /* Another process may take the row first and write its next: then the count differs and the
         * exchange fails. */
        uint64_t below = ((top >> 32) + 1) << 32 | load(&row_at(t, (uint32_t)top)->next);
        if (__atomic_compare_exchange_n(&t->head->free_list, &top, below, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return (uint32_t)top;
    }
    uint32_t fresh = load(&t->head->fresh);
    while (fresh < t->head->capacity)
        if (__atomic_compare_exchange_n(&t->head->fresh, &fresh, fresh + 1, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
            return fresh + 1;
    return NONE;
}

static void give_row(struct usertable *t, uint32_t number)
{
    uint64_t top = __atomic_load_n(&t->head->free_list, __ATOMIC_RELAXED), above;
    do {
        store(&row_at(t, number)->next, (uint32_t)top);
        above = ((top >> 32) + 1) << 32 | number;
    } while (!__atomic_compare_exchange_n(&t->head->free_list, &top, above, false, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

/* --- stripes --- */

/* Takes an empty row out of its chain; link is what points to it. */
static void drop_row(struct usertable *t, struct stripe *s, uint32_t *link)
{
    uint32_t number = *link;
    store(link, row_at(t, number)->next);
    store(&s->users, s->users - 1);
    give_row(t, number);
}

/* Counts a stripe anew after its holder died. Chains are whole (see above), but they are walked as
 * if they were not: a wrong link ends the chain there. */
static void repair(struct usertable *t, uint32_t stripe)
{
    struct stripe *s = &t->head->stripes[stripe];
    uint32_t seen = 0, mask = t->head->bucket_mask, fresh = load(&t->head->fresh);
    for (uint32_t b = stripe; b <= mask; b += STRIPES) {
        uint32_t *link = &t->buckets[b];
        while (*link != NONE) {
            struct row *row = *link <= fresh ? row_at(t, *link) : NULL;
            if (!row || (row->user_hash & mask) != b || seen >= t->head->capacity) {
                store(link, NONE);
                break;
            }
            uint32_t total = 0;
            for (uint32_t i = 0; i < t->head->columns; i++)
                total += row->counts[i];
            row->total = total;
            if (total == 0) {
                uint32_t empty = *link;
                store(link, row->next);
                give_row(t, empty);
                continue;
            }
            seen++;
            link = &row->next;
        }
    }
    store(&s->users, seen);
}

/* The stripe of a bucket, locked; NULL when it cannot be (which no death of a holder causes). */
static struct stripe *lock(struct usertable *t, uint32_t bucket)
{
    uint32_t number = bucket & (STRIPES - 1);
    struct stripe *s = &t->head->stripes[number];
    int e = pthread_mutex_lock(&s->mutex);
    if (e == EOWNERDEAD) {
        repair(t, number);
        e = pthread_mutex_consistent(&s->mutex);
        if (e)
            pthread_mutex_unlock(&s->mutex);
    }
    return e ? NULL : s;
}

static void unlock(struct stripe *s)
{
    pthread_mutex_unlock(&s->mutex);
}

/* What points to a user's row; what ends the chain when there is none. */
static uint32_t *find(struct usertable *t, uint32_t bucket, uint64_t user_hash)
{
    uint32_t *link = &t->buckets[bucket];
    while (*link != NONE && row_at(t, *link)->user_hash != user_hash)
        link = &row_at(t, *link)->next;
    return link;
}

static uint32_t bucket_of(const struct usertable *t, uint64_t user_hash)
{
    return (uint32_t)user_hash & t->head->bucket_mask;
}

/* --- what others call --- */

static int add_row(struct usertable *t, struct stripe *s, uint32_t bucket, uint32_t column,
                   uint64_t user_hash)
{
    uint32_t number = take_row(t);
    if (number == NONE)
        return 0;
    struct row *row = row_at(t, number);
    row->user_hash = user_hash;
    row->total = 1;
    for (uint32_t i = 0; i < t->head->columns; i++)
        row->counts[i] = i == column;
    store(&row->next, t->buckets[bucket]);
    __atomic_store_n(&t->buckets[bucket], number, __ATOMIC_RELEASE);
    store(&s->users, s->users + 1);
    return 1;
}

int usertable_enter(struct usertable *t, uint32_t column, uint64_t user_hash, uint32_t limit)
{
    uint32_t bucket = bucket_of(t, user_hash);
    struct stripe *s = column < t->head->columns ? lock(t, bucket) : NULL;
    if (!s)
        return 0;
    int result;
    uint32_t number = *find(t, bucket, user_hash);
    struct row *row = number != NONE ? row_at(t, number) : NULL;
    if (!row) {
        result = add_row(t, s, bucket, column, user_hash);
    } else if (limit && row->total >= limit) {
        result = -EDQUOT;
    } else if (row->counts[column] == UINT16_MAX) {
        result = 0;
    } else {
        row->counts[column]++;
        result = (int)++row->total;
    }
    unlock(s);
    return result;
}

void usertable_leave(struct usertable *t, uint32_t column, uint64_t user_hash)
{
    uint32_t bucket = bucket_of(t, user_hash);
    struct stripe *s = column < t->head->columns ? lock(t, bucket) : NULL;
    if (!s)
        return;
    uint32_t *link = find(t, bucket, user_hash);
    struct row *row = *link != NONE ? row_at(t, *link) : NULL;
    if (row && row->counts[column] > 0) {
        row->counts[column]--;
        if (--row->total == 0)
            drop_row(t, s, link);
    }
    unlock(s);
}

uint32_t usertable_connections(struct usertable *t, uint64_t user_hash)
{
    uint32_t bucket = bucket_of(t, user_hash);
    struct stripe *s = lock(t, bucket);
    if (!s)
        return 0;
    uint32_t number = *find(t, bucket, user_hash);
    uint32_t total = number != NONE ? row_at(t, number)->total : 0;
    unlock(s);
    return total;
}

uint32_t usertable_users(const struct usertable *t)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < STRIPES; i++)
        sum += load(&t->head->stripes[i].users);
    return sum;
}

static void sweep_bucket(struct usertable *t, struct stripe *s, uint32_t bucket, uint32_t column)
{
    uint32_t *link = &t->buckets[bucket];
    while (*link != NONE) {
        struct row *row = row_at(t, *link);
        row->total -= row->counts[column];
        row->counts[column] = 0;
        if (row->total == 0)
            drop_row(t, s, link);
        else
            link = &row->next;
    }
}

void usertable_sweep(struct usertable *t, uint32_t column)
{
    if (column >= t->head->columns)
        return;
    for (uint32_t first = 0; first < STRIPES; first++) {
        uint64_t b = first;
        while (b <= t->head->bucket_mask) {
            struct stripe *s = lock(t, first);
            if (!s)
                break;
            for (uint32_t n = 0; n < SWEEP_BUCKETS && b <= t->head->bucket_mask; n++, b += STRIPES)
                sweep_bucket(t, s, (uint32_t)b, column);
            unlock(s);
        }
    }
}
