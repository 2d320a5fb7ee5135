/*
 * The played world: Redis with one list and one channel, the two links to it, connections, clock
 * and timers. What Redis does and what the worker takes are separate steps; in between things stand
 * in queues, which a lost link empties.
 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "tests/model/model.h"
#include "workers/handover.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"

#define START_MS INT64_C(1769860800000) /* 2026-01-31T12:00:00Z */
#define TEXT_MAX 160
#define TICKS_MAX 128

struct world world;
const struct scenario *scenario;
bool is_tracing;

static struct options opt;
static struct keys keys;
static struct worker_start start;
static struct worker worker;
/* Any address will do: the fakes below are the only ones to get it. */
static char nothing[3];
static const struct store_call *answering; /* the reading that is being applied */

/* ---- texts of messages: made when first asked for ---- */

struct text {
    uint8_t len;
    char bytes[TEXT_MAX];
};

enum copy { COPY_STORED, COPY_LIVE, COPY_PASSING, COPIES };

static struct text texts[COPIES][MESSAGES_MAX][TICKS_MAX];
static uint64_t hashes[2][MESSAGES_MAX]; /* of the ids of stored ones and of those only published */
static uint16_t by_hash[1024];           /* 1 + number, + MESSAGES_MAX when only published */

static const struct text *text_of(enum copy copy, unsigned number)
{
    unsigned tick = copy == COPY_PASSING ? world.passing_tick[number] : world.tick_of[number];
    struct text *t = &texts[copy][number][tick];
    if (t->len)
        return t;
    char when[CLOCK_ISO_BYTES];
    int64_t us = (START_MS + (int64_t)tick * scenario->gap_ms) * 1000;
    /* The live copy is made a little later, and by a writer that knows no zones. */
    clock_format_us(us + (copy == COPY_STORED ? 0 : 900), copy == COPY_STORED, when);
    t->len = (uint8_t)snprintf(t->bytes, sizeof(t->bytes),
                               "{\"id\":\"%c%02u\",\"type\":\"NOTIFICATION\",\"timestamp\":\"%s\","
                               "\"user_id\":\"u\",\"payload\":{}%s}",
                               copy == COPY_PASSING ? 'p' : 'm', number, when,
                               copy == COPY_STORED ? "" : ",\"channel\":\"ws:user:u\"");
    return t;
}

static void index_ids(void)
{
    for (unsigned i = 0; i < 2 * MESSAGES_MAX; i++) {
        char id[8];
        int len = snprintf(id, sizeof(id), "%c%02u", i < MESSAGES_MAX ? 'm' : 'p',
                           i % MESSAGES_MAX);
        uint64_t hash = message_id_hash(id, (size_t)len);
        hashes[i / MESSAGES_MAX][i % MESSAGES_MAX] = hash;
        unsigned at = hash % 1024;
        while (by_hash[at])
            at = (at + 1) % 1024;
        by_hash[at] = (uint16_t)(i + 1);
    }
}

/* Number of a message, MESSAGES_MAX more when it was only published. */
static unsigned number_of(uint64_t hash)
{
    for (unsigned at = hash % 1024; by_hash[at]; at = (at + 1) % 1024) {
        unsigned i = by_hash[at] - 1U;
        if (hashes[i / MESSAGES_MAX][i % MESSAGES_MAX] == hash)
            return i;
    }
    violated("a device was sent something nobody wrote");
}

/* ---- clock and timers ---- */

int64_t worker_wall_ms(const struct worker *w)
{
    (void)w;
    return START_MS + (int64_t)world.ticks * scenario->gap_ms;
}

int64_t worker_now_ms(const struct worker *w)
{
    return worker_wall_ms(w);
}

void ev_timer_start(struct ev_loop *loop, ev_timer *t)
{
    (void)loop;
    t->active = 1;
}

void ev_timer_stop(struct ev_loop *loop, ev_timer *t)
{
    (void)loop;
    t->active = 0;
}

void ev_prepare_start(struct ev_loop *loop, ev_prepare *p) /* world_end_of_turn calls it */
{
    (void)loop, (void)p;
}

void ev_prepare_stop(struct ev_loop *loop, ev_prepare *p)
{
    (void)loop, (void)p;
}

bool world_timer_is_active(void)
{
    return ev_is_active(&world.sessions->retry);
}

void world_timer(void)
{
    ev_timer *t = &world.sessions->retry;
    t->active = 0;
    t->cb(worker.loop, t, EV_TIMER);
}

