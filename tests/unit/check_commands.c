#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/json.h"
#include "workers/commands.h"
#include "workers/filter.h"
#include "workers/session.h"
#include "workers/store.h"

/* ---- what stands around commands.c, replaced by notes of what was asked ---- */

static struct text_buf sent;      /* replies, one a line */
static int close_reason;          /* -1: open */
static bool is_store_up;
static char store_key[512];       /* user and ids of the last store call */
static char published[2048];
static store_done_fn *store_fn;
static void *store_data;
static int refresh_result;
static char refresh_type[32], refresh_done[256];
static enum token_result token_result;
static bool accepts_auth;
static struct resume resume_seen;
static struct text_buf filter_seen;

static int64_t clock_ms;

int64_t worker_now_ms(const struct worker *w)
{
    (void)w;
    return clock_ms;
}

void conn_send_text(struct conn *c, const char *text, size_t len)
{
    (void)c;
    text_add(&sent, text, len);
    text_addc(&sent, '\n');
}

void conn_close(struct conn *c, enum close_reason reason)
{
    (void)c;
    close_reason = (int)reason;
}

void conn_drop(struct conn *c, enum close_reason reason)
{
    conn_close(c, reason);
}

const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES])
{
    snprintf(out, CONN_ID_BYTES, "conn-%d", (int)c->serial);
    return out;
}

bool conn_authenticated(struct conn *c, const struct token_claims *claims, struct resume *resume,
                        struct filter *filter, bool is_lower)
{
    (void)is_lower;
    (void)c;
    (void)claims;
    memset(&resume_seen, 0, sizeof(resume_seen));
    if (resume)
        resume_seen = *resume;
    filter_json(filter, &filter_seen);
    free(resume);
    filter_free(filter);
    return accepts_auth;
}

int session_refresh(struct worker *w, struct device *d, const char *full_sync_type,
                    struct frame *done)
{
    size_t len;
    (void)w;
    (void)d;
    snprintf(refresh_type, sizeof(refresh_type), "%s", full_sync_type);
    const char *text = frame_payload(done, &len);
    snprintf(refresh_done, sizeof(refresh_done), "%.*s", (int)len, text);
    frame_unref(done);
    return refresh_result;
}

static struct store_call *keep_call(store_done_fn *fn, void *data)
{
    if (!is_store_up)
        return NULL;
    store_fn = fn;
    store_data = data;
    return (struct store_call *)store_key;
}

struct store_call *store_mark_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count,
                                   struct text_span publish, store_done_fn *fn, void *data)
{
    (void)s;
    int at = snprintf(store_key, sizeof(store_key), "%s:", user_id);
    for (size_t i = 0; i < count; i++)
        at += snprintf(store_key + at, sizeof(store_key) - (size_t)at, "%.*s,", (int)ids[i].len,
                       ids[i].ptr);
    snprintf(published, sizeof(published), "%.*s", (int)publish.len, publish.ptr);
    return keep_call(fn, data);
}

struct store_call *store_set_acked(struct store *s, const char *user_id, struct text_span id,
                                   store_done_fn *fn, void *data)
{
    (void)s;
    snprintf(store_key, sizeof(store_key), "%s:%.*s", user_id, (int)id.len, id.ptr);
    return keep_call(fn, data);
}

enum token_result token_verify(const struct token_keys *k, const char *token, size_t len,
                               int64_t now_ms, struct token_claims *out)
{
    (void)k;
    (void)now_ms;
    if (len != 4 || memcmp(token, "good", 4) != 0)
        return TOKEN_SIGNATURE;
    *out = (struct token_claims){.user_id = "u1", .user_id_len = 2, .expires_at_ms = 1000};
    return token_result;
}

const char *token_result_text(enum token_result r)
{
    return r == TOKEN_OK ? "ok" : "bad";
}

static struct user *known_user;

struct user *hub_find(struct hub *h, const char *user_id, size_t len)
{
    (void)h;
    return known_user && len == known_user->id_len && !memcmp(user_id, known_user->id, len)
               ? known_user
               : NULL;
}

/* ---- the device under test ---- */

static struct counters counters;
static struct usertable *users;
static struct keys keys;
static struct worker_start start;
static struct worker worker;
static struct conn conn;
static struct user *user;

