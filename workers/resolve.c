#include "config.h"

#include "workers/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/*
 * Shared by the loop and the thread; whoever leaves last frees it. The thread may stay in
 * getaddrinfo long after the question was cancelled, and it may wake the loop only while the loop
 * still waits for it.
 */
struct resolve {
    pthread_mutex_t lock;
    bool is_cancelled; /* under lock: the loop has left */
    bool is_done;      /* under lock: the thread has left */
    struct ev_loop *loop;
    struct ev_async done;
    struct ev_timer at_once; /* for addresses in digits */
    resolve_fn *fn;
    void *data;
    int error;
    size_t count;
    char addresses[RESOLVE_MAX][RESOLVE_ADDRESS_BYTES];
    char host[];
};

static void destroy(struct resolve *r)
{
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void collect(struct resolve *r, const struct addrinfo *list, int family)
{
    for (const struct addrinfo *a = list; a && r->count < RESOLVE_MAX; a = a->ai_next)
        if (a->ai_family == family &&
            !getnameinfo(a->ai_addr, a->ai_addrlen, r->addresses[r->count], RESOLVE_ADDRESS_BYTES,
                         NULL, 0, NI_NUMERICHOST))
            r->count++;
}

static int ask(struct resolve *r, int flags)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list = NULL;
    int error = getaddrinfo(r->host, NULL, &hints, &list);
    if (error)
        return error;
    collect(r, list, AF_INET);
    collect(r, list, AF_INET6);
    freeaddrinfo(list);
    return r->count ? 0 : EAI_NONAME;
}

static void *run(void *data)
{
    struct resolve *r = data;
    int error = ask(r, 0);
    pthread_mutex_lock(&r->lock);
    r->error = error;
    r->is_done = true;
    bool is_last = r->is_cancelled;
    if (!is_last)
        ev_async_send(r->loop, &r->done);
    pthread_mutex_unlock(&r->lock);
    if (is_last)
        destroy(r);
    return NULL;
}

/* The thread has left, or there was none. */
static void answer(struct resolve *r)
{
    ev_async_stop(r->loop, &r->done);
    ev_timer_stop(r->loop, &r->at_once);
    r->fn(r->data, r->error, r->addresses, r->count);
    destroy(r);
}

static void on_done(struct ev_loop *loop, struct ev_async *a, int events)
{
    (void)loop, (void)events;
    struct resolve *r = a->data;
    /* The thread sends while it holds the lock: wait until it let go. */
    pthread_mutex_lock(&r->lock);
    pthread_mutex_unlock(&r->lock);
    answer(r);
}

static void on_at_once(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)events;
    answer(t->data);
}

/* Signals are the loop's: the thread takes none. */
static int start_thread(struct resolve *r)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;
    if (pthread_attr_init(&attr))
        return -1;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&thread, &attr, run, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return error ? -1 : 0;
}

struct resolve *resolve_start(struct ev_loop *loop, const char *host, resolve_fn *fn, void *data)
{
    size_t len = strlen(host);
    struct resolve *r = calloc(1, sizeof(*r) + len + 1);
    if (!r)
        return NULL;
    memcpy(r->host, host, len);
    pthread_mutex_init(&r->lock, NULL);
    r->loop = loop;
    r->fn = fn;
    r->data = data;
    ev_async_init(&r->done, on_done);
    ev_timer_init(&r->at_once, on_at_once, 0., 0.);
    r->done.data = r->at_once.data = r;
    if (!ask(r, AI_NUMERICHOST)) {
        r->is_done = true;
        ev_timer_start(loop, &r->at_once);
        return r;
    }
    ev_async_start(loop, &r->done);
    if (start_thread(r) < 0) {
        ev_async_stop(loop, &r->done);
        destroy(r);
        return NULL;
    }
    return r;
}

void resolve_cancel(struct resolve *r)
{
    if (!r)
        return;
    ev_async_stop(r->loop, &r->done);
    ev_timer_stop(r->loop, &r->at_once);
    pthread_mutex_lock(&r->lock);
    r->is_cancelled = true;
    bool is_last = r->is_done;
    pthread_mutex_unlock(&r->lock);
    if (is_last)
        destroy(r);
}
