#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/conn.h"
#include "workers/handover_parts.h"
#include "workers/session_handover.h"
#include "workers/store.h"
#include "workers/subscriber.h"

#define BATCH_CONNECTIONS 64 /* given in one turn: they wait for it, and so do all others */
#define BATCH_USERS 256
#define TICK_S 0.02

enum { FREE, EXPECTED, MARKED };

/* What one taker is to take next. */
struct parcel {
    int state;
    uint32_t number;
    char marker[HANDOVER_MARKER_BYTES];
    int64_t since_ms;
    struct store_call *call;     /* publication of the marker */
    uint32_t users, connections;
    struct text_buf ids;         /* bytes, one behind the other (pack.h) */
};

struct recipient {
    struct giver *giver;
    struct handover_link *link;  /* NULL: gone */
    bool is_here;                /* it said HELLO */
    bool is_shared;              /* it counts where we do */
    uint64_t assigned;           /* connections */
    struct parcel parcel;
};

struct giver {
    struct worker *w;
    struct ev_timer tick;
    int64_t began_ms;
    uint32_t number;             /* of the last parcel */
    uint64_t given;
    uint64_t staying;            /* WebSockets that cannot be given */
    bool is_stopped;
    size_t count;
    struct recipient recipients[];
};

/* ---- giving ---- */

static uint32_t movable(const struct user *u)
{
    uint32_t n = 0;
    for (const struct device *d = u->devices; d; d = d->next)
        n += conn_is_plain_websocket(d->conn);
    return n;
}

static bool is_ready(const struct user *u)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (conn_is_plain_websocket(d->conn) && !conn_is_movable(d->conn))
            return false;
    return true;
}

static void put(struct recipient *r, enum handover_record type, struct text_buf *out, int fd)
{
    if (out->failed || handover_link_send(r->link, type, out->data, out->len, fd))
        log_error("no-memory", "for", "hand-over");
    text_buf_reset(out);
}

static bool give_conn(struct recipient *r, struct conn *c, enum handover_record type)
{
    struct text_buf state = {0};
    int fd = conn_give(c, r->is_shared, &state);
    if (fd >= 0) {
        put(r, type, &state, fd);
        r->giver->given++;
    }
    text_buf_free(&state);
    return fd >= 0;
}

static void forget(struct recipient *r, uint32_t which)
{
    struct text_buf out = {0};
    pack_u32(&out, r->parcel.number);
    pack_u32(&out, which);
    put(r, HANDOVER_FORGET, &out, -1);
    text_buf_free(&out);
}

static void give_user(struct recipient *r, struct user *u, uint32_t which, bool is_fenced)
{
    struct text_buf out = {0};
    session_settle(r->giver->w, u);
    is_fenced = is_fenced && u->subscription == SUBSCRIPTION_CONFIRMED && !u->needs_repair;
    pack_u32(&out, r->parcel.number);
    pack_u32(&out, which);
    size_t begun = pack_begin(&out);
    session_save_known(u, &out);
    pack_end(&out, begun);
    put(r, HANDOVER_USER, &out, -1);
    u->is_leaving = false;
    struct device *next;
    for (struct device *d = u->devices; d; d = next) { /* the last that leaves takes u along */
        next = d->next;
        if (conn_is_movable(d->conn))
            give_conn(r, d->conn, HANDOVER_DEVICE);
    }
    pack_u8(&out, is_fenced);
    put(r, HANDOVER_USER_END, &out, -1);
    text_buf_free(&out);
}

static void clear(struct parcel *p)
{
    store_cancel(p->call);
    p->call = NULL;
    p->state = FREE;
    p->users = p->connections = 0;
    text_buf_reset(&p->ids);
}

