#include "config.h"

#include "workers/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "workers/store_parts.h"

/*
 * What producers store is bounded by nothing, and a transaction has no conditions. But it is given
 * up when a key it watches was written: so a script before it looks how large things are, and where
 * they are too large writes that key. Then a second script reads what may be read. (That script for
 * everything would cost Redis four times as much.)
 */

/* ---- asking ---- */

enum { READ_LIST, READ_SNAPSHOT, READ_MARKS, READ_ACKED, READ_KEYS };

/* KEYS: those of a reading, the guard's. ARGV: bytes, entries of the list that would be read. */
static const char guard_script[] =
    "local function large(...)\n"
    "  local n = redis.pcall(...)\n"
    "  return type(n) == 'number' and n > tonumber(ARGV[1])\n"
    "end\n"
    "if large('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', ARGV[2]) or large('STRLEN', KEYS[2])\n"
    "  or large('MEMORY', 'USAGE', KEYS[3], 'SAMPLES', 100) or large('STRLEN', KEYS[4]) then\n"
    "  redis.pcall('SET', KEYS[5], 1, 'PX', 1000)\n"
    "end\n"
    "return 0\n";

/*
 * KEYS: those of a reading. ARGV: entries, read marks, bytes of all entries, of one. Entries from
 * the head until the bytes are used up; those that are too large are left out, and looked at only
 * while eight times the bytes have not been.
 */
static const char bounded_script[] =
    "local want, bytes, most = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])\n"
    "local list, cut, large, at, seen = {}, 0, 0, 0, 0\n"
    "local budget = bytes * 8\n"
    "local count = redis.pcall('LLEN', KEYS[1])\n"
    "if type(count) ~= 'number' then\n"
    "  list, count = count, 0\n"
    "end\n"
    "local size = redis.pcall('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', want)\n"
    "local step = 1\n"
    "if type(size) == 'number' and count > 0 then\n"
    "  step = math.max(1, math.min(want, math.floor(bytes / 4 / (size / count))))\n"
    "end\n"
    "while at < count and at < want and cut == 0 do\n"
    "  local some = redis.call('LRANGE', KEYS[1], at, math.min(at + step, want) - 1)\n"
    "  for i = 1, #some do\n"
    "    seen = seen + #some[i]\n"
    "    if seen > budget or (#some[i] <= most and #some[i] > bytes) then\n"
    "      cut = 1\n"
    "      break\n"
    "    elseif #some[i] > most then\n"
    "      large = large + 1\n"
    "    else\n"
    "      bytes = bytes - #some[i]\n"
    "      list[#list + 1] = some[i]\n"
    "    end\n"
    "  end\n"
    "  at = at + step\n"
    "end\n"
    "local function text(key)\n"
    "  local len = redis.pcall('STRLEN', key)\n"
    "  if type(len) ~= 'number' then return len end\n"
    "  if len <= most then return redis.call('GET', key) end\n"
    "  large = large + 1\n"
    "  return false\n"
    "end\n"
    "local marks = redis.pcall('MEMORY', 'USAGE', KEYS[3], 'SAMPLES', 100)\n"
    "if type(marks) == 'number' and marks > tonumber(ARGV[3]) then\n"
    "  marks = {}\n"
    "else\n"
    "  marks = redis.pcall('SRANDMEMBER', KEYS[3], ARGV[2])\n"
    "end\n"
    "local snapshot, acked = text(KEYS[2]), text(KEYS[4])\n"
    "return {list, snapshot, marks, acked, cut, large}\n";

/* What a reading is asked for with. */
struct reading {
    struct text_buf keys[READ_KEYS];
    char last[24], want[24], marks_max[24], bytes[24], payload[24];
};

static void put_number(char out[24], int64_t n)
{
    snprintf(out, 24, "%lld", (long long)n);
}

