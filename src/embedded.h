/*
 * embedded.h - redis-url = embedded: a private redis-server (or valkey-server) as a supervised
 * child.
 *
 * Master only; event-driven. The child listens on a unix socket in a directory of the workers'
 * user, keeps nothing on disk, runs as that user, and dies with the master. One that dies is
 * started again with back-off; its data is gone then.
 */
#ifndef BELFRY_SRC_EMBEDDED_H
#define BELFRY_SRC_EMBEDDED_H

#include <ev.h>
#include <stddef.h>

#include "src/privileges.h"

#define EMBEDDED_START_S 10.0 /* the child must accept connections by then */

struct embedded;

struct embedded_events {
    void (*on_up)(void *data);                         /* first time that it accepts */
    void (*on_failed)(void *data, const char *reason); /* it never came up; nothing runs */
};

/*
 * Finds a server program in PATH and starts it; data in scratch/redis. 0 and *out (given:
 * embedded_free), -ENOENT without a server program, or another negative errno; why tells the
 * remedy.
 */
int embedded_start(struct ev_loop *loop, const char *scratch, const struct privileges *workers,
                   const struct embedded_events *events, void *data, struct embedded **out,
                   char *why, size_t cap);
/* Path of the socket in a scratch directory, known before the start. */
void embedded_socket(const char *scratch, char *out, size_t cap);
/* Kills the child and waits for its end, half a second at most. Accepts NULL. */
void embedded_free(struct embedded *e);

#endif
