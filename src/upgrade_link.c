#include "config.h"

#include "src/upgrade_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/log.h"
#include "shared/text.h"
#include "shared/trace.h"
#include "shared/usertable.h"

#define RECEIVE_BATCH 16

_Static_assert(sizeof(struct upgrade_start) == 144, "seen by two versions");
_Static_assert(sizeof(struct upgrade_control) == 128, "seen by two versions");
_Static_assert(sizeof(struct upgrade_ready) == 24, "seen by two versions");

/* A message that waits, with descriptors of its own. */
struct upgrade_parcel {
    struct upgrade_parcel *next;
    enum upgrade_type type;
    size_t fd_count;
    int fds[IPC_FDS_MAX];
    size_t len;
    unsigned char body[];
};

uint64_t upgrade_layout(void)
{
    const uint64_t parts[] = {counters_layout(), usertable_layout(), trace_layout()};
    return text_hash64(parts, sizeof(parts));
}

static void free_parcel(struct upgrade_parcel *p)
{
    while (p->fd_count)
        close(p->fds[--p->fd_count]);
    free(p);
}

static int keep(struct upgrade_link *l, enum upgrade_type type, const void *body, size_t len,
                const int *fds, size_t count)
{
    struct upgrade_parcel *p = calloc(1, sizeof(*p) + len);
    if (!p)
        return -ENOMEM;
    for (; p->fd_count < count; p->fd_count++) {
        int fd = fcntl(fds[p->fd_count], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            int error = -errno;
            free_parcel(p);
            return error;
        }
        p->fds[p->fd_count] = fd;
    }
    p->type = type;
    p->len = len;
    if (len)
        memcpy(p->body, body, len);
    *l->last = p;
    l->last = &p->next;
    ev_io_start(l->loop, &l->out);
    return 0;
}

int upgrade_link_send(struct upgrade_link *l, enum upgrade_type type, const void *body, size_t len,
                      const int *fds, size_t count)
{
    if (l->fd < 0)
        return -EPIPE;
    int error = l->first ? -EAGAIN : ipc_send_fds(l->fd, type, body, len, fds, count);
    return error == -EAGAIN ? keep(l, type, body, len, fds, count) : error;
}

static void on_writable(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct upgrade_link *l = io->data;
    (void)events;
    while (l->first) {
        struct upgrade_parcel *p = l->first;
        if (ipc_send_fds(l->fd, p->type, p->body, p->len, p->fds, p->fd_count) == -EAGAIN)
            return;
        l->first = p->next; /* the end of a link is heard by its reading side */
        free_parcel(p);
    }
    l->last = &l->first;
    ev_io_stop(loop, io);
}

static void on_readable(struct ev_loop *loop, struct ev_io *io, int events)
{
    struct upgrade_link *l = io->data;
    (void)loop;
    (void)events;
    for (int i = 0; i < RECEIVE_BATCH && l->fd >= 0; i++) {
        int got = ipc_recv(l->fd, &l->message);
        if (!got)
            return;
        if (got < 0) {
            if (got != -EPIPE)
                log_warning("upgrade-link-broken", "error", log_errno(got));
            upgrade_link_close(l);
            l->on_end(l->data);
            return;
        }
        l->on_message(l->data, &l->message);
        ipc_close_fds(&l->message);
    }
}

void upgrade_link_open(struct upgrade_link *l, struct ev_loop *loop, int fd)
{
    l->loop = loop;
    l->fd = fd;
    l->first = NULL;
    l->last = &l->first;
    ev_io_init(&l->in, on_readable, fd, EV_READ);
    ev_io_init(&l->out, on_writable, fd, EV_WRITE);
    l->in.data = l->out.data = l;
    ev_io_start(loop, &l->in);
}

void upgrade_link_close(struct upgrade_link *l)
{
    if (l->fd < 0)
        return;
    ev_io_stop(l->loop, &l->in);
    ev_io_stop(l->loop, &l->out);
    while (l->first) {
        struct upgrade_parcel *p = l->first;
        l->first = p->next;
        free_parcel(p);
    }
    l->last = &l->first;
    close(l->fd);
    l->fd = -1;
}

const char *upgrade_name(uint32_t type)
{
    static const char *const names[UPGRADE_TYPES] = {
        [UPGRADE_NONE] = "NONE",
#define UPGRADE(name, direction, help) [UPGRADE_##name] = #name,
#include "src/upgrade.def"
#undef UPGRADE
    };
    return type < UPGRADE_TYPES ? names[type] : "UNKNOWN";
}
