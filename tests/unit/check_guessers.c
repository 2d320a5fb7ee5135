/*
 * check_guessers.c - who guesses tokens is not verified for a while; and the token bucket.
 */
#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "workers/bucket.h"
#include "workers/guessers.h"

static struct ip address(uint32_t n)
{
    unsigned char bytes[4] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
                              (unsigned char)(n >> 8), (unsigned char)n};
    return ip_from_v4(bytes);
}

START_TEST(an_address_may_fail_so_often_a_minute)
{
    struct guessers *g = guessers_new(6);
    struct ip a = address(1), b = address(2);
    for (int i = 0; i < 6; i++) {
        ck_assert(guessers_may_try(g, &a, 1000));
        guessers_note(g, &a, 1000);
    }
    ck_assert(!guessers_may_try(g, &a, 1000));
    ck_assert(guessers_may_try(g, &b, 1000));
    ck_assert(!guessers_may_try(g, &a, 10999));
    ck_assert(guessers_may_try(g, &a, 11000)); /* a sixth of a minute: one more */
    guessers_note(g, &a, 11000);
    ck_assert(!guessers_may_try(g, &a, 11000));
    ck_assert(guessers_may_try(g, &a, 11000 + 60001));
    guessers_free(g);
}
END_TEST

START_TEST(without_a_limit_or_an_address_all_may_try)
{
    struct guessers *g = guessers_new(0), *one = guessers_new(1);
    struct ip a = address(1), none = {{0}};
    for (int i = 0; i < 100; i++) {
        guessers_note(g, &a, 0);
        guessers_note(one, &none, 0);
    }
    ck_assert(guessers_may_try(g, &a, 0));
    ck_assert(guessers_may_try(one, &none, 0));
    guessers_free(g);
    guessers_free(one);
}
END_TEST

START_TEST(a_flood_of_addresses_frees_no_guesser)
{
    struct guessers *g = guessers_new(10);
    struct ip bad = address(0x01020304);
    for (int i = 0; i < 10; i++)
        guessers_note(g, &bad, 0);
    for (uint32_t n = 0; n < 20 * GUESSERS_MAX; n++) {
        struct ip other = address(0x0a000000 + n);
        guessers_note(g, &other, 0);
    }
    ck_assert(!guessers_may_try(g, &bad, 0));
    guessers_free(g);
}
END_TEST

START_TEST(a_bucket_holds_its_burst_and_fills_at_its_rate)
{
    struct bucket b = {0};
    int64_t now = (INT64_C(1) << 32) - 500; /* the low half comes round meanwhile */
    for (int i = 0; i < 20; i++)
        ck_assert(bucket_take(&b, now, 10, 20, 1));
    ck_assert(!bucket_take(&b, now, 10, 20, 1));
    ck_assert(!bucket_take(&b, now + 99, 10, 20, 1));
    ck_assert(bucket_take(&b, now + 100, 10, 20, 1));
    ck_assert(!bucket_take(&b, now + 1099, 10, 20, 10));
    ck_assert(bucket_take(&b, now + 1100, 10, 20, 10));
    ck_assert(bucket_take(&b, now + 100000, 10, 20, 20));
    ck_assert(!bucket_take(&b, now + 100000, 10, 20, 1));
    ck_assert(!bucket_take(&b, now + 200000, 10, 20, 21));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("guessers");
    tcase_add_test(tc, an_address_may_fail_so_often_a_minute);
    tcase_add_test(tc, without_a_limit_or_an_address_all_may_try);
    tcase_add_test(tc, a_flood_of_addresses_frees_no_guesser);
    tcase_add_test(tc, a_bucket_holds_its_burst_and_fills_at_its_rate);
    Suite *s = suite_create("guessers");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
