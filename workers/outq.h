/*
 * outq.h - what waits to be written to one connection: frames by reference and owned bytes, in
 * order.
 *
 * Pure memory: conn_io.c does the writing. A quiet connection's queue is a zeroed struct. Control
 * frames (pong, close, ping) overtake waiting data frames, at a frame border (RFC 6455, section 5.4
 * allows it even between fragments), but never raw bytes: those are HTTP, which comes before all
 * frames.
 *
 * Which limits apply is the caller's. The queue helps to keep to them: it knows how much of it is
 * what, gives up its oldest broadcast, and, while told to, keeps only the newest frame of each
 * conflation key. None of these walks over what waits for each message.
 */
#ifndef BELFRY_WORKERS_OUTQ_H
#define BELFRY_WORKERS_OUTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "shared/trace.h"
#include "workers/frame.h"

struct outq_item;
struct outq_keys; /* the newest waiting frame of each key */

/* More than send-buffer-limit and an answer can be: so the sums are half as wide as sizes. */
#define OUTQ_BYTES_MAX INT32_MAX

struct outq {
    struct outq_item *head, *tail;
    struct outq_item *control;   /* the last control frame that waits; NULL: none */
    struct outq_item *broadcast; /* none waits before this item; NULL: none waits */
    struct outq_keys *keys;      /* NULL: does not conflate */
    uint64_t written;            /* bytes taken off the front so far: all the socket took */
    uint32_t bytes;              /* not written yet; OUTQ_BYTES_MAX at most */
    uint32_t reply_bytes;        /* of bytes: FRAME_REPLY and control frames, begun or not */
    uint32_t broadcast_bytes;    /* of bytes: FRAME_BROADCAST, begun or not */
    uint32_t head_done : 31;     /* bytes of head written already */
    uint32_t has_joined : 1;     /* a joined frame may wait */
};

/* Appends a reference to a frame. 0 or -ENOMEM. */
int outq_push(struct outq *q, struct frame *f);
/* The record that is told what becomes of the item appended last. */
void outq_set_ticket(struct outq *q, trace_ticket ticket);
/* Appends a copy of raw bytes (HTTP responses). 0 or -ENOMEM. */
int outq_push_bytes(struct outq *q, const void *bytes, size_t len);
/* Puts a control frame before the first data frame that is not begun yet, after control frames that
 * wait already. Where much waits that answers the client, a pong takes the place of the one before
 * it (RFC 6455, section 5.5.3). 0 or -ENOMEM. */
int outq_push_control(struct outq *q, const void *frame, size_t len);
/* Fills iov with what waits, in order; returns the number of entries used. */
int outq_iov(const struct outq *q, struct iovec *iov, int max);
/* Puts the parts of joined frames in their place, so that what the socket did not take is dropped,
 * conflated and counted message by message. Without memory they stay joined. */
void outq_split(struct outq *q);
/* Takes n written bytes off the front. */
void outq_consume(struct outq *q, size_t n);
/* So many bytes were written that never waited here. */
static inline void outq_passed(struct outq *q, size_t n)
{
    q->written += n;
}
/* From now on the newest waiting frame of each conflation key is known; older ones that are not
 * begun are taken out. Returns how many were (0 when it conflates already), or -ENOMEM: it does
 * not. */
int outq_start_conflating(struct outq *q);
void outq_stop_conflating(struct outq *q);
/* Takes out the waiting frame that f, not queued yet, takes the place of: one of its key and kind
 * that is not begun. True when there was one. False when the queue does not conflate. */
bool outq_conflate(struct outq *q, const struct frame *f);
/* Takes out the oldest broadcast that is not begun. False: there is none. */
bool outq_drop_broadcast(struct outq *q);
/* Takes out all data frames that are not begun. */
void outq_drop_frames(struct outq *q);
void outq_clear(struct outq *q);
/* For another process: all that waits, with the frame of which a part is written. */
void outq_save(const struct outq *q, struct text_buf *out);
/* Everything goes with the connection to another process. */
void outq_give(struct outq *q);
/* A record for each frame that waits: fn's. */
void outq_trace(struct outq *q, trace_ticket (*fn)(void *data, const struct frame *f), void *data);
/* Into an empty queue; of nothing comes an empty one. 0, -ENOMEM or -EBADMSG (what was read of it
 * stays in the queue). */
int outq_restore(struct outq *q, struct text_span saved);

#endif
