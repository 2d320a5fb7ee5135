/*
 * message.h - the envelope: {"id","type","timestamp","user_id","payload","channel"?}.
 *
 * All processes and libbelfry. Reading is one pass over bytes that stay where they are (json.h);
 * writing goes through a text_buf. Unknown fields are nobody's business and pass through, because a
 * relayed message is never rewritten. Names may be written with escapes; of a name that stands
 * twice the last one counts (json.h). Layout and meaning: belfry-protocol(7).
 */
#ifndef BELFRY_SHARED_MESSAGE_H
#define BELFRY_SHARED_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/json.h"
#include "shared/text.h"

/* What Belfry reads of a message. Spans point into the bytes given to message_read. */
struct message {
    struct text_span raw;       /* all of it */
    struct text_span id;        /* raw JSON value; len 0: absent */
    struct text_span type;      /* raw JSON value; len 0: absent */
    struct text_span timestamp; /* raw JSON value; len 0: absent */
    struct text_span payload;   /* raw JSON value; len 0: absent */
    struct text_span origin;    /* "connection_id" of a control message, raw value; len 0: absent */
    uint64_t id_hash;           /* of the decoded id; without one, of type + payload (has_id) */
    bool has_id;                /* id is a string, not empty: it can tell repeats apart */
    uint64_t type_hash;         /* of the type's letters in upper case; 0 without a type */
    int event;                  /* row of the event table, -1 for a type outside it */
    uint64_t conflate_key;      /* 0: never conflates */
    int64_t timestamp_us;       /* 0: absent or unreadable */
};

/* Reads and checks. JSON_OK, or why the bytes are not one JSON object in UTF-8; *out is then
 * undefined. id_hash is never 0; an empty id counts as none, because a producer that leaves it
 * empty every time must not have its messages taken for repeats. Does not allocate but for an id or
 * a conflation field that is longer than a kilobyte and written with escapes. */
enum json_result message_read(const char *bytes, size_t len, struct message *out);

/* Hash of an id as a client or query names it (decoded text), comparable with id_hash. */
uint64_t message_id_hash(const char *id, size_t len);
/* Hash of a type name in any case, comparable with type_hash. 0 for an empty name. */
uint64_t message_type_hash(const char *type, size_t len);

/* How Belfry writes messages: case of types, zone in timestamps (event-case, profile). */
struct message_style {
    bool lower_case;
    bool with_zone;
};

/* Appends an envelope. id NULL: one is made (and copied to id_out when that is not NULL,
 * UUID7_TEXT_BYTES); "": none. type is written as given; payload is raw JSON, {} when empty;
 * channel, user_id NULL: left out. No memory: out->failed. */
void message_write(struct text_buf *out, const struct message_style *style, const char *id,
                   const char *type, const char *user_id, struct text_span payload,
                   const char *channel, char *id_out);

#endif
