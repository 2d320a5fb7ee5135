#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/dev.h"
#include "src/pidfile.h"
#include "src/pages.h"
#include "src/scratch.h"

static struct privileges self; /* nobody else */

static char *path_in(const char *scratch, const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    return path;
}

static void fail_on_error(void *data, bool is_error, const char *line)
{
    (void)data;
    ck_assert_msg(!is_error, "%s", line);
}

static struct options *load(const char *first, const char *second)
{
    char *argv[] = {(char *)"belfryd", (char *)"--config=/dev/null", (char *)"--dev",
                    (char *)(uintptr_t)first, (char *)(uintptr_t)second, NULL};
    int argc = second ? 5 : first ? 4 : 3;
    char *environment[] = {NULL};
    struct options *o = NULL;
    struct options_command command;
    ck_assert_int_eq(options_load(argc, argv, environment, false, &command, fail_on_error, NULL,
                                  &o),
                     0);
    options_command_free(&command);
    return o;
}

/* The page that is served when npm made no other. */
START_TEST(the_page_has_one_place_for_the_token_and_no_address_of_others)
{
    int marks = 0;
    for (const struct pages_text *page = pages_plain; page->route; page++) {
        for (const char *at = page->text; (at = strstr(at, "@TOKEN@")); at++)
            marks++;
        ck_assert_ptr_null(strstr(page->text, "http://"));
        ck_assert_ptr_null(strstr(page->text, "https://"));
        ck_assert_ptr_null(strstr(page->text, "@import"));
        ck_assert_ptr_null(strstr(page->text, "<script>"));
        ck_assert_ptr_null(strstr(page->text, "<style>"));
    }
    ck_assert_int_eq(marks, 1);
}
END_TEST

START_TEST(what_was_not_given_is_filled_in_and_the_secret_is_ours_alone)
{
    char scratch[SCRATCH_PATH_BYTES];
    struct dev *d;
    struct stat st;
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    ck_assert_int_eq(stat(scratch, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0700);
    ck_assert_int_eq(dev_new(scratch, "belfryd", &d), 0);
    struct options *o = load(NULL, NULL);
    ck_assert_int_eq(dev_apply(d, o), 0);
    ck_assert_int_eq(o->workers, 2);
    ck_assert_str_eq(o->jwt_secret_file, path_in(scratch, "secret"));
    ck_assert_int_eq(stat(o->jwt_secret_file, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0600);
    ck_assert_int_eq(st.st_size, 43); /* 32 bytes in base64url */
    ck_assert_str_eq(o->control_socket, path_in(scratch, "control.sock"));
    ck_assert_str_eq(o->listen.items[0], "127.0.0.1:8000");
    ck_assert(dev_take_any_port(d, o));
    ck_assert(!dev_take_any_port(d, o));
    ck_assert_int_eq(dev_apply(d, o), 0);
    ck_assert_uint_eq(o->listen.count, 1);
    ck_assert_str_eq(o->listen.items[0], "127.0.0.1:0");
    options_free(o);
    dev_free(d);
    scratch_remove(scratch);
    ck_assert_int_lt(stat(scratch, &st), 0);
}
END_TEST

START_TEST(what_was_given_stays)
{
    char scratch[SCRATCH_PATH_BYTES];
    struct dev *d;
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    ck_assert_int_eq(dev_new(scratch, "belfryd", &d), 0);
    struct options *o = load("--workers=5", "--listen=127.0.0.1:8001");
    ck_assert(!dev_take_any_port(d, o));
    ck_assert_int_eq(dev_apply(d, o), 0);
    ck_assert_int_eq(o->workers, 5);
    ck_assert_str_eq(o->listen.items[0], "127.0.0.1:8001");
    options_free(o);
    o = load("--jwt-secret-file=/given", "--control-socket=/given.sock");
    ck_assert_int_eq(dev_apply(d, o), 0);
    ck_assert_str_eq(o->jwt_secret_file, "/given");
    ck_assert_str_eq(o->control_socket, "/given.sock");
    options_free(o);
    dev_free(d);
    scratch_remove(scratch);
}
END_TEST

START_TEST(two_servers_have_two_secrets)
{
    char scratch[SCRATCH_PATH_BYTES], first[64] = "", second[64] = "";
    struct dev *d;
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(dev_new(scratch, "belfryd", &d), 0);
        FILE *f = fopen(path_in(scratch, "secret"), "r");
        ck_assert_ptr_nonnull(fgets(i ? second : first, 64, f));
        fclose(f);
        dev_free(d);
    }
    ck_assert_uint_eq(strlen(first), 43);
    ck_assert_uint_eq(strspn(first, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                    "0123456789-_"),
                      43);
    ck_assert_str_ne(first, second);
    scratch_remove(scratch);
}
END_TEST

START_TEST(a_scratch_directory_is_removed_with_what_is_in_it_and_nothing_else)
{
    char scratch[SCRATCH_PATH_BYTES], other[SCRATCH_PATH_BYTES], link[128];
    struct stat st;
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    ck_assert_int_eq(scratch_make(&self, other), 0);
    ck_assert_int_eq(scratch_write(other, "keep", "x", 1), 0);
    ck_assert_int_eq(scratch_make_worker_dir(scratch, "redis", &self), 0);
    ck_assert_int_eq(scratch_write(scratch, "redis/log", "x", 1), 0);
    ck_assert_int_eq(scratch_write(scratch, "file", "x", 1), 0);
    snprintf(link, sizeof(link), "%s/redis/link", scratch);
    ck_assert_int_eq(symlink(other, link), 0);
    scratch_remove(scratch);
    ck_assert_int_lt(stat(scratch, &st), 0);
    ck_assert_int_eq(stat(path_in(other, "keep"), &st), 0);
    scratch_remove(other);
    scratch_remove(""); /* none was made */
}
END_TEST

/* A directory beside scratch, with a lock that nobody holds. */
static void make_left(const char *base, const char *name, mode_t mode, bool has_lock)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", base, name);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(scratch_write(path, "secret", "x", 1), 0);
    if (has_lock)
        ck_assert_int_eq(scratch_write(path, "lock", "", 0), 0);
    ck_assert_int_eq(chmod(path, mode), 0);
}

