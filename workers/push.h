/*
 * push.h - what Redis pushes to a subscriber, read where it lies. Workers; pure.
 *
 * An array of two bulk strings and a third one or a number: a message, or the answer to SUBSCRIBE
 * or UNSUBSCRIBE. hiredis makes four objects of it by eight allocations, and moves the rest of its
 * buffer for each kilobyte it has handed out, which with a thousand messages waiting costs more
 * than sending them. Everything else is left to it: other shapes, errors, and what is not whole
 * yet. https://redis.io/docs/latest/develop/reference/protocol-spec/
 */
#ifndef BELFRY_WORKERS_PUSH_H
#define BELFRY_WORKERS_PUSH_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

struct push {
    struct text_span kind;    /* "message", "subscribe", ... */
    struct text_span channel;
    struct text_span payload; /* !is_number */
    long long number;         /* is_number: channels subscribed to */
    bool is_number;
};

/* Bytes that the first reply in the buffer takes when it is a whole push; *out points into the
 * buffer. 0: it is none, or not whole. */
size_t push_read(const char *bytes, size_t len, struct push *out);

#endif
