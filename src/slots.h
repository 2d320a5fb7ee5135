/*
 * slots.h - PURE: what happens to a worker slot, as a table of phases x events.
 *
 * Master only. Knows no process, no clock and no signal: supervisor.c tells what happened, this
 * table says in which phase the slot is now and what has to be done. That every pair has an answer,
 * and that no slot is forgotten, is what its tests prove.
 *
 * A slot is a column of the shared memory and, while it is not empty, one worker process of one
 * generation. A worker that dies comes back in the same slot as long as its generation is
 * the wanted one.
 */
#ifndef BELFRY_SRC_SLOTS_H
#define BELFRY_SRC_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/counters.h"

enum slot_phase {
    SLOT_PHASE_EMPTY,    /* no worker, none wanted */
    SLOT_PHASE_STARTING, /* forked, has not said READY */
    SLOT_PHASE_READY,
    SLOT_PHASE_DRAINING, /* told to close everyone bit by bit; not replaced when it ends */
    SLOT_PHASE_STOPPING, /* told to stop, or killed; not replaced when it ends */
    SLOT_PHASE_FAILING,  /* is ending unasked; replaced when it has ended */
    SLOT_PHASE_BACKOFF,  /* no worker; the next start waits for its time */
    SLOT_PHASES
};

enum slot_event {
    SLOT_EVENT_START,       /* a worker is wanted here */
    SLOT_EVENT_FORKED,
    SLOT_EVENT_FORK_FAILED,
    SLOT_EVENT_READY,       /* the worker said so */
    SLOT_EVENT_FAILED,      /* the worker said that it cannot start */
    SLOT_EVENT_LINK_LOST,   /* its end of the control pair is closed: it is ending */
    SLOT_EVENT_EXIT,        /* the process is gone */
    SLOT_EVENT_DRAIN,
    SLOT_EVENT_STOP,
    SLOT_EVENT_TIMER,       /* the phase took as long as it may */
    SLOT_EVENT_HUNG,        /* no heartbeat */
    SLOT_EVENTS
};

enum slot_action {
    SLOT_DO_NOTHING,
    SLOT_DO_FORK,         /* and report FORKED or FORK_FAILED */
    SLOT_DO_WATCH,        /* a new process: timer for its start */
    SLOT_DO_TELL_READY,
    SLOT_DO_AWAIT_END,    /* timer for its end */
    SLOT_DO_SEND_DRAIN,   /* and timer for the drain */
    SLOT_DO_SEND_STOP,    /* and timer for the stop */
    SLOT_DO_KILL,         /* SIGKILL, and timer to do it once more */
    SLOT_DO_BACK_OFF,     /* the fork failed: timer for the next try */
    SLOT_DO_COUNT_LOSS,   /* it died unasked: log, clean its column, timer for the next start */
    SLOT_DO_RETIRE,       /* it ended as asked: log, clean its column */
    SLOT_DO_FORGET,       /* nothing was running: cancel the timer */
    SLOT_DO_REPORT_BUG,   /* cannot happen: log it, and go on */
};

struct slot_step {
    enum slot_phase phase; /* from now on */
    enum slot_action action;
};

struct slot_step slots_step(enum slot_phase phase, enum slot_event event);

/* How long a start waits: 0 after a worker that had lived long enough, else 100 ms doubled with
 * each young death before this one, 10 s at most. */
#define SLOTS_YOUNG_MS 5000
#define SLOTS_BACKOFF_MIN_MS 100
#define SLOTS_BACKOFF_MAX_MS 10000
int64_t slots_backoff_ms(uint32_t young_deaths);

/* Of what a worker died. status: as waitpid(2) gives it. */
enum slot_death {
    SLOT_DEATH_NONE,    /* it ended as asked, or was killed because it did not in time */
    SLOT_DEATH_KILLED,  /* SIGKILL that was not ours */
    SLOT_DEATH_CRASHED, /* another signal */
    SLOT_DEATH_HUNG,    /* killed by us: its loop did not turn, or it was not ready in time */
    SLOT_DEATH_OTHER    /* it ended by itself */
};
enum slot_death slots_death(enum slot_phase phase, int status, bool was_hung, bool was_killed);

/* What the shared memory says of a slot in this phase. */
enum slot_state slots_shared_state(enum slot_phase phase);
/* Lower-case words for logs and status. */
const char *slots_phase_name(enum slot_phase phase);
const char *slots_event_name(enum slot_event event);

#endif
