/*
 * subscriber.h - the worker's pub/sub link: ws:broadcast, the probe channel and one channel for
 * each connected user.
 *
 * hiredis' non-blocking context read by a loop of our own: the asynchronous API keeps a callback
 * object for each channel, which would cost more than the user itself. SUBSCRIBE and UNSUBSCRIBE
 * leave in batches at the end of a turn. Reconnects with jittered back-off and subscribes to
 * everything again. https://redis.io/docs/latest/develop/pubsub/
 */
#ifndef BELFRY_WORKERS_SUBSCRIBER_H
#define BELFRY_WORKERS_SUBSCRIBER_H

#include <stdbool.h>

#include "workers/context.h"
#include "workers/hub.h"

/* Channels beside the users': broadcasts, probes, questions, answers, hand-over. */
#define SUBSCRIBER_FIXED_CHANNELS 5

/* Starts connecting. NULL without memory only: Redis away is not an error. */
struct subscriber *subscriber_new(struct worker *w);
void subscriber_free(struct subscriber *s);
/* First device of a user: session_on_subscribed follows when Redis confirmed; again after every
 * reconnect. */
void subscriber_want(struct subscriber *s, struct user *u);
/* Last device left; u may be freed after this returns. */
void subscriber_drop(struct subscriber *s, struct user *u);
bool subscriber_is_up(const struct subscriber *s);
/* The channels that every worker has are confirmed, too. */
bool subscriber_is_listening(const struct subscriber *s);
/* It is listening, or could not be reached. */
bool subscriber_has_tried(const struct subscriber *s);
/* What was put together for a crowd that came or left is not kept. Not while something is sent. */
void subscriber_trim(struct subscriber *s);
/* In a turn that took long: what came meanwhile is handed on now. epoll tells of sockets in the
 * order in which they became ready, and where thousands of clients hang up at once, the link comes
 * behind all of them. */
void subscriber_look(struct subscriber *s);
/* The link does not deliver (canary.c found out): close and connect anew. */
void subscriber_reset(struct subscriber *s, const char *why);
/* Channel on which this worker's markers and probes come back: handed to markers_on_echo, then to
 * canary_on_echo. */
const char *subscriber_probe_channel(const struct subscriber *s);

#endif
