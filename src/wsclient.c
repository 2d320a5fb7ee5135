/*
 * wsclient.c - see wsclient.h.
 */
#include "config.h"

#include "src/wsclient.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "shared/clock.h"
#include "shared/json.h"

/* A peer that is silent this long is pinged, and given up when it stays so for as long again. */
#define SILENCE_MS 30000
#define STEP_MS 500 /* how often *stop is looked at */
#define QUEUE_MAX 256 /* messages read before the caller gets them; pongs that wait */
#define TURN_MAX_BYTES 262144 /* read before the caller gets its messages, and *stop is looked at */

struct message {
    struct message *next;
    size_t len;
    char bytes[];
};

struct wsclient {
    int fd;
    SSL_CTX *tls_context;
    SSL *tls;
    wslay_event_context_ptr ws;
    const volatile sig_atomic_t *stop;
    struct text_buf early; /* what came after the response's head */
    size_t early_taken;
    short events; /* what the last read or write waits for beside POLLIN */
    size_t turn_bytes; /* read in this turn */
    bool ended;
    int64_t heard_at_ms;
    bool pinged;
    struct message *first, **last, *shown;
    size_t queued;
    bool in_close; /* the frame that is being read is a close frame */
    uint8_t close_bytes[125];
    size_t close_len;
    int close_code;
    char close_reason[160];
};

/* ---- pure parts ---- */

static int parse_authority(const char *p, size_t len, struct wsclient_url *u)
{
    const char *host = p, *end = p + len, *colon;
    size_t host_len;
    if (len > 0 && *p == '[') {
        const char *close = memchr(p, ']', len);
        if (!close)
            return -EINVAL;
        host = p + 1;
        host_len = (size_t)(close - host);
        colon = close + 1 < end ? close + 1 : NULL;
        if (colon && *colon != ':')
            return -EINVAL;
    } else {
        colon = memchr(p, ':', len);
        host_len = colon ? (size_t)(colon - p) : len;
    }
    if (host_len == 0 || host_len >= sizeof(u->host))
        return -EINVAL;
    memcpy(u->host, host, host_len);
    u->host[host_len] = '\0';
    u->port = u->is_tls ? 443 : 80;
    if (!colon)
        return 0;
    u->port = 0;
    if (colon + 1 == end)
        return -EINVAL;
    for (const char *d = colon + 1; d < end; d++) {
        if (*d < '0' || *d > '9' || (u->port = u->port * 10 + (*d - '0')) > 65535)
            return -EINVAL;
    }
    return u->port > 0 ? 0 : -EINVAL;
}

