#include "config.h"

#include "src/listeners.h"

#include <errno.h>
#include <linux/filter.h>
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
    bool is_listening;
    bool is_borrowed; /* the service manager's */
    bool is_shared;   /* another master serves it, too */
    char path[ADDRESS_PATH_BYTES]; /* "": TCP */
    struct unixsock_file file;
};

/* One address of the configuration. */
struct entry {
    char asked[ADDRESS_TEXT_BYTES];
    char real[ADDRESS_TEXT_BYTES];
    struct address address; /* real: with its port */
    bool is_metrics;
    bool is_any;    /* of a set from outside: serves as either */
    bool is_single; /* one socket for all workers */
    struct listener_socket **sockets;
    size_t count;
};

struct listeners {
    struct entry *entries;
    size_t count;
};

/* Stops it for every process: workers that still drain hold copies of the descriptor, and closing
 * ours alone would leave a queue that nobody empties. */
static void socket_shut(struct listener_socket *s)
{
    if (s->is_borrowed || s->is_shared)
        return;
    shutdown(s->fd, SHUT_RDWR);
    if (*s->path)
        unixsock_remove(s->path, &s->file);
}

/* Socket filters are told of in socket(7). Connections that were made before have none of it. */
static void socket_take_nothing(const struct listener_socket *s)
{
    struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {.len = 1, .filter = &nothing};
    if (setsockopt(s->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
        log_debug("listener-filter-failed", "error", log_errno(errno));
}

/* Of a socket that listens tcp_info says how many wait to be accepted. */
static bool socket_has_queue(const struct listener_socket *s)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    memset(&info, 0, sizeof(info));
    return getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
           info.tcpi_state == TCP_LISTEN && info.tcpi_unacked > 0;
}

static void socket_unref(struct listener_socket *s)
{
    if (!s || --s->refs)
        return;
    socket_shut(s);
    close(s->fd);
    free(s);
}

static void free_entry(struct entry *e)
{
    for (size_t i = 0; i < e->count; i++)
        socket_unref(e->sockets[i]);
    free(e->sockets);
}

void listeners_free(struct listeners *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->count; i++)
        free_entry(&l->entries[i]);
    free(l->entries);
    free(l);
}

bool listeners_close_queues(struct listeners *l)
{
    bool has_queue = false;
    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entries[i];
        for (size_t j = 0; j < e->count && !e->is_metrics && !e->address.is_unix; j++) {
            if (e->sockets[j]->is_borrowed || e->sockets[j]->is_shared)
                continue;
            socket_take_nothing(e->sockets[j]);
            has_queue |= socket_has_queue(e->sockets[j]);
        }
    }
    return has_queue;
}

void listeners_shut_clients(struct listeners *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entries[i];
        for (size_t j = 0; j < e->count && !e->is_metrics; j++)
            socket_shut(e->sockets[j]);
    }
}

/* ---- one socket ---- */

static int set_on(int fd, int level, int name)
{
    int on = 1;
    return setsockopt(fd, level, name, &on, sizeof(on)) < 0 ? -errno : 0;
}

/* A TCP socket bound to the address. */
static int bind_tcp(const struct address *a, bool is_shared_port)
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
    int fd = bind_tcp(a, false);
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
                               : bind_tcp(&e->address, !e->is_metrics);
    if (s->fd < 0) {
        int error = s->fd;
        free(s);
        return error;
    }
    s->is_listening = e->address.is_unix;
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

/* Sets whose sockets may be shared: that of the generation before, and what came from outside. */
struct pool {
    const struct listeners *sets[2]; /* NULL: none */
    bool *taken[2];
};

static int pool_init(struct pool *pool, const struct listeners *previous,
                     const struct listeners *inherited)
{
    *pool = (struct pool){.sets = {previous, inherited}};
    for (int i = 0; i < 2; i++) {
        size_t count = pool->sets[i] ? pool->sets[i]->count : 0;
        pool->taken[i] = calloc(count + 1, sizeof(bool));
        if (!pool->taken[i])
            return -ENOMEM;
    }
    return 0;
}

