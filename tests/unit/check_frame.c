#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "workers/frame.h"

START_TEST(header_takes_the_shortest_form_of_each_length)
{
    static const struct {
        uint64_t len;
        size_t size;
        unsigned char bytes[10];
    } cases[] = {
        {0, 2, {0x81, 0}},
        {1, 2, {0x81, 1}},
        {125, 2, {0x81, 125}},
        {126, 4, {0x81, 126, 0, 126}},
        {65535, 4, {0x81, 126, 0xff, 0xff}},
        {65536, 10, {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
        {0x123456789a, 10, {0x81, 127, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0x9a}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char out[FRAME_HEADER_MAX];
        ck_assert_uint_eq(frame_header(out, FRAME_TEXT, true, cases[i].len), cases[i].size);
        ck_assert_mem_eq(out, cases[i].bytes, cases[i].size);
    }
}
END_TEST

START_TEST(fragments_are_not_final)
{
    unsigned char out[FRAME_HEADER_MAX];
    frame_header(out, FRAME_BINARY, false, 3);
    ck_assert_int_eq(out[0], 0x02);
}
END_TEST

START_TEST(text_frame_holds_a_copy_of_its_payload)
{
    static const size_t lengths[] = {0, 5, 125, 126, 65535, 65536, 100000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *text = malloc(lengths[i] + 1);
        memset(text, 'x', lengths[i] + 1);
        struct frame *f = frame_text(FRAME_USER, text, lengths[i]);
        free(text);
        size_t len;
        const char *payload = frame_payload(f, &len);
        ck_assert_uint_eq(len, lengths[i]);
        for (size_t k = 0; k < len; k++)
            ck_assert_int_eq(payload[k], 'x');
        ck_assert_int_eq(f->kind, FRAME_USER);
        ck_assert_uint_eq(f->conflate_key, 0);
        frame_unref(f);
    }
}
END_TEST

START_TEST(last_reference_frees)
{
    struct frame *f = frame_text(FRAME_REPLY, "a", 1);
    ck_assert_ptr_eq(frame_ref(f), f);
    frame_unref(f);
    ck_assert_uint_eq(f->refs, 1);
    frame_unref(f); /* a leak or a double free is the sanitizer's to see */
    frame_unref(NULL);
}
END_TEST

START_TEST(a_joined_frame_holds_the_bytes_of_its_parts_and_keeps_them)
{
    struct frame *parts[2] = {frame_text(FRAME_BROADCAST, "one", 3),
                              frame_text(FRAME_BROADCAST, "", 0)};
    struct frame *joined = frame_join(FRAME_BROADCAST, parts, 2);
    ck_assert_uint_eq(joined->len, 7);
    ck_assert_mem_eq(joined->bytes, "\x81\x03one\x81\x00", 7);
    ck_assert_uint_eq(joined->part_count, 2);
    frame_unref(parts[0]);
    frame_unref(parts[1]);
    ck_assert_uint_eq(joined->parts[0]->len, 5); /* the sanitizer sees whether it is there */
    frame_unref(joined);
}
END_TEST

START_TEST(close_frame_carries_code_and_reason)
{
    unsigned char out[FRAME_CONTROL_MAX];
    ck_assert_uint_eq(frame_close(out, 4001, "no"), 6);
    ck_assert_mem_eq(out, "\x88\x04\x0f\xa1no", 6);
}
END_TEST

START_TEST(close_frame_without_a_code_is_empty)
{
    unsigned char out[FRAME_CONTROL_MAX];
    ck_assert_uint_eq(frame_close(out, 0, "ignored"), 2);
    ck_assert_mem_eq(out, "\x88\x00", 2);
    ck_assert_uint_eq(frame_close(out, 1005, ""), 2);
}
END_TEST

START_TEST(long_close_reason_is_cut_between_characters)
{
    unsigned char out[FRAME_CONTROL_MAX];
    char reason[200];
    memset(reason, 'a', sizeof reason);
    memcpy(reason + 121, "\xe2\x82\xac", 3); /* bytes 121 to 123; 123 would be the third one */
    reason[199] = 0;
    ck_assert_uint_eq(frame_close(out, 1000, reason), 2 + 2 + 121);
    ck_assert_int_eq(out[1], 123);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame");
    TCase *tc = tcase_create("frame");
    tcase_add_test(tc, header_takes_the_shortest_form_of_each_length);
    tcase_add_test(tc, fragments_are_not_final);
    tcase_add_test(tc, text_frame_holds_a_copy_of_its_payload);
    tcase_add_test(tc, last_reference_frees);
    tcase_add_test(tc, a_joined_frame_holds_the_bytes_of_its_parts_and_keeps_them);
    tcase_add_test(tc, close_frame_carries_code_and_reason);
    tcase_add_test(tc, close_frame_without_a_code_is_empty);
    tcase_add_test(tc, long_close_reason_is_cut_between_characters);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
