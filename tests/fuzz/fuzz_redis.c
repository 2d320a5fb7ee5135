/*
 * fuzz_redis.c - whatever Redis answers (workers/redislink.c, store.c, subscriber.c), through real
 * sockets and hiredis. The server is this program: it says what the input says.
 *
 * The input is one byte for how the links are set up, then steps: a byte, and for what the server
 * says a piece, two bytes of length and the bytes.
 *
 * Holds: every call that was not cancelled is answered once; what is told points into memory that
 * is there; a user is confirmed only while it waits for that.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/log.h"
#include "workers/canary.h"
#include "workers/handover.h"
#include "workers/hub.h"
#include "workers/inquest.h"
#include "workers/marker.h"
#include "workers/session.h"
#include "workers/store.h"
#include "workers/subscriber.h"

#define STEPS_MAX 40
#define USERS 3
#define CALLS 64
#define READ_ROUNDS 3

enum { COMMANDS, PUSHES, LINKS }; /* the two links */

static struct worker worker;
static struct worker_start start;
static struct options opt;
static struct keys keys;
static struct redisurl url;
static int listening = -1, links[LINKS];
static struct device devices[USERS];
static struct {
    struct store_call *call;
    bool is_open, is_cancelled;
} calls[CALLS];
static unsigned calls_end;

int64_t worker_now_ms(const struct worker *w)
{
    (void)w;
    return 10000;
}

int64_t worker_wall_ms(const struct worker *w)
{
    (void)w;
    return INT64_C(1769860800000);
}

/* ---- who is told ---- */

static void touch(const char *bytes, size_t len)
{
    fuzz_touch((struct text_span){bytes, len});
}

void session_on_subscribed(struct worker *w, struct user *u)
{
    (void)w;
    FUZZ_CHECK(u->subscription == SUBSCRIPTION_CONFIRMED);
}

void session_on_message(struct worker *w, struct user *u, struct text_span payload)
{
    (void)w;
    FUZZ_CHECK(u->device_count == 1);
    fuzz_touch(payload);
}

void session_prefetch(const struct user *u)
{
    (void)u;
}

void session_prefetch_more(const struct user *u)
{
    (void)u;
}

void session_on_broadcast(struct worker *w, const char *payload, size_t len)
{
    (void)w;
    touch(payload, len);
}

void session_on_link_lost(struct worker *w)
{
    (void)w;
}

void session_on_store_up(struct worker *w)
{
    (void)w;
}

void handover_on_listening(struct handover *h)
{
    (void)h;
}

void handover_on_marker(struct handover *h, const char *text, size_t len)
{
    (void)h;
    touch(text, len);
}

void canary_on_subscribed(struct canary *c)
{
    (void)c;
}

void canary_on_echo(struct canary *c, const char *payload, size_t len)
{
    (void)c;
    touch(payload, len);
}

bool markers_on_echo(struct markers *m, const char *payload, size_t len)
{
    (void)m;
    touch(payload, len);
    return len > 0 && *payload == 'm';
}

void inquest_on_request(struct inquest *q, const char *payload, size_t len)
{
    (void)q;
    touch(payload, len);
}

void inquest_on_answer(struct inquest *q, const char *payload, size_t len)
{
    (void)q;
    touch(payload, len);
}

/* ---- calls ---- */

static void answered(void *data)
{
    size_t at = (size_t)(uintptr_t)data;
    FUZZ_CHECK(calls[at].is_open && !calls[at].is_cancelled);
    calls[at].is_open = false;
}

static void on_user(void *data, int error, struct store_user *u)
{
    answered(data);
    FUZZ_CHECK((error == 0) == (u != NULL));
    for (size_t i = 0; u && i < u->entry_count; i++)
        fuzz_touch(u->entries[i]);
    for (size_t i = 0; u && i < u->read_count; i++)
        fuzz_touch(u->read_ids[i]);
    if (u)
        fuzz_touch(u->snapshot), fuzz_touch(u->acked);
}

