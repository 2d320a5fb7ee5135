#include "config.h"

#include "workers/handover_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/pack.h"

#define HEAD_BYTES 9          /* type, whether a descriptor goes along, length */
#define READ_BYTES 65536
#define READS_A_TURN 16
#define WRITE_BYTES 65536     /* with the descriptors of the records that begin within */
#define FDS_AT_ONCE 128       /* of the 253 the kernel takes */
#define RETRY_S 0.005

struct waiting_fd {
    int fd;
    size_t at; /* of its record, in out */
};

struct handover_link {
    struct ev_loop *loop;
    const struct handover_link_owner *owner;
    void *data;
    struct ev_io io;
    struct ev_timer retry;   /* the kernel has too many descriptors under way; or the link ended */
    const char *end;         /* why it ended; NULL: it lives */
    struct text_buf out;
    size_t out_done;
    struct waiting_fd *out_fds;
    size_t out_fd_count, out_fd_cap;
    struct text_buf in;
    int *in_fds;             /* came, and their record has not yet */
    size_t in_fd_count, in_fd_cap;
    bool is_freed;           /* within on_record */
    bool in_records;
};

/* ---- ending ---- */

static void end(struct handover_link *l, const char *why)
{
    if (l->end)
        return;
    l->end = why;
    ev_io_stop(l->loop, &l->io);
    ev_timer_stop(l->loop, &l->retry);
    ev_timer_set(&l->retry, 0., 0.);
    ev_timer_start(l->loop, &l->retry);
}

static void destroy(struct handover_link *l)
{
    for (size_t i = 0; i < l->out_fd_count; i++)
        close(l->out_fds[i].fd);
    for (size_t i = 0; i < l->in_fd_count; i++)
        close(l->in_fds[i]);
    free(l->out_fds);
    free(l->in_fds);
    text_buf_free(&l->out);
    text_buf_free(&l->in);
    free(l);
}

void handover_link_free(struct handover_link *l)
{
    if (!l)
        return;
    ev_io_stop(l->loop, &l->io);
    ev_timer_stop(l->loop, &l->retry);
    close(l->io.fd);
    if (l->in_records)
        l->is_freed = true;
    else
        destroy(l);
}

/* ---- writing ---- */

static void watch(struct handover_link *l, int events)
{
    if (l->end || l->io.events == events)
        return;
    ev_io_stop(l->loop, &l->io);
    ev_io_set(&l->io, l->io.fd, events);
    ev_io_start(l->loop, &l->io);
}

/* How many bytes go in one call, and how many descriptors with them: those of records that begin
 * within. */
static size_t portion(const struct handover_link *l, size_t *fd_count)
{
    size_t len = l->out.len - l->out_done, n = 0;
    if (len > WRITE_BYTES)
        len = WRITE_BYTES;
    while (n < l->out_fd_count && l->out_fds[n].at < l->out_done + len) {
        if (n == FDS_AT_ONCE) {
            len = l->out_fds[n].at - l->out_done;
            break;
        }
        n++;
    }
    *fd_count = n;
    return len;
}

static ssize_t send_portion(struct handover_link *l, size_t len, size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_AT_ONCE * sizeof(int))];
    } control;
    struct iovec part = {l->out.data + l->out_done, len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        int fds[FDS_AT_ONCE];
        for (size_t i = 0; i < fd_count; i++)
            fds[i] = l->out_fds[i].fd;
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(l->io.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* All descriptors of a portion go with its first byte, however much of it was taken. */
static void consume(struct handover_link *l, size_t len, size_t fd_count)
{
    for (size_t i = 0; i < fd_count; i++)
        close(l->out_fds[i].fd);
    l->out_fd_count -= fd_count;
    if (l->out_fd_count)
        memmove(l->out_fds, l->out_fds + fd_count, l->out_fd_count * sizeof *l->out_fds);
    l->out_done += len;
    if (l->out_done == l->out.len) {
        l->out_done = 0;
        text_buf_reset(&l->out);
    }
}

static void try_later(struct handover_link *l)
{
    if (ev_is_active(&l->retry))
        return;
    ev_timer_set(&l->retry, RETRY_S, 0.);
    ev_timer_start(l->loop, &l->retry);
}

void handover_link_flush(struct handover_link *l)
{
    while (!l->end && l->out_done < l->out.len) {
        size_t fd_count, len = portion(l, &fd_count);
        ssize_t n = send_portion(l, len, fd_count);
        if (n == -EAGAIN) {
            watch(l, EV_READ | EV_WRITE);
            return;
        }
        if (n == -ETOOMANYREFS || n == -ENOBUFS || n == -ENOMEM) {
            try_later(l);
            return;
        }
        if (n < 0) {
            end(l, "the other worker is gone");
            return;
        }
        consume(l, (size_t)n, fd_count);
    }
    watch(l, EV_READ);
}

static int keep_fd(struct handover_link *l, int fd)
{
    if (l->out_fd_count == l->out_fd_cap) {
        size_t cap = l->out_fd_cap ? l->out_fd_cap * 2 : 64;
        struct waiting_fd *fds = realloc(l->out_fds, cap * sizeof *fds);
        if (!fds)
            return -ENOMEM;
        l->out_fds = fds;
        l->out_fd_cap = cap;
    }
    l->out_fds[l->out_fd_count++] = (struct waiting_fd){fd, l->out.len};
    return 0;
}

int handover_link_send(struct handover_link *l, uint32_t type, const void *body, size_t len,
                       int fd)
{
    int error = len > HANDOVER_RECORD_MAX_BYTES ? -EMSGSIZE : 0;
    if (!error && fd >= 0)
        error = keep_fd(l, fd);
    if (error) {
        if (fd >= 0)
            close(fd);
        return error;
    }
    pack_u32(&l->out, type);
    pack_u8(&l->out, fd >= 0);
    pack_bytes(&l->out, body, len);
    if (!l->out.failed)
        return 0;
    end(l, "no memory");
    return -ENOMEM;
}

bool handover_link_is_full(const struct handover_link *l)
{
    return l->out.len - l->out_done > HANDOVER_LINK_FULL_BYTES;
}

bool handover_link_is_flushed(const struct handover_link *l)
{
    return l->end || l->out.len == l->out_done;
}

/* ---- reading ---- */

static int take_fds(struct handover_link *l, struct msghdr *m)
{
    int error = m->msg_flags & MSG_CTRUNC ? -EBADMSG : 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (l->in_fd_count + count > l->in_fd_cap) {
            size_t cap = l->in_fd_cap * 2 + count;
            int *fds = realloc(l->in_fds, cap * sizeof *fds);
            if (fds) {
                l->in_fds = fds;
                l->in_fd_cap = cap;
            }
        }
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (l->in_fd_count < l->in_fd_cap) {
                l->in_fds[l->in_fd_count++] = fd;
            } else {
                close(fd);
                error = -ENOMEM;
            }
        }
    }
    return error;
}

