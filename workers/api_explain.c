#include "config.h"

#include <errno.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/explanation.h"
#include "shared/log.h"
#include "workers/api.h"
#include "workers/inquest.h"
#include "workers/store.h"

#define SLICE_US 1000 /* one turn's time for the list */
#define CLOCK_EVERY 8 /* entries */

/* One question: first to Redis, then to the master, which asks the workers of all instances. */
struct explaining {
    struct reply *reply;
    struct store_user stored;
    size_t looked;          /* so many of its entries */
    struct ev_timer more;   /* the next turn: the rest of them */
    struct inquest_call *call;
    struct explanation e;
    char user[KEYS_USER_ID_MAX_BYTES + 1];
    char id[INQUIRY_ID_MAX_BYTES + 1];
};

static void free_explaining(void *data)
{
    struct explaining *x = data;
    inquest_cancel(x->call);
    ev_timer_stop(x->reply->worker->loop, &x->more);
    store_user_free(&x->stored);
    explanation_fini(&x->e);
    free(x);
}

/* A parameter of the query, decoded, without NUL. */
static bool read_word(const struct request *rq, const char *name, char *out, size_t cap)
{
    struct text_span raw;
    int len = 0;
    if (text_query_find(http_query(rq->http), name, &raw))
        len = text_percent_decode(raw, true, out, cap);
    return len > 0 && strlen(out) == (size_t)len;
}

/* What belfryctl explain --json prints, and more. */
static void answer(struct explaining *x)
{
    struct reply *r = x->reply;
    struct text_buf body = {0};
    if (explanation_judge(&x->e) != 0) {
        reply_error(r, 500, "Out of memory", NULL);
        return;
    }
    text_addf(&body, "{\"instance_id\":\"%s\",", r->worker->start->instance_id);
    explanation_json(&x->e, &body);
    text_addc(&body, ',');
    api_add_timestamp(r->worker, &body);
    text_addc(&body, '}');
    reply_json(r, 200, &body);
}

static void on_answer(void *data, int error, struct text_span text)
{
    struct explaining *x = data;
    x->call = NULL;
    if (error == -EBUSY) {
        reply_error(x->reply, 503, "Too many questions at a time", "Retry-After: 1\r\n");
        return;
    }
    if (!error)
        explanation_take(&x->e, text);
    else
        snprintf(x->e.refusal, sizeof(x->e.refusal), "%s", log_errno(error));
    answer(x);
}

static void ask_master(struct explaining *x)
{
    struct inquest *q = x->reply->worker->inquest;
    x->call = q ? inquest_explain(q, x->user, x->id, on_answer, x) : NULL;
    if (!x->call)
        answer(x);
}

static void end_list(struct explaining *x)
{
    struct stored *s = &x->e.stored;
    for (size_t i = 0; i < x->stored.read_count; i++)
        s->is_read |= text_span_eq(x->stored.read_ids[i], x->id);
    stored_end(s);
    x->e.has_stored = true;
    store_user_free(&x->stored);
    ask_master(x);
}

static void on_more(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct explaining *x = timer->data;
    int64_t until_us = clock_mono_us() + SLICE_US;
    (void)events;
    while (x->looked < x->stored.entry_count) {
        stored_look(&x->e.stored, x->stored.entries[x->looked++]);
        if (x->looked % CLOCK_EVERY == 0 && clock_mono_us() >= until_us) {
            ev_timer_start(loop, timer);
            return;
        }
    }
    end_list(x);
}

static void on_stored(void *data, int error, struct store_user *user)
{
    struct explaining *x = data;
    x->reply->waiting = NULL;
    if (error) {
        ask_master(x);
        return;
    }
    x->stored = store_user_take(user);
    stored_begin(&x->e.stored, text_span_of(x->id), x->stored.acked);
    ev_timer_start(x->reply->worker->loop, &x->more);
}

void api_explain(const struct request *rq)
{
    struct reply *r = rq->reply;
    struct explaining *x = calloc(1, sizeof(*x));
    if (!x) {
        reply_error(r, 500, "Out of memory", NULL);
        return;
    }
    r->data = x;
    r->free_data = free_explaining;
    x->reply = r;
    x->e.user = x->user;
    x->e.id = x->id;
    ev_timer_init(&x->more, on_more, 0., 0.);
    x->more.data = x;
    if (!read_word(rq, "user", x->user, sizeof(x->user)) ||
        !keys_is_user_id(x->user, strlen(x->user)) ||
        !read_word(rq, "id", x->id, sizeof(x->id))) {
        reply_error(r, 422, "user and id: are required as query parameters", NULL);
        return;
    }
    r->waiting = store_read_user(rq->worker->store, x->user, on_stored, x);
    if (!r->waiting)
        ask_master(x);
}