/* ---- connections ---- */

static struct client *client_of(struct conn *c)
{
    for (int i = 0; i < DEVICES; i++)
        if (c == &world.clients[i].conn)
            return &world.clients[i];
    violated("sent on a connection that nobody has");
}

void conn_send(struct conn *conn, struct frame *f)
{
    struct client *c = client_of(conn);
    if (c->is_closing)
        return;
    size_t len;
    const char *bytes = frame_payload(f, &len);
    unsigned number = number_of(f->id_hash);
    bool is_passing = number >= MESSAGES_MAX;
    number %= MESSAGES_MAX;
    const struct text *t = text_of(is_passing ? COPY_PASSING
                                   : f->is_stored ? COPY_STORED
                                                  : COPY_LIVE, number);
    if (t->len != len || memcmp(t->bytes, bytes, len))
        violated("the text of message %u was changed", number);
    if (is_passing)
        judge_passing(c, number);
    else
        judge_message(c, number, f->is_stored);
}

/* Takes a message when fewer than so many wait. */
/* No broadcasts come here. */
void conn_send_now(struct conn *conn, struct frame *f)
{
    conn_send(conn, f);
}

void conns_walk(struct conns *s)
{
    (void)s;
}

struct conn *conns_walk_next(struct conns *s)
{
    (void)s;
    return NULL;
}

static bool offer(struct conn *conn, struct frame *f, unsigned room)
{
    struct client *c = client_of(conn);
    if (scenario->room && !c->is_closing) {
        if (c->waiting >= room) {
            trace("device %d has no room for a message", (int)(c - world.clients));
            return false;
        }
        c->waiting++;
    }
    conn_send(conn, f);
    return true;
}

bool conn_offer(struct conn *conn, struct frame *f)
{
    return offer(conn, f, scenario->room);
}

bool conn_catch_up(struct conn *conn, struct frame *f)
{
    return offer(conn, f, (scenario->room + 1U) / 2);
}

bool conn_is_drained(const struct conn *conn, size_t next_bytes)
{
    (void)next_bytes;
    return !((const struct client *)conn)->waiting; /* conn is a client's first member */
}

void world_written(int device)
{
    struct client *c = &world.clients[device];
    c->waiting = 0;
    if (c->conn.device.busy->lag)
        session_on_drained(&worker, &c->conn.device);
}

void conn_send_text(struct conn *conn, const char *text, size_t len)
{
    struct client *c = client_of(conn);
    if (!c->is_closing)
        judge_full_sync(c, text, len, answering);
}

void conn_close(struct conn *conn, enum close_reason reason)
{
    struct client *c = client_of(conn);
    if (!c->is_open)
        violated("a connection that is gone was closed");
    trace("device %d is closed by the worker (reason %d)", (int)(c - world.clients), (int)reason);
    c->is_closing = true;
}

const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES])
{
    out[0] = (char)('0' + c->serial);
    out[1] = '\0';
    return out;
}

int usertable_enter(struct usertable *t, uint32_t column, uint64_t user_hash, uint32_t limit)
{
    (void)t, (void)column, (void)user_hash, (void)limit;
    return ++world.entered;
}

void usertable_leave(struct usertable *t, uint32_t column, uint64_t user_hash)
{
    (void)t, (void)column, (void)user_hash;
    if (!world.entered--)
        violated("usertable_leave without usertable_enter");
}

/* ---- the command link ---- */

static void to_worker(enum item_kind kind, uint8_t number);

bool store_is_up(const struct store *s)
{
    (void)s;
    return world.store_up;
}

static struct store_call *call(struct store_call what)
{
    for (uint8_t i = 0; i < CALLS_MAX; i++)
        if (!world.calls[i].is_used) {
            struct store_call *c = &world.calls[i];
            *c = what;
            c->is_used = true;
            world.order[world.call_count++] = i;
            return c;
        }
    violated("more than %d calls at once", CALLS_MAX);
}

struct store_call *store_read_user(struct store *s, const char *user_id, store_user_fn *fn,
                                   void *data)
{
    (void)s;
    if (strcmp(user_id, "u"))
        violated("the list of another user is read");
    return world.store_up ? call((struct store_call){.fn = fn, .data = data}) : NULL;
}

