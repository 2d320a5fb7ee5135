#include "config.h"

#include <check.h>
#include <ev.h>
#include <stdlib.h>

#include "workers/wheel.h"

#define ENTRIES 10000
#define FIRING_MAX 256 /* in one call: each may cost a write to a socket */

static struct wheel *wheel;
static int64_t clock_ms;
static int fired;
static int64_t worst_late_ms;
static bool was_early;
static struct wheel_entry *rearm;   /* armed again when it fires */
static struct wheel_entry *victim;  /* disarmed when another one fires */

static void on_due(void *data, struct wheel_entry *e)
{
    ck_assert_ptr_eq(data, &clock_ms);
    ck_assert(!wheel_is_armed(e));
    fired++;
    if (clock_ms < e->at_ms)
        was_early = true;
    if (clock_ms - e->at_ms > worst_late_ms)
        worst_late_ms = clock_ms - e->at_ms;
    if (e == rearm)
        wheel_arm(wheel, e, clock_ms + 1000);
    if (victim && e != victim)
        wheel_disarm(wheel, victim);
}

static void setup(void)
{
    clock_ms = 1700000000000;
    fired = 0;
    worst_late_ms = 0;
    was_early = false;
    rearm = victim = NULL;
    wheel = wheel_new(NULL, on_due, &clock_ms);
    wheel_advance(wheel, clock_ms);
}

static void teardown(void)
{
    wheel_free(wheel);
}

static void run_until(int64_t end_ms, int64_t step_ms)
{
    while (clock_ms < end_ms) {
        clock_ms += step_ms;
        while (wheel_advance(wheel, clock_ms))
            ;
    }
}

START_TEST(fires_never_before_its_time_and_at_most_two_ticks_after)
{
    struct wheel_entry *entries = calloc(ENTRIES, sizeof *entries);
    int64_t start_ms = clock_ms;
    srandom(7);
    for (int i = 0; i < ENTRIES; i++)
        wheel_arm(wheel, &entries[i], start_ms + random() % 200000);
    run_until(start_ms + 201000, 37);
    ck_assert_int_eq(fired, ENTRIES);
    ck_assert(!was_early);
    ck_assert_int_le(worst_late_ms, 200);
    free(entries);
}
END_TEST

START_TEST(time_in_the_past_fires_on_the_next_tick)
{
    struct wheel_entry e = {0};
    wheel_arm(wheel, &e, clock_ms - 5000);
    ck_assert(wheel_is_armed(&e));
    run_until(clock_ms + 200, 100);
    ck_assert_int_eq(fired, 1);
}
END_TEST

START_TEST(disarmed_entry_never_fires)
{
    struct wheel_entry e = {0};
    wheel_arm(wheel, &e, clock_ms + 300);
    wheel_disarm(wheel, &e);
    wheel_disarm(wheel, &e);
    run_until(clock_ms + 1000, 50);
    ck_assert_int_eq(fired, 0);
}
END_TEST

START_TEST(rearming_forgets_the_earlier_deadline)
{
    struct wheel_entry e = {0};
    wheel_arm(wheel, &e, clock_ms + 300);
    wheel_arm(wheel, &e, clock_ms + 90000);
    run_until(clock_ms + 80000, 100);
    ck_assert_int_eq(fired, 0);
    run_until(clock_ms + 11000, 100);
    ck_assert_int_eq(fired, 1);
}
END_TEST

START_TEST(callback_may_arm_its_own_entry_again)
{
    struct wheel_entry e = {0};
    rearm = &e;
    wheel_arm(wheel, &e, clock_ms + 100);
    run_until(clock_ms + 5500, 100);
    ck_assert_int_ge(fired, 4);
    ck_assert_int_le(fired, 6);
    wheel_disarm(wheel, &e);
}
END_TEST

START_TEST(callback_may_disarm_another_entry_of_the_same_tick)
{
    struct wheel_entry a = {0}, b = {0};
    victim = &b;
    wheel_arm(wheel, &a, clock_ms + 150);
    wheel_arm(wheel, &b, clock_ms + 150);
    run_until(clock_ms + 1000, 100);
    ck_assert_int_eq(fired, 1);
    ck_assert(!wheel_is_armed(&b));
}
END_TEST

