#include "config.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/trace.h"

#define SLOTS 3
#define SIZE 64
#define USER 11
#define OTHER 12
#define ID 1000

static struct trace t;

static void setup(void)
{
    ck_assert_int_eq(trace_create(&t, SLOTS, SIZE), 0);
    trace_attach(&t, 1);
    trace_set_time(5000);
}

static void teardown(void)
{
    trace_destroy(&t);
}

static trace_ticket add(enum trace_fate fate, uint64_t user, uint64_t id, uint64_t serial)
{
    return trace_add(&(struct trace_record){
        .fate = (uint16_t)fate, .user_hash = user, .id_hash = id, .serial = serial});
}

static size_t find(struct trace_record *out, bool *is_cut)
{
    return trace_find(&t, 1, USER, ID, out, is_cut);
}

START_TEST(sizes_become_powers_of_two_and_zero_is_off)
{
    struct trace other;
    ck_assert_int_eq(trace_create(&other, 1, 100), 0);
    ck_assert_uint_eq(other.size, 128);
    trace_destroy(&other);
    ck_assert_int_eq(trace_create(&other, 1, TRACE_MAX_RECORDS + 1), -EINVAL);
    ck_assert_int_eq(trace_create(&other, 1, 0), 0);
    ck_assert_ptr_null(other.segment);
    trace_attach(&other, 0);
    ck_assert(!trace_is_on());
    struct trace_record r[TRACE_FOUND_MAX];
    ck_assert_uint_eq(trace_find(&other, 0, USER, ID, r, NULL), 0);
    ck_assert_uint_eq(trace_count(&other, 0), 0);
    trace_finish(1, TRACE_END_WRITTEN, 1);
    trace_relabel(ID, 1, TRACE_QUEUED, TRACE_REPLAYED);
    trace_destroy(&other);
}
END_TEST

START_TEST(destroying_the_segment_turns_the_trace_off)
{
    ck_assert(trace_is_on());
    trace_destroy(&t);
    ck_assert(!trace_is_on());
}
END_TEST

START_TEST(records_come_back_in_order_with_their_time)
{
    struct trace_record r[TRACE_FOUND_MAX];
    add(TRACE_RECEIVED, USER, ID, 0);
    trace_set_time(6000);
    add(TRACE_QUEUED, USER, ID, 7);
    ck_assert_uint_eq(find(r, NULL), 2);
    ck_assert_uint_eq(r[0].fate, TRACE_RECEIVED);
    ck_assert_int_eq(r[0].at_us, 5000);
    ck_assert_uint_eq(r[1].fate, TRACE_QUEUED);
    ck_assert_int_eq(r[1].at_us, 6000);
    ck_assert_uint_eq(r[1].serial, 7);
    ck_assert_uint_eq(r[1].end, TRACE_END_WAITING);
    ck_assert_uint_eq(trace_count(&t, 1), 2);
    ck_assert_uint_eq(trace_count(&t, 0), 0);
    ck_assert_uint_eq(trace_find(&t, 0, USER, ID, r, NULL), 0);
    ck_assert_uint_eq(trace_find(&t, SLOTS, USER, ID, r, NULL), 0);
}
END_TEST

START_TEST(only_what_was_asked_for_is_found)
{
    struct trace_record r[TRACE_FOUND_MAX];
    add(TRACE_QUEUED, OTHER, ID, 1);
    add(TRACE_QUEUED, USER, ID + 1, 2);
    add(TRACE_OPENED, OTHER, 0, 3);
    ck_assert_uint_eq(find(r, NULL), 0);
    add(TRACE_BROADCAST, 0, ID, 0);
    add(TRACE_BROADCAST, 0, ID + 1, 0);
    add(TRACE_OPENED, USER, 0, 4);
    add(TRACE_LINK_LOST, 0, 0, 0);
    ck_assert_uint_eq(find(r, NULL), 3);
    ck_assert_uint_eq(r[0].fate, TRACE_BROADCAST);
    ck_assert_uint_eq(r[1].fate, TRACE_OPENED);
    ck_assert_uint_eq(r[2].fate, TRACE_LINK_LOST);
}
END_TEST

