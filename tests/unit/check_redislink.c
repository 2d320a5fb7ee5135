/*
 * check_redislink.c - one link's life, against a real redis-server and against servers that
 * misbehave.
 */
#include "config.h"

#include "tests/unit/redis_server.h"

#include <fcntl.h>
#include <hiredis/async.h>

#include "shared/log.h"
#include "workers/redislink.h"

static struct redis_server server;
static struct redislink *link_;
static unsigned ups, downs, replies;
static size_t reply_bytes;

static void on_up(void *data)
{
    (void)data;
    ups++;
}

static void on_down(void *data)
{
    (void)data;
    downs++;
}

static void on_reply(void *data, const redisReply *reply)
{
    (void)data;
    replies++;
    reply_bytes += reply->len;
}

static const struct redislink_owner raw = {.name = "raw", .up = CTR_redis_subscriber_up,
                                           .is_raw = true, .on_up = on_up, .on_down = on_down,
                                           .on_reply = on_reply};
static const struct redislink_owner async = {.name = "async", .up = CTR_redis_command_up,
                                             .on_up = on_up, .on_down = on_down};
static const struct redislink_owner *kinds[] = {&raw, &async};

static void setup(void)
{
    unit_setup();
    redis_prepare(&server);
    unit_use(&server);
    ups = downs = replies = 0;
    reply_bytes = 0;
}

static void teardown(void)
{
    redislink_free(link_);
    link_ = NULL;
    redis_remove(&server);
    unit_teardown();
}

static void open_link(int kind)
{
    link_ = redislink_new(&unit_worker, kinds[kind], NULL);
    ck_assert_ptr_nonnull(link_);
}

/* What the log says, in a file of the test's own folder. */
static char log_path[120];

static void open_log(void)
{
    char target[130];
    snprintf(log_path, sizeof(log_path), "%s/log", server.dir);
    snprintf(target, sizeof(target), "file:%s", log_path);
    ck_assert_int_eq(log_open(target, LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT), 0);
}

static bool log_has(const char *text)
{
    static char all[65536];
    int fd = open(log_path, O_RDONLY);
    ssize_t n = read(fd, all, sizeof(all) - 1);
    close(fd);
    all[n > 0 ? n : 0] = '\0';
    return strstr(all, text) != NULL;
}

