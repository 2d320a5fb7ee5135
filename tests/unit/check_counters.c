#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/closes.h"
#include "shared/counters.h"
#include "shared/json.h"

static struct counters c;

static void setup(void)
{
    ck_assert_int_eq(counters_create(&c, 3), 0);
}

static void teardown(void)
{
    counters_destroy(&c);
}

START_TEST(rows_are_in_the_order_of_their_ids)
{
    ck_assert_str_eq(counters_table[CTR_connections].name, "connections");
    ck_assert_int_eq(counters_table[CTR_connections].kind, COUNTER_GAUGE);
    ck_assert_int_eq(counters_table[CTR_deliveries].kind, COUNTER_TOTAL);
    ck_assert_str_eq(counters_table[CTR_deliveries].group, "messages");
    ck_assert_str_eq(counters_table[CTR_CLOSED_NO_PONG].name, "closed_no_pong");
    ck_assert_str_eq(counters_table[CTR_CLOSED_NO_PONG].group, "closes");
    ck_assert_int_eq(CTR_CLOSED_FIRST + CLOSE_NO_PONG, CTR_CLOSED_NO_PONG);
    ck_assert_int_eq(CTR_CLOSED_FIRST + CLOSE_REASONS, COUNTERS);
    for (int i = 0; i < COUNTERS; i++)
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(counters_table[i].name, counters_table[j].name);
}
END_TEST

START_TEST(counting_without_a_slot_goes_nowhere)
{
    struct counters_slot *private = counters_self;
    counters_inc(CTR_commands);
    ck_assert_uint_eq(counters_sum(&c, CTR_commands), 0);
    counters_attach(&c, 1);
    ck_assert_ptr_ne(counters_self, private);
    counters_inc(CTR_commands);
    ck_assert_uint_eq(counters_sum(&c, CTR_commands), 1);
}
END_TEST

START_TEST(slots_are_pages_and_only_so_many)
{
    struct counters many;
    ck_assert_int_eq(counters_create(&many, 0), -EINVAL);
    ck_assert_int_eq(counters_create(&many, COUNTERS_MAX_SLOTS + 1), -EINVAL);
    ck_assert_int_eq(counters_create(&many, COUNTERS_MAX_SLOTS), 0);
    ck_assert_uint_eq((uintptr_t)&many.slots[1] % COUNTERS_SLOT_BYTES, 0);
    counters_attach(&many, COUNTERS_MAX_SLOTS - 1);
    counters_inc(CTR_acks);
    ck_assert_uint_eq(counters_get(&many, COUNTERS_MAX_SLOTS - 1, CTR_acks), 1);
    ck_assert_uint_eq(many.head->slots, COUNTERS_MAX_SLOTS);
    counters_destroy(&many);
    counters_inc(CTR_acks); /* of the private slot again, not of memory that is gone */
    counters_destroy(&many);
    counters_destroy(NULL);
}
END_TEST

START_TEST(totals_outlive_their_worker_and_gauges_do_not)
{
    for (int generation = 1; generation <= 3; generation++) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            counters_attach(&c, 2);
            counters_set(CTR_websockets, 7);
            counters_add(CTR_sent_bytes, 1000);
            counters_dec(CTR_websockets);
            _exit(counters_get(&c, 2, CTR_websockets) == 6 ? 0 : 1);
        }
        int status;
        waitpid(pid, &status, 0);
        ck_assert_int_eq(status, 0);
        ck_assert_uint_eq(counters_get(&c, 2, CTR_websockets), 6);
        c.slots[2].pid = (uint32_t)pid;
        c.slots[2].state = SLOT_READY;
        counters_retire(&c, 2);
        ck_assert_uint_eq(c.slots[2].pid, 0);
        ck_assert_uint_eq(c.slots[2].state, SLOT_EMPTY);
        ck_assert_uint_eq(counters_get(&c, 2, CTR_websockets), 0);
        ck_assert_uint_eq(counters_sum(&c, CTR_sent_bytes), 1000 * (uint64_t)generation);
    }
    counters_set(CTR_websockets, 9);
    counters_attach(&c, 2); /* a gauge left behind by a worker that nobody retired */
    ck_assert_uint_eq(counters_get(&c, 2, CTR_websockets), 0);
    ck_assert_uint_eq(counters_get(&c, 2, CTR_sent_bytes), 3000);
}
END_TEST