START_TEST(only_what_a_killed_process_of_ours_left_is_swept)
{
    static const char *const kept[] = {"belfry-open00", "belfry-nolock", "belfry-longer1",
                                       "belfry-link00", "belfry-locked", "belfry-symloc"};
    char base[] = "/tmp/check_dev_XXXXXX", scratch[SCRATCH_PATH_BYTES], gone[128];
    struct stat st;
    ck_assert_ptr_nonnull(mkdtemp(base));
    unsetenv("XDG_RUNTIME_DIR");
    ck_assert_int_eq(setenv("TMPDIR", base, 1), 0);
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    int lock = scratch_lock(scratch);
    ck_assert_int_ge(lock, 0);
    make_left(base, "belfry-killed", 0700, true);
    make_left(base, "belfry-pass00", 0711, true);
    make_left(base, "belfry-open00", 0720, true);
    make_left(base, "belfry-nolock", 0700, false);
    make_left(base, "belfry-longer1", 0700, true);
    make_left(base, "belfry-symloc", 0700, false);
    make_left(base, "belfry-locked", 0700, true);
    ck_assert_int_eq(symlink("secret", path_in(base, "belfry-symloc/lock")), 0);
    ck_assert_int_eq(symlink("belfry-longer1", path_in(base, "belfry-link00")), 0);
    int other = open(path_in(base, "belfry-locked/lock"), O_RDWR);
    ck_assert_int_eq(flock(other, LOCK_EX | LOCK_NB), 0);
    ck_assert_uint_eq(scratch_sweep(&self), 2);
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        ck_assert_msg(!lstat(path_in(base, kept[i]), &st), "%s is gone", kept[i]);
    ck_assert_int_eq(stat(path_in(base, "belfry-longer1/secret"), &st), 0);
    ck_assert_int_eq(stat(path_in(scratch, "lock"), &st), 0);
    close(other);
    close(lock); /* as if both had been killed */
    ck_assert_uint_eq(scratch_sweep(&self), 2);
    ck_assert_int_lt(stat(scratch, &st), 0);
    unlink(path_in(base, "belfry-link00"));
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        snprintf(gone, sizeof(gone), "%s/%s", base, kept[i]);
        scratch_remove(gone);
    }
    ck_assert_int_eq(rmdir(base), 0);
}
END_TEST

