/*
 * check_handover.c - a giver and a taker whose other side the test plays: another version, bytes
 * that are none, and an end in the middle. Redis is away throughout; how it goes with Redis is
 * tests/e2e/test_handover.py.
 */
#include "config.h"

#include "tests/unit/redis_server.h"

#include "shared/inquiry.h"
#include "shared/ipc.h"
#include "workers/conn.h"
#include "workers/handover_parts.h"
#include "workers/hub.h"
#include "workers/inquest.h"
#include "workers/session.h"
#include "workers/store.h"
#include "workers/subscriber.h"

static struct redis_server server;
static struct usertable *users;
static struct counters counters;
static struct handover_link *link_; /* the test's end */
static unsigned records[HANDOVER_SHARED + 1], ends;
static int client; /* the test's end of the connection that moves; -1: none */

static bool on_record(void *data, uint32_t type, struct text_span body, int fd)
{
    (void)data, (void)body;
    ck_assert_int_eq(fd, -1);
    ck_assert_uint_le(type, HANDOVER_SHARED);
    records[type]++;
    return true;
}

static void on_end(void *data, const char *why)
{
    (void)data, (void)why;
    ends++;
}

static const struct handover_link_owner test_owner = {on_record, on_end};

/* The loop of worker.c: a turn has its time for reading, and at its end connections are written to
 * and freed. */
static void on_turn_begin(struct ev_loop *loop, struct ev_check *c, int events)
{
    (void)loop, (void)c, (void)events;
    conns_begin_turn(unit_worker.conns, clock_mono_us());
}

static void on_turn_end(struct ev_loop *loop, struct ev_prepare *p, int events)
{
    (void)loop, (void)p, (void)events;
    conns_flush(unit_worker.conns, true);
}

static struct ev_check turn_begin;
static struct ev_prepare turn_end;

static void setup(void)
{
    unit_setup();
    redis_prepare(&server);
    unit_use(&server);
    unit_opt.max_message_size = 1000;
    unit_opt.max_header_size = 1000;
    unit_opt.send_buffer_limit = 100000;
    unit_opt.history_size = 100;
    unit_opt.ping_interval = unit_opt.pong_timeout = 60000;
    ck_assert_int_eq(usertable_create(16, 1, &users), 0);
    unit_start.users = users;
    ck_assert_int_eq(counters_create(&counters, 2), 0);
    unit_start.counters = &counters;
    unit_worker.epoll_fd = -1;
    unit_worker.hub = hub_new();
    unit_worker.conns = conns_new(&unit_worker);
    unit_worker.store = store_new(&unit_worker);
    unit_worker.subscriber = subscriber_new(&unit_worker);
    unit_worker.sessions = sessions_new(&unit_worker);
    unit_worker.handover = handover_new(&unit_worker);
    unit_worker.inquest = inquest_new(&unit_worker);
    ev_check_init(&turn_begin, on_turn_begin);
    ev_set_priority(&turn_begin, EV_MAXPRI);
    ev_check_start(unit_worker.loop, &turn_begin);
    ev_prepare_init(&turn_end, on_turn_end);
    ev_prepare_start(unit_worker.loop, &turn_end);
    memset(records, 0, sizeof(records));
    ends = 0;
    link_ = NULL;
    client = -1;
}

static void teardown(void)
{
    handover_free(unit_worker.handover);
    unit_worker.handover = NULL;
    inquest_free(unit_worker.inquest);
    unit_worker.inquest = NULL;
    handover_link_free(link_);
    conns_free(unit_worker.conns);
    sessions_free(unit_worker.sessions);
    subscriber_free(unit_worker.subscriber);
    store_free(unit_worker.store);
    hub_free(unit_worker.hub);
    ev_check_stop(unit_worker.loop, &turn_begin);
    ev_prepare_stop(unit_worker.loop, &turn_end);
    if (client >= 0)
        close(client);
    usertable_free(users);
    counters_destroy(&counters);
    redis_remove(&server);
    unit_teardown();
}

