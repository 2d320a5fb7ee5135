/*
 * commands.h - what a client may say: {"type","payload"} -> reply. One table of commands; each handler says its reply or an error, and the connection stays.
 *
 * A type's case is remembered from the command and used in its reply. belfry-protocol(7), "Commands".
 */
#ifndef BELFRY_WORKERS_COMMANDS_H
#define BELFRY_WORKERS_COMMANDS_H

#include <stddef.h>

#include "workers/conn.h"

/* One whole text message (valid UTF-8, not NUL-terminated), in state CONN_AUTH or CONN_OPEN. */
void commands_on_message(struct conn *c, const char *text, size_t len);

#endif
