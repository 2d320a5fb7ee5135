/*
 * check_store.c - the command link and the delivery probe, against a real redis-server.
 */
#include "config.h"

#include "tests/unit/redis_server.h"

#include "shared/log.h"
#include "workers/canary.h"
#include "workers/handover.h"
#include "workers/hub.h"
#include "workers/inquest.h"
#include "workers/session.h"
#include "workers/store.h"
#include "workers/subscriber.h"

static struct redis_server server, other;
static unsigned ups;

/* The last answer of each kind. */
static struct {
    unsigned count;
    int error;
    int64_t value;
    size_t entries, reads;
    char first[64], last[64], snapshot[64], acked[64], text[64];
} got;

void session_on_store_up(struct worker *w)
{
    (void)w;
    ups++;
}

void session_on_subscribed(struct worker *w, struct user *u)
{
    (void)w, (void)u;
}

void session_on_message(struct worker *w, struct user *u, struct text_span payload)
{
    (void)w, (void)u, (void)payload;
}

void session_prefetch(const struct user *u)
{
    (void)u;
}

void session_prefetch_more(const struct user *u)
{
    (void)u;
}

void session_on_broadcast(struct worker *w, const char *payload, size_t len)
{
    (void)w, (void)payload, (void)len;
}

void session_on_link_lost(struct worker *w)
{
    (void)w;
}

void inquest_on_request(struct inquest *q, const char *payload, size_t len)
{
    (void)q, (void)payload, (void)len;
}

void inquest_on_answer(struct inquest *q, const char *payload, size_t len)
{
    (void)q, (void)payload, (void)len;
}

void handover_on_listening(struct handover *h)
{
    (void)h;
}

void handover_on_marker(struct handover *h, const char *text, size_t len)
{
    (void)h, (void)text, (void)len;
}

static void copy(char to[64], struct text_span from)
{
    snprintf(to, 64, "%.*s", (int)from.len, from.ptr ? from.ptr : "");
}

static void on_user(void *data, int error, struct store_user *user)
{
    ck_assert_ptr_eq(data, &got);
    got.count++;
    got.error = error;
    ck_assert_int_eq(user == NULL, error != 0);
    if (!user)
        return;
    got.entries = user->entry_count;
    got.reads = user->read_count;
    const struct text_span none = {0};
    size_t count = user->entry_count;
    copy(got.first, count ? user->entries[0] : none);
    copy(got.last, count ? user->entries[count - 1] : none);
    copy(got.snapshot, user->snapshot);
    copy(got.acked, user->acked);
}

static void on_done(void *data, int error, int64_t value)
{
    ck_assert_ptr_eq(data, &got);
    got.count++;
    got.error = error;
    got.value = value;
}

static void on_text(void *data, int error, struct text_span text)
{
    ck_assert_ptr_eq(data, &got);
    got.count++;
    got.error = error;
    copy(got.text, text);
}

static struct store *store;

static void setup(void)
{
    unit_setup();
    memset(&got, 0, sizeof(got));
    memset(&other, 0, sizeof(other));
    ups = 0;
    redis_prepare(&server);
    redis_start(&server, NULL, NULL, NULL);
    unit_use(&server);
    unit_worker.hub = hub_new();
    store = unit_worker.store = store_new(&unit_worker);
}

static void teardown(void)
{
    canary_free(unit_worker.canary);
    subscriber_free(unit_worker.subscriber);
    store_free(unit_worker.store);
    hub_free(unit_worker.hub);
    redis_remove(&server);
    if (other.dir[0])
        redis_remove(&other);
    unit_teardown();
}

static void is_up(void)
{
    unit_run_until(store_is_up(store));
}

static void one_answer(struct store_call *call)
{
    unsigned before = got.count;
    ck_assert_ptr_nonnull(call);
    ck_assert_uint_eq(got.count, before); /* never from within */
    unit_run_until(got.count == before + 1);
}

static void read_user(const char *id)
{
    one_answer(store_read_user(store, id, on_user, &got));
}

static struct text_span text(const char *s)
{
    return text_span_of(s);
}

