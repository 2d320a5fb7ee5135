#include "config.h"

#include "workers/recent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/pack.h"

#define FIRST_CAP 8
_Static_assert((FIRST_CAP & (FIRST_CAP - 1)) == 0, "doubled, it stays a power of two");

struct window_entry {
    uint64_t id;
    int64_t at_ms;
};

/*
 * known: ids stand in order of renewal between head and end; one that was renewed or forgotten
 * leaves a 0 behind, which the next rebuild takes out. index is open addressing over positions;
 * entries that lead to a 0 are passed over. Nothing is ever taken out of index between rebuilds,
 * and it has more room than known, so probing ends.
 */
struct recent {
    uint64_t *ids;     /* one block: ids, index, origin */
    uint16_t *index;   /* position + 1; 0: free */
    uint8_t *origin;   /* enum recent_origin: LISTED or LIVE */
    uint32_t head, end, cap, count;
    uint32_t index_mask;
    bool has_forgotten, has_forgotten_since_asked;
    uint8_t window_cap, window_first, window_count;
    struct window_entry *window;
};

void recent_free(struct recent *r)
{
    if (!r)
        return;
    free(r->ids);
    free(r->window);
    free(r);
}

void recent_prefetch(const struct recent *r)
{
    if (!r || !r->cap)
        return;
    __builtin_prefetch(r->index);
    __builtin_prefetch(&r->ids[r->end < r->cap ? r->end : 0]);
    if (r->window)
        __builtin_prefetch(&r->window[r->window_first]);
}

/* Position of an id, or -1. */
static int64_t find(const struct recent *r, uint64_t id)
{
    if (!r->cap)
        return -1;
    for (uint32_t i = (uint32_t)id & r->index_mask; r->index[i]; i = (i + 1) & r->index_mask)
        if (r->ids[r->index[i] - 1] == id)
            return r->index[i] - 1;
    return -1;
}

static void index_put(struct recent *r, uint64_t id, uint32_t position)
{
    uint32_t i = (uint32_t)id & r->index_mask;
    while (r->index[i])
        i = (i + 1) & r->index_mask;
    r->index[i] = (uint16_t)(position + 1);
}

/* Moves what is known into a block of cap ids, without the gaps. */
static int rebuild(struct recent *r, uint32_t cap)
{
    uint32_t index_size = 16;
    while (index_size < cap + cap / 3 + 1)
        index_size *= 2;
    char *block = calloc(1, cap * sizeof(uint64_t) + index_size * sizeof(uint16_t) + cap);
    if (!block)
        return -ENOMEM;
    struct recent old = *r;
    r->ids = (uint64_t *)(void *)block;
    r->index = (uint16_t *)(void *)(block + cap * sizeof(uint64_t));
    r->origin = (uint8_t *)(r->index + index_size);
    r->index_mask = index_size - 1;
    r->cap = cap;
    r->head = r->end = 0;
    for (uint32_t i = old.head; i < old.end; i++)
        if (old.ids[i]) {
            r->ids[r->end] = old.ids[i];
            r->origin[r->end] = old.origin[i];
            index_put(r, old.ids[i], r->end++);
        }
    free(old.ids);
    return 0;
}

/* Room for one more at the end. */
static int make_room(struct recent *r, uint32_t limit)
{
    if (r->end < r->cap)
        return 0;
    uint32_t max = limit + limit / 4 + FIRST_CAP, cap = r->cap;
    if (!cap)
        cap = FIRST_CAP;
    else if (r->count + 1 > cap - cap / 4)
        cap *= 2;
    return rebuild(r, cap < max ? cap : max);
}

static void forget_oldest(struct recent *r)
{
    while (r->head < r->end && !r->ids[r->head])
        r->head++;
    if (r->head == r->end)
        return;
    r->ids[r->head++] = 0;
    r->count--;
    r->has_forgotten = r->has_forgotten_since_asked = true;
}

static int know(struct recent *r, uint32_t limit, uint64_t id, enum recent_origin origin)
{
    int rc = make_room(r, limit);
    if (rc < 0)
        return rc;
    int64_t at = find(r, id); /* after make_room, which moves positions */
    if (at >= 0) {
        if (r->origin[at] == RECENT_LIVE)
            origin = RECENT_LIVE;
        r->ids[at] = 0;
        r->count--;
    } else if (r->count >= limit)
        forget_oldest(r);
    r->ids[r->end] = id;
    r->origin[r->end] = (uint8_t)origin;
    index_put(r, id, r->end++);
    r->count++;
    return 0;
}

