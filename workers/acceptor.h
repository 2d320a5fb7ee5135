/*
 * acceptor.h - bounded accept on the slot's listening sockets, with the limits that hold before a byte is read.
 *
 * At most ACCEPTOR_BATCH connections a turn for each socket, so that a storm does not starve the connected. EMFILE and ENFILE: accepting pauses for 100 ms instead of spinning.
 */
#ifndef BELFRY_WORKERS_ACCEPTOR_H
#define BELFRY_WORKERS_ACCEPTOR_H

#include <stdint.h>

#include "workers/context.h"

#define ACCEPTOR_BATCH 64

struct acceptor *acceptor_new(struct worker *w);
/* Stops taking connections from client listeners; metrics go on. */
void acceptor_stop(struct acceptor *a);
void acceptor_free(struct acceptor *a);
#endif
