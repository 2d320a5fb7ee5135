#include "config.h"

#include "src/explain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/chance.h"
#include "shared/inquiry.h"
#include "shared/log.h"
#include "shared/segment.h"

/* Whose records; the first is this instance. */
struct source {
    char instance[INQUIRY_INSTANCE_BYTES];
    uint32_t trace_size;
    uint32_t closed;           /* connections, for KICK and REVOKE */
};

struct found {
    struct inquiry_record record;
    uint32_t source;
};

enum others { OTHERS_NOT_ASKED, OTHERS_ASKED, OTHERS_REACHED, OTHERS_FAILED };

/* Who wants to know. */
enum asker { ASKER_CONTROL, ASKER_WORKER, ASKER_FOREIGN };

struct question {
    struct explain *owner;
    struct question *next;
    struct inquiry q;          /* number, user, id; of a foreign one the asker, too */
    enum asker asker;
    uint64_t number;           /* this instance's: what its workers give back */
    uint64_t ticket;           /* of belfryctl's */
    uint32_t brought_by;       /* slot that brought it, but for belfryctl's */
    uint32_t next_ring;        /* rings before it are read */
    uint32_t asked, answered;  /* workers */
    uint32_t relay;            /* the slot that was asked to ask the others; OTHERS_ASKED */
    bool was_asked[COUNTERS_MAX_SLOTS];
    bool has_told[COUNTERS_MAX_SLOTS];
    enum others others;
    int error;                 /* OTHERS_FAILED */
    uint64_t own_links;        /* of this instance's workers, which hear the question too */
    uint64_t links;            /* all that it reached */
    uint64_t links_answered;
    uint64_t closed;           /* connections, of all instances */
    struct text_buf rows;      /* SHOW: connections */
    bool is_cut;
    struct source sources[EXPLAIN_INSTANCES];
    uint32_t source_count;
    struct found *found;
    size_t found_count, found_cap;
    struct ev_timer limit;
    struct ev_timer step;      /* the next ring; at the end the answer */
};

struct explain {
    struct explain_shared shared;
    struct question *questions;
    struct trace_record scratch[TRACE_FOUND_MAX];
};

/* ---- what is found ---- */

static void add_found(struct question *q, uint32_t source, const struct inquiry_record *r)
{
    if (q->found_count == (q->asker == ASKER_FOREIGN ? EXPLAIN_FOREIGN_RECORDS : EXPLAIN_RECORDS)) {
        q->is_cut = true;
        return;
    }
    if (q->found_count == q->found_cap) {
        size_t cap = q->found_cap ? q->found_cap * 2 : 64;
        struct found *grown = realloc(q->found, cap * sizeof(*grown));
        if (!grown) {
            q->is_cut = true;
            return;
        }
        q->found = grown;
        q->found_cap = cap;
    }
    q->found[q->found_count++] = (struct found){*r, source};
}

static void read_ring(struct question *q, uint32_t slot)
{
    struct explain *e = q->owner;
    size_t n = trace_find(e->shared.trace, slot, q->q.user_hash, q->q.id_hash, e->scratch,
                          &q->is_cut);
    for (size_t i = 0; i < n; i++)
        add_found(q, 0, &(struct inquiry_record){.trace = e->scratch[i], .slot = slot});
}

/* Row of an instance, made when new; -ENOSPC. */
static int source_of(struct question *q, const char *instance, uint32_t trace_size)
{
    for (uint32_t i = 0; i < q->source_count; i++)
        if (!strcmp(q->sources[i].instance, instance))
            return (int)i;
    if (q->source_count == EXPLAIN_INSTANCES)
        return -ENOSPC;
    struct source *s = &q->sources[q->source_count];
    memcpy(s->instance, instance, strlen(instance) + 1);
    s->trace_size = trace_size;
    return (int)q->source_count++;
}

/* ---- answers ---- */

/* Why the other instances were not asked. */
static void write_failure(const struct question *q, struct text_buf *out)
{
    char text[96];
    const char *why = q->others == OTHERS_FAILED ? log_errno(q->error)
                      : q->others == OTHERS_ASKED ? "no answer from Redis in time"
                                                  : "no worker has a link to Redis";
    if (q->others == OTHERS_ASKED && !q->has_told[q->relay]) {
        snprintf(text, sizeof(text), "the worker of slot %u, which was to ask them, is silent",
                 q->relay);
        why = text;
    }
    text_add_json(out, why, strlen(why));
}

