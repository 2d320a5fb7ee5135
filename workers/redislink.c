#include "config.h"

#include "workers/redislink.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <hiredis/adapters/libev.h>
#ifdef HAVE_HIREDIS_SSL
#include <hiredis/hiredis_ssl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#endif

#include "shared/chance.h"
#include "shared/log.h"
#include "workers/push.h"
#include "workers/resolve.h"

#define SETUP_MAX 4
#define READ_CHUNK_BYTES (16 * 1024) /* what one redisBufferRead takes at most */
#define READER_KEEPS_BYTES 1024      /* of what was handed out hiredis keeps at most so much */
#define REMIND_MS 60000
#define EXCESSIVE "a reply beyond all bounds"
#define TLS_RETRY_S 0.01

enum state { DOWN, RESOLVING, CONNECTING, SETUP, UP };

struct redislink {
    struct worker *w;
    const struct redislink_owner *owner;
    void *data;
    enum state state;
    struct ev_timer timer;     /* DOWN: next attempt; else until UP: the attempt's limit */
    struct resolve *resolve;   /* RESOLVING */
    redisAsyncContext *async;  /* ASYNC, from CONNECTING on */
    redisContext *raw;         /* RAW, from CONNECTING on */
    struct ev_io io;           /* RAW */
    struct ev_timer more;      /* RAW: replies were left for the next turn */
    bool in_replies;           /* RAW: the context must outlive the loop over its replies */
    bool is_doomed;            /* RAW: give up after it */
    unsigned attempts;         /* failed since the link was stable */
    size_t address_turn;       /* the next attempt takes the next address */
    int64_t up_at_ms;
    const char *setup[SETUP_MAX]; /* commands whose reply is awaited, in order */
    size_t setup_count, setup_done;
    uint64_t random;
    int64_t told_at_ms;
    char told[160];            /* last reason that was logged */
    char why[160];             /* reason for is_doomed */
    redisReplyObjectFunctions guarded; /* what makes replies, with a look at each first */
    const redisReplyObjectFunctions *plain;
    bool is_unasked;           /* ASYNC: a reply came that no command awaits */
    bool is_excessive;         /* a reply came that no command asks for */
    size_t elements, bytes;    /* of the reply that is being made */
    uint64_t skip_bytes;       /* RAW: of a push that is thrown away, still to come */
#ifdef HAVE_HIREDIS_SSL
    SSL_CTX *tls;
#endif
};

static const struct redisurl *url(const struct redislink *l)
{
    return l->w->start->redis;
}

static void set_timer(struct redislink *l, int64_t ms)
{
    ev_timer_stop(l->w->loop, &l->timer);
    ev_timer_set(&l->timer, (double)ms / 1000., 0.);
    ev_timer_start(l->w->loop, &l->timer);
}

/* ---- going down ---- */

/* Lets go of the connection. An asynchronous one calls back every command under way from here. */
static void drop_connection(struct redislink *l)
{
    struct ev_loop *loop = l->w->loop;
    resolve_cancel(l->resolve);
    l->resolve = NULL;
    ev_timer_stop(loop, &l->timer);
    ev_timer_stop(loop, &l->more);
    ev_io_stop(loop, &l->io);
    redisContext *raw = l->raw;
    redisAsyncContext *async = l->async;
    l->raw = NULL;
    l->async = NULL;
    if (raw)
        redisFree(raw);
    if (async) {
        async->data = NULL; /* its callbacks are not this link's any more */
        redisAsyncFree(async);
    }
}

/* Repeated failures for one reason are told once a minute. */
static void tell_down(struct redislink *l, bool was_up, const char *why, int64_t wait_ms)
{
    int64_t now = worker_now_ms(l->w);
    if (!was_up && !strcmp(l->told, why) && now - l->told_at_ms < REMIND_MS)
        return;
    char where[400];
    redisurl_describe(url(l), where, sizeof(where));
    snprintf(l->told, sizeof(l->told), "%s", why);
    l->told_at_ms = now;
    log_warning(was_up ? "redis-down" : "redis-unreachable", "link", l->owner->name, "redis", where,
                "reason", why, "retry_ms", LOG_INT(wait_ms));
}

