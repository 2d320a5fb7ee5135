#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "src/master_priv.h"
#include "src/notify.h"

/*
 * HUP: everything is checked and opened beside what runs; then new workers start in free slots and
 * take over the listening sockets; only when all of them are ready are the old ones told to drain.
 * Until that moment every failure leaves the old generation as it was.
 */

static void set_deadline(struct master *m, double after_s)
{
    ev_timer_stop(m->loop, &m->reload_timer);
    ev_timer_set(&m->reload_timer, after_s, 0.0);
    ev_timer_start(m->loop, &m->reload_timer);
}

static void retire(struct master *m, struct generation *g)
{
    g->older = m->retired;
    m->retired = g;
    master_shut_later(m);
}

void reload_shut(struct master *m)
{
    for (struct generation *g = m->retired; g; g = g->older) {
        listeners_free(g->listeners);
        g->listeners = NULL;
    }
}

void reload_reap(struct master *m)
{
    struct generation **at = &m->retired;
    while (*at) {
        struct generation *g = *at;
        if (supervisor_has(m->supervisor, g)) {
            at = &g->older;
            continue;
        }
        *at = g->older;
        generation_free(g);
    }
}

/* ---- the end of a reload ---- */

void reload_told(struct master *m, const char *failed, const char *message)
{
    bool ok = !failed;
    char status[300];
    m->last_reload_ms = clock_wall_ms();
    m->last_reload_ok = ok;
    text_buf_reset(&m->last_message);
    text_adds(&m->last_message, message);
    if (m->is_head_ours)
        counters_set_reload(&m->counters, m->last_reload_ms, ok, message);
    if (ok)
        pulse_text(m, status);
    else
        snprintf(status, sizeof(status), "%s%.250s", failed, message);
    for (char *p = status; *p; p++)
        if (*p == '\n')
            *p = ' ';
    if (m->state == INSTANCE_RUNNING) {
        notify_ready(status);
        pulse_said(m, status);
    }
    control_reload_done(m->control, ok, message);
    if (m->reload_again && m->state == INSTANCE_RUNNING) {
        char why[16];
        m->reload_again = false;
        reload_begin(m, why, sizeof(why));
    } else if (m->upgrade_again) {
        m->upgrade_again = false;
        upgrade_begin(m);
    }
}

static void end_reload(struct master *m, bool ok, const char *message)
{
    ev_timer_stop(m->loop, &m->reload_timer);
    reload_told(m, ok ? NULL : "reload refused: ", message);
}

/* Takes back what was begun; message may hold several lines. */
static void refuse(struct master *m, const char *message)
{
    struct generation *next = m->next;
    m->next = NULL;
    log_error("reload-refused", "reason", message, "still", "serving with the old configuration");
    master_open_log(m->current->opt);
    if (next) {
        supervisor_stop(m->supervisor, next->number);
        retire(m, next);
        reload_reap(m);
    }
    end_reload(m, false, message);
}

/* One link for each pair of an old and a new worker. Without memory or descriptors for all of them
 * fewer take, or an old worker closes its connections instead. */
static void link_workers(struct master *m, const struct generation *old,
                         const struct generation *next)
{
    uint32_t givers[COUNTERS_MAX_SLOTS], takers[COUNTERS_MAX_SLOTS];
    struct supervisor *s = m->supervisor;
    uint32_t giver_count =
        supervisor_list(s, old->number, SLOT_PHASE_READY, givers, COUNTERS_MAX_SLOTS);
    uint32_t taker_count =
        supervisor_list(s, next->number, SLOT_PHASE_READY, takers, IPC_FDS_MAX);
    for (uint32_t g = 0; g < giver_count; g++) {
        int ends[IPC_FDS_MAX], pair[2];
        uint32_t n = 0;
        for (uint32_t t = 0; t < taker_count; t++) {
            int error = ipc_stream_pair(pair);
            if (error) {
                log_error("handover-link-failed", "error", log_errno(error));
                continue;
            }
            if (supervisor_take(s, takers[t], pair[1]) == 0)
                ends[n++] = pair[0];
            else
                close(pair[0]);
        }
        supervisor_give(s, givers[g], ends, n);
    }
}

static void commit(struct master *m)
{
    struct generation *old = m->current;
    char message[96];
    m->current = m->next;
    m->next = NULL;
    m->counters.head->generation = m->current->number;
    m->counters.head->workers = m->current->workers;
    master_serve(m);
    link_workers(m, old, m->current);
    struct control_drain how = master_drain_order(m, true); /* by the new options */
    supervisor_drain(m->supervisor, old->number, &how);
    retire(m, old);
    reload_reap(m);
    if (m->dev && dev_prepare(m->dev, m->current))
        log_warning("dev-config-failed", "path", m->scratch);
    supervisor_send_log(m->supervisor);
    master_plan_tickets(m);
    snprintf(message, sizeof(message), "serving, generation %u, workers %u", m->current->number,
             m->current->workers);
    log_notice("reloaded", "generation", LOG_INT(m->current->number), "workers",
               LOG_INT(m->current->workers));
    end_reload(m, true, message);
}

