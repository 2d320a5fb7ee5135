#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/conn_internal.h"
#include "workers/handshake.h"
#include "workers/router.h"

#define REQUESTS_A_TURN 8 /* of one client that sends them without waiting */

struct conn_kept {
    size_t len;
    unsigned char bytes[];
};

/* ---- what was read and not looked at ---- */

size_t conn_kept_bytes(const struct conn *c)
{
    return c->kept ? c->kept->len : 0;
}

const unsigned char *conn_kept(const struct conn *c)
{
    return c->kept->bytes;
}

bool conn_keep(struct conn *c, const unsigned char *bytes, size_t len)
{
    size_t before = conn_kept_bytes(c);
    struct conn_kept *kept = realloc(c->kept, sizeof(*kept) + before + len);
    if (!kept)
        return false;
    memcpy(kept->bytes + before, bytes, len);
    kept->len = before + len;
    c->kept = kept;
    return true;
}

void conn_drop_kept(struct conn *c)
{
    free(c->kept);
    c->kept = NULL;
}

/* ---- requests ---- */

/* Whose request it is: a proxy may bring those of several over one connection. */
static void find_client(struct conn *c)
{
    struct text_span list;
    if (!c->is_trusted)
        return;
    bool is_told = http_header(c->http, "X-Forwarded-For", &list) &&
                   proxies_client(c->worker->conns->proxies, list, &c->address);
    if (!is_told && c->is_forwarded) /* the proxy's own address is not remembered */
        c->address = (struct ip){{0}};
    c->is_forwarded = is_told;
}

static void serve(struct conn *c)
{
    struct http *h = c->http;
    c->had_request = true;
    c->phase_until_ms = 0; /* what an answer waits for has limits of its own */
    find_client(c);
    if (!c->is_metrics && handshake_is_path(c->worker->opt, http_path(h)))
        handshake_serve(c, h);
    else if (router_serve(c, h))
        h = NULL; /* the answer needs it yet */
    http_free(h);
    c->http = NULL;
    conn_arm(c);
}

static bool begin_request(struct conn *c)
{
    c->http = http_new(&c->worker->conns->http_limits);
    if (!c->http) {
        conn_end(c);
        return false;
    }
    c->sent_continue = false;
    conn_set_phase(c, c->worker->opt->handshake_timeout);
    return true;
}

static void send_continue(struct conn *c)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (c->sent_continue || !http_is_started(c->http) || http_minor_version(c->http) < 1 ||
        !http_header_has(c->http, "Expect", "100-continue"))
        return;
    c->sent_continue = true;
    if (outq_push_bytes(&c->outq, line, sizeof line - 1) != 0)
        conn_end(c);
    conn_mark(c);
}

static bool may_go_on(const struct conn *c)
{
    return c->state == CONN_HTTP && !c->reply && !c->close_after_flush &&
           c->outq.bytes <= CONN_ANSWERS_BYTES;
}

static void keep(struct conn *c, const unsigned char *bytes, size_t len)
{
    if (conn_keep(c, bytes, len))
        conn_mark(c);
    else
        conn_end(c);
}

void conn_http_input(struct conn *c, const unsigned char *bytes, size_t len)
{
    for (int requests = 0; len > 0 && requests < REQUESTS_A_TURN && may_go_on(c);) {
        size_t used;
        if (!c->http && !begin_request(c))
            return;
        int result = http_feed(c->http, (const char *)bytes, len, &used);
        if (result < 0) {
            router_refuse(c, c->http, -result);
            http_free(c->http);
            c->http = NULL;
            return;
        }
        bytes += used;
        len -= used;
        if (result == 1) {
            serve(c);
            requests++;
        } else {
            send_continue(c);
        }
    }
    if (len == 0 || c->state == CONN_DEAD || c->close_after_flush)
        return;
    if (c->state == CONN_HTTP)
        keep(c, bytes, len);
    else
        conn_ws_input(c, bytes, len);
}

bool conn_http_can_resume(const struct conn *c)
{
    return c->kept && may_go_on(c);
}

void conn_http_resume(struct conn *c)
{
    struct conn_kept *kept = c->kept;
    if (!conn_http_can_resume(c))
        return;
    c->kept = NULL;
    conn_http_input(c, kept->bytes, kept->len);
    free(kept);
}

/* ---- responses ---- */

/* Every answer passes here, whoever made it: its status is read off its first line. */
static void count_response(const struct text_buf *response)
{
    char class = response->len > 9 ? response->data[9] : 0;
    counters_inc(CTR_http_requests);
    if (class == '4')
        counters_inc(CTR_http_client_errors);
    else if (class == '5')
        counters_inc(CTR_http_server_errors);
}

void conn_send_http(struct conn *c, struct text_buf *response, bool keep_alive)
{
    if (c->state != CONN_HTTP) {
        text_buf_free(response);
        return;
    }
    c->reply = NULL;
    int error = response->failed ? -ENOMEM
                                 : outq_push_bytes(&c->outq, response->data, response->len);
    if (!error)
        count_response(response);
    text_buf_free(response);
    if (error) {
        conn_end(c);
        return;
    }
    if (!keep_alive)
        c->close_after_flush = true;
    conn_set_phase(c, c->worker->opt->handshake_timeout);
    conn_mark(c);
}
