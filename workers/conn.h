/*
 * conn.h - one client connection: states, deadlines, reading, writing, teardown; the only owner of
 * its parts.
 *
 * States: PROXY header -> TLS handshake -> HTTP (one request after another) -> WebSocket waiting
 * for its auth frame -> open -> closing -> dead. Reading stops while a reply is awaited or too much
 * waits to be written. All writing but that of broadcasts (conn_send_now) happens at the end of the
 * loop turn (conns_flush), all freeing after it: nothing that a callback calls frees its
 * connection. Handshakes, which cost more than anything else a client can ask for, wait in a line
 * of their own and get a slice of each turn (conns_admit), so that a storm of them does not stop
 * the delivery to the connected. A device leaves its session there too, so that whoever walks over
 * devices may send to them.
 *
 * Six files: conn.c (life, states, deadlines), conn_io.c (the socket, the end of a turn),
 * conn_tls.c (TLS handshakes), conn_http.c (requests), conn_ws.c (what a WebSocket client says, and
 * how it is closed), conn_handover.c (to and from another worker); conn_internal.h is what they
 * share. RFC 6455, section 7.
 */
#ifndef BELFRY_WORKERS_CONN_H
#define BELFRY_WORKERS_CONN_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shared/closes.h"
#include "shared/ip.h"
#include "shared/text.h"
#include "shared/token.h"
#include "workers/bucket.h"
#include "workers/context.h"
#include "workers/hub.h"
#include "workers/outq.h"
#include "workers/wheel.h"

#define CONN_ID_BYTES 40

enum conn_state { CONN_PROXY, CONN_TLS, CONN_HTTP, CONN_AUTH, CONN_OPEN, CONN_CLOSING, CONN_DEAD };

struct http;      /* http.h: request under way */
struct reply;     /* router.h: an answer that is still awaited */
struct tickets;   /* shared/tickets.h */
struct tlsio;
struct waiting;   /* commands.c: an answer of Redis that is awaited */
struct wsock;     /* wsock.h: frame under way, pooled */
struct admission; /* admission.h: what Redis is asked about its token */
struct conn_kept; /* conn_http.c: bytes read and not looked at yet */

/* As small as can be: a quiet client is this, and little else. Monotonic: worker_now_ms. */
struct conn {
    /* What a broadcast looks at stands first: conns_walk_next. */
    struct worker *worker;
    struct conn *all_next, *all_prev;
    struct tlsio *tls;             /* NULL: plain */
    uint16_t close_code;           /* sent or, for CLOSE_CLIENT, received; 0: none */
    uint8_t close_reason;          /* enum close_reason, once closing */
    uint8_t awaited;               /* commands whose answer waits for Redis; commands.c */
    uint8_t state : 4;             /* enum conn_state */
    uint8_t deflate_bits : 4;      /* permessage-deflate: window of what we send; 0: none */
    bool is_metrics : 1;           /* came on the metrics listener */
    bool is_unix : 1;
    bool is_trusted : 1;           /* its peer is one of trusted-proxies: it may tell addresses */
    bool is_forwarded : 1;         /* its proxy told the address */
    bool is_counted_address : 1;   /* for max-connections-per-address */
    bool is_early : 1;             /* in that list */
    bool in_flush : 1;             /* among the marked or the arrivals */
    bool in_reap : 1;
    bool is_blocked : 1;           /* the kernel takes no more: waits for EV_WRITE */
    bool close_after_flush : 1;    /* TCP ends when the queue is empty */
    bool close_frame_sent : 1;     /* queued, at least */
    bool close_frame_received : 1;
    bool is_deaf : 1;              /* input cannot be understood any more: read and thrown away */
    bool is_lingering : 1;         /* our side of TCP is shut */
    bool is_counted_ws : 1;
    bool was_ws : 1;               /* got as far as a WebSocket: for the log */
    bool needs_session_close : 1;
    bool sent_continue : 1;        /* 100 Continue for the request under way */
    bool had_request : 1;          /* at least one request was whole */
    bool saw_eof : 1;              /* the peer has said its last, but may still read */
    bool is_admin : 1;
    bool is_echo : 1;              /* /echo: no session, everything comes back */
    struct device device;
    struct outq outq;
    struct ev_io io;               /* io.fd is the socket */
    /* From here on it is what a broadcast does not look at (WALKED_BYTES in conn.c). */
    struct conn *flush_next;       /* the next arrival, or that has something to do at the end of
                                    * this turn, or that is dead */
    struct wheel_entry deadline;   /* the nearest of all deadlines below */
    union {
        struct {                   /* while is_early; the oldest is first */
            struct conn *early_next, *early_prev;
        };
        struct {                   /* CONN_AUTH, CONN_OPEN */
            int64_t ping_sent_ms;  /* monotonic; 0: no pong awaited */
            uint64_t ping_taken_bytes; /* what the peer had taken when it was sent */
        };
        int64_t closing_ms;        /* monotonic: of the close frame, once it is sent */
    };
    struct http *http;             /* NULL: no request under way */
    struct reply *reply;           /* NULL: no answer awaited; set by router.c */
    struct conn_kept *kept;        /* NULL: nothing */
    struct wsock *wsock;           /* NULL: at a message border */
    struct admission *admission;   /* NULL: its user is known, and its token is not looked up */
    uint64_t serial;               /* connection id: see conn_id */
    uint64_t received_bytes;
    int64_t opened_ms;             /* monotonic */
    int64_t token_expires_ms;      /* wall clock, leeway included; 0: never */
    int64_t last_read_ms;          /* monotonic: last sign of life */
    int64_t phase_until_ms;        /* monotonic: the state must have changed by then; 0: none */
    struct ip address;             /* the client's, as far as is known; none: of a unix socket */
    uint64_t user_hash;            /* of the session it had, or has; 0: none yet. fate.h */
    struct bucket rate;            /* client-message-rate */
    struct bucket control;         /* pings and pongs; conn_ws.c */
    struct bucket costly;          /* what asks Redis, and tokens; commands.c */
    struct waiting *acking;        /* NULL: no ack is under way */
};

