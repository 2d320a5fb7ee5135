#include "config.h"

#include <check.h>
#include <errno.h>
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
    ck_assert_uint_eq(q.broadcast_bytes, 0);
    ck_assert_ptr_null(q.head);
    ck_assert_ptr_null(q.tail);
    ck_assert_ptr_null(q.keys);
    ck_assert_ptr_null(q.control);
    ck_assert_ptr_null(q.broadcast);
}

static void push(enum frame_kind kind, const char *text, uint64_t conflate_key)
{
    struct frame *f = frame_text(kind, text, strlen(text));
    f->conflate_key = conflate_key;
    ck_assert_int_eq(outq_push(&q, f), 0);
    frame_unref(f);
}

/* As if a frame of this kind and key came. */
static bool conflate(enum frame_kind kind, uint64_t conflate_key)
{
    struct frame *f = frame_text(kind, "", 0);
    f->conflate_key = conflate_key;
    bool result = outq_conflate(&q, f);
    frame_unref(f);
    return result;
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
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    push(FRAME_USER, "one ", 7);
    push(FRAME_USER, "two ", 8);
    push(FRAME_USER, "end ", 0);
    ck_assert(conflate(FRAME_USER, 8));
    ck_assert_str_eq(waiting(), "one end ");
    ck_assert(!conflate(FRAME_USER, 8));
    ck_assert(conflate(FRAME_USER, 7));
    ck_assert_str_eq(waiting(), "end ");
    ck_assert(!conflate(FRAME_USER, 0));
}
END_TEST

START_TEST(a_queue_that_begins_to_conflate_keeps_the_newest_of_each_key)
{
    push(FRAME_USER, "a1 ", 7);
    push(FRAME_USER, "b1 ", 8);
    push(FRAME_USER, "x ", 0);
    push(FRAME_USER, "a2 ", 7);
    push(FRAME_USER, "y ", 0);
    push(FRAME_USER, "a3 ", 7);
    push(FRAME_USER, "b2 ", 8);
    outq_consume(&q, 1);
    ck_assert_int_eq(outq_start_conflating(&q), 2);
    ck_assert_str_eq(waiting(), "\x03" "a1 x y a3 b2 ");
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    ck_assert(conflate(FRAME_USER, 7));
    ck_assert_str_eq(waiting(), "\x03" "a1 x y b2 ");
}
END_TEST

START_TEST(a_queue_that_conflates_no_more_leaves_all)
{
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    push(FRAME_USER, "one ", 7);
    outq_stop_conflating(&q);
    ck_assert(!conflate(FRAME_USER, 7));
    ck_assert_str_eq(waiting(), "one ");
}
END_TEST

START_TEST(messages_to_a_user_to_everybody_and_replies_do_not_replace_each_other)
{
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    push(FRAME_USER, "user ", 7);
    push(FRAME_BROADCAST, "all ", 7);
    push(FRAME_REPLY, "reply ", 7);
    ck_assert(!conflate(FRAME_REPLY, 7));
    ck_assert(conflate(FRAME_BROADCAST, 7));
    ck_assert_str_eq(waiting(), "user reply ");
    ck_assert(!conflate(FRAME_BROADCAST, 7));
}
END_TEST

START_TEST(conflation_of_the_last_frame_leaves_a_usable_tail)
{
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    push(FRAME_USER, "one ", 0);
    push(FRAME_USER, "two ", 8);
    ck_assert(conflate(FRAME_USER, 8));
    push(FRAME_USER, "three ", 0);
    ck_assert_str_eq(waiting(), "one three ");
}
END_TEST

START_TEST(conflation_leaves_a_begun_frame_alone)
{
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    push(FRAME_USER, "one ", 7);
    outq_consume(&q, 1);
    ck_assert(!conflate(FRAME_USER, 7));
    push(FRAME_USER, "two ", 7);
    outq_consume(&q, 5);
    ck_assert(conflate(FRAME_USER, 7));
    ck_assert_ptr_null(q.head);
}
END_TEST

