/*
 * check_merge.c - merge.c against an oracle that is written the other way round: merge.c walks
 * places, the oracle asks of each entry by itself whether it must be sent, straight from the words
 * of merge.h. All small cases are tried, not samples.
 */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/merge.h"

#define MAX 8
#define SECOND 1000000LL
#define NOW (100000 * SECOND)
#define WINDOW (3600 * SECOND)

/* ---- the oracle ---- */

struct sent {
    uint32_t index[MAX];
    size_t count;
};

static bool keeps(const struct merge_entry *list, size_t count, size_t i)
{
    if (!list[i].is_valid)
        return false;
    for (size_t j = i + 1; j < count; j++)
        if (list[j].is_valid && list[j].has_id && list[i].has_id &&
            list[j].id_hash == list[i].id_hash)
            return false;
    return true;
}

/* Entry whose time counts for i: the nearest one at or behind it (toward the tail) that has a
 * time. */
static long leader(const struct merge_entry *list, size_t count, size_t i)
{
    for (size_t j = i; j < count; j++)
        if (keeps(list, count, j) && list[j].timestamp_us)
            return (long)j;
    return -1;
}

static bool comes_before(const struct merge_entry *list, size_t count, bool reversed, size_t a,
                         size_t b)
{
    if (!reversed)
        return a > b;
    long la = leader(list, count, a), lb = leader(list, count, b);
    int64_t ta = la < 0 ? INT64_MIN : list[la].timestamp_us;
    int64_t tb = lb < 0 ? INT64_MIN : list[lb].timestamp_us;
    if (ta != tb)
        return ta < tb;
    return a > b;
}

static struct sent oracle_order(const struct merge_entry *list, size_t count)
{
    bool reversed = false;
    for (size_t head = 0; head < count; head++)
        for (size_t tail = head + 1; tail < count; tail++)
            if (keeps(list, count, head) && keeps(list, count, tail) && list[head].timestamp_us &&
                list[tail].timestamp_us &&
                list[tail].timestamp_us - list[head].timestamp_us > 2 * SECOND)
                reversed = true;
    struct sent s = {0};
    for (size_t i = 0; i < count; i++) {
        if (!keeps(list, count, i))
            continue;
        size_t before = 0;
        for (size_t j = 0; j < count; j++)
            before += keeps(list, count, j) && j != i && comes_before(list, count, reversed, j, i);
        s.index[before] = (uint32_t)i;
        s.count++;
    }
    return s;
}

static bool among(const uint64_t *ids, size_t count, uint64_t id)
{
    while (count--)
        if (ids[count] == id)
            return true;
    return false;
}

static long rank_of(const struct merge_entry *list, const struct sent *order, uint64_t id)
{
    for (size_t k = 0; k < order->count; k++)
        if (list[order->index[k]].id_hash == id)
            return (long)k;
    return -1;
}

static bool oracle_sends(const struct merge_entry *list, const struct sent *order, size_t k,
                         const struct merge_position *p, const uint64_t *held, size_t held_count)
{
    uint64_t id = list[order->index[k]].id_hash;
    if (among(p->seen, p->seen_count, id) || (p->has_last_id && id == p->last_id))
        return false;
    long at = -1;
    if (p->has_last_id) {
        at = rank_of(list, order, p->last_id);
        for (size_t i = 0; at >= 0 && i < p->seen_count; i++) {
            long seen_at = rank_of(list, order, p->seen[i]);
            if (seen_at >= 0 && seen_at < at)
                at = seen_at;
        }
    } else if (p->has_acked)
        at = rank_of(list, order, p->acked);
    if (at >= 0)
        return (long)k > at;
    for (size_t j = 0; j <= k; j++)
        if (among(held, held_count, list[order->index[j]].id_hash))
            return true; /* what was held leaves no hole behind it */
    int64_t time = list[order->index[k]].timestamp_us;
    size_t younger_behind = 0;
    for (size_t j = k + 1; j < order->count; j++) {
        int64_t t = list[order->index[j]].timestamp_us;
        younger_behind += !t || NOW - t < p->replay_window_us;
    }
    return (!time || NOW - time < p->replay_window_us) && younger_behind < p->replay_limit;
}

static bool oracle_keeps_held(const struct merge_entry *list, const struct sent *order, size_t h,
                              const struct merge_position *p, const uint64_t *held)
{
    if (!held[h])
        return true;
    if (p && (among(p->seen, p->seen_count, held[h]) || (p->has_last_id && held[h] == p->last_id)))
        return false;
    return rank_of(list, order, held[h]) < 0 && !among(held, h, held[h]);
}

