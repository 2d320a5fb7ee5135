/*
 * canary.h - is a message published to Redis delivered to this worker? Asked every
 * redis-probe-interval through pub/sub itself.
 *
 * PING and PUBLISH answer even on a demoted primary that delivers nothing; only a message that went
 * all the way, together with a write, proves the links. No echo within one interval (three, while
 * other messages come): the subscriber link is made anew; a read-only answer: both are. Feeds
 * redis_delivery_probe_us and redis_delivery_probe_at_ms, from which /ws/health judges.
 */
#ifndef BELFRY_WORKERS_CANARY_H
#define BELFRY_WORKERS_CANARY_H

#include <stddef.h>

#include "workers/context.h"

/* NULL without memory. */
struct canary *canary_new(struct worker *w);
void canary_free(struct canary *c); /* accepts NULL */
/* From subscriber.c: the channel is confirmed: probe at once. */
void canary_on_subscribed(struct canary *c);
void canary_on_echo(struct canary *c, const char *payload, size_t len);

#endif
