/*
 * router.h - the table of HTTP endpoints, and how a handler answers.
 *
 * Finds the row for path and method (404, 405 with Allow; HEAD where GET works), checks who asks (anyone, the user itself, administrators: 401, 403), calls the
 * handler. A handler answers at once, or holds its struct reply until Redis answered; the connection reads no further meanwhile, and
 * when it dies first, the reply's conn is NULL. Error bodies have one form.
 */
#ifndef BELFRY_WORKERS_ROUTER_H
#define BELFRY_WORKERS_ROUTER_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"
#include "shared/token.h"
#include "workers/conn.h"
#include "workers/http.h"

/* One answer. Made by the router, freed when it is sent or when the connection died and the handler let go of it. */
struct reply {
    struct conn *conn; /* NULL: the connection is gone; only reply_send may be called, which then frees */
    bool head_only;
    bool keep_alive;
    char path[128];    /* for error bodies: escaped, cut */
    char request_id[40];
};

struct router *router_new(struct worker *w);
void router_free(struct router *r);

/* A whole request that is no valid upgrade of its path. */
void router_serve(struct conn *c, const struct http *h);
/* A request that could not be parsed: the error answer, after which the connection ends. */
void router_refuse(struct conn *c, int status);
/* The connection dies while its reply is awaited: called by conn.c. */
void reply_abandon(struct reply *r);

/* Answers and frees the reply. */
void reply_send(struct reply *r, int status, const char *content_type, struct text_span body);
/* {"error": true, "message", "error_code", "status_code", "timestamp", "path", "request_id"}; extra: header lines or NULL. */
void reply_error(struct reply *r, int status, const char *message, const char *extra);
/* The same body for refusals of the handshake. */
void router_error_response(struct text_buf *out, int status, const char *message, const char *path, const char *extra,
                           bool keep_alive, bool head_only);

#endif
