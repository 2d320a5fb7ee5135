/*
 * listeners.h - the listening sockets: one SO_REUSEPORT socket for each place and TCP address.
 * socket(7), unix(7).
 *
 * Master only. A set of listeners belongs to one generation of workers; sets share sockets (counted
 * references), so that a reload which keeps an address keeps its sockets and loses no queued
 * connection. The master keeps every socket open for as long as a set names it: a worker's death
 * resets nothing.
 *
 * A socket may also come from outside: from the service manager (socket activation; it is borrowed,
 * which means that it is never shut down here and its file never removed) or from the master before
 * (upgrade.h; while it is shared with that one the same holds).
 *
 * Places: each TCP address has at least as many sockets as there are workers; worker w serves those
 * whose place modulo the number of workers is w. After a reload with fewer workers the surplus
 * sockets are served by the remaining workers instead of being closed, because closing one resets
 * what its queue holds. Unix sockets and the metrics listener are one socket for all workers:
 * SO_REUSEPORT does not balance the former, nobody needs it for the latter. So is a borrowed one,
 * because there is just one.
 */
#ifndef BELFRY_SRC_LISTENERS_H
#define BELFRY_SRC_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/address.h"
#include "shared/options.h"
#include "src/privileges.h"
#include "workers/worker.h"

struct listeners;

/* A socket as another process is told of it; seen by two versions. */
struct listener_record {
    char asked[ADDRESS_TEXT_BYTES]; /* in the configuration */
    char real[ADDRESS_TEXT_BYTES];  /* with its port */
    uint64_t file_dev;              /* of a unix socket */
    uint64_t file_ino;
    uint32_t entry; /* sockets of one address have one number */
    uint8_t is_metrics;
    uint8_t is_any; /* serves whatever the configuration says; is_metrics is void */
    uint8_t is_single;
    uint8_t is_borrowed;
};

/* An empty set, for listeners_add; NULL: no memory. */
struct listeners *listeners_new(void);
/* Adds a socket that listens already (fd given on success). 0, -EINVAL or another negative
 * errno. */
int listeners_add(struct listeners *l, int fd, const struct listener_record *record);
/* Describes a listening stream socket of the service manager. 0, -EINVAL when it is none, or
 * another negative errno. */
int listeners_describe(int fd, struct listener_record *out);
/* Socket number index, counted over all addresses: its descriptor (borrowed) and record; -1 after
 * the last. */
int listeners_record(const struct listeners *l, size_t index, struct listener_record *out);
/* True when another set has the socket with that index, too. */
bool listeners_is_used(const struct listeners *l, size_t index);
/* From now on another master serves these sockets as well (or no more): they are not shut down. */
void listeners_set_shared(struct listeners *l, bool is_shared);
/* Gives up all sockets but those that are borrowed. */
void listeners_keep_borrowed(struct listeners *l);

/*
 * Opens what listen and metrics-listen name, for that many workers; sockets that previous or
 * inherited (each may be NULL) has already are shared. TCP sockets are bound, and listen only
 * from listeners_listen on: until then new ones take no share of an address's clients. Unix sockets
 * listen at once; they get mode 0660 and, as root, the workers' user and group; a stale file is
 * removed, a live one is -EADDRINUSE, and so is a TCP address on which another process listens. 0
 * and *out (given), or negative errno with why naming the option and address.
 */
int listeners_open(const struct options *opt, uint32_t workers, const struct privileges *owner,
                   const struct listeners *previous, const struct listeners *inherited,
                   struct listeners **out, char *why, size_t cap);

/* Has every socket listen: a connection waits in the queue until a worker is there. Failures are
 * logged. */
void listeners_listen(struct listeners *l);

/* Gives a set up. Sockets that no other set shares stop listening for every process that still
 * holds them (shutdown(2)), are closed, and their unix files removed. Accepts NULL. */
void listeners_free(struct listeners *l);

/* Lets no new client into the queues of TCP sockets: its first packet is dropped, and when it is
 * sent again nobody listens any more. True while somebody waits in such a queue yet, whom shutting
 * would reset. May be called again. */
bool listeners_close_queues(struct listeners *l);

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
