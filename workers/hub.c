#include "config.h"

#include "workers/hub.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "shared/text.h"
#include "workers/slab.h"

#define BUCKETS_MIN 64
#define ID_BYTES_MAX 64 /* of users in slabs, one for each size; who has a longer id is malloc's */
#define UNIT 8
#define SLABS (ID_BYTES_MAX / UNIT + 1)

/* Chains through the users themselves: a link for each user and about one bucket, where a general
 * table's handle would be half as large as the user. */
struct hub {
    struct user **buckets;
    size_t mask;
    size_t count;
    struct slab *slabs[SLABS]; /* NULL: no user of that size yet */
};

static size_t units_of(size_t id_len)
{
    return (offsetof(struct user, id) + id_len + 1 + UNIT - 1) / UNIT;
}

/* Which slab; SLABS or more: none. */
static size_t slab_of(size_t id_len)
{
    return units_of(id_len) - units_of(0);
}

static struct user *take_user(struct hub *h, size_t id_len)
{
    size_t at = slab_of(id_len), bytes = units_of(id_len) * UNIT;
    if (at >= SLABS)
        return calloc(1, bytes);
    if (!h->slabs[at])
        h->slabs[at] = slab_new(bytes);
    return h->slabs[at] ? slab_take(h->slabs[at]) : NULL;
}

static void give_user(struct hub *h, struct user *u)
{
    size_t at = slab_of(u->id_len);
    if (at >= SLABS)
        free(u);
    else
        slab_give(h->slabs[at], u);
}

void hub_trim(struct hub *h)
{
    for (size_t i = 0; i < SLABS; i++)
        slab_trim(h->slabs[i]);
}

struct hub *hub_new(void)
{
    struct hub *h = calloc(1, sizeof(*h));
    if (!h)
        return NULL;
    h->mask = BUCKETS_MIN - 1;
    h->buckets = calloc(BUCKETS_MIN, sizeof(*h->buckets));
    if (!h->buckets) {
        free(h);
        return NULL;
    }
    return h;
}

static void free_user(void *data, struct user *u)
{
    give_user(data, u);
}

void hub_free(struct hub *h)
{
    if (!h)
        return;
    hub_each(h, free_user, h);
    for (size_t i = 0; i < SLABS; i++)
        slab_free(h->slabs[i]);
    free(h->buckets);
    free(h);
}

static struct user **bucket_of(const struct hub *h, uint64_t id_hash)
{
    return &h->buckets[(size_t)id_hash & h->mask];
}

/* Without memory the chains become longer, and that is all. */
static void grow(struct hub *h)
{
    size_t old_count = h->mask + 1;
    struct user **old = h->buckets, **more = calloc(old_count * 2, sizeof(*more));
    if (!more)
        return;
    h->buckets = more;
    h->mask = old_count * 2 - 1;
    for (size_t i = 0; i < old_count; i++)
        for (struct user *u = old[i], *next; u; u = next) {
            struct user **bucket = bucket_of(h, u->id_hash);
            next = u->hash_next;
            u->hash_next = *bucket;
            *bucket = u;
        }
    free(old);
}

static struct user *add(struct hub *h, const char *id, size_t len, uint64_t hash)
{
    if (len > UINT16_MAX)
        return NULL;
    struct user *u = take_user(h, len);
    if (!u)
        return NULL;
    memcpy(u->id, id, len);
    u->id_len = (uint16_t)len;
    u->id_hash = hash;
    if (h->count > h->mask)
        grow(h);
    struct user **bucket = bucket_of(h, hash);
    u->hash_next = *bucket;
    *bucket = u;
    h->count++;
    return u;
}

struct user *hub_add(struct hub *h, const char *user_id, size_t len)
{
    uint64_t hash = text_hash64(user_id, len);
    struct user *u = hub_find_hashed(h, user_id, len, hash);
    return u ? u : add(h, user_id, len, hash);
}

struct user *hub_join(struct hub *h, struct device *d, const char *user_id, size_t len)
{
    struct user *u = hub_add(h, user_id, len);
    if (!u)
        return NULL;
    d->user = u;
    d->prev = NULL;
    d->next = u->devices;
    if (u->devices)
        u->devices->prev = d;
    u->devices = d;
    u->device_count++;
    return u;
}

bool hub_leave(struct hub *h, struct device *d)
{
    (void)h;
    struct user *u = d->user;
    if (d->prev)
        d->prev->next = d->next;
    else
        u->devices = d->next;
    if (d->next)
        d->next->prev = d->prev;
    d->next = d->prev = NULL;
    d->user = NULL;
    u->device_count--;
    return u->device_count == 0;
}

void hub_forget(struct hub *h, struct user *u)
{
    struct user **at = bucket_of(h, u->id_hash);
    while (*at != u)
        at = &(*at)->hash_next;
    *at = u->hash_next;
    h->count--;
    give_user(h, u);
}

void hub_prefetch_bucket(const struct hub *h, uint64_t id_hash)
{
    __builtin_prefetch(bucket_of(h, id_hash));
}

void hub_prefetch_entry(const struct hub *h, uint64_t id_hash)
{
    const struct user *u = *bucket_of(h, id_hash);
    if (!u)
        return;
    __builtin_prefetch(u);
    __builtin_prefetch(u->id);
}

struct user *hub_find_hashed(struct hub *h, const char *user_id, size_t len, uint64_t id_hash)
{
    struct user *u = *bucket_of(h, id_hash);
    while (u && (u->id_hash != id_hash || u->id_len != len || memcmp(u->id, user_id, len) != 0))
        u = u->hash_next;
    return u;
}

struct user *hub_find(struct hub *h, const char *user_id, size_t len)
{
    return hub_find_hashed(h, user_id, len, text_hash64(user_id, len));
}

void hub_each(struct hub *h, void (*fn)(void *data, struct user *u), void *data)
{
    for (size_t i = 0; i <= h->mask; i++)
        for (struct user *u = h->buckets[i], *next; u; u = next) {
            next = u->hash_next;
            fn(data, u);
        }
}

void hub_some(struct hub *h, bool (*fn)(void *data, struct user *u), void *data)
{
    for (size_t i = 0; i <= h->mask; i++)
        for (struct user *u = h->buckets[i]; u; u = u->hash_next)
            if (!fn(data, u))
                return;
}

size_t hub_users(const struct hub *h)
{
    return h->count;
}

/* ---- lines ---- */

void hub_line_add(struct user_line *line, struct user *u, enum user_place place)
{
    assert(u->place == PLACE_NONE);
    u->place = place & 3;
    u->line_next = NULL;
    u->line_prev = line->last;
    if (line->last)
        line->last->line_next = u;
    else
        line->first = u;
    line->last = u;
}

void hub_line_remove(struct user_line *line, struct user *u)
{
    if (u->line_prev)
        u->line_prev->line_next = u->line_next;
    else
        line->first = u->line_next;
    if (u->line_next)
        u->line_next->line_prev = u->line_prev;
    else
        line->last = u->line_prev;
    u->line_next = u->line_prev = NULL;
    u->place = PLACE_NONE;
}
