#include "config.h"

#include <check.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/notify.h"

/* A service manager's end, bound to the name and told to the environment. */
static int listen_as(const char *name)
{
    struct sockaddr_un at;
    socklen_t len;
    ck_assert_int_eq(notify_address(name, &at, &len), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&at, len), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static const char *received(int fd)
{
    static char text[1024];
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    return text;
}

START_TEST(a_path_keeps_its_nul_and_an_abstract_name_has_none)
{
    struct sockaddr_un at;
    socklen_t len;
    size_t head = offsetof(struct sockaddr_un, sun_path);
    ck_assert_int_eq(notify_address("/run/x", &at, &len), 0);
    ck_assert_str_eq(at.sun_path, "/run/x");
    ck_assert_uint_eq(len, head + 7);
    ck_assert_int_eq(notify_address("@belfry", &at, &len), 0);
    ck_assert_int_eq(memcmp(at.sun_path, "\0belfry", 7), 0);
    ck_assert_uint_eq(len, head + 7);
}
END_TEST

START_TEST(other_names_and_names_that_do_not_fit_are_refused)
{
    struct sockaddr_un at;
    socklen_t len;
    char name[sizeof(at.sun_path) + 2];
    ck_assert_int_eq(notify_address("", &at, &len), -EAFNOSUPPORT);
    ck_assert_int_eq(notify_address("/", &at, &len), -EAFNOSUPPORT);
    ck_assert_int_eq(notify_address("vsock:2:1", &at, &len), -EAFNOSUPPORT);
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    name[0] = '/';
    ck_assert_int_eq(notify_address(name, &at, &len), -ENAMETOOLONG);
    name[sizeof(at.sun_path)] = '\0'; /* fills sun_path: fits only where no NUL is needed */
    ck_assert_int_eq(notify_address(name, &at, &len), -ENAMETOOLONG);
    name[0] = '@';
    ck_assert_int_eq(notify_address(name, &at, &len), 0);
}
END_TEST

START_TEST(nothing_is_sent_where_nobody_asked)
{
    unsetenv("NOTIFY_SOCKET");
    ck_assert_int_eq(notify_send("READY=1"), 0);
    setenv("NOTIFY_SOCKET", "", 1);
    ck_assert_int_eq(notify_send("READY=1"), 0);
    setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
    ck_assert_int_lt(notify_send("READY=1"), 0);
}
END_TEST

START_TEST(readiness_names_the_master_and_a_status)
{
    char name[64], expected[128];
    snprintf(name, sizeof(name), "@belfry-check-%ld", (long)getpid());
    int fd = listen_as(name);
    notify_ready("serving");
    snprintf(expected, sizeof(expected), "READY=1\nMAINPID=%ld\nSTATUS=serving", (long)getpid());
    ck_assert_str_eq(received(fd), expected);
    notify_ready(NULL);
    snprintf(expected, sizeof(expected), "READY=1\nMAINPID=%ld", (long)getpid());
    ck_assert_str_eq(received(fd), expected);
    close(fd);
}
END_TEST

START_TEST(reloading_tells_the_monotonic_time_and_stopping_follows)
{
    char name[64] = "/tmp/belfry-check-notify-XXXXXX", path[96];
    ck_assert_ptr_nonnull(mkdtemp(name));
    snprintf(path, sizeof(path), "%s/notify", name);
    int fd = listen_as(path);
    notify_reloading();
    long long us = 0;
    ck_assert_int_eq(sscanf(received(fd), "RELOADING=1\nMONOTONIC_USEC=%lld", &us), 1);
    ck_assert_int_gt(us, 0);
    notify_stopping("draining");
    ck_assert_str_eq(received(fd), "STOPPING=1\nSTATUS=draining");
    close(fd);
    unlink(path);
    rmdir(name);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("notify");
    TCase *t = tcase_create("datagrams");
    tcase_add_test(t, a_path_keeps_its_nul_and_an_abstract_name_has_none);
    tcase_add_test(t, other_names_and_names_that_do_not_fit_are_refused);
    tcase_add_test(t, nothing_is_sent_where_nobody_asked);
    tcase_add_test(t, readiness_names_the_master_and_a_status);
    tcase_add_test(t, reloading_tells_the_monotonic_time_and_stopping_follows);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
