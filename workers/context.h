/*
 * context.h - what the modules of one worker share: the loop, the snapshot, and one of each
 * module.
 *
 * One object for each worker process, made and owned by worker.c (modules.c); every module keeps a
 * borrowed pointer to it. Members are set once, in the order of modules.c (the acceptor last, when
 * the worker is ready), and never replaced. This is instead of globals: tests build one by hand.
 */
#ifndef BELFRY_WORKERS_CONTEXT_H
#define BELFRY_WORKERS_CONTEXT_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/emit.h"
#include "shared/message.h"
#include "workers/worker.h"

struct acceptor;
struct admissions;
struct canary;
struct handover;
struct conns;
struct deflate;
struct guessers;
struct hub;
struct inquest;
struct markers;
struct pressure;
struct sessions;
struct store;
struct subscriber;
struct wheel;
struct router;

struct worker {
    struct ev_loop *loop;
    const struct worker_start *start;
    const struct options *opt; /* start->opt */
    struct message_style style;
    struct emit_rules emit_rules;
    struct wheel *wheel;           /* deadlines */
    struct deflate *deflate;       /* permessage-deflate, whoever negotiated it */
    struct conns *conns;           /* all connections; flush and reap lists */
    struct acceptor *acceptor;
    struct guessers *guessers;     /* addresses that bad tokens come from */
    struct pressure *pressure;     /* memory */
    struct hub *hub;               /* users and devices */
    struct sessions *sessions;     /* attach, live, repair */
    struct subscriber *subscriber; /* pub/sub link */
    struct store *store;           /* command link */
    struct admissions *admissions; /* what Redis knows of tokens */
    struct canary *canary;         /* delivery probe */
    struct markers *markers;       /* has the pub/sub link caught up? */
    struct router *router;         /* HTTP endpoints */
    struct inquest *inquest;       /* what happened to a message? */
    struct handover *handover;     /* connections from and to other workers */
    int epoll_fd;                  /* the loop's; -1: not known */
    bool is_draining;              /* it will end */
    bool is_replaced;              /* and others go on with what it served */
    bool is_left;                  /* and these have another master, who knows nothing of it */
};

/* Milliseconds on the monotonic clock, which no step of the wall clock moves (coarse: clock.h);
 * and the wall clock of this turn of the loop. */
int64_t worker_now_ms(const struct worker *w);
int64_t worker_wall_ms(const struct worker *w);

#endif
