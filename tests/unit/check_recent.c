/*
 * check_recent.c - which ids a user's devices have.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/recent.h"

#define LIMIT 20

static struct recent *r;

static void setup(void)
{
    r = NULL;
}

static void teardown(void)
{
    recent_free(r);
}

static void add(uint64_t id, enum recent_origin origin, int64_t now_ms)
{
    ck_assert_int_eq(recent_add(&r, LIMIT, id, origin, now_ms), 0);
}

START_TEST(nothing_is_known_to_a_quiet_user)
{
    ck_assert(!recent_knows(NULL, 1));
    ck_assert(!recent_is_repeat(NULL, 1, 0));
    ck_assert(!recent_has_forgotten(NULL));
}
END_TEST

START_TEST(a_live_message_repeats_within_two_minutes_only)
{
    add(7, RECENT_LIVE, 1000);
    ck_assert(recent_is_repeat(r, 7, 1000 + RECENT_REPEAT_MS - 1));
    ck_assert(!recent_is_repeat(r, 7, 1000 + RECENT_REPEAT_MS));
    ck_assert(!recent_is_repeat(r, 8, 1000));
    ck_assert(recent_knows(r, 7)); /* repair goes on knowing it */
}
END_TEST

START_TEST(a_dropped_repeat_does_not_prolong_the_two_minutes)
{
    add(7, RECENT_LIVE, 0);
    for (int64_t t = 0; t < RECENT_REPEAT_MS; t += 1000)
        ck_assert(recent_is_repeat(r, 7, t));
    ck_assert(!recent_is_repeat(r, 7, RECENT_REPEAT_MS));
    add(7, RECENT_LIVE, RECENT_REPEAT_MS); /* relayed again: a new time begins */
    ck_assert(recent_is_repeat(r, 7, RECENT_REPEAT_MS + 1));
}
END_TEST

START_TEST(a_live_message_repeats_within_64_messages_only)
{
    add(1, RECENT_LIVE, 0);
    for (uint64_t id = 2; id <= RECENT_REPEAT_MESSAGES; id++)
        add(id, id % 2 ? RECENT_LIVE : RECENT_PASSING, 0);
    ck_assert(recent_is_repeat(r, 1, 0));
    add(1000, RECENT_PASSING, 0);
    ck_assert(!recent_is_repeat(r, 1, 0));
    ck_assert(recent_is_repeat(r, 2, 0));
}
END_TEST

START_TEST(the_live_copy_of_a_listed_message_is_dropped_however_late)
{
    add(7, RECENT_LISTED, 0);
    ck_assert(recent_knows(r, 7));
    int64_t late = 100 * (int64_t)RECENT_REPEAT_MS;
    ck_assert(recent_is_repeat(r, 7, late));
    ck_assert(recent_is_repeat(r, 7, late + RECENT_REPEAT_MS - 1)); /* counts as live from then */
    ck_assert(!recent_is_repeat(r, 7, late + RECENT_REPEAT_MS));
    ck_assert(recent_knows(r, 7));
}
END_TEST

START_TEST(listing_a_live_message_again_does_not_make_it_listed)
{
    add(7, RECENT_LIVE, 0);
    add(7, RECENT_LISTED, 10);
    ck_assert(!recent_is_repeat(r, 7, RECENT_REPEAT_MS + 1));
}
END_TEST

START_TEST(what_is_in_no_list_is_not_known)
{
    add(7, RECENT_PASSING, 0);
    ck_assert(!recent_knows(r, 7));
    ck_assert(recent_is_repeat(r, 7, 1));
}
END_TEST

START_TEST(the_oldest_is_forgotten_and_renewing_makes_an_id_the_newest)
{
    for (uint64_t id = 1; id <= LIMIT; id++)
        add(id, RECENT_LISTED, 0);
    ck_assert(!recent_has_forgotten(r));
    add(1, RECENT_LISTED, 0);
    ck_assert(!recent_has_forgotten(r));
    add(100, RECENT_LIVE, 0);
    ck_assert(recent_has_forgotten(r));
    ck_assert(recent_knows(r, 1));
    ck_assert(!recent_knows(r, 2));
    ck_assert(recent_knows(r, 3));
    recent_mark_complete(r); /* of a list that was asked for before something was forgotten */
    ck_assert(recent_has_forgotten(r));
    recent_list_asked(r);
    recent_mark_complete(r);
    ck_assert(!recent_has_forgotten(r));
    recent_mark_complete(NULL);
    recent_list_asked(NULL);
}
END_TEST

