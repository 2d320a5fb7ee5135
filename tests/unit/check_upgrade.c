#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/inherit.h"
#include "src/pulse.h"
#include "src/upgrade.h"

/* ---- the link ---- */

#define MANY 5000 /* more than a queue of the kernel takes */

static uint32_t heard;
static bool has_ended;

static void on_message(void *data, struct ipc_message *m)
{
    (void)data;
    uint32_t n;
    ck_assert_uint_eq(m->body_len, 100);
    memcpy(&n, m->body, sizeof(n));
    ck_assert_uint_eq(n, heard);
    ck_assert_uint_eq(m->fd_count, n % 10 == 0); /* closed by the link */
    heard++;
}

static void on_end(void *data)
{
    has_ended = true;
    ev_break(data, EVBREAK_ALL);
}

START_TEST(what_the_peer_does_not_take_at_once_comes_later_in_order)
{
    struct ev_loop *loop = ev_default_loop(EVFLAG_NOENV);
    struct upgrade_link to = {.fd = -1, .on_message = on_message, .on_end = on_end};
    struct upgrade_link from = to;
    int s[2], devnull = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(ipc_pair(s), 0);
    to.data = from.data = loop;
    upgrade_link_open(&to, loop, s[0]);
    upgrade_link_open(&from, loop, s[1]);
    for (uint32_t n = 0; n < MANY; n++) {
        char body[100] = "";
        memcpy(body, &n, sizeof(n));
        ck_assert_int_eq(upgrade_link_send(&to, UPGRADE_TOTALS, body, sizeof(body), &devnull,
                                           n % 10 == 0),
                         0);
    }
    ck_assert(to.first != NULL); /* or nothing was tried */
    for (int i = 0; i < MANY && heard < MANY; i++)
        ev_run(loop, EVRUN_ONCE);
    ck_assert_uint_eq(heard, MANY);
    ck_assert_ptr_null(to.first);
    upgrade_link_close(&to);
    upgrade_link_close(&to);
    ck_assert_int_eq(upgrade_link_send(&to, UPGRADE_SENT, NULL, 0, NULL, 0), -EPIPE);
    ev_run(loop, 0);
    ck_assert(has_ended && from.fd == -1);
}
END_TEST

START_TEST(every_message_has_a_name)
{
    ck_assert_str_eq(upgrade_name(UPGRADE_SWITCH), "SWITCH");
    ck_assert_str_eq(upgrade_name(UPGRADE_TYPES), "UNKNOWN");
    ck_assert_str_eq(upgrade_name(UINT32_MAX), "UNKNOWN");
}
END_TEST

/* ---- finding the link, finding the program ---- */

START_TEST(only_a_link_of_the_right_kind_is_taken_and_its_variable_removed)
{
    char text[16];
    int s[2], other[2];
    unsetenv(UPGRADE_ENVIRONMENT);
    ck_assert_int_eq(inherit_find_link(), -1);
    static const char *const wrong[] = {"", "x", "0", "2", "9999", "-1", "3x", "99999999999999"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        setenv(UPGRADE_ENVIRONMENT, wrong[i], 1);
        ck_assert_msg(inherit_find_link() == -EINVAL, "%s", wrong[i]);
        ck_assert_ptr_null(getenv(UPGRADE_ENVIRONMENT));
    }
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    snprintf(text, sizeof(text), "%d", other[0]);
    setenv(UPGRADE_ENVIRONMENT, text, 1);
    ck_assert_int_eq(inherit_find_link(), -EINVAL);
    ck_assert_int_eq(ipc_pair(s), 0);
    fcntl(s[0], F_SETFD, 0);
    snprintf(text, sizeof(text), "%d", s[0]);
    setenv(UPGRADE_ENVIRONMENT, text, 1);
    ck_assert_int_eq(inherit_find_link(), s[0]);
    ck_assert(fcntl(s[0], F_GETFD) & FD_CLOEXEC);
    ck_assert_ptr_null(getenv(UPGRADE_ENVIRONMENT));
}
END_TEST

