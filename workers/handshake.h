/*
 * handshake.h - request -> 101 or a refusal. RFC 6455, section 4.2.
 *
 * Decides in this order: method 405, version of HTTP 400, upgrade headers 400 or 426, key 400, origin 403, limits 503, token (401 with auth-failure = http; else the upgrade completes and
 * the socket is closed with 4001). Finds the token: query, Authorization, subprotocol bearer.TOKEN; none of them: first frame.
 */
#ifndef BELFRY_WORKERS_HANDSHAKE_H
#define BELFRY_WORKERS_HANDSHAKE_H

#include <stddef.h>

#include "shared/text.h"
#include "workers/conn.h"
#include "workers/http.h"

/* Serves GET /ws for a whole request: queues 101 or the refusal on c. */
void handshake_serve(struct conn *c, const struct http *h);
/* Sec-WebSocket-Accept of a key: 28 characters and a NUL. */
void handshake_accept_key(struct text_span key, char out[29]);
/* The token a request carries: query token (percent-decoded into buf), Authorization: Bearer, or (websocket only) subprotocol bearer.TOKEN. False when
 * there is none. */
bool handshake_find_token(const struct http *h, bool with_subprotocol, char *buf, size_t cap, struct text_span *token);

#endif
