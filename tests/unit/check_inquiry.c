#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/inquiry.h"
#include "shared/message.h"

#define ODD_ID "a \"b\" \\ \xc3\xa4 %41 \x01"

static struct text_buf b;

static void setup(void)
{
    b = (struct text_buf){0};
}

static void teardown(void)
{
    text_buf_free(&b);
}

static struct inquiry question(void)
{
    struct inquiry q = {.number = 0xfedcba9876543210, .asker_slot = 3};
    strcpy(q.instance, "01a20795-44bc-76ee-8358-140d64e422cd");
    ck_assert_int_eq(inquiry_set(&q, "al ice", 6, ODD_ID, strlen(ODD_ID)), 0);
    return q;
}

START_TEST(a_question_comes_back_as_it_was_asked)
{
    struct inquiry q = question(), back;
    inquiry_write_request(&b, &q);
    ck_assert_int_eq(inquiry_read_request(b.data, b.len, &back), 0);
    ck_assert_mem_eq(&q, &back, sizeof(q));
    ck_assert_uint_eq(back.user_hash, text_hash64("al ice", 6));
    ck_assert_uint_eq(back.id_hash, message_id_hash(ODD_ID, strlen(ODD_ID)));
}
END_TEST

START_TEST(a_kick_names_a_user_and_nothing_else)
{
    struct inquiry q = {.ask = INQUIRY_KICK, .number = 5}, back;
    strcpy(q.instance, "ab");
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "i", 1), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "", 0, "", 0), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "", 0), 0);
    inquiry_write_request(&b, &q);
    ck_assert_str_eq(b.data, "{\"v\":1,\"ask\":\"kick\",\"instance\":\"ab\",\"worker\":0,"
                             "\"request\":\"5\",\"user\":\"u\"}");
    ck_assert_int_eq(inquiry_read_request(b.data, b.len, &back), 0);
    ck_assert_mem_eq(&q, &back, sizeof(q));
    for (size_t len = 0; len < b.len; len++)
        ck_assert_int_eq(inquiry_read_request(b.data, len, &back), -EINVAL);
}
END_TEST

START_TEST(a_revocation_names_a_token_and_nothing_else)
{
    struct inquiry q = {.ask = INQUIRY_REVOKE, .number = 5}, back;
    strcpy(q.instance, "ab");
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "i", 1), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "", 0), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "", 0, "", 0), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "", 0, "j-1", 3), 0);
    inquiry_write_request(&b, &q);
    ck_assert_str_eq(b.data, "{\"v\":1,\"ask\":\"revoke\",\"instance\":\"ab\",\"worker\":0,"
                             "\"request\":\"5\",\"id\":\"j-1\"}");
    ck_assert_int_eq(inquiry_read_request(b.data, b.len, &back), 0);
    ck_assert_mem_eq(&q, &back, sizeof(q));
    for (size_t len = 0; len < b.len; len++)
        ck_assert_int_eq(inquiry_read_request(b.data, len, &back), -EINVAL);
}
END_TEST

START_TEST(a_showing_names_a_user_or_a_connection)
{
    struct inquiry q = {.ask = INQUIRY_SHOW};
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "", 0), 0);
    ck_assert_int_eq(inquiry_set(&q, "", 0, "i", 1), 0);
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "i", 1), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "", 0, "", 0), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "\n", 1, "i", 1), -EINVAL);
}
END_TEST

START_TEST(text_is_taken_within_its_bounds)
{
    struct inquiry_message *m = calloc(1, sizeof(*m)), *out = calloc(1, sizeof(*out));
    m->head = (struct inquiry){.kind = INQUIRY_TEXT, .count = INQUIRY_TEXT_BYTES};
    size_t len = inquiry_size(&m->head);
    ck_assert_uint_eq(len, sizeof(*m));
    memset(m->text, 'x', INQUIRY_TEXT_BYTES);
    ck_assert(inquiry_take(m, len, out));
    ck_assert(!inquiry_take(m, len - 1, out));
    m->head.count++;
    ck_assert(!inquiry_take(m, len, out));
    m->head.count = 3;
    ck_assert(inquiry_take(m, inquiry_size(&m->head), out));
    m->head.ask = INQUIRY_ASKS;
    ck_assert(!inquiry_take(m, inquiry_size(&m->head), out));
    free(m);
    free(out);
}
END_TEST

START_TEST(a_question_cut_short_anywhere_is_none)
{
    struct inquiry q = question(), back;
    inquiry_write_request(&b, &q);
    for (size_t len = 0; len < b.len; len++)
        ck_assert_int_eq(inquiry_read_request(b.data, len, &back), -EINVAL);
}
END_TEST

static int read_request(const char *text)
{
    struct inquiry q;
    return inquiry_read_request(text, strlen(text), &q);
}