/* Of markers the fakes know that their numbers follow a colon. */
struct store_call *store_publish(struct store *s, const char *channel, struct text_span text,
                                 store_done_fn *fn, void *data)
{
    (void)s;
    if (strcmp(channel, subscriber_probe_channel(worker.subscriber)))
        violated("published on a strange channel");
    if (!world.store_up)
        return NULL;
    const char *number = memrchr(text.ptr, ':', text.len);
    return call((struct store_call){.done = fn, .data = data, .marker = (uint8_t)atoi(number + 1)});
}

struct store_call *store_trim_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count, store_done_fn *fn,
                                   void *data)
{
    (void)s, (void)user_id, (void)ids, (void)count, (void)fn, (void)data;
    return NULL;
}

void store_cancel(struct store_call *c)
{
    if (!c)
        return;
    if (!c->is_used || c->is_cancelled)
        violated("a call was cancelled that is over");
    c->is_cancelled = true;
    c->data = NULL;
}

const struct store_call *world_oldest_call(void)
{
    return world.call_count ? &world.calls[world.order[0]] : NULL;
}

static uint8_t list_count(void)
{
    return scenario->history && world.list_count > scenario->history ? scenario->history
                                                                     : world.list_count;
}

/* What a reader of the list would find now. */
static uint64_t list_set(void)
{
    uint64_t set = 0;
    for (uint8_t i = 0; i < list_count(); i++)
        set |= bit(world.list[i]);
    return set;
}

void world_read(void)
{
    for (uint8_t k = 0; k < world.call_count; k++) {
        struct store_call *c = &world.calls[world.order[k]];
        if (c->is_executed)
            continue;
        c->is_executed = true;
        if (c->marker) {
            if (world.link == LINK_UP)
                to_worker(ITEM_MARKER, c->marker);
            return;
        }
        c->stored = world.stored;
        c->count = list_count();
        memcpy(c->entries, world.list, c->count);
        c->mask = list_set();
        if (scenario->style == CROSSING)
            world.placeless |= (bit(world.stored) - 1) & ~c->mask;
        c->published = world.published;
        return;
    }
}

static struct user *user(void)
{
    for (int i = 0; i < DEVICES; i++)
        if (world.clients[i].conn.device.user)
            return world.clients[i].conn.device.user;
    return NULL;
}

void store_user_free(struct store_user *stored)
{
    free(stored->entries);
}

/* The worker goes on with what Redis answered. */
void world_work(void)
{
    bool was_answered = user() && user()->answer;
    judge_before_answer(&world.kept);
    answering = &world.kept;
    if (session_work(&worker, INT64_MAX / 2))
        violated("an answer was left in line");
    answering = NULL;
    if (user() && user()->answer) {
        trace("the reading waits for a marker");
    } else if (was_answered) {
        judge_after_answer(&world.kept);
        world.kept = (struct store_call){0};
    }
}

bool world_has_work(void)
{
    return world.sessions->first_answer;
}

static void answer_reading(const struct store_call *c, int error)
{
    struct store_user stored = {.entries = malloc((c->count + 1) * sizeof(struct text_span)),
                                .entry_count = c->count};
    for (uint8_t i = 0; i < c->count; i++) {
        const struct text *t = text_of(COPY_STORED, c->entries[i]);
        stored.entries[i] = (struct text_span){t->bytes, t->len};
    }
    c->fn(c->data, error, error ? NULL : &stored);
    store_user_free(&stored);
    if (error)
        return;
    world.kept = *c;
    if (scenario->is_busy)
        trace("the answer stands in line");
    else
        world_work();
}

void world_answer(int error)
{
    struct store_call *c = &world.calls[world.order[0]];
    if (!c->is_cancelled && c->marker)
        c->done(c->data, error ? -ETIMEDOUT : 0, 1);
    else if (!c->is_cancelled)
        answer_reading(c, error);
    *c = (struct store_call){0};
    memmove(world.order, world.order + 1, --world.call_count);
}

static void worker_takes_marker(uint8_t number)
{
    char text[40];
    int len = snprintf(text, sizeof(text), "marker:%d:%u", (int)getpid(), number);
    if (!markers_on_echo(worker.markers, text, (size_t)len))
        violated("a marker was not known");
    if (world_has_work() && !scenario->is_busy)
        world_work();
}

void world_store_lost(void)
{
    world.store_up = false;
    while (world.call_count)
        world_answer(-ECONNRESET);
}

void world_store_back(void)
{
    world.store_up = true;
    session_on_store_up(&worker);
}

/* ---- the subscriber link ---- */

