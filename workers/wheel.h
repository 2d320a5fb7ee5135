/*
 * wheel.h - deadlines of many objects on one timer.
 *
 * A hashed wheel of 100 ms ticks: arming and disarming are O(1) and allocate nothing; an entry is
 * two pointers and a time inside its object. A deadline fires at or up to two ticks after its time,
 * never before. Callbacks may arm, disarm and free entries, also their own. Bounded work for each
 * call: what is left over is done a moment later.
 */
#ifndef BELFRY_WORKERS_WHEEL_H
#define BELFRY_WORKERS_WHEEL_H

#include <stdbool.h>
#include <stdint.h>

struct ev_loop;
struct wheel;

struct wheel_entry {
    struct wheel_entry *next, *prev; /* NULL when not armed */
    int64_t at_ms;                   /* worker_now_ms */
};

/* on_due gets every entry whose time has come, disarmed already. */
typedef void wheel_fn(void *data, struct wheel_entry *e);

/* loop NULL: no timer, wheel_advance is called by hand (tests). NULL without memory. */
struct wheel *wheel_new(struct ev_loop *loop, wheel_fn *on_due, void *data);
void wheel_free(struct wheel *w);
/* The wheel's clock, which is worker_now_ms; without a loop, where wheel_advance was last. */
int64_t wheel_now_ms(const struct wheel *w);
/* (Re)arms; an earlier deadline of the entry is forgotten. */
void wheel_arm(struct wheel *w, struct wheel_entry *e, int64_t at_ms);
void wheel_disarm(struct wheel *w, struct wheel_entry *e);
bool wheel_is_armed(const struct wheel_entry *e);
/* Handles what is due at this time; returns true when the bound was hit and more is due. */
bool wheel_advance(struct wheel *w, int64_t now_ms);

#endif