/* Against a plain array: what waits is what was pushed, but what a newer of its key replaced. */
START_TEST(conflation_is_right_for_many_keys_in_any_order)
{
    enum { KEYS = 300, STEPS = 20000 };
    static uint32_t model[STEPS];
    size_t first = 0, end = 0, live[KEYS] = {0};
    unsigned seed = 1;
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t key = (uint32_t)rand_r(&seed) % KEYS;
        uint32_t text = key << 16 | (step & 0xffff);
        struct frame *f = frame_text(FRAME_USER, &text, sizeof text);
        f->conflate_key = (key + 1) * 0x9e3779b97f4a7c15U;
        ck_assert_int_eq(outq_conflate(&q, f), live[key] != 0);
        if (live[key])
            model[live[key] - 1] = 0;
        ck_assert_int_eq(outq_push(&q, f), 0);
        frame_unref(f);
        model[end++] = text;
        live[key] = end;
        if (rand_r(&seed) % 3 == 0 && q.head) {
            while (first < end && !model[first])
                first++;
            struct iovec iov;
            outq_iov(&q, &iov, 1);
            ck_assert_mem_eq((char *)iov.iov_base + 2, &model[first], 4);
            live[model[first] >> 16] = 0;
            model[first++] = 0;
            outq_consume(&q, 6);
        }
    }
}
END_TEST

START_TEST(the_oldest_broadcast_that_is_not_begun_is_given_up_first)
{
    push(FRAME_BROADCAST, "1 ", 0);
    push(FRAME_USER, "u ", 0);
    push(FRAME_BROADCAST, "2 ", 0);
    outq_consume(&q, 1);
    outq_push_control(&q, "ping ", 5);
    push(FRAME_BROADCAST, "3 ", 0);
    ck_assert_uint_eq(q.broadcast_bytes, 11);
    ck_assert(outq_drop_broadcast(&q));
    ck_assert_str_eq(waiting(), "\x02" "1 ping u 3 ");
    ck_assert(outq_drop_broadcast(&q));
    ck_assert(!outq_drop_broadcast(&q));
    ck_assert_str_eq(waiting(), "\x02" "1 ping u ");
    push(FRAME_REPLY, "r ", 0);
    push(FRAME_BROADCAST, "4 ", 0);
    ck_assert_uint_eq(q.broadcast_bytes, 7);
    ck_assert(outq_drop_broadcast(&q));
    ck_assert_str_eq(waiting(), "\x02" "1 ping u r ");
    outq_consume(&q, 3);
    ck_assert_uint_eq(q.broadcast_bytes, 0);
}
END_TEST

START_TEST(a_broadcast_that_was_conflated_or_written_is_not_given_up_again)
{
    ck_assert_int_eq(outq_start_conflating(&q), 0);
    push(FRAME_BROADCAST, "1 ", 7);
    push(FRAME_BROADCAST, "2 ", 0);
    ck_assert(conflate(FRAME_BROADCAST, 7));
    outq_consume(&q, 4);
    ck_assert(!outq_drop_broadcast(&q));
    push(FRAME_BROADCAST, "3 ", 0);
    ck_assert(outq_drop_broadcast(&q));
    ck_assert_ptr_null(q.head);
}
END_TEST

