#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/events.h"
#include "shared/message.h"
#include "shared/uuid7.h"

static struct message read_ok(const char *text)
{
    struct message m;
    ck_assert_msg(message_read(text, strlen(text), &m) == JSON_OK, "%s", text);
    return m;
}

#define ENVELOPE(id, type, payload) \
    "{\"id\":" id ",\"type\":" type ",\"timestamp\":\"2026-01-31T12:00:00Z\",\"user_id\":\"u\"," \
    "\"payload\":" payload ",\"channel\":\"ws:user:u\"}"

START_TEST(an_envelope_is_read_in_place)
{
    const char *text =
        ENVELOPE("\"abc\"", "\"NEW_TRANSACTION\"", "{\"id\":\"inner\",\"type\":\"x\"}");
    struct message m = read_ok(text);
    ck_assert_ptr_eq(m.raw.ptr, text);
    ck_assert_uint_eq(m.raw.len, strlen(text));
    ck_assert(text_span_eq(m.id, "\"abc\""));
    ck_assert(text_span_eq(m.type, "\"NEW_TRANSACTION\""));
    ck_assert(text_span_eq(m.timestamp, "\"2026-01-31T12:00:00Z\""));
    ck_assert(text_span_eq(m.payload, "{\"id\":\"inner\",\"type\":\"x\"}"));
    ck_assert_uint_eq(m.origin.len, 0);
    ck_assert(m.has_id);
    ck_assert_uint_eq(m.id_hash, message_id_hash("abc", 3));
    ck_assert_uint_eq(m.type_hash, message_type_hash("new_transaction", 15));
    ck_assert_int_eq(m.event, EVENT_NEW_TRANSACTION);
    ck_assert_uint_eq(m.conflate_key, 0);
    ck_assert_int_eq(m.timestamp_us, INT64_C(1769860800000000));
}
END_TEST

START_TEST(the_reasons_for_refusal_are_those_of_the_scanner)
{
    struct message m;
    ck_assert_int_eq(message_read("", 0, &m), JSON_INVALID);
    ck_assert_int_eq(message_read("{\"a\":", 5, &m), JSON_INVALID);
    ck_assert_int_eq(message_read("{\"a\":\"\xFF\"}", 9, &m), JSON_INVALID_UTF8);
    ck_assert_int_eq(message_read("[1]", 3, &m), JSON_NOT_OBJECT);
    ck_assert_int_eq(message_read("\"x\"", 3, &m), JSON_NOT_OBJECT);
}
END_TEST

START_TEST(names_written_with_escapes_are_the_same_names)
{
    struct message m =
        read_ok("{\"i\\u0064\":\"abc\",\"\\u0074ype\":\"PING\",\"time\\u0073tamp\":"
                "\"2026-01-31T12:00:00Z\",\"\\u0070ayload\":{},\"connection\\u005fid\":\"c\"}");
    ck_assert_uint_eq(m.id_hash, message_id_hash("abc", 3));
    ck_assert_int_eq(m.event, EVENT_PING);
    ck_assert_int_ne(m.timestamp_us, 0);
    ck_assert(text_span_eq(m.payload, "{}"));
    ck_assert(text_span_eq(m.origin, "\"c\""));
    m = read_ok("{\"id2\":\"abc\",\"Type\":\"PING\",\"payloadx\":{}}");
    ck_assert_uint_eq(m.id.len + m.type.len + m.payload.len, 0);
}
END_TEST

START_TEST(the_last_of_a_repeated_name_counts)
{
    struct message m =
        read_ok("{\"id\":\"a\",\"id\":\"b\",\"type\":\"PING\",\"t\\u0079pe\":\"PONG\"}");
    ck_assert_uint_eq(m.id_hash, message_id_hash("b", 1));
    ck_assert_int_eq(m.event, EVENT_PONG);
    m = read_ok("{\"id\":\"a\",\"id\":null,\"type\":\"PING\"}");
    ck_assert(!m.has_id);
}
END_TEST

START_TEST(ids_are_compared_decoded)
{
    struct message m = read_ok("{\"id\":\"\\u0061\\/\xC3\xA9\\n\"}");
    ck_assert(m.has_id);
    ck_assert_uint_eq(m.id_hash, message_id_hash("a/\xC3\xA9\n", 5));
    /* longer than any buffer on the stack, with an escape */
    size_t len = 100000;
    char *id = malloc(len), *text = malloc(len + 32);
    memset(id, 'x', len);
    id[0] = 'a';
    int n = sprintf(text, "{\"id\":\"\\u0061");
    memcpy(text + n, id + 1, len - 1);
    strcpy(text + n + len - 1, "\"}");
    m = read_ok(text);
    ck_assert(m.has_id);
    ck_assert_uint_eq(m.id_hash, message_id_hash(id, len));
    free(id);
    free(text);
}
END_TEST

