/*
 * ctl_control.c - questions to the running server's control socket, one request line, one line of
 * JSON back (unix(7)); belfryctl reload, drain and stop, which are no more than that.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/json.h"
#include "src/ctl.h"
#include "src/ctl_reply.h"

#define REPLY_MAX_BYTES (4 * 1024 * 1024)
#define SERVER_GRACE_MS 2000 /* for the answer to come, after the time that the question has */

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

void ctl_add_word(struct text_buf *out, const char *word)
{
    for (const char *p = word; *p; p++) {
        bool is_plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                        (*p >= '0' && *p <= '9') || strchr("-._~:", *p);
        if (is_plain)
            text_addc(out, *p);
        else
            text_addf(out, "%%%02X", (unsigned char)*p);
    }
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
        ctl_text_of(ctl_reply_span(&reply), "redis", url, sizeof(url));
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

int ctl_ask(struct ctl *c, const char *request, int64_t default_timeout_ms,
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

int ctl_ask_workers(const struct ctl *c, struct text_buf *request, int64_t timeout_ms,
                    struct text_buf *reply)
{
    text_addf(request, " %lld", (long long)timeout_ms);
    if (request->failed) {
        ctl_say("out of memory");
        return -ENOMEM;
    }
    return ctl_control_request(c, request->data, timeout_ms + SERVER_GRACE_MS, false, reply);
}

void ctl_say_error(const char *request, struct text_span reply)
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
    int result = ctl_ask(c, request, default_timeout_ms, &reply);
    if (result == CTL_DONE) {
        struct text_span answer = ctl_reply_span(&reply);
        bool ok = ctl_is_true(answer, "ok");
        if (ctl_flag(c, "json"))
            ctl_print_line(reply.data, reply.len);
        else if (ok)
            ctl_print_line(done, strlen(done));
        if (!ok) {
            ctl_say_error(request, answer);
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
