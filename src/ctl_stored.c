#include "config.h"

#include "src/ctl_stored.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "shared/json.h"
#include "shared/keys.h"
#include "shared/message.h"
#include "src/ctl_redis.h"

#define LIST_MAX 100000

static void copy_string(struct text_span value, char *out, size_t cap)
{
    long n = json_string_decode(value, out, cap - 1);
    out[n > 0 ? n : 0] = '\0';
}

/* The newest entry with the id, and what is around it. */
static void look_through(const redisReply *list, uint64_t id_hash, uint64_t acked_hash,
                         struct ctl_stored *out)
{
    out->count = (long)list->elements;
    for (size_t i = 0; i < list->elements; i++) {
        const redisReply *entry = list->element[i];
        struct message m;
        if (entry->type != REDIS_REPLY_STRING ||
            message_read(entry->str, entry->len, &m) != JSON_OK)
            continue;
        if (m.timestamp_us && (!out->oldest_us || m.timestamp_us < out->oldest_us))
            out->oldest_us = m.timestamp_us;
        if (acked_hash && m.id_hash == acked_hash && out->acked_position < 0)
            out->acked_position = (long)i;
        if (m.id_hash != id_hash || !m.has_id)
            continue;
        out->copies++;
        if (out->position >= 0)
            continue;
        out->position = (long)i;
        out->bytes = entry->len;
        out->timestamp_us = m.timestamp_us;
        copy_string(m.type, out->type, sizeof(out->type));
        copy_string(m.timestamp, out->timestamp, sizeof(out->timestamp));
    }
}

/* Hash of the acked id, 0: none, or Redis told an error. */
static uint64_t read_acked(redisContext *redis, const char *key)
{
    const char *argv[] = {"GET", key};
    redisReply *r = redisCommandArgv(redis, 2, argv, NULL);
    uint64_t hash = 0;
    if (r && r->type == REDIS_REPLY_STRING && r->len)
        hash = message_id_hash(r->str, r->len);
    freeReplyObject(r);
    return hash;
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
                    struct ctl_stored *out)
{
    struct text_buf list_key = {0}, marks_key = {0}, acked_key = {0};
    redisReply *list = NULL;
    keys_expand(&list_key, keys->notifications, user, strlen(user));
    keys_expand(&marks_key, keys->read_marks, user, strlen(user));
    keys_expand(&acked_key, keys->acked, user, strlen(user));
    if (!list_key.failed && !marks_key.failed && !acked_key.failed)
        list = ctl_redis_list(redis, list_key.data, LIST_MAX);
    if (list) {
        uint64_t id_hash = message_id_hash(id, strlen(id));
        uint64_t acked_hash = read_acked(redis, acked_key.data);
        look_through(list, id_hash, acked_hash, out);
        out->is_acked = acked_hash == id_hash ||
                        (out->position >= 0 && out->acked_position >= 0 &&
                         out->position >= out->acked_position);
        out->is_read = is_marked(redis, marks_key.data, id);
        freeReplyObject(list);
    }
    text_buf_free(&list_key);
    text_buf_free(&marks_key);
    text_buf_free(&acked_key);
    return list ? 0 : -1;
}

int ctl_stored_read(const struct ctl *c, const char *user, const char *id, struct ctl_stored *out)
{
    const struct options *o = c->options;
    struct keys keys = {0};
    redisContext *redis = NULL;
    int result = -1;
    *out = (struct ctl_stored){.position = -1, .acked_position = -1};
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