#define HEAD "{\"v\":1,\"ask\":\"explain\",\"instance\":\"ab\",\"worker\":0,\"request\":\"1\""

START_TEST(questions_that_are_not_ours_are_refused)
{
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"u\",\"id\":\"i\"}"), 0);
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"u\",\"id\":\"\"}"), -EINVAL);
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"\",\"id\":\"i\"}"), -EINVAL);
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"u\\u0000v\",\"id\":\"i\"}"), -EINVAL);
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"u\\n\",\"id\":\"i\"}"), -EINVAL);
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"u\",\"id\":7}"), -EINVAL);
    ck_assert_int_eq(read_request(HEAD ",\"user\":\"u\"}"), -EINVAL);
    ck_assert_int_eq(read_request("{\"v\":2,\"ask\":\"explain\",\"instance\":\"ab\",\"worker\":0,"
                                  "\"request\":\"1\",\"user\":\"u\",\"id\":\"i\"}"),
                     -EINVAL);
    ck_assert_int_eq(read_request("{\"v\":1,\"ask\":\"stop\",\"instance\":\"ab\",\"worker\":0,"
                                  "\"request\":\"1\",\"user\":\"u\",\"id\":\"i\"}"),
                     -EINVAL);
    ck_assert_int_eq(read_request("{\"v\":1,\"ask\":\"explain\",\"instance\":\"a b\",\"worker\":0,"
                                  "\"request\":\"1\",\"user\":\"u\",\"id\":\"i\"}"),
                     -EINVAL);
    ck_assert_int_eq(read_request("{\"v\":1,\"ask\":\"explain\",\"instance\":\"ab\",\"worker\":-1,"
                                  "\"request\":\"1\",\"user\":\"u\",\"id\":\"i\"}"),
                     -EINVAL);
    ck_assert_int_eq(read_request("{\"v\":1,\"ask\":\"explain\",\"instance\":\"ab\",\"worker\":0,"
                                  "\"request\":\"x\",\"user\":\"u\",\"id\":\"i\"}"),
                     -EINVAL);
}
END_TEST

START_TEST(ids_and_users_have_their_limits)
{
    struct inquiry q = {0};
    char long_id[INQUIRY_ID_MAX_BYTES + 2];
    memset(long_id, 'x', sizeof(long_id));
    ck_assert_int_eq(inquiry_set(&q, "u", 1, long_id, INQUIRY_ID_MAX_BYTES), 0);
    ck_assert_uint_eq(strlen(q.id), INQUIRY_ID_MAX_BYTES);
    ck_assert_int_eq(inquiry_set(&q, "u", 1, long_id, INQUIRY_ID_MAX_BYTES + 1), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "u", 1, "", 0), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, "", 0, "i", 1), -EINVAL);
    ck_assert_int_eq(inquiry_set(&q, long_id, KEYS_USER_ID_MAX_BYTES + 1, "i", 1), -EINVAL);
}
END_TEST

static struct inquiry_message *answer(uint32_t count)
{
    struct inquiry_message *m = calloc(1, sizeof(*m));
    m->head = (struct inquiry){.number = 77,
                               .kind = INQUIRY_REMOTE,
                               .flags = INQUIRY_LAST | INQUIRY_CUT,
                               .links = 2,
                               .trace_size = 128,
                               .count = count};
    strcpy(m->head.instance, "an-instance");
    for (uint32_t i = 0; i < count; i++)
        m->records[i] = (struct inquiry_record){
            .slot = i,
            .trace = {.at_us = 1763886000000000 + i,
                      .serial = UINT64_MAX - i,
                      .position = 1000 + i,
                      .end_us = i,
                      .detail = UINT32_MAX - i,
                      .fate = (uint16_t)(1 + i % (TRACE_FATES - 1)),
                      .end = (uint16_t)(i % TRACE_ENDS)}};
    return m;
}

START_TEST(an_answer_comes_back_as_it_was_given)
{
    struct inquiry_message *m = answer(INQUIRY_RECORDS), *back = calloc(1, sizeof(*back));
    m->head.closed = 9;
    inquiry_write_answer(&b, m, "an-instance");
    ck_assert_uint_lt(b.len, INQUIRY_ANSWER_MAX_BYTES);
    ck_assert_int_eq(inquiry_read_answer(b.data, b.len, back), 0);
    ck_assert_mem_eq(m, back, sizeof(*m));
    free(m);
    free(back);
}
END_TEST

START_TEST(an_answer_cut_short_anywhere_is_none)
{
    struct inquiry_message *m = answer(2), *back = calloc(1, sizeof(*back));
    inquiry_write_answer(&b, m, "an-instance");
    for (size_t len = 0; len < b.len; len++)
        ck_assert_int_eq(inquiry_read_answer(b.data, len, back), -EINVAL);
    free(m);
    free(back);
}
END_TEST

