#include "config.h"

#include <check.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/emit.h"
#include "shared/events.h"

static struct keys keys;
static struct emit_rules rules;

static void setup(void)
{
    ck_assert_int_eq(keys_init(&keys, "c:{user_id}", "all", "n:{user_id}", "s:{user_id}"), 0);
    rules = (struct emit_rules){.keys = &keys,
                                .style = {false, true},
                                .history_size = 100,
                                .history_ttl_ms = 604800000};
}

static void teardown(void)
{
    keys_fini(&keys);
}

enum { NAME, SHA, NUMKEYS, LIST, SNAPSHOT, CHANNEL, LIVE, STORED, SIZE, TTL, KEPT, ARGS };

static const char *arg(const struct emit_command *c, int i)
{
    static char out[12][1024];
    snprintf(out[i], sizeof(out[i]), "%.*s", (int)c->argvlen[i], c->argv[i]);
    return out[i];
}

static struct emit_command prepare(const char *type, const char *payload, bool store)
{
    struct emit_command c;
    ck_assert_int_eq(emit_prepare_user(&c, &rules, "u1", type, text_span_of(payload), store), 0);
    ck_assert_int_eq(c.argc, ARGS);
    return c;
}

START_TEST(the_sha_is_that_of_the_script)
{
    unsigned char digest[20];
    char hex[41];
    ck_assert_int_eq(EVP_Digest(emit_script, strlen(emit_script), digest, NULL, EVP_sha1(), NULL),
                     1);
    for (int i = 0; i < 20; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    ck_assert_str_eq(emit_script_sha, hex);
}
END_TEST

START_TEST(a_stored_event_has_two_copies_of_one_message)
{
    struct emit_command c = prepare("new_transaction", "{\"a\":1}", true);
    ck_assert_str_eq(arg(&c, NAME), "EVALSHA");
    ck_assert_str_eq(arg(&c, SHA), emit_script_sha);
    ck_assert_str_eq(arg(&c, NUMKEYS), "2");
    ck_assert_str_eq(arg(&c, LIST), "n:u1");
    ck_assert_str_eq(arg(&c, SNAPSHOT), "s:u1");
    ck_assert_str_eq(arg(&c, CHANNEL), "c:u1");
    ck_assert_str_eq(arg(&c, SIZE), "100");
    ck_assert_str_eq(arg(&c, TTL), "604800");
    ck_assert_str_eq(arg(&c, KEPT), "");
    struct message live, stored;
    ck_assert_int_eq(message_read(c.argv[LIVE], c.argvlen[LIVE], &live), JSON_OK);
    ck_assert_int_eq(message_read(c.argv[STORED], c.argvlen[STORED], &stored), JSON_OK);
    ck_assert_int_eq(live.event, EVENT_NEW_TRANSACTION);
    ck_assert(live.has_id);
    ck_assert_uint_eq(live.id_hash, stored.id_hash);
    ck_assert_uint_eq(live.id_hash, message_id_hash(c.id, strlen(c.id)));
    ck_assert_int_ne(live.timestamp_us, 0);
    ck_assert_int_eq(live.timestamp_us, stored.timestamp_us);
    struct text_span v;
    ck_assert(json_find(live.raw, "channel", &v));
    ck_assert(text_span_eq(v, "\"c:u1\""));
    ck_assert(!json_find(stored.raw, "channel", &v));
    ck_assert(json_find(stored.raw, "user_id", &v));
    ck_assert(text_span_eq(v, "\"u1\""));
    ck_assert(text_span_eq(stored.type, "\"NEW_TRANSACTION\""));
    ck_assert(text_span_eq(stored.payload, "{\"a\":1}"));
    emit_command_free(&c);
    emit_command_free(NULL);
}
END_TEST

START_TEST(a_dashboard_is_kept_as_the_snapshot_and_not_listed)
{
    char payload[] = "{\"total\":5}";
    struct emit_command c = prepare("DASHBOARD_UPDATE", payload, true);
    memset(payload, 'x', sizeof(payload) - 1); /* the command owns what it points to */
    ck_assert_str_eq(arg(&c, STORED), "");
    ck_assert_str_eq(arg(&c, KEPT), "{\"total\":5}");
    ck_assert_str_ne(arg(&c, LIVE), "");
    emit_command_free(&c);
    c = prepare("dashboard_update", "", true);
    ck_assert_str_eq(arg(&c, KEPT), "{}");
    emit_command_free(&c);
}
END_TEST

START_TEST(each_row_is_stored_as_it_says_and_nothing_without_store)
{
    for (int e = 0; e < EVENT_TYPES; e++)
        for (int store = 0; store < 2; store++) {
            struct emit_command c = prepare(events_table[e].lower, "{}", store);
            enum event_store kind = store ? events_table[e].store : EVENT_STORE_NONE;
            ck_assert_int_eq(c.argvlen[STORED] > 0, kind == EVENT_STORE_LIST);
            ck_assert_int_eq(c.argvlen[KEPT] > 0, kind == EVENT_STORE_SNAPSHOT);
            ck_assert_uint_gt(c.argvlen[LIVE], 0);
            emit_command_free(&c);
        }
}
END_TEST

START_TEST(types_outside_the_table_are_untouched_and_stored)
{
    struct emit_command c = prepare("My_Own", "{}", true);
    ck_assert_ptr_nonnull(strstr(arg(&c, STORED), "\"type\":\"My_Own\""));
    emit_command_free(&c);
    c = prepare("My_Own", "{}", false);
    ck_assert_str_eq(arg(&c, STORED), "");
    emit_command_free(&c);
}
END_TEST

START_TEST(style_is_case_and_zone)
{
    rules.style = (struct message_style){true, false};
    struct emit_command c = prepare("Balance_Update", "{}", true);
    ck_assert_ptr_nonnull(strstr(arg(&c, LIVE), "\"type\":\"balance_update\""));
    ck_assert_ptr_null(strstr(arg(&c, LIVE), "Z\""));
    emit_command_free(&c);
    ck_assert_int_eq(emit_prepare_broadcast(&c, &rules, "SYSTEM_ALERT", text_span_of("{}")), 0);
    ck_assert_ptr_nonnull(strstr(arg(&c, 2), "\"type\":\"system_alert\""));
    emit_command_free(&c);
}
END_TEST

START_TEST(numbers_out_of_range_become_the_nearest_that_redis_takes)
{
    rules.history_size = 0;
    rules.history_ttl_ms = 999;
    struct emit_command c = prepare("PING", "{}", true);
    ck_assert_str_eq(arg(&c, SIZE), "1");
    ck_assert_str_eq(arg(&c, TTL), "1");
    emit_command_free(&c);
    rules.history_size = 10000;
    rules.history_ttl_ms = INT64_C(315360000000);
    c = prepare("PING", "{}", true);
    ck_assert_str_eq(arg(&c, SIZE), "10000");
    ck_assert_str_eq(arg(&c, TTL), "315360000");
    emit_command_free(&c);
}
END_TEST

START_TEST(a_broadcast_is_a_plain_publish_to_the_broadcast_channel)
{
    struct emit_command c;
    ck_assert_int_eq(emit_prepare_broadcast(&c, &rules, "SYSTEM_ALERT", text_span_of("{\"a\":1}")),
                     0);
    ck_assert_int_eq(c.argc, 3);
    ck_assert_str_eq(arg(&c, 0), "PUBLISH");
    ck_assert_str_eq(arg(&c, 1), "all");
    struct message m;
    ck_assert_int_eq(message_read(c.argv[2], c.argvlen[2], &m), JSON_OK);
    ck_assert_uint_eq(m.id_hash, message_id_hash(c.id, strlen(c.id)));
    struct text_span v;
    ck_assert(json_find(m.raw, "user_id", &v) && text_span_eq(v, "\"system\""));
    ck_assert(json_find(m.raw, "channel", &v) && text_span_eq(v, "\"all\""));
    emit_use_eval(&c);
    ck_assert_str_eq(arg(&c, 0), "PUBLISH");
    emit_command_free(&c);
}
END_TEST

START_TEST(eval_takes_the_place_of_evalsha)
{
    struct emit_command c = prepare("PING", "{}", true);
    emit_use_eval(&c);
    ck_assert_str_eq(arg(&c, NAME), "EVAL");
    ck_assert_str_eq(arg(&c, SHA), emit_script);
    ck_assert_uint_eq(c.argvlen[SHA], strlen(emit_script));
    ck_assert_str_eq(arg(&c, NUMKEYS), "2");
    emit_command_free(&c);
    ck_assert(emit_is_noscript("NOSCRIPT No matching script. Please use EVAL."));
    ck_assert(!emit_is_noscript("ERR NOSCRIPT"));
    ck_assert(!emit_is_noscript(""));
    ck_assert(!emit_is_noscript(NULL));
}
END_TEST

START_TEST(names_that_need_escapes_stay_whole)
{
    struct emit_command c;
    const char *id = "a\"b\\c\xC3\xA9";
    ck_assert_int_eq(emit_prepare_user(&c, &rules, id, "ty\"pe", text_span_of("{}"), true), 0);
    ck_assert_str_eq(arg(&c, CHANNEL), "c:a\"b\\c\xC3\xA9");
    struct message m;
    struct text_span v;
    char text[64];
    ck_assert_int_eq(message_read(c.argv[LIVE], c.argvlen[LIVE], &m), JSON_OK);
    ck_assert(json_find(m.raw, "user_id", &v));
    ck_assert_int_eq(json_string_decode(v, text, sizeof(text)), (long)strlen(id));
    ck_assert_mem_eq(text, id, strlen(id));
    emit_command_free(&c);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("emit");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_sha_is_that_of_the_script);
    tcase_add_test(tc, a_stored_event_has_two_copies_of_one_message);
    tcase_add_test(tc, a_dashboard_is_kept_as_the_snapshot_and_not_listed);
    tcase_add_test(tc, each_row_is_stored_as_it_says_and_nothing_without_store);
    tcase_add_test(tc, types_outside_the_table_are_untouched_and_stored);
    tcase_add_test(tc, style_is_case_and_zone);
    tcase_add_test(tc, numbers_out_of_range_become_the_nearest_that_redis_takes);
    tcase_add_test(tc, a_broadcast_is_a_plain_publish_to_the_broadcast_channel);
    tcase_add_test(tc, eval_takes_the_place_of_evalsha);
    tcase_add_test(tc, names_that_need_escapes_stay_whole);
    Suite *s = suite_create("emit");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
