/*
 * http.h - HTTP/1.1 requests in (llhttp), responses out. RFC 9110, RFC 9112. The only file that
 * knows llhttp.
 *
 * An object exists only while a request is under way. Bytes are fed as they come; head and body are
 * bounded while they arrive. Stricter than llhttp where leniency has been the door for request
 * smuggling: lines end in CR LF, no folded headers, no control characters, exactly one Host, one
 * transfer coding.
 */
#ifndef BELFRY_WORKERS_HTTP_H
#define BELFRY_WORKERS_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

#define HTTP_MAX_HEADERS 100

struct http;

struct http_limits {
    size_t max_head_bytes;
    size_t max_body_bytes;
};

/* The limits are copied. NULL without memory. */
struct http *http_new(const struct http_limits *limits);
void http_free(struct http *h);
/* Memory of head and body so far. Accepts NULL. */
size_t http_held_bytes(const struct http *h);

/* Feeds bytes; *used says how many belong to this request. 1: the request is whole; 0: more is
 * needed; negative: -status to answer with (400, 405 method unknown, 413 body, 431 head, 501
 * transfer coding, 503 no memory, 505 version), after which the connection must end. Nothing is
 * used past the end of a whole request: what follows an upgrade is of the protocol changed to. */
int http_feed(struct http *h, const char *bytes, size_t len, size_t *used);
/* True once the head is whole (Expect: 100-continue may be answered). */
bool http_is_started(const struct http *h);

const char *http_method(const struct http *h);
/* Undecoded, without query; of a request that was refused, as far as it came. */
struct text_span http_path(const struct http *h);
struct text_span http_query(const struct http *h); /* without '?' */
/* Value of a header by name in any case, surrounding blanks trimmed; several are joined by ", ".
 * False when absent. The span lives as long as the request. */
bool http_header(const struct http *h, const char *name, struct text_span *value);
/* Number of times the header stands there. */
int http_header_count(const struct http *h, const char *name);
/* True when a comma-separated header holds the token, in any case. */
bool http_header_has(const struct http *h, const char *name, const char *token);
struct text_span http_body(const struct http *h);
bool http_is_upgrade(const struct http *h); /* asks for Upgrade: websocket or any other */
bool http_keep_alive(const struct http *h);
int http_minor_version(const struct http *h);

/* Next item of a comma-separated value, blanks trimmed, empty ones skipped; *rest moves on. False
 * at the end. */
bool http_list_next(struct text_span *rest, struct text_span *item);

/* Reason phrase of a status. */
const char *http_status_text(int status);
/* Appends status line, Date, Content-Type, Content-Length, Connection, X-Content-Type-Options, the
 * extra header lines ("Name: value\r\n..." or NULL), before them Cache-Control: no-store unless
 * they begin with a Cache-Control of their own, and the body unless head_only. content_type NULL:
 * none. 304 has no Content-Length. */
void http_respond(struct text_buf *out, int status, const char *content_type, const char *extra,
                  struct text_span body, bool keep_alive, bool head_only);

#endif
