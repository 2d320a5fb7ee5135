#include "config.h"

#include "src/activation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/log.h"

/* A variable's number; -1 when there is none. */
static long number_of(const char *variable)
{
    const char *text = getenv(variable);
    char *end;
    if (!text || *text < '0' || *text > '9')
        return -1;
    long n = strtol(text, &end, 10);
    return *end ? -1 : n;
}

/* Name number index of a list with colons. */
static void name_at(const char *names, long index, char *out, size_t cap)
{
    while (index-- > 0 && *names) {
        names += strcspn(names, ":");
        names += *names == ':';
    }
    snprintf(out, cap, "%.*s", (int)strcspn(names, ":"), names);
}

/* One socket, whose descriptor goes into the set or is closed. */
static int take_one(struct listeners *l, int fd, long index, const char *name)
{
    struct listener_record record;
    int error = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : listeners_describe(fd, &record);
    if (error) {
        log_warning("socket-refused", "descriptor", LOG_INT(fd), "name", name, "reason",
                    error == -EINVAL ? "it is no listening stream socket" : log_errno(error));
        if (error != -EBADF)
            close(fd);
        return 0;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    record.entry = (uint32_t)index;
    error = listeners_add(l, fd, &record);
    if (error)
        close(fd);
    else
        log_info("socket-received", "address", record.real, "name", name);
    return error;
}

int activation_take(struct listeners **out)
{
    long count = number_of("LISTEN_FDS");
    bool is_ours = number_of("LISTEN_PID") == (long)getpid() && count > 0;
    char names[512], name[64];
    const char *all = getenv("LISTEN_FDNAMES");
    struct listeners *l = NULL;
    int error = 0;
    snprintf(names, sizeof(names), "%s", all ? all : "");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    *out = NULL;
    if (!is_ours)
        return 0;
    if (!(l = listeners_new()))
        return -ENOMEM;
    for (long i = 0; !error && i < count && i < ACTIVATION_MAX; i++) {
        name_at(names, i, name, sizeof(name));
        error = take_one(l, ACTIVATION_FIRST_FD + (int)i, i, name);
    }
    if (error)
        listeners_free(l);
    else
        *out = l;
    return error;
}

void activation_warn_unused(const struct listeners *l)
{
    struct listener_record record;
    for (size_t i = 0; l && listeners_record(l, i, &record) >= 0; i++)
        if (record.is_borrowed && !listeners_is_used(l, i))
            log_warning("socket-unused", "address", record.real, "reason",
                        "neither listen nor metrics-listen names it");
}
