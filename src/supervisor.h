/*
 * supervisor.h - the worker processes: forks them, hears them, replaces those that die, ends them
 * in time.
 *
 * Master only. slots.c decides, this file does. Owns one slot for each column of the shared memory,
 * the control pair of each worker, and its timers. Knows nothing of why a generation comes or goes:
 * master.c and reload.c do.
 */
#ifndef BELFRY_SRC_SUPERVISOR_H
#define BELFRY_SRC_SUPERVISOR_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/counters.h"
#include "shared/ipc.h"
#include "shared/trace.h"
#include "shared/usertable.h"
#include "src/generation.h"
#include "src/privileges.h"
#include "src/slots.h"

/* Times, in seconds. */
#define SUPERVISOR_START_S 30.0      /* a worker that is not READY by then is killed */
#define SUPERVISOR_STOP_S 4.5        /* a worker that was told to stop is killed then */
#define SUPERVISOR_DRAIN_EXTRA_S 10.0 /* beyond drain-time */
#define SUPERVISOR_END_S 5.0         /* a worker that is ending unasked is killed then */
#define SUPERVISOR_HEARTBEAT_S 20.0  /* a worker whose loop has not turned for so long is killed */

struct supervisor;

/* What all workers are given, whichever their generation; borrowed. */
struct supervisor_shared {
    struct counters *counters;
    const struct trace *trace;
    struct usertable *users;
    struct usertable *addresses;
    const struct privileges *privileges;
    const struct tickets *tickets; /* as they are when a worker starts */
    const char *instance_id;
    const struct pages *pages; /* NULL: none */
    bool is_dev;
};

/* Told from the loop; each may call back into the supervisor. */
struct supervisor_events {
    void (*on_ready)(void *data, uint32_t generation);
    /* A worker of the generation ended before it was ready; attempts counts this start's. */
    void (*on_start_failed)(void *data, uint32_t generation, uint32_t attempts, bool is_told,
                            const char *reason);
    /* A worker ended as asked. */
    void (*on_gone)(void *data);
    /* A message that is not about the worker's own life. body is borrowed. */
    void (*on_message)(void *data, uint32_t slot, enum control_type type, const void *body,
                       size_t len);
    /* In a fresh child: see spawn.h. */
    void (*leave_loop)(void *data);
};

struct supervisor *supervisor_new(struct ev_loop *loop, const struct supervisor_shared *shared,
                                  const struct supervisor_events *events, void *data);
void supervisor_free(struct supervisor *s); /* only when supervisor_is_empty, or in a child */

/* Starts all workers of a generation (borrowed until all of them are gone). 0, or -ENOSPC when too
 * few slots are empty. Failing forks are tried again with back-off and reported as
 * on_start_failed. */
int supervisor_start(struct supervisor *s, const struct generation *g);
/* Has the workers of a generation accept, now that its is_serving is set; who gets ready later does
 * so at once. */
void supervisor_serve(struct supervisor *s, const struct generation *g);
/* Ends the workers of one generation, or all: bit by bit, or at once. */
void supervisor_drain(struct supervisor *s, uint32_t generation, const struct control_drain *how);
void supervisor_drain_all(struct supervisor *s, const struct control_drain *how);
void supervisor_stop(struct supervisor *s, uint32_t generation);
void supervisor_stop_all(struct supervisor *s);
/*
 * Hand-over. For each pair of an old and a new worker one ipc_stream_pair: all ends of an old
 * worker in one supervisor_give, each other end in a supervisor_take of its new worker; at last
 * supervisor_drain for the old generation, which then gives its connections away before it closes
 * what it could not give. A worker that was given no ends just drains. Descriptors are given: the
 * supervisor closes them once they are sent, or cannot be any more. Either may be called by another
 * master's word (upgrade).
 *
 * 0; -ESRCH: not READY (to take: or no worker); -E2BIG: more than IPC_FDS_MAX; -ENOMEM.
 */
int supervisor_give(struct supervisor *s, uint32_t slot, const int *fds, uint32_t count);
int supervisor_take(struct supervisor *s, uint32_t slot, int fd);
/* Slots of a generation in a phase, in order of their places; returns how many were written. */
uint32_t supervisor_list(const struct supervisor *s, uint32_t generation, enum slot_phase phase,
                         uint32_t *slots, uint32_t max);
/* Tells every worker to log as this process does. */
void supervisor_send_log(struct supervisor *s);
/* Gives every worker the tickets as they are now. */
void supervisor_send_tickets(struct supervisor *s);
/* Tells every worker that another master has the instance. */
void supervisor_send_left(struct supervisor *s);
/* Gives the generation's new set of keys to its workers, also those that are not ready yet. */
void supervisor_send_keys(struct supervisor *s, const struct generation *g);
/* Sends a message to one worker that serves or drains. 0, -ESRCH when there is none, or another
 * negative errno (-EAGAIN: it does not read; nothing is kept). */
int supervisor_send(struct supervisor *s, uint32_t slot, enum control_type type, const void *body,
                    size_t len);
/* The same with a descriptor, which stays the caller's; -1: none. */
int supervisor_send_fd(struct supervisor *s, uint32_t slot, enum control_type type,
                       const void *body, size_t len, int fd);
bool supervisor_is_empty(const struct supervisor *s);
/* Workers of a generation in a phase. */
uint32_t supervisor_count(const struct supervisor *s, uint32_t generation, enum slot_phase phase);
/* True while a slot still needs the generation. */
bool supervisor_has(const struct supervisor *s, const struct generation *g);
/* Slots not empty, whatever the generation. */
uint32_t supervisor_in_use(const struct supervisor *s);

/*
 * Two masters on the same shared memory (upgrade.h). bits: one for each slot, the first in the
 * lowest bit of the first byte; as many bytes as COUNTERS_MAX_SLOTS needs.
 */
/* Writes which slots are in use, here or by another master. */
void supervisor_slots(const struct supervisor *s, uint8_t *bits);
/* Which slots the other master uses: not to be taken here. */
void supervisor_set_foreign(struct supervisor *s, const uint8_t *bits);
/* The other master is gone. What its workers leave in their slots is cleaned as they end, and only
 * then are these slots free. */
void supervisor_take_orphans(struct supervisor *s);

struct supervisor_worker {
    uint32_t slot;
    uint32_t place;
    uint32_t generation;
    uint32_t restarts;
    pid_t pid; /* 0 in SLOT_PHASE_BACKOFF */
    enum slot_phase phase;
    int64_t uptime_ms;
};
/* One slot in use; false when the slot is empty. */
bool supervisor_worker(const struct supervisor *s, uint32_t slot, struct supervisor_worker *out);
/* True when there are workers that serve, and none of them has turned its loop for so long. */
bool supervisor_is_silent(const struct supervisor *s, int64_t for_ms);
/* Unasked deaths since the start. */
uint64_t supervisor_restarts(const struct supervisor *s);

#endif
