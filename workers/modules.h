/*
 * modules.h - makes and frees what a worker is made of, each in its turn. For worker.c, and for
 * tests that want a whole worker with a loop and a clock of their own.
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

#endif
