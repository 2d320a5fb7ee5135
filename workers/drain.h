/*
 * drain.h - how a worker ends. It drains (another generation takes over, or the instance stops
 * gracefully): connections are given to other workers, the others closed spread over a time. Or it
 * stops: everybody is told at once. Either way the loop is broken off when nobody is left, or the
 * time is over.
 *
 * One for each worker, worker.c's, which hears from the master what to do. What is given away:
 * handover.h.
 */
#ifndef BELFRY_WORKERS_DRAIN_H
#define BELFRY_WORKERS_DRAIN_H

#include "shared/ipc.h"
#include "workers/context.h"

struct drain;

enum drain_phase { DRAIN_NOT, DRAIN_DRAINING, DRAIN_STOPPING };

/* w, with its loop, is borrowed. NULL without memory. */
struct drain *drain_new(struct worker *w);
void drain_free(struct drain *d); /* accepts NULL */
enum drain_phase drain_phase(const struct drain *d);
/* CONTROL_DRAIN with its order; m's descriptors (hand-over links) are taken. Again: what a later
 * order says counts. Nothing once it stops. */
void drain_begin(struct drain *d, const struct control_drain *order, struct ipc_message *m);
/* why: for the log. Ends within 5 s, as the contract of TERM wants. */
void drain_stop(struct drain *d, const char *why);
/* At the end of each turn: a stop is over as soon as the last connection is. */
void drain_end_turn(struct drain *d);

#endif
