/*
 * check_extensions.c - which offers of permessage-deflate are taken, and what is answered.
 */
#include "config.h"

#include <check.h>
#include <stdlib.h>

#include "workers/extensions.h"

/* The answer, or "" when nothing is chosen. */
static void expect(const char *offers, const char *answer)
{
    struct extensions_deflate chosen;
    struct text_buf out = {0};
    text_adds(&out, "");
    if (extensions_choose(text_span_of(offers), &chosen))
        extensions_answer(&chosen, &out);
    ck_assert_msg(!strcmp(out.data, answer), "%s: \"%s\" instead of \"%s\"", offers, out.data,
                  answer);
    text_buf_free(&out);
}

#define NO_CONTEXT "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

START_TEST(every_form_of_a_valid_offer_is_taken)
{
    static const char *const offers[] = {
        "permessage-deflate",
        "  permessage-deflate  ",
        "Permessage-Deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate;client_max_window_bits=8",
        "permessage-deflate ; client_max_window_bits = 15",
        "permessage-deflate; client_max_window_bits=\"10\"",
        "permessage-deflate; client_max_window_bits=\"\\1\\0\"",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate;\tclient_no_context_takeover;server_no_context_takeover",
        ", ,permessage-deflate,",
    };
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++)
        expect(offers[i], NO_CONTEXT);
}
END_TEST

START_TEST(a_window_that_is_asked_for_is_kept_to_and_answered)
{
    expect("permessage-deflate; server_max_window_bits=8", NO_CONTEXT "; server_max_window_bits=8");
    expect("permessage-deflate; server_max_window_bits=15; client_max_window_bits",
           NO_CONTEXT "; server_max_window_bits=15");
    expect("permessage-deflate; server_max_window_bits=\"9\"",
           NO_CONTEXT "; server_max_window_bits=9");
    struct extensions_deflate chosen;
    ck_assert(extensions_choose(text_span_of("permessage-deflate; server_max_window_bits=11"),
                                &chosen));
    ck_assert(chosen.window_bits == 11 && chosen.is_window_asked);
    ck_assert(extensions_choose(text_span_of("permessage-deflate"), &chosen));
    ck_assert(chosen.window_bits == 15 && !chosen.is_window_asked);
}
END_TEST

START_TEST(an_offer_that_is_not_understood_is_passed_over)
{
    static const char *const bad[] = {
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; server_max_window_bits=9x",
        "permessage-deflate; server_max_window_bits=99999999999999999999",
        "permessage-deflate; server_max_window_bits=\"9",
        "permessage-deflate; server_max_window_bits=\"9 \"",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=\"9\\",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=\"\"",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
        "permessage-deflate; window=9",
        "permessage-deflate;",
        "permessage-deflate; ;client_max_window_bits",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate=1",
        "permessage-deflates",
        "x-webkit-deflate-frame",
        "\"permessage-deflate\"",
        "permessage-\xff",
        "",
        ",",
        ";",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(bad[i], "");
}
END_TEST

START_TEST(the_next_offer_has_its_chance)
{
    expect("permessage-deflate; server_max_window_bits=7, permessage-deflate", NO_CONTEXT);
    expect("permessage-deflate; unknown, x-other; a=\"b, permessage-deflate\", "
           "permessage-deflate; server_max_window_bits=10, permessage-deflate",
           NO_CONTEXT "; server_max_window_bits=10");
    expect("x; a=\"\\\", permessage-deflate, \", permessage-deflate", NO_CONTEXT);
    expect("x; a=\"never closed, permessage-deflate", "");
}
END_TEST

START_TEST(offers_are_read_to_their_end_and_no_further)
{
    static const char whole[] = "permessage-deflate; server_max_window_bits=\"10\"";
    for (size_t len = 0; len < sizeof whole; len++) {
        struct extensions_deflate chosen;
        char *exact = malloc(len + !len); /* the sanitizer sees what is read beyond it */
        memcpy(exact, whole, len);
        ck_assert_int_eq(extensions_choose((struct text_span){exact, len}, &chosen),
                         len == 18 || len == sizeof whole - 1);
        free(exact);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("extensions");
    TCase *tc = tcase_create("extensions");
    tcase_add_test(tc, every_form_of_a_valid_offer_is_taken);
    tcase_add_test(tc, a_window_that_is_asked_for_is_kept_to_and_answered);
    tcase_add_test(tc, an_offer_that_is_not_understood_is_passed_over);
    tcase_add_test(tc, the_next_offer_has_its_chance);
    tcase_add_test(tc, offers_are_read_to_their_end_and_no_further);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
