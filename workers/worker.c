#include "config.h"

#include "workers/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/ipc.h"
#include "shared/log.h"
#include "workers/acceptor.h"
#include "workers/conn.h"
#include "workers/delivery.h"
#include "workers/drain.h"
#include "workers/fate.h"
#include "workers/handover.h"
#include "workers/inquest.h"
#include "workers/modules.h"
#include "workers/sandbox.h"
#include "workers/session.h"
#include "workers/store.h"
#include "workers/subscriber.h"

/* For Redis to answer; then clients are served without it. */
#define READY_WAIT_MS 1000
#define CONTROL_BATCH 16
#define BUSY_US 2000 /* a turn that took as long */

/* The process: its context, and what only this file watches. */
struct life {
    struct worker worker;
    struct drain *drain; /* how it ends */
    bool is_ready;
    int status;         /* to exit with */
    ev_timer unready;   /* until is_ready */
    ev_io control;
    ev_io term;
    ev_timer second;
    ev_timer more;      /* makes another turn: lists or broadcasts are left */
    ev_check turn_start;
    ev_prepare turn_end;
    int64_t turn_us;    /* monotonic: when this turn began */
    bool is_busy;       /* the one before was long */
    uint64_t suppressed; /* log_suppressed() when it was last counted */
    struct ipc_message message;
};

int64_t worker_now_ms(const struct worker *w)
{
    (void)w;
    return clock_mono_coarse_ms();
}

int64_t worker_wall_ms(const struct worker *w)
{
    return (int64_t)(ev_now(w->loop) * 1000);
}

/* ---- readiness ---- */

static int fail(const struct worker_start *start, const char *what)
{
    log_error("worker-failed", "part", what);
    ipc_send(start->control_fd, CONTROL_FAILED, what, strlen(what), -1);
    return EXIT_FAILURE;
}

/* Accepting waits for the master's word: workers of a reload or upgrade that is refused after all
 * must have served nobody. */
static void get_ready(struct life *life)
{
    struct worker *w = &life->worker;
    life->is_ready = true;
    ev_timer_stop(w->loop, &life->unready);
    if (!(w->acceptor = acceptor_new(w))) {
        life->status = fail(w->start, "acceptor");
        ev_break(w->loop, EVBREAK_ALL);
        return;
    }
    counters_set(CTR_started_at_ms, (uint64_t)clock_wall_ms());
    int error = ipc_send(w->start->control_fd, CONTROL_READY, NULL, 0, -1);
    log_info("worker-ready", "slot", LOG_INT(w->start->slot), "pid", LOG_INT(getpid()));
    if (error)
        drain_stop(life->drain, "master is gone");
}

/* Not before Redis is heard, unless it is away: else each new worker would degrade health. */
static void get_ready_in_time(struct life *life)
{
    const struct worker *w = &life->worker;
    if (!life->is_ready && drain_phase(life->drain) == DRAIN_NOT &&
        subscriber_has_tried(w->subscriber) &&
        store_has_tried(w->store))
        get_ready(life);
}

static void on_unready(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct life *life = timer->data;
    (void)loop;
    (void)events;
    if (drain_phase(life->drain) == DRAIN_NOT)
        get_ready(life);
}

/* ---- what others say to this process ---- */

static void set_log(struct ipc_message *m)
{
    struct control_log how;
    if (m->fd_count)
        log_take_fd(ipc_take_fd(m));
    if (m->body_len != sizeof(how))
        return;
    memcpy(&how, m->body, sizeof(how));
    log_set_level((enum log_level)how.level);
    log_set_format((enum log_format)how.format);
}

static void set_tickets(struct life *life, struct ipc_message *m)
{
    struct tickets tickets;
    if (m->body_len != sizeof(tickets))
        return;
    memcpy(&tickets, m->body, sizeof(tickets));
    conns_set_tickets(life->worker.conns, &tickets);
    explicit_bzero(&tickets, sizeof(tickets));
    explicit_bzero(m->body, m->body_len);
}

/* The master has checked it; what it tells of the keys is not told again. */
static void take_keys(struct worker *w, int fd)
{
    char why[512] = "it cannot be read";
    struct stat st;
    char *text = NULL;
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size < TOKEN_JWKS_MAX_BYTES)
        text = malloc((size_t)st.st_size);
    int error = -EIO;
    /* All workers share one file, and its position. */
    if (text && pread(fd, text, (size_t)st.st_size, 0) == st.st_size)
        error = token_keys_take_jwks(w->start->token_keys,
                                     (struct text_span){text, (size_t)st.st_size}, why,
                                     sizeof(why));
    if (error)
        log_error("jwks-refused", "reason", why);
    else
        log_info("jwks-taken", "keys", LOG_INT(token_keys_jwks_count(w->start->token_keys)));
    if (text)
        token_jwks_free((struct text_span){text, (size_t)st.st_size});
    close(fd);
}

