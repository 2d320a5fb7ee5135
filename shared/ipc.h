/*
 * ipc.h - framed messages between the master and a worker: SOCK_SEQPACKET pair, types from
 * control.def, descriptors by SCM_RIGHTS.
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

struct control_drain {
    int64_t over_ms;  /* spread the closing over this time */
    uint32_t restart; /* 1: 1012 or drop as restart-close says; 0: 1001 */
    uint32_t reserved;
};

struct ipc_message {
    uint32_t type; /* enum control_type */
    uint32_t body_len;
    unsigned char body[IPC_BODY_MAX_BYTES];
    int fd; /* -1: none; given to the receiver */
};

/* Non-blocking, close-on-exec pair. 0 or negative errno. */
int ipc_pair(int fds[2]);
/* 0; -EAGAIN when the peer's queue is full; other negative errno: the link is gone. fd is not
 * closed. */
int ipc_send(int socket, enum control_type type, const void *body, size_t body_len, int fd);
/* 1: one message; 0: nothing now; -EPIPE: the peer closed; -EBADMSG and others: end the link. */
int ipc_recv(int socket, struct ipc_message *out);
const char *control_name(uint32_t type);

#endif
