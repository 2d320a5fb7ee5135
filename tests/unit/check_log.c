#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared/log.h"

static char folder[32];
static char path[64];
static time_t monotonic_ahead_s;

/* In the place of the C library's, so that ten seconds pass when a test says so. */
int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (!rc && id == CLOCK_MONOTONIC)
        t->tv_sec += monotonic_ahead_s;
    return rc;
}

static void make_folder(void)
{
    strcpy(folder, "/tmp/check_log_XXXXXX");
    ck_assert(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/log", folder);
}

static void remove_folder(void)
{
    char old[80];
    snprintf(old, sizeof(old), "%s.1", path);
    unlink(old);
    unlink(path);
    rmdir(folder);
}

static void open_log(enum log_level level, enum log_format format)
{
    ck_assert_int_eq(log_open(path, level, format), 0);
    log_set_role("w3");
}

/* Everything in a file, NUL-terminated; valid until the next call. */
static char *content(const char *name)
{
    static char text[200000];
    FILE *f = fopen(name, "r");
    ck_assert(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    return text;
}

static int lines(const char *text)
{
    int n = 0;
    for (; (text = strchr(text, '\n')); text++)
        n++;
    return n;
}

/* The line behind its time, which has a known form. */
static const char *after_time(const char *line)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ ";
    for (size_t i = 0; form[i]; i++) {
        if (form[i] == 'd')
            ck_assert(line[i] >= '0' && line[i] <= '9');
        else
            ck_assert_int_eq(line[i], form[i]);
    }
    return line + sizeof(form) - 1;
}

START_TEST(a_line_has_time_level_process_event_and_pairs)
{
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("worker-ready", "slot", LOG_INT(3), "pid", LOG_INT(-77));
    ck_assert_str_eq(after_time(content(path)), "info w3 worker-ready slot=3 pid=-77\n");
    log_error("alone");
    ck_assert_str_eq(after_time(strchr(content(path), '\n') + 1), "error w3 alone\n");
}
END_TEST

START_TEST(values_that_need_it_are_quoted_and_escaped)
{
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("e", "a", "", "b", "x y", "c", "q\"\\", "d", "1\n2", "e", "k=v", "f", "\xc3\xa9", "g",
             "plain-1.2:/[x]", "h", (char *)NULL);
    ck_assert_str_eq(after_time(content(path)),
                     "info w3 e a=\"\" b=\"x y\" c=\"q\\\"\\\\\" d=\"1\\x0a2\" e=\"k=v\" "
                     "f=\"\\xc3\\xa9\" g=plain-1.2:/[x] h=\"\"\n");
}
END_TEST

START_TEST(json_lines_are_one_object_each)
{
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_warning("e", "s", "a\"b\nc\xff\xc3\xa9");
    char *text = content(path);
    ck_assert_int_eq(strncmp(text, "{\"ts\":\"2", 8), 0);
    ck_assert_str_eq(strchr(text, 'Z'),
                     "Z\",\"level\":\"warning\",\"process\":\"w3\",\"event\":\"e\","
                     "\"s\":\"a\\\"b\\nc\xef\xbf\xbd\xc3\xa9\"}\n");
}
END_TEST

START_TEST(json_has_the_types_of_the_call_not_of_the_text)
{
    char yes[] = "yes";
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_info("e", "id", "42", "n", LOG_INT(-5), "b", LOG_BOOL(4), "name", yes, "c", LOG_BOOL(0),
             "like", "int", "max", LOG_INT(INT64_MAX), "min",
             LOG_INT(INT64_MIN), "none", (char *)NULL);
    log_info("e", LOG_ENDED(SIGSEGV), "s", "true");
    log_info("e", LOG_ENDED(3 << 8));
    char *text = content(path);
    ck_assert(strstr(text, "\"e\",\"id\":\"42\",\"n\":-5,\"b\":true,\"name\":\"yes\",\"c\":false,"
                           "\"like\":\"int\",\"max\":9223372036854775807,"
                           "\"min\":-9223372036854775808,\"none\":\"\"}\n"));
    ck_assert(strstr(text, "\"e\",\"signal\":\"SEGV\",\"s\":\"true\"}\n"));
    ck_assert(strstr(text, "\"e\",\"status\":3}\n"));
}
END_TEST

START_TEST(text_has_yes_and_no_and_how_a_process_ended)
{
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("e", "a", LOG_BOOL(true), "b", LOG_BOOL(false), LOG_ENDED(SIGKILL), LOG_ENDED(0));
    log_info("e", LOG_ENDED(SIGRTMIN));
    ck_assert(strstr(content(path), " e a=yes b=no signal=KILL status=0\n"));
    ck_assert(strstr(content(path), " e signal=real-time\n"));
}
END_TEST

START_TEST(levels_below_the_configured_one_are_silent)
{
    open_log(LOG_LEVEL_WARNING, LOG_FORMAT_TEXT);
    ck_assert(log_enabled(LOG_LEVEL_ERROR) && log_enabled(LOG_LEVEL_WARNING));
    ck_assert(!log_enabled(LOG_LEVEL_NOTICE) && !log_enabled(LOG_LEVEL_DEBUG));
    log_error("e1");
    log_warning("e2");
    log_notice("e3");
    log_info("e4");
    log_debug("e5");
    ck_assert_int_eq(lines(content(path)), 2);
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("e6", "k", "v");
    ck_assert(strstr(content(path), " debug w3 e6 k=v\n"));
}
END_TEST

START_TEST(a_long_value_is_cut_and_a_long_line_says_so)
{
    char value[5000];
    memset(value, 'v', sizeof(value));
    value[sizeof(value) - 1] = '\0';
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("one", "k", value, "after", "x");
    char *text = content(path);
    ck_assert(strlen(text) < 700);
    ck_assert(strstr(text, "vvv... after=x\n"));
    memset(value, '\n', sizeof(value) - 1); /* four characters each */
    log_info("two", "a", value, "b", value, "c", value);
    text = strchr(content(path), '\n') + 1;
    ck_assert_int_eq(lines(text), 1);
    ck_assert_uint_le(strlen(text), 4096);
    ck_assert(strstr(text, " truncated=yes\n"));
    ck_assert(strstr(text, " a=") && !strstr(text, " b="));
}
END_TEST

START_TEST(a_long_json_value_is_not_cut_within_a_character)
{
    char value[600];
    for (size_t i = 0; i + 1 < sizeof(value); i += 2)
        memcpy(value + i, "\xc3\xa9", 2);
    value[598] = '\0';
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    log_info("e", "k", value, "l", value + 1);
    ck_assert_int_eq(lines(content(path)), 1);
    /* The only replacement is of the half character at the beginning of l. */
    char *first = strstr(content(path), "\xef\xbf\xbd");
    ck_assert(first && !strstr(first + 1, "\xef\xbf\xbd"));
    ck_assert(strstr(content(path), "\"l\":\"\xef\xbf\xbd\xc3\xa9"));
}
END_TEST

START_TEST(a_repeated_event_is_limited_and_the_rest_told_later)
{
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 50; i++)
        log_info("noisy", "i", LOG_INT(i));
    log_info("other");
    ck_assert_int_eq(lines(content(path)), 21);
    ck_assert_uint_eq(log_suppressed(), 30);
    monotonic_ahead_s += 9;
    log_info("noisy");
    ck_assert_int_eq(lines(content(path)), 21);
    monotonic_ahead_s += 2;
    log_info("noisy", "k", "v");
    ck_assert(strstr(content(path), " noisy k=v suppressed=31\n"));
    log_info("noisy", "k", "w");
    ck_assert(strstr(content(path), " noisy k=w\n"));
    ck_assert_uint_eq(log_suppressed(), 31);
}
END_TEST

