#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/belfry.h"
#include "shared/clock.h"
#include "shared/emit.h"
#include "shared/events.h"

/* --- a private server --- */

static char dir[64], sock[96], url[160]; /* made by main, which also takes them away */
static pid_t server;

static void nap_ms(int ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&ts, NULL);
}

static const char *server_program(void)
{
    static const char *const names[] = {"/usr/bin/redis-server", "/usr/local/bin/redis-server",
                                        "/usr/bin/valkey-server"};
    const char *given = getenv("REDIS_SERVER");
    if (given && *given)
        return given;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (access(names[i], X_OK) == 0)
            return names[i];
    return "redis-server";
}

/* Connects once the server accepts; at most thirty seconds. */
static redisContext *wait_for_server(void)
{
    struct timeval tv = {1, 0};
    for (int64_t end = clock_mono_ms() + 30000; clock_mono_ms() < end; nap_ms(10)) {
        redisContext *c = redisConnectUnixWithTimeout(sock, tv);
        if (c && !c->err) {
            redisSetTimeout(c, (struct timeval){10, 0});
            return c;
        }
        if (c)
            redisFree(c);
    }
    ck_abort_msg("%s does not accept", server_program());
    return NULL;
}

static void start_server(const char *password)
{
    pid_t parent = getpid();
    server = fork();
    ck_assert_int_ge(server, 0);
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it must not outlive a test that crashes */
        if (getppid() != parent)
            _exit(1);
        int null = open("/dev/null", O_RDWR);
        dup2(null, 0);
        dup2(null, 1);
        dup2(null, 2);
        execlp(server_program(), "redis-server", "--port", "0", "--unixsocket", sock, "--dir", dir,
               "--save", "", "--appendonly", "no", "--requirepass", password, (char *)NULL);
        _exit(127);
    }
    redisContext *c = wait_for_server();
    redisFree(c);
}

static void stop_server(int signal)
{
    if (server <= 0)
        return;
    kill(server, signal);
    waitpid(server, NULL, 0);
    server = 0;
}

static void setup(void)
{
    unlink(sock); /* of a test that failed */
    start_server("");
}

static void teardown(void)
{
    stop_server(SIGKILL);
}

/* --- helpers --- */

static struct belfry *open_handle(void)
{
    struct belfry_config config = {.redis_url = url};
    struct belfry *b = belfry_open(&config);
    ck_assert_ptr_nonnull(b);
    return b;
}

/* Runs a command of words without blanks and gives its reply. */
static redisReply *ask(redisContext *c, const char *format, const char *a)
{
    redisReply *r = a ? redisCommand(c, format, a) : redisCommand(c, format);
    ck_assert_msg(r != NULL, "%s: %s", format, c->errstr);
    return r;
}

static long long ask_number(redisContext *c, const char *format, const char *a)
{
    redisReply *r = ask(c, format, a);
    ck_assert_int_eq(r->type, REDIS_REPLY_INTEGER);
    long long n = r->integer;
    freeReplyObject(r);
    return n;
}

static void ask_text(redisContext *c, const char *format, const char *a, char *out, size_t cap)
{
    redisReply *r = ask(c, format, a);
    snprintf(out, cap, "%s", r->type == REDIS_REPLY_NIL ? "(nil)" : r->str ? r->str : "?");
    freeReplyObject(r);
}

static redisContext *subscribe(const char *channel)
{
    redisContext *c = wait_for_server();
    redisReply *r = ask(c, "SUBSCRIBE %s", channel);
    freeReplyObject(r);
    return c;
}

/* The next message of a subscriber, as text to be freed. */
static char *receive(redisContext *c)
{
    void *reply = NULL;
    ck_assert_msg(redisGetReply(c, &reply) == REDIS_OK, "%s", c->errstr);
    redisReply *r = reply;
    ck_assert_uint_eq(r->elements, 3);
    ck_assert_str_eq(r->element[0]->str, "message");
    char *text = strdup(r->element[2]->str);
    freeReplyObject(r);
    return text;
}

#define DELETED "{\"id\":\"t1\"}"

/* --- tests --- */

