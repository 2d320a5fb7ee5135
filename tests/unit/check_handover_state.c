/*
 * check_handover_state.c - one connection as bytes: whole, cut short, damaged, of another version.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/handover_state.h"

static struct text_buf out;
static struct handover_device d;

static void teardown(void)
{
    text_buf_free(&out);
    out = (struct text_buf){0};
}

static struct text_span all(void)
{
    return (struct text_span){out.data, out.len};
}

/* Every field has a value of its own. */
static struct handover_device sample(void)
{
    return (struct handover_device){
        .serial = 1, .received_bytes = 2, .sent_bytes = 3, .address = {{4}},
        .ping_taken_bytes = 5, .opened_ms = 6, .last_read_ms = 7, .ping_sent_ms = 8,
        .phase_until_ms = 9, .rate_at_ms = 10, .token_expires_ms = 11, .rate_spent = 12,
        .conn_state = 13, .device_state = 14, .overflows = 15, .deflate_bits = 16,
        .is_mid_frame = true,
        .is_unix = true, .is_echo = true, .input = text_span_of("input"),
        .queue = text_span_of("queue"), .filter = text_span_of("filter"),
        .resume = text_span_of("resume"), .left_out = text_span_of("left"),
        .held = text_span_of("held"), .lag = text_span_of("lag"),
        .refreshes = text_span_of("refreshes"), .jti = text_span_of("jti")};
}

static bool is(struct text_span a, struct text_span b)
{
    return a.len == b.len && (!a.len || !memcmp(a.ptr, b.ptr, a.len));
}

START_TEST(a_connection_comes_out_as_it_was)
{
    struct handover_device s = sample();
    handover_device_encode(&s, &out);
    ck_assert_int_eq(handover_device_decode(all(), &d), 0);
    ck_assert_uint_eq(d.serial, s.serial);
    ck_assert_uint_eq(d.received_bytes, s.received_bytes);
    ck_assert_uint_eq(d.sent_bytes, s.sent_bytes);
    ck_assert_mem_eq(&d.address, &s.address, sizeof(d.address));
    ck_assert_uint_eq(d.ping_taken_bytes, s.ping_taken_bytes);
    ck_assert_int_eq(d.opened_ms, s.opened_ms);
    ck_assert_int_eq(d.last_read_ms, s.last_read_ms);
    ck_assert_int_eq(d.ping_sent_ms, s.ping_sent_ms);
    ck_assert_int_eq(d.phase_until_ms, s.phase_until_ms);
    ck_assert_int_eq(d.rate_at_ms, s.rate_at_ms);
    ck_assert_int_eq(d.token_expires_ms, s.token_expires_ms);
    ck_assert_uint_eq(d.rate_spent, s.rate_spent);
    ck_assert_uint_eq(d.conn_state, s.conn_state);
    ck_assert_uint_eq(d.device_state, s.device_state);
    ck_assert_uint_eq(d.overflows, s.overflows);
    ck_assert_uint_eq(d.deflate_bits, s.deflate_bits);
    ck_assert(d.is_mid_frame && d.is_unix && d.is_echo && !d.is_admin);
    ck_assert(is(d.input, s.input) && is(d.queue, s.queue) && is(d.filter, s.filter));
    ck_assert(is(d.resume, s.resume) && is(d.left_out, s.left_out) && is(d.held, s.held));
    ck_assert(is(d.lag, s.lag) && is(d.refreshes, s.refreshes) && is(d.jti, s.jti));
}
END_TEST

START_TEST(a_quiet_connection_takes_little)
{
    struct handover_device quiet = {.conn_state = 1};
    handover_device_encode(&quiet, &out);
    ck_assert_uint_le(out.len, 200);
    ck_assert_int_eq(handover_device_decode(all(), &d), 0);
    ck_assert(!d.is_mid_frame);
    ck_assert_uint_eq(d.queue.len, 0);
}
END_TEST

START_TEST(cut_short_it_is_refused_and_in_doubt_no_close_frame_is_sent)
{
    struct handover_device s = sample();
    s.is_mid_frame = false;
    handover_device_encode(&s, &out);
    for (size_t len = 0; len < out.len; len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, out.data, len);
        ck_assert_int_eq(handover_device_decode((struct text_span){copy, len}, &d), -EBADMSG);
        ck_assert(d.is_mid_frame == (len < 12));
        free(copy);
    }
    text_addc(&out, 'x');
    ck_assert_int_eq(handover_device_decode(all(), &d), -EBADMSG);
}
END_TEST

