#include "config.h"

#include "workers/hub.h"

#include <stdlib.h>
#include <string.h>

/* Without memory a user is not added, instead of the process ending (uthash's default). */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(elt) ((void)(elt))
#include <uthash.h>

#include "shared/text.h"

/* One allocation for each user: the hash table's handle and the id stand behind what others see. */
struct entry {
    struct user user; /* first: a struct user is its entry */
    UT_hash_handle hh;
    char id[];
};

struct hub {
    struct entry *users;
};

struct hub *hub_new(void)
{
    return calloc(1, sizeof(struct hub));
}

void hub_free(struct hub *h)
{
    if (!h)
        return;
    struct entry *e, *next;
    HASH_ITER(hh, h->users, e, next)
    {
        HASH_DEL(h->users, e);
        free(e);
    }
    free(h);
}

/* The table's own hash function is not used: the id's hash is there already. */
static struct entry *find(const struct hub *h, const char *id, size_t len, uint64_t hash)
{
    struct entry *e;
    HASH_FIND_BYHASHVALUE(hh, h->users, id, (unsigned)len, (unsigned)hash, e);
    return e;
}

static struct entry *add(struct hub *h, const char *id, size_t len, uint64_t hash)
{
    if (len > UINT16_MAX)
        return NULL;
    struct entry *e = calloc(1, sizeof(*e) + len + 1);
    if (!e)
        return NULL;
    memcpy(e->id, id, len);
    e->user.id = e->id;
    e->user.id_len = (uint16_t)len;
    e->user.id_hash = hash;
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, h->users, e->id, (unsigned)len, (unsigned)hash, e);
    if (!e->hh.tbl) { /* how uthash says that it had no memory */
        free(e);
        return NULL;
    }
    return e;
}

struct user *hub_add(struct hub *h, const char *user_id, size_t len)
{
    uint64_t hash = text_hash64(user_id, len);
    struct entry *e = find(h, user_id, len, hash);
    if (!e)
        e = add(h, user_id, len, hash);
    return e ? &e->user : NULL;
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
    struct entry *e = (struct entry *)u;
    HASH_DEL(h->users, e);
    free(e);
}

static const UT_hash_bucket *bucket_of(const struct hub *h, uint64_t id_hash)
{
    unsigned number;
    if (!h->users)
        return NULL;
    HASH_TO_BKT((unsigned)id_hash, h->users->hh.tbl->num_buckets, number);
    return &h->users->hh.tbl->buckets[number];
}

void hub_prefetch_bucket(const struct hub *h, uint64_t id_hash)
{
    const UT_hash_bucket *bucket = bucket_of(h, id_hash);
    if (bucket)
        __builtin_prefetch(bucket);
}

void hub_prefetch_entry(const struct hub *h, uint64_t id_hash)
{
    const UT_hash_bucket *bucket = bucket_of(h, id_hash);
    if (!bucket || !bucket->hh_head)
        return;
    const char *handle = (const char *)bucket->hh_head;
    const struct entry *e = (const void *)(handle - offsetof(struct entry, hh));
    __builtin_prefetch(e);
    __builtin_prefetch(&e->hh);
    __builtin_prefetch(e->id);
}

struct user *hub_find_hashed(struct hub *h, const char *user_id, size_t len, uint64_t id_hash)
{
    struct entry *e = find(h, user_id, len, id_hash);
    return e ? &e->user : NULL;
}

struct user *hub_find(struct hub *h, const char *user_id, size_t len)
{
    return hub_find_hashed(h, user_id, len, text_hash64(user_id, len));
}

void hub_each(struct hub *h, void (*fn)(void *data, struct user *u), void *data)
{
    struct entry *e, *next;
    HASH_ITER(hh, h->users, e, next)
    {
        fn(data, &e->user);
    }
}

void hub_some(struct hub *h, bool (*fn)(void *data, struct user *u), void *data)
{
    for (struct entry *e = h->users; e; e = e->hh.next)
        if (!fn(data, &e->user))
            return;
}

size_t hub_users(const struct hub *h)
{
    return HASH_COUNT(h->users);
}
