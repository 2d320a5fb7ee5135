#include "config.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/clock.h"
#include "src/wsclient.h"

/* ---- URLs ---- */

START_TEST(urls_are_taken_apart)
{
    static const struct {
        const char *url;
        bool is_tls, is_unix;
        const char *host;
        int port;
        const char *path;
    } rows[] = {
        {"ws://127.0.0.1:8000/ws", false, false, "127.0.0.1", 8000, "/ws"},
        {"ws://localhost", false, false, "localhost", 80, "/ws"},
        {"ws://localhost/", false, false, "localhost", 80, "/ws"},
        {"ws://localhost?types=x", false, false, "localhost", 80, "/ws?types=x"},
        {"ws://localhost:1/ws?a=b#c", false, false, "localhost", 1, "/ws?a=b"},
        {"wss://gw.example.org/live/ws", true, false, "gw.example.org", 443, "/live/ws"},
        {"ws://[::1]:65535", false, false, "::1", 65535, "/ws"},
        {"wss://[::1]/ws", true, false, "::1", 443, "/ws"},
        {"ws+unix:///run/x.sock", false, true, "/run/x.sock", 0, "/ws"},
        {"ws+unix:///run/x.sock:/echo", false, true, "/run/x.sock", 0, "/echo"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct wsclient_url u;
        const char *reason = NULL;
        ck_assert_msg(wsclient_url_parse(rows[i].url, &u, &reason) == 0, "%s: %s", rows[i].url,
                      reason);
        ck_assert_int_eq(u.is_tls, rows[i].is_tls);
        ck_assert_int_eq(u.is_unix, rows[i].is_unix);
        ck_assert_str_eq(u.host, rows[i].host);
        ck_assert_int_eq(u.port, rows[i].port);
        ck_assert_str_eq(u.path, rows[i].path);
    }
}
END_TEST

START_TEST(other_urls_are_refused_with_a_reason)
{
    static const char *const bad[] = {
        "",           "http://x/ws",     "ws://",       "ws://:80",      "ws://x:",
        "ws://x:0",   "ws://x:65536",    "ws://x:8a",   "ws://[::1",     "ws://[::1]80",
        "ws://u@h/",  "ws://h/a b",      "ws://h/a\r\n", "ws+unix://x",  "ws+unix://",
        "ws://h/\xc3\xa4",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wsclient_url u = {.port = 77};
        const char *reason = NULL;
        ck_assert_msg(wsclient_url_parse(bad[i], &u, &reason) == -EINVAL, "%s", bad[i]);
        ck_assert_ptr_nonnull(reason);
        ck_assert_int_eq(u.port, 77);
    }
    char longest[5000];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    memcpy(longest, "ws://h/", 7);
    struct wsclient_url u;
    const char *reason;
    ck_assert_int_eq(wsclient_url_parse(longest, &u, &reason), -EINVAL);
}
END_TEST

START_TEST(the_accept_value_is_the_one_of_the_rfc)
{
    char out[WSCLIENT_ACCEPT_BYTES];
    ck_assert_int_eq(wsclient_accept_for("dGhlIHNhbXBsZSBub25jZQ==", out), 0);
    ck_assert_str_eq(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
END_TEST

/* ---- the response's head ---- */

static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\n"
                              "upgrade: WebSocket\r\n"
                              "Connection: keep-alive, Upgrade\r\n"
                              "Sec-WebSocket-Accept:  abc=  \r\n"
                              "Sec-WebSocket-Protocol: belfry.v1\r\n"
                              "\r\n"
                              "frames";

START_TEST(a_head_is_read_wherever_it_is_cut)
{
    struct wsclient_response r;
    size_t head = sizeof(upgrade) - 1 - strlen("frames");
    for (size_t len = 0; len < head; len++) {
        char *copy = malloc(len + 1); /* exact size, so that a sanitizer sees a byte too many */
        memcpy(copy, upgrade, len);
        ck_assert_int_eq(wsclient_response_parse(copy, len, &r), 0);
        free(copy);
    }
    for (size_t len = head; len < sizeof(upgrade); len++) {
        ck_assert_int_eq(wsclient_response_parse(upgrade, len, &r), 1);
        ck_assert_uint_eq(r.head_bytes, head);
        ck_assert_int_eq(r.status, 101);
        ck_assert(r.upgrades);
        ck_assert_str_eq(r.accept, "abc=");
        ck_assert_str_eq(r.protocol, "belfry.v1");
        ck_assert_int_eq(r.content_length, -1);
    }
}
END_TEST

START_TEST(a_refusal_tells_its_status_and_length)
{
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n"
                               "Content-Length: 12\r\nConnection: close\r\n\r\n";
    struct wsclient_response r;
    ck_assert_int_eq(wsclient_response_parse(text, sizeof(text) - 1, &r), 1);
    ck_assert_int_eq(r.status, 503);
    ck_assert(!r.upgrades);
    ck_assert_int_eq(r.content_length, 12);
    ck_assert_str_eq(r.retry_after, "7");
}
END_TEST

START_TEST(what_is_no_http_is_told_early)
{
    static const char *const bad[] = {
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 1x1 Odd\r\n\r\n",
        "HTTP/1.1 200x\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "\r\n\r\n",
    };
    struct wsclient_response r;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(wsclient_response_parse(bad[i], strlen(bad[i]), &r) == -EBADMSG, "%s",
                      bad[i]);
    ck_assert_int_eq(wsclient_response_parse("X", 1, &r), -EBADMSG);
    ck_assert_int_eq(wsclient_response_parse("HTTP/1.1 200\0\r\n\r\n", 17, &r), -EBADMSG);
}
END_TEST

START_TEST(a_head_without_end_is_given_up)
{
    size_t len = WSCLIENT_HEAD_MAX_BYTES + 1;
    char *text = malloc(len);
    struct wsclient_response r;
    memset(text, 'a', len);
    memcpy(text, "HTTP/1.1 200 OK\r\nX: ", 20);
    ck_assert_int_eq(wsclient_response_parse(text, len - 1, &r), 0);
    ck_assert_int_eq(wsclient_response_parse(text, len, &r), -EMSGSIZE);
    free(text);
}
END_TEST

/* ---- a scripted server on a unix socket ---- */

struct script {
    int listener;
    const char *head;   /* NULL: a right upgrade */
    const char *protocol; /* in it; NULL: none */
    const char *frames;
    size_t frames_len;
    const char *rest; /* sent when the client has said something about frames */
    size_t rest_len;
    bool byte_by_byte;
    bool hold;          /* keep the connection until the client leaves */
    size_t flood;       /* bytes of pings, without listening meanwhile */
    size_t flooded;     /* were taken */
    char request[4096];
    unsigned char heard[512]; /* what the client sent after its request */
    size_t heard_len;
};

static char socket_path[64];
static volatile sig_atomic_t stop;

static void start_listening(struct script *s)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(socket_path, sizeof(socket_path), "/tmp/check_wsclient.%ld", (long)getpid());
    snprintf(un.sun_path, sizeof(un.sun_path), "%s", socket_path);
    unlink(socket_path);
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(s->listener, 0);
    ck_assert_int_eq(bind(s->listener, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(s->listener, 1), 0);
}

static void write_all(int fd, const char *bytes, size_t len, size_t step)
{
    for (size_t done = 0; done < len;) {
        size_t n = len - done < step ? len - done : step;
        ssize_t sent = send(fd, bytes + done, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        done += (size_t)sent;
    }
}

static void ping_on_and_on(struct script *s, int fd)
{
    static const char ping[2 + 125] = "\x89\x7d";
    for (; s->flooded < s->flood; s->flooded += sizeof(ping))
        if (send(fd, ping, sizeof(ping), MSG_NOSIGNAL) != (ssize_t)sizeof(ping))
            return;
}

static void *serve(void *data)
{
    struct script *s = data;
    char head[512], accept_value[WSCLIENT_ACCEPT_BYTES] = "";
    size_t len = 0;
    int fd = accept(s->listener, NULL, NULL);
    while (len + 1 < sizeof(s->request) && !strstr(s->request, "\r\n\r\n")) {
        ssize_t n = recv(fd, s->request + len, sizeof(s->request) - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    char *key = strstr(s->request, "Sec-WebSocket-Key: ");
    if (key) {
        char copy[64];
        snprintf(copy, sizeof(copy), "%.24s", key + strlen("Sec-WebSocket-Key: "));
        wsclient_accept_for(copy, accept_value);
    }
    snprintf(head, sizeof(head),
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n%s%s%s\r\n", accept_value,
             s->protocol ? "Sec-WebSocket-Protocol: " : "", s->protocol ? s->protocol : "",
             s->protocol ? "\r\n" : "");
    const char *answer = s->head ? s->head : head;
    size_t step = s->byte_by_byte ? 1 : SIZE_MAX;
    write_all(fd, answer, strlen(answer), step);
    write_all(fd, s->frames, s->frames_len, step);
    if (s->rest) {
        ssize_t n = recv(fd, s->heard, 8, MSG_WAITALL);
        s->heard_len = n > 0 ? (size_t)n : 0;
        write_all(fd, s->rest, s->rest_len, step);
    }
    ping_on_and_on(s, fd);
    if (!s->hold)
        shutdown(fd, SHUT_WR);
    while (s->heard_len < sizeof(s->heard)) {
        ssize_t n = recv(fd, s->heard + s->heard_len, sizeof(s->heard) - s->heard_len, 0);
        if (n <= 0)
            break;
        s->heard_len += (size_t)n;
    }
    close(fd);
    return NULL;
}

static int open_client(struct script *s, pthread_t *thread, struct wsclient **out, char *why,
                       size_t cap)
{
    struct wsclient_url url;
    const char *reason;
    char text[128];
    start_listening(s);
    ck_assert_int_eq(pthread_create(thread, NULL, serve, s), 0);
    snprintf(text, sizeof(text), "ws+unix://%s:/ws?x=1", socket_path);
    ck_assert_int_eq(wsclient_url_parse(text, &url, &reason), 0);
    struct wsclient_config config = {.url = &url, .token = "tok.en.x", .subprotocol = "belfry.v1",
                                     .stop = &stop};
    return wsclient_open(&config, clock_mono_ms() + 20000, out, why, cap);
}

static void end_server(struct script *s, pthread_t thread)
{
    pthread_join(thread, NULL);
    close(s->listener);
    unlink(socket_path);
}

/* Unmasked server frames: a text in two parts with a ping between, an empty text, close 1012. */
static const char opening[] = "\x01\x03{\"a"
                              "\x89\x02hi";
static const char closing[] = "\x80\x04\":1}"
                              "\x81\x00"
                              "\x88\x0c\x03\xf4restarting";

static void talk(bool byte_by_byte)
{
    struct script s = {.frames = opening, .frames_len = sizeof(opening) - 1,
                       .rest = closing, .rest_len = sizeof(closing) - 1,
                       .byte_by_byte = byte_by_byte};
    struct wsclient *c = NULL;
    struct text_span m;
    pthread_t thread;
    char why[256];
    ck_assert_msg(open_client(&s, &thread, &c, why, sizeof(why)) == 0, "%s", why);
    int64_t deadline = clock_mono_ms() + 20000;
    ck_assert_int_eq(wsclient_close_code(c), 0);
    ck_assert_int_eq(wsclient_next(c, deadline, &m), 1);
    ck_assert(text_span_eq(m, "{\"a\":1}"));
    ck_assert_int_eq(wsclient_next(c, deadline, &m), 1);
    ck_assert_uint_eq(m.len, 0);
    ck_assert_int_eq(wsclient_next(c, deadline, &m), 0);
    ck_assert_int_eq(wsclient_close_code(c), 1012);
    ck_assert_str_eq(wsclient_close_reason(c), "restarting");
    ck_assert_int_eq(wsclient_next(c, deadline, &m), 0);
    wsclient_free(c);
    end_server(&s, thread);

    ck_assert_ptr_nonnull(strstr(s.request, "GET /ws?x=1 HTTP/1.1\r\n"));
    ck_assert_ptr_nonnull(strstr(s.request, "\r\nAuthorization: Bearer tok.en.x\r\n"));
    ck_assert_ptr_nonnull(strstr(s.request, "\r\nSec-WebSocket-Protocol: belfry.v1\r\n"));
    /* A masked pong of two bytes, and the close's echo with its code: nothing else. */
    ck_assert_uint_eq(s.heard_len, 8 + 8);
    ck_assert_int_eq(s.heard[0], 0x8a);
    ck_assert_int_eq(s.heard[1], 0x82);
    const unsigned char *echo = s.heard + 8;
    ck_assert_int_eq(echo[0], 0x88);
    ck_assert_int_eq(echo[1], 0x82);
    ck_assert_int_eq((echo[6] ^ echo[2]) << 8 | (echo[7] ^ echo[3]), 1012);
}

START_TEST(messages_pings_and_a_close_code_that_wslay_does_not_know)
{
    talk(false);
}
END_TEST

START_TEST(the_same_byte_by_byte)
{
    talk(true);
}
END_TEST

/* The server sends these bytes, and the client tells that it ended, and with which code. */
static void ends_with(const char *frames, size_t len, int code)
{
    struct script s = {.frames = frames, .frames_len = len};
    struct wsclient *c = NULL;
    struct text_span m;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 0);
    ck_assert_int_eq(wsclient_next(c, clock_mono_ms() + 20000, &m), 0);
    ck_assert_int_eq(wsclient_close_code(c), code);
    wsclient_free(c);
    end_server(&s, thread);
}

START_TEST(a_lost_connection_is_told_as_1006)
{
    ends_with("\x81\x05he", 4, 1006);
}
END_TEST

START_TEST(a_masked_frame_from_the_server_ends_the_connection)
{
    ends_with("\x81\x81\x01\x02\x03\x04x", 7, 1002);
}
END_TEST

START_TEST(waiting_ends_at_the_deadline_and_goodbye_is_said)
{
    struct script s = {.hold = true};
    struct wsclient *c = NULL;
    struct text_span m;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 0);
    ck_assert_int_eq(wsclient_next(c, clock_mono_ms() + 50, &m), -ETIMEDOUT);
    wsclient_close(c, clock_mono_ms() + 50);
    wsclient_free(c);
    end_server(&s, thread);
    ck_assert_uint_eq(s.heard_len, 8);
    ck_assert_int_eq(s.heard[0], 0x88);
}
END_TEST

/* More messages than are kept, and one that is longer than a turn. */
START_TEST(many_messages_and_a_long_one_come_whole_and_in_order)
{
    enum { MANY = 1000, LONG = 1 << 20 };
    size_t len = MANY * 6 + 10 + LONG;
    char *frames = malloc(len), *p = frames, text[8];
    for (int i = 0; i < MANY; i++, p += 6) {
        snprintf(text, sizeof(text), "%04d", i);
        memcpy(p, "\x81\x04", 2);
        memcpy(p + 2, text, 4);
    }
    memcpy(p, "\x81\x7f\0\0\0\0\0\x10\0\0", 10);
    memset(p + 10, 'x', LONG);
    struct script s = {.frames = frames, .frames_len = len};
    struct wsclient *c = NULL;
    struct text_span m;
    pthread_t thread;
    char why[256];
    int64_t deadline = clock_mono_ms() + 20000;
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 0);
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "%04d", i);
        ck_assert_int_eq(wsclient_next(c, deadline, &m), 1);
        ck_assert(text_span_eq(m, text));
    }
    ck_assert_int_eq(wsclient_next(c, deadline, &m), 1);
    ck_assert_uint_eq(m.len, LONG);
    ck_assert_int_eq(m.ptr[LONG - 1], 'x');
    ck_assert_int_eq(wsclient_next(c, deadline, &m), 0);
    wsclient_free(c);
    end_server(&s, thread);
    free(frames);
}
END_TEST

/* They are not read any more, and so do not pile up. */
START_TEST(a_server_that_pings_and_takes_no_pongs_is_not_answered_without_end)
{
    struct script s = {.flood = 64 << 20, .hold = true};
    struct wsclient *c = NULL;
    struct text_span m;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 0);
    ck_assert_int_eq(wsclient_next(c, clock_mono_ms() + 500, &m), -ETIMEDOUT);
    wsclient_free(c);
    end_server(&s, thread);
    ck_assert_uint_lt(s.flooded, 1 << 20); /* what fits into the sockets, and some */
}
END_TEST

