#include "config.h"

#include "tests/fuzz/worker.h"

#include <errno.h>
#include <ev.h>
#include <sys/socket.h>
#include <unistd.h>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "workers/conn_internal.h"
#include "workers/deflate.h"
#include "workers/frame.h"
#include "workers/handover.h"
#include "workers/pages.h"
#include "workers/modules.h"
#include "workers/push.h"
#include "workers/redislink.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"
#include "workers/wheel.h"

#define COMMANDS_MAX 2048
#define CHANNELS_MAX 256
#define ENTRIES_MAX 32
#define SETTLE_ROUNDS 40
#define SNDBUF_BYTES 4096

struct worker fuzz_worker;
struct options fuzz_opt;
struct fuzz_client fuzz_clients[FUZZ_CLIENTS];

static int64_t now_ms;
static struct counters counters;
static struct usertable *users, *addresses;
static struct keys keys;
static struct redisurl url;
static struct worker_start start;

/* A page and what belongs to it, one of them compressed. */
static struct page page_items[] = {
    {.route = "/", .content_type = "text/html", .etag = "\"0123\"",
     .plain = {"<!doctype html>", 15}, .gzip = {"packed", 6}},
    {.route = "/ws-assets/a.js", .content_type = "text/javascript", .etag = "\"4567\"",
     .is_asset = true, .plain = {"0", 1}},
};
static const struct pages pages = {2, page_items};
static struct token_keys *token_keys;
static struct ev_check turn_start;
static struct ev_prepare turn_end;

int64_t worker_now_ms(const struct worker *w)
{
    (void)w;
    return now_ms;
}

int64_t worker_wall_ms(const struct worker *w)
{
    (void)w;
    return FUZZ_WALL_MS + now_ms;
}

/* ---- Redis as it is played ---- */

struct redislink {
    const struct redislink_owner *owner;
    void *data;
    bool is_up, is_doomed;
};

struct command {
    redisCallbackFn *fn;
    void *data;
    char name[16];
    char *channel; /* PUBLISH and the probe's script: what is to come back */
    struct text_span payload;
};

static struct {
    bool is_held;
    struct command commands[COMMANDS_MAX];
    size_t first, end;
    bool in_multi, reads_user; /* of the transaction that is answered */
    unsigned parts;
    struct {
        char *name;
        bool is_subscribe;
    } confirmations[CHANNELS_MAX];
    size_t confirmations_end;
    long long subscribed;
    struct text_span entries[ENTRIES_MAX]; /* newest first */
    size_t entry_count;
    struct text_span snapshot, acked;
    struct redislink raw, async;
    redisAsyncContext context; /* never looked into */
} redis;

struct redislink *redislink_new(struct worker *w, const struct redislink_owner *owner, void *data)
{
    struct redislink *l = owner->is_raw ? &redis.raw : &redis.async;
    (void)w;
    *l = (struct redislink){.owner = owner, .data = data};
    return l;
}

static struct command take_command(void)
{
    return redis.commands[redis.first++ % COMMANDS_MAX];
}

static void free_command(struct command *c)
{
    free(c->channel);
    free((char *)(uintptr_t)c->payload.ptr);
}

/* Commands under way get their callback without a reply; those they send meanwhile, too. */
static void lose_commands(void)
{
    while (redis.first < redis.end) {
        struct command c = take_command();
        c.fn(&redis.context, NULL, c.data);
        free_command(&c);
    }
    redis.in_multi = false;
}

static void lose_confirmations(void)
{
    while (redis.confirmations_end)
        free(redis.confirmations[--redis.confirmations_end].name);
    redis.subscribed = 0;
}

static void go_down(struct redislink *l)
{
    if (!l->owner || !l->is_up)
        return;
    l->is_up = l->is_doomed = false;
    if (l == &redis.async)
        lose_commands();
    else
        lose_confirmations();
    l->owner->on_down(l->data);
}

static void go_up(struct redislink *l)
{
    if (!l->owner || l->is_up)
        return;
    l->is_up = true;
    l->owner->on_up(l->data);
}

