/*
 * check_deflate.c - what is deflated comes back whole, and what is inflated stays within bounds.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "shared/counters.h"
#include "workers/deflate.h"

#define THRESHOLD 64

static struct deflate *d;
static struct text_buf out;
static unsigned char packed[200000];

static void setup(void)
{
    d = deflate_new(THRESHOLD);
}

static void teardown(void)
{
    deflate_free(d);
    text_buf_free(&out);
}

static uint64_t count(enum counter id)
{
    return counters_self->values[id];
}

/* Text that repeats itself from far away, too. */
static char *text_of(size_t len)
{
    char *text = malloc(len + 1);
    srandom((unsigned)len);
    for (size_t i = 0; i < len; i++)
        text[i] = i > 1000 && i % 50 < 40 ? text[i - 900] : (char)('a' + random() % 20);
    return text;
}

/* With a window of exactly that size, as a client has it that asked for no larger one. */
static void inflate_elsewhere(int window_bits, const unsigned char *in, size_t in_len,
                              const char *expected, size_t len)
{
    static unsigned char whole[300000];
    static unsigned char input[200004];
    z_stream z = {0};
    memcpy(input, in, in_len);
    memcpy(input + in_len, "\0\0\xff\xff", 4);
    ck_assert_int_eq(inflateInit2(&z, -window_bits), Z_OK);
    z.next_in = input;
    z.avail_in = (uInt)in_len + 4;
    /* Piece by piece, so that nothing but the window is there to copy from. */
    for (size_t at = 0; at < len; at += 100) {
        z.next_out = whole + at;
        z.avail_out = len - at < 100 ? (uInt)(len - at) : 100;
        int result = inflate(&z, Z_SYNC_FLUSH);
        ck_assert_msg(result == Z_OK || result == Z_BUF_ERROR, "%s", z.msg ? z.msg : "cut off");
    }
    ck_assert_uint_eq(z.total_out, len);
    ck_assert_mem_eq(whole, expected, len);
    inflateEnd(&z);
}

START_TEST(every_window_is_kept_to)
{
    static const size_t lengths[] = {64, 250, 256, 257, 513, 1000, 4000, 16123, 40000, 150000};
    for (int bits = 8; bits <= 15; bits++) {
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            char *text = text_of(lengths[i]);
            int window = deflate_window(d, lengths[i], bits);
            ck_assert(window ? window <= (bits < 9 ? 9 : bits) : bits == 8 && lengths[i] > 256);
            ssize_t n = window ? deflate_pack(d, window, text, lengths[i], packed, lengths[i]) : 0;
            ck_assert_int_ge(n, window ? 1 : 0);
            if (window)
                inflate_elsewhere(bits, packed, (size_t)n, text, lengths[i]);
            free(text);
        }
    }
}
END_TEST

START_TEST(short_long_and_empty_messages_go_plain)
{
    ck_assert_int_eq(deflate_window(d, 0, 15), 0);
    ck_assert_int_eq(deflate_window(d, THRESHOLD - 1, 15), 0);
    ck_assert_int_gt(deflate_window(d, THRESHOLD, 15), 0);
    ck_assert_int_gt(deflate_window(d, DEFLATE_MAX_BYTES, 15), 0);
    ck_assert_int_eq(deflate_window(d, DEFLATE_MAX_BYTES + 1, 15), 0);
    struct deflate *eager = deflate_new(0);
    ck_assert_int_eq(deflate_window(eager, 0, 15), 0);
    ck_assert_int_gt(deflate_window(eager, 1, 15), 0);
    deflate_free(eager);
    deflate_free(NULL);
}
END_TEST

START_TEST(what_gets_no_shorter_is_not_kept)
{
    unsigned char noise[1000];
    srandom(2);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (unsigned char)random();
    uint64_t vain = count(CTR_deflate_vain), made = count(CTR_messages_deflated);
    ck_assert_int_eq(deflate_pack(d, 12, noise, sizeof noise, packed, sizeof noise), -ENOSPC);
    ck_assert_uint_eq(count(CTR_deflate_vain), vain + 1);
    ck_assert_uint_eq(count(CTR_messages_deflated), made);
    /* The context is as good as new. */
    char *text = text_of(1000);
    ssize_t n = deflate_pack(d, 12, text, 1000, packed, 1000);
    ck_assert_int_gt(n, 0);
    ck_assert_int_eq(deflate_unpack(d, packed, (size_t)n, 1000, &out), 0);
    ck_assert_mem_eq(out.data, text, 1000);
    free(text);
}
END_TEST

