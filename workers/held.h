/*
 * held.h - live messages that wait while their device attaches or catches up. Workers; pure memory.
 *
 * Bounded: above max_bytes or HELD_MAX_FRAMES the frames are given up and only their ids stay, as
 * many as the list can still have. What was stored comes from the list then; the rest is lost
 * (delivery at most once) and counted in messages_dropped_slow.
 */
#ifndef BELFRY_WORKERS_HELD_H
#define BELFRY_WORKERS_HELD_H

#include <stddef.h>
#include <stdint.h>

#include "workers/frame.h"

#define HELD_MAX_FRAMES 1024

struct held_item {
    struct frame *frame; /* NULL: given up */
    uint64_t id_hash;    /* 0: can be compared with nothing */
};

struct held {
    struct held_item *items; /* oldest first */
    size_t count, cap;
    size_t frames; /* items with a frame */
    size_t bytes;  /* of these */
};

struct held_limits {
    size_t max_bytes;
    size_t max_ids; /* kept of frames given up: history-size and some */
};

/* Appends (a reference is taken), making *h when it is NULL. 0; -ENOBUFS when frames were given up
 * (the new one among them): the list has to be read again; -ENOMEM when nothing was kept. */
int held_add(struct held **h, struct frame *f, const struct held_limits *limits);
void held_free(struct held *h); /* accepts NULL */
/* For another process. Accepts NULL. */
void held_save(const struct held *h, struct text_buf *out);
/* *h is NULL before. 0, -ENOMEM or -EBADMSG (what was read stays). */
int held_restore(struct held **h, struct text_span saved, const struct held_limits *limits);

#endif
