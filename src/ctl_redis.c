#include "config.h"

#include "src/ctl_redis.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "shared/redisurl.h"

static struct timeval timeval_of_ms(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

static const char *why_not(const redisContext *redis)
{
    if (!redis || !redis->err)
        return "unexpected answer";
    /* hiredis says what the kernel calls a time that is over: Resource temporarily unavailable. */
    return redis->err == REDIS_ERR_IO && errno == EAGAIN ? "no answer in time" : redis->errstr;
}

int ctl_redis_tell(const redisContext *redis, const redisReply *reply, const char *doing)
{
    if (reply && reply->type == REDIS_REPLY_ERROR)
        ctl_say("Redis: %s: %.*s", doing, (int)reply->len, reply->str);
    else
        ctl_say("Redis: %s: %s", doing, why_not(redis));
    return -EIO;
}

static int simple(redisContext *redis, const char *doing, int argc, const char **argv)
{
    redisReply *reply = redisCommandArgv(redis, argc, argv, NULL);
    int result = 0;
    if (!reply || reply->type != REDIS_REPLY_STATUS)
        result = ctl_redis_tell(redis, reply, doing);
    freeReplyObject(reply);
    return result;
}

static int log_in(redisContext *redis, const struct redisurl *u)
{
    char db[16];
    if (u->password[0]) {
        const char *with_user[] = {"AUTH", u->user, u->password};
        const char *without[] = {"AUTH", u->password};
        int result = u->user[0] ? simple(redis, "AUTH", 3, with_user)
                                : simple(redis, "AUTH", 2, without);
        if (result != 0)
            return result;
    }
    if (u->db == 0)
        return 0;
    snprintf(db, sizeof(db), "%d", u->db);
    return simple(redis, "SELECT", 2, (const char *[]){"SELECT", db});
}

int ctl_redis_open(const struct ctl *c, redisContext **out)
{
    struct text_buf url = {0};
    struct redisurl u;
    const char *reason = "";
    char where[300];
    if (ctl_redis_url(c, &url) != 0)
        return -EINVAL;
    int result = redisurl_parse(url.data, &u, &reason);
    text_buf_free(&url);
    if (result != 0 || u.is_tls) {
        ctl_say("redis-url: %s",
                result != 0 ? reason : "belfryctl reads lists over redis:// and unix:// only");
        return -EINVAL;
    }
    redisurl_describe(&u, where, sizeof(where));
    struct timeval connecting = timeval_of_ms(c->options->redis_connect_timeout);
    redisContext *redis = u.is_unix ? redisConnectUnixWithTimeout(u.host, connecting)
                                    : redisConnectWithTimeout(u.host, u.port, connecting);
    if (!redis || redis->err) {
        ctl_say("%s: %s", where, redis ? redis->errstr : "out of memory");
        if (redis)
            redisFree(redis);
        return -ECONNREFUSED;
    }
    redisSetTimeout(redis, timeval_of_ms(c->options->redis_command_timeout));
    result = log_in(redis, &u);
    if (result != 0) {
        redisFree(redis);
        return result;
    }
    *out = redis;
    return 0;
}

redisReply *ctl_redis_list(redisContext *redis, const char *key, int64_t limit)
{
    char last[24];
    snprintf(last, sizeof(last), "%lld", (long long)limit - 1);
    const char *argv[] = {"LRANGE", key, "0", last};
    redisReply *list = redisCommandArgv(redis, 4, argv, NULL);
    if (list && list->type == REDIS_REPLY_ARRAY)
        return list;
    ctl_redis_tell(redis, list, "LRANGE");
    freeReplyObject(list);
    return NULL;
}

int ctl_redis_set(const struct ctl *c, const char *key, size_t key_len, int64_t ttl_ms)
{
    redisContext *redis = NULL;
    char ttl[24];
    int ttl_len = snprintf(ttl, sizeof(ttl), "%lld", (long long)ttl_ms);
    const char *argv[] = {"SET", key, "1", "PX", ttl};
    const size_t argvlen[] = {3, key_len, 1, 2, (size_t)ttl_len};
    int result = ctl_redis_open(c, &redis);
    if (result != 0)
        return result;
    redisReply *reply = redisCommandArgv(redis, 5, argv, argvlen);
    if (!reply || reply->type != REDIS_REPLY_STATUS)
        result = ctl_redis_tell(redis, reply, "SET");
    freeReplyObject(reply);
    redisFree(redis);
    return result;
}

void ctl_redis_channels(const struct ctl *c, const char *pattern,
                        void (*fn)(void *data, struct text_span channel), void *data)
{
    redisContext *redis = NULL;
    const char *argv[] = {"PUBSUB", "CHANNELS", pattern};
    if (ctl_redis_open(c, &redis) != 0)
        return;
    redisReply *reply = redisCommandArgv(redis, 3, argv, NULL);
    if (!reply || reply->type != REDIS_REPLY_ARRAY)
        ctl_redis_tell(redis, reply, "PUBSUB");
    for (size_t i = 0; reply && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_STRING)
            fn(data, (struct text_span){reply->element[i]->str, (size_t)reply->element[i]->len});
    freeReplyObject(reply);
    redisFree(redis);
}
