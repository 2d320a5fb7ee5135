/*
 * privileges.h - what a worker may do: find the user it runs as, and become that user for good.
 *
 * privileges_find runs in the master at start (it may ask NSS, which blocks); privileges_drop runs
 * in a freshly forked child and asks nobody. Sources: credentials(7), setuid(2), prctl(2).
 */
#ifndef BELFRY_SRC_PRIVILEGES_H
#define BELFRY_SRC_PRIVILEGES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PRIVILEGES_MAX_GROUPS 64

struct privileges {
    bool is_switch; /* the master is root: children become somebody else */
    uid_t uid;
    gid_t gid;
    char name[64]; /* of the user the workers run as */
    /* The user's supplementary groups: a Redis socket is often open to a group only. */
    gid_t groups[PRIVILEGES_MAX_GROUPS];
    int group_count;
};

/*
 * Who the workers are. user, group: the options, "" for not given. As root: user, else "belfry"
 * when it exists, else "nobody"; never uid 0. Not as root nothing can be switched: another user or
 * group than the present one is -EPERM. 0, -ENOENT when a user or group that was named does not
 * exist, or another negative errno; with a text in why that names the option and the remedy.
 */
int privileges_find(const char *user, const char *group, struct privileges *out, char *why,
                    size_t cap);

/*
 * Becomes that user, checks that there is no way back, gives all capabilities up, and sets
 * no_new_privs. Then asks the kernel
 * for death_signal when the parent dies; -ESRCH when it has died already (parent: its pid). 0 or
 * negative errno: the caller must exit.
 */
int privileges_drop(const struct privileges *p, pid_t parent, int death_signal);

#endif