static void close_log(void)
{
    log_open("stderr", LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    unlink(log_path);
}

START_TEST(a_link_comes_up_goes_down_with_the_server_and_comes_back)
{
    redis_start(&server, NULL, NULL, NULL);
    open_link(_i);
    ck_assert(!redislink_is_up(link_));
    unit_run_until(ups == 1);
    ck_assert(redislink_is_up(link_));
    ck_assert_uint_eq(counter(kinds[_i]->up), 1);
    ck_assert_uint_eq(counter(CTR_redis_connects), 1);
    redis_stop(&server);
    unit_run_until(downs == 1);
    ck_assert(!redislink_is_up(link_));
    ck_assert_uint_eq(counter(kinds[_i]->up), 0);
    ck_assert_uint_eq(counter(CTR_redis_disconnects), 1);
    unit_run(0.3);
    redis_start(&server, NULL, NULL, NULL);
    unit_run_until(ups == 2);
    ck_assert_uint_eq(downs, 1); /* failed attempts are no losses */
}
END_TEST

START_TEST(a_server_that_is_not_there_at_the_start_is_waited_for)
{
    open_link(_i);
    unit_run(0.2);
    ck_assert_uint_eq(ups + downs, 0);
    redis_start(&server, NULL, NULL, NULL);
    unit_run_until(ups == 1);
}
END_TEST

START_TEST(a_password_and_a_database_are_used)
{
    char text[200];
    redis_start(&server, "--requirepass", "pass%word", NULL);
    snprintf(text, sizeof(text), "unix://:pass%%25word@%s?db=3", server.socket);
    unit_set_url(text);
    open_link(_i);
    unit_run_until(ups == 1);
    redisContext *c = redisConnectUnix(server.socket);
    freeReplyObject(redisCommand(c, "AUTH pass%%word"));
    redisReply *r = redisCommand(c, "CLIENT LIST");
    ck_assert_ptr_nonnull(strstr(r->str, "name=belfry"));
    ck_assert_ptr_nonnull(strstr(r->str, "db=3"));
    freeReplyObject(r);
    redisFree(c);
}
END_TEST

START_TEST(a_wrong_password_keeps_the_link_down_and_stays_out_of_the_log)
{
    char text[200];
    open_log();
    redis_start(&server, "--requirepass", "right", NULL);
    snprintf(text, sizeof(text), "unix://:wr0ngsecret@%s", server.socket);
    unit_set_url(text);
    open_link(_i);
    unit_run_until(log_has("AUTH: WRONGPASS"));
    unit_run(0.2);
    ck_assert_uint_eq(ups, 0);
    ck_assert(!log_has("wr0ngsecret"));
    close_log();
}
END_TEST

START_TEST(a_password_stays_out_of_the_log_where_auth_is_no_command)
{
    char text[200];
    open_log();
    redis_start(&server, "--rename-command", "AUTH", "");
    snprintf(text, sizeof(text), "unix://:wr0ngsecret@%s", server.socket);
    unit_set_url(text);
    open_link(_i);
    unit_run_until(log_has("AUTH: ERR"));
    unit_run(0.2);
    ck_assert_uint_eq(ups, 0);
    ck_assert(!log_has("wr0ngsecret"));
    close_log();
}
END_TEST

START_TEST(a_missing_password_keeps_the_link_down)
{
    open_log();
    redis_start(&server, "--requirepass", "right", NULL);
    open_link(_i);
    unit_run_until(log_has("PING: NOAUTH"));
    unit_run(0.2);
    ck_assert_uint_eq(ups, 0);
    close_log();
}
END_TEST

START_TEST(a_reset_link_is_made_anew)
{
    redis_start(&server, NULL, NULL, NULL);
    open_link(_i);
    unit_run_until(ups == 1);
    redislink_reset(link_, "test");
    ck_assert(!redislink_is_up(link_));
    ck_assert_uint_eq(downs, 1);
    redislink_reset(link_, "again"); /* nothing to reset */
    unit_run_until(ups == 2);
    ck_assert_uint_eq(downs, 1);
}
END_TEST

/* ---- a server of our own that misbehaves ---- */

static struct ev_io listener, peer;
static const char *says;
static size_t says_len;
static unsigned accepted;

static void on_peer(struct ev_loop *loop, struct ev_io *io, int events)
{
    char buf[4096];
    (void)events;
    if (read(io->fd, buf, sizeof(buf)) > 0 && says) {
        while (says_len) {
            ssize_t n = send(io->fd, says, says_len, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0)
                break;
            says += n;
            says_len -= (size_t)n;
        }
        if (says_len) {
            ev_io_stop(loop, io);
            ev_io_set(io, io->fd, EV_WRITE);
            ev_io_start(loop, io);
        }
    }
}

static void on_writable(struct ev_loop *loop, struct ev_io *io, int events)
{
    if (events & EV_READ) {
        on_peer(loop, io, events);
        return;
    }
    ssize_t n = send(io->fd, says, says_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
        says += n;
        says_len -= (size_t)n;
    }
    if (!says_len || (n < 0 && errno != EAGAIN))
        ev_io_stop(loop, io);
}

static void on_connection(struct ev_loop *loop, struct ev_io *io, int events)
{
    (void)events;
    int fd = accept(io->fd, NULL, NULL);
    accepted++;
    if (ev_is_active(&peer) || peer.fd > 0) {
        ev_io_stop(loop, &peer);
        close(peer.fd);
    }
    ev_io_init(&peer, on_writable, fd, EV_READ);
    ev_io_start(loop, &peer);
}

static void serve(const char *text, size_t len)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(address.sun_path, server.socket, strlen(server.socket));
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 8), 0);
    says = text;
    says_len = len;
    accepted = 0;
    memset(&peer, 0, sizeof(peer));
    ev_io_init(&listener, on_connection, fd, EV_READ);
    ev_io_start(unit_worker.loop, &listener);
}

static void serve_no_more(void)
{
    ev_io_stop(unit_worker.loop, &listener);
    ev_io_stop(unit_worker.loop, &peer);
    close(listener.fd);
    if (peer.fd > 0)
        close(peer.fd);
}

START_TEST(a_server_that_says_nothing_is_given_up_in_time_and_tried_again)
{
    unit_opt.redis_connect_timeout = 50;
    serve(NULL, 0);
    open_link(_i);
    unit_run_until(accepted >= 3);
    ck_assert_uint_eq(ups, 0);
    serve_no_more();
}
END_TEST