START_TEST(a_reading_has_all_there_is_of_a_user)
{
    is_up();
    for (int i = 1; i <= 7; i++)
        redis_int(&server, "LPUSH notifications:u m%d", i);
    freeReplyObject(redis_do(&server, "SET ws:snapshot:u {}"));
    redis_int(&server, "SADD notifications:read:u a b c");
    freeReplyObject(redis_do(&server, "SET notifications:acked:u m3"));
    read_user("u");
    ck_assert_int_eq(got.error, 0);
    ck_assert_uint_eq(got.entries, 5); /* history-size */
    ck_assert_str_eq(got.first, "m7");
    ck_assert_str_eq(got.last, "m3");
    ck_assert_str_eq(got.snapshot, "{}");
    ck_assert_uint_eq(got.reads, 3);
    ck_assert_str_eq(got.acked, "m3");
    ck_assert_uint_eq(counter(CTR_lists_read), 1);
    read_user("nobody");
    ck_assert_int_eq(got.error, 0);
    ck_assert_uint_eq(got.entries + got.reads, 0);
    ck_assert_str_eq(got.snapshot, "");
}
END_TEST

START_TEST(keys_of_another_type_count_as_empty)
{
    is_up();
    freeReplyObject(redis_do(&server, "SET notifications:u text"));
    redis_int(&server, "LPUSH ws:snapshot:u x");
    redis_int(&server, "LPUSH notifications:read:u x");
    redis_int(&server, "LPUSH notifications:acked:u x");
    read_user("u");
    ck_assert_int_eq(got.error, 0);
    ck_assert_uint_eq(got.entries + got.reads, 0);
    ck_assert_str_eq(got.snapshot, "");
    ck_assert_str_eq(got.acked, "");
    ck_assert_uint_eq(counter(CTR_redis_errors), 4);
    ck_assert(store_is_up(store));
}
END_TEST

START_TEST(read_marks_come_bounded)
{
    is_up();
    freeReplyObject(redis_do(&server, "EVAL %s 1 notifications:read:u",
                             "for i = 1, 5000 do redis.call('SADD', KEYS[1], i) end"));
    read_user("u");
    ck_assert_uint_eq(got.reads, STORE_READ_MARKS_MAX);
}
END_TEST

static void emit(const char *type, const char *payload)
{
    struct emit_command c;
    int error = emit_prepare_user(&c, &unit_worker.emit_rules, "u", type, text(payload), true);
    ck_assert_int_eq(error, 0);
    struct store_call *call = store_emit(store, &c, on_done, &got);
    emit_command_free(&c); /* the script may have to be sent once more */
    one_answer(call);
}

START_TEST(an_event_is_stored_by_a_script_that_redis_does_not_know_yet)
{
    is_up();
    emit("NOTIFICATION", "{\"a\":1}");
    ck_assert_int_eq(got.error, 0);
    ck_assert_int_eq(got.value, 0);
    ck_assert_int_eq(redis_int(&server, "LLEN notifications:u"), 1);
    emit("DASHBOARD_UPDATE", "{\"total_balance\":5}");
    read_user("u");
    ck_assert_str_eq(got.snapshot, "{\"total_balance\":5}");
    ck_assert_uint_eq(got.entries, 1);
    freeReplyObject(redis_do(&server, "SCRIPT FLUSH"));
    emit("NOTIFICATION", "{\"a\":2}");
    ck_assert_int_eq(got.error, 0);
    ck_assert_int_eq(redis_int(&server, "LLEN notifications:u"), 2);
    ck_assert_uint_eq(counter(CTR_redis_errors), 0); /* NOSCRIPT is no error */
}
END_TEST

