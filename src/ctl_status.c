/*
 * ctl_status.c - belfryctl status, reload, drain, stop: questions to the running server's control
 * socket, one request line, one line of JSON back (unix(7)).
 */
#include "config.h"

#include "src/ctl.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/json.h"

#define REPLY_MAX_BYTES (4 * 1024 * 1024)

static int connect_control(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(un.sun_path))
        return -ENAMETOOLONG;
    memcpy(un.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
        return fd;
    int error = errno;
    close(fd);
    return -error;
}

/* Reads up to the end of the line or of the stream. */
static int read_line(int fd, int64_t deadline_ms, struct text_buf *out)
{
    char chunk[4096];
    for (;;) {
        int64_t left = deadline_ms - clock_mono_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = left <= 0 ? 0 : poll(&p, 1, left > 60000 ? 60000 : (int)left);
        if (n == 0 && left > 60000)
            continue;
        if (n == 0)
            return -ETIMEDOUT;
        if (n < 0 && errno == EINTR)
            continue;
        ssize_t got = n < 0 ? -1 : recv(fd, chunk, sizeof(chunk), 0);
        if (got < 0)
            return -errno;
        if (got == 0)
            return out->len ? 0 : -ECONNRESET;
        text_add(out, chunk, (size_t)got);
        if (out->failed || out->len > REPLY_MAX_BYTES)
            return out->failed ? -ENOMEM : -EMSGSIZE;
        if (out->data[out->len - 1] == '\n') {
            out->data[--out->len] = '\0';
            return 0;
        }
    }
}

static const char *advice(int error)
{
    switch (error) {
    case -ENOENT:
    case -ECONNREFUSED: return ": no server runs with this control-socket";
    case -EACCES:
    case -EPERM: return ": only the user that started the server may ask it";
    default: return "";
    }
}

int ctl_control_request(const struct ctl *c, const char *request, int64_t timeout_ms, bool quiet,
                        struct text_buf *reply)
{
    const char *path = c->options->control_socket;
    int64_t deadline = clock_mono_ms() + timeout_ms;
    struct text_buf line = {0};
    if (path[0] == '\0') {
        if (!quiet)
            ctl_say("control-socket is empty: this server cannot be asked");
        return -ENOENT;
    }
    int fd = connect_control(path), result = fd < 0 ? fd : 0;
    if (fd >= 0) {
        text_addf(&line, "%s\n", request);
        if (line.failed || send(fd, line.data, line.len, MSG_NOSIGNAL) != (ssize_t)line.len)
            result = line.failed ? -ENOMEM : -errno;
        else
            result = read_line(fd, deadline, reply);
        text_buf_free(&line);
        close(fd);
    }
    if (result == 0 && json_scan_object(reply->data, reply->len, NULL, NULL) != JSON_OK) {
        if (!quiet)
            ctl_say("%s: the answer is not a JSON object", path);
        return -EBADMSG;
    }
    if (result != 0 && !quiet)
        ctl_say("%s: %s%s", path, result == -ETIMEDOUT ? "no answer in time" : strerror(-result),
                advice(result));
    return result;
}

static struct text_span reply_span(const struct text_buf *reply)
{
    return (struct text_span){reply->data, reply->len};
}

/* A string member, decoded; empty when absent or longer than cap. */
static const char *member_text(struct text_span object, const char *name, char *out, size_t cap)
{
    struct text_span value;
    out[0] = '\0';
    if (json_find(object, name, &value)) {
        long n = json_string_decode(value, out, cap - 1);
        out[n > 0 ? n : 0] = '\0';
    }
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = *p == '\n' ? ' ' : '?';
    return out;
}

static long long member_number(struct text_span object, const char *name)
{
    struct text_span value;
    long long n = 0;
    char text[32];
    if (json_find(object, name, &value) && value.len < sizeof(text)) {
        memcpy(text, value.ptr, value.len);
        text[value.len] = '\0';
        if (sscanf(text, "%lld", &n) != 1)
            n = 0;
    }
    return n;
}

static bool member_true(struct text_span object, const char *name)
{
    struct text_span value;
    return json_find(object, name, &value) && text_span_eq(value, "true");
}

