#include "config.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/text.h"
#include "shared/usertable.h"

#define COLUMNS 4

static uint64_t user(uint32_t n)
{
    return text_hash64(&n, sizeof(n));
}

static struct usertable *make(uint32_t capacity)
{
    struct usertable *t = NULL;
    ck_assert_int_eq(usertable_create(capacity, COLUMNS, &t), 0);
    return t;
}

START_TEST(connections_of_one_user_add_up_over_columns)
{
    struct usertable *t = make(100);
    ck_assert_uint_eq(usertable_users(t), 0);
    ck_assert_uint_eq(usertable_connections(t, user(1)), 0);
    ck_assert_int_eq(usertable_enter(t, 0, user(1), 0), 1);
    ck_assert_int_eq(usertable_enter(t, 3, user(1), 0), 2);
    ck_assert_int_eq(usertable_enter(t, 3, user(1), 0), 3);
    ck_assert_int_eq(usertable_enter(t, 1, user(2), 0), 1);
    ck_assert_uint_eq(usertable_users(t), 2);
    ck_assert_uint_eq(usertable_connections(t, user(1)), 3);
    usertable_leave(t, 3, user(1));
    usertable_leave(t, 0, user(1));
    ck_assert_uint_eq(usertable_connections(t, user(1)), 1);
    ck_assert_uint_eq(usertable_users(t), 2);
    usertable_leave(t, 3, user(1));
    ck_assert_uint_eq(usertable_connections(t, user(1)), 0);
    ck_assert_uint_eq(usertable_users(t), 1);
    usertable_free(t);
    usertable_free(NULL);
}
END_TEST

START_TEST(what_is_not_there_is_not_taken_out)
{
    struct usertable *t = make(100);
    usertable_leave(t, 0, user(1));
    ck_assert_int_eq(usertable_enter(t, 0, user(1), 0), 1);
    usertable_leave(t, 1, user(1)); /* another worker's column */
    usertable_leave(t, COLUMNS, user(1));
    ck_assert_int_eq(usertable_enter(t, COLUMNS, user(1), 0), 0);
    usertable_sweep(t, COLUMNS);
    ck_assert_uint_eq(usertable_connections(t, user(1)), 1);
    ck_assert_uint_eq(usertable_users(t), 1);
    usertable_free(t);
}
END_TEST

START_TEST(the_limit_holds_over_all_workers)
{
    struct usertable *t = make(100);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(usertable_enter(t, (uint32_t)i, user(1), 3), i + 1);
    ck_assert_int_eq(usertable_enter(t, 3, user(1), 3), -EDQUOT);
    ck_assert_int_eq(usertable_enter(t, 0, user(1), 2), -EDQUOT);
    ck_assert_uint_eq(usertable_connections(t, user(1)), 3);
    ck_assert_int_eq(usertable_enter(t, 0, user(2), 1), 1);
    usertable_leave(t, 1, user(1));
    ck_assert_int_eq(usertable_enter(t, 3, user(1), 3), 3);
    ck_assert_int_eq(usertable_enter(t, 3, user(1), 0), 4);
    usertable_free(t);
}
END_TEST

START_TEST(a_full_table_counts_nobody_new_and_has_room_again_after_a_leave)
{
    struct usertable *t = make(10);
    for (uint32_t i = 0; i < 10; i++)
        ck_assert_int_eq(usertable_enter(t, 0, user(i), 0), 1);
    ck_assert_int_eq(usertable_enter(t, 0, user(10), 0), 0);
    ck_assert_uint_eq(usertable_users(t), 10);
    ck_assert_int_eq(usertable_enter(t, 1, user(5), 0), 2);
    usertable_leave(t, 0, user(3));
    ck_assert_int_eq(usertable_enter(t, 0, user(10), 0), 1);
    ck_assert_int_eq(usertable_enter(t, 0, user(3), 0), 0);
    ck_assert_uint_eq(usertable_users(t), 10);
    for (uint32_t i = 0; i < 11; i++) {
        usertable_leave(t, 0, user(i));
        usertable_leave(t, 1, user(i));
    }
    ck_assert_uint_eq(usertable_users(t), 0);
    usertable_free(t);
}
END_TEST

START_TEST(one_cell_saturates_without_running_over)
{
    struct usertable *t = make(10);
    for (int i = 1; i <= UINT16_MAX; i++)
        ck_assert_int_eq(usertable_enter(t, 0, user(1), 0), i);
    ck_assert_int_eq(usertable_enter(t, 0, user(1), 0), 0);
    ck_assert_int_eq(usertable_enter(t, 1, user(1), 0), UINT16_MAX + 1);
    usertable_leave(t, 0, user(1));
    ck_assert_uint_eq(usertable_connections(t, user(1)), UINT16_MAX);
    usertable_free(t);
}
END_TEST