START_TEST(events_keep_their_order_when_the_script_has_to_be_sent)
{
    struct emit_command c;
    char payload[32];
    is_up();
    for (int i = 1; i <= 4; i++) {
        snprintf(payload, sizeof(payload), "{\"n\":%d}", i);
        emit_prepare_user(&c, &unit_worker.emit_rules, "u", "NOTIFICATION", text(payload), true);
        ck_assert_ptr_nonnull(store_emit(store, &c, on_done, &got));
        emit_command_free(&c);
    }
    unit_run_until(got.count == 4);
    for (int i = 1; i <= 4; i++) {
        redisReply *r = redis_do(&server, "LINDEX notifications:u %d", 4 - i);
        snprintf(payload, sizeof(payload), "{\"n\":%d}", i);
        ck_assert_ptr_nonnull(strstr(r->str, payload));
        freeReplyObject(r);
    }
}
END_TEST

START_TEST(a_broadcast_is_published)
{
    struct emit_command c;
    is_up();
    unit_worker.subscriber = subscriber_new(&unit_worker);
    unit_run_until(counter(CTR_redis_subscriptions) == SUBSCRIBER_FIXED_CHANNELS);
    emit_prepare_broadcast(&c, &unit_worker.emit_rules, "SYSTEM_ALERT", text("{}"));
    one_answer(store_emit(store, &c, on_done, &got));
    emit_command_free(&c);
    ck_assert_int_eq(got.error, 0);
    ck_assert_int_eq(got.value, 1);
}
END_TEST

START_TEST(marks_are_kept_with_an_expiry_told_and_taken_out_again)
{
    struct text_span ids[] = {text("a b"), text("%s"), text("c\r\nd")};
    struct device d = {0};
    is_up();
    unit_worker.subscriber = subscriber_new(&unit_worker);
    subscriber_want(unit_worker.subscriber, hub_join(unit_worker.hub, &d, "u", 1));
    unit_run_until(counter(CTR_redis_subscriptions) == SUBSCRIBER_FIXED_CHANNELS + 1);
    one_answer(store_numsub(store, "u", on_done, &got));
    ck_assert_int_eq(got.value, 1);
    one_answer(store_mark_read(store, "u", ids, 3, text("{}"), on_done, &got));
    ck_assert_int_eq(got.error, 0);
    ck_assert_int_eq(got.value, 3);
    ck_assert_int_eq(redis_int(&server, "SISMEMBER %s %b", "notifications:read:u", ids[2].ptr,
                               ids[2].len), 1);
    long long ttl = redis_int(&server, "PTTL notifications:read:u");
    ck_assert(ttl > 0 && ttl <= 60000);
    one_answer(store_trim_read(store, "u", ids, 2, on_done, &got));
    ck_assert_int_eq(got.value, 2);
    ck_assert_int_eq(redis_int(&server, "SCARD notifications:read:u"), 1);
    ck_assert_ptr_null(store_mark_read(store, "u", ids, 0, text("{}"), on_done, &got));
}
END_TEST

START_TEST(an_error_reply_is_an_io_error_and_the_link_stays)
{
    struct text_span id = text("a");
    is_up();
    freeReplyObject(redis_do(&server, "SET notifications:read:u text"));
    one_answer(store_mark_read(store, "u", &id, 1, text("{}"), on_done, &got));
    ck_assert_int_eq(got.error, -EIO);
    freeReplyObject(redis_do(&server, "SET notifications:u text"));
    emit("NOTIFICATION", "{}");
    ck_assert_int_eq(got.error, -EIO);
    ck_assert(store_is_up(store));
    ck_assert_uint_eq(ups, 1);
}
END_TEST

START_TEST(the_acked_id_info_and_probes_go_their_way)
{
    is_up();
    one_answer(store_set_acked(store, "u", text("id %d"), on_done, &got));
    ck_assert_int_eq(got.error, 0);
    ck_assert_int_gt(redis_int(&server, "PTTL notifications:acked:u"), 0);
    read_user("u");
    ck_assert_str_eq(got.acked, "id %d");
    one_answer(store_info(store, on_text, &got));
    ck_assert_int_eq(strncmp(got.text, "# Server", 8), 0);
    one_answer(store_publish(store, "c", text("x"), on_done, &got));
    ck_assert_int_eq(got.value, 0);
    one_answer(store_numsub(store, "u", on_done, &got));
    ck_assert_int_eq(got.value, 0);
}
END_TEST

