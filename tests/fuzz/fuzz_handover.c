/*
 * fuzz_handover.c - what a worker takes over from another one (workers/handover_state.c, the
 * X_restore functions, handover_taker.c, handover_link.c), in a worker of worker.h.
 *
 * The input is one byte of configuration, then steps: a byte, and for most of them a piece, two
 * bytes of length and the bytes. A device's state comes as raw bytes, or is put together of pieces,
 * so that what is in it is reached.
 *
 * Holds: a state that is read and written is read as the same; a connection that is given, taken
 * and given again is the same bytes; its client's stream stays well-formed; nothing is left in the
 * end.
 */
#include "config.h"

#include "tests/fuzz/worker.h"

#include <sys/socket.h>
#include <unistd.h>

#include "shared/ipc.h"
#include "workers/conn_internal.h"
#include "workers/handover_parts.h"

#define STEPS_MAX 40

enum step {
    RECORD,     /* to the taker: type, body */
    DEVICE,     /* a record with a descriptor: the body is a state of pieces */
    RAW_DEVICE, /* the body is as it is */
    RAW_LINK,   /* bytes on the link */
    MARKER,
    PUBLISH,
    SAY,        /* a client that was taken */
    PASS,
    REDIS,
    CONNECT,    /* a client of this worker: the request, then what it says */
    MOVE,       /* all without a user are given and taken again */
    STORE,
    STEPS
};

static struct handover_link *link_; /* the giver's end; NULL: none */
static unsigned next_place;

static bool on_record(void *data, uint32_t type, struct text_span body, int fd)
{
    (void)data;
    FUZZ_CHECK(type == HANDOVER_HELLO || type == HANDOVER_CONFIRMED);
    FUZZ_CHECK(fd < 0);
    fuzz_touch(body);
    return true;
}

static void on_end(void *data, const char *why)
{
    (void)data, (void)why;
    handover_link_free(link_);
    link_ = NULL;
}

static const struct handover_link_owner owner = {on_record, on_end};

static void begin_link(void)
{
    int fds[2];
    FUZZ_CHECK(ipc_stream_pair(fds) == 0);
    handover_take(fuzz_worker.handover, fds[0]);
    link_ = handover_link_new(fuzz_worker.loop, fds[1], &owner, NULL);
    FUZZ_CHECK(link_);
}

/* The server's end of a connection whose client is in the next place; -1: all are taken. */
static int new_connection(void)
{
    int fds[2];
    if (next_place == FUZZ_CLIENTS)
        return -1;
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    struct fuzz_client *c = &fuzz_clients[next_place++];
    c->fd = fds[0];
    c->is_taken = c->is_rough = true; /* what waits in its queue are any bytes */
    return fds[1];
}

static void say(uint32_t type, struct text_span body, int fd)
{
    if (!link_) {
        if (fd >= 0)
            close(fd);
        return;
    }
    if (handover_link_send(link_, type, body.ptr, body.len, fd) == 0)
        handover_link_flush(link_);
}

static void check_state(struct text_span bytes)
{
    struct handover_device d, again;
    struct text_buf out = {0};
    char *copy = fuzz_copy(bytes);
    struct resume *resume = NULL;
    if (handover_device_decode((struct text_span){copy, bytes.len}, &d) == 0) {
        handover_device_encode(&d, &out);
        FUZZ_CHECK(!out.failed && out.len == bytes.len);
        FUZZ_CHECK(handover_device_decode(fuzz_span(&out), &again) == 0);
        FUZZ_CHECK(fuzz_same(again.lag, d.lag) && fuzz_same(again.input, d.input));
        FUZZ_CHECK(again.serial == d.serial && again.rate_at_ms == d.rate_at_ms);
        if (handover_resume_restore(d.resume, &resume) == 0 && resume) {
            text_buf_reset(&out);
            handover_resume_save(resume, &out);
            FUZZ_CHECK(out.len == d.resume.len);
        }
    }
    free(resume);
    free(copy);
    text_buf_free(&out);
}

static void say_device(struct text_span state, bool has_user)
{
    int fd;
    check_state(state);
    if ((fd = new_connection()) >= 0)
        say(has_user ? HANDOVER_DEVICE : HANDOVER_ALONE, state, fd);
}

