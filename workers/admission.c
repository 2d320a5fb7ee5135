#include "config.h"

#include "workers/admission.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/keys.h"
#include "shared/pack.h"
#include "workers/auth.h"

#define TICK_MS 1000
#define BATCH_MAX 256 /* tokens in one question */

/* What goes on when the user is known, and of a token that takes the place of another, that it is
 * not revoked. */
struct pending {
    struct token_claims claims;
    bool needs_user;
    bool is_reply_due;
    bool is_lower;
    struct text_buf kept; /* messages, packed */
};

struct admission {
    struct conn *conn;
    struct admission *next, *prev; /* of all; who was looked up longest ago is first */
    struct store_call *revoked;    /* the questions under way */
    struct store_call *user;
    struct pending *pending;       /* NULL: the connection went on */
    uint32_t batch;                /* the last one it was in */
    bool is_new;                   /* nothing was heard about this token yet */
    bool is_owed;                  /* Redis could not be asked, or did not answer */
    uint16_t jti_len;
    char jti[];
};

struct admissions {
    struct worker *w;
    struct admission *first, *last;
    size_t count;
    uint32_t batch;
    struct ev_timer tick;
};

struct batch {
    struct admissions *owner;
    uint32_t number;
};

/* ---- questions ---- */

bool admission_maps(const struct worker *w)
{
    return w->opt->user_map_key && w->opt->user_map_key[0];
}

struct store_call *admission_ask_revoked(struct worker *w, struct text_span jti, store_done_fn *fn,
                                         void *data)
{
    struct text_buf key = {0};
    struct store_call *call = NULL;
    keys_expand_jti(&key, w->opt->denylist_key, jti.ptr, jti.len);
    if (!key.failed)
        call = store_exists(w->store, &(struct text_span){key.data, key.len}, 1, fn, data);
    text_buf_free(&key);
    return call;
}

struct store_call *admission_ask_user(struct worker *w, const struct token_claims *claims,
                                      store_text_fn *fn, void *data)
{
    return store_hget(w->store, w->opt->user_map_key,
                      (struct text_span){claims->user_id, claims->user_id_len}, fn, data);
}

bool admission_take_user(struct token_claims *claims, struct text_span answer)
{
    if (!answer.len || !keys_is_user_id(answer.ptr, answer.len))
        return false;
    memcpy(claims->user_id, answer.ptr, answer.len);
    claims->user_id[answer.len] = '\0';
    claims->user_id_len = answer.len;
    return true;
}

/* ---- the list ---- */

static void line_up(struct admissions *s, struct admission *a)
{
    a->next = NULL;
    a->prev = s->last;
    if (s->last)
        s->last->next = a;
    else
        s->first = a;
    s->last = a;
    s->count++;
}

static void take_out(struct admissions *s, struct admission *a)
{
    if (a->prev)
        a->prev->next = a->next;
    else
        s->first = a->next;
    if (a->next)
        a->next->prev = a->prev;
    else
        s->last = a->prev;
    s->count--;
}

static int64_t tick_ms(const struct admissions *s)
{
    int64_t interval = s->w->opt->denylist_interval;
    return interval < TICK_MS ? interval : TICK_MS;
}

static void wind_up(struct admissions *s)
{
    if (!s->count || tick_ms(s) <= 0 || ev_is_active(&s->tick))
        return;
    ev_timer_set(&s->tick, (double)tick_ms(s) / 1000., 0.);
    ev_timer_start(s->w->loop, &s->tick);
}

/* ---- answers ---- */

static bool is_open(const struct conn *c)
{
    return c->state == CONN_AUTH || c->state == CONN_OPEN;
}

static void refuse(struct conn *c, enum token_result why)
{
    auth_failed(c, token_result_text(why));
    conn_close(c, CLOSE_AUTH);
}

static void close_revoked(struct admission *a)
{
    if (!is_open(a->conn))
        return;
    if (a->is_new)
        refuse(a->conn, TOKEN_REVOKED);
    else
        conn_close(a->conn, CLOSE_REVOKED);
}

static void give_back(struct conn *c, const struct text_buf *kept)
{
    struct unpack in = unpack_of((struct text_span){kept->data, kept->len});
    while (kept->len && !unpack_is_done(&in)) {
        struct text_span text = unpack_bytes(&in);
        if (in.is_bad)
            return;
        conn_hear(c, text.ptr, text.len);
    }
}