static void write_head(const struct question *q, struct text_buf *out)
{
    uint64_t reached = q->links > q->own_links ? q->links - q->own_links : 0;
    text_addf(out, "{\"ok\":true,\"instance_id\":\"%s\",\"trace_size\":%u,\"cut\":%s",
              q->sources[0].instance, q->sources[0].trace_size, q->is_cut ? "true" : "false");
    text_addf(out, ",\"workers\":{\"asked\":%u,\"answered\":%u,\"silent\":[", q->asked,
              q->answered);
    const char *comma = "";
    for (uint32_t slot = 0; slot < COUNTERS_MAX_SLOTS; slot++)
        if (q->was_asked[slot] && !q->has_told[slot]) {
            text_addf(out, "%s%u", comma, slot);
            comma = ",";
        }
    text_adds(out, "]}");
    text_addf(out, ",\"others\":{\"asked\":%s,\"error\":",
              q->others == OTHERS_REACHED ? "true" : "false");
    if (q->others == OTHERS_REACHED)
        text_adds(out, "null");
    else
        write_failure(q, out);
    text_addf(out, ",\"links\":%llu,\"answered\":%llu}", (unsigned long long)reached,
              (unsigned long long)q->links_answered);
}

static void write_answer(const struct question *q, struct text_buf *out)
{
    write_head(q, out);
    if (q->q.ask == INQUIRY_SHOW) {
        text_adds(out, ",\"connections\":[");
        text_adds(out, q->rows.data ? q->rows.data : "");
        text_adds(out, "]}");
        return;
    }
    if (q->q.ask == INQUIRY_KICK || q->q.ask == INQUIRY_REVOKE)
        text_addf(out, ",\"closed\":%llu", (unsigned long long)q->closed);
    text_adds(out, ",\"instances\":[");
    for (uint32_t i = 0; i < q->source_count; i++)
        text_addf(out, "%s{\"instance\":\"%s\",\"trace_size\":%u,\"closed\":%u}", i ? "," : "",
                  q->sources[i].instance, q->sources[i].trace_size, q->sources[i].closed);
    text_adds(out, "],\"records\":[");
    for (size_t i = 0; i < q->found_count; i++) {
        if (i)
            text_addc(out, ',');
        inquiry_write_record(out, &q->found[i].record, q->sources[q->found[i].source].instance);
    }
    text_adds(out, "]}");
}

/* The answer to another instance, in as many parts as it takes. */
static void tell_asker(const struct question *q)
{
    const struct explain *e = q->owner;
    struct inquiry_message m = {.head = {.number = q->q.number,
                                         .links = (uint32_t)q->own_links,
                                         .closed = q->sources[0].closed,
                                         .trace_size = e->shared.trace->size,
                                         .asker_slot = q->q.asker_slot}};
    size_t at = 0;
    memcpy(m.head.instance, q->q.instance, sizeof(m.head.instance));
    do {
        m.head.count = 0;
        while (at < q->found_count && m.head.count < INQUIRY_RECORDS)
            m.records[m.head.count++] = q->found[at++].record;
        m.head.flags = (q->is_cut ? INQUIRY_CUT : 0U) |
                       (at == q->found_count ? INQUIRY_LAST : 0U);
        if (supervisor_send(e->shared.supervisor, q->brought_by, CONTROL_TELL, &m,
                            inquiry_bytes(m.head.count)) < 0)
            return; /* the asker says that an answer is missing */
    } while (at < q->found_count);
}

/* The answer to one of this instance's workers; fd -1: there is none, and why. */
static void tell_worker(const struct explain *e, uint32_t slot, uint64_t number, int fd, int why)
{
    struct inquiry_message m = {.head = {.number = number, .receivers = why}};
    int error = supervisor_send_fd(e->shared.supervisor, slot, CONTROL_EXPLAINED, &m,
                                   inquiry_bytes(0), fd);
    if (error) /* it says that the server did not answer */
        log_debug("inquiry-not-told", "slot", LOG_INT(slot), "error", log_errno(error));
    if (fd >= 0)
        close(fd);
}

static void forget(struct question *q)
{
    struct question **at = &q->owner->questions;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    ev_timer_stop(q->owner->shared.loop, &q->limit);
    ev_timer_stop(q->owner->shared.loop, &q->step);
    free(q->found);
    text_buf_free(&q->rows);
    free(q);
}

static void finish(struct question *q)
{
    const struct explain_shared *shared = &q->owner->shared;
    struct text_buf text = {0};
    if (q->asker == ASKER_FOREIGN)
        tell_asker(q);
    else
        write_answer(q, &text);
    if (q->asker == ASKER_CONTROL)
        shared->on_answer(shared->data, q->ticket, &text);
    if (q->asker == ASKER_WORKER) {
        int fd = text.failed ? -ENOMEM
                             : segment_seal_text("belfry-answer",
                                                 (struct text_span){text.data, text.len});
        tell_worker(q->owner, q->brought_by, q->q.number, fd, fd);
    }
    text_buf_free(&text);
    forget(q);
}

