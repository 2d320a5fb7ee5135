/*
 * publish.c - libbelfry: see belfry.h. Synchronous hiredis, 0.14 to 1.2.
 *
 * One call is: connect if need be, EVALSHA, EVAL when Redis does not know the script, read the
 * answer; all under one deadline. The library is a guest: it prints nothing, keeps no global, and a
 * connection that breaks while it writes must not kill its host by SIGPIPE (hiredis writes without
 * MSG_NOSIGNAL).
 */
#include "config.h"

#include "shared/belfry.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#ifdef HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#include "shared/clock.h"
#include "shared/emit.h"
#include "shared/events.h"
#include "shared/json.h"
#include "shared/keys.h"
#include "shared/redisurl.h"
#include "shared/text.h"

#define DEFAULT_URL "redis://127.0.0.1:6379/0"
#define DEFAULT_TIMEOUT_MS 5000
#define DEFAULT_HISTORY_SIZE 100
#define DEFAULT_HISTORY_TTL_S 604800
#define ERROR_BYTES 320
#define TYPE_MAX_BYTES 128

_Static_assert(BELFRY_ID_BYTES == UUID7_TEXT_BYTES, "ids have one size");

struct belfry {
    struct redisurl url;
    struct keys keys;
    struct emit_rules rules;
    int timeout_ms;
    bool check_nothing;
    redisContext *redis; /* NULL: not connected */
    char error[ERROR_BYTES];
};

static _Thread_local char open_error[ERROR_BYTES];

__attribute__((format(printf, 3, 4))) static int fail(struct belfry *b, int error,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(b->error, sizeof b->error, format, args);
    va_end(args);
    return error;
}

/* --- SIGPIPE --- */

struct pipe_guard {
    sigset_t old;
    bool was_pending;
    bool on;
};

static void guard_pipe(struct pipe_guard *g)
{
    sigset_t pipe, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    g->was_pending = sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1;
    g->on = pthread_sigmask(SIG_BLOCK, &pipe, &g->old) == 0;
}

/* Takes the signal we may have caused back before it can be delivered; one that was pending before
 * is the host's. */
static void unguard_pipe(const struct pipe_guard *g)
{
    if (!g->on)
        return;
    sigset_t pipe;
    struct timespec at_once = {0, 0};
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    if (!g->was_pending)
        while (sigtimedwait(&pipe, NULL, &at_once) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &g->old, NULL);
}

/* --- one command --- */

static void disconnect(struct belfry *b)
{
    if (b->redis)
        redisFree(b->redis);
    b->redis = NULL;
}

/* Lets the next blocking call of hiredis last until the deadline. 0 or -ETIMEDOUT. */
static int arm_timeout(struct belfry *b, int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms - clock_mono_ms();
    if (left_ms <= 0)
        return -ETIMEDOUT;
    struct timeval tv = {.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000};
    return redisSetTimeout(b->redis, tv) == REDIS_OK ? 0 : -EIO;
}

/* The connection failed within a command, and is gone. -ETIMEDOUT when it only fell silent, else
 * -ECONNRESET; with its text. */
static int broken(struct belfry *b, int error)
{
    const redisContext *c = b->redis;
    bool silent = error == -ETIMEDOUT ||
                  (c->err == REDIS_ERR_IO && (errno == EAGAIN || errno == ETIMEDOUT));
#ifdef REDIS_ERR_TIMEOUT
    silent = silent || c->err == REDIS_ERR_TIMEOUT;
#endif
    if (silent)
        error = fail(b, -ETIMEDOUT, "redis: no answer within %d ms", b->timeout_ms);
    else
        error = fail(b, -ECONNRESET, "redis: %s", c->err ? c->errstr : strerror(-error));
    disconnect(b);
    return error;
}

/* Sends one command and waits for its reply. 0 with *reply given, or -ETIMEDOUT, -ECONNRESET or
 * -ENOMEM and disconnected. */
