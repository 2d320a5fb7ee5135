#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/message.h"
#include "shared/pack.h"
#include "workers/filter.h"

static bool allows(const struct filter *f, const char *type)
{
    return filter_allows(f, message_type_hash(type, strlen(type)));
}

static int subscribe(struct filter **f, const char *type)
{
    return filter_subscribe(f, text_span_of(type));
}

static int unsubscribe(struct filter **f, const char *type)
{
    return filter_unsubscribe(f, text_span_of(type));
}

static void assert_json(const struct filter *f, const char *expected)
{
    struct text_buf out = {0};
    filter_json(f, &out);
    ck_assert_str_eq(out.data, expected);
    text_buf_free(&out);
}

START_TEST(everything_passes_without_a_filter)
{
    ck_assert(allows(NULL, "BUDGET_ALERT"));
    ck_assert(filter_allows(NULL, 0));
    assert_json(NULL, "[]");
}
END_TEST

START_TEST(the_first_subscribe_starts_a_list_in_which_case_does_not_matter)
{
    struct filter *f = NULL;
    ck_assert_int_eq(subscribe(&f, "Budget_alert"), 0);
    ck_assert(allows(f, "BUDGET_ALERT"));
    ck_assert(allows(f, "budget_alert"));
    ck_assert(!allows(f, "NOTIFICATION"));
    ck_assert(!filter_allows(f, 0));
    assert_json(f, "[\"Budget_alert\"]");
    filter_free(f);
}
END_TEST

START_TEST(a_type_subscribed_twice_stands_in_the_list_once)
{
    struct filter *f = NULL;
    ck_assert_int_eq(subscribe(&f, "A"), 0);
    ck_assert_int_eq(subscribe(&f, "a"), 0);
    ck_assert_int_eq(subscribe(&f, "B"), 0);
    assert_json(f, "[\"A\",\"B\"]");
    ck_assert_int_eq(unsubscribe(&f, "A"), 0);
    ck_assert(!allows(f, "A"));
    assert_json(f, "[\"B\"]");
    filter_free(f);
}
END_TEST

START_TEST(unsubscribe_takes_from_the_list_and_an_empty_list_lets_nothing_pass)
{
    struct filter *f = NULL;
    ck_assert_int_eq(subscribe(&f, "A"), 0);
    ck_assert_int_eq(unsubscribe(&f, "A"), 0);
    ck_assert(!allows(f, "A"));
    ck_assert(!allows(f, "B"));
    ck_assert_int_eq(unsubscribe(&f, "NEVER_THERE"), 0);
    assert_json(f, "[]");
    filter_free(f);
}
END_TEST

START_TEST(unsubscribe_without_a_list_excludes)
{
    struct filter *f = NULL;
    ck_assert_int_eq(unsubscribe(&f, "A"), 0);
    ck_assert_int_eq(unsubscribe(&f, "B"), 0);
    ck_assert(!allows(f, "a"));
    ck_assert(!allows(f, "B"));
    ck_assert(allows(f, "C"));
    ck_assert(filter_allows(f, 0));
    assert_json(f, "[]");
    filter_free(f);
}
END_TEST

START_TEST(a_subscribe_after_exclusions_starts_a_list)
{
    struct filter *f = NULL;
    ck_assert_int_eq(unsubscribe(&f, "A"), 0);
    ck_assert_int_eq(subscribe(&f, "B"), 0);
    ck_assert(!allows(f, "A"));
    ck_assert(allows(f, "B"));
    ck_assert(!allows(f, "C"));
    ck_assert_int_eq(subscribe(&f, "A"), 0);
    ck_assert(allows(f, "A"));
    filter_free(f);
}
END_TEST

START_TEST(names_that_are_empty_or_too_long_are_refused_and_change_nothing)
{
    char longest[FILTER_MAX_NAME_BYTES + 2];
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = 0;

    struct filter *f = NULL;
    ck_assert_int_eq(subscribe(&f, ""), -EINVAL);
    ck_assert_int_eq(subscribe(&f, longest), -EINVAL);
    ck_assert_int_eq(unsubscribe(&f, longest), -EINVAL);
    ck_assert_int_eq(filter_subscribe(&f, (struct text_span){"a\0b", 3}), -EINVAL);
    ck_assert_ptr_null(f);
    ck_assert_int_eq(subscribe(&f, longest + 1), 0);
    ck_assert(allows(f, longest + 1));
    filter_free(f);
}
END_TEST