/* A taker, whose giver the test is. */
static void begin_taking(void)
{
    int ends_[2];
    ck_assert_int_eq(ipc_stream_pair(ends_), 0);
    handover_take(unit_worker.handover, ends_[0]);
    link_ = handover_link_new(unit_worker.loop, ends_[1], &test_owner, NULL);
    unit_run_until(records[HANDOVER_HELLO] == 1); /* although Redis is away */
}

static void say(enum handover_record type, struct text_buf *body, int fd)
{
    ck_assert(!body->failed);
    ck_assert_int_eq(handover_link_send(link_, type, body->data, body->len, fd), 0);
    handover_link_flush(link_);
    text_buf_reset(body);
}

/* The server's end of a new connection. */
static int connection(void)
{
    int fds[2];
    if (client >= 0)
        close(client);
    ck_assert_int_eq(ipc_stream_pair(fds), 0);
    client = fds[0];
    return fds[1];
}

/* What came to the client until now; -1: its connection ended. */
static int heard(unsigned char *bytes, size_t cap)
{
    ssize_t n = recv(client, bytes, cap, MSG_DONTWAIT);
    return n > 0 ? (int)n : n == 0 ? -1 : 0;
}

/* Waits for the first so many bytes, which may come in pieces; how many came before the end. */
static int hear(unsigned char *bytes, int count)
{
    int len = 0, n = 0;
    while (len < count && n >= 0) {
        n = 0;
        unit_run_until(n || (n = heard(bytes + len, (size_t)(count - len))));
        len += n > 0 ? n : 0;
    }
    return len;
}

static struct handover_device quiet(void)
{
    return (struct handover_device){.serial = 0x101,
                                    .conn_state = CONN_OPEN,
                                    .device_state = DEVICE_LIVE,
                                    .last_read_ms = worker_now_ms(&unit_worker), /* no ping yet */
                                    .is_unix = true,
                                    .is_echo = true};
}

static void pack_version(struct text_buf *out, uint32_t version, bool is_mid_frame)
{
    pack_u32(out, HANDOVER_MAGIC);
    pack_u32(out, version);
    pack_u32(out, is_mid_frame);
    text_adds(out, "what comes then is that version's");
}

START_TEST(a_connection_comes_and_is_served)
{
    struct text_buf body = {0};
    struct handover_device d = quiet();
    unsigned char bytes[4];
    begin_taking();
    handover_device_encode(&d, &body);
    say(HANDOVER_ALONE, &body, connection());
    unit_run_until(conns_count(unit_worker.conns) == 1);
    ck_assert_uint_eq(counter(CTR_websockets), 1);
    ck_assert_uint_eq(counter(CTR_handover_taken), 1);
    ck_assert_int_eq(send(client, "\x81\x82\0\0\0\0hi", 8, 0), 8);
    ck_assert_int_eq(hear(bytes, 4), 4);
    ck_assert_mem_eq(bytes, "\x81\x02hi", 4);
    text_buf_free(&body);
}
END_TEST

START_TEST(of_another_version_it_is_closed_with_1012_and_the_next_one_is_taken)
{
    struct text_buf body = {0};
    struct handover_device d = quiet();
    unsigned char bytes[14];
    begin_taking();
    pack_version(&body, HANDOVER_VERSION + 1, false);
    say(HANDOVER_ALONE, &body, connection());
    ck_assert_int_eq(hear(bytes, 14), 14);
    ck_assert_mem_eq(bytes, "\x88\x0c\x03\xf4restarting", 14);
    ck_assert_uint_eq(counter(CTR_handover_refused), 1);
    handover_device_encode(&d, &body);
    say(HANDOVER_ALONE, &body, connection());
    unit_run_until(counter(CTR_handover_taken) == 1);
    ck_assert_uint_eq(ends, 0);
    text_buf_free(&body);
}
END_TEST