START_TEST(without_an_id_the_content_tells_messages_apart)
{
    const char *none[] = {"null", "17", "true", "{}", "[]", "\"\""};
    struct message plain = read_ok("{\"type\":\"A\",\"payload\":{\"x\":1}}");
    ck_assert(!plain.has_id);
    ck_assert_uint_ne(plain.id_hash, 0);
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        char text[128];
        snprintf(text, sizeof(text), "{\"id\":%s,\"type\":\"A\",\"payload\":{\"x\":1}}", none[i]);
        struct message m = read_ok(text);
        ck_assert_msg(!m.has_id, "%s", none[i]);
        ck_assert_uint_eq(m.id_hash, plain.id_hash);
    }
    ck_assert_uint_ne(read_ok("{\"type\":\"A\",\"payload\":{\"x\":2}}").id_hash, plain.id_hash);
    ck_assert_uint_ne(read_ok("{\"type\":\"B\",\"payload\":{\"x\":1}}").id_hash, plain.id_hash);
    ck_assert_uint_ne(read_ok("{\"x\":1}").id_hash, read_ok("{\"x\":2}").id_hash);
    ck_assert_uint_ne(read_ok("{}").id_hash, 0);
}
END_TEST

START_TEST(types_are_compared_without_regard_to_case)
{
    uint64_t hash = message_type_hash("BALANCE_UPDATE", 14);
    ck_assert_uint_eq(read_ok("{\"type\":\"balance_update\"}").type_hash, hash);
    ck_assert_uint_eq(read_ok("{\"type\":\"Balance_Updat\\u0065\"}").type_hash, hash);
    ck_assert_int_eq(read_ok("{\"type\":\"Balance_Updat\\u0065\"}").event, EVENT_BALANCE_UPDATE);
    ck_assert_uint_ne(read_ok("{\"type\":\"BALANCE_UPDATES\"}").type_hash, hash);
    ck_assert_int_eq(read_ok("{\"type\":\"BALANCE_UPDATES\"}").event, -1);
    ck_assert_uint_eq(read_ok("{}").type_hash, 0);
    ck_assert_uint_eq(read_ok("{\"type\":7}").type_hash, 0);
    ck_assert_uint_eq(read_ok("{\"type\":\"\"}").type_hash, 0);
    ck_assert_int_eq(read_ok("{\"type\":7}").event, -1);
    /* only ASCII letters have a case here */
    ck_assert_uint_ne(message_type_hash("\xC3\xA9", 2), message_type_hash("\xC3\x89", 2));
}
END_TEST

START_TEST(type_names_of_every_length_differ_in_their_last_letter)
{
    char a[600], b[600], upper[600];
    memset(a, 'q', sizeof(a));
    memset(upper, 'Q', sizeof(upper));
    for (size_t len = 1; len <= sizeof(a); len++) {
        memcpy(b, a, sizeof(a));
        b[len - 1] = 'z';
        ck_assert_uint_eq(message_type_hash(a, len), message_type_hash(upper, len));
        ck_assert_uint_ne(message_type_hash(a, len), message_type_hash(b, len));
        if (len > 1)
            ck_assert_uint_ne(message_type_hash(a, len), message_type_hash(a, len - 1));
    }
}
END_TEST

START_TEST(a_type_of_thousands_of_escapes_is_a_type_like_another)
{
    char *text = malloc(40000);
    int n = sprintf(text, "{\"type\":\"");
    for (int i = 0; i < 5000; i++)
        n += sprintf(text + n, "\\u0041");
    strcpy(text + n, "\"}");
    struct message m = read_ok(text);
    ck_assert_uint_ne(m.type_hash, 0);
    ck_assert_int_eq(m.event, -1);
    free(text);
}
END_TEST

static uint64_t key_of(const char *type, const char *payload)
{
    char text[512];
    snprintf(text, sizeof(text), "{\"id\":\"x\",\"type\":\"%s\",\"payload\":%s}", type, payload);
    return read_ok(text).conflate_key;
}

START_TEST(conflation_follows_the_table)
{
    uint64_t a = key_of("BALANCE_UPDATE", "{\"account_id\":\"a\",\"x\":1}");
    ck_assert_uint_ne(a, 0);
    ck_assert_uint_eq(key_of("balance_update", "{\"y\":2,\"account\\u005fid\":\"\\u0061\"}"), a);
    ck_assert_uint_ne(key_of("BALANCE_UPDATE", "{\"account_id\":\"b\"}"), a);
    ck_assert_uint_ne(key_of("BALANCE_UPDATE", "{\"account_id\":7}"), 0);
    const char *without[] = {"{}", "[]", "null", "{\"account_id\":null}", "{\"account_id\":{}}",
                             "{\"account_id\":\"\"}", "{\"account_id\":true}", "\"account_id\""};
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        ck_assert_msg(key_of("BALANCE_UPDATE", without[i]) == 0, "%s", without[i]);
    uint64_t dashboard = key_of("DASHBOARD_UPDATE", "{\"x\":1}");
    ck_assert_uint_ne(dashboard, 0);
    ck_assert_uint_eq(key_of("dashboard_update", "{\"x\":2}"), dashboard);
    ck_assert_uint_ne(dashboard, a);
    ck_assert_uint_ne(a, message_id_hash("a", 1)); /* a key is of a type and a field */
    ck_assert_uint_eq(key_of("NEW_TRANSACTION", "{\"account_id\":\"a\"}"), 0);
    ck_assert_uint_eq(key_of("SOMETHING_ELSE", "{\"account_id\":\"a\"}"), 0);
    ck_assert_uint_eq(read_ok("{\"type\":\"BALANCE_UPDATE\"}").conflate_key, 0);
}
END_TEST

