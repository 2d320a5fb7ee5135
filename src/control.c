#include "config.h"

#include "src/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "src/unixsock.h"

#define BACKLOG 128 /* a connect(2) that does not wait fails when it is full */
#define PAUSE_S 1.0 /* no descriptor left: accepting would spin */

enum client_state {
    CLIENT_FREE,
    CLIENT_READING,
    CLIENT_WAITING, /* for a reload */
    CLIENT_ASKING,  /* for control_explained */
    CLIENT_WRITING
};

struct client {
    struct control *owner;
    enum client_state state;
    uint64_t ticket; /* never twice: its remainder is the client's place */
    struct ev_io io;
    struct ev_timer timer;
    char request[CONTROL_REQUEST_BYTES];
    size_t request_len;
    struct text_buf answer;
    size_t sent;
};

struct control {
    struct ev_loop *loop;
    struct control_handlers handlers;
    void *data;
    char *path;
    struct unixsock_file file;
    bool is_ours; /* to remove the file in the end */
    struct ev_io io;
    struct ev_timer pause;
    uint64_t opened; /* clients so far */
    struct client clients[CONTROL_CLIENTS];
};

static void close_client(struct client *c)
{
    if (c->state == CLIENT_FREE)
        return;
    ev_io_stop(c->owner->loop, &c->io);
    ev_timer_stop(c->owner->loop, &c->timer);
    close(c->io.fd);
    text_buf_free(&c->answer);
    c->state = CLIENT_FREE;
}

static void set_timer(struct client *c)
{
    ev_timer_stop(c->owner->loop, &c->timer);
    ev_timer_set(&c->timer, CONTROL_TIMEOUT_S, 0.0);
    ev_timer_start(c->owner->loop, &c->timer);
}

static void set_events(struct client *c, int events)
{
    int fd = c->io.fd;
    ev_io_stop(c->owner->loop, &c->io);
    ev_io_set(&c->io, fd, events);
    ev_io_start(c->owner->loop, &c->io);
}

/* ---- answers ---- */

static void write_some(struct client *c)
{
    ssize_t n = send(c->io.fd, c->answer.data + c->sent, c->answer.len - c->sent,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        c->sent += (size_t)n;
    if (n <= 0 || c->sent == c->answer.len)
        close_client(c);
}

/* Sends what stands in answer; the client is gone when this returns, or waits until it can take
 * more. */
static void begin_answer(struct client *c)
{
    text_addc(&c->answer, '\n');
    if (c->answer.failed) {
        close_client(c);
        return;
    }
    c->state = CLIENT_WRITING;
    set_timer(c);
    set_events(c, EV_WRITE);
    write_some(c);
}

static void answer_result(struct client *c, bool ok, const char *error)
{
    text_buf_reset(&c->answer);
    if (ok) {
        text_adds(&c->answer, "{\"ok\":true}");
    } else {
        text_adds(&c->answer, "{\"ok\":false,\"error\":");
        text_add_json(&c->answer, error, strlen(error));
        text_addc(&c->answer, '}');
    }
    begin_answer(c);
}

/* ---- requests ---- */

static void serve_reload(struct client *c)
{
    char why[1024] = "refused";
    struct control *control = c->owner;
    /* The reload may end before on_reload returns, and is then told to this client, too. */
    c->state = CLIENT_WAITING;
    ev_timer_stop(control->loop, &c->timer);
    int error = control->handlers.on_reload(control->data, why, sizeof(why));
    if (error && c->state == CLIENT_WAITING)
        answer_result(c, false, why);
}

/* One word of a request. Its length in out (cap includes the NUL); 0 when it is none. */
static size_t take_word(const char **rest, char *out, size_t cap)
{
    size_t len = strcspn(*rest, " ");
    int n = text_percent_decode((struct text_span){*rest, len}, false, out, cap);
    *rest += len;
    *rest += strspn(*rest, " ");
    return n > 0 ? (size_t)n : 0;
}

/* Questions that workers have to answer: which words follow. */
static const struct question {
    const char *word;
    enum inquiry_ask ask;
    bool has_user, has_id;
    const char *usage;
} questions[] = {
    {"explain ", INQUIRY_EXPLAIN, true, true, "expected: explain USER ID"},
    {"kick ", INQUIRY_KICK, true, false, "expected: kick USER"},
    {"revoke ", INQUIRY_REVOKE, false, true, "expected: revoke JTI"},
    {"show ", INQUIRY_SHOW, false, true, "expected: show ID"},
    {"connections ", INQUIRY_SHOW, true, false, "expected: connections USER"},
};

static void serve_question(struct client *c, const struct question *q, const char *words)
{
    char user[CONTROL_REQUEST_BYTES], id[CONTROL_REQUEST_BYTES];
    struct control *control = c->owner;
    size_t user_len = q->has_user ? take_word(&words, user, sizeof(user)) : 0;
    size_t id_len = q->has_id ? take_word(&words, id, sizeof(id)) : 0;
    int64_t within_ms = 0;
    int error = -EINVAL;
    if (!*words || text_parse_count(words, &within_ms) == 0)
        error = control->handlers.on_question(control->data, c->ticket, q->ask,
                                              (struct text_span){user, user_len},
                                              (struct text_span){id, id_len}, within_ms);
    if (!error) {
        c->state = CLIENT_ASKING;
        ev_timer_stop(control->loop, &c->timer); /* the question has its own */
    } else
        answer_result(c, false, error == -EINVAL ? q->usage
                                : error == -EBUSY ? "too many questions at a time"
                                                  : log_errno(error));
}

/* False: it is no question. */
static bool serve_if_question(struct client *c)
{
    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        size_t len = strlen(questions[i].word);
        if (strncmp(c->request, questions[i].word, len) != 0)
            continue;
        serve_question(c, &questions[i], c->request + len);
        return true;
    }
    return false;
}

