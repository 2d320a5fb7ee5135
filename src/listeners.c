#include "config.h"

#include "src/listeners.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/address.h"
#include "shared/log.h"
#include "src/unixsock.h"

#define BACKLOG 65535 /* the kernel takes the smaller of this and net.core.somaxconn */

/* One listening socket; shared by the sets that name it. */
struct listener_socket {
    int refs;
    int fd;
    char path[ADDRESS_PATH_BYTES]; /* "": TCP */
    struct unixsock_file file;
};

/* One address of the configuration. */
struct entry {
    char asked[ADDRESS_TEXT_BYTES];
    char real[ADDRESS_TEXT_BYTES];
    struct address address; /* real: with its port */
    bool is_metrics;
    struct listener_socket **sockets;
    size_t count;
};

struct listeners {
    struct entry *entries;
    size_t count;
};

static void socket_unref(struct listener_socket *s)
{
    if (!s || --s->refs)
        return;
    /* Workers that still drain hold copies of the descriptor: closing ours alone would leave a
     * queue that nobody empties. */
    shutdown(s->fd, SHUT_RDWR);
    close(s->fd);
    if (*s->path)
        unixsock_remove(s->path, &s->file);
    free(s);
}

void listeners_free(struct listeners *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->count; i++) {
        for (size_t j = 0; j < l->entries[i].count; j++)
            socket_unref(l->entries[i].sockets[j]);
        free(l->entries[i].sockets);
    }
    free(l->entries);
    free(l);
}

void listeners_shut_clients(struct listeners *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entries[i];
        for (size_t j = 0; j < e->count && !e->is_metrics; j++) {
            shutdown(e->sockets[j]->fd, SHUT_RDWR);
            if (*e->sockets[j]->path)
                unixsock_remove(e->sockets[j]->path, &e->sockets[j]->file);
        }
    }
}

/* ---- one socket ---- */

