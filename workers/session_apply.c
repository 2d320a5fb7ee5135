/*
 * A list that was read is applied: each device that waited for it is given what it lacks, by
 * merge.h, and is live. Whether that may be done already (session_is_ahead) is judged here, too.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/session_parts.h"

#define TRIM_MARKS 1000 /* read marks taken out at once */

/* What applying a list needs of the moment before it. */
struct applying {
    struct sessions *s;
    struct user *u;
    struct session_list *list;
    struct merge_known known;
    bool has_live;     /* the user had devices before, and known is what they have */
    int64_t now_us;
};

/* ---- one device ---- */

/* Ids of what the device held, and room for a merge's result, in one block. */
struct held_ids {
    uint64_t *ids;
    uint32_t *out;
    size_t count;
};

static int held_ids_of(const struct device *d, struct held_ids *h)
{
    h->count = d->busy->held ? d->busy->held->count : 0;
    h->ids = malloc((h->count + 1) * (sizeof(*h->ids) + sizeof(*h->out)));
    if (!h->ids)
        return -ENOMEM;
    h->out = (uint32_t *)(h->ids + h->count + 1);
    for (size_t i = 0; i < h->count; i++)
        h->ids[i] = d->busy->held->items[i].id_hash;
    return 0;
}

static void go_live(struct device *d)
{
    if (!d->user) /* sending closed the session */
        return;
    d->state = DEVICE_LIVE;
    d->overflows = 0;
    device_drop_resume(d);
}

/* Sends entries of the list. counter: counted for each that the device wants. */
static void give_missed(struct applying *a, struct device *d, size_t count, enum counter counter)
{
    for (size_t i = 0; i < count; i++) {
        struct frame *f = session_list_frame(a->list, a->list->missed[i]);
        if (!f) {
            conn_close(d->conn, CLOSE_INTERNAL);
            return;
        }
        if (session_wants(d, f))
            counters_inc(counter);
        session_give(d, f);
        fate_source(d, f, counter);
    }
}

/* Time of the oldest entry; 0: unknown. */
static int64_t list_begins_us(const struct session_list *l)
{
    int64_t begins = 0;
    for (size_t k = 0; k < l->order_count; k++) {
        int64_t at = l->entries[l->order[k]].timestamp_us;
        if (at && (!begins || at < begins))
            begins = at;
    }
    return begins;
}

/* How many of what was held came up to the last that is in the list. */
static size_t held_to_listed(const struct session_list *l, const struct held_ids *ids)
{
    size_t count = ids->count;
    for (; count > 0; count--)
        for (size_t k = 0; k < l->order_count; k++)
            if (l->entries[l->order[k]].id_hash == ids->ids[count - 1])
                return count;
    return 0;
}

/*
 * Of the held messages that are to be sent, those from before all that is in the list come to the
 * front: they were in the list until newer ones took their places. Returns how many. Time tells
 * them from those that were stored since; where it is the same, that something in the list came
 * live after them.
 */
static size_t put_older_first(const struct applying *a, const struct device *d,
                              const struct held_ids *ids, size_t count)
{
    int64_t begins_us = count ? list_begins_us(a->list) : 0;
    size_t to_listed = begins_us ? held_to_listed(a->list, ids) : 0;
    size_t older = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t item = ids->out[i];
        const struct frame *f = d->busy->held->items[item].frame;
        if (!f || !f->timestamp_us || f->timestamp_us > begins_us ||
            (f->timestamp_us == begins_us && item >= to_listed))
            continue;
        memmove(ids->out + older + 1, ids->out + older, (i - older) * sizeof(*ids->out));
        ids->out[older++] = item;
    }
    return older;
}

/* Sends what a merge says. older: of what was held, see put_older_first. */
static void give(struct applying *a, struct device *d, const struct held_ids *ids,
                 const struct merge_result *r, size_t older, enum counter counter)
{
    struct held *h = device_take_held(d); /* sending may close the session */
    session_give_held(d, h, ids->out, older);
    give_missed(a, d, r->missed_count, counter);
    session_give_held(d, h, ids->out + older, r->held_count - older);
    held_free(h);
}

