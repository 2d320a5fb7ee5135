/*
 * merge.h - PURE: stored list x what the device has x what came live meanwhile -> what to send. No
 * I/O, no clock, no allocation.
 *
 * belfry-protocol(7), "Delivery". Ids are hashes (message.h), never 0.
 */
#ifndef BELFRY_WORKERS_MERGE_H
#define BELFRY_WORKERS_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERGE_REVERSED_US 2000000

/* One stored entry, as far as merging goes. */
struct merge_entry {
    uint64_t id_hash;     /* message.id_hash */
    int64_t timestamp_us; /* 0: unknown */
    bool is_valid;        /* false: not a message; never sent, never a position */
    bool has_id;          /* false: id_hash is that of the content; equal ones are not repeats */
};

struct merge_known;

/* Where a device stands and what applies to it. */
struct merge_position {
    bool has_last_id;
    uint64_t last_id;
    const uint64_t *seen;
    size_t seen_count;
    bool has_acked;
    uint64_t acked;
    int64_t now_us;
    int64_t replay_window_us;
    size_t replay_limit;
    const struct merge_known *known; /* of the user's live devices; NULL: it has none */
};

/* What live devices of a user have. */
struct merge_known {
    bool (*is_known)(const void *data, uint64_t id_hash); /* ids sent or listed before */
    const void *data;
    bool has_forgotten; /* is_known once knew more than it does now */
    bool (*is_owed)(const void *data, uint64_t id_hash); /* this device was not sent it; NULL: all
                                                          * known was sent */
    const void *owed_data;
    int64_t before_us;  /* with has_forgotten, when no entry is known: those from before this are */
};

struct merge_result {
    bool is_recovered;
    bool is_placed;       /* the list shows where the device stands: it has what is before */
    size_t missed_count; /* entries written to missed */
    size_t held_count;   /* entries written to held_out */
};

/* Order of the list, oldest first: fills order (room for count) with indexes into list (list[0] is
 * the head, the newest) and returns how many. Left out are invalid entries, and of entries with one
 * id all but the first stored (nearest the tail). Tail to head; but when an entry nearer the head
 * is older than one nearer the tail by more than MERGE_REVERSED_US (a janitor reversed the list),
 * entries go by timestamp, ties by position; an entry without a timestamp follows the one that
 * stood before it. scratch: room for 2 * count. */
size_t merge_order(const struct merge_entry *list, size_t count, uint32_t *order,
                   uint32_t *scratch);

/*
 * A device attaches. order: as from merge_order. held: ids of messages that came live since it
 * asked, oldest first; 0 is one that can be compared with nothing. Writes to missed (room for
 * order_count) indexes into list to send first, in order:
 *
 *   last_id is in the list    everything newer than it; with seen, everything newer than the
 *                             oldest seen entry; never what is seen
 *   no last_id, acked is      everything newer than acked, but what is seen
 *   otherwise                 the newest replay_limit of the entries younger than the window
 *                             (unknown timestamps are); and from the oldest on that was held, or
 *                             that known does not know, everything; but what is seen
 *
 * is_recovered is false only when a last_id is given that the list does not have. Writes to
 * held_out (room for held_count) indexes into held to send after these, in order: those that are
 * not in the list and were not seen, each id once.
 */
struct merge_result merge_attach(const struct merge_entry *list, const uint32_t *order,
                                 size_t order_count, const struct merge_position *position,
                                 const uint64_t *held, size_t held_count, uint32_t *missed,
                                 uint32_t *held_out);

/* The device named it: last_id or seen. */
bool merge_is_seen(const struct merge_position *position, uint64_t id_hash);

/* Place in order of the newest entry that such a device is not given for replay-limit and
 * replay-window alone, if nothing was held; order_count: there is none. */
size_t merge_left_out(const struct merge_entry *list, const uint32_t *order, size_t order_count,
                      const struct merge_position *position);

/* A live device catches up: missed are the entries that are not known or were held, in order;
 * held_out those held that are not in the list. When known has forgotten ids, entries older than
 * the oldest known one are taken for known too. What is owed is not known. */
struct merge_result merge_repair(const struct merge_entry *list, const uint32_t *order,
                                 size_t order_count, const struct merge_known *known,
                                 const uint64_t *held, size_t held_count, uint32_t *missed,
                                 uint32_t *held_out);

#endif
