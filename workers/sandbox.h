/*
 * sandbox.h - what a worker gives up before it hears from anybody: most system calls (seccomp), the
 * file system, and TCP connections to anything but Redis (both Landlock).
 *
 * Worker only, once, before its loop and its threads. Where the kernel or the build lacks one of
 * the two, the other holds alone. Not built in with sanitizers or coverage, which write files and
 * more; not entered under valgrind. seccomp(2), landlock(7).
 */
#ifndef BELFRY_WORKERS_SANDBOX_H
#define BELFRY_WORKERS_SANDBOX_H

#include <stdbool.h>

#include "shared/redisurl.h"

struct sandbox {
    bool has_seccomp;
    int landlock;        /* version of the kernel's interface; 0: none */
    int seccomp_error;   /* negative errno when the kernel refused; 0: none */
    int landlock_error;
};

/* True when what it takes is built in, and nothing of this run's kind forbids it. */
bool sandbox_is_possible(void);
/*
 * Enters it, as far as it goes, for good. no_new_privs is set already. A Redis that is named by an
 * address or a path leaves no file to open; a name, or rediss://, leaves those below /etc and a few
 * other directories to be read, for looking names up and for certificates. Afterwards execve(2),
 * ptrace(2) and their like kill the process (SIGSYS); files answer EACCES, all else ENOSYS.
 */
struct sandbox sandbox_enter(const struct redisurl *redis);

#endif