START_TEST(an_event_is_stored_and_published_as_one_message)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server(), *s = subscribe("ws:user:u1");
    char id[BELFRY_ID_BYTES], stored[1024];
    ck_assert_int_eq(belfry_emit(b, "u1", "transaction_deleted", DELETED, 0, id), 1);
    char *live = receive(s);
    struct message m, n;
    ck_assert_int_eq(message_read(live, strlen(live), &m), JSON_OK);
    ck_assert_uint_eq(m.id_hash, message_id_hash(id, 36));
    ck_assert_int_eq(m.event, EVENT_TRANSACTION_DELETED);
    ck_assert(text_span_eq(m.payload, DELETED));
    ask_text(c, "LINDEX notifications:%s 0", "u1", stored, sizeof(stored));
    ck_assert_int_eq(message_read(stored, strlen(stored), &n), JSON_OK);
    ck_assert_uint_eq(n.id_hash, m.id_hash);
    ck_assert_int_eq(n.timestamp_us, m.timestamp_us);
    ck_assert_int_eq(ask_number(c, "TTL notifications:%s", "u1"), 604800);
    ck_assert_int_eq(ask_number(c, "EXISTS ws:snapshot:%s", "u1"), 0);
    /* nobody listens to this one */
    ck_assert_int_eq(belfry_emit(b, "u2", "TRANSACTION_DELETED", DELETED, 0, NULL), 0);
    ck_assert_int_eq(ask_number(c, "LLEN notifications:%s", "u2"), 1);
    free(live);
    redisFree(c);
    redisFree(s);
    belfry_close(b);
}
END_TEST

START_TEST(the_list_is_newest_first_trimmed_and_expires_anew_with_each_event)
{
    struct belfry_config config = {.redis_url = url, .history_size = 5, .history_ttl_s = 100};
    struct belfry *b = belfry_open(&config);
    redisContext *c = wait_for_server();
    char id[12][BELFRY_ID_BYTES], text[1024];
    for (int i = 0; i < 12; i++) {
        ck_assert_int_eq(belfry_emit(b, "u", "own_type", "{}", 0, id[i]), 0);
        freeReplyObject(
            ask(c, i % 2 ? "PERSIST notifications:%s" : "EXPIRE notifications:%s 7", "u"));
    }
    belfry_emit(b, "u", "own_type", "{}", 0, id[0]);
    ck_assert_int_eq(ask_number(c, "LLEN notifications:%s", "u"), 5);
    ck_assert_int_eq(ask_number(c, "TTL notifications:%s", "u"), 100);
    ask_text(c, "LINDEX notifications:%s 0", "u", text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, id[0]));
    ask_text(c, "LINDEX notifications:%s -1", "u", text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, id[8]));
    redisFree(c);
    belfry_close(b);
}
END_TEST

#define DASHBOARD "{\"recent_transactions\":[],\"spending_by_category\":[],\"updated_at\":\"now\"}"

START_TEST(a_dashboard_update_becomes_the_snapshot)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server(), *s = subscribe("ws:user:u");
    char text[1024];
    ck_assert_int_eq(belfry_emit(b, "u", "DASHBOARD_UPDATE", DASHBOARD, 0, NULL), 1);
    char *live = receive(s);
    ck_assert_ptr_nonnull(strstr(live, DASHBOARD));
    free(live);
    ask_text(c, "GET ws:snapshot:%s", "u", text, sizeof(text));
    ck_assert_str_eq(text, DASHBOARD);
    ck_assert_int_eq(ask_number(c, "TTL ws:snapshot:%s", "u"), 604800);
    ck_assert_int_eq(ask_number(c, "EXISTS notifications:%s", "u"), 0);
    redisFree(c);
    redisFree(s);
    belfry_close(b);
}
END_TEST

START_TEST(without_store_an_event_is_only_published)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server();
    ck_assert_int_eq(belfry_emit(b, "u", "DASHBOARD_UPDATE", DASHBOARD, BELFRY_NO_STORE, NULL), 0);
    ck_assert_int_eq(belfry_emit(b, "u", "TRANSACTION_DELETED", DELETED, BELFRY_NO_STORE, NULL), 0);
    ck_assert_int_eq(belfry_emit(b, "u", "PING", NULL, 0, NULL), 0);
    ck_assert_int_eq(ask_number(c, "DBSIZE", NULL), 0);
    redisFree(c);
    belfry_close(b);
}
END_TEST

