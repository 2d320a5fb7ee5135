/*
 * message.h - the envelope: {"id","type","timestamp","user_id","payload","channel"?}.
 *
 * All processes. Reading is one pass over bytes that stay where they are (json.h); writing goes through a text_buf. Unknown
 * fields are nobody's business and pass through, because a relayed message is never rewritten.
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
    struct text_span origin;    /* "connection_id" of a control message, raw JSON value; len 0: absent */
    uint64_t id_hash;           /* of the decoded id string; without one, of type + payload (see has_id) */
    bool has_id;                /* id is a string: the id can tell repeats apart */
    uint64_t type_hash;         /* of the type's letters in upper case; 0 without a type */
    int event;                  /* row of the event table (events.h), -1 for a type outside it */
    uint64_t conflate_key;      /* 0: never conflates */
    int64_t timestamp_us;       /* 0: absent or unreadable */
};

/* Reads and checks. JSON_OK, or why the bytes are not one JSON object in UTF-8. */
enum json_result message_read(const char *bytes, size_t len, struct message *out);

/* Hash of an id as a client or query names it (decoded text), comparable with id_hash. */
uint64_t message_id_hash(const char *id, size_t len);
/* Hash of a type name in any case, comparable with type_hash. */
uint64_t message_type_hash(const char *type, size_t len);

/* How Belfry writes messages: case of types, zone in timestamps (event-case, profile). */
struct message_style {
    bool lower_case;
    bool with_zone;
};

/* Appends an envelope. NULL id: one is made (and copied to id_out when that is not NULL, UUID7_TEXT_BYTES); "" : none. type is written as
 * given; payload is raw JSON; channel, user_id NULL: left out. */
void message_write(struct text_buf *out, const struct message_style *style, const char *id, const char *type,
                   const char *user_id, struct text_span payload, const char *channel, char *id_out);

#endif
