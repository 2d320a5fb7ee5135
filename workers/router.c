#include "config.h"

#include "workers/router.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "shared/uuid7.h"
#include "workers/admission.h"
#include "workers/api.h"
#include "workers/auth.h"
#include "workers/handshake.h"
#include "workers/pages.h"
#include "workers/store.h"

#define CHALLENGE "WWW-Authenticate: Bearer\r\n"
#define NO_REDIS "Redis is not available"

struct router {
    struct worker *worker;
    struct reply *replies;
};

enum method { METHOD_GET = 1, METHOD_POST = 2 }; /* HEAD goes with GET */
enum who { ANYONE, USER_OR_ADMIN, ADMIN };

/* {user_id} at the end of a pattern is one path segment. */
static const struct route {
    const char *pattern;
    unsigned methods;
    enum who who;
    bool on_metrics; /* served on metrics-listen, and there only */
    void (*handler)(const struct request *rq);
} routes[] = {
    {"/ws/health", METHOD_GET, ANYONE, false, api_health},
    {"/ws/stats", METHOD_GET, ADMIN, false, api_stats},
    {"/ws/explain", METHOD_GET, ADMIN, false, api_explain},
    {"/ws/test-message/{user_id}", METHOD_POST, USER_OR_ADMIN, false, api_test_message},
    {"/ws/broadcast", METHOD_POST, ADMIN, false, api_broadcast},
    {"/metrics", METHOD_GET, ANYONE, true, api_metrics},
};

/* A request whose token Redis is asked of: all of it is kept until then. */
struct entry {
    const struct route *route;
    struct http *http;
    struct text_span raw_user; /* within it */
    struct token_claims claims;
};

/* ---- replies ---- */

struct router *router_new(struct worker *w)
{
    struct router *r = calloc(1, sizeof(*r));
    if (r)
        r->worker = w;
    return r;
}

static void entry_free(struct entry *e)
{
    if (!e)
        return;
    http_free(e->http);
    free(e);
}

static void reply_free(struct reply *r)
{
    struct router *router = r->worker->router;
    store_cancel(r->waiting);
    if (r->free_data)
        r->free_data(r->data);
    entry_free(r->entry);
    if (r->next)
        r->next->prev = r->prev;
    if (r->prev)
        r->prev->next = r->next;
    else
        router->replies = r->next;
    free(r);
}

void router_free(struct router *r)
{
    if (!r)
        return;
    while (r->replies) {
        if (r->replies->conn)
            r->replies->conn->reply = NULL;
        reply_free(r->replies);
    }
    free(r);
}

void reply_abandon(struct reply *r)
{
    if (r)
        reply_free(r);
}

/* Takes the reply off its connection and answers there. */
static void send_response(struct reply *r, int status, const char *content_type,
                          const char *extra, struct text_span body)
{
    struct conn *c = r->conn;
    struct text_buf headers = {0}, response = {0};
    text_addf(&headers, "%sX-Request-ID: %s\r\n", extra ? extra : "", r->request_id);
    http_respond(&response, status, content_type, headers.data, body, r->keep_alive,
                 r->head_only);
    bool keep_alive = r->keep_alive && !headers.failed;
    c->reply = NULL;
    reply_free(r);
    if (response.failed)
        conn_drop(c, CLOSE_INTERNAL);
    else
        conn_send_http(c, &response, keep_alive);
    text_buf_free(&headers);
    text_buf_free(&response);
}

void reply_send(struct reply *r, int status, const char *content_type, struct text_span body)
{
    send_response(r, status, content_type, NULL, body);
}

void reply_with_headers(struct reply *r, int status, const char *content_type,
                        struct text_buf *headers, struct text_span body)
{
    if (headers->failed)
        reply_error(r, 500, "Out of memory", NULL);
    else
        send_response(r, status, content_type, headers->data, body);
    text_buf_free(headers);
}

void reply_json(struct reply *r, int status, struct text_buf *body)
{
    if (body->failed)
        reply_error(r, 500, "Out of memory", NULL);
    else
        reply_send(r, status, "application/json", (struct text_span){body->data, body->len});
    text_buf_free(body);
}