START_TEST(the_number_of_names_is_bounded_in_lists_and_exclusions)
{
    for (int excluding = 0; excluding < 2; excluding++) {
        struct filter *f = NULL;
        int (*take)(struct filter **, const char *) = excluding ? unsubscribe : subscribe;
        char name[16];
        for (int i = 0; i < FILTER_MAX_TYPES; i++) {
            snprintf(name, sizeof(name), "TYPE_%d", i);
            ck_assert_int_eq(take(&f, name), 0);
        }
        ck_assert_int_eq(take(&f, "ONE_MORE"), -ENOSPC);
        ck_assert_int_eq(take(&f, "type_5"), 0);
        ck_assert_int_eq(allows(f, "TYPE_63"), !excluding);
        ck_assert_int_eq(allows(f, "ONE_MORE"), excluding);
        filter_free(f);
    }
}
END_TEST

START_TEST(a_query_value_is_a_list_with_blanks_and_empty_names_skipped)
{
    struct filter *f = NULL;
    ck_assert_int_eq(filter_parse(&f, ""), 0);
    ck_assert_int_eq(filter_parse(&f, " , ,"), 0);
    ck_assert_ptr_null(f);
    ck_assert_int_eq(filter_parse(&f, "budget_alert, NOTIFICATION ,,"), 0);
    ck_assert(allows(f, "BUDGET_ALERT"));
    ck_assert(allows(f, "NOTIFICATION"));
    ck_assert(!allows(f, "PING"));
    assert_json(f, "[\"budget_alert\",\"NOTIFICATION\"]");
    filter_free(f);
}
END_TEST

START_TEST(a_query_value_with_a_bad_name_is_refused)
{
    char value[FILTER_MAX_NAME_BYTES + 8] = "A,";
    memset(value + 2, 'x', FILTER_MAX_NAME_BYTES + 1);
    struct filter *f = NULL;
    ck_assert_int_eq(filter_parse(&f, value), -EINVAL);
    filter_free(f);
}
END_TEST

START_TEST(a_copy_is_equal_and_independent)
{
    struct filter *f = NULL, *copy = NULL;
    ck_assert_int_eq(filter_copy(NULL, &copy), 0);
    ck_assert_ptr_null(copy);
    ck_assert_int_eq(filter_parse(&f, "A,B"), 0);
    ck_assert_int_eq(filter_copy(f, &copy), 0);
    ck_assert_int_eq(unsubscribe(&copy, "A"), 0);
    ck_assert(allows(f, "A"));
    ck_assert(!allows(copy, "A"));
    ck_assert(allows(copy, "B"));
    filter_free(f);
    assert_json(copy, "[\"B\"]");
    filter_free(copy);
}
END_TEST

static void is_described(const struct filter *f, const char *text)
{
    struct text_buf b = {0};
    filter_describe(f, &b);
    ck_assert_str_eq(b.data, text);
    text_buf_free(&b);
}

START_TEST(a_description_tells_lists_from_exclusions_and_has_an_end)
{
    struct filter *f = NULL;
    struct text_buf b = {0};
    is_described(NULL, "null");
    ck_assert_int_eq(filter_unsubscribe(&f, text_span_of("a\"b")), 0);
    is_described(f, "{\"except\":[\"a\\\"b\"]}");
    ck_assert_int_eq(filter_parse(&f, "X,y"), 0);
    is_described(f, "{\"only\":[\"X\",\"y\"]}");
    ck_assert_int_eq(filter_unsubscribe(&f, text_span_of("x")), 0);
    ck_assert_int_eq(filter_unsubscribe(&f, text_span_of("y")), 0);
    is_described(f, "{\"only\":[]}");
    for (int i = 0; i < FILTER_MAX_TYPES; i++) {
        char name[FILTER_MAX_NAME_BYTES + 1];
        snprintf(name, sizeof(name), "%060d", i);
        ck_assert_int_eq(filter_subscribe(&f, text_span_of(name)), 0);
    }
    filter_describe(f, &b);
    ck_assert_uint_lt(b.len, FILTER_DESCRIBED_BYTES * 2);
    ck_assert_ptr_nonnull(strstr(b.data, "],\"more\":48}"));
    text_buf_free(&b);
    filter_free(f);
}
END_TEST

