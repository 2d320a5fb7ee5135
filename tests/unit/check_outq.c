#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "workers/outq.h"

static struct outq q;

static void setup(void)
{
    memset(&q, 0, sizeof q);
}

static void teardown(void)
{
    outq_clear(&q);
    ck_assert_uint_eq(q.bytes, 0);
    ck_assert_uint_eq(q.reply_bytes, 0);
    ck_assert_ptr_null(q.head);
    ck_assert_ptr_null(q.tail);
}

static void push(enum frame_kind kind, const char *text, uint64_t conflate_key)
{
    struct frame *f = frame_text(kind, text, strlen(text));
    f->conflate_key = conflate_key;
    ck_assert_int_eq(outq_push(&q, f), 0);
    frame_unref(f);
}

/* Everything that waits, as one string: frames' payloads without their headers. */
static const char *waiting(void)
{
    static char text[1000];
    struct iovec iov[64];
    int count = outq_iov(&q, iov, 64);
    size_t len = 0, total = 0;
    for (int i = 0; i < count; i++) {
        const char *bytes = iov[i].iov_base;
        size_t skip = iov[i].iov_len > 2 && (unsigned char)bytes[0] == 0x81 ? 2 : 0;
        memcpy(text + len, bytes + skip, iov[i].iov_len - skip);
        len += iov[i].iov_len - skip;
        total += iov[i].iov_len;
    }
    ck_assert_uint_eq(total, q.bytes);
    text[len] = 0;
    return text;
}

START_TEST(items_leave_in_the_order_in_which_they_came)
{
    ck_assert_int_eq(outq_push_bytes(&q, "HTTP ", 5), 0);
    push(FRAME_USER, "one ", 0);
    push(FRAME_REPLY, "two ", 0);
    ck_assert_str_eq(waiting(), "HTTP one two ");
    ck_assert_uint_eq(q.bytes, 17);
    ck_assert_uint_eq(q.reply_bytes, 6);
}
END_TEST

START_TEST(every_split_of_writing_gives_the_same_bytes)
{
    for (size_t first = 0; first <= 17; first++) {
        for (size_t second = 0; first + second <= 17; second++) {
            outq_push_bytes(&q, "HTTP ", 5);
            push(FRAME_USER, "one ", 0);
            push(FRAME_REPLY, "two ", 0);
            char all[17];
            size_t at = 0, step[3] = {first, second, 17 - first - second};
            for (int i = 0; i < 3; i++) {
                struct iovec iov[3];
                int count = outq_iov(&q, iov, 3);
                size_t left = step[i];
                for (int k = 0; k < count && left > 0; k++) {
                    size_t n = iov[k].iov_len < left ? iov[k].iov_len : left;
                    memcpy(all + at, iov[k].iov_base, n);
                    at += n;
                    left -= n;
                }
                outq_consume(&q, step[i]);
                ck_assert_uint_eq(q.bytes, 17 - at);
            }
            ck_assert_mem_eq(all, "HTTP \x81\x04one \x81\x04two ", 17);
            ck_assert_ptr_null(q.head);
            ck_assert_uint_eq(q.reply_bytes, 0);
        }
    }
}
END_TEST

START_TEST(iov_is_bounded)
{
    struct iovec iov[2];
    for (int i = 0; i < 5; i++)
        push(FRAME_USER, "x", 0);
    ck_assert_int_eq(outq_iov(&q, iov, 2), 2);
}
END_TEST

START_TEST(control_frames_overtake_waiting_frames_and_keep_their_order)
{
    push(FRAME_USER, "one ", 0);
    push(FRAME_USER, "two ", 0);
    outq_push_control(&q, "ping ", 5);
    outq_push_control(&q, "pong ", 5);
    ck_assert_str_eq(waiting(), "ping pong one two ");
}
END_TEST

