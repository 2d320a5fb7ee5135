/*
 * notify.h - tells the service manager where we are: sd_notify(3)'s datagrams, without libsystemd.
 *
 * Master only; never blocks. Without NOTIFY_SOCKET in the environment everything here does nothing.
 * The socket is a path, or an abstract name when it begins with '@'. The words are those of
 * sd_notify(3).
 */
#ifndef BELFRY_SRC_NOTIFY_H
#define BELFRY_SRC_NOTIFY_H

#include <sys/socket.h>
#include <sys/un.h>

/* The address NOTIFY_SOCKET names. 0, -EAFNOSUPPORT (neither path nor '@') or -ENAMETOOLONG. */
int notify_address(const char *name, struct sockaddr_un *out, socklen_t *len);

/* Opens the socket that is sent from, if it is not there yet: done at start, so that readiness can
 * be told when no descriptor is left. It stays open (a documented global). The descriptor, or
 * negative errno. */
int notify_open(void);

/* Sends lines of VARIABLE=VALUE. 1 when sent, 0 without NOTIFY_SOCKET, or negative errno: nobody
 * waits for more. */
int notify_send(const char *lines);

/* READY=1 with MAINPID and a STATUS line (NULL: none). Ends a reload, too. */
void notify_ready(const char *status);
/* RELOADING=1 with the time that Type=notify-reload wants. */
void notify_reloading(void);
void notify_stopping(const char *status);

#endif
