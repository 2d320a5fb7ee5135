#include "config.h"

#include "workers/merge.h"

#define NONE SIZE_MAX

/* ---- order ---- */

typedef bool less_fn(const struct merge_entry *list, uint32_t a, uint32_t b);

/* By id; of one id the first stored (greatest index) first. */
static bool id_less(const struct merge_entry *list, uint32_t a, uint32_t b)
{
    if (list[a].id_hash != list[b].id_hash)
        return list[a].id_hash < list[b].id_hash;
    return a > b;
}

/* By time; of one time the first stored first. */
static bool time_less(const struct merge_entry *list, uint32_t a, uint32_t b)
{
    if (list[a].timestamp_us != list[b].timestamp_us)
        return list[a].timestamp_us < list[b].timestamp_us;
    return a > b;
}

static void sift(const struct merge_entry *list, uint32_t *v, size_t from, size_t n, less_fn *less)
{
    uint32_t moving = v[from];
    for (size_t child; (child = from * 2 + 1) < n; from = child) {
        if (child + 1 < n && less(list, v[child], v[child + 1]))
            child++;
        if (!less(list, moving, v[child]))
            break;
        v[from] = v[child];
    }
    v[from] = moving;
}

/* Heapsort: in place, no worst case; both orders are total, so stability does not matter. */
static void sort(const struct merge_entry *list, uint32_t *v, size_t n, less_fn *less)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(list, v, i, n, less);
    for (size_t end = n; end > 1; end--) {
        uint32_t top = v[0];
        v[0] = v[end - 1];
        v[end - 1] = top;
        sift(list, v, 0, end - 1, less);
    }
}

/* Valid entries, tail to head, each id once. */
static size_t by_position(const struct merge_entry *list, size_t count, uint32_t *order,
                          uint32_t *scratch)
{
    for (size_t k = 0; k < count; k++) {
        uint32_t i = (uint32_t)(count - 1 - k);
        order[k] = list[i].is_valid ? i : UINT32_MAX;
        scratch[k] = i;
    }
    sort(list, scratch, count, id_less);
    const struct merge_entry *kept = NULL;
    for (size_t k = 0; k < count; k++) {
        uint32_t i = scratch[k];
        if (!list[i].is_valid || !list[i].has_id)
            continue;
        if (kept && kept->id_hash == list[i].id_hash)
            order[count - 1 - i] = UINT32_MAX;
        else
            kept = &list[i];
    }
    size_t n = 0;
    for (size_t k = 0; k < count; k++)
        if (order[k] != UINT32_MAX)
            order[n++] = order[k];
    return n;
}

static bool is_reversed(const struct merge_entry *list, const uint32_t *order, size_t n)
{
    int64_t newest = 0;
    for (size_t k = 0; k < n; k++) {
        int64_t at = list[order[k]].timestamp_us;
        if (!at)
            continue;
        if (newest && newest - at > MERGE_REVERSED_US)
            return true;
        if (!newest || at > newest)
            newest = at;
    }
    return false;
}

/*
 * Sorts those with a time, each followed by those without one that stood behind it; those before
 * the first stay in front. Positions of indexes: order[k] descends, so the run behind a leader is
 * found in a copy of order by its index.
 */
static void by_time(const struct merge_entry *list, uint32_t *order, size_t n, uint32_t *scratch)
{
    uint32_t *before = scratch, *leaders = scratch + n;
    size_t leader_count = 0, out = 0;
    for (size_t k = 0; k < n; k++) {
        before[k] = order[k];
        if (list[order[k]].timestamp_us)
            leaders[leader_count++] = order[k];
        else if (!leader_count)
            order[out++] = before[k];
    }
    sort(list, leaders, leader_count, time_less);
    for (size_t l = 0; l < leader_count; l++) {
        size_t low = 0, high = n;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (before[middle] > leaders[l])
                low = middle + 1;
            else
                high = middle;
        }
        order[out++] = before[low];
        for (size_t k = low + 1; k < n && !list[before[k]].timestamp_us; k++)
            order[out++] = before[k];
    }
}

size_t merge_order(const struct merge_entry *list, size_t count, uint32_t *order, uint32_t *scratch)
{
    size_t n = by_position(list, count, order, scratch);
    if (is_reversed(list, order, n))
        by_time(list, order, n, scratch);
    return n;
}

/* ---- what to send ---- */