START_TEST(with_a_window_that_cannot_be_it_is_closed_with_1012)
{
    static const uint8_t bits[] = {1, 7, 16, 255};
    struct text_buf body = {0};
    struct handover_device d = quiet();
    unsigned char bytes[64];
    int n = 0;
    d.deflate_bits = bits[_i];
    begin_taking();
    handover_device_encode(&d, &body);
    say(HANDOVER_ALONE, &body, connection());
    unit_run_until(n || (n = heard(bytes, sizeof(bytes))));
    ck_assert_int_gt(n, 4);
    ck_assert_mem_eq(bytes, "\x88\x0c\x03\xf4restarting", 14);
    ck_assert_uint_eq(counter(CTR_handover_refused), 1);
    text_buf_free(&body);
}
END_TEST

START_TEST(in_the_middle_of_a_frame_no_close_frame_is_sent)
{
    struct text_buf body = {0};
    unsigned char byte;
    begin_taking();
    pack_version(&body, HANDOVER_VERSION + 1, true);
    say(HANDOVER_ALONE, &body, connection());
    ck_assert_int_eq(hear(&byte, 1), 0);
    text_buf_free(&body);
}
END_TEST

START_TEST(damaged_states_end_one_connection_each)
{
    struct text_buf body = {0};
    struct handover_device d = quiet();
    begin_taking();
    handover_device_encode(&d, &body);
    size_t len = body.len;
    unsigned done = 0;
    for (size_t bit = 96; bit < len * 8; bit += 5) { /* behind the beginning */
        body.len = len;
        body.data[bit / 8] = (char)(body.data[bit / 8] ^ 1 << bit % 8);
        ck_assert_int_eq(handover_link_send(link_, HANDOVER_ALONE, body.data, body.len,
                                            connection()), 0);
        handover_link_flush(link_);
        body.data[bit / 8] = (char)(body.data[bit / 8] ^ 1 << bit % 8);
        done++;
        unit_run_until(counter(CTR_handover_taken) + counter(CTR_handover_refused) == done);
    }
    ck_assert_uint_gt(counter(CTR_handover_refused), 0);
    ck_assert_uint_eq(ends, 0);
    text_buf_free(&body);
}
END_TEST

START_TEST(a_record_that_is_none_ends_the_link_only)
{
    struct text_buf body = {0};
    struct handover_device d = quiet();
    begin_taking();
    handover_device_encode(&d, &body);
    say(HANDOVER_ALONE, &body, connection());
    text_adds(&body, "?");
    say(HANDOVER_EXPECT, &body, -1);
    unit_run_until(ends == 1);
    ck_assert_uint_eq(conns_count(unit_worker.conns), 1);
    text_buf_free(&body);
}
END_TEST

static void expect(struct text_buf *body, const char *user)
{
    pack_u32(body, 1);
    pack_bytes(body, "marker", 6);
    pack_u32(body, 1);
    pack_bytes(body, user, strlen(user));
    say(HANDOVER_EXPECT, body, -1);
    unit_run_until(records[HANDOVER_CONFIRMED] == 1); /* that it is not subscribed */
}

/* The first of batch 1 begins to come, with a device that connected at that time. */
static void begin_user(struct text_buf *body, int64_t opened_ms)
{
    struct handover_device d = quiet();
    d.is_echo = false;
    d.opened_ms = opened_ms;
    pack_u32(body, 1);
    pack_u32(body, 0);
    size_t begun = pack_begin(body);
    pack_u64(body, 0);
    pack_bytes(body, NULL, 0);
    pack_end(body, begun);
    say(HANDOVER_USER, body, -1);
    handover_device_encode(&d, body);
    say(HANDOVER_DEVICE, body, connection());
    unit_run_until(counter(CTR_handover_taken) == 1);
}

static void give_user(struct text_buf *body, int64_t opened_ms)
{
    begin_user(body, opened_ms);
    pack_u8(body, false);
    say(HANDOVER_USER_END, body, -1);
}

