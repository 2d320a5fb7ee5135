/*
 * ctl_history.c - belfryctl history: one user's stored messages, read from Redis as they are.
 */
#include "config.h"

#include "src/ctl_redis.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <string.h>

#include "shared/json.h"
#include "shared/keys.h"
#include "shared/message.h"

#define CELL_BYTES 256

/* Asks for the read mark of each entry, all in one go; answers are taken in the same order. */
static void ask_read_marks(redisContext *redis, const char *key, const redisReply *list)
{
    char id[1024];
    for (size_t i = 0; i < list->elements; i++) {
        struct message m;
        long n = 0;
        if (list->element[i]->type == REDIS_REPLY_STRING &&
            message_read(list->element[i]->str, list->element[i]->len, &m) == JSON_OK && m.has_id)
            n = json_string_decode(m.id, id, sizeof(id));
        const char *argv[] = {"SISMEMBER", key, id};
        size_t lens[] = {9, strlen(key), n > 0 ? (size_t)n : 0};
        redisAppendCommandArgv(redis, 3, argv, lens);
    }
}

/* A JSON string member for a cell of the table: decoded, cut, made safe for a terminal. */
static void cell(struct text_span value, struct text_buf *out)
{
    char text[CELL_BYTES];
    long n = -ENOSPC;
    if (value.len < sizeof(text))
        n = json_string_decode(value, text, sizeof(text));
    text_buf_reset(out);
    if (n >= 0)
        text_add_escaped(out, text, (size_t)n, 60);
    else
        text_add_escaped(out, value.ptr, value.len, 60);
    if (out->len == 0)
        text_adds(out, "-");
}

static void add_row(struct text_buf *b, size_t position, const redisReply *entry, bool is_read)
{
    struct message m;
    struct text_buf at = {0}, type = {0}, id = {0};
    enum json_result r = message_read(entry->str, entry->len, &m);
    if (r != JSON_OK) {
        text_addf(b, "%4zu %-27s %-27s %7zu  %-5s %s\n", position, "-", json_result_text(r),
                  entry->len, "-", "-");
        return;
    }
    cell(m.timestamp, &at);
    cell(m.type, &type);
    cell(m.id, &id);
    text_addf(b, "%4zu %-27s %-27s %7zu  %-5s %s\n", position, at.data ? at.data : "",
              type.data ? type.data : "", entry->len, is_read ? "read" : "new",
              id.data ? id.data : "");
    text_buf_free(&at);
    text_buf_free(&type);
    text_buf_free(&id);
}

static int print_table(redisContext *redis, const struct keys *keys, const char *user,
                       const redisReply *list)
{
    struct text_buf marks = {0}, b = {0};
    int result = CTL_DONE;
    if (list->elements == 0) {
        ctl_say("nothing is stored for %s", user);
        return CTL_DONE;
    }
    keys_expand(&marks, keys->read_marks, user, strlen(user));
    if (marks.failed)
        return CTL_FAILED;
    ask_read_marks(redis, marks.data, list);
    text_buf_free(&marks);
    text_addf(&b, "%4s %-27s %-27s %7s  %-5s %s\n", "#", "TIME", "TYPE", "BYTES", "STATE", "ID");
    for (size_t i = 0; i < list->elements; i++) {
        redisReply *mark = NULL;
        bool ok = redisGetReply(redis, (void **)&mark) == REDIS_OK && mark &&
                  mark->type == REDIS_REPLY_INTEGER;
        if (!ok) {
            ctl_redis_tell(redis, mark, "SISMEMBER");
            result = CTL_FAILED;
        } else if (list->element[i]->type == REDIS_REPLY_STRING) {
            add_row(&b, i, list->element[i], mark->integer != 0);
        }
        freeReplyObject(mark);
        if (!ok)
            break;
    }
    int printed = ctl_print(&b);
    return result == CTL_DONE ? printed : result;
}

static int print_entries(const redisReply *list)
{
    for (size_t i = 0; i < list->elements; i++)
        if (list->element[i]->type == REDIS_REPLY_STRING &&
            ctl_print_line(list->element[i]->str, list->element[i]->len) != 0)
            return CTL_FAILED;
    return CTL_DONE;
}

int ctl_history(struct ctl *c)
{
    const struct options *o = c->options;
    const char *user = c->words.items[0];
    struct text_buf key = {0};
    struct keys keys = {0};
    redisContext *redis = NULL;
    redisReply *list = NULL;
    int64_t limit;
    int result = CTL_FAILED;
    if (ctl_check_user(user) != 0 || ctl_number(c, "limit", 1, 1000000, 100000, &limit) != 0)
        return CTL_USAGE;
    if (keys_init(&keys, o->user_channel, o->broadcast_channel, o->notifications_key,
                  o->snapshot_key) != 0)
        return CTL_FAILED;
    keys_expand(&key, keys.notifications, user, strlen(user));
    if (key.failed || ctl_redis_open(c, &redis) != 0)
        goto out;
    list = ctl_redis_list(redis, key.data, limit);
    if (!list)
        goto out;
    if (ctl_flag(c, "json"))
        result = print_entries(list);
    else
        result = print_table(redis, &keys, user, list);
out:
    if (list)
        freeReplyObject(list);
    if (redis)
        redisFree(redis);
    text_buf_free(&key);
    keys_fini(&keys);
    return result;
}
