/*
 * check_proxyhead.c - the PROXY protocol's header: whole, cut anywhere, and malformed.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/proxyhead.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\xc0\x00\x02\x01\x0a\x00\x00\x01\x12\x34\x00\x50"
#define V6_OF(last) "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0" last
#define V6 V6_OF("\x01") V6_OF("\x02") "\x12\x34\x00\x50"
#define TLV "\x04\x00\x03\0\0\0\x02\x00\x01x"
#define HEADER(text, source) {text, sizeof(text) - 1, source}

static const struct {
    const char *bytes;
    size_t len;
    const char *source;
} good[] = {
    HEADER("PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n", "192.0.2.1"),
    HEADER("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    HEADER("PROXY TCP6 2001:db8::1 2001:db8::2 0 443\r\n", "2001:db8::1"),
    HEADER("PROXY TCP6 ffff:f:f:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
           "65535 65535\r\n", "ffff:f:f:ffff:ffff:ffff:ffff:ffff"),
    HEADER("PROXY UNKNOWN\r\n", ""),
    HEADER("PROXY UNKNOWN ffff::1 whatever 1 2 3\r\n", ""),
    HEADER(SIGNATURE "\x21\x11\x00\x0c" V4, "192.0.2.1"),
    HEADER(SIGNATURE "\x21\x12\x00\x0c" V4, "192.0.2.1"), /* datagrams */
    HEADER(SIGNATURE "\x21\x21\x00\x24" V6, "2001:db8::1"),
    HEADER(SIGNATURE "\x21\x11\x00\x16" V4 TLV, "192.0.2.1"),
    HEADER(SIGNATURE "\x20\x00\x00\x00", ""),         /* LOCAL */
    HEADER(SIGNATURE "\x20\x11\x00\x0c" V4, ""),      /* LOCAL: whatever follows */
    HEADER(SIGNATURE "\x20\xff\x00\x01x", ""),
    HEADER(SIGNATURE "\x21\x00\x00\x00", ""),         /* UNSPEC */
    HEADER(SIGNATURE "\x21\x00\x00\x0a" TLV, ""),
};

/* In memory of exactly that size, for the sanitizer to see what is read beyond. */
static int read_exactly(const char *bytes, size_t len, struct ip *source)
{
    unsigned char *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    int result = proxyhead_read(copy, len, source);
    free(copy);
    return result;
}

START_TEST(a_header_is_read_whole_and_cut_anywhere)
{
    struct ip source;
    char text[IP_TEXT_BYTES], more[300];
    for (size_t len = 0; len < good[_i].len; len++)
        ck_assert_int_eq(read_exactly(good[_i].bytes, len, &source), 0);
    ck_assert_int_eq(read_exactly(good[_i].bytes, good[_i].len, &source), (int)good[_i].len);
    ck_assert_str_eq(ip_format(&source, text), good[_i].source);
    /* What follows in the same packet is not part of it. */
    memcpy(more, good[_i].bytes, good[_i].len);
    memcpy(more + good[_i].len, "GET / HTTP/1.1\r\n", 16);
    ck_assert_int_eq(read_exactly(more, good[_i].len + 16, &source), (int)good[_i].len);
}
END_TEST

START_TEST(one_from_a_unix_socket_names_nobody)
{
    char header[16 + 216] = SIGNATURE "\x21\x31\x00\xd8";
    struct ip source;
    memset(header + 16, '/', 216);
    ck_assert_int_eq(read_exactly(header, sizeof(header), &source), (int)sizeof(header));
    ck_assert(ip_is_none(&source));
    ck_assert_int_eq(read_exactly(header, sizeof(header) - 1, &source), 0);
    header[15] = '\xd7';
    ck_assert_int_eq(read_exactly(header, sizeof(header), &source), -EBADMSG);
}
END_TEST

static const struct {
    const char *bytes;
    size_t len;
    const char *source;
} bad[] = {
    HEADER("GET / HTTP/1.1\r\n", ""),
    HEADER("\x16\x03\x01", ""),
    HEADER("PROXX", ""),
    HEADER("PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n", ""),
    HEADER("PROXY TCP4\r\n", ""),
    HEADER("PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n", ""),
    HEADER("PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n", ""),
    HEADER("PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n", ""),
    HEADER("PROXY TCP4 192.0.2.1 10.0.0.1 01 2\r\n", ""),
    HEADER("PROXY TCP4 192.0.2.1:80 10.0.0.1 1 2\r\n", ""),
    HEADER("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", ""),
    HEADER("PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n", ""),
    HEADER("PROXY TCP6 [::1] [::2] 1 2\r\n", ""),
    HEADER("PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n", ""),
    HEADER("proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n", ""),
    HEADER("PROXY TCP4 192.0.2.1 10.0.0.1 1 2\rX", ""),
    HEADER("PROXY UNKNOWN 0000000000000000000000000000000000000000000000000000000000000000000000"
           "00000000000000000000000000000000000000000000\r\n", ""),
    HEADER("\r\n\r\n\0\r\nQUIX", ""),
    HEADER(SIGNATURE "\x22\x11\x00\x0c" V4, ""), /* command */
    HEADER(SIGNATURE "\x11\x11\x00\x0c" V4, ""), /* version */
    HEADER(SIGNATURE "\x21\x41\x00\x0c" V4, ""), /* family */
    HEADER(SIGNATURE "\x21\x13\x00\x0c" V4, ""), /* transport */
    HEADER(SIGNATURE "\x21\x11\x00\x0b" V4, ""), /* shorter than its addresses */
    HEADER(SIGNATURE "\x21\x21\x00\x0c" V4, ""),
    HEADER(SIGNATURE "\x21\x11\xff\xff", ""),    /* beyond the bound */
};

START_TEST(what_is_none_is_refused)
{
    struct ip source;
    ck_assert_int_eq(read_exactly(bad[_i].bytes, bad[_i].len, &source), -EBADMSG);
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof(*(a)))

int main(void)
{
    TCase *tc = tcase_create("proxyhead");
    tcase_add_loop_test(tc, a_header_is_read_whole_and_cut_anywhere, 0, COUNT(good));
    tcase_add_test(tc, one_from_a_unix_socket_names_nobody);
    tcase_add_loop_test(tc, what_is_none_is_refused, 0, COUNT(bad));
    Suite *s = suite_create("proxyhead");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