static const char *parse_unix(const char *p, struct wsclient_url *u)
{
    const char *colon = strstr(p, ":/");
    size_t len = colon ? (size_t)(colon - p) : strlen(p);
    if (len == 0 || *p != '/')
        return "ws+unix: needs an absolute path, as in ws+unix:///run/belfry.sock";
    if (len >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return "the socket's path is too long (107 bytes)";
    u->is_unix = true;
    memcpy(u->host, p, len);
    u->host[len] = '\0';
    snprintf(u->path, sizeof(u->path), "%s", colon ? colon + 1 : "/ws");
    return NULL;
}

static const char *parse_url(const char *url, struct wsclient_url *u)
{
    for (const char *p = url; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
            return "blanks, control and non-ASCII characters are written percent-encoded";
    if (strlen(url) >= sizeof(u->path))
        return "too long";
    if (strncmp(url, "ws+unix://", 10) == 0)
        return parse_unix(url + 10, u);
    u->is_tls = strncmp(url, "wss://", 6) == 0;
    if (!u->is_tls && strncmp(url, "ws://", 5) != 0)
        return "begins with ws://, wss:// or ws+unix://";
    const char *p = url + (u->is_tls ? 6 : 5);
    size_t len = strcspn(p, "/?#");
    if (memchr(p, '@', len))
        return "takes no user or password";
    if (parse_authority(p, len, u) != 0)
        return "HOST:PORT cannot be read";
    size_t path = strcspn(p + len, "#");
    bool is_bare = path == 0 || (path == 1 && p[len] == '/') || p[len] == '?';
    if (path == 1)
        path = 0;
    snprintf(u->path, sizeof(u->path), "%s%.*s", is_bare ? "/ws" : "", (int)path, p + len);
    return NULL;
}

int wsclient_url_parse(const char *url, struct wsclient_url *out, const char **reason)
{
    struct wsclient_url u = {0};
    *reason = parse_url(url, &u);
    if (*reason)
        return -EINVAL;
    *out = u;
    return 0;
}

int wsclient_accept_for(const char *key, char out[WSCLIENT_ACCEPT_BYTES])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[128];
    int len = snprintf(text, sizeof(text), "%s%s", key, guid);
    if (len < 0 || (size_t)len >= sizeof(text) ||
        EVP_Digest(text, (size_t)len, digest, NULL, EVP_sha1(), NULL) != 1)
        return -ENOMEM;
    EVP_EncodeBlock((unsigned char *)out, digest, 20);
    return 0;
}

/* Is word among the comma-separated ones, in any case? */
static bool has_word(struct text_span list, const char *word)
{
    size_t i = 0;
    while (i < list.len) {
        while (i < list.len && strchr(" \t,", list.ptr[i]))
            i++;
        size_t start = i;
        while (i < list.len && list.ptr[i] != ',')
            i++;
        size_t end = i;
        while (end > start && strchr(" \t", list.ptr[end - 1]))
            end--;
        if (text_span_ieq((struct text_span){list.ptr + start, end - start}, word))
            return true;
    }
    return false;
}

static void copy_value(struct text_span v, char *out, size_t cap)
{
    size_t n = v.len < cap ? v.len : cap - 1;
    memcpy(out, v.ptr, n);
    out[n] = '\0';
}

struct head {
    struct wsclient_response *r;
    bool upgrade;
    bool connection;
};

static int take_header(struct head *h, struct text_span line)
{
    const char *colon = memchr(line.ptr, ':', line.len);
    if (!colon || colon == line.ptr)
        return -EBADMSG;
    struct text_span name = {line.ptr, (size_t)(colon - line.ptr)};
    struct text_span value = {colon + 1, line.len - name.len - 1};
    while (value.len > 0 && strchr(" \t", value.ptr[0])) {
        value.ptr++;
        value.len--;
    }
    while (value.len > 0 && strchr(" \t", value.ptr[value.len - 1]))
        value.len--;
    if (text_span_ieq(name, "upgrade"))
        h->upgrade = has_word(value, "websocket");
    else if (text_span_ieq(name, "connection"))
        h->connection = h->connection || has_word(value, "upgrade");
    else if (text_span_ieq(name, "sec-websocket-accept"))
        copy_value(value, h->r->accept, sizeof(h->r->accept));
    else if (text_span_ieq(name, "sec-websocket-protocol"))
        copy_value(value, h->r->protocol, sizeof(h->r->protocol));
    else if (text_span_ieq(name, "retry-after"))
        copy_value(value, h->r->retry_after, sizeof(h->r->retry_after));
    else if (text_span_ieq(name, "content-length")) {
        char text[24];
        copy_value(value, text, sizeof(text));
        if (text_parse_count(text, &h->r->content_length) != 0)
            return -EBADMSG;
    }
    return 0;
}

static int parse_status_line(struct text_span line, int *status)
{
    if (line.len < 12 || memcmp(line.ptr, "HTTP/1.", 7) != 0 || line.ptr[8] != ' ')
        return -EBADMSG;
    *status = 0;
    for (int i = 9; i < 12; i++) {
        if (line.ptr[i] < '0' || line.ptr[i] > '9')
            return -EBADMSG;
        *status = *status * 10 + (line.ptr[i] - '0');
    }
    return *status >= 100 && (line.len == 12 || line.ptr[12] == ' ') ? 0 : -EBADMSG;
}

int wsclient_response_parse(const char *bytes, size_t len, struct wsclient_response *out)
{
    static const char start[] = "HTTP/1.";
    struct wsclient_response r = {.content_length = -1};
    struct head h = {.r = &r};
    size_t seen = len < sizeof(start) - 1 ? len : sizeof(start) - 1;
    if (seen > 0 && memcmp(bytes, start, seen) != 0)
        return -EBADMSG;
    const char *end = len ? memmem(bytes, len, "\r\n\r\n", 4) : NULL;
    size_t head = end ? (size_t)(end - bytes) + 4 : len;
    if (memchr(bytes ? bytes : "", '\0', head))
        return -EBADMSG;
    if (head > WSCLIENT_HEAD_MAX_BYTES)
        return -EMSGSIZE;
    if (!end)
        return 0;
    bool first = true;
    for (const char *p = bytes; p < end + 2; first = false) {
        const char *eol = memmem(p, (size_t)(end + 2 - p), "\r\n", 2);
        struct text_span line = {p, (size_t)(eol - p)};
        int result = first ? parse_status_line(line, &r.status) : take_header(&h, line);
        if (result != 0)
            return result;
        p = eol + 2;
    }
    r.head_bytes = head;
    r.upgrades = h.upgrade && h.connection;
    *out = r;
    return 1;
}

/* ---- the socket ---- */

static int wait_fd(struct wsclient *c, short events, int64_t deadline_ms)
{
    for (;;) {
        int64_t left = deadline_ms == INT64_MAX ? STEP_MS : deadline_ms - clock_mono_ms();
        struct pollfd p = {.fd = c->fd, .events = events};
        if (c->stop && *c->stop)
            return -EINTR;
        if (left <= 0)
            return -ETIMEDOUT;
        int n = poll(&p, 1, left > STEP_MS ? STEP_MS : (int)left);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

static int connect_fd(struct wsclient *c, const struct sockaddr *sa, socklen_t len,
                      int64_t deadline_ms)
{
    int error = 0;
    socklen_t size = sizeof(error);
    c->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return -errno;
    if (connect(c->fd, sa, len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return -errno;
    int result = wait_fd(c, POLLOUT, deadline_ms);
    if (result == 0 && getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    return result != 0 ? result : -error;
}

static int connect_tcp(struct wsclient *c, const struct wsclient_url *u, int64_t deadline_ms,
                       char *why, size_t cap)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list;
    char port[8];
    snprintf(port, sizeof(port), "%d", u->port);
    int error = getaddrinfo(u->host, port, &hints, &list);
    if (error == EAI_NONAME || error == EAI_ADDRFAMILY) {
        /* AI_ADDRCONFIG leaves out loopback on a machine that has nothing else. */
        hints.ai_flags = 0;
        error = getaddrinfo(u->host, port, &hints, &list);
    }
    if (error != 0) {
        snprintf(why, cap, "%s: %s", u->host, gai_strerror(error));
        return -EHOSTUNREACH;
    }
    int result = -EHOSTUNREACH;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        result = connect_fd(c, a->ai_addr, a->ai_addrlen, deadline_ms);
        if (result == 0 || result == -ETIMEDOUT || result == -EINTR)
            break;
        if (c->fd >= 0)
            close(c->fd);
        c->fd = -1;
    }
    freeaddrinfo(list);
    if (result == 0) {
        int on = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return result;
}

static int connect_unix(struct wsclient *c, const struct wsclient_url *u, int64_t deadline_ms)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    memcpy(un.sun_path, u->host, strlen(u->host) + 1);
    return connect_fd(c, (struct sockaddr *)&un, sizeof(un), deadline_ms);
}

/* ---- TLS ---- */

static void tls_reason(const struct wsclient *c, char *why, size_t cap)
{
    long verify = c->tls ? SSL_get_verify_result(c->tls) : X509_V_OK;
    unsigned long error = ERR_get_error();
    if (verify != X509_V_OK)
        snprintf(why, cap, "TLS: certificate: %s (--ca-file names what to trust)",
                 X509_verify_cert_error_string(verify));
    else
        snprintf(why, cap, "TLS: %s", error ? ERR_reason_error_string(error) : "handshake failed");
}

static int tls_prepare(struct wsclient *c, const struct wsclient_config *config)
{
    const char *host = config->url->host;
    unsigned char address[16];
    bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    c->tls_context = SSL_CTX_new(TLS_client_method());
    if (!c->tls_context)
        return -ENOMEM;
    SSL_CTX_set_min_proto_version(c->tls_context, TLS1_2_VERSION);
    SSL_CTX_set_verify(c->tls_context, SSL_VERIFY_PEER, NULL);
    if (config->ca_file) {
        /* A partial chain: the certificate itself may be what is trusted. */
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(c->tls_context), X509_V_FLAG_PARTIAL_CHAIN);
        if (SSL_CTX_load_verify_locations(c->tls_context, config->ca_file, NULL) != 1)
            return -EPROTO;
    } else {
        SSL_CTX_set_default_verify_paths(c->tls_context);
    }
    c->tls = SSL_new(c->tls_context);
    if (!c->tls || SSL_set_fd(c->tls, c->fd) != 1)
        return -ENOMEM;
    if (!is_address)
        SSL_set_tlsext_host_name(c->tls, host);
    if (config->is_own_server)
        return 0;
    if (is_address)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->tls), host) == 1 ? 0 : -EPROTO;
    return SSL_set1_host(c->tls, host) == 1 ? 0 : -EPROTO;
}

static int tls_connect(struct wsclient *c, const struct wsclient_config *config,
                       int64_t deadline_ms, char *why, size_t cap)
{
    ERR_clear_error();
    int result = tls_prepare(c, config);
    while (result == 0) {
        int n = SSL_connect(c->tls);
        if (n == 1)
            return 0;
        int error = SSL_get_error(c->tls, n);
        if (error == SSL_ERROR_WANT_READ)
            result = wait_fd(c, POLLIN, deadline_ms);
        else if (error == SSL_ERROR_WANT_WRITE)
            result = wait_fd(c, POLLOUT, deadline_ms);
        else
            result = -EPROTO;
    }
    if (result == -EPROTO)
        tls_reason(c, why, cap);
    return result;
}

/* ---- bytes, plain or through TLS: > 0, -EAGAIN, -ECONNRESET (ended), other negative errno ---- */

static ssize_t tls_result(struct wsclient *c, int n)
{
    switch (SSL_get_error(c->tls, n)) {
    case SSL_ERROR_WANT_READ: return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        c->events |= POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return -ECONNRESET;
    default: ERR_clear_error(); return -ECONNRESET;
    }
}

static ssize_t get_bytes(struct wsclient *c, void *out, size_t cap)
{
    if (c->tls) {
        int n = SSL_read(c->tls, out, cap > 65536 ? 65536 : (int)cap);
        return n > 0 ? n : tls_result(c, n);
    }
    ssize_t n = recv(c->fd, out, cap, 0);
    if (n > 0)
        return n;
    return n == 0 ? -ECONNRESET : errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t put_bytes(struct wsclient *c, const void *bytes, size_t len)
{
    ssize_t n;
    if (c->tls) {
        int done = SSL_write(c->tls, bytes, len > 65536 ? 65536 : (int)len);
        return done > 0 ? done : tls_result(c, done);
    }
    n = send(c->fd, bytes, len, MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    if (errno != EWOULDBLOCK && errno != EINTR)
        return -errno;
    c->events |= POLLOUT;
    return -EAGAIN;
}

/* ---- the upgrade ---- */

static int send_all(struct wsclient *c, const char *bytes, size_t len, int64_t deadline_ms)
{
    while (len > 0) {
        ssize_t n = put_bytes(c, bytes, len);
        if (n == -EAGAIN) {
            int result = wait_fd(c, POLLOUT, deadline_ms);
            if (result != 0)
                return result;
            continue;
        }
        if (n < 0)
            return (int)n;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

static int send_request(struct wsclient *c, const struct wsclient_config *config, const char *key,
                        int64_t deadline_ms)
{
    const struct wsclient_url *u = config->url;
    struct text_buf b = {0};
    bool brackets = !u->is_unix && strchr(u->host, ':');
    text_addf(&b, "GET %s HTTP/1.1\r\nHost: ", u->path);
    if (u->is_unix)
        text_adds(&b, "localhost");
    else
        text_addf(&b, "%s%s%s:%d", brackets ? "[" : "", u->host, brackets ? "]" : "", u->port);
    text_addf(&b, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: %s\r\n", key);
    if (config->subprotocol)
        text_addf(&b, "Sec-WebSocket-Protocol: %s\r\n", config->subprotocol);
    if (config->token)
        text_addf(&b, "Authorization: Bearer %s\r\n", config->token);
    text_adds(&b, "User-Agent: belfryctl\r\n\r\n");
    int result = b.failed ? -ENOMEM : send_all(c, b.data, b.len, deadline_ms);
    if (b.data)
        explicit_bzero(b.data, b.len);
    text_buf_free(&b);
    return result;
}

/* Reads until c->early holds at least want bytes, or the peer ends. */
static int read_more(struct wsclient *c, int64_t deadline_ms)
{
    char chunk[4096];
    for (;;) {
        ssize_t n = get_bytes(c, chunk, sizeof(chunk));
        if (n == -EAGAIN) {
            int result = wait_fd(c, POLLIN, deadline_ms);
            if (result != 0)
                return result;
            continue;
        }
        if (n < 0)
            return (int)n;
        text_add(&c->early, chunk, (size_t)n);
        return c->early.failed ? -ENOMEM : 0;
    }
}

/* What a refusal says of itself: "message" of a JSON body, where there is one. */
static void refusal_text(struct wsclient *c, const struct wsclient_response *r, int64_t deadline_ms,
                         char *why, size_t cap)
{
    char text[256] = "";
    struct text_span value;
    while (r->content_length > 0 && r->content_length < 16384 &&
           c->early.len < r->head_bytes + (size_t)r->content_length)
        if (read_more(c, deadline_ms) != 0)
            break;
    const char *body = c->early.data + r->head_bytes;
    size_t len = c->early.len - r->head_bytes;
    if (json_scan_object(body, len, NULL, NULL) == JSON_OK &&
        json_find((struct text_span){body, len}, "message", &value)) {
        long n = json_string_decode(value, text, sizeof(text) - 1);
        text[n > 0 ? n : 0] = '\0';
    }
    bool later = r->retry_after[0] != '\0';
    snprintf(why, cap, "refused with HTTP status %d%s%s%s%s%s", r->status, text[0] ? ": " : "",
             text, later ? " (retry after " : "", r->retry_after, later ? " s)" : "");
}

static int read_response(struct wsclient *c, const struct wsclient_config *config, const char *key,
                         int64_t deadline_ms, char *why, size_t cap)
{
    struct wsclient_response r = {0};
    char expected[WSCLIENT_ACCEPT_BYTES];
    int result;
    while ((result = wsclient_response_parse(c->early.data, c->early.len, &r)) == 0)
        if ((result = read_more(c, deadline_ms)) != 0)
            return result;
    if (result < 0) {
        snprintf(why, cap, "the answer is no HTTP response: no WebSocket server there");
        return -EPROTO;
    }
    if (r.status != 101) {
        refusal_text(c, &r, deadline_ms, why, cap);
        return r.status;
    }
    if (wsclient_accept_for(key, expected) != 0)
        return -ENOMEM;
    if (!r.upgrades || strcmp(r.accept, expected) != 0) {
        snprintf(why, cap, "the upgrade is not answered as RFC 6455 wants it");
        return -EPROTO;
    }
    if (r.protocol[0] && (!config->subprotocol || strcmp(r.protocol, config->subprotocol) != 0)) {
        snprintf(why, cap, "the server chose a subprotocol that was not offered");
        return -EPROTO;
    }
    c->early_taken = r.head_bytes;
    return 0;
}

/* ---- frames ---- */

/* Not while a server does not take the pongs it asks for. */
static bool may_read(const struct wsclient *c)
{
    return c->queued < QUEUE_MAX && wslay_event_get_queued_msg_count(c->ws) < QUEUE_MAX;
}

static ssize_t on_recv(wslay_event_context_ptr ws, uint8_t *out, size_t cap, int flags, void *data)
{
    struct wsclient *c = data;
    ssize_t n;
    (void)flags;
    if (c->turn_bytes >= TURN_MAX_BYTES || !may_read(c)) {
        n = -EAGAIN;
    } else if (c->early_taken < c->early.len) {
        size_t left = c->early.len - c->early_taken;
        n = (ssize_t)(left < cap ? left : cap);
        memcpy(out, c->early.data + c->early_taken, (size_t)n);
        c->early_taken += (size_t)n;
    } else {
        n = get_bytes(c, out, cap);
    }
    if (n > 0) {
        c->heard_at_ms = clock_mono_ms();
        c->pinged = false;
        c->turn_bytes += (size_t)n;
        return n;
    }
    wslay_event_set_error(ws, n == -EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static ssize_t on_send(wslay_event_context_ptr ws, const uint8_t *bytes, size_t len, int flags,
                       void *data)
{
    struct wsclient *c = data;
    (void)flags;
    ssize_t n = put_bytes(c, bytes, len);
    if (n > 0)
        return n;
    wslay_event_set_error(ws, n == -EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
    return -1;
}

static int on_genmask(wslay_event_context_ptr ws, uint8_t *out, size_t len, void *data)
{
    (void)ws;
    (void)data;
    return getrandom(out, len, 0) == (ssize_t)len ? 0 : -1;
}

/* The first end counts: what fails after a close frame is only its echo. */
static void end_with(struct wsclient *c, int code, struct text_span reason)
{
    if (c->ended)
        return;
    c->ended = true;
    c->close_code = code;
    copy_value(reason, c->close_reason, sizeof(c->close_reason));
}

static void end(struct wsclient *c, int code, const char *reason)
{
    end_with(c, code, text_span_of(reason));
}

static void on_message(wslay_event_context_ptr ws, const struct wslay_event_on_msg_recv_arg *arg,
                       void *data)
{
    struct wsclient *c = data;
    (void)ws;
    if (arg->opcode != WSLAY_TEXT_FRAME)
        return;
    struct message *m = malloc(sizeof(*m) + arg->msg_length);
    if (!m) {
        end(c, WSLAY_CODE_ABNORMAL_CLOSURE, "out of memory");
        return;
    }
    m->next = NULL;
    m->len = arg->msg_length;
    if (arg->msg_length > 0)
        memcpy(m->bytes, arg->msg, arg->msg_length);
    *c->last = m;
    c->last = &m->next;
    c->queued++;
}

/* Close frames are read here, not by wslay: it knows no codes between 1012 and 2999 and would call
 * "restarting" a protocol error. */
static void on_frame_start(wslay_event_context_ptr ws,
                           const struct wslay_event_on_frame_recv_start_arg *arg, void *data)
{
    struct wsclient *c = data;
    (void)ws;
    c->in_close = arg->opcode == WSLAY_CONNECTION_CLOSE;
}

static void on_frame_chunk(wslay_event_context_ptr ws,
                           const struct wslay_event_on_frame_recv_chunk_arg *arg, void *data)
{
    struct wsclient *c = data;
    (void)ws;
    if (!c->in_close || c->close_len + arg->data_length > sizeof(c->close_bytes))
        return;
    memcpy(c->close_bytes + c->close_len, arg->data, arg->data_length);
    c->close_len += arg->data_length;
}

static void on_frame_end(wslay_event_context_ptr ws, void *data)
{
    struct wsclient *c = data;
    struct text_span reason = {"", 0};
    int code = WSLAY_CODE_NO_STATUS_RCVD;
    if (!c->in_close)
        return;
    if (c->close_len >= 2) {
        code = c->close_bytes[0] << 8 | c->close_bytes[1];
        reason = (struct text_span){(const char *)c->close_bytes + 2, c->close_len - 2};
    }
    /* The echo; wslay's own, with another code, does not pass any more. */
    wslay_event_queue_close(ws, c->close_len >= 2 ? (uint16_t)code : 0, NULL, 0);
    end_with(c, code, reason);
}

static int start_frames(struct wsclient *c)
{
    const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_recv,
        .send_callback = on_send,
        .genmask_callback = on_genmask,
        .on_frame_recv_start_callback = on_frame_start,
        .on_frame_recv_chunk_callback = on_frame_chunk,
        .on_frame_recv_end_callback = on_frame_end,
        .on_msg_recv_callback = on_message,
    };
    if (wslay_event_context_client_init(&c->ws, &callbacks, c) != 0)
        return -ENOMEM;
    wslay_event_config_set_max_recv_msg_length(c->ws, WSCLIENT_MESSAGE_MAX_BYTES);
    return 0;
}

int wsclient_open(const struct wsclient_config *config, int64_t deadline_ms, struct wsclient **out,
                  char *why, size_t cap)
{
    const struct wsclient_url *u = config->url;
    unsigned char nonce[16];
    char key[25];
    why[0] = '\0';
    struct wsclient *c = calloc(1, sizeof(*c));
    if (!c || getrandom(nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce)) {
        free(c);
        snprintf(why, cap, "out of memory");
        return -ENOMEM;
    }
    EVP_EncodeBlock((unsigned char *)key, nonce, sizeof(nonce));
    c->fd = -1;
    c->last = &c->first;
    c->stop = config->stop;
    int result = u->is_unix ? connect_unix(c, u, deadline_ms)
                            : connect_tcp(c, u, deadline_ms, why, cap);
    if (result == 0 && u->is_tls)
        result = tls_connect(c, config, deadline_ms, why, cap);
    if (result == 0)
        result = send_request(c, config, key, deadline_ms);
    if (result == 0)
        result = read_response(c, config, key, deadline_ms, why, cap);
    if (result == 0)
        result = start_frames(c);
    if (result != 0) {
        bool late = result == -ETIMEDOUT;
        if (why[0] == '\0')
            snprintf(why, cap, "%s", late ? "no answer in time" : strerror(-result));
        wsclient_free(c);
        return result;
    }
    c->heard_at_ms = clock_mono_ms();
    *out = c;
    return 0;
}

/* One round of reading and writing; whatever cannot go on ends the connection. */
static void turn(struct wsclient *c)
{
    c->events = 0;
    c->turn_bytes = 0;
    int got = wslay_event_recv(c->ws);
    int sent = wslay_event_want_write(c->ws) ? wslay_event_send(c->ws) : 0;
    if (got != 0 || sent != 0)
        end(c, WSLAY_CODE_ABNORMAL_CLOSURE, "connection lost");
    else if (!wslay_event_get_read_enabled(c->ws))
        end(c, WSLAY_CODE_PROTOCOL_ERROR, "the server broke the protocol");
}

static void watch_silence(struct wsclient *c)
{
    int64_t silent_ms = clock_mono_ms() - c->heard_at_ms;
    const struct wslay_event_msg ping = {.opcode = WSLAY_PING};
    if (!c->pinged && silent_ms >= SILENCE_MS) {
        c->pinged = true;
        wslay_event_queue_msg(c->ws, &ping);
    } else if (silent_ms >= 2 * SILENCE_MS) {
        end(c, WSLAY_CODE_ABNORMAL_CLOSURE, "the server is silent");
    }
}

static struct message *take(struct wsclient *c)
{
    struct message *m = c->first;
    if (!m)
        return NULL;
    c->queued--;
    if (!(c->first = m->next))
        c->last = &c->first;
    return m;
}

/* What the next turn waits for. After one that was cut short there may be more at hand, within
 * OpenSSL even: then a socket that can be written to is enough. */
static short awaited(const struct wsclient *c)
{
    if (!may_read(c))
        return POLLOUT;
    return (short)(POLLIN | c->events | (c->turn_bytes >= TURN_MAX_BYTES ? POLLOUT : 0));
}

int wsclient_next(struct wsclient *c, int64_t deadline_ms, struct text_span *message)
{
    free(c->shown);
    c->shown = NULL;
    for (;;) {
        if ((c->shown = take(c))) {
            *message = (struct text_span){c->shown->bytes, c->shown->len};
            return 1;
        }
        if (c->ended)
            return 0;
        turn(c);
        if (c->first || c->ended)
            continue;
        int64_t step = clock_mono_ms() + STEP_MS, until = step < deadline_ms ? step : deadline_ms;
        int result = wait_fd(c, awaited(c), until);
        if (result == -ETIMEDOUT && clock_mono_ms() < deadline_ms)
            watch_silence(c);
        else if (result == -ETIMEDOUT || result == -EINTR)
            return result;
        else if (result != 0)
            end(c, WSLAY_CODE_ABNORMAL_CLOSURE, "connection lost");
    }
}

int wsclient_close_code(const struct wsclient *c)
{
    return c->close_code;
}

const char *wsclient_close_reason(const struct wsclient *c)
{
    return c->close_reason;
}

void wsclient_close(struct wsclient *c, int64_t deadline_ms)
{
    struct text_span message;
    c->stop = NULL;
    if (c->ended || wslay_event_queue_close(c->ws, WSLAY_CODE_NORMAL_CLOSURE, NULL, 0) != 0)
        return;
    while (wsclient_next(c, deadline_ms, &message) == 1)
        ;
}

void wsclient_free(struct wsclient *c)
{
    if (!c)
        return;
    for (struct message *m; (m = take(c));)
        free(m);
    free(c->shown);
    wslay_event_context_free(c->ws);
    SSL_free(c->tls);
    SSL_CTX_free(c->tls_context);
    if (c->fd >= 0)
        close(c->fd);
    text_buf_free(&c->early);
    free(c);
}
