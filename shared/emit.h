/*
 * emit.h - one event as the atomic script writes it: arguments, and the script's text and SHA.
 *
 * Workers (HTTP endpoints, asynchronously), libbelfry and belfryctl (synchronously): whoever sends commands to Redis builds them here, so
 * that there is one script. Pure. https://redis.io/commands/eval/
 *
 * KEYS: list, snapshot. ARGV: channel, live message ("" : do not publish), stored message ("" : do not store), history-size,
 * history-ttl in seconds, snapshot payload ("" : leave). Reply: integer, number of subscribers the publication reached.
 */
#ifndef BELFRY_SHARED_EMIT_H
#define BELFRY_SHARED_EMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/keys.h"
#include "shared/message.h"
#include "shared/text.h"
#include "shared/uuid7.h"

extern const char emit_script[];
/* SHA-1 of emit_script in hex, as EVALSHA wants it; belfry-protocol(7) prints it and a test compares. */
extern const char emit_script_sha[41];


/* Filled command; free with emit_command_free. */
struct emit_command {
    char id[UUID7_TEXT_BYTES];
    int argc;
    const char *argv[12]; /* argv[0] "EVALSHA", argv[1] the SHA: callers replace both for EVAL after NOSCRIPT */
    size_t argvlen[12];
    struct text_buf storage[6];
};

struct emit_rules {
    const struct keys *keys;
    struct message_style style;
    int64_t history_size;
    int64_t history_ttl_ms;
};

/* Event to one user. type as given by the caller, written in the style's case when the table has it, else untouched; payload: raw JSON
 * object. store: as the type's row says (unknown types are stored), false: never. 0 or -ENOMEM. */
int emit_prepare_user(struct emit_command *c, const struct emit_rules *rules, const char *user_id, const char *type,
                      struct text_span payload, bool store);
/* Broadcast: published only, user_id "system". */
int emit_prepare_broadcast(struct emit_command *c, const struct emit_rules *rules, const char *type,
                           struct text_span payload);
void emit_command_free(struct emit_command *c);

#endif
