#include "config.h"

#include "src/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/ipc.h"
#include "shared/log.h"
#include "src/spawn.h"

#define TICK_S 1.0
#define RECEIVE_BATCH 16
#define REASON_BYTES 256

struct slot {
    struct supervisor *owner;
    uint32_t index;
    enum slot_phase phase;
    const struct generation *generation; /* NULL when empty */
    uint32_t place;
    bool is_foreign; /* empty here, and in use by another master */
    pid_t pid;      /* 0: no process */
    int control_fd; /* -1: none */
    struct ev_child child;
    struct ev_io control;
    struct ev_timer timer;
    int64_t forked_at_ms;
    bool was_ready;        /* this process */
    bool told_reason;      /* this process said FAILED */
    bool was_hung;         /* this process was killed for it */
    bool was_killed;       /* this process was killed by us */
    uint32_t young_deaths; /* in a row */
    uint32_t start_deaths; /* before READY, in a row */
    struct control_drain drain;
    uint32_t unsent; /* bits of enum control_type: the pair was full */
    int *ends;       /* of hand-over links, to go with DRAIN or TAKE */
    uint32_t end_count;
    char reason[REASON_BYTES];
};

struct supervisor {
    struct ev_loop *loop;
    struct supervisor_shared shared;
    struct supervisor_events events;
    void *data;
    struct ev_timer tick;
    int64_t last_tick_ms;
    int64_t heartbeats_since_ms; /* earlier silence is not the workers' fault */
    bool has_orphans; /* foreign slots whose master is gone */
    uint32_t slot_count;
    struct slot slots[];
};

static void handle(struct slot *slot, enum slot_event event);
static void reap_orphans(struct supervisor *s);

/* ---- what a phase's end wants ---- */

static void set_timer(struct slot *slot, double after_s)
{
    ev_timer_stop(slot->owner->loop, &slot->timer);
    ev_timer_set(&slot->timer, after_s, 0.0);
    ev_timer_start(slot->owner->loop, &slot->timer);
}

static void store_shared(const struct slot *slot)
{
    struct counters_slot *c = &slot->owner->shared.counters->slots[slot->index];
    uint32_t number = slot->generation ? slot->generation->number : 0;
    __atomic_store_n(&c->pid, (uint32_t)slot->pid, __ATOMIC_RELAXED);
    __atomic_store_n(&c->generation, number, __ATOMIC_RELAXED);
    __atomic_store_n(&c->state, (uint32_t)slots_shared_state(slot->phase), __ATOMIC_RELAXED);
}

/* ---- ends of hand-over links ---- */

static void drop_ends(struct slot *slot, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        close(slot->ends[i]);
    slot->end_count -= count;
    if (slot->end_count) {
        memmove(slot->ends, slot->ends + count, slot->end_count * sizeof(*slot->ends));
        return;
    }
    free(slot->ends);
    slot->ends = NULL;
}

static int add_ends(struct slot *slot, const int *fds, uint32_t count)
{
    int *ends = realloc(slot->ends, (slot->end_count + count) * sizeof(*ends));
    if (!ends)
        return -ENOMEM;
    slot->ends = ends;
    memcpy(ends + slot->end_count, fds, count * sizeof(*ends));
    slot->end_count += count;
    return 0;
}

static void close_control(struct slot *slot)
{
    drop_ends(slot, slot->end_count);
    if (slot->control_fd < 0)
        return;
    ev_io_stop(slot->owner->loop, &slot->control);
    close(slot->control_fd);
    slot->control_fd = -1;
    slot->unsent = 0;
}

/* Everything a dead worker leaves in shared memory. */
static void clean_column(struct slot *slot)
{
    const struct supervisor_shared *shared = &slot->owner->shared;
    counters_retire(shared->counters, slot->index);
    usertable_sweep(shared->users, slot->index);
    usertable_sweep(shared->addresses, slot->index);
}

/* ---- messages ---- */

