/*
 * session.h - a device's life with its user's messages: attach, replay, live, repair.
 *
 * Attach is gap-free for producers that know nothing of it: the subscription is confirmed first,
 * then the list is read, then both are merged by id (merge.h), then the device is live. Repair
 * after a lost link is the same reading. Redis away: the device waits, attached as soon as the list
 * can be read; commands that need no Redis are answered meanwhile. A device that reads too slowly
 * gets by the same reading what could not be kept for it.
 */
#ifndef BELFRY_WORKERS_SESSION_H
#define BELFRY_WORKERS_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/closes.h"
#include "shared/text.h"
#include "shared/token.h"
#include "workers/context.h"
#include "workers/frame.h"
#include "workers/hub.h"

#define RESUME_SEEN_MAX 32
#define SESSION_BROADCASTS_MAX 256 /* that wait for the end of the turn, or of a walk */

/* Where a device wants to go on: query parameters or the auth frame. */
struct resume {
    bool has_last_id;
    uint64_t last_id;               /* message_id_hash */
    uint32_t seen_count;
    uint64_t seen[RESUME_SEEN_MAX]; /* message_id_hash */
};

struct sessions *sessions_new(struct worker *w);
void sessions_free(struct sessions *s);

/* A connection's token was accepted: joins the user and starts attaching. resume and filter: given
 * (freed here or with the device), may be NULL. 0; or -EDQUOT (max-connections-per-user) or -ENOMEM
 * with nothing kept but the arguments freed. */
int session_open(struct worker *w, struct device *d, const struct token_claims *claims,
                 struct resume *resume, struct filter *filter);
/* The connection is going: leaves the user, drops its subscription when it was the last. Accepts a
 * device that never opened. */
void session_close(struct worker *w, struct device *d);
/* What waited for a device that lags has nearly all been written (conn_is_drained). */
void session_on_drained(struct worker *w, struct device *d);
/* dashboard_refresh: a fresh FULL_SYNC of the given type, then the frame done (given, whatever is
 * returned). An attaching device is attached first. 0; -EAGAIN (Redis away, or several are asked
 * for already) or -ENOMEM with nothing sent. */
int session_refresh(struct worker *w, struct device *d, const char *full_sync_type,
                    struct frame *done);

/* How a device that lags (d->lag) stands: messages it is owed; since when, on the wall clock. */
struct session_lag_state {
    size_t owed;
    int64_t since_us;
};
struct session_lag_state session_lag_state(const struct device *d);

/* From subscriber.c. payload is borrowed for the call. */
void session_on_subscribed(struct worker *w, struct user *u);
void session_on_message(struct worker *w, struct user *u, struct text_span payload);
/* Messages will come for the user soon: memory that will be looked at is fetched. Two steps, to be
 * made for several users each. */
void session_prefetch(const struct user *u);
void session_prefetch_more(const struct user *u);
void session_on_broadcast(struct worker *w, const char *payload, size_t len);
/* At the end of each turn: goes on with lists that were read, for some milliseconds. now_us:
 * clock_mono_us. True when there is more to do. */
bool session_work(struct worker *w, int64_t now_us);
/* At the end of each turn: goes on giving broadcasts to all devices, for some milliseconds. True
 * when there is more to do. */
bool session_relay_broadcasts(struct worker *w);
/* The same, and ends when all is done. */
void session_finish_broadcasts(struct worker *w);
/* Now for the devices of one user: before anything that must come behind. May end connections. */
void session_settle(struct worker *w, struct user *u);
/* The subscriber link was lost: every user must be repaired once its channel is confirmed again. */
void session_on_link_lost(struct worker *w);
/* From store.c: the command link is up again: pending readings start. */
void session_on_store_up(struct worker *w);

#endif