START_TEST(a_refusal_is_told_with_the_servers_words)
{
    struct script s = {.head = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 31\r\n\r\n"
                               "{\"message\":\"the token expired\"}"};
    struct wsclient *c = NULL;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 401);
    ck_assert_ptr_nonnull(strstr(why, "401: the token expired"));
    end_server(&s, thread);
}
END_TEST

START_TEST(an_upgrade_with_a_wrong_answer_is_refused)
{
    struct script s = {.head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               "Connection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n"};
    struct wsclient *c = NULL;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), -EPROTO);
    end_server(&s, thread);
}
END_TEST

START_TEST(a_subprotocol_that_was_not_offered_is_refused)
{
    struct script s = {.protocol = "other.v1"};
    struct wsclient *c = NULL;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), -EPROTO);
    ck_assert_ptr_nonnull(strstr(why, "subprotocol"));
    end_server(&s, thread);
    s = (struct script){.protocol = "belfry.v1"};
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 0);
    wsclient_free(c);
    end_server(&s, thread);
}
END_TEST

START_TEST(who_is_told_to_stop_does_not_wait)
{
    struct script s = {.hold = true};
    struct wsclient *c = NULL;
    struct text_span m;
    pthread_t thread;
    char why[256];
    ck_assert_int_eq(open_client(&s, &thread, &c, why, sizeof(why)), 0);
    stop = SIGTERM;
    ck_assert_int_eq(wsclient_next(c, INT64_MAX, &m), -EINTR);
    wsclient_free(c);
    end_server(&s, thread);
    stop = 0;
}
END_TEST

