/*
 * segment.h - memory that processes share: inherited by fork, or handed over as a descriptor.
 *
 * The master makes them; workers find them mapped, or read texts. A segment is a memfd of fixed
 * size, sealed against growing and shrinking, so that no process that holds it can make another
 * one's access fail. Memory is reserved, and becomes real as it is touched. memfd_create(2),
 * fcntl(2).
 */
#ifndef BELFRY_SHARED_SEGMENT_H
#define BELFRY_SHARED_SEGMENT_H

#include <stddef.h>

#include "shared/text.h"

/* A new one, zeroed. name shows in /proc only. 0, *at and *fd (both given), or negative errno. */
int segment_create(const char *name, size_t bytes, void **at, int *fd);
/* One that another process made; fd stays the caller's. 0, *at and *bytes, -EPROTO when it is no
 * sealed segment of at least `least` bytes, or another negative errno. */
int segment_map(int fd, size_t least, void **at, size_t *bytes);
/* A text to be handed to another process: a file that nobody can change any more. Its descriptor,
 * or negative errno. */
int segment_seal_text(const char *name, struct text_span text);
/* The text of one, appended; fd stays the caller's. 0, -EFBIG when it has more than max bytes or
 * none, -ENOMEM or another negative errno. */
int segment_read_text(int fd, size_t max, struct text_buf *out);
/* Unmaps and closes; at NULL and fd -1 are nothing. */
void segment_free(void *at, size_t bytes, int fd);

#endif
