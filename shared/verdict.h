/*
 * verdict.h - PURE: from what the traces say of one message to one sentence for each device.
 *
 * Knows no socket and no Redis: others collect (explanation.h), this judges. What a
 * record means stands in shared/trace.def; what was written over in a ring is not known, and said
 * so rather than guessed.
 */
#ifndef BELFRY_SHARED_VERDICT_H
#define BELFRY_SHARED_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/inquiry.h"
#include "shared/text.h"

struct verdict_fact {
    struct inquiry_record record;
    char instance[INQUIRY_INSTANCE_BYTES];
};

enum verdict_outcome {
    VERDICT_UNKNOWN,   /* connected at the time, and nothing is recorded */
    VERDICT_DELIVERED, /* written to its connection */
    VERDICT_BROADCAST, /* a broadcast that was sent to all, and no exception is recorded */
    VERDICT_WAITING,   /* in its queue */
    VERDICT_HELD,      /* kept until its list is read */
    VERDICT_FILTERED,
    VERDICT_CONFLATED,
    VERDICT_DROPPED,   /* it was too slow */
    VERDICT_LAGGING,   /* it is too slow now, or was when it left; the list is to help */
    VERDICT_LOST,      /* queued, and the connection ended */
    VERDICT_UNSURE,    /* queued, and its worker ended before it could say more */
    VERDICT_CLOSING,   /* not queued: it was being closed */
    VERDICT_UNHEARD,   /* its worker's link to Redis was down */
    VERDICT_LATER,     /* connected after the message, and was not replayed it */
    VERDICTS
};

/* What TCP says of the bytes that were written. */
enum verdict_tcp { VERDICT_TCP_UNKNOWN, VERDICT_TCP_UNACKED, VERDICT_TCP_ACKED };

/* One connection. Times are wall clock in us, 0: not known or not yet. */
struct verdict_device {
    char instance[INQUIRY_INSTANCE_BYTES];
    uint32_t slot;      /* of the worker that has, or had, it last */
    bool is_moving;     /* that one gave it away */
    uint64_t serial;
    int64_t opened_us;
    int64_t closed_us;
    bool is_open;       /* a worker says so */
    bool has_died;      /* its worker ended without a word of it */
    bool is_unix;
    bool is_tls;
    bool has_acked_bytes;
    uint64_t acked_bytes;
    uint32_t waiting_bytes;
    uint32_t close_reason;             /* row of closes.def */
    const struct verdict_fact *sent;   /* queued, replayed, repaired; of several the best */
    const struct verdict_fact *spared; /* held, filtered, dropped, closing; of several the last */
    unsigned times_written;
    int64_t acked_us;                  /* ack with this id */
    int64_t read_us;
    enum verdict_outcome outcome;
    enum verdict_tcp tcp;              /* with sent */
};

struct verdict {
    struct verdict_device *devices; /* in the order in which they came */
    size_t count;
    bool is_known;         /* a record names the message */
    bool is_broadcast;
    int64_t first_us;      /* first live copy; 0: none was seen */
    size_t gone_before;    /* connections of the user that had ended before it */
};

/* Judges. facts are sorted by time, and kept by reference. stored_us: time of the stored entry, 0
 * for none. 0 or -ENOMEM. */
int verdict_read(struct verdict_fact *facts, size_t count, int64_t stored_us, struct verdict *out);
void verdict_free(struct verdict *v);

/* Appends one sentence without a full stop. Times as verdict_time. */
void verdict_sentence(const struct verdict *v, const struct verdict_device *d, int64_t now_us,
                      struct text_buf *out);
const char *verdict_word(enum verdict_outcome outcome);
/* Appends a UTC time of day with milliseconds, with its date before it unless it is that of
 * now_us. */
void verdict_time(int64_t us, int64_t now_us, struct text_buf *out);

#endif
