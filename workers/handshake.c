#include "config.h"

#include "workers/handshake.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "shared/message.h"
#include "shared/token.h"
#include "workers/auth.h"
#include "workers/extensions.h"
#include "workers/filter.h"
#include "workers/pressure.h"
#include "workers/router.h"
#include "workers/session.h"

#define KEY_CHARS 24
#define SHA1_BYTES 20
#define VERSION_HEADER "Sec-WebSocket-Version: 13\r\n"
#define UPGRADE_HEADERS "Upgrade: websocket\r\nConnection: Upgrade\r\n" VERSION_HEADER
#define CHALLENGE "WWW-Authenticate: Bearer\r\n"
#define QUERY_VALUE_MAX_BYTES TOKEN_MAX_BYTES

/* ---- keys and origins ---- */

static bool is_base64(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           c == '+' || c == '/';
}

bool handshake_is_key(struct text_span key)
{
    if (key.len != KEY_CHARS || memcmp(key.ptr + KEY_CHARS - 2, "==", 2) != 0)
        return false;
    for (size_t i = 0; i < KEY_CHARS - 2; i++)
        if (!is_base64(key.ptr[i]))
            return false;
    return true;
}

void handshake_accept_key(struct text_span key, char out[29])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[KEY_CHARS + sizeof guid];
    size_t len = key.len < KEY_CHARS ? key.len : KEY_CHARS;
    memcpy(text, key.ptr, len);
    memcpy(text + len, guid, sizeof guid - 1);
    out[0] = 0;
    /* EVP_sha1() would be looked up in OpenSSL's providers for each handshake. */
    static EVP_MD *sha1;
    if (!sha1)
        sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
    if (sha1 && EVP_Digest(text, len + sizeof guid - 1, digest, NULL, sha1, NULL))
        EVP_EncodeBlock((unsigned char *)out, digest, SHA1_BYTES);
}

bool handshake_is_origin_allowed(const struct text_list *origins, struct text_span origin)
{
    if (origins->count == 0)
        return true;
    /* Scheme, host and port are all there is, and digits have no case. */
    for (size_t i = 0; i < origins->count; i++)
        if (text_span_ieq(origin, origins->items[i]))
            return true;
    return false;
}

bool handshake_is_path(const struct options *opt, struct text_span path)
{
    return text_span_eq(path, "/ws") ||
           (opt->profile == PROFILE_FINANCE_TRACKER && text_span_eq(path, "/ws/realtime")) ||
           (opt->echo == CHOICE_ON && text_span_eq(path, "/echo"));
}

/* ---- finding the token ---- */

/* Decoded value of a query parameter. Its length; 0: absent or empty; -EINVAL or -ENOSPC. */
static int query_value(const struct http *h, const char *name, char *out, size_t cap)
{
    struct text_span raw;
    if (!text_query_find(http_query(h), name, &raw))
        return 0;
    return text_percent_decode(raw, true, out, cap);
}

static bool bearer_header(const struct http *h, struct text_span *token)
{
    static const char scheme[] = "Bearer ";
    struct text_span value;
    if (!http_header(h, "Authorization", &value) || value.len < sizeof scheme ||
        strncasecmp(value.ptr, scheme, sizeof scheme - 1) != 0)
        return false;
    value.ptr += sizeof scheme - 1;
    value.len -= sizeof scheme - 1;
    while (value.len > 0 && value.ptr[0] == ' ') {
        value.ptr++;
        value.len--;
    }
    *token = value;
    return value.len > 0;
}

static bool bearer_subprotocol(const struct http *h, struct text_span *token)
{
    static const char prefix[] = "bearer.";
    struct text_span rest, item;
    if (!http_header(h, "Sec-WebSocket-Protocol", &rest))
        return false;
    while (http_list_next(&rest, &item)) {
        if (item.len >= sizeof prefix && memcmp(item.ptr, prefix, sizeof prefix - 1) == 0) {
            *token = (struct text_span){item.ptr + sizeof prefix - 1, item.len - sizeof prefix + 1};
            return true;
        }
    }
    return false;
}