/* What goes along with a message of this type. */
static size_t fds_of(const struct slot *slot, enum control_type type, int *one, const int **fds)
{
    *fds = slot->ends;
    if (type == CONTROL_LOG || type == CONTROL_KEYS) {
        *one = type == CONTROL_LOG ? log_fd() : slot->generation->jwks_fd;
        *fds = one;
        return *one >= 0;
    }
    if (type != CONTROL_DRAIN && type != CONTROL_TAKE)
        return 0;
    return slot->end_count < IPC_FDS_MAX ? slot->end_count : IPC_FDS_MAX;
}

static void send_control(struct slot *slot, enum control_type type)
{
    int one;
    const int *fds;
    if (slot->control_fd < 0)
        return;
    struct control_log how = {log_present_level(), log_present_format()};
    const void *body = NULL;
    size_t len = 0;
    if (type == CONTROL_DRAIN) {
        body = &slot->drain;
        len = sizeof(slot->drain);
    } else if (type == CONTROL_LOG) {
        body = &how;
        len = sizeof(how);
    } else if (type == CONTROL_TICKETS) {
        body = slot->owner->shared.tickets;
        len = sizeof(struct tickets);
    }
    size_t count = fds_of(slot, type, &one, &fds);
    int error = ipc_send_fds(slot->control_fd, type, body, len, fds, count);
    slot->unsent &= ~(1u << type);
    if (error == -EAGAIN) {
        slot->unsent |= 1u << type;
        return;
    }
    if (error) /* it is ending; its link tells next */
        log_debug("control-send-failed", "slot", LOG_INT(slot->index), "message",
                  control_name(type), "error", log_errno(error));
    if (type == CONTROL_DRAIN || type == CONTROL_TAKE)
        drop_ends(slot, (uint32_t)count);
    if (type == CONTROL_TAKE && slot->end_count)
        slot->unsent |= 1u << type;
}

static void send_unsent(struct slot *slot)
{
    for (enum control_type type = CONTROL_NONE; slot->unsent && type < CONTROL_TYPES; type++)
        if (slot->unsent & (1u << type))
            send_control(slot, type);
}

static void take_message(struct slot *slot, struct ipc_message *m)
{
    ipc_close_fds(m); /* no message of a worker has one yet */
    switch (m->type) {
    case CONTROL_READY:
        handle(slot, SLOT_EVENT_READY);
        break;
    case CONTROL_FAILED:
        slot->told_reason = true;
        snprintf(slot->reason, sizeof(slot->reason), "%.*s", (int)m->body_len,
                 (const char *)m->body);
        handle(slot, SLOT_EVENT_FAILED);
        break;
    case CONTROL_DRAINED:
        log_debug("worker-drained", "slot", LOG_INT(slot->index));
        break;
    case CONTROL_TOLD:
    case CONTROL_ASKED:
    case CONTROL_INQUIRE:
        slot->owner->events.on_message(slot->owner->data, slot->index, m->type, m->body,
                                       m->body_len);
        break;
    default:
        log_warning("control-unexpected", "slot", LOG_INT(slot->index), "message",
                    control_name(m->type));
    }
}

static void on_control(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct slot *slot = io->data;
    struct ipc_message m;
    (void)loop;
    (void)events;
    for (int i = 0; i < RECEIVE_BATCH && slot->control_fd >= 0; i++) {
        int got = ipc_recv(slot->control_fd, &m);
        if (!got)
            return;
        if (got < 0) {
            if (got != -EPIPE)
                log_warning("control-broken", "slot", LOG_INT(slot->index), "error",
                            log_errno(got));
            close_control(slot);
            handle(slot, SLOT_EVENT_LINK_LOST);
            return;
        }
        take_message(slot, &m);
    }
}

/* ---- processes ---- */