void redislink_free(struct redislink *l)
{
    if (!l)
        return;
    l->is_up = false;
    if (l == &redis.async)
        lose_commands();
    else
        lose_confirmations();
    l->owner = NULL;
}

bool redislink_is_up(const struct redislink *l)
{
    return l->is_up;
}

bool redislink_has_tried(const struct redislink *l)
{
    (void)l;
    return true;
}

void redislink_look(struct redislink *l)
{
    (void)l; /* what Redis says comes when the target says so */
}

void redislink_reset(struct redislink *l, const char *why)
{
    log_info("reset", "why", why);
    l->is_doomed = true;
}

struct redisAsyncContext *redislink_async(const struct redislink *l)
{
    return l->is_up && !l->is_doomed ? &redis.context : NULL;
}

int redislink_send(struct redislink *l, int argc, const char **argv, const size_t *argvlen)
{
    if (!l->is_up)
        return -ENOTCONN;
    for (int i = 1; i < argc && redis.confirmations_end < CHANNELS_MAX; i++) {
        size_t at = redis.confirmations_end++;
        redis.confirmations[at].name = fuzz_text((struct text_span){argv[i], argvlen[i]});
        redis.confirmations[at].is_subscribe = *argv[0] == 'S';
    }
    return 0;
}

/* hiredis' function, of which this program has its own. */
int redisAsyncCommandArgv(redisAsyncContext *ac, redisCallbackFn *fn, void *data, int argc,
                          const char **argv, const size_t *argvlen)
{
    (void)ac;
    if (redis.end - redis.first >= COMMANDS_MAX)
        return REDIS_ERR;
    struct command *c = &redis.commands[redis.end++ % COMMANDS_MAX];
    *c = (struct command){.fn = fn, .data = data};
    snprintf(c->name, sizeof(c->name), "%s", argv[0]);
    int channel = !strcmp(argv[0], "PUBLISH") ? 1 : !strcmp(argv[0], "EVAL") && argc == 6 ? 3 : 0;
    for (int i = 0; i < argc; i++)
        fuzz_touch((struct text_span){argv[i], argvlen ? argvlen[i] : strlen(argv[i])});
    if (channel) {
        size_t len = argvlen ? argvlen[channel + 1] : strlen(argv[channel + 1]);
        c->channel = fuzz_text((struct text_span){
            argv[channel], argvlen ? argvlen[channel] : strlen(argv[channel])});
        c->payload = (struct text_span){
            fuzz_copy((struct text_span){argv[channel + 1], len}), len};
    }
    return REDIS_OK;
}

/* ---- what Redis says ---- */

static void add_bulk(struct text_buf *out, struct text_span s)
{
    if (!s.ptr) {
        text_adds(out, "$-1\r\n");
        return;
    }
    text_addf(out, "$%zu\r\n", s.len);
    text_add(out, s.ptr, s.len);
    text_adds(out, "\r\n");
}

/* NULL when it is no reply, or not whole. */
static redisReply *read_reply(struct text_span bytes)
{
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;
    FUZZ_CHECK(reader);
    if (bytes.len)
        redisReaderFeed(reader, bytes.ptr, bytes.len);
    if (redisReaderGetReply(reader, &reply) != REDIS_OK)
        reply = NULL;
    redisReaderFree(reader);
    return reply;
}

static void answer_exec(struct text_buf *out)
{
    if (!redis.reads_user) {
        text_addf(out, "*%u\r\n", redis.parts);
        for (unsigned i = 0; i < redis.parts; i++)
            text_adds(out, ":1\r\n");
        return;
    }
    text_addf(out, "*4\r\n*%zu\r\n", redis.entry_count);
    for (size_t i = 0; i < redis.entry_count; i++)
        add_bulk(out, redis.entries[i]);
    add_bulk(out, redis.snapshot);
    text_adds(out, "*0\r\n");
    add_bulk(out, redis.acked);
}

