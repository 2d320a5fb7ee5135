/*
 * check_session.c - the promise itself: a device that keeps coming back with its last_id gets every
 * stored message once and in list order.
 *
 * Thousands of random walks, each checked against the list. The named cases stand behind them.
 */
#include "config.h"

#include "tests/unit/session_fixture.h"

#include "workers/session_handover.h"

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
    markers_flush(worker.markers);
    if (room && any(6) == 0)
        read_frames(i, any(room + 1));
    if (any(4) == 0)
        session_relay_broadcasts(&worker);
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

static void walk(unsigned number, int steps, unsigned slow_room)
{
    setup();
    room = slow_room;
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
        walk(base + n, 40 + (int)(n % 300), 0);
}
END_TEST

START_TEST(random_walks_of_slow_readers_lose_nothing_repeat_nothing_and_keep_the_order)
{
    unsigned base = (unsigned)_i * 10000;
    lags = 0;
    for (unsigned n = 1; n <= 1500; n++)
        walk(base + n, 100 + (int)(n % 500), 1 + n % 6);
    ck_assert_uint_gt(lags, 1000);
}
END_TEST

/* ---- named cases ---- */

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
    device_init(&c->conn.device, &c->conn);
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
    lose_link();
    settle(); /* and once more, with what is known now */
    ck_assert_ptr_null(judge(&clients[0]));
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
    ck_assert_uint_le(clients[0].conn.device.busy->held->frames, HELD_MAX_FRAMES);
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

/* A device that is to get nothing of the list, which may be ahead of the link: it waits. */
static void wait_for_marker(void)
{
    opt.replay_limit = 0;
    store_next();
    connect_client(0, NULL);
    redis_takes_command();
    worker_takes_item();
    redis_reads_list();
    worker_takes_answer(0);
    ck_assert_uint_eq(clients[0].full_syncs, 0);
    markers_flush(worker.markers);
}

START_TEST(a_list_that_may_be_ahead_of_the_link_waits_for_a_marker)
{
    wait_for_marker();
    publish(redis.list[0]); /* before the marker: it is not left out, for it was heard */
    ck_assert(redis_reads_list());
    worker_takes_item();
    ck_assert_uint_eq(clients[0].full_syncs, 0);
    worker_takes_item();
    ck_assert(has_sync(&clients[0], "\"missed\":1,"));
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
}
END_TEST

START_TEST(what_was_left_out_comes_live_though_another_device_was_given_it)
{
    wait_for_marker();
    settle();
    ck_assert(has_sync(&clients[0], "\"missed\":0,"));
    connect_client(1, resume_at("gone"));
    opt.replay_limit = HISTORY;
    settle();
    ck_assert_uint_eq(times(&clients[1], "m1"), 1);
    ck_assert_uint_eq(times(&clients[0], "m1"), 0);
    publish(redis.list[0]);
    publish(redis.list[0]);
    settle();
    ck_assert_uint_eq(times(&clients[1], "m1"), 1);
    ck_assert_uint_eq(times(&clients[0], "m1"), 1);
}
END_TEST

START_TEST(a_redis_that_refuses_markers_is_served_without)
{
    wait_for_marker();
    redis_reads_list();
    worker_takes_answer(-EIO);
    ck_assert_uint_eq(clients[0].full_syncs, 1);
}
END_TEST

START_TEST(a_device_that_waits_for_a_marker_may_leave)
{
    wait_for_marker();
    leave(0);
    connect_client(1, NULL);
    settle();
    ck_assert_uint_eq(clients[0].full_syncs, 0);
    ck_assert_uint_eq(clients[1].full_syncs, 1);
}
END_TEST

START_TEST(a_marker_that_is_lost_with_a_link_hangs_nobody)
{
    for (int i = 0; i < 2; i++) {
        wait_for_marker();
        redis_reads_list();
        if (i)
            lose_link();
        else
            lose_store();
        settle();
        ck_assert_uint_eq(clients[0].full_syncs, 1);
        leave(0);
        clients[0].full_syncs = 0;
    }
}
END_TEST

