/*
 * handshake.h - request -> 101 or a refusal. RFC 6455, section 4.2.
 *
 * Decides in this order: method 405, version of HTTP 400, upgrade headers 400 or 426, key 400, body
 * 400, origin 403, query 400, limits and memory 503, bad tokens of the address 429, token (401 with
 * auth-failure = http; else the upgrade completes and the socket is closed with 4001), connections
 * of the address behind a proxy 429. Finds the token: query, Authorization, subprotocol
 * bearer.TOKEN; none of them: first frame.
 *
 * Subprotocols: belfry.v1 is chosen when it is offered, nothing else ever is, least of all
 * bearer.TOKEN. A browser that offered a token must offer belfry.v1 beside it, since it ends a
 * connection whose server chose none of several.
 */
#ifndef BELFRY_WORKERS_HANDSHAKE_H
#define BELFRY_WORKERS_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/options.h"
#include "shared/text.h"
#include "workers/conn.h"
#include "workers/http.h"

#define HANDSHAKE_SUBPROTOCOL "belfry.v1"

/* True for paths at which a WebSocket is served: /ws, the profile's alias, /echo when it is on. */
bool handshake_is_path(const struct options *opt, struct text_span path);
/* Serves a whole request for such a path: queues 101 or the refusal on c. */
void handshake_serve(struct conn *c, const struct http *h);
/* Sec-WebSocket-Accept of a key: 28 characters and a NUL. */
void handshake_accept_key(struct text_span key, char out[29]);
/* True when the key is base64 of 16 bytes. */
bool handshake_is_key(struct text_span key);
/* True when the origin may connect: any when the list is empty; else scheme and host in any case,
 * the rest exactly. */
bool handshake_is_origin_allowed(const struct text_list *origins, struct text_span origin);
/* The token a request carries: query token (percent-decoded into buf), Authorization: Bearer, or
 * (websocket only) subprotocol bearer.TOKEN. False when there is none. */
bool handshake_find_token(const struct http *h, bool with_subprotocol, char *buf, size_t cap,
                          struct text_span *token);

#endif
