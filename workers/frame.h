/*
 * frame.h - one server-to-client WebSocket message, encoded once, shared by reference. RFC 6455,
 * section 5.2.
 *
 * Server frames are not masked, so all devices get the same bytes. Never changed after it was made.
 * Knows what the queue and the session ask about a message without reading it again. What it is
 * deflated (RFC 7692) it keeps beside, once somebody asked.
 */
#ifndef BELFRY_WORKERS_FRAME_H
#define BELFRY_WORKERS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/pack.h"

#define FRAME_HEADER_MAX 10
#define FRAME_CONTROL_MAX 127 /* header and payload of a control frame */
#define FRAME_DEFLATED 0x40   /* RSV1 of a first byte: RFC 7692, section 6 */

struct deflate;

enum frame_opcode {
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10
};

enum frame_kind {
    FRAME_REPLY,     /* answer to a command, FULL_SYNC: always passes, never dropped */
    FRAME_USER,      /* a message of one user */
    FRAME_BROADCAST
};

struct frame {
    uint32_t refs;
    uint32_t len;           /* of bytes */
    enum frame_kind kind;
    bool is_stored;         /* known to stand in the user's list */
    bool has_id;            /* false: id_hash is that of the content */
    uint8_t window_bits;    /* deflated: what it was deflated with; 0: plain */
    uint16_t stays_plain;   /* bit N: a window of N bits makes it no shorter */
    uint32_t read_us;       /* delivery.h; 0: not to be measured */
    uint64_t id_hash;       /* 0: none */
    uint64_t type_hash;     /* 0: none */
    uint64_t conflate_key;  /* 0: never conflates */
    int64_t timestamp_us;   /* of a user's message; 0: unknown */
    struct frame *deflated; /* the same, deflated, one behind another for each window; NULL: none */
    struct frame **parts;   /* joined: what it was made of; else NULL */
    uint32_t part_count;
    unsigned char bytes[];  /* header and payload; joined: those of all parts */
};

/* Unfragmented text frame around a copy of payload; refs 1. NULL without memory, or when the
 * payload has more than 2 GB. */
struct frame *frame_text(enum frame_kind kind, const void *payload, size_t len);
/* The same with another opcode of a data frame. */
struct frame *frame_data(enum frame_kind kind, int opcode, const void *payload, size_t len);
/* Several frames as one, for devices that get all of them at once: one copy for all devices, where
 * references would be an object for each frame and device. Without id, type and key. References to
 * the parts are taken. NULL without memory. */
struct frame *frame_join(enum frame_kind kind, struct frame *const *parts, size_t count);
/* What to send of f to a reader whose window has so many bits: f itself, or the same deflated,
 * which is made when it is first asked for and lives as long as f. Borrowed; never NULL. */
struct frame *frame_for_window(struct frame *f, struct deflate *d, int allowed_bits);
/* Writes the header of an unmasked frame; returns its length (2, 4 or 10). */
size_t frame_header(unsigned char out[FRAME_HEADER_MAX], int opcode, bool is_final,
                    uint64_t payload_len);
/* Writes a whole close frame; code 0 (or 1005): without payload. The reason is cut to 123 bytes at
 * a character's border. Returns the frame's length. */
size_t frame_close(unsigned char out[FRAME_CONTROL_MAX], int code, const char *reason);
/* For another process: the frame with all that is known of it. */
void frame_save(const struct frame *f, struct text_buf *out);
/* refs 1; NULL without memory or when the bytes are none. */
struct frame *frame_restore(struct unpack *in);
struct frame *frame_ref(struct frame *f);
void frame_unref(struct frame *f); /* accepts NULL */
/* The payload inside bytes; not of a joined frame. */
const char *frame_payload(const struct frame *f, size_t *len);

#endif