/* One device is live, another attaches, and their user's list, m1 to m3, stands in line. */
static void leave_in_line(void)
{
    store_next();
    connect_client(0, NULL);
    settle();
    store_next();
    store_next();
    connect_client(1, NULL);
    redis_reads_list();
    is_busy = true;
    worker_takes_answer(0);
    ck_assert_uint_eq(clients[1].full_syncs, 0);
}

START_TEST(what_comes_live_while_a_list_stands_in_line_comes_behind_it_and_once)
{
    static const char *const expected[] = {"FULL_SYNC", "m1", "m2", "m3", "m4"};
    leave_in_line();
    publish(text_of("m", 2));
    publish(text_of("m", 3));
    store_next();
    publish(text_of("m", 4));
    while (worker_takes_item())
        ;
    ck_assert_uint_eq(clients[1].got_count, 0);
    settle();
    for (int c = 0; c < 2; c++) {
        ck_assert_uint_eq(clients[c].got_count, 5);
        for (size_t i = 0; i < 5; i++)
            ck_assert_str_eq(clients[c].got[i], expected[i]);
    }
}
END_TEST

START_TEST(a_list_in_line_may_lose_its_device_its_user_or_its_link)
{
    leave_in_line();
    leave(1);
    connect_client(2, NULL); /* for this one it is too old */
    settle();
    ck_assert_uint_eq(clients[1].full_syncs, 0);
    ck_assert_uint_eq(clients[2].full_syncs, 1);
    connect_client(1, NULL);
    redis_reads_list();
    worker_takes_answer(0);
    lose_link();
    settle();
    ck_assert_uint_eq(clients[1].full_syncs, 1);
    leave(1);
    connect_client(1, NULL);
    redis_reads_list();
    worker_takes_answer(0);
    for (int i = 0; i < DEVICES; i++)
        leave(i);
    ck_assert_ptr_null(user());
    ck_assert(!session_work(&worker, INT64_MAX / 2));
}
END_TEST

START_TEST(a_refresh_in_line_may_lose_its_device)
{
    connect_client(0, NULL);
    settle();
    is_busy = true;
    ck_assert_int_eq(session_refresh(&worker, &clients[0].conn.device, "FULL_SYNC",
                                     frame_text(FRAME_REPLY, "done", 4)), 0);
    redis_reads_list();
    worker_takes_answer(0);
    ck_assert_uint_eq(clients[0].full_syncs, 1);
    leave(0);
    ck_assert(!session_work(&worker, INT64_MAX / 2));
    ck_assert_uint_eq(clients[0].full_syncs, 1);
}
END_TEST

/* m1 to m3 within one moment, of which the list keeps two. */
START_TEST(what_left_the_list_while_the_device_attached_comes_before_it)
{
    opt.history_size = 2;
    connect_client(0, NULL);
    redis_takes_command();
    worker_takes_item();
    while (redis.stored < 3) {
        char text[TEXT];
        snprintf(text, sizeof(text), "{\"id\":\"m%u\",\"timestamp\":\"2023-11-14T22:13:20Z\"}",
                 ++redis.stored);
        store_text(text);
        publish(text);
    }
    redis.list_len = 2;
    redis_reads_list();
    store_next(); /* since the list was read */
    publish(redis.list[0]);
    settle();
    ck_assert(has_sync(&clients[0], "\"missed\":3,"));
    ck_assert_ptr_null(judge(&clients[0]));
}
END_TEST

START_TEST(a_gap_that_repair_cannot_fill_is_told)
{
    store_next();
    connect_client(0, NULL);
    settle();
    lose_link();
    redis.list_len = 0; /* Redis lost it */
    store_next();
    gain_link();
    settle();
    ck_assert_uint_eq(clients[0].full_syncs, 2);
    ck_assert(has_sync(&clients[0], "\"recovered\":false,\"missed\":1,"));
    ck_assert_ptr_null(judge(&clients[0]));
    lose_link(); /* nothing is missing now */
    store_next();
    settle();
    ck_assert_uint_eq(clients[0].full_syncs, 2);
    ck_assert_ptr_null(judge(&clients[0]));
}
END_TEST