/* A number that no subscription under way has, the least one, so that worlds that differ in their
 * past alone are the same. */
static uint8_t fresh_number(void)
{
    uint8_t n = 0;
    for (uint8_t i = 0; i < world.command_count; i++)
        if (world.commands[i].number > n)
            n = world.commands[i].number;
    for (uint8_t i = 0; i < world.item_count; i++)
        if (world.items[i].kind == ITEM_CONFIRM && world.items[i].number > n)
            n = world.items[i].number;
    return (uint8_t)(n + 1);
}

static uint8_t send_command(bool is_subscribe)
{
    uint8_t number = fresh_number();
    if (world.command_count == ON_ITS_WAY_MAX)
        violated("too many commands on their way");
    world.commands[world.command_count++] = (struct command){is_subscribe, number};
    return number;
}

static void subscribe(struct user *u)
{
    u->subscription = SUBSCRIPTION_SENT;
    u->sub_seq = send_command(true);
}

const char *subscriber_probe_channel(const struct subscriber *s)
{
    (void)s;
    return "belfry:probe";
}

void subscriber_want(struct subscriber *s, struct user *u)
{
    (void)s;
    if (u->subscription != SUBSCRIPTION_NONE)
        return;
    u->subscription = SUBSCRIPTION_WANTED;
    if (world.link != LINK_DOWN)
        subscribe(u);
}

void handover_on_link_lost(struct handover *h)
{
    (void)h;
}

void subscriber_drop(struct subscriber *s, struct user *u)
{
    (void)s;
    enum subscription was = u->subscription;
    u->subscription = SUBSCRIPTION_NONE;
    if (world.link != LINK_DOWN && (was == SUBSCRIPTION_SENT || was == SUBSCRIPTION_CONFIRMED))
        (void)send_command(false);
}

static void to_worker(enum item_kind kind, uint8_t number)
{
    uint8_t audience = 0;
    for (int i = 0; i < DEVICES; i++)
        audience |= (uint8_t)(world.clients[i].is_open << i);
    if (world.item_count == ON_ITS_WAY_MAX)
        violated("too many items on their way");
    world.items[world.item_count++] = (struct item){(uint8_t)kind, number, audience};
}

void world_publish(enum item_kind kind, unsigned number)
{
    if (kind == ITEM_MESSAGE)
        world.published |= bit(number);
    if (world.link == LINK_UP && world.is_subscribed)
        to_worker(kind, (uint8_t)number);
}

void world_redis_takes(void)
{
    struct command c = world.commands[0];
    memmove(world.commands, world.commands + 1, --world.command_count * sizeof(c));
    world.is_subscribed = c.is_subscribe;
    if (c.is_subscribe)
        to_worker(ITEM_CONFIRM, c.number);
}

void world_worker_takes(void)
{
    struct item i = world.items[0];
    struct user *u = user();
    memmove(world.items, world.items + 1, --world.item_count * sizeof(i));
    if (i.kind == ITEM_CONFIRM) {
        if (u && u->subscription == SUBSCRIPTION_SENT && u->sub_seq == i.number) {
            u->subscription = SUBSCRIPTION_CONFIRMED;
            u->sub_seq = 0;
            session_on_subscribed(&worker, u);
        }
        return;
    }
    if (i.kind == ITEM_MARKER) {
        worker_takes_marker(i.number);
        return;
    }
    if (!u || u->subscription != SUBSCRIPTION_CONFIRMED)
        return; /* as subscriber.c has it */
    if (i.kind == ITEM_MESSAGE)
        judge_heard(i.number, i.audience);
    const struct text *t = text_of(i.kind == ITEM_MESSAGE ? COPY_LIVE : COPY_PASSING, i.number);
    session_on_message(&worker, u, (struct text_span){t->bytes, t->len});
}

void world_link_lost(void)
{
    struct user *u = user();
    world.link = LINK_DOWN;
    world.is_subscribed = false;
    world.item_count = world.command_count = 0;
    if (u) {
        u->subscription = SUBSCRIPTION_WANTED;
        u->sub_seq = 0;
    }
    session_on_link_lost(&worker);
}

void world_link_back(void)
{
    struct user *u = user();
    world.link = LINK_UP;
    if (u)
        subscribe(u);
}

/* ---- devices ---- */

