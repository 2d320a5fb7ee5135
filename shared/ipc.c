#include "config.h"

#include "shared/ipc.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEAD_BYTES offsetof(struct ipc_message, body)

/* type and body_len are sent as they lie in memory, so both ends must see one layout. */
_Static_assert(offsetof(struct ipc_message, body_len) == 4, "head is type, body_len");
_Static_assert(offsetof(struct ipc_message, body) == 8, "body follows the head");
_Static_assert(sizeof(struct control_drain) == 16, "control_drain has no padding");

static int make_pair(int type, int fds[2])
{
    if (socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    return 0;
}

int ipc_pair(int fds[2])
{
    return make_pair(SOCK_SEQPACKET, fds);
}

int ipc_stream_pair(int fds[2])
{
    return make_pair(SOCK_STREAM, fds);
}

/* Room for the descriptors of one message, aligned as a control message; a few more than a peer may
 * send, for more is a bug but must not leak. */
union control_room {
    struct cmsghdr align;
    char bytes[CMSG_SPACE((IPC_FDS_MAX + 3) * sizeof(int))];
};

static void attach_fds(struct msghdr *m, union control_room *control, const int *fds, size_t count)
{
    memset(control, 0, sizeof(*control));
    m->msg_control = control->bytes;
    m->msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
}

int ipc_send(int socket, uint32_t type, const void *body, size_t body_len, int fd)
{
    return ipc_send_fds(socket, type, body, body_len, &fd, fd >= 0);
}

int ipc_send_fds(int socket, uint32_t type, const void *body, size_t body_len,
                 const int *fds, size_t count)
{
    if (body_len > IPC_BODY_MAX_BYTES || count > IPC_FDS_MAX)
        return -EMSGSIZE;
    uint32_t head[2] = {type, (uint32_t)body_len};
    struct iovec parts[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)body, body_len}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = body_len ? 2 : 1};
    union control_room control;
    if (count)
        attach_fds(&m, &control, fds, count);
    ssize_t n;
    do
        n = sendmsg(socket, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 0; /* a packet goes as a whole */
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
    case ETOOMANYREFS: /* too many descriptors under way; the receiver takes them out */
        return -EAGAIN;
    case ECONNRESET:
        return -EPIPE;
    default:
        return -errno;
    }
}

/* Takes every descriptor out of the control messages; what is too many is closed. True when there
 * was nothing wrong. */
static bool take_fds(struct msghdr *m, struct ipc_message *out)
{
    bool good = true;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            good = false;
            continue;
        }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int one;
            memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (out->fd_count < IPC_FDS_MAX) {
                out->fds[out->fd_count++] = one;
            } else {
                close(one);
                good = false;
            }
        }
    }
    return good;
}

int ipc_recv(int socket, struct ipc_message *out)
{
    union control_room control;
    struct iovec part = {out, HEAD_BYTES + IPC_BODY_MAX_BYTES};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n;
    do
        n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    /* A peer that ended without reading all of ours: that is told once, and then what it had sent
     * before can be read. */
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    out->fd_count = 0;
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    bool good = take_fds(&m, out);
    if (n == 0 && !out->fd_count)
        return -EPIPE;
    if (good && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && (size_t)n >= HEAD_BYTES &&
        out->body_len == (size_t)n - HEAD_BYTES && out->type)
        return 1;
    ipc_close_fds(out);
    return -EBADMSG;
}

int ipc_take_fd(struct ipc_message *m)
{
    if (!m->fd_count)
        return -1;
    int fd = m->fds[0];
    memmove(m->fds, m->fds + 1, --m->fd_count * sizeof(m->fds[0]));
    return fd;
}

void ipc_close_fds(struct ipc_message *m)
{
    while (m->fd_count)
        close(m->fds[--m->fd_count]);
}

const char *control_name(uint32_t type)
{
    static const char *const names[CONTROL_TYPES] = {
        [CONTROL_NONE] = "NONE",
#define CONTROL(name, direction, help) [CONTROL_##name] = #name,
#include "shared/control.def"
#undef CONTROL
    };
    return type < CONTROL_TYPES ? names[type] : "UNKNOWN";
}