/* What it was doing when it died, as it left it in the shared memory. */
static void log_last_words(const struct slot *slot, const char *cause)
{
    const struct counters_slot *c = &slot->owner->shared.counters->slots[slot->index];
    uint64_t serial = __atomic_load_n(&c->doing_serial, __ATOMIC_RELAXED);
    char id[TRACE_CONNECTION_BYTES] = "";
    if (serial)
        trace_connection(slot->owner->shared.instance_id, serial, id);
    log_error("worker-last-words", "slot", LOG_INT(slot->index), "pid", LOG_INT(slot->pid), "cause",
              cause, "doing", counters_doing_words(__atomic_load_n(&c->doing, __ATOMIC_RELAXED)),
              "conn", *id ? id : "none");
}

/* Counts a death where only the master can, and tells what is known of it. */
static void note_death(const struct slot *slot, int status)
{
    static const struct {
        enum counter counter;
        const char *cause;
    } deaths[] = {[SLOT_DEATH_KILLED] = {CTR_worker_deaths_killed, "SIGKILL from outside"},
                  [SLOT_DEATH_CRASHED] = {CTR_worker_deaths_crashed, "a signal"},
                  [SLOT_DEATH_HUNG] = {CTR_worker_deaths_hung, "it hung"},
                  [SLOT_DEATH_OTHER] = {CTR_worker_deaths_other, "it ended by itself"}};
    enum slot_death death =
        slots_death(slot->phase, status, slot->was_hung, slot->was_killed);
    if (death == SLOT_DEATH_NONE)
        return;
    counters_add_for_dead(slot->owner->shared.counters, slot->index, deaths[death].counter, 1);
    const char *name = death == SLOT_DEATH_CRASHED ? sigabbrev_np(WTERMSIG(status)) : NULL;
    log_last_words(slot, name ? name : deaths[death].cause);
}

static void log_exit(const struct slot *slot, int status, bool is_expected)
{
    log_event(is_expected ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "worker-ended", "slot",
              LOG_INT(slot->index), "pid", LOG_INT(slot->pid), "generation",
              LOG_INT(slot->generation->number), LOG_ENDED(status), "expected",
              LOG_BOOL(is_expected), "lived_ms", LOG_INT(clock_mono_ms() - slot->forked_at_ms),
              (char *)NULL);
}

static void on_child(struct ev_loop *loop, struct ev_child *child, int events)
{
    struct slot *slot = child->data;
    (void)events;
    ev_child_stop(loop, child);
    /* Its last words may still be in the pair. */
    if (slot->control_fd >= 0)
        on_control(loop, &slot->control, EV_READ);
    close_control(slot);
    log_exit(slot, child->rstatus,
             slot->phase == SLOT_PHASE_DRAINING || slot->phase == SLOT_PHASE_STOPPING);
    note_death(slot, child->rstatus);
    if (!*slot->reason)
        snprintf(slot->reason, sizeof(slot->reason), "a worker ended before it was ready (%s %d)",
                 WIFSIGNALED(child->rstatus) ? "signal" : "status",
                 WIFSIGNALED(child->rstatus) ? WTERMSIG(child->rstatus)
                                             : WEXITSTATUS(child->rstatus));
    handle(slot, SLOT_EVENT_EXIT);
}

