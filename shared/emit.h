/*
 * emit.h - one event as Belfry writes it to Redis: the command's arguments, and the atomic script's
 * text and SHA.
 *
 * Workers (HTTP endpoints, asynchronously), libbelfry and belfryctl (synchronously): whoever sends
 * commands to Redis builds them here, so that there is one script. Pure. The payload is not
 * checked: see events_check_payload and json_scan_object. https://redis.io/commands/eval/
 *
 * The script stores the message (LPUSH, LTRIM, EXPIRE), keeps the snapshot (SET ... EX) and
 * publishes, all or nothing. KEYS: list, snapshot (both always, as clusters want; they need one
 * hash tag there). ARGV: channel, live message ("": do not publish), stored message ("": do not
 * store), history-size, history-ttl in seconds, snapshot payload ("": leave). Reply: integer,
 * number of subscribers the publication reached. The live and the stored copy have the same id and
 * timestamp; only the live one has "channel".
 */
#ifndef BELFRY_SHARED_EMIT_H
#define BELFRY_SHARED_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/keys.h"
#include "shared/message.h"
#include "shared/text.h"
#include "shared/uuid7.h"

extern const char emit_script[];
/* SHA-1 of emit_script in hex, as EVALSHA wants it; belfry-protocol(7) prints it, a test compares.
 * */
extern const char emit_script_sha[41];

/* Filled command: owns all it points to; free with emit_command_free. */
struct emit_command {
    char id[UUID7_TEXT_BYTES];
    int argc;
    const char *argv[12]; /* user: "EVALSHA", the SHA, ...; broadcast: "PUBLISH", ... */
    size_t argvlen[12];
    struct text_buf storage[6];
};

struct emit_rules {
    const struct keys *keys;
    struct message_style style;
    int64_t history_size;
    int64_t history_ttl_ms;
};

/* Event to one user. type as given by the caller, written in the style's case when the table has
 * it, else untouched; payload: raw JSON object. store: as the type's row says (unknown types are
 * stored), false: neither list nor snapshot. 0 or -ENOMEM; *c is filled in either case and must be
 * freed. */
int emit_prepare_user(struct emit_command *c, const struct emit_rules *rules, const char *user_id,
                      const char *type, struct text_span payload, bool store);
/* Broadcast: published only, by a plain PUBLISH (there is nothing to be atomic with, and no
 * NOSCRIPT); user_id "system". Returns as emit_prepare_user. */
int emit_prepare_broadcast(struct emit_command *c, const struct emit_rules *rules, const char *type,
                           struct text_span payload);
/* After a NOSCRIPT error: turns EVALSHA into EVAL with the script's text. Others stay as they are.
 * */
void emit_use_eval(struct emit_command *c);
/* True for the text of an error reply that asks for emit_use_eval. */
bool emit_is_noscript(const char *error);
/* NULL and zero-initialised commands are fine. */
void emit_command_free(struct emit_command *c);

#endif
