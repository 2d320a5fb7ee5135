/*
 * ctl_redis.h - belfryctl's own look into Redis: one user's stored messages and marks, as they are.
 *
 * Blocking hiredis with the configured timeouts. What fails is told (ctl_say) where it fails.
 * https://redis.io/commands/lrange/
 */
#ifndef BELFRY_SRC_CTL_REDIS_H
#define BELFRY_SRC_CTL_REDIS_H

#include <stdint.h>

#include "src/ctl.h"

struct redisContext;
struct redisReply;

/* Connects to redis-url and logs in. 0 and *out (redisFree), or negative errno after telling
 * why. */
int ctl_redis_open(const struct ctl *c, struct redisContext **out);
/* LRANGE from the head: an array (freeReplyObject), or NULL after telling why. */
struct redisReply *ctl_redis_list(struct redisContext *redis, const char *key, int64_t limit);
/* Connects and SETs a key to 1 for so long. 0, or negative errno after telling why. */
int ctl_redis_set(const struct ctl *c, const char *key, size_t key_len, int64_t ttl_ms);
/* Calls fn for each channel that somebody listens on and that fits the pattern, in any order; a
 * name's text ends with NUL. What fails is told. */
void ctl_redis_channels(const struct ctl *c, const char *pattern,
                        void (*fn)(void *data, struct text_span channel), void *data);
/* Redis' own words in an error reply, or hiredis', for people; never a value of ours. -EIO. */
int ctl_redis_tell(const struct redisContext *redis, const struct redisReply *reply,
                   const char *doing);

#endif