START_TEST(a_swept_column_leaves_the_others)
{
    enum { USERS = 5000 };
    struct usertable *t = make(8192);
    for (uint32_t i = 0; i < USERS; i++) {
        usertable_enter(t, i % COLUMNS, user(i), 0);
        if (i % 3 == 0)
            usertable_enter(t, 2, user(i), 0);
    }
    ck_assert_uint_eq(usertable_users(t), USERS);
    usertable_sweep(t, 2);
    uint32_t left = 0;
    for (uint32_t i = 0; i < USERS; i++) {
        uint32_t expected = i % COLUMNS != 2;
        ck_assert_uint_eq(usertable_connections(t, user(i)), expected);
        left += expected;
    }
    ck_assert_uint_eq(usertable_users(t), left);
    usertable_sweep(t, 2);
    ck_assert_uint_eq(usertable_users(t), left);
    /* rows given back are taken again: nothing is lost */
    for (uint32_t i = 0; i < 8192 - left; i++)
        ck_assert_int_eq(usertable_enter(t, 2, user(100000 + i), 0), 1);
    ck_assert_int_eq(usertable_enter(t, 2, user(200000), 0), 0);
    usertable_free(t);
}
END_TEST

START_TEST(colliding_hashes_share_a_chain_and_nothing_else)
{
    struct usertable *t = make(64);
    for (uint64_t i = 0; i < 50; i++) /* one bucket, whatever the mask */
        ck_assert_int_eq(usertable_enter(t, 0, i << 40 | 7, 0), 1);
    for (uint64_t i = 0; i < 50; i += 2)
        usertable_leave(t, 0, i << 40 | 7);
    for (uint64_t i = 0; i < 50; i++)
        ck_assert_uint_eq(usertable_connections(t, i << 40 | 7), i % 2);
    ck_assert_uint_eq(usertable_users(t), 25);
    usertable_free(t);
}
END_TEST

START_TEST(sizes_that_make_no_sense_are_refused)
{
    struct usertable *t;
    ck_assert_int_eq(usertable_create(0, 1, &t), -EINVAL);
    ck_assert_int_eq(usertable_create(1, 0, &t), -EINVAL);
    ck_assert_int_eq(usertable_create(UINT32_MAX, 1, &t), -EINVAL);
    ck_assert_int_eq(usertable_create(1, 1u << 20, &t), -EINVAL);
    ck_assert_int_eq(usertable_create(1u << 20, 256, &t), 0); /* reserved, not used */
    ck_assert_int_eq(usertable_enter(t, 255, user(1), 0), 1);
    usertable_free(t);
}
END_TEST

/* --- several processes --- */

#define HELD 64

struct shared {
    /* What each process believes to hold, written after each call; -1 in busy: between calls. */
    volatile int32_t held[COLUMNS][HELD];
    volatile int32_t busy[COLUMNS];
    volatile uint64_t turns[COLUMNS];
};

static struct shared *share(void)
{
    struct shared *s =
        mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(s, MAP_FAILED);
    memset((void *)s->busy, 0xFF, sizeof(s->busy));
    return s;
}

/* Enters and leaves a few users at random, turns times (0: until killed). */
static void hammer(struct usertable *t, uint32_t column, unsigned seed, uint64_t turns,
                   struct shared *s)
{
    for (uint64_t i = 0; turns == 0 || i < turns; i++) {
        uint32_t n = (uint32_t)rand_r(&seed) % HELD;
        s->busy[column] = (int32_t)n;
        if (s->held[column][n] > 0 && rand_r(&seed) % 2) {
            usertable_leave(t, column, user(n));
            s->held[column][n]--;
        } else if (usertable_enter(t, column, user(n), 0) > 0) {
            s->held[column][n]++;
        }
        s->busy[column] = -1;
        s->turns[column]++;
    }
}

static void check_totals(struct usertable *t, const struct shared *s)
{
    uint32_t users = 0;
    for (uint32_t n = 0; n < HELD; n++) {
        int32_t sum = 0;
        for (int column = 0; column < COLUMNS; column++)
            sum += s->held[column][n];
        ck_assert_int_eq((int32_t)usertable_connections(t, user(n)), sum);
        users += sum > 0;
    }
    ck_assert_uint_eq(usertable_users(t), users);
}