START_TEST(control_frames_do_not_break_a_begun_frame)
{
    push(FRAME_USER, "one ", 0);
    push(FRAME_USER, "two ", 0);
    outq_consume(&q, 3);
    outq_push_control(&q, "ping ", 5);
    ck_assert_str_eq(waiting(), "ne ping two ");
}
END_TEST

START_TEST(control_frames_do_not_overtake_the_upgrade_response)
{
    outq_push_bytes(&q, "101 ", 4);
    push(FRAME_USER, "one ", 0);
    outq_push_control(&q, "ping ", 5);
    ck_assert_str_eq(waiting(), "101 ping one ");
}
END_TEST

START_TEST(control_frame_alone_is_also_the_tail)
{
    outq_push_control(&q, "ping ", 5);
    push(FRAME_USER, "one ", 0);
    ck_assert_str_eq(waiting(), "ping one ");
}
END_TEST

START_TEST(conflation_takes_out_the_waiting_frame_of_the_same_key)
{
    push(FRAME_USER, "one ", 7);
    push(FRAME_USER, "two ", 8);
    push(FRAME_USER, "end ", 0);
    ck_assert(outq_conflate(&q, 8));
    ck_assert_str_eq(waiting(), "one end ");
    ck_assert(!outq_conflate(&q, 8));
    ck_assert(outq_conflate(&q, 7));
    ck_assert_str_eq(waiting(), "end ");
}
END_TEST

START_TEST(conflation_of_the_last_frame_leaves_a_usable_tail)
{
    push(FRAME_USER, "one ", 0);
    push(FRAME_USER, "two ", 8);
    ck_assert(outq_conflate(&q, 8));
    push(FRAME_USER, "three ", 0);
    ck_assert_str_eq(waiting(), "one three ");
}
END_TEST

START_TEST(conflation_leaves_a_begun_frame_alone)
{
    push(FRAME_USER, "one ", 7);
    outq_consume(&q, 1);
    ck_assert(!outq_conflate(&q, 7));
}
END_TEST

START_TEST(dropping_frames_keeps_the_begun_one_and_all_control_frames)
{
    push(FRAME_USER, "one ", 0);
    push(FRAME_REPLY, "two ", 0);
    outq_consume(&q, 3);
    outq_push_control(&q, "pong ", 5);
    push(FRAME_USER, "three ", 0);
    outq_drop_frames(&q);
    ck_assert_str_eq(waiting(), "ne pong ");
    outq_push_bytes(&q, "close ", 6);
    ck_assert_str_eq(waiting(), "ne pong close ");
}
END_TEST

START_TEST(shared_frames_outlive_one_queue)
{
    struct outq other = {0};
    struct frame *f = frame_text(FRAME_BROADCAST, "all ", 4);
    outq_push(&q, f);
    outq_push(&other, f);
    ck_assert_uint_eq(f->refs, 3);
    frame_unref(f);
    outq_clear(&other);
    ck_assert_str_eq(waiting(), "all ");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outq");
    TCase *tc = tcase_create("outq");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, items_leave_in_the_order_in_which_they_came);
    tcase_add_test(tc, every_split_of_writing_gives_the_same_bytes);
    tcase_add_test(tc, iov_is_bounded);
    tcase_add_test(tc, control_frames_overtake_waiting_frames_and_keep_their_order);
    tcase_add_test(tc, control_frames_do_not_break_a_begun_frame);
    tcase_add_test(tc, control_frames_do_not_overtake_the_upgrade_response);
    tcase_add_test(tc, control_frame_alone_is_also_the_tail);
    tcase_add_test(tc, conflation_takes_out_the_waiting_frame_of_the_same_key);
    tcase_add_test(tc, conflation_of_the_last_frame_leaves_a_usable_tail);
    tcase_add_test(tc, conflation_leaves_a_begun_frame_alone);
    tcase_add_test(tc, dropping_frames_keeps_the_begun_one_and_all_control_frames);
    tcase_add_test(tc, shared_frames_outlive_one_queue);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
