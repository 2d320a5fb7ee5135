/*
 * scratch.h - a private temporary directory for what --dev and the private Redis make.
 *
 * Master only. Only the master's user can read in it; when the workers are another user, they may
 * pass through it to what is made for them, and see nothing else.
 */
#ifndef BELFRY_SRC_SCRATCH_H
#define BELFRY_SRC_SCRATCH_H

#include <stddef.h>

#include "src/privileges.h"

#define SCRATCH_PATH_BYTES 80 /* leaves room for a socket's name in sun_path */

/* Makes belfry-XXXXXX in $XDG_RUNTIME_DIR, $TMPDIR or /tmp (/tmp when the workers are another user:
 * the others are closed to them). 0 or negative errno. */
int scratch_make(const struct privileges *workers, char out[SCRATCH_PATH_BYTES]);
/* Makes a directory in it that belongs to the workers' user alone. 0 or negative errno. */
int scratch_make_worker_dir(const char *scratch, const char *name,
                            const struct privileges *workers);
/* Writes a new file, mode 0600. 0 or negative errno. An older one of that name is replaced as a
 * whole. */
int scratch_write(const char *scratch, const char *name, const char *bytes, size_t len);
/* Removes the directory, the files in it and the directories of files. Follows no links. */
void scratch_remove(const char *scratch);
/* Marks it as in use for as long as this process lives. A descriptor (given) with a lock, flock(2),
 * or negative errno. */
int scratch_lock(const char *scratch);
/* Removes those that a killed process of this user left where scratch_make would make one: locked
 * once and by nobody now. How many. */
unsigned scratch_sweep(const struct privileges *workers);

#endif