static void on_deadline(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct master *m = timer->data;
    (void)loop;
    (void)events;
    if (m->next)
        refuse(m, m->reload_failure ? m->reload_failure : "the new workers were not ready in time");
}

void reload_on_ready(struct master *m, uint32_t generation)
{
    if (m->next && m->next->number == generation && !m->reload_failure &&
        supervisor_count(m->supervisor, generation, SLOT_PHASE_READY) == m->next->workers)
        commit(m);
}

void reload_on_start_failed(struct master *m, const char *reason)
{
    if (m->reload_failure)
        return;
    snprintf(m->reload_reason, sizeof(m->reload_reason), "%s", reason);
    m->reload_failure = m->reload_reason;
    set_deadline(m, 0.0); /* the slot that failed is still on the stack */
}

void reload_cancel(struct master *m)
{
    m->reload_again = m->upgrade_again = false;
    if (m->next)
        refuse(m, "the instance stops");
}

/* ---- the beginning ---- */

/* Adds a line about an option's value in the snapshot that is tried. */
static void complain(struct master *m, const struct options *opt, enum option_id id,
                     const char *what)
{
    char text[512];
    snprintf(text, sizeof(text), "%s: %s", options_table[id].name, what);
    text_adds(&m->report, m->report.len ? "\n" : "");
    options_locate(opt, text, &m->report);
}

/* Names the options that only a restart changes. */
static int check_restart_options(struct master *m, const struct options *now,
                                 const struct options *then)
{
    enum option_id ids[OPTIONS];
    int error = 0, n = options_diff(now, then, ids);
    for (int i = 0; i < n; i++) {
        if (options_table[ids[i]].reload != OPTION_RESTART)
            continue;
        complain(m, then, ids[i], "changing it needs a restart");
        error = -EINVAL;
    }
    return error;
}

static int prepare(struct master *m, struct generation **out)
{
    struct generation *next = NULL;
    int error = generation_load(&m->source, &next);
    if (error)
        return error;
    next->number = m->current->number + 1;
    error = check_restart_options(m, m->current->opt, next->opt);
    if (!error && next->redis.is_embedded) {
        complain(m, next->opt, OPT_redis_url, "embedded needs a restart");
        error = -EINVAL;
    }
    if (!error)
        error = generation_listen(next, &m->privileges, m->current, &m->source);
    if (!error) {
        error = master_open_log(next->opt);
        if (error)
            complain(m, next->opt, OPT_log_target, log_errno(error));
    }
    if (error) {
        generation_free(next);
        return error;
    }
    *out = next;
    return 0;
}

int reload_begin(struct master *m, char *why, size_t cap)
{
    if (m->state != INSTANCE_RUNNING) {
        if (upgrade_has_left(m))
            snprintf(why, cap, "a new binary has taken over, pid %ld", (long)m->upgrade.pid);
        else
            snprintf(why, cap, "the instance is %s", master_state_name(m->state));
        log_warning("reload-refused", "reason", why);
        return -ECANCELED;
    }
    if (m->next || upgrade_is_under_way(m)) {
        snprintf(why, cap, "%s is under way", m->next ? "a reload" : "an upgrade");
        log_warning("reload-refused", "reason", why);
        return -EBUSY;
    }
    log_notice("reload-started");
    notify_reloading();
    text_buf_reset(&m->report);
    m->reload_failure = NULL;
    struct generation *next = NULL;
    int error = prepare(m, &next);
    if (!error) {
        m->next = next;
        set_deadline(m, MASTER_RELOAD_S);
        error = supervisor_start(m->supervisor, next);
        if (error)
            text_adds(&m->report, "workers of earlier reloads still drain; try again later");
    }
    if (error)
        refuse(m, m->report.data ? m->report.data : "no memory");
    return 0; /* how it ended is told to all who wait */
}

void reload_init(struct master *m)
{
    ev_timer_init(&m->reload_timer, on_deadline, 0.0, 0.0);
    m->reload_timer.data = m;
}

void reload_fini(struct master *m)
{
    ev_timer_stop(m->loop, &m->reload_timer);
    while (m->retired) {
        struct generation *g = m->retired;
        m->retired = g->older;
        generation_free(g);
    }
    generation_free(m->next);
    m->next = NULL;
    text_buf_free(&m->report);
    text_buf_free(&m->last_message);
}
