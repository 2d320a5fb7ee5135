#include "config.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/counters.h"
#include "shared/log.h"
#include "workers/admission.h"
#include "workers/conn_internal.h"
#include "workers/delivery.h"
#include "workers/proxyhead.h"
#include "workers/router.h"
#include "workers/session.h"

#define IOV_MAX_ITEMS 64
#define WRITE_ROUNDS 4           /* sendmsg calls for one connection in one turn */
#define FLUSH_ROUNDS 4           /* walks over those that were marked meanwhile */
#define FLUSH_US 4000            /* one turn's time for them; the rest is the next turn's */
#define CLOCK_EVERY 32           /* connections */
#define REAP_US 2000             /* one turn's time to free them: 10 us each, most of it close() */
#define READ_US 4000             /* one turn's time for what clients say, but handshakes */
#define READ_CLOCK_EVERY 16      /* connections */
#define ADMIT_US 3000            /* one turn's time for handshakes */
#define ADMIT_LESS_US 500        /* the same while more wait to be accepted */
#define CROWD 16                 /* so many waited: their requests are there by now */

static bool is_flushed(const struct conn *c)
{
    return !c->outq.head && !(c->tls && tlsio_has_pending(c->tls));
}

/* ---- writing ---- */

static ssize_t write_some(struct conn *c, int *events)
{
    struct iovec iov[IOV_MAX_ITEMS];
    int count = outq_iov(&c->outq, iov, IOV_MAX_ITEMS);
    *events = EV_WRITE;
    if (c->tls)
        return tlsio_writev(c->tls, iov, count, events);
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    /* One piece is the rule, and send() has no header and vector to copy and check. */
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    ssize_t n = count == 1 ? send(c->io.fd, iov->iov_base, iov->iov_len, flags)
                           : sendmsg(c->io.fd, &message, flags);
    return n < 0 ? -errno : n;
}

/* Who reads slowly, but reads, gets time for the end of an answer or for our close frame. */
static void note_progress(struct conn *c)
{
    int64_t now_ms = worker_now_ms(c->worker);
    if (!c->phase_until_ms)
        return;
    if (c->state == CONN_HTTP)
        c->phase_until_ms = now_ms + c->worker->opt->handshake_timeout;
    else if (c->close_frame_sent && now_ms < c->closing_ms + CONN_CLOSE_FLUSH_MS)
        c->phase_until_ms = now_ms + CONN_CLOSE_TIMEOUT_MS;
}

static void write_rounds(struct conn *c, int rounds)
{
    int events;
    while (rounds-- > 0) {
        if (is_flushed(c))
            return;
        ssize_t n = write_some(c, &events);
        if (n == -EINTR)
            continue;
        if (n == -EAGAIN) {
            /* TLS that wants to read first is served by the next thing that is read. */
            c->is_blocked = events & EV_WRITE;
            return;
        }
        if (n < 0) {
            conn_drop(c, CLOSE_LOST);
            return;
        }
        counters_add(CTR_sent_bytes, (uint64_t)n);
        outq_consume(&c->outq, (size_t)n);
        if (c->outq.keys && c->outq.bytes <= (size_t)c->worker->opt->send_buffer_limit / 4)
            outq_stop_conflating(&c->outq);
        if (n > 0)
            note_progress(c);
    }
    if (!is_flushed(c)) {
        counters_inc(CTR_turn_bound_hits);
        c->is_blocked = true; /* the socket says at once whether it takes more */
    }
}

void conn_write(struct conn *c, int rounds)
{
    write_rounds(c, rounds);
    if (c->outq.head)
        outq_split(&c->outq);
}

/* The socket took n bytes of a frame, and no more now. */
static void queue_rest(struct conn *c, struct frame *f, size_t n)
{
    c->is_blocked = true;
    conn_send(c, f);
    if (n && c->state == CONN_OPEN)
        outq_consume(&c->outq, n);
    else if (n)
        conn_drop(c, CLOSE_INTERNAL); /* no close frame may stand in the middle of another */
    outq_split(&c->outq);
}

void conn_send_now(struct conn *c, struct frame *f)
{
    f = conn_form(c, f);
    if (c->state != CONN_OPEN || c->outq.head || c->is_blocked || c->tls) {
        conn_send(c, f);
        return;
    }
    ssize_t n = send(c->io.fd, f->bytes, f->len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        conn_drop(c, CLOSE_LOST);
        return;
    }
    size_t done = n > 0 ? (size_t)n : 0;
    counters_add(CTR_sent_bytes, done);
    if (done == f->len) {
        outq_passed(&c->outq, done);
        delivery_written(f);
    } else {
        queue_rest(c, f, done);
    }
}