static void explained(const struct worker *w, struct ipc_message *m)
{
    int fd = ipc_take_fd(m);
    inquest_on_explained(w->inquest, m->body, m->body_len, fd);
    if (fd >= 0)
        close(fd);
}

static void on_message(struct life *life, struct ipc_message *m)
{
    struct control_drain order;
    switch (m->type) {
    case CONTROL_SERVE:
        if (life->worker.acceptor)
            acceptor_start(life->worker.acceptor);
        break;
    case CONTROL_DRAIN:
        if (m->body_len == sizeof(order)) {
            memcpy(&order, m->body, sizeof(order));
            drain_begin(life->drain, &order, m);
        }
        break;
    case CONTROL_TAKE:
        for (int fd; (fd = ipc_take_fd(m)) >= 0;)
            handover_take(life->worker.handover, fd);
        break;
    case CONTROL_STOP:
        drain_stop(life->drain, "told");
        break;
    case CONTROL_ASK:
        inquest_on_ask(life->worker.inquest, m->body, m->body_len);
        break;
    case CONTROL_TELL:
        inquest_on_tell(life->worker.inquest, m->body, m->body_len);
        break;
    case CONTROL_EXPLAINED:
        explained(&life->worker, m);
        break;
    case CONTROL_LOG:
        set_log(m);
        break;
    case CONTROL_LEFT:
        life->worker.is_left = true;
        break;
    case CONTROL_TICKETS:
        set_tickets(life, m);
        break;
    case CONTROL_KEYS:
        take_keys(&life->worker, ipc_take_fd(m));
        break;
    default:
        log_warning("control-unknown", "type", LOG_INT(m->type));
    }
    ipc_close_fds(m);
}

static void on_control(struct ev_loop *loop, ev_io *io, int events)
{
    struct life *life = io->data;
    (void)events;
    for (int i = 0; i < CONTROL_BATCH; i++) {
        int got = ipc_recv(io->fd, &life->message);
        if (got == 0)
            return;
        if (got < 0) {
            ev_io_stop(loop, io);
            drain_stop(life->drain, got == -EPIPE ? "master is gone" : "control link failed");
            acceptor_stop(life->worker.acceptor, true);
            acceptor_abandon(life->worker.acceptor);
            return;
        }
        on_message(life, &life->message);
    }
}

