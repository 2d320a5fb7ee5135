#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "shared/log.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"

#define RETRY_MIN_S 0.1
#define RETRY_MAX_S 5.0
#define TRIM_MARKS 1000 /* read marks taken out at once */

/* ---- the queue of readings ---- */

static struct user_queue *queue_of(struct sessions *s, const struct user *u)
{
    return u->queue == QUEUE_READY ? &s->ready : &s->delayed;
}

static void enqueue(struct sessions *s, struct user *u, int which)
{
    u->queue = (uint8_t)which;
    struct user_queue *q = queue_of(s, u);
    u->queue_next = NULL;
    u->queue_prev = q->last;
    if (q->last)
        q->last->queue_next = u;
    else
        q->first = u;
    q->last = u;
}

static void dequeue(struct sessions *s, struct user *u)
{
    if (u->queue == QUEUE_NONE)
        return;
    struct user_queue *q = queue_of(s, u);
    if (u->queue_prev)
        u->queue_prev->queue_next = u->queue_next;
    else
        q->first = u->queue_next;
    if (u->queue_next)
        u->queue_next->queue_prev = u->queue_prev;
    else
        q->last = u->queue_prev;
    u->queue_next = u->queue_prev = NULL;
    u->queue = QUEUE_NONE;
}

void session_retry_later(struct sessions *s)
{
    if (ev_is_active(&s->retry))
        return;
    double after = RETRY_MIN_S;
    for (unsigned i = 0; i < s->failures && after < RETRY_MAX_S; i++)
        after *= 2;
    s->failures++;
    ev_timer_set(&s->retry, after < RETRY_MAX_S ? after : RETRY_MAX_S, 0.);
    ev_timer_start(s->w->loop, &s->retry);
}

static bool has_waiting(const struct sessions *s, const struct user *u)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (session_is_waiting(d) || session_lag_needs_list(s, d))
            return true;
    return false;
}

void session_want_reading(struct sessions *s, struct user *u)
{
    if (u->subscription != SUBSCRIPTION_CONFIRMED || u->reading || u->queue != QUEUE_NONE)
        return;
    enqueue(s, u, QUEUE_READY);
    session_start_readings(s);
}

static void let_go(struct sessions *s, struct user *u)
{
    u->reading = NULL;
    u->is_spoiled = false;
    s->in_flight--;
    for (struct device *d = u->devices; d; d = d->next)
        d->in_reading = false;
}

void session_cancel_reading(struct sessions *s, struct user *u)
{
    dequeue(s, u);
    if (!u->reading)
        return;
    store_cancel(u->reading);
    let_go(s, u);
}

/* ---- applying ---- */

/* What applying a list needs of the moment before it. */
struct applying {
    struct sessions *s;
    struct user *u;
    struct session_list list;
    struct merge_known known;
    bool has_live;     /* the user had devices before, and known is what they have */
    bool *is_given;    /* for each entry: a device has it or was sent it */
    bool is_all_given;
    int64_t now_us;
};

/* Ids of what the device held, and room for a merge's result, in one block. */
struct held_ids {
    uint64_t *ids;
    uint32_t *out;
    size_t count;
};

static int held_ids_of(const struct device *d, struct held_ids *h)
{
    h->count = d->held ? d->held->count : 0;
    h->ids = malloc((h->count + 1) * (sizeof(*h->ids) + sizeof(*h->out)));
    if (!h->ids)
        return -ENOMEM;
    h->out = (uint32_t *)(h->ids + h->count + 1);
    for (size_t i = 0; i < h->count; i++)
        h->ids[i] = d->held->items[i].id_hash;
    return 0;
}

static void go_live(struct device *d)
{
    if (!d->user) /* sending closed the session */
        return;
    d->state = DEVICE_LIVE;
    d->overflows = 0;
    free(d->resume);
    d->resume = NULL;
}

