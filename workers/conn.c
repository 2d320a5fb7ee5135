#include "config.h"

#include "workers/conn.h"

#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/counters.h"
#include "shared/log.h"
#include "workers/admission.h"
#include "workers/conn_internal.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/pressure.h"
#include "workers/router.h"
#include "workers/session.h"
#include "workers/slab.h"
#include "workers/subscriber.h"

/* What the kernel takes beyond what is on its way (tcp(7)). Without it the messages of a slow
 * reader wait there by the megabyte, cannot be conflated, and a ping stands behind them all. */
#define UNSENT_BYTES 262144
#define TIDY_CONNECTIONS 1000 /* fewer leave nothing behind that is worth a walk over the heap */
#define TIDY_TIMES 20         /* in a row; some always leave */
#define WALKED_BYTES (offsetof(struct conn, flush_next) + 63) /* it may begin anywhere in a line */
#define DESCRIPTORS_KEPT 64 /* for HTTP, Redis and the log when WebSockets would take the rest */
#define DESCRIPTORS_OWN 32  /* of these, for what is no connection: Redis, the log, epoll ... */

/* ---- all connections ---- */

static void on_again(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
    (void)loop;
    (void)timer;
    (void)revents; /* the turn it begins ends with conns_flush */
}

static void find_descriptors(struct conns *s)
{
    struct rlimit limit;
    s->room = s->descriptors = SIZE_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return;
    size_t most = (size_t)limit.rlim_cur;
    bool is_enough = most > 2 * DESCRIPTORS_KEPT;
    s->room = is_enough ? most - DESCRIPTORS_KEPT : most / 2;
    s->descriptors = is_enough ? most - DESCRIPTORS_OWN : most / 4 * 3;
    size_t listeners = s->worker->start->listener_count;
    s->descriptors -= listeners < s->descriptors - s->room ? listeners : 0;
}

_Static_assert(TRACE_SERIAL_SLOTS >= COUNTERS_MAX_SLOTS, "every slot fits into a serial");

struct conns *conns_new(struct worker *w)
{
    struct conns *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->worker = w;
    s->flush_tail = &s->flush_head;
    s->arrivals_tail = &s->arrivals;
    s->read_until_us = INT64_MAX;
    find_descriptors(s);
    s->proxies = proxies_new(&w->opt->trusted_proxies);
    s->http_limits = (struct http_limits){(size_t)w->opt->max_header_size,
                                          (size_t)w->opt->max_message_size};
    /* Serials go on where an earlier worker of this slot cannot have been: 2^12 a millisecond. The
     * slot is in them, for a connection keeps its serial in whatever worker it is. */
    s->next_serial = (uint64_t)clock_wall_ms() << 20 | w->start->slot;
    s->slab = slab_new(sizeof(struct conn));
    s->wsocks = wsock_pool_new(w->deflate, &conn_ws_events);
    ev_timer_init(&s->again, on_again, 0., 0.);
    if (!w->wheel) {
        w->wheel = wheel_new(w->loop, conns_on_deadline, w);
        s->owns_wheel = true;
    }
    if (!s->slab || !s->wsocks || !s->proxies || !w->wheel || conn_tls_init(s) != 0) {
        conns_free(s);
        return NULL;
    }
    return s;
}

void conns_free(struct conns *s)
{
    if (!s)
        return;
    struct worker *w = s->worker;
    s->arrivals = NULL;
    while (s->all) {
        struct conn *c = s->all;
        conn_drop(c, CLOSE_SHUTDOWN);
        /* No turn ends any more: nobody may stay linked in its list. */
        s->flush_head = NULL;
        s->flush_tail = &s->flush_head;
        conn_destroy(c);
    }
    if (w->loop)
        ev_timer_stop(w->loop, &s->again);
    if (s->owns_wheel) {
        wheel_free(w->wheel);
        w->wheel = NULL;
    }
    wsock_pool_free(s->wsocks);
    tls_server_free(s->tls);
    proxies_free(s->proxies);
    slab_free(s->slab);
    free(s);
}

size_t conns_count(const struct conns *s)
{
    return s->count;
}

