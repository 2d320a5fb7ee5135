/*
 * publish.c - the parent's messages: through Redis as a plain producer would (PUBLISH; with --store
 * LPUSH, LTRIM, PUBLISH), or as POST requests to a server that has its own way in.
 */
#include "config.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "src/ctl_redis.h"
#include "tests/bench/bench.h"

#define HTTP_BUFFER_BYTES 65536
#define HTTP_TRIES 100
#define HTTP_PAUSE_MS 50

struct publisher {
    const struct bench *b;
    redisContext *redis;
    size_t awaited; /* answers */
    bool is_stepwise; /* each command waits for the answer to the one before */
    int http_fd;    /* -1: none */
    char http_host[256];
    char http_port[8];
    const char *http_path;
    struct text_buf requests;
    struct text_buf message;
    struct text_buf name;
};

/* ---- HTTP ---- */

static int http_open(struct publisher *p)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    const int on = 1;
    const char *url = p->b->publish_url;
    int used = 0;
    if (sscanf(url, "http://%255[^:/]:%7[0-9]%n", p->http_host, p->http_port, &used) != 2 ||
        url[used] != '/') {
        bench_say("--publish-url: http://HOST:PORT/PATH is needed");
        return -EINVAL;
    }
    p->http_path = url + used;
    if (getaddrinfo(p->http_host, p->http_port, &hints, &found) != 0)
        return -EHOSTUNREACH;
    p->http_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int result = p->http_fd < 0 ? -1 : connect(p->http_fd, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (result != 0) {
        bench_say("--publish-url: %s", strerror(errno));
        return -ECONNREFUSED;
    }
    setsockopt(p->http_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

static void http_add(struct publisher *p, const char *to)
{
    struct text_buf path = {0};
    bench_expand(&path, p->http_path, "", to);
    text_addf(&p->requests, "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Length: %zu\r\n\r\n",
              path.failed ? "/" : path.data, p->http_host, p->http_port, p->message.len);
    text_add(&p->requests, p->message.data, p->message.len);
    text_buf_free(&path);
    p->awaited++;
}

/* Counts the answers in what came; heads only are looked at, as nobody else begins a line so. */
static int http_take(struct publisher *p, struct text_buf *got)
{
    const char *at = got->data, *end = got->data + got->len, *last = at;
    while ((at = memmem(at, (size_t)(end - at), "HTTP/1.", 7)) && end - at >= 12) {
        if (at[9] != '2') {
            if (p->b->mode != MODE_FLOW)
                bench_say("--publish-url: status %.3s", at + 9);
            return at[9] == '5' ? -EAGAIN : -EIO;
        }
        p->awaited--;
        at += 12;
        last = at;
    }
    /* What may be the beginning of the next head stays. */
    size_t keep = (size_t)(end - last) < 11 ? (size_t)(end - last) : 11;
    memmove(got->data, end - keep, keep);
    got->len = keep;
    return 0;
}

/* -ECONNRESET when the connection had ended before anything was answered; -EAGAIN when the server
 * said that it could not just now. */
static int http_exchange(struct publisher *p)
{
    struct text_buf got = {0};
    char buffer[HTTP_BUFFER_BYTES];
    int result = 0;
    size_t awaited = p->awaited;
    for (size_t sent = 0; sent < p->requests.len;) {
        ssize_t n = send(p->http_fd, p->requests.data + sent, p->requests.len - sent, MSG_NOSIGNAL);
        if (n < 0)
            return -ECONNRESET;
        sent += (size_t)n;
    }
    while (!result && p->awaited > 0) {
        ssize_t n = recv(p->http_fd, buffer, sizeof(buffer), 0);
        if (n <= 0) {
            result = p->awaited == awaited && !got.len ? -ECONNRESET : -EIO;
        } else {
            text_add(&got, buffer, (size_t)n);
            result = got.failed ? -ENOMEM : http_take(p, &got);
        }
    }
    text_buf_free(&got);
    if (result)
        p->awaited = awaited;
    return result;
}

/* A server that reloads closes the connections it kept for the next request: that one goes over a
 * new connection, as every HTTP client does it. The worker that accepts it may be leaving, too. */
static int http_flush(struct publisher *p)
{
    int result = http_exchange(p);
    for (int i = 0; i < HTTP_TRIES && result && p->b->mode == MODE_FLOW; i++) {
        if (i > 0)
            poll(NULL, 0, HTTP_PAUSE_MS);
        close(p->http_fd);
        result = http_open(p);
        if (result == 0)
            result = http_exchange(p);
    }
    text_buf_reset(&p->requests);
    if (result)
        bench_say("--publish-url: %s", strerror(-result));
    return result;
}

/* ---- Redis ---- */

static int redis_flush(struct publisher *p)
{
    while (p->awaited > 0) {
        redisReply *reply = NULL;
        if (redisGetReply(p->redis, (void **)&reply) != REDIS_OK ||
            reply->type == REDIS_REPLY_ERROR) {
            bench_say("Redis: %s", reply ? reply->str : p->redis->errstr);
            freeReplyObject(reply);
            return -EIO;
        }
        freeReplyObject(reply);
        p->awaited--;
    }
    return 0;
}

static int redis_add(struct publisher *p, int argc, const char **argv, const size_t *lens)
{
    if (redisAppendCommandArgv(p->redis, argc, argv, lens) != REDIS_OK) {
        bench_say("Redis: %s", p->redis->errstr);
        return -EIO;
    }
    p->awaited++;
    return p->is_stepwise ? redis_flush(p) : 0;
}

static int redis_store(struct publisher *p, const char *to)
{
    char last[16];
    struct text_buf *key = &p->name;
    text_buf_reset(key);
    keys_expand(key, p->b->keys.notifications, to, strlen(to));
    snprintf(last, sizeof(last), "%d", (int)p->b->options->history_size - 1);
    const char *push[] = {"LPUSH", key->data, p->message.data};
    const size_t push_lens[] = {5, key->len, p->message.len};
    const char *trim[] = {"LTRIM", key->data, "0", last};
    const size_t trim_lens[] = {5, key->len, 1, strlen(last)};
    int result = redis_add(p, 3, push, push_lens);
    if (result == 0)
        result = redis_add(p, 4, trim, trim_lens);
    if (result || !p->is_stepwise)
        return result;
    const char *expire[] = {"EXPIRE", key->data, "3600"};
    const size_t expire_lens[] = {6, key->len, 4};
    return redis_add(p, 3, expire, expire_lens);
}

/* What Centrifugo's Redis broker publishes without history: a protobuf Publication whose field 4 is
 * the data. */
static void wrap_centrifugo(struct text_buf *m)
{
    char head[6] = {0x22};
    size_t used = 1;
    for (size_t rest = m->len; used < sizeof(head); rest >>= 7) {
        head[used++] = (char)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
        if (rest <= 0x7f)
            break;
    }
    text_add(m, head, used);
    if (m->failed)
        return;
    memmove(m->data + used, m->data, m->len - used);
    memcpy(m->data, head, used);
}

static int redis_publish(struct publisher *p, bool is_to_all, const char *to)
{
    struct text_buf *channel = &p->name;
    text_buf_reset(channel);
    if (is_to_all)
        text_adds(channel, p->b->keys.broadcast_channel);
    else
        keys_expand(channel, p->b->keys.user_channel, to, strlen(to));
    const char *argv[] = {"PUBLISH", channel->data, p->message.data};
    const size_t lens[] = {7, channel->len, p->message.len};
    return redis_add(p, 3, argv, lens);
}

/* ---- interface ---- */

struct publisher *publisher_new(const struct bench *b)
{
    struct ctl ctl = {.options = b->options};
    struct publisher *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->b = b;
    p->http_fd = -1;
    if (b->publish_url ? http_open(p) != 0 : ctl_redis_open(&ctl, &p->redis) != 0) {
        publisher_free(p);
        return NULL;
    }
    return p;
}

void publisher_free(struct publisher *p)
{
    if (!p)
        return;
    if (p->redis)
        redisFree(p->redis);
    if (p->http_fd >= 0)
        close(p->http_fd);
    text_buf_free(&p->requests);
    text_buf_free(&p->message);
    text_buf_free(&p->name);
    free(p);
}

static void make_message(struct publisher *p, enum bench_stream stream, const char *to,
                         uint32_t seq, int64_t sent_ns)
{
    char when[CLOCK_ISO_BYTES];
    struct text_buf *m = &p->message;
    clock_format_us(clock_wall_us(), true, when);
    text_buf_reset(m);
    text_addf(m,
              "{\"id\":\"%" PRIu32 "-%s-%s%" PRIu32 "\",\"type\":\"NOTIFICATION\",\"timestamp\":"
              "\"%s\",\"user_id\":\"%s\",\"payload\":{\"run\":%" PRIu32 ",\"seq\":%" PRIu32
              ",\"sent_ns\":%" PRId64 ",\"stream\":%d,\"pad\":\"",
              p->b->run, to, stream == STREAM_PUBLISHED ? "p" : "", seq, when, to, p->b->run, seq,
              sent_ns, (int)stream);
    while (m->len + 3 < p->b->message_bytes && !m->failed)
        text_addc(m, 'x');
    text_adds(m, "\"}}");
}

static int add(struct publisher *p, enum bench_stream stream, bool is_stored, uint32_t user,
               uint32_t seq, int64_t sent_ns)
{
    char id[BENCH_USER_BYTES];
    bool is_to_all = p->b->mode == MODE_BROADCAST || stream == STREAM_BROADCAST;
    const char *to = is_to_all ? "all" : bench_user(p->b, user, id);
    make_message(p, stream, to, seq, sent_ns);
    if (!p->message.failed && p->b->publish_url) {
        http_add(p, to);
        return p->requests.failed ? -ENOMEM : 0;
    }
    int result = is_stored ? redis_store(p, to) : 0;
    if (p->b->is_centrifugo)
        wrap_centrifugo(&p->message);
    if (p->message.failed || p->name.failed)
        return -ENOMEM;
    return result ? result : redis_publish(p, is_to_all, to);
}

int publisher_add(struct publisher *p, uint32_t user, uint32_t seq, int64_t sent_ns)
{
    return add(p, STREAM_STORED, p->b->is_stored, user, seq, sent_ns);
}

int publisher_step(struct publisher *p, enum bench_stream stream, uint32_t user, uint32_t seq,
                   int64_t sent_ns)
{
    p->is_stepwise = true;
    int result = add(p, stream, stream == STREAM_STORED, user, seq, sent_ns);
    return result ? result : publisher_flush(p);
}

int publisher_flush(struct publisher *p)
{
    return p->redis ? redis_flush(p) : http_flush(p);
}