/* All connections of the worker. Makes w->wheel when it is NULL. Logs the reason and returns NULL
 * without memory or when the TLS certificate cannot be used. */
struct conns *conns_new(struct worker *w);
/* Ends what is still open without a word; frees the wheel it made. */
void conns_free(struct conns *s);
size_t conns_count(const struct conns *s);
/* Once a second: when most of those who were here have left, their memory goes back to the system;
 * so does what a crowd needed while it came. */
void conns_tidy(struct conns *s);
/* Memory that nobody is in goes back to the system. */
void conns_trim(struct conns *s);
/* False when max-tls-handshakes are under way: those that do not get on were ended, others hold on.
 */
bool conns_has_tls_room(struct conns *s);
/* The keys of TLS session tickets are these from now on. */
void conns_set_tickets(struct conns *s, const struct tickets *t);
/* False when the descriptors left are to be kept for HTTP (health must be answered). */
bool conns_has_room(const struct conns *s);
/* At the beginning of a turn of the loop. */
void conns_begin_turn(struct conns *s, int64_t now_us);
/* True while so many descriptors are left that nobody need wait for others to leave. */
bool conns_has_much_room(const struct conns *s);
/* Until the next conns_admit: more wait to be accepted, and are to be before anything is read. */
void conns_expect_more(struct conns *s);
/* Near the end of a turn: reads what those say who have not sent a whole request yet (TLS, HTTP),
 * in the order in which it was noticed and for a slice of time. True: somebody was served, and has
 * something to be flushed. Whoever is left makes another turn. */
bool conns_admit(struct conns *s);
/* False when another connection would take a descriptor that Redis or the log may need. */
bool conns_has_descriptor(const struct conns *s);
/* Ends the connections that have waited longest without a request, up to count of them, so that
 * their descriptors are free after this turn. How many there were. */
size_t conns_reclaim(struct conns *s, size_t count);
/* Connections that are no WebSockets. */
size_t conns_early_count(const struct conns *s);
/* fn may close or drop connections. */
void conns_each(struct conns *s, void (*fn)(void *data, struct conn *c), void *data);
/* Begins a walk over all connections, which may take several turns; conns_walk_next returns the
 * next, NULL at the end. Who goes meanwhile is not met any more, who comes is not met. There is one
 * such walk, session_broadcast.c's. */
void conns_walk(struct conns *s);
struct conn *conns_walk_next(struct conns *s);
/* End of a loop turn: write what waits, then free the dead. Bounded: for some milliseconds, and the
 * rest in the next turn. */
void conns_flush(struct conns *s, bool is_bounded);
/* For wheel_new; data is the struct worker. */
void conns_on_deadline(void *data, struct wheel_entry *e);

/* A new socket (given): state CONN_PROXY, CONN_TLS or CONN_HTTP. 0, or negative errno and the
 * socket closed (-EDQUOT: max-connections-per-address). */
int conn_open(struct worker *w, int fd, const struct worker_listener *listener,
              const struct sockaddr *peer);
/* Text id for logs and FULL_SYNC: unique over instances. */
const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES]);