START_TEST(a_broadcast_reaches_the_broadcast_channel_and_no_list)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server(), *s = subscribe("ws:broadcast"),
                 *s2 = subscribe("ws:broadcast");
    char id[BELFRY_ID_BYTES];
    ck_assert_int_eq(belfry_broadcast(b, "maintenance", "{\"at\":\"noon\"}", id), 2);
    char *live = receive(s);
    ck_assert_ptr_nonnull(strstr(live, id));
    ck_assert_ptr_nonnull(strstr(live, "\"user_id\":\"system\""));
    free(live);
    ck_assert_int_eq(ask_number(c, "DBSIZE", NULL), 0);
    ck_assert_int_eq(belfry_broadcast(b, "SYSTEM_ALERT", "{}", NULL), -EINVAL);
    redisFree(c);
    redisFree(s);
    redisFree(s2);
    belfry_close(b);
    struct belfry_config config = {.redis_url = url, .flags = BELFRY_CHECK_NOTHING};
    b = belfry_open(&config);
    ck_assert_int_ge(belfry_broadcast(b, "SYSTEM_ALERT", "{}", NULL), 0);
    belfry_close(b);
}
END_TEST

START_TEST(names_case_and_zone_are_those_of_the_config)
{
    struct belfry_config config = {.redis_url = url,
                                   .user_channel = "p:live:{user_id}",
                                   .broadcast_channel = "p:all",
                                   .notifications_key = "p:list:{{user_id}}",
                                   .snapshot_key = "p:snap:{{user_id}}",
                                   .flags = BELFRY_LOWER_CASE | BELFRY_NAIVE_TIME};
    struct belfry *b = belfry_open(&config);
    redisContext *c = wait_for_server(), *s = subscribe("p:live:u"), *all = subscribe("p:all");
    ck_assert_int_eq(belfry_emit(b, "u", "TRANSACTION_DELETED", DELETED, 0, NULL), 1);
    char *live = receive(s);
    struct message m;
    ck_assert_int_eq(message_read(live, strlen(live), &m), JSON_OK);
    ck_assert(text_span_eq(m.type, "\"transaction_deleted\""));
    ck_assert_int_ne(m.timestamp.ptr[m.timestamp.len - 2], 'Z');
    free(live);
    ck_assert_int_eq(ask_number(c, "LLEN p:list:{%s}", "u"), 1);
    ck_assert_int_eq(belfry_broadcast(b, "x", "{}", NULL), 1);
    free(receive(all));
    redisFree(c);
    redisFree(s);
    redisFree(all);
    belfry_close(b);
}
END_TEST

START_TEST(what_is_wrong_with_an_event_is_named_and_nothing_is_sent)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server();
    char long_id[300], id[BELFRY_ID_BYTES] = "untouched";
    memset(long_id, 'x', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    const struct {
        const char *user, *type, *payload, *field;
    } bad[] = {
        {"", "x", "{}", "user_id: "},      {NULL, "x", "{}", "user_id: "},
        {long_id, "x", "{}", "user_id: "}, {"a\nb", "x", "{}", "user_id: "},
        {"\xFF", "x", "{}", "user_id: "},  {"u", "", "{}", "type: "},
        {"u", NULL, "{}", "type: "},       {"u", "\xFF", "{}", "type: "},
        {"u", "a\tb", "{}", "type: "},     {"u", long_id, "{}", "type: "},
        {"u", "x", "", "payload: "},       {"u", "x", "[]", "payload: "},
        {"u", "x", "{", "payload: "},      {"u", "x", "{} {}", "payload: "},
        {"u", "transaction_deleted", "{\"id\":1}", "id: must be a string, is a number"},
        {"u", "SYSTEM_ALERT", "{}", "alert_type: "},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(belfry_emit(b, bad[i].user, bad[i].type, bad[i].payload, 0, id), -EINVAL);
        ck_assert_msg(strncmp(belfry_errmsg(b), bad[i].field, strlen(bad[i].field)) == 0, "%s",
                      belfry_errmsg(b));
    }
    ck_assert_str_eq(id, "untouched");
    ck_assert_int_eq(ask_number(c, "DBSIZE", NULL), 0);
    ck_assert_int_eq(belfry_emit(b, "u", "SYSTEM_ALERT", "{}", BELFRY_NO_CHECK, NULL), 0);
    ck_assert_int_eq(belfry_emit(b, "u", "SYSTEM_ALERT", "[]", BELFRY_NO_CHECK, NULL), -EINVAL);
    ck_assert_int_eq(belfry_emit(NULL, "u", "x", "{}", 0, NULL), -EINVAL);
    redisFree(c);
    belfry_close(b);
    belfry_close(NULL);
}
END_TEST

