#include "config.h"

#include "src/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"

int notify_address(const char *name, struct sockaddr_un *out, socklen_t *len)
{
    size_t n = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || n < 2)
        return -EAFNOSUPPORT;
    /* A path needs its NUL; an abstract name has none, and every byte of the length counts. */
    if (n + (name[0] == '/') > sizeof(out->sun_path))
        return -ENAMETOOLONG;
    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    memcpy(out->sun_path, name, n);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (name[0] == '/'));
    if (name[0] == '@')
        out->sun_path[0] = '\0';
    return 0;
}

/* The documented global of notify.h. */
static int kept_fd = -1;

int notify_open(void)
{
    if (kept_fd < 0)
        kept_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return kept_fd < 0 ? -errno : kept_fd;
}

int notify_send(const char *lines)
{
    const char *name = getenv("NOTIFY_SOCKET");
    if (!name || !*name)
        return 0;
    struct sockaddr_un to;
    socklen_t len;
    int error = notify_address(name, &to, &len);
    if (error)
        return error;
    int fd = notify_open();
    if (fd < 0)
        return fd;
    ssize_t n = sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT,
                       (struct sockaddr *)&to, len);
    return n < 0 ? -errno : 1;
}

void notify_ready(const char *status)
{
    char lines[512];
    snprintf(lines, sizeof(lines), "READY=1\nMAINPID=%ld%s%s", (long)getpid(),
             status ? "\nSTATUS=" : "", status ? status : "");
    notify_send(lines);
}

void notify_reloading(void)
{
    char lines[128];
    snprintf(lines, sizeof(lines), "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)clock_mono_us());
    notify_send(lines);
}

void notify_stopping(const char *status)
{
    char lines[512];
    snprintf(lines, sizeof(lines), "STOPPING=1%s%s", status ? "\nSTATUS=" : "",
             status ? status : "");
    notify_send(lines);
}
