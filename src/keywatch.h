/*
 * keywatch.h - notices that jwt-jwks-file is another file or has changed, and gives the new keys to
 * the workers.
 *
 * Master only: workers open no file. The path is looked at every KEYWATCH_S, not watched by
 * inotify: a rename, a link that is turned (as Kubernetes does it), a directory mounted anew and a
 * network's file system all look the same by stat(), and two seconds are soon enough for a key.
 * What cannot be used changes nothing and is told once.
 */
#ifndef BELFRY_SRC_KEYWATCH_H
#define BELFRY_SRC_KEYWATCH_H

#include <ev.h>
#include <stdint.h>
#include <time.h>

#define KEYWATCH_S 2.0

/* What a file looked like; all zero when there was none. */
struct keywatch_stamp {
    uint64_t device, inode, bytes;
    struct timespec modified, changed;
};

struct keywatch {
    struct ev_timer timer;
};

struct master;

void keywatch_init(struct master *m); /* begins */
void keywatch_fini(struct master *m);

/* To be taken before the file is read. */
struct keywatch_stamp keywatch_look(const char *path);

#endif
