/*
 * store_parts.h - what store.c (calls, the link, what is written) and store_read.c (what is stored
 * for a user, read) share; nobody else's.
 */
#ifndef BELFRY_WORKERS_STORE_PARTS_H
#define BELFRY_WORKERS_STORE_PARTS_H

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include "workers/redislink.h"
#include "workers/store.h"

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
    } fn;             /* by kind */
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

static inline struct text_span store_span_of(const redisReply *r)
{
    return (struct text_span){r->str, r->len};
}

/* ---- store.c ---- */

/* A call at the end of those under way. NULL: the link is down, too many are, or no memory. */
struct store_call *store_call_new(struct store *s, enum kind kind, const char *name, void *data);
/* Calls back with a negative errno, unless it was cancelled. The call stays. */
void store_call_fail(struct store_call *c, int error);
/* Counts and logs an error reply. */
void store_note_error(const struct store_call *c, const redisReply *reply);
/* Sends a command of a transaction before EXEC, or the last (or only) one, whose reply answers the
 * call. 0 or -ENOMEM. argvlen NULL: all are strings. */
int store_send_part(struct store_call *c, int argc, const char **argv, const size_t *argvlen);
int store_send_last(struct store_call *c, int argc, const char **argv, const size_t *argvlen);
/* Ends a transaction of which all was sent so far (error 0). The call; NULL when it could not be
 * sent, and the link is given up. */
struct store_call *store_sent_exec(struct store_call *c, int error);
/* A key or channel of the user; failed without memory. The caller's to free. */
struct text_buf store_expand(const char *template_text, const char *user_id);

/* ---- store_read.c ---- */

/* A reading (KIND_USER) was answered. */
void store_read_answer(struct store_call *c, const redisReply *reply);
/* Sends the script that reads a part instead. 0 or -ENOMEM. */
int store_read_bounded(struct store_call *c);

#endif
