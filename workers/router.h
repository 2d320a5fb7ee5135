/*
 * router.h - the table of HTTP endpoints, and how a handler answers.
 *
 * Finds the row for path and method (404, 405 with Allow; HEAD where GET works), checks who asks
 * (anyone, the user itself, administrators: 401, 403), asking Redis of the token where it must
 * (admission.h), calls the handler (api.h). A handler answers at once, or keeps its struct reply
 * until Redis answered; the connection reads no further meanwhile. When it dies first,
 * reply_abandon cancels the call that the answer waits for. Error bodies have one form.
 */
#ifndef BELFRY_WORKERS_ROUTER_H
#define BELFRY_WORKERS_ROUTER_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"
#include "shared/token.h"
#include "workers/conn.h"
#include "workers/http.h"

struct store_call; /* store.h */

#define ROUTER_PATH_BYTES 128 /* of a path are shown in an error */

/* One answer. Made by the router; freed when it is sent, or when its connection died. */
struct reply {
    struct conn *conn;
    struct worker *worker;
    struct reply *next, *prev;  /* all of the worker: router_free lets go of those left */
    struct store_call *waiting; /* what the answer waits for; the callback sets it NULL first */
    void *data;                 /* the handler's, freed by free_data with the reply */
    void (*free_data)(void *data);
    struct entry *entry;        /* who asks is not known yet; NULL: is */
    bool head_only;
    bool keep_alive;
    char path[ROUTER_PATH_BYTES]; /* for error bodies: escaped, cut */
    char request_id[40];
};

struct router *router_new(struct worker *w);
/* Cancels and frees the answers still awaited: before store_free. */
void router_free(struct router *r);

/* A whole request that is no valid upgrade of its path. True: h is the router's from now on. */
bool router_serve(struct conn *c, struct http *h);
/* A request that could not be parsed, or none yet (h NULL): the error answer, after which the
 * connection ends. */
void router_refuse(struct conn *c, const struct http *h, int status);
/* A fresh socket that nobody will serve: answered as far as it takes that, and not in the clear
 * where TLS is spoken. It is to be closed next. */
void router_refuse_socket(const struct worker *w, int fd, const struct worker_listener *listener,
                          int status, const char *message);
/* The connection dies while its reply is awaited: called by conn.c. Frees the reply. */
void reply_abandon(struct reply *r);

/* Answers and frees the reply. */
void reply_send(struct reply *r, int status, const char *content_type, struct text_span body);
/* The same with header lines, which are freed; 500 when their memory failed. */
void reply_with_headers(struct reply *r, int status, const char *content_type,
                        struct text_buf *headers, struct text_span body);
/* The same with a JSON text, which is freed; 500 when its memory failed. */
void reply_json(struct reply *r, int status, struct text_buf *body);
/* {"error": true, "message", "error_code", "status_code", "timestamp", "path", "request_id",
 * "detail"}; extra: header lines or NULL. */
void reply_error(struct reply *r, int status, const char *message, const char *extra);
/* extra of a 503 that may be over soon. */
#define ROUTER_RETRY_AFTER "Retry-After: 5\r\n"
/* The same body for refusals of the handshake. path may be NULL. */
void router_error_response(const struct worker *w, struct text_buf *out, int status,
                           const char *message, const char *path, const char *extra,
                           bool keep_alive, bool head_only);

#endif