/* The window's room is a power of two. */
static struct window_entry *window_at(const struct recent *r, uint32_t i)
{
    return &r->window[(r->window_first + i) & (r->window_cap - 1U)];
}

static int window_grow(struct recent *r)
{
    uint32_t cap = r->window_cap ? r->window_cap * 2U : FIRST_CAP;
    struct window_entry *window = malloc(cap * sizeof(*window));
    if (!window)
        return -ENOMEM;
    for (uint32_t i = 0; i < r->window_count; i++)
        window[i] = *window_at(r, i);
    free(r->window);
    r->window = window;
    r->window_cap = (uint8_t)cap;
    r->window_first = 0;
    return 0;
}

static int window_add(struct recent *r, uint64_t id, int64_t now_ms)
{
    if (r->window_count == r->window_cap && r->window_cap < RECENT_REPEAT_MESSAGES) {
        int rc = window_grow(r);
        if (rc < 0)
            return rc;
    }
    if (r->window_count == r->window_cap) {
        r->window_first = (uint8_t)((r->window_first + 1U) & (r->window_cap - 1U));
        r->window_count--;
    }
    *window_at(r, r->window_count++) = (struct window_entry){id, now_ms};
    return 0;
}

int recent_add(struct recent **r, size_t limit, uint64_t id_hash, enum recent_origin origin,
               int64_t now_ms)
{
    if (!*r)
        *r = calloc(1, sizeof(**r));
    if (!*r)
        return -ENOMEM;
    if (limit > RECENT_LIMIT_MAX)
        limit = RECENT_LIMIT_MAX;
    int rc = 0;
    if (origin == RECENT_LIVE || origin == RECENT_PASSING)
        rc = window_add(*r, id_hash, now_ms);
    if (!rc && origin != RECENT_PASSING)
        rc = know(*r, (uint32_t)limit, id_hash, origin);
    return rc;
}

bool recent_knows(const struct recent *r, uint64_t id_hash)
{
    return r && find(r, id_hash) >= 0;
}

bool recent_was_heard(const struct recent *r, uint64_t id_hash)
{
    int64_t at = r ? find(r, id_hash) : -1;
    return at >= 0 && r->origin[at] == RECENT_LIVE;
}

size_t recent_count(const struct recent *r)
{
    return r ? r->count : 0;
}

void recent_copy(const struct recent *r, uint64_t *out)
{
    for (uint32_t i = r ? r->head : 0; r && i < r->end; i++)
        if (r->ids[i])
            *out++ = r->ids[i];
}

bool recent_has_forgotten(const struct recent *r)
{
    return r && r->has_forgotten;
}

void recent_list_asked(struct recent *r)
{
    if (r)
        r->has_forgotten_since_asked = false;
}

void recent_mark_complete(struct recent *r)
{
    if (r)
        r->has_forgotten = r->has_forgotten_since_asked;
}

bool recent_is_repeat(struct recent *r, uint64_t id_hash, int64_t now_ms)
{
    if (!r)
        return false;
    int64_t at = find(r, id_hash);
    if (at >= 0 && r->origin[at] == RECENT_LISTED) {
        r->origin[at] = RECENT_LIVE;
        (void)window_add(r, id_hash, now_ms); /* without memory a further repeat passes */
        return true;
    }
    for (uint32_t i = r->window_count; i-- > 0;) {
        const struct window_entry *e = window_at(r, i);
        if (e->id == id_hash)
            return now_ms - e->at_ms < RECENT_REPEAT_MS;
    }
    return false;
}

/* ---- for another process ---- */

void recent_save(const struct recent *r, bool window_only, struct text_buf *out)
{
    if (!r)
        return;
    pack_u8(out, r->has_forgotten && !window_only);
    pack_u32(out, window_only ? 0 : r->count);
    for (uint32_t i = r->head; i < r->end && !window_only; i++)
        if (r->ids[i]) {
            pack_u64(out, r->ids[i]);
            pack_u8(out, r->origin[i]);
        }
    pack_u32(out, r->window_count);
    for (uint32_t i = 0; i < r->window_count; i++) {
        pack_u64(out, window_at(r, i)->id);
        pack_i64(out, window_at(r, i)->at_ms);
    }
}

