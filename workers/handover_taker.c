#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/log.h"
#include "workers/conn.h"
#include "workers/handover_parts.h"
#include "workers/session_handover.h"
#include "workers/subscriber.h"

#define TICK_S 0.1

struct batch;

/* One user of a batch. */
struct place {
    struct batch *batch;
    struct expected *expected; /* NULL: it went on, or is not to come */
};

struct batch {
    struct batch *next;
    struct source *source;
    uint32_t number;
    char marker[HANDOVER_MARKER_BYTES];
    uint32_t unconfirmed;
    int64_t since_ms;
    bool is_told;          /* CONFIRMED was sent */
    int64_t given_at_ms;   /* of the last that was given; 0: none yet */
    uint32_t count;
    struct place places[];
};

/* One giver. */
struct source {
    struct source *next, *prev;
    struct taker *taker;
    struct handover_link *link;
    struct batch *batches;
    struct place *current; /* whose devices come; NULL: nobody's */
    uint64_t taken;
    int64_t since_ms;
    bool is_greeted;       /* HELLO was sent */
    bool is_shared;        /* it counts where we do */
    uint32_t slot;         /* there */
};

struct taker {
    struct worker *w;
    struct source *sources;
    struct ev_timer tick;
};

/* ---- batches ---- */

static bool is_over(const struct batch *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (b->places[i].expected)
            return false;
    return true;
}

static void sweep(struct source *s)
{
    struct batch **at = &s->batches;
    while (*at) {
        struct batch *b = *at;
        if (!b->is_told || !is_over(b) ||
            (s->current && s->current->batch == b)) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        free(b);
    }
}

static void confirm(struct batch *b, bool is_subscribed)
{
    struct text_buf out = {0};
    if (b->is_told)
        return;
    b->is_told = true;
    pack_u32(&out, b->number);
    pack_u8(&out, is_subscribed);
    if (!out.failed && !handover_link_send(b->source->link, HANDOVER_CONFIRMED, out.data, out.len,
                                           -1))
        handover_link_flush(b->source->link);
    text_buf_free(&out);
}

static void on_subscribed(void *data)
{
    struct place *p = data;
    if (--p->batch->unconfirmed == 0)
        confirm(p->batch, true);
}

static void settle(struct place *p, bool (*step)(struct expected *e))
{
    if (p->expected && step(p->expected))
        p->expected = NULL;
}

static void break_batch(struct batch *b)
{
    confirm(b, false);
    for (uint32_t i = 0; i < b->count; i++)
        settle(&b->places[i], session_expected_broken);
}

static void drop_batch(struct batch *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        if (b->places[i].expected)
            session_expected_drop(b->places[i].expected);
    free(b);
}

/* ---- records ---- */

static int expect(struct source *s, struct text_span body)
{
    struct worker *w = s->taker->w;
    struct unpack in = unpack_of(body);
    uint32_t number = unpack_u32(&in);
    struct text_span marker = unpack_bytes(&in);
    uint32_t count = unpack_count(&in, 4);
    if (in.is_bad || !marker.len || marker.len >= HANDOVER_MARKER_BYTES)
        return -EBADMSG;
    struct batch *b = calloc(1, sizeof(*b) + count * sizeof(b->places[0]));
    if (!b)
        return -ENOMEM;
    *b = (struct batch){.source = s, .number = number, .count = count, .next = s->batches,
                         .since_ms = worker_now_ms(w)};
    memcpy(b->marker, marker.ptr, marker.len);
    s->batches = b;
    b->unconfirmed = 1; /* until all are asked for */
    for (uint32_t i = 0; i < count; i++) {
        struct place *p = &b->places[i];
        struct text_span id = unpack_bytes(&in);
        if (in.is_bad || !id.len)
            return -EBADMSG;
        p->batch = b;
        p->expected = session_expect(w, id, on_subscribed, p);
        if (!p->expected)
            return -ENOMEM;
        b->unconfirmed += !session_expected_is_heard(p->expected);
    }
    if (!subscriber_is_up(w->subscriber))
        break_batch(b);
    else if (--b->unconfirmed == 0)
        confirm(b, true);
    return 0;
}

static struct place *place_of(struct source *s, struct unpack *in)
{
    uint32_t number = unpack_u32(in), which = unpack_u32(in);
    struct batch *b = s->batches;
    while (b && b->number != number)
        b = b->next;
    if (in->is_bad || !b || which >= b->count || !b->places[which].expected)
        return NULL;
    return &b->places[which];
}

static int begin_user(struct source *s, struct text_span body)
{
    struct unpack in = unpack_of(body);
    struct place *p = place_of(s, &in);
    struct text_span recent = unpack_bytes(&in);
    if (!p || in.is_bad || s->current)
        return -EBADMSG;
    s->current = p;
    int error = session_expected_recent(p->expected, recent);
    if (error == -EBADMSG)
        return error;
    return 0; /* without memory something may come twice */
}

static int end_user(struct source *s, struct text_span body)
{
    struct unpack in = unpack_of(body);
    bool is_fenced = unpack_u8(&in);
    struct place *p = s->current;
    if (!p)
        return -EBADMSG;
    p->batch->given_at_ms = worker_now_ms(s->taker->w);
    if (session_expected_given(p->expected, is_fenced))
        p->expected = NULL;
    s->current = NULL;
    sweep(s);
    return 0;
}

static int forget(struct source *s, struct text_span body)
{
    struct unpack in = unpack_of(body);
    struct place *p = place_of(s, &in);
    if (!p || p == s->current) /* who is just coming cannot be said not to come */
        return -EBADMSG;
    session_expected_drop(p->expected);
    p->expected = NULL;
    sweep(s);
    return 0;
}

