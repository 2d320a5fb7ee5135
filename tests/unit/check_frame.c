#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "workers/deflate.h"
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

/* ---- deflated ---- */

static struct deflate *deflate;

static struct frame *message(size_t len)
{
    static const char words[] = "{\"id\":\"1234\",\"type\":\"NOTIFICATION\",\"payload\":{}} ";
    char *text = malloc(len);
    for (size_t i = 0; i < len; i++)
        text[i] = words[i % (sizeof words - 1)];
    struct frame *f = frame_text(FRAME_USER, text, len);
    free(text);
    f->id_hash = 1;
    f->type_hash = 2;
    f->conflate_key = 3;
    f->has_id = true;
    return f;
}

START_TEST(a_deflated_frame_is_made_once_and_says_of_itself_what_the_plain_one_says)
{
    deflate = deflate_new(100);
    static const size_t lengths[] = {100, 126, 1000, 65535, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct frame *f = message(lengths[i]);
        struct frame *made = frame_for_window(f, deflate, 15);
        struct text_buf out = {0};
        size_t len;
        ck_assert_ptr_ne(made, f);
        ck_assert_ptr_eq(frame_for_window(f, deflate, 15), made);
        ck_assert_ptr_eq(frame_for_window(made, deflate, 15), made);
        ck_assert_int_eq(made->bytes[0], 0xc1);
        ck_assert_uint_lt(made->len, f->len);
        ck_assert(made->kind == FRAME_USER && made->id_hash == 1 && made->type_hash == 2 &&
                  made->conflate_key == 3 && made->has_id);
        const char *payload = frame_payload(made, &len);
        ck_assert_int_eq(deflate_unpack(deflate, payload, len, lengths[i], &out), 0);
        payload = frame_payload(f, &len);
        ck_assert_uint_eq(out.len, len);
        ck_assert_mem_eq(out.data, payload, len);
        text_buf_free(&out);
        frame_ref(made);
        frame_unref(f);
        ck_assert_uint_eq(made->refs, 1); /* it lives on in a queue */
        frame_unref(made);
    }
    deflate_free(deflate);
}
END_TEST

START_TEST(each_window_gets_a_frame_of_its_own_where_it_matters)
{
    deflate = deflate_new(100);
    struct frame *f = message(5000), *small = message(200);
    struct frame *large = frame_for_window(f, deflate, 15);
    struct frame *nine = frame_for_window(f, deflate, 9);
    ck_assert_ptr_ne(large, nine);
    ck_assert(large->window_bits > 9 && nine->window_bits == 9);
    ck_assert_ptr_eq(frame_for_window(f, deflate, 15), large);
    ck_assert_ptr_eq(frame_for_window(f, deflate, 9), nine);
    ck_assert_ptr_eq(frame_for_window(f, deflate, 14), large); /* all of it fits into that */
    ck_assert_ptr_eq(frame_for_window(f, deflate, 8), f);
    ck_assert_ptr_ne(frame_for_window(small, deflate, 8), small);
    ck_assert_ptr_eq(frame_for_window(small, deflate, 15), frame_for_window(small, deflate, 9));
    frame_unref(f);
    frame_unref(small);
    deflate_free(deflate);
}
END_TEST

START_TEST(what_is_short_or_long_or_gains_nothing_stays_plain)
{
    deflate = deflate_new(100);
    char noise[500];
    srandom(1);
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)random();
    struct frame *frames[] = {message(99), message((1 << 20) + 1), frame_text(FRAME_USER, "", 0),
                              frame_data(FRAME_USER, FRAME_BINARY, noise, sizeof noise), NULL};
    frames[4] = frame_join(FRAME_USER, frames, 2);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        for (int times = 0; times < 2; times++)
            ck_assert_ptr_eq(frame_for_window(frames[i], deflate, 15), frames[i]);
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++)
        frame_unref(frames[i]);
    deflate_free(deflate);
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
    tcase_add_test(tc, a_deflated_frame_is_made_once_and_says_of_itself_what_the_plain_one_says);
    tcase_add_test(tc, each_window_gets_a_frame_of_its_own_where_it_matters);
    tcase_add_test(tc, what_is_short_or_long_or_gains_nothing_stays_plain);
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
