/*
 * acceptor.h - bounded accept on the slot's listening sockets.
 *
 * For some milliseconds a turn, so that a storm does not starve the connected. A storm fills the
 * kernel's queue in less than a tenth of a second, and who finds it full tries again a second
 * later: so it is emptied first, at some microseconds for each, and what those connections say is
 * looked at when there is time (conns_admit). Only while many descriptors are left, for the devices
 * that come back may still have their old ones: otherwise ACCEPTOR_BATCH at once and no more.
 * Some are left for what is no connection (conns_has_descriptor). When the rest is taken,
 * connections that have not made a request for longest make room. Where there are none, and at
 * EMFILE and ENFILE, one waiting client is told 503 with the help of a descriptor kept for that,
 * then accepting pauses for 100 ms instead of spinning.
 */
#ifndef BELFRY_WORKERS_ACCEPTOR_H
#define BELFRY_WORKERS_ACCEPTOR_H

#include "workers/context.h"

#define ACCEPTOR_BATCH 64
#define ACCEPTOR_SLICE_US 4000
#define ACCEPTOR_PAUSE_MS 100
#define ACCEPTOR_RECLAIM 16 /* connections ended at once for their descriptors */

/* Accepts nothing yet. NULL without memory. */
struct acceptor *acceptor_new(struct worker *w);
/* Starts accepting on all of start->listeners, unless it was stopped. */
void acceptor_start(struct acceptor *a);
/* At the beginning of a turn of the loop. With is_busy, looks whether anybody waits without being
 * told: epoll tells of sockets in the order in which they became ready, and when thousands of
 * clients hang up at once, the listening ones come behind all of them. Accepts NULL. */
void acceptor_begin_turn(struct acceptor *a, int64_t now_us, bool is_busy);
/* Stops taking connections from client listeners, and with is_replaced, which means that other
 * workers serve them, from that of the metrics. Accepts NULL. */
void acceptor_stop(struct acceptor *a, bool is_replaced);
/* After acceptor_stop, when nobody is left who would serve the sockets: closes them, so that
 * clients are refused instead of waiting in a queue. Once; accepts NULL. */
void acceptor_abandon(struct acceptor *a);
/* False when every listener for clients was shut by the master, or stopped. */
bool acceptor_has_clients(const struct acceptor *a);
void acceptor_free(struct acceptor *a);

#endif
