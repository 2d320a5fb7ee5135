#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/options.h"
#include "tests/unit/options_fixture.h"

static int check(void)
{
    text_buf_reset(&errors);
    text_buf_reset(&warnings);
    int rc = options_check(o, report, folder);
    ck_assert((rc == 0) == (errors.len == 0));
    return rc;
}

static char secret_argument[100];

/* --jwt-secret-file=... of a good secret */
static const char *secret(void)
{
    write_bytes(in_folder("secret"), "0123456789abcdef0123456789abcdef\n", 33);
    snprintf(secret_argument, sizeof(secret_argument), "--jwt-secret-file=%s", in_folder("secret"));
    return secret_argument;
}

START_TEST(a_secret_is_all_that_a_default_configuration_lacks)
{
    ck_assert_int_eq(load(), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "jwt-algorithms: there is no key to check tokens with: give "
                         "jwt-secret-file, or jwt-jwks-file\n");
    ck_assert_int_eq(load(secret()), 0);
    ck_assert_int_eq(check(), 0);
    assert_text(&warnings, "");
    ck_assert_int_eq(load("--dev"), 0);
    ck_assert_int_eq(check(), 0);
    assert_text(&warnings, "");
}
END_TEST

START_TEST(keys_and_algorithms_must_meet)
{
    char public_argument[100];
    write_bytes(in_folder("public"), "key", 3);
    snprintf(public_argument, sizeof(public_argument), "--jwt-public-key-file=%s",
             in_folder("public"));
    ck_assert_int_eq(load("--jwt-algorithms=RS256", secret()), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "--jwt-algorithms: there is no key to check tokens with: give "
                          "jwt-public-key-file, or jwt-jwks-file\n");
    assert_holds(&warnings, "--jwt-secret-file: not used");
    ck_assert_int_eq(load("--jwt-algorithms=RS256", "--dev"), 0);
    ck_assert_int_eq(check(), -EINVAL); /* dev makes a secret, which RS256 does not use */
    ck_assert_int_eq(load("--jwt-algorithms=RS256,HS256", secret()), 0);
    ck_assert_int_eq(check(), 0);
    assert_holds(&warnings, "all but HS tokens will be refused");
    ck_assert_int_eq(load("--jwt-algorithms=ES256", public_argument), 0);
    ck_assert_int_eq(check(), 0);
    assert_text(&warnings, "");
    ck_assert_int_eq(load(public_argument, secret()), 0);
    ck_assert_int_eq(check(), 0);
    assert_text(&warnings, "--jwt-public-key-file: not used: jwt-algorithms has HS algorithms "
                           "only\n");
    ck_assert_int_eq(load("--jwt-algorithms=RS256,HS256", public_argument), 0);
    ck_assert_int_eq(check(), 0);
    assert_holds(&warnings, "HS tokens will be refused");
}
END_TEST

START_TEST(secret_files_are_looked_at)
{
    const char *argument = secret();
    ck_assert_int_eq(load(argument), 0);
    chmod(in_folder("secret"), 0644);
    ck_assert_int_eq(check(), 0);
    assert_holds(&warnings, "can be read by every user");
    unlink(in_folder("secret"));
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "secret\" cannot be read: No such file or directory\n");
    ck_assert_int_eq(mkdir(in_folder("secret"), 0700), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "is a directory");
    rmdir(in_folder("secret"));
    ck_assert_int_eq(mkfifo(in_folder("secret"), 0600), 0);
    ck_assert_int_eq(check(), -EINVAL); /* and does not wait for a writer */
    assert_holds(&errors, "is not a regular file");
}
END_TEST

START_TEST(places_of_files_are_looked_at)
{
    char log[120], pid[120];
    snprintf(log, sizeof(log), "--log-target=file:%s", in_folder("none/log"));
    snprintf(pid, sizeof(pid), "--pid-file=%s", in_folder("none/pid"));
    ck_assert_int_eq(load(secret(), log), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "--log-target: the directory of \"");
    assert_holds(&errors, "none/log\": No such file or directory\n");
    write_bytes(in_folder("none"), "", 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "none/log\": Not a directory\n");
    unlink(in_folder("none"));
    ck_assert_int_eq(load(secret(), pid, "--control-socket=/nowhere/c", "--listen=unix:/nowhere/l"),
                     0);
    ck_assert_int_eq(check(), 0); /* who starts belfryd may make them */
    assert_holds(&warnings, "--pid-file: the directory of \"");
    assert_holds(&warnings, "--control-socket: the directory of \"/nowhere/c\": ");
    assert_holds(&warnings, "--listen: the directory of \"/nowhere/l\": ");
    ck_assert_int_eq(mkdir(in_folder("none"), 0700), 0);
    ck_assert_int_eq(load(secret(), log, pid), 0);
    ck_assert_int_eq(check(), 0);
    assert_text(&warnings, "");
    ck_assert_int_eq(mkdir(in_folder("none/log"), 0700), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "none/log\" is a directory\n");
    rmdir(in_folder("none/log"));
    rmdir(in_folder("none"));
}
END_TEST

