/*
 * redis_server.h - a private redis-server on a unix socket in a folder of its own, and a worker's
 * context around it, for unit tests.
 *
 * The server dies with the test that started it.
 */
#ifndef BELFRY_TESTS_UNIT_REDIS_SERVER_H
#define BELFRY_TESTS_UNIT_REDIS_SERVER_H

#include <check.h>
#include <errno.h>
#include <ev.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/counters.h"
#include "workers/context.h"

#define WAIT_S 30. /* for anything that must happen; reached only by a failing test */

struct redis_server {
    char dir[64];
    char socket[100];
    pid_t pid;
};

static inline bool redis_is_installed(void)
{
    return system("command -v redis-server >/dev/null 2>&1") == 0;
}

/* Folder and socket's name; nothing runs yet. */
static inline void redis_prepare(struct redis_server *s)
{
    snprintf(s->dir, sizeof(s->dir), "/tmp/belfry-unit-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(s->dir));
    snprintf(s->socket, sizeof(s->socket), "%s/redis.sock", s->dir);
    s->pid = 0;
}

/* option, value: one more setting, or NULL. Returns when it answers. */
static inline void redis_start(struct redis_server *s, const char *option, const char *value,
                               const char *value2)
{
    s->pid = fork();
    ck_assert_int_ge(s->pid, 0);
    if (!s->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", "0", "--save", "", "--appendonly", "no",
               "--daemonize", "no", "--loglevel", "warning", "--logfile", "/dev/null", "--dir",
               s->dir, "--unixsocket", s->socket, option, value, value2, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 3000; i++) {
        redisContext *c = redisConnectUnix(s->socket);
        bool is_up = c && !c->err;
        if (is_up) {
            redisReply *r = redisCommand(c, "PING");
            is_up = r && strncmp(r->str, "LOADING", 7) != 0;
            freeReplyObject(r);
        }
        redisFree(c);
        if (is_up)
            return;
        usleep(10000);
    }
    ck_abort_msg("redis-server does not answer");
}

static inline void redis_stop(struct redis_server *s)
{
    if (!s->pid)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
    unlink(s->socket);
}

static inline void redis_remove(struct redis_server *s)
{
    redis_stop(s);
    unlink(s->socket);
    rmdir(s->dir);
}

/* One command, blocking; the reply is to be freed. */
static inline redisReply *redis_do(const struct redis_server *s, const char *format, ...)
{
    va_list arguments;
    redisContext *c = redisConnectUnix(s->socket);
    ck_assert_int_eq(c->err, 0);
    va_start(arguments, format);
    redisReply *r = redisvCommand(c, format, arguments);
    va_end(arguments);
    ck_assert_ptr_nonnull(r);
    redisFree(c);
    return r;
}

/* The same for its integer. */
#define redis_int(s, ...) \
    ({ \
        redisReply *reply_ = redis_do(s, __VA_ARGS__); \
        long long integer_ = reply_->integer; \
        freeReplyObject(reply_); \
        integer_; \
    })

/* ---- a worker without clients ---- */

static struct options unit_opt;
static struct keys unit_keys;
static struct redisurl unit_url;
static struct worker_start unit_start;
static struct worker unit_worker;

int64_t worker_now_ms(const struct worker *w)
{
    return (int64_t)(ev_now(w->loop) * 1000);
}

int64_t worker_wall_ms(const struct worker *w)
{
    (void)w;
    return clock_wall_ms();
}

static inline uint64_t counter(enum counter id)
{
    return __atomic_load_n(&counters_self->values[id], __ATOMIC_RELAXED);
}

static inline void unit_set_url(const char *text)
{
    const char *why = NULL;
    if (redisurl_parse(text, &unit_url, &why) < 0)
        ck_abort_msg("%s: %s", text, why);
}

static inline void unit_use(const struct redis_server *s)
{
    char text[160];
    snprintf(text, sizeof(text), "unix://%s", s->socket);
    unit_set_url(text);
}

static inline void unit_setup(void)
{
    signal(SIGPIPE, SIG_IGN);
    memset(&unit_opt, 0, sizeof(unit_opt));
    memset(&unit_worker, 0, sizeof(unit_worker));
    unit_opt.redis_connect_timeout = 2000;
    unit_opt.redis_command_timeout = 5000;
    unit_opt.redis_probe_interval = 100;
    unit_opt.history_size = 5;
    unit_opt.max_payload_size = 1 << 20;
    unit_opt.max_reading_size = 1 << 20;
    unit_opt.history_ttl = 60000;
    ck_assert_int_eq(keys_init(&unit_keys, "ws:user:{user_id}", "ws:broadcast",
                               "notifications:{user_id}", "ws:snapshot:{user_id}"), 0);
    unit_start = (struct worker_start){.opt = &unit_opt, .keys = &unit_keys, .redis = &unit_url,
                                       .instance_id = "unit"};
    unit_worker.loop = ev_loop_new(0);
    unit_worker.start = &unit_start;
    unit_worker.opt = &unit_opt;
    unit_worker.emit_rules = (struct emit_rules){.keys = &unit_keys,
                                                 .style = {.with_zone = true},
                                                 .history_size = unit_opt.history_size,
                                                 .history_ttl_ms = unit_opt.history_ttl};
    unit_worker.style.with_zone = true;
}

static inline void unit_teardown(void)
{
    ev_loop_destroy(unit_worker.loop);
    keys_fini(&unit_keys);
}

static void unit_on_deadline(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)events;
    *(bool *)t->data = true;
    ev_break(loop, EVBREAK_ALL);
}

/* Runs the loop for a while. */
static inline void unit_run(double seconds)
{
    bool is_over = false;
    struct ev_timer t;
    ev_now_update(unit_worker.loop);
    ev_timer_init(&t, unit_on_deadline, seconds, 0.);
    t.data = &is_over;
    ev_timer_start(unit_worker.loop, &t);
    while (!is_over)
        ev_run(unit_worker.loop, EVRUN_ONCE);
    ev_timer_stop(unit_worker.loop, &t);
}

/* Runs the loop until the expression is true. */
#define unit_run_until(expression) \
    do { \
        bool is_over_ = false; \
        struct ev_timer t_; \
        ev_now_update(unit_worker.loop); \
        ev_timer_init(&t_, unit_on_deadline, WAIT_S, 0.); \
        t_.data = &is_over_; \
        ev_timer_start(unit_worker.loop, &t_); \
        while (!(expression) && !is_over_) \
            ev_run(unit_worker.loop, EVRUN_ONCE); \
        ev_timer_stop(unit_worker.loop, &t_); \
        if (!(expression)) \
            ck_abort_msg("this did not happen: %s", #expression); \
    } while (0)

/* TAP for a machine without redis-server. */
static inline int redis_skip(void)
{
    puts("1..0 # SKIP redis-server is not installed");
    return 0;
}

#endif
