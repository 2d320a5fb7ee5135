/*
 * guessers.h - addresses that bad tokens come from: the option auth-failure-rate. Workers; pure
 * memory, of a fixed size.
 *
 * An address (of IPv6 a /64) whose tokens fail too often is not verified for any more until time
 * has passed. The table is one worker's. When it is full, who guessed least makes room: many
 * addresses at once cannot free one that guesses.
 */
#ifndef BELFRY_WORKERS_GUESSERS_H
#define BELFRY_WORKERS_GUESSERS_H

#include "shared/ip.h"

#define GUESSERS_MAX 8192 /* addresses known at once */

struct guessers;

/* per_minute: tokens of one address that may fail; 0: no limit, and nothing is noted. NULL without
 * memory. */
struct guessers *guessers_new(int64_t per_minute);
void guessers_free(struct guessers *g); /* accepts NULL */
/* A token of that address may be verified. Always true of none. */
bool guessers_may_try(const struct guessers *g, const struct ip *ip, int64_t now_ms);
/* A token of that address was bad. */
void guessers_note(struct guessers *g, const struct ip *ip, int64_t now_ms);

#endif