static void good_answer(const struct command *c, struct text_buf *out)
{
    if (!strcmp(c->name, "MULTI")) {
        text_adds(out, "+OK\r\n");
    } else if (!strcmp(c->name, "EXEC")) {
        answer_exec(out);
    } else if (redis.in_multi) {
        text_adds(out, "+QUEUED\r\n");
    } else if (!strcmp(c->name, "INFO")) {
        add_bulk(out, text_span_of("redis_version:7.0.0\r\nrole:master\r\nused_memory:1\r\n"));
    } else if (!strcmp(c->name, "PUBSUB")) {
        text_adds(out, "*2\r\n$1\r\nc\r\n:1\r\n");
    } else if (!strcmp(c->name, "SET")) {
        text_adds(out, "+OK\r\n");
    } else if (!strcmp(c->name, "EXISTS")) { /* nothing was revoked */
        text_adds(out, ":0\r\n");
    } else if (!strcmp(c->name, "HGET")) {
        add_bulk(out, text_span_of("u"));
    } else {
        text_adds(out, ":1\r\n");
    }
}

static void follow_transaction(const struct command *c)
{
    if (!strcmp(c->name, "MULTI")) {
        redis.in_multi = true;
        redis.reads_user = false;
        redis.parts = 0;
    } else if (!strcmp(c->name, "EXEC")) {
        redis.in_multi = false;
    } else if (redis.in_multi) {
        redis.parts++;
        redis.reads_user |= !strcmp(c->name, "LRANGE");
    }
}

static void answer(struct text_span raw, bool is_raw)
{
    struct text_buf out = {0};
    if (redis.first == redis.end || !redis.async.is_up)
        return;
    struct command c = take_command();
    follow_transaction(&c);
    if (!is_raw)
        good_answer(&c, &out);
    redisReply *reply = read_reply(is_raw ? raw : fuzz_span(&out));
    if (!reply) { /* the link breaks at such bytes */
        c.fn(&redis.context, NULL, c.data);
        redis.async.is_doomed = true;
    } else {
        c.fn(&redis.context, reply, c.data);
        freeReplyObject(reply);
        if (c.channel && !is_raw)
            fuzz_redis_publish(c.channel, c.payload);
    }
    free_command(&c);
    text_buf_free(&out);
}

void fuzz_redis_hold(bool is_held)
{
    redis.is_held = is_held;
}

void fuzz_redis_answer(void)
{
    answer((struct text_span){0}, false);
}

void fuzz_redis_answer_raw(struct text_span bytes)
{
    answer(bytes, true);
}

static void push(const struct push *p)
{
    if (!redis.raw.is_up || redis.raw.is_doomed)
        return;
    redis.raw.owner->on_push(redis.raw.data, p);
    redis.raw.owner->on_pause(redis.raw.data);
}

void fuzz_redis_publish(const char *channel, struct text_span payload)
{
    char *copy = fuzz_copy(payload);
    push(&(struct push){.kind = text_span_of("message"),
                        .channel = text_span_of(channel ? channel : "ws:user:u"),
                        .payload = {copy, payload.len}});
    free(copy);
}

void fuzz_redis_push_raw(struct text_span bytes)
{
    redisReply *reply = redis.raw.is_up && !redis.raw.is_doomed ? read_reply(bytes) : NULL;
    if (!reply)
        return;
    redis.raw.owner->on_reply(redis.raw.data, reply);
    freeReplyObject(reply);
}

static void confirm(void)
{
    size_t count = redis.confirmations_end;
    for (size_t i = 0; i < count && redis.raw.is_up; i++) {
        bool is_subscribe = redis.confirmations[i].is_subscribe;
        redis.subscribed += is_subscribe ? 1 : -1;
        push(&(struct push){.kind = text_span_of(is_subscribe ? "subscribe" : "unsubscribe"),
                            .channel = text_span_of(redis.confirmations[i].name),
                            .is_number = true,
                            .number = redis.subscribed});
    }
    for (size_t i = 0; i < count && i < redis.confirmations_end; i++)
        free(redis.confirmations[i].name);
    redis.confirmations_end = 0;
}

