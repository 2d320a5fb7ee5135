#include "config.h"

#include "src/master.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "src/activation.h"
#include "src/master_priv.h"
#include "src/notify.h"
#include "src/pages.h"

#define SLOTS_MIN 16
#define SLOTS_PER_WORKER 4 /* as many generations may overlap */
#define USERS_MIN 1024
#define USERS_MAX (1u << 21)
#define DESCRIPTORS_MAX (1u << 20) /* some containers say "a thousand million" */
#define START_ATTEMPTS 3
#define TICKETS_MIN_MS 1000 /* between two rotations */

const char *master_state_name(enum instance_state state)
{
    static const char *const names[] = {"starting", "running", "draining", "stopping"};
    return state <= INSTANCE_STOPPING ? names[state] : "unknown";
}

static void set_state(struct master *m, enum instance_state state)
{
    m->state = state;
    if (m->is_head_ours)
        __atomic_store_n(&m->counters.head->state, (uint32_t)state, __ATOMIC_RELAXED);
}

int master_open_log(const struct options *opt)
{
    return log_open(opt->log_target, (enum log_level)opt->log_level,
                    (enum log_format)opt->log_format);
}

/* ---- complaints ---- */

/* Who starts a program looks at its standard error, wherever the log goes. */
static void say_at_start(const struct master *m, const char *text)
{
    if (m->is_starting && !m->is_log_stderr)
        fprintf(stderr, "belfryd: %s\n", text);
}

static void add_report(struct master *m, const char *line)
{
    text_addf(&m->report, "%s%s", m->report.len ? "\n" : "", line);
}

static void on_report(void *data, bool is_error, const char *line)
{
    struct master *m = data;
    if (!is_error) {
        log_warning("config-warning", "text", line);
        return;
    }
    log_error("config-error", "text", line);
    say_at_start(m, line);
    add_report(m, line);
}

static __attribute__((format(printf, 3, 4))) int fail_start(struct master *m, int exit_code,
                                                            const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_error("start-failed", "reason", text);
    say_at_start(m, text);
    add_report(m, text);
    m->exit_code = exit_code;
    return -EINVAL;
}

/* ---- the end ---- */

static void shut_after(struct master *m, double after_s)
{
    ev_timer_stop(m->loop, &m->shut_timer);
    ev_timer_set(&m->shut_timer, after_s, 0.0);
    ev_timer_start(m->loop, &m->shut_timer);
}

/* Whoever waits in a queue when it is shut is reset; a busy worker has not accepted them yet. */
static bool must_wait_for_queues(struct master *m)
{
    return m->state == INSTANCE_DRAINING && clock_mono_ms() < m->shut_by_ms &&
           listeners_close_queues(m->current->listeners);
}

static void on_shut(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct master *m = timer->data;
    (void)loop;
    (void)events;
    if (must_wait_for_queues(m)) {
        shut_after(m, MASTER_SHUT_S / 5);
        return;
    }
    reload_shut(m);
    if (m->source.inherited && m->is_head_ours)
        listeners_keep_borrowed(m->source.inherited);
    /* Whoever connects now is to be refused at once, not to wait in a queue that nobody empties. */
    if (m->state >= INSTANCE_DRAINING)
        listeners_shut_clients(m->current->listeners);
}

void master_shut_later(struct master *m)
{
    shut_after(m, MASTER_SHUT_S);
}

void master_finish_if_empty(struct master *m)
{
    if (m->state >= INSTANCE_DRAINING && supervisor_is_empty(m->supervisor) &&
        !upgrade_is_under_way(m))
        ev_break(m->loop, EVBREAK_ALL);
}

static void stop(struct master *m, const char *cause)
{
    if (m->state == INSTANCE_STOPPING)
        return;
    set_state(m, INSTANCE_STOPPING);
    reload_cancel(m);
    upgrade_cancel(m);
    log_notice("stopping", "cause", cause);
    if (m->is_head_ours)
        notify_stopping("stopping");
    supervisor_stop_all(m->supervisor);
    master_shut_later(m);
    master_finish_if_empty(m);
}

