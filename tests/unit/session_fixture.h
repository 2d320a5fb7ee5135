/*
 * session_fixture.h - a worker's sessions with Redis and the connections played, so that every
 * interleaving can be had: a producer stores and publishes in separate steps; SUBSCRIBE, the
 * reading of the list and each answer happen when the test says so; links break; devices come and
 * go, and read as slowly as they like. For check_session.c and check_session_lag.c, after config.h.
 */
#ifndef BELFRY_TESTS_SESSION_FIXTURE_H
#define BELFRY_TESTS_SESSION_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "shared/log.h"
#include "workers/filter.h"
#include "workers/handover.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"

#define DEVICES 3
#define HISTORY 64
#define TEXT 200
#define QUEUE 4096

/* ---- Redis as it is played ---- */

enum item_kind { CONFIRM, MESSAGE, BROADCAST, MARKER };

struct item { /* on its way to the worker */
    enum item_kind kind;
    uint32_t seq;
    char text[TEXT];
};

struct command { /* on its way to Redis */
    bool is_subscribe;
    uint32_t seq;
};

struct store_call { /* a reading, or the publication of a marker */
    store_user_fn *fn;
    store_done_fn *done;
    void *data;
    char marker[TEXT];
    bool is_cancelled, is_executed;
    int error;
    size_t count;
    char (*entries)[TEXT]; /* as the list was when it was read */
};

static struct {
    char list[HISTORY][TEXT]; /* head first */
    size_t list_len;
    bool is_wrong_type;
    char snapshot[TEXT], acked[40];
    char read_ids[4][40];
    size_t read_count;
    bool is_subscribed, link_up, store_up;
    struct item pipe[QUEUE];
    size_t pipe_first, pipe_end;
    struct command commands[QUEUE];
    size_t commands_first, commands_end;
    struct store_call *calls[QUEUE];
    size_t calls_executed, calls_first, calls_end;
    uint32_t seq;
    unsigned stored, published_only, broadcasts;
} redis;

/* ---- the worker ---- */

struct client {
    struct conn conn;
    bool is_connected, is_closing;
    enum close_reason closed;
    char got[QUEUE][40]; /* ids of messages, in order; "FULL_SYNC" and "done" as they are */
    size_t got_count;
    char last_stored[40];
    char full_sync[600]; /* the latest */
    unsigned full_syncs;
    unsigned waiting; /* frames queued and not read yet, of a client that reads slowly */
};

/* What a slow client's queue takes; 0: nobody is slow. */
static unsigned room;
static unsigned lags;
static unsigned joined; /* frames of several messages that were sent */

static struct options opt;
static struct keys keys;
static struct worker_start start;
static struct worker worker;
static struct client clients[DEVICES];
static int64_t now_ms;

int64_t worker_now_ms(const struct worker *w)
{
    (void)w;
    return now_ms;
}

int64_t worker_wall_ms(const struct worker *w)
{
    (void)w;
    return now_ms;
}

static inline struct client *client_of(struct conn *c)
{
    return (struct client *)c;
}

static inline void take(struct client *c, const char *text, size_t len)
{
    struct message m;
    struct text_span id;
    char *to = c->got[c->got_count++];
    ck_assert_uint_lt(c->got_count, QUEUE);
    if (message_read(text, len, &m) == JSON_OK && json_string_plain(m.id, &id)) {
        snprintf(to, 40, "%.*s", (int)id.len, id.ptr);
        if (to[0] == 'm')
            memcpy(c->last_stored, to, 40);
    } else if (memmem(text, len, "FULL_SYNC", 9)) {
        snprintf(to, 40, "FULL_SYNC");
        snprintf(c->full_sync, sizeof(c->full_sync), "%.*s", (int)len, text);
        c->full_syncs++;
    } else
        snprintf(to, 40, "%.*s", len > 39 ? 39 : (int)len, text);
}