/* All that the parcel was to hold, as far as it is still here. */
static void give_parcel(struct recipient *r, bool is_fenced)
{
    struct giver *g = r->giver;
    struct parcel *p = &r->parcel;
    struct unpack in = unpack_of((struct text_span){p->ids.data, p->ids.len});
    uint64_t before = g->given;
    for (uint32_t i = 0; i < p->users; i++) {
        struct text_span id = unpack_bytes(&in);
        struct user *u = hub_find(g->w->hub, id.ptr, id.len);
        if (u && movable(u) && is_ready(u)) {
            give_user(r, u, i, is_fenced);
            continue;
        }
        if (u)
            u->is_leaving = false; /* an answer is awaited: next time */
        forget(r, i);
    }
    r->assigned -= p->connections - (g->given - before);
    clear(p);
    handover_link_flush(r->link);
}

/* ---- choosing ---- */

/* Of those that have got the least, the first from a place on that differs between givers: so what
 * does not come out even does not go to the same ones. One that is not here yet is waited for. */
static struct recipient *neediest(struct giver *g)
{
    struct recipient *best = NULL;
    for (size_t i = 0; i < g->count; i++) {
        struct recipient *r = &g->recipients[(i + g->w->start->slot) % g->count];
        if (r->link && (!best || r->assigned < best->assigned))
            best = r;
    }
    return best;
}

static size_t alive(const struct giver *g)
{
    size_t n = 0;
    for (size_t i = 0; i < g->count; i++)
        n += g->recipients[i].link != NULL;
    return n;
}

struct choice {
    struct parcel *parcel;
    uint32_t most; /* connections */
};

static bool choose(void *data, struct user *u)
{
    struct choice *c = data;
    struct parcel *p = c->parcel;
    uint32_t n = u->is_leaving ? 0 : movable(u);
    if (n && is_ready(u)) {
        u->is_leaving = true;
        pack_bytes(&p->ids, u->id, u->id_len);
        p->users++;
        p->connections += n;
    }
    return p->connections < c->most && p->users < BATCH_USERS;
}

static void unmark(struct giver *g, const struct parcel *p)
{
    struct unpack in = unpack_of((struct text_span){p->ids.data, p->ids.len});
    for (uint32_t i = 0; i < p->users; i++) {
        struct text_span id = unpack_bytes(&in);
        struct user *u = hub_find(g->w->hub, id.ptr, id.len);
        if (u)
            u->is_leaving = false;
    }
}

/* Tells the taker whom to expect. */
static void announce(struct giver *g, struct recipient *r)
{
    struct parcel *p = &r->parcel;
    struct text_buf out = {0};
    p->number = ++g->number;
    snprintf(p->marker, sizeof p->marker, "%u.%d.%u", g->w->start->slot, (int)getpid(), p->number);
    p->since_ms = worker_now_ms(g->w);
    p->state = EXPECTED;
    r->assigned += p->connections;
    pack_u32(&out, p->number);
    pack_bytes(&out, p->marker, strlen(p->marker));
    pack_u32(&out, p->users);
    if (p->ids.len)
        text_add(&out, p->ids.data, p->ids.len);
    put(r, HANDOVER_EXPECT, &out, -1);
    text_buf_free(&out);
    handover_link_flush(r->link);
}

/* How many connections the next parcel holds: no more than what is still missing to the taker's
 * share of all. */
static uint32_t parcel_size(const struct giver *g, const struct recipient *r)
{
    uint64_t left = counters_self->values[CTR_websockets], all = 0, under_way = g->staying;
    size_t takers = 0;
    for (size_t i = 0; i < g->count; i++) {
        const struct recipient *other = &g->recipients[i];
        if (!other->link)
            continue;
        takers++;
        all += other->assigned;
        under_way += other->parcel.connections;
    }
    all += left > under_way ? left - under_way : 0;
    uint64_t share = (all + takers - 1) / takers;
    uint64_t size = share > r->assigned ? share - r->assigned : 1;
    return size < BATCH_CONNECTIONS ? (uint32_t)size : BATCH_CONNECTIONS;
}