/* Whatever was there is given up; the next attempt is due after the back-off. */
static void go_down(struct redislink *l, const char *reason)
{
    bool was_up = l->state == UP;
    char why[160];
    snprintf(why, sizeof(why), "%s", reason); /* reason may belong to the connection */
    l->state = DOWN;
    l->is_doomed = false;
    drop_connection(l);
    if (was_up) {
        counters_set(l->owner->up, 0);
        counters_inc(CTR_redis_disconnects);
        if (worker_now_ms(l->w) - l->up_at_ms >= REDISLINK_STABLE_MS)
            l->attempts = 0;
    }
    int64_t bound = REDISLINK_BACKOFF_MIN_MS;
    for (unsigned i = 0; i < l->attempts && bound < REDISLINK_BACKOFF_MAX_MS; i++)
        bound *= 2;
    /* A server that let us in is there: it is asked again soon, however short the link lived. */
    int64_t max = was_up ? REDISLINK_BACKOFF_LOST_MS : REDISLINK_BACKOFF_MAX_MS;
    if (bound > max)
        bound = max;
    l->attempts++;
    int64_t wait_ms = 1 + (int64_t)(chance_next(&l->random) % (uint64_t)bound);
    tell_down(l, was_up, why, wait_ms);
    set_timer(l, wait_ms);
    if (was_up)
        l->owner->on_down(l->data);
}

static void go_up(struct redislink *l)
{
    char where[400];
    redisurl_describe(url(l), where, sizeof(where));
    ev_timer_stop(l->w->loop, &l->timer);
    l->state = UP;
    l->up_at_ms = worker_now_ms(l->w);
    l->told[0] = '\0';
    counters_set(l->owner->up, 1);
    counters_inc(CTR_redis_connects);
    log_info("redis-up", "link", l->owner->name, "redis", where);
    l->owner->on_up(l->data);
}

/* ---- set-up ---- */

static void setup_reply(struct redislink *l, const redisReply *reply)
{
    const char *command = l->setup[l->setup_done++];
    if (reply->type == REDIS_REPLY_ERROR) {
        bool is_auth = !strcmp(command, "AUTH");
        /* A name for people needs no right; and a user who may not PING has been let in. */
        bool is_harmless = !strcmp(command, "CLIENT") ||
                           (!strcmp(command, "PING") && !strncmp(reply->str, "NOPERM", 6));
        if (!is_harmless) {
            char why[160];
            /* Of AUTH's error only the first word: where AUTH is an unknown command, Redis repeats
             * its arguments. */
            int len = is_auth ? (int)strcspn(reply->str, " ") : (int)strlen(reply->str);
            counters_inc(CTR_redis_errors);
            snprintf(why, sizeof(why), "%s: %.*s", command, len > 120 ? 120 : len, reply->str);
            go_down(l, why);
            return;
        }
    }
    if (l->setup_done == l->setup_count)
        go_up(l);
}

static void on_setup_reply(redisAsyncContext *ac, void *reply, void *data)
{
    (void)data;
    struct redislink *l = ac->data;
    if (l && reply && l->state == SETUP)
        setup_reply(l, reply);
}

static int setup_send(struct redislink *l, int argc, const char **argv)
{
    int rc = l->raw ? redisAppendCommandArgv(l->raw, argc, argv, NULL)
                    : redisAsyncCommandArgv(l->async, on_setup_reply, NULL, argc, argv, NULL);
    if (rc != REDIS_OK)
        return -ENOMEM;
    counters_inc(CTR_redis_commands);
    l->setup[l->setup_count++] = argv[0];
    return 0;
}

