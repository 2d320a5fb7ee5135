#include "config.h"

#include "workers/acceptor.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/counters.h"
#include "shared/log.h"
#include "workers/conn.h"
#include "workers/router.h"

struct port {
    struct ev_io io;
    struct acceptor *acceptor;
    const struct worker_listener *listener;
};

struct acceptor {
    struct worker *worker;
    struct ev_timer pause;
    int64_t until_us; /* monotonic: end of this turn's slice */
    bool is_stopped;  /* client listeners */
    bool is_replaced; /* the metrics listener, too */
    int reserve;      /* descriptor given up for a moment when there is no other; -1: none */
    size_t port_count;
    struct port ports[];
};

static int open_reserve(void)
{
    return eventfd(0, EFD_CLOEXEC); /* anything that takes one */
}

static void start_ports(struct acceptor *a)
{
    for (size_t i = 0; i < a->port_count; i++)
        if (!a->is_stopped || (a->ports[i].listener->is_metrics && !a->is_replaced))
            ev_io_start(a->worker->loop, &a->ports[i].io);
}

static void stop_ports(struct acceptor *a, bool clients_only)
{
    for (size_t i = 0; i < a->port_count; i++)
        if (!clients_only || !a->ports[i].listener->is_metrics)
            ev_io_stop(a->worker->loop, &a->ports[i].io);
}

static void on_pause_over(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    struct acceptor *a = timer->data;
    (void)loop;
    (void)revents;
    if (a->reserve < 0)
        a->reserve = open_reserve();
    start_ports(a);
}

/* One of those who wait is told, rather than left to its own timeout. */
static void turn_away(struct acceptor *a, struct port *p)
{
    if (a->reserve < 0)
        return;
    close(a->reserve);
    int fd = accept4(p->io.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        counters_inc(CTR_descriptor_refusals);
        router_refuse_socket(a->worker, fd, p->listener, 503, "Too many connections");
        close(fd);
    }
    a->reserve = open_reserve();
}

static void start_pause(struct acceptor *a)
{
    ev_timer_stop(a->worker->loop, &a->pause);
    ev_timer_set(&a->pause, ACCEPTOR_PAUSE_MS / 1e3, 0.);
    ev_timer_start(a->worker->loop, &a->pause);
}

/* No descriptor is to spare. Those who said nothing for longest make room for who comes; the
 * next turn has their descriptors. */
static void make_room(struct acceptor *a, struct port *p)
{
    if (conns_reclaim(a->worker->conns, ACCEPTOR_RECLAIM))
        return;
    turn_away(a, p);
    stop_ports(a, false);
    start_pause(a);
}

/* False: there is nobody left to accept, or accepting must rest. */
static bool accept_one(struct port *p)
{
    struct acceptor *a = p->acceptor;
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    counters_doing(DOING_ACCEPT, 0);
    if (p->listener->is_tls && !conns_has_tls_room(a->worker->conns)) {
        ev_io_stop(a->worker->loop, &p->io); /* the others go on */
        start_pause(a);
        return false;
    }
    int fd = accept4(p->io.fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        counters_inc(CTR_connections_accepted);
        conn_open(a->worker, fd, p->listener, len > 0 ? (struct sockaddr *)&peer : NULL);
        return true;
    }
    int error = errno;
    if (error == EAGAIN)
        return false;
    if (error == EINVAL) { /* the master has shut it */
        ev_io_stop(a->worker->loop, &p->io);
        return false;
    }
    counters_inc(CTR_accept_errors);
    if (error == ECONNABORTED || error == EINTR || error == EPROTO)
        return true; /* that one is gone, the next may be there */
    log_warning("accept-failed", "error", log_errno(error));
    if (error == EMFILE || error == ENFILE)
        turn_away(a, p);
    stop_ports(a, false);
    start_pause(a);
    return false;
}

static void accept_some(struct port *p)
{
    struct acceptor *a = p->acceptor;
    struct conns *conns = a->worker->conns;
    for (int n = 1;; n++) {
        if (!accept_one(p) || !conns_has_descriptor(conns))
            return; /* whether another one waits, the next turn tells */
        if (n % ACCEPTOR_BATCH == 0 &&
            (!conns_has_much_room(conns) || clock_mono_us() >= a->until_us))
            break;
    }
    counters_inc(CTR_turn_bound_hits);
    conns_expect_more(conns);
}

static void on_accept(struct ev_loop *loop, struct ev_io *io, int revents)
{
    struct port *p = io->data;
    const struct conns *conns = p->acceptor->worker->conns;
    (void)loop;
    (void)revents;
    if (conns_has_descriptor(conns))
        accept_some(p);
    else
        make_room(p->acceptor, p);
}

void acceptor_begin_turn(struct acceptor *a, int64_t now_us, bool is_busy)
{
    if (!a)
        return;
    a->until_us = now_us + ACCEPTOR_SLICE_US;
    for (size_t i = 0; is_busy && i < a->port_count; i++)
        if (ev_is_active(&a->ports[i].io) && conns_has_descriptor(a->worker->conns))
            accept_some(&a->ports[i]);
}

struct acceptor *acceptor_new(struct worker *w)
{
    const struct worker_start *start = w->start;
    struct acceptor *a = calloc(1, sizeof *a + start->listener_count * sizeof a->ports[0]);
    if (!a)
        return NULL;
    a->worker = w;
    a->reserve = open_reserve();
    a->port_count = start->listener_count;
    ev_timer_init(&a->pause, on_pause_over, 0., 0.);
    a->pause.data = a;
    for (size_t i = 0; i < a->port_count; i++) {
        struct port *p = &a->ports[i];
        p->acceptor = a;
        p->listener = &start->listeners[i];
        ev_io_init(&p->io, on_accept, p->listener->fd, EV_READ);
        ev_set_priority(&p->io, EV_MAXPRI);
        p->io.data = p;
    }
    return a;
}

void acceptor_start(struct acceptor *a)
{
    start_ports(a);
}

void acceptor_stop(struct acceptor *a, bool is_replaced)
{
    if (!a)
        return;
    a->is_stopped = true;
    a->is_replaced = is_replaced;
    stop_ports(a, !is_replaced);
}

void acceptor_abandon(struct acceptor *a)
{
    for (size_t i = 0; a && i < a->port_count; i++)
        close(a->ports[i].listener->fd);
    if (a)
        a->port_count = 0;
}

bool acceptor_has_clients(const struct acceptor *a)
{
    bool has_clients = a && ev_is_active(&a->pause);
    for (size_t i = 0; a && i < a->port_count; i++)
        has_clients |= !a->ports[i].listener->is_metrics && ev_is_active(&a->ports[i].io);
    return has_clients;
}

void acceptor_free(struct acceptor *a)
{
    if (!a)
        return;
    stop_ports(a, false);
    ev_timer_stop(a->worker->loop, &a->pause);
    if (a->reserve >= 0)
        close(a->reserve);
    free(a);
}
