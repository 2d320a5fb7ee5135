/*
 * inquest.h - a worker's part in what an operator asks of all workers (shared/inquiry.h): what
 * happened to a message, close a user's connections, what state is a connection in.
 *
 * Between its master, which asks and composes, and Redis, over which instances ask each other: the
 * questions come on INQUIRY_CHANNEL, which every worker hears and of each instance one answers, and
 * whoever is left over from before an upgrade, for itself, also to its own instance; the answers to
 * one worker come on a channel of its own. What comes over Redis is checked here and handed on in
 * fixed layouts. Questions of others are limited: more than INQUEST_RATE a second are not answered.
 */
#ifndef BELFRY_WORKERS_INQUEST_H
#define BELFRY_WORKERS_INQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/context.h"

#define INQUEST_RATE 50
#define INQUEST_ROWS 100 /* connections that one worker shows */
#define INQUEST_KICKS 64 /* that are remembered; of more, the last */
#define INQUEST_WAIT_S 3.0 /* for the master, which gives the workers two */
#define INQUEST_ANSWER_MAX_BYTES (UINT32_C(16) << 20)

struct inquest;
struct user;

/* NULL without memory. */
struct inquest *inquest_new(struct worker *w);
void inquest_free(struct inquest *q); /* accepts NULL */

/* From the master: CONTROL_ASK, CONTROL_TELL. */
void inquest_on_ask(struct inquest *q, const void *body, size_t len);
void inquest_on_tell(struct inquest *q, const void *body, size_t len);
/* From Redis: another instance's question, an answer to ours. */
void inquest_on_request(struct inquest *q, const char *payload, size_t len);
void inquest_on_answer(struct inquest *q, const char *payload, size_t len);

/* ---- an operator asks over HTTP ---- */

struct inquest_call;

/* error: 0, -EBUSY (too many at a time) or another negative errno. text: the master's answer
 * (src/explain.h), valid during the callback only; len 0 on error. */
typedef void inquest_answer_fn(void *data, int error, struct text_span text);
/* What happened to this message, as the workers of all instances know it? fn is called once, in a
 * later turn, unless inquest_cancel comes first. NULL: it could not be asked, and fn is not
 * called. */
struct inquest_call *inquest_explain(struct inquest *q, const char *user, const char *id,
                                     inquest_answer_fn *fn, void *data);
void inquest_cancel(struct inquest_call *c); /* accepts NULL */
/* From the master: CONTROL_EXPLAINED; fd, which stays the caller's, -1: none. */
void inquest_on_explained(struct inquest *q, const void *body, size_t len, int fd);

/* A connection of this user came from another worker: was the user kicked since it was opened
 * (worker_now_ms; one clock for all workers of the machine)? The kick may have come here when the
 * connection was on its way, and at the other worker when it had left. */
bool inquest_has_kicked(const struct inquest *q, const struct user *u, int64_t opened_ms);

#endif
