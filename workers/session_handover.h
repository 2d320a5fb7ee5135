/*
 * session_handover.h - devices of a user that are on their way from another worker. Workers.
 *
 * The user is subscribed for them as if they were here. What comes after the giver's marker
 * (handover.h) is kept for them, bounded. They go on when both have happened: the marker came, and
 * all devices are here. Until then those that are here are DEVICE_ADOPTED: nothing of the user is
 * relayed to them.
 */
#ifndef BELFRY_WORKERS_SESSION_HANDOVER_H
#define BELFRY_WORKERS_SESSION_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"
#include "workers/context.h"
#include "workers/handover_state.h"
#include "workers/hub.h"

/* Devices of a user are expected; on_subscribed is called once, later, when its channel is
 * confirmed: not when session_expected_is_heard already. NULL without memory. */
struct expected *session_expect(struct worker *w, struct text_span user_id,
                                void (*on_subscribed)(void *data), void *data);
bool session_expected_is_heard(const struct expected *e);
uint64_t session_expected_hash(const struct expected *e); /* of the user's id */
/* What they had (session_save_known), before they come. 0, -ENOMEM or -EBADMSG. */
int session_expected_recent(struct expected *e, struct text_span saved);
/* A device comes. 0, -ENOMEM or -EBADMSG: it may have joined, and is to be closed. */
int session_adopt(struct expected *e, struct device *d, const struct handover_device *state);

/* Each of these: true when the devices went on, and e is freed. */
/* The marker came. */
bool session_expected_marked(struct expected *e);
/* The marker will not come: they are to catch up from the list. */
bool session_expected_broken(struct expected *e);
/* All are here. is_fenced: the giver stopped at the marker. */
bool session_expected_given(struct expected *e, bool is_fenced);
/* No more will come; those that are here go on by the list. e is freed. */
void session_expected_drop(struct expected *e);

/* Which ids were broadcast last, from the giver. 0, or negative errno. */
int session_join_broadcasts(struct worker *w, struct text_span saved);

/* ---- the giver's side ---- */

/* What the devices of a user had. */
void session_save_known(const struct user *u, struct text_buf *out);
void session_save_broadcasts(struct worker *w, struct text_buf *out);

/* Everything about the device, as far as it is a session's, into parts (the state's spans point
 * into these buffers). The device is good for session_close only afterwards. */
struct session_parts {
    struct text_buf filter, resume, left_out, held, lag, refreshes;
};
void session_save(struct worker *w, struct device *d, struct session_parts *parts,
                  struct handover_device *state);
void session_parts_reset(struct session_parts *parts);
void session_parts_free(struct session_parts *parts);

#endif
