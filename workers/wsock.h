/*
 * wsock.h - frames in (wslay's event API). RFC 6455, sections 5 to 7. Only this file and frame.c
 * know wslay (and src/wsclient.c, the client side).
 *
 * A context costs some 9 KB, so it comes from a per-worker pool while bytes of a message are under
 * way, and goes back at a message border: a quiet client has none. wslay answers pings and judges
 * malformed input; its pongs go into the connection's queue as control frames. A deflated message
 * (RFC 7692) is inflated when all of it is here.
 */
#ifndef BELFRY_WORKERS_WSOCK_H
#define BELFRY_WORKERS_WSOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/closes.h"
#include "shared/text.h"

struct deflate;
struct wsock;
struct wsock_pool;

/* What holds for one peer. */
struct wsock_terms {
    size_t max_message_bytes;
    bool is_deflate; /* permessage-deflate was negotiated */
};

/* What the bytes turned out to be; all in order. Callbacks may call conn_close and conn_send but
 * free nothing. Any may be NULL but on_close and on_error. */
struct wsock_events {
    /* A message is whole, and not inflated yet, which costs more than to send it. False: it is
     * thrown away. */
    bool (*on_whole)(void *data);
    void (*on_text)(void *data, const char *text, size_t len); /* whole message, valid UTF-8 */
    void (*on_binary)(void *data, const void *bytes, size_t len);
    void (*on_pong)(void *data);
    void (*on_close)(void *data, int code); /* the peer's close frame; 1005: without a code */
    void (*on_send)(void *data, const void *frame, size_t len); /* a pong to send */
    /* CLOSE_PROTOCOL, CLOSE_UTF8, CLOSE_DEFLATE or CLOSE_TOO_BIG; the close frame is the caller's
     * to send. */
    void (*on_error)(void *data, enum close_reason reason);
};

/* deflate (borrowed) may be NULL where nobody's terms need it. NULL without memory. */
struct wsock_pool *wsock_pool_new(struct deflate *deflate, const struct wsock_events *events);
void wsock_pool_free(struct wsock_pool *p);

/* Feeds bytes. *w is taken from the pool when NULL, and given back (set NULL) when the bytes end at
 * a message border; the terms are the same until then. 0, or -ENOMEM. Stops (ignoring the rest)
 * after on_error or on_close; later calls then do nothing. */
int wsock_feed(struct wsock_pool *p, struct wsock **w, struct wsock_terms terms, void *data,
               const unsigned char *bytes, size_t len);
/* Appends bytes that, fed where nothing was fed before, lead to where w (may be NULL) stands: what
 * came of a frame or a fragmented message under way. They end in no callback. Not after on_error or
 * on_close. */
void wsock_save(const struct wsock *w, struct text_buf *out);
void wsock_release(struct wsock_pool *p, struct wsock *w); /* accepts NULL */
/* Memory of the message under way. Accepts NULL. */
size_t wsock_held_bytes(const struct wsock *w);
/* Contexts that rest in the pool (tests, statistics). */
size_t wsock_pool_idle(const struct wsock_pool *p);

#endif