START_TEST(a_payload_too_deep_to_be_relayed_is_refused)
{
    struct belfry *b = open_handle();
    char text[JSON_MAX_DEPTH * 2 + 16];
    for (int depth = JSON_MAX_DEPTH - 1; depth <= JSON_MAX_DEPTH; depth++) {
        int n = sprintf(text, "{\"a\":");
        memset(text + n, '[', (size_t)depth - 1);
        memset(text + n + depth - 1, ']', (size_t)depth - 1);
        strcpy(text + n + 2 * (depth - 1), "}");
        /* one level of it is the envelope's */
        ck_assert_int_eq(belfry_emit(b, "u", "x", text, 0, NULL),
                         depth < JSON_MAX_DEPTH ? 0 : -EINVAL);
    }
    ck_assert_ptr_nonnull(strstr(belfry_errmsg(b), "nested too deeply"));
    belfry_close(b);
}
END_TEST

START_TEST(malformed_configs_are_refused_with_a_reason)
{
    const struct {
        struct belfry_config config;
        const char *word;
    } bad[] = {
        {{.redis_url = "http://x"}, "redis_url"},
        {{.redis_url = ""}, "redis_url"},
        {{.redis_url = "embedded"}, "embedded"},
        {{.user_channel = "no-user"}, "{user_id}"},
        {{.notifications_key = ""}, "{user_id}"},
        {{.snapshot_key = "{user_id}{user_id}"}, "{user_id}"},
        {{.broadcast_channel = ""}, "broadcast_channel"},
        {{.history_size = -1}, "negative"},
        {{.history_ttl_s = -1}, "negative"},
        {{.timeout_ms = -1}, "negative"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_ptr_null(belfry_open(&bad[i].config));
        ck_assert_msg(strstr(belfry_errmsg(NULL), bad[i].word) != NULL, "%s", belfry_errmsg(NULL));
    }
    struct belfry *b =
        belfry_open(NULL); /* the defaults are good, whether somebody listens or not */
    ck_assert_ptr_nonnull(b);
    ck_assert_str_eq(belfry_errmsg(b), "");
    belfry_close(b);
}
END_TEST

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
    (void)sig;
    pipes++;
}

START_TEST(a_server_that_dies_and_returns_costs_no_event_and_no_signal)
{
    /* The default action of SIGPIPE would end this process; a handler would be called. */
    signal(SIGPIPE, on_pipe);
    struct belfry *b = open_handle();
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), 0);
    for (int round = 0; round < 3; round++) {
        stop_server(SIGKILL);
        unlink(sock);
        int r = belfry_emit(b, "u", "x", "{}", 0, NULL);
        ck_assert_int_eq(r, -ENOENT);
        ck_assert_str_ne(belfry_errmsg(b), "");
        start_server("");
        /* connects again by itself, and the new server does not know the script */
        ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), 0);
        redisContext *c = wait_for_server();
        ck_assert_int_eq(ask_number(c, "LLEN notifications:%s", "u"), 1);
        redisFree(c);
    }
    /* Restarted between two calls: the stale connection is noticed before anything is sent on it.
     * */
    stop_server(SIGTERM);
    start_server("");
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), 0);
    ck_assert_int_eq(pipes, 0);
    belfry_close(b);
}
END_TEST

