/*
 * check_marker.c - markers, with both links played.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/marker.h"
#include "workers/store.h"
#include "workers/subscriber.h"

static struct worker worker;
static bool is_down;
static char texts[4][64]; /* published */
static unsigned published;
static store_done_fn *answer;
static void *answer_data;

struct store_call *store_publish(struct store *s, const char *channel, struct text_span text,
                                 store_done_fn *fn, void *data)
{
    static char call;
    (void)s;
    ck_assert_str_eq(channel, "own");
    if (is_down)
        return NULL;
    ck_assert_uint_lt(published, 4);
    snprintf(texts[published++], 64, "%.*s", (int)text.len, text.ptr);
    answer = fn;
    answer_data = data;
    return (struct store_call *)&call;
}

void store_cancel(struct store_call *c)
{
    (void)c;
}

const char *subscriber_probe_channel(const struct subscriber *s)
{
    (void)s;
    return "own";
}

static struct marker a, b;
static int told_a, told_b; /* 1: not told */

static void on_marker(void *data, int error)
{
    *(int *)data = error;
}

static void want(struct marker *k, int *told)
{
    *told = 1;
    k->fn = on_marker;
    k->data = told;
    marker_want(worker.markers, k);
}

static bool echo(const char *text)
{
    return markers_on_echo(worker.markers, text, strlen(text));
}

static void redis_answers(int error, int64_t receivers)
{
    answer(answer_data, error, receivers);
}

static void setup(void)
{
    worker.loop = ev_loop_new(0);
    worker.markers = markers_new(&worker);
    published = 0;
    is_down = false;
}

static void teardown(void)
{
    markers_free(worker.markers);
    ev_loop_destroy(worker.loop);
}

START_TEST(those_of_one_turn_share_a_marker)
{
    want(&a, &told_a);
    want(&b, &told_b);
    ck_assert_uint_eq(published, 0);
    ev_run(worker.loop, EVRUN_NOWAIT);
    markers_flush(worker.markers);
    ck_assert_uint_eq(published, 1);
    ck_assert(echo(texts[0]));
    ck_assert_int_eq(told_a, 0);
    ck_assert_int_eq(told_b, 0);
}
END_TEST

START_TEST(who_asks_later_waits_for_a_later_marker)
{
    want(&a, &told_a);
    markers_flush(worker.markers);
    want(&b, &told_b);
    markers_flush(worker.markers);
    ck_assert_uint_eq(published, 1); /* one answer is awaited at a time */
    redis_answers(0, 1);
    markers_flush(worker.markers);
    ck_assert_uint_eq(published, 2);
    ck_assert(echo(texts[0]));
    ck_assert_int_eq(told_a, 0);
    ck_assert_int_eq(told_b, 1);
    ck_assert(echo(texts[1]));
    ck_assert_int_eq(told_b, 0);
}
END_TEST

START_TEST(who_cancels_is_not_told)
{
    want(&a, &told_a);
    want(&b, &told_b);
    markers_flush(worker.markers);
    marker_cancel(worker.markers, &a);
    ck_assert(echo(texts[0]));
    ck_assert_int_eq(told_a, 1);
    ck_assert_int_eq(told_b, 0);
}
END_TEST

START_TEST(a_publication_that_fails_is_told)
{
    want(&a, &told_a);
    markers_flush(worker.markers);
    redis_answers(-EIO, 0);
    ck_assert_int_eq(told_a, -EIO);
    want(&a, &told_a);
    markers_flush(worker.markers);
    redis_answers(0, 0);
    ck_assert_int_eq(told_a, -EPIPE);
    is_down = true;
    want(&a, &told_a);
    markers_flush(worker.markers);
    ck_assert_int_eq(told_a, -ENOTCONN);
}
END_TEST

START_TEST(what_is_no_marker_of_this_worker_counts_for_nothing)
{
    static const char *const strange[] = {"marker:",      "marker:1",   "marker:1:1",
                                          "marker:x:1",   "marker:1:-1", "marker::",
                                          "marker:1:99999999999999999999"};
    want(&a, &told_a);
    ck_assert(!echo("42"));
    ck_assert(!echo(""));
    (void)echo("marker:1:1");
    markers_flush(worker.markers);
    for (size_t i = 0; i < sizeof(strange) / sizeof(*strange); i++)
        (void)echo(strange[i]);
    char longer[200];
    snprintf(longer, sizeof(longer), "%s%0*d", texts[0], 100, 0);
    (void)echo(longer);
    ck_assert_int_eq(told_a, 1);
    ck_assert(echo(texts[0]));
    ck_assert(echo(texts[0]));
    ck_assert_int_eq(told_a, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("marker");
    TCase *t = tcase_create("marker");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, those_of_one_turn_share_a_marker);
    tcase_add_test(t, who_asks_later_waits_for_a_later_marker);
    tcase_add_test(t, who_cancels_is_not_told);
    tcase_add_test(t, a_publication_that_fails_is_told);
    tcase_add_test(t, what_is_no_marker_of_this_worker_counts_for_nothing);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