/* 1: found; 0: there is none; -EINVAL: the query's cannot be read. */
static int find_token(const struct http *h, bool with_subprotocol, char *buf, size_t cap,
                      struct text_span *token)
{
    int len = query_value(h, "token", buf, cap);
    if (len == -ENOSPC) /* too long for a token: a bad one, as its length tells token_verify */
        return text_query_find(http_query(h), "token", token);
    if (len < 0)
        return len;
    if (len > 0) {
        *token = (struct text_span){buf, (size_t)len};
        return 1;
    }
    return bearer_header(h, token) || (with_subprotocol && bearer_subprotocol(h, token));
}

bool handshake_find_token(const struct http *h, bool with_subprotocol, char *buf, size_t cap,
                          struct text_span *token)
{
    return find_token(h, with_subprotocol, buf, cap, token) > 0;
}

/* ---- what the query asks for ---- */

struct wishes {
    char *token_buf;       /* TOKEN_MAX_BYTES + 1; apart, so that nobody zeroes all of it */
    struct text_span token;
    bool has_token;
    struct resume *resume; /* NULL: none */
    struct filter *filter; /* NULL: everything */
};

static struct resume *wishes_resume(struct wishes *wishes)
{
    if (!wishes->resume)
        wishes->resume = calloc(1, sizeof *wishes->resume);
    return wishes->resume;
}

/* Each returns 0 or a negative errno. */
static int read_last_id(const struct http *h, struct wishes *wishes, char *buf, size_t cap)
{
    int len = query_value(h, "last_id", buf, cap);
    if (len <= 0)
        return len;
    struct resume *resume = wishes_resume(wishes);
    if (!resume)
        return -ENOMEM;
    resume->has_last_id = true;
    resume->last_id = message_id_hash(buf, (size_t)len);
    return 0;
}

static int read_seen(const struct http *h, struct wishes *wishes, char *buf, size_t cap)
{
    int len = query_value(h, "seen", buf, cap);
    if (len <= 0)
        return len;
    struct text_span rest = {buf, (size_t)len}, item;
    struct resume *resume = wishes_resume(wishes);
    if (!resume)
        return -ENOMEM;
    while (resume->seen_count < RESUME_SEEN_MAX && http_list_next(&rest, &item))
        resume->seen[resume->seen_count++] = message_id_hash(item.ptr, item.len);
    return 0;
}

static int read_types(const struct http *h, struct wishes *wishes, char *buf, size_t cap)
{
    int len = query_value(h, "types", buf, cap);
    return len <= 0 ? len : filter_parse(&wishes->filter, buf);
}

static int read_query(const struct http *h, struct wishes *wishes, const char **what)
{
    char buf[QUERY_VALUE_MAX_BYTES + 1];
    int error = find_token(h, true, wishes->token_buf, TOKEN_MAX_BYTES + 1, &wishes->token);
    *what = "token: cannot be read";
    if (error < 0)
        return error;
    wishes->has_token = error > 0;
    *what = "last_id: cannot be read";
    if ((error = read_last_id(h, wishes, buf, sizeof buf)) < 0)
        return error;
    *what = "seen: cannot be read";
    if ((error = read_seen(h, wishes, buf, sizeof buf)) < 0)
        return error;
    *what = "types: bad, too long or too many names";
    return read_types(h, wishes, buf, sizeof buf);
}

/* ---- answering ---- */

struct refusal {
    int status; /* 0: none */
    const char *message;
    const char *extra; /* header lines or NULL */
    bool ends_connection;
};

/* For clients behind a proxy; others are refused when they connect. */
static const struct refusal too_many_of_address = {429, "Too many connections from this address",
                                                   ROUTER_RETRY_AFTER, false};

