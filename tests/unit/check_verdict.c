#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/closes.h"
#include "shared/verdict.h"

#define NOON 1763899200000000 /* 2025-11-23T12:00:00Z */
#define FACTS_MAX 32

static struct verdict_fact facts[FACTS_MAX];
static size_t count;
static struct verdict v;
static struct text_buf sentence;

static void setup(void)
{
    count = 0;
    memset(facts, 0, sizeof(facts));
    sentence = (struct text_buf){0};
}

static void teardown(void)
{
    verdict_free(&v);
    text_buf_free(&sentence);
}

/* One record, so many milliseconds after noon. */
static struct trace_record *fact(int at_ms, enum trace_fate fate, uint64_t serial)
{
    struct verdict_fact *f = &facts[count++];
    strcpy(f->instance, "instance-one");
    f->record.trace = (struct trace_record){
        .at_us = NOON + at_ms * 1000, .fate = (uint16_t)fate, .serial = serial, .detail = 84};
    return &f->record.trace;
}

static void end(struct trace_record *t, enum trace_end how, int at_ms, uint64_t position)
{
    t->end = (uint16_t)how;
    t->end_us = NOON + at_ms * 1000;
    t->position = position;
}

static const struct verdict_device *only_device(int64_t stored_us)
{
    ck_assert_int_eq(verdict_read(facts, count, stored_us, &v), 0);
    ck_assert_uint_eq(v.count, 1);
    text_buf_reset(&sentence);
    verdict_sentence(&v, &v.devices[0], NOON, &sentence);
    return &v.devices[0];
}

START_TEST(nothing_is_known_of_nothing)
{
    ck_assert_int_eq(verdict_read(facts, 0, 0, &v), 0);
    ck_assert(!v.is_known);
    ck_assert_uint_eq(v.count, 0);
    verdict_free(&v);
    fact(0, TRACE_STARTED, 0);
    fact(1, TRACE_OPENED, 1);
    ck_assert_int_eq(verdict_read(facts, count, 0, &v), 0);
    ck_assert(!v.is_known);
}
END_TEST

