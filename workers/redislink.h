/*
 * redislink.h - the life of one connection to Redis: connecting, set-up, loss, back-off. Workers.
 *
 * Two kinds with one life. RAW: hiredis' plain context, read and written here, replies handed to
 * the owner as they come (pub/sub). ASYNC: hiredis' asynchronous context on libev's adapter, on
 * which the owner sends commands with callbacks of its own. Knows nothing of what is sent over a
 * link that is up.
 *
 * States: DOWN (waits for the next attempt) -> RESOLVING -> CONNECTING -> SETUP (AUTH, SELECT,
 * CLIENT SETNAME, PING) -> UP. redis-connect-timeout covers all until UP. An error reply in set-up
 * (LOADING, NOAUTH, WRONGPASS ...) is a failed attempt. Names are resolved anew for each attempt.
 * Attempts are spaced by full jitter: a random time up to a bound that doubles from
 * REDISLINK_BACKOFF_MIN_MS to REDISLINK_BACKOFF_MAX_MS. The only file that knows the adapter.
 */
#ifndef BELFRY_WORKERS_REDISLINK_H
#define BELFRY_WORKERS_REDISLINK_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/counters.h"
#include "workers/context.h"

#define REDISLINK_BACKOFF_MIN_MS 50
#define REDISLINK_BACKOFF_MAX_MS 5000
#define REDISLINK_BACKOFF_LOST_MS 1000 /* of the first attempt after a link that was up */
#define REDISLINK_STABLE_MS 10000 /* a link that lived as long starts again with the shortest */
#define REDISLINK_REPLIES_A_TURN 512
/* Much more than the replies of a turn, where they are short. Where they are long, all that is read
 * in a turn is queued in it: it must stay well below send-buffer-limit's default, or who reads
 * quickly would count as slow after a pause of ours. */
#define REDISLINK_READ_BYTES_A_TURN (512U << 10)
/* RAW: above it reading pauses until replies were handled; one reply that is larger resets the
 * link. */
#define REDISLINK_BUFFER_MAX_BYTES (32U << 20)
/* One reply, in elements of all its arrays. More resets the link: no command asks for so many. */
#define REDISLINK_ELEMENTS_MAX 200000U
/* Beside what a reading may bring by the options. */
#define REDISLINK_SLACK_BYTES (4U << 20)

struct push;
struct redislink;
struct redisReply;
struct redisAsyncContext;

struct redislink_owner {
    const char *name;     /* in log lines */
    enum counter up;      /* gauge */
    bool is_raw;
    void (*on_up)(void *data);
    /* After it was up, and after every callback of an asynchronous command. */
    void (*on_down)(void *data);
    /* RAW, while up; both may reset the link. on_push (may be NULL) is given what push.h can read
     * without hiredis, on_reply all else, and now and then a push too. */
    void (*on_push)(void *data, const struct push *push);
    /* With on_push: one whose payload is larger than max-payload-size is passed over, its bytes
     * thrown away as they come. */
    void (*on_large)(void *data, const struct push *push);
    void (*on_reply)(void *data, const struct redisReply *reply);
    /* With on_push: what was given to it so far is overwritten after this. */
    void (*on_pause)(void *data);
};

/* Starts connecting in the next turn; owner is kept, not copied. NULL without memory. */
struct redislink *redislink_new(struct worker *w, const struct redislink_owner *owner, void *data);
/* Calls nothing of the owner; asynchronous commands under way get their callback without a
 * reply. */
void redislink_free(struct redislink *l);
bool redislink_is_up(const struct redislink *l);
/* It is up, or an attempt has failed since it was last up for long. */
bool redislink_has_tried(const struct redislink *l);
/* Gives the connection up and connects anew. May be called from any callback. why: for the log. */
void redislink_reset(struct redislink *l, const char *why);
/* RAW: appends a command to what is sent at the end of this callback or as the socket takes it. 0,
 * or -ENOTCONN, -ENOMEM. */
int redislink_send(struct redislink *l, int argc, const char **argv, const size_t *argvlen);
/* RAW: what has come is read and handed out now, whether the loop was told of it or not. */
void redislink_look(struct redislink *l);
/* ASYNC: context for the owner's commands; NULL unless up. Not to be kept. */
struct redisAsyncContext *redislink_async(const struct redislink *l);

#endif