/*
 * For how long the beginning of a graceful stop is lame: health says draining over connections that
 * are accepted yet, so that a load balancer hears it rather than finds nobody there. New WebSockets
 * are refused from the start.
 */
static uint32_t lame_time(int64_t over_ms)
{
    return (uint32_t)(over_ms / 4 < MASTER_LAME_MS ? over_ms / 4 : MASTER_LAME_MS);
}

struct control_drain master_drain_order(const struct master *m, bool is_restart)
{
    const struct options *opt = m->current->opt;
    return (struct control_drain){.over_ms = opt->drain_time, .restart = is_restart,
                                  .drop = opt->restart_close == RESTART_CLOSE_DROP};
}

static void drain(struct master *m, const char *cause)
{
    if (m->state == INSTANCE_STARTING)
        stop(m, cause);
    if (m->state != INSTANCE_RUNNING)
        return;
    set_state(m, INSTANCE_DRAINING);
    reload_cancel(m);
    upgrade_cancel(m);
    int64_t over_ms = m->current->opt->drain_time;
    uint32_t lame_ms = lame_time(over_ms);
    struct control_drain how = master_drain_order(m, false);
    /* They accept until the sockets are shut. */
    how.lame_ms = lame_ms ? lame_ms + MASTER_QUEUE_MS + (uint32_t)(2 * MASTER_SHUT_S * 1e3) : 0;
    m->shut_by_ms = lame_ms ? clock_mono_ms() + lame_ms + MASTER_QUEUE_MS : 0;
    log_notice("draining", "cause", cause, "over_ms", LOG_INT(over_ms));
    notify_stopping("draining");
    supervisor_drain_all(m->supervisor, &how);
    shut_after(m, lame_ms ? lame_ms / 1e3 : MASTER_SHUT_S);
    master_finish_if_empty(m);
}

static void hang_up(struct master *m);

/* ---- the beginning ---- */

static void log_addresses(const struct generation *g)
{
    bool is_metrics;
    const char *address;
    for (size_t i = 0; (address = listeners_address(g->listeners, i, &is_metrics)); i++)
        log_notice("listening", "address", address, "serves", is_metrics ? "metrics" : "clients");
}

static void claim_head(struct master *m)
{
    struct counters_head *head = m->counters.head;
    m->is_head_ours = true;
    head->generation = m->current->number;
    head->workers = m->current->workers;
    snprintf(head->version, sizeof(head->version), "%s", PACKAGE_VERSION);
}

/* False: this instance cannot begin. One that takes over from another must. */
static bool write_pidfile(struct master *m)
{
    const char *path = m->current->opt->pid_file;
    pid_t holder;
    int error = *path ? pidfile_write(&m->pidfile, path, &holder) : 0;
    if (error && m->is_upgraded) {
        log_error("pid-file-not-written", "path", path, "error",
                  pidfile_error_text(path, error));
    } else if (error) {
        fail_start(m, MASTER_EXIT_RUNTIME, "pid-file: %s: %s", path,
                   pidfile_error_text(path, error));
        stop(m, "start failed");
        return false;
    }
    return true;
}

void master_serve(struct master *m)
{
    listeners_listen(m->current->listeners);
    m->current->is_serving = true;
    supervisor_serve(m->supervisor, m->current);
}

void master_begin(struct master *m)
{
    char status[PULSE_TEXT_BYTES];
    if (!write_pidfile(m))
        return;
    claim_head(m);
    set_state(m, INSTANCE_RUNNING);
    if (m->is_upgraded)
        master_serve(m);
    control_begin(m->control);
    if (m->source.inherited) {
        listeners_set_shared(m->source.inherited, false);
        activation_warn_unused(m->source.inherited);
        master_shut_later(m); /* what the master before had and nobody names any more */
    }
    m->is_starting = false;
    log_notice("ready", "workers", LOG_INT(m->current->workers), "pid", LOG_INT(getpid()),
               "version", PACKAGE_VERSION, "instance", m->instance_id, "after_ms",
               LOG_INT(clock_mono_ms() - m->started_mono_ms));
    pulse_text(m, status);
    notify_ready(status);
    pulse_start(m);
    if (m->dev)
        dev_announce(m->dev, stdout);
    if (m->reload_again)
        hang_up(m);
}

