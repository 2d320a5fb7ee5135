/*
 * merge.h - PURE: stored list x what the device has x what came live meanwhile -> what to send. No I/O, no clock, no allocation.
 *
 * belfry-protocol(7), "Delivery". Ids are hashes (message.h). Order: tail to head; when an entry nearer the head is older than one nearer the tail by more
 * than two seconds (a janitor reversed the list), entries go by timestamp instead, ties by position.
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
};

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
};

struct merge_result {
    bool is_recovered;
    size_t missed_count;  /* entries written to missed */
    size_t held_count;    /* entries written to held_out */
};

/* Order of the list, oldest first: fills order (room for count) with indexes into list (list[0] is the head, the newest). */
void merge_order(const struct merge_entry *list, size_t count, uint32_t *order);

/* A device attaches. held: ids of messages that came live since it asked, oldest first. missed (room for count): indexes into list to send
 * first, in order. held_out (room for held_count): indexes into held to send after them, in order: those that the list does not
 * account for. order: as from merge_order. */
struct merge_result merge_attach(const struct merge_entry *list, size_t count, const uint32_t *order,
                                 const struct merge_position *position, const uint64_t *held, size_t held_count,
                                 uint32_t *missed, uint32_t *held_out);

/* Live devices: entries that is_known (ids sent or listed before) does not know, in order. Returns how many were written to missed. */
size_t merge_repair(const struct merge_entry *list, size_t count, const uint32_t *order,
                    bool (*is_known)(const void *data, uint64_t id_hash), const void *data, uint32_t *missed);

#endif
