/*
 * commands.h - what a client may say: {"type","payload"} -> reply. One table of commands; each
 * handler says its reply or an error, and the connection stays.
 *
 * The case of a reply's type is the command's: lower when the command has no upper-case letter,
 * upper when it has no lower-case letter, else event-case. belfry-protocol(7), "Commands".
 */
#ifndef BELFRY_WORKERS_COMMANDS_H
#define BELFRY_WORKERS_COMMANDS_H

#include <stddef.h>

#include "workers/conn.h"

#define COMMANDS_MAX_READ_IDS 10000 /* the most that history-size stores: all at once */
#define COMMANDS_MAX_ID_BYTES 256

/* One whole text message (valid UTF-8, not NUL-terminated), in state CONN_AUTH or CONN_OPEN. Frees
 * nothing; may start closing c. */
void commands_on_message(struct conn *c, const char *text, size_t len);
/* The reply to an auth frame whose user was looked up first. */
void commands_auth_ok(struct conn *c, const struct token_claims *claims, bool is_lower);

#endif