START_TEST(a_filter_moves_to_another_process)
{
    struct filter *f = NULL, *moved = NULL;
    struct text_buf out = {0};
    filter_save(NULL, &out);
    ck_assert_int_eq(filter_restore((struct text_span){out.data, out.len}, &moved), 0);
    ck_assert_ptr_null(moved);
    ck_assert_int_eq(subscribe(&f, "BUDGET_ALERT"), 0);
    ck_assert_int_eq(subscribe(&f, "x"), 0);
    filter_save(f, &out);
    ck_assert_int_eq(filter_restore((struct text_span){out.data, out.len}, &moved), 0);
    assert_json(moved, "[\"BUDGET_ALERT\",\"x\"]");
    ck_assert(allows(moved, "budget_alert") && !allows(moved, "OTHER"));
    filter_free(moved);
    for (size_t len = 1; len < out.len; len++) {
        int rc = filter_restore((struct text_span){out.data, len}, &moved);
        ck_assert(rc == -EBADMSG || rc == 0); /* 0: between two names */
        filter_free(moved);
    }
    filter_free(f);
    f = NULL;
    ck_assert_int_eq(unsubscribe(&f, "OTHER"), 0); /* everything but */
    text_buf_reset(&out);
    filter_save(f, &out);
    ck_assert_int_eq(filter_restore((struct text_span){out.data, out.len}, &moved), 0);
    ck_assert(allows(moved, "budget_alert") && !allows(moved, "OTHER"));
    filter_free(f);
    filter_free(moved);
    text_buf_free(&out);
}
END_TEST

START_TEST(a_damaged_filter_is_refused)
{
    struct filter *moved = NULL;
    struct text_buf out = {0};
    pack_u8(&out, 1);
    pack_bytes(&out, "", 0);
    ck_assert_int_eq(filter_restore((struct text_span){out.data, out.len}, &moved), -EBADMSG);
    text_buf_reset(&out);
    pack_u8(&out, 1);
    for (int i = 0; i <= FILTER_MAX_TYPES; i++) {
        char name[16];
        pack_bytes(&out, name, (size_t)snprintf(name, sizeof(name), "T%d", i));
    }
    ck_assert_int_eq(filter_restore((struct text_span){out.data, out.len}, &moved), -EBADMSG);
    ck_assert_ptr_null(moved);
    text_buf_free(&out);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("filter");
    tcase_add_test(tc, a_filter_moves_to_another_process);
    tcase_add_test(tc, a_damaged_filter_is_refused);
    tcase_add_test(tc, everything_passes_without_a_filter);
    tcase_add_test(tc, the_first_subscribe_starts_a_list_in_which_case_does_not_matter);
    tcase_add_test(tc, a_type_subscribed_twice_stands_in_the_list_once);
    tcase_add_test(tc, unsubscribe_takes_from_the_list_and_an_empty_list_lets_nothing_pass);
    tcase_add_test(tc, unsubscribe_without_a_list_excludes);
    tcase_add_test(tc, a_subscribe_after_exclusions_starts_a_list);
    tcase_add_test(tc, names_that_are_empty_or_too_long_are_refused_and_change_nothing);
    tcase_add_test(tc, the_number_of_names_is_bounded_in_lists_and_exclusions);
    tcase_add_test(tc, a_query_value_is_a_list_with_blanks_and_empty_names_skipped);
    tcase_add_test(tc, a_query_value_with_a_bad_name_is_refused);
    tcase_add_test(tc, a_copy_is_equal_and_independent);
    tcase_add_test(tc, a_description_tells_lists_from_exclusions_and_has_an_end);
    Suite *s = suite_create("filter");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
