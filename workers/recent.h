/*
 * recent.h - ids one user's devices were sent or shown in the list: a ring of hashes that grows with use.
 *
 * A quiet user has none. Tells repeats of a retrying producer (within the last 64 messages and two minutes) from the live copy of a message that was
 * sent from the list already, and tells repair what is missing.
 */
#ifndef BELFRY_WORKERS_RECENT_H
#define BELFRY_WORKERS_RECENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECENT_REPEAT_MESSAGES 64
#define RECENT_REPEAT_MS 120000

struct recent;

enum recent_origin {
    RECENT_LISTED, /* read from the list; its live copy may still come, and must not be sent again */
    RECENT_LIVE    /* the live copy was relayed */
};

/* limit: ids kept at most (history-size and some). NULL without memory. */
struct recent *recent_new(size_t limit);
void recent_free(struct recent *r);
/* Remembers an id; known ones are renewed. 0 or -ENOMEM (not remembered). */
int recent_add(struct recent **r, size_t limit, uint64_t id_hash, enum recent_origin origin, int64_t now_ms);
bool recent_knows(const struct recent *r, uint64_t id_hash); /* accepts NULL: false */
/* A live copy came: true when it must not be relayed (repeat, or live copy of a listed one, which then counts as live). */
bool recent_is_repeat(struct recent *r, uint64_t id_hash, int64_t now_ms);

#endif