/* Forks the slot's worker. 0 or negative errno. */
static int fork_worker(struct slot *slot)
{
    struct supervisor *s = slot->owner;
    const struct generation *g = slot->generation;
    bool is_tls = g->tls_certificate_pem != NULL;
    size_t count = listeners_of_worker(g->listeners, slot->place, g->workers, is_tls, NULL, 0);
    struct worker_listener *listeners = calloc(count ? count : 1, sizeof(*listeners));
    int pair[2], pid = -ENOMEM;
    if (!listeners)
        return pid;
    listeners_of_worker(g->listeners, slot->place, g->workers, is_tls, listeners, count);
    pid = ipc_pair(pair);
    if (pid) {
        free(listeners);
        return pid;
    }
    struct worker_start start = {.opt = g->opt,
                                 .counters = s->shared.counters,
                                 .trace = s->shared.trace,
                                 .users = s->shared.users,
                                 .addresses = s->shared.addresses,
                                 .token_keys = g->token_keys,
                                 .keys = &g->keys,
                                 .redis = &g->redis,
                                 .listeners = listeners,
                                 .listener_count = count,
                                 .instance_id = s->shared.instance_id,
                                 .pages = s->shared.pages,
                                 .is_dev = s->shared.is_dev,
                                 .tls_certificate_pem = g->tls_certificate_pem,
                                 .tls_key_pem = g->tls_key_pem,
                                 .tickets = s->shared.tickets,
                                 .slot = slot->index,
                                 .control_fd = pair[1]};
    struct spawn spawn = {&start, s->shared.privileges, s->events.leave_loop, s->data};
    pid = spawn_worker(&spawn);
    free(listeners);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return pid;
    }
    slot->pid = pid;
    slot->control_fd = pair[0];
    return 0;
}

static void do_fork(struct slot *slot)
{
    slot->reason[0] = '\0';
    slot->was_ready = slot->told_reason = slot->was_hung = slot->was_killed = false;
    /* Of the dead worker before; the new one writes it from its first turn on. */
    struct counters_slot *c = &slot->owner->shared.counters->slots[slot->index];
    __atomic_store_n(&c->heartbeat_ms, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&c->doing_serial, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&c->doing, DOING_NOTHING, __ATOMIC_RELAXED);
    int error = fork_worker(slot);
    if (error) {
        log_warning("fork-failed", "slot", LOG_INT(slot->index), "error", log_errno(error));
        snprintf(slot->reason, sizeof(slot->reason), "cannot start a worker: %s",
                 log_errno(error));
    }
    handle(slot, error ? SLOT_EVENT_FORK_FAILED : SLOT_EVENT_FORKED);
}

static void do_watch(struct slot *slot)
{
    struct ev_loop *loop = slot->owner->loop;
    slot->forked_at_ms = clock_mono_ms();
    ev_child_set(&slot->child, slot->pid, 0);
    ev_child_start(loop, &slot->child);
    ev_io_set(&slot->control, slot->control_fd, EV_READ);
    ev_io_start(loop, &slot->control);
    set_timer(slot, SUPERVISOR_START_S);
    log_info("worker-started", "slot", LOG_INT(slot->index), "pid", LOG_INT(slot->pid),
             "generation", LOG_INT(slot->generation->number));
}

static void do_kill(struct slot *slot, enum slot_event event)
{
    const char *cause = event == SLOT_EVENT_HUNG ? "no heartbeat" : "out of time";
    log_warning("worker-killed", "slot", LOG_INT(slot->index), "pid", LOG_INT(slot->pid), "cause",
                cause);
    if (!*slot->reason && !slot->was_ready)
        snprintf(slot->reason, sizeof(slot->reason), "a worker was not ready within %d s",
                 (int)SUPERVISOR_START_S);
    slot->was_killed = true;
    slot->was_hung = slot->was_hung || event == SLOT_EVENT_HUNG || !slot->was_ready;
    kill(slot->pid, SIGKILL);
    set_timer(slot, SUPERVISOR_END_S);
}

static void tell_start_failed(struct slot *slot)
{
    struct supervisor *s = slot->owner;
    s->events.on_start_failed(s->data, slot->generation->number, ++slot->start_deaths,
                              slot->told_reason, slot->reason);
}

static void do_back_off(struct slot *slot)
{
    set_timer(slot, (double)slots_backoff_ms(++slot->young_deaths) / 1e3);
    tell_start_failed(slot);
}