START_TEST(what_was_heard_stays_so_when_it_is_listed)
{
    ck_assert(!recent_was_heard(NULL, 1));
    add(1, RECENT_LISTED, 0);
    ck_assert(!recent_was_heard(r, 1));
    add(1, RECENT_LIVE, 1);
    add(1, RECENT_LISTED, 2);
    ck_assert(recent_was_heard(r, 1));
    add(2, RECENT_LISTED, 3);
    ck_assert(recent_is_repeat(r, 2, 4));
    ck_assert(recent_was_heard(r, 2));
}
END_TEST

/* The same in plain arrays. */
struct model {
    uint64_t ids[LIMIT];
    size_t count;
};

static void model_add(struct model *m, uint64_t id)
{
    size_t i = 0;
    while (i < m->count && m->ids[i] != id)
        i++;
    if (i == m->count && m->count == LIMIT)
        i = 0;
    if (i < m->count) {
        memmove(&m->ids[i], &m->ids[i + 1], (m->count - i - 1) * sizeof(m->ids[0]));
        m->count--;
    }
    m->ids[m->count++] = id;
}

START_TEST(a_hundred_thousand_additions_agree_with_a_plain_array)
{
    struct model m = {0};
    unsigned seed = 1;
    int wrong = 0; /* an assertion for each would take a minute */
    for (int i = 0; i < 100000; i++) {
        /* Ids that collide in the low bits, as hashes sometimes do. */
        uint64_t id = 1 + (uint64_t)(rand_r(&seed) % 40) * 64;
        wrong += recent_add(&r, LIMIT, id, rand_r(&seed) % 2 ? RECENT_LISTED : RECENT_LIVE, i) != 0;
        model_add(&m, id);
        for (uint64_t k = 0; k < 40; k++) {
            bool is_known = false;
            for (size_t j = 0; j < m.count; j++)
                is_known |= m.ids[j] == 1 + k * 64;
            wrong += recent_knows(r, 1 + k * 64) != is_known;
        }
    }
    ck_assert_int_eq(wrong, 0);
}
END_TEST

START_TEST(the_largest_history_fits)
{
    int failed = 0;
    for (uint64_t id = 1; id <= 3 * RECENT_LIMIT_MAX; id++)
        failed += recent_add(&r, RECENT_LIMIT_MAX + 1, id, RECENT_LISTED, 0) != 0;
    ck_assert_int_eq(failed, 0);
    ck_assert(recent_knows(r, 2 * RECENT_LIMIT_MAX + 1));
    ck_assert(!recent_knows(r, 2 * RECENT_LIMIT_MAX));
}
END_TEST

/* ---- for another process ---- */

static void move(void)
{
    struct text_buf saved = {0};
    recent_save(r, false, &saved);
    recent_free(r);
    ck_assert_int_eq(recent_restore(&r, LIMIT, (struct text_span){saved.data, saved.len}), 0);
    text_buf_free(&saved);
}

START_TEST(what_is_known_moves_with_its_order_and_times)
{
    move();
    ck_assert_ptr_null(r);
    for (uint64_t id = 1; id <= LIMIT + 3; id++)
        add(id, id % 2 ? RECENT_LISTED : RECENT_LIVE, 1000 + (int64_t)id);
    move();
    ck_assert(recent_has_forgotten(r));
    ck_assert_uint_eq(recent_count(r), LIMIT);
    ck_assert(!recent_knows(r, 3) && recent_knows(r, 4));
    add(100, RECENT_LIVE, 2000);
    ck_assert(!recent_knows(r, 4) && recent_knows(r, 5)); /* the oldest still goes first */
    ck_assert(recent_is_repeat(r, 5, 3000));    /* listed: its live copy comes */
    ck_assert(!recent_is_repeat(r, 7000, 3000));
    ck_assert(recent_is_repeat(r, 6, 3000));    /* relayed a while ago */
    ck_assert(!recent_is_repeat(r, 6, 1006 + RECENT_REPEAT_MS));
}
END_TEST

START_TEST(damaged_ids_are_refused)
{
    struct text_buf saved = {0};
    struct recent *got = NULL;
    add(1, RECENT_LISTED, 1);
    add(2, RECENT_LIVE, 2);
    recent_save(r, false, &saved);
    for (size_t len = 1; len < saved.len; len++)
        ck_assert_int_eq(recent_restore(&got, LIMIT, (struct text_span){saved.data, len}),
                         -EBADMSG);
    for (size_t bit = 0; bit < saved.len * 8; bit++) {
        saved.data[bit / 8] = (char)(saved.data[bit / 8] ^ 1 << bit % 8);
        (void)recent_restore(&got, LIMIT, (struct text_span){saved.data, saved.len});
        recent_free(got);
        saved.data[bit / 8] = (char)(saved.data[bit / 8] ^ 1 << bit % 8);
    }
    text_buf_free(&saved);
}
END_TEST

