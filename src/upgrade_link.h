/*
 * upgrade_link.h - the link between the old and the new master of an upgrade: ipc.h's packets with
 * the types of upgrade.def.
 *
 * Both masters. Both versions see these structs: fixed-width fields, and fields are only added at
 * the end. What the peer's queue does not take at once is kept and sent as it can; order is kept.
 */
#ifndef BELFRY_SRC_UPGRADE_LINK_H
#define BELFRY_SRC_UPGRADE_LINK_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/address.h"
#include "shared/counters.h"
#include "shared/ipc.h"

enum upgrade_type {
    UPGRADE_NONE,
#define UPGRADE(name, direction, help) UPGRADE_##name,
#include "src/upgrade.def"
#undef UPGRADE
    UPGRADE_TYPES
};

#define UPGRADE_VERSION 1
/* Names the new master's end of the link; the one variable that is added to its environment. */
#define UPGRADE_ENVIRONMENT "BELFRYD_UPGRADE"

/* One bit for each slot of the shared memory. */
struct upgrade_slots {
    uint8_t in_use[COUNTERS_MAX_SLOTS / 8];
};

struct upgrade_start {
    uint32_t version;    /* of this protocol */
    uint32_t generation; /* of the workers that serve */
    uint64_t layout;     /* of the shared memory: see upgrade_layout */
    int64_t started_mono_ms;
    int64_t started_wall_ms;
    int64_t last_reload_ms; /* 0: none */
    uint32_t last_reload_ok;
    uint32_t trace_size; /* records of a ring; 0: no trace */
    struct upgrade_slots slots;
    char instance_id[40];
    char release[24];
};

enum upgrade_segment_kind { SEGMENT_COUNTERS, SEGMENT_TRACE, SEGMENT_USERS, SEGMENT_ADDRESSES,
                            SEGMENT_KINDS };
struct upgrade_segment {
    uint32_t kind; /* enum upgrade_segment_kind */
};

struct upgrade_control {
    uint64_t file_dev;
    uint64_t file_ino;
    char path[ADDRESS_PATH_BYTES];
};

struct upgrade_ready {
    uint32_t workers;     /* that take connections over */
    uint32_t has_control; /* the control socket was taken over, too */
    uint32_t has_segments;
    uint32_t drop;        /* restart-close of the new configuration */
    int64_t drain_ms; /* over which the old workers close what cannot be handed over */
};

struct upgrade_switch {
    uint32_t reload_again; /* HUP came meanwhile */
};

struct upgrade_parcel;

struct upgrade_link {
    struct ev_loop *loop;
    int fd; /* -1: closed */
    struct ev_io in, out;
    struct upgrade_parcel *first, **last; /* what waits */
    /* m's descriptors that are not taken are closed afterwards. May close the link. */
    void (*on_message)(void *data, struct ipc_message *m);
    void (*on_end)(void *data); /* the link was closed by the peer, or broke; it is closed here */
    void *data;
    struct ipc_message message;
};

/* What must be equal where the shared memory is kept: counters, users and trace. */
uint64_t upgrade_layout(void);

/* fd: given. on_message, on_end and data are set by the caller. */
void upgrade_link_open(struct upgrade_link *l, struct ev_loop *loop, int fd);
/* fds are not closed. 0; -ENOMEM, or negative errno of a link that is gone. */
int upgrade_link_send(struct upgrade_link *l, enum upgrade_type type, const void *body, size_t len,
                      const int *fds, size_t count);
/* A second call does nothing. */
void upgrade_link_close(struct upgrade_link *l);
const char *upgrade_name(uint32_t type);

#endif