/* A number two objects down: totals.connections.websockets. */
static long long nested(struct text_span object, const char *a, const char *name)
{
    struct text_span inner;
    return json_find(object, a, &inner) ? member_number(inner, name) : 0;
}

int ctl_redis_url(const struct ctl *c, struct text_buf *out)
{
    struct text_buf reply = {0};
    char url[512] = "";
    if (strcmp(c->options->redis_url, "embedded") != 0) {
        text_adds(out, c->options->redis_url);
        return out->failed ? -ENOMEM : 0;
    }
    if (ctl_control_request(c, "status", 2000, true, &reply) == 0)
        member_text(reply_span(&reply), "redis", url, sizeof(url));
    text_buf_free(&reply);
    if (url[0] == '\0' || strcmp(url, "embedded") == 0) {
        ctl_say("redis-url is embedded: only a running server knows where that is, and none "
                "answers on control-socket %s (belfryd --dev prints the --config to use)",
                c->options->control_socket);
        return -EINVAL;
    }
    text_adds(out, url);
    return out->failed ? -ENOMEM : 0;
}

static void add_duration(struct text_buf *b, long long s)
{
    if (s >= 86400)
        text_addf(b, "%lldd %lldh", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        text_addf(b, "%lldh %lldm", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        text_addf(b, "%lldm %llds", s / 60, s % 60);
    else
        text_addf(b, "%llds", s);
}

static void add_listeners(struct text_buf *b, struct text_span status)
{
    struct text_span list, metrics;
    char text[256];
    text_adds(b, "listen      ");
    if (json_find(status, "listen", &list) && list.len > 2) {
        for (size_t i = 1; i + 1 < list.len; i++)
            if (list.ptr[i] != '"')
                text_addc(b, list.ptr[i]);
    }
    if (json_find(status, "metrics_listen", &metrics) && json_kind(metrics) == JSON_KIND_STRING)
        text_addf(b, "; metrics %s", member_text(status, "metrics_listen", text, sizeof(text)));
    text_addc(b, '\n');
}

static void add_head(struct text_buf *b, struct text_span status)
{
    char a[512], d[64], e[64];
    text_addf(b, "belfryd %s, pid %lld, %s, up ", member_text(status, "version", d, sizeof(d)),
              member_number(status, "pid"), member_text(status, "state", e, sizeof(e)));
    add_duration(b, member_number(status, "uptime_seconds"));
    text_addf(b, ", generation %lld\n", member_number(status, "generation"));
    text_addf(b, "instance    %s\n", member_text(status, "instance_id", a, sizeof(a)));
    member_text(status, "config_file", a, sizeof(a));
    text_addf(b, "config      %s\n", a[0] ? a : "(none)");
    add_listeners(b, status);
}

static void add_redis(struct text_buf *b, struct text_span status, struct text_span totals)
{
    char url[512];
    long long workers = member_number(status, "worker_count");
    long long up = nested(totals, "redis", "redis_subscriber_up");
    text_addf(b, "redis       %s: ", member_text(status, "redis", url, sizeof(url)));
    if (up >= workers)
        text_adds(b, "up");
    else
        text_addf(b, "DOWN for %lld of %lld workers", workers - up, workers);
    text_addf(b, ", %lld subscriptions, %lld links lost\n",
              nested(totals, "redis", "redis_subscriptions"),
              nested(totals, "redis", "redis_disconnects"));
}

static void add_reload(struct text_buf *b, struct text_span status)
{
    struct text_span last;
    char at[64], message[512];
    if (!json_find(status, "last_reload", &last) || json_kind(last) != JSON_KIND_OBJECT)
        return;
    member_text(last, "message", message, sizeof(message));
    text_addf(b, "reload      %s at %s%s%s\n", member_true(last, "ok") ? "done" : "REFUSED",
              member_text(last, "at", at, sizeof(at)), message[0] ? ": " : "", message);
}

static void add_worker(void *data, struct text_span worker)
{
    struct text_buf *b = data;
    char state[32];
    text_addf(b, "  %4lld %8lld %-9s %5lld %11lld %11lld %11lld %11lld\n",
              member_number(worker, "slot"), member_number(worker, "pid"),
              member_text(worker, "state", state, sizeof(state)), member_number(worker, "restarts"),
              nested(worker, "connections", "websockets"),
              nested(worker, "messages", "messages_received"),
              nested(worker, "messages", "deliveries"), nested(worker, "client", "commands"));
}

static void render_status(struct text_span status, struct text_buf *b)
{
    struct text_span totals = {"{}", 2}, workers;
    json_find(status, "totals", &totals);
    add_head(b, status);
    add_redis(b, status, totals);
    add_reload(b, status);
    text_addf(b, "clients     %lld connections of %lld users; %lld so far, %lld tokens refused\n",
              nested(totals, "connections", "websockets"), member_number(status, "connected_users"),
              nested(totals, "connections", "websockets_opened"),
              nested(totals, "connections", "auth_failures"));
    text_addf(b, "messages    %lld received, %lld delivered, %lld replayed, %lld not relayed\n",
              nested(totals, "messages", "messages_received"),
              nested(totals, "messages", "deliveries"),
              nested(totals, "messages", "messages_replayed"),
              nested(totals, "messages", "messages_invalid_json") +
                  nested(totals, "messages", "messages_invalid_utf8") +
                  nested(totals, "messages", "messages_not_object"));
    text_addf(b, "workers     %lld, %lld restarted\n", member_number(status, "worker_count"),
              member_number(status, "restarts"));
    text_addf(b, "  %4s %8s %-9s %5s %11s %11s %11s %11s\n", "slot", "pid", "state", "died",
              "connections", "received", "delivered", "commands");
    if (json_find(status, "workers", &workers))
        json_scan_array(workers.ptr, workers.len, add_worker, b);
}

/* Asks, and turns failure into an exit code. */
static int ask(struct ctl *c, const char *request, int64_t default_timeout_ms,
               struct text_buf *reply)
{
    int64_t timeout_ms;
    if (ctl_time(c, "timeout", default_timeout_ms, &timeout_ms) != 0)
        return CTL_USAGE;
    int result = ctl_control_request(c, request, timeout_ms, false, reply);
    if (result == 0)
        return CTL_DONE;
    return result == -ETIMEDOUT ? CTL_TIMED_OUT : CTL_FAILED;
}

int ctl_status(struct ctl *c)
{
    struct text_buf reply = {0}, text = {0};
    int result = ask(c, "status", 5000, &reply);
    if (result == CTL_DONE && ctl_flag(c, "json")) {
        result = ctl_print_line(reply.data, reply.len) == 0 ? CTL_DONE : CTL_FAILED;
    } else if (result == CTL_DONE) {
        render_status(reply_span(&reply), &text);
        result = ctl_print(&text);
    }
    text_buf_free(&reply);
    return result;
}

/* Tells each line of a refusal on its own. */
static void say_error(const char *request, struct text_span reply)
{
    struct text_span value;
    char text[4096];
    long n = -1;
    if (json_find(reply, "error", &value))
        n = json_string_decode(value, text, sizeof(text) - 1);
    if (n <= 0) {
        ctl_say("%s: refused", request);
        return;
    }
    text[n] = '\0';
    for (char *p = text, *line; (line = strsep(&p, "\n"));)
        if (*line)
            ctl_say("%s: %s", request, line);
}

static int order(struct ctl *c, const char *request, int64_t default_timeout_ms, const char *done)
{
    struct text_buf reply = {0};
    int result = ask(c, request, default_timeout_ms, &reply);
    if (result == CTL_DONE) {
        struct text_span answer = reply_span(&reply);
        bool ok = member_true(answer, "ok");
        if (ctl_flag(c, "json"))
            ctl_print_line(reply.data, reply.len);
        else if (ok)
            ctl_print_line(done, strlen(done));
        if (!ok) {
            say_error(request, answer);
            result = CTL_FAILED;
        }
    }
    text_buf_free(&reply);
    return result;
}

int ctl_reload(struct ctl *c)
{
    return order(c, "reload", 60 * 1000, "reloaded");
}

int ctl_drain(struct ctl *c)
{
    return order(c, "drain", 5000, "draining");
}

int ctl_stop(struct ctl *c)
{
    return order(c, "stop", 5000, "stopping");
}
