/*
 * crowd.c - the children that hold the connections: each an epoll loop over its share of them.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/token.h"
#include "tests/bench/client.h"

#define EVENTS 512
#define CONNECTING_MAX 128      /* at once in each child, when there is no hurry */
#define AWAY_MS 10              /* between looks at who is to come back */
#define BUFFER_BYTES (1 << 20)
#define CLIENTS_PER_ADDRESS 250 /* of each source address 127.0.x.y */
#define TOKEN_TTL_MS 86400000

struct crowd {
    const struct bench *b;
    struct crowd_share *share;
    size_t share_bytes;
    int event_fd;               /* children -> parent */
    int orders[BENCH_CROWDS_MAX]; /* pipes */
    pid_t pids[BENCH_CROWDS_MAX];
    size_t count;
};

/* One child. */
struct child {
    const struct bench *b;
    struct crowd_share *share;
    struct crowd_tally *tally;
    struct client_rules rules;
    struct client *clients;
    uint32_t count;
    uint32_t next;              /* the next client to connect */
    uint32_t connecting;
    uint32_t connecting_max;
    uint32_t away;              /* thrown out, to come back */
    int epoll_fd;
    int order_fd;
    int event_fd;
    struct sockaddr_in server;
    struct text_buf request;
    char *buffer;
};

/* ---- one connection ---- */

