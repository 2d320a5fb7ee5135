/*
 * handover.h - a worker's connections go to other workers, or come from them, and clients notice
 * nothing. Workers.
 *
 * On a reload or an upgrade each old worker (the giver) has a link to each new one (the taker). It
 * gives its users one batch after the other, each user with all devices to one taker, so that all
 * get equally many connections:
 *
 *   giver -> taker   EXPECT     a batch of user ids, and the marker's text
 *   taker            subscribes to their channels; does nothing with what comes
 *   taker -> giver   CONFIRMED  all of them are subscribed
 *   giver            publishes the marker, and goes on delivering until it comes back to itself
 *   giver -> taker   USER, DEVICE + descriptor ..., USER_END: what has not been delivered until
 *                    then is not the giver's any more
 *   taker            on the marker: from here on what comes is kept for these devices, and sent
 *                    when they are there
 *
 * The marker is one message on a channel that all workers of the instance hear, and Redis puts it
 * into one place between all other messages of either link: what stands before it is the giver's to
 * deliver, what stands behind it the taker's. So nothing is lost or repeated, stored or not, with
 * an id or without, and no list is read. Where a link to Redis is lost meanwhile, or the marker
 * does not come in time, devices go all the same, and catch up from the list as after every lost
 * link.
 *
 * TLS and HTTP connections stay with the giver. Everything between two versions of this program:
 * handover_state.h.
 */
#ifndef BELFRY_WORKERS_HANDOVER_H
#define BELFRY_WORKERS_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/context.h"

/* Of all workers of an instance; the instance's id follows. */
#define HANDOVER_CHANNEL "belfry:handover:"

struct conn;

/* NULL without memory. */
struct handover *handover_new(struct worker *w);
void handover_free(struct handover *h); /* accepts NULL */

/* A link to a giver (given). */
void handover_take(struct handover *h, int fd);
/* This worker drains: links to the takers (given, closed when there is no memory). */
void handover_give(struct handover *h, const int *fds, size_t count);
/* Not any more: what is left is for the drain to close. */
void handover_give_up(struct handover *h);
/* The connection is to be given away: the drain leaves it alone. */
bool handover_wants(const struct handover *h, const struct conn *c);
/* Nothing waits to be sent to a taker, and nothing may come from a giver any more: a worker that is
 * replaced while it still takes passes on what comes. */
bool handover_is_flushed(const struct handover *h);
/* From subscriber.c: all channels but the users' are confirmed; a marker came. From session.c: the
 * subscriber link was lost. */
void handover_on_listening(struct handover *h);
void handover_on_marker(struct handover *h, const char *text, size_t len);
void handover_on_link_lost(struct handover *h);

#endif
