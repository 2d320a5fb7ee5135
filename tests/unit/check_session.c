/*
 * check_session.c - the promise itself: a device that keeps coming back with its last_id gets every
 * stored message once and in list order.
 *
 * Redis and the connections are played here, so that every interleaving can be had: a producer
 * stores and publishes in separate steps; SUBSCRIBE, the reading of the list and each answer happen
 * when the test says so; links break; devices come and go. Thousands of random walks, each checked
 * against the list. The named cases stand behind them.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "workers/filter.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"

#define DEVICES 3
#define HISTORY 64
#define TEXT 200
#define QUEUE 4096

/* ---- Redis as it is played ---- */

enum item_kind { CONFIRM, MESSAGE, BROADCAST };

struct item { /* on its way to the worker */
    enum item_kind kind;
    uint32_t seq;
    char text[TEXT];
};

struct command { /* on its way to Redis */
    bool is_subscribe;
    uint32_t seq;
};

struct store_call {
    store_user_fn *fn;
    void *data;
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
};

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

static struct client *client_of(struct conn *c)
{
    return (struct client *)c;
}

static void take(struct client *c, const char *text, size_t len)
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
    const char *text = frame_payload(f, &len);
    if (!client_of(c)->is_closing)
        take(client_of(c), text, len);
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

static void send_command(bool is_subscribe, uint32_t seq)
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

void subscriber_drop(struct subscriber *s, struct user *u)
{
    (void)s;
    if (redis.link_up && u->subscription != SUBSCRIPTION_NONE)
        send_command(false, ++redis.seq);
    u->subscription = SUBSCRIPTION_NONE;
}

/* ---- what can happen ---- */

static struct user *user(void)
{
    return hub_find(worker.hub, "u", 1);
}

static void to_pipe(enum item_kind kind, uint32_t seq, const char *text)
{
    struct item *i = &redis.pipe[redis.pipe_end++];
    ck_assert_uint_lt(redis.pipe_end, QUEUE);
    i->kind = kind;
    i->seq = seq;
    snprintf(i->text, sizeof(i->text), "%s", text);
}

static bool redis_takes_command(void)
{
    if (!redis.link_up || redis.commands_first == redis.commands_end)
        return false;
    struct command *c = &redis.commands[redis.commands_first++];
    redis.is_subscribed = c->is_subscribe;
    if (c->is_subscribe)
        to_pipe(CONFIRM, c->seq, "");
    return true;
}

static bool worker_takes_item(void)
{
    if (!redis.link_up || redis.pipe_first == redis.pipe_end)
        return false;
    struct item *i = &redis.pipe[redis.pipe_first++];
    struct user *u = user();
    size_t len = strlen(i->text);
    char *text = malloc(len); /* exactly, so that reading beyond is found */
    memcpy(text, i->text, len);
    if (i->kind == BROADCAST)
        session_on_broadcast(&worker, text, len);
    else if (i->kind == MESSAGE && u && u->subscription == SUBSCRIPTION_CONFIRMED)
        session_on_message(&worker, u, text, len);
    else if (i->kind == CONFIRM && u && u->subscription == SUBSCRIPTION_SENT &&
             u->sub_seq == i->seq) {
        u->subscription = SUBSCRIPTION_CONFIRMED;
        session_on_subscribed(&worker, u);
    }
    free(text);
    return true;
}

static bool redis_reads_list(void)
{
    if (!redis.store_up || redis.calls_executed == redis.calls_end)
        return false;
    struct store_call *c = redis.calls[redis.calls_executed++];
    c->is_executed = true;
    c->count = redis.is_wrong_type ? 0 : redis.list_len;
    c->entries = malloc((c->count + 1) * TEXT);
    memcpy(c->entries, redis.list, c->count * TEXT);
    return true;
}

