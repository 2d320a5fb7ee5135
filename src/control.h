/*
 * control.h - the control socket: what belfryctl asks the master of a running instance. unix(7).
 *
 * Master only; never blocks. A unix stream socket, mode 0600, so that only the master's own user
 * (and root) reaches it. Nothing from the network comes here.
 *
 * Protocol: the client sends one request line, ended by '\n'; the master answers one line of JSON,
 * ended by '\n', and closes. Requests:
 *
 *   status   the object below
 *   explain USER ID   what is known of a message, see explain.h; words are percent-encoded
 *   kick USER   closes the user's connections with 4003, here and on the other instances on the
 *            same Redis; answered when all have answered or a time is over, see explain.h
 *   show ID  one connection of this instance; see explain.h
 *   connections USER   this instance's connections of a user, in the same form
 *   These may end with one word more: the milliseconds that may pass until the answer.
 *   reload   as SIGHUP; answered when it is done, which may take half a minute
 *   stop     as SIGTERM; answered before the stop begins
 *   drain    as SIGQUIT; answered before the drain begins
 *
 * Reload, stop and drain are answered {"ok":true} or {"ok":false,"error":TEXT}; so is an
 * unknown request. TEXT may hold several lines (a refused configuration has several errors).
 *
 * Status: {"ok":true, "version", "instance_id", "pid", "state", "generation", "uptime_seconds",
 *   "started_at": ISO 8601, "config_file": PATH or null,
 *   "listen": ["127.0.0.1:43121", "[::1]:43121", "unix:/run/x"], "metrics_listen": TEXT or null,
 *   "control_socket": PATH, "redis": URL without credentials, "user": TEXT (the workers'),
 *   "last_reload": null or {"at": ISO 8601, "ok": bool, "message": TEXT},
 *   "connected_users": n, "worker_count": n (configured), "restarts": n (unasked deaths),
 *   "redis_links": {"workers": n (ready), "subscriber_up": n, "command_up": n (of these),
 *   "latency_ms", "last_delivery_probe_ms": the longest, "last_delivery_probe_at": ISO 8601, the
 *   oldest; null where one of them has none}, "rates": RATES,
 *   "totals": GROUPS, "workers": [{"slot", "position", "pid", "generation", "state", "restarts",
 *   "uptime_seconds", "rss_bytes": n or null, "rates": RATES, and GROUPS' members}]}
 * RATES: what rates.h writes.
 * GROUPS: one object for each group of counters.def (of all slots, dead workers' totals
 *   included, or of one slot): "connections":{"websockets":n,...}, "http", "messages", "client",
 *   "redis", "process", "closes".
 * state of the instance: starting, running, draining, stopping; of a worker: starting, ready,
 *   draining, stopping, failing (it is being replaced), backoff (waits for its next start).
 *
 * Bounds: CONTROL_CLIENTS at a time (for one more, the one that is silent for longest is closed;
 * when all wait for their answers, the new one, unread), CONTROL_REQUEST_BYTES for a request,
 * CONTROL_TIMEOUT_S for a silent client.
 */
#ifndef BELFRY_SRC_CONTROL_H
#define BELFRY_SRC_CONTROL_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/inquiry.h"
#include "shared/text.h"
#include "src/unixsock.h"

#define CONTROL_CLIENTS 16
#define CONTROL_REQUEST_BYTES 4096
#define CONTROL_TIMEOUT_S 5.0

struct control;

/* The master's side of each request. */
struct control_handlers {
    void (*on_status)(void *data, struct text_buf *out); /* appends the status object */
    /* Begins a reload. 0: control_reload_done follows, perhaps before this returns; negative:
     * refused, why is written. */
    int (*on_reload)(void *data, char *why, size_t cap);
    void (*on_stop)(void *data);
    void (*on_drain)(void *data);
    /* 0: control_explained follows with the ticket, not before this returns; or negative errno.
     * What the question does not name is empty, or 0. */
    int (*on_question)(void *data, uint64_t ticket, enum inquiry_ask ask, struct text_span user,
                       struct text_span id, int64_t within_ms);
};

/*
 * Listens on path. With make_directory a missing parent directory is made (mode 0755). 0 and *out
 * (given: control_free), -EADDRINUSE when a live process listens there, or another negative errno.
 */
int control_open(struct ev_loop *loop, const char *path, bool make_directory,
                 const struct control_handlers *handlers, void *data, struct control **out);
/* The listening socket of another master (fd given on success), which serves it until
 * control_begin. 0 and *out, or -ENOMEM. */
int control_adopt(struct ev_loop *loop, const char *path, int fd, const struct unixsock_file *file,
                  const struct control_handlers *handlers, void *data, struct control **out);
/* Accepts from now on; control_open does so by itself. Accepts NULL. */
void control_begin(struct control *c);
/* Accepts no more; who is there is answered. is_taken: another master has the socket. Accepts
 * NULL. */
void control_leave(struct control *c, bool is_taken);
/* The listening socket, borrowed, and what its file is. */
int control_socket(const struct control *c, const char **path, struct unixsock_file *file);
/* Answers everybody who waits for a reload. message: the reason when not ok. */
void control_reload_done(struct control *c, bool ok, const char *message); /* accepts NULL */
/* Answers the question with this ticket, if who asked is still there. Accepts NULL. */
void control_explained(struct control *c, uint64_t ticket, const struct text_buf *text);
/* Closes everything and removes the socket file if it is still this one. Accepts NULL. */
void control_free(struct control *c);

#endif