void conn_send(struct conn *c, struct frame *f)
{
    size_t len;
    joined += f->part_count > 0;
    for (uint32_t i = 0; i < f->part_count; i++)
        conn_send(c, f->parts[i]);
    if (f->part_count || client_of(c)->is_closing)
        return;
    const char *text = frame_payload(f, &len);
    take(client_of(c), text, len);
}

void conn_send_now(struct conn *c, struct frame *f)
{
    conn_send(c, f);
}

static int walk_at = DEVICES; /* the next client of the walk over connections */

void conns_walk(struct conns *s)
{
    (void)s;
    walk_at = 0;
}

struct conn *conns_walk_next(struct conns *s)
{
    (void)s;
    return walk_at < DEVICES ? &clients[walk_at++].conn : NULL;
}

bool conn_offer(struct conn *c, struct frame *f)
{
    if (room && client_of(c)->waiting >= room && !client_of(c)->is_closing) {
        lags++;
        return false;
    }
    client_of(c)->waiting++;
    conn_send(c, f);
    return true;
}

bool conn_is_drained(const struct conn *c, size_t next_bytes)
{
    (void)next_bytes;
    return ((const struct client *)c)->waiting <= room / 4;
}

bool conn_catch_up(struct conn *c, struct frame *f)
{
    if (client_of(c)->waiting > room / 2)
        return false;
    return conn_offer(c, f);
}

void conn_send_text(struct conn *c, const char *text, size_t len)
{
    if (!client_of(c)->is_closing)
        take(client_of(c), text, len);
}

void conn_close(struct conn *c, enum close_reason reason)
{
    client_of(c)->is_closing = true;
    client_of(c)->closed = reason;
}

const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES])
{
    snprintf(out, CONN_ID_BYTES, "c%llu", (unsigned long long)c->serial);
    return out;
}

bool store_is_up(const struct store *s)
{
    (void)s;
    return redis.store_up;
}

struct store_call *store_read_user(struct store *s, const char *user_id, store_user_fn *fn,
                                   void *data)
{
    (void)s;
    ck_assert_str_eq(user_id, "u");
    if (!redis.store_up)
        return NULL;
    struct store_call *c = calloc(1, sizeof(*c));
    c->fn = fn;
    c->data = data;
    ck_assert_uint_lt(redis.calls_end, QUEUE);
    return redis.calls[redis.calls_end++] = c;
}

struct store_call *store_publish(struct store *s, const char *channel, struct text_span text,
                                 store_done_fn *fn, void *data)
{
    (void)s;
    ck_assert_str_eq(channel, "belfry:probe");
    if (!redis.store_up)
        return NULL;
    struct store_call *c = calloc(1, sizeof(*c));
    c->done = fn;
    c->data = data;
    snprintf(c->marker, TEXT, "%.*s", (int)text.len, text.ptr);
    ck_assert_uint_lt(redis.calls_end, QUEUE);
    return redis.calls[redis.calls_end++] = c;
}

const char *subscriber_probe_channel(const struct subscriber *s)
{
    (void)s;
    return "belfry:probe";
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
    if (c)
        c->is_cancelled = true;
}

static inline void send_command(bool is_subscribe, uint32_t seq)
{
    ck_assert_uint_lt(redis.commands_end, QUEUE);
    redis.commands[redis.commands_end++] = (struct command){is_subscribe, seq};
}

void subscriber_want(struct subscriber *s, struct user *u)
{
    (void)s;
    if (u->subscription != SUBSCRIPTION_NONE)
        return;
    u->subscription = SUBSCRIPTION_WANTED;
    if (!redis.link_up)
        return;
    u->subscription = SUBSCRIPTION_SENT;
    u->sub_seq = ++redis.seq;
    send_command(true, u->sub_seq);
}

void handover_on_link_lost(struct handover *h)
{
    (void)h;
}