static void setup(void)
{
    ck_assert_int_eq(counters_create(&counters, 2), 0);
    ck_assert_int_eq(usertable_create(64, 2, &users), 0);
    ck_assert_int_eq(keys_init(&keys, "ws:user:{user_id}", "ws:broadcast",
                               "notifications:{user_id}", "ws:snapshot:{user_id}"),
                     0);
    counters_attach(&counters, 0);
    counters.head->started_at_ms = (uint64_t)clock_wall_ms() - 7500;
    start = (struct worker_start){.counters = &counters, .users = users, .keys = &keys};
    worker = (struct worker){.start = &start, .style = {.with_zone = true}};
    user = calloc(1, sizeof(*user) + sizeof("u1"));
    *user = (struct user){.id_len = 2, .id_hash = 77, .devices = &conn.device};
    memcpy(user->id, "u1", sizeof("u1"));
    conn = (struct conn){.worker = &worker, .serial = 5, .state = CONN_OPEN};
    conn.device = (struct device){.conn = &conn, .user = user, .state = DEVICE_LIVE};
    known_user = user;
    close_reason = -1;
    is_store_up = accepts_auth = true;
    refresh_result = 0;
    token_result = TOKEN_OK;
    sent = filter_seen = (struct text_buf){0};
    store_fn = NULL;
}

static void teardown(void)
{
    if (store_fn)
        store_fn(store_data, -ECANCELED, 0);
    free(user);
    filter_free(conn.device.filter);
    text_buf_free(&sent);
    text_buf_free(&filter_seen);
    keys_fini(&keys);
    usertable_free(users);
    counters_destroy(&counters);
}

static void say(const char *text)
{
    text_buf_reset(&sent);
    commands_on_message(&conn, text, strlen(text));
}

/* What was sent, every timestamp written as T. */
static const char *heard(void)
{
    static char out[4096];
    const char *p = sent.data && sent.len ? sent.data : "";
    size_t n = 0;
    while (*p && n + 1 < sizeof(out)) {
        if (strncmp(p, "\"20", 3) == 0 && strlen(p) > 20 && p[11] == 'T') {
            n += (size_t)snprintf(out + n, sizeof(out) - n, "\"T");
            p = strchr(p + 1, '"');
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = 0;
    return out;
}

static void answer_store(int error)
{
    store_done_fn *fn = store_fn;
    ck_assert_ptr_nonnull(fn);
    store_fn = NULL;
    fn(store_data, error, 0);
}

static void assert_error(const char *text, const char *code)
{
    char part[64];
    uint64_t before = counters_get(&counters, 0, CTR_command_errors);
    say(text);
    snprintf(part, sizeof(part), "\"code\":\"%s\"", code);
    ck_assert_msg(strstr(heard(), part), "%s: %s", text, heard());
    ck_assert_ptr_nonnull(strstr(heard(), "\"timestamp\":\"T\""));
    ck_assert_uint_eq(counters_get(&counters, 0, CTR_command_errors), before + 1);
    ck_assert_int_eq(close_reason, -1);
}

START_TEST(the_bare_text_ping_gets_the_bare_text_pong)
{
    say("ping");
    ck_assert_str_eq(heard(), "pong\n");
}
END_TEST

START_TEST(ping_echoes_any_value_as_it_came)
{
    say("{\"type\":\"ping\",\"payload\":{\"sent_at\":1e400,\"client_time\":{\"a\":[1.50]}}}");
    ck_assert_str_eq(heard(), "{\"type\":\"pong\",\"payload\":{\"server_time\":\"T\","
                              "\"client_time\":{\"a\":[1.50]},\"latency_ms\":1e400},"
                              "\"timestamp\":\"T\"}\n");
    say("{\"type\":\"PING\"}");
    ck_assert_str_eq(heard(), "{\"type\":\"PONG\",\"payload\":{\"server_time\":\"T\","
                              "\"client_time\":null,\"latency_ms\":null},\"timestamp\":\"T\"}\n");
}
END_TEST

START_TEST(a_reply_has_the_case_of_its_command_or_that_of_the_instance)
{
    worker.style.lower_case = true;
    say("{\"type\":\"Ping\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"pong\""));
    say("{\"type\":\"PING\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"PONG\""));
    worker.style.lower_case = false;
    say("{\"type\":\"Ping\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"PONG\""));
    say("{\"type\":\"ping\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"pong\""));
    say("{\"type\":\"NOPE\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"ERROR\""));
    say("{\"type\":\"nope\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"error\""));
    say("{");
    ck_assert_ptr_nonnull(strstr(heard(), "\"type\":\"ERROR\""));
}
END_TEST