static void on_all_ready(struct master *m)
{
    if (inherit_is_active(m))
        inherit_ready(m);
    else
        master_begin(m);
}

void master_fail_upgrade(struct master *m, const char *reason)
{
    fail_start(m, MASTER_EXIT_RUNTIME, "%s", reason);
    stop(m, "upgrade failed");
}

static void on_ready(void *data, uint32_t generation)
{
    struct master *m = data;
    if (m->next) {
        reload_on_ready(m, generation);
        return;
    }
    if (m->state == INSTANCE_STARTING &&
        supervisor_count(m->supervisor, generation, SLOT_PHASE_READY) == m->current->workers)
        on_all_ready(m);
}

static void on_start_failed(void *data, uint32_t generation, uint32_t attempts, bool is_told,
                            const char *reason)
{
    struct master *m = data;
    if (m->next && m->next->number == generation) {
        reload_on_start_failed(m, reason);
    } else if (m->state == INSTANCE_STARTING && (is_told || attempts >= START_ATTEMPTS)) {
        fail_start(m, MASTER_EXIT_RUNTIME, "%s", reason);
        stop(m, "start failed");
    }
}

static void on_gone(void *data)
{
    struct master *m = data;
    reload_reap(m);
    upgrade_on_gone(m);
    master_finish_if_empty(m);
}

static void leave_loop(void *data)
{
    struct master *m = data;
    for (int i = 0; i < MASTER_SIGNALS; i++)
        ev_signal_stop(m->loop, &m->signals[i]);
}

static void start_workers(struct master *m)
{
    if (!m->is_upgraded)
        master_serve(m);
    int error = supervisor_start(m->supervisor, m->current);
    if (!error)
        return;
    fail_start(m, MASTER_EXIT_RUNTIME, "workers: %s", log_errno(error));
    stop(m, "start failed");
}

static void on_redis_up(void *data)
{
    start_workers(data);
}

static void on_redis_failed(void *data, const char *reason)
{
    struct master *m = data;
    fail_start(m, MASTER_EXIT_RUNTIME, "redis-url = embedded: %s", reason);
    stop(m, "start failed");
}

/* ---- signals and requests ---- */

static void hang_up(struct master *m)
{
    char why[256];
    /* A first look whose window was closed is over. */
    if (m->dev && m->had_terminal && !isatty(STDOUT_FILENO)) {
        stop(m, "the terminal is gone");
        return;
    }
    m->reload_again = m->next != NULL || upgrade_is_under_way(m);
    if (!m->reload_again)
        reload_begin(m, why, sizeof(why));
    else
        log_info("reload-queued", "until", m->next ? "this reload is done" : "the upgrade is");
}

static void upgrade(struct master *m)
{
    m->upgrade_again = m->next != NULL;
    if (!m->upgrade_again)
        upgrade_begin(m);
    else
        log_info("upgrade-queued", "until", "the reload is done");
}

static void reopen_log(struct master *m)
{
    int error = log_reopen();
    if (error)
        log_warning("log-reopen-failed", "target", m->current->opt->log_target, "error",
                    log_errno(error));
    else
        log_info("log-reopened");
    supervisor_send_log(m->supervisor);
}

static void on_signal(struct ev_loop *loop, struct ev_signal *watcher, int events)
{
    struct master *m = watcher->data;
    (void)loop;
    (void)events;
    switch (watcher->signum) {
    case SIGTERM:
    case SIGINT:
        stop(m, watcher->signum == SIGINT ? "SIGINT" : "SIGTERM");
        break;
    case SIGQUIT:
        drain(m, "SIGQUIT");
        break;
    case SIGHUP:
        hang_up(m);
        break;
    case SIGUSR1:
        reopen_log(m);
        break;
    case SIGUSR2:
        upgrade(m);
        break;
    }
}

static void handle_status(void *data, struct text_buf *out)
{
    status_write(data, out);
}

static int handle_reload(void *data, char *why, size_t cap)
{
    return reload_begin(data, why, cap);
}

static void handle_stop(void *data)
{
    stop(data, "control socket");
}

static void handle_drain(void *data)
{
    drain(data, "control socket");
}