START_TEST(errors_of_redis_are_told_in_its_words)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server(), *s = subscribe("ws:user:u");
    freeReplyObject(ask(c, "SET notifications:%s text", "u"));
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -EIO);
    ck_assert_msg(strstr(belfry_errmsg(b), "WRONGTYPE") != NULL, "%s", belfry_errmsg(b));
    freeReplyObject(ask(c, "DEL notifications:%s", "u"));
    freeReplyObject(ask(c, "SCRIPT FLUSH", NULL)); /* on a connection that has used it */
    ck_assert_int_eq(belfry_emit(b, "u", "y", "{}", 0, NULL), 1);
    char *live = receive(s); /* nothing was published of the refused one */
    ck_assert_ptr_nonnull(strstr(live, "\"type\":\"y\""));
    free(live);
    freeReplyObject(ask(c, "CONFIG SET maxmemory 1", NULL));
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -EIO);
    ck_assert_msg(strstr(belfry_errmsg(b), "OOM") != NULL, "%s", belfry_errmsg(b));
    redisFree(c);
    redisFree(s);
    belfry_close(b);
}
END_TEST

START_TEST(passwords_users_and_databases_of_the_url_are_used)
{
    char text[256];
    stop_server(SIGKILL);
    start_server("geheim");
    redisContext *c = wait_for_server();
    freeReplyObject(ask(c, "AUTH %s", "geheim"));
    freeReplyObject(ask(c, "ACL SETUSER %s on >pw ~* &* +@all", "anna"));
    const struct {
        const char *form;
        int result;
    } cases[] = {
        {"unix://:geheim@%s", 0},       {"unix://%s", -EACCES},
        {"unix://:falsch@%s", -EACCES}, {"unix://anna:pw@%s", 0},
        {"unix://anna:geheim@%s", -EACCES}, {"unix://:geheim@%s?db=3", 0},
        {"unix://:geheim@%s?db=99", -EINVAL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), cases[i].form, sock);
        struct belfry_config config = {.redis_url = text};
        struct belfry *b = belfry_open(&config);
        ck_assert_msg(b != NULL, "%s: %s", text, belfry_errmsg(NULL));
        int r = belfry_emit(b, "u", "x", "{}", 0, NULL);
        ck_assert_msg(r == cases[i].result, "%s: %d %s", text, r, belfry_errmsg(b));
        ck_assert_ptr_null(strstr(belfry_errmsg(b), "falsch"));
        belfry_close(b);
    }
    freeReplyObject(ask(c, "SELECT 3", NULL));
    ck_assert_int_eq(ask_number(c, "LLEN notifications:%s", "u"), 1);
    redisFree(c);
}
END_TEST

/* --- servers that are none --- */

/* Listens on the socket's path; what comes is never answered, or answered with bytes. */
static int false_server(void)
{
    stop_server(SIGKILL);
    unlink(sock);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    ck_assert_uint_lt(strlen(sock), sizeof(to.sun_path));
    strcpy(to.sun_path, sock);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    return fd;
}

START_TEST(a_server_that_never_answers_costs_one_timeout)
{
    int fd = false_server();
    struct belfry_config config = {.redis_url = url, .timeout_ms = 300};
    struct belfry *b = belfry_open(&config);
    int64_t before = clock_mono_ms();
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -EIO);
    int64_t took_ms = clock_mono_ms() - before;
    ck_assert_msg(took_ms >= 290 && took_ms < 3000, "%lld ms", (long long)took_ms);
    ck_assert_ptr_nonnull(strstr(belfry_errmsg(b), "300 ms"));
    /* while logging in it is an error of connecting: nothing was sent */
    char text[200];
    snprintf(text, sizeof(text), "unix://:pw@%s", sock);
    belfry_close(b);
    config.redis_url = text;
    b = belfry_open(&config);
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -ETIMEDOUT);
    belfry_close(b);
    close(fd);
}
END_TEST

struct answer {
    int listener;
    const char *bytes;
    int delay_ms; /* after each byte */
};

static void *answer(void *data)
{
    const struct answer *a = data;
    int fd = accept(a->listener, NULL, NULL);
    char got[4096];
    if (read(fd, got, sizeof(got)) > 0)
        for (const char *p = a->bytes; *p && send(fd, p, 1, MSG_NOSIGNAL) == 1; p++)
            nap_ms(a->delay_ms);
    close(fd);
    return NULL;
}

