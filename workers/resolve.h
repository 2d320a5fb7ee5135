/*
 * resolve.h - a host name to its addresses, without blocking the loop. Workers.
 *
 * getaddrinfo(3) has no time limit of its own and a worker serves thousands meanwhile, so a thread
 * asks; an address in digits is answered without one. The thread touches nothing but its question.
 * One question, one answer.
 */
#ifndef BELFRY_WORKERS_RESOLVE_H
#define BELFRY_WORKERS_RESOLVE_H

#include <ev.h>
#include <stddef.h>

#define RESOLVE_MAX 8
#define RESOLVE_ADDRESS_BYTES 64 /* digits, with a scope */

struct resolve;

/* IPv4 first, as most Redis servers listen on. error: 0, or a value of gai_strerror(3); count is
 * then 0. */
typedef void resolve_fn(void *data, int error, char (*addresses)[RESOLVE_ADDRESS_BYTES],
                        size_t count);

/* Asks. fn comes later from the loop, never from within this call; after it the question is gone.
 * NULL: no thread or no memory. */
struct resolve *resolve_start(struct ev_loop *loop, const char *host, resolve_fn *fn, void *data);
/* fn will not come. Accepts NULL. */
void resolve_cancel(struct resolve *r);

#endif