static void answer(struct store_call *c, int error)
{
    struct text_span entries[HISTORY], marks[4];
    struct store_user stored = {.entries = entries, .entry_count = c->count, .read_ids = marks};
    for (size_t i = 0; i < c->count; i++)
        entries[i] = text_span_of(c->entries[i]);
    for (size_t i = 0; i < redis.read_count; i++)
        marks[stored.read_count++] = text_span_of(redis.read_ids[i]);
    stored.snapshot = text_span_of(redis.snapshot);
    stored.acked = text_span_of(redis.acked);
    if (!c->is_cancelled)
        c->fn(c->data, error, error ? NULL : &stored);
    free(c->entries);
    free(c);
}

static bool worker_takes_answer(int error)
{
    if (redis.calls_first == redis.calls_executed)
        return false;
    answer(redis.calls[redis.calls_first++], error);
    return true;
}

static void lose_store(void)
{
    redis.store_up = false;
    while (redis.calls_first < redis.calls_end)
        answer(redis.calls[redis.calls_first++], -ECONNRESET);
    redis.calls_executed = redis.calls_first;
}

static void lose_link(void)
{
    redis.link_up = redis.is_subscribed = false;
    redis.pipe_first = redis.pipe_end;
    redis.commands_first = redis.commands_end;
    if (user())
        user()->subscription = SUBSCRIPTION_WANTED;
    session_on_link_lost(&worker);
}

static void gain_store(void)
{
    redis.store_up = true;
    session_on_store_up(&worker);
}

static void gain_link(void)
{
    redis.link_up = true;
    if (user()) {
        user()->subscription = SUBSCRIPTION_NONE;
        subscriber_want(worker.subscriber, user());
    }
}

static void store_text(const char *text)
{
    size_t keep = redis.list_len < HISTORY - 1 ? redis.list_len : HISTORY - 1;
    memmove(redis.list[1], redis.list[0], keep * TEXT);
    snprintf(redis.list[0], TEXT, "%s", text);
    redis.list_len = keep + 1;
}

static void publish(const char *text)
{
    if (redis.link_up && redis.is_subscribed)
        to_pipe(MESSAGE, 0, text);
}

static const char *text_of(const char *prefix, unsigned n)
{
    static char text[TEXT];
    snprintf(text, sizeof(text),
             "{\"id\":\"%s%u\",\"type\":\"NOTIFICATION\",\"payload\":{\"n\":%u}}", prefix, n, n);
    return text;
}

static void store_next(void)
{
    store_text(text_of("m", ++redis.stored));
}

static void connect_client(int i, struct resume *resume)
{
    struct client *c = &clients[i];
    struct token_claims claims = {.user_id = "u", .user_id_len = 1};
    c->conn.worker = &worker;
    c->conn.device = (struct device){.conn = &c->conn};
    c->conn.serial = (uint64_t)i + 1;
    c->is_connected = true;
    c->is_closing = false;
    ck_assert_int_eq(session_open(&worker, &c->conn.device, &claims, resume, NULL), 0);
}

static struct resume *resume_at(const char *id)
{
    struct resume *r = calloc(1, sizeof(*r));
    r->has_last_id = true;
    r->last_id = message_id_hash(id, strlen(id));
    return r;
}

static void come_back(int i)
{
    connect_client(i, clients[i].last_stored[0] ? resume_at(clients[i].last_stored) : NULL);
}

static void leave(int i)
{
    session_close(&worker, &clients[i].conn.device);
    clients[i].is_connected = false;
}

static void retry_now(void)
{
    struct sessions *s = worker.sessions;
    if (ev_is_active(&s->retry)) {
        ev_timer_stop(worker.loop, &s->retry);
        ev_invoke(worker.loop, &s->retry, EV_TIMER);
    }
}

/* Until nothing moves any more. */
static void settle(void)
{
    if (!redis.store_up)
        gain_store();
    if (!redis.link_up)
        gain_link();
    for (bool moved = true; moved;) {
        moved = redis_takes_command();
        moved = worker_takes_item() || moved;
        moved = redis_reads_list() || moved;
        moved = worker_takes_answer(0) || moved;
        if (!moved && ev_is_active(&((struct sessions *)worker.sessions)->retry)) {
            retry_now();
            moved = true;
        }
    }
}

/* ---- fixture ---- */