START_TEST(the_program_is_found_by_its_name_or_by_what_the_kernel_says)
{
    char path[64], self[PATH_MAX], out[PATH_MAX], name[80];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    ck_assert_int_gt(n, 0);
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    /* By a path, by a link that is kept as it is, by PATH, by a name that is another program's. */
    ck_assert_int_eq(upgrade_program(self, out, sizeof(out)), 0);
    ck_assert_str_eq(out, self);
    snprintf(path, sizeof(path), "/tmp/belfry-check-%ld", (long)getpid());
    ck_assert_int_eq(symlink(self, path), 0);
    ck_assert_int_eq(upgrade_program(path, out, sizeof(out)), 0);
    ck_assert_str_eq(out, path);
    ck_assert_int_eq(chdir("/tmp"), 0);
    snprintf(name, sizeof(name), "./%s", path + 5);
    ck_assert_int_eq(upgrade_program(name, out, sizeof(out)), 0);
    ck_assert_int_eq(strncmp(out, "/tmp/./", 7), 0);
    setenv("PATH", "/nowhere::/bin:/tmp", 1);
    ck_assert_int_eq(upgrade_program(path + 5, out, sizeof(out)), 0);
    ck_assert_str_eq(out, path);
    unlink(path);
    ck_assert_int_eq(upgrade_program("/bin/sh", out, sizeof(out)), 0);
    ck_assert_str_eq(out, self);
    ck_assert_int_eq(upgrade_program("no-such-program", out, sizeof(out)), 0);
    ck_assert_str_eq(out, self);
    ck_assert_int_eq(upgrade_program("/bin/sh", out, (size_t)(slash - self)), -ENAMETOOLONG);
}
END_TEST

/* ---- the pulse ---- */

START_TEST(numbers_are_written_for_people)
{
    char out[32];
    ck_assert_str_eq(pulse_number(0, out), "0");
    ck_assert_str_eq(pulse_number(999, out), "999");
    ck_assert_str_eq(pulse_number(12031, out), "12,031");
    ck_assert_str_eq(pulse_number(1000000, out), "1,000,000");
    ck_assert_str_eq(pulse_number(UINT64_MAX, out), "18,446,744,073,709,551,615");
}
END_TEST

START_TEST(the_watchdogs_time_holds_for_the_process_that_it_names)
{
    ck_assert_int_eq(pulse_watchdog_ms(NULL, NULL, 7), 0);
    ck_assert_int_eq(pulse_watchdog_ms("30000000", NULL, 7), 30000);
    ck_assert_int_eq(pulse_watchdog_ms("30000000", "7", 7), 30000);
    ck_assert_int_eq(pulse_watchdog_ms("30000000", "8", 7), 0);
    ck_assert_int_eq(pulse_watchdog_ms("30000000", "7x", 7), 0);
    ck_assert_int_eq(pulse_watchdog_ms("999", NULL, 7), 1);
    ck_assert_int_eq(pulse_watchdog_ms("0", NULL, 7), 0);
    ck_assert_int_eq(pulse_watchdog_ms("", NULL, 7), 0);
    ck_assert_int_eq(pulse_watchdog_ms("-3", NULL, 7), 0);
    ck_assert_int_eq(pulse_watchdog_ms("5s", NULL, 7), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("upgrade");
    TCase *tc = tcase_create("upgrade");
    tcase_add_test(tc, what_the_peer_does_not_take_at_once_comes_later_in_order);
    tcase_add_test(tc, every_message_has_a_name);
    tcase_add_test(tc, only_a_link_of_the_right_kind_is_taken_and_its_variable_removed);
    tcase_add_test(tc, the_program_is_found_by_its_name_or_by_what_the_kernel_says);
    tcase_add_test(tc, numbers_are_written_for_people);
    tcase_add_test(tc, the_watchdogs_time_holds_for_the_process_that_it_names);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