START_TEST(a_written_file_replaces_the_older_one_as_a_whole)
{
    char scratch[SCRATCH_PATH_BYTES], text[16] = "";
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    ck_assert_int_eq(scratch_write(scratch, "f", "a longer one", 12), 0);
    ck_assert_int_eq(scratch_write(scratch, "f", "short", 5), 0);
    FILE *f = fopen(path_in(scratch, "f"), "r");
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
    fclose(f);
    ck_assert_str_eq(text, "short");
    scratch_remove(scratch);
}
END_TEST

/* Result of pidfile_write in a second process. */
static int write_elsewhere(const char *path, pid_t *holder)
{
    int pipes[2], status, error = 0;
    ck_assert_int_eq(pipe(pipes), 0);
    pid_t pid = fork();
    if (!pid) {
        struct pidfile p = {.fd = -1};
        pid_t found = 0;
        error = pidfile_write(&p, path, &found);
        if (write(pipes[1], &found, sizeof(found)) != sizeof(found))
            _exit(255);
        _exit(-error);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(read(pipes[0], holder, sizeof(*holder)), sizeof(*holder));
    close(pipes[0]);
    close(pipes[1]);
    return -WEXITSTATUS(status);
}

START_TEST(a_pid_file_is_held_by_its_process_and_free_after_its_death)
{
    char scratch[SCRATCH_PATH_BYTES], text[32] = "", *path;
    pid_t holder;
    struct stat st;
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    path = path_in(scratch, "pid");
    ck_assert_int_eq(write_elsewhere(path, &holder), 0); /* left behind by a dead one */
    struct pidfile p = {.fd = -1};
    ck_assert_int_eq(pidfile_write(&p, path, &holder), 0);
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
    fclose(f);
    ck_assert_int_eq(atol(text), getpid());
    ck_assert_int_eq(write_elsewhere(path, &holder), -EWOULDBLOCK);
    ck_assert_int_eq(holder, getpid());
    pidfile_remove(&p);
    ck_assert_int_lt(stat(path, &st), 0);
    pidfile_remove(&p); /* nothing to remove */
    scratch_remove(scratch);
}
END_TEST

START_TEST(a_pid_file_of_somebody_else_is_not_removed)
{
    char scratch[SCRATCH_PATH_BYTES], *path;
    pid_t holder;
    struct stat st;
    ck_assert_int_eq(scratch_make(&self, scratch), 0);
    path = path_in(scratch, "pid");
    struct pidfile p = {.fd = -1};
    ck_assert_int_eq(pidfile_write(&p, path, &holder), 0);
    ck_assert_int_eq(scratch_write(scratch, "pid", "77\n", 3), 0);
    pidfile_remove(&p);
    ck_assert_int_eq(stat(path, &st), 0);
    scratch_remove(scratch);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("dev");
    TCase *t = tcase_create("files of the master");
    tcase_add_test(t, the_page_has_one_place_for_the_token_and_no_address_of_others);
    tcase_add_test(t, what_was_not_given_is_filled_in_and_the_secret_is_ours_alone);
    tcase_add_test(t, what_was_given_stays);
    tcase_add_test(t, two_servers_have_two_secrets);
    tcase_add_test(t, a_scratch_directory_is_removed_with_what_is_in_it_and_nothing_else);
    tcase_add_test(t, only_what_a_killed_process_of_ours_left_is_swept);
    tcase_add_test(t, a_written_file_replaces_the_older_one_as_a_whole);
    tcase_add_test(t, a_pid_file_is_held_by_its_process_and_free_after_its_death);
    tcase_add_test(t, a_pid_file_of_somebody_else_is_not_removed);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
