#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/events.h"
#include "shared/json.h"

START_TEST(every_row_is_found_in_every_case)
{
    for (int i = 0; i < EVENT_TYPES; i++) {
        const struct event_row *row = &events_table[i];
        size_t len = strlen(row->upper);
        char mixed[64];
        ck_assert_uint_eq(strlen(row->lower), len);
        for (size_t j = 0; j <= len; j++)
            mixed[j] = j % 2 ? row->upper[j] : row->lower[j];
        ck_assert_int_eq(events_find(row->upper, len), i);
        ck_assert_int_eq(events_find(row->lower, len), i);
        ck_assert_int_eq(events_find(mixed, len), i);
        ck_assert_int_eq(events_find(row->upper, len - 1), -1);
    }
    ck_assert_str_eq(events_table[EVENT_BALANCE_UPDATE].lower, "balance_update");
    ck_assert_str_eq(events_table[EVENT_BALANCE_UPDATE].group, "account");
    ck_assert_int_eq(events_find("", 0), -1);
    ck_assert_int_eq(events_find("PING ", 5), -1);
    ck_assert_int_eq(events_find("PING\0", 5), -1);
    ck_assert_int_eq(events_find("\xF0ING", 4), -1);
    ck_assert_int_eq(events_find("NOTHING_LIKE_IT", 15), -1);
}
END_TEST

START_TEST(what_is_stored_is_as_the_protocol_says)
{
    for (int i = 0; i < EVENT_TYPES; i++) {
        enum event_store expected = i == EVENT_DASHBOARD_UPDATE ? EVENT_STORE_SNAPSHOT
                                    : i == EVENT_FULL_SYNC || i == EVENT_PING || i == EVENT_PONG
                                        ? EVENT_STORE_NONE
                                        : EVENT_STORE_LIST;
        ck_assert_msg(events_table[i].store == expected, "%s", events_table[i].upper);
    }
    ck_assert_str_eq(events_table[EVENT_BALANCE_UPDATE].conflate, "account_id");
    ck_assert_str_eq(events_table[EVENT_DASHBOARD_UPDATE].conflate, "*");
    ck_assert_str_eq(events_table[EVENT_NOTIFICATION].conflate, "");
}
END_TEST

