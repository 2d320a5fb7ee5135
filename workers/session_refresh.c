#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/pack.h"
#include "workers/session_parts.h"

#define REFRESHES_MAX 4 /* of one device at once */

struct refresh {
    struct refresh *next;    /* of the same device, oldest first */
    struct device *device;
    struct store_call *call; /* under way */
    struct answer *answer;   /* it was answered; neither: it waits */
    struct frame *done;
    char type[16];
};

static struct sessions *sessions_of(const struct device *d)
{
    return d->conn->worker->sessions;
}

static void on_read(void *data, int error, struct store_user *stored);

static void start(struct sessions *s, struct refresh *r)
{
    r->call = store_read_user(s->w->store, r->device->user->id, on_read, r);
    if (r->call)
        s->refreshes_waiting--;
    else if (store_is_up(s->w->store)) /* else the link's return starts it */
        session_retry_later(s);
}

static void unlink_from_device(struct refresh *r)
{
    struct refresh **at = &device_busy(r->device)->refreshes;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    device_settle(r->device);
}

static void try_again(struct sessions *s)
{
    s->refreshes_waiting++;
    if (store_is_up(s->w->store))
        session_retry_later(s);
}

static void on_answer(void *data, struct answer *a, int error)
{
    struct refresh *r = data;
    struct device *d = r->device;
    struct sessions *s = a->s;
    struct user *u = d->user;
    r->answer = NULL;
    if (error) {
        session_answer_free(a);
        try_again(s);
        return;
    }
    unlink_from_device(r); /* sending may close the session, which frees what the device has */
    session_walk(s, u);
    session_list_full_sync(&a->list, d, r->type, true, 0);
    conn_send(d->conn, r->done);
    session_walked(s, u);
    session_answer_free(a);
    frame_unref(r->done);
    free(r);
}

static void on_read(void *data, int error, struct store_user *stored)
{
    struct refresh *r = data;
    struct sessions *s = sessions_of(r->device);
    r->call = NULL;
    if (error || !(r->answer = session_answer_new(s, r->device->user, stored, on_answer, r)))
        try_again(s);
}

void session_refreshes_start(struct sessions *s, struct device *d)
{
    for (struct refresh *r = d->busy->refreshes; r; r = r->next)
        if (!r->call && !r->answer)
            start(s, r);
}

static void start_user(void *data, struct user *u)
{
    for (struct device *d = u->devices; d; d = d->next)
        if (d->state != DEVICE_ATTACHING)
            session_refreshes_start(data, d);
}

void session_refreshes_start_all(struct sessions *s)
{
    if (s->refreshes_waiting)
        hub_each(s->w->hub, start_user, s);
}

void session_refreshes_free(struct sessions *s, struct device *d)
{
    for (struct refresh *r = d->busy->refreshes, *next; r; r = next) {
        next = r->next;
        if (!r->call && !r->answer)
            s->refreshes_waiting--;
        store_cancel(r->call);
        session_answer_free(r->answer);
        frame_unref(r->done);
        free(r);
    }
    if (d->busy->refreshes)
        device_busy(d)->refreshes = NULL;
    device_settle(d);
}

/* Appends one that waits; done is given. NULL without memory. */
static struct refresh *append(struct sessions *s, struct device *d, const char *type, size_t len,
                              struct frame *done)
{
    struct device_busy *busy = device_busy(d);
    struct refresh *r = busy ? calloc(1, sizeof(*r)) : NULL;
    if (!r) {
        frame_unref(done);
        return NULL;
    }
    struct refresh **end = &busy->refreshes;
    while (*end)
        end = &(*end)->next;
    r->device = d;
    r->done = done;
    snprintf(r->type, sizeof(r->type), "%.*s", (int)len, type);
    *end = r;
    s->refreshes_waiting++;
    return r;
}

void session_refreshes_save(const struct device *d, struct text_buf *out)
{
    for (const struct refresh *r = d->busy->refreshes; r; r = r->next) {
        pack_bytes(out, r->type, strlen(r->type));
        frame_save(r->done, out);
    }
}

int session_refreshes_restore(struct sessions *s, struct device *d, struct text_span saved)
{
    struct unpack in = unpack_of(saved);
    while (unpack_left(&in)) {
        struct text_span type = unpack_bytes(&in);
        struct frame *done = frame_restore(&in);
        if (!done)
            return -EBADMSG;
        if (!append(s, d, type.ptr ? type.ptr : "", type.len, done))
            return -ENOMEM;
    }
    return in.is_bad ? -EBADMSG : 0;
}

int session_refresh(struct worker *w, struct device *d, const char *full_sync_type,
                    struct frame *done)
{
    struct sessions *s = w->sessions;
    size_t count = 0;
    for (const struct refresh *r = d->busy->refreshes; r; r = r->next)
        count++;
    if (!d->user || !store_is_up(w->store) || count >= REFRESHES_MAX) {
        frame_unref(done);
        return -EAGAIN;
    }
    struct refresh *r = append(s, d, full_sync_type, strlen(full_sync_type), done);
    if (!r)
        return -ENOMEM;
    if (d->state != DEVICE_ATTACHING) /* an attaching device gets its own FULL_SYNC first */
        start(s, r);
    return 0;
}