START_TEST(a_cancelled_call_never_calls_back_and_the_next_gets_its_own_answer)
{
    is_up();
    redis_int(&server, "LPUSH notifications:u x");
    store_cancel(store_read_user(store, "v", on_user, &got));
    store_cancel(NULL);
    read_user("u");
    ck_assert_uint_eq(got.entries, 1);
    ck_assert_uint_eq(got.count, 1);
}
END_TEST

START_TEST(while_the_link_is_down_calls_fail_at_once)
{
    ck_assert(!store_is_up(store));
    ck_assert_ptr_null(store_read_user(store, "u", on_user, &got));
    ck_assert_ptr_null(store_info(store, on_text, &got));
    ck_assert_uint_eq(got.count, 0);
}
END_TEST

static void fill(void)
{
    for (int i = 0; i < 20; i++) {
        ck_assert_ptr_nonnull(store_read_user(store, "u", on_user, &got));
        ck_assert_ptr_nonnull(store_publish(store, "c", text("x"), on_done, &got));
    }
}

START_TEST(a_server_that_dies_is_told_to_every_call_once)
{
    is_up();
    kill(server.pid, SIGSTOP);
    fill();
    unit_run(0.05);
    ck_assert_uint_eq(got.count, 0);
    redis_stop(&server);
    unit_run_until(got.count == 40);
    ck_assert_int_eq(got.error, -ECONNRESET);
    unit_run(0.1);
    ck_assert_uint_eq(got.count, 40);
    redis_start(&server, NULL, NULL, NULL);
    unit_run_until(ups == 2);
    read_user("u");
    ck_assert_int_eq(got.error, 0);
}
END_TEST

START_TEST(a_server_that_hangs_is_given_up_in_time)
{
    unit_opt.redis_command_timeout = 100;
    is_up();
    kill(server.pid, SIGSTOP);
    fill();
    double start = ev_time();
    unit_run_until(got.count == 40);
    ck_assert(ev_time() - start < 5.); /* not the time that a TCP connection is kept */
    ck_assert_int_eq(got.error, -ETIMEDOUT);
    ck_assert_uint_eq(counter(CTR_redis_timeouts), 1);
    ck_assert(!store_is_up(store));
    kill(server.pid, SIGCONT);
    unit_run_until(ups == 2);
}
END_TEST

START_TEST(a_worker_that_was_busy_does_not_take_that_for_a_hung_server)
{
    unit_opt.redis_command_timeout = 50;
    is_up();
    ck_assert_ptr_nonnull(store_read_user(store, "u", on_user, &got));
    ev_run(unit_worker.loop, EVRUN_NOWAIT); /* sent */
    for (int i = 0; i < 2; i++)
        freeReplyObject(redis_do(&server, "PING")); /* whoever asked before has its answer now */
    usleep(200000);
    unit_run_until(got.count == 1);
    ck_assert_int_eq(got.error, 0);
    ck_assert_uint_eq(counter(CTR_redis_timeouts), 0);
}
END_TEST

START_TEST(calls_under_way_are_answered_when_the_store_ends)
{
    is_up();
    fill();
    store_free(store);
    store = unit_worker.store = NULL;
    ck_assert_uint_eq(got.count, 40);
    ck_assert_int_eq(got.error, -ECANCELED);
}
END_TEST

START_TEST(calls_under_way_are_bounded)
{
    is_up();
    int sent = 0;
    while (sent < STORE_MAX_CALLS + 1 && store_publish(store, "c", text("x"), on_done, &got))
        sent++;
    ck_assert_int_eq(sent, STORE_MAX_CALLS);
    unit_run_until(got.count == STORE_MAX_CALLS);
}
END_TEST

/* ---- the delivery probe ---- */

static void start_canary(void)
{
    unit_worker.subscriber = subscriber_new(&unit_worker);
    unit_worker.canary = canary_new(&unit_worker);
}