void subscriber_drop(struct subscriber *s, struct user *u)
{
    (void)s;
    if (redis.link_up && u->subscription != SUBSCRIPTION_NONE)
        send_command(false, ++redis.seq);
    u->subscription = SUBSCRIPTION_NONE;
}

/* ---- what can happen ---- */

static inline struct user *user(void)
{
    return hub_find(worker.hub, "u", 1);
}

static inline void to_pipe(enum item_kind kind, uint32_t seq, const char *text)
{
    struct item *i = &redis.pipe[redis.pipe_end++];
    ck_assert_uint_lt(redis.pipe_end, QUEUE);
    i->kind = kind;
    i->seq = seq;
    size_t len = strlen(text);
    ck_assert_uint_lt(len, TEXT);
    memcpy(i->text, text, len + 1);
}

static inline bool redis_takes_command(void)
{
    if (!redis.link_up || redis.commands_first == redis.commands_end)
        return false;
    struct command *c = &redis.commands[redis.commands_first++];
    redis.is_subscribed = c->is_subscribe;
    if (c->is_subscribe)
        to_pipe(CONFIRM, c->seq, "");
    return true;
}

static inline bool worker_takes_item(void)
{
    if (!redis.link_up || redis.pipe_first == redis.pipe_end)
        return false;
    struct item *i = &redis.pipe[redis.pipe_first++];
    struct user *u = user();
    size_t len = strlen(i->text);
    char *text = malloc(len); /* exactly, so that reading beyond is found */
    memcpy(text, i->text, len);
    if (i->kind == MARKER) {
        ck_assert(markers_on_echo(worker.markers, text, len));
        session_work(&worker, INT64_MAX / 2);
    } else if (i->kind == BROADCAST)
        session_on_broadcast(&worker, text, len);
    else if (i->kind == MESSAGE && u && u->subscription == SUBSCRIPTION_CONFIRMED)
        session_on_message(&worker, u, (struct text_span){text, len});
    else if (i->kind == CONFIRM && u && u->subscription == SUBSCRIPTION_SENT &&
             u->sub_seq == i->seq) {
        u->subscription = SUBSCRIPTION_CONFIRMED;
        session_on_subscribed(&worker, u);
    }
    free(text);
    return true;
}

static inline bool redis_reads_list(void)
{
    if (!redis.store_up || redis.calls_executed == redis.calls_end)
        return false;
    struct store_call *c = redis.calls[redis.calls_executed++];
    c->is_executed = true;
    if (c->done) {
        if (redis.link_up)
            to_pipe(MARKER, 0, c->marker);
        return true;
    }
    c->count = redis.is_wrong_type ? 0 : redis.list_len;
    c->entries = malloc((c->count + 1) * TEXT);
    memcpy(c->entries, redis.list, c->count * TEXT);
    return true;
}

void store_user_free(struct store_user *user)
{
    for (size_t i = 0; user->entries && i < HISTORY; i++)
        free((char *)(uintptr_t)user->entries[i].ptr);
    free(user->entries);
    free(user->read_ids);
}

/* What Redis answered is left to session_work(&worker, 0), which works off the least it can. */
static bool is_busy;

static inline void give_answer(struct store_call *c, int error)
{
    if (c->done) {
        if (!c->is_cancelled)
            c->done(c->data, error, 1);
        free(c);
        return;
    }
    struct store_user stored = {.entries = calloc(HISTORY, sizeof(struct text_span)),
                                .entry_count = c->count,
                                .read_ids = calloc(4, sizeof(struct text_span))};
    for (size_t i = 0; i < c->count; i++)
        stored.entries[i] = text_span_of(strdup(c->entries[i]));
    for (size_t i = 0; i < redis.read_count; i++)
        stored.read_ids[stored.read_count++] = text_span_of(redis.read_ids[i]);
    stored.snapshot = text_span_of(redis.snapshot);
    stored.acked = text_span_of(redis.acked);
    if (!c->is_cancelled)
        c->fn(c->data, error, error ? NULL : &stored);
    store_user_free(&stored);
    free(c->entries);
    free(c);
}

