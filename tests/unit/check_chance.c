/*
 * check_chance.c - numbers by chance.
 */
#include "config.h"

#include <check.h>
#include <stdlib.h>

#include "shared/chance.h"

/* The first numbers of splitmix64, as its author's program prints them. */
START_TEST(numbers_are_those_of_splitmix64)
{
    uint64_t state = 1234567;
    ck_assert_uint_eq(chance_next(&state), UINT64_C(6457827717110365317));
    ck_assert_uint_eq(chance_next(&state), UINT64_C(3203168211198807973));
    ck_assert_uint_eq(chance_next(&state), UINT64_C(9817491932198370423));
}
END_TEST

START_TEST(seeds_differ)
{
    uint64_t seeds[64];
    for (int i = 0; i < 64; i++) {
        seeds[i] = chance_seed();
        for (int other = 0; other < i; other++)
            ck_assert_uint_ne(seeds[i], seeds[other]);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chance");
    TCase *t = tcase_create("chance");
    tcase_add_test(t, numbers_are_those_of_splitmix64);
    tcase_add_test(t, seeds_differ);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