void conns_trim(struct conns *s)
{
    slab_trim(s->slab);
    hub_trim(s->worker->hub);
    if (s->worker->subscriber)
        subscriber_trim(s->worker->subscriber);
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* To attach takes memory for a moment: when no more of a crowd come, it is not needed any more. */
static void tidy_after_crowd(struct conns *s)
{
    size_t came = s->came;
    s->came = 0;
    s->crowd += came;
    if (s->crowd < TIDY_CONNECTIONS || came > s->crowd / 16)
        return;
    conns_trim(s);
    s->crowd = 0;
}

/* Again while they leave: a page stays as long as one of the ten that share it is here. */
void conns_tidy(struct conns *s)
{
    size_t left = s->left;
    s->left = 0;
    tidy_after_crowd(s);
    if (s->most < TIDY_CONNECTIONS || s->count > s->most / 2)
        return;
    if (left)
        conns_trim(s);
    if (!left || ++s->trims == TIDY_TIMES) {
        s->most = s->count;
        s->trims = 0;
    }
}

bool conns_has_room(const struct conns *s)
{
    return s->count < s->room;
}

bool conns_has_much_room(const struct conns *s)
{
    return s->count < s->room - s->room / 32;
}

void conns_expect_more(struct conns *s)
{
    s->expects_more = true;
}

bool conns_has_descriptor(const struct conns *s)
{
    return s->count < s->descriptors;
}

size_t conns_early_count(const struct conns *s)
{
    return s->early_count;
}

size_t conns_reclaim(struct conns *s, size_t count)
{
    size_t ended = 0;
    for (struct conn *c = s->early_first, *next; c && ended < count; c = next) {
        next = c->early_next;
        if (c->reply || c->outq.head || c->is_metrics)
            continue;
        conn_end(c);
        ended++;
    }
    counters_add(CTR_connections_reclaimed, ended);
    return ended;
}

void conns_each(struct conns *s, void (*fn)(void *data, struct conn *c), void *data)
{
    for (struct conn *c = s->all, *next; c; c = next) {
        next = c->all_next;
        if (c->state != CONN_DEAD)
            fn(data, c);
    }
}

void conns_walk(struct conns *s)
{
    s->walk = s->all;
}

/* What the next one is known to need of memory is fetched while this one is served. */
struct conn *conns_walk_next(struct conns *s)
{
    struct conn *c = s->walk;
    s->walk = c ? c->all_next : NULL;
    for (size_t at = 0; s->walk && at < WALKED_BYTES; at += 64)
        __builtin_prefetch((const char *)s->walk + at);
    return c;
}

void conn_mark(struct conn *c)
{
    struct conns *s = c->worker->conns;
    if (c->in_flush || c->in_reap)
        return;
    c->in_flush = true;
    c->flush_next = NULL;
    *s->flush_tail = c;
    s->flush_tail = &c->flush_next;
}

const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES])
{
    const struct worker_start *start = c->worker->start;
    return trace_connection(start->instance_id, c->serial, out);
}

/* ---- birth ---- */

static bool is_proxy(const struct conn *c)
{
    const struct proxies *p = c->worker->conns->proxies;
    if (ip_is_none(&c->address))
        return c->is_unix && proxies_trust_unix(p);
    return proxies_trust(p, &c->address);
}

int conn_enter_address(struct conn *c, bool is_limited)
{
    const struct worker *w = c->worker;
    int64_t limit = w->opt->max_connections_per_address;
    uint64_t key = ip_customer(&c->address);
    c->is_trusted = is_proxy(c);
    if (limit <= 0 || !w->start->addresses || !key || c->is_trusted)
        return 0;
    int n = usertable_enter(w->start->addresses, w->start->slot, key,
                            is_limited ? (uint32_t)limit : 0);
    c->is_counted_address = n > 0;
    return n < 0 ? n : 0;
}

bool conn_enter_client(struct conn *c)
{
    if (!c->is_trusted || !c->is_forwarded || conn_enter_address(c, true) == 0)
        return true;
    c->is_trusted = true; /* the next request may be another client's */
    counters_inc(CTR_address_limit_refusals);
    return false;
}

static void join_early(struct conn *c)
{
    struct conns *s = c->worker->conns;
    c->is_early = true;
    c->early_prev = s->early_last;
    *(s->early_last ? &s->early_last->early_next : &s->early_first) = c;
    s->early_last = c;
    s->early_count++;
}

void conn_leave_early(struct conn *c)
{
    struct conns *s = c->worker->conns;
    if (!c->is_early)
        return;
    c->is_early = false;
    *(c->early_prev ? &c->early_prev->early_next : &s->early_first) = c->early_next;
    *(c->early_next ? &c->early_next->early_prev : &s->early_last) = c->early_prev;
    c->early_next = c->early_prev = NULL;
    s->early_count--;
}

struct conn *conn_new(struct worker *w, int fd, const struct worker_listener *listener)
{
    struct conns *s = w->conns;
    struct conn *c = slab_take(s->slab);
    if (!c)
        return NULL;
    c->worker = w;
    device_init(&c->device, c);
    c->serial = s->next_serial;
    s->next_serial += TRACE_SERIAL_SLOTS;
    c->opened_ms = c->last_read_ms = worker_now_ms(w);
    c->is_metrics = listener->is_metrics;
    c->is_unix = listener->is_unix;
    c->state = CONN_HTTP;
    c->io.fd = fd;
    c->all_next = s->all;
    if (s->all)
        s->all->all_prev = c;
    s->all = c;
    s->count++;
    s->came++;
    if (s->count > s->most)
        s->most = s->count;
    return c;
}

