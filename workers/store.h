/*
 * store.h - the worker's command link: lists, snapshots, marks, scripts, probes. Asynchronous,
 * pipelined, every call answered exactly once.
 *
 * Each call's callback gets its answer, or an error when the link is down, lost, or too slow
 * (redis-command-timeout: the link is given up and made anew). Calls while the link is down return
 * NULL at once; nobody waits in a queue here. hiredis with libev's adapter.
 */
#ifndef BELFRY_WORKERS_STORE_H
#define BELFRY_WORKERS_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/emit.h"
#include "shared/text.h"
#include "workers/context.h"

#define STORE_MAX_CALLS 10000 /* under way at once; more are refused as if the link were down */

struct store_call; /* one call under way */

struct redisReply;

/* Everything stored for one user. Spans are valid during the callback, or for who takes them. */
struct store_user {
    struct text_span *entries; /* notifications list, head (newest) first */
    size_t entry_count;
    struct text_span snapshot; /* len 0: none */
    struct text_span acked;    /* acked id as the client gave it; len 0: none */
    struct text_span *read_ids;
    size_t read_count;
    bool is_cut; /* entries were not read: max-reading-size, max-payload-size */
    struct redisReply *parts[4]; /* where the spans point */
};

/* error: 0 or negative errno; user is NULL on error. */
typedef void store_user_fn(void *data, int error, struct store_user *user);
/* value: the integer reply (emit: subscribers reached; numsub: subscribers), or 0. */
typedef void store_done_fn(void *data, int error, int64_t value);
typedef void store_text_fn(void *data, int error, struct text_span text);

/* In the callback: what user holds is the caller's from now on, and user is empty. */
static inline struct store_user store_user_take(struct store_user *user)
{
    struct store_user taken = *user;
    *user = (struct store_user){0};
    return taken;
}
void store_user_free(struct store_user *user);

/* Starts connecting. NULL without memory only: Redis away is not an error. */
struct store *store_new(struct worker *w);
/* on_up is called whenever the link is up again, before sessions ask for lists. One listener. */
void store_listen(struct store *s, void (*on_up)(void *data), void *data);
/* Calls under way are answered with -ECANCELED. */
void store_free(struct store *s);
bool store_is_up(const struct store *s);
bool store_has_tried(const struct store *s); /* redislink_has_tried */

/* Each returns the call (cancel it with store_cancel, after which the callback never comes), or
 * NULL when it could not be sent (down, no memory): the callback is then not called, and never from
 * within the call itself. Arguments are borrowed for the call. Errors a callback gets: -ECONNRESET
 * (the link was lost; nothing is known of what was to be written), -ETIMEDOUT (the same, given up
 * by us), -EIO (an error reply, counted and logged), -ENOMEM, -ECANCELED. */

/* List (history-size entries at most), snapshot, read marks and acked id, all of one moment. A key
 * of another type counts as empty. Entries above max-payload-size are left out, and where all are
 * more than max-reading-size the older ones; both are counted. Read marks come bounded
 * (STORE_READ_MARKS_MAX or eight times history-size, whichever is more). */
struct store_call *store_read_user(struct store *s, const char *user_id, store_user_fn *fn,
                                   void *data);
#define STORE_READ_MARKS_MAX 1024
/* Takes marks out that mark nothing any more. */
struct store_call *store_trim_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count, store_done_fn *fn,
                                   void *data);
/* An event, with EVAL after NOSCRIPT. */
struct store_call *store_emit(struct store *s, const struct emit_command *c, store_done_fn *fn,
                              void *data);
struct store_call *store_numsub(struct store *s, const char *user_id, store_done_fn *fn,
                                void *data);
/* SADD of the read marks with their expiry, and PUBLISH of the text to the user's channel, so that
 * every device on every worker and instance hears it. value: marks that are new. */
struct store_call *store_mark_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count,
                                   struct text_span publish, store_done_fn *fn, void *data);
struct store_call *store_set_acked(struct store *s, const char *user_id, struct text_span id,
                                   store_done_fn *fn, void *data);
/* How many of these keys there are. */
struct store_call *store_exists(struct store *s, const struct text_span *keys, size_t count,
                                store_done_fn *fn, void *data);
/* A field's value; empty when there is none. */
struct store_call *store_hget(struct store *s, const char *key, struct text_span field,
                              store_text_fn *fn, void *data);
/* INFO, raw text. */
struct store_call *store_info(struct store *s, store_text_fn *fn, void *data);
/* PUBLISH of a marker, a question, an answer. */
struct store_call *store_publish(struct store *s, const char *channel, struct text_span text,
                                 store_done_fn *fn, void *data);
/* SET of the channel's name with a life of ttl_ms and PUBLISH to it, in one script: only a Redis
 * that takes writes answers without an error. -EROFS: a demoted primary, whose PUBLISH works on. */
struct store_call *store_probe(struct store *s, const char *channel, struct text_span text,
                               int64_t ttl_ms, store_done_fn *fn, void *data);
/* The link is to the wrong server: close, and connect anew with the name looked up again. */
void store_reset(struct store *s, const char *why);
void store_cancel(struct store_call *c); /* accepts NULL */

#endif
