#include "config.h"

#include <stdlib.h>
#include <unistd.h>

#include "shared/log.h"
#include "workers/conn.h"
#include "workers/handover_parts.h"

struct handover *handover_new(struct worker *w)
{
    struct handover *h = calloc(1, sizeof(*h));
    if (h)
        h->w = w;
    return h;
}

void handover_free(struct handover *h)
{
    if (!h)
        return;
    giver_free(h->giver);
    taker_free(h->taker);
    free(h);
}

void handover_take(struct handover *h, int fd)
{
    if (!h->taker)
        h->taker = taker_new(h->w);
    if (h->taker)
        taker_add(h->taker, fd);
    else
        close(fd);
}

void handover_give(struct handover *h, const int *fds, size_t count)
{
    if (!h->giver && count) {
        h->giver = giver_new(h->w, fds, count);
        if (!h->giver)
            log_error("no-memory", "for", "hand-over");
        return;
    }
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

void handover_give_up(struct handover *h)
{
    if (h->giver)
        giver_stop(h->giver);
}

bool handover_wants(const struct handover *h, const struct conn *c)
{
    return h->giver && giver_is_active(h->giver) && conn_is_plain_websocket(c);
}

bool handover_is_flushed(const struct handover *h)
{
    return (!h->giver || giver_is_flushed(h->giver)) &&
           (!h->taker || !taker_has_givers(h->taker));
}

void handover_on_listening(struct handover *h)
{
    if (h->taker)
        taker_on_listening(h->taker);
}

void handover_on_marker(struct handover *h, const char *text, size_t len)
{
    if (h->giver)
        giver_on_marker(h->giver, (struct text_span){text, len});
    if (h->taker)
        taker_on_marker(h->taker, (struct text_span){text, len});
}

void handover_on_link_lost(struct handover *h)
{
    if (h->giver)
        giver_on_link_lost(h->giver);
    if (h->taker)
        taker_on_link_lost(h->taker);
}