START_TEST(timestamps_are_read_with_and_without_zone)
{
    ck_assert_int_eq(read_ok("{\"timestamp\":\"2026-01-31T12:00:00\"}").timestamp_us,
                     INT64_C(1769860800000000));
    ck_assert_int_eq(read_ok("{\"timestamp\":\"2026-01-31T13:00:00.5+01\\u003a00\"}").timestamp_us,
                     INT64_C(1769860800500000));
    ck_assert_int_eq(read_ok("{\"timestamp\":\"yesterday\"}").timestamp_us, 0);
    ck_assert_int_eq(read_ok("{\"timestamp\":1769860800}").timestamp_us, 0);
    ck_assert_int_eq(read_ok("{}").timestamp_us, 0);
}
END_TEST

static const struct message_style zoned = {false, true}, naive = {true, false};

START_TEST(what_is_written_is_read_again)
{
    struct text_buf out = {0};
    char id[UUID7_TEXT_BYTES] = "";
    int64_t before = clock_wall_us();
    message_write(&out, &zoned, NULL, "NOTIFICATION", "u\"1\"", text_span_of("{\"a\":[1]}"),
                  "ws:user:u", id);
    ck_assert(!out.failed);
    struct message m = read_ok(out.data);
    ck_assert_uint_eq(strlen(id), 36);
    ck_assert_uint_eq(m.id_hash, message_id_hash(id, 36));
    ck_assert_int_eq(m.event, EVENT_NOTIFICATION);
    ck_assert(text_span_eq(m.payload, "{\"a\":[1]}"));
    ck_assert_int_ge(m.timestamp_us, before);
    ck_assert_int_le(m.timestamp_us, clock_wall_us());
    ck_assert_ptr_nonnull(strstr(out.data, "\"user_id\":\"u\\\"1\\\"\""));
    ck_assert_ptr_nonnull(strstr(out.data, ",\"channel\":\"ws:user:u\"}"));
    ck_assert_int_eq(m.timestamp.ptr[m.timestamp.len - 2], 'Z');
    text_buf_free(&out);
}
END_TEST

START_TEST(parts_of_an_envelope_may_be_left_out)
{
    struct text_buf out = {0};
    text_adds(&out, "before ");
    message_write(&out, &naive, "", "pong", NULL, (struct text_span){NULL, 0}, NULL, NULL);
    char *at = strstr(out.data, "{\"type\":\"pong\",\"timestamp\":\"");
    ck_assert_ptr_eq(at, out.data + 7);
    ck_assert_ptr_nonnull(strstr(out.data, "\",\"payload\":{}}"));
    ck_assert_ptr_null(strchr(out.data, 'Z'));
    ck_assert_ptr_null(strstr(out.data, "user_id"));
    ck_assert_ptr_null(strstr(out.data, "\"id\""));
    text_buf_reset(&out);
    message_write(&out, &naive, "given", "x", "u", text_span_of("{}"), NULL, NULL);
    ck_assert_ptr_eq(strstr(out.data, "{\"id\":\"given\",\"type\":\"x\","), out.data);
    text_buf_free(&out);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("message");
    tcase_add_test(tc, an_envelope_is_read_in_place);
    tcase_add_test(tc, the_reasons_for_refusal_are_those_of_the_scanner);
    tcase_add_test(tc, names_written_with_escapes_are_the_same_names);
    tcase_add_test(tc, the_last_of_a_repeated_name_counts);
    tcase_add_test(tc, ids_are_compared_decoded);
    tcase_add_test(tc, without_an_id_the_content_tells_messages_apart);
    tcase_add_test(tc, types_are_compared_without_regard_to_case);
    tcase_add_test(tc, type_names_of_every_length_differ_in_their_last_letter);
    tcase_add_test(tc, a_type_of_thousands_of_escapes_is_a_type_like_another);
    tcase_add_test(tc, conflation_follows_the_table);
    tcase_add_test(tc, timestamps_are_read_with_and_without_zone);
    tcase_add_test(tc, what_is_written_is_read_again);
    tcase_add_test(tc, parts_of_an_envelope_may_be_left_out);
    Suite *s = suite_create("message");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