static void pool_fini(struct pool *pool)
{
    free(pool->taken[0]);
    free(pool->taken[1]);
}

static bool is_of(const struct entry *e, const struct entry *p)
{
    return (p->is_any || p->is_metrics == e->is_metrics) &&
           (!strcmp(p->asked, e->asked) || !strcmp(p->real, e->asked));
}

/* The same address in a set before, not taken by an earlier entry of this one (two entries may ask
 * for port 0). */
static const struct entry *find_previous(struct pool *pool, const struct entry *e)
{
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; pool->sets[s] && i < pool->sets[s]->count; i++) {
            const struct entry *p = &pool->sets[s]->entries[i];
            if (pool->taken[s][i] || !is_of(e, p))
                continue;
            pool->taken[s][i] = true;
            return p;
        }
    return NULL;
}

static bool has_port(const struct pool *pool, uint16_t port)
{
    for (int s = 0; s < 2; s++)
        for (size_t i = 0; pool->sets[s] && i < pool->sets[s]->count; i++) {
            const struct address *a = &pool->sets[s]->entries[i].address;
            if (!a->is_unix && a->port == port)
                return true;
        }
    return false;
}

static int share_previous(struct entry *e, const struct entry *p)
{
    e->address = p->address;
    e->is_single = p->is_single;
    for (size_t i = 0; i < p->count; i++) {
        int error = add_socket(e, p->sockets[i]);
        if (error)
            return error;
        p->sockets[i]->refs++;
    }
    return 0;
}