/* 1: something came; 0: nothing now; negative errno. */
static int read_some(struct handover_link *l)
{
    static char bytes[READ_BYTES]; /* one thread, and never within itself */
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(256 * sizeof(int))];
    } control;
    struct iovec part = {bytes, sizeof bytes};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(l->io.fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : errno == ECONNRESET ? -EPIPE : -errno;
    int error = take_fds(l, &m);
    if (error)
        return error;
    if (n == 0)
        return -EPIPE;
    text_add(&l->in, bytes, (size_t)n);
    return l->in.failed ? -ENOMEM : 1;
}

/* Hands out the records that are whole. False: the link is freed. */
static bool hand_out(struct handover_link *l)
{
    size_t at = 0;
    l->in_records = true;
    while (!l->end && !l->is_freed && l->in.len - at >= HEAD_BYTES) {
        struct unpack in = unpack_of((struct text_span){l->in.data + at, l->in.len - at});
        uint32_t type = unpack_u32(&in);
        bool has_fd = unpack_u8(&in);
        uint32_t len = unpack_u32(&in);
        if (len > HANDOVER_RECORD_MAX_BYTES) {
            end(l, "a record is too long");
            break;
        }
        if (unpack_left(&in) < len)
            break;
        if (has_fd && !l->in_fd_count) {
            end(l, "a descriptor is missing");
            break;
        }
        int fd = has_fd ? l->in_fds[0] : -1;
        if (has_fd)
            memmove(l->in_fds, l->in_fds + 1, --l->in_fd_count * sizeof *l->in_fds);
        struct text_span body = {l->in.data + at + HEAD_BYTES, len};
        at += HEAD_BYTES + len;
        if (!l->owner->on_record(l->data, type, body, fd))
            break;
    }
    l->in_records = false;
    if (l->is_freed) {
        destroy(l);
        return false;
    }
    if (at) {
        memmove(l->in.data, l->in.data + at, l->in.len - at);
        l->in.len -= at;
    }
    return true;
}

static void on_io(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct handover_link *l = io->data;
    (void)loop;
    if (events & EV_WRITE)
        handover_link_flush(l);
    for (int i = 0; !l->end && i < READS_A_TURN; i++) {
        int got = read_some(l);
        if (got == 0)
            return;
        if (got < 0)
            end(l, got == -EPIPE ? "the other worker is done" : "cannot be read");
        else if (!hand_out(l))
            return;
    }
}

static void on_retry(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct handover_link *l = timer->data;
    (void)loop;
    (void)events;
    if (l->end)
        l->owner->on_end(l->data, l->end);
    else
        handover_link_flush(l);
}

struct handover_link *handover_link_new(struct ev_loop *loop, int fd,
                                        const struct handover_link_owner *owner, void *data)
{
    struct handover_link *l = calloc(1, sizeof *l);
    if (!l) {
        close(fd);
        return NULL;
    }
    l->loop = loop;
    l->owner = owner;
    l->data = data;
    ev_io_init(&l->io, on_io, fd, EV_READ);
    ev_timer_init(&l->retry, on_retry, 0., 0.);
    l->io.data = l->retry.data = l;
    ev_io_start(loop, &l->io);
    return l;
}