static int command(struct belfry *b, int argc, const char **argv, const size_t *argvlen,
                   int64_t deadline_ms, redisReply **reply)
{
    if (redisAppendCommandArgv(b->redis, argc, argv, argvlen) != REDIS_OK) {
        disconnect(b);
        return fail(b, -ENOMEM, "no memory");
    }
    for (int done = 0; !done;) {
        int r = arm_timeout(b, deadline_ms);
        if (r < 0 || redisBufferWrite(b->redis, &done) != REDIS_OK)
            return broken(b, r);
    }
    for (;;) {
        void *got = NULL;
        if (redisGetReplyFromReader(b->redis, &got) != REDIS_OK)
            return broken(b, 0);
        if (got) {
            *reply = got;
            return 0;
        }
        int r = arm_timeout(b, deadline_ms);
        if (r < 0 || redisBufferRead(b->redis) != REDIS_OK)
            return broken(b, r);
    }
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* An error reply: keeps its words, printable, and says which errno it is. */
static int refused(struct belfry *b, const redisReply *reply, int error)
{
    struct text_buf words = {0};
    text_add_escaped(&words, reply->str, reply->len, 200);
    fail(b, error, "redis: %s", words.data ? words.data : "error");
    text_buf_free(&words);
    /* The last is said to a client that begins with a command of many words, as ours are. */
    if (begins(reply->str, "NOAUTH") || begins(reply->str, "NOPERM") ||
        begins(reply->str, "WRONGPASS") || strstr(reply->str, "unauthenticated"))
        error = -EACCES;
    else if (strstr(reply->str, "max number of clients"))
        error = -ECONNREFUSED;
    return error;
}

/* --- connecting --- */

/* A command of the connection's start, which Redis answers with OK. */
static int introduce(struct belfry *b, int argc, const char **argv, int64_t deadline_ms, int error)
{
    redisReply *reply = NULL;
    size_t argvlen[3] = {0};
    for (int i = 0; i < argc; i++)
        argvlen[i] = strlen(argv[i]);
    int r = command(b, argc, argv, argvlen, deadline_ms, &reply);
    if (r < 0)
        return r;
    if (reply->type == REDIS_REPLY_ERROR)
        r = refused(b, reply, error);
    freeReplyObject(reply);
    return r;
}

static int log_in(struct belfry *b, int64_t deadline_ms)
{
    int r = 0;
    if (b->url.password[0] && b->url.user[0])
        r = introduce(b, 3, (const char *[]){"AUTH", b->url.user, b->url.password}, deadline_ms,
                      -EACCES);
    else if (b->url.password[0])
        r = introduce(b, 2, (const char *[]){"AUTH", b->url.password}, deadline_ms, -EACCES);
    if (r == 0 && b->url.db != 0) {
        char db[16];
        snprintf(db, sizeof db, "%d", b->url.db);
        r = introduce(b, 2, (const char *[]){"SELECT", db}, deadline_ms, -EINVAL);
    }
    return r;
}

#ifdef HAVE_HIREDIS_SSL
/* hiredis' own context does not compare the certificate with the host's name, so the SSL object is
 * made here. */
static int start_tls(struct belfry *b)
{
    int r = -ENOMEM;
    SSL *ssl = NULL;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_default_verify_paths(ctx) != 1)
        goto out;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    ssl = SSL_new(ctx);
    if (!ssl)
        goto out;
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), b->url.host) != 1 &&
        (SSL_set_tlsext_host_name(ssl, b->url.host) != 1 || SSL_set1_host(ssl, b->url.host) != 1))
        goto out;
    if (redisInitiateSSL(b->redis, ssl) == REDIS_OK) {
        ssl = NULL; /* hiredis frees it from now on */
        r = 0;
    } else {
        r = fail(b, -EPROTO, "redis: TLS: %s",
                 b->redis->err ? b->redis->errstr : "handshake failed");
    }
out:
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    if (r == -ENOMEM)
        fail(b, r, "redis: TLS: cannot be set up");
    return r;
}
#else
/* Never called: redisurl.c refuses rediss:// in such a library. */
static int start_tls(struct belfry *b)
{
    return fail(b, -EPROTO, "redis: TLS: not in this library");
}
#endif

/* What a failed connect of hiredis means. */
static int connect_error(struct belfry *b, int error)
{
    const redisContext *c = b->redis;
    if (!c)
        return fail(b, -ENOMEM, "no memory");
    int r = c->err == REDIS_ERR_IO && error > 0 ? -error
            : c->err == REDIS_ERR_OTHER         ? -EHOSTUNREACH
                                                : -ECONNREFUSED;
    if (r == -EAGAIN || r == -EINPROGRESS)
        r = -ETIMEDOUT;
#ifdef REDIS_ERR_TIMEOUT
    if (c->err == REDIS_ERR_TIMEOUT)
        r = -ETIMEDOUT;
#endif
    char where[320];
    redisurl_describe(&b->url, where, sizeof where);
    fail(b, r, "%.200s: %s", where, r == -ETIMEDOUT ? strerror(ETIMEDOUT) : c->errstr);
    return r;
}

