#include "config.h"

#include "workers/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include "shared/log.h"
#include "workers/redislink.h"
#include "workers/session.h"

#define GRACE_MS 50 /* after a late timer: time for replies that wait in the socket */

enum kind { KIND_USER, KIND_DONE, KIND_NUMSUB, KIND_EXEC_FIRST, KIND_TEXT };

/* Under way: in the order sent, which is the order answered. A cancelled call stays until its
 * reply. */
struct store_call {
    struct store *store;
    struct store_call *next, *prev;
    int64_t started_ms;
    enum kind kind;
    const char *name; /* for the log */
    union {
        store_user_fn *user;
        store_done_fn *done;
        store_text_fn *text;
    } fn; /* user NULL: cancelled */
    bool is_cancelled;
    void *data;
    char *user_id;    /* of a reading */
    bool is_bounded;  /* the reading is asked for a second time, by the script that bounds it */
    bool is_out_of_memory; /* Redis is */
    int argc;         /* of a script: kept for EVAL */
    char **argv;
    size_t *argvlen;
};

struct store {
    struct worker *w;
    struct redislink *link;
    struct store_call *first, *last;
    size_t count;
    struct ev_timer timeout; /* of the first call */
    bool is_late;            /* the timeout passed once, and one more look at the socket is due */
    int lost_error;          /* what calls are told that get no reply */
    bool is_unguarded;       /* this Redis does not let us ask how large things are */
    char guard_key[96];
    void (*listener)(void *data); /* NULL: nobody */
    void *listener_data;
};

/* ---- calls under way ---- */

static void call_unlink(struct store_call *c)
{
    struct store *s = c->store;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->first = c->next;
    if (c->next)
        c->next->prev = c->prev;
    else
        s->last = c->prev;
    s->count--;
}

static void call_free(struct store_call *c)
{
    free(c->argv);
    free(c->user_id);
    free(c);
}

static void set_timeout(struct store *s)
{
    struct ev_loop *loop = s->w->loop;
    ev_timer_stop(loop, &s->timeout);
    s->is_late = false;
    if (!s->first)
        return;
    int64_t left = s->first->started_ms + s->w->opt->redis_command_timeout - worker_now_ms(s->w);
    ev_timer_set(&s->timeout, left > 0 ? (double)left / 1000. : 0., 0.);
    ev_timer_start(loop, &s->timeout);
}

static struct store_call *call_new(struct store *s, enum kind kind, const char *name, void *data)
{
    if (!redislink_async(s->link) || s->count >= STORE_MAX_CALLS)
        return NULL;
    struct store_call *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->store = s;
    c->kind = kind;
    c->name = name;
    c->data = data;
    c->started_ms = worker_now_ms(s->w);
    c->prev = s->last;
    if (s->last)
        s->last->next = c;
    else
        s->first = c;
    s->last = c;
    s->count++;
    if (s->first == c)
        set_timeout(s);
    return c;
}

/* A reply came: the oldest call is another one, or none. */
static void call_finish(struct store_call *c)
{
    struct store *s = c->store;
    bool was_first = s->first == c;
    call_unlink(c);
    call_free(c);
    if (was_first)
        set_timeout(s);
}

static void call_fail(struct store_call *c, int error)
{
    if (c->is_cancelled)
        return;
    switch (c->kind) {
    case KIND_USER:
        c->fn.user(c->data, error, NULL);
        break;
    case KIND_TEXT:
        c->fn.text(c->data, error, (struct text_span){0});
        break;
    default:
        c->fn.done(c->data, error, 0);
    }
}

void store_cancel(struct store_call *c)
{
    if (c)
        c->is_cancelled = true;
}

/* ---- replies ---- */

static void note_error(const struct store_call *c, const redisReply *reply)
{
    counters_inc(CTR_redis_errors);
    log_warning("redis-error", "command", c->name, "error", reply->str);
}