static void add_error_code(struct text_buf *out, int status)
{
    static const struct {
        int status;
        const char *code;
    } codes[] = {
        {401, "AUTHENTICATION_ERROR"},    {403, "AUTHORIZATION_ERROR"},
        {404, "RESOURCE_NOT_FOUND"},      {422, "VALIDATION_ERROR"},
        {429, "RATE_LIMIT_EXCEEDED"},     {502, "EXTERNAL_SERVICE_ERROR"},
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].status == status) {
            text_adds(out, codes[i].code);
            return;
        }
    }
    text_addf(out, "HTTP_%d", status);
}

static void error_body(struct text_buf *out, int status, const char *message, const char *path,
                       const char *request_id, bool with_zone)
{
    char now[CLOCK_ISO_BYTES];
    clock_format_us(clock_wall_us(), with_zone, now);
    text_adds(out, "{\"error\":true,\"message\":");
    text_add_json(out, message, strlen(message));
    text_adds(out, ",\"error_code\":\"");
    add_error_code(out, status);
    text_addf(out, "\",\"status_code\":%d,\"timestamp\":\"%s\",\"path\":", status, now);
    text_add_json(out, path, strlen(path));
    text_addf(out, ",\"request_id\":\"%s\",\"detail\":", request_id);
    text_add_json(out, message, strlen(message));
    text_addc(out, '}');
}

void reply_error(struct reply *r, int status, const char *message, const char *extra)
{
    struct text_buf body = {0};
    error_body(&body, status, message, r->path, r->request_id, r->worker->style.with_zone);
    send_response(r, status, "application/json", extra, (struct text_span){body.data, body.len});
    text_buf_free(&body);
}

void router_error_response(const struct worker *w, struct text_buf *out, int status,
                           const char *message, const char *path, const char *extra,
                           bool keep_alive, bool head_only)
{
    char id[UUID7_TEXT_BYTES];
    struct text_buf headers = {0}, body = {0};
    uuid7_make(id);
    error_body(&body, status, message, path ? path : "", id, w->style.with_zone);
    text_addf(&headers, "X-Request-ID: %s\r\n%s", id, extra ? extra : "");
    if (headers.failed || body.failed)
        out->failed = true;
    else
        http_respond(out, status, "application/json", headers.data,
                     (struct text_span){body.data, body.len}, keep_alive, head_only);
    text_buf_free(&headers);
    text_buf_free(&body);
}

void router_refuse(struct conn *c, const struct http *h, int status)
{
    struct text_span raw = h ? http_path(h) : (struct text_span){0};
    /* Only a method that nothing here knows is found before the path is. */
    const char *extra = status == 405 ? "Allow: GET, HEAD, POST\r\n" : NULL;
    struct text_buf path = {0}, response = {0};
    text_add_escaped(&path, raw.ptr, raw.len, ROUTER_PATH_BYTES);
    router_error_response(c->worker, &response, status, http_status_text(status), path.data, extra,
                          false, false);
    if (response.failed)
        conn_drop(c, CLOSE_INTERNAL);
    else
        conn_send_http(c, &response, false);
    text_buf_free(&path);
    text_buf_free(&response);
}

