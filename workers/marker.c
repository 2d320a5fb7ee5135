#include "config.h"

#include "workers/marker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/store.h"
#include "workers/subscriber.h"

#define PREFIX "marker:"

/*
 * Numbers rise. Who asks waits for the next marker to be published, which leaves at the end of the
 * turn or, while the answer to the one before is still awaited, after that; it counts only that the
 * marker is published later than what its waiter has seen.
 */
struct markers {
    struct worker *w;
    struct ev_prepare turn;
    struct marker *first, *last; /* who waits, by number */
    uint64_t published;          /* number of the last marker sent */
    struct store_call *call;     /* its publication, until Redis answered */
};

static void take_out(struct markers *m, struct marker *k)
{
    if (k->prev)
        k->prev->next = k->next;
    else
        m->first = k->next;
    if (k->next)
        k->next->prev = k->prev;
    else
        m->last = k->prev;
    k->next = k->prev = NULL;
}

/* Calls may ask again, and cancel others: only the first is ever looked at. */
static void tell(struct markers *m, uint64_t number, int error)
{
    while (m->first && m->first->number <= number) {
        struct marker *k = m->first;
        take_out(m, k);
        k->fn(k->data, error);
    }
}

static void on_published(void *data, int error, int64_t receivers)
{
    struct markers *m = data;
    m->call = NULL;
    if (!error && receivers < 1) /* nobody listens there, so not this worker either */
        error = -EPIPE;
    if (error)
        tell(m, m->published, error);
}

/* Other workers had this channel before; what one of them left behind is not ours. */
static int format(char *text, size_t size, uint64_t number)
{
    return snprintf(text, size, PREFIX "%d:%llu", (int)getpid(), (unsigned long long)number);
}

void markers_flush(struct markers *m)
{
    char text[64];
    if (!m->last || m->last->number <= m->published || m->call)
        return;
    struct text_span span = {text, (size_t)format(text, sizeof(text), ++m->published)};
    m->call = store_publish(m->w->store, subscriber_probe_channel(m->w->subscriber), span,
                            on_published, m);
    if (!m->call)
        tell(m, m->published, -ENOTCONN);
}

static void on_turn(struct ev_loop *loop, struct ev_prepare *p, int events)
{
    (void)loop, (void)events;
    markers_flush(p->data);
}

struct markers *markers_new(struct worker *w)
{
    struct markers *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->w = w;
    ev_prepare_init(&m->turn, on_turn);
    m->turn.data = m;
    ev_prepare_start(w->loop, &m->turn);
    return m;
}

void markers_free(struct markers *m)
{
    if (!m)
        return;
    ev_prepare_stop(m->w->loop, &m->turn);
    store_cancel(m->call);
    free(m);
}

void marker_want(struct markers *m, struct marker *k)
{
    k->number = m->published + 1;
    k->next = NULL;
    k->prev = m->last;
    if (m->last)
        m->last->next = k;
    else
        m->first = k;
    m->last = k;
}

void marker_cancel(struct markers *m, struct marker *k)
{
    take_out(m, k);
}

/* Of any number that was published: an earlier one may have been waited for by nobody any more, a
 * later one tells of all before it. */
bool markers_on_echo(struct markers *m, const char *payload, size_t len)
{
    char text[64];
    if (len >= sizeof(text) || len < sizeof(PREFIX) || memcmp(payload, PREFIX, sizeof(PREFIX) - 1))
        return false;
    memcpy(text, payload, len);
    text[len] = '\0';
    char *colon = strrchr(text, ':');
    char expected[64];
    uint64_t number = strtoull(colon + 1, NULL, 10);
    bool is_ours = (size_t)format(expected, sizeof(expected), number) == len &&
                   !memcmp(payload, expected, len);
    if (is_ours && number <= m->published)
        tell(m, number, 0);
    return true;
}
