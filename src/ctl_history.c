/*
 * ctl_history.c - belfryctl history: one user's stored messages, read from Redis as they are.
 *
 * Blocking hiredis with the configured timeouts. https://redis.io/commands/lrange/
 */
#include "config.h"

#include "src/ctl.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <string.h>

#include "shared/json.h"
#include "shared/keys.h"
#include "shared/message.h"
#include "shared/redisurl.h"

#define CELL_BYTES 256

static struct timeval timeval_of_ms(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* Redis' own words in an error reply, or hiredis', for people; never a value of ours. */
static int tell_redis(const redisContext *redis, const redisReply *reply, const char *doing)
{
    if (reply && reply->type == REDIS_REPLY_ERROR)
        ctl_say("Redis: %s: %.*s", doing, (int)reply->len, reply->str);
    else
        ctl_say("Redis: %s: %s", doing, redis && redis->err ? redis->errstr : "unexpected answer");
    return -EIO;
}

static int simple(redisContext *redis, const char *doing, int argc, const char **argv)
{
    redisReply *reply = redisCommandArgv(redis, argc, argv, NULL);
    int result = 0;
    if (!reply || reply->type != REDIS_REPLY_STATUS)
        result = tell_redis(redis, reply, doing);
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

static int open_redis(const struct ctl *c, redisContext **out)
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
        ctl_say("redis-url: %s", result != 0 ? reason : "history does not speak rediss://");
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

/* LRANGE of the list. */
static redisReply *read_list(redisContext *redis, const char *key, int64_t limit)
{
    char last[24];
    snprintf(last, sizeof(last), "%lld", (long long)limit - 1);
    const char *argv[] = {"LRANGE", key, "0", last};
    redisReply *list = redisCommandArgv(redis, 4, argv, NULL);
    if (list && list->type == REDIS_REPLY_ARRAY)
        return list;
    tell_redis(redis, list, "LRANGE");
    freeReplyObject(list);
    return NULL;
}

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
            tell_redis(redis, mark, "SISMEMBER");
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
    if (key.failed || open_redis(c, &redis) != 0)
        goto out;
    list = read_list(redis, key.data, limit);
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
