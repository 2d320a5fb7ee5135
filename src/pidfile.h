/*
 * pidfile.h - the file that holds the master's process id, and the lock on it.
 *
 * Master only. The file appears whole or not at all (rename(2)), once the instance runs. The lock
 * (flock(2)) is on the open file, not on its name, and ends with the process, so a file left behind
 * by a dead master stops nobody.
 */
#ifndef BELFRY_SRC_PIDFILE_H
#define BELFRY_SRC_PIDFILE_H

#include <stdbool.h>
#include <sys/types.h>

struct pidfile {
    int fd; /* -1: none */
    char *path;
};

/* -EWOULDBLOCK when a live process holds the file (its pid in *holder, 0 when unreadable), 0 when
 * nobody does or there is no file; other negative errno. */
int pidfile_check(const char *path, pid_t *holder);
/* Checks once more, writes and locks. 0 or as pidfile_check. */
int pidfile_write(struct pidfile *p, const char *path, pid_t *holder);
/* What a failure of these means, and what is to be done. Valid until the next call. */
const char *pidfile_error_text(const char *path, int error);
/* Gives the lock up, for the next master to write the file; or takes it back when that failed. */
void pidfile_release(struct pidfile *p);
void pidfile_lock(struct pidfile *p);
/* Removes the file if it is still ours. */
void pidfile_remove(struct pidfile *p);

#endif