static void on_term(struct ev_loop *loop, ev_io *io, int events)
{
    const struct life *life = io->data;
    struct signalfd_siginfo info;
    (void)loop;
    (void)events;
    if (read(io->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        drain_stop(life->drain, "SIGTERM");
}

/* ---- each turn, each second ---- */

/* Before everything else of the turn. */
static void on_turn_start(struct ev_loop *loop, ev_check *check, int events)
{
    struct life *life = check->data;
    (void)events;
    life->turn_us = clock_mono_us();
    trace_set_time((int64_t)(ev_now(loop) * 1e6));
    delivery_begin_turn(life->turn_us);
    conns_begin_turn(life->worker.conns, life->turn_us);
    acceptor_begin_turn(life->worker.acceptor, life->turn_us, life->is_busy);
    counters_doing(DOING_TURN, 0);
}

static void on_turn_end(struct ev_loop *loop, ev_prepare *prepare, int events)
{
    struct life *life = prepare->data;
    (void)events;
    get_ready_in_time(life);
    int64_t busy_us = life->is_busy ? 0 : life->turn_us + BUSY_US;
    if (modules_end_turn(&life->worker, busy_us) && !ev_is_active(&life->more)) {
        ev_timer_set(&life->more, 0., 0.);
        ev_timer_start(loop, &life->more);
    }
    drain_end_turn(life->drain);
    if (life->turn_us) { /* not before the first turn */
        int64_t took_us = delivery_measure(clock_mono_us()) - life->turn_us;
        life->is_busy = took_us >= BUSY_US;
        counters_turn((uint64_t)took_us);
    }
    counters_doing(DOING_NOTHING, 0);
}

static void on_more(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)timer, (void)events; /* the turn it makes ends in on_turn_end */
}

static void on_second(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct life *life = timer->data;
    (void)loop;
    (void)events;
    uint64_t suppressed = log_suppressed();
    __atomic_store_n(&counters_self->heartbeat_ms, (uint64_t)clock_mono_ms(), __ATOMIC_RELAXED);
    counters_add(CTR_log_lines_suppressed, suppressed - life->suppressed);
    life->suppressed = suppressed;
    conns_tidy(life->worker.conns);
}

/* ---- start and end ---- */

static void init_context(struct worker *w, const struct worker_start *start)
{
    const struct options *opt = start->opt;
    w->start = start;
    w->opt = opt;
    w->style = (struct message_style){.lower_case = opt->event_case == EVENT_CASE_LOWER,
                                      .with_zone = opt->profile != PROFILE_FINANCE_TRACKER};
    w->emit_rules = (struct emit_rules){.keys = start->keys,
                                        .style = w->style,
                                        .history_size = opt->history_size,
                                        .history_ttl_ms = opt->history_ttl};
}

/* Before anything is heard from outside, and before there are threads. */
static void enter_sandbox(const struct worker_start *start)
{
    if (start->opt->sandbox != CHOICE_ON || !sandbox_is_possible())
        return;
    struct sandbox s = sandbox_enter(start->redis);
    counters_set(CTR_sandboxed, s.has_seccomp);
    if (s.seccomp_error || s.landlock_error)
        log_warning("sandbox-refused", "seccomp_error", log_errno(s.seccomp_error),
                    "landlock_error", log_errno(s.landlock_error));
    log_info("worker-sandboxed", "seccomp", LOG_BOOL(s.has_seccomp), "landlock",
             LOG_INT(s.landlock));
}

/* libev does not tell. It opened the lowest descriptor that was free; only an epoll set answers
 * ENOENT to this question. */
static int find_epoll(struct ev_loop *loop, int lowest, int other_fd)
{
    if (ev_backend(loop) != EVBACKEND_EPOLL ||
        epoll_ctl(lowest, EPOLL_CTL_DEL, other_fd, NULL) == 0 || errno != ENOENT)
        return -1;
    return lowest;
}

static void make_loop(struct worker *w)
{
    int lowest = dup(w->start->control_fd);
    w->epoll_fd = -1;
    if (lowest >= 0)
        close(lowest);
    /* A loop of its own, never the default one: that is the master's, copied by fork. */
    w->loop = ev_loop_new(EVFLAG_NOENV);
    if (w->loop && lowest >= 0)
        w->epoll_fd = find_epoll(w->loop, lowest, w->start->control_fd);
}

/* SIGTERM comes as something to read: libev's own signal watchers belong to the master's loop,
 * whose state this process inherited. */
static int open_term(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void start_watchers(struct life *life, int term_fd)
{
    struct ev_loop *loop = life->worker.loop;
    ev_io_init(&life->control, on_control, life->worker.start->control_fd, EV_READ);
    ev_io_init(&life->term, on_term, term_fd, EV_READ);
    ev_timer_init(&life->unready, on_unready, READY_WAIT_MS / 1000., 0.);
    ev_timer_init(&life->second, on_second, 0., 1.);
    ev_timer_init(&life->more, on_more, 0., 0.);
    ev_check_init(&life->turn_start, on_turn_start);
    ev_set_priority(&life->turn_start, EV_MAXPRI); /* the last started is called first */
    ev_prepare_init(&life->turn_end, on_turn_end);
    life->control.data = life->term.data = life->unready.data = life->second.data =
        life->turn_start.data = life->turn_end.data = life;
    ev_io_start(loop, &life->control);
    ev_io_start(loop, &life->term);
    ev_timer_start(loop, &life->unready);
    ev_timer_start(loop, &life->second);
    ev_check_start(loop, &life->turn_start);
    ev_prepare_start(loop, &life->turn_end);
}

static void stop_watchers(struct life *life)
{
    struct ev_loop *loop = life->worker.loop;
    ev_io_stop(loop, &life->control);
    ev_io_stop(loop, &life->term);
    ev_timer_stop(loop, &life->unready);
    ev_timer_stop(loop, &life->second);
    ev_timer_stop(loop, &life->more);
    ev_check_stop(loop, &life->turn_start);
    ev_prepare_stop(loop, &life->turn_end);
}

static void serve(struct life *life)
{
    struct worker *w = &life->worker;
    ev_run(w->loop, 0);
    conns_flush(w->conns, false);
    if (drain_phase(life->drain) == DRAIN_DRAINING)
        ipc_send(w->start->control_fd, CONTROL_DRAINED, NULL, 0, -1);
    log_info("worker-ends", "connections_left", LOG_INT(conns_count(w->conns)));
}

int worker_run(const struct worker_start *start)
{
    struct life *life = calloc(1, sizeof(*life));
    if (!life)
        return fail(start, "memory");
    struct worker *w = &life->worker;
    int term_fd = -1;
    const char *missing = "loop";

    counters_attach(start->counters, start->slot);
    trace_attach(start->trace, start->slot);
    trace_set_time(clock_wall_us());
    fate_started();
    init_context(w, start);
    enter_sandbox(start);
    make_loop(w);
    if (w->loop) {
        missing = modules_make(w);
        if (!missing && !(life->drain = drain_new(w)))
            missing = "drain";
        term_fd = open_term();
        if (!missing && term_fd < 0)
            missing = "signals";
    }
    if (missing) {
        life->status = fail(start, missing);
    } else {
        start_watchers(life, term_fd);
        serve(life);
        stop_watchers(life);
    }
    drain_free(life->drain);
    modules_free(w);
    if (term_fd >= 0)
        close(term_fd);
    if (w->loop)
        ev_loop_destroy(w->loop);
    int status = life->status;
    free(life);
    return status;
}