static int handle_question(void *data, uint64_t ticket, enum inquiry_ask ask,
                           struct text_span user, struct text_span id, int64_t within_ms)
{
    struct master *m = data;
    return explain_ask(m->explain, ticket, ask, user, id, within_ms);
}

static void on_explained(void *data, uint64_t ticket, const struct text_buf *text)
{
    struct master *m = data;
    control_explained(m->control, ticket, text);
}

static void on_worker_message(void *data, uint32_t slot, enum control_type type, const void *body,
                              size_t len)
{
    struct master *m = data;
    explain_on_message(m->explain, slot, type, body, len);
}

static void start_signals(struct master *m)
{
    static const int numbers[MASTER_SIGNALS] = {SIGTERM, SIGINT,  SIGQUIT,
                                                SIGHUP,  SIGUSR1, SIGUSR2};
    for (int i = 0; i < MASTER_SIGNALS; i++) {
        ev_signal_init(&m->signals[i], on_signal, numbers[i]);
        m->signals[i].data = m;
        ev_signal_start(m->loop, &m->signals[i]);
    }
}

/* ---- TLS session tickets ---- */

static void on_tickets_due(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct master *m = timer->data;
    (void)loop;
    (void)events;
    int error = tickets_rotate(&m->tickets, clock_mono_ms());
    if (error) {
        log_warning("tickets-not-rotated", "error", log_errno(error));
    } else {
        supervisor_send_tickets(m->supervisor);
        log_debug("tickets-rotated");
    }
    master_plan_tickets(m);
}

void master_plan_tickets(struct master *m)
{
    int64_t life_ms = m->current->opt->tls_session_time, now_ms = clock_mono_ms();
    ev_timer_stop(m->loop, &m->tickets_timer);
    if (!life_ms || !m->current->tls_certificate_pem)
        return;
    int64_t due_ms = m->tickets.made_ms + life_ms - now_ms;
    if (due_ms < TICKETS_MIN_MS)
        due_ms = TICKETS_MIN_MS;
    ev_timer_set(&m->tickets_timer, (double)due_ms / 1e3, 0.0);
    ev_timer_start(m->loop, &m->tickets_timer);
}

static int make_tickets(struct master *m)
{
    int error = m->tickets.made_ms ? 0 : tickets_rotate(&m->tickets, clock_mono_ms());
    if (error)
        return fail_start(m, MASTER_EXIT_RUNTIME, "random numbers: %s", log_errno(error));
    master_plan_tickets(m);
    return 0;
}

/* ---- what an instance stands on ---- */

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warning("descriptor-limit", "error", log_errno(errno));
}

/* Rows for all users that could be connected at a time. */
static uint32_t users_capacity(const struct generation *g)
{
    struct rlimit limit;
    uint64_t n = DESCRIPTORS_MAX;
    if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < n)
        n = limit.rlim_cur;
    n *= g->workers;
    if (g->opt->max_connections && (uint64_t)g->opt->max_connections < n)
        n = (uint64_t)g->opt->max_connections;
    return n < USERS_MIN ? USERS_MIN : n > USERS_MAX ? USERS_MAX : (uint32_t)n;
}

static int make_segments(struct master *m)
{
    const struct generation *g = m->current;
    uint32_t slots = g->workers * SLOTS_PER_WORKER;
    slots = slots < SLOTS_MIN ? SLOTS_MIN : slots > COUNTERS_MAX_SLOTS ? COUNTERS_MAX_SLOTS : slots;
    uint32_t capacity = users_capacity(g);
    int error = counters_create(&m->counters, slots);
    if (!error)
        error = trace_create(&m->trace, slots, (uint32_t)g->opt->trace_size);
    if (!error)
        error = usertable_create(capacity, slots, &m->users);
    if (!error)
        error = usertable_create(capacity, slots, &m->addresses);
    if (error)
        return fail_start(m, MASTER_EXIT_RUNTIME, "shared memory: %s", log_errno(error));
    struct counters_head *head = m->counters.head;
    head->started_at_ms = (uint64_t)m->started_wall_ms;
    if (m->last_reload_ms)
        counters_set_reload(&m->counters, m->last_reload_ms, m->last_reload_ok,
                            m->last_message.data ? m->last_message.data : "");
    snprintf(head->instance_id, sizeof(head->instance_id), "%s", m->instance_id);
    claim_head(m);
    set_state(m, INSTANCE_STARTING);
    inherit_take_totals(m);
    return 0;
}