static struct text_span keep(struct text_span s)
{
    return (struct text_span){fuzz_copy(s), s.len};
}

static void drop(struct text_span *s)
{
    free((char *)(uintptr_t)s->ptr);
    *s = (struct text_span){0};
}

void fuzz_redis_store(struct text_span entry)
{
    if (redis.entry_count == ENTRIES_MAX)
        drop(&redis.entries[--redis.entry_count]);
    memmove(redis.entries + 1, redis.entries, redis.entry_count * sizeof(entry));
    redis.entries[0] = keep(entry);
    redis.entry_count++;
}

void fuzz_redis_set_snapshot(struct text_span text)
{
    drop(&redis.snapshot);
    redis.snapshot = keep(text);
}

void fuzz_redis_set_acked(struct text_span text)
{
    drop(&redis.acked);
    redis.acked = keep(text);
}

void fuzz_redis_set_up(bool is_up)
{
    if (is_up) {
        go_up(&redis.raw);
        go_up(&redis.async);
    } else {
        go_down(&redis.raw);
        go_down(&redis.async);
    }
}

/* ---- clients ---- */

void fuzz_client_connect(unsigned place, bool is_metrics)
{
    struct fuzz_client *c = &fuzz_clients[place % FUZZ_CLIENTS];
    int fds[2];
    if (c->fd >= 0 || c->heard.len)
        return;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &(int){SNDBUF_BYTES}, sizeof(int));
    c->fd = fds[0];
    conn_open(&fuzz_worker, fds[1],
              &(struct worker_listener){.is_metrics = is_metrics, .is_unix = true}, NULL);
}