static void do_count_loss(struct slot *slot)
{
    struct supervisor *s = slot->owner;
    bool was_young = clock_mono_ms() - slot->forked_at_ms < SLOTS_YOUNG_MS;
    uint32_t *restarts = &s->shared.counters->slots[slot->index].restarts;
    __atomic_store_n(restarts, *restarts + 1, __ATOMIC_RELAXED);
    slot->young_deaths = was_young ? slot->young_deaths + 1 : 0;
    clean_column(slot);
    slot->pid = 0;
    store_shared(slot);
    int64_t wait_ms = slots_backoff_ms(slot->young_deaths);
    log_notice("worker-restart", "slot", LOG_INT(slot->index), "in_ms", LOG_INT(wait_ms));
    set_timer(slot, (double)wait_ms / 1e3);
    if (!slot->was_ready)
        tell_start_failed(slot);
}

static void do_retire(struct slot *slot)
{
    struct supervisor *s = slot->owner;
    ev_timer_stop(s->loop, &slot->timer);
    if (slot->pid)
        clean_column(slot);
    slot->pid = 0;
    slot->generation = NULL;
    slot->young_deaths = slot->start_deaths = 0;
    store_shared(slot);
    s->events.on_gone(s->data);
}

static void do_tell_ready(struct slot *slot)
{
    struct supervisor *s = slot->owner;
    ev_timer_stop(s->loop, &slot->timer);
    slot->was_ready = true;
    slot->start_deaths = 0;
    log_debug("worker-is-ready", "slot", LOG_INT(slot->index), "pid", LOG_INT(slot->pid),
             "generation", LOG_INT(slot->generation->number), "after_ms",
             LOG_INT(clock_mono_ms() - slot->forked_at_ms));
    if (slot->generation->is_serving)
        send_control(slot, CONTROL_SERVE);
    s->events.on_ready(s->data, slot->generation->number);
}

static void act(struct slot *slot, enum slot_action action, enum slot_event event)
{
    switch (action) {
    case SLOT_DO_NOTHING:
        break;
    case SLOT_DO_FORK:
        do_fork(slot);
        break;
    case SLOT_DO_WATCH:
        do_watch(slot);
        break;
    case SLOT_DO_TELL_READY:
        do_tell_ready(slot);
        break;
    case SLOT_DO_AWAIT_END:
        set_timer(slot, SUPERVISOR_END_S);
        break;
    case SLOT_DO_SEND_DRAIN:
        send_control(slot, CONTROL_DRAIN);
        set_timer(slot, (double)slot->drain.over_ms / 1e3 + SUPERVISOR_DRAIN_EXTRA_S);
        break;
    case SLOT_DO_SEND_STOP:
        send_control(slot, CONTROL_STOP);
        set_timer(slot, SUPERVISOR_STOP_S);
        break;
    case SLOT_DO_KILL:
        do_kill(slot, event);
        break;
    case SLOT_DO_BACK_OFF:
        do_back_off(slot);
        break;
    case SLOT_DO_COUNT_LOSS:
        do_count_loss(slot);
        break;
    case SLOT_DO_RETIRE:
    case SLOT_DO_FORGET:
        do_retire(slot);
        break;
    case SLOT_DO_REPORT_BUG:
        log_error("slot-bug", "slot", LOG_INT(slot->index), "phase", slots_phase_name(slot->phase),
                  "happened", slots_event_name(event));
        break;
    }
}

static void handle(struct slot *slot, enum slot_event event)
{
    struct slot_step step = slots_step(slot->phase, event);
    slot->phase = step.phase;
    if (slot->pid) /* what has no process is told once it is cleaned */
        store_shared(slot);
    act(slot, step.action, event);
}

/* ---- time ---- */

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    handle(timer->data, SLOT_EVENT_TIMER);
}

/* For how long a worker's loop has not turned, as far as it is the worker's fault. */
static int64_t silence_ms(const struct supervisor *s, const struct slot *slot, int64_t now_ms)
{
    const uint64_t *heartbeat = &s->shared.counters->slots[slot->index].heartbeat_ms;
    int64_t last_ms = (int64_t)__atomic_load_n(heartbeat, __ATOMIC_RELAXED);
    if (last_ms < s->heartbeats_since_ms)
        last_ms = s->heartbeats_since_ms;
    if (last_ms < slot->forked_at_ms)
        last_ms = slot->forked_at_ms;
    return now_ms - last_ms;
}

