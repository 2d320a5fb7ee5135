/*
 * activation.h - sockets that the service manager opened: LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES.
 * sd_listen_fds(3).
 *
 * Master only, at start. A socket is used when listen or metrics-listen names its address; it is
 * one for all workers, and stays the service manager's: never shut down, its file never removed.
 */
#ifndef BELFRY_SRC_ACTIVATION_H
#define BELFRY_SRC_ACTIVATION_H

#include "src/listeners.h"

#define ACTIVATION_FIRST_FD 3
#define ACTIVATION_MAX 64 /* sockets; more are left alone */

/*
 * Takes the sockets into a set and the variables out of the environment. What is no listening
 * stream socket is closed, with a warning. 0 and *out (given; NULL when there are none), or
 * -ENOMEM.
 */
int activation_take(struct listeners **out);
/* Warns of those that no other set uses. */
void activation_warn_unused(const struct listeners *l);

#endif