START_TEST(a_giver_that_ends_in_the_middle_leaves_what_it_gave_and_no_ghosts)
{
    struct text_buf body = {0};
    unsigned char bytes[64];
    begin_taking();
    expect(&body, "alice");
    ck_assert_uint_eq(hub_users(unit_worker.hub), 1);
    begin_user(&body, 0);
    handover_link_free(link_);
    link_ = NULL;
    struct user *u = hub_find(unit_worker.hub, "alice", 5);
    unit_run_until(!u->expected);
    ck_assert_int_eq(u->devices->state, DEVICE_REPAIRING); /* as soon as Redis is there */
    ck_assert_int_eq(heard(bytes, sizeof(bytes)), 0);
    close(client);
    client = -1;
    unit_run_until(hub_users(unit_worker.hub) == 0);
    ck_assert_uint_eq(counter(CTR_websockets), 0);
    text_buf_free(&body);
}
END_TEST

static void kick(const char *user)
{
    struct inquiry q = {.ask = INQUIRY_KICK, .number = 5};
    ck_assert_int_eq(inquiry_set(&q, user, strlen(user), NULL, 0), 0);
    inquest_on_ask(unit_worker.inquest, &q, inquiry_size(&q));
}

static void check_is_closed_with_4003(void)
{
    unsigned char bytes[4];
    ck_assert_int_eq(hear(bytes, 4), 4);
    ck_assert_uint_eq(bytes[0], 0x88);
    ck_assert_uint_eq(bytes[2] << 8 | bytes[3], 4003);
}

START_TEST(a_user_comes_with_neither_an_echo_nor_an_auth_frame_to_come)
{
    struct text_buf body = {0};
    begin_taking();
    expect(&body, "alice");
    begin_user(&body, 0);
    for (uint64_t i = 0; i < 2; i++) {
        struct handover_device d = quiet();
        d.is_echo = i == 0;
        d.conn_state = i == 0 ? CONN_OPEN : CONN_AUTH;
        handover_device_encode(&d, &body);
        say(HANDOVER_DEVICE, &body, connection());
        unit_run_until(counter(CTR_handover_refused) == i + 1);
    }
    ck_assert_uint_eq(counter(CTR_handover_taken), 1);
    text_buf_free(&body);
}
END_TEST

START_TEST(a_kick_meets_who_is_on_the_way)
{
    struct text_buf body = {0};
    int64_t opened_ms = worker_now_ms(&unit_worker) - 1000;
    begin_taking();
    if (_i == 0)
        kick("alice"); /* before anybody said that she is to come */
    expect(&body, "alice");
    if (_i == 1)
        kick("alice");
    give_user(&body, opened_ms);
    check_is_closed_with_4003();
    text_buf_free(&body);
}
END_TEST

START_TEST(a_kick_meets_who_has_come_and_waits_for_the_marker)
{
    struct text_buf body = {0};
    begin_taking();
    expect(&body, "alice");
    give_user(&body, worker_now_ms(&unit_worker) - 1000);
    kick("alice");
    check_is_closed_with_4003();
    text_buf_free(&body);
}
END_TEST

START_TEST(a_kick_meets_nobody_else_and_nobody_who_connected_since)
{
    struct text_buf body = {0};
    unsigned char bytes[64];
    begin_taking();
    kick(_i == 0 ? "alice" : "alic");
    kick(_i == 0 ? "bob" : "alicia");
    expect(&body, "alice");
    give_user(&body, worker_now_ms(&unit_worker) + (_i == 0 ? 1000 : -1000));
    unit_run_until(!hub_find(unit_worker.hub, "alice", 5)->expected);
    conns_flush(unit_worker.conns, true);
    ck_assert_int_eq(heard(bytes, sizeof(bytes)), 0);
    ck_assert_uint_eq(counter(CTR_websockets), 1);
    text_buf_free(&body);
}
END_TEST

