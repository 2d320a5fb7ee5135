/*
 * handover_state.h - PURE: one connection and one user as bytes, for the worker that takes them.
 *
 * Decoding takes hostile bytes: nothing is read beyond the end, and whatever stands there is
 * checked by who uses it. The first twelve bytes never change their meaning: magic, version, flags.
 * So a worker that knows another version can still tell whether a close frame may be sent.
 */
#ifndef BELFRY_WORKERS_HANDOVER_STATE_H
#define BELFRY_WORKERS_HANDOVER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/ip.h"
#include "shared/pack.h"
#include "shared/text.h"
#include "workers/session.h"

/* Goes up with every change of a layout that is written here or by a X_save function. */
#ifndef HANDOVER_VERSION
#define HANDOVER_VERSION 4u
#endif
#define HANDOVER_MAGIC 0x4c464542u /* "BEFL" */

/* Times are those of CLOCK_MONOTONIC, which is one for the machine. */
struct handover_device {
    uint64_t serial;
    uint64_t received_bytes, sent_bytes;
    uint64_t ping_taken_bytes;
    int64_t opened_ms, last_read_ms, ping_sent_ms, phase_until_ms, rate_at_ms;
    int64_t token_expires_ms; /* wall clock */
    uint32_t rate_spent;
    struct ip address;
    uint8_t conn_state;       /* CONN_AUTH or CONN_OPEN */
    uint8_t device_state;     /* enum device_state */
    uint8_t overflows;
    uint8_t deflate_bits;     /* 0: no permessage-deflate */
    bool is_mid_frame;        /* a part of a frame was written: nothing but its rest may follow */
    bool is_unix, is_admin, is_echo;
    struct text_span input;     /* wsock_save */
    struct text_span queue;     /* outq_save */
    struct text_span filter;    /* filter_save */
    struct text_span resume;    /* handover_resume_save */
    struct text_span left_out;  /* session_left_out_save */
    struct text_span held;      /* held_save */
    struct text_span lag;       /* session_lag_save */
    struct text_span refreshes; /* session_refreshes_save */
    struct text_span jti;       /* of its token; len 0: it cannot be revoked */
};

void handover_device_encode(const struct handover_device *d, struct text_buf *out);
/* Spans point into bytes. 0; -EBADMSG; -EPROTONOSUPPORT: of another version; of *out
 * only is_mid_frame is set then, true when in doubt. */
int handover_device_decode(struct text_span bytes, struct handover_device *out);

void handover_resume_save(const struct resume *r, struct text_buf *out); /* accepts NULL */
/* *out is NULL for what was saved of NULL. 0, -ENOMEM or -EBADMSG. */
int handover_resume_restore(struct text_span saved, struct resume **out);

#endif
