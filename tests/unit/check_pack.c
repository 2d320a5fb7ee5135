#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "shared/pack.h"

static struct text_buf out;

static void teardown(void)
{
    text_buf_free(&out);
    out = (struct text_buf){0};
}

static struct unpack unpack_first(size_t len)
{
    return unpack_of((struct text_span){out.data, len});
}

static void pack_all(void)
{
    pack_u8(&out, 0xA5);
    pack_u32(&out, 0x01020304);
    pack_u64(&out, UINT64_MAX - 1);
    pack_i64(&out, INT64_MIN);
    pack_bytes(&out, "two\0words", 9);
    pack_bytes(&out, NULL, 0);
    size_t begun = pack_begin(&out);
    pack_u8(&out, 7);
    pack_end(&out, begun);
}

START_TEST(what_was_packed_comes_out_as_it_was)
{
    pack_all();
    ck_assert(!out.failed);
    ck_assert_int_eq(memcmp(out.data, "\xA5\x04\x03\x02\x01", 5), 0); /* whatever the machine */
    struct unpack in = unpack_first(out.len);
    ck_assert_uint_eq(unpack_u8(&in), 0xA5);
    ck_assert_uint_eq(unpack_u32(&in), 0x01020304);
    ck_assert_uint_eq(unpack_u64(&in), UINT64_MAX - 1);
    ck_assert_int_eq(unpack_i64(&in), INT64_MIN);
    struct text_span bytes = unpack_bytes(&in);
    ck_assert_uint_eq(bytes.len, 9);
    ck_assert_int_eq(memcmp(bytes.ptr, "two\0words", 9), 0);
    ck_assert_uint_eq(unpack_bytes(&in).len, 0);
    ck_assert(!unpack_is_done(&in));
    struct unpack inner = unpack_of(unpack_bytes(&in));
    ck_assert_uint_eq(unpack_u8(&inner), 7);
    ck_assert(unpack_is_done(&inner));
    ck_assert(unpack_is_done(&in));
}
END_TEST

START_TEST(what_is_cut_short_is_bad_and_reads_as_nothing_from_there_on)
{
    pack_all();
    for (size_t len = 0; len < out.len; len++) {
        char *copy = malloc(len + 1); /* so that a byte too far is found */
        memcpy(copy, out.data, len);
        struct unpack in = unpack_of((struct text_span){copy, len});
        unpack_u8(&in);
        unpack_u32(&in);
        unpack_u64(&in);
        unpack_i64(&in);
        unpack_bytes(&in);
        unpack_bytes(&in);
        ck_assert_uint_eq(unpack_bytes(&in).len, 0);
        ck_assert(in.is_bad);
        ck_assert(!unpack_is_done(&in));
        ck_assert_uint_eq(unpack_left(&in), 0);
        ck_assert_uint_eq(unpack_u64(&in), 0);
        free(copy);
    }
}
END_TEST

START_TEST(a_count_that_cannot_be_true_is_bad)
{
    pack_u32(&out, 3);
    pack_u64(&out, 1);
    pack_u64(&out, 2);
    struct unpack in = unpack_first(out.len);
    ck_assert_uint_eq(unpack_count(&in, 8), 0);
    ck_assert(in.is_bad);
    in = unpack_first(out.len);
    ck_assert_uint_eq(unpack_count(&in, 5), 3);
    ck_assert(!in.is_bad);
}
END_TEST

START_TEST(a_time_is_neither_negative_nor_beyond_all_clocks)
{
    const int64_t times[] = {0, PACK_TIME_MAX, -1, PACK_TIME_MAX + 1, INT64_MIN};
    for (int i = 0; i < 5; i++) {
        text_buf_reset(&out);
        pack_i64(&out, times[i]);
        struct unpack in = unpack_first(out.len);
        ck_assert_int_eq(unpack_time(&in), i < 2 ? times[i] : 0);
        ck_assert(in.is_bad == (i >= 2));
    }
}
END_TEST

START_TEST(nothing_unpacks_to_nothing)
{
    struct unpack in = unpack_of((struct text_span){NULL, 0});
    ck_assert(unpack_is_done(&in));
    ck_assert_uint_eq(unpack_bytes(&in).len, 0);
    ck_assert(in.is_bad);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pack");
    TCase *t = tcase_create("pack");
    tcase_add_checked_fixture(t, NULL, teardown);
    tcase_add_test(t, what_was_packed_comes_out_as_it_was);
    tcase_add_test(t, what_is_cut_short_is_bad_and_reads_as_nothing_from_there_on);
    tcase_add_test(t, a_count_that_cannot_be_true_is_bad);
    tcase_add_test(t, a_time_is_neither_negative_nor_beyond_all_clocks);
    tcase_add_test(t, nothing_unpacks_to_nothing);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
