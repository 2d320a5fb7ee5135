#include "config.h"

#include "workers/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "workers/session.h"
#include "workers/store_parts.h"

#define GRACE_MS 50 /* after a late timer: time for replies that wait in the socket */

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

struct store_call *store_call_new(struct store *s, enum kind kind, const char *name, void *data)
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

void store_call_fail(struct store_call *c, int error)
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

void store_note_error(const struct store_call *c, const redisReply *reply)
{
    counters_inc(CTR_redis_errors);
    log_warning("redis-error", "command", c->name, "error", reply->str);
}

/* What a call is told of an error reply. */
static int error_of(const redisReply *reply)
{
    return !strncmp(reply->str, "READONLY", 8) ? -EROFS : -EIO;
}

static void answer_number(struct store_call *c, const redisReply *reply)
{
    if (reply && reply->type == REDIS_REPLY_ERROR) {
        store_note_error(c, reply);
        store_call_fail(c, error_of(reply));
    } else
        c->fn.done(c->data, 0, reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0);
}

/* Of a transaction the first command's reply counts, unless a later one failed. */
static void answer_exec_first(struct store_call *c, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || !reply->elements) {
        store_call_fail(c, -EIO);
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
        store_note_error(c, reply);
        store_call_fail(c, error_of(reply));
        return;
    }
    switch (c->kind) {
    case KIND_USER:
        store_read_answer(c, reply);
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
        c->fn.text(c->data, 0, store_span_of(reply));
        break;
    }
}

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
    if (!redislink_async(s->link) ||
        store_send_last(c, argc, (const char **)c->argv, c->argvlen) < 0)
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
    if (!redislink_async(c->store->link) || store_read_bounded(c) < 0)
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
        store_call_fail(c, c->store->lost_error);
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
        store_note_error(c, r);
}

/* ---- sending ---- */

int store_send_part(struct store_call *c, int argc, const char **argv, const size_t *argvlen)
{
    redisAsyncContext *ac = redislink_async(c->store->link);
    counters_inc(CTR_redis_commands);
    return redisAsyncCommandArgv(ac, on_part, c, argc, argv, argvlen) == REDIS_OK ? 0 : -ENOMEM;
}

int store_send_last(struct store_call *c, int argc, const char **argv, const size_t *argvlen)
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
struct store_call *store_sent_exec(struct store_call *c, int error)
{
    const char *exec[] = {"EXEC"};
    struct redislink *link = c->store->link;
    if (!error)
        error = store_send_last(c, 1, exec, NULL);
    if (!error)
        return c;
    /* on_part holds c: it must not be freed before the connection is. */
    c->is_cancelled = true;
    redislink_reset(link, "no memory for a command");
    call_finish(c);
    return NULL;
}

struct text_buf store_expand(const char *template_text, const char *user_id)
{
    struct text_buf b = {0};
    keys_expand(&b, template_text, user_id, strlen(user_id));
    return b;
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
    return send_words(c, store_send_part, command, text_span_of(key), ids, count);
}

struct store_call *store_exists(struct store *s, const struct text_span *keys, size_t count,
                                store_done_fn *fn, void *data)
{
    struct store_call *c = count ? store_call_new(s, KIND_DONE, "EXISTS", data) : NULL;
    if (!c)
        return NULL;
    c->fn.done = fn;
    return sent(c, send_words(c, store_send_last, "EXISTS", keys[0], keys + 1, count - 1));
}

struct store_call *store_hget(struct store *s, const char *key, struct text_span field,
                              store_text_fn *fn, void *data)
{
    struct store_call *c = store_call_new(s, KIND_TEXT, "HGET", data);
    if (!c)
        return NULL;
    c->fn.text = fn;
    return sent(c, send_words(c, store_send_last, "HGET", text_span_of(key), &field, 1));
}