/* A server that says this does not get the link up, and is tried again. */
static void is_tried_again(int kind, const char *text)
{
    serve(text, strlen(text));
    open_link(kind);
    unit_run_until(accepted >= 2);
    ck_assert_uint_eq(ups, 0);
    serve_no_more();
}

START_TEST(a_server_that_is_loading_is_tried_again)
{
    is_tried_again(_i, "+OK\r\n-LOADING Redis is loading the dataset in memory\r\n");
}
END_TEST

START_TEST(what_is_not_redis_is_given_up)
{
    is_tried_again(_i, "HTTP/1.1 400 Bad Request\r\n\r\n");
}
END_TEST

START_TEST(a_reply_that_nobody_asked_for_ends_the_link_and_nothing_else)
{
    static const char *texts[] = {
        "+OK\r\n+PONG\r\n+EXTRA\r\n",     "+OK\r\n+PONG\r\n*2\r\n:1\r\n:2\r\n",
        "+OK\r\n+PONG\r\n:1\r\n",         "+OK\r\n+PONG\r\n$-1\r\n",
        "+OK\r\n+PONG\r\n-ERR x\r\n",
    };
    serve(texts[_i], strlen(texts[_i]));
    open_link(1);
    unit_run_until(downs == 1);
    ck_assert_uint_eq(ups, 1);
    serve_no_more();
}
END_TEST

START_TEST(one_reply_above_the_bound_resets_the_link)
{
    enum { SIZE = REDISLINK_BUFFER_MAX_BYTES + (8 << 20) };
    char *text = malloc(SIZE);
    int head = sprintf(text, "+OK\r\n+PONG\r\n$%d\r\n", SIZE * 2);
    memset(text + head, 'x', SIZE - (size_t)head);
    serve(text, SIZE);
    open_link(0);
    unit_run_until(downs == 1);
    ck_assert_uint_eq(replies, 0);
    ck_assert_uint_eq(ups, 1);
    serve_no_more();
    free(text);
}
END_TEST

START_TEST(many_replies_at_once_are_handled_in_turns_and_none_is_lost)
{
    enum { COUNT = 5000 };
    size_t len = 0;
    char *text = malloc(64 + COUNT * 8);
    len += (size_t)sprintf(text, "+OK\r\n+PONG\r\n");
    for (int i = 0; i < COUNT; i++)
        len += (size_t)sprintf(text + len, "$1\r\nx\r\n");
    serve(text, len);
    open_link(0);
    unit_run_until(replies == COUNT);
    ck_assert_uint_gt(counter(CTR_turn_bound_hits), 0);
    ck_assert_uint_eq(reply_bytes, COUNT);
    serve_no_more();
    free(text);
}
END_TEST

/* ---- TCP ---- */

/* A port that nobody else is given as long as fd is open, though a server may ask for it. */
static int tcp_port(int *fd)
{
    struct sockaddr_storage address = {.ss_family = AF_INET};
    socklen_t len = sizeof(address);
    unsigned char *bytes = (unsigned char *)&address;
    int on = 1;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    bytes[4] = 127, bytes[7] = 1;
    ck_assert_int_eq(bind(*fd, (struct sockaddr *)&address, 16), 0);
    ck_assert_int_eq(getsockname(*fd, (struct sockaddr *)&address, &len), 0);
    return bytes[2] << 8 | bytes[3];
}

START_TEST(a_name_is_resolved_and_connected_to)
{
    static const char text[] = "+OK\r\n+PONG\r\n";
    char url[64];
    int fd, port = tcp_port(&fd);
    ck_assert_int_eq(listen(fd, 8), 0);
    says = text;
    says_len = sizeof(text) - 1;
    memset(&peer, 0, sizeof(peer));
    ev_io_init(&listener, on_connection, fd, EV_READ);
    ev_io_start(unit_worker.loop, &listener);
    snprintf(url, sizeof(url), "redis://localhost:%d", port);
    unit_set_url(url);
    open_link(_i);
    unit_run_until(ups == 1);
    serve_no_more();
}
END_TEST

START_TEST(a_name_that_nobody_knows_is_asked_again_without_blocking_the_loop)
{
    unit_set_url("redis://no-such-host.invalid:6379");
    open_link(_i);
    double start = ev_time();
    unit_run(0.3);
    ck_assert(ev_time() - start < 4.); /* a resolver takes five seconds before it tries again */
    ck_assert_uint_eq(ups, 0);
}
END_TEST