START_TEST(messages_know_nothing_of_each_other)
{
    char *text = text_of(3000);
    ssize_t first = deflate_pack(d, 12, text, 3000, packed, 3000);
    unsigned char again[3000];
    ck_assert_int_eq(deflate_pack(d, 12, text, 3000, again, 3000), first);
    ck_assert_mem_eq(packed, again, (size_t)first);
    free(text);
}
END_TEST

START_TEST(a_message_may_be_as_long_as_is_allowed_and_no_longer)
{
    static char zeros[100001];
    ssize_t n = deflate_pack(d, 15, zeros, sizeof zeros, packed, sizeof packed);
    uint64_t errors = count(CTR_inflate_errors);
    ck_assert_int_eq(deflate_unpack(d, packed, (size_t)n, sizeof zeros - 1, &out), -EMSGSIZE);
    ck_assert_uint_le(out.len, sizeof zeros - 1);
    ck_assert_uint_eq(count(CTR_inflate_errors), errors + 1);
    text_buf_free(&out);
    ck_assert_int_eq(deflate_unpack(d, packed, (size_t)n, 0, &out), -EMSGSIZE);
    ck_assert_uint_eq(out.len, 0);
    text_adds(&out, "before ");
    ck_assert_int_eq(deflate_unpack(d, packed, (size_t)n, sizeof zeros, &out), 0);
    ck_assert_uint_eq(out.len, 7 + sizeof zeros);
    ck_assert_mem_eq(out.data, "before \0\0", 9);
}
END_TEST

START_TEST(a_message_that_is_cut_off_or_damaged_is_refused_or_another_one)
{
    char *text = text_of(2000);
    ssize_t n = deflate_pack(d, 15, text, 2000, packed, 2000);
    for (ssize_t cut = 1; cut < n; cut++) {
        text_buf_free(&out);
        int error = deflate_unpack(d, packed, (size_t)cut, 2000, &out);
        ck_assert(error == -EBADMSG || error == -EMSGSIZE);
    }
    for (ssize_t at = 0; at < n; at++) {
        text_buf_free(&out);
        packed[at] ^= 0x5a;
        int error = deflate_unpack(d, packed, (size_t)n, 2000, &out);
        ck_assert(error == -EBADMSG || error == -EMSGSIZE || error == 0);
        ck_assert_uint_le(out.len, 2000);
        packed[at] ^= 0x5a;
    }
    text_buf_free(&out);
    ck_assert_int_eq(deflate_unpack(d, packed, (size_t)n, 2000, &out), 0);
    ck_assert_mem_eq(out.data, text, 2000);
    free(text);
}
END_TEST

START_TEST(what_stored_blocks_need_is_within_the_bound)
{
    /* Level 0, as a client may choose it. */
    static unsigned char noise[100000];
    z_stream z = {0};
    ck_assert_int_eq(deflateInit2(&z, 0, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = noise;
    z.avail_in = sizeof noise;
    z.next_out = packed;
    z.avail_out = sizeof packed;
    ck_assert_int_eq(deflate(&z, Z_SYNC_FLUSH), Z_OK);
    ck_assert_uint_gt(z.total_out, sizeof noise);
    ck_assert_uint_le(z.total_out, deflate_bound(sizeof noise));
    ck_assert_int_eq(deflate_unpack(d, packed, z.total_out - 4, sizeof noise, &out), 0);
    ck_assert_uint_eq(out.len, sizeof noise);
    deflateEnd(&z);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("deflate");
    TCase *tc = tcase_create("deflate");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, every_window_is_kept_to);
    tcase_add_test(tc, short_long_and_empty_messages_go_plain);
    tcase_add_test(tc, what_gets_no_shorter_is_not_kept);
    tcase_add_test(tc, messages_know_nothing_of_each_other);
    tcase_add_test(tc, a_message_may_be_as_long_as_is_allowed_and_no_longer);
    tcase_add_test(tc, a_message_that_is_cut_off_or_damaged_is_refused_or_another_one);
    tcase_add_test(tc, what_stored_blocks_need_is_within_the_bound);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