static inline void answer(struct store_call *c, int error)
{
    give_answer(c, error);
    if (!is_busy)
        session_work(&worker, INT64_MAX / 2);
}

static inline bool worker_takes_answer(int error)
{
    if (redis.calls_first == redis.calls_executed)
        return false;
    answer(redis.calls[redis.calls_first++], error);
    return true;
}

static inline void lose_store(void)
{
    redis.store_up = false;
    while (redis.calls_first < redis.calls_end)
        answer(redis.calls[redis.calls_first++], -ECONNRESET);
    redis.calls_executed = redis.calls_first;
}

static inline void lose_link(void)
{
    redis.link_up = redis.is_subscribed = false;
    redis.pipe_first = redis.pipe_end;
    redis.commands_first = redis.commands_end;
    if (user())
        user()->subscription = SUBSCRIPTION_WANTED;
    session_on_link_lost(&worker);
}

static inline void gain_store(void)
{
    redis.store_up = true;
    session_on_store_up(&worker);
}

static inline void gain_link(void)
{
    redis.link_up = true;
    if (user()) {
        user()->subscription = SUBSCRIPTION_NONE;
        subscriber_want(worker.subscriber, user());
    }
}

static inline void store_text(const char *text)
{
    size_t keep = redis.list_len < HISTORY - 1 ? redis.list_len : HISTORY - 1;
    memmove(redis.list[1], redis.list[0], keep * TEXT);
    snprintf(redis.list[0], TEXT, "%s", text);
    redis.list_len = keep + 1;
}

static inline void publish(const char *text)
{
    if (redis.link_up && redis.is_subscribed)
        to_pipe(MESSAGE, 0, text);
}

static inline const char *text_of(const char *prefix, unsigned n)
{
    static char text[TEXT];
    snprintf(text, sizeof(text),
             "{\"id\":\"%s%u\",\"type\":\"NOTIFICATION\",\"payload\":{\"n\":%u}}", prefix, n, n);
    return text;
}

static inline void store_next(void)
{
    store_text(text_of("m", ++redis.stored));
}

static inline void connect_client(int i, struct resume *resume)
{
    struct client *c = &clients[i];
    struct token_claims claims = {.user_id = "u", .user_id_len = 1};
    c->conn.worker = &worker;
    device_init(&c->conn.device, &c->conn);
    c->conn.serial = (uint64_t)i + 1;
    c->is_connected = true;
    c->is_closing = false;
    c->waiting = 0;
    ck_assert_int_eq(session_open(&worker, &c->conn.device, &claims, resume, NULL), 0);
}

static inline struct resume *resume_at(const char *id)
{
    struct resume *r = calloc(1, sizeof(*r));
    r->has_last_id = true;
    r->last_id = message_id_hash(id, strlen(id));
    return r;
}

static inline void come_back(int i)
{
    connect_client(i, clients[i].last_stored[0] ? resume_at(clients[i].last_stored) : NULL);
}

static inline void leave(int i)
{
    session_close(&worker, &clients[i].conn.device);
    clients[i].is_connected = false;
}

static inline void retry_now(void)
{
    struct sessions *s = worker.sessions;
    if (ev_is_active(&s->retry)) {
        ev_timer_stop(worker.loop, &s->retry);
        ev_invoke(worker.loop, &s->retry, EV_TIMER);
    }
}

/* The client reads so many frames. False when none waited. */
static inline bool read_frames(int i, unsigned count)
{
    struct client *c = &clients[i];
    bool is_any = c->waiting > 0;
    c->waiting -= count < c->waiting ? count : c->waiting;
    if (c->is_connected && c->conn.device.busy->lag)
        session_on_drained(&worker, &c->conn.device);
    return is_any;
}

