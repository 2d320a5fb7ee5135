/*
 * unixsock.h - unix sockets to listen on: made over stale files, never over live ones, removed by
 * their maker.
 *
 * Master only; never blocks. unix(7).
 */
#ifndef BELFRY_SRC_UNIXSOCK_H
#define BELFRY_SRC_UNIXSOCK_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* A file we made, told apart from a later one of the same name. */
struct unixsock_file {
    dev_t dev;
    ino_t ino;
};

/*
 * Listening socket on path, non-blocking and close-on-exec, file mode `mode`, given to uid and gid
 * unless they are -1. A socket file on which nobody listens is replaced. The descriptor, or
 * -EADDRINUSE (a process listens there), -EEXIST (a file that is no socket), -ENAMETOOLONG or
 * another negative errno.
 */
int unixsock_listen(const char *path, mode_t mode, uid_t uid, gid_t gid, int backlog,
                    struct unixsock_file *file);
/* What a failure of unixsock_listen means, and what is to be done. Valid until the next call. */
const char *unixsock_error_text(int error);
/* Removes the file if it is still this one. */
void unixsock_remove(const char *path, const struct unixsock_file *file);
/* 0 when a process listens on path, -ECONNREFUSED or -ENOENT when none does, or another negative
 * errno. */
int unixsock_probe(const char *path);

#endif
