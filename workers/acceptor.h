/*
 * acceptor.h - bounded accept on the slot's listening sockets.
 *
 * At most ACCEPTOR_BATCH connections a turn for each socket, so that a storm does not starve the
 * connected: that takes a millisecond or two. Much fewer, and a storm fills the kernel's queue
 * faster than it is emptied; who finds it full tries again a second later. EMFILE and ENFILE: one
 * waiting client is told 503 with the help of a descriptor kept for that, then accepting pauses
 * for 100 ms instead of spinning.
 */
#ifndef BELFRY_WORKERS_ACCEPTOR_H
#define BELFRY_WORKERS_ACCEPTOR_H

#include "workers/context.h"

#define ACCEPTOR_BATCH 256
#define ACCEPTOR_PAUSE_MS 100

/* Accepts nothing yet. NULL without memory. */
struct acceptor *acceptor_new(struct worker *w);
/* Starts accepting on all of start->listeners, unless it was stopped. */
void acceptor_start(struct acceptor *a);
/* Stops taking connections from client listeners, and with is_replaced, which means that other
 * workers serve them, from that of the metrics. Accepts NULL. */
void acceptor_stop(struct acceptor *a, bool is_replaced);
void acceptor_free(struct acceptor *a);

#endif