static void on_done(void *data, int error, int64_t value)
{
    answered(data);
    FUZZ_CHECK(error == 0 || value == 0);
}

static void on_text(void *data, int error, struct text_span text)
{
    answered(data);
    FUZZ_CHECK(error == 0 || text.len == 0);
    fuzz_touch(text);
}

static struct store_call *emit(void *data)
{
    struct emit_command c;
    struct store_call *call = NULL;
    if (emit_prepare_user(&c, &worker.emit_rules, "u0", "T", text_span_of("{}"), true) == 0)
        call = store_emit(worker.store, &c, on_done, data);
    emit_command_free(&c);
    return call;
}

static struct store_call *make_call(unsigned kind, void *data)
{
    const struct text_span ids[] = {text_span_of("1"), text_span_of("2")};
    struct store *s = worker.store;
    switch (kind % 10) {
    case 0:
        return store_read_user(s, "u0", on_user, data);
    case 1:
        return emit(data);
    case 2:
        return store_numsub(s, "u0", on_done, data);
    case 3:
        return store_mark_read(s, "u0", ids, 2, text_span_of("{}"), on_done, data);
    case 4:
        return store_set_acked(s, "u0", ids[0], on_done, data);
    case 5:
        return store_info(s, on_text, data);
    case 6:
        return store_probe(s, "c", text_span_of("x"), 1000, on_done, data);
    case 7:
        return store_exists(s, ids, 2, on_done, data);
    case 8:
        return store_hget(s, "users", ids[0], on_text, data);
    default:
        return store_trim_read(s, "u0", ids, 2, on_done, data);
    }
}

static void call(unsigned kind)
{
    if (calls_end == CALLS)
        return;
    size_t at = calls_end++;
    calls[at].call = make_call(kind, (void *)(uintptr_t)at);
    calls[at].is_open = calls[at].call != NULL;
    calls[at].is_cancelled = false;
}

static void cancel(unsigned which)
{
    if (!calls_end)
        return;
    which %= calls_end;
    if (!calls[which].is_open || calls[which].is_cancelled)
        return;
    store_cancel(calls[which].call);
    calls[which].is_cancelled = true;
}

/* ---- users ---- */

static void join(unsigned which)
{
    struct device *d = &devices[which % USERS];
    char id[8];
    if (d->user)
        return;
    *d = (struct device){0};
    snprintf(id, sizeof(id), "u%u", which % USERS);
    struct user *u = hub_join(worker.hub, d, id, strlen(id));
    FUZZ_CHECK(u);
    subscriber_want(worker.subscriber, u);
}

static void leave(unsigned which)
{
    struct device *d = &devices[which % USERS];
    struct user *u = d->user;
    if (!u)
        return;
    FUZZ_CHECK(hub_leave(worker.hub, d));
    subscriber_drop(worker.subscriber, u);
    hub_forget(worker.hub, u);
    d->user = NULL;
}

/* ---- the server ---- */

static void turn(void)
{
    char bytes[8192];
    ev_run(worker.loop, EVRUN_NOWAIT);
    for (int i = 0; i < LINKS; i++)
        for (int n = 0; links[i] >= 0 && n < READ_ROUNDS; n++)
            if (recv(links[i], bytes, sizeof(bytes), MSG_DONTWAIT) <= 0)
                break;
    ev_run(worker.loop, EVRUN_NOWAIT);
}

