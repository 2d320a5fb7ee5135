#include "config.h"

#include "workers/inquest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/inquiry.h"
#include "shared/log.h"
#include "shared/segment.h"
#include "workers/admission.h"
#include "workers/conn.h"
#include "workers/fate.h"
#include "workers/hub.h"
#include "workers/roster.h"
#include "workers/store.h"

#define CHANNEL_BYTES 96

struct kick {
    int64_t at_ms; /* 0: none */
    size_t len;
    char user[KEYS_USER_ID_MAX_BYTES];
};

/* A question of our own that the master answers. */
struct inquest_call {
    struct inquest *owner;
    struct inquest_call *next;
    uint64_t number;
    inquest_answer_fn *fn;
    void *data;
    struct ev_timer limit;
};

struct inquest {
    struct worker *w;
    struct inquest_call *calls;
    uint64_t last_number;
    struct kick *kicks; /* INQUEST_KICKS; NULL until there is one */
    unsigned next_kick; /* the place of the next one */
    int64_t second;    /* monotonic */
    unsigned answered; /* in this second */
};

struct inquest *inquest_new(struct worker *w)
{
    struct inquest *q = calloc(1, sizeof(*q));
    if (q)
        q->w = w;
    return q;
}

void inquest_free(struct inquest *q)
{
    while (q && q->calls)
        inquest_cancel(q->calls);
    if (q)
        free(q->kicks);
    free(q);
}

static void tell_master(const struct worker *w, enum control_type type,
                        const struct inquiry_message *m)
{
    int error = ipc_send(w->start->control_fd, type, m, inquiry_size(&m->head), -1);
    if (error) /* the question ends by its time limit */
        log_debug("inquiry-not-told", "error", log_errno(error));
}

/* To another instance's question, or to that of the one which this worker is left over from. */
static void publish_answer(const struct worker *w, const struct inquiry_message *m);

/* Its own part, to who asks. */
static void tell(const struct worker *w, const struct inquiry *asked, struct inquiry_message *m)
{
    struct inquiry *head = &m->head;
    head->number = asked->number;
    head->kind = INQUIRY_OWN;
    head->flags |= INQUIRY_LAST;
    if (!asked->instance[0]) {
        tell_master(w, CONTROL_TOLD, m);
        return;
    }
    head->links = 1;
    head->trace_size = w->start->trace->size;
    head->asker_slot = asked->asker_slot;
    memcpy(head->instance, asked->instance, sizeof(head->instance));
    publish_answer(w, m);
}

/* ---- the master asks ---- */

static void add_open(const struct worker *w, const struct conn *c, struct inquiry_message *m)
{
    m->records[m->head.count++] = (struct inquiry_record){
        .slot = w->start->slot,
        .trace = {.at_us = worker_wall_ms(w) * 1000,
                  .serial = c->serial,
                  .position = fate_acked_bytes(c),
                  .detail = c->outq.bytes < UINT32_MAX ? (uint32_t)c->outq.bytes : UINT32_MAX,
                  .fate = TRACE_OPEN}};
}

static void tell_open(const struct worker *w, const struct inquiry *asked)
{
    struct inquiry_message m = {.head = {.flags = 0}};
    struct user *u = hub_find(w->hub, asked->user, strlen(asked->user));
    for (struct device *d = u ? u->devices : NULL; d; d = d->next) {
        if (m.head.count == INQUIRY_RECORDS) {
            m.head.flags |= INQUIRY_CUT;
            break;
        }
        add_open(w, d->conn, &m);
    }
    tell(w, asked, &m);
}

/* For those that are on their way here. */
static void remember(struct inquest *q, const char *user)
{
    size_t len = strlen(user);
    if (!q->kicks && !(q->kicks = calloc(INQUEST_KICKS, sizeof(*q->kicks)))) {
        log_error("no-memory", "for", "kick");
        return;
    }
    struct kick *k = &q->kicks[q->next_kick++ % INQUEST_KICKS];
    *k = (struct kick){.at_ms = worker_now_ms(q->w), .len = len};
    memcpy(k->user, user, len < sizeof(k->user) ? len : sizeof(k->user));
}

bool inquest_has_kicked(const struct inquest *q, const struct user *u, int64_t opened_ms)
{
    for (size_t i = 0; q && q->kicks && i < INQUEST_KICKS; i++) {
        const struct kick *k = &q->kicks[i];
        if (k->at_ms && opened_ms < k->at_ms && k->len == u->id_len &&
            !memcmp(k->user, u->id, u->id_len))
            return true;
    }
    return false;
}

/* The connections leave their user at the end of the turn, so that the walk is safe (conn.h). */
static void kick(struct inquest *q, const struct inquiry *asked)
{
    const struct worker *w = q->w;
    struct inquiry_message m = {.head = {.flags = 0}};
    struct user *u = hub_find(w->hub, asked->user, strlen(asked->user));
    for (struct device *d = u ? u->devices : NULL; d; d = d->next) {
        if (d->conn->state != CONN_OPEN)
            continue;
        conn_close(d->conn, CLOSE_ADMIN);
        m.head.closed++;
    }
    remember(q, asked->user);
    if (m.head.closed)
        log_notice("user-kicked", "user", asked->user, "connections", LOG_INT(m.head.closed));
    tell(w, asked, &m);
}