START_TEST(a_user_has_at_most_the_connections_that_are_allowed)
{
    struct token_claims claims = {.user_id = "u", .user_id_len = 1};
    struct device d;
    device_init(&d, &clients[1].conn);
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

static void broadcast(unsigned number)
{
    char text[TEXT];
    snprintf(text, TEXT, "%s", text_of("b", number));
    session_on_broadcast(&worker, text, strlen(text));
}

static void expect_got(int i, const char *const *ids, size_t count)
{
    ck_assert_uint_eq(clients[i].got_count, count);
    for (size_t k = 0; k < count; k++)
        ck_assert_str_eq(clients[i].got[k], ids[k]);
}

/* Three devices: one live, one with a filter, one attaching. */
START_TEST(broadcasts_that_come_together_reach_every_device_in_order)
{
    static const char *const ids[] = {"FULL_SYNC", "b1", "b2", "b3"};
    for (int i = 0; i < 2; i++)
        connect_client(i, NULL);
    settle();
    ck_assert_int_eq(filter_parse(&clients[1].conn.device.filter, "OTHER"), 0);
    connect_client(2, NULL);
    for (int i = 0; i < 3; i++)
        clients[i].conn.state = CONN_OPEN;
    joined = 0;
    broadcast(1);
    session_on_broadcast(&worker, "no JSON", 7);
    for (unsigned i = 1; i <= 3; i++)
        broadcast(i);
    session_relay_broadcasts(&worker);
    broadcast(3);
    session_relay_broadcasts(&worker);
    ck_assert_uint_eq(joined, 1);
    settle();
    for (int i = 0; i < 3; i++)
        expect_got(i, ids, i == 1 ? 1 : 4);
}
END_TEST

/* A walk over the devices has stopped between two of them. What came before a message is before it
 * for either; who comes now gets nothing of what came before; a walk's rest is given once. */
START_TEST(a_walk_that_pauses_keeps_the_order_of_every_device)
{
    static const char *const ids[] = {"FULL_SYNC", "b1", "b2", "m1", "b3"};
    static const char *const late[] = {"FULL_SYNC", "m1", "b3"};
    connect_client(0, NULL);
    connect_client(1, NULL);
    settle();
    for (int i = 0; i < 3; i++)
        clients[i].conn.state = CONN_OPEN;
    struct sessions *s = worker.sessions;
    broadcast(1);
    s->broadcasts.is_walking = true;
    s->broadcasts.walked_to = s->broadcasts.newest;
    conns_walk(worker.conns);
    session_settle_device(s, &conns_walk_next(worker.conns)->device);
    ck_assert_str_eq(clients[0].got[clients[0].got_count - 1], "b1");
    ck_assert_uint_eq(clients[1].got_count, 1);
    broadcast(2);
    connect_client(2, NULL);
    const char *text = text_of("m", 1);
    session_on_message(&worker, user(), text_span_of(text));
    broadcast(3);
    ck_assert(!session_relay_broadcasts(&worker));
    settle();
    expect_got(0, ids, 5);
    expect_got(1, ids, 5);
    expect_got(2, late, 3);
    ck_assert_uint_eq(s->broadcasts.count, 0);
    ck_assert_uint_eq(s->broadcasts.bytes, 0);
}
END_TEST

/* More than is kept: the walk under way ends first, whatever time that takes. */
START_TEST(no_more_broadcasts_wait_than_may)
{
    const struct sessions *s = worker.sessions;
    connect_client(0, NULL);
    settle();
    for (unsigned i = 1; i <= 3 * SESSION_BROADCASTS_MAX; i++) {
        broadcast(i);
        ck_assert_uint_le(s->broadcasts.count, SESSION_BROADCASTS_MAX);
    }
    session_finish_broadcasts(&worker);
    ck_assert_uint_eq(clients[0].got_count, 1 + 3 * SESSION_BROADCASTS_MAX);
    ck_assert_uint_eq(s->broadcasts.count, 0);
}
END_TEST

static struct text_buf saved_recent;

static void save_recent(const char *listed)
{
    struct recent *r = NULL;
    ck_assert_int_eq(recent_add(&r, HISTORY, message_id_hash(listed, strlen(listed)),
                                RECENT_LISTED, now_ms), 0);
    pack_u64(&saved_recent, 0);
    size_t begun = pack_begin(&saved_recent);
    recent_save(r, false, &saved_recent);
    pack_end(&saved_recent, begun);
    recent_free(r);
}

static void nothing(void *data)
{
    (void)data;
}

/* The worker that a device comes from had read m1 from the list, whose live copy comes here. Other
 * devices of the user are here already, and have not got it. */
START_TEST(the_live_copy_of_what_a_device_was_given_before_it_moved_is_not_sent_again)
{
    connect_client(0, NULL);
    settle();
    store_next();
    save_recent("m1");
    struct text_span saved = {saved_recent.data, saved_recent.len};
    struct expected *e = session_expect(&worker, text_span_of("u"), nothing, NULL);
    ck_assert(session_expected_is_heard(e));
    ck_assert_int_eq(session_expected_recent(e, saved), 0);
    struct client *moved = &clients[1];
    struct handover_device state = {.device_state = DEVICE_LIVE};
    moved->conn.worker = &worker;
    moved->conn.serial = 2;
    moved->is_connected = true;
    device_init(&moved->conn.device, &moved->conn);
    ck_assert_int_eq(session_adopt(e, &moved->conn.device, &state), 0);
    ck_assert(!session_expected_marked(e));
    ck_assert(session_expected_given(e, true));
    publish(redis.list[0]);
    worker_takes_item(); /* before the list is read */
    settle();
    ck_assert_uint_eq(times(&clients[0], "m1"), 1);
    ck_assert_uint_eq(times(moved, "m1"), 0);
    store_next();
    publish(redis.list[0]);
    settle();
    ck_assert_uint_eq(times(moved, "m2"), 1);
    text_buf_free(&saved_recent);
}
END_TEST

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    Suite *s = suite_create("session");
    TCase *walks = tcase_create("walks");
    tcase_set_timeout(walks, 120);
    tcase_add_loop_test(
        walks, random_walks_of_slow_readers_lose_nothing_repeat_nothing_and_keep_the_order, 0, 4);
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
    tcase_add_test(t, a_list_that_may_be_ahead_of_the_link_waits_for_a_marker);
    tcase_add_test(t, what_was_left_out_comes_live_though_another_device_was_given_it);
    tcase_add_test(t, a_redis_that_refuses_markers_is_served_without);
    tcase_add_test(t, a_device_that_waits_for_a_marker_may_leave);
    tcase_add_test(t, a_marker_that_is_lost_with_a_link_hangs_nobody);
    tcase_add_test(t, what_comes_live_while_a_list_stands_in_line_comes_behind_it_and_once);
    tcase_add_test(t, a_list_in_line_may_lose_its_device_its_user_or_its_link);
    tcase_add_test(t, a_refresh_in_line_may_lose_its_device);
    tcase_add_test(t, what_left_the_list_while_the_device_attached_comes_before_it);
    tcase_add_test(t, a_gap_that_repair_cannot_fill_is_told);
    tcase_add_test(t, a_user_has_at_most_the_connections_that_are_allowed);
    tcase_add_test(t, a_list_that_is_unreadable_for_a_while_is_tried_again);
    tcase_add_test(t,
                   the_live_copy_of_what_a_device_was_given_before_it_moved_is_not_sent_again);
    tcase_add_test(t, broadcasts_that_come_together_reach_every_device_in_order);
    tcase_add_test(t, a_walk_that_pauses_keeps_the_order_of_every_device);
    tcase_add_test(t, no_more_broadcasts_wait_than_may);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