static bool is_complete(const struct question *q)
{
    if (q->next_ring < q->owner->shared.counters->head->slots || q->answered < q->asked)
        return false;
    if (q->others == OTHERS_ASKED)
        return false;
    return q->others != OTHERS_REACHED || q->links_answered + q->own_links >= q->links;
}

/* Answers in the next turn: whoever told us something may go on with what it was doing. */
static void finish_if_complete(struct question *q)
{
    if (is_complete(q))
        ev_timer_start(q->owner->shared.loop, &q->step);
}

static void on_limit(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct question *q = timer->data;
    while (q->next_ring < q->owner->shared.counters->head->slots)
        read_ring(q, q->next_ring++);
    finish(q);
}

static void on_step(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)events;
    struct question *q = timer->data;
    if (q->next_ring < q->owner->shared.counters->head->slots) {
        read_ring(q, q->next_ring++);
        ev_timer_start(loop, timer);
    } else if (is_complete(q)) {
        finish(q);
    }
}

/* ---- questions ---- */

static bool hears_redis(const struct explain *e, uint32_t slot)
{
    return counters_get(e->shared.counters, slot, CTR_redis_subscriber_up) &&
           counters_get(e->shared.counters, slot, CTR_redis_command_up);
}

/* The answers come over the subscriber link of the worker that asks. */
static void ask_workers(struct question *q)
{
    const struct explain *e = q->owner;
    struct inquiry_message m = {.head = q->q};
    m.head.number = q->number;
    for (uint32_t slot = 0; slot < e->shared.counters->head->slots; slot++) {
        bool asks_others = q->asker != ASKER_FOREIGN && q->q.ask != INQUIRY_SHOW &&
                           q->others == OTHERS_NOT_ASKED && hears_redis(e, slot);
        m.head.flags = asks_others ? INQUIRY_OTHERS : 0;
        int error = supervisor_send(e->shared.supervisor, slot, CONTROL_ASK, &m, inquiry_bytes(0));
        /* A link of the master before, from which a worker ends, answers for itself. */
        if (error != -ESRCH)
            q->own_links += counters_get(e->shared.counters, slot, CTR_redis_subscriber_up);
        if (error)
            continue;
        q->asked++;
        q->was_asked[slot] = true;
        if (asks_others) {
            q->others = OTHERS_ASKED;
            q->relay = slot;
        }
    }
}

static uint32_t count_questions(const struct explain *e, bool is_foreign)
{
    uint32_t n = 0;
    for (const struct question *q = e->questions; q; q = q->next)
        n += (q->asker == ASKER_FOREIGN) == is_foreign;
    return n;
}

static struct question *question_new(struct explain *e, const struct inquiry *inquiry,
                                     enum asker asker, int64_t within_ms)
{
    struct question *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    q->owner = e;
    q->q = *inquiry;
    q->asker = asker;
    /* So that a late answer to another question, or another instance's, is told apart. */
    q->number = chance_seed();
    source_of(q, e->shared.instance_id, e->shared.trace->size);
    if (q->q.ask != INQUIRY_EXPLAIN) /* the traces say nothing about it */
        q->next_ring = e->shared.counters->head->slots;
    q->next = e->questions;
    e->questions = q;
    ev_timer_init(&q->limit, on_limit, (double)within_ms / 1e3, 0.0);
    ev_timer_init(&q->step, on_step, 0.0, 0.0);
    q->limit.data = q->step.data = q;
    ev_timer_start(e->shared.loop, &q->limit);
    ev_timer_start(e->shared.loop, &q->step);
    return q;
}

int explain_ask(struct explain *e, uint64_t ticket, enum inquiry_ask ask, struct text_span user,
                struct text_span id, int64_t within_ms)
{
    struct inquiry inquiry = {.ask = ask};
    if (inquiry_set(&inquiry, user.ptr, user.len, id.ptr, id.len) < 0)
        return -EINVAL;
    if (count_questions(e, false) >= EXPLAIN_OWN)
        return -EBUSY;
    if (within_ms <= 0)
        within_ms = EXPLAIN_LIMIT_MS;
    struct question *q =
        question_new(e, &inquiry, ASKER_CONTROL,
                     within_ms < EXPLAIN_LIMIT_MAX_MS ? within_ms : EXPLAIN_LIMIT_MAX_MS);
    if (!q)
        return -ENOMEM;
    q->ticket = ticket;
    ask_workers(q);
    return 0;
}

static void on_asked(struct explain *e, uint32_t slot, const struct inquiry *inquiry)
{
    if (count_questions(e, true) >= EXPLAIN_FOREIGN) {
        log_warning("inquiry-refused", "asker", inquiry->instance, "limit", "at once");
        return;
    }
    struct question *q = question_new(e, inquiry, ASKER_FOREIGN, EXPLAIN_RELAYED_LIMIT_MS);
    if (!q)
        return;
    q->brought_by = slot;
    ask_workers(q);
}

