/*
 * recent.h - ids one user's devices were sent or shown in the list. Workers; pure memory.
 *
 * Two things that grow with use; a quiet user has neither:
 *   known   a set of ids, oldest forgotten first, at most `limit`. Tells the live copy of a message
 *           that was taken from the list already, and tells repair what is missing.
 *   window  the last RECENT_REPEAT_MESSAGES live ids with their times, for the repeats of a
 *           retrying producer.
 * belfry-protocol(7), "Delivery".
 */
#ifndef BELFRY_WORKERS_RECENT_H
#define BELFRY_WORKERS_RECENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

#define RECENT_REPEAT_MESSAGES 64
#define RECENT_REPEAT_MS 120000
#define RECENT_LIMIT_MAX 50000 /* positions are 16-bit */

struct recent;

enum recent_origin {
    RECENT_LISTED, /* read from the list; its live copy may still come, and is not to be sent */
    RECENT_LIVE,   /* the live copy was relayed; it may stand in the list */
    RECENT_PASSING /* the live copy was relayed; it is in no list: window only */
};

/* Remembers an id, making *r when it is NULL. A known id is renewed: it becomes the newest; one
 * that counts as live stays so when it is listed. limit: ids known at most (up to
 * RECENT_LIMIT_MAX), the same in every call. 0 or -ENOMEM (not remembered). */
int recent_add(struct recent **r, size_t limit, uint64_t id_hash, enum recent_origin origin,
               int64_t now_ms);
void recent_free(struct recent *r);
/* Has the memory fetched that recent_is_repeat and recent_add look at. Accepts NULL. */
void recent_prefetch(const struct recent *r);

bool recent_knows(const struct recent *r, uint64_t id_hash); /* accepts NULL: false */
bool recent_was_heard(const struct recent *r, uint64_t id_hash); /* its live copy; the same */
/* How many are known, and all of them, in any order (out has room). Accepts NULL: 0. */
size_t recent_count(const struct recent *r);
void recent_copy(const struct recent *r, uint64_t *out);
/* True when the limit was reached and ids were forgotten: an unknown id may have been sent. */
bool recent_has_forgotten(const struct recent *r); /* accepts NULL: false */
/* The list is asked for now. Accepts NULL. */
void recent_list_asked(struct recent *r);
/* The whole of that list was added: what was forgotten before it was asked for is in no list any
 * more. Accepts NULL. */
void recent_mark_complete(struct recent *r);

/* A live copy came: true when it must not be relayed. That is, when it repeats one of the last
 * RECENT_REPEAT_MESSAGES within RECENT_REPEAT_MS, or when its id was listed: it was sent from the
 * list or deliberately not replayed, however long ago; it then counts as live from now on. A repeat
 * that is dropped does not prolong the time. Accepts NULL: false. */
bool recent_is_repeat(struct recent *r, uint64_t id_hash, int64_t now_ms);

/* For another process: all of it, or the window only. Accepts NULL. */
void recent_save(const struct recent *r, bool window_only, struct text_buf *out);
/* *r is NULL for what was saved of NULL. 0, -ENOMEM or -EBADMSG. */
int recent_restore(struct recent **r, size_t limit, struct text_span saved);
/* Adds what `from` knows, or saw last, as older than what *into does. */
int recent_join_known(struct recent **into, size_t limit, const struct recent *from);
int recent_join_window(struct recent **into, const struct recent *from);
/* True when an id that was listed in one of them is unknown to the other: devices of the two do not
 * miss the same live copies. */
bool recent_differs(const struct recent *a, const struct recent *b);

#endif
