#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/redisurl.h"

static struct redisurl parsed(const char *url)
{
    struct redisurl u;
    const char *reason = NULL;
    memset(&u, 'x', sizeof(u));
    ck_assert_msg(redisurl_parse(url, &u, &reason) == 0, "%s: %s", url, reason);
    return u;
}

static void assert_tcp(const char *url, const char *host, int port, int db)
{
    struct redisurl u = parsed(url);
    ck_assert(!u.is_unix && !u.is_embedded && !u.is_tls);
    ck_assert_str_eq(u.host, host);
    ck_assert_int_eq(u.port, port);
    ck_assert_int_eq(u.db, db);
    ck_assert_str_eq(u.user, "");
    ck_assert_str_eq(u.password, "");
}

START_TEST(tcp_urls_are_read)
{
    assert_tcp("redis://127.0.0.1:6379/0", "127.0.0.1", 6379, 0);
    assert_tcp("redis://cache.example.org", "cache.example.org", 6379, 0);
    assert_tcp("redis://h/", "h", 6379, 0);
    assert_tcp("redis://h/12", "h", 6379, 12);
    assert_tcp("redis://h:1/3", "h", 1, 3);
    assert_tcp("redis://h?db=3", "h", 6379, 3);
    assert_tcp("redis://h:65535/?db=3", "h", 65535, 3);
    assert_tcp("redis://[::1]", "::1", 6379, 0);
    assert_tcp("redis://[fd00::7]:7000/2", "fd00::7", 7000, 2);
}
END_TEST

START_TEST(credentials_are_decoded)
{
    struct redisurl u = parsed("redis://us%40er:p%3A%2F%25:w@h:7/2");
    ck_assert_str_eq(u.user, "us@er");
    ck_assert_str_eq(u.password, "p:/%:w");
    ck_assert_str_eq(u.host, "h");
    u = parsed("redis://:se@cret@h");
    ck_assert_str_eq(u.user, "");
    ck_assert_str_eq(u.password, "se@cret");
    u = parsed("redis://:a+b@h");
    ck_assert_str_eq(u.password, "a+b");
    u = parsed("redis://:@h");
    ck_assert_str_eq(u.password, "");
    u = parsed("redis://:p@[::1]:9/1");
    ck_assert_str_eq(u.host, "::1");
    ck_assert_str_eq(u.password, "p");
    ck_assert_int_eq(u.port, 9);
}
END_TEST

START_TEST(unix_urls_are_read)
{
    struct redisurl u = parsed("unix:///run/redis/redis.sock");
    ck_assert(u.is_unix);
    ck_assert_str_eq(u.host, "/run/redis/redis.sock");
    ck_assert_int_eq(u.db, 0);
    u = parsed("unix:///run/a%20b.sock?db=4");
    ck_assert_str_eq(u.host, "/run/a b.sock");
    ck_assert_int_eq(u.db, 4);
    u = parsed("unix://me:pw@/run/r.sock");
    ck_assert_str_eq(u.host, "/run/r.sock");
    ck_assert_str_eq(u.user, "me");
    ck_assert_str_eq(u.password, "pw");
}
END_TEST

START_TEST(embedded_is_a_word_of_its_own)
{
    struct redisurl u = parsed("embedded");
    ck_assert(u.is_embedded && !u.is_unix);
    const char *reason;
    ck_assert_int_eq(redisurl_parse("embedded/1", &u, &reason), -EINVAL);
}
END_TEST

START_TEST(tls_is_read_only_where_it_is_built_in)
{
    struct redisurl u;
    const char *reason = NULL;
    int rc = redisurl_parse("rediss://h", &u, &reason);
#ifdef HAVE_HIREDIS_SSL
    ck_assert_int_eq(rc, 0);
    ck_assert(u.is_tls);
    ck_assert_int_eq(u.port, 6379);
#else
    ck_assert_int_eq(rc, -EINVAL);
    ck_assert(strstr(reason, "hiredis_ssl"));
#endif
}
END_TEST