/* Fills parcels, the neediest taker's first, until that one has one already. */
static void fill(struct giver *g)
{
    struct recipient *r;
    while (!g->is_stopped && (r = neediest(g)) && r->is_here && r->parcel.state == FREE &&
           !handover_link_is_full(r->link)) {
        struct choice c = {&r->parcel, parcel_size(g, r)};
        hub_some(g->w->hub, choose, &c);
        if (!c.parcel->users)
            return;
        if (c.parcel->ids.failed) {
            unmark(g, c.parcel);
            clear(c.parcel);
            return;
        }
        announce(g, r);
    }
}

static void count_staying(void *data, struct conn *c)
{
    struct giver *g = data;
    g->staying += c->is_counted_ws && !conn_is_plain_websocket(c);
}

static void give_alone(void *data, struct conn *c)
{
    struct giver *g = data;
    struct recipient *r = c->device.user || !conn_is_movable(c) ? NULL : neediest(g);
    if (!r || !r->is_here || handover_link_is_full(r->link))
        return;
    r->assigned += give_conn(r, c, HANDOVER_ALONE);
}

/* ---- what takers say ---- */

static void on_published(void *data, int error, int64_t receivers)
{
    struct recipient *r = data;
    (void)receivers;
    r->parcel.call = NULL;
    if (!error)
        return;
    give_parcel(r, false);
    fill(r->giver);
}

static void publish_marker(struct recipient *r)
{
    struct worker *w = r->giver->w;
    struct parcel *p = &r->parcel;
    char channel[96];
    p->state = MARKED;
    p->since_ms = worker_now_ms(w);
    snprintf(channel, sizeof channel, HANDOVER_CHANNEL "%.48s", w->start->instance_id);
    if (subscriber_is_up(w->subscriber))
        p->call = store_publish(w->store, channel, text_span_of(p->marker), on_published, r);
    if (!p->call)
        give_parcel(r, false);
}

static void on_confirmed(struct recipient *r, struct text_span body)
{
    struct unpack in = unpack_of(body);
    uint32_t number = unpack_u32(&in);
    bool is_subscribed = unpack_u8(&in);
    if (r->parcel.state != EXPECTED || r->parcel.number != number)
        return;
    if (is_subscribed)
        publish_marker(r);
    else
        give_parcel(r, false);
    fill(r->giver);
}

static void lose(struct recipient *r, const char *why)
{
    struct giver *g = r->giver;
    handover_link_free(r->link);
    r->link = NULL;
    unmark(g, &r->parcel);
    clear(&r->parcel);
    log_info("handover-link-ended", "taker", LOG_INT(r - g->recipients), "why", why);
    fill(g); /* its share is for the others */
}

/* What is given is counted on the way, and the user as here, until the taker has counted both. */
static void share_counters(struct recipient *r, struct unpack *hello)
{
    const struct worker_start *start = r->giver->w->start;
    uint64_t identity = unpack_u64(hello);
    struct text_buf out = {0};
    r->is_shared = !hello->is_bad && identity == start->counters->head->identity;
    if (!r->is_shared)
        return;
    pack_u32(&out, start->slot);
    put(r, HANDOVER_SHARED, &out, -1);
    text_buf_free(&out);
}

static void send_broadcasts(struct recipient *r)
{
    struct text_buf out = {0};
    session_save_broadcasts(r->giver->w, &out);
    put(r, HANDOVER_BROADCASTS, &out, -1);
    text_buf_free(&out);
}

static bool on_record(void *data, uint32_t type, struct text_span body, int fd)
{
    struct recipient *r = data;
    struct unpack in = unpack_of(body);
    if (fd >= 0)
        close(fd);
    if (type == HANDOVER_HELLO && !r->is_here) {
        uint32_t version = unpack_u32(&in);
        if (version != HANDOVER_VERSION) {
            log_warning("handover-version", "ours", LOG_INT(HANDOVER_VERSION), "theirs",
                        LOG_INT(version));
            lose(r, "another version");
            return false;
        }
        r->is_here = true;
        share_counters(r, &in);
        send_broadcasts(r);
        fill(r->giver);
    } else if (type == HANDOVER_CONFIRMED) {
        on_confirmed(r, body);
    }
    return r->link != NULL;
}

static void on_end(void *data, const char *why)
{
    lose(data, why);
}