static bool has(const uint64_t *ids, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* Newest place of an id in order. */
static size_t place_of(const struct merge_entry *list, const uint32_t *order, size_t n, uint64_t id)
{
    for (size_t k = n; k-- > 0;)
        if (list[order[k]].id_hash == id)
            return k;
    return NONE;
}

bool merge_is_seen(const struct merge_position *p, uint64_t id_hash)
{
    return (p->has_last_id && p->last_id == id_hash) || has(p->seen, p->seen_count, id_hash);
}

/* Place up to which the device has everything (but what is not seen behind it); NONE: not known. */
static size_t position_in(const struct merge_entry *list, const uint32_t *order, size_t n,
                          const struct merge_position *p)
{
    if (!p->has_last_id)
        return p->has_acked ? place_of(list, order, n, p->acked) : NONE;
    size_t at = place_of(list, order, n, p->last_id);
    if (at == NONE)
        return NONE;
    for (size_t i = 0; i < p->seen_count; i++) {
        size_t k = place_of(list, order, n, p->seen[i]);
        if (k != NONE && k < at)
            at = k;
    }
    return at;
}

static bool is_young(const struct merge_entry *e, const struct merge_position *p)
{
    return !e->timestamp_us || p->now_us - e->timestamp_us < p->replay_window_us;
}

/* First place of the newest replay_limit young entries; n: there are none. */
static size_t replay_from(const struct merge_entry *list, const uint32_t *order, size_t n,
                          const struct merge_position *p)
{
    size_t from = n, left = p->replay_limit;
    for (size_t k = n; left && k-- > 0;)
        if (is_young(&list[order[k]], p)) {
            from = k;
            left--;
        }
    return from;
}

size_t merge_left_out(const struct merge_entry *list, const uint32_t *order, size_t order_count,
                      const struct merge_position *position)
{
    size_t left = position->replay_limit;
    if (position_in(list, order, order_count, position) != NONE)
        return order_count;
    for (size_t k = order_count; k-- > 0;) {
        const struct merge_entry *e = &list[order[k]];
        if (left && is_young(e, position))
            left--;
        else if (!merge_is_seen(position, e->id_hash))
            return k;
    }
    return order_count;
}

/* Held messages the list does not account for. p: what the device has seen, may be NULL. */
static size_t held_rest(const struct merge_entry *list, const uint32_t *order, size_t n,
                        const struct merge_position *p, const uint64_t *held, size_t held_count,
                        uint32_t *held_out)
{
    size_t out = 0;
    for (size_t h = 0; h < held_count; h++)
        if (!held[h] || (!(p && merge_is_seen(p, held[h])) && !has(held, h, held[h]) &&
                         place_of(list, order, n, held[h]) == NONE))
            held_out[out++] = (uint32_t)h;
    return out;
}

/* Stored so lately that not even the user's live devices have it. */
static bool is_news(const struct merge_position *p, const struct merge_entry *e)
{
    return p->known && !p->known->has_forgotten && !p->known->is_known(p->known->data, e->id_hash);
}

struct merge_result merge_attach(const struct merge_entry *list, const uint32_t *order,
                                 size_t order_count, const struct merge_position *position,
                                 const uint64_t *held, size_t held_count, uint32_t *missed,
                                 uint32_t *held_out)
{
    struct merge_result result = {0};
    size_t at = position_in(list, order, order_count, position);
    size_t from = at == NONE ? replay_from(list, order, order_count, position) : 0;
    size_t all_from = order_count; /* what came since the device asked leaves no hole behind it */
    for (size_t k = 0; at == NONE && k < order_count && all_from == order_count; k++)
        if (has(held, held_count, list[order[k]].id_hash) || is_news(position, &list[order[k]]))
            all_from = k;
    for (size_t k = at == NONE ? 0 : at + 1; k < order_count; k++) {
        const struct merge_entry *e = &list[order[k]];
        if (merge_is_seen(position, e->id_hash))
            continue;
        if (at != NONE || k >= all_from || (k >= from && is_young(e, position)))
            missed[result.missed_count++] = order[k];
    }
    result.held_count =
        held_rest(list, order, order_count, position, held, held_count, held_out);
    result.is_placed = at != NONE;
    result.is_recovered = !position->has_last_id || at != NONE;
    return result;
}

static bool is_owed(const struct merge_known *known, uint64_t id)
{
    return known->is_owed && known->is_owed(known->owed_data, id);
}

static bool is_had(const struct merge_known *known, uint64_t id)
{
    return !is_owed(known, id) && known->is_known(known->data, id);
}

struct merge_result merge_repair(const struct merge_entry *list, const uint32_t *order,
                                 size_t order_count, const struct merge_known *known,
                                 const uint64_t *held, size_t held_count, uint32_t *missed,
                                 uint32_t *held_out)
{
    struct merge_result result = {.is_recovered = true};
    size_t oldest_known = 0;
    if (known->has_forgotten)
        while (oldest_known < order_count && !is_had(known, list[order[oldest_known]].id_hash))
            oldest_known++;
    bool is_any_known = oldest_known < order_count;
    for (size_t k = 0; k < order_count; k++) {
        const struct merge_entry *e = &list[order[k]];
        bool is_sent = is_had(known, e->id_hash);
        if (!is_sent && known->has_forgotten && !is_owed(known, e->id_hash))
            is_sent = is_any_known ? k < oldest_known
                                   : e->timestamp_us && e->timestamp_us < known->before_us;
        if (!is_sent || has(held, held_count, e->id_hash))
            missed[result.missed_count++] = order[k];
    }
    result.held_count = held_rest(list, order, order_count, NULL, held, held_count, held_out);
    return result;
}
