/*
 * check_bench_client.c - the load generator's client: does it see what is lost, repeated, late?
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/client.h"

#define ACCEPTED \
    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

static struct bench b;
static struct crowd_share *share;
static struct client c;
static struct client_rules rules;
static int64_t now_ns;
static char sent[400];
static size_t sent_len;

void bench_say(const char *format, ...)
{
    (void)format;
}

int64_t bench_now_ns(void)
{
    return now_ns;
}

const char *bench_user(const struct bench *whose, uint32_t user, char out[BENCH_USER_BYTES])
{
    (void)whose;
    snprintf(out, BENCH_USER_BYTES, "u%" PRIu32, user);
    return out;
}

void bench_expand(struct text_buf *out, const char *template_text, const char *token,
                  const char *user_id)
{
    (void)token, (void)user_id;
    text_adds(out, template_text);
}

static void record(struct client *to, const void *bytes, size_t len)
{
    (void)to;
    ck_assert_uint_le(sent_len + len, sizeof(sent));
    memcpy(sent + sent_len, bytes, len);
    sent_len += len;
}

static void setup(void)
{
    b = (struct bench){.path = "/ws", .run = 7};
    share = calloc(1, sizeof(*share));
    c = (struct client){.state = CLIENT_SHAKING};
    rules = (struct client_rules){&b, share, &share->tallies[0], record};
    sent_len = 0;
    now_ns = 1000;
}

static void teardown(void)
{
    free(share);
}

static const struct crowd_tally *tally(void)
{
    return &share->tallies[0];
}

/* A frame with a message of this run, or of another one; `more` stands behind its numbers. */
static void come_with(unsigned run, unsigned seq, const char *more)
{
    char frame[200];
    int len = snprintf(frame + 2, sizeof(frame) - 2,
                       "{\"payload\":{\"run\":%u,\"seq\":%u,\"sent_ns\":400%s,\"pad\":\"\"}}", run,
                       seq, more);
    frame[0] = (char)0x81;
    frame[1] = (char)len;
    ck_assert_int_eq(client_feed(&c, &rules, frame, (size_t)len + 2), len + 2);
}

static void come(unsigned run, unsigned seq)
{
    come_with(run, seq, "");
}

static void open_client(void)
{
    static const char bytes[] = ACCEPTED "\x81\x02{}";
    ck_assert_int_eq(client_feed(&c, &rules, bytes, sizeof(bytes) - 1), sizeof(bytes) - 1);
    ck_assert_int_eq(c.state, CLIENT_LIVE);
    ck_assert_uint_eq(tally()->live, 1);
}

START_TEST(a_head_and_a_frame_may_come_in_pieces)
{
    static const char bytes[] = ACCEPTED "\x81\x02{}";
    for (size_t len = 1; len < sizeof(bytes) - 1; len++) {
        long used = client_feed(&c, &rules, bytes, len);
        ck_assert_int_eq(used, len < sizeof(ACCEPTED) - 1 ? 0 : (long)sizeof(ACCEPTED) - 1);
        ck_assert_int_ne(c.state, CLIENT_LIVE);
        c.state = CLIENT_SHAKING;
    }
}
END_TEST

START_TEST(what_is_no_upgrade_is_refused)
{
    static const char *const heads[] = {
        "HTTP/1.1 503 Service Unavailable\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n"};
    for (size_t i = 0; i < 2; i++)
        ck_assert_int_eq(client_feed(&c, &rules, heads[i], strlen(heads[i])), -ECONNREFUSED);
}
END_TEST

START_TEST(messages_in_order_are_only_counted)
{
    open_client();
    for (unsigned i = 1; i <= 200; i++)
        come(7, i);
    come(6, 1); /* an older run's, from a list */
    client_end(&c, &rules, STREAM_STORED, 200);
    ck_assert_uint_eq(tally()->delivered, 200);
    ck_assert_uint_eq(tally()->lost + tally()->repeated + tally()->disordered, 0);
    ck_assert_uint_eq(tally()->latency.count, 200);
    ck_assert_uint_eq(tally()->latency.max, 600);
}
END_TEST

START_TEST(a_gap_is_lost_and_so_is_what_never_came_at_the_end)
{
    open_client();
    come(7, 1);
    come(7, 4);
    ck_assert_uint_eq(tally()->lost, 2);
    client_end(&c, &rules, STREAM_STORED, 9);
    ck_assert_uint_eq(tally()->lost, 7);
    ck_assert_uint_eq(tally()->repeated + tally()->disordered, 0);
}
END_TEST

START_TEST(what_comes_late_is_disorder_and_what_comes_twice_a_repeat)
{
    open_client();
    come(7, 1);
    come(7, 3);
    come(7, 2);
    ck_assert_uint_eq(tally()->disordered, 1);
    ck_assert_uint_eq(tally()->lost, 0);
    come(7, 2);
    come(7, 3);
    for (unsigned i = 4; i < 100; i++)
        come(7, i);
    come(7, 1); /* long ago */
    ck_assert_uint_eq(tally()->repeated, 3);
    ck_assert_uint_eq(tally()->disordered, 1);
    ck_assert_uint_eq(tally()->delivered, 99);
}
END_TEST

START_TEST(one_frame_may_hold_several_messages)
{
    static const char frame[] = "\x81\x7e\x00\x4b{\"run\":7,\"seq\":1,\"sent_ns\":1}\n"
                                "{\"run\":7,\"seq\":2,\"sent_ns\":1}\n{\"run\":7,\"s\":3}";
    open_client();
    ck_assert_int_eq(client_feed(&c, &rules, frame, sizeof(frame) - 1), sizeof(frame) - 1);
    ck_assert_uint_eq(tally()->delivered, 2);
    ck_assert_uint_eq(tally()->lost, 0);
}
END_TEST

