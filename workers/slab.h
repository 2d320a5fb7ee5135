/*
 * slab.h - objects of one size that live long and are many: connections, users.
 *
 * They stand close together in blocks of their own: no header of malloc's for each, none of what is
 * needed for a moment only between them, and so nothing left in pieces when a crowd has come or
 * gone. A block without an object goes back to the system, but one. For one thread.
 *
 * Built for AddressSanitizer, or with -DSLAB_IS_HEAP (for memcheck), each object is malloc's, so
 * that whoever uses it too long is found.
 */
#ifndef BELFRY_WORKERS_SLAB_H
#define BELFRY_WORKERS_SLAB_H

#include <stddef.h>

#define SLAB_OBJECT_MAX 4096

struct slab;

/* For objects of that size (rounded up to 8), SLAB_OBJECT_MAX at most, aligned to 8 bytes; those
 * whose size is a multiple of 64, to 64. NULL without memory. Nothing is mapped yet. */
struct slab *slab_new(size_t size);
/* Whatever was taken was given back before. Accepts NULL. */
void slab_free(struct slab *s);
/* All zero; NULL without memory. */
void *slab_take(struct slab *s);
/* Accepts NULL. */
void slab_give(struct slab *s, void *object);
/* Pages on which nobody is left go back to the system; accepts NULL. Walks over all blocks. */
void slab_trim(struct slab *s);

#endif