START_TEST(what_is_no_command_is_answered_with_an_error)
{
    assert_error("", "INVALID_JSON");
    assert_error("pong", "INVALID_JSON");
    assert_error("{\"type\":\"ping\"", "INVALID_JSON");
    assert_error("[1]", "INVALID_MESSAGE");
    assert_error("\"ping\"", "INVALID_MESSAGE");
    assert_error("{}", "INVALID_MESSAGE");
    assert_error("{\"type\":5}", "INVALID_MESSAGE");
    assert_error("{\"type\":\"\"}", "INVALID_MESSAGE");
    assert_error("{\"type\":\"toString\"}", "UNKNOWN_TYPE");
    assert_error("{\"type\":\"ping\",\"payload\":[]}", "INVALID_PAYLOAD");
}
END_TEST

START_TEST(deep_nesting_is_an_error_and_no_more)
{
    char text[70000];
    memset(text, '[', sizeof(text));
    text_buf_reset(&sent);
    commands_on_message(&conn, text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(heard(), "INVALID_JSON"));
}
END_TEST

START_TEST(an_unknown_type_is_named_and_cut_within_no_character)
{
    say("{\"type\":\"caf\\u00e9\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"message\":\"Unknown message type: caf\xC3\xA9\""));
    say("{\"type\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "\xC3\xA9zzz\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "xxx\",\"code\":\"UNKNOWN_TYPE\""));
}
END_TEST

START_TEST(subscribe_and_unsubscribe_change_the_filter_and_say_so)
{
    say("{\"type\":\"subscribe\",\"payload\":{\"types\":[\"BUDGET_ALERT\", \"x\"]}}");
    ck_assert_str_eq(heard(), "{\"type\":\"subscription_confirmed\",\"payload\":{"
                              "\"subscribed_types\":[\"BUDGET_ALERT\", \"x\"],"
                              "\"user_id\":\"u1\"}}\n");
    say("{\"type\":\"UNSUBSCRIBE\",\"payload\":{\"types\":[\"X\"]}}");
    ck_assert_str_eq(heard(), "{\"type\":\"UNSUBSCRIPTION_CONFIRMED\",\"payload\":{"
                              "\"unsubscribed_types\":[\"X\"],"
                              "\"remaining_subscriptions\":[\"BUDGET_ALERT\"]}}\n");
}
END_TEST

START_TEST(a_refused_list_of_types_changes_nothing)
{
    say("{\"type\":\"subscribe\",\"payload\":{\"types\":[\"A\"]}}");
    assert_error("{\"type\":\"subscribe\",\"payload\":{\"types\":[\"B\",7]}}", "INVALID_PAYLOAD");
    assert_error("{\"type\":\"subscribe\",\"payload\":{\"types\":\"B\"}}", "INVALID_PAYLOAD");
    assert_error("{\"type\":\"subscribe\",\"payload\":{\"types\":[\"B\",\"\"]}}",
                 "INVALID_PAYLOAD");
    assert_error("{\"type\":\"subscribe\"}", "INVALID_PAYLOAD");
    assert_error("{\"type\":\"unsubscribe\",\"payload\":{}}", "INVALID_PAYLOAD");
    say("{\"type\":\"unsubscribe\",\"payload\":{\"types\":[]}}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"remaining_subscriptions\":[\"A\"]"));
}
END_TEST

START_TEST(marked_ids_are_stored_published_and_confirmed_once_redis_answered)
{
    say("{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":"
        "[\"n1\",\"n\\u0032\"]}}");
    ck_assert_str_eq(heard(), "");
    ck_assert_str_eq(store_key, "u1:n1,n2,");
    ck_assert_ptr_nonnull(strstr(published, "\"type\":\"notifications_marked_read\""));
    ck_assert_ptr_nonnull(strstr(published, "\"channel\":\"ws:user:u1\""));
    ck_assert_ptr_nonnull(strstr(published, "\"connection_id\":\"conn-5\"}"));
    ck_assert_int_eq(json_scan_object(published, strlen(published), NULL, NULL), JSON_OK);
    answer_store(0);
    ck_assert_str_eq(heard(), "{\"type\":\"notifications_marked_read\",\"payload\":{"
                              "\"marked_read\":[\"n1\",\"n\\u0032\"],\"marked_at\":\"T\"}}\n");
    ck_assert_uint_eq(counters_get(&counters, 0, CTR_marked_read), 2);
}
END_TEST

