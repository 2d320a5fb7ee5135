#include "config.h"

#include "src/slots.h"

#include <signal.h>
#include <sys/wait.h>

/* One row for each phase; columns in the order of enum slot_event. Short names keep a row
 * readable. */
#define TO(phase_, action_) {SLOT_PHASE_##phase_, SLOT_DO_##action_}

static const struct slot_step steps[SLOT_PHASES][SLOT_EVENTS] = {
    [SLOT_PHASE_EMPTY] = {
        [SLOT_EVENT_START] = TO(EMPTY, FORK),
        [SLOT_EVENT_FORKED] = TO(STARTING, WATCH),
        [SLOT_EVENT_FORK_FAILED] = TO(BACKOFF, BACK_OFF),
        [SLOT_EVENT_READY] = TO(EMPTY, REPORT_BUG),
        [SLOT_EVENT_FAILED] = TO(EMPTY, REPORT_BUG),
        [SLOT_EVENT_LINK_LOST] = TO(EMPTY, REPORT_BUG),
        [SLOT_EVENT_EXIT] = TO(EMPTY, REPORT_BUG),
        [SLOT_EVENT_DRAIN] = TO(EMPTY, NOTHING),
        [SLOT_EVENT_STOP] = TO(EMPTY, NOTHING),
        [SLOT_EVENT_TIMER] = TO(EMPTY, REPORT_BUG),
        [SLOT_EVENT_HUNG] = TO(EMPTY, REPORT_BUG),
    },
    [SLOT_PHASE_STARTING] = {
        [SLOT_EVENT_START] = TO(STARTING, REPORT_BUG),
        [SLOT_EVENT_FORKED] = TO(STARTING, REPORT_BUG),
        [SLOT_EVENT_FORK_FAILED] = TO(STARTING, REPORT_BUG),
        [SLOT_EVENT_READY] = TO(READY, TELL_READY),
        [SLOT_EVENT_FAILED] = TO(FAILING, AWAIT_END),
        [SLOT_EVENT_LINK_LOST] = TO(FAILING, AWAIT_END),
        [SLOT_EVENT_EXIT] = TO(BACKOFF, COUNT_LOSS),
        /* It has no client yet: nothing to drain. */
        [SLOT_EVENT_DRAIN] = TO(STOPPING, SEND_STOP),
        [SLOT_EVENT_STOP] = TO(STOPPING, SEND_STOP),
        [SLOT_EVENT_TIMER] = TO(FAILING, KILL),
        [SLOT_EVENT_HUNG] = TO(FAILING, KILL),
    },
    [SLOT_PHASE_READY] = {
        [SLOT_EVENT_START] = TO(READY, REPORT_BUG),
        [SLOT_EVENT_FORKED] = TO(READY, REPORT_BUG),
        [SLOT_EVENT_FORK_FAILED] = TO(READY, REPORT_BUG),
        [SLOT_EVENT_READY] = TO(READY, NOTHING),
        [SLOT_EVENT_FAILED] = TO(FAILING, AWAIT_END),
        /* Killing at once would cut short a worker that is just writing its core or its
         * coverage. */
        [SLOT_EVENT_LINK_LOST] = TO(FAILING, AWAIT_END),
        [SLOT_EVENT_EXIT] = TO(BACKOFF, COUNT_LOSS),
        [SLOT_EVENT_DRAIN] = TO(DRAINING, SEND_DRAIN),
        [SLOT_EVENT_STOP] = TO(STOPPING, SEND_STOP),
        [SLOT_EVENT_TIMER] = TO(READY, REPORT_BUG),
        [SLOT_EVENT_HUNG] = TO(FAILING, KILL),
    },
    [SLOT_PHASE_DRAINING] = {
        [SLOT_EVENT_START] = TO(DRAINING, REPORT_BUG),
        [SLOT_EVENT_FORKED] = TO(DRAINING, REPORT_BUG),
        [SLOT_EVENT_FORK_FAILED] = TO(DRAINING, REPORT_BUG),
        [SLOT_EVENT_READY] = TO(DRAINING, NOTHING),
        [SLOT_EVENT_FAILED] = TO(DRAINING, NOTHING),
        [SLOT_EVENT_LINK_LOST] = TO(DRAINING, NOTHING),
        [SLOT_EVENT_EXIT] = TO(EMPTY, RETIRE),
        [SLOT_EVENT_DRAIN] = TO(DRAINING, NOTHING),
        [SLOT_EVENT_STOP] = TO(STOPPING, SEND_STOP),
        [SLOT_EVENT_TIMER] = TO(STOPPING, KILL),
        [SLOT_EVENT_HUNG] = TO(STOPPING, KILL),
    },
    [SLOT_PHASE_STOPPING] = {
        [SLOT_EVENT_START] = TO(STOPPING, REPORT_BUG),
        [SLOT_EVENT_FORKED] = TO(STOPPING, REPORT_BUG),
        [SLOT_EVENT_FORK_FAILED] = TO(STOPPING, REPORT_BUG),
        [SLOT_EVENT_READY] = TO(STOPPING, NOTHING),
        [SLOT_EVENT_FAILED] = TO(STOPPING, NOTHING),
        [SLOT_EVENT_LINK_LOST] = TO(STOPPING, NOTHING),
        [SLOT_EVENT_EXIT] = TO(EMPTY, RETIRE),
        [SLOT_EVENT_DRAIN] = TO(STOPPING, NOTHING),
        [SLOT_EVENT_STOP] = TO(STOPPING, NOTHING),
        [SLOT_EVENT_TIMER] = TO(STOPPING, KILL),
        [SLOT_EVENT_HUNG] = TO(STOPPING, KILL),
    },
    [SLOT_PHASE_FAILING] = {
        [SLOT_EVENT_START] = TO(FAILING, REPORT_BUG),
        [SLOT_EVENT_FORKED] = TO(FAILING, REPORT_BUG),
        [SLOT_EVENT_FORK_FAILED] = TO(FAILING, REPORT_BUG),
        [SLOT_EVENT_READY] = TO(FAILING, NOTHING),
        [SLOT_EVENT_FAILED] = TO(FAILING, NOTHING),
        [SLOT_EVENT_LINK_LOST] = TO(FAILING, NOTHING),
        [SLOT_EVENT_EXIT] = TO(BACKOFF, COUNT_LOSS),
        [SLOT_EVENT_DRAIN] = TO(STOPPING, SEND_STOP),
        [SLOT_EVENT_STOP] = TO(STOPPING, SEND_STOP),
        [SLOT_EVENT_TIMER] = TO(FAILING, KILL),
        [SLOT_EVENT_HUNG] = TO(FAILING, KILL),
    },
    [SLOT_PHASE_BACKOFF] = {
        [SLOT_EVENT_START] = TO(BACKOFF, REPORT_BUG),
        [SLOT_EVENT_FORKED] = TO(STARTING, WATCH),
        [SLOT_EVENT_FORK_FAILED] = TO(BACKOFF, BACK_OFF),
        [SLOT_EVENT_READY] = TO(BACKOFF, REPORT_BUG),
        [SLOT_EVENT_FAILED] = TO(BACKOFF, REPORT_BUG),
        [SLOT_EVENT_LINK_LOST] = TO(BACKOFF, REPORT_BUG),
        [SLOT_EVENT_EXIT] = TO(BACKOFF, REPORT_BUG),
        [SLOT_EVENT_DRAIN] = TO(EMPTY, FORGET),
        [SLOT_EVENT_STOP] = TO(EMPTY, FORGET),
        [SLOT_EVENT_TIMER] = TO(BACKOFF, FORK),
        [SLOT_EVENT_HUNG] = TO(BACKOFF, REPORT_BUG),
    },
};

