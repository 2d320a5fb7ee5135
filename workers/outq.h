/*
 * outq.h - what waits to be written to one connection: frames by reference and owned bytes, in
 * order.
 *
 * Pure memory: conn_io.c does the writing. A quiet connection's queue is a zeroed struct. Control
 * frames (pong, close, ping) overtake waiting data frames, at a frame border (RFC 6455, section 5.4
 * allows it even between fragments), but never raw bytes: those are HTTP, which comes before all
 * frames.
 */
#ifndef BELFRY_WORKERS_OUTQ_H
#define BELFRY_WORKERS_OUTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "workers/frame.h"

struct outq_item;

struct outq {
    struct outq_item *head, *tail;
    size_t bytes;       /* not written yet */
    size_t head_done;   /* bytes of head written already */
    size_t reply_bytes; /* of bytes: FRAME_REPLY, not begun or begun */
};

/* Appends a reference to a frame. 0 or -ENOMEM. */
int outq_push(struct outq *q, struct frame *f);
/* Appends a copy of raw bytes (HTTP responses). 0 or -ENOMEM. */
int outq_push_bytes(struct outq *q, const void *bytes, size_t len);
/* Puts a control frame before the first data frame that is not begun yet, after control frames that
 * wait already. 0 or -ENOMEM. */
int outq_push_control(struct outq *q, const void *frame, size_t len);
/* Fills iov with what waits, in order; returns the number of entries used. */
int outq_iov(const struct outq *q, struct iovec *iov, int max);
/* Takes n written bytes off the front. */
void outq_consume(struct outq *q, size_t n);
/* Takes out a waiting, not begun frame with this conflation key, if any; true when one was. */
bool outq_conflate(struct outq *q, uint64_t conflate_key);
/* Takes out all data frames that are not begun. */
void outq_drop_frames(struct outq *q);
void outq_clear(struct outq *q);

#endif