static void setup(void)
{
    memset(&redis, 0, sizeof(redis));
    memset(clients, 0, sizeof(clients));
    memset(&worker, 0, sizeof(worker));
    now_ms = 1700000000000;
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
    worker.sessions = sessions_new(&worker);
}

static void teardown(void)
{
    for (int i = 0; i < DEVICES; i++)
        if (clients[i].is_connected)
            leave(i);
    ck_assert_uint_eq(hub_users(worker.hub), 0);
    ck_assert_uint_eq(usertable_users(start.users), 0);
    ck_assert_uint_eq(((struct sessions *)worker.sessions)->refreshes_waiting, 0);
    sessions_free(worker.sessions);
    while (redis.calls_first < redis.calls_end)
        answer(redis.calls[redis.calls_first++], -ECANCELED);
    hub_free(worker.hub);
    ev_loop_destroy(worker.loop);
    usertable_free(start.users);
    keys_fini(&keys);
}

/* ---- random walks ---- */

static unsigned seed;

static unsigned any(unsigned n)
{
    seed = seed * 1664525U + 1013904223U;
    return (seed >> 8) % n;
}

static char pending[TEXT]; /* stored, not published yet */

static void produce(void)
{
    if (pending[0]) {
        publish(pending);
        pending[0] = '\0';
        return;
    }
    switch (any(8)) {
    case 0:
        publish(text_of("p", ++redis.published_only));
        break;
    case 1:
        if (redis.link_up)
            to_pipe(BROADCAST, 0, text_of("b", ++redis.broadcasts));
        break;
    case 2:
        if (redis.list_len) /* a retrying producer */
            publish(redis.list[0]);
        break;
    case 3:
        store_text("{\"id\":\"broken\",");
        break;
    default:
        store_next();
        memcpy(pending, redis.list[0], TEXT);
        if (any(2)) { /* an atomic writer */
            publish(pending);
            pending[0] = '\0';
        }
    }
}

static void turn_a_link(void)
{
    if (any(2)) {
        if (redis.link_up)
            lose_link();
        else
            gain_link();
    } else if (redis.store_up)
        lose_store();
    else
        gain_store();
}

static void refresh(int i)
{
    if (clients[i].is_connected)
        (void)session_refresh(&worker, &clients[i].conn.device, "FULL_SYNC",
                              frame_text(FRAME_REPLY, "done", 4));
}

static void step(void)
{
    int i = (int)any(DEVICES);
    switch (any(24)) {
    case 0:
        if (any(3) == 0)
            turn_a_link();
        break;
    case 1:
    case 2:
        if (clients[i].is_connected)
            leave(i);
        else
            come_back(i);
        break;
    case 3:
        refresh(i);
        break;
    case 4:
        retry_now();
        break;
    case 5:
    case 6:
    case 7:
    case 8:
        if (redis.stored < HISTORY - 20 && redis.list_len < HISTORY - 2)
            produce();
        break;
    case 9:
    case 10:
    case 11:
        redis_reads_list();
        break;
    case 12:
    case 13:
    case 14:
        worker_takes_answer(any(10) ? 0 : -EIO);
        break;
    case 15:
    case 16:
    case 17:
        redis_takes_command();
        break;
    default:
        worker_takes_item();
    }
}

/* Every device has every stored message, in order, once; nothing else twice. */
static const char *judge(const struct client *c)
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

static void walk(unsigned number, int steps)
{
    setup();
    seed = number;
    pending[0] = '\0';
    while (steps--)
        step();
    if (pending[0])
        publish(pending);
    for (int i = 0; i < DEVICES; i++)
        if (!clients[i].is_connected)
            come_back(i);
    settle();
    for (int i = 0; i < DEVICES; i++) {
        const char *wrong = judge(&clients[i]);
        if (wrong)
            ck_abort_msg("walk %u, device %d: %s", number, i, wrong);
        if (clients[i].conn.device.state != DEVICE_LIVE)
            ck_abort_msg("walk %u, device %d is not live", number, i);
    }
    teardown();
}