START_TEST(a_near_miss_names_the_nearest)
{
    ck_assert_str_eq(events_nearest("NEW_TRANSACTON"), "NEW_TRANSACTION");
    ck_assert_str_eq(events_nearest("balance-update"), "BALANCE_UPDATE");
    ck_assert_str_eq(events_nearest("pin"), "PING");
    ck_assert_ptr_null(events_nearest("COMPLETELY_DIFFERENT"));
    ck_assert_ptr_null(events_nearest(""));
    char longest[500];
    memset(longest, 'A', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_ptr_null(events_nearest(longest));
}
END_TEST

/* A payload that satisfies a row: made from its fields, so that a new row is tested too. leave_out
 * and spoil name fields by number (-1: none); spoil_with is the raw value put there. */
static void make_payload(int event, bool optional, int leave_out, int spoil, const char *spoil_with,
                         struct text_buf *out)
{
    const char *spec = events_table[event].fields;
    text_buf_reset(out);
    text_adds(out, "{\"extra\":[{}]");
    for (int n = 0; *spec; n++) {
        char name[64], type;
        size_t len = strcspn(spec, "?:");
        bool is_optional = spec[len] == '?';
        snprintf(name, sizeof(name), "%.*s", (int)len, spec);
        type = spec[len + (is_optional ? 2 : 1)];
        spec += strcspn(spec, " ");
        spec += strspn(spec, " ");
        if (n == leave_out || (is_optional && !optional && n != spoil))
            continue;
        const char *value = type == 's'   ? "\"text\""
                            : type == 'i' ? "-12"
                            : type == 'n' ? "1.5e1"
                            : type == 'b' ? "true"
                            : type == 'o' ? "{}"
                            : type == 'a' ? "[]"
                            : type == 't' ? "\"2026-01-31T12:00:00Z\""
                            : type == 'p' ? "\"critical\""
                            : type == 'k' ? "\"warning\""
                                          : "false";
        text_addf(out, ",\"%s\":%s", name, n == spoil ? spoil_with : value);
    }
    text_adds(out, "}");
}

/* required: fields that must be there; not_null: of these, those that may not be null either. */
static int field_count(int event, int *required, int *not_null)
{
    int count = 0;
    *required = *not_null = 0;
    for (const char *spec = events_table[event].fields; *spec; count++) {
        size_t len = strcspn(spec, "?:");
        if (spec[len] == ':') {
            ++*required;
            *not_null += spec[len + 1] != 'x'; /* anything: null too */
        }
        spec += strcspn(spec, " ");
        spec += strspn(spec, " ");
    }
    return count;
}

static int check(int event, const struct text_buf *payload, char *why)
{
    return events_check_payload(event, (struct text_span){payload->data, payload->len}, why, 200);
}

START_TEST(every_row_accepts_what_it_asks_for_and_misses_each_required_field)
{
    struct text_buf p = {0};
    char why[200] = "";
    for (int e = 0; e < EVENT_TYPES; e++) {
        int required, not_null, count = field_count(e, &required, &not_null), missed = 0;
        make_payload(e, true, -1, -1, NULL, &p);
        ck_assert_msg(check(e, &p, why) == 0, "%s: %s", events_table[e].upper, why);
        make_payload(e, false, -1, -1, NULL, &p);
        ck_assert_msg(check(e, &p, why) == 0, "%s: %s", events_table[e].upper, why);
        for (int i = 0; i < count; i++) {
            make_payload(e, true, i, -1, NULL, &p);
            if (check(e, &p, why) == 0)
                continue;
            missed++;
            ck_assert_msg(strstr(why, "is missing") != NULL, "%s", why);
        }
        ck_assert_msg(missed == required, "%s", events_table[e].upper);
        for (int i = 0; i < count; i++) { /* null is no value, but an optional field may have it */
            make_payload(e, true, -1, i, "null", &p);
            not_null -= check(e, &p, why) != 0;
        }
        ck_assert_int_eq(not_null, 0);
    }
    text_buf_free(&p);
}
END_TEST

static const char *complaint(int event, const char *payload)
{
    static char why[200];
    snprintf(why, sizeof(why), "accepted");
    int r = events_check_payload(event, text_span_of(payload), why, sizeof(why));
    ck_assert(r == 0 || r == -EINVAL);
    return why;
}

#define ALERT(more) \
    "{\"alert_type\":\"x\",\"message\":\"m\",\"system_wide\":true,\"created_at\":\"now\"" more "}"

START_TEST(complaints_name_field_expectation_and_what_came)
{
    const int e = EVENT_SYSTEM_ALERT;
    ck_assert_str_eq(complaint(e, ALERT(",\"priority\":\"low\"")), "accepted");
    ck_assert_str_eq(complaint(e, ALERT(",\"priority\":\"\\u006cow\"")), "accepted");
    ck_assert_str_eq(complaint(e, ALERT(",\"priority\":\"LOW\"")),
                     "priority: must be low, medium, high or critical, is another string");
    ck_assert_str_eq(complaint(e, ALERT(",\"priority\":3")),
                     "priority: must be low, medium, high or critical, is a number");
    ck_assert_str_eq(complaint(e, ALERT("")),
                     "priority: must be low, medium, high or critical, is missing");
    ck_assert_str_eq(complaint(e, ALERT(",\"priority\":\"low\",\"message\":[]")),
                     "message: must be a string, is an array");
    ck_assert_str_eq(complaint(e, ALERT(",\"priority\":\"low\",\"system_wide\":\"yes\"")),
                     "system_wide: must be true or false, is a string");
    ck_assert_str_eq(complaint(e, "[]"),
                     "payload: must be a JSON object, is JSON, but not an object");
    ck_assert_str_eq(complaint(e, "{"), "payload: must be a JSON object, is not JSON");
    ck_assert_str_eq(complaint(e, ""), "payload: must be a JSON object, is not JSON");
    ck_assert_str_eq(complaint(-1, "{\"any\":1}"), "accepted");
    ck_assert_str_eq(complaint(-1, "1"),
                     "payload: must be a JSON object, is JSON, but not an object");
    ck_assert_str_eq(complaint(EVENT_TRANSACTION_DELETED, "{\"id\":7}"),
                     "id: must be a string, is a number");
    ck_assert_str_eq(complaint(EVENT_TRANSACTION_DELETED, "{\"id\":7,\"i\\u0064\":\"x\"}"),
                     "accepted");
}
END_TEST

START_TEST(integers_are_written_as_integers)
{
    struct text_buf p = {0};
    char why[200];
    const char *good[] = {"0", "-0", "12345678901234567890"};
    const char *bad[] = {"1.0", "1e3", "1E3", "\"1\"", "true", "null", "{}"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        make_payload(EVENT_BALANCE_UPDATE, true, -1, 2, good[i], &p);
        ck_assert_msg(check(EVENT_BALANCE_UPDATE, &p, why) == 0, "%s", good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        make_payload(EVENT_BALANCE_UPDATE, true, -1, 2, bad[i], &p);
        ck_assert_msg(check(EVENT_BALANCE_UPDATE, &p, why) == -EINVAL, "%s", bad[i]);
        ck_assert_ptr_eq(strstr(why, "old_balance_cents: must be an integer, is "), why);
    }
    text_buf_free(&p);
}
END_TEST

START_TEST(a_complaint_is_cut_to_its_room_and_holds_no_payload)
{
    char why[16];
    memset(why, 'x', sizeof(why));
    ck_assert_int_eq(events_check_payload(EVENT_TRANSACTION_DELETED, text_span_of("{}"), why, 10),
                     -EINVAL);
    ck_assert_str_eq(why, "id: must ");
    ck_assert_int_eq(why[10], 'x');
    ck_assert_ptr_null(
        strstr(complaint(EVENT_SYSTEM_ALERT, ALERT(",\"priority\":\"s3cret\"")), "s3cret"));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("events");
    tcase_add_test(tc, every_row_is_found_in_every_case);
    tcase_add_test(tc, what_is_stored_is_as_the_protocol_says);
    tcase_add_test(tc, a_near_miss_names_the_nearest);
    tcase_add_test(tc, every_row_accepts_what_it_asks_for_and_misses_each_required_field);
    tcase_add_test(tc, complaints_name_field_expectation_and_what_came);
    tcase_add_test(tc, integers_are_written_as_integers);
    tcase_add_test(tc, a_complaint_is_cut_to_its_room_and_holds_no_payload);
    Suite *s = suite_create("events");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
