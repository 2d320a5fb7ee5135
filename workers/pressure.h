/*
 * pressure.h - the option max-memory: how much memory this worker has, and what is done about it.
 *
 * Measured is what is the worker's alone (proc(5), statm: resident without shared), at most ten
 * times a second, for some microseconds. From 7/8 of max-memory on new WebSockets are refused, and
 * new connections when PRESSURE_EARLY_MAX are no WebSockets yet: so health is answered. Above
 * max-memory those are closed that hold most of it.
 */
#ifndef BELFRY_WORKERS_PRESSURE_H
#define BELFRY_WORKERS_PRESSURE_H

#include "workers/context.h"

#define PRESSURE_EARLY_MAX 64

struct pressure;

/* NULL without memory. */
struct pressure *pressure_new(struct worker *w);
void pressure_free(struct pressure *p); /* accepts NULL */
/* New connections are to be refused. Accepts NULL: no. */
bool pressure_is_high(const struct pressure *p);
/* From how many bytes on it is; 0: never. */
uint64_t pressure_high_bytes(const struct options *opt);
/* At the end of each turn, before all is written. */
void pressure_turn(struct pressure *p);

#endif
