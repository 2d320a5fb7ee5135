/*
 * worker.h - one worker process: start order, loop, drain, end.
 *
 * The master forks and calls worker_run with everything a worker may need, already opened: a
 * worker opens no file, reads no configuration and holds no privilege.
 */
#ifndef BELFRY_WORKERS_WORKER_H
#define BELFRY_WORKERS_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/counters.h"
#include "shared/keys.h"
#include "shared/options.h"
#include "shared/redisurl.h"
#include "shared/tickets.h"
#include "shared/token.h"
#include "shared/trace.h"
#include "shared/usertable.h"

struct pages; /* pages.h */

struct worker_listener {
    int fd;          /* listening, non-blocking; the slot's: stays open when the worker ends */
    bool is_metrics; /* serves GET /metrics and nothing else */
    bool is_tls;
    bool is_unix;
};

/* What the master gives; everything is borrowed and outlives the worker. */
struct worker_start {
    const struct options *opt;
    struct counters *counters;
    const struct trace *trace;
    struct usertable *users;     /* connections of each user, over all workers */
    struct usertable *addresses; /* connections of each address, over all workers */
    struct token_keys *token_keys; /* this process's copy: CONTROL_KEYS changes it */
    const struct keys *keys;
    const struct redisurl *redis;
    const struct worker_listener *listeners;
    size_t listener_count;
    const char *instance_id;  /* UUID text */
    const struct pages *pages; /* what GET / serves, and more; NULL: none */
    bool is_dev;               /* --dev: clients may break things (command dev_break) */
    const char *tls_certificate_pem; /* read by the privileged master; NULL: no TLS */
    const char *tls_key_pem;
    const struct tickets *tickets; /* those of now; CONTROL_TICKETS brings later ones */
    uint32_t slot;
    int control_fd;           /* ipc.h, this worker's end */
    int memory_fd;            /* /proc/self/statm of this worker; -1: cannot be read */
};

/* Serves until it is told to stop. Returns the process's exit code. Called once in a freshly
 * forked process, after privileges were dropped. */
int worker_run(const struct worker_start *start);

#endif
