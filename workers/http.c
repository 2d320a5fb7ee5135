#include "config.h"

#include "workers/http.h"

#include <llhttp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "shared/clock.h"

/* What chunked framing may cost beside the body itself: "1\r\nx\r\n" is six bytes for one. */
#define CHUNKED_COST 8

struct header {
    uint32_t name, name_len;   /* offset in head, length */
    uint32_t value, value_len;
    bool is_repeat;            /* its value was added to the first one's */
};

struct http {
    llhttp_t parser;
    struct http_limits limits;
    int status;              /* error found in a callback; 0: none */
    size_t head_bytes;       /* as they came */
    size_t body_raw_bytes;   /* after the head, framing included */
    size_t line_bytes;       /* scan_head: of the current line, without its end */
    char last;               /* scan_head: byte before */
    bool is_started;         /* scan_head: past empty lines before the request */
    bool is_head_scanned;    /* the empty line was seen */
    bool is_method_unknown;  /* skip_method has begun */
    bool is_head_parsed;
    bool is_whole;
    struct text_buf head;    /* target, names and values one after another */
    size_t target_len;
    struct text_span path;
    struct text_span query;
    struct text_buf body;
    size_t header_count;
    struct header headers[HTTP_MAX_HEADERS];
};

/* ---- headers ---- */

static bool has_name(const struct http *h, const struct header *header, const char *name)
{
    return header->name_len == strlen(name) &&
           strncasecmp(h->head.data + header->name, name, header->name_len) == 0;
}

int http_header_count(const struct http *h, const char *name)
{
    int count = 0;
    for (size_t i = 0; i < h->header_count; i++)
        count += has_name(h, &h->headers[i], name);
    return count;
}

bool http_header(const struct http *h, const char *name, struct text_span *value)
{
    for (size_t i = 0; i < h->header_count; i++) {
        const struct header *header = &h->headers[i];
        if (has_name(h, header, name)) {
            *value = (struct text_span){h->head.data + header->value, header->value_len};
            return true;
        }
    }
    return false;
}