/* What is heard may bring another token, and with it another admission: from there on only the
 * connection is looked at. */
static void go_on(struct conn *c, struct pending *p)
{
    conn_admitted(c, &p->claims, p->is_reply_due, p->is_lower);
    give_back(c, &p->kept);
    if (c->admission && !c->admission->jti_len && !c->admission->pending)
        admission_end(c);
}

static void pending_free(struct pending *p)
{
    if (!p)
        return;
    text_buf_free(&p->kept);
    free(p);
}

/* Redis did not tell the user: an open connection goes on meanwhile as before. */
static void go_on_as_before(struct admission *a)
{
    struct conn *c = a->conn;
    struct text_buf kept = a->pending->kept;
    a->pending->kept = (struct text_buf){0};
    give_back(c, &kept);
    text_buf_free(&kept);
    conn_go_on(c);
}

/* An answer came, or none will. A token that cannot be looked up now is taken, and looked up when
 * Redis is back. */
static void decide(struct admission *a)
{
    struct conn *c = a->conn;
    struct pending *p = a->pending;
    if (!p || a->revoked || a->user || !is_open(c))
        return;
    if (p->needs_user) {
        if (c->state == CONN_OPEN)
            go_on_as_before(a);
        return;
    }
    a->pending = NULL;
    go_on(c, p);
    pending_free(p);
}

static void on_revoked(void *data, int error, int64_t is_revoked)
{
    struct admission *a = data;
    a->revoked = NULL;
    if (!error && is_revoked) {
        close_revoked(a);
        return;
    }
    if (error)
        a->is_owed = true;
    else
        a->is_new = false;
    decide(a);
}

static void on_user(void *data, int error, struct text_span answer)
{
    struct admission *a = data;
    a->user = NULL;
    if (!is_open(a->conn))
        return;
    if (!error && !admission_take_user(&a->pending->claims, answer)) {
        refuse(a->conn, TOKEN_NO_USER);
        return;
    }
    a->is_owed |= error != 0;
    a->pending->needs_user = error != 0;
    decide(a);
}

static void ask(struct admission *a)
{
    struct worker *w = a->conn->worker;
    a->is_owed = false;
    if (a->jti_len && !a->revoked) {
        a->revoked = admission_ask_revoked(w, (struct text_span){a->jti, a->jti_len}, on_revoked,
                                           a);
        a->is_owed |= !a->revoked;
    }
    if (a->pending && a->pending->needs_user && !a->user) {
        a->user = admission_ask_user(w, &a->pending->claims, on_user, a);
        a->is_owed |= !a->user;
    }
}

/* ---- connections ---- */

void admission_end(struct conn *c)
{
    struct admission *a = c->admission;
    if (!a)
        return;
    c->admission = NULL;
    store_cancel(a->revoked);
    store_cancel(a->user);
    take_out(c->worker->admissions, a);
    pending_free(a->pending);
    free(a);
}

static int set(struct conn *c, struct text_span jti, struct pending *p)
{
    struct admission *a = calloc(1, sizeof(*a) + jti.len);
    if (!a) {
        pending_free(p);
        return -ENOMEM;
    }
    a->conn = c;
    a->pending = p;
    a->jti_len = (uint16_t)jti.len;
    memcpy(a->jti, jti.ptr, jti.len);
    c->admission = a;
    line_up(c->worker->admissions, a);
    wind_up(c->worker->admissions);
    return 0;
}

int admission_begin(struct conn *c, const struct token_claims *claims, bool is_reply_due,
                    bool is_lower)
{
    struct pending *p = NULL;
    bool maps = admission_maps(c->worker);
    admission_end(c);
    if (!maps && !claims->jti_len)
        return 1;
    if (maps || c->state == CONN_OPEN) {
        p = calloc(1, sizeof(*p));
        if (!p)
            return -ENOMEM;
        p->claims = *claims;
        p->needs_user = maps;
        p->is_reply_due = is_reply_due;
        p->is_lower = is_lower;
    }
    int error = set(c, (struct text_span){claims->jti, claims->jti_len}, p);
    if (error)
        return error;
    struct admission *a = c->admission;
    a->is_new = true;
    ask(a);
    if (p && !maps && !a->revoked) { /* Redis is away */
        a->pending = NULL;
        pending_free(p);
        p = NULL;
    }
    return p ? 0 : 1;
}