#undef TO

struct slot_step slots_step(enum slot_phase phase, enum slot_event event)
{
    return steps[phase][event];
}

int64_t slots_backoff_ms(uint32_t young_deaths)
{
    if (!young_deaths)
        return 0;
    int64_t wait_ms = SLOTS_BACKOFF_MIN_MS;
    while (--young_deaths && wait_ms < SLOTS_BACKOFF_MAX_MS)
        wait_ms *= 2;
    return wait_ms < SLOTS_BACKOFF_MAX_MS ? wait_ms : SLOTS_BACKOFF_MAX_MS;
}

enum slot_death slots_death(enum slot_phase phase, int status, bool was_hung, bool was_killed)
{
    bool is_asked = phase == SLOT_PHASE_DRAINING || phase == SLOT_PHASE_STOPPING;
    if (was_hung)
        return SLOT_DEATH_HUNG;
    if (!WIFSIGNALED(status))
        return is_asked ? SLOT_DEATH_NONE : SLOT_DEATH_OTHER;
    if (WTERMSIG(status) != SIGKILL)
        return SLOT_DEATH_CRASHED;
    return was_killed ? SLOT_DEATH_NONE : SLOT_DEATH_KILLED;
}

enum slot_state slots_shared_state(enum slot_phase phase)
{
    switch (phase) {
    case SLOT_PHASE_STARTING:
        return SLOT_STARTING;
    case SLOT_PHASE_READY:
        return SLOT_READY;
    case SLOT_PHASE_DRAINING:
        return SLOT_DRAINING;
    case SLOT_PHASE_STOPPING:
    case SLOT_PHASE_FAILING:
        return SLOT_STOPPING;
    case SLOT_PHASE_EMPTY:
    case SLOT_PHASE_BACKOFF:
    case SLOT_PHASES:
        break;
    }
    return SLOT_EMPTY;
}

const char *slots_phase_name(enum slot_phase phase)
{
    static const char *const names[SLOT_PHASES] = {
        "empty", "starting", "ready", "draining", "stopping", "failing", "backoff",
    };
    return phase < SLOT_PHASES ? names[phase] : "unknown";
}

const char *slots_event_name(enum slot_event event)
{
    static const char *const names[SLOT_EVENTS] = {
        "start", "forked", "fork-failed", "ready", "failed", "link-lost",
        "exit",  "drain",  "stop",        "timer", "hung",
    };
    return event < SLOT_EVENTS ? names[event] : "unknown";
}