#define RECORD(fate) \
    "{\"worker\":1,\"fate\":\"" fate "\",\"at_us\":5,\"serial\":\"f\",\"position\":1," \
    "\"detail\":2,\"end\":\"waiting\",\"end_us\":0}"
#define ANSWER \
    "{\"v\":1,\"instance\":\"ab\",\"request\":\"1\",\"links\":1,\"trace_size\":2,\"records\":["

static int read_answer(const char *text, struct inquiry_message *out)
{
    return inquiry_read_answer(text, strlen(text), out);
}

START_TEST(fates_of_later_versions_are_left_out_and_nonsense_is_refused)
{
    struct inquiry_message *m = calloc(1, sizeof(*m));
    ck_assert_int_eq(read_answer(ANSWER RECORD("queued") "," RECORD("teleported") "]}", m), 0);
    ck_assert_uint_eq(m->head.count, 1);
    ck_assert_uint_eq(m->head.flags, 0);
    ck_assert_uint_eq(m->records[0].trace.serial, 15);
    ck_assert_int_eq(read_answer(ANSWER "7]}", m), -EINVAL);
    ck_assert_int_eq(read_answer(ANSWER "{}]}", m), -EINVAL);
    ck_assert_int_eq(read_answer(ANSWER "[[]]]}", m), -EINVAL);
    ck_assert_int_eq(read_answer("{\"v\":1}", m), -EINVAL);
    ck_assert_int_eq(read_answer("[]", m), -EINVAL);
    free(m);
}
END_TEST

START_TEST(more_records_than_fit_are_refused)
{
    struct inquiry_message *m = calloc(1, sizeof(*m));
    text_adds(&b, ANSWER);
    for (int i = 0; i <= INQUIRY_RECORDS; i++)
        text_addf(&b, "%s%s", i ? "," : "", RECORD("queued"));
    text_adds(&b, "]}");
    ck_assert_int_eq(inquiry_read_answer(b.data, b.len, m), -E2BIG);
    free(m);
}
END_TEST

START_TEST(a_text_beyond_the_limit_is_not_even_read)
{
    struct inquiry_message *m = calloc(1, sizeof(*m));
    text_adds(&b, ANSWER "]}");
    while (b.len <= INQUIRY_ANSWER_MAX_BYTES)
        text_addc(&b, ' ');
    ck_assert_int_eq(inquiry_read_answer(b.data, b.len, m), -EINVAL);
    ck_assert_int_eq(inquiry_read_answer(b.data, b.len - 100, m), 0);
    free(m);
}
END_TEST

START_TEST(bodies_of_another_size_or_without_an_end_are_none)
{
    struct inquiry_message *m = answer(3), *out = calloc(1, sizeof(*out));
    ck_assert(inquiry_take(m, inquiry_bytes(3), out));
    ck_assert_mem_eq(m, out, inquiry_bytes(3));
    ck_assert(!inquiry_take(m, inquiry_bytes(2), out));
    ck_assert(!inquiry_take(m, inquiry_bytes(3) - 1, out));
    ck_assert(!inquiry_take(m, 10, out));
    ck_assert(!inquiry_take(m, 0, out));
    m->head.count = INQUIRY_RECORDS + 1;
    ck_assert(!inquiry_take(m, inquiry_bytes(3), out));
    m->head.count = 3;
    memset(m->head.user, 'x', sizeof(m->head.user));
    ck_assert(!inquiry_take(m, inquiry_bytes(3), out));
    free(m);
    free(out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("inquiry");
    TCase *c = tcase_create("inquiry");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, a_question_comes_back_as_it_was_asked);
    tcase_add_test(c, a_kick_names_a_user_and_nothing_else);
    tcase_add_test(c, a_revocation_names_a_token_and_nothing_else);
    tcase_add_test(c, a_showing_names_a_user_or_a_connection);
    tcase_add_test(c, text_is_taken_within_its_bounds);
    tcase_add_test(c, a_question_cut_short_anywhere_is_none);
    tcase_add_test(c, questions_that_are_not_ours_are_refused);
    tcase_add_test(c, ids_and_users_have_their_limits);
    tcase_add_test(c, an_answer_comes_back_as_it_was_given);
    tcase_add_test(c, an_answer_cut_short_anywhere_is_none);
    tcase_add_test(c, fates_of_later_versions_are_left_out_and_nonsense_is_refused);
    tcase_add_test(c, more_records_than_fit_are_refused);
    tcase_add_test(c, a_text_beyond_the_limit_is_not_even_read);
    tcase_add_test(c, bodies_of_another_size_or_without_an_end_are_none);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
