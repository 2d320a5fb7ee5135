/*
 * wsclient.h - a WebSocket client for one connection: ws://, wss://, ws+unix://.
 *
 * belfryctl only, which ignores SIGPIPE: OpenSSL writes without MSG_NOSIGNAL. Blocks, but never
 * beyond the deadlines it is given (monotonic clock, ms); connecting to a name may wait for the
 * resolver besides. Frames are wslay's business, TLS is OpenSSL's. No extensions are offered. It
 * answers pings, probes a silent peer, and does not reconnect: that is the caller's. RFC 6455,
 * sections 4.1 and 7; RFC 9112 for the response's head.
 */
#ifndef BELFRY_SRC_WSCLIENT_H
#define BELFRY_SRC_WSCLIENT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

#define WSCLIENT_HEAD_MAX_BYTES 16384
#define WSCLIENT_MESSAGE_MAX_BYTES (64 * 1024 * 1024)
#define WSCLIENT_ACCEPT_BYTES 29

/* A URL taken apart. */
struct wsclient_url {
    bool is_tls;
    bool is_unix;
    int port;
    char host[256]; /* without brackets; or the socket's path */
    char path[2048]; /* with the query; begins with / */
};

/* Pure. ws://HOST[:PORT][/PATH], wss://..., ws+unix:///SOCKET[:/PATH]; without a path /ws is meant.
 * 0, or -EINVAL with *reason a constant text. */
int wsclient_url_parse(const char *url, struct wsclient_url *out, const char **reason);

/* Pure. The Sec-WebSocket-Accept that answers a key (RFC 6455, section 4.2.2). 0 or -ENOMEM. */
int wsclient_accept_for(const char *key, char out[WSCLIENT_ACCEPT_BYTES]);

/* Head of an HTTP response. */
struct wsclient_response {
    int status;
    size_t head_bytes; /* up to and with the empty line */
    bool upgrades;     /* Upgrade: websocket and Connection: upgrade */
    char accept[64];
    char protocol[64];
    char retry_after[32];
    int64_t content_length; /* -1: not told */
};

/* Pure. Bytes as they came so far. 1: complete; 0: more is needed; -EBADMSG: no HTTP response;
 * -EMSGSIZE: longer than WSCLIENT_HEAD_MAX_BYTES. */
int wsclient_response_parse(const char *bytes, size_t len, struct wsclient_response *out);

struct wsclient_config {
    const struct wsclient_url *url;
    const char *token;       /* sent as Authorization: Bearer; NULL: none */
    const char *subprotocol; /* NULL: none */
    const char *ca_file;     /* wss: trust this instead of the system's certificates; or NULL */
    bool is_own_server;      /* wss: ca_file holds the server's own certificate; any name will do */
    const volatile sig_atomic_t *stop; /* not 0: calls return -EINTR soon; may be NULL */
};

struct wsclient;

/* Connects and upgrades. 0 and *out (given; wsclient_free). Otherwise a text in why and: the HTTP
 * status (> 0) when the server answered without upgrading, or -ETIMEDOUT, -EINTR, -EPROTO (it is
 * no WebSocket server, or TLS failed) or another negative errno. */
int wsclient_open(const struct wsclient_config *config, int64_t deadline_ms, struct wsclient **out,
                  char *why, size_t cap);

/* Waits for the next text message; it is valid until the next call. 1: *message; 0: the connection
 * has ended, see wsclient_close_code; -ETIMEDOUT: the deadline (INT64_MAX: none) came first;
 * -EINTR: *stop. */
int wsclient_next(struct wsclient *c, int64_t deadline_ms, struct text_span *message);

/* How it ended: the server's close code and reason; without a close frame 1006 and a text of our
 * own. 0 while it has not. */
int wsclient_close_code(const struct wsclient *c);
const char *wsclient_close_reason(const struct wsclient *c);

/* Says goodbye (1000) and waits at most until the deadline for the answer. */
void wsclient_close(struct wsclient *c, int64_t deadline_ms);
/* Accepts NULL. */
void wsclient_free(struct wsclient *c);

#endif