/* FULL_SYNC, before all that. */
static void tell(struct applying *a, struct device *d, const struct held_ids *ids,
                 const struct merge_result *r, size_t older)
{
    const char *type = a->s->w->style.lower_case ? "full_sync" : "FULL_SYNC";
    size_t missed = 0;
    for (size_t i = 0; i < r->missed_count; i++) {
        const struct message *m = &a->list->messages[a->list->missed[i]];
        missed += filter_allows(d->filter, m->type_hash);
    }
    for (size_t i = 0; i < older; i++)
        missed += session_wants(d, d->busy->held->items[ids->out[i]].frame);
    session_list_full_sync(a->list, d, type, r->is_recovered, missed);
}

static struct merge_position position_of(const struct applying *a, const struct device *d)
{
    const struct options *opt = a->s->w->opt;
    struct merge_position p = {
        .has_acked = a->list->has_acked,
        .acked = a->list->acked,
        .now_us = a->now_us,
        .replay_window_us = opt->replay_window * 1000,
        .replay_limit = (size_t)opt->replay_limit,
        .known = a->has_live ? &a->known : NULL,
    };
    if (d->busy->resume) {
        p.has_last_id = d->busy->resume->has_last_id;
        p.last_id = d->busy->resume->last_id;
        p.seen = d->busy->resume->seen;
        p.seen_count = d->busy->resume->seen_count;
    }
    return p;
}

static bool may_be_on_its_way(const struct applying *a, const struct merge_entry *e)
{
    return !e->timestamp_us || a->now_us - e->timestamp_us < SESSION_LAG_US;
}

/* missed is in the order of the list, as order is. */
static int leave_out(struct applying *a, struct device *d, const struct merge_position *p,
                     const struct merge_result *r)
{
    const struct session_list *l = a->list;
    size_t count = 0, given = 0;
    if (r->is_placed || r->missed_count == l->order_count)
        return 0;
    uint64_t *ids = malloc(l->order_count * sizeof(*ids));
    if (!ids)
        return -ENOMEM;
    for (size_t k = 0; k < l->order_count; k++) {
        const struct merge_entry *e = &l->entries[l->order[k]];
        if (given < r->missed_count && l->missed[given] == l->order[k])
            given++;
        else if (may_be_on_its_way(a, e) && !merge_is_seen(p, e->id_hash) &&
                 !recent_was_heard(a->u->recent, e->id_hash))
            ids[count++] = e->id_hash;
    }
    int rc = session_leave_out(d, ids, count);
    free(ids);
    return rc;
}

static void attach(struct applying *a, struct device *d)
{
    struct session_list *l = a->list;
    struct held_ids held;
    if (held_ids_of(d, &held) < 0) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    struct merge_position p = position_of(a, d);
    struct merge_result r = merge_attach(l->entries, l->order, l->order_count, &p, held.ids,
                                         held.count, l->missed, held.out);
    if (leave_out(a, d, &p, &r) < 0)
        conn_close(d->conn, CLOSE_INTERNAL);
    counters_inc(CTR_attaches);
    if (p.has_last_id)
        counters_inc(r.is_recovered ? CTR_attaches_recovered : CTR_attaches_unrecovered);
    size_t older = put_older_first(a, d, &held, r.held_count);
    tell(a, d, &held, &r, older);
    give(a, d, &held, &r, older, CTR_messages_replayed);
    free(held.ids);
    go_live(d);
    if (d->user)
        session_refreshes_start(a->s, d);
}

static bool is_in(const struct held_ids *h, uint64_t id)
{
    for (size_t i = 0; i < h->count; i++)
        if (h->ids[i] == id)
            return true;
    return false;
}

/* What the device has: what its user's devices have or, if it came from another worker, what it had
 * there. */