START_TEST(where_many_answers_wait_only_the_last_of_several_pongs_stays)
{
    char big[5000];
    memset(big, 'x', sizeof big);
    struct frame *f = frame_text(FRAME_REPLY, big, sizeof big);
    outq_push_control(&q, "\x8a\x01" "a", 3);
    outq_push_control(&q, "\x8a\x01" "b", 3);
    ck_assert_uint_eq(q.bytes, 6);
    outq_push(&q, f);
    frame_unref(f);
    outq_push_control(&q, "\x8a\x01" "c", 3);
    outq_push_control(&q, "\x89\x01" "p", 3);
    outq_push_control(&q, "\x8a\x01" "d", 3);
    ck_assert_uint_eq(q.bytes, 12 + sizeof big + 4);
    struct iovec iov[5];
    ck_assert_int_eq(outq_iov(&q, iov, 5), 5);
    ck_assert_mem_eq(iov[1].iov_base, "\x8a\x01" "c", 3);
    ck_assert_mem_eq(iov[2].iov_base, "\x89\x01" "p", 3);
    ck_assert_mem_eq(iov[3].iov_base, "\x8a\x01" "d", 3);
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

static void push_joined(void)
{
    struct frame *parts[3];
    for (int i = 0; i < 3; i++)
        parts[i] = frame_text(FRAME_BROADCAST, &"one\0two\0six"[i * 4], 3);
    struct frame *joined = frame_join(FRAME_BROADCAST, parts, 3);
    ck_assert_int_eq(outq_push(&q, joined), 0);
    frame_unref(joined);
    for (int i = 0; i < 3; i++)
        frame_unref(parts[i]);
}

/* However much of it was written: 15 bytes, 5 for each part. */
START_TEST(a_joined_frame_is_split_into_what_is_not_written_of_its_parts)
{
    for (size_t written = 0; written < 15; written++) {
        struct iovec iov[8];
        char all[25] = "";
        size_t len = 0;
        push_joined();
        push(FRAME_USER, "end", 0);
        push_joined();
        outq_consume(&q, written);
        outq_split(&q);
        int count = outq_iov(&q, iov, 8);
        ck_assert_int_eq(count, 3 - (int)written / 5 + 1 + 3);
        for (int i = 0; i < count - 3; i++) {
            memcpy(all + len, iov[i].iov_base, iov[i].iov_len);
            len += iov[i].iov_len;
        }
        ck_assert_uint_eq(len, 20 - written);
        ck_assert_mem_eq(all, &"\x81\x03one\x81\x03two\x81\x03six\x81\x03" "end"[written], len);
        ck_assert_uint_eq(q.bytes, 35 - written);
        ck_assert_uint_eq(q.broadcast_bytes, 30 - written);
        /* One message is given up, not three. */
        ck_assert(outq_drop_broadcast(&q));
        ck_assert_uint_eq(q.bytes, 30 - written);
        outq_clear(&q);
    }
}
END_TEST

/* ---- for another process ---- */

/* All of it goes through bytes into a new queue. */
static void move(void)
{
    struct text_buf saved = {0};
    size_t bytes = q.bytes, replies = q.reply_bytes, broadcasts = q.broadcast_bytes;
    uint64_t written = q.written;
    outq_save(&q, &saved);
    outq_clear(&q);
    memset(&q, 0, sizeof q);
    ck_assert_int_eq(outq_restore(&q, (struct text_span){saved.data, saved.len}), 0);
    ck_assert_uint_eq(q.bytes, bytes);
    ck_assert_uint_eq(q.reply_bytes, replies);
    ck_assert_uint_eq(q.broadcast_bytes, broadcasts);
    ck_assert_uint_eq(q.written, written);
    text_buf_free(&saved);
}

START_TEST(an_empty_queue_moves)
{
    move();
    ck_assert_ptr_null(q.head);
}
END_TEST

START_TEST(a_half_written_frame_moves_and_control_frames_still_stand_behind_it)
{
    push(FRAME_USER, "first", 0);
    push(FRAME_BROADCAST, "all", 0);
    push(FRAME_REPLY, "reply", 0);
    for (size_t done = 0; done < 7; done++) {
        move();
        ck_assert_uint_eq(q.head_done, done);
        outq_consume(&q, 1);
    }
    ck_assert_str_eq(waiting(), "allreply");
    outq_consume(&q, 2);
    move();
    ck_assert_int_eq(outq_push_control(&q, "\x8a\x01x", 3), 0);
    ck_assert_str_eq(waiting(), "all\x8a\x01xreply"); /* not into the broadcast, which is begun */
    move();
    ck_assert_int_eq(outq_push_control(&q, "\x8a\x01y", 3), 0);
    ck_assert_str_eq(waiting(), "all\x8a\x01x\x8a\x01yreply"); /* behind the other */
}
END_TEST

START_TEST(what_can_be_conflated_or_given_up_still_can_after_the_move)
{
    push(FRAME_USER, "u1", 5);
    push(FRAME_BROADCAST, "b1", 0);
    push(FRAME_USER, "u2", 5);
    move();
    ck_assert_int_eq(outq_start_conflating(&q), 1);
    ck_assert_str_eq(waiting(), "b1u2");
    ck_assert(outq_drop_broadcast(&q));
    ck_assert_str_eq(waiting(), "u2");
}
END_TEST

START_TEST(sums_do_not_overflow)
{
    q.bytes = OUTQ_BYTES_MAX - 3;
    struct frame *f = frame_text(FRAME_USER, "long", 4);
    ck_assert_int_eq(outq_push(&q, f), -ENOMEM);
    ck_assert_int_eq(outq_push_bytes(&q, "long", 4), -ENOMEM);
    ck_assert_int_eq(outq_push_control(&q, "long", 4), -ENOMEM);
    ck_assert_int_eq(outq_push_bytes(&q, "way", 3), 0);
    ck_assert_uint_eq(q.bytes, OUTQ_BYTES_MAX);
    outq_consume(&q, 3);
    frame_unref(f);
    q.bytes = 0;
}
END_TEST

START_TEST(a_damaged_queue_is_refused)
{
    struct text_buf saved = {0};
    push(FRAME_USER, "first", 5);
    ck_assert_int_eq(outq_push_control(&q, "\x8a\x01x", 3), 0);
    ck_assert_int_eq(outq_push_bytes(&q, "HTTP", 4), 0);
    outq_consume(&q, 1);
    outq_save(&q, &saved);
    outq_clear(&q);
    memset(&q, 0, sizeof q);
    for (size_t bit = 0; bit < saved.len * 8; bit++) { /* refused or something else, never more */
        saved.data[bit / 8] = (char)(saved.data[bit / 8] ^ 1 << bit % 8);
        (void)outq_restore(&q, (struct text_span){saved.data, saved.len});
        outq_clear(&q);
        memset(&q, 0, sizeof q);
        saved.data[bit / 8] = (char)(saved.data[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t len = 0; len < saved.len; len++) {
        int rc = outq_restore(&q, (struct text_span){saved.data, len});
        ck_assert(rc != 0 || outq_iov(&q, (struct iovec[8]){{0}}, 8) < 3);
        outq_clear(&q);
        memset(&q, 0, sizeof q);
    }
    text_buf_free(&saved);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outq");
    TCase *tc = tcase_create("outq");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, an_empty_queue_moves);
    tcase_add_test(tc, a_half_written_frame_moves_and_control_frames_still_stand_behind_it);
    tcase_add_test(tc, what_can_be_conflated_or_given_up_still_can_after_the_move);
    tcase_add_test(tc, sums_do_not_overflow);
    tcase_add_test(tc, a_damaged_queue_is_refused);
    tcase_add_test(tc, items_leave_in_the_order_in_which_they_came);
    tcase_add_test(tc, every_split_of_writing_gives_the_same_bytes);
    tcase_add_test(tc, iov_is_bounded);
    tcase_add_test(tc, control_frames_overtake_waiting_frames_and_keep_their_order);
    tcase_add_test(tc, control_frames_do_not_break_a_begun_frame);
    tcase_add_test(tc, control_frames_do_not_overtake_the_upgrade_response);
    tcase_add_test(tc, control_frame_alone_is_also_the_tail);
    tcase_add_test(tc, conflation_takes_out_the_waiting_frame_of_the_same_key);
    tcase_add_test(tc, a_queue_that_begins_to_conflate_keeps_the_newest_of_each_key);
    tcase_add_test(tc, a_queue_that_conflates_no_more_leaves_all);
    tcase_add_test(tc, messages_to_a_user_to_everybody_and_replies_do_not_replace_each_other);
    tcase_add_test(tc, conflation_of_the_last_frame_leaves_a_usable_tail);
    tcase_add_test(tc, conflation_leaves_a_begun_frame_alone);
    tcase_add_test(tc, conflation_is_right_for_many_keys_in_any_order);
    tcase_add_test(tc, the_oldest_broadcast_that_is_not_begun_is_given_up_first);
    tcase_add_test(tc, a_broadcast_that_was_conflated_or_written_is_not_given_up_again);
    tcase_add_test(tc, where_many_answers_wait_only_the_last_of_several_pongs_stays);
    tcase_add_test(tc, dropping_frames_keeps_the_begun_one_and_all_control_frames);
    tcase_add_test(tc, a_joined_frame_is_split_into_what_is_not_written_of_its_parts);
    tcase_add_test(tc, shared_frames_outlive_one_queue);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