START_TEST(the_ring_keeps_the_newest)
{
    struct trace_record r[TRACE_FOUND_MAX];
    bool is_cut = false;
    for (uint64_t i = 1; i <= 3 * SIZE + 5; i++)
        add(TRACE_QUEUED, USER, ID, i);
    ck_assert_uint_eq(find(r, &is_cut), SIZE);
    ck_assert(!is_cut);
    for (uint64_t i = 0; i < SIZE; i++)
        ck_assert_uint_eq(r[i].serial, 2 * SIZE + 6 + i);
    ck_assert(!trace_read(&t, 1, 1, r));
    ck_assert(!trace_read(&t, 1, 0, r));
    ck_assert(!trace_read(&t, 1, 3 * SIZE + 6, r));
    ck_assert(trace_read(&t, 1, 3 * SIZE + 5, r));
}
END_TEST

START_TEST(too_many_finds_are_cut_to_the_newest_and_said_so)
{
    struct trace big;
    struct trace_record r[TRACE_FOUND_MAX];
    bool is_cut = false;
    ck_assert_int_eq(trace_create(&big, 1, 4096), 0);
    trace_attach(&big, 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        add(TRACE_QUEUED, USER, ID, i);
        add(TRACE_LINK_LOST, 0, 0, 0);
    }
    size_t n = trace_find(&big, 0, USER, ID, r, &is_cut);
    ck_assert_uint_eq(n, TRACE_FOUND_MESSAGE + TRACE_FOUND_WORKER);
    ck_assert(is_cut);
    ck_assert_uint_eq(r[n - 1].fate, TRACE_LINK_LOST);
    ck_assert_uint_eq(r[n - 2].serial, 1000);
    trace_destroy(&big);
}
END_TEST

START_TEST(a_queued_message_is_finished_once)
{
    struct trace_record r[TRACE_FOUND_MAX];
    trace_ticket ticket = add(TRACE_QUEUED, USER, ID, 7);
    trace_set_time(9000);
    trace_finish(ticket, TRACE_END_WRITTEN, 321);
    trace_finish(ticket, TRACE_END_CLOSED, 999);
    trace_finish(0, TRACE_END_CLOSED, 999);
    ck_assert_uint_eq(find(r, NULL), 1);
    ck_assert_uint_eq(r[0].end, TRACE_END_WRITTEN);
    ck_assert_uint_eq(r[0].position, 321);
    ck_assert_int_eq(r[0].end_us, 9000);
    ck_assert_int_eq(r[0].at_us, 5000);
    ck_assert_uint_eq(r[0].fate, TRACE_QUEUED);
}
END_TEST

START_TEST(a_ticket_of_a_record_that_is_gone_changes_nothing)
{
    struct trace_record r[TRACE_FOUND_MAX];
    trace_ticket ticket = add(TRACE_QUEUED, USER, ID, 7);
    for (int i = 0; i < SIZE; i++)
        add(TRACE_QUEUED, USER, ID, 8);
    trace_finish(ticket, TRACE_END_WRITTEN, 321);
    ck_assert_uint_eq(find(r, NULL), SIZE);
    for (int i = 0; i < SIZE; i++)
        ck_assert_uint_eq(r[i].end, TRACE_END_WAITING);
    /* Neither does one of a worker that had this slot before a ring was written at all. */
    trace_attach(&t, 2);
    trace_finish(5, TRACE_END_WRITTEN, 1);
    ck_assert_uint_eq(trace_count(&t, 2), 0);
}
END_TEST

START_TEST(the_newest_record_gets_its_reason_later)
{
    struct trace_record r[TRACE_FOUND_MAX];
    trace_ticket ticket = add(TRACE_QUEUED, USER, ID, 7);
    trace_relabel(ID, 8, TRACE_QUEUED, TRACE_REPLAYED);
    trace_relabel(ID + 1, 7, TRACE_QUEUED, TRACE_REPLAYED);
    trace_relabel(ID, 7, TRACE_FILTERED, TRACE_REPLAYED);
    ck_assert_uint_eq(find(r, NULL), 1);
    ck_assert_uint_eq(r[0].fate, TRACE_QUEUED);
    trace_relabel(ID, 7, TRACE_QUEUED, TRACE_REPLAYED);
    trace_finish(ticket, TRACE_END_WRITTEN, 1);
    ck_assert_uint_eq(find(r, NULL), 1);
    ck_assert_uint_eq(r[0].fate, TRACE_REPLAYED);
    ck_assert_uint_eq(r[0].end, TRACE_END_WRITTEN);
}
END_TEST

START_TEST(a_successor_goes_on_in_the_same_ring)
{
    struct trace_record r[TRACE_FOUND_MAX];
    add(TRACE_QUEUED, USER, ID, 7);
    trace_attach(&t, 0);
    trace_attach(&t, 1);
    add(TRACE_STARTED, 0, 0, 0);
    ck_assert_uint_eq(find(r, NULL), 2);
    ck_assert_uint_eq(r[0].fate, TRACE_QUEUED);
    ck_assert_uint_eq(r[1].fate, TRACE_STARTED);
}
END_TEST