/* Who may not come in, is told. 0 or negative errno. */
static int judge_new(struct conn *c, const struct worker_listener *listener)
{
    const struct worker *w = c->worker;
    if (conn_enter_address(c, true) != 0) {
        counters_inc(CTR_address_limit_refusals);
        router_refuse_socket(w, c->io.fd, listener, 429,
                             "Too many connections from this address");
        return -EDQUOT;
    }
    if (!c->is_metrics && pressure_is_high(w->pressure) &&
        w->conns->early_count >= PRESSURE_EARLY_MAX) {
        counters_inc(CTR_memory_refusals);
        router_refuse_socket(w, c->io.fd, listener, 503, "The server is short of memory");
        return -ENOMEM;
    }
    return 0;
}

int conn_open(struct worker *w, int fd, const struct worker_listener *listener,
              const struct sockaddr *peer)
{
    struct conn *c = conn_new(w, fd, listener);
    if (!c) {
        close(fd);
        return -ENOMEM;
    }
    counters_inc(CTR_connections);
    c->address = ip_from_sockaddr(peer);
    int error = judge_new(c, listener);
    if (!error && listener->is_tls) {
        c->state = CONN_TLS;
        c->tls = w->conns->tls ? tlsio_new(w->conns->tls, fd) : NULL;
        error = c->tls ? 0 : -ENOMEM;
    }
    if (error) {
        conn_destroy(c);
        return error;
    }
    if (!c->is_unix) { /* both stay with the socket, in whatever process it is */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &(int){UNSENT_BYTES}, sizeof(int));
    }
    if (c->is_trusted && !c->is_metrics && w->opt->proxy_protocol == CHOICE_ON)
        c->state = CONN_PROXY;
    join_early(c);
    if (c->state == CONN_TLS)
        conn_tls_begin(c);
    conn_arrive(c);
    conn_set_phase(c, w->opt->handshake_timeout);
    return 0;
}

/* ---- death ---- */

static void log_end(const struct conn *c)
{
    char id[CONN_ID_BYTES], address[IP_TEXT_BYTES];
    int64_t duration_ms = worker_now_ms(c->worker) - c->opened_ms;
    if (c->was_ws)
        log_info("connection-closed", "conn", conn_id(c, id), "address",
                 conn_address(c, address), "close",
                 closes_table[c->close_reason].word, "code", LOG_INT(c->close_code),
                 "duration_ms", LOG_INT(duration_ms), "received_bytes",
                 LOG_INT(c->received_bytes), "sent_bytes", LOG_INT(c->outq.written));
    else
        log_debug("http-connection-closed", "conn", conn_id(c, id), "address",
                  conn_address(c, address), "duration_ms", LOG_INT(duration_ms),
                  "received_bytes", LOG_INT(c->received_bytes),
                  "sent_bytes", LOG_INT(c->outq.written));
}

void conn_end(struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_AUTH || c->state == CONN_OPEN)
        conn_end_websocket(c, CLOSE_LOST, 0);
    if (c->state == CONN_TLS)
        conn_tls_end(c);
    c->state = CONN_DEAD;
    conn_leave_early(c);
    fate_closed(c);
    reply_abandon(c->reply);
    c->reply = NULL;
    ev_io_stop(c->worker->loop, &c->io);
    wheel_disarm(c->worker->wheel, &c->deadline);
    log_end(c);
    conn_mark(c);
}

void conn_end_websocket(struct conn *c, enum close_reason reason, int code)
{
    if (!c->is_counted_ws)
        return;
    c->is_counted_ws = false;
    c->needs_session_close = true;
    c->close_reason = (uint8_t)reason;
    c->close_code = (uint16_t)code;
    counters_inc((enum counter)(CTR_CLOSED_FIRST + (int)reason));
    counters_dec(CTR_websockets);
    conn_mark(c);
}

void conn_release_session(struct conn *c)
{
    c->needs_session_close = false;
    admission_end(c);
    if (c->device.state == DEVICE_NONE) {
        /* What the query gave waits here for an auth frame that will not come. */
        device_drop_resume(&c->device);
        filter_free(c->device.filter);
        c->device.filter = NULL;
    }
    if (!c->is_echo)
        session_close(c->worker, &c->device);
}