bool admission_is_pending(const struct conn *c)
{
    return c->admission && c->admission->pending;
}

bool admission_is_awaited(const struct conn *c)
{
    const struct admission *a = c->admission;
    return a && a->pending && (c->state == CONN_AUTH || a->revoked || a->user);
}

int admission_keep(struct conn *c, const char *text, size_t len)
{
    struct text_buf *kept = &c->admission->pending->kept;
    pack_bytes(kept, text, len);
    return kept->failed ? -ENOMEM : 0;
}

struct text_span admission_jti(const struct conn *c)
{
    if (!c->admission)
        return (struct text_span){NULL, 0};
    return (struct text_span){c->admission->jti, c->admission->jti_len};
}

int admission_restore(struct conn *c, struct text_span jti)
{
    const char *key = c->worker->opt->denylist_key;
    if (!jti.len || !key || !key[0])
        return 0;
    if (!keys_is_user_id(jti.ptr, jti.len))
        return -EBADMSG;
    int error = set(c, jti, NULL);
    if (!error)
        ask(c->admission);
    return error;
}

unsigned admissions_revoke(struct admissions *s, const char *jti)
{
    size_t len = strlen(jti);
    unsigned closed = 0;
    for (struct admission *a = s ? s->first : NULL; a; a = a->next) {
        if (a->jti_len != len || memcmp(a->jti, jti, len) != 0 || !is_open(a->conn))
            continue;
        conn_close(a->conn, CLOSE_REVOKED);
        closed++;
    }
    return closed;
}

/* ---- in turns ---- */

/* How many of a batch are revoked is known; which, each must be asked for. */
static void on_batch(void *data, int error, int64_t revoked)
{
    struct batch *b = data;
    struct admissions *s = b->owner;
    uint32_t number = b->number;
    free(b);
    if (error || !revoked)
        return;
    for (struct admission *a = s->first; a; a = a->next)
        if (a->batch == number)
            ask(a);
}

/* The next ones; false: Redis cannot be asked now. */
static bool ask_batch(struct admissions *s, size_t count)
{
    struct text_buf keys = {0};
    struct text_span spans[BATCH_MAX];
    size_t ends[BATCH_MAX], n = 0;
    struct batch *b = malloc(sizeof(*b));
    uint32_t number = ++s->batch;
    for (struct admission *a; count > 0 && (a = s->first); count--) {
        take_out(s, a);
        line_up(s, a);
        if (!a->jti_len || a->revoked)
            continue;
        a->batch = number;
        keys_expand_jti(&keys, s->w->opt->denylist_key, a->jti, a->jti_len);
        ends[n++] = keys.len;
    }
    for (size_t i = 0; i < n && !keys.failed; i++) {
        size_t start = i ? ends[i - 1] : 0;
        spans[i] = (struct text_span){keys.data + start, ends[i] - start};
    }
    struct store_call *call = NULL;
    if (b && n && !keys.failed) {
        *b = (struct batch){s, number};
        call = store_exists(s->w->store, spans, n, on_batch, b);
    }
    if (!call)
        free(b);
    text_buf_free(&keys);
    return call || !n;
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct admissions *s = timer->data;
    (void)loop, (void)events;
    int64_t interval = s->w->opt->denylist_interval;
    size_t left = (size_t)(((int64_t)s->count * tick_ms(s) + interval - 1) / interval);
    while (left > 0) {
        size_t n = left < BATCH_MAX ? left : BATCH_MAX;
        if (!ask_batch(s, n))
            break; /* who was not asked now is again next round, or when Redis is back */
        left -= n;
    }
    wind_up(s);
}

static void on_up(void *data)
{
    struct admissions *s = data;
    for (struct admission *a = s->first; a; a = a->next)
        if (a->is_owed)
            ask(a);
}

/* ---- start and end ---- */

struct admissions *admissions_new(struct worker *w)
{
    struct admissions *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->w = w;
    ev_timer_init(&s->tick, on_tick, 0., 0.);
    s->tick.data = s;
    store_listen(w->store, on_up, s);
    return s;
}

void admissions_free(struct admissions *s)
{
    if (!s)
        return;
    ev_timer_stop(s->w->loop, &s->tick);
    free(s);
}