static struct text_span trimmed(struct text_span s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

bool http_list_next(struct text_span *rest, struct text_span *item)
{
    while (rest->len > 0) {
        const char *comma = memchr(rest->ptr, ',', rest->len);
        size_t len = comma ? (size_t)(comma - rest->ptr) : rest->len;
        struct text_span found = trimmed((struct text_span){rest->ptr, len});
        size_t step = comma ? len + 1 : len;
        rest->ptr += step;
        rest->len -= step;
        if (found.len > 0) {
            *item = found;
            return true;
        }
    }
    return false;
}

bool http_header_has(const struct http *h, const char *name, const char *token)
{
    struct text_span rest, item;
    if (!http_header(h, name, &rest))
        return false;
    while (http_list_next(&rest, &item))
        if (text_span_ieq(item, token))
            return true;
    return false;
}

/* Headers that stand there several times: the first one gets all values. Done once, so that spans
 * given out stay where they are. */
static void join_repeated(struct http *h)
{
    for (size_t i = 0; i < h->header_count; i++) {
        struct header *first = &h->headers[i];
        struct text_buf joined = {0};
        if (first->is_repeat)
            continue;
        for (size_t k = i + 1; k < h->header_count; k++) {
            struct header *again = &h->headers[k];
            if (again->name_len != first->name_len ||
                strncasecmp(h->head.data + again->name, h->head.data + first->name,
                            first->name_len) != 0)
                continue;
            if (joined.len == 0)
                text_add(&joined, h->head.data + first->value, first->value_len);
            text_adds(&joined, ", ");
            text_add(&joined, h->head.data + again->value, again->value_len);
            again->is_repeat = true;
        }
        if (joined.len > 0) {
            first->value = (uint32_t)h->head.len;
            first->value_len = (uint32_t)joined.len;
            text_add(&h->head, joined.data, joined.len);
        }
        if (joined.failed)
            h->head.failed = true;
        text_buf_free(&joined);
        if (h->head.failed)
            return;
    }
}

/* ---- what llhttp calls ---- */

static int refuse(struct http *h, int status)
{
    if (h->status == 0)
        h->status = status;
    return HPE_USER;
}

static int keep(struct http *h, const char *at, size_t len)
{
    text_add(&h->head, at, len);
    return h->head.failed ? refuse(h, 503) : 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t len)
{
    struct http *h = parser->data;
    h->target_len += len;
    return keep(h, at, len);
}

static int on_header_field(llhttp_t *parser, const char *at, size_t len)
{
    struct http *h = parser->data;
    if (h->is_head_parsed)
        return 0; /* trailers say nothing to us */
    if (h->header_count == HTTP_MAX_HEADERS)
        return 0; /* one too many, if it is one: its name may still turn out to be none */
    struct header *header = &h->headers[h->header_count];
    if (header->name_len == 0)
        header->name = (uint32_t)h->head.len;
    header->name_len += (uint32_t)len;
    return keep(h, at, len);
}

static int on_header_field_complete(llhttp_t *parser)
{
    struct http *h = parser->data;
    if (h->is_head_parsed)
        return 0;
    if (h->header_count == HTTP_MAX_HEADERS)
        return refuse(h, 431);
    if (h->headers[h->header_count].name_len == 0)
        return refuse(h, 400);
    h->headers[h->header_count++].value = (uint32_t)h->head.len;
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len)
{
    struct http *h = parser->data;
    if (h->is_head_parsed || h->header_count == 0)
        return 0;
    h->headers[h->header_count - 1].value_len += (uint32_t)len;
    return keep(h, at, len);
}

/* Takes the target apart: origin-form, or absolute-form, of which the path counts. */
static bool split_target(struct http *h)
{
    const char *at = h->head.data, *end = at + h->target_len;
    for (const char *p = at; p < end; p++)
        if (*p <= 0x20 || *p >= 0x7f || *p == '#')
            return false;
    size_t scheme = h->target_len >= 7 && strncasecmp(at, "http://", 7) == 0    ? 7
                    : h->target_len >= 8 && strncasecmp(at, "https://", 8) == 0 ? 8
                                                                                : 0;
    if (scheme > 0) {
        at += scheme;
        while (at < end && *at != '/' && *at != '?')
            at++;
    } else if (at == end || *at != '/') {
        return false;
    }
    const char *question = memchr(at, '?', (size_t)(end - at));
    const char *path_end = question ? question : end;
    h->path = path_end > at ? (struct text_span){at, (size_t)(path_end - at)} : text_span_of("/");
    if (question)
        h->query = (struct text_span){question + 1, (size_t)(end - question - 1)};
    return true;
}

/* Status to refuse a whole head with; 0: it is good. */
static int judge_head(struct http *h)
{
    struct text_span value;
    int hosts = http_header_count(h, "Host");
    if (h->parser.http_major != 1 || h->parser.http_minor > 1)
        return 505;
    if (!split_target(h))
        return 400;
    if (hosts > 1 || (hosts == 0 && h->parser.http_minor == 1))
        return 400;
    if (http_header(h, "Host", &value) && value.len > 0 &&
        (memchr(value.ptr, ' ', value.len) || memchr(value.ptr, '/', value.len)))
        return 400;
    if (http_header(h, "Transfer-Encoding", &value)) {
        if (h->parser.http_minor == 0 || http_header_count(h, "Content-Length") > 0)
            return 400;
        if (!text_span_ieq(value, "chunked"))
            return 501;
    } else if ((h->parser.flags & F_CONTENT_LENGTH) &&
               h->parser.content_length > h->limits.max_body_bytes) {
        return 413;
    }
    return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
    struct http *h = parser->data;
    for (size_t i = 0; i < h->header_count; i++) {
        struct header *header = &h->headers[i];
        struct text_span value =
            trimmed((struct text_span){h->head.data + header->value, header->value_len});
        header->value = (uint32_t)(value.ptr - h->head.data);
        header->value_len = (uint32_t)value.len;
    }
    join_repeated(h);
    if (h->head.failed)
        return refuse(h, 503);
    h->is_head_parsed = true;
    int status = judge_head(h);
    return status ? refuse(h, status) : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
    struct http *h = parser->data;
    if (len > h->limits.max_body_bytes - h->body.len)
        return refuse(h, 413);
    text_add(&h->body, at, len);
    return h->body.failed ? refuse(h, 503) : 0;
}

static int on_message_complete(llhttp_t *parser)
{
    struct http *h = parser->data;
    h->is_whole = true;
    return HPE_PAUSED;
}

/* ---- life ---- */

struct http *http_new(const struct http_limits *limits)
{
    static const llhttp_settings_t settings = {
        .on_url = on_url,
        .on_header_field = on_header_field,
        .on_header_field_complete = on_header_field_complete,
        .on_header_value = on_header_value,
        .on_headers_complete = on_headers_complete,
        .on_body = on_body,
        .on_message_complete = on_message_complete,
    };
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    llhttp_init(&h->parser, HTTP_REQUEST, &settings);
    h->parser.data = h;
    h->limits = *limits;
    return h;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    text_buf_free(&h->head);
    text_buf_free(&h->body);
    free(h);
}

size_t http_held_bytes(const struct http *h)
{
    return h ? sizeof *h + h->head.cap + h->body.cap : 0;
}

/* ---- feeding ---- */

/* How many bytes are nothing special in the middle of a line: nearly all of a request. */
static size_t plain_run(const char *bytes, size_t len)
{
    size_t n = 0;
    while (n < len && (unsigned char)bytes[n] >= 0x20 && bytes[n] != 0x7f)
        n++;
    return n;
}

/* Looks at bytes of the head before llhttp does, which tolerates more, and not the same in each of
 * its versions. Returns how many belong to the head and are good; *is_bad: the next one is not. */
static size_t scan_head(struct http *h, const char *bytes, size_t len, bool *is_bad)
{
    *is_bad = true;
    for (size_t i = 0; i < len; i++) {
        size_t run = h->line_bytes > 0 && h->last != '\r' ? plain_run(bytes + i, len - i) : 0;
        if (run > 0) {
            h->line_bytes += run;
            h->last = bytes[i + run - 1];
            i += run - 1;
            continue;
        }
        char c = bytes[i];
        if ((c == '\n') != (h->last == '\r'))
            return i; /* neither alone */
        if (c == '\n' && h->line_bytes == 0 && h->is_started) {
            h->is_head_scanned = true;
            *is_bad = false;
            return i + 1;
        }
        if (c == '\n') {
            h->line_bytes = 0;
        } else if (c != '\r') {
            if (((unsigned char)c < 0x20 && c != '\t') || c == 0x7f)
                return i;
            if (h->line_bytes == 0 && (c == ' ' || c == '\t'))
                return i; /* a folded header, or blanks before the method */
            h->line_bytes++;
            h->is_started = true;
        }
        h->last = c;
    }
    *is_bad = false;
    return len;
}

/* After llhttp stumbled in the method, from there on: capitals up to a blank are a method that we
 * do not know, all else is no method at all. As http_feed. */
static int skip_method(struct http *h, const char *at, const char *end)
{
    while (at < end && *at >= 'A' && *at <= 'Z')
        at++;
    h->is_method_unknown = true;
    if (at == end)
        return 0;
    return *at == ' ' ? -405 : -400;
}

static int status_of_error(const struct http *h, llhttp_errno_t error)
{
    if (h->status)
        return h->status;
    switch (error) {
    case HPE_INVALID_VERSION:
    case HPE_PAUSED_H2_UPGRADE:
        return 505;
    default:
        return 400;
    }
}

/* Gives llhttp bytes; as http_feed. */
static int parse(struct http *h, const char *bytes, size_t len, size_t *used)
{
    const char *end = bytes + len;
    *used = len;
    if (h->is_method_unknown)
        return skip_method(h, bytes, end);
    llhttp_errno_t error = llhttp_execute(&h->parser, bytes, len);
    if (h->is_whole && h->status == 0) {
        if (error != HPE_OK)
            *used = (size_t)(llhttp_get_error_pos(&h->parser) - bytes);
        return 1;
    }
    if (error == HPE_INVALID_METHOD && h->status == 0) {
        const char *at = llhttp_get_error_pos(&h->parser);
        return at >= bytes && at < end && *at >= 'A' && *at <= 'Z' ? skip_method(h, at, end) : -400;
    }
    return error == HPE_OK ? 0 : -status_of_error(h, error);
}

static int feed_head(struct http *h, const char *bytes, size_t len, size_t *used)
{
    size_t room = h->limits.max_head_bytes - h->head_bytes;
    bool is_bad;
    size_t n = scan_head(h, bytes, len < room ? len : room, &is_bad);
    h->head_bytes += n;
    /* What stands before a bad byte is judged first, as if that had not come yet. */
    int result = n > 0 ? parse(h, bytes, n, used) : 0;
    if (result != 0)
        return result;
    if (is_bad)
        return -400;
    if (h->is_head_scanned && !h->is_head_parsed) /* HTTP/2's preface goes on behind it */
        return h->parser.method == HTTP_PRI ? -505 : -400;
    if (h->is_head_scanned)
        return 0;
    return h->head_bytes >= h->limits.max_head_bytes ? -431 : 0;
}

static int feed_body(struct http *h, const char *bytes, size_t len, size_t *used)
{
    int result = parse(h, bytes, len, used);
    if (result < 0)
        return result;
    h->body_raw_bytes += *used;
    if (result == 0 && h->body_raw_bytes / CHUNKED_COST >
                           h->limits.max_body_bytes + h->limits.max_head_bytes)
        return -413; /* endless chunk extensions or trailers */
    return result;
}

int http_feed(struct http *h, const char *bytes, size_t len, size_t *used)
{
    int result = 0;
    *used = 0;
    if (h->is_whole)
        return 1;
    while (len > 0 && result == 0) {
        size_t n = 0;
        result = h->is_head_scanned ? feed_body(h, bytes, len, &n) : feed_head(h, bytes, len, &n);
        *used += n;
        bytes += n;
        len -= n;
    }
    if (result < 0 && !h->path.ptr && !h->head.failed && h->target_len > 0)
        split_target(h); /* for the error to name what was asked for, as far as it came */
    return result;
}

/* ---- asking ---- */

bool http_is_started(const struct http *h)
{
    return h->is_head_parsed;
}

const char *http_method(const struct http *h)
{
    return llhttp_method_name((llhttp_method_t)h->parser.method);
}

struct text_span http_path(const struct http *h)
{
    return h->path;
}

struct text_span http_query(const struct http *h)
{
    return h->query;
}

struct text_span http_body(const struct http *h)
{
    return (struct text_span){h->body.data, h->body.len};
}

bool http_is_upgrade(const struct http *h)
{
    return http_header_count(h, "Upgrade") > 0;
}

bool http_keep_alive(const struct http *h)
{
    return h->parser.http_minor >= 1 ? !http_header_has(h, "Connection", "close")
                                     : http_header_has(h, "Connection", "keep-alive");
}

int http_minor_version(const struct http *h)
{
    return h->parser.http_minor;
}

/* ---- responses ---- */

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {101, "Switching Protocols"},
        {200, "OK"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return status < 400 ? "OK" : "Error";
}

/* IMF-fixdate (RFC 9110, section 5.6.7), whatever the locale. */
static void add_date(struct text_buf *out)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm tm;
    gmtime_r(&now, &tm);
    text_addf(out, "Date: %.3s, %02d %.3s %d %02d:%02d:%02d GMT\r\n", days + 3 * tm.tm_wday,
              tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
              tm.tm_sec);
}

void http_respond(struct text_buf *out, int status, const char *content_type, const char *extra,
                  struct text_span body, bool keep_alive, bool head_only)
{
    text_addf(out, "HTTP/1.1 %d %s\r\n", status, http_status_text(status));
    add_date(out);
    if (content_type)
        text_addf(out, "Content-Type: %s\r\n", content_type);
    if (status != 304)
        text_addf(out, "Content-Length: %zu\r\n", body.len);
    text_addf(out, "Connection: %s\r\n", keep_alive ? "keep-alive" : "close");
    text_adds(out, "X-Content-Type-Options: nosniff\r\n");
    if (!extra || strncmp(extra, "Cache-Control:", strlen("Cache-Control:")) != 0)
        text_adds(out, "Cache-Control: no-store\r\n");
    if (extra)
        text_adds(out, extra);
    text_adds(out, "\r\n");
    if (!head_only && body.len > 0)
        text_add(out, body.ptr, body.len);
}