START_TEST(a_ping_is_answered_and_a_close_ends)
{
    open_client();
    ck_assert_int_eq(client_feed(&c, &rules, "\x89\x01p", 3), 3);
    ck_assert_uint_eq(sent_len, 7);
    ck_assert_mem_eq(sent, "\x8a\x81\0\0\0\0p", 7);
    ck_assert_int_eq(client_feed(&c, &rules, "\x88\x00", 2), -ECONNRESET);
}
END_TEST

START_TEST(a_resuming_client_names_its_last_message)
{
    struct text_buf request = {0};
    c.is_resuming = true;
    c.streams[STREAM_STORED].last_seq = 12;
    b.path = "/ws?token=x";
    client_request(&c, &b, &request);
    ck_assert_ptr_nonnull(strstr(request.data, "GET /ws?token=x&last_id=7-u0-12 HTTP/1.1\r\n"));
    text_buf_free(&request);
}
END_TEST

START_TEST(a_histogram_is_right_within_two_percent)
{
    static struct hist h;
    for (uint64_t i = 1; i <= 100000; i++)
        hist_add(&h, i * 1000);
    for (int percent = 1; percent < 100; percent++) {
        double exact = percent * 1e6, got = (double)hist_at(&h, percent / 100.);
        ck_assert_double_le(got, exact * 1.02);
        ck_assert_double_ge(got, exact * 0.98);
    }
    ck_assert_uint_eq(hist_at(&h, 1), 100000000);
}
END_TEST

START_TEST(each_stream_counts_by_itself)
{
    open_client();
    come_with(7, 1, ",\"stream\":0");
    come_with(7, 1, ",\"stream\":1");
    come_with(7, 1, ",\"stream\":2");
    come_with(7, 2, ",\"stream\":2");
    come_with(7, 5, ",\"stream\":3"); /* there is none */
    ck_assert_uint_eq(tally()->delivered, 4);
    ck_assert_uint_eq(tally()->lost + tally()->repeated + tally()->disordered, 0);
    come_with(7, 3, ",\"stream\":1");
    ck_assert_uint_eq(tally()->lost, 1);
    client_end(&c, &rules, STREAM_BROADCAST, 4);
    ck_assert_uint_eq(tally()->lost, 3);
}
END_TEST

START_TEST(the_longest_silence_belongs_to_the_phase_where_it_ends)
{
    open_client();
    share->phase_from_ns = now_ns = 2000;
    now_ns += 50;
    come(7, 1);
    now_ns += 300;
    come(7, 2);
    share->phase = 1;
    now_ns += 400;
    come(7, 3);
    now_ns += 100;
    client_note_silence(&c, &rules, now_ns);
    ck_assert_uint_eq(tally()->phases[0].silence_ns, 300);
    ck_assert_uint_eq(tally()->phases[0].delivered, 2);
    ck_assert_uint_eq(tally()->phases[1].silence_ns, 400);
    ck_assert_uint_eq(tally()->phases[1].latency.max, 2350);
    client_note_silence(&c, &rules, now_ns + 1000);
    ck_assert_uint_eq(tally()->phases[1].silence_ns, 1100);
}
END_TEST

START_TEST(who_was_thrown_out_and_is_back_was_away)
{
    open_client();
    c.state = CLIENT_OPEN;
    c.closed_ns = 400;
    come(7, 1);
    ck_assert_int_eq(c.state, CLIENT_LIVE);
    ck_assert_uint_eq(tally()->phases[0].away_ns, 600);
    ck_assert_int_eq(c.closed_ns, 0);
}
END_TEST

START_TEST(an_id_that_the_subprotocol_tells_is_named_when_it_comes_back)
{
    static const char frame[] = "\x81\x12id: 17:[3],2\nx: y\n";
    struct text_buf request = {0};
    b.path = "/sub?id=1";
    b.protocol = "ws+meta.nchan";
    open_client();
    ck_assert_int_eq(client_feed(&c, &rules, frame, sizeof(frame) - 1), sizeof(frame) - 1);
    c.is_resuming = true;
    client_request(&c, &b, &request);
    ck_assert_ptr_nonnull(strstr(request.data, "/sub?id=1&last_id=17:[3],2 HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(strstr(request.data, "\r\nSec-WebSocket-Protocol: ws+meta.nchan\r\n"));
    text_buf_free(&request);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench");
    TCase *all = tcase_create("client");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_head_and_a_frame_may_come_in_pieces);
    tcase_add_test(all, what_is_no_upgrade_is_refused);
    tcase_add_test(all, messages_in_order_are_only_counted);
    tcase_add_test(all, a_gap_is_lost_and_so_is_what_never_came_at_the_end);
    tcase_add_test(all, what_comes_late_is_disorder_and_what_comes_twice_a_repeat);
    tcase_add_test(all, one_frame_may_hold_several_messages);
    tcase_add_test(all, a_ping_is_answered_and_a_close_ends);
    tcase_add_test(all, a_resuming_client_names_its_last_message);
    tcase_add_test(all, each_stream_counts_by_itself);
    tcase_add_test(all, the_longest_silence_belongs_to_the_phase_where_it_ends);
    tcase_add_test(all, who_was_thrown_out_and_is_back_was_away);
    tcase_add_test(all, an_id_that_the_subprotocol_tells_is_named_when_it_comes_back);
    tcase_add_test(all, a_histogram_is_right_within_two_percent);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
