/*
 * check_push.c - pub/sub pushes, whole, cut short and of other shapes.
 */
#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "workers/push.h"

#define MESSAGE "*3\r\n$7\r\nmessage\r\n$9\r\nws:user:1\r\n$5\r\na\r\n\0b\r\n"
#define CONFIRMATION "*3\r\n$9\r\nsubscribe\r\n$9\r\nws:user:1\r\n:12\r\n"

static struct push push;

#define MAX_PAYLOAD 1000

static enum push_result read_text(const char *bytes, size_t len)
{
    memset(&push, 0xff, sizeof(push));
    return push_read(bytes, len, MAX_PAYLOAD, &push);
}

START_TEST(a_message_is_read_where_it_lies)
{
    static const char bytes[] = MESSAGE CONFIRMATION;
    ck_assert_int_eq(read_text(bytes, sizeof(bytes) - 1), PUSH_WHOLE);
    ck_assert_uint_eq(push.size, sizeof(MESSAGE) - 1);
    ck_assert(text_span_eq(push.kind, "message"));
    ck_assert(text_span_eq(push.channel, "ws:user:1"));
    ck_assert(!push.is_number);
    ck_assert_uint_eq(push.payload.len, 5);
    ck_assert(push.payload.ptr >= bytes && push.payload.ptr < bytes + sizeof(bytes));
    ck_assert_mem_eq(push.payload.ptr, "a\r\n\0b", 5);
}
END_TEST

START_TEST(a_confirmation_has_a_number)
{
    ck_assert_int_eq(read_text(CONFIRMATION, sizeof(CONFIRMATION) - 1), PUSH_WHOLE);
    ck_assert_uint_eq(push.size, sizeof(CONFIRMATION) - 1);
    ck_assert(text_span_eq(push.kind, "subscribe"));
    ck_assert(push.is_number);
    ck_assert_int_eq(push.number, 12);
}
END_TEST

/* Each beginning in memory of exactly its size, for the sanitizer to see what is read beyond. */
static void cut(const char *bytes, size_t whole)
{
    for (size_t len = 0; len < whole; len++) {
        char *part = malloc(len ? len : 1);
        memcpy(part, bytes, len);
        ck_assert_int_eq(read_text(part, len), PUSH_CUT);
        free(part);
    }
}

START_TEST(what_is_not_whole_is_not_taken)
{
    cut(MESSAGE, sizeof(MESSAGE) - 1);
    cut(CONFIRMATION, sizeof(CONFIRMATION) - 1);
}
END_TEST

static const char *const others[] = {
    "-ERR no\r\n",
    "+OK\r\n",
    "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n",
    "*3\r\n$1\r\na\r\n$1\r\nb\r\n*0\r\n",
    "*3\r\n$1\r\na\r\n:1\r\n:1\r\n",
    "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
    "*3\r\n$1\r\na\r\n$1\r\nb\r\n:-1\r\n",
    "*3\r\n$1\r\na\r\n$1\r\nb\r\n:\r\n",
    "*3\r\n$\r\na\r\n$1\r\nb\r\n:1\r\n",
    "*3\r\n$1\r\nab\r\n$1\r\nb\r\n:1\r\n",
    "*3\r\n$1\r\na\r\n$1\r\nb\r\n$99999999999999999999\r\nc\r\n",
    "*3\r\n$1\r\na\r\n$9999999999\r\nb\r\n",
    "*3\r\n$70000\r\na",
    "x",
    "*3\r\n$1\r\na\r\n$1\r\nb\r\n$01\r\nc\r\n", /* hiredis refuses it */
    "*3\r\n$1\r\na\r\n$1\r\nb\r\n:007\r\n",
    "*3\n$1\na\n$1\nb\n$1\nc\n    ",
    "$1\r\na\r\n*3\r\n$1\r\na\r\n$1\r\nb\r\n:1\r\n",
};

START_TEST(other_shapes_are_left_alone)
{
    ck_assert_int_eq(read_text(others[_i], strlen(others[_i])), PUSH_OTHER);
}
END_TEST

START_TEST(of_a_payload_above_the_limit_is_known_where_it_ends)
{
    static const char begin[] = "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$536870912\r\n";
    static const char just[] = "*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1000\r\n";
    ck_assert_int_eq(read_text(begin, sizeof(begin) - 1), PUSH_LARGE);
    ck_assert(text_span_eq(push.channel, "ch"));
    ck_assert_uint_eq(push.payload.len, 536870912);
    ck_assert_uint_eq(push.size, sizeof(begin) - 1 + 536870912 + 2);
    cut(begin, sizeof(begin) - 1);
    ck_assert_int_eq(read_text(just, sizeof(just) - 1), PUSH_CUT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("push");
    TCase *all = tcase_create("push");
    tcase_add_test(all, a_message_is_read_where_it_lies);
    tcase_add_test(all, a_confirmation_has_a_number);
    tcase_add_test(all, what_is_not_whole_is_not_taken);
    tcase_add_loop_test(all, other_shapes_are_left_alone, 0, sizeof(others) / sizeof(*others));
    tcase_add_test(all, of_a_payload_above_the_limit_is_known_where_it_ends);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
