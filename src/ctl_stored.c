#include "config.h"

#include "src/ctl_stored.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "shared/keys.h"
#include "src/ctl_redis.h"

#define LIST_MAX 100000

/* The acked id in a reply to be freed; NULL: none, or Redis told an error. */
static redisReply *read_acked(redisContext *redis, const char *key)
{
    const char *argv[] = {"GET", key};
    redisReply *r = redisCommandArgv(redis, 2, argv, NULL);
    if (r && r->type == REDIS_REPLY_STRING && r->len)
        return r;
    freeReplyObject(r);
    return NULL;
}

static void look_through(const redisReply *list, struct stored *out)
{
    for (size_t i = 0; i < list->elements; i++) {
        const redisReply *entry = list->element[i];
        bool is_text = entry->type == REDIS_REPLY_STRING;
        stored_look(out, (struct text_span){is_text ? entry->str : "", is_text ? entry->len : 0});
    }
    stored_end(out);
}

static bool is_marked(redisContext *redis, const char *key, const char *id)
{
    const char *argv[] = {"SISMEMBER", key, id};
    redisReply *r = redisCommandArgv(redis, 3, argv, NULL);
    bool is_member = r && r->type == REDIS_REPLY_INTEGER && r->integer;
    freeReplyObject(r);
    return is_member;
}

static int read_all(redisContext *redis, const struct keys *keys, const char *user, const char *id,
                    struct stored *out)
{
    struct text_buf list_key = {0}, marks_key = {0}, acked_key = {0};
    redisReply *list = NULL;
    keys_expand(&list_key, keys->notifications, user, strlen(user));
    keys_expand(&marks_key, keys->read_marks, user, strlen(user));
    keys_expand(&acked_key, keys->acked, user, strlen(user));
    if (!list_key.failed && !marks_key.failed && !acked_key.failed)
        list = ctl_redis_list(redis, list_key.data, LIST_MAX);
    if (list) {
        redisReply *acked = read_acked(redis, acked_key.data);
        stored_begin(out, text_span_of(id),
                     acked ? (struct text_span){acked->str, acked->len} : text_span_of(""));
        freeReplyObject(acked);
        look_through(list, out);
        out->is_read = is_marked(redis, marks_key.data, id);
        freeReplyObject(list);
    }
    text_buf_free(&list_key);
    text_buf_free(&marks_key);
    text_buf_free(&acked_key);
    return list ? 0 : -1;
}

int ctl_stored_read(const struct ctl *c, const char *user, const char *id, struct stored *out)
{
    const struct options *o = c->options;
    struct keys keys = {0};
    redisContext *redis = NULL;
    int result = -1;
    if (keys_init(&keys, o->user_channel, o->broadcast_channel, o->notifications_key,
                  o->snapshot_key) != 0)
        return -1;
    if (ctl_redis_open(c, &redis) == 0) {
        result = read_all(redis, &keys, user, id, out);
        redisFree(redis);
    }
    keys_fini(&keys);
    return result;
}