START_TEST(delivered_and_acknowledged)
{
    fact(0, TRACE_OPENED, 1);
    fact(100, TRACE_RECEIVED, 0);
    end(fact(100, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 123, 500);
    struct trace_record *open = fact(900, TRACE_OPEN, 1);
    open->position = 500;
    const struct verdict_device *d = only_device(0);
    ck_assert_int_eq(d->outcome, VERDICT_DELIVERED);
    ck_assert_int_eq(d->tcp, VERDICT_TCP_ACKED);
    ck_assert_str_eq(sentence.data,
                     "delivered at 12:00:00.123 (84 bytes, acknowledged by TCP)");
    ck_assert(v.is_known);
    ck_assert_int_eq(v.first_us, NOON + 100000);
}
END_TEST

START_TEST(written_and_not_acknowledged_yet)
{
    end(fact(0, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 1, 500);
    fact(900, TRACE_OPEN, 1)->position = 499;
    const struct verdict_device *d = only_device(0);
    ck_assert_int_eq(d->tcp, VERDICT_TCP_UNACKED);
    ck_assert_str_eq(sentence.data,
                     "delivered at 12:00:00.001 (84 bytes, written, not yet acknowledged by TCP)");
}
END_TEST

START_TEST(written_to_a_connection_that_ended_before_it_was_acknowledged)
{
    end(fact(0, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 1, 500);
    struct trace_record *closed = fact(2000, TRACE_CLOSED, 1);
    closed->position = 400;
    closed->detail = CLOSE_NO_PONG;
    only_device(0);
    ck_assert_str_eq(sentence.data,
                     "delivered at 12:00:00.001 (84 bytes, written, not known to be acknowledged "
                     "by TCP: the connection ended (no-pong) at 12:00:02.000)");
}
END_TEST

START_TEST(a_close_reason_of_a_later_version_does_no_harm)
{
    end(fact(0, TRACE_QUEUED, 1), TRACE_END_CLOSED, 1, 500);
    fact(2000, TRACE_CLOSED, 1)->detail = 4000000000u;
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_LOST);
    ck_assert_ptr_nonnull(strstr(sentence.data, "(unknown)"));
}
END_TEST

START_TEST(a_worker_that_died_cannot_say_what_it_wrote)
{
    fact(0, TRACE_OPENED, 1);
    fact(10, TRACE_QUEUED, 1);
    fact(500, TRACE_STARTED, 0);
    const struct verdict_device *d = only_device(0);
    ck_assert_int_eq(d->outcome, VERDICT_UNSURE);
    ck_assert_str_eq(sentence.data, "queued at 12:00:00.010, not known whether it was written: "
                                    "its worker ended");
}
END_TEST

START_TEST(another_slots_or_instances_start_says_nothing_of_this_worker)
{
    fact(0, TRACE_OPENED, 1);
    fact(10, TRACE_QUEUED, 1);
    fact(500, TRACE_STARTED, 0);
    facts[count - 1].record.slot = 5;
    fact(500, TRACE_STARTED, 0);
    strcpy(facts[count - 1].instance, "another");
    fact(900, TRACE_OPEN, 1);
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_WAITING);
}
END_TEST

START_TEST(a_connection_that_moved_is_one_device_and_outlives_its_first_worker)
{
    fact(0, TRACE_OPENED, 1);
    fact(10, TRACE_RECEIVED, 0);
    end(fact(10, TRACE_QUEUED, 1), TRACE_END_GIVEN, 20, 0);
    fact(20, TRACE_GIVEN, 1);
    fact(21, TRACE_TAKEN, 1);
    facts[count - 1].record.slot = 2;
    end(fact(21, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 30, 500);
    facts[count - 1].record.slot = 2;
    fact(500, TRACE_STARTED, 0);
    const struct verdict_device *d = only_device(0);
    ck_assert_int_eq(d->outcome, VERDICT_DELIVERED);
    ck_assert_uint_eq(d->slot, 2);
    ck_assert(!d->has_died);
}
END_TEST

START_TEST(a_new_worker_that_died_takes_what_it_was_given_along)
{
    fact(0, TRACE_OPENED, 1);
    end(fact(10, TRACE_QUEUED, 1), TRACE_END_GIVEN, 20, 0);
    fact(20, TRACE_GIVEN, 1);
    fact(21, TRACE_TAKEN, 1);
    facts[count - 1].record.slot = 2;
    fact(500, TRACE_STARTED, 0);
    facts[count - 1].record.slot = 2;
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_UNSURE);
}
END_TEST

START_TEST(filtered_conflated_dropped_held_and_closing)
{
    static const struct {
        enum trace_fate fate;
        enum verdict_outcome outcome;
    } rows[] = {{TRACE_FILTERED, VERDICT_FILTERED}, {TRACE_CONFLATED, VERDICT_CONFLATED},
                {TRACE_DROPPED, VERDICT_DROPPED},   {TRACE_HELD, VERDICT_HELD},
                {TRACE_CLOSING, VERDICT_CLOSING},   {TRACE_LAGGING, VERDICT_LAGGING}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        count = 0;
        fact(0, TRACE_OPENED, 1);
        fact(10, rows[i].fate, 1);
        fact(20, TRACE_OPEN, 1);
        ck_assert_int_eq(only_device(0)->outcome, rows[i].outcome);
        verdict_free(&v);
    }
}
END_TEST

START_TEST(what_became_of_the_queued_copy)
{
    static const struct {
        enum trace_end end;
        enum verdict_outcome outcome;
    } rows[] = {{TRACE_END_WAITING, VERDICT_WAITING},     {TRACE_END_WRITTEN, VERDICT_DELIVERED},
                {TRACE_END_CONFLATED, VERDICT_CONFLATED}, {TRACE_END_DROPPED, VERDICT_DROPPED},
                {TRACE_END_CLOSED, VERDICT_LOST}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        count = 0;
        end(fact(10, TRACE_QUEUED, 1), rows[i].end, 20, 1);
        fact(20, TRACE_OPEN, 1);
        ck_assert_int_eq(only_device(0)->outcome, rows[i].outcome);
        verdict_free(&v);
    }
}
END_TEST

START_TEST(held_then_replayed_counts_as_delivered)
{
    fact(0, TRACE_OPENED, 1);
    fact(10, TRACE_HELD, 1);
    end(fact(20, TRACE_REPLAYED, 1), TRACE_END_WRITTEN, 20, 1);
    fact(30, TRACE_OPEN, 1)->position = 1;
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_DELIVERED);
    ck_assert_ptr_nonnull(strstr(sentence.data, "replayed from the list at 12:00:00.020"));
}
END_TEST