void fuzz_client_send(unsigned place, struct text_span bytes)
{
    const struct fuzz_client *c = &fuzz_clients[place % FUZZ_CLIENTS];
    if (c->fd >= 0 && bytes.len)
        (void)!send(c->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void fuzz_client_frame(unsigned place, unsigned first_byte, struct text_span payload)
{
    unsigned char head[FRAME_HEADER_MAX];
    struct text_buf out = {0};
    size_t head_len = frame_header(head, FRAME_TEXT, true, payload.len);
    head[0] = (unsigned char)first_byte;
    head[1] |= 0x80;
    text_add(&out, (const char *)head, head_len);
    text_add(&out, "\0\0\0\0", 4);
    if (payload.len)
        text_add(&out, payload.ptr, payload.len);
    fuzz_client_send(place, fuzz_span(&out));
    text_buf_free(&out);
}

void fuzz_client_read(unsigned place)
{
    struct fuzz_client *c = &fuzz_clients[place % FUZZ_CLIENTS];
    char bytes[16384];
    ssize_t n;
    while (c->fd >= 0 && (n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        text_add(&c->heard, bytes, (size_t)n);
}

void fuzz_client_close(unsigned place)
{
    struct fuzz_client *c = &fuzz_clients[place % FUZZ_CLIENTS];
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

/* ---- what clients hear ---- */

static void check_deflated(struct text_span payload, bool is_text)
{
    struct text_buf message = {0};
    FUZZ_CHECK(deflate_unpack(fuzz_worker.deflate, payload.ptr, payload.len, 1 << 24,
                              &message) == 0);
    FUZZ_CHECK(!is_text || text_is_utf8(message.data, message.len));
    text_buf_free(&message);
}

/* One frame from the front. False: it is not whole. */
static bool check_frame(struct text_span *rest, bool is_deflate, bool *is_over)
{
    const unsigned char *p = (const unsigned char *)rest->ptr;
    size_t head = 2, len;
    if (rest->len < 2)
        return false;
    FUZZ_CHECK(!*is_over);
    unsigned opcode = p[0] & 0x0f, len7 = p[1];
    bool is_deflated = p[0] & FRAME_DEFLATED;
    FUZZ_CHECK((p[0] & 0xb0) == 0x80 && !(p[1] & 0x80)); /* whole, not masked */
    FUZZ_CHECK(!is_deflated || (is_deflate && opcode < 8));
    FUZZ_CHECK(opcode == FRAME_TEXT || opcode == FRAME_BINARY || opcode == FRAME_CLOSE ||
               opcode == FRAME_PING || opcode == FRAME_PONG);
    head += len7 == 126 ? 2 : len7 == 127 ? 8 : 0;
    if (rest->len < head)
        return false;
    len = len7 < 126 ? len7 : 0;
    for (size_t i = 2; i < head; i++)
        len = len << 8 | p[i];
    FUZZ_CHECK(len7 != 126 || len >= 126);
    FUZZ_CHECK(len7 != 127 || len >= 65536);
    FUZZ_CHECK(opcode < 8 || len < 126);
    if (rest->len - head < len)
        return false;
    if (is_deflated)
        check_deflated((struct text_span){rest->ptr + head, len}, opcode == FRAME_TEXT);
    else if (opcode == FRAME_TEXT)
        FUZZ_CHECK(text_is_utf8(rest->ptr + head, len));
    if (opcode == FRAME_CLOSE)
        FUZZ_CHECK(len != 1 && (len < 2 || text_is_utf8(rest->ptr + head + 2, len - 2)));
    *is_over = opcode == FRAME_CLOSE;
    rest->ptr += head + len;
    rest->len -= head + len;
    return true;
}

/* One response from the front; answers to HEAD tell a length and have no body. False: not whole. */
static bool check_response(struct text_span *rest, bool *is_upgrade, bool *is_deflate)
{
    if (rest->len < 12)
        return false;
    FUZZ_CHECK(!memcmp(rest->ptr, "HTTP/1.1 ", 9));
    const char *end = memmem(rest->ptr, rest->len, "\r\n\r\n", 4);
    if (!end)
        return false;
    size_t head = (size_t)(end - rest->ptr) + 4, body = 0;
    const char *length = memmem(rest->ptr, head, "\r\nContent-Length: ", 18);
    *is_deflate = memmem(rest->ptr, head, "permessage-deflate", 18);
    *is_upgrade = !memcmp(rest->ptr + 9, "101", 3);
    if (length)
        body = strtoul(length + 18, NULL, 10);
    rest->ptr += head;
    rest->len -= head;
    if (rest->len >= 9 && !memcmp(rest->ptr, "HTTP/1.1 ", 9))
        body = 0;
    if (body > rest->len)
        body = rest->len;
    rest->ptr += body;
    rest->len -= body;
    return true;
}

static void check_heard(const struct fuzz_client *c)
{
    struct text_span rest = fuzz_span(&c->heard);
    bool is_upgraded = c->is_taken, is_deflate = false, is_over = false;
    FUZZ_CHECK(!c->heard.failed);
    if (c->is_rough)
        return;
    while (rest.len && !is_upgraded && check_response(&rest, &is_upgraded, &is_deflate))
        ;
    while (rest.len && is_upgraded && check_frame(&rest, is_deflate, &is_over))
        ;
}

/* ---- life ---- */

/* The turn of worker.c. */
static void on_turn_start(struct ev_loop *loop, struct ev_check *c, int events)
{
    (void)loop, (void)c, (void)events;
    conns_begin_turn(fuzz_worker.conns, clock_mono_us());
}

static void on_turn_end(struct ev_loop *loop, struct ev_prepare *p, int events)
{
    (void)loop, (void)p, (void)events;
    modules_end_turn(&fuzz_worker, INT64_MAX); /* what is left waits for the next, which comes */
}

static void serve_redis(void)
{
    if (redis.raw.is_doomed)
        go_down(&redis.raw);
    if (redis.async.is_doomed)
        go_down(&redis.async);
    if (redis.is_held)
        return;
    confirm();
    for (size_t n = redis.end - redis.first; n > 0; n--)
        fuzz_redis_answer();
}

void fuzz_worker_turn(void)
{
    ev_run(fuzz_worker.loop, EVRUN_NOWAIT);
    serve_redis();
    ev_run(fuzz_worker.loop, EVRUN_NOWAIT);
}

/* The timer of session_read.c is the only one that time must bring: by hand, for libev has a clock
 * of its own. */
void fuzz_worker_pass(int64_t ms)
{
    struct sessions *s = fuzz_worker.sessions;
    now_ms += ms;
    while (wheel_advance(fuzz_worker.wheel, now_ms))
        ;
    if (ev_is_active(&s->retry)) {
        ev_timer_stop(fuzz_worker.loop, &s->retry);
        ev_invoke(fuzz_worker.loop, &s->retry, EV_TIMER);
    }
    fuzz_worker_turn();
}

static void report(void *data, bool is_error, const char *line)
{
    (void)data;
    if (is_error)
        fprintf(stderr, "%s\n", line);
}

/* What all inputs share, and none changes. */
static void begin_process(void)
{
    static char name[] = "belfryd", config[] = "--config=/dev/null";
    static char *argv[] = {name, config, NULL}, *environment[] = {NULL};
    struct options *opt;
    FUZZ_CHECK(log_open("file:/dev/null", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT) == 0);
    FUZZ_CHECK(options_load(2, argv, environment, false, NULL, report, NULL, &opt) == 0);
    fuzz_opt = *opt;
    free(opt); /* what it points to is kept */
    fuzz_opt.jwt_require_exp = CHOICE_NO;
    fuzz_opt.max_header_size = 2048;
    fuzz_opt.max_message_size = 2048;
    fuzz_opt.send_buffer_limit = 8192;
    fuzz_opt.history_size = 20;
    fuzz_opt.compression = CHOICE_ON;
    fuzz_opt.compression_threshold = 64;
    fuzz_opt.trace_size = 0;
    fuzz_opt.denylist_interval = 0; /* its timer would go by the real clock */
    FUZZ_CHECK(counters_create(&counters, 2) == 0);
    counters_attach(&counters, 0);
    FUZZ_CHECK(usertable_create(64, 2, &users) == 0);
    FUZZ_CHECK(usertable_create(64, 2, &addresses) == 0);
    FUZZ_CHECK(text_list_split(&fuzz_opt.trusted_proxies, "unix,10.0.0.0/8") == 0);
    FUZZ_CHECK(text_list_split(&fuzz_opt.origins, "https://ok.example") == 0);
    FUZZ_CHECK(keys_init(&keys, fuzz_opt.user_channel, fuzz_opt.broadcast_channel,
                         fuzz_opt.notifications_key, fuzz_opt.snapshot_key) == 0);
    FUZZ_CHECK(token_keys_from_secret(&fuzz_opt, FUZZ_SECRET, strlen(FUZZ_SECRET),
                                      &token_keys) == 0);
    start = (struct worker_start){.opt = &fuzz_opt,
                                  .counters = &counters,
                                  .users = users,
                                  .addresses = addresses,
                                  .keys = &keys,
                                  .redis = &url,
                                  .token_keys = token_keys,
                                  .instance_id = "fuzz",
                                  .pages = &pages,
                                  .control_fd = -1,
                                  .memory_fd = -1};
}

static void set_options(unsigned flags)
{
    static char map[] = "users", *no_map;
    no_map = no_map ? no_map : fuzz_opt.user_map_key;
    fuzz_opt.echo = flags & 1 ? CHOICE_ON : CHOICE_OFF;
    fuzz_opt.profile = flags & 2 ? PROFILE_FINANCE_TRACKER : PROFILE_STANDARD;
    fuzz_opt.event_case = flags & 4 ? EVENT_CASE_LOWER : EVENT_CASE_UPPER;
    fuzz_opt.auth_failure = flags & 8 ? AUTH_FAILURE_HTTP : AUTH_FAILURE_CLOSE;
    fuzz_opt.slow_consumer = flags & 16 ? SLOW_CONSUMER_DISCONNECT : SLOW_CONSUMER_CONFLATE;
    fuzz_opt.client_message_rate = flags & 32 ? 3 : 0;
    fuzz_opt.replay_limit = flags & 64 ? 2 : 20;
    fuzz_opt.max_connections_per_user = flags & 128 ? 2 : 32;
    fuzz_opt.max_connections_per_address = flags & 128 ? 2 : 0;
    fuzz_opt.origins.count = flags & 8 ? 1 : 0;
    fuzz_opt.proxy_protocol = (flags & 0x28) == 0x28 ? CHOICE_ON : CHOICE_OFF;
    fuzz_opt.user_map_key = (flags & 0xc0) == 0xc0 ? map : no_map;
}

void fuzz_worker_begin(unsigned flags)
{
    struct worker *w = &fuzz_worker;
    if (!start.opt)
        begin_process();
    set_options(flags);
    memset(&redis, 0, sizeof(redis));
    memset(w, 0, sizeof(*w));
    now_ms = FUZZ_START_MS;
    w->loop = ev_loop_new(EVFLAG_NOENV);
    w->start = &start;
    w->opt = &fuzz_opt;
    w->style = (struct message_style){.lower_case = fuzz_opt.event_case == EVENT_CASE_LOWER,
                                      .with_zone = fuzz_opt.profile != PROFILE_FINANCE_TRACKER};
    w->emit_rules = (struct emit_rules){.keys = &keys,
                                        .style = w->style,
                                        .history_size = fuzz_opt.history_size,
                                        .history_ttl_ms = fuzz_opt.history_ttl};
    w->epoll_fd = -1;
    w->wheel = wheel_new(NULL, conns_on_deadline, w);
    FUZZ_CHECK(w->loop && w->wheel);
    while (wheel_advance(w->wheel, now_ms))
        ;
    FUZZ_CHECK(!modules_make(w));
    w->conns->next_serial = 1 << 20;
    ev_check_init(&turn_start, on_turn_start);
    ev_set_priority(&turn_start, EV_MAXPRI);
    ev_prepare_init(&turn_end, on_turn_end);
    ev_check_start(w->loop, &turn_start);
    ev_prepare_start(w->loop, &turn_end);
    for (int i = 0; i < FUZZ_CLIENTS; i++)
        fuzz_clients[i] = (struct fuzz_client){.fd = -1};
    fuzz_redis_set_up(true);
    fuzz_worker_turn();
}

/* Reads on while anything still comes, then leaves. */
static void end_clients(void)
{
    fuzz_redis_hold(false);
    fuzz_redis_set_up(true);
    size_t heard, before = 0;
    for (int quiet = 0, i = 0; quiet < 3 && i < SETTLE_ROUNDS; i++) {
        fuzz_worker_turn();
        heard = 0;
        for (unsigned place = 0; place < FUZZ_CLIENTS; place++) {
            fuzz_client_read(place);
            heard += fuzz_clients[place].heard.len;
        }
        quiet = heard == before ? quiet + 1 : 0;
        before = heard;
    }
    for (unsigned place = 0; place < FUZZ_CLIENTS; place++) {
        check_heard(&fuzz_clients[place]);
        fuzz_client_close(place);
        text_buf_free(&fuzz_clients[place].heard);
    }
    for (int i = 0; i < 3 || (conns_count(fuzz_worker.conns) && i < SETTLE_ROUNDS); i++)
        fuzz_worker_turn();
}

void fuzz_worker_end(void)
{
    struct worker *w = &fuzz_worker;
    end_clients();
    FUZZ_CHECK(conns_count(w->conns) == 0);
    FUZZ_CHECK(counters_get(&counters, 0, CTR_connections) == 0);
    FUZZ_CHECK(counters_get(&counters, 0, CTR_websockets) == 0);
    FUZZ_CHECK(hub_users(w->hub) == 0);
    modules_free(w);
    FUZZ_CHECK(usertable_users(users) == 0 && usertable_users(addresses) == 0);
    ev_check_stop(w->loop, &turn_start);
    ev_prepare_stop(w->loop, &turn_end);
    ev_loop_destroy(w->loop);
    wheel_free(w->wheel);
    while (redis.entry_count)
        drop(&redis.entries[--redis.entry_count]);
    drop(&redis.snapshot);
    drop(&redis.acked);
}