/* What a call is told of an error reply. */
static int error_of(const redisReply *reply)
{
    return !strncmp(reply->str, "READONLY", 8) ? -EROFS : -EIO;
}

static struct text_span span_of(const redisReply *r)
{
    return (struct text_span){r->str, r->len};
}

/* Strings of an array; anything else in it is left out. NULL and 0 when there are none; false
 * without memory. */
static bool strings_of(const struct store_call *c, const redisReply *r, struct text_span **out,
                       size_t *count)
{
    *out = NULL;
    *count = 0;
    if (r->type == REDIS_REPLY_ERROR)
        note_error(c, r);
    if (r->type != REDIS_REPLY_ARRAY || !r->elements)
        return true;
    *out = malloc(r->elements * sizeof(**out));
    if (!*out)
        return false;
    for (size_t i = 0; i < r->elements; i++)
        if (r->element[i]->type == REDIS_REPLY_STRING)
            (*out)[(*count)++] = span_of(r->element[i]);
    return true;
}

static struct text_span string_of(const struct store_call *c, const redisReply *r)
{
    if (r->type == REDIS_REPLY_ERROR)
        note_error(c, r);
    return r->type == REDIS_REPLY_STRING ? span_of(r) : (struct text_span){0};
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

static void answer_user(struct store_call *c, const redisReply *reply)
{
    struct store_user user = {0};
    size_t parts = c->is_bounded ? 6 : 4;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != parts) {
        call_fail(c, -EIO);
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
        call_fail(c, -ENOMEM);
    store_user_free(&user);
}

static void answer_number(struct store_call *c, const redisReply *reply)
{
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        note_error(c, reply);
        call_fail(c, error_of(reply));
    } else
        c->fn.done(c->data, 0, reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0);
}

/* Of a transaction the first command's reply counts, unless a later one failed. */
static void answer_exec_first(struct store_call *c, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || !reply->elements) {
        call_fail(c, -EIO);
        return;
    }
    const redisReply *said = reply->element[0];
    for (size_t i = 0; i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_ERROR)
            said = reply->element[i];
    answer_number(c, said);
}

static void answer(struct store_call *c, const redisReply *reply)
{
    if (c->is_cancelled)
        return;
    if (reply->type == REDIS_REPLY_ERROR) {
        note_error(c, reply);
        call_fail(c, error_of(reply));
        return;
    }
    switch (c->kind) {
    case KIND_USER:
        answer_user(c, reply);
        break;
    case KIND_DONE:
        answer_number(c, reply);
        break;
    case KIND_NUMSUB: /* channel, count */
        answer_number(c, reply->elements == 2 ? reply->element[1] : NULL);
        break;
    case KIND_EXEC_FIRST:
        answer_exec_first(c, reply);
        break;
    case KIND_TEXT:
        c->fn.text(c->data, 0, span_of(reply));
        break;
    }
}

static int send_last(struct store_call *c, int argc, const char **argv, const size_t *argvlen);
static int send_bounded(struct store_call *c);

/* Something was sent for it once more: it becomes the last. */
static void call_requeue(struct store_call *c)
{
    struct store *s = c->store;
    call_unlink(c);
    c->next = NULL;
    c->prev = s->last;
    if (s->last)
        s->last->next = c;
    else
        s->first = c;
    s->last = c;
    s->count++;
    c->started_ms = worker_now_ms(s->w);
    set_timeout(s);
}

/* True when the script's text was sent in place of its hash. Calls sent meanwhile are answered in
 * their own order: this one becomes the last. */
static bool retry_script(struct store_call *c, const redisReply *reply)
{
    struct store *s = c->store;
    if (!c->argc || reply->type != REDIS_REPLY_ERROR || !emit_is_noscript(reply->str))
        return false;
    int argc = c->argc;
    c->argc = 0; /* once */
    c->argv[0] = (char *)(uintptr_t)"EVAL";
    c->argvlen[0] = 4;
    c->argv[1] = (char *)(uintptr_t)emit_script;
    c->argvlen[1] = strlen(emit_script);
    if (!redislink_async(s->link) || send_last(c, argc, (const char **)c->argv, c->argvlen) < 0)
        return false;
    call_requeue(c);
    return true;
}

