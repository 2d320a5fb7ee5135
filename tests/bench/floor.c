/*
 * floor.c - the least a server can do: the yardstick that `make bench` measures others by.
 *
 * Accept, the smallest handshake, a bare epoll loop; one subscription to Redis for everybody
 * (--users: SUBSCRIBE for each connection's user); for each message one send() of a frame made once
 * to each connection. With --join=N what one read from Redis brought is put together, up to N
 * messages, and leaves in one send(). Nothing else: no token, no check, no list, no limits. What a
 * socket does not take is a lost connection.
 *
 * --workers=N: N processes, each with a listening socket of its own (SO_REUSEPORT).
 *
 * usage: floor PORT REDIS-SOCKET [--join=N] [--users] [--workers=N]
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 20000
#define EVENTS 512
#define BUFFER_BYTES (1 << 20)
#define JOIN_MAX 64
#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define KEY_BYTES 24
#define ARRAY(a) (sizeof(a) / sizeof(*(a)))

struct client {
    int fd;
    int user; /* number at the end of user=bench-N; -1: none yet */
};

static struct client clients[CLIENTS_MAX + 64]; /* by descriptor */
static int open_fds[CLIENTS_MAX];
static int place_of[CLIENTS_MAX + 64];          /* in open_fds */
static int open_count;
static int by_user[CLIENTS_MAX + 64];           /* descriptor; 0: nobody */
static int epoll_fd, redis_fd, join = 1, workers = 1;
static int with_users;
static char redis_buffer[BUFFER_BYTES], out[BUFFER_BYTES];
static size_t redis_len, out_len;
static int joined;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- clients ---- */

static void drop(int fd)
{
    int place = place_of[fd];
    open_fds[place] = open_fds[--open_count];
    place_of[open_fds[place]] = place;
    if (clients[fd].user >= 0 && by_user[clients[fd].user] == fd)
        by_user[clients[fd].user] = 0;
    close(fd);
}

static void give(int fd, const char *bytes, size_t len)
{
    if (send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
        shutdown(fd, SHUT_RDWR); /* epoll tells, and drop() follows */
}

static void accept_all(int listener)
{
    struct epoll_event event = {.events = EPOLLIN};
    const int on = 1;
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= CLIENTS_MAX) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        clients[fd] = (struct client){fd, -1};
        place_of[fd] = open_count;
        open_fds[open_count++] = fd;
        event.data.fd = fd;
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
            die("epoll_ctl");
    }
}

static void add_base64(char *to, const unsigned char *p, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < len ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < len ? p[i + 2] : 0);
        for (size_t j = 0; j < 4; j++)
            *to++ = i + j > len ? '=' : digits[v >> (18 - 6 * j) & 63];
    }
}

static void subscribe(int user)
{
    char command[128], channel[48];
    int len = snprintf(channel, sizeof(channel), "ws:user:bench-%d", user);
    len = snprintf(command, sizeof(command), "*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%s\r\n", len,
                   channel);
    if (write(redis_fd, command, (size_t)len) != len)
        die("Redis");
}

/* "\x81\x02{}": the client is live. With --users when the subscription is confirmed. */
static void welcome(int fd)
{
    give(fd, "\x81\x02{}", 4);
}

