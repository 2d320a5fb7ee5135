/*
 * usertable.h - who is connected, over all workers of the instance: distinct users, and one user's
 * connections.
 *
 * Shared memory made by the master before it forks. Rows are dense (taken from a free list) so that
 * memory grows with users, not with capacity; buckets are striped, each stripe under a robust
 * process-shared mutex, held for well under a microsecond (a sweep lets go of it every few dozen
 * buckets). A process that dies inside leaves a stripe that the next one repairs. A user is the
 * 64-bit hash of its id: two users of one hash are counted as one, which only makes the limit
 * stricter for them. A dead worker's share is swept by the master. A full table counts nobody new
 * (and says so), it never refuses. pthread_mutexattr_setrobust(3).
 */
#ifndef BELFRY_SHARED_USERTABLE_H
#define BELFRY_SHARED_USERTABLE_H

#include <stdint.h>

struct usertable; /* process-local handle of the shared table */

/* columns: worker slots (as in counters.h). 0, -EINVAL or another negative errno; *out given,
 * usertable_free. Costs 2 x columns + 16 bytes for a user, 4 for a unit of capacity. */
int usertable_create(uint32_t capacity, uint32_t columns, struct usertable **out);
/* Maps the table of another master (fd given on success) with the same usertable_layout. 0, -EPROTO
 * or another negative errno. */
int usertable_adopt(int fd, struct usertable **out);
/* Its segment (segment.h), borrowed. */
int usertable_fd(const struct usertable *t);
/* What must be equal where a table is shared, as a hash. */
uint64_t usertable_layout(void);
void usertable_free(struct usertable *t);

/* One more connection of a user on a worker. Returns the user's connections over all workers after
 * that (>= 1); -EDQUOT and nothing changed when there are `limit` already (limit 0: none); 0 and
 * nothing changed when it cannot be counted (the table is full, or 65535 on one worker): the
 * connection may stay, but must not be taken out with usertable_leave. */
int usertable_enter(struct usertable *t, uint32_t column, uint64_t user_hash, uint32_t limit);
/* One less, for each usertable_enter that returned 1 or more. Unknown users are ignored. */
void usertable_leave(struct usertable *t, uint32_t column, uint64_t user_hash);
/* One user's connections over all workers. */
uint32_t usertable_connections(struct usertable *t, uint64_t user_hash);
/* Distinct users connected. Takes no lock. */
uint32_t usertable_users(const struct usertable *t);
/* Master: takes everything of a dead worker out. The worker must be gone. */
void usertable_sweep(struct usertable *t, uint32_t column);

#endif