/* False without memory. Free it in either case. */
static bool reading_init(struct reading *r, const struct store *s, const char *user_id)
{
    const struct keys *k = s->w->start->keys;
    const struct options *opt = s->w->opt;
    int64_t history = opt->history_size;
    int64_t marks = history * 8 > STORE_READ_MARKS_MAX ? history * 8 : STORE_READ_MARKS_MAX;
    bool has_failed = false;
    r->keys[READ_LIST] = store_expand(k->notifications, user_id);
    r->keys[READ_SNAPSHOT] = store_expand(k->snapshot, user_id);
    r->keys[READ_MARKS] = store_expand(k->read_marks, user_id);
    r->keys[READ_ACKED] = store_expand(k->acked, user_id);
    for (size_t i = 0; i < READ_KEYS; i++)
        has_failed |= r->keys[i].failed;
    put_number(r->last, history - 1);
    put_number(r->want, history);
    put_number(r->marks_max, marks);
    put_number(r->bytes, opt->max_reading_size);
    put_number(r->payload, opt->max_payload_size);
    return !has_failed;
}

static void reading_free(struct reading *r)
{
    for (size_t i = 0; i < READ_KEYS; i++)
        text_buf_free(&r->keys[i]);
}

/* Where scripts or MEMORY are not allowed, readings go on as they are. */
static void on_guard(redisAsyncContext *ac, void *reply, void *data)
{
    (void)ac;
    const redisReply *r = reply;
    struct store_call *c = data;
    if (!r || r->type != REDIS_REPLY_ERROR)
        return;
    if (!c->store->is_unguarded)
        log_warning("readings-unguarded", "error", r->str);
    c->store->is_unguarded = true;
}

static int send_guard(struct store_call *c, const struct reading *r)
{
    struct store *s = c->store;
    redisAsyncContext *ac = redislink_async(s->link);
    const char *watch[] = {"WATCH", s->guard_key};
    const char *look[] = {"EVAL", guard_script, "5", r->keys[READ_LIST].data,
                          r->keys[READ_SNAPSHOT].data, r->keys[READ_MARKS].data,
                          r->keys[READ_ACKED].data, s->guard_key, r->bytes, r->want};
    if (s->is_unguarded || !s->w->opt->max_reading_size)
        return 0;
    counters_add(CTR_redis_commands, 2);
    return redisAsyncCommandArgv(ac, on_guard, c, 2, watch, NULL) == REDIS_OK &&
                   redisAsyncCommandArgv(ac, on_guard, c, 10, look, NULL) == REDIS_OK
               ? 0
               : -ENOMEM;
}

int store_read_bounded(struct store_call *c)
{
    struct reading r;
    int error = -ENOMEM;
    if (reading_init(&r, c->store, c->user_id)) {
        const char *argv[] = {"EVAL", bounded_script, "4", r.keys[READ_LIST].data,
                              r.keys[READ_SNAPSHOT].data, r.keys[READ_MARKS].data,
                              r.keys[READ_ACKED].data, r.want, r.marks_max, r.bytes, r.payload};
        error = store_send_last(c, 11, argv, NULL);
    }
    reading_free(&r);
    return error;
}

static struct store_call *send_reading(struct store_call *c, const struct reading *r)
{
    const char *multi[] = {"MULTI"};
    const char *range[] = {"LRANGE", r->keys[READ_LIST].data, "0", r->last};
    const char *get[] = {"GET", r->keys[READ_SNAPSHOT].data};
    /* SMEMBERS with a bound: all of a set that is not larger. */
    const char *members[] = {"SRANDMEMBER", r->keys[READ_MARKS].data, r->marks_max};
    const char *get_acked[] = {"GET", r->keys[READ_ACKED].data};
    int error = send_guard(c, r);
    error = error ? error : store_send_part(c, 1, multi, NULL);
    error = error ? error : store_send_part(c, 4, range, NULL);
    error = error ? error : store_send_part(c, 2, get, NULL);
    error = error ? error : store_send_part(c, 3, members, NULL);
    error = error ? error : store_send_part(c, 2, get_acked, NULL);
    return store_sent_exec(c, error);
}