START_TEST(a_connection_that_died_before_redis_answered_is_left_alone)
{
    say("{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":[\"n1\"]}}");
    conn.serial = 6; /* another connection at the same place */
    answer_store(0);
    ck_assert_str_eq(heard(), "");
    say("{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":[\"n1\"]}}");
    known_user = NULL;
    answer_store(-ETIMEDOUT);
    ck_assert_str_eq(heard(), "");
}
END_TEST

START_TEST(commands_that_need_redis_say_when_it_is_away)
{
    const char *const needy[] = {
        "{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":[\"n1\"]}}",
        "{\"type\":\"ack\",\"payload\":{\"last_id\":\"n1\"}}",
    };
    for (int i = 0; i < 2; i++) {
        is_store_up = false;
        assert_error(needy[i], "REDIS_UNAVAILABLE");
        is_store_up = true;
        say(needy[i]);
        answer_store(-ENOTCONN);
        ck_assert_ptr_nonnull(strstr(heard(), "REDIS_UNAVAILABLE"));
    }
    refresh_result = -EAGAIN;
    assert_error("{\"type\":\"dashboard_refresh\"}", "REDIS_UNAVAILABLE");
}
END_TEST

START_TEST(bad_lists_of_ids_are_refused)
{
    assert_error("{\"type\":\"mark_notification_read\"}", "INVALID_PAYLOAD");
    assert_error("{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":\"n\"}}",
                 "INVALID_PAYLOAD");
    assert_error("{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":[1]}}",
                 "INVALID_PAYLOAD");
    struct text_buf many = {0};
    text_adds(&many, "{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":[");
    for (int i = 0; i <= COMMANDS_MAX_READ_IDS; i++)
        text_addf(&many, "%s\"n%d\"", i ? "," : "", i);
    text_adds(&many, "]}}");
    assert_error(many.data, "INVALID_PAYLOAD");
    text_buf_free(&many);
    say("{\"type\":\"mark_notification_read\",\"payload\":{\"notification_ids\":[]}}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"marked_read\":[]"));
}
END_TEST

START_TEST(ack_is_remembered_without_a_reply)
{
    say("{\"type\":\"ack\",\"payload\":{\"last_id\":\"m9\"}}");
    ck_assert_str_eq(store_key, "u1:m9");
    answer_store(0);
    ck_assert_str_eq(heard(), "");
    assert_error("{\"type\":\"ack\",\"payload\":{\"last_id\":\"\"}}", "INVALID_PAYLOAD");
    assert_error("{\"type\":\"ack\",\"payload\":{\"last_id\":9}}", "INVALID_PAYLOAD");
}
END_TEST

START_TEST(dashboard_refresh_hands_its_end_to_the_session)
{
    say("{\"type\":\"DASHBOARD_REFRESH\"}");
    ck_assert_str_eq(refresh_type, "FULL_SYNC");
    ck_assert_ptr_nonnull(strstr(refresh_done, "{\"type\":\"DASHBOARD_REFRESH_COMPLETED\","
                                               "\"payload\":{\"refreshed_at\":\"2"));
    say("{\"type\":\"dashboard_refresh\"}");
    ck_assert_str_eq(refresh_type, "full_sync");
    ck_assert_ptr_nonnull(strstr(refresh_done, "\"dashboard_refresh_completed\""));
}
END_TEST

START_TEST(connection_stats_come_from_all_workers)
{
    usertable_enter(users, 0, user->id_hash, 0);
    usertable_enter(users, 1, user->id_hash, 0);
    usertable_enter(users, 1, 99, 0);
    counters.slots[0].values[CTR_websockets] = 1;
    counters.slots[1].values[CTR_websockets] = 2;
    say("{\"type\":\"get_connection_stats\"}");
    ck_assert_str_eq(heard(), "{\"type\":\"connection_stats\",\"payload\":{\"user_connections\":2,"
                              "\"total_connections\":3,\"connected_users\":2,"
                              "\"server_uptime\":7}}\n");
}
END_TEST

START_TEST(before_authentication_anything_but_a_good_auth_frame_closes)
{
    const char *const bad[] = {
        "ping",
        "{",
        "{\"type\":\"ping\"}",
        "{\"type\":\"auth\"}",
        "{\"type\":\"auth\",\"payload\":{\"token\":7}}",
        "{\"type\":\"auth\",\"payload\":{\"token\":\"bad\"}}",
        "{\"type\":\"auth\",\"payload\":{\"token\":\"\"}}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        conn.state = CONN_AUTH;
        close_reason = -1;
        say(bad[i]);
        ck_assert_msg(close_reason == CLOSE_AUTH, "%s", bad[i]);
        ck_assert_str_eq(heard(), "");
        ck_assert_uint_eq(counters_get(&counters, 0, CTR_auth_failures), i + 1);
    }
}
END_TEST

START_TEST(an_auth_frame_may_hold_everything_the_query_may)
{
    conn.state = CONN_AUTH;
    say("{\"type\":\"auth\",\"payload\":{\"token\":\"good\",\"last_id\":\"m1\","
        "\"seen\":[\"a\",\"b\"],\"types\":[\"A\",\"B\"]}}");
    ck_assert_str_eq(heard(), "{\"type\":\"auth_ok\",\"payload\":{\"expires_at\":"
                              "\"1970-01-01T00:00:01.000000Z\"}}\n");
    ck_assert(resume_seen.has_last_id);
    ck_assert_uint_eq(resume_seen.last_id, message_id_hash("m1", 2));
    ck_assert_uint_eq(resume_seen.seen_count, 2);
    ck_assert_uint_eq(resume_seen.seen[1], message_id_hash("b", 1));
    ck_assert_str_eq(filter_seen.data, "[\"A\",\"B\"]");

    text_buf_reset(&filter_seen);
    say("{\"type\":\"auth\",\"token\":\"good\",\"seen\":\"a,b,,c\",\"types\":\"A, B\"}");
    ck_assert_ptr_nonnull(strstr(heard(), "auth_ok"));
    ck_assert(!resume_seen.has_last_id);
    ck_assert_uint_eq(resume_seen.seen_count, 3);
    ck_assert_str_eq(filter_seen.data, "[\"A\",\"B\"]");
}
END_TEST

START_TEST(no_more_seen_ids_are_kept_than_the_bound)
{
    struct text_buf text = {0};
    conn.state = CONN_AUTH;
    text_adds(&text, "{\"type\":\"auth\",\"token\":\"good\",\"seen\":[\"0\"");
    for (int i = 1; i < 100; i++)
        text_addf(&text, ",\"%d\"", i);
    text_adds(&text, "]}");
    say(text.data);
    text_buf_free(&text);
    ck_assert_uint_eq(resume_seen.seen_count, RESUME_SEEN_MAX);
    ck_assert_uint_eq(resume_seen.seen[0], message_id_hash("0", 1));
}
END_TEST

START_TEST(auth_during_the_connection_renews_or_closes)
{
    say("{\"type\":\"AUTH\",\"payload\":{\"token\":\"good\"}}");
    ck_assert_ptr_nonnull(strstr(heard(), "\"AUTH_OK\""));
    accepts_auth = false;
    say("{\"type\":\"auth\",\"payload\":{\"token\":\"good\"}}");
    ck_assert_str_eq(heard(), "");
    token_result = TOKEN_EXPIRED;
    say("{\"type\":\"auth\",\"payload\":{\"token\":\"good\"}}");
    ck_assert_str_eq(heard(), "");
    ck_assert_int_eq(close_reason, CLOSE_AUTH);
}
END_TEST

static TCase *all_tests(void)
{
    TCase *tc = tcase_create("commands");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_bare_text_ping_gets_the_bare_text_pong);
    tcase_add_test(tc, ping_echoes_any_value_as_it_came);
    tcase_add_test(tc, a_reply_has_the_case_of_its_command_or_that_of_the_instance);
    tcase_add_test(tc, what_is_no_command_is_answered_with_an_error);
    tcase_add_test(tc, deep_nesting_is_an_error_and_no_more);
    tcase_add_test(tc, an_unknown_type_is_named_and_cut_within_no_character);
    tcase_add_test(tc, subscribe_and_unsubscribe_change_the_filter_and_say_so);
    tcase_add_test(tc, a_refused_list_of_types_changes_nothing);
    tcase_add_test(tc, marked_ids_are_stored_published_and_confirmed_once_redis_answered);
    tcase_add_test(tc, a_connection_that_died_before_redis_answered_is_left_alone);
    tcase_add_test(tc, commands_that_need_redis_say_when_it_is_away);
    tcase_add_test(tc, bad_lists_of_ids_are_refused);
    tcase_add_test(tc, ack_is_remembered_without_a_reply);
    tcase_add_test(tc, dashboard_refresh_hands_its_end_to_the_session);
    tcase_add_test(tc, connection_stats_come_from_all_workers);
    tcase_add_test(tc, before_authentication_anything_but_a_good_auth_frame_closes);
    tcase_add_test(tc, an_auth_frame_may_hold_everything_the_query_may);
    tcase_add_test(tc, no_more_seen_ids_are_kept_than_the_bound);
    tcase_add_test(tc, auth_during_the_connection_renews_or_closes);
    return tc;
}

int main(void)
{
    Suite *s = suite_create("commands");
    suite_add_tcase(s, all_tests());
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