static int open_entry(struct entry *e, uint32_t workers, const struct privileges *owner,
                      struct pool *pool)
{
    const struct entry *p = find_previous(pool, e);
    int error = 0;
    e->is_single = e->is_metrics || e->address.is_unix;
    if (p)
        error = share_previous(e, p);
    else if (!e->address.is_unix && e->address.port && !has_port(pool, e->address.port))
        error = probe_tcp(&e->address);
    if (error == -EAFNOSUPPORT && e->address.is_dual) {
        address_any_v4(e->address.port, &e->address);
        error = e->address.port ? probe_tcp(&e->address) : 0;
    }
    size_t wanted = e->is_single ? 1 : workers;
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
        return unixsock_error_text(error);
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
                   const struct listeners *previous, const struct listeners *inherited,
                   struct listeners **out, char *why, size_t cap)
{
    struct listeners *l = listeners_new();
    struct pool pool;
    int error = pool_init(&pool, previous, inherited);
    snprintf(why, cap, "listen: no memory");
    if (!l)
        error = -ENOMEM;
    if (error)
        goto out;
    error = add_entries(l, opt, why, cap);
    for (size_t i = 0; !error && i < l->count; i++) {
        struct entry *e = &l->entries[i];
        error = open_entry(e, workers, owner, &pool);
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
    pool_fini(&pool);
    return error;
}

static void socket_listen(struct listener_socket *s, const char *address)
{
    if (s->is_listening)
        return;
    s->is_listening = listen(s->fd, BACKLOG) == 0;
    if (!s->is_listening)
        log_error("listen-failed", "address", address, "error", log_errno(errno));
}

void listeners_listen(struct listeners *l)
{
    for (size_t i = 0; i < l->count; i++)
        for (size_t j = 0; j < l->entries[i].count; j++)
            socket_listen(l->entries[i].sockets[j], l->entries[i].real);
}

size_t listeners_of_worker(const struct listeners *l, uint32_t place, uint32_t workers, bool is_tls,
                           struct worker_listener *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entries[i];
        for (size_t j = 0; j < e->count; j++) {
            if (!e->is_single && j % workers != place)
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

/* ---- sockets from outside ---- */

struct listeners *listeners_new(void)
{
    return calloc(1, sizeof(struct listeners));
}

/* The entry that sockets with the record's number belong to: the last one, or a new one. */
static struct entry *entry_of_record(struct listeners *l, const struct listener_record *r)
{
    if (l->count && r->entry + 1 == l->count)
        return &l->entries[l->count - 1];
    struct entry *more = realloc(l->entries, (l->count + 1) * sizeof(*more));
    const char *reason;
    if (!more)
        return NULL;
    l->entries = more;
    struct entry *e = &more[l->count];
    *e = (struct entry){.is_metrics = r->is_metrics, .is_any = r->is_any,
                        .is_single = r->is_single};
    memcpy(e->asked, r->asked, sizeof(e->asked));
    memcpy(e->real, r->real, sizeof(e->real));
    if (address_parse(e->real, &e->address, &reason))
        return NULL;
    l->count++;
    return e;
}

static bool is_record(const struct listener_record *r)
{
    return memchr(r->asked, 0, sizeof(r->asked)) && memchr(r->real, 0, sizeof(r->real));
}

int listeners_add(struct listeners *l, int fd, const struct listener_record *record)
{
    struct entry *e = is_record(record) ? entry_of_record(l, record) : NULL;
    struct listener_socket *s = e ? calloc(1, sizeof(*s)) : NULL;
    if (!s)
        return e ? -ENOMEM : -EINVAL;
    *s = (struct listener_socket){.refs = 1, .fd = fd, .is_listening = true,
                                     .is_borrowed = record->is_borrowed};
    s->file = (struct unixsock_file){record->file_dev, record->file_ino};
    if (e->address.is_unix)
        memcpy(s->path, e->address.path, sizeof(s->path));
    int error = add_socket(e, s);
    if (error)
        free(s);
    return error;
}

static int option_of(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);
    return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

int listeners_describe(int fd, struct listener_record *out)
{
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof(bound);
    struct address a;
    if (option_of(fd, SOL_SOCKET, SO_TYPE) != SOCK_STREAM ||
        option_of(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1)
        return -EINVAL;
    if (getsockname(fd, (struct sockaddr *)&bound, &len) < 0)
        return -errno;
    int error = address_from_sockaddr((struct sockaddr *)&bound, len, &a);
    if (error)
        return error;
    a.is_dual = bound.ss_family == AF_INET6 && option_of(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0 &&
                IN6_IS_ADDR_UNSPECIFIED(&((struct sockaddr_in6 *)&bound)->sin6_addr);
    *out = (struct listener_record){.is_any = true, .is_single = true, .is_borrowed = true};
    address_format(&a, out->asked);
    memcpy(out->real, out->asked, sizeof(out->real));
    return 0;
}

/* The socket with that index, and its entry's number. */
static struct listener_socket *socket_at(const struct listeners *l, size_t index, size_t *entry)
{
    for (size_t i = 0; i < l->count; index -= l->entries[i++].count)
        if (index < l->entries[i].count) {
            *entry = i;
            return l->entries[i].sockets[index];
        }
    return NULL;
}

int listeners_record(const struct listeners *l, size_t index, struct listener_record *out)
{
    size_t i;
    const struct listener_socket *s = socket_at(l, index, &i);
    if (!s)
        return -1;
    const struct entry *e = &l->entries[i];
    *out = (struct listener_record){.file_dev = s->file.dev, .file_ino = s->file.ino,
                                    .entry = (uint32_t)i, .is_metrics = e->is_metrics,
                                    .is_any = e->is_any, .is_single = e->is_single,
                                    .is_borrowed = s->is_borrowed};
    memcpy(out->asked, e->asked, sizeof(out->asked));
    memcpy(out->real, e->real, sizeof(out->real));
    return s->fd;
}

bool listeners_is_used(const struct listeners *l, size_t index)
{
    size_t i;
    const struct listener_socket *s = socket_at(l, index, &i);
    return s && s->refs > 1;
}

void listeners_set_shared(struct listeners *l, bool is_shared)
{
    for (size_t i = 0; i < l->count; i++)
        for (size_t j = 0; j < l->entries[i].count; j++)
            l->entries[i].sockets[j]->is_shared = is_shared;
}

void listeners_keep_borrowed(struct listeners *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        struct entry *e = &l->entries[i];
        if (e->count && e->sockets[0]->is_borrowed)
            l->entries[kept++] = *e;
        else
            free_entry(e);
    }
    l->count = kept;
}