static void refuse(struct conn *c, const struct http *h, const struct refusal *r)
{
    struct text_buf path = {0}, response = {0};
    struct text_span raw = http_path(h);
    char id[CONN_ID_BYTES], address[IP_TEXT_BYTES];
    bool keep_alive = http_keep_alive(h) && !r->ends_connection;
    text_add_escaped(&path, raw.ptr, raw.len, ROUTER_PATH_BYTES);
    router_error_response(c->worker, &response, r->status, r->message, path.data, r->extra,
                          keep_alive, strcmp(http_method(h), "HEAD") == 0);
    log_info("handshake-refused", "conn", conn_id(c, id), "address", conn_address(c, address),
             "status", LOG_INT(r->status), "reason", r->message);
    conn_send_http(c, &response, keep_alive);
    text_buf_free(&path);
    text_buf_free(&response);
}

static void accept_extensions(struct conn *c, const struct http *h, struct text_buf *response)
{
    struct text_span offers;
    struct extensions_deflate chosen;
    if (c->worker->opt->compression != CHOICE_ON ||
        !http_header(h, "Sec-WebSocket-Extensions", &offers) ||
        !extensions_choose(offers, &chosen))
        return;
    c->deflate_bits = (uint8_t)chosen.window_bits;
    counters_inc(CTR_deflate_negotiated);
    text_adds(response, "Sec-WebSocket-Extensions: ");
    extensions_answer(&chosen, response);
    text_adds(response, "\r\n");
}

static void accept_upgrade(struct conn *c, const struct http *h)
{
    struct text_buf response = {0};
    struct text_span key = {NULL, 0};
    char accept[29];
    http_header(h, "Sec-WebSocket-Key", &key);
    handshake_accept_key(key, accept);
    text_addf(&response,
              "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              "Sec-WebSocket-Accept: %s\r\n",
              accept);
    if (http_header_has(h, "Sec-WebSocket-Protocol", HANDSHAKE_SUBPROTOCOL))
        text_adds(&response, "Sec-WebSocket-Protocol: " HANDSHAKE_SUBPROTOCOL "\r\n");
    accept_extensions(c, h, &response);
    text_adds(&response, "\r\n");
    conn_send_http(c, &response, true);
    text_buf_free(&response);
}

/* ---- judging ---- */

static struct refusal judge_headers(const struct http *h)
{
    struct text_span value;
    if (strcmp(http_method(h), "GET") != 0)
        return (struct refusal){405, "A WebSocket is opened by GET", "Allow: GET\r\n", false};
    if (http_minor_version(h) < 1)
        return (struct refusal){400, "A WebSocket needs HTTP/1.1", NULL, false};
    if (!http_header_has(h, "Upgrade", "websocket"))
        return (struct refusal){426, "This is a WebSocket endpoint", UPGRADE_HEADERS, false};
    if (!http_header_has(h, "Connection", "upgrade"))
        return (struct refusal){400, "Connection: Upgrade is missing", NULL, false};
    if (http_header_count(h, "Sec-WebSocket-Version") != 1 ||
        !http_header(h, "Sec-WebSocket-Version", &value) || !text_span_eq(value, "13"))
        return (struct refusal){426, "Sec-WebSocket-Version must be 13", UPGRADE_HEADERS, false};
    if (http_header_count(h, "Sec-WebSocket-Key") != 1 ||
        !http_header(h, "Sec-WebSocket-Key", &value) || !handshake_is_key(value))
        return (struct refusal){400, "Sec-WebSocket-Key must be 16 bytes in base64", NULL, false};
    if (http_body(h).len > 0)
        return (struct refusal){400, "An upgrade request has no body", NULL, true};
    return (struct refusal){0};
}