static const struct recent *recent_of(const struct applying *a, const struct device *d,
                                      uint64_t *newest_listed)
{
    const struct recent *adopted = session_adopted_recent(d, newest_listed);
    if (adopted)
        return adopted;
    *newest_listed = a->u->newest_listed;
    return a->u->recent;
}

/* There may have been older entries than the list has, or than were read of it. */
static bool is_full(const struct applying *a)
{
    return a->list->is_cut || a->list->count >= (size_t)a->s->w->opt->history_size;
}

/*
 * A device under repair stood before something that the list does not have any more: as with a
 * device that comes back with its last_id too late, there may be a gap. Nothing in the list was had
 * before the link was lost, and it is full, or it was not empty then.
 */
static bool was_cut(const struct applying *a, const struct device *d, const struct held_ids *held)
{
    const struct session_list *l = a->list;
    uint64_t newest;
    const struct recent *recent = recent_of(a, d, &newest);
    if (d->state != DEVICE_REPAIRING || !l->order_count || (!is_full(a) && !newest))
        return false;
    for (size_t k = 0; k < l->order_count; k++) {
        uint64_t id = l->entries[l->order[k]].id_hash;
        if (id == newest || (recent_knows(recent, id) && !is_in(held, id)))
            return false;
    }
    return true;
}

/* A device that is or was live: what its user's devices do not know. */
static void catch_up(struct applying *a, struct device *d)
{
    struct session_list *l = a->list;
    struct held_ids held;
    if (held_ids_of(d, &held) < 0) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    uint64_t newest;
    struct merge_known known = a->known;
    known.data = recent_of(a, d, &newest);
    known.has_forgotten = recent_has_forgotten(known.data);
    struct merge_result r = merge_repair(l->entries, l->order, l->order_count, &known, held.ids,
                                         held.count, l->missed, held.out);
    size_t older = put_older_first(a, d, &held, r.held_count);
    r.is_recovered = !was_cut(a, d, &held);
    if (!r.is_recovered) {
        counters_inc(CTR_repairs_unrecovered);
        tell(a, d, &held, &r, older);
    }
    give(a, d, &held, &r, older, CTR_messages_repaired);
    free(held.ids);
    go_live(d);
}

/* ---- all devices of a user ---- */

static bool is_known(const void *data, uint64_t id_hash)
{
    return recent_knows(data, id_hash);
}

/* From now on the live copy of what the list has is not sent again, but to those it was left out
 * for. */
static void remember(struct applying *a)
{
    const struct session_list *l = a->list;
    int64_t now_ms = worker_now_ms(a->s->w);
    for (size_t k = 0; k < l->order_count; k++) {
        (void)recent_add(&a->u->recent, a->s->known_limit, l->entries[l->order[k]].id_hash,
                         RECENT_LISTED, now_ms);
    }
    recent_mark_complete(a->u->recent);
    a->u->newest_listed = l->order_count ? l->entries[l->order[l->order_count - 1]].id_hash : 0;
}

static void ignore(void *data, int error, int64_t value)
{
    (void)data, (void)error, (void)value;
}

/* Read marks live as long as the user marks something; those of entries that left the list are of
 * no use. */
static void trim_marks(struct applying *a, const struct store_user *stored)
{
    size_t enough = 2 * (size_t)a->s->w->opt->history_size + 64;
    if (stored->read_count <= enough)
        return;
    struct text_span *stale = malloc(TRIM_MARKS * sizeof(*stale));
    if (!stale)
        return;
    size_t count = session_list_stale_marks(a->list, stored, stale, TRIM_MARKS);
    if (count)
        store_trim_read(a->s->w->store, a->u->id, stale, count, ignore, NULL);
    free(stale);
}