struct store_call *store_mark_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count,
                                   struct text_span publish, store_done_fn *fn, void *data)
{
    const struct keys *k = s->w->start->keys;
    struct text_buf marks = store_expand(k->read_marks, user_id);
    struct text_buf channel = store_expand(k->user_channel, user_id);
    struct store_call *c = NULL;
    if (count && !marks.failed && !channel.failed)
        c = store_call_new(s, KIND_EXEC_FIRST, "mark read", data);
    if (c) {
        char ttl[24];
        snprintf(ttl, sizeof(ttl), "%lld", (long long)s->w->opt->history_ttl);
        const char *multi[] = {"MULTI"};
        const char *expire[] = {"PEXPIRE", marks.data, ttl};
        const char *tell[] = {"PUBLISH", channel.data, publish.ptr};
        const size_t tell_len[] = {7, channel.len, publish.len};
        c->fn.done = fn;
        int error = store_send_part(c, 1, multi, NULL);
        error = error ? error : send_ids(c, "SADD", marks.data, ids, count);
        error = error ? error : store_send_part(c, 3, expire, NULL);
        error = error ? error : store_send_part(c, 3, tell, tell_len);
        c = store_sent_exec(c, error);
    }
    text_buf_free(&marks);
    text_buf_free(&channel);
    return c;
}

struct store_call *store_trim_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count, store_done_fn *fn,
                                   void *data)
{
    struct text_buf marks = store_expand(s->w->start->keys->read_marks, user_id);
    struct store_call *c = NULL;
    if (count && !marks.failed)
        c = store_call_new(s, KIND_EXEC_FIRST, "trim read marks", data);
    if (c) {
        const char *multi[] = {"MULTI"};
        c->fn.done = fn;
        int error = store_send_part(c, 1, multi, NULL);
        error = error ? error : send_ids(c, "SREM", marks.data, ids, count);
        c = store_sent_exec(c, error);
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
    struct store_call *c = store_call_new(s, KIND_DONE, "emit", data);
    if (!c)
        return NULL;
    c->fn.done = fn;
    int error = e->argc > 2 && !strcmp(e->argv[0], "EVALSHA") ? keep_script(c, e) : 0;
    if (!error)
        error = store_send_last(c, e->argc, (const char **)(uintptr_t)e->argv, e->argvlen);
    return sent(c, error);
}

struct store_call *store_numsub(struct store *s, const char *user_id, store_done_fn *fn, void *data)
{
    struct text_buf channel = store_expand(s->w->start->keys->user_channel, user_id);
    struct store_call *c = NULL;
    if (!channel.failed)
        c = store_call_new(s, KIND_NUMSUB, "PUBSUB NUMSUB", data);
    if (c) {
        const char *argv[] = {"PUBSUB", "NUMSUB", channel.data};
        c->fn.done = fn;
        c = sent(c, store_send_last(c, 3, argv, NULL));
    }
    text_buf_free(&channel);
    return c;
}

struct store_call *store_set_acked(struct store *s, const char *user_id, struct text_span id,
                                   store_done_fn *fn, void *data)
{
    struct text_buf key = store_expand(s->w->start->keys->acked, user_id);
    struct store_call *c = key.failed ? NULL : store_call_new(s, KIND_DONE, "set acked", data);
    if (c) {
        char ttl[24];
        int ttl_len = snprintf(ttl, sizeof(ttl), "%lld", (long long)s->w->opt->history_ttl);
        const char *argv[] = {"SET", key.data, id.ptr, "PX", ttl};
        const size_t argvlen[] = {3, key.len, id.len, 2, (size_t)ttl_len};
        c->fn.done = fn;
        c = sent(c, store_send_last(c, 5, argv, argvlen));
    }
    text_buf_free(&key);
    return c;
}

struct store_call *store_info(struct store *s, store_text_fn *fn, void *data)
{
    const char *argv[] = {"INFO"};
    struct store_call *c = store_call_new(s, KIND_TEXT, "INFO", data);
    if (!c)
        return NULL;
    c->fn.text = fn;
    return sent(c, store_send_last(c, 1, argv, NULL));
}

struct store_call *store_publish(struct store *s, const char *channel, struct text_span text,
                                 store_done_fn *fn, void *data)
{
    const char *argv[] = {"PUBLISH", channel, text.ptr};
    const size_t argvlen[] = {7, strlen(channel), text.len};
    struct store_call *c = store_call_new(s, KIND_DONE, "PUBLISH", data);
    if (!c)
        return NULL;
    c->fn.done = fn;
    return sent(c, store_send_last(c, 3, argv, argvlen));
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
    struct store_call *c = store_call_new(s, KIND_DONE, "probe", data);
    if (!c)
        return NULL;
    c->fn.done = fn;
    return sent(c, store_send_last(c, 6, argv, argvlen));
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
