#include "config.h"

#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/address.h"

static struct address parsed(const char *text)
{
    struct address a;
    const char *reason = NULL;
    ck_assert_msg(address_parse(text, &a, &reason) == 0, "%s: %s", text, reason);
    return a;
}

START_TEST(every_form_is_read_and_written_back)
{
    static const char *const same[] = {"127.0.0.1:8000", "0.0.0.0:0",        "[::1]:8000",
                                       "[::]:1",         "[fe80::1]:65535",  "*:8000",
                                       "unix:/run/x",    "unix:relative.sock"};
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
        struct address a = parsed(same[i]);
        char out[ADDRESS_TEXT_BYTES];
        address_format(&a, out);
        ck_assert_str_eq(out, same[i]);
    }
    struct address a = parsed("localhost:80");
    char out[ADDRESS_TEXT_BYTES];
    address_format(&a, out);
    ck_assert_str_eq(out, "127.0.0.1:80");
    a = parsed("[0:0:0:0:0:0:0:1]:80");
    address_format(&a, out);
    ck_assert_str_eq(out, "[::1]:80");
}
END_TEST

START_TEST(parts_are_told)
{
    struct address a = parsed("127.0.0.1:8000");
    ck_assert(!a.is_unix && !a.is_dual);
    ck_assert_uint_eq(a.port, 8000);
    ck_assert_int_eq(a.storage.ss_family, AF_INET);
    ck_assert_uint_eq(a.len, sizeof(struct sockaddr_in));
    a = parsed("*:8000");
    ck_assert(a.is_dual);
    ck_assert_int_eq(a.storage.ss_family, AF_INET6);
    a = parsed("[::]:8000");
    ck_assert(!a.is_dual);
    a = parsed("unix:/run/x.sock");
    ck_assert(a.is_unix);
    ck_assert_str_eq(a.path, "/run/x.sock");
    ck_assert_int_eq(a.storage.ss_family, AF_UNIX);
    ck_assert_str_eq(((struct sockaddr_un *)(void *)&a.storage)->sun_path, "/run/x.sock");
}
END_TEST

START_TEST(what_is_no_address_is_refused_with_a_reason)
{
    static const char *const bad[] = {
        "",           ":",          ":8000",        "8000",        "127.0.0.1",   "127.0.0.1:",
        "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:99999999999999999999",
        "256.0.0.1:1", "127.1:80",  "1.2.3.4.5:1",  "example.org:80", "::1:8000", "[::1]",
        "[::1]8000",  "[::1",       "[::1]:",       "[]:80",       "[127.0.0.1]:80",
        "[fe80::1%eth0]:80", "[1:2:3:4:5:6:7:8:9]:80", "*",        "*:",          "**:80",
        "127.0.0.1:80 ", " 127.0.0.1:80", "unix:", "UNIX:/x", "tcp://127.0.0.1:80",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct address a = {.port = 7};
        const char *reason = NULL;
        ck_assert_msg(address_parse(bad[i], &a, &reason) == -EINVAL, "%s", bad[i]);
        ck_assert(reason && *reason);
        ck_assert_uint_eq(a.port, 7);
    }
}
END_TEST

START_TEST(a_unix_path_has_room_for_107_bytes)
{
    char text[5 + ADDRESS_PATH_BYTES + 1] = "unix:", out[ADDRESS_TEXT_BYTES];
    const char *reason;
    struct address a;
    memset(text + 5, 'p', ADDRESS_PATH_BYTES);
    ck_assert_int_eq(address_parse(text, &a, &reason), -EINVAL);
    text[5 + ADDRESS_PATH_BYTES - 1] = '\0';
    ck_assert_int_eq(address_parse(text, &a, &reason), 0);
    address_format(&a, out);
    ck_assert_str_eq(out, text);
}
END_TEST

START_TEST(an_address_cut_short_is_read_within_its_end)
{
    static const char *const whole[] = {"127.0.0.1:8000", "[fd00::1]:8000", "*:8000",
                                        "unix:/run/x"};
    for (size_t i = 0; i < sizeof(whole) / sizeof(*whole); i++)
        for (size_t len = 0; len <= strlen(whole[i]); len++) {
            char *copy = malloc(len + 1);
            struct address a;
            const char *reason;
            memcpy(copy, whole[i], len);
            copy[len] = '\0';
            int rc = address_parse(copy, &a, &reason);
            ck_assert(rc == 0 || rc == -EINVAL);
            ck_assert(len < strlen(whole[i]) || rc == 0);
            free(copy);
        }
}
END_TEST