void router_refuse_socket(const struct worker *w, int fd, const struct worker_listener *listener,
                          int status, const char *message)
{
    struct text_buf response = {0};
    char said[4096];
    if (listener->is_tls)
        return;
    router_error_response(w, &response, status, message, NULL, ROUTER_RETRY_AFTER, false, false);
    if (response.data && !response.failed)
        send(fd, response.data, response.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    text_buf_free(&response);
    /* Closed over what was not read, TCP would reset, and the answer might not arrive. */
    (void)!recv(fd, said, sizeof(said), MSG_DONTWAIT);
}

static struct reply *reply_new(struct conn *c, const struct http *h)
{
    struct router *router = c->worker->router;
    struct reply *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->conn = c;
    r->worker = c->worker;
    r->head_only = strcmp(http_method(h), "HEAD") == 0;
    r->keep_alive = http_keep_alive(h) && !c->worker->is_draining;
    uuid7_make(r->request_id);

    struct text_span path = http_path(h);
    struct text_buf escaped = {0};
    text_add_escaped(&escaped, path.ptr, path.len, sizeof(r->path));
    if (!escaped.failed && escaped.len) {
        size_t len = escaped.len < sizeof(r->path) ? escaped.len : sizeof(r->path) - 1;
        memcpy(r->path, escaped.data, len);
    }
    text_buf_free(&escaped);

    r->next = router->replies;
    if (r->next)
        r->next->prev = r;
    router->replies = r;
    c->reply = r;
    return r;
}

/* ---- finding the handler ---- */

/* user_id: the undecoded segment, ptr NULL when the pattern has none. */
static bool route_matches(const struct route *route, struct text_span path,
                          struct text_span *user_id)
{
    const char *brace = strchr(route->pattern, '{');
    *user_id = (struct text_span){NULL, 0};
    if (!brace)
        return text_span_eq(path, route->pattern);
    size_t prefix = (size_t)(brace - route->pattern);
    if (path.len <= prefix || memcmp(path.ptr, route->pattern, prefix) != 0 ||
        memchr(path.ptr + prefix, '/', path.len - prefix))
        return false;
    *user_id = (struct text_span){path.ptr + prefix, path.len - prefix};
    return true;
}

static const struct route *find_route(const struct conn *c, struct text_span path,
                                      struct text_span *user_id)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (routes[i].on_metrics == c->is_metrics && route_matches(&routes[i], path, user_id))
            return &routes[i];
    }
    return NULL;
}

static unsigned method_bit(const char *method)
{
    if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
        return METHOD_GET;
    return strcmp(method, "POST") == 0 ? METHOD_POST : 0;
}

static void refuse_token(struct reply *r, enum token_result result)
{
    struct text_buf message = {0};
    auth_failed(r->conn, token_result_text(result));
    text_addf(&message, "Authentication failed: %s", token_result_text(result));
    reply_error(r, 401, message.failed ? "Authentication failed" : message.data, CHALLENGE);
    text_buf_free(&message);
}

/* True when the request carries a good token; otherwise 401 was answered. */
static bool authenticate(const struct request *rq, struct token_claims *claims)
{
    char buf[TOKEN_MAX_BYTES + 1];
    struct text_span token;
    if (!handshake_find_token(rq->http, false, buf, sizeof(buf), &token)) {
        reply_error(rq->reply, 401, "A token is required", CHALLENGE);
        return false;
    }
    if (!auth_may_try(rq->reply->conn)) {
        reply_error(rq->reply, 429, AUTH_TOO_MANY, AUTH_RETRY_AFTER);
        return false;
    }
    enum token_result result = token_verify(rq->worker->start->token_keys, token.ptr, token.len,
                                            clock_wall_ms(), claims);
    if (result != TOKEN_OK)
        refuse_token(rq->reply, result);
    return result == TOKEN_OK;
}

/* Decodes the path's user id; answers 400 or 422 and returns false when it is none. */
static bool read_user_id(struct request *rq, struct text_span raw, char *buf, size_t cap)
{
    int len = text_percent_decode(raw, false, buf, cap);
    if (len == -EINVAL) {
        reply_error(rq->reply, 400, "user_id: bad percent-encoding", NULL);
        return false;
    }
    if (len < 0 || !keys_is_user_id(buf, (size_t)len)) {
        reply_error(rq->reply, 422, "user_id: must be 1 to 256 bytes of text", NULL);
        return false;
    }
    rq->user_id = buf;
    rq->user_id_len = (size_t)len;
    return true;
}

static bool is_allowed(const struct route *route, const struct request *rq)
{
    if (rq->claims->is_admin)
        return true;
    return route->who == USER_OR_ADMIN && rq->user_id_len == rq->claims->user_id_len &&
           memcmp(rq->user_id, rq->claims->user_id, rq->user_id_len) == 0;
}

/* Who asks is known. */
static void serve_known(const struct route *route, struct request *rq, struct text_span raw_user)
{
    char user_id[KEYS_USER_ID_MAX_BYTES + 1];
    if (raw_user.ptr && !read_user_id(rq, raw_user, user_id, sizeof(user_id)))
        return;
    if (route->who != ANYONE && !is_allowed(route, rq)) {
        reply_error(rq->reply, 403, "Administrator rights are required", NULL);
        return;
    }
    route->handler(rq);
}