/* True when what is stored for the user is too much to be read as it is, or Redis has no memory
 * left for transactions, and the script was sent that reads a part and does without. */
static bool retry_bounded(struct store_call *c, const redisReply *reply)
{
    if (c->kind != KIND_USER || c->is_bounded || c->is_cancelled ||
        (reply->type != REDIS_REPLY_NIL && !c->is_out_of_memory))
        return false;
    c->is_bounded = true;
    if (!redislink_async(c->store->link) || send_bounded(c) < 0)
        return false;
    call_requeue(c);
    return true;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *data)
{
    (void)ac;
    struct store_call *c = data;
    counters_doing(DOING_REPLY, 0); /* until the next event, or the end of the turn */
    if (!reply) {
        call_fail(c, c->store->lost_error);
        call_finish(c);
        return;
    }
    c->store->is_late = false;
    if (retry_script(c, reply) || retry_bounded(c, reply))
        return;
    answer(c, reply);
    call_finish(c);
}

/* Replies before EXEC's: OK, QUEUED. An error among them says more than EXEC's own. */
static void on_part(redisAsyncContext *ac, void *reply, void *data)
{
    (void)ac;
    const redisReply *r = reply;
    struct store_call *c = data;
    if (!r || r->type != REDIS_REPLY_ERROR)
        return;
    if (c->kind == KIND_USER && !strncmp(r->str, "OOM ", 4))
        c->is_out_of_memory = true; /* within MULTI it refuses also what only reads */
    else
        note_error(c, r);
}

/* ---- sending ---- */

static int send_part(struct store_call *c, int argc, const char **argv, const size_t *argvlen)
{
    redisAsyncContext *ac = redislink_async(c->store->link);
    counters_inc(CTR_redis_commands);
    return redisAsyncCommandArgv(ac, on_part, c, argc, argv, argvlen) == REDIS_OK ? 0 : -ENOMEM;
}

static int send_last(struct store_call *c, int argc, const char **argv, const size_t *argvlen)
{
    redisAsyncContext *ac = redislink_async(c->store->link);
    counters_inc(CTR_redis_commands);
    return redisAsyncCommandArgv(ac, on_reply, c, argc, argv, argvlen) == REDIS_OK ? 0 : -ENOMEM;
}

/* The call, or NULL when it could not be sent. */
static struct store_call *sent(struct store_call *c, int error)
{
    if (!error)
        return c;
    call_finish(c);
    return NULL;
}

/* A transaction is sent whole or not at all: half of one would swallow what follows. */
static struct store_call *sent_exec(struct store_call *c, int error)
{
    const char *exec[] = {"EXEC"};
    struct redislink *link = c->store->link;
    if (!error)
        error = send_last(c, 1, exec, NULL);
    if (!error)
        return c;
    /* on_part holds c: it must not be freed before the connection is. */
    c->is_cancelled = true;
    redislink_reset(link, "no memory for a command");
    call_finish(c);
    return NULL;
}

static struct text_buf expand(const char *template_text, const char *user_id)
{
    struct text_buf b = {0};
    keys_expand(&b, template_text, user_id, strlen(user_id));
    return b;
}

/*
 * ---- reading ----
 *
 * What producers store is bounded by nothing, and a transaction has no conditions. But it is given
 * up when a key it watches was written: so a script before it looks how large things are, and where
 * they are too large writes that key. Then a second script reads what may be read. (That script for
 * everything would cost Redis four times as much.)
 */

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
    r->keys[READ_LIST] = expand(k->notifications, user_id);
    r->keys[READ_SNAPSHOT] = expand(k->snapshot, user_id);
    r->keys[READ_MARKS] = expand(k->read_marks, user_id);
    r->keys[READ_ACKED] = expand(k->acked, user_id);
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

