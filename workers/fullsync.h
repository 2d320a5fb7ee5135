/*
 * fullsync.h - the text of a FULL_SYNC. belfry-protocol(7). Pure.
 */
#ifndef BELFRY_WORKERS_FULLSYNC_H
#define BELFRY_WORKERS_FULLSYNC_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

struct fullsync {
    const char *type; /* in the case it is to have */
    bool with_zone;   /* timestamp */
    struct text_span user_id;
    struct text_span snapshot; /* raw, as stored; anything but a JSON object is written as {} */
    bool is_recovered;
    size_t missed;
    size_t unread;
    struct text_span last_id; /* raw JSON string; len 0: null */
    const char *connection_id;
};

/* {"type","timestamp","user_id","payload",
 *  "sync":{"recovered","missed","unread","last_id","connection_id"}}.
 * Without memory out->failed. */
void fullsync_write(struct text_buf *out, const struct fullsync *f);

#endif