START_TEST(stalled_loop_fires_everything_that_became_due)
{
    struct wheel_entry entries[100] = {{0}};
    for (int i = 0; i < 100; i++)
        wheel_arm(wheel, &entries[i], clock_ms + i * 5000);
    clock_ms += 1000000;
    ck_assert(!wheel_advance(wheel, clock_ms));
    ck_assert_int_eq(fired, 100);
}
END_TEST

START_TEST(work_of_one_call_is_bounded_and_the_rest_follows)
{
    struct wheel_entry *entries = calloc(ENTRIES, sizeof *entries);
    for (int i = 0; i < ENTRIES; i++)
        wheel_arm(wheel, &entries[i], clock_ms + 100);
    clock_ms += 1000;
    int before = 0;
    while (wheel_advance(wheel, clock_ms)) {
        ck_assert_int_gt(fired, before);
        ck_assert_int_le(fired - before, FIRING_MAX);
        before = fired;
    }
    ck_assert_int_le(fired - before, FIRING_MAX);
    ck_assert_int_eq(fired, ENTRIES);
    free(entries);
}
END_TEST

START_TEST(clock_that_is_set_back_does_not_keep_entries_waiting)
{
    struct wheel_entry e = {0};
    clock_ms -= 3600000;
    wheel_arm(wheel, &e, clock_ms + 1000);
    wheel_advance(wheel, clock_ms);
    run_until(clock_ms + 1300, 100);
    ck_assert_int_eq(fired, 1);
    ck_assert(!was_early);
}
END_TEST

START_TEST(freed_wheel_leaves_its_entries_disarmed)
{
    struct wheel_entry e = {0};
    struct wheel *other = wheel_new(NULL, on_due, NULL);
    wheel_arm(other, &e, 5000);
    wheel_free(other);
    ck_assert(!wheel_is_armed(&e));
    wheel_free(NULL);
}
END_TEST

static void stop_loop(void *data, struct wheel_entry *e)
{
    (void)e;
    fired++;
    ev_break(data, EVBREAK_ALL);
}

START_TEST(loop_runs_the_wheel_only_while_something_is_armed)
{
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    struct wheel *w = wheel_new(loop, stop_loop, loop);
    struct wheel_entry e = {0};
    ev_run(loop, 0); /* returns at once: no watcher */
    int64_t start_ms = wheel_now_ms(w);
    wheel_arm(w, &e, start_ms + 120);
    ev_run(loop, 0);
    ck_assert_int_eq(fired, 1);
    ck_assert_int_ge(wheel_now_ms(w), start_ms + 120);
    ev_run(loop, 0); /* the timer stops by itself */
    wheel_arm(w, &e, wheel_now_ms(w) + 100);
    ev_run(loop, 0);
    ck_assert_int_eq(fired, 2);
    wheel_free(w);
    ev_loop_destroy(loop);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wheel");
    TCase *tc = tcase_create("wheel");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, fires_never_before_its_time_and_at_most_two_ticks_after);
    tcase_add_test(tc, time_in_the_past_fires_on_the_next_tick);
    tcase_add_test(tc, disarmed_entry_never_fires);
    tcase_add_test(tc, rearming_forgets_the_earlier_deadline);
    tcase_add_test(tc, callback_may_arm_its_own_entry_again);
    tcase_add_test(tc, callback_may_disarm_another_entry_of_the_same_tick);
    tcase_add_test(tc, stalled_loop_fires_everything_that_became_due);
    tcase_add_test(tc, work_of_one_call_is_bounded_and_the_rest_follows);
    tcase_add_test(tc, clock_that_is_set_back_does_not_keep_entries_waiting);
    tcase_add_test(tc, freed_wheel_leaves_its_entries_disarmed);
    tcase_add_test(tc, loop_runs_the_wheel_only_while_something_is_armed);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