START_TEST(random_walks_lose_nothing_repeat_nothing_and_keep_the_order)
{
    unsigned base = (unsigned)_i * 10000;
    for (unsigned n = 1; n <= 1000; n++)
        walk(base + n, 40 + (int)(n % 300));
}
END_TEST

/* ---- named cases ---- */

static size_t times(const struct client *c, const char *id)
{
    size_t n = 0;
    for (size_t i = 0; i < c->got_count; i++)
        n += !strcmp(c->got[i], id);
    return n;
}

static void settle_items(void)
{
    while (worker_takes_item())
        ;
}

static bool has_sync(const struct client *c, const char *part)
{
    return strstr(c->full_sync, part) != NULL;
}

START_TEST(full_sync_says_how_the_device_stands)
{
    snprintf(redis.snapshot, TEXT, "{\"total_balance\":7}");
    snprintf(redis.read_ids[redis.read_count++], 40, "m2");
    for (int i = 0; i < 3; i++)
        store_next();
    store_text("not JSON");
    connect_client(0, resume_at("m1"));
    settle();
    ck_assert(has_sync(&clients[0], "\"user_id\":\"u\",\"payload\":{\"total_balance\":7},"
                                    "\"sync\":{\"recovered\":true,\"missed\":2,\"unread\":2,"
                                    "\"last_id\":\"m3\",\"connection_id\":\"c1\"}}"));
    ck_assert_ptr_eq(strstr(clients[0].full_sync, "{\"type\":\"FULL_SYNC\",\"timestamp\":\""),
                     clients[0].full_sync);
    ck_assert_str_eq(clients[0].got[1], "m2");
    ck_assert_str_eq(clients[0].got[2], "m3");
    ck_assert_uint_eq(clients[0].got_count, 3);
}
END_TEST

START_TEST(an_empty_user_has_an_empty_full_sync)
{
    snprintf(redis.snapshot, TEXT, "[1]"); /* not an object */
    connect_client(0, NULL);
    settle();
    ck_assert(has_sync(&clients[0], "\"payload\":{},\"sync\":{\"recovered\":true,\"missed\":0,"
                                    "\"unread\":0,\"last_id\":null,"));
}
END_TEST

START_TEST(an_unknown_last_id_is_told_and_the_newest_are_sent)
{
    opt.replay_limit = 2;
    for (int i = 0; i < 5; i++)
        store_next();
    connect_client(0, resume_at("gone"));
    settle();
    ck_assert(has_sync(&clients[0], "\"recovered\":false,\"missed\":2,"));
    ck_assert_str_eq(clients[0].got[1], "m4");
    ck_assert_uint_eq(clients[0].got_count, 3);
}
END_TEST

START_TEST(an_acked_position_holds_where_no_last_id_is_given)
{
    opt.replay_limit = 1;
    for (int i = 0; i < 5; i++)
        store_next();
    snprintf(redis.acked, sizeof(redis.acked), "m2");
    connect_client(0, NULL);
    settle();
    ck_assert(has_sync(&clients[0], "\"recovered\":true,\"missed\":3,"));
}
END_TEST

START_TEST(missed_counts_what_the_filter_lets_through)
{
    struct filter *filter = NULL;
    struct token_claims claims = {.user_id = "u", .user_id_len = 1};
    struct client *c = &clients[0];
    ck_assert_int_eq(filter_subscribe(&filter, text_span_of("budget_alert")), 0);
    store_next();
    store_text("{\"id\":\"x\",\"type\":\"BUDGET_ALERT\"}");
    c->conn.worker = &worker;
    c->conn.device.conn = &c->conn;
    c->is_connected = true;
    ck_assert_int_eq(session_open(&worker, &c->conn.device, &claims, NULL, filter), 0);
    settle();
    ck_assert(has_sync(c, "\"missed\":1,\"unread\":2,"));
    publish(text_of("p", 1));
    publish("{\"id\":\"y\",\"type\":\"Budget_Alert\"}");
    settle();
    ck_assert_uint_eq(c->got_count, 3);
    ck_assert_str_eq(c->got[1], "x");
    ck_assert_str_eq(c->got[2], "y");
}
END_TEST