static int make_shared(struct master *m)
{
    return inherit_map(m) ? 0 : make_segments(m);
}

static int make_scratch(struct master *m, const struct options *opt)
{
    bool is_embedded = !strcmp(opt->redis_url, "embedded");
    if (opt->dev != CHOICE_YES && !is_embedded)
        return 0;
    unsigned swept = scratch_sweep(&m->privileges);
    if (swept)
        log_info("left-behind-removed", "directories", LOG_INT(swept));
    int error = scratch_make(&m->privileges, m->scratch);
    if (!error) {
        m->scratch_lock = scratch_lock(m->scratch);
        error = m->scratch_lock < 0 ? m->scratch_lock : 0;
    }
    if (error)
        return fail_start(m, MASTER_EXIT_RUNTIME, "cannot make a temporary directory: %s",
                          log_errno(error));
    if (is_embedded) {
        embedded_socket(m->scratch, m->embedded_socket, sizeof(m->embedded_socket));
        m->source.embedded_socket = m->embedded_socket;
    }
    if (opt->dev != CHOICE_YES)
        return 0;
    error = dev_new(m->scratch, m->source.argv[0], &m->dev);
    if (error)
        return fail_start(m, MASTER_EXIT_RUNTIME, "cannot write to %s: %s", m->scratch,
                          log_errno(error));
    m->source.dev = m->dev;
    return 0;
}

static void ignore_report(void *data, bool is_error, const char *line)
{
    (void)data;
    (void)is_error;
    (void)line;
}

static int open_listeners(struct master *m)
{
    /* The port that --dev proposes may be taken: then another one will do, and that is no error. */
    struct generation_source quiet = m->source;
    quiet.report = ignore_report;
    int error = m->dev ? generation_listen(m->current, &m->privileges, NULL, &quiet) : -EADDRINUSE;
    if (error == -EADDRINUSE && m->dev && dev_take_any_port(m->dev, m->current->opt))
        error = dev_apply(m->dev, m->current->opt);
    if (!m->current->listeners)
        error = generation_listen(m->current, &m->privileges, NULL, &m->source);
    if (error)
        m->exit_code = MASTER_EXIT_RUNTIME;
    else
        log_addresses(m->current);
    return error;
}

static int open_control(struct master *m)
{
    static const struct control_handlers handlers = {handle_status, handle_reload, handle_stop,
                                                     handle_drain, handle_question};
    const struct options *opt = m->current->opt;
    if (!*opt->control_socket || inherit_control(m, opt->control_socket, &handlers))
        return 0;
    enum option_source source = opt->source[OPT_control_socket];
    bool is_given = m->dev || (source != SOURCE_DEFAULT && source != SOURCE_PROFILE);
    int error = control_open(m->loop, opt->control_socket, !is_given && !geteuid(), &handlers, m,
                             &m->control);
    if (!error)
        return 0;
    const char *text = error == -EADDRINUSE ? "another instance uses it"
                                            : unixsock_error_text(error);
    if (is_given)
        return fail_start(m, MASTER_EXIT_RUNTIME, "control-socket: %s: %s", opt->control_socket,
                          text);
    log_warning("no-control-socket", "path", opt->control_socket, "reason", text, "remedy",
                "belfryctl status and reload will not work; give control-socket");
    return 0;
}

static int check_pidfile(struct master *m, const struct options *opt)
{
    pid_t holder;
    int error = *opt->pid_file && !m->is_upgraded ? pidfile_check(opt->pid_file, &holder) : 0;
    if (error == -EWOULDBLOCK)
        return fail_start(m, MASTER_EXIT_RUNTIME, "pid-file: %s: belfryd runs already, pid %ld",
                          opt->pid_file, (long)holder);
    if (error)
        return fail_start(m, MASTER_EXIT_RUNTIME, "pid-file: %s: %s", opt->pid_file,
                          pidfile_error_text(opt->pid_file, error));
    return 0;
}