static void send_all(struct client *c, const void *bytes, size_t len)
{
    if (send(c->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
        shutdown(c->fd, SHUT_RDWR);
}

static void leave(struct child *ch, struct client *c)
{
    if (c->state == CLIENT_DOWN)
        return;
    ch->connecting -= c->state != CLIENT_LIVE;
    ch->tally->live -= c->state == CLIENT_LIVE;
    close(c->fd);
    c->state = CLIENT_DOWN;
    free(c->kept);
    c->kept = NULL;
    c->kept_len = 0;
}

/* In a flow: counted once, and back as often as it takes. */
static void come_back(struct child *ch, struct client *c)
{
    if (!c->closed_ns) {
        c->closed_ns = bench_now_ns();
        ch->tally->closed++;
        ch->tally->phases[ch->share->phase].closed++;
    }
    c->is_resuming = !ch->b->is_forgetful;
    leave(ch, c);
    ch->away++;
}

static void fail(struct child *ch, struct client *c, const char *what)
{
    if (ch->b->is_returning && (c->state == CLIENT_LIVE || c->closed_ns)) {
        come_back(ch, c);
        return;
    }
    if (c->state == CLIENT_LIVE) {
        ch->tally->closed++;
        ch->tally->phases[ch->share->phase].closed++;
    } else if (ch->tally->refused++ == 0)
        bench_say("client %u: %s: %s", c->index, what, strerror(errno));
    leave(ch, c);
}

static int open_socket(const struct child *ch, const struct client *c)
{
    const int on = 1;
    uint32_t place = c->index / CLIENTS_PER_ADDRESS;
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f000001u + (place / 250 << 8) + place % 250 + 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* The port is chosen at connect(), where only the whole four-tuple must be free. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if (ntohl(ch->server.sin_addr.s_addr) >> 24 == 127 &&
        bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0)
        goto failed;
    if (connect(fd, (const struct sockaddr *)&ch->server, sizeof(ch->server)) != 0 &&
        errno != EINPROGRESS)
        goto failed;
    return fd;
failed:;
    int error = -errno;
    close(fd);
    return error;
}

static void begin(struct child *ch, struct client *c)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    int fd = open_socket(ch, c);
    ch->connecting++;
    c->state = CLIENT_CONNECTING;
    c->fd = fd;
    if (fd < 0) {
        errno = -fd;
        fail(ch, c, "connect");
    } else if (epoll_ctl(ch->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        fail(ch, c, "epoll");
    }
}

static void on_connected(struct child *ch, struct client *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int error = 0;
    socklen_t len = sizeof(error);
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error) {
        errno = error;
        fail(ch, c, "connect");
        return;
    }
    text_buf_reset(&ch->request);
    client_request(c, ch->b, &ch->request);
    c->state = CLIENT_SHAKING;
    epoll_ctl(ch->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    send_all(c, ch->request.data, ch->request.len);
}

/* Keeps the beginning of a frame. */
static void keep(struct client *c, const char *bytes, size_t len)
{
    free(c->kept);
    c->kept = len ? malloc(len) : NULL;
    c->kept_len = c->kept ? (uint32_t)len : 0;
    if (c->kept)
        memcpy(c->kept, bytes, len);
}

static void on_readable(struct child *ch, struct client *c)
{
    bool was_live = c->state == CLIENT_LIVE;
    size_t had = c->kept_len;
    if (had)
        memcpy(ch->buffer, c->kept, had);
    ssize_t n = recv(c->fd, ch->buffer + had, BUFFER_BYTES - had, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        errno = n < 0 ? errno : ECONNRESET;
        fail(ch, c, "the server hung up");
        return;
    }
    ch->tally->bytes += (uint64_t)n;
    size_t len = had + (size_t)n;
    long used = client_feed(c, &ch->rules, ch->buffer, len);
    if (!was_live && c->state == CLIENT_LIVE)
        ch->connecting--;
    if (used < 0) {
        errno = (int)-used;
        fail(ch, c, "closed");
        return;
    }
    if (had || (size_t)used < len)
        keep(c, ch->buffer + used, len - (size_t)used);
}

/* ---- orders ---- */

static void drop_all(struct child *ch)
{
    for (uint32_t i = 0; i < ch->count; i++)
        leave(ch, &ch->clients[i]);
    for (uint32_t i = 0; i < ch->count; i++)
        ch->clients[i].is_resuming = true;
    memset(&ch->tally->back, 0, sizeof(ch->tally->back));
}

static void count_missing(struct child *ch)
{
    for (uint32_t i = 0; i < ch->count; i++) {
        struct client *c = &ch->clients[i];
        unsigned streams = ch->b->mode == MODE_FLOW ? STREAMS : 1;
        if (ch->b->mode == MODE_FLOW && c->state != CLIENT_DOWN)
            client_note_silence(c, &ch->rules, ch->share->phase_until_ns);
        for (unsigned s = 0; s < streams; s++)
            client_end(c, &ch->rules, s, ch->share->last_seq[bench_seq_at(ch->b, s, c->user)]);
    }
}

static void on_order(struct child *ch)
{
    char order = CROWD_QUIT;
    if (read(ch->order_fd, &order, 1) != 1 || order == CROWD_QUIT)
        _exit(0); /* the parent is done, or dead: the kernel closes the sockets */
    if (order == CROWD_END) {
        count_missing(ch);
    } else {
        if (order == CROWD_DROP)
            drop_all(ch);
        ch->next = 0;
        ch->connecting_max = order == CROWD_DROP ? UINT32_MAX : CONNECTING_MAX;
    }
    __atomic_add_fetch(&ch->tally->generation, 1, __ATOMIC_RELEASE);
}

/* ---- the child's loop ---- */

/* Those that were thrown out, each after a time of its own, evenly spread. */
static void bring_back(struct child *ch)
{
    if (!ch->away)
        return;
    int64_t now_ns = bench_now_ns();
    ch->away = 0;
    for (uint32_t i = 0; i < ch->count; i++) {
        struct client *c = &ch->clients[i];
        int64_t wait_ms = ch->b->return_ms ? c->index * 7919 % ch->b->return_ms : 0;
        if (!c->closed_ns || c->state != CLIENT_DOWN)
            continue;
        if (now_ns - c->closed_ns >= wait_ms * 1000000)
            begin(ch, c); /* whom connect() refuses is away again */
        else
            ch->away++;
    }
}

/* How many connections may be begun now. */
static uint32_t may_begin(const struct child *ch)
{
    uint32_t room = ch->count - ch->next;
    if (ch->connecting >= ch->connecting_max)
        return 0;
    if (room > ch->connecting_max - ch->connecting)
        room = ch->connecting_max - ch->connecting;
    if (ch->b->connect_rate) {
        double seconds = (double)(bench_now_ns() - ch->share->ordered_ns) / 1e9;
        double due = seconds * ch->b->connect_rate / ch->b->processes - ch->next;
        if (due < room)
            room = due > 0 ? (uint32_t)due : 0;
    }
    return room < EVENTS ? room : EVENTS;
}

static void turn(struct child *ch)
{
    static const uint64_t one = 1;
    struct epoll_event events[EVENTS];
    uint64_t before = ch->tally->delivered + ch->tally->live + ch->tally->refused;
    uint64_t generation = ch->tally->generation;
    bool is_paced = ch->next < ch->count && ch->b->connect_rate;
    int wait_ms = may_begin(ch) ? 0 : is_paced ? 1 : ch->away ? AWAY_MS : -1;
    int n = epoll_wait(ch->epoll_fd, events, EVENTS, wait_ms);
    for (int i = 0; i < n; i++) {
        struct client *c = events[i].data.ptr;
        if (!c)
            on_order(ch);
        else if (c->state == CLIENT_CONNECTING)
            on_connected(ch, c);
        else if (c->state != CLIENT_DOWN)
            on_readable(ch, c);
    }
    for (uint32_t room = may_begin(ch); room > 0; room--)
        begin(ch, &ch->clients[ch->next++]);
    bring_back(ch);
    if (before != ch->tally->delivered + ch->tally->live + ch->tally->refused ||
        generation != ch->tally->generation)
        (void)!write(ch->event_fd, &one, sizeof(one));
}

/* Tokens are made before anything is measured. */
static int make_clients(struct child *ch, uint32_t first)
{
    struct token_keys *keys = NULL;
    char why[512] = "", user[BENCH_USER_BYTES];
    int result = 0;
    ch->clients = calloc(ch->count, sizeof(*ch->clients));
    if (!ch->clients)
        return -ENOMEM;
    if (ch->b->options->jwt_secret_file[0] && !ch->b->tokens.count)
        result = token_keys_load(ch->b->options, &keys, why, sizeof(why));
    for (uint32_t i = 0; i < ch->count && !result; i++) {
        struct client *c = &ch->clients[i];
        c->fd = -1;
        c->index = first + i;
        c->user = c->index % ch->b->users;
        if (ch->b->tokens.count)
            c->token = ch->b->tokens.items[ch->b->first_user + c->user];
        else if (keys)
            result = token_mint(keys,
                                &(struct token_request){.user_id = bench_user(ch->b, c->user, user),
                                                        .ttl_ms = TOKEN_TTL_MS},
                                clock_wall_ms(), &c->token);
    }
    token_keys_free(keys);
    if (result)
        bench_say("token: %s", why[0] ? why : strerror(-result));
    return result;
}

static void run_child(struct child *ch, uint32_t first)
{
    struct epoll_event event = {.events = EPOLLIN};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ch->rules = (struct client_rules){ch->b, ch->share, ch->tally, send_all};
    ch->buffer = malloc(BUFFER_BYTES);
    ch->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    ch->next = ch->count;
    ch->server.sin_family = AF_INET;
    ch->server.sin_port = htons((uint16_t)ch->b->port);
    if (!ch->buffer || ch->epoll_fd < 0 || make_clients(ch, first) != 0 ||
        inet_pton(AF_INET, ch->b->host, &ch->server.sin_addr) != 1 ||
        epoll_ctl(ch->epoll_fd, EPOLL_CTL_ADD, ch->order_fd, &event) != 0)
        _exit(BENCH_FAILED);
    for (;;)
        turn(ch);
}

/* ---- the parent's side ---- */

static int start_child(struct crowd *c, uint32_t first, uint32_t count)
{
    int ends[2];
    if (pipe(ends) != 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        close(ends[1]);
        for (size_t i = 0; i < c->count; i++)
            close(c->orders[i]);
        struct child child = {.b = c->b,
                              .share = c->share,
                              .tally = &c->share->tallies[c->count],
                              .count = count,
                              .order_fd = ends[0],
                              .event_fd = c->event_fd};
        run_child(&child, first);
    }
    close(ends[0]);
    c->orders[c->count] = ends[1];
    c->pids[c->count++] = pid;
    return 0;
}

struct crowd *crowd_new(const struct bench *b)
{
    struct crowd *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->b = b;
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    c->share_bytes = sizeof(*c->share) + bench_seq_count(b) * sizeof(c->share->last_seq[0]);
    c->share = mmap(NULL, c->share_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                    0);
    if (c->event_fd < 0 || c->share == MAP_FAILED) {
        bench_say("%s", strerror(errno));
        free(c);
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN);
    for (uint32_t i = 0, first = 0; i < b->processes; i++) {
        uint32_t count = b->connections / b->processes + (i < b->connections % b->processes);
        if (start_child(c, first, count) != 0) {
            bench_say("fork: %s", strerror(errno));
            crowd_free(c);
            return NULL;
        }
        first += count;
    }
    return c;
}

void crowd_free(struct crowd *c)
{
    if (!c)
        return;
    crowd_order(c, CROWD_QUIT);
    for (size_t i = 0; i < c->count; i++) {
        close(c->orders[i]);
        waitpid(c->pids[i], NULL, 0);
    }
    close(c->event_fd);
    munmap(c->share, c->share_bytes);
    free(c);
}

struct crowd_share *crowd_share(struct crowd *c)
{
    return c->share;
}

void crowd_order(struct crowd *c, enum crowd_order order)
{
    char byte = (char)order;
    if (order == CROWD_CONNECT || order == CROWD_DROP)
        c->share->ordered_ns = bench_now_ns();
    for (size_t i = 0; i < c->count; i++)
        (void)!write(c->orders[i], &byte, 1);
}

void crowd_sum(const struct crowd *c, bool with_hist, struct crowd_tally *out)
{
    memset(out, 0, sizeof(*out));
    out->generation = UINT64_MAX;
    for (size_t i = 0; i < c->count; i++) {
        const struct crowd_tally *t = &c->share->tallies[i];
        uint64_t generation = __atomic_load_n(&t->generation, __ATOMIC_ACQUIRE);
        if (generation < out->generation)
            out->generation = generation;
        out->live += __atomic_load_n(&t->live, __ATOMIC_RELAXED);
        out->delivered += __atomic_load_n(&t->delivered, __ATOMIC_RELAXED);
        out->lost += t->lost;
        out->repeated += t->repeated;
        out->disordered += t->disordered;
        out->refused += t->refused;
        out->closed += t->closed;
        out->unrecovered += t->unrecovered;
        out->bytes += t->bytes;
        if (with_hist) {
            hist_merge(&out->latency, &t->latency);
            hist_merge(&out->back, &t->back);
        }
    }
}

void crowd_sum_phase(const struct crowd *c, uint32_t phase, struct crowd_phase *out)
{
    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < c->count; i++) {
        const struct crowd_phase *p = &c->share->tallies[i].phases[phase];
        out->delivered += p->delivered;
        out->closed += p->closed;
        if (p->silence_ns > out->silence_ns)
            out->silence_ns = p->silence_ns;
        if (p->away_ns > out->away_ns)
            out->away_ns = p->away_ns;
        hist_merge(&out->latency, &p->latency);
    }
}

void crowd_wait(struct crowd *c, int timeout_ms)
{
    uint64_t ignored;
    struct pollfd wait = {.fd = c->event_fd, .events = POLLIN};
    if (poll(&wait, 1, timeout_ms) > 0)
        (void)!read(c->event_fd, &ignored, sizeof(ignored));
}