static int take(struct source *s, struct text_span body, int fd, struct expected *e)
{
    if (fd < 0)
        return -EBADMSG;
    const struct worker_start *start = s->taker->w->start;
    s->taken += conn_take(s->taker->w, fd, s->is_shared ? (int)s->slot : -1, body, e);
    if (s->is_shared && e)
        usertable_leave(start->users, s->slot, session_expected_hash(e));
    return 0;
}

static int share_counters(struct source *s, struct text_span body)
{
    struct unpack in = unpack_of(body);
    s->slot = unpack_u32(&in);
    s->is_shared = unpack_is_done(&in) && s->slot < s->taker->w->start->counters->head->slots;
    return s->is_shared ? 0 : -EBADMSG;
}

static int on_body(struct source *s, uint32_t type, struct text_span body, int fd)
{
    switch (type) {
    case HANDOVER_BROADCASTS:
        return session_join_broadcasts(s->taker->w, body);
    case HANDOVER_EXPECT:
        return expect(s, body);
    case HANDOVER_USER:
        return begin_user(s, body);
    case HANDOVER_DEVICE:
        return take(s, body, fd, s->current ? s->current->expected : NULL);
    case HANDOVER_USER_END:
        return end_user(s, body);
    case HANDOVER_FORGET:
        return forget(s, body);
    case HANDOVER_ALONE:
        return take(s, body, fd, NULL);
    case HANDOVER_SHARED:
        return share_counters(s, body);
    default:
        return -EBADMSG;
    }
}

/* ---- givers come and go ---- */

/* What it gave stays; what it did not is not expected any more. */
static void source_free(struct source *s)
{
    struct taker *t = s->taker;
    handover_link_free(s->link);
    while (s->batches) {
        struct batch *b = s->batches;
        s->batches = b->next;
        drop_batch(b);
    }
    *(s->prev ? &s->prev->next : &t->sources) = s->next;
    if (s->next)
        s->next->prev = s->prev;
    free(s);
    if (!t->sources)
        ev_timer_stop(t->w->loop, &t->tick);
}

static void on_end(void *data, const char *why)
{
    struct source *s = data;
    log_info("handover-taken", "connections", LOG_INT(s->taken), "end", why);
    source_free(s);
}

static bool on_record(void *data, uint32_t type, struct text_span body, int fd)
{
    struct source *s = data;
    int error = on_body(s, type, body, fd);
    if (!error)
        return true;
    if (fd >= 0 && type != HANDOVER_DEVICE && type != HANDOVER_ALONE)
        close(fd);
    log_error("handover-broken", "record", LOG_INT(type), "error", log_errno(error));
    source_free(s);
    return false;
}

static const struct handover_link_owner owner = {on_record, on_end};

/* From now on connections come. Not before broadcasts are heard here, unless Redis is away. */
static void greet(struct source *s)
{
    struct text_buf hello = {0};
    if (s->is_greeted)
        return;
    s->is_greeted = true;
    pack_u32(&hello, HANDOVER_VERSION);
    pack_u64(&hello, s->taker->w->start->counters->head->identity);
    handover_link_send(s->link, HANDOVER_HELLO, hello.data, hello.len, -1);
    handover_link_flush(s->link);
    text_buf_free(&hello);
}

void taker_add(struct taker *t, int fd)
{
    struct source *s = calloc(1, sizeof(*s));
    if (!s) {
        close(fd);
        return;
    }
    s->taker = t;
    s->link = handover_link_new(t->w->loop, fd, &owner, s);
    if (!s->link) {
        free(s);
        return;
    }
    s->next = t->sources;
    if (s->next)
        s->next->prev = s;
    t->sources = s;
    s->since_ms = worker_now_ms(t->w);
    if (subscriber_is_listening(t->w->subscriber))
        greet(s);
    ev_timer_again(t->w->loop, &t->tick);
}

bool taker_has_givers(const struct taker *t)
{
    return t->sources != NULL;
}

/* ---- what happens meanwhile ---- */

void taker_on_listening(struct taker *t)
{
    for (struct source *s = t->sources; s; s = s->next)
        greet(s);
}

void taker_on_marker(struct taker *t, struct text_span text)
{
    for (struct source *s = t->sources; s; s = s->next) {
        for (struct batch *b = s->batches; b; b = b->next)
            if (text_span_eq(text, b->marker))
                for (uint32_t i = 0; i < b->count; i++)
                    settle(&b->places[i], session_expected_marked);
        sweep(s);
    }
}

void taker_on_link_lost(struct taker *t)
{
    for (struct source *s = t->sources; s; s = s->next) {
        for (struct batch *b = s->batches; b; b = b->next)
            break_batch(b);
        sweep(s);
    }
}

/* Devices that are here do not wait longer for a marker. */
static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct taker *t = timer->data;
    int64_t now_ms = worker_now_ms(t->w);
    (void)loop;
    (void)events;
    for (struct source *s = t->sources; s; s = s->next) {
        if (now_ms - s->since_ms > HANDOVER_LISTEN_MS)
            greet(s);
        for (struct batch *b = s->batches; b; b = b->next)
            if ((b->given_at_ms && now_ms - b->given_at_ms > HANDOVER_WAIT_MS) ||
                (!b->is_told && now_ms - b->since_ms > HANDOVER_WAIT_MS))
                break_batch(b);
        sweep(s);
    }
}

struct taker *taker_new(struct worker *w)
{
    struct taker *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->w = w;
    ev_timer_init(&t->tick, on_tick, 0., TICK_S);
    t->tick.data = t;
    return t;
}

void taker_free(struct taker *t)
{
    if (!t)
        return;
    while (t->sources)
        source_free(t->sources);
    ev_timer_stop(t->w->loop, &t->tick);
    free(t);
}