uint64_t conn_taken_bytes(const struct conn *c, bool *is_all)
{
    /* tcp(7), unix(7). With TLS these are bytes on the wire, of a Unix socket the kernel's overhead
     * is among them: good for telling whether it grows. */
    int left = 0;
    if (ioctl(c->io.fd, SIOCOUTQ, &left) < 0)
        left = 0;
    *is_all = left <= 0;
    return c->outq.written > (uint64_t)left ? c->outq.written - (uint64_t)left : 0;
}

/* ---- reading ---- */

static bool wants_read(const struct conn *c)
{
    size_t most = (size_t)c->worker->opt->send_buffer_limit / 2;
    switch ((enum conn_state)c->state) {
    case CONN_PROXY:
    case CONN_TLS:
    case CONN_CLOSING:
        return true;
    case CONN_HTTP:
        return !c->reply && !c->kept && !c->close_after_flush && !c->saw_eof &&
               c->outq.bytes <= CONN_ANSWERS_BYTES;
    case CONN_AUTH:
    case CONN_OPEN:
        if (admission_is_awaited(c)) /* what it says is for somebody who is not known yet */
            return false;
        /* Who does not listen may not ask; but pongs must be heard whatever else waits. */
        return c->outq.reply_bytes <= most;
    case CONN_DEAD:
        break;
    }
    return false;
}

static void on_eof(struct conn *c)
{
    if (c->state == CONN_HTTP && !is_flushed(c)) {
        c->saw_eof = true;
        c->close_after_flush = true;
        conn_mark(c);
    } else {
        conn_drop(c, CLOSE_LOST);
    }
}

static void on_bytes(struct conn *c, const unsigned char *bytes, size_t len)
{
    c->received_bytes += len;
    c->last_read_ms = worker_now_ms(c->worker);
    counters_add(CTR_received_bytes, len);
    if (c->is_lingering || c->is_deaf)
        return; /* thrown away, until the state's time is over */
    if (c->state == CONN_HTTP)
        conn_http_input(c, bytes, len);
    else
        conn_ws_input(c, bytes, len);
}

static void read_once(struct conn *c)
{
    struct conns *s = c->worker->conns;
    int events = EV_READ;
    ssize_t n;
    if (c->tls) {
        n = tlsio_read(c->tls, s->buffer, sizeof s->buffer, &events);
        if (n == -EAGAIN && (events & EV_WRITE))
            c->is_blocked = true;
    } else {
        n = recv(c->io.fd, s->buffer, sizeof s->buffer, MSG_DONTWAIT);
        n = n < 0 ? -errno : n;
    }
    if (n > 0) {
        if ((size_t)n == sizeof s->buffer)
            counters_inc(CTR_turn_bound_hits);
        on_bytes(c, s->buffer, (size_t)n);
    } else if (n == 0) {
        on_eof(c);
    } else if (n != -EAGAIN && n != -EINTR) {
        conn_drop(c, CLOSE_LOST);
    }
}

/* ---- PROXY header ---- */

static void refuse_header(struct conn *c)
{
    char id[CONN_ID_BYTES], address[IP_TEXT_BYTES];
    counters_inc(CTR_proxy_header_errors);
    log_info("proxy-header-bad", "conn", conn_id(c, id), "proxy", conn_address(c, address));
    conn_end(c);
}

/* Whose connection it is, is known. */
static void take_header(struct conn *c, const struct ip *source)
{
    conn_drop_kept(c);
    c->state = c->tls ? CONN_TLS : CONN_HTTP;
    if (c->tls)
        conn_tls_begin(c);
    if (ip_is_none(source)) /* the proxy's own */
        return;
    c->address = *source;
    if (conn_enter_address(c, true) != 0) {
        counters_inc(CTR_address_limit_refusals);
        if (c->tls)
            conn_end(c);
        else
            router_refuse(c, NULL, 429);
    }
}