static void say_pieces(struct fuzz_input *in)
{
    struct handover_device d = {0};
    struct text_buf state = {0};
    unsigned flags = fuzz_u8(in);
    bool is_wild = flags & 1; /* numbers that nobody counts with */
    d.serial = 0x101 + next_place;
    d.sent_bytes = is_wild ? fuzz_number(in, 8) : 0;
    d.ping_taken_bytes = is_wild ? fuzz_number(in, 8) : 0;
    d.opened_ms = is_wild ? (int64_t)fuzz_number(in, 8) : FUZZ_START_MS;
    d.last_read_ms = is_wild ? (int64_t)fuzz_number(in, 8) : FUZZ_START_MS;
    d.ping_sent_ms = is_wild ? (int64_t)fuzz_number(in, 8) : 0;
    d.phase_until_ms = is_wild ? (int64_t)fuzz_number(in, 8) : 0;
    d.rate_at_ms = is_wild ? (int64_t)fuzz_number(in, 8) : FUZZ_START_MS;
    d.token_expires_ms = is_wild ? (int64_t)fuzz_number(in, 8) : 0;
    d.rate_spent = (uint32_t)fuzz_number(in, is_wild ? 4 : 1);
    d.conn_state = flags & 2 ? CONN_AUTH : CONN_OPEN;
    d.device_state = fuzz_u8(in);
    d.overflows = fuzz_u8(in);
    d.is_mid_frame = flags & 4;
    d.is_unix = flags & 8;
    d.is_admin = flags & 16;
    d.is_echo = flags & 32;
    d.deflate_bits = flags & 128 ? fuzz_u8(in) : 0;
    d.input = fuzz_piece(in);
    d.queue = fuzz_piece(in);
    d.filter = fuzz_piece(in);
    d.resume = fuzz_piece(in);
    d.left_out = fuzz_piece(in);
    d.held = fuzz_piece(in);
    d.lag = fuzz_piece(in);
    d.refreshes = fuzz_piece(in);
    handover_device_encode(&d, &state);
    FUZZ_CHECK(!state.failed);
    say_device(fuzz_span(&state), flags & 64);
    text_buf_free(&state);
}

/* A client that connects here and asks for /echo or for a WebSocket without a token: it has no user
 * yet, so all of its state is its own. */
static void connect_here(unsigned how, struct text_span said)
{
    static const char upgrade[] = "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    if (next_place == FUZZ_CLIENTS)
        return;
    unsigned place = next_place++;
    fuzz_client_connect(place, false);
    fuzz_client_send(place, text_span_of(how & 1 ? "GET /echo HTTP/1.1\r\n"
                                                 : "GET /ws?last_id=a&types=B HTTP/1.1\r\n"));
    fuzz_client_send(place, text_span_of(upgrade));
    fuzz_worker_turn();
    fuzz_client_send(place, said);
}

static void move(void *data, struct conn *c)
{
    struct text_buf first = {0}, second = {0};
    (void)data;
    if (c->device.user || (!c->is_echo && c->state != CONN_AUTH))
        return;
    int fd = conn_give(c, false, &first);
    if (fd < 0) {
        text_buf_free(&first);
        return;
    }
    check_state(fuzz_span(&first));
    struct worker *w = &fuzz_worker;
    if (conn_take(w, fd, -1, fuzz_span(&first), NULL)) {
        c = w->conns->all; /* the newest */
        fd = conn_give(c, false, &second);
        FUZZ_CHECK(fd >= 0 ? fuzz_same(fuzz_span(&first), fuzz_span(&second)) : second.len == 0);
        if (fd >= 0)
            conn_take(w, fd, -1, fuzz_span(&second), NULL);
    }
    text_buf_free(&first);
    text_buf_free(&second);
}

static void take_step(struct fuzz_input *in)
{
    unsigned byte = fuzz_u8(in), who = byte / STEPS;
    switch ((enum step)(byte % STEPS)) {
    case RECORD:
        say(who % (HANDOVER_SHARED + 2), fuzz_piece(in), -1);
        break;
    case DEVICE:
        say_pieces(in);
        break;
    case RAW_DEVICE:
        say_device(fuzz_piece(in), who & 1);
        break;
    case RAW_LINK: {
        struct text_span bytes = fuzz_piece(in);
        int fds[2];
        FUZZ_CHECK(ipc_stream_pair(fds) == 0);
        handover_take(fuzz_worker.handover, fds[0]);
        (void)!send(fds[1], bytes.ptr, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        fuzz_worker_turn();
        close(fds[1]);
        break;
    }
    case MARKER:
        fuzz_redis_publish(HANDOVER_CHANNEL "fuzz", fuzz_piece(in));
        break;
    case PUBLISH:
        fuzz_redis_publish(NULL, fuzz_piece(in));
        break;
    case SAY:
        fuzz_client_frame(who, 0x81, fuzz_piece(in));
        break;
    case PASS:
        fuzz_worker_pass((int64_t)fuzz_u8(in) * 250);
        break;
    case REDIS:
        fuzz_redis_set_up(who & 1);
        break;
    case CONNECT:
        connect_here(who, fuzz_piece(in));
        break;
    case MOVE:
        conns_each(fuzz_worker.conns, move, NULL);
        break;
    case STORE:
        fuzz_redis_store(fuzz_piece(in));
        break;
    case STEPS:
        break;
    }
    fuzz_worker_turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    fuzz_worker_begin(fuzz_u8(&in) | 1); /* with /echo */
    next_place = 0;
    begin_link();
    for (int steps = 0; in.left && steps < STEPS_MAX; steps++)
        take_step(&in);
    handover_link_free(link_);
    link_ = NULL;
    fuzz_worker_turn();
    fuzz_worker_end();
    return 0;
}
