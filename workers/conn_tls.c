#include "config.h"

#include <errno.h>
#include <signal.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/conn_internal.h"
#include "workers/router.h"

/* A client that has to answer and is silent for so long gives way when there are too many. */
#define SILENT_MS 2000
#define SHED_EVERY_MS 100

/* ---- the server's side of all of them ---- */

int conn_tls_init(struct conns *s)
{
    const struct worker_start *start = s->worker->start;
    enum tls_fault fault;
    int64_t from_ms, until_ms;
    char why[200];
    if (!start->tls_certificate_pem || !start->tls_key_pem)
        return 0;
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    s->tls = tls_server_new(start->tls_certificate_pem, start->tls_key_pem,
                            s->worker->opt->tls_session_time, &fault, why, sizeof why);
    if (!s->tls) {
        log_error("tls-unusable", "reason", why);
        return -EINVAL;
    }
    if (start->tickets)
        tls_server_set_tickets(s->tls, start->tickets);
    tls_server_validity(s->tls, &from_ms, &until_ms);
    counters_set(CTR_tls_certificate_ends_at_ms, (uint64_t)until_ms);
    return 0;
}

void conns_set_tickets(struct conns *s, const struct tickets *t)
{
    if (s->tls)
        tls_server_set_tickets(s->tls, t);
}

/* ---- how many at a time ---- */

static void count_shaking(struct conns *s, int change)
{
    s->shaking += (size_t)change;
    counters_set(CTR_tls_handshakes_open, s->shaking);
}

void conn_tls_begin(struct conn *c)
{
    count_shaking(c->worker->conns, 1);
}

void conn_tls_end(struct conn *c)
{
    count_shaking(c->worker->conns, -1);
}

static void count_failure(enum counter reason)
{
    counters_inc(CTR_tls_handshake_failures);
    counters_inc(reason);
}

static void shed_silent(void *data, struct conn *c)
{
    const int64_t *before_ms = data;
    if (c->state != CONN_TLS || c->last_read_ms > *before_ms)
        return;
    count_failure(CTR_tls_failures_shed);
    conn_end(c);
}

bool conns_has_tls_room(struct conns *s)
{
    size_t most = (size_t)s->worker->opt->max_tls_handshakes;
    int64_t now_ms = worker_now_ms(s->worker), before_ms = now_ms - SILENT_MS;
    if (s->shaking < most)
        return true;
    if (now_ms - s->shed_ms < SHED_EVERY_MS)
        return false;
    s->shed_ms = now_ms;
    counters_inc(CTR_tls_handshake_pauses);
    conns_each(s, shed_silent, &before_ms);
    return s->shaking < most;
}

/* ---- one handshake ---- */

/* Who speaks HTTP where TLS is spoken is told so, in HTTP; nothing else is ever said in the clear.
 * The rest of what it says is thrown away (conn_io.c, linger). */
static void answer_plainly(struct conn *c)
{
    struct text_buf response = {0};
    tlsio_free(c->tls);
    c->tls = NULL;
    c->state = CONN_HTTP;
    c->had_request = true;
    router_error_response(c->worker, &response, 400,
                          "This address speaks TLS only: use https:// or wss://", NULL, NULL, false,
                          false);
    conn_send_http(c, &response, false);
}

static void on_failure(struct conn *c)
{
    static const enum counter counters[] = {
        [TLS_FAILURE_PROTOCOL] = CTR_tls_failures_protocol,
        [TLS_FAILURE_NOT_TLS] = CTR_tls_failures_not_tls,
        [TLS_FAILURE_PLAIN_HTTP] = CTR_tls_failures_not_tls,
        [TLS_FAILURE_NO_COMMON] = CTR_tls_failures_no_common,
        [TLS_FAILURE_ALERT] = CTR_tls_failures_alert,
        [TLS_FAILURE_LEFT] = CTR_tls_failures_left,
    };
    char id[CONN_ID_BYTES];
    const char *detail;
    enum tls_failure failure = tlsio_failure(c->tls, &detail);
    count_failure(counters[failure]);
    log_debug("tls-handshake-failed", "conn", conn_id(c, id), "reason", detail);
    if (failure == TLS_FAILURE_PLAIN_HTTP) {
        conn_tls_end(c);
        answer_plainly(c);
    } else {
        conn_end(c);
    }
}

static void on_done(struct conn *c)
{
    conn_tls_end(c);
    counters_inc(CTR_tls_handshakes);
    if (tlsio_is_resumed(c->tls))
        counters_inc(CTR_tls_handshakes_resumed);
    if (tlsio_is_in_kernel(c->tls))
        counters_inc(CTR_tls_in_kernel);
    c->state = CONN_HTTP;
}

void conn_tls_timeout(void)
{
    count_failure(CTR_tls_failures_timeout);
}

int conn_tls_shake(struct conn *c)
{
    int events = EV_READ;
    int result = tlsio_handshake(c->tls, &events);
    c->last_read_ms = worker_now_ms(c->worker);
    if (result == 0)
        return events;
    if (result < 0)
        on_failure(c);
    else
        on_done(c);
    return 0;
}