START_TEST(certificate_and_key_come_together)
{
    char certificate[100], key[100];
    write_bytes(in_folder("c"), "x", 1);
    snprintf(certificate, sizeof(certificate), "--tls-certificate=%s", in_folder("c"));
    snprintf(key, sizeof(key), "--tls-key=%s", in_folder("c"));
    ck_assert_int_eq(load(secret(), certificate), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--tls-certificate: tls-key is needed with it\n");
    ck_assert_int_eq(load(secret(), key), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--tls-key: tls-certificate is needed with it\n");
    ck_assert_int_eq(load(secret(), key, certificate), 0);
    ck_assert_int_eq(check(), 0);
}
END_TEST

START_TEST(dev_and_echo_need_local_addresses)
{
    ck_assert_int_eq(load("--dev", "--listen=0.0.0.0:1"), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--listen: \"0.0.0.0:1\" is not a loopback address, which dev needs\n");
    ck_assert_int_eq(load("--dev", "--metrics-listen=*:1"), 0);
    ck_assert_int_eq(check(), -EINVAL);
    ck_assert_int_eq(load("--dev", "--listen=unix:/x,[::1]:2,127.0.0.1:0"), 0);
    ck_assert_int_eq(check(), 0);
    ck_assert_int_eq(load(secret(), "--echo", "--listen=*:1"), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--listen: \"*:1\" is not a loopback address, which echo needs\n");
    ck_assert_int_eq(load(secret(), "--echo", "--listen=unix:/x", "--metrics-listen=*:1"), 0);
    ck_assert_int_eq(check(), 0);
}
END_TEST

START_TEST(addresses_must_not_clash)
{
    ck_assert_int_eq(load(secret(), "--listen=*:1,0.0.0.0:1"), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--listen: \"0.0.0.0:1\" is given twice\n");
    ck_assert_int_eq(load(secret(), "--listen=*:0,*:0"), 0);
    ck_assert_int_eq(check(), 0);
    ck_assert_int_eq(load(secret(), "--metrics-listen=localhost:8000"), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--metrics-listen: \"127.0.0.1:8000\" is an address of listen already\n");
}
END_TEST

START_TEST(users_and_groups_must_be_there)
{
    ck_assert_int_eq(load(secret(), "--user=root", "--group=root"), 0);
    ck_assert_int_eq(check(), 0);
    ck_assert_int_eq(load(secret(), "--user=no\"body", "--group=no-such-group"), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_text(&errors, "--user: there is no user \"no\\\"body\"\n"
                         "--group: there is no group \"no-such-group\"\n");
}
END_TEST

START_TEST(names_in_redis_must_not_clash)
{
    static const char *const bad[] = {"n:{user_id}", "n:read:{user_id}", "n:acked:{user_id}"};
    for (size_t i = 0; i < 3; i++) {
        char argument[80];
        snprintf(argument, sizeof(argument), "--snapshot-key=%s", bad[i]);
        ck_assert_int_eq(load(secret(), "--notifications-key=n:{user_id}", argument), 0);
        ck_assert_int_eq(check(), -EINVAL);
        assert_holds(&errors, "--snapshot-key: is also the name");
    }
    ck_assert_int_eq(load(secret(), "--user-channel=ws:{user_id}"), 0);
    ck_assert_int_eq(check(), 0);
    assert_text(&warnings, "broadcast-channel: \"ws:broadcast\" is also the channel of one user\n");
}
END_TEST

START_TEST(sizes_and_times_that_do_not_fit_are_warnings)
{
    ck_assert_int_eq(load(secret(), "--ping-interval=5s", "--history-size=10",
                          "--redis-command-timeout=1m"),
                     0);
    ck_assert_int_eq(check(), 0);
    assert_holds(&warnings, "pong-timeout: is longer than ping-interval");
    assert_holds(&warnings, "replay-limit: is more than history-size");
    assert_holds(&warnings, "--redis-command-timeout: is longer than three times");
}
END_TEST

START_TEST(reports_of_the_check_name_where_the_value_came_from)
{
    char *environment[] = {(char[]){"BELFRY_JWT_SECRET_FILE=/nonexistent"}, NULL};
    write_file("\nuser = no-such-user\n");
    ck_assert_int_eq(load_words(environment, false, "--tls-key=/nonexistent", NULL), 0);
    ck_assert_int_eq(check(), -EINVAL);
    assert_holds(&errors, "b.conf:2: user: there is no user");
    assert_holds(&errors, "BELFRY_JWT_SECRET_FILE: \"/nonexistent\" cannot be read");
    assert_holds(&errors, "--tls-key: \"/nonexistent\" cannot be read");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("options_check");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, a_secret_is_all_that_a_default_configuration_lacks);
    tcase_add_test(tc, keys_and_algorithms_must_meet);
    tcase_add_test(tc, secret_files_are_looked_at);
    tcase_add_test(tc, places_of_files_are_looked_at);
    tcase_add_test(tc, certificate_and_key_come_together);
    tcase_add_test(tc, dev_and_echo_need_local_addresses);
    tcase_add_test(tc, addresses_must_not_clash);
    tcase_add_test(tc, users_and_groups_must_be_there);
    tcase_add_test(tc, names_in_redis_must_not_clash);
    tcase_add_test(tc, sizes_and_times_that_do_not_fit_are_warnings);
    tcase_add_test(tc, reports_of_the_check_name_where_the_value_came_from);
    Suite *s = suite_create("options_check");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
