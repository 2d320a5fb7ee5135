/*
 * handover_parts.h - what handover.c, handover_giver.c and handover_taker.c share; nobody else's.
 */
#ifndef BELFRY_WORKERS_HANDOVER_PARTS_H
#define BELFRY_WORKERS_HANDOVER_PARTS_H

#include "workers/handover.h"
#include "workers/handover_link.h"
#include "workers/handover_state.h"

/* Records. Fields are packed (pack.h) in the order given; a giver's are only sent to a taker of the
 * same HANDOVER_VERSION. */
enum handover_record {
    HANDOVER_HELLO = 1, /* taker: u32 HANDOVER_VERSION. This stays as it is. u64 identity of the
                         * segment in which it counts */
    HANDOVER_CONFIRMED, /* taker: u32 batch, u8 whether all are subscribed */
    HANDOVER_BROADCASTS, /* giver: recent_save, which ids were broadcast last */
    HANDOVER_EXPECT,    /* giver: u32 batch, bytes marker, then bytes user id, ... */
    HANDOVER_USER,      /* giver: u32 batch, u32 which of it, bytes session_save_known: its devices
                         * follow */
    HANDOVER_DEVICE,    /* giver: handover_device_encode, descriptor */
    HANDOVER_USER_END,  /* giver: u8 whether the marker came before */
    HANDOVER_FORGET,    /* giver: u32 batch, u32 which: it is not given */
    HANDOVER_ALONE,     /* giver: handover_device_encode, descriptor: it has no user */
    HANDOVER_SHARED,    /* giver, to one who counts in the same segment: u32 its slot */
};

#define HANDOVER_MARKER_BYTES 64
#define HANDOVER_WAIT_MS 1000   /* either waits so long for the marker, a taker for its channels */
#define HANDOVER_HUNG_MS 2000   /* a giver so long for a taker to say one thing or the other */
#define HANDOVER_LISTEN_MS 2000 /* a taker so long for Redis before it says HELLO */
#define HANDOVER_HELLO_MS 4000  /* and a giver so long for that */

struct giver;
struct taker;

struct handover {
    struct worker *w;
    struct giver *giver; /* NULL: gives nothing */
    struct taker *taker; /* NULL: takes nothing */
};

/* ---- handover_giver.c ---- */

struct giver *giver_new(struct worker *w, const int *fds, size_t count);
void giver_free(struct giver *g); /* accepts NULL */
bool giver_is_active(const struct giver *g);
void giver_stop(struct giver *g);
bool giver_is_flushed(const struct giver *g);
void giver_on_marker(struct giver *g, struct text_span text);
void giver_on_link_lost(struct giver *g);

/* ---- handover_taker.c ---- */

struct taker *taker_new(struct worker *w);
void taker_free(struct taker *t); /* accepts NULL */
void taker_add(struct taker *t, int fd);
bool taker_has_givers(const struct taker *t); /* more may come from */
void taker_on_listening(struct taker *t);
void taker_on_marker(struct taker *t, struct text_span text);
void taker_on_link_lost(struct taker *t);

#endif
