#include "config.h"

#include <check.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/json.h"
#include "src/rates.h"

static struct counters counters;
static struct ev_loop *loop;
static struct rates *rates;
static struct text_buf b;

static void setup(void)
{
    ck_assert_int_eq(counters_create(&counters, 3), 0);
    loop = ev_loop_new(EVFLAG_AUTO);
    rates = rates_new(loop, &counters);
    ck_assert_ptr_nonnull(rates);
    b = (struct text_buf){0};
}

static void teardown(void)
{
    text_buf_free(&b);
    rates_free(rates);
    ev_loop_destroy(loop);
    counters_destroy(&counters);
}

static double member(int slot, const char *name)
{
    struct text_span value;
    char text[40] = "";
    text_buf_reset(&b);
    rates_write(rates, slot, &b);
    ck_assert_int_eq(json_scan_object(b.data, b.len, NULL, NULL), JSON_OK);
    ck_assert(json_find((struct text_span){b.data, b.len}, name, &value));
    memcpy(text, value.ptr, value.len < sizeof(text) ? value.len : sizeof(text) - 1);
    return strcmp(text, "null") ? strtod(text, NULL) : -1;
}

/* What is told a moment later is told of a longer time. */
static void is_about(double rate, double sum, double seconds_before, double seconds_after)
{
    ck_assert_double_le(rate, sum / seconds_before + 0.1);
    ck_assert_double_ge(rate, sum / seconds_after - 0.1);
}

START_TEST(a_rate_is_what_came_since_by_the_time_it_took)
{
    counters_attach(&counters, 1);
    counters_add(CTR_messages_received, 700);
    counters_add(CTR_sent_bytes, 1000000);
    counters_attach(&counters, 2);
    counters_add(CTR_messages_received, 300);
    usleep(20000);
    double before = member(-1, "seconds"), rate = member(1, "received");
    double all = member(-1, "received"), bytes = member(1, "sent_bytes");
    double after = member(-1, "seconds");
    ck_assert_double_ge(before, 0.02);
    is_about(rate, 700, before - 0.001, after + 0.001);
    is_about(all, 1000, before - 0.001, after + 0.001);
    is_about(bytes, 1e6, before - 0.001, after + 0.001);
    ck_assert_double_eq(member(0, "received"), 0);
    ck_assert_double_eq(member(1, "delivered"), 0);
}
END_TEST

START_TEST(processor_time_is_told_of_a_process_that_is_there)
{
    ck_assert_double_eq(member(0, "cpu_percent"), -1);
    ck_assert_double_eq(member(-1, "cpu_percent"), -1);
    counters.slots[0].pid = (uint32_t)getpid();
    ck_assert_double_ge(member(0, "cpu_percent"), 0);
    ck_assert_double_ge(member(-1, "cpu_percent"), 0);
    ck_assert_double_eq(member(1, "cpu_percent"), -1);
}
END_TEST

START_TEST(latency_is_that_of_the_last_seconds)
{
    struct text_buf text = {0};
    struct text_span latency;
    counters_attach(&counters, 1);
    rates_write(rates, 1, &text);
    ck_assert(strstr(text.data, "\"delivery_ms\":null"));
    counters_delivered(300, 100); /* 200 to 500 us */
    text_buf_reset(&text);
    rates_write(rates, -1, &text);
    ck_assert(json_find((struct text_span){text.data, text.len}, "delivery_ms", &latency));
    ck_assert(text_span_eq(latency, "{\"p50\":0.350,\"p99\":0.497}"));
    text_buf_free(&text);
}
END_TEST

START_TEST(what_is_older_than_the_window_is_forgotten)
{
    counters_attach(&counters, 1);
    counters_add(CTR_commands, 1000000);
    for (int i = 0; i < RATES_WINDOW_S; i++) {
        ck_assert_double_gt(member(1, "commands"), 0);
        rates_look(rates);
    }
    ck_assert_double_gt(member(1, "commands"), 0);
    rates_look(rates);
    ck_assert_double_eq(member(1, "commands"), 0);
    counters_add(CTR_commands, 1000000);
    ck_assert_double_gt(member(1, "commands"), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rates");
    TCase *t = tcase_create("rates");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_rate_is_what_came_since_by_the_time_it_took);
    tcase_add_test(t, processor_time_is_told_of_a_process_that_is_there);
    tcase_add_test(t, latency_is_that_of_the_last_seconds);
    tcase_add_test(t, what_is_older_than_the_window_is_forgotten);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