/* True while the user is here. */
static bool serve_devices(struct applying *a)
{
    session_walk(a->s, a->u);
    for (struct device *d = a->u->devices, *next; d; d = next) {
        next = d->next;
        bool in_reading = d->in_reading;
        d->in_reading = false;
        if (d->state == DEVICE_ADOPTED)
            continue;
        if (d->busy->lag)
            session_lag_serve(a->s, d, a->list);
        else if (d->state == DEVICE_ATTACHING && in_reading)
            attach(a, d);
        else if (d->state == DEVICE_LIVE || (d->state == DEVICE_REPAIRING && in_reading))
            catch_up(a, d);
    }
    a->u->needs_repair = false;
    remember(a);
    for (struct device *d = a->u->devices; d; d = d->next)
        if (d->state != DEVICE_ADOPTED) {
            session_lag_listed(d, a->list);
            session_adopted_done(a->s, d);
        }
    return !session_walked(a->s, a->u);
}

/* ---- is it too early? ---- */

static bool has_live(const struct user *u)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (d->state == DEVICE_LIVE || d->state == DEVICE_REPAIRING)
            return true;
    return false;
}

/* Something in the list came over the link, and with it all that was published before; or it was
 * sent from the list when that was so. */
static bool is_any_sent(const struct applying *a)
{
    const struct session_list *l = a->list;
    for (size_t k = 0; k < l->order_count; k++) {
        uint64_t id = l->entries[l->order[k]].id_hash;
        if (recent_knows(a->u->recent, id) && !session_is_left_out_for_any(a->u, id))
            return true;
    }
    return false;
}

/* The link brought an entry from there on. */
static bool is_heard_from(const struct applying *a, size_t place)
{
    const struct session_list *l = a->list;
    for (size_t k = place; k < l->order_count; k++)
        if (recent_was_heard(a->u->recent, l->entries[l->order[k]].id_hash))
            return true;
    return false;
}

/* A device stands nowhere in the list, and an entry it is not to be given may be on its way. */
static bool leaves_out(const struct applying *a)
{
    const struct session_list *l = a->list;
    for (const struct device *d = a->u->devices; d; d = d->next) {
        if (d->state != DEVICE_ATTACHING || !d->in_reading)
            continue;
        struct merge_position p = position_of(a, d);
        size_t place = merge_left_out(l->entries, l->order, l->order_count, &p);
        if (place < l->order_count && may_be_on_its_way(a, &l->entries[l->order[place]]) &&
            !is_heard_from(a, place))
            return true;
    }
    return false;
}

/*
 * The list may be ahead of the link: messages may be on their way that were published before it was
 * read, and are older than what the devices would be given of it, because they are left out or have
 * left the list again. The latter, with live devices, when it was filled anew since the last
 * message they know of; without, when that was within the time that a message may need.
 */
static bool is_ahead(const struct applying *a)
{
    const struct session_list *l = a->list;
    if (leaves_out(a))
        return true;
    if (!l->order_count || is_any_sent(a))
        return false;
    return a->has_live || (is_full(a) && may_be_on_its_way(a, &l->entries[l->order[0]]));
}

/* ---- interface ---- */

static struct applying applying_of(struct sessions *s, struct user *u, struct answer *answer)
{
    struct applying a = {.s = s,
                         .u = u,
                         .list = &answer->list,
                         .has_live = has_live(u),
                         .now_us = worker_wall_ms(s->w) * 1000};
    int64_t since_us = u->needs_repair && s->is_lost_at_set ? s->lost_at_us : a.now_us;
    a.known = (struct merge_known){.is_known = is_known,
                                   .data = u->recent,
                                   .has_forgotten = recent_has_forgotten(u->recent),
                                   .before_us = since_us - SESSION_CROSSING_US};
    return a;
}

bool session_is_ahead(struct sessions *s, struct user *u, struct answer *answer)
{
    struct applying a = applying_of(s, u, answer);
    return is_ahead(&a);
}

bool session_apply(struct sessions *s, struct user *u, struct answer *answer)
{
    struct applying a = applying_of(s, u, answer);
    trim_marks(&a, &answer->stored);
    return serve_devices(&a);
}