START_TEST(nobody_there_is_an_error_with_a_text)
{
    struct wsclient_url url = {.is_unix = true, .host = "/nonexistent/socket", .path = "/ws"};
    struct wsclient_config config = {.url = &url};
    struct wsclient *c = NULL;
    char why[256];
    ck_assert_int_eq(wsclient_open(&config, clock_mono_ms() + 100, &c, why, sizeof(why)), -ENOENT);
    ck_assert_ptr_null(c);
    ck_assert_str_ne(why, "");
    wsclient_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wsclient");
    TCase *pure = tcase_create("pure"), *live = tcase_create("live");
    tcase_add_test(pure, urls_are_taken_apart);
    tcase_add_test(pure, other_urls_are_refused_with_a_reason);
    tcase_add_test(pure, the_accept_value_is_the_one_of_the_rfc);
    tcase_add_test(pure, a_head_is_read_wherever_it_is_cut);
    tcase_add_test(pure, a_refusal_tells_its_status_and_length);
    tcase_add_test(pure, what_is_no_http_is_told_early);
    tcase_add_test(pure, a_head_without_end_is_given_up);
    tcase_add_test(live, messages_pings_and_a_close_code_that_wslay_does_not_know);
    tcase_add_test(live, the_same_byte_by_byte);
    tcase_add_test(live, a_lost_connection_is_told_as_1006);
    tcase_add_test(live, a_masked_frame_from_the_server_ends_the_connection);
    tcase_add_test(live, waiting_ends_at_the_deadline_and_goodbye_is_said);
    tcase_add_test(live, many_messages_and_a_long_one_come_whole_and_in_order);
    tcase_add_test(live, a_server_that_pings_and_takes_no_pongs_is_not_answered_without_end);
    tcase_add_test(live, a_refusal_is_told_with_the_servers_words);
    tcase_add_test(live, an_upgrade_with_a_wrong_answer_is_refused);
    tcase_add_test(live, a_subprotocol_that_was_not_offered_is_refused);
    tcase_add_test(live, who_is_told_to_stop_does_not_wait);
    tcase_add_test(live, nobody_there_is_an_error_with_a_text);
    tcase_set_timeout(live, 30);
    suite_add_tcase(suite, pure);
    suite_add_tcase(suite, live);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