static bool is_hung(const struct supervisor *s, const struct slot *slot, int64_t now_ms)
{
    return (slot->phase == SLOT_PHASE_READY || slot->phase == SLOT_PHASE_DRAINING) &&
           silence_ms(s, slot, now_ms) > (int64_t)(SUPERVISOR_HEARTBEAT_S * 1e3);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct supervisor *s = timer->data;
    int64_t now_ms = clock_mono_ms();
    (void)loop;
    (void)events;
    /* When we were held up ourselves (a stopped process group, a paused machine), the workers were,
     * too. */
    if (now_ms - s->last_tick_ms > (int64_t)(5 * TICK_S * 1e3))
        s->heartbeats_since_ms = now_ms;
    s->last_tick_ms = now_ms;
    for (uint32_t i = 0; i < s->slot_count; i++) {
        send_unsent(&s->slots[i]);
        if (is_hung(s, &s->slots[i], now_ms))
            handle(&s->slots[i], SLOT_EVENT_HUNG);
    }
    if (s->has_orphans)
        reap_orphans(s);
}

/* ---- orders ---- */

static bool belongs(const struct slot *slot, uint32_t generation)
{
    return slot->generation && slot->generation->number == generation;
}

static bool is_free(const struct slot *slot)
{
    return slot->phase == SLOT_PHASE_EMPTY && !slot->is_foreign;
}

int supervisor_start(struct supervisor *s, const struct generation *g)
{
    uint32_t place = 0, free_slots = 0;
    for (uint32_t i = 0; i < s->slot_count; i++)
        free_slots += is_free(&s->slots[i]);
    if (free_slots < g->workers)
        return -ENOSPC;
    for (uint32_t i = 0; i < s->slot_count && place < g->workers; i++) {
        struct slot *slot = &s->slots[i];
        if (!is_free(slot))
            continue;
        slot->generation = g;
        slot->place = place++;
    }
    /* Only now: a start that fails at once may call back and end the whole generation. */
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].generation == g && s->slots[i].phase == SLOT_PHASE_EMPTY)
            handle(&s->slots[i], SLOT_EVENT_START);
    return 0;
}

void supervisor_serve(struct supervisor *s, const struct generation *g)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].generation == g && s->slots[i].phase == SLOT_PHASE_READY)
            send_control(&s->slots[i], CONTROL_SERVE);
}

/* A slot that was meant for the generation and has not even been tried. */
static void unassign(struct slot *slot)
{
    if (slot->phase == SLOT_PHASE_EMPTY)
        slot->generation = NULL;
}

void supervisor_drain(struct supervisor *s, uint32_t generation, const struct control_drain *how)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct slot *slot = &s->slots[i];
        if (!belongs(slot, generation))
            continue;
        if (slot->phase == SLOT_PHASE_READY)
            slot->drain = *how;
        handle(slot, SLOT_EVENT_DRAIN);
        unassign(slot);
    }
}

static struct slot *ready_slot(struct supervisor *s, uint32_t index)
{
    struct slot *slot = index < s->slot_count ? &s->slots[index] : NULL;
    return slot && slot->phase == SLOT_PHASE_READY && slot->control_fd >= 0 ? slot : NULL;
}

static int take_ends(struct slot *slot, const int *fds, uint32_t count)
{
    int error = !slot ? -ESRCH : count > IPC_FDS_MAX ? -E2BIG : 0;
    if (!error && count)
        error = add_ends(slot, fds, count);
    for (uint32_t i = 0; error && i < count; i++)
        close(fds[i]);
    return error;
}

int supervisor_give(struct supervisor *s, uint32_t index, const int *fds, uint32_t count)
{
    struct slot *slot = ready_slot(s, index);
    if (slot && (slot->unsent & (1u << CONTROL_TAKE))) { /* too late: it gives now */
        slot->unsent &= ~(1u << CONTROL_TAKE);
        drop_ends(slot, slot->end_count);
    }
    return take_ends(slot, fds, count);
}

