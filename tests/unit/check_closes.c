#include "config.h"

#include <check.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "shared/closes.h"
#include "shared/text.h"

START_TEST(rows_have_the_codes_of_the_protocol)
{
    const struct {
        enum close_reason reason;
        int code;
        const char *name;
    } known[] = {
        {CLOSE_CLIENT, 0, "client"},       {CLOSE_NO_PONG, 0, "no_pong"},
        {CLOSE_SHUTDOWN, 1001, "shutdown"}, {CLOSE_PROTOCOL, 1002, "protocol"},
        {CLOSE_BINARY, 1003, "binary"},    {CLOSE_UTF8, 1007, "utf8"},
        {CLOSE_DEFLATE, 1007, "deflate"},
        {CLOSE_RATE, 1008, "rate"},        {CLOSE_TOO_BIG, 1009, "too_big"},
        {CLOSE_INTERNAL, 1011, "internal"}, {CLOSE_RESTART, 1012, "restart"},
        {CLOSE_OVERLOAD, 1013, "overload"}, {CLOSE_AUTH, 4001, "auth"},
        {CLOSE_EXPIRED, 4002, "expired"},  {CLOSE_ADMIN, 4003, "admin"},
        {CLOSE_SLOW, 4008, "slow"},        {CLOSE_USER_LIMIT, 4029, "user_limit"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        ck_assert_int_eq(closes_table[known[i].reason].code, known[i].code);
        ck_assert_str_eq(closes_table[known[i].reason].name, known[i].name);
    }
}
END_TEST

START_TEST(rows_can_be_sent_logged_and_told_apart)
{
    for (int i = 0; i < CLOSE_REASONS; i++) {
        const struct close_row *row = &closes_table[i];
        /* RFC 6455, section 7.4: 0 is ours for "no frame"; 1004, 1005, 1006 and 1015 are never
         * sent. */
        ck_assert(row->code == 0 || (row->code >= 1000 && row->code <= 1014) ||
                  (row->code >= 3000 && row->code <= 4999));
        ck_assert(row->code != 1004 && row->code != 1005 && row->code != 1006);
        ck_assert_uint_le(strlen(row->reason), 123);
        ck_assert(text_is_utf8(row->reason, strlen(row->reason)));
        ck_assert_int_eq(row->reason[0] == '\0', row->code == 0);
        ck_assert(row->word[0] && row->client[0] && row->help[0]);
        for (const char *p = row->name; *p; p++)
            ck_assert(islower((unsigned char)*p) || isdigit((unsigned char)*p) || *p == '_');
        for (int j = 0; j < i; j++) {
            ck_assert_str_ne(row->word, closes_table[j].word);
            ck_assert_str_ne(row->name, closes_table[j].name);
            ck_assert(row->code == 0 || row->code != closes_table[j].code ||
                      strcmp(row->reason, closes_table[j].reason) != 0);
        }
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("closes");
    tcase_add_test(tc, rows_have_the_codes_of_the_protocol);
    tcase_add_test(tc, rows_can_be_sent_logged_and_told_apart);
    Suite *s = suite_create("closes");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
