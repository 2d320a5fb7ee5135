#include "config.h"

#include "workers/session_handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "workers/filter.h"
#include "workers/session_parts.h"
#include "workers/subscriber.h"

/* Devices of one user that one giver gives. */
struct expected {
    struct sessions *s;
    struct user *u;
    struct expected *next; /* of the same user: from other givers */
    void (*on_subscribed)(void *data);
    void *data;
    struct held *held;     /* what came since the marker */
    struct recent *recent; /* what the giver's devices had */
    uint64_t newest_listed; /* as of struct user, there */
    bool is_marked, is_given;
    bool is_broken;        /* the marker tells nothing: the list does */
};

/* What devices had that came from one giver, while it is not what the user's others have. */
struct adopted {
    unsigned refs;
    struct recent *recent;
    uint64_t newest_listed;
};

static struct held_limits held_limits(const struct sessions *s)
{
    return (struct held_limits){
        .max_bytes = (size_t)s->w->opt->send_buffer_limit,
        .max_ids = (size_t)s->w->opt->history_size + HELD_MAX_FRAMES,
    };
}

/* ---- expecting ---- */

struct expected *session_expect(struct worker *w, struct text_span user_id,
                                void (*on_subscribed)(void *data), void *data)
{
    struct expected *e = calloc(1, sizeof(*e));
    struct user *u = e ? hub_add(w->hub, user_id.ptr, user_id.len) : NULL;
    if (!u) {
        free(e);
        return NULL;
    }
    *e = (struct expected){.s = w->sessions,
                           .u = u,
                           .next = u->expected,
                           .on_subscribed = on_subscribed,
                           .data = data};
    u->expected = e;
    e->s->expected_count++;
    subscriber_want(w->subscriber, u);
    return e;
}

bool session_expected_is_heard(const struct expected *e)
{
    return e->u->subscription == SUBSCRIPTION_CONFIRMED;
}

uint64_t session_expected_hash(const struct expected *e)
{
    return e->u->id_hash;
}

void session_expected_subscribed(struct user *u)
{
    for (struct expected *e = u->expected; e; e = e->next) {
        void (*fn)(void *data) = e->on_subscribed;
        e->on_subscribed = NULL;
        if (fn)
            fn(e->data);
    }
}

void session_hold_expected(struct user *u, struct frame *f)
{
    for (struct expected *e = u->expected; e; e = e->next) {
        struct held_limits limits = held_limits(e->s);
        if (!e->is_marked)
            continue;
        if (held_add(&e->held, f, &limits))
            e->is_broken = true; /* what was stored comes from the list */
    }
}

/* ---- what adopted devices have ---- */

const struct recent *session_adopted_recent(const struct device *d, uint64_t *newest_listed)
{
    if (d->busy->adopted && newest_listed)
        *newest_listed = d->busy->adopted->newest_listed;
    return d->busy->adopted ? d->busy->adopted->recent : NULL;
}

static void adopted_unref(struct adopted *a)
{
    if (!a || --a->refs)
        return;
    recent_free(a->recent);
    free(a);
}

void session_adopted_free(struct device *d)
{
    struct adopted *a = d->busy->adopted;
    if (!a)
        return;
    device_busy(d)->adopted = NULL;
    device_settle(d);
    adopted_unref(a);
}

void session_adopted_done(struct sessions *s, struct device *d)
{
    if (!d->busy->adopted || d->state != DEVICE_LIVE)
        return;
    /* Without memory something may be sent twice; nothing is lost. */
    (void)recent_join_known(&d->user->recent, s->known_limit, d->busy->adopted->recent);
    session_adopted_free(d);
}

/* ---- devices come ---- */

int session_expected_recent(struct expected *e, struct text_span saved)
{
    struct unpack in = unpack_of(saved);
    e->newest_listed = unpack_u64(&in);
    struct text_span recent = unpack_bytes(&in);
    recent_free(e->recent);
    e->recent = NULL;
    return unpack_is_done(&in) ? recent_restore(&e->recent, e->s->known_limit, recent) : -EBADMSG;
}