int recent_restore(struct recent **out, size_t limit, struct text_span saved)
{
    struct unpack in = unpack_of(saved);
    *out = NULL;
    if (!saved.len)
        return 0;
    struct recent *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    int error = 0;
    bool has_forgotten = unpack_u8(&in);
    for (uint32_t n = unpack_count(&in, 9); !error && n; n--) {
        uint64_t id = unpack_u64(&in);
        uint8_t origin = unpack_u8(&in);
        error = !id || origin >= RECENT_PASSING ? -EBADMSG
                                 : recent_add(&r, limit, id, RECENT_LISTED, 0);
        if (!error)
            r->origin[find(r, id)] = origin;
    }
    for (uint32_t n = unpack_count(&in, 16); !error && n; n--) {
        uint64_t id = unpack_u64(&in);
        error = window_add(r, id, unpack_time(&in));
    }
    if (!error && !unpack_is_done(&in))
        error = -EBADMSG;
    if (error) {
        recent_free(r);
        return error;
    }
    r->has_forgotten |= has_forgotten;
    *out = r;
    return 0;
}

/* All of both in a new object, from's first: what is added last is the newest. */
int recent_join_known(struct recent **into, size_t limit, const struct recent *from)
{
    struct recent *joined = NULL;
    const struct recent *parts[] = {from, *into};
    bool has_forgotten = recent_has_forgotten(from) || recent_has_forgotten(*into);
    int error = 0;
    for (size_t p = 0; p < 2; p++)
        for (uint32_t i = parts[p] ? parts[p]->head : 0; parts[p] && i < parts[p]->end; i++) {
            uint64_t id = parts[p]->ids[i];
            if (!id || error)
                continue;
            bool was_live = joined && find(joined, id) >= 0 &&
                            joined->origin[find(joined, id)] == RECENT_LIVE;
            error = recent_add(&joined, limit, id, RECENT_LISTED, 0);
            if (!error && !was_live)
                joined->origin[find(joined, id)] = parts[p]->origin[i];
        }
    if (error) {
        recent_free(joined);
        return error;
    }
    if (!joined)
        return 0;
    joined->has_forgotten |= has_forgotten;
    if (*into) { /* the window stays */
        joined->window = (*into)->window;
        joined->window_cap = (*into)->window_cap;
        joined->window_first = (*into)->window_first;
        joined->window_count = (*into)->window_count;
        (*into)->window = NULL;
    }
    recent_free(*into);
    *into = joined;
    return 0;
}

static bool window_has(const struct recent *r, uint64_t id)
{
    for (uint32_t i = 0; i < r->window_count; i++)
        if (window_at(r, i)->id == id)
            return true;
    return false;
}

/* Both by time, as far as they are in order; the oldest leave when there is no room. */
int recent_join_window(struct recent **into, const struct recent *from)
{
    if (!from || !from->window_count)
        return 0;
    if (!*into)
        *into = calloc(1, sizeof(**into));
    if (!*into)
        return -ENOMEM;
    struct recent *to = *into, joined = {0};
    uint32_t a = 0, b = 0;
    int error = 0;
    while (!error && (a < from->window_count || b < to->window_count)) {
        bool is_from = b == to->window_count ||
                       (a < from->window_count &&
                        window_at(from, a)->at_ms <= window_at(to, b)->at_ms);
        const struct window_entry *e = is_from ? window_at(from, a++) : window_at(to, b++);
        if (!is_from || !window_has(to, e->id))
            error = window_add(&joined, e->id, e->at_ms);
    }
    if (error) {
        free(joined.window);
        return error;
    }
    free(to->window);
    to->window = joined.window;
    to->window_cap = joined.window_cap;
    to->window_first = joined.window_first;
    to->window_count = joined.window_count;
    return 0;
}

static bool lists_unknown(const struct recent *a, const struct recent *b)
{
    for (uint32_t i = a ? a->head : 0; a && i < a->end; i++)
        if (a->ids[i] && a->origin[i] != RECENT_LIVE && !recent_knows(b, a->ids[i]))
            return true;
    return false;
}

bool recent_differs(const struct recent *a, const struct recent *b)
{
    return lists_unknown(a, b) || lists_unknown(b, a);
}
