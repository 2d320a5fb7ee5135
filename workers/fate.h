/*
 * fate.h - hooks: what happens to a message in this worker, written into its ring of the trace.
 *
 * One line wherever something happens; all of them do nothing while the trace is off (trace-size =
 * 0), none makes a system call but fate_closed and fate_acked_bytes. What the records mean stands
 * in shared/trace.def. Of a broadcast only what is no plain delivery is recorded for single
 * devices: filtered, dropped, or queued where the socket is full.
 */
#ifndef BELFRY_WORKERS_FATE_H
#define BELFRY_WORKERS_FATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/counters.h"
#include "shared/trace.h"
#include "workers/frame.h"
#include "workers/hub.h"

struct conn;

/* The worker begins to write its ring; its subscriber link is up or down. */
void fate_started(void);
void fate_link(bool is_up);

/* A live copy came: RECEIVED, DUPLICATE; u NULL: over the broadcast channel. */
void fate_received(const struct user *u, uint64_t id_hash, enum trace_fate fate);
/* What a device was not sent, or not yet: HELD, FILTERED, LAGGING, CONFLATED, DROPPED. */
void fate_device(const struct device *d, const struct frame *f, enum trace_fate fate);
void fate_id(const struct device *d, uint64_t id_hash, enum trace_fate fate);
/* The connection did not take the frame: it is closing, or there is no room for a broadcast. */
void fate_left(const struct conn *c, const struct frame *f);
/* The frame was just appended to the connection's queue. */
void fate_queued(struct conn *c, const struct frame *f);
/* Why the frame was given to the device a moment ago: CTR_messages_replayed or
 * CTR_messages_repaired. */
void fate_source(const struct device *d, const struct frame *f, enum counter counter);
/* The device named a message: ACKED, READ. */
void fate_said(const struct conn *c, enum trace_fate fate, const char *id, size_t len);

/* The connection became a device, and ended (its socket is still there). */
void fate_opened(struct conn *c);
void fate_closed(const struct conn *c);
/* It goes to another worker; it came from there, with what waits in its queue. */
void fate_given(const struct conn *c);
void fate_taken(struct conn *c);
/* Bytes of the connection that the peer's TCP acknowledged; of a Unix socket, that the peer read.
 * May be less than the truth, never more. One system call. */
uint64_t fate_acked_bytes(const struct conn *c);

#endif