START_TEST(a_websocket_on_its_way_is_counted_once)
{
    counters_attach(&c, 0);
    counters_set(CTR_websockets, 2);
    counters_depart(&c);
    ck_assert_uint_eq(counters_get(&c, 0, CTR_websockets), 1);
    ck_assert_uint_eq(counters_sum(&c, CTR_websockets), 2);
    counters_attach(&c, 1);
    counters_arrive(&c, 0);
    ck_assert_uint_eq(counters_get(&c, 1, CTR_websockets), 1);
    ck_assert_uint_eq(counters_sum(&c, CTR_websockets), 2);
    counters_arrive(&c, 0); /* from one of whom nothing is known any more */
    ck_assert_uint_eq(c.slots[0].on_the_way, 0);
    ck_assert_uint_eq(counters_sum(&c, CTR_websockets), 3);
    counters_depart(&c);
    counters_retire(&c, 1);
    ck_assert_uint_eq(counters_sum(&c, CTR_websockets), 1);
}
END_TEST

static void fill(void)
{
    for (uint32_t slot = 0; slot < 2; slot++) {
        c.slots[slot].generation = 1;
        counters_attach(&c, slot);
        counters_set(CTR_websockets, 10 + slot);
        counters_set(CTR_redis_latency_us, 1500000 - 400000 * slot);
        counters_set(CTR_started_at_ms, 1769860800123);
        counters_add(CTR_received_bytes, 5);
        counters_inc(CTR_CLOSED_NO_PONG);
        counters_turn(1000);
        counters_turn(1001);
        counters_turn(3000000);
        counters_delivered(50, 7);
        counters_delivered(51, 1);
        counters_delivered(6000000, 2);
    }
    counters_retire(&c, 1);
}

START_TEST(groups_are_json_objects_of_one_slot_or_of_all)
{
    static const char *const groups[] = {"connections", "http",    "messages", "client", "redis",
                                         "process",     "latency", "turns",    "closes"};
    struct text_buf out = {0};
    size_t names = 0;
    fill();
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
        for (int slot = -1; slot < 3; slot++) {
            text_buf_reset(&out);
            counters_json_group(&c, slot, groups[g], &out);
            ck_assert_int_eq(json_scan_object(out.data, out.len, NULL, NULL), JSON_OK);
            ck_assert_int_ne(out.data[1], '}');
            for (const char *p = out.data; slot < 0 && *p; p++)
                names += *p == ':';
        }
    ck_assert_uint_eq(names, COUNTERS); /* no row's group is none of these */
    struct text_span all, v;
    text_buf_reset(&out);
    counters_json_group(&c, -1, "client", &out);
    all = (struct text_span){out.data, out.len};
    ck_assert(json_find(all, "received_bytes", &v));
    ck_assert(text_span_eq(v, "10"));
    text_buf_reset(&out);
    counters_attach(&c, 1);
    counters_set(CTR_redis_latency_us, 1100000);
    counters_json_group(&c, -1, "redis", &out);
    ck_assert(json_find((struct text_span){out.data, out.len}, "redis_latency_us", &v));
    ck_assert(text_span_eq(v, "1500000")); /* the largest: a sum of latencies says nothing */
    text_buf_free(&out);
}
END_TEST

START_TEST(a_share_of_deliveries_lies_between_the_bounds_of_its_row)
{
    uint64_t n[COUNTERS_LATENCY_ROWS] = {0};
    ck_assert_double_lt(counters_quantile_us(n, 0.5), 0);
    n[1] = 10; /* 50 to 100 us */
    ck_assert_double_eq_tol(counters_quantile_us(n, 0.5), 75, 0.001);
    n[3] = 90; /* 200 to 500 us */
    ck_assert_double_eq_tol(counters_quantile_us(n, 0.1), 100, 0.001);
    ck_assert_double_eq_tol(counters_quantile_us(n, 0.55), 350, 0.001);
    ck_assert_double_eq_tol(counters_quantile_us(n, 1), 500, 0.001);
    n[COUNTERS_LATENCY_ROWS - 1] = 1000; /* nobody knows how long */
    ck_assert_double_eq_tol(counters_quantile_us(n, 0.99), 5000000, 0.001);
}
END_TEST

START_TEST(the_last_reload_is_told)
{
    struct counters_reload reload;
    char longer[2 * COUNTERS_RELOAD_BYTES];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    ck_assert(!counters_get_reload(&c, &reload));
    counters_set_reload(&c, 1769860800123, false, "line 3: what is this?");
    ck_assert(counters_get_reload(&c, &reload));
    ck_assert_int_eq(reload.at_ms, 1769860800123);
    ck_assert(!reload.ok);
    ck_assert_str_eq(reload.message, "line 3: what is this?");
    counters_set_reload(&c, 1769860800124, true, longer);
    ck_assert(counters_get_reload(&c, &reload));
    ck_assert(reload.ok);
    ck_assert_uint_eq(strlen(reload.message), COUNTERS_RELOAD_BYTES - 1);
}
END_TEST