START_TEST(more_events_than_the_limiter_has_rows_are_all_written)
{
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    for (int i = 0; i < 500; i++) {
        char event[32];
        snprintf(event, sizeof(event), "event-%d", i);
        log_event(LOG_LEVEL_INFO, event, (char *)NULL);
    }
    ck_assert_int_eq(lines(content(path)), 500);
}
END_TEST

START_TEST(a_renamed_file_is_followed_until_it_is_reopened)
{
    char old[80];
    snprintf(old, sizeof(old), "%s.1", path);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("first");
    ck_assert_int_eq(rename(path, old), 0);
    log_info("second");
    ck_assert_int_eq(access(path, F_OK), -1);
    ck_assert_int_eq(log_reopen(), 0);
    log_info("third");
    ck_assert_int_eq(lines(content(old)), 2);
    ck_assert_int_eq(lines(content(path)), 1);
    ck_assert(strstr(content(path), "third"));
}
END_TEST

START_TEST(a_failed_reopen_keeps_the_old_file)
{
    char old[80];
    snprintf(old, sizeof(old), "%s.1", path);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    ck_assert_int_eq(rename(path, old), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(log_reopen(), -EISDIR);
    log_info("still");
    ck_assert(strstr(content(old), "still"));
    rmdir(path);
}
END_TEST

START_TEST(targets_are_told_apart)
{
    char target[80];
    struct stat st;
    snprintf(target, sizeof(target), "file:%s", path);
    ck_assert_int_eq(log_open(target, LOG_LEVEL_INFO, LOG_FORMAT_TEXT), 0);
    ck_assert_int_ge(log_fd(), 0);
    ck_assert(fcntl(log_fd(), F_GETFD) & FD_CLOEXEC);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 0137, 0); /* others see nothing, nobody executes */
    ck_assert_int_eq(log_open("file:relative", LOG_LEVEL_INFO, LOG_FORMAT_TEXT), -EINVAL);
    ck_assert_int_eq(log_open("relative", LOG_LEVEL_INFO, LOG_FORMAT_TEXT), -EINVAL);
    ck_assert_int_eq(log_open("/nonexistent/log", LOG_LEVEL_INFO, LOG_FORMAT_TEXT), -ENOENT);
    ck_assert_int_ge(log_fd(), 0); /* a failure leaves the old target */
    ck_assert_int_eq(log_open("syslog", LOG_LEVEL_INFO, LOG_FORMAT_TEXT), 0);
    ck_assert_int_eq(log_fd(), -1);
    log_info("to-nobody");
    ck_assert_int_eq(log_open("stderr", LOG_LEVEL_INFO, LOG_FORMAT_TEXT), 0);
    ck_assert_int_eq(log_fd(), -1);
    ck_assert_int_eq(log_reopen(), 0);
}
END_TEST