/* Writes records whose fields all say the same number, and finishes them, until it is killed. */
static void write_for_ever(void)
{
    for (uint64_t i = 1;; i++) {
        trace_set_time((int64_t)i);
        trace_ticket ticket = trace_add(&(struct trace_record){.fate = TRACE_QUEUED,
                                                               .user_hash = USER,
                                                               .id_hash = ID,
                                                               .serial = i,
                                                               .position = i,
                                                               .detail = (uint32_t)i});
        trace_finish(ticket, TRACE_END_WRITTEN, i);
    }
}

static void assert_whole(const struct trace_record *r)
{
    ck_assert_uint_eq(r->serial, r->number);
    ck_assert_uint_eq(r->position, r->number);
    ck_assert_uint_eq(r->detail, (uint32_t)r->number);
    ck_assert_int_eq(r->at_us, (int64_t)r->number);
    ck_assert_uint_eq(r->fate, TRACE_QUEUED);
    if (r->end == TRACE_END_WRITTEN)
        ck_assert_int_eq(r->end_us, (int64_t)r->number);
}

START_TEST(no_reader_sees_half_of_a_record)
{
    struct trace_record *r = calloc(TRACE_FOUND_MAX, sizeof(*r));
    uint64_t read = 0;
    pid_t writer = fork();
    ck_assert_int_ge(writer, 0);
    if (!writer)
        write_for_ever();
    int64_t until_ms = clock_mono_ms() + 1000;
    while (clock_mono_ms() < until_ms) {
        size_t n = find(r, NULL);
        for (size_t i = 0; i < n; i++) {
            assert_whole(&r[i]);
            ck_assert(!i || r[i].number > r[i - 1].number);
        }
        read += n;
    }
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    ck_assert_uint_gt(read, 0);
    ck_assert_uint_gt(trace_count(&t, 1), 10 * SIZE); /* or nothing was overtaken */
    free(r);
}
END_TEST

START_TEST(words_are_read_as_they_are_written)
{
    for (int i = TRACE_NONE + 1; i < TRACE_FATES; i++) {
        const char *word = trace_fate_word((uint32_t)i);
        ck_assert_int_eq(trace_fate_of(word, strlen(word)), i);
    }
    for (int i = 0; i < TRACE_ENDS; i++) {
        const char *word = trace_end_word((uint32_t)i);
        ck_assert_int_eq(trace_end_of(word, strlen(word)), i);
    }
    ck_assert_int_eq(trace_fate_of("", 0), TRACE_NONE);
    ck_assert_int_eq(trace_fate_of("nonsense", 8), TRACE_NONE);
    ck_assert_int_eq(trace_end_of("nonsense", 8), TRACE_ENDS);
    ck_assert_str_eq(trace_fate_word(TRACE_FATES), "unknown");
    ck_assert_str_eq(trace_end_word(TRACE_ENDS), "unknown");
}
END_TEST

START_TEST(connections_are_named_by_the_random_end_of_the_instance)
{
    char id[TRACE_CONNECTION_BYTES];
    ck_assert_str_eq(trace_connection("01a20795-44bc-76ee-8358-140d64e422cd", 0xabc1a, id),
                     "64e422cd-1a-abc1a");
    ck_assert_str_eq(trace_connection("unit", 0x101, id), "unit-1-101");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("trace");
    TCase *c = tcase_create("trace");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, sizes_become_powers_of_two_and_zero_is_off);
    tcase_add_test(c, destroying_the_segment_turns_the_trace_off);
    tcase_add_test(c, records_come_back_in_order_with_their_time);
    tcase_add_test(c, only_what_was_asked_for_is_found);
    tcase_add_test(c, the_ring_keeps_the_newest);
    tcase_add_test(c, too_many_finds_are_cut_to_the_newest_and_said_so);
    tcase_add_test(c, a_queued_message_is_finished_once);
    tcase_add_test(c, a_ticket_of_a_record_that_is_gone_changes_nothing);
    tcase_add_test(c, the_newest_record_gets_its_reason_later);
    tcase_add_test(c, a_successor_goes_on_in_the_same_ring);
    tcase_add_test(c, no_reader_sees_half_of_a_record);
    tcase_add_test(c, words_are_read_as_they_are_written);
    tcase_add_test(c, connections_are_named_by_the_random_end_of_the_instance);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
