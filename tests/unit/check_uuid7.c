#include "config.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/uuid7.h"

START_TEST(ids_have_the_form_and_the_time_of_version_7)
{
    int64_t before = clock_wall_ms();
    for (int i = 0; i < 1000; i++) {
        char id[UUID7_TEXT_BYTES];
        memset(id, 'X', sizeof(id));
        uuid7_make(id);
        ck_assert_uint_eq(strlen(id), 36);
        for (int k = 0; k < 36; k++) {
            if (k == 8 || k == 13 || k == 18 || k == 23)
                ck_assert_int_eq(id[k], '-');
            else
                ck_assert(strchr("0123456789abcdef", id[k]));
        }
        ck_assert_int_eq(id[14], '7');
        ck_assert(strchr("89ab", id[19]));
        char hex[13];
        memcpy(hex, id, 8);
        memcpy(hex + 8, id + 9, 4);
        hex[12] = '\0';
        int64_t ms = strtoll(hex, NULL, 16);
        ck_assert(ms >= before && ms <= clock_wall_ms() + 5);
    }
}
END_TEST

START_TEST(ids_increase_strictly)
{
    char last[UUID7_TEXT_BYTES] = "", id[UUID7_TEXT_BYTES];
    for (int i = 0; i < 200000; i++) {
        uuid7_make(id);
        if (strcmp(last, id) >= 0)
            ck_abort_msg("%s after %s", id, last);
        memcpy(last, id, sizeof(id));
    }
}
END_TEST

#define THREADS 4
#define EACH 20000

static void *make_many(void *data)
{
    char(*ids)[UUID7_TEXT_BYTES] = data;
    for (int i = 0; i < EACH; i++)
        uuid7_make(ids[i]);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

START_TEST(threads_share_one_order_and_no_id)
{
    static char ids[THREADS * EACH][UUID7_TEXT_BYTES];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, make_many, ids[i * EACH]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 1; i < THREADS * EACH; i++)
        if (i % EACH)
            ck_assert(strcmp(ids[i - 1], ids[i]) < 0);
    qsort(ids, THREADS * EACH, sizeof(*ids), compare);
    for (int i = 1; i < THREADS * EACH; i++) /* even the first 18 characters differ: one counter */
        if (!memcmp(ids[i - 1], ids[i], 18))
            ck_abort_msg("%s and %s", ids[i - 1], ids[i]);
}
END_TEST

START_TEST(a_child_does_not_repeat_its_parents_random_bits)
{
    char first[UUID7_TEXT_BYTES], parent[UUID7_TEXT_BYTES], child[UUID7_TEXT_BYTES];
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    uuid7_make(first); /* fills the stock that the child inherits */
    pid_t pid = fork();
    ck_assert(pid >= 0);
    if (pid == 0) {
        uuid7_make(child);
        _exit(write(ends[1], child, sizeof(child)) != sizeof(child));
    }
    uuid7_make(parent);
    ck_assert_int_eq(read(ends[0], child, sizeof(child)), sizeof(child));
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(strcmp(parent + 19, child + 19) != 0);
    ck_assert(strcmp(first, child) < 0);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("uuid7");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, ids_have_the_form_and_the_time_of_version_7);
    tcase_add_test(tc, ids_increase_strictly);
    tcase_add_test(tc, threads_share_one_order_and_no_id);
    tcase_add_test(tc, a_child_does_not_repeat_its_parents_random_bits);
    Suite *s = suite_create("uuid7");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