static void say(int link, struct text_span bytes)
{
    if (links[link] >= 0 && bytes.len)
        (void)!send(links[link], bytes.ptr, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    turn();
}

static void hang_up(int link)
{
    if (links[link] >= 0)
        close(links[link]);
    links[link] = -1;
    turn();
}

/* A link that connects by now is taken, and its set-up answered. */
static void accept_link(int link, bool is_good)
{
    links[link] = -1;
    for (int i = 0; i < 5 && links[link] < 0; i++) {
        ev_run(worker.loop, EVRUN_NOWAIT);
        links[link] = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    }
    FUZZ_CHECK(links[link] >= 0);
    turn();
    if (is_good)
        say(link, text_span_of("+OK\r\n+PONG\r\n"));
}

static void begin_process(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char path[64], text[100];
    const char *why;
    signal(SIGPIPE, SIG_IGN);
    FUZZ_CHECK(log_open("file:/dev/null", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT) == 0);
    snprintf(path, sizeof(path), "/tmp/belfry-fuzz-%d.sock", (int)getpid());
    memcpy(un.sun_path, path, strlen(path) + 1);
    unlink(path);
    FUZZ_CHECK((listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) >= 0);
    FUZZ_CHECK(bind(listening, (struct sockaddr *)&un, sizeof(un)) == 0);
    FUZZ_CHECK(listen(listening, 16) == 0);
    snprintf(text, sizeof(text), "unix://%s", path);
    FUZZ_CHECK(redisurl_parse(text, &url, &why) == 0);
    FUZZ_CHECK(keys_init(&keys, "ws:user:{user_id}", "ws:broadcast", "notifications:{user_id}",
                         "ws:snapshot:{user_id}") == 0);
    opt.redis_connect_timeout = opt.redis_command_timeout = 60000;
    opt.history_size = 5;
    opt.history_ttl = 60000;
    start = (struct worker_start){.opt = &opt, .keys = &keys, .redis = &url,
                                  .instance_id = "fuzz"};
}

static void remove_socket(void)
{
    if (url.is_unix)
        unlink(url.host);
}

static void begin(unsigned flags)
{
    worker = (struct worker){.start = &start, .opt = &opt, .style = {.with_zone = true}};
    worker.emit_rules = (struct emit_rules){.keys = &keys, .style = {.with_zone = true},
                                            .history_size = 5, .history_ttl_ms = 60000};
    FUZZ_CHECK(worker.loop = ev_loop_new(EVFLAG_NOENV));
    FUZZ_CHECK(worker.hub = hub_new());
    worker.canary = (struct canary *)(void *)&keys; /* are there, are never looked into */
    worker.markers = (struct markers *)(void *)&keys;
    worker.handover = (struct handover *)(void *)&keys;
    calls_end = 0;
    memset(devices, 0, sizeof(devices));
    FUZZ_CHECK(worker.store = store_new(&worker));
    accept_link(COMMANDS, !(flags & 1));
    FUZZ_CHECK(worker.subscriber = subscriber_new(&worker));
    accept_link(PUSHES, !(flags & 2));
}

static void end(void)
{
    for (unsigned i = 0; i < USERS; i++)
        leave(i);
    subscriber_free(worker.subscriber);
    store_free(worker.store);
    for (unsigned i = 0; i < calls_end; i++)
        FUZZ_CHECK(!calls[i].is_open || calls[i].is_cancelled);
    hub_free(worker.hub);
    ev_loop_destroy(worker.loop);
    for (int i = 0; i < LINKS; i++)
        if (links[i] >= 0)
            close(links[i]);
    int late; /* one that connected again meanwhile */
    while ((late = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(late);
}

static void take_step(struct fuzz_input *in)
{
    unsigned byte = fuzz_u8(in);
    switch (byte % 8) {
    case 0:
    case 1:
        say(PUSHES, fuzz_piece(in));
        break;
    case 2:
    case 3:
        say(COMMANDS, fuzz_piece(in));
        break;
    case 4:
        call(byte / 8);
        break;
    case 5:
        join(byte / 8);
        break;
    case 6:
        leave(byte / 8);
        break;
    default:
        if (byte / 8 < 4)
            hang_up(byte / 8 % LINKS);
        else
            cancel(byte / 8);
    }
    turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    if (listening < 0) {
        begin_process();
        atexit(remove_socket);
    }
    begin(fuzz_u8(&in));
    for (int steps = 0; in.left && steps < STEPS_MAX; steps++)
        take_step(&in);
    end();
    return 0;
}