/* What another process has opened for this one. */
static int take_outside(struct master *m, char *why, size_t cap)
{
    int error = activation_take(&m->source.inherited);
    if (error)
        snprintf(why, cap, "LISTEN_FDS: %s", log_errno(error));
    else if (m->is_upgraded)
        error = inherit_receive(m, m->inherit.link.fd, why, cap);
    return error;
}

/* Log, user, temporary directory, and then the first generation. opt: given. */
static int set_up_generation(struct master *m, struct options *opt)
{
    char why[512];
    int error = master_open_log(opt);
    if (error) {
        fprintf(stderr, "belfryd: log-target: %s: %s\n", opt->log_target, log_errno(error));
        m->exit_code = MASTER_EXIT_RUNTIME;
        options_free(opt);
        return error;
    }
    m->is_log_stderr = !strcmp(opt->log_target, "stderr");
    start_signals(m); /* from here on there is something to clean up; they are heard in the loop */
    raise_descriptors();
    error = take_outside(m, why, sizeof(why));
    if (error) {
        fail_start(m, MASTER_EXIT_RUNTIME, "%s", why);
        options_free(opt);
        return error;
    }
    error = privileges_find(opt->user, opt->group, &m->privileges, why, sizeof(why));
    if (error)
        fail_start(m, MASTER_EXIT_USAGE, "%s", why);
    if (!error)
        error = check_pidfile(m, opt);
    if (!error)
        error = make_scratch(m, opt);
    if (error) {
        options_free(opt);
        return error;
    }
    m->exit_code = MASTER_EXIT_USAGE;
    error = generation_from_options(opt, &m->source, &m->current);
    if (error)
        return error;
    m->exit_code = MASTER_EXIT_OK;
    m->current->number = m->inherit.start.generation + 1;
    return 0;
}

/* What answers belfryctl beside the master itself. */
static int make_answerers(struct master *m)
{
    struct explain_shared shared = {.loop = m->loop,
                                    .counters = &m->counters,
                                    .trace = &m->trace,
                                    .supervisor = m->supervisor,
                                    .instance_id = m->instance_id,
                                    .on_answer = on_explained,
                                    .data = m};
    m->explain = explain_new(&shared);
    m->rates = rates_new(m->loop, &m->counters);
    return m->explain && m->rates ? 0 : -ENOMEM;
}

/* What is served without --dev, which has its own. */
static int make_pages(struct master *m)
{
    return pages_make(m->current->opt->demo == CHOICE_ON, NULL, &m->pages);
}

/* Everything else before the loop. */
static int set_up(struct master *m, struct options *opt)
{
    static const struct supervisor_events events = {on_ready, on_start_failed, on_gone,
                                                    on_worker_message, leave_loop};
    static const struct embedded_events redis_events = {on_redis_up, on_redis_failed};
    char why[512];
    int error = set_up_generation(m, opt);
    if (!error)
        error = open_listeners(m);
    if (!error)
        error = make_shared(m);
    if (!error)
        error = make_tickets(m);
    if (!error && m->dev && (error = dev_prepare(m->dev, m->current)))
        return fail_start(m, MASTER_EXIT_RUNTIME, "dev: %s", log_errno(error));
    if (!error && !m->dev && (error = make_pages(m)))
        return fail_start(m, MASTER_EXIT_RUNTIME, "pages: %s", log_errno(error));
    if (error)
        return error;
    struct supervisor_shared shared = {.counters = &m->counters,
                                       .trace = &m->trace,
                                       .users = m->users,
                                       .addresses = m->addresses,
                                       .privileges = &m->privileges,
                                       .tickets = &m->tickets,
                                       .instance_id = m->instance_id,
                                       .pages = m->dev ? dev_pages(m->dev) : m->pages,
                                       .is_dev = m->dev != NULL};
    m->supervisor = supervisor_new(m->loop, &shared, &events, m);
    if (!m->supervisor || make_answerers(m))
        return fail_start(m, MASTER_EXIT_RUNTIME, "no memory");
    inherit_watch(m);
    error = open_control(m);
    if (error)
        return error;
    if (!m->source.embedded_socket)
        start_workers(m);
    else if (embedded_start(m->loop, m->scratch, &m->privileges, &redis_events, m, &m->embedded,
                            why, sizeof(why)))
        return fail_start(m, MASTER_EXIT_RUNTIME, "%s", why);
    return 0;
}