START_TEST(processes_at_once_lose_no_count)
{
    struct usertable *t = make(HELD);
    struct shared *s = share();
    pid_t pids[COLUMNS];
    for (uint32_t i = 0; i < COLUMNS; i++) {
        pids[i] = fork();
        ck_assert_int_ge(pids[i], 0);
        if (pids[i] == 0) {
            hammer(t, i, 1 + i, 30000, s);
            _exit(0);
        }
    }
    for (int i = 0; i < COLUMNS; i++) {
        int status;
        waitpid(pids[i], &status, 0);
        ck_assert_int_eq(status, 0);
    }
    check_totals(t, s);
    for (uint32_t i = 0; i < COLUMNS; i++)
        usertable_sweep(t, i);
    ck_assert_uint_eq(usertable_users(t), 0);
    munmap(s, sizeof(*s));
    usertable_free(t);
}
END_TEST

static void nap_us(long us)
{
    struct timespec ts = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&ts, NULL);
}

START_TEST(a_killed_process_is_swept_and_the_others_go_on)
{
    /* Each death may lose one row for good, so there are more rows than users and deaths. */
    enum { ROUNDS = 150 };
    struct usertable *t = make(2 * HELD + ROUNDS);
    struct shared *s = share();
    int within = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pid_t killed = fork();
        ck_assert_int_ge(killed, 0);
        if (killed == 0) {
            hammer(t, 0, (unsigned)round * 2 + 1, 0, s);
            _exit(0);
        }
        pid_t living = fork();
        ck_assert_int_ge(living, 0);
        if (living == 0) {
            hammer(t, 1, (unsigned)round * 2 + 2, 3000, s);
            _exit(0);
        }
        uint64_t before = s->turns[0];
        while (s->turns[0] - before < 200)
            nap_us(50);
        nap_us(round * 7 % 300);
        kill(killed, SIGKILL);
        int status;
        waitpid(killed, &status, 0);
        ck_assert(WIFSIGNALED(status));
        within += s->busy[0] >= 0;
        usertable_sweep(t, 0); /* while the other is still at work */
        memset((void *)s->held[0], 0, sizeof(s->held[0]));
        s->busy[0] = -1;
        waitpid(living, &status, 0);
        ck_assert_int_eq(status, 0);
        check_totals(t, s);
    }
    ck_assert_int_gt(within, ROUNDS / 10); /* else this test proves nothing */
    usertable_sweep(t, 1);
    ck_assert_uint_eq(usertable_users(t), 0);
    munmap(s, sizeof(*s));
    usertable_free(t);
}
END_TEST

START_TEST(a_process_killed_without_a_sweep_blocks_nobody)
{
    struct usertable *t = make(4 * HELD);
    struct shared *s = share();
    for (int round = 0; round < 60; round++) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            hammer(t, 0, (unsigned)round + 1, 0, s);
            _exit(0);
        }
        uint64_t before = s->turns[0];
        while (s->turns[0] - before < 100)
            nap_us(50);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        for (uint32_t n = 0; n < HELD; n++) {
            uint32_t held = usertable_connections(t, user(n));
            /* what was under way may have happened or not */
            int32_t off = (int32_t)held - s->held[0][n];
            ck_assert(off == 0 || (s->busy[0] == (int32_t)n && off >= -1 && off <= 1));
            s->held[0][n] = (int32_t)held;
        }
        s->busy[0] = -1;
    }
    check_totals(t, s);
    munmap(s, sizeof(*s));
    usertable_free(t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("usertable");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, connections_of_one_user_add_up_over_columns);
    tcase_add_test(tc, what_is_not_there_is_not_taken_out);
    tcase_add_test(tc, the_limit_holds_over_all_workers);
    tcase_add_test(tc, a_full_table_counts_nobody_new_and_has_room_again_after_a_leave);
    tcase_add_test(tc, one_cell_saturates_without_running_over);
    tcase_add_test(tc, a_swept_column_leaves_the_others);
    tcase_add_test(tc, colliding_hashes_share_a_chain_and_nothing_else);
    tcase_add_test(tc, sizes_that_make_no_sense_are_refused);
    tcase_add_test(tc, processes_at_once_lose_no_count);
    tcase_add_test(tc, a_killed_process_is_swept_and_the_others_go_on);
    tcase_add_test(tc, a_process_killed_without_a_sweep_blocks_nobody);
    Suite *s = suite_create("usertable");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