int session_adopt(struct expected *e, struct device *d, const struct handover_device *state)
{
    struct sessions *s = e->s;
    struct held_limits limits = held_limits(s);
    struct device_busy *busy = device_busy(d);
    int error = busy ? session_enter(s, d, e->u->id, e->u->id_len, 0) : -ENOMEM;
    if (error)
        return error;
    d->state = DEVICE_ADOPTED;
    busy->expected = e;
    d->state_given = state->device_state;
    d->overflows = state->overflows;
    if (state->device_state < DEVICE_ATTACHING || state->device_state > DEVICE_LIVE)
        return -EBADMSG;
    error = filter_restore(state->filter, &d->filter);
    if (!error)
        error = handover_resume_restore(state->resume, &busy->resume);
    if (!error)
        error = held_restore(&busy->held, state->held, &limits);
    if (!error)
        error = session_left_out_restore(d, state->left_out);
    if (!error)
        error = session_lag_restore(d, state->lag);
    if (!error)
        error = session_refreshes_restore(s, d, state->refreshes);
    return error;
}

/* ---- going on ---- */

/* Of what came since the marker, repeats of what the devices had lose their id_hash: they are for
 * those only for which they were left out. The rest all will have had. */
static void settle_held(struct expected *e)
{
    struct held *h = e->held;
    size_t kept = 0;
    int64_t now_ms = worker_now_ms(e->s->w);
    for (size_t i = 0; h && i < h->count; i++) {
        struct frame *f = h->items[i].frame;
        if (!f)
            continue; /* its id stays unknown, so that the list is asked for it */
        bool is_message = f->kind == FRAME_USER;
        if (is_message && f->has_id && recent_is_repeat(e->recent, f->id_hash, now_ms))
            h->items[i].id_hash = 0;
        else if (is_message)
            (void)recent_add(&e->recent, e->s->known_limit, f->id_hash, RECENT_LIVE, now_ms);
        h->items[kept++] = h->items[i];
    }
    if (h)
        h->count = kept;
}

static bool has_others(const struct user *u)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (!d->busy->expected)
            return true;
    return false;
}

/* What the devices had becomes the user's. NULL unless they are to be told apart from the user's
 * other devices until the list was read. */
static struct adopted *settle_recent(struct expected *e, bool must_repair)
{
    struct user *u = e->u;
    struct adopted *a = NULL;
    if (!has_others(u)) {
        recent_free(u->recent);
        u->recent = e->recent;
        u->newest_listed = e->newest_listed;
        e->recent = NULL;
        return NULL;
    }
    (void)recent_join_window(&u->recent, e->recent);
    if (must_repair || recent_differs(u->recent, e->recent))
        a = calloc(1, sizeof(*a));
    if (a) {
        *a = (struct adopted){1, e->recent, e->newest_listed};
        e->recent = NULL;
    } else {
        (void)recent_join_known(&u->recent, e->s->known_limit, e->recent);
    }
    return a;
}

/* A command's result that other devices are told of names the one that knows already. */
static bool is_own_doing(const struct device *d, const struct frame *f)
{
    struct message m;
    struct text_span origin;
    char id[CONN_ID_BYTES];
    size_t len;
    const char *payload = frame_payload(f, &len);
    return f->kind == FRAME_REPLY && message_read(payload, len, &m) == JSON_OK && m.origin.len &&
           json_string_plain(m.origin, &origin) && text_span_eq(origin, conn_id(d->conn, id));
}

static void give_held(struct expected *e, struct device *d)
{
    struct held *h = e->held;
    for (size_t i = 0; h && i < h->count; i++) {
        struct frame *f = h->items[i].frame;
        if (!f || is_own_doing(d, f))
            continue;
        bool is_repeat = f->kind == FRAME_USER && !h->items[i].id_hash;
        if (is_repeat && !session_is_left_out(d, f->id_hash))
            continue;
        session_left_out_take(d, f->id_hash);
        if (d->state == DEVICE_LIVE || session_lag_is_stalled(d) ||
            (d->busy->lag && f->kind != FRAME_USER))
            session_give(d, f);
        else if (session_is_waiting(d))
            session_hold(e->s, d, f);
    }
}

static void go_on(struct expected *e, struct device *d, struct adopted *a, bool must_repair)
{
    struct device_busy *busy = device_busy(d); /* has it: expected stands in it */
    busy->expected = NULL;
    d->heard = e->s->broadcasts.newest; /* they were the giver's, or are held */
    d->state = (enum device_state)d->state_given;
    if (d->state == DEVICE_LIVE && must_repair)
        d->state = DEVICE_REPAIRING;
    if (a && d->state != DEVICE_ATTACHING) {
        busy->adopted = a;
        a->refs++;
    }
    device_settle(d);
    give_held(e, d);
    if (d->state != DEVICE_ATTACHING)
        session_refreshes_start(e->s, d);
}

