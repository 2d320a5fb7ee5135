/*
 * push.h - what Redis pushes to a subscriber, read where it lies. Workers; pure.
 *
 * An array of two bulk strings and a third one or a number: a message, or the answer to SUBSCRIBE
 * or UNSUBSCRIBE. hiredis makes four objects of it by eight allocations, and moves the rest of its
 * buffer for each kilobyte it has handed out, which with a thousand messages waiting costs more
 * than sending them. Other shapes and errors are left to it.
 * https://redis.io/docs/latest/develop/reference/protocol-spec/
 */
#ifndef BELFRY_WORKERS_PUSH_H
#define BELFRY_WORKERS_PUSH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

struct push {
    struct text_span kind;    /* "message", "subscribe", ... */
    struct text_span channel;
    struct text_span payload; /* !is_number */
    long long number;         /* is_number: channels subscribed to */
    bool is_number;
    uint64_t size;            /* bytes that all of it takes */
};

enum push_result {
    PUSH_WHOLE,
    PUSH_CUT,   /* more bytes are needed to tell */
    PUSH_LARGE, /* its payload is larger than the limit; nothing is said of whether it is there: of
                   *out there are kind, channel and size, of payload the length */
    PUSH_OTHER  /* another shape; or kind or channel longer than any that was asked for */
};

/* The first reply in the buffer; *out points into it. */
enum push_result push_read(const char *bytes, size_t len, size_t max_payload, struct push *out);

#endif
