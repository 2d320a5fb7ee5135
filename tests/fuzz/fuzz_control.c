/*
 * fuzz_control.c - requests on the control socket (src/control.c). The input is steps: a byte for
 * what and which of four clients; with what a client says, two bytes of length and the bytes.
 *
 * Holds: each client hears nothing, or one JSON object on one line and then the end; nobody hears
 * the answer to another one's question; the words of a question fit and are what was encoded; all
 * places are free when everybody has gone.
 */
#include "config.h"

#include "src/control.c"

#include <sys/un.h>

#include "shared/json.h"
#include "tests/fuzz/fuzz.h"

#define CLIENTS 4
#define STEPS_MAX 100

static struct control *control;
static char folder[40]; /* of the listening socket */
static struct sockaddr_un address;
static struct {
    int fd;             /* -1: not there */
    uint64_t ticket;    /* of the place it has in the server */
    bool is_asking;
    struct text_buf heard;
} people[CLIENTS];
static unsigned flags;
static uint64_t asked; /* the ticket of the last question */

/* ---- the master ---- */

static void on_status(void *data, struct text_buf *out)
{
    (void)data;
    text_adds(out, "{\"ok\":true");
    for (int i = 0; flags & 1 && i < 20000; i++) /* more than the socket takes */
        text_addf(out, ",\"%06d\":\"0123456789\"", i);
    text_addc(out, '}');
}

static int on_reload(void *data, char *why, size_t cap)
{
    (void)data;
    snprintf(why, cap, "line\n\"two\"");
    if (flags & 2)
        return -EBUSY;
    if (flags & 4)
        control_reload_done(control, flags & 8, "done at once");
    return 0;
}

static void on_order(void *data)
{
    (void)data;
}

static int on_question(void *data, uint64_t ticket, enum inquiry_ask ask, struct text_span user,
                       struct text_span id, int64_t within_ms)
{
    (void)data, (void)ask;
    FUZZ_CHECK(within_ms >= 0);
    FUZZ_CHECK(user.len < CONTROL_REQUEST_BYTES && id.len < CONTROL_REQUEST_BYTES);
    fuzz_touch(user);
    fuzz_touch(id);
    if (flags & 16)
        return flags & 8 ? -EBUSY : -ENOMEM;
    if (!user.len && !id.len)
        return -EINVAL;
    asked = ticket;
    for (int i = 0; i < CLIENTS; i++)
        if (people[i].ticket == ticket)
            people[i].is_asking = true;
    return 0;
}

/* ---- clients ---- */

static void turn(void)
{
    for (int i = 0; i < 3; i++)
        ev_run(control->loop, EVRUN_NOWAIT);
}

static void join(unsigned who)
{
    uint64_t opened = control->opened;
    if (people[who].fd >= 0 || people[who].heard.len)
        return;
    people[who].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    FUZZ_CHECK(people[who].fd >= 0);
    FUZZ_CHECK(connect(people[who].fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    turn();
    FUZZ_CHECK(control->opened == opened + 1);
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) {
        struct client *c = &control->clients[i];
        if (c->state == CLIENT_FREE || c->ticket / CONTROL_CLIENTS != control->opened)
            continue;
        people[who].ticket = c->ticket;
        setsockopt(c->io.fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    }
}

/* The time of who has it longest is over. */
static void pass(void)
{
    for (size_t i = 0; i < CONTROL_CLIENTS; i++)
        if (control->clients[i].state != CLIENT_FREE &&
            ev_is_active(&control->clients[i].timer)) {
            ev_invoke(control->loop, &control->clients[i].timer, EV_TIMER);
            return;
        }
}

static void hear(unsigned who)
{
    char bytes[16384];
    ssize_t n;
    while (people[who].fd >= 0 && (n = recv(people[who].fd, bytes, sizeof(bytes), 0)) > 0)
        text_add(&people[who].heard, bytes, (size_t)n);
}

static void leave(unsigned who)
{
    if (people[who].fd >= 0)
        close(people[who].fd);
    people[who].fd = -1;
}

static void check_heard(unsigned who)
{
    struct text_buf *heard = &people[who].heard;
    FUZZ_CHECK(!heard->failed);
    if (heard->len && heard->data[heard->len - 1] == '\n') { /* else it was cut by leaving */
        FUZZ_CHECK(memchr(heard->data, '\n', heard->len) == heard->data + heard->len - 1);
        FUZZ_CHECK(json_scan_object(heard->data, heard->len - 1, NULL, NULL) == JSON_OK);
    }
    if (memmem(heard->data ? heard->data : "", heard->len, "\"answer\"", 8))
        FUZZ_CHECK(people[who].is_asking);
    text_buf_free(heard);
}

/* ---- the input ---- */

static void take_step(struct fuzz_input *in)
{
    unsigned byte = fuzz_u8(in), who = byte / 8 % CLIENTS;
    struct text_buf text = {0};
    struct text_span bytes;
    switch (byte % 8) {
    case 0:
        join(who);
        break;
    case 1:
    case 2:
        bytes = fuzz_piece(in);
        if (people[who].fd >= 0 && bytes.len)
            (void)!send(people[who].fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        break;
    case 3:
        flags = fuzz_u8(in);
        if (flags & 32)
            pass();
        break;
    case 4:
        text_adds(&text, "{\"answer\":true}");
        control_explained(control, byte & 32 ? asked : people[who].ticket, &text);
        text_buf_free(&text);
        break;
    case 5:
        control_reload_done(control, byte & 8, "why\n\x01\xff\"");
        break;
    case 6:
        hear(who);
        break;
    default:
        if (byte & 32 && people[who].fd >= 0)
            shutdown(people[who].fd, SHUT_WR);
        else
            leave(who);
    }
    turn();
}

static void begin_process(void)
{
    FUZZ_CHECK(log_open("file:/dev/null", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT) == 0);
    snprintf(folder, sizeof(folder), "/tmp/belfry-fuzz-%d", (int)getpid());
    address.sun_family = AF_UNIX;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct control_handlers handlers = {on_status, on_reload, on_order, on_order,
                                                     on_question};
    struct fuzz_input in = {data, size};
    struct unixsock_file file;
    const char *path;
    if (!folder[0])
        begin_process();
    struct ev_loop *loop = ev_loop_new(EVFLAG_NOENV);
    FUZZ_CHECK(loop);
    FUZZ_CHECK(control_open(loop, address.sun_path, true, &handlers, NULL, &control) == 0);
    flags = 0;
    asked = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        people[i].fd = -1;
        people[i].is_asking = false;
    }
    for (int steps = 0; in.left && steps < STEPS_MAX; steps++)
        take_step(&in);
    for (unsigned i = 0; i < CLIENTS; i++) {
        hear(i);
        check_heard(i);
        leave(i);
    }
    turn();
    for (size_t i = 0; i < CONTROL_CLIENTS; i++) /* the others wait for an answer, or to be read */
        FUZZ_CHECK(control->clients[i].state != CLIENT_READING);
    FUZZ_CHECK(control_socket(control, &path, &file) >= 0 && !strcmp(path, address.sun_path));
    control_leave(control, false);
    control_free(control);
    ev_loop_destroy(loop);
    rmdir(folder); /* control_open made it; libFuzzer ends without atexit's functions */
    return 0;
}