/* Those on their way here are looked up when they come (admission_restore). */
static void revoke_token(const struct worker *w, const struct inquiry *asked)
{
    struct inquiry_message m = {.head = {.flags = 0}};
    m.head.closed = admissions_revoke(w->admissions, asked->id);
    if (m.head.closed)
        log_notice("token-revoked", "connections", LOG_INT(m.head.closed));
    tell(w, asked, &m);
}

/* ---- connections as they are ---- */

struct showing {
    const struct worker *w;
    const struct inquiry *asked;
    struct inquiry_message m;
    uint64_t serial;    /* of the id that is asked for */
    unsigned rows;
    struct text_buf row; /* scratch */
};

static void show_connection(struct showing *s, const struct conn *c)
{
    struct inquiry *head = &s->m.head;
    text_buf_reset(&s->row);
    roster_write(c, &s->row);
    if (s->rows == INQUEST_ROWS || s->row.failed || s->row.len >= INQUIRY_TEXT_BYTES) {
        head->flags |= INQUIRY_CUT;
        return;
    }
    if (head->count + 1 + s->row.len > INQUIRY_TEXT_BYTES) {
        tell_master(s->w, CONTROL_TOLD, &s->m);
        head->count = 0;
    }
    s->rows++;
    if (head->count)
        s->m.text[head->count++] = ',';
    memcpy(s->m.text + head->count, s->row.data, s->row.len);
    head->count += (uint32_t)s->row.len;
}

static void show_if_asked(void *data, struct conn *c)
{
    struct showing *s = data;
    char id[CONN_ID_BYTES];
    if (c->serial == s->serial && !strcmp(conn_id(c, id), s->asked->id))
        show_connection(s, c);
}

static void show(const struct worker *w, const struct inquiry *asked)
{
    struct showing s = {.w = w, .asked = asked};
    const char *serial = strrchr(asked->id, '-');
    s.m.head = (struct inquiry){.number = asked->number, .kind = INQUIRY_TEXT};
    if (serial) {
        s.serial = strtoull(serial + 1, NULL, 16);
        conns_each(w->conns, show_if_asked, &s);
    }
    struct user *u = hub_find(w->hub, asked->user, strlen(asked->user));
    for (struct device *d = u ? u->devices : NULL; d; d = d->next)
        show_connection(&s, d->conn);
    s.m.head.flags |= INQUIRY_LAST;
    tell_master(w, CONTROL_TOLD, &s.m);
    text_buf_free(&s.row);
}

/* ---- other instances are asked ---- */

struct publication {
    struct worker *w;
    uint64_t number;
};

static void tell_published(const struct worker *w, uint64_t number, int64_t receivers)
{
    struct inquiry_message m = {
        .head = {.number = number, .kind = INQUIRY_PUBLISHED, .receivers = receivers}};
    tell_master(w, CONTROL_TOLD, &m);
}

static void on_published(void *data, int error, int64_t receivers)
{
    struct publication *p = data;
    tell_published(p->w, p->number, error ? error : receivers);
    free(p);
}

static void ask_others(struct worker *w, const struct inquiry *asked)
{
    struct inquiry q = *asked;
    struct text_buf text = {0};
    struct publication *p = calloc(1, sizeof(*p));
    struct store_call *call = NULL;
    snprintf(q.instance, sizeof(q.instance), "%s", w->start->instance_id);
    q.asker_slot = w->start->slot;
    inquiry_write_request(&text, &q);
    if (p && !text.failed) {
        *p = (struct publication){w, q.number};
        call = store_publish(w->store, INQUIRY_CHANNEL, (struct text_span){text.data, text.len},
                             on_published, p);
    }
    text_buf_free(&text);
    if (call)
        return;
    free(p);
    tell_published(w, q.number, -ENOTCONN);
}

static void answer_asked(struct inquest *q, const struct inquiry *asked)
{
    switch ((enum inquiry_ask)asked->ask) {
    case INQUIRY_EXPLAIN:
        tell_open(q->w, asked);
        break;
    case INQUIRY_KICK:
        kick(q, asked);
        break;
    case INQUIRY_REVOKE:
        revoke_token(q->w, asked);
        break;
    case INQUIRY_SHOW:
        show(q->w, asked);
        break;
    case INQUIRY_ASKS:
        break;
    }
}

void inquest_on_ask(struct inquest *q, const void *body, size_t len)
{
    struct inquiry_message m;
    if (!inquiry_take(body, len, &m))
        return;
    m.head.instance[0] = '\0'; /* its master asks, for whomever */
    answer_asked(q, &m.head);
    if (m.head.flags & INQUIRY_OTHERS)
        ask_others(q->w, &m.head);
}

/* ---- another instance asks ---- */

/* Of each instance one worker answers: the first that serves and hears Redis; while the instance
 * drains, the first that drains. */
