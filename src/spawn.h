/*
 * spawn.h - from the master to a worker: fork, and what the child sheds before worker_run.
 *
 * The child keeps standard streams, the log file, its end of the control pair and its listeners;
 * all other descriptors of the master are closed. It becomes the unprivileged user, dies with its
 * master, and never returns from here.
 */
#ifndef BELFRY_SRC_SPAWN_H
#define BELFRY_SRC_SPAWN_H

#include <ev.h>
#include <sys/types.h>

#include "src/privileges.h"
#include "workers/worker.h"

struct spawn {
    const struct worker_start *start; /* listeners and control_fd are what the child keeps */
    const struct privileges *privileges;
    /* Called first in the child: stops the signal watchers of the master's loop, which would hold
     * the signals. */
    void (*leave_loop)(void *data);
    void *data;
};

/* The child's pid, or negative errno from fork. */
pid_t spawn_worker(const struct spawn *s);

#endif