static int send_bounded(struct store_call *c)
{
    struct reading r;
    int error = -ENOMEM;
    if (reading_init(&r, c->store, c->user_id)) {
        const char *argv[] = {"EVAL", bounded_script, "4", r.keys[READ_LIST].data,
                              r.keys[READ_SNAPSHOT].data, r.keys[READ_MARKS].data,
                              r.keys[READ_ACKED].data, r.want, r.marks_max, r.bytes, r.payload};
        error = send_last(c, 11, argv, NULL);
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
    error = error ? error : send_part(c, 1, multi, NULL);
    error = error ? error : send_part(c, 4, range, NULL);
    error = error ? error : send_part(c, 2, get, NULL);
    error = error ? error : send_part(c, 3, members, NULL);
    error = error ? error : send_part(c, 2, get_acked, NULL);
    return sent_exec(c, error);
}

struct store_call *store_read_user(struct store *s, const char *user_id, store_user_fn *fn,
                                   void *data)
{
    struct reading r;
    struct store_call *c = NULL;
    char *copy = strdup(user_id);
    if (reading_init(&r, s, user_id) && copy)
        c = call_new(s, KIND_USER, "read user", data);
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

/* ---- writing ---- */

typedef int send_fn(struct store_call *c, int argc, const char **argv, const size_t *argvlen);

/* COMMAND word... */
static int send_words(struct store_call *c, send_fn *send, const char *command,
                      struct text_span first, const struct text_span *rest, size_t count)
{
    const char **argv = malloc((count + 2) * sizeof(*argv));
    size_t *argvlen = malloc((count + 2) * sizeof(*argvlen));
    int error = -ENOMEM;
    if (argv && argvlen) {
        argv[0] = command;
        argvlen[0] = strlen(command);
        argv[1] = first.ptr;
        argvlen[1] = first.len;
        for (size_t i = 0; i < count; i++) {
            argv[i + 2] = rest[i].ptr;
            argvlen[i + 2] = rest[i].len;
        }
        error = send(c, (int)count + 2, argv, argvlen);
    }
    free(argv);
    free(argvlen);
    return error;
}

/* COMMAND key id... as one part of a transaction. */
static int send_ids(struct store_call *c, const char *command, const char *key,
                    const struct text_span *ids, size_t count)
{
    return send_words(c, send_part, command, text_span_of(key), ids, count);
}

struct store_call *store_exists(struct store *s, const struct text_span *keys, size_t count,
                                store_done_fn *fn, void *data)
{
    struct store_call *c = count ? call_new(s, KIND_DONE, "EXISTS", data) : NULL;
    if (!c)
        return NULL;
    c->fn.done = fn;
    return sent(c, send_words(c, send_last, "EXISTS", keys[0], keys + 1, count - 1));
}

struct store_call *store_hget(struct store *s, const char *key, struct text_span field,
                              store_text_fn *fn, void *data)
{
    struct store_call *c = call_new(s, KIND_TEXT, "HGET", data);
    if (!c)
        return NULL;
    c->fn.text = fn;
    return sent(c, send_words(c, send_last, "HGET", text_span_of(key), &field, 1));
}

struct store_call *store_mark_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count,
                                   struct text_span publish, store_done_fn *fn, void *data)
{
    const struct keys *k = s->w->start->keys;
    struct text_buf marks = expand(k->read_marks, user_id);
    struct text_buf channel = expand(k->user_channel, user_id);
    struct store_call *c = NULL;
    if (count && !marks.failed && !channel.failed)
        c = call_new(s, KIND_EXEC_FIRST, "mark read", data);
    if (c) {
        char ttl[24];
        snprintf(ttl, sizeof(ttl), "%lld", (long long)s->w->opt->history_ttl);
        const char *multi[] = {"MULTI"};
        const char *expire[] = {"PEXPIRE", marks.data, ttl};
        const char *tell[] = {"PUBLISH", channel.data, publish.ptr};
        const size_t tell_len[] = {7, channel.len, publish.len};
        c->fn.done = fn;
        int error = send_part(c, 1, multi, NULL);
        error = error ? error : send_ids(c, "SADD", marks.data, ids, count);
        error = error ? error : send_part(c, 3, expire, NULL);
        error = error ? error : send_part(c, 3, tell, tell_len);
        c = sent_exec(c, error);
    }
    text_buf_free(&marks);
    text_buf_free(&channel);
    return c;
}

struct store_call *store_trim_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count, store_done_fn *fn,
                                   void *data)
{
    struct text_buf marks = expand(s->w->start->keys->read_marks, user_id);
    struct store_call *c = NULL;
    if (count && !marks.failed)
        c = call_new(s, KIND_EXEC_FIRST, "trim read marks", data);
    if (c) {
        const char *multi[] = {"MULTI"};
        c->fn.done = fn;
        int error = send_part(c, 1, multi, NULL);
        error = error ? error : send_ids(c, "SREM", marks.data, ids, count);
        c = sent_exec(c, error);
    }
    text_buf_free(&marks);
    return c;
}