START_TEST(the_live_copy_of_a_message_read_from_the_list_is_not_sent_again)
{
    connect_client(0, NULL);
    settle();
    store_next();
    connect_client(1, NULL); /* its reading has m1, whose live copy is still to come */
    settle();
    ck_assert_uint_eq(times(&clients[0], "m1"), 1); /* the live device was told from the list */
    publish(redis.list[0]);
    settle();
    ck_assert_uint_eq(times(&clients[0], "m1"), 1);
    ck_assert_uint_eq(times(&clients[1], "m1"), 1);
}
END_TEST

START_TEST(what_came_while_the_link_was_lost_is_repaired_without_a_reconnect)
{
    connect_client(0, NULL);
    settle();
    store_next();
    publish(redis.list[0]);
    settle();
    lose_link();
    store_next();
    publish(redis.list[0]); /* nobody hears it */
    gain_link();
    redis_takes_command();
    worker_takes_item(); /* confirmed: the list is asked for */
    store_next();
    publish(redis.list[0]);
    worker_takes_item(); /* m3 comes live before the list has been read: it must not overtake m2 */
    ck_assert_uint_eq(times(&clients[0], "m3"), 0);
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
    ck_assert_uint_eq(clients[0].full_syncs, 1);
}
END_TEST

START_TEST(repair_after_more_live_messages_than_are_remembered_repeats_nothing)
{
    connect_client(0, NULL);
    settle();
    for (int i = 0; i < 4; i++) {
        if (i == 3)
            lose_link();
        char text[TEXT]; /* three of a quarter of an hour ago, one of now */
        snprintf(text, sizeof(text), "{\"id\":\"m%u\",\"timestamp\":\"2023-11-14T22:%s:00Z\"}",
                 ++redis.stored, i == 3 ? "13" : "00");
        store_text(text);
        publish(text);
        settle_items();
        for (unsigned p = 0; i == 2 && p < 300; p++) {
            publish(text_of("p", p));
            settle_items();
        }
    }
    ck_assert(recent_has_forgotten(user()->recent));
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
    ck_assert(!recent_has_forgotten(user()->recent));
}
END_TEST

START_TEST(other_devices_hear_which_notifications_were_read_and_no_filter_stops_it)
{
    const char *text = "{\"type\":\"notifications_marked_read\",\"connection_id\":\"c1\"}";
    connect_client(0, NULL);
    connect_client(1, NULL);
    settle();
    ck_assert_int_eq(filter_subscribe(&clients[1].conn.device.filter, text_span_of("X")), 0);
    publish(text);
    publish(text);
    settle();
    ck_assert_uint_eq(clients[0].got_count, 1);
    ck_assert_uint_eq(clients[1].got_count, 3); /* not remembered: twice is twice */
}
END_TEST

START_TEST(a_refresh_brings_full_sync_and_then_its_completion)
{
    store_next();
    connect_client(0, NULL);
    refresh(0); /* while attaching */
    settle();
    refresh(0);
    settle();
    const char *expected[] = {"FULL_SYNC", "m1", "FULL_SYNC", "done", "FULL_SYNC", "done"};
    ck_assert_uint_eq(clients[0].got_count, 6);
    for (int i = 0; i < 6; i++)
        ck_assert_str_eq(clients[0].got[i], expected[i]);
    ck_assert(has_sync(&clients[0], "\"missed\":0,"));
    lose_store();
    ck_assert_int_eq(session_refresh(&worker, &clients[0].conn.device, "FULL_SYNC",
                                     frame_text(FRAME_REPLY, "done", 4)), -EAGAIN);
}
END_TEST

START_TEST(a_device_may_leave_with_a_reading_and_a_refresh_under_way)
{
    connect_client(0, NULL);
    redis_takes_command();
    worker_takes_item();
    redis_reads_list();
    leave(0);
    settle();
    connect_client(0, NULL);
    settle();
    refresh(0);
    redis_reads_list();
    leave(0);
    settle();
    ck_assert_uint_eq(clients[0].got_count, 1);
}
END_TEST

