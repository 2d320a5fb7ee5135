#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/http.h"

#define MAX_HEAD 2000
#define MAX_BODY 1000

static const struct http_limits limits = {MAX_HEAD, MAX_BODY};

/* Feeds in pieces of step bytes until the request is whole or refused. *used: how many were taken.
 * */
static int feed_in_steps(struct http *h, const char *bytes, size_t len, size_t step, size_t *used)
{
    int result = 0;
    *used = 0;
    while (*used < len && result == 0) {
        size_t n = len - *used < step ? len - *used : step, taken = 0;
        result = http_feed(h, bytes + *used, n, &taken);
        ck_assert_uint_le(taken, n);
        if (result == 0)
            ck_assert_uint_eq(taken, n);
        *used += taken;
    }
    return result;
}

/* The same result whole, byte by byte, and in any two pieces; cut short it is never whole. */
static void expect(const char *bytes, size_t len, int result, size_t used)
{
    for (size_t step = 1; step <= len; step = step < 3 ? step + 1 : step * 2 + 1) {
        struct http *h = http_new(&limits);
        size_t taken;
        int got = feed_in_steps(h, bytes, len, step, &taken);
        ck_assert_msg(got == result, "step %zu: %d instead of %d for %.60s", step, got, result,
                      bytes);
        if (result == 1)
            ck_assert_uint_eq(taken, used);
        http_free(h);
    }
    for (size_t cut = 0; cut <= len && len < 3000; cut++) {
        struct http *h = http_new(&limits);
        size_t taken = 0;
        int got = http_feed(h, bytes, cut, &taken);
        if (result == 1)
            ck_assert_int_eq(got, cut >= used);
        if (got == 0)
            got = http_feed(h, bytes + cut, len - cut, &taken);
        ck_assert_int_eq(got, result);
        http_free(h);
    }
}

static void refused(const char *request, int status)
{
    expect(request, strlen(request), -status, 0);
}

static void accepted(const char *request)
{
    expect(request, strlen(request), 1, strlen(request));
}

static struct http *parsed(const char *request)
{
    struct http *h = http_new(&limits);
    size_t used;
    ck_assert_int_eq(http_feed(h, request, strlen(request), &used), 1);
    return h;
}

static void assert_span(struct text_span span, const char *expected)
{
    ck_assert_msg(text_span_eq(span, expected), "\"%.*s\" instead of \"%s\"", (int)span.len,
                  span.ptr, expected);
}

static void assert_header(const struct http *h, const char *name, const char *expected)
{
    struct text_span value;
    ck_assert(http_header(h, name, &value));
    assert_span(value, expected);
}

/* ---- what is read ---- */

START_TEST(request_line_and_headers_are_taken_apart)
{
    struct http *h = parsed("GET /ws/health?live&x=%20 HTTP/1.1\r\nHost: h\r\n"
                            "X-One:  a b \t\r\nEmpty:\r\nX-Two: c\r\n\r\n");
    struct text_span value;
    ck_assert_str_eq(http_method(h), "GET");
    assert_span(http_path(h), "/ws/health");
    assert_span(http_query(h), "live&x=%20");
    assert_header(h, "x-ONE", "a b");
    assert_header(h, "empty", "");
    assert_header(h, "x-two", "c");
    ck_assert(!http_header(h, "x", &value));
    ck_assert_int_eq(http_header_count(h, "HOST"), 1);
    ck_assert_int_eq(http_header_count(h, "x-three"), 0);
    ck_assert_int_eq(http_minor_version(h), 1);
    ck_assert(http_keep_alive(h));
    ck_assert(!http_is_upgrade(h));
    ck_assert(http_is_started(h));
    http_free(h);
    http_free(NULL);
}
END_TEST