static void serve(struct client *c)
{
    const struct control_handlers *h = &c->owner->handlers;
    void *data = c->owner->data;
    const char *request = c->request;
    log_debug("control-request", "request", request);
    if (!strcmp(request, "status")) {
        text_buf_reset(&c->answer);
        h->on_status(data, &c->answer);
        begin_answer(c);
    } else if (!strcmp(request, "reload")) {
        serve_reload(c);
    } else if (!strcmp(request, "stop")) {
        answer_result(c, true, NULL);
        h->on_stop(data);
    } else if (!strcmp(request, "drain")) {
        answer_result(c, true, NULL);
        h->on_drain(data);
    } else if (!serve_if_question(c)) {
        answer_result(c, false, "unknown request: expected status, explain, kick, revoke, show, "
                                "connections, reload, stop or drain");
    }
}

static void read_some(struct client *c)
{
    bool is_waiting = c->state == CLIENT_WAITING || c->state == CLIENT_ASKING;
    size_t room = sizeof(c->request) - 1 - c->request_len;
    ssize_t n = recv(c->io.fd, c->request + c->request_len, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 0 && is_waiting) {
        ev_io_stop(c->owner->loop, &c->io); /* it may have closed its writing half only */
        return;
    }
    if (n <= 0 || is_waiting) {
        close_client(c); /* gone, or talks while it should wait */
        return;
    }
    c->request_len += (size_t)n;
    c->request[c->request_len] = '\0';
    char *end = memchr(c->request, '\n', c->request_len);
    if (end) {
        *end = '\0';
        if (end > c->request && end[-1] == '\r')
            end[-1] = '\0';
        serve(c);
    } else if (c->request_len == sizeof(c->request) - 1) {
        char rest[4096]; /* closing with unread bytes would reset the connection, answer and all */
        (void)!recv(c->io.fd, rest, sizeof(rest), MSG_DONTWAIT);
        answer_result(c, false, "the request is too long");
    }
}

static void on_client(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct client *c = io->data;
    (void)loop;
    if (c->state == CLIENT_WRITING)
        write_some(c);
    else if (events & EV_READ)
        read_some(c);
}

static void on_timeout(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    close_client(timer->data);
}

/* ---- accepting ---- */

/* Who is waited for longest of those who have not asked, or not taken their answer. NULL: all wait
 * for us. */
static struct client *oldest_idle(struct control *control)
{
    struct client *oldest = NULL;
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *c = &control->clients[i];
        bool is_idle = c->state == CLIENT_READING || c->state == CLIENT_WRITING;
        if (is_idle && (!oldest || c->ticket < oldest->ticket))
            oldest = c;
    }
    return oldest;
}

/* When all places are taken the oldest idle one becomes free, but not before what it may have sent
 * was looked at: many who ask at once are no idle ones. */
static struct client *find_place(struct control *control)
{
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].state == CLIENT_FREE)
            return &control->clients[i];
    struct client *c;
    while ((c = oldest_idle(control))) {
        on_client(control->loop, &c->io, EV_READ);
        if (c->state == CLIENT_READING || c->state == CLIENT_WRITING)
            close_client(c);
        if (c->state == CLIENT_FREE)
            return c;
    }
    return NULL;
}