/* Connected: says who we are. PING at the end finds out what the others do not: LOADING, NOAUTH. */
static int start_setup(struct redislink *l)
{
    const struct redisurl *u = url(l);
    char db[16];
    snprintf(db, sizeof(db), "%d", u->db);
    const char *auth[] = {"AUTH", u->user[0] ? u->user : u->password, u->password};
    const char *select[] = {"SELECT", db};
    const char *name[] = {"CLIENT", "SETNAME", "belfry"};
    const char *ping[] = {"PING"};
    int rc = 0;
    l->state = SETUP;
    l->setup_count = l->setup_done = 0;
    if (u->password[0])
        rc = setup_send(l, u->user[0] ? 3 : 2, auth);
    if (!rc && u->db)
        rc = setup_send(l, 2, select);
    if (!rc)
        rc = setup_send(l, 3, name);
    if (!rc)
        rc = setup_send(l, 1, ping);
    return rc;
}

/* A peer that is gone without a word is noticed by the kernel; a hung one by probes and time
 * limits. */
static void set_socket_options(struct redislink *l, int fd)
{
    int on = 1, idle_s = 15, interval_s = 5, count = 3;
    int64_t limit = l->w->opt->redis_command_timeout * 2;
    unsigned limit_ms = limit < 5000 ? 5000 : limit > 60000 ? 60000 : (unsigned)limit;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (url(l)->is_unix)
        return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof(limit_ms));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* ---- RAW: reading and writing ---- */

static void watch(struct redislink *l, int events)
{
    if (ev_is_active(&l->io) && l->io.events == events)
        return;
    ev_io_stop(l->w->loop, &l->io);
    ev_io_set(&l->io, l->raw->fd, events);
    if (events)
        ev_io_start(l->w->loop, &l->io);
}

static void raw_write(struct redislink *l)
{
    int done = 0;
    size_t before = sdslen(l->raw->obuf);
    if (redisBufferWrite(l->raw, &done) != REDIS_OK) {
        go_down(l, l->raw->errstr);
        return;
    }
    int reading = l->io.events & EV_READ;
    if (!done && url(l)->is_tls && sdslen(l->raw->obuf) == before) {
        /* TLS may have to read before it can write (in the handshake it does), and does not say so:
         * waiting for the socket to be writable would spin. */
        watch(l, reading);
        ev_timer_stop(l->w->loop, &l->more);
        ev_timer_set(&l->more, TLS_RETRY_S, 0.);
        ev_timer_start(l->w->loop, &l->more);
        return;
    }
    watch(l, done ? reading : reading | EV_WRITE);
}

static size_t buffered(const struct redislink *l)
{
    return l->raw->reader->len - l->raw->reader->pos;
}

/* Takes what the socket has, so that Redis does not count this client as slow. 0 or -EIO. */
static int raw_read(struct redislink *l)
{
    for (size_t taken = 0; taken < REDISLINK_READ_BYTES_A_TURN;) {
        size_t before = buffered(l);
        if (before >= REDISLINK_BUFFER_MAX_BYTES)
            return 0;
        if (redisBufferRead(l->raw) != REDIS_OK)
            return -EIO;
        size_t got = buffered(l) - before;
        taken += got;
        /* TLS gives a record at a time: only nothing means nothing. */
        if (!got || (got < READ_CHUNK_BYTES && !url(l)->is_tls))
            return 0;
    }
    counters_inc(CTR_turn_bound_hits);
    ev_timer_start(l->w->loop, &l->more);
    return 0;
}

/* hiredis has taken nothing of the reply that comes next. */
static bool is_between(const redisReader *r)
{
#if HIREDIS_MAJOR >= 1
    return r->ridx == -1 || (r->ridx == 0 && r->task[0]->type == -1);
#else
    return r->ridx == -1 || (r->ridx == 0 && r->rstack[0].type == -1);
#endif
}

static size_t max_payload(const struct redislink *l)
{
    int64_t max = l->w->opt->max_payload_size;
    return max > 0 ? (size_t)max : REDISLINK_BUFFER_MAX_BYTES;
}

enum handed { HANDED, WAITS, NOT_MINE };

/* Hands out the next reply without hiredis, if it is a push and hiredis is not in the middle of
 * one. */