static void tear_down(struct master *m)
{
    pulse_stop(m);
    keywatch_fini(m);
    upgrade_fini(m);
    inherit_fini(m);
    control_free(m->control);
    ev_timer_stop(m->loop, &m->shut_timer);
    ev_timer_stop(m->loop, &m->tickets_timer);
    reload_fini(m);
    explain_free(m->explain);
    rates_free(m->rates);
    supervisor_free(m->supervisor);
    embedded_free(m->embedded);
    generation_free(m->current);
    listeners_free(m->source.inherited);
    dev_free(m->dev);
    pages_free(m->pages);
    scratch_remove(m->scratch);
    if (m->scratch_lock > 0)
        close(m->scratch_lock);
    pidfile_remove(&m->pidfile);
    usertable_free(m->users);
    usertable_free(m->addresses);
    counters_destroy(&m->counters);
    trace_destroy(&m->trace);
    /* Until here a second Ctrl-C must not cut the cleaning short. */
    for (int i = 0; i < MASTER_SIGNALS; i++)
        ev_signal_stop(m->loop, &m->signals[i]);
    ev_loop_destroy(m->loop);
}

int master_run(const struct master_arguments *arguments, struct options *opt)
{
    struct master *m = calloc(1, sizeof(*m));
    struct ev_loop *loop = ev_default_loop(EVFLAG_NOENV);
    if (!m || !loop) {
        fputs("belfryd: no memory\n", stderr);
        options_free(opt);
        free(m);
        return MASTER_EXIT_RUNTIME;
    }
    signal(SIGPIPE, SIG_IGN);
    log_set_role("master");
    m->loop = loop;
    m->pidfile.fd = -1;
    m->is_starting = true;
    m->had_terminal = isatty(STDOUT_FILENO);
    m->started_mono_ms = clock_mono_ms();
    m->started_wall_ms = clock_wall_ms();
    uuid7_make(m->instance_id);
    ev_timer_init(&m->shut_timer, on_shut, 0.0, 0.0);
    m->shut_timer.data = m;
    ev_timer_init(&m->tickets_timer, on_tickets_due, 0.0, 0.0);
    m->tickets_timer.data = m;
    reload_init(m);
    pulse_init(m);
    keywatch_init(m);
    upgrade_init(m);
    inherit_init(m);
    notify_open();
    m->program = arguments->program;
    m->is_upgraded = arguments->upgrade_link >= 0;
    m->inherit.link.fd = arguments->upgrade_link;
    m->source = (struct generation_source){.argc = arguments->argc,
                                           .argv = arguments->argv,
                                           .environment = arguments->environment,
                                           .report = on_report,
                                           .report_data = m};
    /* A start that failed may be over before the loop runs. */
    if (!set_up(m, opt) && (m->state < INSTANCE_DRAINING || !supervisor_is_empty(m->supervisor)))
        ev_run(loop, 0);
    inherit_fail(m, m->report.len ? m->report.data : "it was told to stop");
    tear_down(m);
    int exit_code = m->exit_code;
    explicit_bzero(&m->tickets, sizeof(m->tickets));
    log_notice("stopped", "exit", LOG_INT(exit_code));
    free(m);
    return exit_code;
}

int master_test(const struct master_arguments *arguments, struct options *opt,
                options_report_fn *report, void *report_data)
{
    struct generation_source source = {.argc = arguments->argc,
                                       .argv = arguments->argv,
                                       .environment = arguments->environment,
                                       .report = report,
                                       .report_data = report_data};
    struct generation *g;
    struct privileges privileges;
    char why[512];
    int error = privileges_find(opt->user, opt->group, &privileges, why, sizeof(why));
    if (error && error != -ENOENT) /* what is not there options_check tells, and where it stands */
        report(report_data, true, why);
    if (generation_from_options(opt, &source, &g))
        return -EINVAL;
    generation_free(g);
    return error ? -EINVAL : 0;
}