START_TEST(a_message_written_twice_is_told)
{
    end(fact(10, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 10, 1);
    end(fact(20, TRACE_REPAIRED, 1), TRACE_END_WRITTEN, 20, 2);
    ck_assert_uint_eq(only_device(0)->times_written, 2);
    ck_assert_ptr_nonnull(strstr(sentence.data, "written 2 times"));
}
END_TEST

START_TEST(ack_and_read_are_told)
{
    end(fact(10, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 10, 1);
    fact(100, TRACE_ACKED, 1);
    fact(200, TRACE_READ, 1);
    only_device(0);
    ck_assert_ptr_nonnull(strstr(sentence.data, "; the device said ack at 12:00:00.100"));
    ck_assert_ptr_nonnull(strstr(sentence.data, "; marked read at 12:00:00.200"));
}
END_TEST

START_TEST(who_came_later_and_who_had_left)
{
    fact(-200, TRACE_OPENED, 1);
    fact(-100, TRACE_CLOSED, 1);
    fact(0, TRACE_RECEIVED, 0);
    fact(100, TRACE_OPENED, 2);
    const struct verdict_device *d = only_device(0);
    ck_assert_uint_eq(d->serial, 2);
    ck_assert_int_eq(d->outcome, VERDICT_LATER);
    ck_assert_uint_eq(v.gone_before, 1);
}
END_TEST

START_TEST(without_a_live_copy_the_stored_time_counts)
{
    fact(100, TRACE_OPENED, 2);
    fact(110, TRACE_OPEN, 2);
    ck_assert_int_eq(only_device(NOON)->outcome, VERDICT_LATER);
    verdict_free(&v);
    ck_assert_int_eq(only_device(NOON + 200000)->outcome, VERDICT_UNKNOWN);
}
END_TEST

START_TEST(a_broadcast_went_to_all_whose_worker_heard_it)
{
    fact(-100, TRACE_OPENED, 1);
    fact(0, TRACE_BROADCAST, 0);
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_BROADCAST);
    ck_assert(v.is_broadcast);
    verdict_free(&v);
    facts[0].record.slot = 4;
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_UNKNOWN);
}
END_TEST

START_TEST(a_link_that_was_down_explains_what_is_missing)
{
    fact(-300, TRACE_LINK_BACK, 0);
    fact(-200, TRACE_OPENED, 1);
    fact(-100, TRACE_LINK_LOST, 0);
    fact(0, TRACE_RECEIVED, 0);
    facts[count - 1].record.slot = 1;
    fact(100, TRACE_LINK_BACK, 0);
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_UNHEARD);
}
END_TEST

START_TEST(one_serial_in_two_instances_is_two_devices)
{
    fact(0, TRACE_QUEUED, 1);
    fact(0, TRACE_QUEUED, 1);
    facts[1].record.slot = 1;
    fact(0, TRACE_QUEUED, 1);
    strcpy(facts[2].instance, "another");
    ck_assert_int_eq(verdict_read(facts, count, 0, &v), 0);
    ck_assert_uint_eq(v.count, 2);
}
END_TEST

START_TEST(records_out_of_order_are_put_in_order)
{
    fact(900, TRACE_OPEN, 1)->position = 500;
    fact(500, TRACE_STARTED, 0);
    facts[count - 1].record.slot = 7;
    end(fact(100, TRACE_QUEUED, 1), TRACE_END_WRITTEN, 123, 500);
    fact(0, TRACE_OPENED, 1);
    ck_assert_int_eq(only_device(0)->outcome, VERDICT_DELIVERED);
    for (size_t i = 1; i < count; i++)
        ck_assert_int_ge(facts[i].record.trace.at_us, facts[i - 1].record.trace.at_us);
}
END_TEST

START_TEST(another_day_is_written_with_its_date)
{
    struct text_buf b = {0};
    verdict_time(NOON, NOON + 1000000, &b);
    ck_assert_str_eq(b.data, "12:00:00.000");
    text_buf_reset(&b);
    verdict_time(NOON, NOON + 86400000000, &b);
    ck_assert_str_eq(b.data, "2025-11-23 12:00:00.000");
    text_buf_free(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("verdict");
    TCase *c = tcase_create("verdict");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, nothing_is_known_of_nothing);
    tcase_add_test(c, delivered_and_acknowledged);
    tcase_add_test(c, written_and_not_acknowledged_yet);
    tcase_add_test(c, written_to_a_connection_that_ended_before_it_was_acknowledged);
    tcase_add_test(c, a_close_reason_of_a_later_version_does_no_harm);
    tcase_add_test(c, a_worker_that_died_cannot_say_what_it_wrote);
    tcase_add_test(c, a_connection_that_moved_is_one_device_and_outlives_its_first_worker);
    tcase_add_test(c, a_new_worker_that_died_takes_what_it_was_given_along);
    tcase_add_test(c, another_slots_or_instances_start_says_nothing_of_this_worker);
    tcase_add_test(c, filtered_conflated_dropped_held_and_closing);
    tcase_add_test(c, what_became_of_the_queued_copy);
    tcase_add_test(c, held_then_replayed_counts_as_delivered);
    tcase_add_test(c, a_message_written_twice_is_told);
    tcase_add_test(c, ack_and_read_are_told);
    tcase_add_test(c, who_came_later_and_who_had_left);
    tcase_add_test(c, without_a_live_copy_the_stored_time_counts);
    tcase_add_test(c, a_broadcast_went_to_all_whose_worker_heard_it);
    tcase_add_test(c, a_link_that_was_down_explains_what_is_missing);
    tcase_add_test(c, one_serial_in_two_instances_is_two_devices);
    tcase_add_test(c, records_out_of_order_are_put_in_order);
    tcase_add_test(c, another_day_is_written_with_its_date);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