/* Keeps the arguments: after NOSCRIPT they are sent once more. One block: pointers, lengths,
 * bytes. */
static int keep_script(struct store_call *c, const struct emit_command *e)
{
    size_t bytes = 0, n = (size_t)e->argc;
    for (size_t i = 2; i < n; i++)
        bytes += e->argvlen[i];
    char *block = malloc(n * (sizeof(char *) + sizeof(size_t)) + bytes);
    if (!block)
        return -ENOMEM;
    c->argv = (char **)(void *)block;
    c->argvlen = (size_t *)(void *)(block + n * sizeof(char *));
    char *to = (char *)(c->argvlen + n);
    for (size_t i = 2; i < n; i++) {
        memcpy(to, e->argv[i], e->argvlen[i]);
        c->argv[i] = to;
        c->argvlen[i] = e->argvlen[i];
        to += e->argvlen[i];
    }
    c->argc = e->argc;
    return 0;
}

struct store_call *store_emit(struct store *s, const struct emit_command *e, store_done_fn *fn,
                              void *data)
{
    struct store_call *c = call_new(s, KIND_DONE, "emit", data);
    if (!c)
        return NULL;
    c->fn.done = fn;
    int error = e->argc > 2 && !strcmp(e->argv[0], "EVALSHA") ? keep_script(c, e) : 0;
    if (!error)
        error = send_last(c, e->argc, (const char **)(uintptr_t)e->argv, e->argvlen);
    return sent(c, error);
}

struct store_call *store_numsub(struct store *s, const char *user_id, store_done_fn *fn, void *data)
{
    struct text_buf channel = expand(s->w->start->keys->user_channel, user_id);
    struct store_call *c = channel.failed ? NULL : call_new(s, KIND_NUMSUB, "PUBSUB NUMSUB", data);
    if (c) {
        const char *argv[] = {"PUBSUB", "NUMSUB", channel.data};
        c->fn.done = fn;
        c = sent(c, send_last(c, 3, argv, NULL));
    }
    text_buf_free(&channel);
    return c;
}

struct store_call *store_set_acked(struct store *s, const char *user_id, struct text_span id,
                                   store_done_fn *fn, void *data)
{
    struct text_buf key = expand(s->w->start->keys->acked, user_id);
    struct store_call *c = key.failed ? NULL : call_new(s, KIND_DONE, "set acked", data);
    if (c) {
        char ttl[24];
        int ttl_len = snprintf(ttl, sizeof(ttl), "%lld", (long long)s->w->opt->history_ttl);
        const char *argv[] = {"SET", key.data, id.ptr, "PX", ttl};
        const size_t argvlen[] = {3, key.len, id.len, 2, (size_t)ttl_len};
        c->fn.done = fn;
        c = sent(c, send_last(c, 5, argv, argvlen));
    }
    text_buf_free(&key);
    return c;
}

