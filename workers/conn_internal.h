/*
 * conn_internal.h - what the files of conn.h share. Nobody else includes it.
 */
#ifndef BELFRY_WORKERS_CONN_INTERNAL_H
#define BELFRY_WORKERS_CONN_INTERNAL_H

#include "workers/conn.h"
#include "workers/http.h"
#include "workers/proxies.h"
#include "workers/tlsio.h"
#include "workers/wsock.h"

#define CONN_READ_BYTES 16384      /* at most in one callback; a TLS record fits */
#define CONN_CLOSE_TIMEOUT_MS 5000 /* for the peer's close frame */
#define CONN_CLOSE_FLUSH_MS 30000  /* for a slow peer to take what stands before our close frame */
#define CONN_ANSWERS_BYTES 65536   /* of answers that wait: no further request is read meanwhile */
#define CONN_LINGER_MS 2000        /* for the peer's FIN after ours */

struct conns {
    struct worker *worker;
    bool owns_wheel;
    struct slab *slab;       /* of struct conn */
    struct conn *all;
    struct conn *walk;       /* the next of conns_walk */
    size_t count;
    size_t most;             /* there were since memory was given back */
    size_t left, came;       /* since conns_tidy was called last */
    size_t crowd;            /* who came since memory was given back */
    unsigned trims;          /* in a row */
    size_t room;             /* descriptors for connections before WebSockets are refused */
    size_t descriptors;      /* for connections of any kind */
    struct conn *early_first, *early_last;
    size_t early_count;
    struct proxies *proxies;
    struct conn *flush_head; /* something to do at the end of this turn */
    struct conn **flush_tail;
    struct conn *arrivals;   /* handshakes that wait: accepted and not watched, or readable */
    struct conn **arrivals_tail;
    size_t arrival_count;
    int64_t read_until_us;   /* monotonic: this turn's time for reading; 0: it is over */
    unsigned reads;          /* callbacks in this turn */
    bool expects_more;       /* conns_expect_more */
    struct conn *reap;
    struct ev_timer again;   /* makes another turn when one was not enough */
    struct wsock_pool *wsocks;
    struct tls_server *tls;  /* NULL: no TLS */
    size_t shaking;          /* connections in CONN_TLS */
    int64_t shed_ms;         /* when it was last looked for handshakes that do not get on */
    struct http_limits http_limits;
    uint64_t next_serial;
    unsigned char buffer[CONN_READ_BYTES];
};

/* ---- conn.c ---- */

/* The connection has something to do at the end of this turn. */
void conn_mark(struct conn *c);
/* Arms the nearest deadline anew; needed whenever one may have become nearer. */
void conn_arm(struct conn *c);
/* The state must change within that time from now; 0: no limit. Arms. */
void conn_set_phase(struct conn *c, int64_t limit_ms);
/* TCP is over: state CONN_DEAD. */
void conn_end(struct conn *c);
/* A WebSocket ends, for whatever reason, while TCP may go on for a close handshake: counts it and
 * remembers reason and code for the log. */
void conn_end_websocket(struct conn *c, enum close_reason reason, int code);
/* The session lets go of the device. At the end of the turn. */
void conn_release_session(struct conn *c);
/* Frees everything. The connection is in no list but that of all. */
void conn_destroy(struct conn *c);

/* A connection object around a socket (given, but not when NULL comes back: no memory). */
struct conn *conn_new(struct worker *w, int fd, const struct worker_listener *listener);
/* It is counted by its address, unless that is a trusted proxy's. 0 or -EDQUOT. */
int conn_enter_address(struct conn *c, bool is_limited);
/* It is a WebSocket, or dead. */
void conn_leave_early(struct conn *c);

/* ---- conn_io.c ---- */

/* Stops to listen to a socket whose description lives on in another process: that one is to be
 * closed next, here. */
void conn_io_forget(struct conn *c);

/* Starts to listen to the socket. */
void conn_io_start(struct conn *c);
/* The connection, which was just accepted, waits for conns_admit. */
void conn_arrive(struct conn *c);
/* Bytes the peer has taken from us, as far as the kernel can tell. *is_all: it has taken all. One
 * system call. */
uint64_t conn_taken_bytes(const struct conn *c, bool *is_all);
/* Writes what the socket takes now, in so many calls at most. May end the connection. */
void conn_write(struct conn *c, int rounds);
/* What this client is sent of a frame: itself, or the same deflated, which is the frame's. */
static inline struct frame *conn_form(const struct conn *c, struct frame *f)
{
    return c->deflate_bits ? frame_for_window(f, c->worker->deflate, c->deflate_bits) : f;
}

/* ---- conn_tls.c ---- */

/* 0; negative errno, logged: certificate and key cannot be used. */
int conn_tls_init(struct conns *s);
/* The connection is in CONN_TLS from now on; or will not be any more. */
void conn_tls_begin(struct conn *c);
void conn_tls_end(struct conn *c);
/* Counts that handshake-timeout is over. */
void conn_tls_timeout(void);
/* A step of the handshake. May lead to CONN_HTTP, without tls for an answer in the clear, or end
 * the connection; else returns what to wait for. */
int conn_tls_shake(struct conn *c);

/* ---- conn_http.c ---- */

/* Bytes of what was read and not looked at. */
size_t conn_kept_bytes(const struct conn *c);
/* Adds to what was read and not looked at. False without memory. */
bool conn_keep(struct conn *c, const unsigned char *bytes, size_t len);
const unsigned char *conn_kept(const struct conn *c);
void conn_drop_kept(struct conn *c);

/* Bytes read in CONN_HTTP, and in whatever state they lead to. */
void conn_http_input(struct conn *c, const unsigned char *bytes, size_t len);
/* Goes on with bytes that were kept, when nothing stands in the way any more. */
bool conn_http_can_resume(const struct conn *c);
void conn_http_resume(struct conn *c);

/* ---- conn_ws.c ---- */

extern const struct wsock_events conn_ws_events;

/* Bytes read in CONN_AUTH, CONN_OPEN and CONN_CLOSING. */
void conn_ws_input(struct conn *c, const unsigned char *bytes, size_t len);
void conn_ws_ping(struct conn *c);

#endif
