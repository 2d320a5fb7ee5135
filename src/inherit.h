/*
 * inherit.h - USR2, the new master's side: takes over from the old one what upgrade.h gives.
 *
 * Until SWITCH (or the old master's death) the new one is no instance yet: it reads its own
 * configuration, starts workers in free slots, and tells the old one when they serve; what it
 * shares with the old one it neither shuts down nor removes. Shared memory is kept when both lay it
 * out alike; otherwise the new one makes its own and is told the old one's totals by name, so that
 * sums never go back. When the old master dies before SWITCH, the new one takes over as if told to.
 *
 * Master only. inherit_receive blocks for a bounded time, before the loop; nothing else does. One
 * object in struct master.
 */
#ifndef BELFRY_SRC_INHERIT_H
#define BELFRY_SRC_INHERIT_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"
#include "src/control.h"
#include "src/upgrade_link.h"

#define INHERIT_RECEIVE_S 10.0 /* all of it must have come by then */
#define INHERIT_SWITCH_S 45.0  /* an old master that is silent for so long after READY is stuck */

enum inherit_phase {
    INHERIT_NOTHING,  /* no upgrade, or one that is over */
    INHERIT_STARTING, /* everything was received */
    INHERIT_READY,    /* told so, waiting for SWITCH */
    INHERIT_SERVING   /* the instance; the old master still hands over */
};

struct inherit {
    enum inherit_phase phase;
    struct upgrade_link link;
    struct ev_timer timer;
    struct upgrade_start start;
    struct upgrade_control control;
    int control_fd;               /* -1: none, or taken */
    int segments[SEGMENT_KINDS];  /* -1: none, or taken */
    bool has_segments;            /* of the old master, and uses them */
    bool has_control;             /* likewise */
    bool is_sent;
    struct text_buf totals;
};

struct master;

/* The link that the environment names, close-on-exec from now on; the variable is removed. -1:
 * none; -EINVAL: it names no link. */
int inherit_find_link(void);
/* Tells the old master why there will be no new one. For main; later inherit_fail does. */
void inherit_tell_failure(int link, const char *reason);

void inherit_init(struct master *m);
/*
 * Receives everything up to SENT; takes over instance id, start time, last reload and the listening
 * sockets (m->source.inherited). link: given. 0, or negative errno with why.
 */
int inherit_receive(struct master *m, int link, char *why, size_t cap);
bool inherit_is_active(const struct master *m); /* STARTING or READY */
/* Maps the old master's shared memory, when it is laid out as ours and has room. False: make it
 * anew, and call inherit_take_totals then. */
bool inherit_map(struct master *m);
void inherit_take_totals(struct master *m);
/* Takes over the control socket when it has this path. False: open it anew. */
bool inherit_control(struct master *m, const char *path, const struct control_handlers *handlers);
/* From here on messages are heard in the loop. The supervisor is there. */
void inherit_watch(struct master *m);
/* All workers are ready. */
void inherit_ready(struct master *m);
/* The new master ends before SWITCH. */
void inherit_fail(struct master *m, const char *reason);
void inherit_fini(struct master *m);

#endif
