#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/token_known.h"

/* The n-th of those that share a set. */
static struct token_mark neighbour(unsigned char n)
{
    struct token_mark m = {.bytes = {0xAB, 0xCD, n}};
    m.bytes[31] = n;
    return m;
}

START_TEST(what_was_added_is_known_and_nothing_else)
{
    struct token_known *k = token_known_new();
    struct token_mark mark, other;
    ck_assert(token_known_mark(k, text_span_of("a.b.c"), &mark));
    ck_assert(token_known_mark(k, text_span_of("a.b.d"), &other));
    ck_assert(!token_known_has(k, &mark));
    token_known_add(k, &mark);
    ck_assert(token_known_has(k, &mark));
    ck_assert(!token_known_has(k, &other));
    for (size_t at = 0; at < sizeof(mark.bytes) * 8; at++) {
        other = mark;
        other.bytes[at / 8] ^= (unsigned char)(1 << at % 8);
        ck_assert(!token_known_has(k, &other));
    }
    token_known_free(k);
    token_known_free(NULL);
}
END_TEST

START_TEST(a_mark_is_the_sha_256)
{
    static const unsigned char of_abc[] = {
        0xBA, 0x78, 0x16, 0xBF, 0x8F, 0x01, 0xCF, 0xEA, 0x41, 0x41, 0x40,
        0xDE, 0x5D, 0xAE, 0x22, 0x23, 0xB0, 0x03, 0x61, 0xA3, 0x96, 0x17,
        0x7A, 0x9C, 0xB4, 0x10, 0xFF, 0x61, 0xF2, 0x00, 0x15, 0xAD};
    struct token_known *k = token_known_new();
    struct token_mark mark;
    ck_assert(token_known_mark(k, text_span_of("abc"), &mark));
    ck_assert_mem_eq(mark.bytes, of_abc, sizeof(of_abc));
    token_known_free(k);
}
END_TEST

START_TEST(in_a_full_set_one_gives_way_for_each)
{
    struct token_known *k = token_known_new();
    for (unsigned char n = 0; n < 20; n++) {
        struct token_mark mark = neighbour(n);
        int kept = 0;
        token_known_add(k, &mark);
        ck_assert(token_known_has(k, &mark));
        for (unsigned char i = 0; i <= n; i++) {
            mark = neighbour(i);
            kept += token_known_has(k, &mark);
        }
        ck_assert_int_eq(kept, n < 8 ? n + 1 : 8);
    }
    token_known_free(k);
}
END_TEST

START_TEST(a_quarter_of_what_there_is_room_for_is_kept_nearly_whole)
{
    struct token_known *k = token_known_new();
    struct token_mark mark;
    int kept = 0, n = TOKEN_KNOWN_MAX / 4;
    for (int i = 0; i < n; i++) {
        ck_assert(token_known_mark(k, (struct text_span){(const char *)&i, sizeof(i)}, &mark));
        token_known_add(k, &mark);
    }
    for (int i = 0; i < n; i++) {
        ck_assert(token_known_mark(k, (struct text_span){(const char *)&i, sizeof(i)}, &mark));
        kept += token_known_has(k, &mark);
    }
    ck_assert_int_ge(kept, n / 1000 * 995);
    token_known_free(k);
}
END_TEST

START_TEST(all_is_forgotten_at_once)
{
    struct token_known *k = token_known_new();
    struct token_mark mark = neighbour(1);
    token_known_forget(k); /* nothing yet */
    token_known_add(k, &mark);
    token_known_forget(k);
    ck_assert(!token_known_has(k, &mark));
    token_known_add(k, &mark);
    ck_assert(token_known_has(k, &mark));
    token_known_free(k);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("token_known");
    tcase_add_test(tc, what_was_added_is_known_and_nothing_else);
    tcase_add_test(tc, a_mark_is_the_sha_256);
    tcase_add_test(tc, in_a_full_set_one_gives_way_for_each);
    tcase_add_test(tc, a_quarter_of_what_there_is_room_for_is_kept_nearly_whole);
    tcase_add_test(tc, all_is_forgotten_at_once);
    Suite *s = suite_create("token_known");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