/* What is decoded of it is somebody else's to check; nothing is read beyond the end. */
START_TEST(damaged_bits_do_no_harm)
{
    struct handover_device s = sample();
    handover_device_encode(&s, &out);
    for (size_t bit = 0; bit < out.len * 8; bit++) {
        char *copy = malloc(out.len);
        memcpy(copy, out.data, out.len);
        copy[bit / 8] = (char)(copy[bit / 8] ^ 1 << bit % 8);
        int rc = handover_device_decode((struct text_span){copy, out.len}, &d);
        ck_assert(rc == 0 || rc == -EBADMSG || rc == -EPROTONOSUPPORT);
        if (rc == 0)
            ck_assert_uint_le(d.queue.len + d.held.len + d.lag.len, out.len);
        free(copy);
    }
}
END_TEST

START_TEST(of_another_version_only_the_beginning_is_understood)
{
    for (int is_mid_frame = 0; is_mid_frame < 2; is_mid_frame++) {
        text_buf_reset(&out);
        pack_u32(&out, HANDOVER_MAGIC);
        pack_u32(&out, HANDOVER_VERSION + 1);
        pack_u32(&out, (uint32_t)is_mid_frame);
        text_adds(&out, "whatever that version means by it");
        ck_assert_int_eq(handover_device_decode(all(), &d), -EPROTONOSUPPORT);
        ck_assert(d.is_mid_frame == is_mid_frame);
    }
}
END_TEST

START_TEST(times_that_cannot_be_counted_with_are_refused)
{
    for (int i = 0; i < 2; i++) {
        struct handover_device s = sample();
        *(i ? &s.token_expires_ms : &s.opened_ms) = i ? INT64_MAX : -1;
        text_buf_reset(&out);
        handover_device_encode(&s, &out);
        ck_assert_int_eq(handover_device_decode(all(), &d), -EBADMSG);
    }
}
END_TEST

START_TEST(where_a_device_wants_to_go_on_moves_along)
{
    struct resume *r = NULL, wish = {.has_last_id = true, .last_id = 7, .seen_count = 2,
                                     .seen = {8, 9}};
    handover_resume_save(&wish, &out);
    ck_assert_int_eq(handover_resume_restore(all(), &r), 0);
    ck_assert(r->has_last_id);
    ck_assert_uint_eq(r->last_id, 7);
    ck_assert_uint_eq(r->seen_count, 2);
    ck_assert_uint_eq(r->seen[1], 9);
    free(r);
    for (size_t len = 1; len < out.len; len++)
        ck_assert_int_eq(handover_resume_restore((struct text_span){out.data, len}, &r),
                         -EBADMSG);
    text_buf_reset(&out);
    handover_resume_save(NULL, &out);
    ck_assert_int_eq(handover_resume_restore(all(), &r), 0);
    ck_assert_ptr_null(r);
}
END_TEST

START_TEST(more_seen_ids_than_there_can_be_are_refused)
{
    struct resume *r = NULL;
    pack_u8(&out, 0);
    pack_u64(&out, 0);
    pack_u32(&out, RESUME_SEEN_MAX + 1);
    for (int i = 0; i <= RESUME_SEEN_MAX; i++)
        pack_u64(&out, 1);
    ck_assert_int_eq(handover_resume_restore(all(), &r), -EBADMSG);
    ck_assert_ptr_null(r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("handover_state");
    TCase *t = tcase_create("handover_state");
    tcase_add_checked_fixture(t, NULL, teardown);
    tcase_add_test(t, a_connection_comes_out_as_it_was);
    tcase_add_test(t, a_quiet_connection_takes_little);
    tcase_add_test(t, cut_short_it_is_refused_and_in_doubt_no_close_frame_is_sent);
    tcase_add_test(t, damaged_bits_do_no_harm);
    tcase_add_test(t, of_another_version_only_the_beginning_is_understood);
    tcase_add_test(t, times_that_cannot_be_counted_with_are_refused);
    tcase_add_test(t, where_a_device_wants_to_go_on_moves_along);
    tcase_add_test(t, more_seen_ids_than_there_can_be_are_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