static void unlink_from_user(struct expected *e)
{
    struct expected **at = &e->u->expected;
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    e->s->expected_count--;
}

static void finish(struct expected *e)
{
    struct sessions *s = e->s;
    struct user *u = e->u;
    struct device *next;
    bool needs_list = false;
    settle_held(e);
    bool must_repair = e->is_broken || u->needs_repair ||
                       u->subscription != SUBSCRIPTION_CONFIRMED;
    struct adopted *a = settle_recent(e, must_repair);
    bool is_apart = a != NULL;
    unlink_from_user(e);
    session_walk(s, u);
    for (struct device *d = u->devices; d; d = next) {
        next = d->next;
        if (d->busy->expected == e)
            go_on(e, d, a, must_repair || is_apart);
    }
    for (const struct device *d = u->devices; d; d = d->next)
        needs_list |= session_is_waiting(d) || session_lag_needs_list(s, d);
    adopted_unref(a); /* the reference of this function */
    held_free(e->held);
    recent_free(e->recent);
    free(e);
    if (!session_walked(s, u) && needs_list)
        session_want_reading(s, u);
}

static bool finish_if_whole(struct expected *e)
{
    if (!e->is_given || !(e->is_marked || e->is_broken))
        return false;
    finish(e);
    return true;
}

bool session_expected_marked(struct expected *e)
{
    e->is_marked = true;
    return finish_if_whole(e);
}

bool session_expected_broken(struct expected *e)
{
    e->is_broken = true;
    return finish_if_whole(e);
}

bool session_expected_given(struct expected *e, bool is_fenced)
{
    e->is_given = true;
    e->is_broken |= !is_fenced;
    return finish_if_whole(e);
}

void session_expected_drop(struct expected *e)
{
    e->is_broken = true;
    finish(e);
}

int session_join_broadcasts(struct worker *w, struct text_span saved)
{
    struct sessions *s = w->sessions;
    struct recent *theirs = NULL;
    int error = recent_restore(&theirs, s->known_limit, saved);
    if (!error)
        error = recent_join_window(&s->broadcasts.recent, theirs);
    recent_free(theirs);
    return error == -ENOMEM ? 0 : error; /* something may be relayed twice */
}

/* ---- the giver's side ---- */

void session_save_known(const struct user *u, struct text_buf *out)
{
    pack_u64(out, u->newest_listed);
    size_t begun = pack_begin(out);
    recent_save(u->recent, false, out);
    pack_end(out, begun);
}

void session_save_broadcasts(struct worker *w, struct text_buf *out)
{
    recent_save(w->sessions->broadcasts.recent, true, out);
}

static struct text_span span_of(const struct text_buf *b)
{
    return (struct text_span){b->data, b->len};
}

void session_save(struct worker *w, struct device *d, struct session_parts *parts,
                  struct handover_device *state)
{
    state->device_state = (uint8_t)d->state;
    state->overflows = d->overflows;
    filter_save(d->filter, &parts->filter);
    handover_resume_save(d->busy->resume, &parts->resume);
    session_left_out_save(d, &parts->left_out);
    session_lag_save(w->sessions, d, &parts->lag); /* may take what is held */
    held_save(d->busy->held, &parts->held);
    session_refreshes_save(d, &parts->refreshes);
    state->filter = span_of(&parts->filter);
    state->resume = span_of(&parts->resume);
    state->left_out = span_of(&parts->left_out);
    state->held = span_of(&parts->held);
    state->lag = span_of(&parts->lag);
    state->refreshes = span_of(&parts->refreshes);
}

void session_parts_reset(struct session_parts *parts)
{
    text_buf_reset(&parts->filter);
    text_buf_reset(&parts->resume);
    text_buf_reset(&parts->left_out);
    text_buf_reset(&parts->held);
    text_buf_reset(&parts->lag);
    text_buf_reset(&parts->refreshes);
}

void session_parts_free(struct session_parts *parts)
{
    text_buf_free(&parts->filter);
    text_buf_free(&parts->resume);
    text_buf_free(&parts->left_out);
    text_buf_free(&parts->held);
    text_buf_free(&parts->lag);
    text_buf_free(&parts->refreshes);
}
