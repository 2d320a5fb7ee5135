/*
 * master.h - the master process: start, signals, supervision, end. signal(7).
 *
 * Event-driven (libev); serves no client, parses nothing from the network, never talks to Redis.
 * What it owns outlives its workers: listening sockets, counters, the table of users.
 */
#ifndef BELFRY_SRC_MASTER_H
#define BELFRY_SRC_MASTER_H

#include "shared/options.h"

/* Exit codes of belfryd. */
#define MASTER_EXIT_OK 0      /* stopped as asked */
#define MASTER_EXIT_RUNTIME 1
#define MASTER_EXIT_USAGE 2   /* usage or configuration */

/* Where the options came from, to read them again on SIGHUP: argv as it was before scrubbing.
 * upgrade_link: given; the rest borrowed. */
struct master_arguments {
    int argc;
    char **argv;
    char **environment;
    const char *program; /* path of this binary, for SIGUSR2 */
    int upgrade_link;    /* to the master that this one replaces (inherit.h); -1: none */
};

/* Runs an instance in the foreground until it is told to stop. opt: given. Returns the exit
 * code. */
int master_run(const struct master_arguments *arguments, struct options *opt);

/* belfryd --test-config: everything that can be checked without starting. opt: given. 0, or -EINVAL
 * after reports. */
int master_test(const struct master_arguments *arguments, struct options *opt,
                options_report_fn *report, void *report_data);

#endif