/* ---- what happens meanwhile ---- */

void giver_on_marker(struct giver *g, struct text_span text)
{
    for (size_t i = 0; i < g->count; i++) {
        struct recipient *r = &g->recipients[i];
        if (r->link && r->parcel.state == MARKED && text_span_eq(text, r->parcel.marker)) {
            give_parcel(r, true);
            fill(g);
            return;
        }
    }
}

void giver_on_link_lost(struct giver *g)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->recipients[i].link && g->recipients[i].parcel.state == MARKED)
            give_parcel(&g->recipients[i], false);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct giver *g = timer->data;
    int64_t now_ms = worker_now_ms(g->w);
    (void)loop;
    (void)events;
    for (size_t i = 0; i < g->count; i++) {
        struct recipient *r = &g->recipients[i];
        if (!r->link)
            continue;
        if (!r->is_here && now_ms - g->began_ms > HANDOVER_HELLO_MS)
            lose(r, "it does not answer");
        else if (r->parcel.state == EXPECTED && now_ms - r->parcel.since_ms > HANDOVER_HUNG_MS)
            lose(r, "it does not answer any more");
        else if (r->parcel.state == MARKED && now_ms - r->parcel.since_ms > HANDOVER_WAIT_MS)
            give_parcel(r, false);
    }
    conns_each(g->w->conns, give_alone, g);
    g->staying = 0;
    conns_each(g->w->conns, count_staying, g);
    fill(g);
    for (size_t i = 0; i < g->count; i++)
        if (g->recipients[i].link)
            handover_link_flush(g->recipients[i].link);
}

/* ---- life ---- */

static const struct handover_link_owner owner = {on_record, on_end};

struct giver *giver_new(struct worker *w, const int *fds, size_t count)
{
    struct giver *g = calloc(1, sizeof(*g) + count * sizeof(g->recipients[0]));
    if (!g) {
        for (size_t i = 0; i < count; i++)
            close(fds[i]);
        return NULL;
    }
    g->w = w;
    g->count = count;
    g->began_ms = worker_now_ms(w);
    for (size_t i = 0; i < count; i++) {
        struct recipient *r = &g->recipients[i];
        r->giver = g;
        r->link = handover_link_new(w->loop, fds[i], &owner, r);
    }
    conns_each(w->conns, count_staying, g);
    ev_timer_init(&g->tick, on_tick, 0., TICK_S);
    g->tick.data = g;
    ev_timer_again(w->loop, &g->tick);
    return g;
}

bool giver_is_active(const struct giver *g)
{
    return !g->is_stopped && alive(g) > 0;
}

void giver_stop(struct giver *g)
{
    g->is_stopped = true;
    ev_timer_stop(g->w->loop, &g->tick);
    for (size_t i = 0; i < g->count; i++) {
        struct recipient *r = &g->recipients[i];
        if (!r->link || r->parcel.state == FREE)
            continue;
        for (uint32_t n = 0; n < r->parcel.users; n++)
            forget(r, n);
        unmark(g, &r->parcel);
        clear(&r->parcel);
        handover_link_flush(r->link);
    }
}

/* Those on the way end with us. They are not waited for once a taker is lost, with it some of
 * them. */
bool giver_is_flushed(const struct giver *g)
{
    bool has_lost = alive(g) < g->count;
    for (size_t i = 0; i < g->count; i++)
        if (g->recipients[i].link && !handover_link_is_flushed(g->recipients[i].link))
            return false;
    return has_lost || !__atomic_load_n(&counters_self->on_the_way, __ATOMIC_RELAXED);
}

void giver_free(struct giver *g)
{
    if (!g)
        return;
    ev_timer_stop(g->w->loop, &g->tick);
    log_info("handover-given", "connections", LOG_INT(g->given));
    for (size_t i = 0; i < g->count; i++) {
        store_cancel(g->recipients[i].parcel.call);
        text_buf_free(&g->recipients[i].parcel.ids);
        handover_link_free(g->recipients[i].link);
    }
    free(g);
}
