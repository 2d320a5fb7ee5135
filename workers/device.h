/*
 * device.h - what the hub and the session know of one connection's owner.
 *
 * Lives inside its connection, which alone frees it. There is one for each connection, and nearly
 * all of them are quiet at any moment: so whatever belongs to attaching, lagging behind or moving
 * stands in a part of its own, which a quiet device has not.
 */
#ifndef BELFRY_WORKERS_DEVICE_H
#define BELFRY_WORKERS_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

struct adopted;  /* session_handover.c: what the giving worker's devices of the user had */
struct conn;
struct expected; /* session_handover.c */
struct filter;   /* filter.h */
struct held;     /* held.h: live messages that wait while the device attaches */
struct lag;      /* session_lag.c: a device that reads too slowly */
struct left_out; /* session_left_out.c */
struct refresh;  /* session_refresh.c: FULL_SYNC that a device asked for */
struct resume;   /* session.h */
struct user;     /* hub.h */

enum device_state {
    DEVICE_NONE,      /* not with the hub */
    DEVICE_ATTACHING, /* waits for the subscription or the list; live messages are held */
    DEVICE_REPAIRING, /* was live when the subscriber link was lost: waits like an attaching one */
    DEVICE_LIVE,
    DEVICE_ADOPTED    /* came from another worker, which its user's messages still belong to */
};

struct device_busy {
    struct resume *resume;        /* until live */
    struct held *held;            /* while attaching or repairing; NULL: none came */
    struct refresh *refreshes;    /* session_refresh.c; NULL: none asked for */
    struct lag *lag;              /* session_lag.c; NULL: keeps up */
    struct left_out *left_out;    /* session_left_out.c; NULL: nothing that may still come */
    struct expected *expected;    /* session_handover.c: while DEVICE_ADOPTED */
    struct adopted *adopted;      /* session_handover.c; until the list is read */
};

struct device {
    struct conn *conn;
    struct user *user;
    struct device *next, *prev;   /* of the same user */
    struct filter *filter;        /* NULL: everything passes */
    const struct device_busy *busy; /* never NULL; to be changed by device_busy() */
    uint32_t heard;               /* session_broadcast.c: the newest broadcast it was given */
    enum device_state state : 8;
    bool in_reading : 1;          /* the user's reading under way serves this device */
    bool is_counted : 1;          /* in usertable.h's table: it was not full when the device came */
    uint8_t state_given;          /* enum device_state: to become when it is adopted no more */
    uint8_t overflows;            /* times held had to be cut since the device began to wait */
};

void device_init(struct device *d, struct conn *c);
/* The busy part, made when the device has none. NULL without memory, never when there is anything
 * in it. */
struct device_busy *device_busy(struct device *d);
/* Gives it back if there is nothing in it any more. */
void device_settle(struct device *d);

/* Keeps resume (given, freed when it cannot be kept; may be NULL). 0 or -ENOMEM. */
int device_set_resume(struct device *d, struct resume *resume);
/* What was kept, the caller's now; or NULL. */
struct resume *device_take_resume(struct device *d);
void device_drop_resume(struct device *d);
struct held *device_take_held(struct device *d);

#endif
