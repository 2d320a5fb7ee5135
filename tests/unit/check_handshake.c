#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/handshake.h"

static struct http *request(const char *target, const char *headers)
{
    static const struct http_limits limits = {16384, 1000};
    char text[4000];
    size_t used;
    int len = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: h\r\n%s\r\n", target, headers);
    struct http *h = http_new(&limits);
    ck_assert_int_eq(http_feed(h, text, (size_t)len, &used), 1);
    return h;
}

/* The token found in a request; "(none)" without one. */
static const char *token_of(const char *target, const char *headers, bool with_subprotocol)
{
    static char found[200];
    char buf[100];
    struct text_span token;
    struct http *h = request(target, headers);
    if (handshake_find_token(h, with_subprotocol, buf, sizeof buf, &token))
        snprintf(found, sizeof found, "%.*s", (int)token.len, token.ptr);
    else
        strcpy(found, "(none)");
    http_free(h);
    return found;
}

START_TEST(accept_key_is_that_of_the_rfc)
{
    char out[29];
    handshake_accept_key(text_span_of("dGhlIHNhbXBsZSBub25jZQ=="), out);
    ck_assert_str_eq(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
END_TEST

START_TEST(key_must_be_sixteen_bytes_in_base64)
{
    static const char *const bad[] = {"",
                                      "==",
                                      "dGhlIHNhbXBsZSBub25jZQ=",
                                      "dGhlIHNhbXBsZSBub25jZQ===",
                                      "dGhlIHNhbXBsZSBub25jZQAA",
                                      "dGhlIHNhbXBsZSBub25jZ===",
                                      "dGhlIHNhbXBsZ_Bub25jZQ==",
                                      "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="};
    ck_assert(handshake_is_key(text_span_of("dGhlIHNhbXBsZSBub25jZQ==")));
    ck_assert(handshake_is_key(text_span_of("+/+/+/+/+/+/+/+/+/+/+w==")));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!handshake_is_key(text_span_of(bad[i])), "%s", bad[i]);
}
END_TEST

START_TEST(every_origin_may_connect_when_none_is_listed)
{
    struct text_list origins = {NULL, 0};
    ck_assert(handshake_is_origin_allowed(&origins, text_span_of("https://anywhere")));
    ck_assert(handshake_is_origin_allowed(&origins, text_span_of("null")));
}
END_TEST

START_TEST(listed_origins_match_in_any_case_and_as_a_whole)
{
    struct text_list origins = {NULL, 0};
    text_list_split(&origins, "https://app.example.org, http://localhost:3000");
    ck_assert(handshake_is_origin_allowed(&origins, text_span_of("https://app.example.org")));
    ck_assert(handshake_is_origin_allowed(&origins, text_span_of("HTTPS://App.Example.Org")));
    ck_assert(handshake_is_origin_allowed(&origins, text_span_of("http://localhost:3000")));
    static const char *const bad[] = {"http://app.example.org",
                                      "https://app.example.org:444",
                                      "https://app.example.org.evil.org",
                                      "https://evil.org",
                                      "http://localhost",
                                      "http://localhost:30000",
                                      "null",
                                      ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(!handshake_is_origin_allowed(&origins, text_span_of(bad[i])), "%s", bad[i]);
    text_list_free(&origins);
}
END_TEST

START_TEST(null_origin_may_connect_only_when_listed)
{
    struct text_list origins = {NULL, 0};
    text_list_split(&origins, "null");
    ck_assert(handshake_is_origin_allowed(&origins, text_span_of("null")));
    ck_assert(!handshake_is_origin_allowed(&origins, text_span_of("https://null")));
    text_list_free(&origins);
}
END_TEST

START_TEST(paths_follow_profile_and_echo)
{
    struct options opt = {.profile = PROFILE_STANDARD, .echo = CHOICE_OFF};
    ck_assert(handshake_is_path(&opt, text_span_of("/ws")));
    ck_assert(!handshake_is_path(&opt, text_span_of("/ws/")));
    ck_assert(!handshake_is_path(&opt, text_span_of("/ws/realtime")));
    ck_assert(!handshake_is_path(&opt, text_span_of("/echo")));
    opt.profile = PROFILE_FINANCE_TRACKER;
    opt.echo = CHOICE_ON;
    ck_assert(handshake_is_path(&opt, text_span_of("/ws/realtime")));
    ck_assert(handshake_is_path(&opt, text_span_of("/echo")));
}
END_TEST

START_TEST(token_of_the_query_comes_first_and_is_decoded)
{
    ck_assert_str_eq(token_of("/ws?a=1&token=abc%2Ed", "Authorization: Bearer other\r\n", true),
                     "abc.d");
}
END_TEST

START_TEST(empty_query_token_counts_as_absent)
{
    ck_assert_str_eq(token_of("/ws?token=", "Authorization: Bearer header\r\n", true), "header");
    ck_assert_str_eq(token_of("/ws?token=", "", true), "(none)");
}
END_TEST

START_TEST(authorization_must_be_bearer)
{
    ck_assert_str_eq(token_of("/ws", "authorization: bEARER  x.y \r\n", true), "x.y");
    ck_assert_str_eq(token_of("/ws", "Authorization: Basic eDp5\r\n", true), "(none)");
    ck_assert_str_eq(token_of("/ws", "Authorization: Bearer\r\n", true), "(none)");
    ck_assert_str_eq(token_of("/ws", "Authorization: Bearer \r\n", true), "(none)");
}
END_TEST

START_TEST(subprotocol_carries_a_token_for_websockets_only)
{
    const char *header = "Sec-WebSocket-Protocol: belfry.v1,bearer.x.y.z\r\n";
    ck_assert_str_eq(token_of("/ws", header, true), "x.y.z");
    ck_assert_str_eq(token_of("/ws", header, false), "(none)");
    ck_assert_str_eq(token_of("/ws", "Sec-WebSocket-Protocol: bearer.\r\n", true), "(none)");
    ck_assert_str_eq(token_of("/ws", "Sec-WebSocket-Protocol: belfry.v1\r\n"
                                     "Sec-WebSocket-Protocol: bearer.second\r\n", true),
                     "second");
}
END_TEST

START_TEST(token_that_cannot_be_read_is_none)
{
    ck_assert_str_eq(token_of("/ws?token=%zz", "", true), "(none)");
    ck_assert_str_eq(token_of("/ws?token=a%00b", "", true), "(none)");
}
END_TEST

/* Its length is what token_verify refuses it for. */
START_TEST(token_that_is_too_long_is_found_as_it_stands)
{
    static const char text[] = "01234567890123456789012345678901234567890123456789"
                               "01234567890123456789012345678901234567890123456789";
    char target[sizeof(text) + 16];
    snprintf(target, sizeof(target), "/ws?token=%s", text);
    ck_assert_str_eq(token_of(target, "", true), text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("handshake");
    TCase *tc = tcase_create("handshake");
    tcase_add_test(tc, accept_key_is_that_of_the_rfc);
    tcase_add_test(tc, key_must_be_sixteen_bytes_in_base64);
    tcase_add_test(tc, every_origin_may_connect_when_none_is_listed);
    tcase_add_test(tc, listed_origins_match_in_any_case_and_as_a_whole);
    tcase_add_test(tc, null_origin_may_connect_only_when_listed);
    tcase_add_test(tc, paths_follow_profile_and_echo);
    tcase_add_test(tc, token_of_the_query_comes_first_and_is_decoded);
    tcase_add_test(tc, empty_query_token_counts_as_absent);
    tcase_add_test(tc, authorization_must_be_bearer);
    tcase_add_test(tc, subprotocol_carries_a_token_for_websockets_only);
    tcase_add_test(tc, token_that_cannot_be_read_is_none);
    tcase_add_test(tc, token_that_is_too_long_is_found_as_it_stands);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