START_TEST(only_so_many_kicks_are_remembered)
{
    char user[16];
    struct user *u = hub_add(unit_worker.hub, "u0", 2);
    for (int i = 0; i <= INQUEST_KICKS; i++) {
        ck_assert(i == 0 || inquest_has_kicked(unit_worker.inquest, u, 1));
        snprintf(user, sizeof(user), "u%d", i);
        kick(user);
    }
    ck_assert(!inquest_has_kicked(unit_worker.inquest, u, 1));
    hub_forget(unit_worker.hub, u);
}
END_TEST

START_TEST(who_was_expected_and_does_not_come_is_forgotten)
{
    struct text_buf body = {0};
    begin_taking();
    expect(&body, "alice");
    pack_u32(&body, 1);
    pack_u32(&body, 0);
    say(HANDOVER_FORGET, &body, -1);
    unit_run_until(hub_users(unit_worker.hub) == 0);
    text_buf_free(&body);
}
END_TEST

START_TEST(who_is_just_coming_is_not_forgotten)
{
    struct text_buf body = {0};
    begin_taking();
    expect(&body, "alice");
    begin_user(&body, clock_mono_ms());
    pack_u32(&body, 1);
    pack_u32(&body, 0);
    say(HANDOVER_FORGET, &body, -1);
    pack_u8(&body, true);
    say(HANDOVER_USER_END, &body, -1);
    unit_run_until(ends == 1);
    ck_assert_uint_eq(conns_count(unit_worker.conns), 1);
    text_buf_free(&body);
}
END_TEST

START_TEST(a_taker_of_another_version_is_given_nothing)
{
    struct conn some = {.state = CONN_OPEN}, over_tls = {.state = CONN_OPEN};
    struct text_buf body = {0};
    int ends_[2];
    over_tls.tls = (struct tlsio *)(void *)&server;
    ck_assert_int_eq(ipc_stream_pair(ends_), 0);
    handover_give(unit_worker.handover, &ends_[0], 1);
    link_ = handover_link_new(unit_worker.loop, ends_[1], &test_owner, NULL);
    ck_assert(handover_wants(unit_worker.handover, &some));
    ck_assert(!handover_wants(unit_worker.handover, &over_tls));
    pack_u32(&body, HANDOVER_VERSION + 1);
    say(HANDOVER_HELLO, &body, -1);
    unit_run_until(ends == 1);
    ck_assert(!handover_wants(unit_worker.handover, &some));
    ck_assert_uint_eq(records[HANDOVER_EXPECT], 0);
    text_buf_free(&body);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("handover");
    TCase *t = tcase_create("handover");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_connection_comes_and_is_served);
    tcase_add_test(t, of_another_version_it_is_closed_with_1012_and_the_next_one_is_taken);
    tcase_add_loop_test(t, with_a_window_that_cannot_be_it_is_closed_with_1012, 0, 4);
    tcase_add_test(t, in_the_middle_of_a_frame_no_close_frame_is_sent);
    tcase_add_test(t, damaged_states_end_one_connection_each);
    tcase_add_test(t, a_record_that_is_none_ends_the_link_only);
    tcase_add_test(t, a_giver_that_ends_in_the_middle_leaves_what_it_gave_and_no_ghosts);
    tcase_add_test(t, a_user_comes_with_neither_an_echo_nor_an_auth_frame_to_come);
    tcase_add_loop_test(t, a_kick_meets_who_is_on_the_way, 0, 2);
    tcase_add_test(t, a_kick_meets_who_has_come_and_waits_for_the_marker);
    tcase_add_loop_test(t, a_kick_meets_nobody_else_and_nobody_who_connected_since, 0, 2);
    tcase_add_test(t, only_so_many_kicks_are_remembered);
    tcase_add_test(t, who_was_expected_and_does_not_come_is_forgotten);
    tcase_add_test(t, who_is_just_coming_is_not_forgotten);
    tcase_add_test(t, a_taker_of_another_version_is_given_nothing);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