START_TEST(a_refused_request_tells_its_path_as_far_as_it_came)
{
    static const char *const cases[][2] = {
        {"GET /ws/health?token=x HTTP/1.1\r\n\r\n", "/ws/health"}, /* no Host */
        {"POST /ws/broadcast HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999\r\n\r\n",
         "/ws/broadcast"},
        {"GET /ws HTTP/1.1\r\nHost : h\r\n\r\n", "/ws"},
        {"GET /a?b HTTP/3.0\r\n\r\n", "/a"},
        {"BREW /pot HTTP/1.1\r\n", ""},
        {"GET * HTTP/1.1\r\nHost: h\r\n\r\n", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http *h = http_new(&limits);
        size_t used;
        ck_assert_int_lt(http_feed(h, cases[i][0], strlen(cases[i][0]), &used), 0);
        assert_span(http_path(h), cases[i][1]);
        http_free(h);
    }
}
END_TEST

START_TEST(header_fed_byte_by_byte_is_the_same)
{
    static const char request[] = "GET /path?query HTTP/1.1\r\nHost: host\r\nLong-Name: some value"
                                  "\r\nlong-name: more\r\n\r\n";
    struct http *h = http_new(&limits);
    size_t used;
    ck_assert_int_eq(feed_in_steps(h, request, sizeof request - 1, 1, &used), 1);
    assert_span(http_path(h), "/path");
    assert_span(http_query(h), "query");
    assert_header(h, "long-name", "some value, more");
    http_free(h);
}
END_TEST

START_TEST(repeated_headers_are_joined_and_counted)
{
    struct http *h = parsed("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: x\r\na: 2\r\nA: 3\r\n\r\n");
    assert_header(h, "a", "1, 2, 3");
    assert_header(h, "b", "x");
    ck_assert_int_eq(http_header_count(h, "a"), 3);
    http_free(h);
}
END_TEST

START_TEST(lists_are_searched_for_tokens_in_any_case)
{
    struct http *h = parsed("GET / HTTP/1.1\r\nHost: h\r\nConnection: foo , UPGRADE,,\r\n"
                            "connection: keep-alive\r\n\r\n");
    ck_assert(http_header_has(h, "connection", "upgrade"));
    ck_assert(http_header_has(h, "connection", "keep-alive"));
    ck_assert(!http_header_has(h, "connection", "up"));
    ck_assert(!http_header_has(h, "upgrade", "websocket"));
    http_free(h);
}
END_TEST

START_TEST(absolute_target_counts_by_its_path)
{
    static const char *const cases[][3] = {
        {"http://h/ws?a=1", "/ws", "a=1"},
        {"HTTPS://h:1/ws/x", "/ws/x", ""},
        {"http://h", "/", ""},
        {"http://h?a", "/", "a"},
        {"/", "/", ""},
        {"/?", "/", ""},
        {"//double", "//double", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char request[200];
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", cases[i][0]);
        struct http *h = parsed(request);
        assert_span(http_path(h), cases[i][1]);
        assert_span(http_query(h), cases[i][2]);
        http_free(h);
    }
}
END_TEST

START_TEST(bodies_come_with_length_or_chunked)
{
    struct http *h = parsed("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    assert_span(http_body(h), "hello");
    http_free(h);
    h = parsed("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
               "2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: x\r\n\r\n");
    assert_span(http_body(h), "hello");
    ck_assert_int_eq(http_header_count(h, "trailer"), 0);
    http_free(h);
    accepted("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
    accepted("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
}
END_TEST

START_TEST(nothing_is_used_past_the_end_of_a_request)
{
    static const char *const requests[] = {
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        char both[400];
        size_t len = strlen(requests[i]);
        size_t all = (size_t)snprintf(both, sizeof both, "%sGET /next HTTP/1.1\r\n", requests[i]);
        expect(both, all, 1, len);
        memcpy(both + len, "\x81\x85\0\0\0\0hello", 11);
        expect(both, len + 11, 1, len);
    }
}
END_TEST

START_TEST(upgrade_is_seen)
{
    struct http *h = parsed("GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                            "Connection: keep-alive, Upgrade\r\n\r\n");
    ck_assert(http_is_upgrade(h));
    http_free(h);
}
END_TEST

START_TEST(keep_alive_follows_version_and_connection)
{
    static const struct {
        const char *request;
        bool keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http *h = parsed(cases[i].request);
        ck_assert_int_eq(http_keep_alive(h), cases[i].keep_alive);
        http_free(h);
    }
}
END_TEST

/* ---- what is refused ---- */

START_TEST(malformed_requests_are_refused)
{
    static const char *const bad[] = {
        "GET  HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: h\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET ws HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a\x80 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA: \x01\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA: \x7f\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA : c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\n\n",
        "GET / HTTP/1.1\r\nHost: h\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\rA: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "\x16\x03\x01\x02",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i], 400);
    expect("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 27, -400, 0);
}
END_TEST

START_TEST(ambiguous_lengths_are_refused)
{
    static const char *const bad[] = {
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x3\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char request[300];
        snprintf(request, sizeof request, "POST / HTTP/1.1\r\nHost: h\r\n%s\r\nabc", bad[i]);
        refused(request, 400);
    }
    refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nabc", 400);
    refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}
END_TEST

START_TEST(other_codings_are_not_implemented)
{
    refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501);
    refused("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", 501);
}
END_TEST

START_TEST(unknown_methods_and_versions_are_told_apart)
{
    refused("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 405);
    refused("GETT / HTTP/1.1\r\nHost: h\r\n\r\n", 405);
    refused("GARBAGE\r\n\r\n", 400); /* no method: nothing follows that it could be done to */
    refused("BREW/ HTTP/1.1\r\n\r\n", 400);
    refused("BReW / HTTP/1.1\r\n\r\n", 400);
    refused("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505);
    refused("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505);
    refused("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505);
    refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    refused("BREW / HTTP/1.1\r\nHost: h\r\nA: \x01\r\n\r\n", 405); /* by what came first */
}
END_TEST

START_TEST(head_is_bounded_to_the_byte)
{
    char request[MAX_HEAD + 2];
    int fixed = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: h\r\nA: ");
    memset(request + fixed, 'x', sizeof request - (size_t)fixed);
    memcpy(request + MAX_HEAD - 4, "\r\n\r\n", 4);
    expect(request, MAX_HEAD, 1, MAX_HEAD);
    memcpy(request + MAX_HEAD - 4, "x\r\n\r\n", 5);
    expect(request, MAX_HEAD + 1, -431, 0);
    memset(request, '\n', sizeof request);
    for (size_t i = 0; i < sizeof request; i += 2)
        request[i] = '\r';
    expect(request, MAX_HEAD, -431, 0); /* empty lines before a request count */
}
END_TEST

START_TEST(number_of_headers_is_bounded)
{
    struct text_buf request = {0};
    text_adds(&request, "GET / HTTP/1.1\r\nHost: h\r\n");
    for (int i = 1; i < HTTP_MAX_HEADERS; i++)
        text_adds(&request, "A: b\r\n");
    size_t room = request.len;
    text_adds(&request, "\r\n");
    accepted(request.data);
    request.len = room;
    text_adds(&request, "A: b\r\n\r\n");
    refused(request.data, 431);
    text_buf_free(&request);
}
END_TEST

START_TEST(body_is_bounded_to_the_byte)
{
    char request[MAX_BODY + 200];
    for (int over = 0; over < 2; over++) {
        int head = snprintf(request, sizeof request,
                            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
                            MAX_BODY + over);
        memset(request + head, 'x', (size_t)(MAX_BODY + over));
        size_t len = (size_t)(head + MAX_BODY + over);
        expect(request, len, over ? -413 : 1, len);
        head = snprintf(request, sizeof request,
                        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n",
                        (unsigned)(MAX_BODY + over));
        memset(request + head, 'x', (size_t)(MAX_BODY + over));
        len = (size_t)(head + MAX_BODY + over);
        memcpy(request + len, "\r\n0\r\n\r\n", 7);
        expect(request, len + 7, over ? -413 : 1, len + 7);
    }
    refused("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400);
}
END_TEST

START_TEST(endless_chunk_extensions_and_trailers_are_refused)
{
    static const char *const heads[] = {"1;", "0\r\nA: "};
    for (size_t i = 0; i < 2; i++) {
        struct http *h = http_new(&limits);
        char filler[1000];
        size_t used;
        int result = 0;
        memset(filler, 'x', sizeof filler);
        static const char head[] =
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        ck_assert_int_eq(http_feed(h, head, sizeof head - 1, &used), 0);
        ck_assert_int_eq(http_feed(h, heads[i], strlen(heads[i]), &used), 0);
        for (int k = 0; k < 100 && result == 0; k++)
            result = http_feed(h, filler, sizeof filler, &used);
        ck_assert_int_eq(result, -413);
        http_free(h);
    }
}
END_TEST

START_TEST(any_bytes_are_survived)
{
    static const char seed[] =
        "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nA: b\r\n\r\nabc";
    srandom(5);
    for (int round = 0; round < 20000; round++) {
        char bytes[sizeof seed];
        size_t used;
        memcpy(bytes, seed, sizeof seed);
        for (int k = 0; k < 1 + round % 4; k++)
            bytes[random() % (long)(sizeof seed - 1)] = (char)random();
        struct http *h = http_new(&limits);
        feed_in_steps(h, bytes, sizeof seed - 1, 1 + (size_t)random() % 40, &used);
        http_free(h);
    }
}
END_TEST

/* ---- responses ---- */

START_TEST(response_is_whole)
{
    struct text_buf out = {0};
    http_respond(&out, 426, "application/json", "X-Extra: 1\r\n", text_span_of("{}"), true, false);
    ck_assert_ptr_nonnull(strstr(out.data, "HTTP/1.1 426 Upgrade Required\r\nDate: "));
    ck_assert_ptr_nonnull(strstr(out.data, " GMT\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nContent-Type: application/json\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nContent-Length: 2\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nConnection: keep-alive\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nCache-Control: no-store\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nX-Content-Type-Options: nosniff\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nX-Extra: 1\r\n"));
    ck_assert_str_eq(out.data + out.len - 6, "\r\n\r\n{}");
    text_buf_free(&out);
}
END_TEST

START_TEST(response_to_head_has_the_length_and_no_body)
{
    struct text_buf out = {0};
    http_respond(&out, 200, NULL, NULL, text_span_of("body"), false, true);
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nContent-Length: 4\r\n"));
    ck_assert_ptr_nonnull(strstr(out.data, "\r\nConnection: close\r\n"));
    ck_assert_ptr_null(strstr(out.data, "Content-Type:"));
    ck_assert_str_eq(out.data + out.len - 4, "\r\n\r\n");
    text_buf_free(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http");
    TCase *tc = tcase_create("http");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, request_line_and_headers_are_taken_apart);
    tcase_add_test(tc, a_refused_request_tells_its_path_as_far_as_it_came);
    tcase_add_test(tc, header_fed_byte_by_byte_is_the_same);
    tcase_add_test(tc, repeated_headers_are_joined_and_counted);
    tcase_add_test(tc, lists_are_searched_for_tokens_in_any_case);
    tcase_add_test(tc, absolute_target_counts_by_its_path);
    tcase_add_test(tc, bodies_come_with_length_or_chunked);
    tcase_add_test(tc, nothing_is_used_past_the_end_of_a_request);
    tcase_add_test(tc, upgrade_is_seen);
    tcase_add_test(tc, keep_alive_follows_version_and_connection);
    tcase_add_test(tc, malformed_requests_are_refused);
    tcase_add_test(tc, ambiguous_lengths_are_refused);
    tcase_add_test(tc, other_codings_are_not_implemented);
    tcase_add_test(tc, unknown_methods_and_versions_are_told_apart);
    tcase_add_test(tc, head_is_bounded_to_the_byte);
    tcase_add_test(tc, number_of_headers_is_bounded);
    tcase_add_test(tc, body_is_bounded_to_the_byte);
    tcase_add_test(tc, endless_chunk_extensions_and_trailers_are_refused);
    tcase_add_test(tc, any_bytes_are_survived);
    tcase_add_test(tc, response_is_whole);
    tcase_add_test(tc, response_to_head_has_the_length_and_no_body);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