/* What belfryctl may ask, a worker may ask for an operator's page: this, and nothing that changes
 * anything. */
static void on_inquire(struct explain *e, uint32_t slot, const struct inquiry *asked)
{
    struct inquiry inquiry = {.ask = INQUIRY_EXPLAIN, .number = asked->number};
    struct question *q = NULL;
    int error = inquiry_set(&inquiry, asked->user, strlen(asked->user), asked->id,
                            strlen(asked->id));
    if (!error && count_questions(e, false) >= EXPLAIN_OWN)
        error = -EBUSY;
    if (!error && !(q = question_new(e, &inquiry, ASKER_WORKER, EXPLAIN_RELAYED_LIMIT_MS)))
        error = -ENOMEM;
    if (error) {
        tell_worker(e, slot, asked->number, -1, error);
        return;
    }
    q->brought_by = slot;
    ask_workers(q);
}

/* ---- what workers tell ---- */

/* What others tell is as true as Redis is well guarded; it must only not overflow. */
static void add_closed(struct question *q, int source, const struct inquiry_message *m)
{
    q->closed += m->head.closed;
    if (source >= 0 && q->sources[source].closed <= UINT32_MAX - m->head.closed)
        q->sources[source].closed += m->head.closed;
}

/* One worker's part is whole when it says so. */
static void on_own(struct question *q, uint32_t slot, const struct inquiry_message *m)
{
    if (q->has_told[slot])
        return;
    if (m->head.flags & INQUIRY_LAST) {
        q->has_told[slot] = true;
        q->answered++;
    }
    q->is_cut |= (m->head.flags & INQUIRY_CUT) != 0;
    add_closed(q, 0, m);
    for (uint32_t i = 0; m->head.kind == INQUIRY_OWN && i < m->head.count; i++)
        add_found(q, 0, &m->records[i]);
    if (m->head.kind != INQUIRY_TEXT || !m->head.count)
        return;
    if (q->rows.len + m->head.count > EXPLAIN_ROWS_BYTES) {
        q->is_cut = true;
        return;
    }
    if (q->rows.len)
        text_addc(&q->rows, ',');
    text_add(&q->rows, m->text, m->head.count);
}

static void on_remote(struct question *q, const struct inquiry_message *m)
{
    int source = source_of(q, m->head.instance, m->head.trace_size);
    q->is_cut |= source < 0 || m->head.flags & INQUIRY_CUT;
    add_closed(q, source, m);
    for (uint32_t i = 0; source >= 0 && i < m->head.count; i++)
        add_found(q, (uint32_t)source, &m->records[i]);
    if (m->head.flags & INQUIRY_LAST)
        q->links_answered += m->head.links;
}

static void on_told(struct question *q, uint32_t slot, const struct inquiry_message *m)
{
    switch (m->head.kind) {
    case INQUIRY_OWN:
    case INQUIRY_TEXT:
        on_own(q, slot, m);
        break;
    case INQUIRY_PUBLISHED:
        q->others = m->head.receivers < 0 ? OTHERS_FAILED : OTHERS_REACHED;
        q->error = m->head.receivers < 0 ? (int)m->head.receivers : 0;
        q->links = m->head.receivers > 0 ? (uint64_t)m->head.receivers : 0;
        break;
    case INQUIRY_REMOTE:
        if (q->asker != ASKER_FOREIGN)
            on_remote(q, m);
        break;
    default:
        break;
    }
    finish_if_complete(q);
}

void explain_on_message(struct explain *e, uint32_t slot, enum control_type type, const void *body,
                        size_t len)
{
    struct inquiry_message m;
    if (!inquiry_take(body, len, &m) || slot >= COUNTERS_MAX_SLOTS) {
        log_warning("inquiry-unreadable", "slot", LOG_INT(slot), "message", control_name(type));
        return;
    }
    if (type == CONTROL_ASKED) {
        on_asked(e, slot, &m.head);
        return;
    }
    if (type == CONTROL_INQUIRE) {
        on_inquire(e, slot, &m.head);
        return;
    }
    for (struct question *q = e->questions; q; q = q->next)
        if (q->number == m.head.number) {
            on_told(q, slot, &m);
            return;
        }
}

struct explain *explain_new(const struct explain_shared *shared)
{
    struct explain *e = calloc(1, sizeof(*e));
    if (e)
        e->shared = *shared;
    return e;
}

void explain_free(struct explain *e)
{
    while (e && e->questions)
        forget(e->questions);
    free(e);
}
