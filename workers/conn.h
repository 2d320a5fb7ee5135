/*
 * conn.h - one client connection: states, deadlines, reading, writing, teardown; the only owner of its parts.
 *
 * States: TLS handshake -> HTTP (one request after another) -> WebSocket waiting for its auth frame -> open -> closing -> dead. Reading stops while a reply is
 * awaited or too much waits to be written. All writing happens at the end of the loop turn (conns_flush), all freeing after it
 * (conns_reap): nothing that a callback calls frees its connection.
 */
#ifndef BELFRY_WORKERS_CONN_H
#define BELFRY_WORKERS_CONN_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shared/closes.h"
#include "shared/text.h"
#include "shared/token.h"
#include "workers/context.h"
#include "workers/hub.h"
#include "workers/outq.h"
#include "workers/wheel.h"

#define CONN_ID_BYTES 40

enum conn_state { CONN_TLS, CONN_HTTP, CONN_AUTH, CONN_OPEN, CONN_CLOSING, CONN_DEAD };

struct http;   /* http.h: request under way, pooled */
struct reply;  /* router.h: an answer that is still awaited */
struct tlsio;
struct wsock;  /* wsock.h: frame under way, pooled */

struct conn {
    struct worker *worker;
    struct ev_io io;               /* io.fd is the socket */
    struct wheel_entry deadline;   /* the nearest of all deadlines below */
    struct conn *flush_next;       /* conns.c: has output this turn */
    struct conn *all_next, *all_prev;
    struct outq outq;
    struct http *http;             /* NULL: no request under way */
    struct reply *reply;           /* NULL: no answer awaited */
    struct wsock *wsock;           /* NULL: at a message border */
    struct tlsio *tls;             /* NULL: plain */
    struct device device;
    uint64_t serial;               /* connection id: see conn_id */
    int64_t token_expires_ms;      /* wall clock, leeway included; 0: never */
    int64_t last_read_ms;          /* loop clock */
    int64_t ping_sent_ms;          /* loop clock; 0: no pong awaited */
    int64_t phase_until_ms;        /* loop clock: handshake, auth or close must be done by then; 0: none */
    uint64_t address_hash;         /* for max-connections-per-address; 0: unix socket */
    uint32_t rate_tokens;          /* client-message-rate, thousandths */
    int64_t rate_at_ms;
    uint8_t state;                 /* enum conn_state */
    uint8_t close_reason;          /* enum close_reason, once closing */
    bool is_metrics : 1;           /* came on the metrics listener */
    bool is_unix : 1;
    bool in_flush : 1;
    bool in_reap : 1;
    bool is_paused : 1;            /* not reading */
    bool close_after_flush : 1;    /* HTTP without keep-alive, or close frame sent and answered */
    bool close_frame_sent : 1;
    bool close_frame_received : 1;
    bool is_counted_ws : 1;
    bool is_admin : 1;
    bool is_deflate : 1;           /* permessage-deflate negotiated */
};

/* All connections of the worker. */
struct conns *conns_new(struct worker *w);
void conns_free(struct conns *s);
size_t conns_count(const struct conns *s);
void conns_each(struct conns *s, void (*fn)(void *data, struct conn *c), void *data);
/* End of a loop turn: write what waits, then free the dead. */
void conns_flush(struct conns *s);

/* A new socket (given): state CONN_TLS or CONN_HTTP. 0, or negative errno and the socket closed. */
int conn_open(struct worker *w, int fd, const struct worker_listener *listener, const struct sockaddr *peer);
/* Text id for logs and FULL_SYNC: unique over instances. */
const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES]);

/* Queues a frame (a reference is taken). Nothing on a connection that is closing or dead. Applies send-buffer-limit. */
void conn_send(struct conn *c, struct frame *f);
/* Queues text as a FRAME_REPLY. */
void conn_send_text(struct conn *c, const char *text, size_t len);
/* Queues a whole HTTP response (raw bytes); the connection goes on with the next request, or ends after it. */
void conn_send_http(struct conn *c, struct text_buf *response, bool keep_alive);

/* The upgrade was accepted and 101 queued: becomes a WebSocket. With claims: session opens; without: waits for the auth frame. resume, filter:
 * given. */
void conn_upgraded(struct conn *c, const struct token_claims *claims, struct resume *resume, struct filter *filter);
/* Valid auth frame: opens the session (CONN_AUTH) or renews the expiry (CONN_OPEN). Resume and filter given; ignored in CONN_OPEN. Returns false
 * when the connection is being closed instead (another user's token; limit). */
bool conn_authenticated(struct conn *c, const struct token_claims *claims, struct resume *resume,
                        struct filter *filter);
/* Starts the close handshake with the row's code and reason (code 0: ends TCP at once). Counted and logged once, for the first reason. */
void conn_close(struct conn *c, enum close_reason reason);
/* Ends TCP without a word (reset, timeouts, restart-close = drop). */
void conn_drop(struct conn *c, enum close_reason reason);

#endif
