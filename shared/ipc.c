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

int ipc_pair(int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    return 0;
}

/* Room for one descriptor, aligned as a control message. */
union control_one {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static void attach_fd(struct msghdr *m, union control_one *control, int fd)
{
    memset(control, 0, sizeof(*control));
    m->msg_control = control->bytes;
    m->msg_controllen = sizeof(control->bytes);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(int));
}

int ipc_send(int socket, enum control_type type, const void *body, size_t body_len, int fd)
{
    if (body_len > IPC_BODY_MAX_BYTES)
        return -EMSGSIZE;
    uint32_t head[2] = {(uint32_t)type, (uint32_t)body_len};
    struct iovec parts[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)body, body_len}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = body_len ? 2 : 1};
    union control_one control;
    if (fd >= 0)
        attach_fd(&m, &control, fd);
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

/* Takes every descriptor out of the control messages: the first into *fd, all others closed. True
 * when there was at most one and nothing but descriptors. */
static bool take_fds(struct msghdr *m, int *fd)
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
            if (*fd < 0)
                *fd = one;
            else {
                close(one);
                good = false;
            }
        }
    }
    return good;
}

int ipc_recv(int socket, struct ipc_message *out)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))]; /* more than one is a bug, but must not leak */
    } control;
    struct iovec part = {out, HEAD_BYTES + IPC_BODY_MAX_BYTES};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n;
    do
        n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    out->fd = -1;
    if (n < 0) {
        if (errno == EAGAIN)
            return 0;
        return errno == ECONNRESET ? -EPIPE : -errno;
    }
    bool good = take_fds(&m, &out->fd);
    if (n == 0 && out->fd < 0)
        return -EPIPE;
    if (good && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && (size_t)n >= HEAD_BYTES &&
        out->body_len == (size_t)n - HEAD_BYTES && out->type > CONTROL_NONE &&
        out->type < CONTROL_TYPES)
        return 1;
    if (out->fd >= 0)
        close(out->fd);
    out->fd = -1;
    return -EBADMSG;
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