START_TEST(a_flood_while_attaching_is_bounded_and_what_was_stored_still_comes_in_order)
{
    connect_client(0, NULL);
    redis_takes_command();
    worker_takes_item();
    redis_reads_list(); /* empty */
    for (int i = 0; i < 3; i++) {
        store_next();
        publish(redis.list[0]);
        worker_takes_item();
    }
    for (unsigned i = 0; i <= HELD_MAX_FRAMES; i++) {
        publish(text_of("p", i));
        worker_takes_item();
    }
    ck_assert_uint_le(clients[0].conn.device.held->frames, HELD_MAX_FRAMES);
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
    ck_assert_int_eq(clients[0].conn.device.state, DEVICE_LIVE);
}
END_TEST

START_TEST(a_flood_while_under_repair_loses_nothing_stored)
{
    connect_client(0, NULL);
    connect_client(1, NULL);
    settle();
    lose_link();
    store_next();
    gain_link();
    redis_takes_command();
    worker_takes_item();
    redis_reads_list();
    store_next();
    publish(redis.list[0]);
    worker_takes_item();
    for (unsigned i = 0; i <= HELD_MAX_FRAMES; i++) {
        publish(text_of("p", i));
        worker_takes_item();
    }
    settle();
    for (int i = 0; i < 2; i++)
        ck_assert_ptr_null(judge(&clients[i]));
}
END_TEST

START_TEST(a_user_has_at_most_the_connections_that_are_allowed)
{
    struct token_claims claims = {.user_id = "u", .user_id_len = 1};
    struct device d = {.conn = &clients[1].conn};
    opt.max_connections_per_user = 1;
    connect_client(0, NULL);
    ck_assert_int_eq(session_open(&worker, &d, &claims, resume_at("m1"), NULL), -EDQUOT);
    session_close(&worker, &d);
    ck_assert_uint_eq(user()->device_count, 1);
}
END_TEST

START_TEST(a_list_that_is_unreadable_for_a_while_is_tried_again)
{
    store_next();
    connect_client(0, NULL);
    redis_takes_command();
    worker_takes_item();
    for (int i = 0; i < 5; i++) {
        ck_assert(redis_reads_list());
        ck_assert(worker_takes_answer(-EIO));
        ck_assert(!redis_reads_list()); /* not at once */
        retry_now();
    }
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
}
END_TEST

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    Suite *s = suite_create("session");
    TCase *walks = tcase_create("walks");
    tcase_set_timeout(walks, 120);
    tcase_add_loop_test(walks, random_walks_lose_nothing_repeat_nothing_and_keep_the_order, 0, 4);
    suite_add_tcase(s, walks);
    TCase *t = tcase_create("cases");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, full_sync_says_how_the_device_stands);
    tcase_add_test(t, an_empty_user_has_an_empty_full_sync);
    tcase_add_test(t, an_unknown_last_id_is_told_and_the_newest_are_sent);
    tcase_add_test(t, an_acked_position_holds_where_no_last_id_is_given);
    tcase_add_test(t, missed_counts_what_the_filter_lets_through);
    tcase_add_test(t, the_live_copy_of_a_message_read_from_the_list_is_not_sent_again);
    tcase_add_test(t, what_came_while_the_link_was_lost_is_repaired_without_a_reconnect);
    tcase_add_test(t, repair_after_more_live_messages_than_are_remembered_repeats_nothing);
    tcase_add_test(t, other_devices_hear_which_notifications_were_read_and_no_filter_stops_it);
    tcase_add_test(t, a_refresh_brings_full_sync_and_then_its_completion);
    tcase_add_test(t, a_device_may_leave_with_a_reading_and_a_refresh_under_way);
    tcase_add_test(t, a_flood_while_attaching_is_bounded_and_what_was_stored_still_comes_in_order);
    tcase_add_test(t, a_flood_while_under_repair_loses_nothing_stored);
    tcase_add_test(t, a_user_has_at_most_the_connections_that_are_allowed);
    tcase_add_test(t, a_list_that_is_unreadable_for_a_while_is_tried_again);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