static enum handed raw_push(struct redislink *l)
{
    redisReader *r = l->raw->reader;
    struct push push;
    if (l->state != UP || !l->owner->on_push || r->err || !is_between(r))
        return NOT_MINE;
    switch (push_read(r->buf + r->pos, buffered(l), max_payload(l), &push)) {
    case PUSH_WHOLE:
        r->pos += push.size;
        l->owner->on_push(l->data, &push);
        return HANDED;
    case PUSH_LARGE:
        l->skip_bytes = push.size;
        l->owner->on_large(l->data, &push);
        return HANDED;
    case PUSH_CUT:
        return WAITS;
    case PUSH_OTHER:
        break;
    }
    return NOT_MINE;
}

static void raw_skip(struct redislink *l)
{
    size_t n = l->skip_bytes < buffered(l) ? (size_t)l->skip_bytes : buffered(l);
    l->raw->reader->pos += n;
    l->skip_bytes -= n;
}

static void raw_pause(struct redislink *l)
{
    if (l->state == UP && l->owner->on_pause)
        l->owner->on_pause(l->data);
}

/*
 * hiredis lets go of what was taken from its buffer, by moving what follows, when it is asked for a
 * reply: so it is asked once a turn, with nothing to be seen in the buffer.
 */
static void raw_compact(struct redislink *l)
{
    redisReader *r = l->raw->reader;
    size_t len = r->len;
    void *nothing = NULL;
    if (r->pos < READER_KEEPS_BYTES || r->err || !is_between(r))
        return;
    r->len = r->pos;
    redisGetReplyFromReader(l->raw, &nothing);
    if (r->pos) /* it did not: then the length is as it was */
        r->len = len;
}

/* Hands out the next reply by hiredis. False: there is none, or the link is lost; then *why. */
static bool raw_reply(struct redislink *l, const char **why)
{
    void *reply = NULL;
    if (redisGetReplyFromReader(l->raw, &reply) != REDIS_OK) {
        *why = l->is_excessive ? EXCESSIVE : l->raw->errstr;
        return false;
    }
    if (!reply)
        return false;
    if (l->state == UP)
        l->owner->on_reply(l->data, reply);
    else if (l->state == SETUP)
        setup_reply(l, reply);
    freeReplyObject(reply);
    return l->state != DOWN;
}

/* Hands out at most one turn's replies. */
static void raw_replies(struct redislink *l)
{
    unsigned n = 0;
    const char *why = NULL;
    l->in_replies = true;
    for (; !l->is_doomed && n < REDISLINK_REPLIES_A_TURN; n++) {
        raw_skip(l);
        enum handed handed = buffered(l) ? raw_push(l) : WAITS;
        if (handed == WAITS)
            break;
        if (handed == HANDED)
            continue;
        raw_pause(l);
        if (l->is_doomed || !raw_reply(l, &why))
            break;
    }
    if (l->state == DOWN) { /* set-up failed: the context is gone */
        l->in_replies = false;
        return;
    }
    raw_pause(l);
    l->in_replies = false;
    if (l->is_doomed)
        why = l->why;
    else if (!why && n < REDISLINK_REPLIES_A_TURN && buffered(l) >= REDISLINK_BUFFER_MAX_BYTES)
        why = "a reply above 32 MiB";
    if (why) {
        go_down(l, why);
        return;
    }
    raw_compact(l);
    if (n == REDISLINK_REPLIES_A_TURN) {
        counters_inc(CTR_turn_bound_hits);
        ev_timer_start(l->w->loop, &l->more);
    }
}

static void raw_turn(struct redislink *l)
{
    if (raw_read(l) < 0) {
        /* What came before the end still counts: replies that are whole are handed out. */
        char why[160];
        snprintf(why, sizeof(why), "%s", l->raw->errstr);
        l->raw->err = 0;
        raw_replies(l);
        if (l->raw)
            go_down(l, why);
        return;
    }
    raw_replies(l);
    if (!l->raw)
        return;
    int writing = l->io.events & EV_WRITE;
    watch(l, buffered(l) < REDISLINK_BUFFER_MAX_BYTES ? writing | EV_READ : writing);
}

static void on_more(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)events;
    struct redislink *l = t->data;
    ev_timer_set(t, 0., 0.);
    if (sdslen(l->raw->obuf))
        raw_write(l);
    if (l->raw)
        raw_turn(l);
}

