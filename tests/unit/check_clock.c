#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/clock.h"

START_TEST(clocks_agree_with_the_system_and_do_not_run_backwards)
{
    int64_t wall_s = (int64_t)time(NULL);
    ck_assert(llabs(clock_wall_ms() / 1000 - wall_s) <= 1);
    ck_assert(llabs(clock_wall_us() / 1000000 - wall_s) <= 1);
    int64_t last = clock_mono_us();
    for (int i = 0; i < 10000; i++) {
        int64_t now = clock_mono_us();
        ck_assert(now >= last);
        last = now;
    }
    ck_assert(llabs(clock_mono_ms() - last / 1000) < 1000);
}
END_TEST

START_TEST(known_times_are_written)
{
    char out[CLOCK_ISO_BYTES];
    clock_format_us(0, true, out);
    ck_assert_str_eq(out, "1970-01-01T00:00:00.000000Z");
    clock_format_us(INT64_C(1769860800123456), true, out);
    ck_assert_str_eq(out, "2026-01-31T12:00:00.123456Z");
    clock_format_us(INT64_C(1769860800123456), false, out);
    ck_assert_str_eq(out, "2026-01-31T12:00:00.123456");
    clock_format_us(-1, true, out);
    ck_assert_str_eq(out, "1969-12-31T23:59:59.999999Z");
    clock_format_us(INT64_MAX, true, out);
    ck_assert_int_eq(strncmp(out, "9999-", 5), 0);
    clock_format_us(INT64_MIN, true, out);
    ck_assert_int_eq(strncmp(out, "0000-", 5), 0);
}
END_TEST

START_TEST(every_day_of_eight_hundred_years_agrees_with_the_c_library)
{
    for (int64_t day = -150000; day < 150000; day++) {
        time_t t = (time_t)(day * 86400 + 3661);
        struct tm tm;
        char expected[64], out[CLOCK_ISO_BYTES];
        gmtime_r(&t, &tm);
        strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.000042Z", &tm);
        clock_format_us((int64_t)t * 1000000 + 42, true, out);
        if (strcmp(out, expected))
            ck_abort_msg("%s instead of %s", out, expected);
        int64_t back = -1;
        if (clock_parse_us(out, strlen(out), &back) || back != (int64_t)t * 1000000 + 42)
            ck_abort_msg("%s is read as %lld", out, (long long)back);
    }
}
END_TEST

static void assert_read(const char *s, int64_t expected_us)
{
    int64_t us = -7;
    ck_assert_msg(clock_parse_us(s, strlen(s), &us) == 0, "%s", s);
    ck_assert_msg(us == expected_us, "%s is %lld", s, (long long)us);
}

START_TEST(all_forms_are_read)
{
    const int64_t noon = INT64_C(1769860800000000);
    assert_read("2026-01-31T12:00:00Z", noon);
    assert_read("2026-01-31t12:00:00z", noon);
    assert_read("2026-01-31T12:00:00", noon);
    assert_read("2026-01-31 12:00:00", noon);
    assert_read("2026-01-31T12:00:00.5", noon + 500000);
    assert_read("2026-01-31T12:00:00.123Z", noon + 123000);
    assert_read("2026-01-31T12:00:00.123456", noon + 123456);
    assert_read("2026-01-31T12:00:00.123456789Z", noon + 123456);
    assert_read("2026-01-31T13:00:00+01:00", noon);
    assert_read("2026-01-31T13:30:00+0130", noon);
    assert_read("2026-01-31T04:00:00.25-08", noon + 250000);
    assert_read("2026-01-31T12:00:00-00:00", noon);
    assert_read("2024-02-29T00:00:00Z", INT64_C(1709164800000000));
    assert_read("2016-12-31T23:59:60Z", INT64_C(1483228800000000));
    assert_read("1969-12-31T23:59:59.9Z", -100000);
}
END_TEST

START_TEST(what_is_no_time_is_refused)
{
    static const char *const bad[] = {
        "",
        "2026-01-31",
        "2026-01-31T12:00",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T12:60:00Z",
        "2026-01-31T12:00:61Z",
        "2026-01-31T12:00:00.Z",
        "2026-01-31T12:00:00,5Z",
        "2026-01-31T12:00:00.1234567890Z",
        "2026-01-31T12:00:00ZZ",
        "2026-01-31T12:00:00 Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31T12:00:00+01:60",
        "2026-01-31T12:00:00+1",
        "2026-01-31T12:00:00+01:",
        "2026-01-31T12:00:00+01:0",
        "2026-01-31T12:00:00+",
        "2026/01/31T12:00:00Z",
        "26-01-31T12:00:00Z",
        "+2026-01-31T12:00:00Z",
        "2026-01-31X12:00:00Z",
        "1769860800",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        int64_t us = -7;
        ck_assert_msg(clock_parse_us(bad[i], strlen(bad[i]), &us) == -EINVAL, "%s", bad[i]);
        ck_assert(us == -7);
    }
    int64_t us;
    ck_assert_int_eq(clock_parse_us("2026-01-31\0" "12:00:00Z", 20, &us), -EINVAL);
    ck_assert_int_eq(clock_parse_us("2026-01-31T12:00:00\0", 20, &us), -EINVAL);
}
END_TEST

START_TEST(a_time_cut_short_is_read_within_its_length)
{
    const char *whole = "2026-01-31T12:00:00.123456+01:30";
    for (size_t len = 0; len <= strlen(whole); len++) {
        char *copy = malloc(len ? len : 1); /* exact: a sanitizer sees one byte more */
        int64_t us;
        memcpy(copy, whole, len);
        int rc = clock_parse_us(copy, len, &us);
        /* Good without fraction, with any digit of it, and with +01, +01:30. */
        bool good = len == 19 || (len >= 21 && len <= 26) || len == 29 || len == 32;
        ck_assert_msg(rc == (good ? 0 : -EINVAL), "%zu bytes", len);
        free(copy);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("clock");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, clocks_agree_with_the_system_and_do_not_run_backwards);
    tcase_add_test(tc, known_times_are_written);
    tcase_add_test(tc, every_day_of_eight_hundred_years_agrees_with_the_c_library);
    tcase_add_test(tc, all_forms_are_read);
    tcase_add_test(tc, what_is_no_time_is_refused);
    tcase_add_test(tc, a_time_cut_short_is_read_within_its_length);
    Suite *s = suite_create("clock");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