START_TEST(prometheus_names_carry_units_and_kinds)
{
    struct text_buf out = {0};
    fill();
    counters_prometheus(&c, &out);
    ck_assert(!out.failed);
    const char *lines[] = {
        "\n# TYPE belfry_websockets gauge\nbelfry_websockets{worker=\"0\"} 10\n"
        "belfry_websockets{worker=\"1\"} 0\n",
        "\n# TYPE belfry_received_bytes_total counter\nbelfry_received_bytes_total{worker=\"0\"} "
        "5\n"
        "belfry_received_bytes_total{worker=\"1\"} 5\n",
        "\nbelfry_redis_latency_seconds{worker=\"0\"} 1.500000\n",
        "\nbelfry_started_at_seconds{worker=\"0\"} 1769860800.123\n",
        "\nbelfry_closes_total{reason=\"no_pong\",code=\"0\",worker=\"0\"} 1\n"
        "belfry_closes_total{reason=\"no_pong\",code=\"0\",worker=\"1\"} 1\n",
        "\nbelfry_closes_total{reason=\"slow\",code=\"4008\",worker=\"0\"} 0\n",
        "\nbelfry_instance_closes_total{reason=\"no_pong\",code=\"0\"} 2\n",
        "\n# TYPE belfry_delivery_seconds histogram\n"
        "belfry_delivery_seconds_bucket{worker=\"0\",le=\"0.000050\"} 7\n"
        "belfry_delivery_seconds_bucket{worker=\"0\",le=\"0.000100\"} 8\n",
        "\nbelfry_delivery_seconds_bucket{worker=\"0\",le=\"5.000\"} 8\n"
        "belfry_delivery_seconds_bucket{worker=\"0\",le=\"+Inf\"} 10\n"
        "belfry_delivery_seconds_sum{worker=\"0\"} 12.000401\n"
        "belfry_delivery_seconds_count{worker=\"0\"} 10\n",
        "\nbelfry_instance_delivery_seconds_count 20\n",
        "\n# TYPE belfry_loop_turn_seconds histogram\n"
        "belfry_loop_turn_seconds_bucket{worker=\"0\",le=\"0.001\"} 1\n"
        "belfry_loop_turn_seconds_bucket{worker=\"0\",le=\"0.002\"} 2\n",
        "\nbelfry_loop_turn_seconds_bucket{worker=\"0\",le=\"1.000\"} 2\n"
        "belfry_loop_turn_seconds_bucket{worker=\"0\",le=\"+Inf\"} 3\n"
        "belfry_loop_turn_seconds_sum{worker=\"0\"} 3.002001\n"
        "belfry_loop_turn_seconds_count{worker=\"0\"} 3\n",
        "\nbelfry_instance_loop_turn_seconds_sum 6.004002\n"
        "belfry_instance_loop_turn_seconds_count 6\n",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        ck_assert_msg(strstr(out.data, lines[i]) != NULL, "%s", lines[i]);
    ck_assert_ptr_null(strstr(out.data, "worker=\"2\"")); /* never had a worker */
    ck_assert_ptr_null(strstr(out.data, "_us{"));
    ck_assert_ptr_null(strstr(out.data, "_ms{"));
    ck_assert_int_eq(out.data[out.len - 1], '\n');
    text_buf_free(&out);
}
END_TEST

START_TEST(promtool_finds_nothing_to_say)
{
    if (access("/usr/bin/promtool", X_OK) != 0)
        return; /* the end-to-end tests ask for it; here it is a bonus */
    struct text_buf out = {0};
    char error[4096] = "";
    fill();
    counters_prometheus(&c, &out);
    FILE *to = tmpfile(), *from = tmpfile();
    ck_assert(to && from);
    ck_assert_uint_eq(fwrite(out.data, 1, out.len, to), out.len);
    rewind(to);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(to), 0);
        dup2(fileno(from), 1);
        dup2(fileno(from), 2);
        execl("/usr/bin/promtool", "promtool", "check", "metrics", (char *)NULL);
        _exit(127);
    }
    int status;
    waitpid(pid, &status, 0);
    rewind(from);
    size_t n = fread(error, 1, sizeof(error) - 1, from);
    error[n] = '\0';
    ck_assert_msg(status == 0 && n == 0, "status %d: %s", status, error);
    fclose(to);
    fclose(from);
    text_buf_free(&out);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("counters");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, rows_are_in_the_order_of_their_ids);
    tcase_add_test(tc, counting_without_a_slot_goes_nowhere);
    tcase_add_test(tc, slots_are_pages_and_only_so_many);
    tcase_add_test(tc, totals_outlive_their_worker_and_gauges_do_not);
    tcase_add_test(tc, a_websocket_on_its_way_is_counted_once);
    tcase_add_test(tc, groups_are_json_objects_of_one_slot_or_of_all);
    tcase_add_test(tc, a_share_of_deliveries_lies_between_the_bounds_of_its_row);
    tcase_add_test(tc, the_last_reload_is_told);
    tcase_add_test(tc, prometheus_names_carry_units_and_kinds);
    tcase_add_test(tc, promtool_finds_nothing_to_say);
    Suite *s = suite_create("counters");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