/* The client's address for logs. */
static inline const char *conn_address(const struct conn *c, char out[IP_TEXT_BYTES])
{
    if (!ip_is_none(&c->address))
        return ip_format(&c->address, out);
    return c->is_unix ? "unix" : "unknown";
}
/* Before an upgrade: the client whom a trusted proxy speaks for is counted, too. False:
 * max-connections-per-address. */
bool conn_enter_client(struct conn *c);
/* Bytes that it holds of the worker's memory, as far as they grow with what its client does. */
size_t conn_held_bytes(const struct conn *c);

/* Queues a frame (a reference is taken). Nothing on a connection that is closing or dead. Applies
 * send-buffer-limit and slow-consumer. False: nothing but a message to the user, for which there is
 * no room, and the device is to stay: it is not queued, and the caller's to see to. */
bool conn_offer(struct conn *c, struct frame *f);
/* The same; what finds no room is dropped and counted. */
void conn_send(struct conn *c, struct frame *f);
/* The same, but written at once when nothing waits and the socket takes it: for one frame that many
 * are given, with nothing behind it. */
void conn_send_now(struct conn *c, struct frame *f);
/* For a device that lags: true when so little waits that messages from the list may be sent on, the
 * next of so many bytes (0: not known). */
bool conn_is_drained(const struct conn *c, size_t next_bytes);
/* Queues such a message. False: not now, for the queue is half full. */
bool conn_catch_up(struct conn *c, struct frame *f);
/* Queues text as a FRAME_REPLY. */
void conn_send_text(struct conn *c, const char *text, size_t len);
/* Queues a whole HTTP response (raw bytes; given, *response is empty afterwards); the connection
 * goes on with the next request, or ends after it. Counts http_requests and the errors. */
void conn_send_http(struct conn *c, struct text_buf *response, bool keep_alive);

/* The upgrade was accepted and 101 queued: becomes a WebSocket. With claims: session opens;
 * without: waits for the auth frame. resume, filter: given. */
void conn_upgraded(struct conn *c, const struct token_claims *claims, struct resume *resume,
                   struct filter *filter);
/* The same for /echo: no session, no pings, and messages of up to 32 MB. */
void conn_upgraded_echo(struct conn *c);
/* Valid auth frame, in lower case or not: opens the session (CONN_AUTH) or renews the expiry
 * (CONN_OPEN). Resume and filter given; ignored in CONN_OPEN. True: the reply is due now. False:
 * the connection is being closed instead (another user's token; limit), or the user is looked up
 * first, and the reply is conn_admitted's. */
bool conn_authenticated(struct conn *c, const struct token_claims *claims, struct resume *resume,
                        struct filter *filter, bool is_lower);
/* From admission.c: the user of a token is known. is_reply_due: it came in an auth frame. */
void conn_admitted(struct conn *c, const struct token_claims *claims, bool is_reply_due,
                   bool is_lower);
/* The same: it is not known yet, and what the client says waits for it no longer. */
void conn_go_on(struct conn *c);
/* A text message that came before. */
void conn_hear(struct conn *c, const char *text, size_t len);
/* Starts the close handshake with the row's code and reason (code 0: ends TCP at once). Counted and
 * logged once, for the first reason. On HTTP: what is queued or awaited is still sent. */
void conn_close(struct conn *c, enum close_reason reason);
/* A worker is short of memory: closes with CLOSE_OVERLOAD, and gives up at once what it holds. Not
 * from within a callback of its input. */
void conn_shed(struct conn *c);
/* Ends TCP without a word (reset, timeouts, restart-close = drop). */
void conn_drop(struct conn *c, enum close_reason reason);

/* ---- conn_handover.c: to and from another worker ---- */

/* It may go to another worker: a plain WebSocket of which nothing is owed from here. */
bool conn_is_movable(const struct conn *c);
/* A WebSocket that could be, were nothing awaited just now. */
bool conn_is_plain_websocket(const struct conn *c);
/* Takes the connection away: its state is appended to out (handover_device_encode), its socket
 * returned, the session's device leaves its user at once. No close is counted or logged. Negative
 * errno when there is no memory, or it broke meanwhile: then it is as it was, or ends. is_shared:
 * it is counted as on the way, and its user as here, until whoever takes it takes that out. */
int conn_give(struct conn *c, bool is_shared, struct text_buf *out);
/* The opposite. from_slot: where it is counted as on the way; -1: it is not. e: expected devices
 * that it is one of; NULL: it has no user. The socket is given. A state that cannot be read closes
 * the connection with CLOSE_RESTART; max-connections: with CLOSE_OVERLOAD. False: it is not here,
 * or is being closed. */
bool conn_take(struct worker *w, int fd, int from_slot, struct text_span state,
               struct expected *e);

#endif