START_TEST(what_two_workers_know_is_joined)
{
    struct recent *other = NULL;
    add(1, RECENT_LISTED, 10);
    add(2, RECENT_LIVE, 30);
    ck_assert_int_eq(recent_add(&other, LIMIT, 1, RECENT_LIVE, 20), 0);
    ck_assert_int_eq(recent_add(&other, LIMIT, 3, RECENT_LISTED, 20), 0);
    ck_assert_int_eq(recent_join_window(&r, other), 0);
    ck_assert_int_eq(recent_join_known(&r, LIMIT, other), 0);
    recent_free(other);
    ck_assert_uint_eq(recent_count(r), 3);
    ck_assert(recent_was_heard(r, 1) && recent_was_heard(r, 2) && !recent_was_heard(r, 3));
    ck_assert(recent_is_repeat(r, 1, 40)); /* of the other's window */
    ck_assert(recent_is_repeat(r, 2, 40));
    recent_free(r);
    r = NULL;
    ck_assert_int_eq(recent_join_known(&r, LIMIT, NULL), 0);
    ck_assert_int_eq(recent_join_window(&r, NULL), 0);
    ck_assert_ptr_null(r);
}
END_TEST

START_TEST(the_window_keeps_the_newest_of_both)
{
    struct recent *other = NULL;
    for (uint64_t id = 1; id <= RECENT_REPEAT_MESSAGES; id++) {
        add(id, RECENT_PASSING, (int64_t)id * 2);
        ck_assert_int_eq(recent_add(&other, LIMIT, 1000 + id, RECENT_PASSING, (int64_t)id * 2 + 1),
                         0);
    }
    ck_assert_int_eq(recent_join_window(&r, other), 0);
    recent_free(other);
    int64_t now_ms = 2 * RECENT_REPEAT_MESSAGES + 2;
    ck_assert(recent_is_repeat(r, RECENT_REPEAT_MESSAGES, now_ms));
    ck_assert(recent_is_repeat(r, 1000 + RECENT_REPEAT_MESSAGES, now_ms));
    ck_assert(!recent_is_repeat(r, 1, now_ms));
    ck_assert(!recent_is_repeat(r, 1001, now_ms));
}
END_TEST

START_TEST(listed_here_and_unknown_there_is_a_difference)
{
    struct recent *other = NULL;
    ck_assert(!recent_differs(r, other));
    add(1, RECENT_LIVE, 1);
    ck_assert(!recent_differs(r, other) && !recent_differs(other, r));
    add(2, RECENT_LISTED, 1);
    ck_assert(recent_differs(r, other) && recent_differs(other, r));
    ck_assert_int_eq(recent_add(&other, LIMIT, 2, RECENT_LIVE, 1), 0);
    ck_assert(!recent_differs(r, other) && !recent_differs(other, r));
    recent_free(other);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("recent");
    TCase *t = tcase_create("recent");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, what_is_known_moves_with_its_order_and_times);
    tcase_add_test(t, damaged_ids_are_refused);
    tcase_add_test(t, what_two_workers_know_is_joined);
    tcase_add_test(t, the_window_keeps_the_newest_of_both);
    tcase_add_test(t, listed_here_and_unknown_there_is_a_difference);
    tcase_add_test(t, nothing_is_known_to_a_quiet_user);
    tcase_add_test(t, a_live_message_repeats_within_two_minutes_only);
    tcase_add_test(t, a_dropped_repeat_does_not_prolong_the_two_minutes);
    tcase_add_test(t, a_live_message_repeats_within_64_messages_only);
    tcase_add_test(t, what_was_heard_stays_so_when_it_is_listed);
    tcase_add_test(t, the_live_copy_of_a_listed_message_is_dropped_however_late);
    tcase_add_test(t, listing_a_live_message_again_does_not_make_it_listed);
    tcase_add_test(t, what_is_in_no_list_is_not_known);
    tcase_add_test(t, the_oldest_is_forgotten_and_renewing_makes_an_id_the_newest);
    tcase_add_test(t, a_hundred_thousand_additions_agree_with_a_plain_array);
    tcase_add_test(t, the_largest_history_fits);
    suite_add_tcase(s, t);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
