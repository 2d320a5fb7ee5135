/*
 * check_ip.c - client addresses and ranges of them; who may tell of others.
 */
#include "config.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "shared/ip.h"
#include "workers/proxies.h"

static struct ip ip_of(const char *text)
{
    struct ip ip = {{0}};
    ck_assert_msg(ip_parse(text_span_of(text), &ip) == 0, "%s", text);
    return ip;
}

static const char *const forms[][2] = {
    {"192.0.2.1", "192.0.2.1"},       {"192.0.2.1:80", "192.0.2.1"},
    {"::ffff:192.0.2.1", "192.0.2.1"}, {"2001:db8::1", "2001:db8::1"},
    {"[2001:db8::1]", "2001:db8::1"},  {"[2001:DB8::1]:65535", "2001:db8::1"},
};

START_TEST(every_form_that_proxies_write_is_read)
{
    char text[IP_TEXT_BYTES];
    struct ip ip = ip_of(forms[_i][0]);
    ck_assert_str_eq(ip_format(&ip, text), forms[_i][1]);
}
END_TEST

static const char *const bad[] = {
    "",          "unknown",    "_hidden",      "192.0.2.256", "192.0.2.1:",  "192.0.2.1:65536",
    "192.0.2",   "[192.0.2.1]", "[::1",        "[::1]x",      "[::1]:",      "[::1]:x",
    "::1%lo",    " ::1",       "1.2.3.4 ",     "01.2.3.4",    "host:80",     "[]",
    "2001:db8:0000:0000:0000:0000:0000:0001:2001:db8:0000:0000:0000:0000:0000:0001",
};

START_TEST(what_is_no_address_is_refused)
{
    struct ip ip;
    ck_assert_int_eq(ip_parse(text_span_of(bad[_i]), &ip), -EINVAL);
    ck_assert_int_eq(ip_parse((struct text_span){"::1\0", 4}, &ip), -EINVAL);
}
END_TEST

START_TEST(a_socket_tells_the_same_address_by_either_family)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(0xc0000201)}};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct ip v4 = ip_from_sockaddr((struct sockaddr *)&in), same = ip_of("192.0.2.1");
    ck_assert_mem_eq(&v4, &same, sizeof(v4));
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &in6.sin6_addr);
    struct ip mapped = ip_from_sockaddr((struct sockaddr *)&in6);
    ck_assert_mem_eq(&mapped, &v4, sizeof(v4));
    ck_assert(ip_is_v4(&mapped));
    struct ip none = ip_from_sockaddr(&(struct sockaddr){.sa_family = AF_UNIX});
    ck_assert(ip_is_none(&none));
    none = ip_from_sockaddr(NULL);
    ck_assert(ip_is_none(&none));
}
END_TEST

START_TEST(a_customer_is_an_address_or_a_64)
{
    struct ip a = ip_of("192.0.2.1"), b = ip_of("192.0.2.2"), none = {{0}};
    struct ip c = ip_of("2001:db8:0:1::1"), d = ip_of("2001:db8:0:1:ffff::2");
    struct ip e = ip_of("2001:db8:0:2::1");
    ck_assert_uint_ne(ip_customer(&a), ip_customer(&b));
    ck_assert_uint_eq(ip_customer(&c), ip_customer(&d));
    ck_assert_uint_ne(ip_customer(&c), ip_customer(&e));
    ck_assert_uint_eq(ip_customer(&none), 0);
}
END_TEST

static const struct {
    const char *range, *inside, *outside;
} ranges[] = {
    {"10.0.0.0/8", "10.255.1.2", "11.0.0.0"},  {"192.0.2.1", "192.0.2.1", "192.0.2.2"},
    {"0.0.0.0/0", "1.2.3.4", "::1"},           {"192.0.2.128/25", "192.0.2.129", "192.0.2.127"},
    {"2001:db8::/33", "2001:db8:1::", "2001:db8:8000::"}, {"::1", "::1", "::2"},
    {"::/0", "2001:db8::", ""},                {"192.0.2.1/32", "::ffff:192.0.2.1", "::1"},
};

START_TEST(a_range_has_what_it_says)
{
    struct ip_range range;
    const char *reason;
    ck_assert_int_eq(ip_range_parse(ranges[_i].range, &range, &reason), 0);
    struct ip inside = ip_of(ranges[_i].inside), none = {{0}};
    ck_assert(ip_range_has(&range, &inside));
    ck_assert(!ip_range_has(&range, &none));
    if (*ranges[_i].outside) {
        struct ip outside = ip_of(ranges[_i].outside);
        ck_assert(!ip_range_has(&range, &outside));
    }
}
END_TEST