static void raw_connected(struct redislink *l)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(l->raw->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error) {
        go_down(l, strerror(error));
        return;
    }
    set_socket_options(l, l->raw->fd);
    if (start_setup(l) < 0) {
        go_down(l, "no memory");
        return;
    }
    watch(l, EV_READ);
    raw_write(l);
}

static void on_io(struct ev_loop *loop, struct ev_io *io, int events)
{
    (void)loop;
    struct redislink *l = io->data;
    if (l->state == CONNECTING) {
        raw_connected(l);
        return;
    }
    if ((events & EV_WRITE) || (url(l)->is_tls && sdslen(l->raw->obuf)))
        raw_write(l);
    if (l->raw && (events & EV_READ))
        raw_turn(l);
}

/* ---- replies that nobody asked for ---- */

/*
 * hiredis' asynchronous half asserts that a reply without a command belongs to a subscription, and
 * both halves take memory for as many elements as a reply claims to have. No real server sends such
 * a thing, but none must be able to end this process. So the reader fails, and with it the
 * connection, before such a reply is made. Errors pass: hiredis closes after them by itself.
 */
static bool is_unasked(const redisReadTask *task)
{
    struct redislink *l = task->privdata;
    if (task->parent || !l->async || l->async->replies.head || task->type == REDIS_REPLY_ERROR)
        return false;
    l->is_unasked = true;
    return true;
}

/* A list, two texts beside it, and its read marks (store.h), whose ids have 256 bytes at most. */
static size_t reply_limit(const struct redislink *l)
{
    const struct options *opt = l->w->opt;
    return (size_t)opt->max_reading_size + 2 * max_payload(l) +
           (size_t)opt->history_size * 8 * 256 + REDISLINK_SLACK_BYTES;
}

static bool is_refused(const redisReadTask *task, size_t elements, size_t bytes)
{
    struct redislink *l = task->privdata;
    if (is_unasked(task))
        return true;
    if (!task->parent)
        l->elements = l->bytes = 0;
    l->bytes += bytes;
    if (elements > REDISLINK_ELEMENTS_MAX - l->elements || l->bytes > reply_limit(l)) {
        l->is_excessive = true;
        return true;
    }
    l->elements += elements;
    return false;
}

static const redisReplyObjectFunctions *plain(const redisReadTask *task)
{
    return ((const struct redislink *)task->privdata)->plain;
}

static void *guard_string(const redisReadTask *task, char *text, size_t len)
{
    return is_refused(task, 0, len) ? NULL : plain(task)->createString(task, text, len);
}

static void *guard_integer(const redisReadTask *task, long long value)
{
    return is_refused(task, 0, 0) ? NULL : plain(task)->createInteger(task, value);
}

static void *guard_nil(const redisReadTask *task)
{
    return is_refused(task, 0, 0) ? NULL : plain(task)->createNil(task);
}

#if HIREDIS_MAJOR >= 1
static void *guard_array(const redisReadTask *task, size_t elements)
{
    return is_refused(task, elements, 0) ? NULL : plain(task)->createArray(task, elements);
}

static void *guard_double(const redisReadTask *task, double value, char *text, size_t len)
{
    return is_refused(task, 0, 0) ? NULL : plain(task)->createDouble(task, value, text, len);
}

static void *guard_bool(const redisReadTask *task, int value)
{
    return is_refused(task, 0, 0) ? NULL : plain(task)->createBool(task, value);
}
#else
static void *guard_array(const redisReadTask *task, int elements)
{
    return is_refused(task, (size_t)elements, 0) ? NULL
                                                : plain(task)->createArray(task, elements);
}
#endif

static void guard(struct redislink *l, redisReader *reader)
{
    l->plain = reader->fn;
    l->guarded = *reader->fn;
    l->guarded.createString = guard_string;
    l->guarded.createArray = guard_array;
    l->guarded.createInteger = guard_integer;
    l->guarded.createNil = guard_nil;
#if HIREDIS_MAJOR >= 1
    l->guarded.createDouble = guard_double;
    l->guarded.createBool = guard_bool;
#endif
    l->is_unasked = l->is_excessive = false;
    l->elements = l->bytes = 0;
    l->skip_bytes = 0;
    reader->fn = &l->guarded;
    reader->privdata = l;
}

