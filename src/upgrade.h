/*
 * upgrade.h - USR2, the old master's side: starts the new binary, gives it what it needs to take
 * over, and leaves; or ends it and goes on serving.
 *
 * Order: fork and exec with one end of an upgrade_link; what START to SENT of upgrade.def say; then
 * READY is awaited. Until SWITCH is sent the old master is the instance: it holds the pid file's
 * lock, accepts on the control socket, writes the head of the shared memory, and any failure of the
 * new one leaves it as it was. From SWITCH on the new one is, and the old one lives only until its
 * own workers have handed over or closed their connections. The new master's side is inherit.h.
 *
 * Master only; nothing blocks. Everything here is one object in struct master.
 */
#ifndef BELFRY_SRC_UPGRADE_H
#define BELFRY_SRC_UPGRADE_H

#include <ev.h>
#include <stdbool.h>
#include <sys/types.h>

#include "src/upgrade_link.h"

#define UPGRADE_READY_S 30.0 /* a new binary that is not ready by then is ended */
#define UPGRADE_END_S 5.0    /* one that says that it failed, or is told to end, is killed then */

enum upgrade_phase {
    UPGRADE_PHASE_NONE,
    UPGRADE_PHASE_STARTING, /* the new one is on its way */
    UPGRADE_PHASE_ENDING,   /* it failed, and is not gone yet */
    UPGRADE_PHASE_LEFT      /* it is the master; this one leaves */
};

struct upgrade {
    enum upgrade_phase phase;
    pid_t pid; /* of the new master */
    struct upgrade_link link;
    struct ev_child child;
    struct ev_timer timer;
    bool is_apart;     /* the new one counts in shared memory of its own */
    char reason[512];  /* "": none yet */
};

struct master;

/*
 * The path of the program, for a later exec: argv[0] as it was found, so that a symbolic link that
 * is changed is followed anew; what the kernel says where that is not the program that runs. 0 or
 * negative errno.
 */
int upgrade_program(const char *argv0, char *out, size_t cap);

void upgrade_init(struct master *m);
/* 0: the new binary was started; negative: refused, which was logged. */
int upgrade_begin(struct master *m);
/* The instance stops: ends the new binary. */
void upgrade_cancel(struct master *m);
/* A worker is gone. */
void upgrade_on_gone(struct master *m);
bool upgrade_is_under_way(const struct master *m); /* STARTING or ENDING */
bool upgrade_has_left(const struct master *m);
void upgrade_fini(struct master *m);

#endif
