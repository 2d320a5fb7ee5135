/*
 * inquiry.h - what an operator asks of all workers, and the answers: as they go between the master
 * and its workers (ipc.h), and between instances over Redis (belfry-protocol(7)).
 *
 *   EXPLAIN  what happened to this message of this user?
 *   KICK     close this user's connections (4003); how many were there?
 *   REVOKE   close the connections made with the token of this jti (4003); how many were there?
 *   SHOW     what state is this connection in, or those of this user? Of this instance only
 *
 * PURE: layouts, and JSON in and out. Who asks whom is src/explain.c and workers/inquest.c. What
 * comes over Redis is somebody else's text: it is checked whole, bounded, and copied into these
 * fixed layouts, so that the master parses nothing.
 *
 *   master -> worker   ASK    do or tell it; with INQUIRY_OTHERS also: ask the other instances
 *   worker -> master   TOLD   INQUIRY_OWN, INQUIRY_TEXT, INQUIRY_PUBLISHED or INQUIRY_REMOTE
 *   worker -> master   ASKED  another instance's question
 *   master -> worker   TELL   a part of the answer to it, to be published
 *   worker -> master   INQUIRE    an operator's own question, of EXPLAIN only, that came over HTTP
 *   master -> worker   EXPLAINED  the answer to it
 */
#ifndef BELFRY_SHARED_INQUIRY_H
#define BELFRY_SHARED_INQUIRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/ipc.h"
#include "shared/keys.h"
#include "shared/text.h"
#include "shared/trace.h"

#define INQUIRY_CHANNEL "belfry:request"  /* questions to every instance */
#define INQUIRY_ANSWERS "belfry:answer:"  /* and INSTANCE:SLOT: answers to one worker */
#define INQUIRY_ID_MAX_BYTES 1024         /* of a message's id */
#define INQUIRY_RECORDS 160               /* in one message; an answer may have several */
#define INQUIRY_ANSWER_MAX_BYTES 65536    /* of JSON */
#define INQUIRY_INSTANCE_BYTES 40

enum inquiry_ask { INQUIRY_EXPLAIN, INQUIRY_KICK, INQUIRY_SHOW, INQUIRY_REVOKE, INQUIRY_ASKS };

enum inquiry_kind {
    INQUIRY_NONE,
    INQUIRY_OWN,       /* one worker's part: EXPLAIN: records of fate OPEN, its connections; KICK
                        * and REVOKE: how many it closed */
    INQUIRY_TEXT,      /* SHOW: connections as JSON objects, a comma between them */
    INQUIRY_PUBLISHED, /* the question reached `receivers` links; negative errno: it did not go */
    INQUIRY_REMOTE     /* a part of another instance's answer */
};

enum {
    INQUIRY_OTHERS = 1, /* ASK: publish it, too */
    INQUIRY_LAST = 2,   /* of one answerer */
    INQUIRY_CUT = 4     /* there was more than fits */
};

struct inquiry {
    uint64_t number;     /* the asker's; every answer gives it back */
    uint64_t user_hash;
    uint64_t id_hash;
    int64_t receivers;
    uint32_t kind;       /* enum inquiry_kind, of TOLD */
    uint32_t flags;
    uint32_t links;      /* workers of the answering instance that the question must have reached */
    uint32_t trace_size; /* its rings' */
    uint32_t asker_slot; /* ASKED, TELL: with instance: where the answer goes */
    uint32_t count;      /* records that follow; INQUIRY_TEXT: bytes */
    uint32_t ask;        /* enum inquiry_ask, of a question */
    uint32_t closed;     /* answers to KICK, REVOKE: connections that were closed */
    char instance[INQUIRY_INSTANCE_BYTES]; /* ASKED, TELL: who asks; REMOTE: who answers */
    char user[KEYS_USER_ID_MAX_BYTES + 8];
    char id[INQUIRY_ID_MAX_BYTES + 8]; /* EXPLAIN: the message's; SHOW: the connection's;
                                        * REVOKE: the jti */
};

struct inquiry_record {
    struct trace_record trace;
    uint32_t slot; /* worker */
    uint32_t reserved;
};

#define INQUIRY_TEXT_BYTES (INQUIRY_RECORDS * sizeof(struct inquiry_record))

struct inquiry_message {
    struct inquiry head;
    union {
        struct inquiry_record records[INQUIRY_RECORDS];
        char text[INQUIRY_TEXT_BYTES]; /* not NUL-terminated */
    };
};
_Static_assert(sizeof(struct inquiry_message) <= IPC_BODY_MAX_BYTES, "one message of the pair");

/* Bytes of a message with that many records. */
size_t inquiry_bytes(uint32_t count);
size_t inquiry_size(const struct inquiry *q); /* of a message with this head */
/* Copies a message's body; false when the bytes are none: count, kind and strings within bounds. */
bool inquiry_take(const void *bytes, size_t len, struct inquiry_message *out);
/* Fills user, id and their hashes with what q->ask needs: EXPLAIN both, KICK a user and no id,
 * REVOKE the opposite, SHOW one of the two. 0 or -EINVAL (an id of 0 or too many bytes, no user
 * id). */
int inquiry_set(struct inquiry *q, const char *user, size_t user_len, const char *id,
                size_t id_len);

/* ---- JSON ---- */

/* The question, as it is published: ask (not SHOW), instance, asker_slot, number, user, id. */
void inquiry_write_request(struct text_buf *out, const struct inquiry *q);
/* 0 or -EINVAL. Everything not in the text is zero. */
int inquiry_read_request(const char *bytes, size_t len, struct inquiry *out);
/* A part of an answer; instance: who answers. */
void inquiry_write_answer(struct text_buf *out, const struct inquiry_message *m,
                          const char *instance);
/* 0 or -EINVAL, -E2BIG. Records of fates or ends that this version does not know are left out. */
int inquiry_read_answer(const char *bytes, size_t len, struct inquiry_message *out);
/* One record as a JSON object; instance NULL: left out. */
void inquiry_write_record(struct text_buf *out, const struct inquiry_record *r,
                          const char *instance);
/* 0, -EINVAL, or -ENOTSUP for one this version does not know. */
int inquiry_read_record(struct text_span object, struct inquiry_record *out);
/* An object's member "instance". False when it is none that an instance can have. */
bool inquiry_read_instance(struct text_span object, char out[INQUIRY_INSTANCE_BYTES]);

/* ---- members of a checked JSON object ---- */

/* A whole number between min and max; false when it is none. */
bool inquiry_number(struct text_span object, const char *name, int64_t min, int64_t max,
                    int64_t *out);
/* A decoded string of at most cap - 1 bytes without NUL, NUL-terminated; its length, -1 when it is
 * none. */
long inquiry_string(struct text_span object, const char *name, char *out, size_t cap);
/* Of an answer's "workers", the slots that are silent, each with a blank before it. What is no
 * number is left out: who answers may be anybody. */
void inquiry_add_silent(struct text_span workers, struct text_buf *out);

#endif