static bool is_ours_to_answer(const struct worker *w)
{
    static const uint32_t states[] = {SLOT_READY, SLOT_DRAINING};
    const struct counters *c = w->start->counters;
    for (size_t s = 0; s < sizeof(states) / sizeof(states[0]); s++)
        for (uint32_t i = 0; i < c->head->slots; i++)
            if (__atomic_load_n(&c->slots[i].state, __ATOMIC_RELAXED) == states[s] &&
                counters_get(c, i, CTR_redis_subscriber_up))
                return i == w->start->slot;
    return false;
}

static bool is_within_rate(struct inquest *q)
{
    int64_t second = worker_now_ms(q->w) / 1000;
    if (q->second != second) {
        q->second = second;
        q->answered = 0;
    }
    return q->answered++ < INQUEST_RATE;
}

void inquest_on_request(struct inquest *q, const char *payload, size_t len)
{
    struct inquiry_message m;
    const struct worker *w = q->w;
    if (!w->is_left && !is_ours_to_answer(w))
        return;
    if (inquiry_read_request(payload, len, &m.head) < 0) {
        log_warning("inquiry-invalid", "channel", INQUIRY_CHANNEL, "bytes", LOG_INT(len));
        return;
    }
    if (!w->is_left && !strcmp(m.head.instance, w->start->instance_id))
        return;
    if (!is_within_rate(q)) {
        log_warning("inquiry-refused", "asker", m.head.instance, "limit", "rate");
        return;
    }
    if (w->is_left)
        answer_asked(q, &m.head);
    else
        tell_master(w, CONTROL_ASKED, &m);
}

static void ignore(void *data, int error, int64_t value)
{
    (void)data, (void)error, (void)value;
}

static void publish_answer(const struct worker *w, const struct inquiry_message *m)
{
    char channel[CHANNEL_BYTES];
    struct text_buf text = {0};
    snprintf(channel, sizeof(channel), INQUIRY_ANSWERS "%s:%u", m->head.instance,
             m->head.asker_slot);
    inquiry_write_answer(&text, m, w->start->instance_id);
    if (!text.failed)
        store_publish(w->store, channel, (struct text_span){text.data, text.len}, ignore, NULL);
    text_buf_free(&text);
}

void inquest_on_tell(struct inquest *q, const void *body, size_t len)
{
    struct inquiry_message m;
    if (inquiry_take(body, len, &m))
        publish_answer(q->w, &m);
}

/* ---- another instance answers ---- */

void inquest_on_answer(struct inquest *q, const char *payload, size_t len)
{
    struct inquiry_message m;
    if (inquiry_read_answer(payload, len, &m) < 0) {
        log_warning("inquiry-answer-invalid", "bytes", LOG_INT(len));
        return;
    }
    tell_master(q->w, CONTROL_TOLD, &m);
}

/* ---- an operator asks over HTTP ---- */

void inquest_cancel(struct inquest_call *c)
{
    if (!c)
        return;
    struct inquest_call **at = &c->owner->calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    ev_timer_stop(c->owner->w->loop, &c->limit);
    free(c);
}

/* The call is over: who asked is told last. */
static void answer(struct inquest_call *c, int error, struct text_span text)
{
    inquest_answer_fn *fn = c->fn;
    void *data = c->data;
    inquest_cancel(c);
    fn(data, error, text);
}

static void on_limit(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop, (void)events;
    answer(timer->data, -ETIMEDOUT, (struct text_span){NULL, 0});
}

struct inquest_call *inquest_explain(struct inquest *q, const char *user, const char *id,
                                     inquest_answer_fn *fn, void *data)
{
    struct inquiry_message m = {.head = {.ask = INQUIRY_EXPLAIN, .number = q->last_number + 1}};
    if (inquiry_set(&m.head, user, strlen(user), id, strlen(id)) < 0)
        return NULL;
    struct inquest_call *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    int error = ipc_send(q->w->start->control_fd, CONTROL_INQUIRE, &m, inquiry_bytes(0), -1);
    if (error) {
        log_debug("inquiry-not-told", "error", log_errno(error));
        free(c);
        return NULL;
    }
    *c = (struct inquest_call){
        .owner = q, .next = q->calls, .number = ++q->last_number, .fn = fn, .data = data};
    q->calls = c;
    ev_timer_init(&c->limit, on_limit, INQUEST_WAIT_S, 0.);
    c->limit.data = c;
    ev_timer_start(q->w->loop, &c->limit);
    return c;
}

void inquest_on_explained(struct inquest *q, const void *body, size_t len, int fd)
{
    struct inquiry_message m;
    struct text_buf text = {0};
    if (!inquiry_take(body, len, &m))
        return;
    struct inquest_call *c = q->calls;
    while (c && c->number != m.head.number)
        c = c->next;
    if (!c) /* it took too long, or nobody waits any more */
        return;
    int error = fd >= 0 ? segment_read_text(fd, INQUEST_ANSWER_MAX_BYTES, &text)
                        : (int)m.head.receivers;
    answer(c, error, (struct text_span){text.data, error ? 0 : text.len});
    text_buf_free(&text);
}