int supervisor_take(struct supervisor *s, uint32_t index, int fd)
{
    struct slot *slot = ready_slot(s, index);
    int error = take_ends(slot, &fd, 1);
    if (!error)
        send_control(slot, CONTROL_TAKE);
    return error;
}

void supervisor_stop(struct supervisor *s, uint32_t generation)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        if (!belongs(&s->slots[i], generation))
            continue;
        handle(&s->slots[i], SLOT_EVENT_STOP);
        unassign(&s->slots[i]);
    }
}

void supervisor_stop_all(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        handle(&s->slots[i], SLOT_EVENT_STOP);
        unassign(&s->slots[i]);
    }
}

void supervisor_drain_all(struct supervisor *s, const struct control_drain *how)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].generation)
            supervisor_drain(s, s->slots[i].generation->number, how);
}

void supervisor_send_log(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        send_control(&s->slots[i], CONTROL_LOG);
}

void supervisor_send_tickets(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        send_control(&s->slots[i], CONTROL_TICKETS);
}

void supervisor_send_left(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        send_control(&s->slots[i], CONTROL_LEFT);
}

void supervisor_send_keys(struct supervisor *s, const struct generation *g)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].generation == g)
            send_control(&s->slots[i], CONTROL_KEYS);
}

int supervisor_send(struct supervisor *s, uint32_t index, enum control_type type, const void *body,
                    size_t len)
{
    return supervisor_send_fd(s, index, type, body, len, -1);
}

int supervisor_send_fd(struct supervisor *s, uint32_t index, enum control_type type,
                       const void *body, size_t len, int fd)
{
    const struct slot *slot = index < s->slot_count ? &s->slots[index] : NULL;
    if (!slot || slot->control_fd < 0 ||
        (slot->phase != SLOT_PHASE_READY && slot->phase != SLOT_PHASE_DRAINING))
        return -ESRCH;
    return ipc_send(slot->control_fd, type, body, len, fd);
}

/* ---- another master on the same shared memory ---- */

void supervisor_slots(const struct supervisor *s, uint8_t *bits)
{
    memset(bits, 0, COUNTERS_MAX_SLOTS / 8);
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (!is_free(&s->slots[i]))
            bits[i / 8] |= (uint8_t)(1u << i % 8);
}

void supervisor_set_foreign(struct supervisor *s, const uint8_t *bits)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        s->slots[i].is_foreign =
            s->slots[i].phase == SLOT_PHASE_EMPTY && bits[i / 8] & 1u << i % 8;
}

void supervisor_take_orphans(struct supervisor *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++) {
        const uint32_t *pid = &s->shared.counters->slots[i].pid;
        s->slots[i].is_foreign = s->slots[i].phase == SLOT_PHASE_EMPTY &&
                                 __atomic_load_n(pid, __ATOMIC_RELAXED);
        s->has_orphans = s->has_orphans || s->slots[i].is_foreign;
    }
}

/* They are nobody's children here, so the end of one is looked for. */
static void reap_orphans(struct supervisor *s)
{
    s->has_orphans = false;
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct slot *slot = &s->slots[i];
        if (!slot->is_foreign)
            continue;
        pid_t pid = (pid_t)s->shared.counters->slots[i].pid;
        if (pid <= 0 || (kill(pid, 0) < 0 && errno == ESRCH)) {
            clean_column(slot);
            slot->is_foreign = false;
            log_info("orphan-gone", "slot", LOG_INT(i), "pid", LOG_INT(pid));
            s->events.on_gone(s->data);
        } else {
            s->has_orphans = true;
        }
    }
}

/* ---- questions ---- */

uint32_t supervisor_count(const struct supervisor *s, uint32_t generation, enum slot_phase phase)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slot_count; i++)
        n += s->slots[i].phase == phase && belongs(&s->slots[i], generation);
    return n;
}

