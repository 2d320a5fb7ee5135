/*
 * session_parts.h - what the files of the session (session.c, session_*.c) share; nobody else's.
 */
#ifndef BELFRY_WORKERS_SESSION_PARTS_H
#define BELFRY_WORKERS_SESSION_PARTS_H

#include "workers/conn.h"
#include "workers/held.h"
#include "workers/marker.h"
#include "workers/merge.h"
#include "workers/recent.h"
#include "workers/session.h"
#include "workers/store.h"

#define SESSION_READINGS 256   /* lists being read at once; more wait in order */
#define SESSION_SPOILED_MAX 3  /* readings a device may spoil before it is too slow */
#define SESSION_KEPT_BYTES (64 << 20) /* of lists that wait; more are read again later */
#define SESSION_LAG_US 60000000 /* what is older than this is not on its way any more */
#define SESSION_CROSSING_US 120000000 /* stored and live copies of one message are that close */

/* session_broadcast.c: those that not every device was given yet. */
struct broadcasts {
    struct recent *recent;   /* of all users: repeats of a retrying producer */
    struct frame *frames[SESSION_BROADCASTS_MAX]; /* oldest first */
    uint32_t count;
    uint32_t newest;         /* number of the last one that came; it may come round to 0 */
    uint32_t walked_to;      /* number of the newest that the walk under way gives to all */
    bool is_walking;
    size_t bytes;            /* of frames */
    struct joined {
        struct frame *frame; /* the last count of frames; NULL: they are not joined */
        uint32_t count;
    } plain, deflated;       /* for the largest window */
};

struct sessions {
    struct worker *w;
    struct user_line ready;      /* lists to be read, in order */
    struct user_line delayed;    /* their reading failed: moved to ready by retry */
    size_t in_flight;            /* lists asked for, and those that came and are not applied yet */
    struct answer *first_answer, *last_answer; /* to be taken apart or applied, in order */
    size_t waiting_bytes;        /* of those that wait for a marker */
    struct ev_timer retry;
    unsigned failures;           /* in a row: spaces the retries */
    size_t refreshes_waiting;
    struct broadcasts broadcasts;
    size_t expected_count;       /* of all users: session_handover.c */
    size_t known_limit;
    struct user *walked;         /* its devices are being walked: it must not be freed */
    int64_t lost_at_us;          /* wall clock of the first loss not repaired for everybody */
    bool is_lost_at_set;
    uint64_t marked_read_type;
};

static inline bool session_is_waiting(const struct device *d)
{
    return d->state == DEVICE_ATTACHING || d->state == DEVICE_REPAIRING;
}

/* ---- session.c ---- */

/* Around a walk over a user's devices in which something is sent: sending may end a connection, and
 * with the last one the user. session_walked frees it then; true when it did. */
void session_walk(struct sessions *s, struct user *u);
bool session_walked(struct sessions *s, struct user *u);
/* A device joins its user. 0, -EDQUOT (limit; 0: none) or -ENOMEM. */
int session_enter(struct sessions *s, struct device *d, const char *user_id, size_t len,
                  uint32_t limit);
/* A user may have lost the last reason to be here. True: it is freed. */
bool session_user_left(struct sessions *s, struct user *u);

/* ---- session_handover.c ---- */

/* A message, or a broadcast, came: it is kept for devices that are on their way. Accepts a user
 * of whom none is expected. */
void session_hold_expected(struct user *u, struct frame *f);
/* What the device has, instead of what its user's other devices have; NULL: the same. newest_listed
 * (may be NULL): as of struct user, then. */
const struct recent *session_adopted_recent(const struct device *d, uint64_t *newest_listed);
/* All devices were served: one that is live stands where the others do. */
void session_adopted_done(struct sessions *s, struct device *d);
void session_adopted_free(struct device *d);
/* The user's channel is confirmed. */
void session_expected_subscribed(struct user *u);

/* ---- session_read.c ---- */

/* The user's list is to be read as soon as it may: confirmed, Redis up, its turn. */
void session_want_reading(struct sessions *s, struct user *u);
/* Takes back what session_want_reading began. */
void session_cancel_reading(struct sessions *s, struct user *u);
void session_start_readings(struct sessions *s);
void session_retry_later(struct sessions *s);

/* ---- session_apply.c: what the devices are given of a list ---- */

/* The list may be ahead of the subscriber link: to apply it now could lose what is on its way. */
bool session_is_ahead(struct sessions *s, struct user *u, struct answer *a);
/* Serves all devices that waited for it; those that lag, too. False: with the last of them the user
 * is gone. */
bool session_apply(struct sessions *s, struct user *u, struct answer *a);

/* ---- session_left_out.c: what a device was not given, and may still come live ---- */

/* 0 or -ENOMEM. */
int session_leave_out(struct device *d, const uint64_t *ids, size_t count);
bool session_is_left_out(const struct device *d, uint64_t id_hash);
bool session_is_left_out_for_any(const struct user *u, uint64_t id_hash);
void session_left_out_take(struct device *d, uint64_t id_hash);
void session_left_out_free(struct device *d);
/* For another process. */
void session_left_out_save(const struct device *d, struct text_buf *out);
int session_left_out_restore(struct device *d, struct text_span saved); /* 0, -ENOMEM, -EBADMSG */

/* ---- session_list.c: a stored list taken apart ---- */

