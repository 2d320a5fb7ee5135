/*
 * ipc.h - framed messages between the master and a worker: SOCK_SEQPACKET pair, types from
 * control.def, descriptors by SCM_RIGHTS. Two masters talk in the same form, with types of their
 * own (src/upgrade.def): what a type means is for the receiver to judge; 0 is none.
 *
 * Both ends are this program: a message that cannot be read is a bug or a dying peer, and ends the
 * link. unix(7).
 */
#ifndef BELFRY_SHARED_IPC_H
#define BELFRY_SHARED_IPC_H

#include <stddef.h>
#include <stdint.h>

enum control_type {
    CONTROL_NONE,
#define CONTROL(name, direction, help) CONTROL_##name,
#include "shared/control.def"
#undef CONTROL
    CONTROL_TYPES
};

#define IPC_BODY_MAX_BYTES 16384
#define IPC_FDS_MAX 64 /* in one message: a generation has no more workers (options.def) */

/*
 * With descriptors: the workers to hand connections over to, one end of an ipc_stream_pair for
 * each; the other end goes to that worker in a TAKE. What cannot be handed over is closed over
 * over_ms like everything without descriptors.
 */
struct control_drain {
    int64_t over_ms;  /* spread the closing over this time */
    uint8_t restart; /* 1: 1012; 0: 1001 */
    uint8_t drop;    /* 1: close TCP without a frame instead: restart-close as it is now */
    uint16_t reserved;
    uint32_t lame_ms; /* accept for so long: health says draining, new WebSockets are refused */
};

/* How to log from now on; with the descriptor of the log file, if it goes to one. */
struct control_log {
    uint32_t level;  /* enum log_level */
    uint32_t format; /* enum log_format */
};

struct ipc_message {
    uint32_t type; /* enum control_type, on links between master and worker */
    uint32_t body_len;
    unsigned char body[IPC_BODY_MAX_BYTES];
    uint32_t fd_count;
    int fds[IPC_FDS_MAX]; /* given to the receiver: ipc_take_fd, ipc_close_fds */
};

/* Non-blocking, close-on-exec pair. 0 or negative errno. */
int ipc_pair(int fds[2]);
/* The same as a stream, which carries more at once than packets do: handover_link.h. */
int ipc_stream_pair(int fds[2]);
/* 0; -EAGAIN when the peer's queue is full; other negative errno: the link is gone. fd is not
 * closed. */
int ipc_send(int socket, uint32_t type, const void *body, size_t body_len, int fd);
/* The same with up to IPC_FDS_MAX descriptors. */
int ipc_send_fds(int socket, uint32_t type, const void *body, size_t body_len,
                 const int *fds, size_t count);
/* 1: one message; 0: nothing now; -EPIPE: the peer closed; -EBADMSG and others: end the link. */
int ipc_recv(int socket, struct ipc_message *out);
/* Takes the first descriptor out of a message: the caller's to close from now on; -1: none is
 * left. */
int ipc_take_fd(struct ipc_message *m);
/* Closes those that nobody took. */
void ipc_close_fds(struct ipc_message *m);
const char *control_name(uint32_t type);

#endif