uint32_t supervisor_list(const struct supervisor *s, uint32_t generation, enum slot_phase phase,
                         uint32_t *slots, uint32_t max)
{
    uint32_t n = 0, places = 0;
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (belongs(&s->slots[i], generation) && s->slots[i].place >= places)
            places = s->slots[i].place + 1;
    for (uint32_t place = 0; place < places; place++)
        for (uint32_t i = 0; i < s->slot_count && n < max; i++)
            if (belongs(&s->slots[i], generation) && s->slots[i].phase == phase &&
                s->slots[i].place == place)
                slots[n++] = i;
    return n;
}

bool supervisor_has(const struct supervisor *s, const struct generation *g)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].generation == g)
            return true;
    return false;
}

uint32_t supervisor_in_use(const struct supervisor *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slot_count; i++)
        n += s->slots[i].phase != SLOT_PHASE_EMPTY;
    return n;
}

bool supervisor_is_empty(const struct supervisor *s)
{
    return !supervisor_in_use(s);
}

bool supervisor_is_silent(const struct supervisor *s, int64_t for_ms)
{
    uint32_t ready = 0, silent = 0;
    int64_t now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < s->slot_count; i++) {
        bool is_ready = s->slots[i].phase == SLOT_PHASE_READY;
        ready += is_ready;
        silent += is_ready && silence_ms(s, &s->slots[i], now_ms) > for_ms;
    }
    return ready && silent == ready;
}

uint64_t supervisor_restarts(const struct supervisor *s)
{
    return counters_restarts(s->shared.counters);
}

bool supervisor_worker(const struct supervisor *s, uint32_t index, struct supervisor_worker *out)
{
    const struct slot *slot = index < s->slot_count ? &s->slots[index] : NULL;
    if (!slot || slot->phase == SLOT_PHASE_EMPTY)
        return false;
    *out = (struct supervisor_worker){.slot = index,
                                      .place = slot->place,
                                      .generation = slot->generation->number,
                                      .restarts = s->shared.counters->slots[index].restarts,
                                      .pid = slot->pid,
                                      .phase = slot->phase,
                                      .uptime_ms = slot->pid ? clock_mono_ms() - slot->forked_at_ms
                                                             : 0};
    return true;
}

/* ---- life ---- */

static void init_slot(struct supervisor *s, uint32_t index)
{
    struct slot *slot = &s->slots[index];
    slot->owner = s;
    slot->index = index;
    slot->control_fd = -1;
    ev_child_init(&slot->child, on_child, 0, 0);
    ev_io_init(&slot->control, on_control, -1, EV_READ);
    ev_timer_init(&slot->timer, on_timer, 0.0, 0.0);
    slot->child.data = slot->control.data = slot->timer.data = slot;
}

struct supervisor *supervisor_new(struct ev_loop *loop, const struct supervisor_shared *shared,
                                  const struct supervisor_events *events, void *data)
{
    uint32_t count = shared->counters->head->slots;
    struct supervisor *s = calloc(1, sizeof(*s) + count * sizeof(struct slot));
    if (!s)
        return NULL;
    s->loop = loop;
    s->shared = *shared;
    s->events = *events;
    s->data = data;
    s->slot_count = count;
    for (uint32_t i = 0; i < count; i++)
        init_slot(s, i);
    s->last_tick_ms = clock_mono_ms();
    ev_timer_init(&s->tick, on_tick, TICK_S, TICK_S);
    s->tick.data = s;
    ev_timer_start(loop, &s->tick);
    return s;
}

void supervisor_free(struct supervisor *s)
{
    if (!s)
        return;
    ev_timer_stop(s->loop, &s->tick);
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct slot *slot = &s->slots[i];
        ev_timer_stop(s->loop, &slot->timer);
        ev_child_stop(s->loop, &slot->child);
        close_control(slot);
    }
    free(s);
}
