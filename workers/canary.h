/*
 * canary.h - is a message published to Redis delivered to this worker? Asked every
 * redis-probe-interval through pub/sub itself.
 *
 * PING answers even on a demoted primary that delivers nothing; only a message that went all the
 * way proves the link. No echo within one interval: the subscriber link is made anew. Feeds
 * redis_delivery_probe_us and redis_delivery_probe_at_ms, from which /ws/health judges.
 */
#ifndef BELFRY_WORKERS_CANARY_H
#define BELFRY_WORKERS_CANARY_H

#include <stddef.h>

#include "workers/context.h"

struct canary *canary_new(struct worker *w);
void canary_free(struct canary *c);
/* From subscriber.c: the channel is confirmed: probe at once. */
void canary_on_subscribed(struct canary *c);
void canary_on_echo(struct canary *c, const char *payload, size_t len);

#endif