/* Result of an event to a server that answers its first command with these bytes and hangs up. */
static int emit_against(const char *bytes, int delay_ms, int timeout_ms, char *message, size_t cap)
{
    struct answer a = {.listener = false_server(), .bytes = bytes, .delay_ms = delay_ms};
    struct belfry_config config = {.redis_url = url, .timeout_ms = timeout_ms};
    struct belfry *b = belfry_open(&config);
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, answer, &a), 0);
    int r = belfry_emit(b, "u", "x", "{}", 0, NULL);
    snprintf(message, cap, "%s", belfry_errmsg(b));
    belfry_close(b);
    pthread_join(thread, NULL);
    close(a.listener);
    return r;
}

START_TEST(answers_that_make_no_sense_are_errors)
{
    char message[400];
    ck_assert_int_eq(emit_against(":7\r\n", 0, 5000, message, sizeof(message)), 7);
    ck_assert_int_eq(emit_against("", 0, 5000, message, sizeof(message)), -EIO);
    ck_assert_int_eq(emit_against("hello\r\n", 0, 5000, message, sizeof(message)), -EIO);
    ck_assert_int_eq(emit_against("+OK\r\n", 0, 5000, message, sizeof(message)), -EIO);
    ck_assert_int_eq(emit_against("*2\r\n:1\r\n", 0, 5000, message, sizeof(message)), -EIO);
    ck_assert_int_eq(emit_against("-NOAUTH no\r\n", 0, 5000, message, sizeof(message)), -EACCES);
    ck_assert_int_eq(emit_against("-LOADING wait\r\n", 0, 5000, message, sizeof(message)), -EIO);
    ck_assert_int_eq(emit_against("-ERR max number of clients reached\r\n", 0, 5000, message,
                                  sizeof(message)), -ECONNREFUSED);
    ck_assert_int_eq(emit_against("-BAD \x1b[31m\x01\r\n", 0, 5000, message, sizeof(message)),
                     -EIO);
    for (const char *p = message; *p; p++)
        ck_assert_msg(*p >= ' ' && *p < 0x7F, "%s", message);
    ck_assert_int_eq(
        emit_against("-NOSCRIPT x\r\n-NOSCRIPT x\r\n", 0, 5000, message, sizeof(message)), -EIO);
}
END_TEST

START_TEST(an_answer_in_drops_does_not_prolong_the_call)
{
    char message[400];
    int64_t before = clock_mono_ms();
    ck_assert_int_eq(
        emit_against(":000000000000000000000000001\r\n", 100, 500, message, sizeof(message)), -EIO);
    ck_assert_int_lt(clock_mono_ms() - before, 2500);
    ck_assert_ptr_nonnull(strstr(message, "500 ms"));
}
END_TEST

static void *hang_up(void *data)
{
    int fd = accept(*(int *)data, NULL, NULL);
    nap_ms(200); /* until the sender waits for room */
    close(fd);
    return NULL;
}

START_TEST(a_connection_that_breaks_while_it_is_written_to_raises_no_signal)
{
    int listener = false_server();
    enum { LARGE = 20000000 };
    char *payload = malloc(LARGE);
    memset(payload, ' ', LARGE);
    payload[0] = '{';
    payload[LARGE - 2] = '}';
    payload[LARGE - 1] = '\0';
    signal(SIGPIPE, on_pipe);
    struct belfry *b = open_handle();
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, hang_up, &listener), 0);
    ck_assert_int_eq(belfry_emit(b, "u", "x", payload, 0, NULL), -EIO);
    ck_assert_int_eq(pipes, 0);
    sigset_t blocked;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    ck_assert_int_eq(sigismember(&blocked, SIGPIPE), 0);
    raise(SIGPIPE); /* the host's own still come */
    ck_assert_int_eq(pipes, 1);
    pthread_join(thread, NULL);
    belfry_close(b);
    free(payload);
    close(listener);
}
END_TEST

/* Says READONLY on the first connection, which stays open, and serves on the second. */
static void *fail_over(void *data)
{
    char got[4096];
    int first = accept(*(int *)data, NULL, NULL);
    if (read(first, got, sizeof(got)) > 0)
        send(first, "-READONLY replica\r\n", 19, MSG_NOSIGNAL);
    int second = accept(*(int *)data, NULL, NULL);
    if (read(second, got, sizeof(got)) > 0)
        send(second, ":3\r\n", 4, MSG_NOSIGNAL);
    close(first);
    close(second);
    return NULL;
}

