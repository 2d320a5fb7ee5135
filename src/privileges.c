#include "config.h"

#include "src/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define TRACES_ITSELF 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRACES_ITSELF 1
#endif
#endif

/* A name, or a number as text. NULL when there is none. */
static const struct passwd *find_user(const char *user)
{
    const struct passwd *pw = getpwnam(user);
    char *end;
    if (!pw && *user >= '0' && *user <= '9') {
        unsigned long uid = strtoul(user, &end, 10);
        if (!*end && uid < (uid_t)-1)
            pw = getpwuid((uid_t)uid);
    }
    return pw;
}

static bool find_group(const char *group, gid_t *out)
{
    const struct group *gr = getgrnam(group);
    char *end;
    if (!gr && *group >= '0' && *group <= '9') {
        unsigned long gid = strtoul(group, &end, 10);
        if (!*end && gid < (gid_t)-1)
            gr = getgrgid((gid_t)gid);
    }
    if (gr)
        *out = gr->gr_gid;
    return gr != NULL;
}

static int no_user(const char *user, char *why, size_t cap)
{
    snprintf(why, cap, "user: there is no user \"%s\"; make it or name another", user);
    return -ENOENT;
}

static int no_group(const char *group, char *why, size_t cap)
{
    snprintf(why, cap, "group: there is no group \"%s\"; make it or name another", group);
    return -ENOENT;
}

/* Not root: what is asked for must be what we are. */
static int keep_present(const char *user, const char *group, struct privileges *out, char *why,
                        size_t cap)
{
    gid_t gid = getegid();
    const struct passwd *pw = *user ? find_user(user) : getpwuid(geteuid());
    if (*user && !pw)
        return no_user(user, why, cap);
    if (*user && pw->pw_uid != geteuid()) {
        snprintf(why, cap, "user: only root can switch to another user; leave the option out");
        return -EPERM;
    }
    if (*group && !find_group(group, &gid))
        return no_group(group, why, cap);
    if (*group && gid != getegid()) {
        snprintf(why, cap, "group: only root can switch to another group; leave the option out");
        return -EPERM;
    }
    out->uid = geteuid();
    out->gid = getegid();
    if (pw)
        snprintf(out->name, sizeof(out->name), "%s", pw->pw_name);
    else
        snprintf(out->name, sizeof(out->name), "%lu", (unsigned long)out->uid);
    return 0;
}

static int find_switch(const char *user, const char *group, struct privileges *out, char *why,
                       size_t cap)
{
    const struct passwd *pw = find_user(*user ? user : "belfry");
    if (!pw && !*user)
        pw = find_user("nobody");
    if (!pw && *user)
        return no_user(user, why, cap);
    if (!pw) {
        snprintf(why, cap, "user: there is neither a user belfry nor a user nobody; name one");
        return -EPERM;
    }
    if (!pw->pw_uid) {
        snprintf(why, cap, "user: workers do not run as root; name an unprivileged user");
        return -EPERM;
    }
    out->is_switch = true;
    out->uid = pw->pw_uid;
    out->gid = pw->pw_gid;
    snprintf(out->name, sizeof(out->name), "%s", pw->pw_name);
    if (*group && !find_group(group, &out->gid))
        return no_group(group, why, cap);
    if (!out->gid) {
        snprintf(why, cap, "group: workers do not run in group root; name another");
        return -EPERM;
    }
    out->group_count = PRIVILEGES_MAX_GROUPS;
    if (getgrouplist(out->name, out->gid, out->groups, &out->group_count) < 0)
        out->group_count = PRIVILEGES_MAX_GROUPS; /* in more than fit: the first ones */
    return 0;
}

int privileges_find(const char *user, const char *group, struct privileges *out, char *why,
                    size_t cap)
{
    memset(out, 0, sizeof(*out));
    return geteuid() ? keep_present(user, group, out, why, cap)
                     : find_switch(user, group, out, why, cap);
}

/* So that nothing that is executed later could get one back. */
static void empty_bounding_set(void)
{
    for (unsigned long capability = 0;
         prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
}

/* What a service manager gave for ports below 1024 (ambient capabilities) is the master's. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capget, &head, sets) < 0)
        return -errno;
    if (!(sets[0].permitted | sets[1].permitted | sets[0].inheritable | sets[1].inheritable))
        return 0;
    memset(sets, 0, sizeof(sets));
    return syscall(SYS_capset, &head, sets) < 0 ? -errno : 0;
}

/* The order matters: after setuid nothing else could be changed. */
static int become(const struct privileges *p)
{
    if (setgroups((size_t)p->group_count, p->groups) < 0 ||
        setresgid(p->gid, p->gid, p->gid) < 0 || setresuid(p->uid, p->uid, p->uid) < 0)
        return -errno;
    uid_t real, effective, saved;
    if (getresuid(&real, &effective, &saved) < 0 || real != p->uid || effective != p->uid ||
        saved != p->uid || setuid(0) == 0 || seteuid(0) == 0)
        return -EPERM;
    return 0;
}

int privileges_drop(const struct privileges *p, pid_t parent, int death_signal)
{
    int error;
    if (p->is_switch) {
        empty_bounding_set();
        error = become(p);
        if (error)
            return error;
#ifdef TRACES_ITSELF
        /* The leak check at exit traces its own process, which the switch has forbidden. */
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
#endif
    }
    error = drop_capabilities();
    if (error)
        return error;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    /* After the switch, because changing the user takes the signal back. */
    if (prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) < 0)
        return -errno;
    return getppid() == parent ? 0 : -ESRCH;
}