static int make_connection(struct belfry *b, int64_t deadline_ms)
{
    struct timeval tv = {.tv_sec = b->timeout_ms / 1000, .tv_usec = b->timeout_ms % 1000 * 1000};
    errno = 0;
    b->redis = b->url.is_unix ? redisConnectUnixWithTimeout(b->url.host, tv)
                              : redisConnectWithTimeout(b->url.host, b->url.port, tv);
    int r = 0, error = errno;
    if (!b->redis || b->redis->err)
        r = connect_error(b, error);
    if (r == 0) {
        fcntl(b->redis->fd, F_SETFD, FD_CLOEXEC);
        r = arm_timeout(b, deadline_ms);
        if (r < 0)
            fail(b, r, "redis: no connection within %d ms", b->timeout_ms);
    }
    if (r == 0 && b->url.is_tls)
        r = start_tls(b);
    if (r == 0)
        r = log_in(b, deadline_ms);
    if (r < 0)
        disconnect(b);
    return r;
}

/* An idle connection has nothing to read: if it has, Redis closed it since the last call, and the
 * event shall not be lost on it. */
static bool is_stale(const struct belfry *b)
{
    struct pollfd p = {.fd = b->redis->fd, .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, 0) != 0;
}

/* --- sending --- */

static int send_event(struct belfry *b, struct emit_command *c, int64_t deadline_ms)
{
    redisReply *reply = NULL;
    int r = command(b, c->argc, c->argv, c->argvlen, deadline_ms, &reply);
    if (r == 0 && reply->type == REDIS_REPLY_ERROR && emit_is_noscript(reply->str)) {
        freeReplyObject(reply);
        reply = NULL;
        emit_use_eval(c);
        r = command(b, c->argc, c->argv, c->argvlen, deadline_ms, &reply);
    }
    if (r < 0)
        return r == -ENOMEM ? r : -EIO; /* it was sent, and nothing is known of it */
    if (reply->type == REDIS_REPLY_ERROR) {
        r = refused(b, reply, -EIO);
        /* After a failover the name may lead elsewhere: look it up again. */
        if (r != -EIO || begins(reply->str, "READONLY"))
            disconnect(b);
    } else if (reply->type != REDIS_REPLY_INTEGER) {
        r = fail(b, -EIO, "redis: an answer of unknown form");
        disconnect(b);
    } else {
        r = reply->integer > INT_MAX ? INT_MAX : (int)reply->integer;
    }
    freeReplyObject(reply);
    return r;
}

static int deliver(struct belfry *b, struct emit_command *c)
{
    struct pipe_guard guard;
    int64_t deadline_ms = clock_mono_ms() + b->timeout_ms;
    guard_pipe(&guard);
    if (b->redis && is_stale(b))
        disconnect(b);
    int r = b->redis ? 0 : make_connection(b, deadline_ms);
    if (r == 0)
        r = send_event(b, c, deadline_ms);
    unguard_pipe(&guard);
    return r;
}

/* Checks that concern every event. 0 or -EINVAL with its text. */
static int check_event(struct belfry *b, const char *type, struct text_span payload,
                       bool check_fields)
{
    size_t len = type ? strlen(type) : 0;
    bool fits = len > 0 && len <= TYPE_MAX_BYTES && text_is_utf8(type, len);
    for (size_t i = 0; fits && i < len; i++)
        fits = (unsigned char)type[i] >= 0x20 && type[i] != 0x7F;
    if (!fits)
        return fail(b, -EINVAL, "type: must be 1 to %d bytes of UTF-8 without control characters",
                    TYPE_MAX_BYTES);
    int event = check_fields && !b->check_nothing ? events_find(type, len) : -1;
    return events_check_payload(event, payload, b->error, sizeof b->error);
}

/* Sends a prepared event, unless it has become too deep for the gateways to relay. */
static int finish(struct belfry *b, struct emit_command *c, int prepared, int live_arg,
                  char *id_out)
{
    int r = prepared;
    if (r < 0)
        fail(b, r, "no memory");
    else if (json_scan_object(c->argv[live_arg], c->argvlen[live_arg], NULL, NULL) != JSON_OK)
        r = fail(b, -EINVAL, "payload: must be a JSON object, is nested too deeply");
    else
        r = deliver(b, c);
    if (r >= 0 && id_out)
        memcpy(id_out, c->id, BELFRY_ID_BYTES);
    emit_command_free(c);
    return r;
}

