/*
 * listeners.h - the listening sockets: one SO_REUSEPORT socket for each place and TCP address.
 * socket(7), unix(7).
 *
 * Master only. A set of listeners belongs to one generation of workers; sets share sockets (counted
 * references), so that a reload which keeps an address keeps its sockets and loses no queued
 * connection. The master keeps every socket open for as long as a set names it: a worker's death
 * resets nothing.
 *
 * Places: each TCP address has at least as many sockets as there are workers; worker w serves those
 * whose place modulo the number of workers is w. After a reload with fewer workers the surplus
 * sockets are served by the remaining workers instead of being closed, because closing one resets
 * what its queue holds. Unix sockets and the metrics listener are one socket for all workers:
 * SO_REUSEPORT does not balance the former, nobody needs it for the latter.
 */
#ifndef BELFRY_SRC_LISTENERS_H
#define BELFRY_SRC_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/options.h"
#include "src/privileges.h"
#include "workers/worker.h"

struct listeners;

/*
 * Opens what listen and metrics-listen name, for that many workers; sockets that previous (may be
 * NULL) has already are shared. TCP sockets are bound and listen at once: a connection waits in the
 * queue until a worker is there. Unix sockets get mode 0660 and, as root, the workers' user and
 * group; a stale file is removed, a live one is -EADDRINUSE, and so is a TCP address on which
 * another process listens. 0 and *out (given), or negative errno with why naming the option and
 * address.
 */
int listeners_open(const struct options *opt, uint32_t workers, const struct privileges *owner,
                   const struct listeners *previous, struct listeners **out, char *why, size_t cap);

/* Gives a set up. Sockets that no other set shares stop listening for every process that still
 * holds them (shutdown(2)), are closed, and their unix files removed. Accepts NULL. */
void listeners_free(struct listeners *l);

/* Stops listening to clients now, for every process that holds the sockets; metrics go on. */
void listeners_shut_clients(struct listeners *l);

/* The sockets worker number `place` serves, into out (room for cap); returns how many there are,
 * which may be more than cap. */
size_t listeners_of_worker(const struct listeners *l, uint32_t place, uint32_t workers,
                           bool is_tls, struct worker_listener *out, size_t cap);

/* Addresses really bound, with the port the kernel gave: index counts from 0; NULL after the last.
 * is_metrics may be NULL. */
const char *listeners_address(const struct listeners *l, size_t index, bool *is_metrics);

#endif