/* Only the header is taken off the socket: what follows may be for OpenSSL to read. */
static void read_header(struct conn *c)
{
    unsigned char *bytes = c->worker->conns->buffer;
    size_t before = conn_kept_bytes(c);
    struct ip source = {{0}};
    if (before)
        memcpy(bytes, conn_kept(c), before);
    ssize_t n = recv(c->io.fd, bytes + before, PROXYHEAD_MAX_BYTES - before,
                     MSG_DONTWAIT | MSG_PEEK);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_end(c);
        return;
    }
    int size = proxyhead_read(bytes, before + (size_t)n, &source);
    size_t part = size > 0 ? (size_t)size - before : (size_t)n;
    if (size < 0 || (!size && !conn_keep(c, bytes + before, part)) ||
        recv(c->io.fd, bytes, part, MSG_DONTWAIT) != (ssize_t)part) {
        refuse_header(c);
        return;
    }
    c->received_bytes += part;
    counters_add(CTR_received_bytes, part);
    if (size > 0)
        take_header(c, &source);
}

/* ---- events ---- */

static void watch(struct conn *c, int events)
{
    struct ev_loop *loop = c->worker->loop;
    if (ev_is_active(&c->io) && (c->io.events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(loop, &c->io);
    if (!events)
        return;
    ev_io_set(&c->io, c->io.fd, events);
    ev_io_start(loop, &c->io);
}

static void shake_hands(struct conn *c)
{
    int events = conn_tls_shake(c);
    if (c->state == CONN_TLS)
        watch(c, events);
    else if (c->state == CONN_HTTP && c->tls)
        read_once(c); /* the request may have come in the same segment */
}

static void another_turn(struct conns *s)
{
    counters_inc(CTR_turn_bound_hits);
    if (ev_is_active(&s->again))
        return;
    ev_timer_set(&s->again, 0., 0.);
    ev_timer_start(s->worker->loop, &s->again);
}

static void be_read(struct conn *c)
{
    if (c->state == CONN_PROXY)
        read_header(c);
    else if (c->state == CONN_TLS)
        shake_hands(c);
    else if (wants_read(c))
        read_once(c);
}

void conns_begin_turn(struct conns *s, int64_t now_us)
{
    s->read_until_us = now_us + READ_US;
    s->reads = 0;
}

/* epoll gives as many as are ready, which may be all that there are. */
static bool is_turn_over(struct conns *s)
{
    if (++s->reads % READ_CLOCK_EVERY == 0 && s->read_until_us &&
        clock_mono_us() >= s->read_until_us) {
        s->read_until_us = 0;
        counters_inc(CTR_turn_bound_hits);
    }
    return !s->read_until_us;
}

static void on_io(struct ev_loop *loop, struct ev_io *io, int revents)
{
    struct conn *c = io->data;
    (void)loop;
    if (is_turn_over(c->worker->conns))
        return; /* it is told again in the next turn: epoll is level-triggered */
    counters_doing(DOING_CLIENT, c->serial);
    if (revents & EV_WRITE) {
        c->is_blocked = false;
        /* Room in the kernel means that the peer took something: as good a sign of life as any. */
        c->last_read_ms = worker_now_ms(c->worker);
    }
    if (c->state < CONN_HTTP || (c->state == CONN_HTTP && !c->had_request))
        conn_arrive(c);
    else if ((revents & EV_READ) || c->tls)
        be_read(c);
    conn_mark(c);
    counters_doing(DOING_TURN, 0);
}

void conn_arrive(struct conn *c)
{
    struct conns *s = c->worker->conns;
    if (c->in_flush || c->in_reap)
        return;
    c->in_flush = true;
    c->flush_next = NULL;
    *s->arrivals_tail = c;
    s->arrivals_tail = &c->flush_next;
    s->arrival_count++;
}

static void admit(struct conn *c, bool is_crowd)
{
    bool is_new = !ev_is_active(&c->io);
    counters_doing(DOING_CLIENT, c->serial);
    if (is_new && c->state != CONN_DEAD)
        conn_io_start(c);
    if (!is_new || is_crowd)
        be_read(c);
    if (!is_new || is_crowd || c->state == CONN_DEAD)
        conn_mark(c);
}

bool conns_admit(struct conns *s)
{
    struct conn *c = s->arrivals;
    bool is_crowd = s->arrival_count > CROWD;
    if (!c)
        return false;
    int64_t until_us = clock_mono_us() + (s->expects_more ? ADMIT_LESS_US : ADMIT_US);
    s->expects_more = false;
    do {
        s->arrivals = c->flush_next;
        s->arrival_count--;
        c->in_flush = false;
        admit(c, is_crowd);
    } while ((c = s->arrivals) && clock_mono_us() < until_us);
    if (!s->arrivals)
        s->arrivals_tail = &s->arrivals;
    else
        another_turn(s);
    counters_doing(DOING_TURN, 0);
    return s->flush_head;
}

void conn_io_start(struct conn *c)
{
    ev_io_init(&c->io, on_io, c->io.fd, EV_READ);
    c->io.data = c;
    ev_io_start(c->worker->loop, &c->io);
}

/* Who closes the last descriptor of a socket takes it out of every epoll set by that, and libev
 * counts on it. This one lives on elsewhere, and would go on to wake this process, where libev
 * could only make its whole set anew. epoll(7), "Questions and answers", 6. */
void conn_io_forget(struct conn *c)
{
    ev_io_stop(c->worker->loop, &c->io);
    ev_clear_pending(c->worker->loop, &c->io);
    if (c->worker->epoll_fd >= 0)
        epoll_ctl(c->worker->epoll_fd, EPOLL_CTL_DEL, c->io.fd, NULL);
}

/* ---- the end of a turn ---- */

/* All is written and TCP may end. close() alone would send a reset if the peer still says
 * something, and the reset would destroy our last words on their way. */
static void linger(struct conn *c)
{
    if (c->saw_eof) {
        conn_end(c);
        return;
    }
    c->is_lingering = true;
    c->state = CONN_CLOSING;
    if (c->tls)
        tlsio_shutdown(c->tls);
    if (shutdown(c->io.fd, SHUT_WR) != 0)
        conn_end(c);
    else
        conn_set_phase(c, CONN_LINGER_MS);
}

static void end_turn(struct conns *s, struct conn *c)
{
    counters_doing(DOING_FLUSH, c->serial);
    if (c->needs_session_close)
        conn_release_session(c);
    if (c->state == CONN_DEAD) {
        c->in_reap = true;
        c->flush_next = s->reap;
        s->reap = c;
        return;
    }
    if (c->state == CONN_PROXY || c->state == CONN_TLS)
        return;
    conn_http_resume(c);
    if (!c->is_blocked && c->state != CONN_DEAD)
        conn_write(c, WRITE_ROUNDS);
    if (c->device.busy->lag && conn_is_drained(c, 0))
        session_on_drained(c->worker, &c->device);
    if (conn_http_can_resume(c))
        conn_mark(c);
    if (c->close_after_flush && !c->is_lingering && c->state != CONN_DEAD && is_flushed(c))
        linger(c);
    if (c->state != CONN_DEAD)
        watch(c, (wants_read(c) ? EV_READ : 0) | (c->is_blocked ? EV_WRITE : 0));
}

/* One walk over those that are marked now. False: its time is over, and the rest stays marked. */
static bool flush_round(struct conns *s, int64_t until_us)
{
    struct conn *c = s->flush_head, *next, **tail = s->flush_tail;
    s->flush_head = NULL;
    s->flush_tail = &s->flush_head;
    for (unsigned n = 1; c; c = next, n++) {
        next = c->flush_next;
        c->in_flush = false;
        end_turn(s, c);
        if (!next || n % CLOCK_EVERY || delivery_measure(clock_mono_us()) < until_us)
            continue;
        *tail = s->flush_head; /* who was marked meanwhile comes behind */
        if (!s->flush_head)
            s->flush_tail = tail;
        s->flush_head = next;
        return false;
    }
    return true;
}

static void reap(struct conns *s, bool is_bounded)
{
    int64_t until_us = is_bounded && s->reap ? clock_mono_us() + REAP_US : INT64_MAX;
    for (unsigned n = 1; s->reap; n++) {
        struct conn *c = s->reap;
        s->reap = c->flush_next;
        conn_destroy(c);
        if (n % CLOCK_EVERY == 0 && clock_mono_us() >= until_us)
            return;
    }
}

void conns_flush(struct conns *s, bool is_bounded)
{
    int64_t until_us = is_bounded && s->flush_head ? clock_mono_us() + FLUSH_US : INT64_MAX;
    for (int round = 0; s->flush_head && round < FLUSH_ROUNDS; round++)
        if (!flush_round(s, until_us))
            break;
    reap(s, is_bounded);
    if (s->flush_head || s->reap)
        another_turn(s);
}