START_TEST(a_probe_comes_back_and_says_how_long_it_took)
{
    unit_opt.redis_probe_interval = 1000; /* none is late, however busy the machine is */
    start_canary();
    unit_run_until(counter(CTR_redis_delivery_probe_at_ms) > 0);
    ck_assert_uint_gt(counter(CTR_redis_delivery_probe_us), 0);
    unit_run_until(counter(CTR_redis_latency_us) > 0);
    uint64_t first = counter(CTR_redis_delivery_probe_at_ms);
    unit_run_until(counter(CTR_redis_delivery_probe_at_ms) > first);
    ck_assert_uint_eq(counter(CTR_redis_probe_failures), 0);
    ck_assert_uint_eq(counter(CTR_redis_disconnects), 0);
}
END_TEST

START_TEST(a_subscriber_link_that_stays_on_an_old_server_is_made_anew)
{
    is_up();
    start_canary();
    unit_run_until(counter(CTR_redis_delivery_probe_at_ms) > 0);
    /* The name now leads to another server, which the command link finds first. */
    redis_prepare(&other);
    redis_start(&other, NULL, NULL, NULL);
    unit_use(&other);
    freeReplyObject(redis_do(&server, "CLIENT KILL TYPE normal"));
    unit_run_until(ups == 2);
    unit_run_until(counter(CTR_redis_probe_failures) > 0);
    uint64_t at = counter(CTR_redis_delivery_probe_at_ms);
    unit_run_until(counter(CTR_redis_delivery_probe_at_ms) > at);
    ck_assert_int_eq(redis_int(&other, "PUBLISH ws:broadcast x"), 1);
}
END_TEST

START_TEST(a_server_that_hangs_is_no_fault_of_the_subscriber_link)
{
    unit_opt.redis_command_timeout = 10000;
    start_canary();
    unit_run_until(counter(CTR_redis_delivery_probe_at_ms) > 0);
    kill(server.pid, SIGSTOP);
    unit_run_until(counter(CTR_redis_probe_failures) >= 2);
    ck_assert(subscriber_is_up(unit_worker.subscriber));
    kill(server.pid, SIGCONT);
    uint64_t at = counter(CTR_redis_delivery_probe_at_ms);
    unit_run_until(counter(CTR_redis_delivery_probe_at_ms) > at);
    ck_assert_uint_eq(counter(CTR_redis_disconnects), 0);
}
END_TEST

int main(void)
{
    if (!redis_is_installed())
        return redis_skip();
    log_set_level(LOG_LEVEL_ERROR);
    Suite *s = suite_create("store");
    TCase *t = tcase_create("store");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_reading_has_all_there_is_of_a_user);
    tcase_add_test(t, keys_of_another_type_count_as_empty);
    tcase_add_test(t, read_marks_come_bounded);
    tcase_add_test(t, an_event_is_stored_by_a_script_that_redis_does_not_know_yet);
    tcase_add_test(t, events_keep_their_order_when_the_script_has_to_be_sent);
    tcase_add_test(t, a_broadcast_is_published);
    tcase_add_test(t, marks_are_kept_with_an_expiry_told_and_taken_out_again);
    tcase_add_test(t, an_error_reply_is_an_io_error_and_the_link_stays);
    tcase_add_test(t, the_acked_id_info_and_probes_go_their_way);
    tcase_add_test(t, a_cancelled_call_never_calls_back_and_the_next_gets_its_own_answer);
    tcase_add_test(t, while_the_link_is_down_calls_fail_at_once);
    tcase_add_test(t, a_server_that_dies_is_told_to_every_call_once);
    tcase_add_test(t, a_server_that_hangs_is_given_up_in_time);
    tcase_add_test(t, a_worker_that_was_busy_does_not_take_that_for_a_hung_server);
    tcase_add_test(t, calls_under_way_are_answered_when_the_store_ends);
    tcase_add_test(t, calls_under_way_are_bounded);
    tcase_add_test(t, a_probe_comes_back_and_says_how_long_it_took);
    tcase_add_test(t, a_subscriber_link_that_stays_on_an_old_server_is_made_anew);
    tcase_add_test(t, a_server_that_hangs_is_no_fault_of_the_subscriber_link);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