/* What a client remembers: the newest id, and the newest ids it was given. */
static struct resume *make_resume(struct client *c)
{
    c->seen = 0;
    if (!c->count)
        return NULL;
    struct resume *r = calloc(1, sizeof(*r));
    r->has_last_id = true;
    r->last_id = hashes[0][c->got[c->count - 1]];
    if (scenario->resuming != WITH_SEEN)
        return r;
    uint64_t named = 0;
    for (unsigned i = c->count; i-- > 0 && r->seen_count < RESUME_SEEN_MAX;)
        if (!(named & bit(c->got[i]))) {
            named |= bit(c->got[i]);
            r->seen_count++;
        }
    r->seen_count = 0;
    c->seen = named;
    for (unsigned n = MESSAGES_MAX; n-- > 0;)
        if (named & bit(n))
            r->seen[r->seen_count++] = hashes[0][n];
    return r;
}

void world_attach(int device)
{
    struct client *c = &world.clients[device];
    struct token_claims claims = {.user_id = "u", .user_id_len = 1};
    struct resume *resume = make_resume(c);
    device_init(&c->conn.device, &c->conn);
    c->is_open = c->was_open = true;
    c->is_closing = false;
    c->syncs = c->missed_left = c->waiting = 0;
    c->heard = c->may_repeat = 0;
    c->late = (bit(world.stored) - 1) & ~list_set();
    c->began = c->count;
    c->resumed_at = resume ? (int8_t)c->got[c->count - 1] : NOBODY;
    if (session_open(&worker, &c->conn.device, &claims, resume, NULL))
        violated("a device was refused");
}

void world_leave(int device)
{
    struct client *c = &world.clients[device];
    c->is_open = c->is_closing = false;
    for (uint8_t i = 0; i < world.item_count; i++)
        world.items[i].audience &= (uint8_t)~(1U << device);
    session_close(&worker, &c->conn.device);
    if (!user())
        world.shown = 0;
    if (c->conn.device.busy->held || c->conn.device.busy->resume || c->conn.device.user)
        violated("device %d left something behind", device);
}

void world_end_of_turn(void)
{
    markers_flush(worker.markers);
    for (int i = 0; i < DEVICES; i++)
        if (world.clients[i].is_closing)
            world_leave(i);
}

/* ---- from start to end ---- */

void world_init(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    index_ids();
    if (keys_init(&keys, "ws:user:{user_id}", "ws:broadcast", "notifications:{user_id}",
                  "ws:snapshot:{user_id}"))
        abort();
}

void world_start(void)
{
    static const struct scenario *texts_for;
    if (texts_for != scenario)
        memset(texts, 0, sizeof(texts));
    texts_for = scenario;
    arena_reset();
    memset(&world, 0, sizeof(world));
    opt = (struct options){
        .history_size = scenario->history ? scenario->history : LIST_MAX,
        .replay_limit = scenario->replay_limit ? scenario->replay_limit % REPLAY_NONE : LIST_MAX,
        .replay_window = INT64_C(1) << 32,
        .send_buffer_limit = scenario->held_bytes ? scenario->held_bytes : 1 << 20,
        .max_connections_per_user = 32,
    };
    start = (struct worker_start){.opt = &opt, .keys = &keys};
    worker = (struct worker){.start = &start,
                             .opt = &opt,
                             .style.with_zone = true,
                             .store = (void *)&nothing[0],
                             .subscriber = (void *)&nothing[1],
                             .loop = (void *)&nothing[2]};
    world.link = LINK_UP;
    world.store_up = true;
    for (int i = 0; i < DEVICES; i++) {
        world.clients[i].conn.worker = &worker;
        device_init(&world.clients[i].conn.device, &world.clients[i].conn);
        world.clients[i].conn.serial = (uint64_t)i;
    }
    worker.hub = world.hub = hub_new();
    worker.markers = world.markers = markers_new(&worker);
    worker.sessions = world.sessions = sessions_new(&worker);
    if (!world.hub || !world.markers || !world.sessions)
        abort();
    if (scenario->known_beyond)
        world.sessions->known_limit = (size_t)opt.history_size + scenario->known_beyond;
}

