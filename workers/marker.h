/*
 * marker.h - has everything that was published until now come over the subscriber link?
 *
 * The two links know nothing of each other: an answer on the command link may overtake messages
 * that were published before it was made. But each link keeps its order. So a marker is published
 * on the worker's own channel, and when it comes back over the subscriber link, all that was
 * published before it has come, too. All who ask within one turn share one marker; who does not
 * ask costs nothing. https://redis.io/docs/latest/develop/pubsub/
 */
#ifndef BELFRY_WORKERS_MARKER_H
#define BELFRY_WORKERS_MARKER_H

#include <stddef.h>
#include <stdint.h>

#include "workers/context.h"

/* error: 0 (it came back), -EIO (Redis refuses to publish it: it will never come), or whatever
 * else befell the command link: nothing is known. */
typedef void marker_fn(void *data, int error);

/* One who waits; lies within what waits. fn and data are set by its owner, the rest is private. */
struct marker {
    marker_fn *fn;
    void *data;
    struct marker *next, *prev;
    uint64_t number;
};

/* NULL without memory. */
struct markers *markers_new(struct worker *w);
/* Nobody may wait any more. Accepts NULL. */
void markers_free(struct markers *m);
/* fn is called once, in a later turn, unless marker_cancel comes first. A marker that is lost with
 * the subscriber link never comes: session_on_link_lost cancels. */
void marker_want(struct markers *m, struct marker *k);
void marker_cancel(struct markers *m, struct marker *k);
/* End of the turn: publishes what was asked for in it. Called by itself; tests without a loop call
 * it. */
void markers_flush(struct markers *m);
/* From subscriber.c. False: it is no marker. */
bool markers_on_echo(struct markers *m, const char *payload, size_t len);

#endif
