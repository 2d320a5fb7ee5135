/*
 * modules.h - what a worker is made of: made and freed in order, and what they do at the end of
 * each turn of the loop. For worker.c, and for tests that want a whole worker with a loop and a
 * clock of their own.
 */
#ifndef BELFRY_WORKERS_MODULES_H
#define BELFRY_WORKERS_MODULES_H

#include "workers/context.h"

/* Sets all modules of w but the acceptor; loop, start, opt and what else init_context of worker.c
 * sets are there. The name of the one that could not be made (modules_free is due nevertheless), or
 * NULL. */
const char *modules_make(struct worker *w);
/* Those that are there, and the acceptor. */
void modules_free(struct worker *w);
/* Answers and broadcasts go on, what was queued leaves, who waits is let in. True: something is
 * left for another turn. busy_us: clock_mono_us from which on the turn counts as a long one, in
 * which more messages have come meanwhile. */
bool modules_end_turn(struct worker *w, int64_t busy_us);

#endif
