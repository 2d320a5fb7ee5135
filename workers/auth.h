/*
 * auth.h - what is done around the verification of a client's token: may it be tried, and what
 * follows when it was bad.
 */
#ifndef BELFRY_WORKERS_AUTH_H
#define BELFRY_WORKERS_AUTH_H

#include "workers/conn.h"

#define AUTH_RETRY_AFTER "Retry-After: 60\r\n"
#define AUTH_TOO_MANY "Too many bad tokens from this address"

/* False: too many tokens of its address were bad (auth-failure-rate): this one is to be refused as
 * it is. Counted and logged. */
bool auth_may_try(const struct conn *c);
/* The token was bad: counted, logged, and remembered of the address. */
void auth_failed(const struct conn *c, const char *why);

#endif