START_TEST(after_a_failover_the_address_is_looked_up_again)
{
    int listener = false_server();
    struct belfry *b = open_handle();
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, fail_over, &listener), 0);
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -EIO);
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), 3);
    pthread_join(thread, NULL);
    belfry_close(b);
    close(listener);
}
END_TEST

START_TEST(connections_that_cannot_be_made_are_told_apart)
{
    struct belfry_config config = {.redis_url = "redis://127.0.0.1:1", .timeout_ms = 2000};
    struct belfry *b = belfry_open(&config);
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -ECONNREFUSED);
    ck_assert_msg(strstr(belfry_errmsg(b), "127.0.0.1") != NULL, "%s", belfry_errmsg(b));
    belfry_close(b);
    config.redis_url = "unix:///nonexistent/socket";
    b = belfry_open(&config);
    ck_assert_int_eq(belfry_emit(b, "u", "x", "{}", 0, NULL), -ENOENT);
    belfry_close(b);
#ifndef HAVE_HIREDIS_SSL
    config.redis_url = "rediss://127.0.0.1:1";
    ck_assert_ptr_null(belfry_open(&config));
    ck_assert_ptr_nonnull(strstr(belfry_errmsg(NULL), "rediss://"));
#endif
}
END_TEST

START_TEST(a_large_payload_passes_whole)
{
    struct belfry *b = open_handle();
    redisContext *c = wait_for_server();
    size_t len = 3000000;
    char *payload = malloc(len + 16);
    int n = sprintf(payload, "{\"a\":\"");
    memset(payload + n, 'x', len);
    strcpy(payload + n + len, "\"}");
    ck_assert_int_eq(belfry_emit(b, "u", "x", payload, 0, NULL), 0);
    redisReply *r = ask(c, "LINDEX notifications:%s 0", "u");
    ck_assert_uint_gt(r->len, len);
    freeReplyObject(r);
    free(payload);
    redisFree(c);
    belfry_close(b);
}
END_TEST

int main(void)
{
    strcpy(dir, "/tmp/belfry-publish-XXXXXX");
    if (!mkdtemp(dir))
        return EXIT_FAILURE;
    snprintf(sock, sizeof(sock), "%s/redis.sock", dir);
    snprintf(url, sizeof(url), "unix://%s", sock);
    TCase *tc = tcase_create("publish");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, an_event_is_stored_and_published_as_one_message);
    tcase_add_test(tc, the_list_is_newest_first_trimmed_and_expires_anew_with_each_event);
    tcase_add_test(tc, a_dashboard_update_becomes_the_snapshot);
    tcase_add_test(tc, without_store_an_event_is_only_published);
    tcase_add_test(tc, a_broadcast_reaches_the_broadcast_channel_and_no_list);
    tcase_add_test(tc, names_case_and_zone_are_those_of_the_config);
    tcase_add_test(tc, what_is_wrong_with_an_event_is_named_and_nothing_is_sent);
    tcase_add_test(tc, a_payload_too_deep_to_be_relayed_is_refused);
    tcase_add_test(tc, malformed_configs_are_refused_with_a_reason);
    tcase_add_test(tc, a_server_that_dies_and_returns_costs_no_event_and_no_signal);
    tcase_add_test(tc, errors_of_redis_are_told_in_its_words);
    tcase_add_test(tc, passwords_users_and_databases_of_the_url_are_used);
    tcase_add_test(tc, a_server_that_never_answers_costs_one_timeout);
    tcase_add_test(tc, answers_that_make_no_sense_are_errors);
    tcase_add_test(tc, an_answer_in_drops_does_not_prolong_the_call);
    tcase_add_test(tc, a_connection_that_breaks_while_it_is_written_to_raises_no_signal);
    tcase_add_test(tc, after_a_failover_the_address_is_looked_up_again);
    tcase_add_test(tc, connections_that_cannot_be_made_are_told_apart);
    tcase_add_test(tc, a_large_payload_passes_whole);
    Suite *s = suite_create("publish");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    unlink(sock);
    rmdir(dir);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
