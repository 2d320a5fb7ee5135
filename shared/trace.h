/*
 * trace.h - what happened to the last messages: a ring of fixed-width records for each worker, in
 * shared memory.
 *
 * The master makes the segment before it forks; a worker writes its own slot's ring only; the
 * master reads all of them. Single writer, no locks, no system calls: a record is one cache line.
 * Readers put up with a writer that overtakes them: each record carries its number, which is taken
 * away before the record is written over and given back afterwards. A record of something queued is
 * written once more, when the message leaves the queue. Records hold hashes, never an id, a user or
 * a payload. A slot's ring goes on when its worker is replaced, so that a crash can be explained.
 * Memory is touched as it is used.
 */
#ifndef BELFRY_SHARED_TRACE_H
#define BELFRY_SHARED_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum trace_fate {
    TRACE_NONE,
#define TRACE(name, word, about, help) TRACE_##name,
#include "shared/trace.def"
#undef TRACE
    TRACE_FATES
};

enum trace_end {
#define TRACE_END(name, word, help) TRACE_END_##name,
#include "shared/trace.def"
#undef TRACE_END
    TRACE_ENDS
};

enum trace_about { TRACE_ABOUT_MESSAGE, TRACE_ABOUT_USER, TRACE_ABOUT_WORKER, TRACE_ABOUT_ANSWER };

/* One cache line. What a fate says in detail and position stands in trace.def. */
struct trace_record {
    uint64_t number;    /* place in the ring's history, from 1; 0: being written */
    int64_t at_us;      /* wall clock */
    uint64_t id_hash;   /* message_id_hash; 0: none */
    uint64_t user_hash; /* text_hash64 of the user id; 0: everybody */
    uint64_t serial;    /* the connection's; 0: none */
    uint64_t position;
    int64_t end_us;     /* when `end` came; 0: not yet */
    uint32_t detail;
    uint16_t fate;      /* enum trace_fate */
    uint16_t end;       /* enum trace_end */
};
_Static_assert(sizeof(struct trace_record) == 64, "one cache line; seen by several processes");

#define TRACE_RECORD_BYTES 64
#define TRACE_MAX_RECORDS (1u << 20) /* in one ring */

struct trace_ring;

struct trace {
    void *segment; /* NULL: the trace is off */
    size_t bytes;
    uint32_t slots;
    uint32_t size; /* records in a ring: a power of two */
    int fd;        /* segment.h; only while segment is there */
};

/* Makes the segment (inherited by fork), size rounded up to a power of two. Size 0
 * makes none, and everything below does nothing. 0 or negative errno. */
int trace_create(struct trace *t, uint32_t slots, uint32_t size);
/* Maps the segment of another master (fd given on success) with the same trace_layout. 0, -EPROTO
 * or another negative errno. */
int trace_adopt(struct trace *t, uint32_t slots, uint32_t size, int fd);
/* The size a trace of that size really has. */
uint32_t trace_rounded(uint32_t size);
/* What must be equal where a segment is shared, as a hash. */
uint64_t trace_layout(void);
void trace_destroy(struct trace *t); /* accepts one that was never made */

/* The ring this process writes; NULL: none. Documented global, as counters_self is: it makes
 * recording possible wherever something happens. */
extern struct trace_ring *trace_self;
/* Makes slot's ring the one this process writes. */
void trace_attach(const struct trace *t, uint32_t slot);
static inline bool trace_is_on(void)
{
    return trace_self != NULL;
}

/* The wall clock of what is recorded from now on: set once in a turn. */
void trace_set_time(int64_t wall_us);

/* Which record a message in a queue belongs to: fits a bit field of 30 bits; 0: none. */
typedef uint32_t trace_ticket;
#define TRACE_TICKET_BITS 30

/* Writes a record (number and at_us are filled in); its ticket. Call it only while trace_is_on. */
trace_ticket trace_add(const struct trace_record *r);
/* What became of a queued message, unless its record was written over meanwhile. Ticket 0:
 * nothing. */
void trace_finish(trace_ticket ticket, enum trace_end end, uint64_t position);
/* If the newest record says `from` about this message and connection, makes it say `to`: only the
 * caller of the one who queued it knows why. */
void trace_relabel(uint64_t id_hash, uint64_t serial, enum trace_fate from, enum trace_fate to);

/* ---- reading, from any process that has the segment ---- */

/* Most records of one kind that a reader is given of one ring; newer ones win. */
#define TRACE_FOUND_MESSAGE 256
#define TRACE_FOUND_USER 96
#define TRACE_FOUND_WORKER 32
#define TRACE_FOUND_MAX (TRACE_FOUND_MESSAGE + TRACE_FOUND_USER + TRACE_FOUND_WORKER)

/* Records about this message and user, about the user's connections, and about the worker, oldest
 * first. Returns how many were written to out (room for TRACE_FOUND_MAX); *is_cut (may be NULL) is
 * set true when there were more. */
size_t trace_find(const struct trace *t, uint32_t slot, uint64_t user_hash, uint64_t id_hash,
                  struct trace_record *out, bool *is_cut);
/* Records written to the ring so far. */
uint64_t trace_count(const struct trace *t, uint32_t slot);
/* One record by its number; false when it is not there (any more). */
bool trace_read(const struct trace *t, uint32_t slot, uint64_t number, struct trace_record *out);

const char *trace_fate_word(uint32_t fate); /* "unknown" for none */
const char *trace_end_word(uint32_t end);
/* TRACE_NONE, TRACE_ENDS: no such word. */
enum trace_fate trace_fate_of(const char *word, size_t len);
enum trace_end trace_end_of(const char *word, size_t len);
enum trace_about trace_about(enum trace_fate fate);

/* A connection's serial: rising, with the slot of the worker that accepted it in its lowest bits.
 * It keeps it in whatever worker of the instance it is later. */
#define TRACE_SERIAL_SLOTS 256

/* Text of a connection's id, as FULL_SYNC and the log give it: the end of the instance's UUID is
 * random (its beginning is a time), then slot and serial. */
#define TRACE_CONNECTION_BYTES 40
const char *trace_connection(const char *instance_id, uint64_t serial,
                             char out[TRACE_CONNECTION_BYTES]);

#endif