static const char *const bad_ranges[] = {
    "", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "::1/129", "2001:db8::1/64", "10.0.0.0/-1",
    "10.0.0.0/8/8", "localhost", "10.0.0.0:80", "[::1]", "10.0.0.0/8 ",
};

START_TEST(what_is_no_range_is_refused_with_a_reason)
{
    struct ip_range range;
    const char *reason = NULL;
    ck_assert_int_eq(ip_range_parse(bad_ranges[_i], &range, &reason), -EINVAL);
    ck_assert_ptr_nonnull(reason);
}
END_TEST

/* ---- X-Forwarded-For ---- */

static const struct {
    const char *list, *client; /* "": none */
} lists[] = {
    {"198.51.100.7", "198.51.100.7"},
    {"203.0.113.9, 198.51.100.7", "198.51.100.7"}, /* the first is what the client says */
    {"198.51.100.7, 10.0.0.2, 10.0.0.3", "198.51.100.7"},
    {"198.51.100.7 ,\t[2001:db8::5]:443", "2001:db8::5"},
    {"10.0.0.9, 10.0.0.3", "10.0.0.9"}, /* all are proxies: who began */
    {"198.51.100.7, nonsense, 10.0.0.3", "10.0.0.3"},
    {"198.51.100.7,,10.0.0.3", "10.0.0.3"},
    {"nonsense", ""},
    {"198.51.100.7, unknown", ""},
    {"", ""},
    {",", ""},
};

START_TEST(the_last_address_that_is_no_proxys_is_believed)
{
    char *words[] = {(char *)(uintptr_t)"10.0.0.0/8", (char *)(uintptr_t)"unix"};
    char text[IP_TEXT_BYTES];
    struct proxies *p = proxies_new(&(struct text_list){.items = words, .count = 2});
    struct ip ip = {{0}}, proxy = ip_of("10.1.2.3"), other = ip_of("192.0.2.1");
    bool is_told = proxies_client(p, text_span_of(lists[_i].list), &ip);
    ck_assert_int_eq(is_told, *lists[_i].client != '\0');
    ck_assert_str_eq(ip_format(&ip, text), lists[_i].client);
    ck_assert(proxies_trust_unix(p));
    ck_assert(proxies_trust(p, &proxy));
    ck_assert(!proxies_trust(p, &other));
    proxies_free(p);
}
END_TEST

START_TEST(a_list_without_end_is_read_to_a_bound)
{
    struct text_buf list = {0};
    char *words[] = {(char *)(uintptr_t)"10.0.0.0/8"}, text[IP_TEXT_BYTES];
    struct proxies *p = proxies_new(&(struct text_list){.items = words, .count = 1});
    struct ip ip;
    text_adds(&list, "198.51.100.7");
    for (int i = 0; i < 1000; i++)
        text_addf(&list, ",10.0.%d.%d", i / 256, i % 256);
    ck_assert(proxies_client(p, (struct text_span){list.data, list.len}, &ip));
    ck_assert_str_eq(ip_format(&ip, text), "10.0.3.200");
    text_buf_free(&list);
    proxies_free(p);
}
END_TEST

#define COUNT(a) (int)(sizeof(a) / sizeof(*(a)))

int main(void)
{
    TCase *tc = tcase_create("ip");
    tcase_add_loop_test(tc, every_form_that_proxies_write_is_read, 0, COUNT(forms));
    tcase_add_loop_test(tc, what_is_no_address_is_refused, 0, COUNT(bad));
    tcase_add_test(tc, a_socket_tells_the_same_address_by_either_family);
    tcase_add_test(tc, a_customer_is_an_address_or_a_64);
    tcase_add_loop_test(tc, a_range_has_what_it_says, 0, COUNT(ranges));
    tcase_add_loop_test(tc, what_is_no_range_is_refused_with_a_reason, 0, COUNT(bad_ranges));
    tcase_add_loop_test(tc, the_last_address_that_is_no_proxys_is_believed, 0, COUNT(lists));
    tcase_add_test(tc, a_list_without_end_is_read_to_a_bound);
    Suite *s = suite_create("ip");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