/* ---- comparing ---- */

static void fail_case(const char *what, const struct merge_entry *list, size_t count,
                      const struct merge_position *p, const uint64_t *held, size_t held_count)
{
    char text[512];
    size_t at = (size_t)snprintf(text, sizeof(text), "%s: list (head first)", what);
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, " %d@%ds%s", (int)list[i].id_hash,
                               (int)(list[i].timestamp_us / SECOND),
                               list[i].is_valid ? "" : "(invalid)");
    for (size_t i = 0; i < held_count; i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, " held %d", (int)held[i]);
    if (p)
        snprintf(text + at, sizeof(text) - at, " last_id %d:%d acked %d:%d seen %d limit %d",
                 p->has_last_id, (int)p->last_id, p->has_acked, (int)p->acked, (int)p->seen_count,
                 (int)p->replay_limit);
    ck_abort_msg("%s", text);
}

static void compare_attach(const struct merge_entry *list, size_t count,
                           const struct merge_position *p, const uint64_t *held, size_t held_count)
{
    uint32_t order[MAX], scratch[2 * MAX], missed[MAX], held_out[MAX];
    size_t n = merge_order(list, count, order, scratch);
    struct merge_result r = merge_attach(list, order, n, p, held, held_count, missed, held_out);
    struct sent right = oracle_order(list, count);
    size_t m = 0, h_out = 0;
    for (size_t k = 0; k < right.count; k++)
        if (oracle_sends(list, &right, k, p, held, held_count)) {
            if (m >= r.missed_count || missed[m] != right.index[k])
                fail_case("missed", list, count, p, held, held_count);
            m++;
        }
    for (size_t h = 0; h < held_count; h++)
        if (oracle_keeps_held(list, &right, h, p, held)) {
            if (h_out >= r.held_count || held_out[h_out] != h)
                fail_case("held", list, count, p, held, held_count);
            h_out++;
        }
    bool recovered = !p->has_last_id || rank_of(list, &right, p->last_id) >= 0;
    if (m != r.missed_count || h_out != r.held_count || recovered != r.is_recovered)
        fail_case("counts", list, count, p, held, held_count);
}

/* Entry number n of the small universe: ids 1 to 3, old or young, or invalid. */
#define ENTRIES 7
static struct merge_entry universe(size_t n, size_t place)
{
    struct merge_entry e = {.is_valid = n < 6, .has_id = true, .id_hash = 1 + n % 3};
    /* Within two seconds of each other, so that position decides. */
    e.timestamp_us = (n < 3 ? NOW - 2 * WINDOW : NOW - SECOND) - (int64_t)place * 1000;
    return e;
}

static void each_position(const struct merge_entry *list, size_t count, const uint64_t *held,
                          size_t held_count)
{
    static const size_t limits[] = {0, 1, 20};
    for (int where = 0; where < 9; where++)
        for (int seen = 0; seen < 8; seen++)
            for (size_t l = 0; l < 3; l++) {
                uint64_t ids[3];
                struct merge_position p = {.seen = ids, .now_us = NOW, .replay_window_us = WINDOW,
                                           .replay_limit = limits[l]};
                for (int bit = 0; bit < 3; bit++)
                    if (seen & (1 << bit))
                        ids[p.seen_count++] = (uint64_t)bit + 1;
                p.has_last_id = where >= 5; /* 1 to 4; 4 is in no list */
                p.last_id = p.has_last_id ? (uint64_t)where - 4 : 0;
                p.has_acked = where >= 1;
                p.acked = p.has_acked ? (uint64_t)(where - 1) % 4 + 1 : 0;
                compare_attach(list, count, &p, held, held_count);
            }
}

static void each_list(size_t count, size_t held_max)
{
    size_t lists = 1;
    for (size_t i = 0; i < count; i++)
        lists *= ENTRIES;
    for (size_t l = 0; l < lists; l++) {
        struct merge_entry list[MAX];
        for (size_t i = 0, rest = l; i < count; i++, rest /= ENTRIES)
            list[i] = universe(rest % ENTRIES, i);
        uint64_t held[2];
        each_position(list, count, held, 0);
        for (held[0] = 0; held_max >= 1 && held[0] < 5; held[0]++) {
            each_position(list, count, held, 1);
            for (held[1] = 0; held_max >= 2 && held[1] < 5; held[1]++)
                each_position(list, count, held, 2);
        }
    }
}

