/*
 * When a user's list is read: once its channel is confirmed, in turn, so many at a time, again
 * after a while when it failed, and anew when what came of it may not be applied.
 */
#include "config.h"

#include <errno.h>

#include "workers/session_parts.h"

#define RETRY_MIN_S 0.1
#define RETRY_MAX_S 5.0

/* ---- the lines of readings ---- */

static void leave_line(struct sessions *s, struct user *u)
{
    if (u->place == PLACE_READY)
        hub_line_remove(&s->ready, u);
    else if (u->place == PLACE_DELAYED)
        hub_line_remove(&s->delayed, u);
}

void session_retry_later(struct sessions *s)
{
    if (ev_is_active(&s->retry))
        return;
    double after = RETRY_MIN_S;
    for (unsigned i = 0; i < s->failures && after < RETRY_MAX_S; i++)
        after *= 2;
    s->failures++;
    ev_timer_set(&s->retry, after < RETRY_MAX_S ? after : RETRY_MAX_S, 0.);
    ev_timer_start(s->w->loop, &s->retry);
}

static bool has_waiting(const struct sessions *s, const struct user *u)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (session_is_waiting(d) || session_lag_needs_list(s, d))
            return true;
    return false;
}

void session_want_reading(struct sessions *s, struct user *u)
{
    if (u->subscription != SUBSCRIPTION_CONFIRMED || u->reading || u->answer ||
        u->place != PLACE_NONE)
        return;
    hub_line_add(&s->ready, u, PLACE_READY);
    session_start_readings(s);
}

static void let_go(struct sessions *s, struct user *u)
{
    u->reading = NULL;
    u->answer = NULL;
    u->is_spoiled = false;
    s->in_flight--;
    for (struct device *d = u->devices; d; d = d->next)
        d->in_reading = false;
}

void session_cancel_reading(struct sessions *s, struct user *u)
{
    leave_line(s, u);
    if (!u->reading && !u->answer)
        return;
    store_cancel(u->reading);
    session_answer_free(u->answer);
    let_go(s, u);
}

/* ---- a reading ---- */

/* The list is to be asked for again. */
static void fail(struct sessions *s, struct user *u, int error)
{
    let_go(s, u);
    if (error && store_is_up(s->w->store)) { /* LOADING, no memory: not at once again */
        hub_line_add(&s->delayed, u, PLACE_DELAYED);
        session_retry_later(s);
    } else
        hub_line_add(&s->ready, u, PLACE_READY);
    session_start_readings(s);
}

static void apply(struct sessions *s, struct user *u, struct answer *a)
{
    u->answer = NULL;
    s->in_flight--;
    if (session_apply(s, u, a) && has_waiting(s, u))
        session_want_reading(s, u);
    session_answer_free(a);
    session_start_readings(s);
}

/* Its list was taken apart, or the link has caught up with it. */
static void on_answer(void *data, struct answer *a, int error)
{
    struct user *u = data;
    struct sessions *s = a->s;
    bool is_spoiled = u->is_spoiled;
    u->is_spoiled = false;
    if (!error && !is_spoiled) {
        s->failures = 0;
        if (a->is_settled || !session_is_ahead(s, u, a)) {
            apply(s, u, a);
            return;
        }
        if (!(error = session_answer_wait(a)))
            return;
    }
    session_answer_free(a);
    fail(s, u, error);
}

static void on_read(void *data, int error, struct store_user *stored)
{
    struct user *u = data;
    struct sessions *s = u->devices->conn->worker->sessions;
    u->reading = NULL;
    if (!error && !(u->answer = session_answer_new(s, u, stored, on_answer, u)))
        error = -ENOMEM;
    if (error)
        fail(s, u, error);
}

static bool start_reading(struct sessions *s, struct user *u)
{
    u->reading = store_read_user(s->w->store, u->id, on_read, u);
    if (!u->reading)
        return false;
    leave_line(s, u);
    recent_list_asked(u->recent);
    s->in_flight++;
    for (struct device *d = u->devices; d; d = d->next) {
        if (d->state != DEVICE_ADOPTED)
            session_lag_asked(d);
        d->in_reading = session_is_waiting(d);
    }
    return true;
}

void session_start_readings(struct sessions *s)
{
    while (s->in_flight < SESSION_READINGS && s->ready.first && store_is_up(s->w->store))
        if (!start_reading(s, s->ready.first)) {
            session_retry_later(s);
            return;
        }
}

void session_on_subscribed(struct worker *w, struct user *u)
{
    session_expected_subscribed(u);
    if (has_waiting(w->sessions, u))
        session_want_reading(w->sessions, u);
}

void session_on_store_up(struct worker *w)
{
    struct sessions *s = w->sessions;
    s->failures = 0;
    session_start_readings(s);
    session_refreshes_start_all(s);
}