/* ---- ASYNC ---- */

static void on_async_connect(const redisAsyncContext *ac, int status)
{
    struct redislink *l = ac->data;
    if (!l)
        return;
    if (status != REDIS_OK) {
        l->async = NULL; /* hiredis frees it after this */
        go_down(l, ac->c.errstr[0] ? ac->c.errstr : "cannot connect");
        return;
    }
    set_socket_options(l, ac->c.fd);
    if (start_setup(l) < 0)
        set_timer(l, 0); /* the context must not be freed from within this callback */
}

static void on_async_disconnect(const redisAsyncContext *ac, int status)
{
    (void)status;
    struct redislink *l = ac->data;
    if (!l)
        return;
    l->async = NULL; /* hiredis frees it after this */
    go_down(l, l->is_excessive ? EXCESSIVE : l->is_unasked ? "a reply that nobody asked for"
               : ac->c.errstr[0] ? ac->c.errstr : "closed");
}

/* A bulk string is made when it is whole, and until then waits in hiredis' buffer. */
static void on_async_read(struct ev_loop *loop, struct ev_io *io, int events)
{
    (void)loop, (void)events;
    const redisLibevEvents *e = io->data;
    redisAsyncContext *ac = e->context;
    struct redislink *l = ac->data;
    redisAsyncHandleRead(ac); /* may free it */
    if (l && l->async == ac && ac->c.reader->len - ac->c.reader->pos > reply_limit(l))
        go_down(l, EXCESSIVE);
}

static void bound_reading(struct redislink *l)
{
    redisLibevEvents *e = l->async->ev.data;
    ev_set_cb(&e->rev, on_async_read);
}

/* ---- connecting ---- */

#ifdef HAVE_HIREDIS_SSL
/* hiredis' own SSL context checks the chain only, so the SSL object is made here: the certificate
 * must also be the host's. Which authorities are trusted is the system's business (SSL_CERT_FILE,
 * SSL_CERT_DIR). */
static int prepare_tls(struct redislink *l)
{
    if (!url(l)->is_tls)
        return 0;
    l->tls = SSL_CTX_new(TLS_client_method());
    if (!l->tls || SSL_CTX_set_min_proto_version(l->tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_default_verify_paths(l->tls) != 1)
        return -ENOMEM;
    SSL_CTX_set_verify(l->tls, SSL_VERIFY_PEER, NULL);
    return 0;
}

static int start_tls(struct redislink *l, redisContext *c)
{
    if (!url(l)->is_tls)
        return 0;
    const char *host = url(l)->host;
    SSL *ssl = SSL_new(l->tls);
    if (ssl && (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 ||
                (SSL_set_tlsext_host_name(ssl, host) == 1 && SSL_set1_host(ssl, host) == 1)) &&
        redisInitiateSSL(c, ssl) == REDIS_OK)
        return 0; /* hiredis frees it from now on */
    SSL_free(ssl);
    return -EPROTO;
}
#else
static int prepare_tls(struct redislink *l)
{
    return url(l)->is_tls ? -ENOTSUP : 0;
}

static int start_tls(struct redislink *l, redisContext *c)
{
    (void)l, (void)c;
    return 0;
}
#endif

static void connect_raw(struct redislink *l, const char *address)
{
    const struct redisurl *u = url(l);
    l->raw =
        u->is_unix ? redisConnectUnixNonBlock(u->host) : redisConnectNonBlock(address, u->port);
    if (!l->raw || l->raw->err || start_tls(l, l->raw) < 0) {
        go_down(l, l->raw ? l->raw->errstr : "no memory");
        return;
    }
    guard(l, l->raw->reader);
    watch(l, EV_WRITE);
}

static void connect_async(struct redislink *l, const char *address)
{
    const struct redisurl *u = url(l);
    l->async = u->is_unix ? redisAsyncConnectUnix(u->host) : redisAsyncConnect(address, u->port);
    if (!l->async || l->async->err || start_tls(l, &l->async->c) < 0) {
        go_down(l, l->async ? l->async->errstr : "no memory");
        return;
    }
    l->async->data = l;
    guard(l, l->async->c.reader);
    if (redisLibevAttach(l->w->loop, l->async) != REDIS_OK ||
        redisAsyncSetConnectCallback(l->async, on_async_connect) != REDIS_OK ||
        redisAsyncSetDisconnectCallback(l->async, on_async_disconnect) != REDIS_OK)
        go_down(l, "no memory");
    else
        bound_reading(l);
}

static void connect_to(struct redislink *l, const char *address)
{
    l->state = CONNECTING;
    if (l->owner->is_raw)
        connect_raw(l, address);
    else
        connect_async(l, address);
}

/* One address for each attempt, in turn: a dead one delays, and never keeps from the others. */
static void on_resolved(void *data, int error, char (*addresses)[RESOLVE_ADDRESS_BYTES],
                        size_t count)
{
    struct redislink *l = data;
    l->resolve = NULL;
    if (error)
        go_down(l, gai_strerror(error));
    else
        connect_to(l, addresses[l->address_turn++ % count]);
}

static void attempt(struct redislink *l)
{
    set_timer(l, l->w->opt->redis_connect_timeout);
    if (url(l)->is_unix) {
        connect_to(l, NULL);
        return;
    }
    l->state = RESOLVING;
    l->resolve = resolve_start(l->w->loop, url(l)->host, on_resolved, l);
    if (!l->resolve)
        go_down(l, "no thread to resolve the name");
}

static void on_timer(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)events;
    struct redislink *l = t->data;
    if (l->state == DOWN)
        attempt(l);
    else
        go_down(l, l->state == RESOLVING ? "the name is not resolved in time" : "timeout");
}