/* ---- what Redis knows of the token ---- */

static void serve_entry(struct reply *r)
{
    struct entry *e = r->entry;
    struct request rq = {.worker = r->worker, .http = e->http, .reply = r, .claims = &e->claims};
    r->entry = NULL; /* the handler's answer may be sent, and the reply be freed, at once */
    serve_known(e->route, &rq, e->raw_user);
    entry_free(e);
}

static void on_user(void *data, int error, struct text_span answer)
{
    struct reply *r = data;
    r->waiting = NULL;
    if (error)
        reply_error(r, 503, NO_REDIS, ROUTER_RETRY_AFTER);
    else if (!admission_take_user(&r->entry->claims, answer))
        refuse_token(r, TOKEN_NO_USER);
    else
        serve_entry(r);
}

static void ask_user(struct reply *r)
{
    if (!admission_maps(r->worker)) {
        serve_entry(r);
        return;
    }
    r->waiting = admission_ask_user(r->worker, &r->entry->claims, on_user, r);
    if (!r->waiting)
        reply_error(r, 503, NO_REDIS, ROUTER_RETRY_AFTER);
}

/* Without an answer it goes on, as connections do. */
static void on_revoked(void *data, int error, int64_t is_revoked)
{
    struct reply *r = data;
    r->waiting = NULL;
    if (!error && is_revoked)
        refuse_token(r, TOKEN_REVOKED);
    else
        ask_user(r);
}

static void ask_redis(struct reply *r)
{
    const struct token_claims *claims = &r->entry->claims;
    if (claims->jti_len)
        r->waiting = admission_ask_revoked(
            r->worker, (struct text_span){claims->jti, claims->jti_len}, on_revoked, r);
    if (!r->waiting)
        ask_user(r);
}

/* True: http is kept. */
static bool serve_route(const struct route *route, struct request *rq, struct http *http,
                        struct text_span raw_user)
{
    struct token_claims claims;
    if (route->who == ANYONE) {
        serve_known(route, rq, raw_user);
        return false;
    }
    if (!authenticate(rq, &claims))
        return false;
    rq->claims = &claims;
    if (!claims.jti_len && !admission_maps(rq->worker)) {
        serve_known(route, rq, raw_user);
        return false;
    }
    struct entry *e = calloc(1, sizeof(*e));
    if (!e) {
        reply_error(rq->reply, 500, "Out of memory", NULL);
        return false;
    }
    *e = (struct entry){.route = route, .http = http, .raw_user = raw_user, .claims = claims};
    rq->reply->entry = e;
    ask_redis(rq->reply);
    return true;
}

bool router_serve(struct conn *c, struct http *h)
{
    struct request rq = {.worker = c->worker, .http = h, .reply = reply_new(c, h)};
    if (!rq.reply) {
        conn_drop(c, CLOSE_INTERNAL);
        return false;
    }
    struct text_span user_id;
    const struct route *route = find_route(c, http_path(h), &user_id);
    const struct page *page = NULL;
    if (!route && !c->is_metrics)
        page = pages_find(c->worker->start->pages, http_path(h));
    if (page && method_bit(http_method(h)) == METHOD_GET)
        pages_serve(&rq, page);
    else if (page)
        reply_error(rq.reply, 405, "Method not allowed", "Allow: GET, HEAD\r\n");
    else if (!route && !c->is_metrics && handshake_is_path(c->worker->opt, http_path(h)))
        reply_error(rq.reply, 405, "Method not allowed", "Allow: GET\r\n");
    else if (!route)
        reply_error(rq.reply, 404, "Not found", NULL);
    else if (!(route->methods & method_bit(http_method(h))))
        reply_error(rq.reply, 405, "Method not allowed",
                    route->methods == METHOD_POST ? "Allow: POST\r\n" : "Allow: GET, HEAD\r\n");
    else
        return serve_route(route, &rq, h, user_id);
    return false;
}