START_TEST(malformed_urls_are_refused_without_showing_them)
{
    static const char *const bad[] = {
        "",
        "redis",
        "redis:",
        "redis:/",
        "redis://",
        "redis:///0",
        "redis://:6379",
        "http://sesame",
        "REDIS://sesame",
        "redis://h:0",
        "redis://h:65536",
        "redis://h:99999999999999999999",
        "redis://h:",
        "redis://h:x",
        "redis://h:-1",
        "redis://::1",
        "redis://[::1",
        "redis://[::1]x",
        "redis://[]",
        "redis://h/x",
        "redis://h/-1",
        "redis://h/1/2",
        "redis://h/99999999999999999999",
        "redis://h/1?sesame=2",
        "redis://h?db=",
        "redis://h?db=x",
        "redis://h?db=1&x",
        "redis://sesame@h",
        "redis://user:@h",
        "redis://:sesame%@h",
        "redis://:sesame%zz@h",
        "redis://:sesame%00@h",
        "redis://:sesame @h",
        "redis://:sesame\n@h",
        "unix://",
        "unix:///",
        "unix://host/path",
        "unix://run/redis.sock",
        "unix://sesame@/run/redis.sock",
        "unix:///run/redis.sock?x=1",
        "unix:///run/%00",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct redisurl u = {.port = -7};
        const char *reason = NULL;
        ck_assert_msg(redisurl_parse(bad[i], &u, &reason) == -EINVAL, "%s", bad[i]);
        ck_assert(reason && *reason && !strstr(reason, "sesame"));
        ck_assert_int_eq(u.port, -7);
    }
}
END_TEST

START_TEST(parts_that_are_too_long_are_refused)
{
    char url[2048], part[1024];
    struct redisurl u;
    const char *reason;
    static const struct {
        const char *format;
        size_t fits;
    } cases[] = {{"redis://%s", 255},
                 {"redis://%s:p@h", 127},
                 {"redis://:%s@h", 511},
                 {"unix:///%s", 106}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        memset(part, 'a', cases[i].fits + 1);
        part[cases[i].fits + 1] = '\0';
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(url, sizeof(url), cases[i].format, part);
        ck_assert_msg(redisurl_parse(url, &u, &reason) == -EINVAL, "%s", cases[i].format);
        snprintf(url, sizeof(url), cases[i].format, part + 1);
#pragma GCC diagnostic pop
        ck_assert_msg(redisurl_parse(url, &u, &reason) == 0, "%s", cases[i].format);
    }
}
END_TEST

START_TEST(a_url_cut_short_is_read_within_its_end)
{
    static const char *const whole[] = {"redis://us%41er:p%2Fw@[fd00::1]:7000/12?db=3",
                                        "unix://me:pw@/run/redis.sock?db=4"};
    for (size_t i = 0; i < 2; i++)
        for (size_t len = 0; len <= strlen(whole[i]); len++) {
            char *copy = malloc(len + 1); /* exact, for the sanitizer */
            struct redisurl u;
            const char *reason;
            memcpy(copy, whole[i], len);
            copy[len] = '\0';
            int rc = redisurl_parse(copy, &u, &reason);
            ck_assert(rc == 0 || rc == -EINVAL);
            ck_assert(len < strlen(whole[i]) || rc == 0);
            free(copy);
        }
}
END_TEST

START_TEST(descriptions_hold_no_credentials)
{
    static const char *const pairs[][2] = {
        {"redis://user:pw@h:7/2", "redis://h:7/2"},
        {"redis://:pw@[::1]", "redis://[::1]:6379/0"},
        {"unix://user:pw@/run/r.sock", "unix:///run/r.sock"},
        {"unix:///run/r.sock?db=3", "unix:///run/r.sock?db=3"},
        {"embedded", "embedded"},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        struct redisurl u = parsed(pairs[i][0]);
        char out[400], small[8];
        redisurl_describe(&u, out, sizeof(out));
        ck_assert_str_eq(out, pairs[i][1]);
        redisurl_describe(&u, small, sizeof(small));
        ck_assert_uint_eq(strlen(small), 7);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("redisurl");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, tcp_urls_are_read);
    tcase_add_test(tc, credentials_are_decoded);
    tcase_add_test(tc, unix_urls_are_read);
    tcase_add_test(tc, embedded_is_a_word_of_its_own);
    tcase_add_test(tc, tls_is_read_only_where_it_is_built_in);
    tcase_add_test(tc, malformed_urls_are_refused_without_showing_them);
    tcase_add_test(tc, parts_that_are_too_long_are_refused);
    tcase_add_test(tc, a_url_cut_short_is_read_within_its_end);
    tcase_add_test(tc, descriptions_hold_no_credentials);
    Suite *s = suite_create("redisurl");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