struct store_call *store_read_user(struct store *s, const char *user_id, store_user_fn *fn,
                                   void *data)
{
    struct reading r;
    struct store_call *c = NULL;
    char *copy = strdup(user_id);
    if (reading_init(&r, s, user_id) && copy)
        c = store_call_new(s, KIND_USER, "read user", data);
    if (c) {
        c->fn.user = fn;
        c->user_id = copy;
        copy = NULL;
        c = send_reading(c, &r);
    }
    free(copy);
    reading_free(&r);
    return c;
}

/* ---- what comes back ---- */

/* Strings of an array; anything else in it is left out. NULL and 0 when there are none; false
 * without memory. */
static bool strings_of(const struct store_call *c, const redisReply *r, struct text_span **out,
                       size_t *count)
{
    *out = NULL;
    *count = 0;
    if (r->type == REDIS_REPLY_ERROR)
        store_note_error(c, r);
    if (r->type != REDIS_REPLY_ARRAY || !r->elements)
        return true;
    *out = malloc(r->elements * sizeof(**out));
    if (!*out)
        return false;
    for (size_t i = 0; i < r->elements; i++)
        if (r->element[i]->type == REDIS_REPLY_STRING)
            (*out)[(*count)++] = store_span_of(r->element[i]);
    return true;
}

static struct text_span string_of(const struct store_call *c, const redisReply *r)
{
    if (r->type == REDIS_REPLY_ERROR)
        store_note_error(c, r);
    return r->type == REDIS_REPLY_STRING ? store_span_of(r) : (struct text_span){0};
}

static size_t max_payload(const struct store *s)
{
    int64_t max = s->w->opt->max_payload_size;
    return max > 0 ? (size_t)max : SIZE_MAX;
}

/* Takes out entries that are too large to be relayed. */
static void drop_large(const struct store *s, struct store_user *user)
{
    size_t kept = 0;
    for (size_t i = 0; i < user->entry_count; i++)
        if (user->entries[i].len <= max_payload(s))
            user->entries[kept++] = user->entries[i];
    counters_add(CTR_stored_too_big, user->entry_count - kept);
    user->is_cut |= kept < user->entry_count;
    user->entry_count = kept;
}

/* What the script says of what it left out. */
static void read_bounds(const struct store_call *c, redisReply *const *part,
                        struct store_user *user)
{
    bool is_cut = part[0]->type == REDIS_REPLY_INTEGER && part[0]->integer;
    bool is_number = part[1]->type == REDIS_REPLY_INTEGER && part[1]->integer > 0;
    uint64_t skipped = is_number ? (uint64_t)part[1]->integer : 0;
    counters_add(CTR_readings_cut, is_cut);
    counters_add(CTR_stored_too_big, skipped);
    user->is_cut = is_cut || skipped;
    if (user->is_cut)
        log_warning("stored-too-big", "user", c->user_id, "list", is_cut ? "cut" : "whole",
                    "skipped", LOG_INT(skipped));
}

void store_user_free(struct store_user *user)
{
    free(user->entries);
    free(user->read_ids);
    for (size_t i = 0; i < 4; i++)
        if (user->parts[i])
            freeReplyObject(user->parts[i]);
    *user = (struct store_user){0};
}

void store_read_answer(struct store_call *c, const redisReply *reply)
{
    struct store_user user = {0};
    size_t parts = c->is_bounded ? 6 : 4;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != parts) {
        store_call_fail(c, -EIO);
        return;
    }
    redisReply **part = reply->element;
    if (c->is_bounded)
        read_bounds(c, part + 4, &user);
    for (size_t i = 0; i < 4; i++) { /* hiredis frees what it still has */
        user.parts[i] = part[i];
        part[i] = NULL;
    }
    part = user.parts;
    if (strings_of(c, part[0], &user.entries, &user.entry_count) &&
        strings_of(c, part[2], &user.read_ids, &user.read_count)) {
        user.snapshot = string_of(c, part[1]);
        user.acked = string_of(c, part[3]);
        drop_large(c->store, &user);
        counters_inc(CTR_lists_read);
        c->fn.user(c->data, 0, &user);
    } else
        store_call_fail(c, -ENOMEM);
    store_user_free(&user);
}
