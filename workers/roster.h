/*
 * roster.h - one connection's state as JSON, for `belfryctl show`.
 *
 * Reads only; two or three system calls for each connection. Nothing of a payload or a token is
 * told but the token's id.
 *
 * {"id", "worker", "user": TEXT or null,
 *  "state": "proxy", "tls", "http", "auth", "open", "closing",
 *  "family": "ipv4", "ipv6", "unix" or "unknown",
 *  "address": "unix", "loopback", "private", "public" or "unknown",
 *  "client": the address, or null: none is known, "tls": bool,
 *  "admin": bool, "compression": bool, "opened_at", "last_read_at",
 *  "ping_sent_at": null unless a pong is awaited, "token_expires_at": with jwt-leeway; null: never,
 *  "token_id": the jti, null when it cannot be revoked by it,
 *  "received_bytes", "sent_bytes", "acknowledged_bytes": by the client's TCP,
 *  "queued_bytes", "blocked": bool (the kernel takes no more),
 *  "device": null or {"state": "attaching", "repairing", "live", "lag": null or
 *    {"since", "owed_messages"}, "user_devices": n (on this worker), "subscription": "none",
 *    "wanted", "sent", "confirmed", "filter": what filter_describe writes},
 *  "close": null or {"reason", "code", "frame_sent", "frame_received", "at": null: no frame yet}}
 * Times are ISO 8601 in UTC.
 */
#ifndef BELFRY_WORKERS_ROSTER_H
#define BELFRY_WORKERS_ROSTER_H

#include "shared/text.h"

struct conn;

void roster_write(const struct conn *c, struct text_buf *out);

#endif