/* ---- interface ---- */

struct redislink *redislink_new(struct worker *w, const struct redislink_owner *owner, void *data)
{
    struct redislink *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->w = w;
    l->owner = owner;
    l->data = data;
    l->random = chance_seed();
    ev_timer_init(&l->timer, on_timer, 0., 0.);
    ev_timer_init(&l->more, on_more, 0., 0.);
    ev_io_init(&l->io, on_io, -1, 0);
    l->timer.data = l->more.data = l->io.data = l;
    if (prepare_tls(l) < 0) {
        redislink_free(l);
        return NULL;
    }
    ev_timer_start(w->loop, &l->timer);
    return l;
}

void redislink_free(struct redislink *l)
{
    if (!l)
        return;
    l->state = DOWN;
    drop_connection(l);
    counters_set(l->owner->up, 0);
#ifdef HAVE_HIREDIS_SSL
    SSL_CTX_free(l->tls);
#endif
    free(l);
}

bool redislink_is_up(const struct redislink *l)
{
    /* While hiredis tells the commands of a lost connection, before it tells the loss. */
    return l && l->state == UP && !l->is_doomed &&
           !(l->async && (l->async->c.flags & (REDIS_DISCONNECTING | REDIS_FREEING)));
}

void redislink_reset(struct redislink *l, const char *why)
{
    if (l->state == DOWN)
        return;
    if (!l->in_replies) {
        go_down(l, why);
        return;
    }
    l->is_doomed = true;
    snprintf(l->why, sizeof(l->why), "%s", why);
}

bool redislink_has_tried(const struct redislink *l)
{
    return redislink_is_up(l) || l->attempts > 0;
}

void redislink_look(struct redislink *l)
{
    /* Where too much was read already, reading rests. */
    if (l->state == UP && !l->in_replies && (l->io.events & EV_READ))
        raw_turn(l);
}

int redislink_send(struct redislink *l, int argc, const char **argv, const size_t *argvlen)
{
    if (!redislink_is_up(l))
        return -ENOTCONN;
    if (redisAppendCommandArgv(l->raw, argc, argv, argvlen) != REDIS_OK)
        return -ENOMEM;
    counters_inc(CTR_redis_commands);
    watch(l, l->io.events | EV_WRITE);
    return 0;
}

struct redisAsyncContext *redislink_async(const struct redislink *l)
{
    return redislink_is_up(l) ? l->async : NULL;
}