START_TEST(local_addresses_are_known)
{
    static const char *const local[] = {"127.0.0.1:1", "127.9.8.7:1", "[::1]:1",
                                        "[::ffff:127.0.0.1]:1", "unix:/x", "localhost:1"};
    static const char *const remote[] = {"0.0.0.0:1", "*:1",     "[::]:1",
                                         "10.0.0.1:1", "[fd00::1]:1", "[::ffff:10.0.0.1]:1",
                                         "128.0.0.1:1"};
    for (size_t i = 0; i < sizeof(local) / sizeof(*local); i++) {
        struct address a = parsed(local[i]);
        ck_assert_msg(address_is_local(&a), "%s", local[i]);
    }
    for (size_t i = 0; i < sizeof(remote) / sizeof(*remote); i++) {
        struct address a = parsed(remote[i]);
        ck_assert_msg(!address_is_local(&a), "%s", remote[i]);
    }
}
END_TEST

static bool equal(const char *x, const char *y)
{
    struct address a = parsed(x), b = parsed(y);
    ck_assert(address_equal(&a, &b) == address_equal(&b, &a));
    return address_equal(&a, &b);
}

START_TEST(equal_addresses_are_known)
{
    ck_assert(equal("127.0.0.1:80", "localhost:80"));
    ck_assert(equal("[::1]:80", "[0::1]:80"));
    ck_assert(equal("unix:/a", "unix:/a"));
    ck_assert(equal("*:80", "*:80"));
    ck_assert(equal("*:80", "0.0.0.0:80"));
    ck_assert(equal("*:80", "[::]:80"));
    ck_assert(!equal("*:80", "127.0.0.1:80"));
    ck_assert(!equal("127.0.0.1:0", "127.0.0.1:0"));
    ck_assert(!equal("127.0.0.1:80", "127.0.0.1:81"));
    ck_assert(!equal("127.0.0.1:80", "127.0.0.2:80"));
    ck_assert(!equal("127.0.0.1:80", "[::1]:80"));
    ck_assert(!equal("unix:/a", "unix:/b"));
    ck_assert(!equal("unix:/a", "127.0.0.1:80"));
}
END_TEST

START_TEST(a_parsed_address_can_be_bound_and_the_kernels_answer_read)
{
    struct address a = parsed("127.0.0.1:0"), b;
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_ge(s, 0);
    ck_assert_int_eq(bind(s, (struct sockaddr *)&a.storage, a.len), 0);
    ck_assert_int_eq(getsockname(s, (struct sockaddr *)&sa, &len), 0);
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, len, &b), 0);
    ck_assert_uint_ne(b.port, 0);
    char out[ADDRESS_TEXT_BYTES], expected[ADDRESS_TEXT_BYTES];
    address_format(&b, out);
    snprintf(expected, sizeof(expected), "127.0.0.1:%u", b.port);
    ck_assert_str_eq(out, expected);
    close(s);

    char path[] = "/tmp/check_address_XXXXXX", text[64];
    ck_assert(mkdtemp(path));
    snprintf(text, sizeof(text), "unix:%s/s", path);
    a = parsed(text);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(s, (struct sockaddr *)&a.storage, a.len), 0);
    len = sizeof(sa);
    ck_assert_int_eq(getsockname(s, (struct sockaddr *)&sa, &len), 0);
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, len, &b), 0);
    ck_assert_str_eq(b.path, a.path);
    ck_assert(address_equal(&a, &b));
    close(s);
    unlink(a.path);
    rmdir(path);
}
END_TEST

START_TEST(other_families_and_short_addresses_are_refused)
{
    struct sockaddr_storage sa = {.ss_family = AF_INET6};
    struct address a;
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, sizeof(struct sockaddr_in6), &a),
                     0);
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, 8, &a), -EAFNOSUPPORT);
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, 0, &a), -EAFNOSUPPORT);
    sa.ss_family = AF_UNIX; /* a client's socket has no name */
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, 2, &a), 0);
    ck_assert_str_eq(a.path, "");
    sa.ss_family = AF_PACKET;
    ck_assert_int_eq(address_from_sockaddr((struct sockaddr *)&sa, 20, &a), -EAFNOSUPPORT);
    address_any_v4(80, &a);
    char out[ADDRESS_TEXT_BYTES];
    address_format(&a, out);
    ck_assert_str_eq(out, "0.0.0.0:80");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("address");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, every_form_is_read_and_written_back);
    tcase_add_test(tc, parts_are_told);
    tcase_add_test(tc, what_is_no_address_is_refused_with_a_reason);
    tcase_add_test(tc, a_unix_path_has_room_for_107_bytes);
    tcase_add_test(tc, an_address_cut_short_is_read_within_its_end);
    tcase_add_test(tc, local_addresses_are_known);
    tcase_add_test(tc, equal_addresses_are_known);
    tcase_add_test(tc, a_parsed_address_can_be_bound_and_the_kernels_answer_read);
    tcase_add_test(tc, other_families_and_short_addresses_are_refused);
    Suite *s = suite_create("address");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