START_TEST(attaching_agrees_with_the_oracle_in_every_small_case)
{
    each_list(0, 2);
    each_list(1, 2);
    each_list(2, 2);
    each_list(3, 2);
    each_list(4, 1);
}
END_TEST

START_TEST(order_agrees_with_the_oracle_in_every_list_of_up_to_five)
{
    static const int64_t times[] = {0, NOW, NOW + SECOND, NOW + 3 * SECOND};
    for (size_t count = 0; count <= 5; count++) {
        size_t lists = 1;
        for (size_t i = 0; i < count; i++)
            lists *= 10;
        for (size_t l = 0; l < lists; l++) {
            struct merge_entry list[MAX];
            uint32_t order[MAX], scratch[2 * MAX];
            for (size_t i = 0, rest = l; i < count; i++, rest /= 10) {
                size_t kind = rest % 10;
                list[i] = (struct merge_entry){.timestamp_us = times[kind % 4],
                                               .is_valid = kind != 9, .has_id = kind != 8,
                                               .id_hash = kind < 4 ? 1 : 2 + i};
            }
            size_t n = merge_order(list, count, order, scratch);
            struct sent right = oracle_order(list, count);
            if (n != right.count || memcmp(order, right.index, n * sizeof(*order)))
                fail_case("order", list, count, NULL, NULL, 0);
        }
    }
}
END_TEST

/* ---- repair ---- */

/* A hole between these would stand behind the last_id that the device gives next time. */
START_TEST(what_was_held_leaves_no_hole_before_the_newest_entries)
{
    struct merge_entry list[50];
    uint32_t order[50], scratch[100], missed[50], held_out[6];
    uint64_t held[6];
    for (size_t i = 0; i < 50; i++) /* the head is the newest */
        list[i] = (struct merge_entry){
            .id_hash = 50 - i, .timestamp_us = NOW, .is_valid = true, .has_id = true};
    for (size_t i = 0; i < 6; i++)
        held[i] = 6 + i;
    struct merge_position p = {.now_us = NOW, .replay_window_us = SECOND, .replay_limit = 20};
    size_t n = merge_order(list, 50, order, scratch);
    struct merge_result r = merge_attach(list, order, n, &p, held, 6, missed, held_out);
    ck_assert_uint_eq(r.missed_count, 45);
    for (size_t i = 0; i < r.missed_count; i++)
        ck_assert_uint_eq(list[missed[i]].id_hash, 6 + i);
    ck_assert_uint_eq(r.held_count, 0);
}
END_TEST

static bool is_known(const void *data, uint64_t id)
{
    return *(const unsigned *)data & (1U << id);
}

START_TEST(repair_sends_what_is_not_known_and_what_was_held_in_list_order)
{
    for (size_t l = 0; l < ENTRIES * ENTRIES * ENTRIES; l++)
        for (unsigned known = 0; known < 16; known += 2)
            for (uint64_t h = 0; h < 6; h++) {
                struct merge_entry list[3];
                for (size_t i = 0, rest = l; i < 3; i++, rest /= ENTRIES)
                    list[i] = universe(rest % ENTRIES, i);
                uint64_t held[1] = {h};
                size_t held_count = h < 5 ? 1 : 0;
                uint32_t order[3], scratch[6], missed[3], held_out[1];
                size_t n = merge_order(list, 3, order, scratch);
                struct merge_known k = {.is_known = is_known, .data = &known};
                struct merge_result r =
                    merge_repair(list, order, n, &k, held, held_count, missed, held_out);
                struct sent right = oracle_order(list, 3);
                size_t m = 0;
                for (size_t i = 0; i < right.count; i++) {
                    uint64_t id = list[right.index[i]].id_hash;
                    if (is_known(&known, id) && !among(held, held_count, id))
                        continue;
                    if (m >= r.missed_count || missed[m++] != right.index[i])
                        fail_case("repair", list, 3, NULL, held, held_count);
                }
                if (m != r.missed_count ||
                    r.held_count != (held_count && oracle_keeps_held(list, &right, 0, NULL, held)))
                    fail_case("repair counts", list, 3, NULL, held, held_count);
            }
}
END_TEST