/* Sends entries of the list. counter: counted for each that the device wants. */
static void give_missed(struct applying *a, struct device *d, size_t count, enum counter counter)
{
    for (size_t i = 0; i < count; i++) {
        struct frame *f = session_list_frame(&a->list, a->list.missed[i]);
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

static size_t count_wanted(const struct applying *a, const struct device *d, size_t count)
{
    size_t wanted = 0;
    for (size_t i = 0; i < count; i++) {
        const struct message *m = &a->list.messages[a->list.missed[i]];
        wanted += filter_allows(d->filter, m->type_hash);
    }
    return wanted;
}

static struct merge_position position_of(const struct applying *a, const struct device *d)
{
    const struct options *opt = a->s->w->opt;
    struct merge_position p = {
        .has_acked = a->list.has_acked,
        .acked = a->list.acked,
        .now_us = a->now_us,
        .replay_window_us = opt->replay_window * 1000,
        .replay_limit = (size_t)opt->replay_limit,
        .known = a->has_live ? &a->known : NULL,
    };
    if (d->resume) {
        p.has_last_id = d->resume->has_last_id;
        p.last_id = d->resume->last_id;
        p.seen = d->resume->seen;
        p.seen_count = d->resume->seen_count;
    }
    return p;
}

/* What a device has now of the list: not what was left out for replay-limit or replay-window. */
static void note_given(struct applying *a, const struct merge_position *p,
                       const struct merge_result *r)
{
    const struct session_list *l = &a->list;
    a->is_all_given |= r->is_placed;
    for (size_t i = 0; i < r->missed_count; i++)
        a->is_given[l->missed[i]] = true;
    for (size_t k = 0; k < l->order_count; k++)
        for (size_t i = 0; i < p->seen_count; i++)
            if (l->entries[l->order[k]].id_hash == p->seen[i])
                a->is_given[l->order[k]] = true;
}

static void attach(struct applying *a, struct device *d)
{
    struct session_list *l = &a->list;
    struct held_ids held;
    if (held_ids_of(d, &held) < 0) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    struct merge_position p = position_of(a, d);
    struct merge_result r = merge_attach(l->entries, l->order, l->order_count, &p, held.ids,
                                         held.count, l->missed, held.out);
    const char *type = a->s->w->style.lower_case ? "full_sync" : "FULL_SYNC";
    note_given(a, &p, &r);
    counters_inc(CTR_attaches);
    if (p.has_last_id)
        counters_inc(r.is_recovered ? CTR_attaches_recovered : CTR_attaches_unrecovered);
    session_list_full_sync(l, d, type, r.is_recovered, count_wanted(a, d, r.missed_count));
    give_missed(a, d, r.missed_count, CTR_messages_replayed);
    if (d->held)
        session_give_held(d, held.out, r.held_count);
    free(held.ids);
    go_live(d);
    if (d->user)
        session_refreshes_start(a->s, d);
}

/* A device that is or was live: what its user's devices do not know. */
static void catch_up(struct applying *a, struct device *d)
{
    struct session_list *l = &a->list;
    struct held_ids held;
    if (held_ids_of(d, &held) < 0) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    struct merge_result r = merge_repair(l->entries, l->order, l->order_count, &a->known, held.ids,
                                         held.count, l->missed, held.out);
    give_missed(a, d, r.missed_count, CTR_messages_repaired);
    if (d->held)
        session_give_held(d, held.out, r.held_count);
    free(held.ids);
    go_live(d);
}

static bool is_known(const void *data, uint64_t id_hash)
{
    return recent_knows(data, id_hash);
}

/* From now on the live copy of what the list has is not sent again, unless nobody was given it. */
static void remember(struct applying *a)
{
    const struct session_list *l = &a->list;
    int64_t now_ms = worker_now_ms(a->s->w);
    for (size_t k = 0; k < l->order_count; k++) {
        uint64_t id = l->entries[l->order[k]].id_hash;
        bool is_given = a->is_all_given || a->is_given[l->order[k]] ||
                        (a->has_live && !recent_knows(a->u->recent, id)); /* catch_up sent it */
        (void)recent_add(&a->u->recent, a->s->known_limit, id,
                         is_given ? RECENT_LISTED : RECENT_SKIPPED, now_ms);
    }
    recent_mark_complete(a->u->recent);
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
    size_t count = session_list_stale_marks(&a->list, stored, stale, TRIM_MARKS);
    if (count)
        store_trim_read(a->s->w->store, a->u->id, stale, count, ignore, NULL);
    free(stale);
}

static void serve_devices(struct applying *a)
{
    session_walk(a->s, a->u);
    for (struct device *d = a->u->devices, *next; d; d = next) {
        next = d->next;
        bool in_reading = d->in_reading;
        d->in_reading = false;
        if (d->lag)
            session_lag_serve(a->s, d, &a->list);
        else if (d->state == DEVICE_ATTACHING && in_reading)
            attach(a, d);
        else if (d->state == DEVICE_LIVE || (d->state == DEVICE_REPAIRING && in_reading))
            catch_up(a, d);
    }
    a->u->needs_repair = false;
    remember(a);
    for (struct device *d = a->u->devices; d; d = d->next)
        session_lag_listed(d, &a->list);
    if (!session_walked(a->s, a->u) && has_waiting(a->s, a->u))
        session_want_reading(a->s, a->u);
}

static bool has_live(const struct user *u)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (d->state == DEVICE_LIVE || d->state == DEVICE_REPAIRING)
            return true;
    return false;
}

/*
 * The list was filled anew since the last message that came live: the link brings a flood, and is
 * behind. To give live devices the list now would be to overtake what the link still brings and the
 * list has lost; a little later it shows something they know.
 */
static bool is_ahead(const struct applying *a)
{
    const struct session_list *l = &a->list;
    if (!a->has_live || a->u->needs_repair || a->u->put_off >= SESSION_PUT_OFF_MAX ||
        l->order_count < (size_t)a->s->w->opt->history_size)
        return false;
    for (size_t k = 0; k < l->order_count; k++)
        if (is_known(a->u->recent, l->entries[l->order[k]].id_hash))
            return false;
    return true;
}

/* 0; -EAGAIN: the list is to be read again a little later; -ENOMEM. */
static int apply(struct sessions *s, struct user *u, const struct store_user *stored)
{
    struct applying a = {.s = s, .u = u, .now_us = worker_wall_ms(s->w) * 1000};
    int error = session_list_read(&a.list, u, stored);
    if (error)
        return error;
    a.has_live = has_live(u);
    a.is_given = calloc(a.list.count + 1, sizeof(*a.is_given));
    if (!a.is_given || is_ahead(&a)) {
        error = a.is_given ? -EAGAIN : -ENOMEM;
        u->put_off++;
        free(a.is_given);
        session_list_free(&a.list);
        return error;
    }
    u->put_off = 0;
    int64_t since_us = u->needs_repair && s->is_lost_at_set ? s->lost_at_us : a.now_us;
    a.known = (struct merge_known){.is_known = is_known,
                                   .data = u->recent,
                                   .has_forgotten = recent_has_forgotten(u->recent),
                                   .before_us = since_us - SESSION_CROSSING_US};
    trim_marks(&a, stored);
    serve_devices(&a); /* may free u */
    free(a.is_given);
    session_list_free(&a.list);
    return 0;
}

/* ---- reading ---- */

static void on_read(void *data, int error, const struct store_user *stored)
{
    struct user *u = data;
    struct sessions *s = u->devices->conn->worker->sessions;
    bool is_spoiled = u->is_spoiled;
    u->reading = NULL;
    u->is_spoiled = false;
    s->in_flight--;
    if (!error && !is_spoiled) {
        s->failures = 0;
        error = apply(s, u, stored);
        if (!error) {
            session_start_readings(s);
            return;
        }
    }
    for (struct device *d = u->devices; d; d = d->next)
        d->in_reading = false;
    if (error && store_is_up(s->w->store)) { /* LOADING, no memory: not at once again */
        enqueue(s, u, QUEUE_DELAYED);
        session_retry_later(s);
    } else
        enqueue(s, u, QUEUE_READY);
    session_start_readings(s);
}

static bool start_reading(struct sessions *s, struct user *u)
{
    u->reading = store_read_user(s->w->store, u->id, on_read, u);
    if (!u->reading)
        return false;
    dequeue(s, u);
    recent_list_asked(u->recent);
    s->in_flight++;
    for (struct device *d = u->devices; d; d = d->next) {
        session_lag_asked(d);
        d->in_reading = session_is_waiting(d);
    }
    return true;
}

void session_start_readings(struct sessions *s)
{
    while (s->in_flight < SESSION_READINGS && s->ready.first && store_is_up(s->w->store))
        if (!start_reading(s, s->ready.first)) {
            session_retry_later(s);
            return;
        }
}

void session_on_subscribed(struct worker *w, struct user *u)
{
    if (has_waiting(w->sessions, u))
        session_want_reading(w->sessions, u);
}

void session_on_store_up(struct worker *w)
{
    struct sessions *s = w->sessions;
    s->failures = 0;
    session_start_readings(s);
    session_refreshes_start_all(s);
}
