/*
 * chance.h - numbers by chance that spread things (attempts, closes) or tell them apart: nobody may
 * gain by guessing one. What must not be guessed asks getrandom(2) itself, and fails without it.
 *
 * All processes and libbelfry. Never blocks, never fails.
 */
#ifndef BELFRY_SHARED_CHANCE_H
#define BELFRY_SHARED_CHANCE_H

#include <stdint.h>

/* From the kernel, or where it gives none (early at boot, a sandbox without the call), made of
 * time, process and how often this was asked. */
uint64_t chance_seed(void);
/* The next number, by splitmix64: any state will do to begin with, and it is moved on. */
uint64_t chance_next(uint64_t *state);

#endif
