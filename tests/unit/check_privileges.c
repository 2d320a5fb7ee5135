#include "config.h"

#include <check.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/privileges.h"

static int find(const char *user, const char *group, struct privileges *p, char why[256])
{
    why[0] = '\0';
    return privileges_find(user, group, p, why, 256);
}

/* Runs fn in a child; its result must be below 256. */
static int in_child(int (*fn)(const struct privileges *p, pid_t parent), const struct privileges *p)
{
    pid_t parent = getpid(), pid = fork();
    int status;
    if (!pid)
        _exit(fn(p, parent));
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* All five sets are empty; the bounding set may keep what a process without CAP_SETPCAP cannot take
 * out of it. */
static bool has_capabilities(bool is_bounding)
{
    static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"};
    char line[256];
    int empty = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof(line), f))
        for (int i = 0; i < 4 + is_bounding; i++)
            empty += !strncmp(line, sets[i], 6) && strtoull(line + 7, NULL, 16) == 0;
    if (f)
        fclose(f);
    return empty != 4 + is_bounding;
}

/* 0 when everything is as promised, else the number of the first promise that is not kept. */
static int drop_and_look(const struct privileges *p, pid_t parent)
{
    int signal_number = 0;
    if (privileges_drop(p, parent, SIGTERM))
        return 1;
    if (getuid() != p->uid || geteuid() != p->uid || getgid() != p->gid || getegid() != p->gid)
        return 2;
    if (p->is_switch && (!setuid(0) || !seteuid(0) || !setgid(0)))
        return 3;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 4;
    if (has_capabilities(p->is_switch))
        return 7;
    if (prctl(PR_GET_PDEATHSIG, &signal_number) || signal_number != SIGTERM)
        return 5;
    gid_t groups[PRIVILEGES_MAX_GROUPS];
    int n = getgroups(PRIVILEGES_MAX_GROUPS, groups);
    for (int i = 0; p->is_switch && i < n; i++)
        if (!groups[i])
            return 6; /* root's group came along */
    return 0;
}

/* As a service manager starts it: another user than root, with one capability. */
static int drop_what_was_given(const struct privileges *p, pid_t parent)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};
    struct privileges now;
    char why[256];
    unsigned bit = 1u << CAP_NET_BIND_SERVICE;
    sets[0] = (struct __user_cap_data_struct){bit, bit, bit};
    prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (setresgid(p->gid, p->gid, p->gid) || setresuid(p->uid, p->uid, p->uid) ||
        syscall(SYS_capset, &head, sets) ||
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) ||
        !has_capabilities(false))
        return 100;
    if (find("", "", &now, why) || now.is_switch)
        return 101;
    return drop_and_look(&now, parent);
}

static int drop_of_an_orphan(const struct privileges *p, pid_t parent)
{
    return -privileges_drop(p, parent + 1, SIGTERM); /* the parent is somebody else by now */
}

START_TEST(nobody_is_chosen_when_nobody_was_named)
{
    struct privileges p;
    char why[256];
    ck_assert_int_eq(find("", "", &p, why), 0);
    if (geteuid()) {
        ck_assert(!p.is_switch);
        ck_assert_uint_eq(p.uid, geteuid());
    } else {
        ck_assert(p.is_switch);
        ck_assert_uint_ne(p.uid, 0);
        ck_assert_uint_ne(p.gid, 0);
        ck_assert_str_eq(p.name, getpwnam("belfry") ? "belfry" : "nobody");
    }
}
END_TEST

START_TEST(a_user_that_does_not_exist_is_refused_by_name)
{
    struct privileges p;
    char why[256];
    ck_assert_int_eq(find("no-such-user", "", &p, why), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, "user: there is no user \"no-such-user\""));
    ck_assert_int_eq(find("", "no-such-group", &p, why), -ENOENT);
    ck_assert_ptr_nonnull(strstr(why, "group: there is no group \"no-such-group\""));
}
END_TEST

START_TEST(root_is_refused_as_user_and_as_group)
{
    struct privileges p;
    char why[256];
    ck_assert_int_eq(find("root", "", &p, why), -EPERM);
    ck_assert_int_eq(find("0", "", &p, why), -EPERM);
    ck_assert_int_eq(find("", "root", &p, why), -EPERM);
}
END_TEST

START_TEST(a_number_names_a_user_as_well)
{
    struct privileges p, q;
    char why[256], number[32];
    ck_assert_int_eq(find("", "", &p, why), 0);
    snprintf(number, sizeof(number), "%lu", (unsigned long)p.uid);
    ck_assert_int_eq(find(number, "", &q, why), 0);
    ck_assert_uint_eq(p.uid, q.uid);
    ck_assert_str_eq(p.name, q.name);
}
END_TEST

START_TEST(a_child_drops_everything_and_cannot_come_back)
{
    struct privileges p;
    char why[256];
    ck_assert_int_eq(find("", "", &p, why), 0);
    ck_assert_int_eq(in_child(drop_and_look, &p), 0);
}
END_TEST

START_TEST(a_capability_for_low_ports_stays_with_the_master)
{
    struct privileges p;
    char why[256];
    if (geteuid())
        return; /* only root can give one */
    ck_assert_int_eq(find("", "", &p, why), 0);
    ck_assert_int_eq(in_child(drop_what_was_given, &p), 0);
}
END_TEST

START_TEST(a_child_whose_master_died_meanwhile_learns_it)
{
    struct privileges p;
    char why[256];
    ck_assert_int_eq(find("", "", &p, why), 0);
    ck_assert_int_eq(in_child(drop_of_an_orphan, &p), ESRCH);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("privileges");
    TCase *t = tcase_create("find and drop");
    tcase_add_test(t, nobody_is_chosen_when_nobody_was_named);
    tcase_add_test(t, a_user_that_does_not_exist_is_refused_by_name);
    tcase_add_test(t, root_is_refused_as_user_and_as_group);
    tcase_add_test(t, a_number_names_a_user_as_well);
    tcase_add_test(t, a_child_drops_everything_and_cannot_come_back);
    tcase_add_test(t, a_capability_for_low_ports_stays_with_the_master);
    tcase_add_test(t, a_child_whose_master_died_meanwhile_learns_it);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