void world_stop(void)
{
    for (int i = 0; i < DEVICES; i++)
        if (world.clients[i].is_open)
            world_leave(i);
    if (world.entered)
        violated("%u connections stayed in the user table", world.entered);
    if (hub_users(world.hub))
        violated("a user without devices stayed");
    for (uint8_t k = 0; k < world.call_count; k++)
        if (!world.calls[world.order[k]].is_cancelled && !world.calls[world.order[k]].marker)
            violated("a reading goes on for nobody");
    if (world.sessions->in_flight || world.sessions->waiting_bytes ||
        world.sessions->first_answer ||
        world.sessions->refreshes_waiting || world.sessions->ready.first ||
        world.sessions->delayed.first)
        violated("readings are still counted when everybody has left");
    sessions_free(world.sessions);
    markers_free(world.markers);
    hub_free(world.hub);
    if (arena_live())
        violated("%zu blocks of memory leaked", arena_live());
}

static uint64_t hash_client(uint64_t h, const struct client *c)
{
    uint64_t last = c->count ? c->got[c->count - 1] + 1U : 0;
    uint64_t before = c->count > 1 ? c->got[c->count - 2] + 1U : 0;
    h = hash_add(h, (uint64_t)c->is_open | (uint64_t)c->was_open << 1 | (uint64_t)c->syncs << 8 |
                        (uint64_t)(uint8_t)c->resumed_at << 16 | last << 24 | before << 32 |
                        (uint64_t)(c->count > c->began) << 40 |
                        (uint64_t)(c->count > c->epoch) << 41 |
                        (uint64_t)(c->count > c->epoch + 1) << 42 |
                        (uint64_t)c->missed_left << 48 | (uint64_t)c->waiting << 56);
    h = hash_add(h, c->seen);
    h = hash_add(h, c->had);
    h = hash_add(h, c->had_before);
    h = hash_add(h, c->had_passing);
    h = hash_add(h, c->heard);
    h = hash_add(h, c->late);
    h = hash_add(h, c->gone);
    h = hash_add(h, c->told);
    h = hash_add(h, c->crossed);
    h = hash_add(h, c->limited);
    h = hash_add(h, c->withheld);
    h = hash_add(h, c->may_repeat);
    return hash_graph(h, &c->conn.device, sizeof(c->conn.device));
}

uint64_t world_hash(void)
{
    uint64_t h = 1;
    hash_begin();
    h = hash_graph(h, world.sessions, sizeof(*world.sessions));
    h = hash_graph(h, &world.markers, sizeof(world.markers));
    for (int i = 0; i < DEVICES; i++)
        h = hash_client(h, &world.clients[i]);
    for (uint8_t k = 0; k < world.call_count; k++) {
        const struct store_call *c = &world.calls[world.order[k]];
        h = hash_add(h, (uint64_t)c->is_cancelled | (uint64_t)c->is_executed << 1 |
                            (uint64_t)c->count << 8 | (uint64_t)c->stored << 16 |
                            (uint64_t)world.order[k] << 24 | (uint64_t)c->marker << 32);
        h = hash_add(h, c->published);
        h = hash_graph(h, &c->data, sizeof(c->data));
        h = hash_bytes(h, c->entries, c->count);
    }
    h = hash_add(h, (uint64_t)world.kept.count << 8 | world.kept.stored);
    h = hash_add(h, world.kept.published);
    h = hash_bytes(h, world.kept.entries, world.kept.count);
    h = hash_bytes(h, world.list, world.list_count);
    h = hash_bytes(h, world.items, world.item_count * sizeof(world.items[0]));
    h = hash_bytes(h, world.commands, world.command_count * sizeof(world.commands[0]));
    for (int p = 0; p < PRODUCERS; p++) {
        h = hash_bytes(h, &world.producers[p], sizeof(world.producers[p]));
        h = hash_add(h, world.made_by[p]);
    }
    for (unsigned i = 0; i < world.stored; i++)
        h = hash_add(h, world.overlaps[i] << 8 ^ world.tick_of[i]);
    h = hash_bytes(h, world.passing_tick, world.passing);
    h = hash_add(h, world.published);
    h = hash_add(h, world.placeless);
    h = hash_add(h, world.shown);
    h = hash_add(h, (uint64_t)world.is_subscribed | (uint64_t)world.store_up << 1 |
                        (uint64_t)world.link << 8 | (uint64_t)world.stored << 16 |
                        (uint64_t)world.passing << 24 | (uint64_t)world.ticks << 32 |
                        (uint64_t)world.call_count << 40 | (uint64_t)world.events << 48 |
                        (uint64_t)world.under_repair << 56);
    for (unsigned i = 0; i < STEP_KINDS; i++) /* other bounds are never met */
        if (scenario->max[i] && scenario->max[i] < events_max)
            h = hash_add(h, world.used[i]);
    return h;
}