/* Until nothing moves any more. */
static inline void settle(void)
{
    if (!redis.store_up)
        gain_store();
    if (!redis.link_up)
        gain_link();
    for (bool moved = true; moved;) {
        markers_flush(worker.markers);
        moved = session_work(&worker, INT64_MAX / 2);
        moved = session_relay_broadcasts(&worker) || moved;
        moved = redis_takes_command() || moved;
        moved = worker_takes_item() || moved;
        moved = redis_reads_list() || moved;
        moved = worker_takes_answer(0) || moved;
        for (int i = 0; i < DEVICES; i++)
            moved = read_frames(i, 1) || moved;
        if (!moved && ev_is_active(&((struct sessions *)worker.sessions)->retry)) {
            retry_now();
            moved = true;
        }
    }
}

/* ---- fixture ---- */

static inline void setup(void)
{
    memset(&redis, 0, sizeof(redis));
    memset(clients, 0, sizeof(clients));
    memset(&worker, 0, sizeof(worker));
    now_ms = 1700000000000;
    room = 0;
    is_busy = false;
    redis.link_up = redis.store_up = true;
    opt.history_size = HISTORY;
    opt.replay_limit = HISTORY;
    opt.replay_window = 3600000;
    opt.send_buffer_limit = 1 << 20;
    opt.max_connections_per_user = 32;
    ck_assert_int_eq(keys_init(&keys, "ws:user:{user_id}", "ws:broadcast",
                               "notifications:{user_id}", "ws:snapshot:{user_id}"), 0);
    start.opt = &opt;
    start.keys = &keys;
    ck_assert_int_eq(usertable_create(16, 1, &start.users), 0);
    worker.loop = ev_loop_new(0);
    worker.start = &start;
    worker.opt = &opt;
    worker.style.with_zone = true;
    worker.hub = hub_new();
    worker.markers = markers_new(&worker);
    worker.sessions = sessions_new(&worker);
}

static inline void teardown(void)
{
    for (int i = 0; i < DEVICES; i++)
        if (clients[i].is_connected)
            leave(i);
    ck_assert_uint_eq(hub_users(worker.hub), 0);
    ck_assert_uint_eq(usertable_users(start.users), 0);
    ck_assert_uint_eq(((struct sessions *)worker.sessions)->refreshes_waiting, 0);
    sessions_free(worker.sessions);
    markers_free(worker.markers);
    while (redis.calls_first < redis.calls_end)
        answer(redis.calls[redis.calls_first++], -ECANCELED);
    hub_free(worker.hub);
    ev_loop_destroy(worker.loop);
    usertable_free(start.users);
    keys_fini(&keys);
}

/* ---- judging ---- */

/* Every device has every stored message, in order, once; nothing else twice. */
static inline const char *judge(const struct client *c)
{
    static char text[100];
    unsigned next = 1;
    bool had_sync = false;
    for (size_t i = 0; i < c->got_count; i++) {
        const char *id = c->got[i];
        had_sync |= !strcmp(id, "FULL_SYNC");
        if (!had_sync)
            return "a message before the first FULL_SYNC";
        if (id[0] == 'm' && (unsigned)atoi(id + 1) != next++) {
            snprintf(text, sizeof(text), "got %s in place of m%u", id, next - 1);
            return text;
        }
        for (size_t j = 0; (id[0] == 'p' || id[0] == 'b') && j < i; j++)
            if (!strcmp(id, c->got[j]))
                return "a published message twice";
    }
    if (next != redis.stored + 1) {
        snprintf(text, sizeof(text), "%u of %u", next - 1, redis.stored);
        return text;
    }
    return NULL;
}

static inline size_t times(const struct client *c, const char *id)
{
    size_t n = 0;
    for (size_t i = 0; i < c->got_count; i++)
        n += !strcmp(c->got[i], id);
    return n;
}

static inline void settle_items(void)
{
    while (worker_takes_item())
        ;
}

static inline bool has_sync(const struct client *c, const char *part)
{
    return strstr(c->full_sync, part) != NULL;
}

#endif