struct store_call *store_info(struct store *s, store_text_fn *fn, void *data)
{
    const char *argv[] = {"INFO"};
    struct store_call *c = call_new(s, KIND_TEXT, "INFO", data);
    if (!c)
        return NULL;
    c->fn.text = fn;
    return sent(c, send_last(c, 1, argv, NULL));
}

struct store_call *store_publish(struct store *s, const char *channel, struct text_span text,
                                 store_done_fn *fn, void *data)
{
    const char *argv[] = {"PUBLISH", channel, text.ptr};
    const size_t argvlen[] = {7, strlen(channel), text.len};
    struct store_call *c = call_new(s, KIND_DONE, "PUBLISH", data);
    if (!c)
        return NULL;
    c->fn.done = fn;
    return sent(c, send_last(c, 3, argv, argvlen));
}

struct store_call *store_probe(struct store *s, const char *channel, struct text_span text,
                               int64_t ttl_ms, store_done_fn *fn, void *data)
{
    static const char script[] = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
                                 "return redis.call('PUBLISH', KEYS[1], ARGV[1])\n";
    char ttl[24];
    int ttl_len = snprintf(ttl, sizeof(ttl), "%lld", (long long)ttl_ms);
    const char *argv[] = {"EVAL", script, "1", channel, text.ptr, ttl};
    const size_t argvlen[] = {4, sizeof(script) - 1, 1, strlen(channel), text.len, (size_t)ttl_len};
    struct store_call *c = call_new(s, KIND_DONE, "probe", data);
    if (!c)
        return NULL;
    c->fn.done = fn;
    return sent(c, send_last(c, 6, argv, argvlen));
}

void store_reset(struct store *s, const char *why)
{
    redislink_reset(s->link, why);
}

/* ---- the link ---- */

static void on_up(void *data)
{
    struct store *s = data;
    s->lost_error = -ECONNRESET;
    s->is_unguarded = false;
    if (s->listener)
        s->listener(s->listener_data);
    session_on_store_up(s->w);
}

static void on_down(void *data)
{
    struct store *s = data;
    ev_timer_stop(s->w->loop, &s->timeout);
}

/* A worker that was stopped or busy finds its timer due before it looked at the socket: so the link
 * is given up only when the socket had nothing either. */
static void on_timeout(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)events;
    struct store *s = t->data;
    if (!s->is_late) {
        s->is_late = true;
        ev_timer_set(t, GRACE_MS / 1000., 0.);
        ev_timer_start(loop, t);
        return;
    }
    counters_inc(CTR_redis_timeouts);
    s->lost_error = -ETIMEDOUT;
    redislink_reset(s->link, "a command was not answered in time");
}

static const struct redislink_owner owner = {
    .name = "command",
    .up = CTR_redis_command_up,
    .on_up = on_up,
    .on_down = on_down,
};

struct store *store_new(struct worker *w)
{
    struct store *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->w = w;
    s->lost_error = -ECONNRESET;
    snprintf(s->guard_key, sizeof(s->guard_key), "belfry:guard:%.48s:%u", w->start->instance_id,
             w->start->slot);
    ev_timer_init(&s->timeout, on_timeout, 0., 0.);
    s->timeout.data = s;
    s->link = redislink_new(w, &owner, s);
    if (!s->link) {
        free(s);
        return NULL;
    }
    return s;
}

void store_listen(struct store *s, void (*on_up_again)(void *data), void *data)
{
    s->listener = on_up_again;
    s->listener_data = data;
}

void store_free(struct store *s)
{
    if (!s)
        return;
    s->lost_error = -ECANCELED;
    redislink_free(s->link);
    ev_timer_stop(s->w->loop, &s->timeout);
    free(s);
}

bool store_is_up(const struct store *s)
{
    return redislink_is_up(s->link);
}

bool store_has_tried(const struct store *s)
{
    return redislink_has_tried(s->link);
}