int belfry_emit(struct belfry *b, const char *user_id, const char *type, const char *payload,
                int flags, char *id_out)
{
    if (!b)
        return -EINVAL;
    if (!user_id || !keys_is_user_id(user_id, strlen(user_id)))
        return fail(b, -EINVAL,
                    "user_id: must be 1 to %d bytes of UTF-8 without control characters",
                    KEYS_USER_ID_MAX_BYTES);
    struct text_span body = text_span_of(payload ? payload : "{}");
    int r = check_event(b, type, body, !(flags & BELFRY_NO_CHECK));
    if (r < 0)
        return r;
    struct emit_command c;
    r = emit_prepare_user(&c, &b->rules, user_id, type, body, !(flags & BELFRY_NO_STORE));
    return finish(b, &c, r, 6, id_out);
}

int belfry_broadcast(struct belfry *b, const char *type, const char *payload, char *id_out)
{
    if (!b)
        return -EINVAL;
    struct text_span body = text_span_of(payload ? payload : "{}");
    int r = check_event(b, type, body, true);
    if (r < 0)
        return r;
    struct emit_command c;
    r = emit_prepare_broadcast(&c, &b->rules, type, body);
    return finish(b, &c, r, 2, id_out);
}

/* --- the handle --- */

static const char *given(const char *value, const char *otherwise)
{
    return value ? value : otherwise;
}

static bool take_numbers(struct belfry *b, const struct belfry_config *config)
{
    if (config->history_size < 0 || config->history_ttl_s < 0 || config->timeout_ms < 0 ||
        config->history_ttl_s > LONG_MAX / 1000) {
        fail(b, -EINVAL, "config: numbers must not be negative or out of range");
        return false;
    }
    b->rules.history_size = config->history_size ? config->history_size : DEFAULT_HISTORY_SIZE;
    b->rules.history_ttl_ms =
        1000 * (int64_t)(config->history_ttl_s ? config->history_ttl_s : DEFAULT_HISTORY_TTL_S);
    b->timeout_ms = config->timeout_ms ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    return true;
}

static bool take_names(struct belfry *b, const struct belfry_config *config)
{
    const char *reason = NULL;
    if (redisurl_parse(given(config->redis_url, DEFAULT_URL), &b->url, &reason) < 0) {
        fail(b, -EINVAL, "redis_url: %s", reason);
        return false;
    }
    if (b->url.is_embedded) {
        fail(b, -EINVAL, "redis_url: embedded is for belfryd only; give the URL that it prints");
        return false;
    }
    const char *broadcast = given(config->broadcast_channel, "ws:broadcast");
    if (!broadcast[0]) {
        fail(b, -EINVAL, "broadcast_channel: must not be empty");
        return false;
    }
    int r = keys_init(&b->keys, given(config->user_channel, "ws:user:{user_id}"), broadcast,
                      given(config->notifications_key, "notifications:{user_id}"),
                      given(config->snapshot_key, "ws:snapshot:{user_id}"));
    if (r < 0)
        fail(b, r, r == -EINVAL ? "templates: each must hold {user_id} exactly once" : "no memory");
    return r == 0;
}

struct belfry *belfry_open(const struct belfry_config *config)
{
    static const struct belfry_config defaults;
    if (!config)
        config = &defaults;
    struct belfry *b = calloc(1, sizeof *b);
    if (!b) {
        snprintf(open_error, sizeof open_error, "no memory");
        return NULL;
    }
    if (!take_numbers(b, config) || !take_names(b, config)) {
        memcpy(open_error, b->error, sizeof open_error);
        belfry_close(b);
        return NULL;
    }
    b->rules.keys = &b->keys;
    b->rules.style.lower_case = config->flags & BELFRY_LOWER_CASE;
    b->rules.style.with_zone = !(config->flags & BELFRY_NAIVE_TIME);
    b->check_nothing = config->flags & BELFRY_CHECK_NOTHING;
    return b;
}

void belfry_close(struct belfry *b)
{
    if (!b)
        return;
    disconnect(b);
    keys_fini(&b->keys);
    explicit_bzero(&b->url, sizeof b->url);
    free(b);
}

const char *belfry_errmsg(const struct belfry *b)
{
    return b ? b->error : open_error;
}