static int set_on(int fd, int level, int name)
{
    int on = 1;
    return setsockopt(fd, level, name, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* A TCP socket bound to the address; listening, too, when wanted. */
static int bind_tcp(const struct address *a, bool is_shared_port, bool is_listening)
{
    int fd = socket(a->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int error = set_on(fd, SOL_SOCKET, SO_REUSEADDR);
    if (!error && is_shared_port)
        error = set_on(fd, SOL_SOCKET, SO_REUSEPORT);
    int only_v6 = !a->is_dual;
    if (!error && a->storage.ss_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, sizeof(only_v6)) < 0)
        error = -errno;
    if (!error && bind(fd, (const struct sockaddr *)&a->storage, a->len) < 0)
        error = -errno;
    if (!error && is_listening && listen(fd, BACKLOG) < 0)
        error = -errno;
    if (error)
        close(fd);
    return error ? error : fd;
}

/*
 * SO_REUSEPORT lets a second instance of the same user share the port in silence, and each would
 * serve half of the clients. So the address is first bound without it, which fails when anybody
 * listens there.
 */
static int probe_tcp(const struct address *a)
{
    int fd = bind_tcp(a, false, false);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? fd : 0;
}

static int open_unix(const struct address *a, const struct privileges *owner,
                     struct unixsock_file *file)
{
    uid_t uid = owner && owner->is_switch ? owner->uid : (uid_t)-1;
    gid_t gid = owner && owner->is_switch ? owner->gid : (gid_t)-1;
    return unixsock_listen(a->path, 0660, uid, gid, BACKLOG, file);
}

/* ---- one address ---- */

static int add_socket(struct entry *e, struct listener_socket *s)
{
    struct listener_socket **more =
        realloc(e->sockets, (e->count + 1) * sizeof(struct listener_socket *));
    if (!more)
        return -ENOMEM;
    e->sockets = more;
    e->sockets[e->count++] = s;
    return 0;
}

static int open_socket(struct entry *e, const struct privileges *owner)
{
    struct listener_socket *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->refs = 1;
    s->fd = e->address.is_unix ? open_unix(&e->address, owner, &s->file)
                               : bind_tcp(&e->address, !e->is_metrics, true);
    if (s->fd < 0) {
        int error = s->fd;
        free(s);
        return error;
    }
    if (e->address.is_unix)
        memcpy(s->path, e->address.path, sizeof(s->path));
    int error = add_socket(e, s);
    if (error)
        socket_unref(s);
    return error;
}

/* Puts the port the kernel gave into the address. */
static int read_port(struct entry *e)
{
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    struct address real;
    if (getsockname(e->sockets[0]->fd, (struct sockaddr *)&bound, &len) < 0)
        return -errno;
    int error = address_from_sockaddr((struct sockaddr *)&bound, len, &real);
    if (error)
        return error;
    real.is_dual = e->address.is_dual && bound.ss_family == AF_INET6;
    e->address = real;
    return 0;
}

/* The same address in the set before, not taken by an earlier entry of this one (two entries may
 * ask for port 0). */
static const struct entry *find_previous(const struct listeners *previous, const struct entry *e,
                                         bool *taken)
{
    for (size_t i = 0; previous && i < previous->count; i++) {
        const struct entry *p = &previous->entries[i];
        if (taken[i] || p->is_metrics != e->is_metrics ||
            (strcmp(p->asked, e->asked) && strcmp(p->real, e->asked)))
            continue;
        taken[i] = true;
        return p;
    }
    return NULL;
}

static bool has_port(const struct listeners *previous, uint16_t port)
{
    for (size_t i = 0; previous && i < previous->count; i++)
        if (!previous->entries[i].address.is_unix && previous->entries[i].address.port == port)
            return true;
    return false;
}

static int share_previous(struct entry *e, const struct entry *p)
{
    e->address = p->address;
    for (size_t i = 0; i < p->count; i++) {
        int error = add_socket(e, p->sockets[i]);
        if (error)
            return error;
        p->sockets[i]->refs++;
    }
    return 0;
}

static int open_entry(struct entry *e, uint32_t workers, const struct privileges *owner,
                      const struct listeners *previous, bool *taken)
{
    const struct entry *p = find_previous(previous, e, taken);
    int error = 0;
    if (p)
        error = share_previous(e, p);
    else if (!e->address.is_unix && e->address.port && !has_port(previous, e->address.port))
        error = probe_tcp(&e->address);
    if (error == -EAFNOSUPPORT && e->address.is_dual) {
        address_any_v4(e->address.port, &e->address);
        error = e->address.port ? probe_tcp(&e->address) : 0;
    }
    size_t wanted = e->is_metrics || e->address.is_unix ? 1 : workers;
    while (!error && e->count < wanted) {
        error = open_socket(e, owner);
        if (!error && e->count == 1 && !e->address.is_unix)
            error = read_port(e);
    }
    address_format(&e->address, e->real);
    return error;
}

/* ---- a set ---- */

static int add_entry(struct listeners *l, const char *text, bool is_metrics, char *why, size_t cap)
{
    const char *reason = "no memory";
    struct entry *more = realloc(l->entries, (l->count + 1) * sizeof(*more));
    struct entry *e = more ? &more[l->count] : NULL;
    int error = e ? 0 : -ENOMEM;
    if (e) {
        l->entries = more;
        memset(e, 0, sizeof(*e));
        error = address_parse(text, &e->address, &reason);
    }
    if (error) {
        snprintf(why, cap, "%s: %s: %s", is_metrics ? "metrics-listen" : "listen", text, reason);
        return error;
    }
    e->is_metrics = is_metrics;
    address_format(&e->address, e->asked);
    l->count++;
    return 0;
}

static const char *open_error_text(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "another process listens on this address";
    case -EEXIST:
        return "there is a file of this name that is no socket";
    case -EADDRNOTAVAIL:
        return "this machine does not have this address";
    case -EACCES:
        return "not permitted (ports below 1024 want root; a unix socket wants a directory that "
               "can be written)";
    default:
        return log_errno(error);
    }
}

static int add_entries(struct listeners *l, const struct options *opt, char *why, size_t cap)
{
    int error = 0;
    for (size_t i = 0; !error && i < opt->listen.count; i++)
        error = add_entry(l, opt->listen.items[i], false, why, cap);
    if (!error && *opt->metrics_listen)
        error = add_entry(l, opt->metrics_listen, true, why, cap);
    return error;
}

int listeners_open(const struct options *opt, uint32_t workers, const struct privileges *owner,
                   const struct listeners *previous, struct listeners **out, char *why, size_t cap)
{
    struct listeners *l = calloc(1, sizeof(*l));
    bool *taken = calloc(previous ? previous->count + 1 : 1, sizeof(*taken));
    int error = -ENOMEM;
    snprintf(why, cap, "listen: no memory");
    if (!l || !taken)
        goto out;
    error = add_entries(l, opt, why, cap);
    for (size_t i = 0; !error && i < l->count; i++) {
        struct entry *e = &l->entries[i];
        error = open_entry(e, workers, owner, previous, taken);
        if (error)
            snprintf(why, cap, "%s: %s: %s", e->is_metrics ? "metrics-listen" : "listen", e->asked,
                     open_error_text(error));
    }
    if (!error) {
        *out = l;
        l = NULL;
    }
out:
    listeners_free(l);
    free(taken);
    return error;
}

size_t listeners_of_worker(const struct listeners *l, uint32_t place, uint32_t workers, bool is_tls,
                           struct worker_listener *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entries[i];
        bool is_one = e->is_metrics || e->address.is_unix;
        for (size_t j = 0; j < e->count; j++) {
            if (!is_one && j % workers != place)
                continue;
            if (n < cap)
                out[n] = (struct worker_listener){.fd = e->sockets[j]->fd,
                                                  .is_metrics = e->is_metrics,
                                                  .is_tls = is_tls && !e->address.is_unix &&
                                                            !e->is_metrics,
                                                  .is_unix = e->address.is_unix};
            n++;
        }
    }
    return n;
}

const char *listeners_address(const struct listeners *l, size_t index, bool *is_metrics)
{
    if (index >= l->count)
        return NULL;
    if (is_metrics)
        *is_metrics = l->entries[index].is_metrics;
    return l->entries[index].real;
}
