#include "config.h"

#include "workers/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "workers/filter.h"
#include "workers/handover.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"

/* Ids a user's devices are known to have: all the list can hold, and some that were only
 * published. */
#define KNOWN_BEYOND_HISTORY 128

static void on_retry(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)events;
    struct sessions *s = t->data;
    while (s->delayed.first) {
        struct user *u = s->delayed.first;
        session_cancel_reading(s, u);
        session_want_reading(s, u);
    }
    session_start_readings(s);
    session_refreshes_start_all(s);
}

struct sessions *sessions_new(struct worker *w)
{
    struct sessions *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->w = w;
    s->known_limit = (size_t)w->opt->history_size + KNOWN_BEYOND_HISTORY;
    s->marked_read_type = message_type_hash("NOTIFICATIONS_MARKED_READ", 25);
    ev_timer_init(&s->retry, on_retry, 0., 0.);
    s->retry.data = s;
    return s;
}

static void cancel_user(void *data, struct user *u)
{
    session_cancel_reading(data, u);
    for (struct device *d = u->devices; d; d = d->next)
        session_refreshes_free(data, d);
    recent_free(u->recent);
    u->recent = NULL;
}

void sessions_free(struct sessions *s)
{
    if (!s)
        return;
    hub_each(s->w->hub, cancel_user, s);
    ev_timer_stop(s->w->loop, &s->retry);
    session_broadcasts_free(s);
    free(s);
}

/* ---- users come and go ---- */

/* The last device left, or none is expected any more. True: the user is freed. */
bool session_user_left(struct sessions *s, struct user *u)
{
    if (u->devices)
        return false;
    session_cancel_reading(s, u);
    if (u->expected)
        return false;
    subscriber_drop(s->w->subscriber, u);
    recent_free(u->recent);
    hub_forget(s->w->hub, u);
    return true;
}

void session_walk(struct sessions *s, struct user *u)
{
    s->walked = u;
}

bool session_walked(struct sessions *s, struct user *u)
{
    s->walked = NULL;
    return session_user_left(s, u);
}

int session_enter(struct sessions *s, struct device *d, const char *user_id, size_t len,
                  uint32_t limit)
{
    const struct worker_start *start = s->w->start;
    uint64_t hash = text_hash64(user_id, len);
    int count = usertable_enter(start->users, start->slot, hash, limit);
    if (count < 0)
        return count;
    d->is_counted = count > 0;
    if (!hub_join(s->w->hub, d, user_id, len)) {
        if (d->is_counted)
            usertable_leave(start->users, start->slot, hash);
        return -ENOMEM;
    }
    d->heard = s->broadcasts.newest;
    if (d->user->device_count == 1)
        counters_inc(CTR_connected_users_local);
    return 0;
}

int session_open(struct worker *w, struct device *d, const struct token_claims *claims,
                 struct resume *resume, struct filter *filter)
{
    struct sessions *s = w->sessions;
    int error = device_set_resume(d, resume);
    if (!error)
        error = session_enter(s, d, claims->user_id, claims->user_id_len,
                              (uint32_t)w->opt->max_connections_per_user);
    if (error) {
        device_drop_resume(d);
        filter_free(filter);
        return error;
    }
    d->state = DEVICE_ATTACHING;
    d->filter = filter;
    subscriber_want(w->subscriber, d->user);
    session_want_reading(s, d->user);
    return 0;
}

void session_close(struct worker *w, struct device *d)
{
    struct sessions *s = w->sessions;
    struct user *u = d->user;
    if (!u)
        return;
    session_settle_device(s, d); /* too late, but it is told of what it was not given: fate.h */
    if (d->is_counted)
        usertable_leave(w->start->users, w->start->slot, u->id_hash);
    session_refreshes_free(s, d);
    device_drop_resume(d);
    filter_free(d->filter);
    held_free(device_take_held(d));
    session_lag_free(d);
    session_left_out_free(d);
    session_adopted_free(d);
    if (d->busy->expected)
        device_busy(d)->expected = NULL;
    device_settle(d);
    d->filter = NULL;
    d->state = DEVICE_NONE;
    d->in_reading = false;
    if (!hub_leave(w->hub, d))
        return;
    counters_dec(CTR_connected_users_local);
    if (s->walked != u)
        session_user_left(s, u);
}

/* ---- the link is lost ---- */

static void note_pending_repair(void *data, struct user *u)
{
    if (u->needs_repair)
        *(bool *)data = true;
}

/* What came since the last confirmation is complete; what comes until the next one is not. Devices
 * wait for a reading that starts after it, and hold meanwhile what comes live. */
static void begin_repair(void *data, struct user *u)
{
    session_cancel_reading(data, u);
    u->needs_repair = true;
    for (struct device *d = u->devices; d; d = d->next)
        if (d->state == DEVICE_LIVE)
            d->state = DEVICE_REPAIRING;
}

void session_on_link_lost(struct worker *w)
{
    struct sessions *s = w->sessions;
    bool is_pending = false;
    hub_each(w->hub, note_pending_repair, &is_pending);
    if (!is_pending || !s->is_lost_at_set)
        s->lost_at_us = worker_wall_ms(w) * 1000;
    s->is_lost_at_set = true;
    hub_each(w->hub, begin_repair, s);
    if (w->handover)
        handover_on_link_lost(w->handover);
}
