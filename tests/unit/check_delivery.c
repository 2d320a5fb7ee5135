#include "config.h"

#include <check.h>
#include <stdlib.h>

#include "shared/counters.h"
#include "workers/delivery.h"

/* Deliveries that took at most so long, as they were counted since the last call. */
static uint64_t counted(enum counter row)
{
    uint64_t n = counters_self->values[row];
    counters_self->values[row] = 0;
    return n;
}

static struct frame *made(int64_t turn_us)
{
    delivery_begin_turn(turn_us);
    struct frame *f = frame_text(FRAME_USER, "x", 1);
    delivery_read(f);
    return f;
}

static void setup(void)
{
    for (int i = 0; i < COUNTERS; i++)
        counters_self->values[i] = 0;
}

START_TEST(devices_of_one_turn_are_measured_at_once)
{
    struct frame *f = made(1000000);
    for (int i = 0; i < 3; i++)
        delivery_written(f);
    ck_assert_uint_eq(counted(CTR_delivered_in_100us), 0);
    ck_assert_int_eq(delivery_measure(1000080), 1000080);
    ck_assert_uint_eq(counted(CTR_delivered_in_100us), 3);
    delivery_measure(1000080);
    ck_assert_uint_eq(counted(CTR_delivered_in_100us), 0); /* once */
    for (int i = 0; i < 2; i++)
        delivery_written(f); /* a later turn writes the rest */
    delivery_measure(3000000);
    ck_assert_uint_eq(counted(CTR_delivered_in_5000ms), 2);
    frame_unref(f);
}
END_TEST

START_TEST(what_was_read_at_another_time_is_measured_by_it)
{
    int64_t now_us = INT64_C(5) << 32; /* the lower half begins anew */
    struct frame *old = made(now_us - 700), *young = made(now_us);
    delivery_written(old);
    delivery_measure(now_us);
    delivery_written(young);
    delivery_written(young);
    delivery_measure(now_us + 40);
    ck_assert_uint_eq(counted(CTR_delivered_in_1ms), 1);
    ck_assert_uint_eq(counted(CTR_delivered_in_50us), 2);
    frame_unref(old);
    frame_unref(young);
}
END_TEST

START_TEST(a_joined_frame_is_as_many_messages_as_it_has_parts)
{
    struct frame *parts[] = {made(1000), made(2000)};
    struct frame *f = frame_join(FRAME_BROADCAST, parts, 2);
    delivery_written(f);
    delivery_measure(11000);
    ck_assert_uint_eq(counted(CTR_delivered_in_10ms), 2); /* as old as the oldest */
    frame_unref(f);
    frame_unref(parts[0]);
    frame_unref(parts[1]);
}
END_TEST

START_TEST(answers_and_what_came_from_the_list_are_not_measured)
{
    struct frame *f = frame_text(FRAME_REPLY, "x", 1);
    delivery_written(f);
    delivery_end();
    for (int i = 0; i < COUNTERS_LATENCY_ROWS; i++)
        ck_assert_uint_eq(counted((enum counter)((int)CTR_delivered_in_50us + i)), 0);
    frame_unref(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("delivery");
    TCase *t = tcase_create("delivery");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, devices_of_one_turn_are_measured_at_once);
    tcase_add_test(t, what_was_read_at_another_time_is_measured_by_it);
    tcase_add_test(t, a_joined_frame_is_as_many_messages_as_it_has_parts);
    tcase_add_test(t, answers_and_what_came_from_the_list_are_not_measured);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