static void open_client(struct control *control, int fd)
{
    struct client *c = find_place(control);
    if (!c) {
        close(fd);
        return;
    }
    memset(c, 0, sizeof(*c));
    c->owner = control;
    c->ticket = ++control->opened * CONTROL_CLIENTS + (uint64_t)(c - control->clients);
    c->state = CLIENT_READING;
    ev_io_init(&c->io, on_client, fd, EV_READ);
    ev_timer_init(&c->timer, on_timeout, CONTROL_TIMEOUT_S, 0.0);
    c->io.data = c->timer.data = c;
    ev_io_start(control->loop, &c->io);
    ev_timer_start(control->loop, &c->timer);
}

static void on_accept(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct control *control = io->data;
    (void)events;
    for (int i = 0; i < CONTROL_CLIENTS; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            open_client(control, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            log_warning("control-accept-failed", "error", log_errno(errno));
            ev_io_stop(loop, io);
            ev_timer_stop(loop, &control->pause);
            ev_timer_set(&control->pause, PAUSE_S, 0.0);
            ev_timer_start(loop, &control->pause);
        }
        return;
    }
}

static void on_pause_end(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct control *control = timer->data;
    (void)events;
    ev_io_start(loop, &control->io);
}

/* ---- life ---- */

/* The directory of path, when it is missing; its own parent must be there. */
static void make_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return;
    char *parent = strndup(path, (size_t)(slash - path));
    if (parent && mkdir(parent, 0755) == 0)
        log_info("directory-made", "path", parent);
    free(parent);
}

int control_open(struct ev_loop *loop, const char *path, bool make_directory,
                 const struct control_handlers *handlers, void *data, struct control **out)
{
    struct unixsock_file file;
    if (make_directory)
        make_parent(path);
    int fd = unixsock_listen(path, 0600, (uid_t)-1, (gid_t)-1, BACKLOG, &file);
    if (fd < 0)
        return fd;
    int error = control_adopt(loop, path, fd, &file, handlers, data, out);
    if (!error) {
        control_begin(*out);
        return 0;
    }
    unixsock_remove(path, &file);
    close(fd);
    return error;
}

int control_adopt(struct ev_loop *loop, const char *path, int fd, const struct unixsock_file *file,
                  const struct control_handlers *handlers, void *data, struct control **out)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control || !(control->path = strdup(path))) {
        free(control);
        return -ENOMEM;
    }
    control->file = *file;
    control->loop = loop;
    control->handlers = *handlers;
    control->data = data;
    ev_io_init(&control->io, on_accept, fd, EV_READ);
    ev_timer_init(&control->pause, on_pause_end, 0.0, 0.0);
    control->io.data = control->pause.data = control;
    *out = control;
    return 0;
}

void control_begin(struct control *c)
{
    if (!c)
        return;
    c->is_ours = true;
    ev_io_start(c->loop, &c->io);
}

/* The clients stay. */
static void stop_listening(struct control *c)
{
    ev_timer_stop(c->loop, &c->pause);
    ev_io_stop(c->loop, &c->io);
    if (c->io.fd >= 0)
        close(c->io.fd);
    ev_io_set(&c->io, -1, EV_READ);
    if (c->is_ours)
        unixsock_remove(c->path, &c->file);
    c->is_ours = false;
}

void control_leave(struct control *c, bool is_taken)
{
    if (!c)
        return;
    c->is_ours = c->is_ours && !is_taken;
    stop_listening(c);
}

int control_socket(const struct control *c, const char **path, struct unixsock_file *file)
{
    *path = c->path;
    *file = c->file;
    return c->io.fd;
}

void control_reload_done(struct control *c, bool ok, const char *message)
{
    for (size_t i = 0; c && i < CONTROL_CLIENTS; i++)
        if (c->clients[i].state == CLIENT_WAITING)
            answer_result(&c->clients[i], ok, message);
}

void control_explained(struct control *c, uint64_t ticket, const struct text_buf *text)
{
    struct client *client = c ? &c->clients[ticket % CONTROL_CLIENTS] : NULL;
    if (!client || client->state != CLIENT_ASKING || client->ticket != ticket)
        return;
    text_buf_reset(&client->answer);
    text_add(&client->answer, text->data, text->len);
    client->answer.failed |= text->failed;
    begin_answer(client);
}

void control_free(struct control *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        close_client(&c->clients[i]);
    stop_listening(c);
    free(c->path);
    free(c);
}