void conn_destroy(struct conn *c)
{
    struct worker *w = c->worker;
    struct conns *s = w->conns;
    if (c->needs_session_close)
        conn_release_session(c);
    if (s->walk == c)
        s->walk = c->all_next;
    if (c->all_next)
        c->all_next->all_prev = c->all_prev;
    if (c->all_prev)
        c->all_prev->all_next = c->all_next;
    else
        s->all = c->all_next;
    s->count--;
    s->left++;
    counters_dec(CTR_connections);
    conn_leave_early(c);
    if (c->is_counted_address)
        usertable_leave(w->start->addresses, w->start->slot, ip_customer(&c->address));
    device_settle(&c->device);
    outq_clear(&c->outq);
    http_free(c->http);
    wsock_release(s->wsocks, c->wsock);
    tlsio_free(c->tls);
    free(c->kept);
    if (c->io.fd >= 0)
        close(c->io.fd);
    slab_give(s->slab, c);
}

void conn_drop(struct conn *c, enum close_reason reason)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_AUTH || c->state == CONN_OPEN)
        conn_end_websocket(c, reason, 0);
    conn_end(c);
}

/* ---- deadlines ---- */

void conn_arm(struct conn *c)
{
    struct worker *w = c->worker;
    const struct options *opt = w->opt;
    int64_t now_ms = worker_now_ms(w), at_ms = INT64_MAX, t;
    if (c->state == CONN_DEAD)
        return;
    if (c->phase_until_ms)
        at_ms = c->phase_until_ms;
    if ((c->state == CONN_AUTH || c->state == CONN_OPEN) && !c->is_echo) {
        t = c->ping_sent_ms ? c->ping_sent_ms + opt->pong_timeout
                            : c->last_read_ms + opt->ping_interval;
        if (t < at_ms)
            at_ms = t;
    }
    if (c->state == CONN_OPEN && c->token_expires_ms) {
        t = now_ms + (c->token_expires_ms - worker_wall_ms(w));
        if (t < at_ms)
            at_ms = t;
    }
    if (at_ms == INT64_MAX)
        wheel_disarm(w->wheel, &c->deadline);
    else
        wheel_arm(w->wheel, &c->deadline, at_ms);
}

void conn_set_phase(struct conn *c, int64_t limit_ms)
{
    c->phase_until_ms = limit_ms > 0 ? worker_now_ms(c->worker) + limit_ms : 0;
    conn_arm(c);
}

static void on_phase_over(struct conn *c)
{
    switch ((enum conn_state)c->state) {
    case CONN_TLS:
        conn_tls_timeout();
        /* fall through */
    case CONN_PROXY:
    case CONN_HTTP:
        /* A connection that rests between requests has kept its word. */
        if (!c->had_request || c->http)
            counters_inc(CTR_handshake_timeouts);
        conn_end(c);
        break;
    case CONN_AUTH:
        conn_close(c, admission_is_pending(c) ? CLOSE_OVERLOAD : CLOSE_AUTH);
        break;
    case CONN_OPEN:
        c->phase_until_ms = 0;
        break;
    case CONN_CLOSING:
    case CONN_DEAD:
        conn_end(c);
        break;
    }
}

/* Reading does not touch the wheel: what it changed is found here, when the old deadline fires. */
static void check_life(struct conn *c, int64_t now_ms)
{
    const struct options *opt = c->worker->opt;
    if (c->ping_sent_ms && c->last_read_ms >= c->ping_sent_ms)
        c->ping_sent_ms = 0;
    bool is_all;
    if (c->ping_sent_ms) {
        if (now_ms < c->ping_sent_ms + opt->pong_timeout)
            return;
        /* A ping stands behind what the kernel has already: who still takes of that is alive. */
        uint64_t taken = conn_taken_bytes(c, &is_all);
        if (taken <= c->ping_taken_bytes || (is_all && !c->outq.head)) {
            conn_drop(c, CLOSE_NO_PONG);
            return;
        }
        c->ping_sent_ms = now_ms;
        c->ping_taken_bytes = taken;
    } else if (now_ms >= c->last_read_ms + opt->ping_interval) {
        conn_ws_ping(c);
        c->ping_sent_ms = now_ms;
        c->ping_taken_bytes = conn_taken_bytes(c, &is_all);
    }
}

void conns_on_deadline(void *data, struct wheel_entry *e)
{
    struct conn *c = (struct conn *)(void *)((char *)e - offsetof(struct conn, deadline));
    struct worker *w = data;
    int64_t now_ms = worker_now_ms(w);
    if (c->state == CONN_DEAD)
        return;
    if (c->phase_until_ms && now_ms >= c->phase_until_ms)
        on_phase_over(c);
    else if (c->state == CONN_OPEN && c->token_expires_ms &&
             worker_wall_ms(w) >= c->token_expires_ms)
        conn_close(c, CLOSE_EXPIRED);
    else if ((c->state == CONN_AUTH || c->state == CONN_OPEN) && !c->is_echo &&
             !admission_is_awaited(c)) /* a pong would not be heard */
        check_life(c, now_ms);
    conn_arm(c);
}