struct session_list {
    void *block; /* the arrays below */
    size_t count;
    size_t read_count;       /* of these, looked at */
    struct message *messages;
    struct merge_entry *entries;
    struct frame **frames;   /* made when first sent */
    uint32_t *order;
    uint32_t *missed;        /* room for a merge's result */
    size_t order_count;
    bool is_cut;             /* there are older entries than were read */
    size_t unread;
    struct text_span last_id; /* raw JSON */
    struct text_span snapshot;
    bool has_acked;
    uint64_t acked;
};

/* l is zero before the first call. 0; -EAGAIN: the time (clock_mono_us) is over before all is read,
 * and the same call goes on; -ENOMEM. Spans point into stored. */
int session_list_read(struct session_list *l, const struct user *u,
                      const struct store_user *stored, int64_t until_us);
void session_list_free(struct session_list *l);
/* Frame of an entry (borrowed), NULL without memory. */
struct frame *session_list_frame(struct session_list *l, uint32_t index);
/* Marks that mark no entry any more; returns how many were written to out (room for max). */
size_t session_list_stale_marks(const struct session_list *l, const struct store_user *stored,
                                struct text_span *out, size_t max);
/* Sends FULL_SYNC. */
void session_list_full_sync(const struct session_list *l, struct device *d, const char *type,
                            bool is_recovered, size_t missed);

/* ---- session_answer.c: an answer of Redis, until it is applied ---- */

struct answer;
/* It was taken apart, or could not be; and once more after session_answer_wait. The answer is the
 * callee's to free. */
typedef void answer_fn(void *data, struct answer *a, int error);

struct answer {
    struct answer *next, *prev; /* in the line of those to be worked off */
    struct sessions *s;
    const struct user *u;
    answer_fn *fn;
    void *data;
    struct store_user stored;
    struct session_list list;
    struct marker marker;
    size_t waiting_bytes; /* it waits for the marker; else 0 */
    int error;
    bool is_in_line;
    bool is_read;         /* list is whole */
    bool is_settled;      /* the link has brought all that was published before */
};

/* Takes what is stored, and lines up for session_work. NULL without memory, and stored untouched.
 */
struct answer *session_answer_new(struct sessions *s, const struct user *u,
                                  struct store_user *stored, answer_fn *fn, void *data);
/* To be called again once the link has brought what was published by now. 0, or -ENOBUFS: so much
 * waits already. */
int session_answer_wait(struct answer *a);
/* Wherever it stands. Accepts NULL. */
void session_answer_free(struct answer *a);

/* ---- session_broadcast.c ---- */

/* The device is given the broadcasts that it lacks. May end its connection. */
void session_settle_device(struct sessions *s, struct device *d);
void session_broadcasts_free(struct sessions *s);

/* ---- session_live.c ---- */

/* Gives the frame to a device, or keeps it for one that waits. */
void session_relay_to(struct sessions *s, struct device *d, struct frame *f);
struct frame *session_make_frame(enum frame_kind kind, const struct message *m);
/* Counts and logs a message that is none. */
void session_refuse(const char *channel, enum json_result why, size_t len);

bool session_wants(const struct device *d, const struct frame *f);
/* Keeps a message for a device that waits for a reading. */
void session_hold(struct sessions *s, struct device *d, struct frame *f);
/* Sends a message if the device wants it, and counts. */
void session_give(struct device *d, struct frame *f);
/* Sends what was held, of the given items. */
void session_give_held(struct device *d, const struct held *h, const uint32_t *items,
                       size_t count);

/* ---- session_lag.c: a device that reads too slowly ---- */

/* A message to its user found no room: the device lags from now on. */
void session_lag_begin(struct sessions *s, struct device *d, struct frame *f);
void session_lag_free(struct device *d);
/* For another process; what is held becomes part of it. Accepts a device that does not lag. */
void session_lag_save(struct sessions *s, struct device *d, struct text_buf *out);
/* 0, -ENOMEM or -EBADMSG; nothing for what was saved of a device that does not lag. */
int session_lag_restore(struct device *d, struct text_span saved);
/* Messages to its user are to be noted (session_lag_note), in whatever state the device is. */
bool session_lag_is_stalled(const struct device *d);
void session_lag_note(struct sessions *s, struct device *d, struct frame *f);
/* A reading of the list would be of use. */
bool session_lag_needs_list(const struct sessions *s, const struct device *d);
/* The user's list is being asked for: a stalled device that is ready is served by that reading. */
void session_lag_asked(struct device *d);
/* Before a frame is held. True: it was noted instead. Accepts a device that does not lag. */
bool session_lag_hold(struct sessions *s, struct device *d, struct frame *f);
/* The list was read. The device is live afterwards, whether it still lags or not. */
void session_lag_serve(struct sessions *s, struct device *d, struct session_list *list);
/* After every device was served: what the list has is had by the device, or owed to it. Accepts a
 * device that does not lag. */
void session_lag_listed(struct device *d, const struct session_list *list);

/* ---- session_refresh.c ---- */

/* FULL_SYNCs that a device asked for: sends their readings where they may start. */
void session_refreshes_start(struct sessions *s, struct device *d);
void session_refreshes_start_all(struct sessions *s);
void session_refreshes_free(struct sessions *s, struct device *d);
/* For another process, where they are asked for anew. */
void session_refreshes_save(const struct device *d, struct text_buf *out);
/* 0, -ENOMEM or -EBADMSG (what was read stays). They wait until session_refreshes_start. */
int session_refreshes_restore(struct sessions *s, struct device *d, struct text_span saved);

#endif