static size_t repair_after_forgetting(unsigned known, int64_t before_us, uint32_t missed[4])
{
    struct merge_entry list[4]; /* ids 4 (newest) to 1 (oldest) */
    for (size_t i = 0; i < 4; i++)
        list[i] = (struct merge_entry){.id_hash = 4 - i, .is_valid = true, .has_id = true,
                                       .timestamp_us = NOW + (int64_t)(3 - i) * SECOND};
    uint32_t order[4], scratch[8], held_out[1];
    size_t n = merge_order(list, 4, order, scratch);
    struct merge_known k = {.is_known = is_known, .data = &known, .has_forgotten = true,
                            .before_us = before_us};
    return merge_repair(list, order, n, &k, NULL, 0, missed, held_out).missed_count;
}

START_TEST(repair_after_forgetting_takes_what_is_older_than_the_oldest_known_for_known)
{
    uint32_t missed[4];
    ck_assert_uint_eq(repair_after_forgetting(1U << 2, NOW, missed), 2);
    ck_assert_uint_eq(missed[0], 1); /* id 3 */
    ck_assert_uint_eq(missed[1], 0); /* id 4 */
    ck_assert_uint_eq(repair_after_forgetting(1U << 2 | 1U << 4, NOW, missed), 1);
    ck_assert_uint_eq(missed[0], 1);
}
END_TEST

START_TEST(repair_after_forgetting_everything_goes_by_time)
{
    uint32_t missed[4];
    ck_assert_uint_eq(repair_after_forgetting(0, NOW - SECOND, missed), 4);
    ck_assert_uint_eq(repair_after_forgetting(0, NOW + 2 * SECOND, missed), 2);
    ck_assert_uint_eq(missed[0], 1);
}
END_TEST

/* ---- the cases that the text names ---- */

START_TEST(a_list_that_a_janitor_reversed_goes_by_timestamp)
{
    struct merge_entry list[3];
    for (size_t i = 0; i < 3; i++) /* head is the oldest: 1, 2, 3 */
        list[i] = (struct merge_entry){.id_hash = i + 1, .is_valid = true, .has_id = true,
                                       .timestamp_us = NOW + (int64_t)i * 5 * SECOND};
    uint32_t order[3], scratch[6];
    ck_assert_uint_eq(merge_order(list, 3, order, scratch), 3);
    for (uint32_t i = 0; i < 3; i++)
        ck_assert_uint_eq(order[i], i);
}
END_TEST

START_TEST(clocks_two_seconds_apart_do_not_change_the_order)
{
    struct merge_entry list[2] = {
        {.id_hash = 1, .is_valid = true, .has_id = true, .timestamp_us = NOW},
        {.id_hash = 2, .is_valid = true, .has_id = true, .timestamp_us = NOW + MERGE_REVERSED_US}};
    uint32_t order[2], scratch[4];
    merge_order(list, 2, order, scratch);
    ck_assert_uint_eq(order[0], 1);
    list[1].timestamp_us++;
    merge_order(list, 2, order, scratch);
    ck_assert_uint_eq(order[0], 0);
}
END_TEST

START_TEST(a_long_list_with_equal_times_keeps_its_positions_when_sorted)
{
    enum { COUNT = 2000 };
    struct merge_entry *list = calloc(COUNT, sizeof(*list));
    uint32_t *order = calloc(COUNT, sizeof(*order)), *scratch = calloc(2 * COUNT, sizeof(*scratch));
    for (size_t i = 0; i < COUNT; i++)
        list[i] = (struct merge_entry){.id_hash = i + 1, .is_valid = true, .has_id = true,
                                       .timestamp_us = NOW + (int64_t)(i / 500) * 10 * SECOND};
    ck_assert_uint_eq(merge_order(list, COUNT, order, scratch), COUNT);
    for (size_t k = 0; k < COUNT; k++)
        ck_assert_uint_eq(order[k], k / 500 * 500 + 499 - k % 500);
    free(list);
    free(order);
    free(scratch);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("merge");
    TCase *t = tcase_create("merge");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, attaching_agrees_with_the_oracle_in_every_small_case);
    tcase_add_test(t, order_agrees_with_the_oracle_in_every_list_of_up_to_five);
    tcase_add_test(t, repair_sends_what_is_not_known_and_what_was_held_in_list_order);
    tcase_add_test(t, repair_after_forgetting_takes_what_is_older_than_the_oldest_known_for_known);
    tcase_add_test(t, repair_after_forgetting_everything_goes_by_time);
    tcase_add_test(t, a_list_that_a_janitor_reversed_goes_by_timestamp);
    tcase_add_test(t, clocks_two_seconds_apart_do_not_change_the_order);
    tcase_add_test(t, a_long_list_with_equal_times_keeps_its_positions_when_sorted);
    tcase_add_test(t, what_was_held_leaves_no_hole_before_the_newest_entries);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