START_TEST(without_a_file_lines_go_to_standard_error)
{
    int file = open(path, O_WRONLY | O_CREAT, 0600), saved = dup(STDERR_FILENO);
    dup2(file, STDERR_FILENO);
    ck_assert_int_eq(log_open("stderr", LOG_LEVEL_INFO, LOG_FORMAT_TEXT), 0);
    log_info("here", "k", "v");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(file);
    ck_assert(strstr(content(path), "here k=v\n"));
}
END_TEST

START_TEST(a_descriptor_that_is_handed_over_is_written_to)
{
    char old[80];
    snprintf(old, sizeof(old), "%s.1", path);
    open_log(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    int fd = open(old, O_WRONLY | O_CREAT | O_APPEND, 0600);
    log_take_fd(fd);
    ck_assert_int_eq(log_fd(), fd);
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    log_info("there");
    ck_assert_int_eq(log_reopen(), 0);
    log_info("there-too");
    ck_assert_int_eq(lines(content(path)), 0);
    ck_assert_int_eq(lines(content(old)), 2);
}
END_TEST

START_TEST(a_line_that_cannot_be_written_is_lost_and_counted)
{
    int ends[2];
    ck_assert_int_eq(pipe2(ends, O_NONBLOCK), 0);
    log_take_fd(ends[1]);
    log_set_role("w3");
    char value[500];
    memset(value, 'v', sizeof(value));
    value[sizeof(value) - 1] = '\0';
    for (int i = 0; i < 1000 && !log_lost(); i++) {
        monotonic_ahead_s += 11;
        errno = EPERM;
        log_info("fill", "k", value);
        ck_assert_int_eq(errno, EPERM); /* logging keeps errno */
    }
    ck_assert_uint_eq(log_lost(), 1);
    close(ends[0]);
}
END_TEST

START_TEST(errors_have_a_text)
{
    ck_assert_str_eq(log_errno(-ENOENT), "No such file or directory");
    ck_assert_str_eq(log_errno(ENOENT), "No such file or directory");
    ck_assert_str_eq(log_errno(99999), "unknown error");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("log");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_checked_fixture(tc, make_folder, remove_folder);
    tcase_add_test(tc, a_line_has_time_level_process_event_and_pairs);
    tcase_add_test(tc, values_that_need_it_are_quoted_and_escaped);
    tcase_add_test(tc, json_lines_are_one_object_each);
    tcase_add_test(tc, json_has_the_types_of_the_call_not_of_the_text);
    tcase_add_test(tc, text_has_yes_and_no_and_how_a_process_ended);
    tcase_add_test(tc, levels_below_the_configured_one_are_silent);
    tcase_add_test(tc, a_long_value_is_cut_and_a_long_line_says_so);
    tcase_add_test(tc, a_long_json_value_is_not_cut_within_a_character);
    tcase_add_test(tc, a_repeated_event_is_limited_and_the_rest_told_later);
    tcase_add_test(tc, more_events_than_the_limiter_has_rows_are_all_written);
    tcase_add_test(tc, a_renamed_file_is_followed_until_it_is_reopened);
    tcase_add_test(tc, a_failed_reopen_keeps_the_old_file);
    tcase_add_test(tc, targets_are_told_apart);
    tcase_add_test(tc, without_a_file_lines_go_to_standard_error);
    tcase_add_test(tc, a_descriptor_that_is_handed_over_is_written_to);
    tcase_add_test(tc, a_line_that_cannot_be_written_is_lost_and_counted);
    tcase_add_test(tc, errors_have_a_text);
    Suite *s = suite_create("log");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