static void shake_hands(int fd, char *request)
{
    static const char name[] = "Sec-WebSocket-Key: ";
    char text[KEY_BYTES + sizeof(GUID)], accept[29] = "", answer[256];
    unsigned char hash[SHA_DIGEST_LENGTH];
    const char *key = strstr(request, name), *user = strstr(request, "user=bench-");
    if (!key || strlen(key + sizeof(name) - 1) < KEY_BYTES) {
        shutdown(fd, SHUT_RDWR);
        return;
    }
    memcpy(text, key + sizeof(name) - 1, KEY_BYTES);
    memcpy(text + KEY_BYTES, GUID, sizeof(GUID));
    SHA1((unsigned char *)text, KEY_BYTES + sizeof(GUID) - 1, hash);
    add_base64(accept, hash, sizeof(hash));
    int len = snprintf(answer, sizeof(answer),
                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Accept: %.28s\r\n\r\n", accept);
    clients[fd].user = user ? atoi(user + strlen("user=bench-")) : 0;
    if (clients[fd].user >= CLIENTS_MAX)
        clients[fd].user = 0;
    by_user[clients[fd].user] = fd;
    give(fd, answer, (size_t)len);
    if (with_users)
        subscribe(clients[fd].user);
    else
        welcome(fd);
}

static void read_client(int fd)
{
    char request[4096];
    ssize_t n = recv(fd, request, sizeof(request) - 1, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop(fd);
        return;
    }
    request[n] = '\0';
    if (clients[fd].user < 0) /* the request comes whole, or not at all */
        shake_hands(fd, request);
}

/* ---- Redis ---- */

static void flush_joined(void)
{
    for (int i = open_count - 1; joined > 0 && i >= 0; i--)
        if (clients[open_fds[i]].user >= 0)
            give(open_fds[i], out, out_len);
    joined = 0;
    out_len = 0;
}

static void on_message(const char *channel, const char *payload, size_t len)
{
    unsigned char *head = (unsigned char *)out + out_len;
    size_t head_len = len < 126 ? 2 : 4;
    head[0] = 0x81;
    head[1] = (unsigned char)(len < 126 ? len : 126);
    if (len >= 126) {
        head[2] = (unsigned char)(len >> 8);
        head[3] = (unsigned char)len;
    }
    memcpy(head + head_len, payload, len);
    if (!strncmp(channel, "ws:user:bench-", 14)) {
        int fd = by_user[atoi(channel + 14) % CLIENTS_MAX];
        if (fd)
            give(fd, (char *)head, head_len + len);
        return;
    }
    out_len += head_len + len;
    if (++joined >= join)
        flush_joined();
}

/* One bulk string or number; NULL until it is whole. */
static char *element(char *at, const char *end, char **text, size_t *len)
{
    char *line = memchr(at, '\n', (size_t)(end - at));
    if (!line)
        return NULL;
    *text = at + 1;
    *len = (size_t)strtoul(at + 1, NULL, 10);
    if (*at != '$')
        return line + 1;
    *text = line + 1;
    return (size_t)(end - line - 1) < *len + 2 ? NULL : line + 1 + *len + 2;
}

/* "*3" and its three elements; NULL until it is whole. */
static char *push(char *at, const char *end)
{
    char *text[3];
    size_t len[3];
    char *next = memchr(at, '\n', (size_t)(end - at));
    next = next ? next + 1 : NULL;
    for (size_t i = 0; i < ARRAY(text) && next; i++)
        next = next < end ? element(next, end, &text[i], &len[i]) : NULL;
    if (!next)
        return NULL;
    if (len[0] == 7 && !memcmp(text[0], "message", 7))
        on_message(text[1], text[2], len[2]);
    else if (!strncmp(text[1], "ws:user:bench-", 14) && by_user[atoi(text[1] + 14) % CLIENTS_MAX])
        welcome(by_user[atoi(text[1] + 14) % CLIENTS_MAX]);
    return next;
}

static void read_redis(void)
{
    ssize_t n = read(redis_fd, redis_buffer + redis_len, sizeof(redis_buffer) - redis_len);
    if (n <= 0)
        die("Redis");
    redis_len += (size_t)n;
    char *at = redis_buffer, *end = redis_buffer + redis_len;
    for (char *next; at < end && (next = push(at, end)); at = next)
        ;
    flush_joined();
    redis_len = (size_t)(end - at);
    memmove(redis_buffer, at, redis_len);
}

static void open_redis(const char *path)
{
    static const char hello[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$12\r\nws:broadcast\r\n";
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    redis_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(redis_fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        write(redis_fd, hello, sizeof(hello) - 1) != (ssize_t)sizeof(hello) - 1)
        die(path);
}

/* ---- start ---- */

static int open_listener(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 65535) != 0)
        die("listen");
    return fd;
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void read_options(int argc, char **argv)
{
    for (int i = 3; i < argc; i++) {
        if (sscanf(argv[i], "--join=%d", &join) == 1)
            join = join < 1 ? 1 : join > JOIN_MAX ? JOIN_MAX : join;
        with_users |= !strcmp(argv[i], "--users");
        (void)sscanf(argv[i], "--workers=%d", &workers);
    }
}

/* The others end with the first. */
static void fork_others(void)
{
    for (int i = 1; i < workers; i++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            return;
        }
    }
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    struct rlimit files;
    if (argc < 3) {
        fputs("usage: floor PORT REDIS-SOCKET [--join=N] [--users] [--workers=N]\n", stderr);
        return 2;
    }
    read_options(argc, argv);
    fork_others();
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = open_listener(atoi(argv[1]));
    open_redis(argv[2]);
    watch(listener);
    watch(redis_fd);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener);
            else if (fd == redis_fd)
                read_redis();
            else
                read_client(fd);
        }
    }
}