START_TEST(a_refused_connection_is_tried_again)
{
    char url[64];
    int fd, port = tcp_port(&fd);
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", port);
    unit_set_url(url);
    open_link(_i);
    unit_run(0.3);
    ck_assert_uint_eq(ups + downs, 0);
    close(fd);
}
END_TEST

#ifdef HAVE_HIREDIS_SSL
/* A certificate for localhost that its own file vouches for. */
static void make_certificate(void)
{
    char command[500];
    snprintf(command, sizeof(command),
             "cd %s && openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 "
             "-subj /CN=localhost -addext subjectAltName=DNS:localhost >/dev/null 2>&1",
             server.dir);
    ck_assert_int_eq(system(command), 0);
    snprintf(command, sizeof(command), "%s/cert", server.dir);
    setenv("SSL_CERT_FILE", command, 1);
}

static int start_tls_server(int *fd)
{
    char port_text[16], path[2][100];
    int port = tcp_port(fd);
    snprintf(port_text, sizeof(port_text), "%d", port);
    snprintf(path[0], sizeof(path[0]), "%s/cert", server.dir);
    snprintf(path[1], sizeof(path[1]), "%s/key", server.dir);
    server.pid = fork();
    if (!server.pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("redis-server", "redis-server", "--port", "0", "--tls-port", port_text, "--bind",
               "127.0.0.1", "--tls-cert-file", path[0], "--tls-key-file", path[1],
               "--tls-ca-cert-file", path[0], "--tls-auth-clients", "no", "--save", "",
               "--logfile", "/dev/null", "--dir", server.dir, (char *)NULL);
        _exit(127);
    }
    return port;
}

START_TEST(a_tls_link_comes_up_under_the_name_in_the_certificate_only)
{
    char url[64];
    make_certificate();
    int fd, port = start_tls_server(&fd);
    snprintf(url, sizeof(url), "rediss://localhost:%d", port);
    unit_set_url(url);
    open_link(_i);
    unit_run_until(ups == 1);
    redislink_free(link_);
    snprintf(url, sizeof(url), "rediss://127.0.0.1:%d", port); /* the same server */
    unit_set_url(url);
    open_link(_i);
    unit_run(1.);
    ck_assert_uint_eq(ups, 1);
    close(fd);
    char path[100];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", server.dir, i ? "key" : "cert");
        unlink(path);
    }
}
END_TEST
#endif

int main(void)
{
    if (!redis_is_installed())
        return redis_skip();
    log_set_level(LOG_LEVEL_ERROR);
    Suite *s = suite_create("redislink");
    TCase *t = tcase_create("redislink");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, a_link_comes_up_goes_down_with_the_server_and_comes_back, 0, 2);
    tcase_add_loop_test(t, a_server_that_is_not_there_at_the_start_is_waited_for, 0, 2);
    tcase_add_loop_test(t, a_password_and_a_database_are_used, 0, 2);
    tcase_add_loop_test(t, a_wrong_password_keeps_the_link_down_and_stays_out_of_the_log, 0, 2);
    tcase_add_loop_test(t, a_password_stays_out_of_the_log_where_auth_is_no_command, 0, 2);
    tcase_add_loop_test(t, a_missing_password_keeps_the_link_down, 0, 2);
    tcase_add_loop_test(t, a_reset_link_is_made_anew, 0, 2);
    tcase_add_loop_test(t, a_server_that_says_nothing_is_given_up_in_time_and_tried_again, 0, 2);
    tcase_add_loop_test(t, a_server_that_is_loading_is_tried_again, 0, 2);
    tcase_add_loop_test(t, what_is_not_redis_is_given_up, 0, 2);
    tcase_add_loop_test(t, a_reply_that_nobody_asked_for_ends_the_link_and_nothing_else, 0, 5);
    tcase_add_test(t, one_reply_above_the_bound_resets_the_link);
    tcase_add_test(t, many_replies_at_once_are_handled_in_turns_and_none_is_lost);
    tcase_add_loop_test(t, a_name_is_resolved_and_connected_to, 0, 2);
    tcase_add_loop_test(t, a_name_that_nobody_knows_is_asked_again_without_blocking_the_loop, 0, 2);
    tcase_add_loop_test(t, a_refused_connection_is_tried_again, 0, 2);
#ifdef HAVE_HIREDIS_SSL
    if (!system("command -v openssl >/dev/null 2>&1"))
        tcase_add_loop_test(t, a_tls_link_comes_up_under_the_name_in_the_certificate_only, 0, 2);
#endif
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