static struct refusal judge_origin(const struct worker *w, const struct http *h)
{
    struct text_span origin;
    if (w->opt->origins.count == 0 || !http_header(h, "Origin", &origin) ||
        handshake_is_origin_allowed(&w->opt->origins, origin))
        return (struct refusal){0};
    counters_inc(CTR_origin_refusals);
    return (struct refusal){403, "This origin may not connect", NULL, false};
}

static struct refusal judge_memory(const struct worker *w)
{
    if (!pressure_is_high(w->pressure))
        return (struct refusal){0};
    counters_inc(CTR_memory_refusals);
    return (struct refusal){503, "The server is short of memory", ROUTER_RETRY_AFTER, true};
}

static struct refusal judge_limits(const struct worker *w)
{
    int64_t limit = w->opt->max_connections;
    if (w->is_draining && !w->is_replaced)
        return (struct refusal){503, "The server is draining", ROUTER_RETRY_AFTER, true};
    if ((limit > 0 && counters_sum(w->start->counters, CTR_websockets) >= (uint64_t)limit) ||
        !conns_has_room(w->conns)) {
        counters_inc(CTR_connection_limit_refusals);
        return (struct refusal){503, "Too many connections", ROUTER_RETRY_AFTER, false};
    }
    return (struct refusal){0};
}

static struct refusal judge_query(const struct http *h, struct wishes *wishes)
{
    const char *what;
    int error = read_query(h, wishes, &what);
    if (error == -ENOMEM)
        return (struct refusal){503, "Out of memory", ROUTER_RETRY_AFTER, true};
    if (error < 0)
        return (struct refusal){400, what, NULL, false};
    return (struct refusal){0};
}

/* Everything but the token. */
static struct refusal judge(const struct conn *c, const struct http *h, struct wishes *wishes)
{
    struct refusal r = judge_headers(h);
    if (!r.status)
        r = judge_origin(c->worker, h);
    if (!r.status)
        r = judge_query(h, wishes);
    if (!r.status)
        r = judge_limits(c->worker);
    if (!r.status)
        r = judge_memory(c->worker);
    return r;
}

/* The token was looked at: upgrades, or refuses it in one of the two ways. */
static void finish(struct conn *c, const struct http *h, struct wishes *wishes)
{
    struct worker *w = c->worker;
    struct token_claims claims;
    enum token_result result = TOKEN_OK;
    if (wishes->has_token && !auth_may_try(c)) {
        refuse(c, h, &(struct refusal){429, AUTH_TOO_MANY, AUTH_RETRY_AFTER, false});
        return;
    }
    if (wishes->has_token)
        result = token_verify(w->start->token_keys, wishes->token.ptr, wishes->token.len,
                              worker_wall_ms(w), &claims);
    if (result != TOKEN_OK) {
        auth_failed(c, token_result_text(result));
        if (w->opt->auth_failure == AUTH_FAILURE_HTTP) {
            refuse(c, h, &(struct refusal){401, token_result_text(result), CHALLENGE, false});
            return;
        }
    }
    if (!conn_enter_client(c)) {
        refuse(c, h, &too_many_of_address);
        return;
    }
    accept_upgrade(c, h);
    conn_upgraded(c, wishes->has_token && result == TOKEN_OK ? &claims : NULL, wishes->resume,
                  wishes->filter);
    wishes->resume = NULL;
    wishes->filter = NULL;
    if (result != TOKEN_OK)
        conn_close(c, CLOSE_AUTH);
}

void handshake_serve(struct conn *c, const struct http *h)
{
    char token_buf[TOKEN_MAX_BYTES + 1];
    struct wishes wishes = {.token_buf = token_buf};
    struct refusal r = judge(c, h, &wishes);
    if (r.status) {
        refuse(c, h, &r);
    } else if (text_span_eq(http_path(h), "/echo")) {
        accept_upgrade(c, h);
        conn_upgraded_echo(c);
    } else {
        finish(c, h, &wishes);
    }
    free(wishes.resume);
    filter_free(wishes.filter);
}
