/*
 * A device that reads too slowly. From the first message to its user that finds no room, none is
 * kept in memory for it, but ids: what it is owed. Once its queue has nearly run dry the list is
 * read as for repair, and what is owed and stands there is sent in list order, so much at a time as
 * there is room for. Live messages are held during that reading, as for every device that waits for
 * one; when nothing is owed any more, they follow, and the device lags no longer.
 *
 *   stalled   too much waits: ids are noted
 *   served    its queue has room, and a reading is under way for it: DEVICE_REPAIRING, messages
 *             are held
 *
 * Between the two: an ordinary reading for other devices of the user, or one after a lost link.
 * What it shows to have been missed is owed too, and what it does not show will never be stored:
 * producers store first.
 *
 * Of a type that conflates the newest frame of each key is put aside, for it may be in no list, and
 * its arrival was promised.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/log.h"
#include "shared/pack.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/session_parts.h"

/* Keys of which the newest frame is put aside; their bytes are bounded by send-buffer-limit. */
#define ASIDE_MAX 1024
/* Ids owed, beyond history-size. From the first number on a reading is to tell which are not stored
 * at all; beyond the second (readings fail) the oldest are forgotten. */
#define OWED_SETTLED 4096
#define OWED_MAX 8192

struct owed {
    uint64_t id_hash;
    bool conflates;
};

struct aside {
    uint64_t key; /* the frame's, here for those who look through all of them */
    struct frame *frame;
};

struct lag {
    uint64_t *had;       /* sorted: all that the list had when it was read last or, before that,
                          * what the user's devices had; what is owed is among it */
    size_t had_count;
    bool is_had_partial; /* the user's devices had forgotten something */
    struct owed *owed;   /* oldest first */
    size_t count, cap;
    size_t asked;        /* of these, noted before the reading under way was asked for */
    size_t forgotten;    /* ids given up, and not made good by a reading yet */
    struct aside *aside; /* oldest first, one for each key */
    size_t aside_count, aside_cap, aside_bytes;
    uint64_t first_stored, last_stored; /* owed, and in the list when it was read; 0: none */
    size_t next_bytes;   /* of the frame that found no room when it was served; 0: not known */
    int64_t since_us;    /* wall clock */
    bool is_stalled;
    bool is_cut;         /* the list does not reach back to where the device stands */
};

bool session_lag_is_stalled(const struct device *d)
{
    return d->busy->lag && d->busy->lag->is_stalled;
}

struct session_lag_state session_lag_state(const struct device *d)
{
    const struct lag *lag = d->busy->lag;
    return (struct session_lag_state){lag->count + lag->aside_count, lag->since_us};
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_in(const uint64_t *sorted, size_t count, uint64_t id_hash)
{
    return count && bsearch(&id_hash, sorted, count, sizeof(*sorted), compare_ids);
}

static bool is_drained(const struct device *d)
{
    return conn_is_drained(d->conn, d->busy->lag->next_bytes);
}

static bool is_much(const struct sessions *s, const struct lag *lag)
{
    return lag->count >= (size_t)s->w->opt->history_size + OWED_SETTLED;
}

bool session_lag_needs_list(const struct sessions *s, const struct device *d)
{
    return session_lag_is_stalled(d) && d->state != DEVICE_ADOPTED &&
           (is_drained(d) || is_much(s, d->busy->lag));
}

/* ---- what is owed ---- */

/* What is owed no more by name is not to pass for had either, or nobody would send it. */
static void take_from_had(struct lag *lag, uint64_t id_hash)
{
    uint64_t *at = lag->had_count ? bsearch(&id_hash, lag->had, lag->had_count, sizeof(*lag->had),
                                            compare_ids) : NULL;
    if (at)
        memmove(at, at + 1, (size_t)(lag->had + --lag->had_count - at) * sizeof(*at));
}

static void forget_oldest(struct lag *lag, size_t count)
{
    for (size_t i = 0; i < count; i++)
        take_from_had(lag, lag->owed[i].id_hash);
    memmove(lag->owed, lag->owed + count, (lag->count - count) * sizeof(*lag->owed));
    lag->count -= count;
    lag->asked -= lag->asked < count ? lag->asked : count;
    lag->forgotten += count;
}

static void owe(struct sessions *s, struct device *d, uint64_t id_hash, bool conflates)
{
    struct lag *lag = d->busy->lag;
    if (lag->count >= (size_t)s->w->opt->history_size + OWED_MAX)
        forget_oldest(lag, lag->count / 4);
    if (lag->count == lag->cap) {
        size_t cap = lag->cap ? lag->cap * 2 : 32;
        struct owed *owed = realloc(lag->owed, cap * sizeof(*owed));
        if (!owed) {
            conn_close(d->conn, CLOSE_INTERNAL);
            return;
        }
        lag->owed = owed;
        lag->cap = cap;
    }
    lag->owed[lag->count++] = (struct owed){id_hash, conflates};
}

/* ---- the newest of each key ---- */

static void take_aside(struct lag *lag, size_t i)
{
    lag->aside_bytes -= lag->aside[i].frame->len;
    frame_unref(lag->aside[i].frame);
    lag->aside_count--;
    memmove(lag->aside + i, lag->aside + i + 1, (lag->aside_count - i) * sizeof(*lag->aside));
}

/* Takes over the caller's reference, also when it fails. */
static int append_aside(struct lag *lag, struct frame *f)
{
    if (lag->aside_count == lag->aside_cap) {
        size_t cap = lag->aside_cap ? lag->aside_cap * 2 : 8;
        struct aside *aside = realloc(lag->aside, cap * sizeof(*aside));
        if (!aside) {
            frame_unref(f);
            return -ENOMEM;
        }
        lag->aside = aside;
        lag->aside_cap = cap;
    }
    lag->aside[lag->aside_count++] = (struct aside){f->conflate_key, f};
    lag->aside_bytes += f->len;
    return 0;
}

/* There is no room for all keys: unless it is stored, the oldest is lost. */
static void give_up_oldest_aside(struct lag *lag)
{
    for (size_t i = lag->count; i-- > 0;)
        if (lag->owed[i].id_hash == lag->aside[0].frame->id_hash) {
            lag->owed[i].conflates = false;
            break;
        }
    take_aside(lag, 0);
}

/* A newer message of the key came. */
static void replace_aside(struct lag *lag, uint64_t conflate_key)
{
    for (size_t i = 0; i < lag->aside_count; i++)
        if (lag->aside[i].key == conflate_key) {
            take_aside(lag, i);
            return;
        }
}

static int put_aside(struct sessions *s, struct lag *lag, struct frame *f)
{
    size_t most = (size_t)s->w->opt->send_buffer_limit / 4;
    replace_aside(lag, f->conflate_key);
    while (lag->aside_count == ASIDE_MAX ||
           (lag->aside_count && lag->aside_bytes + f->len > most))
        give_up_oldest_aside(lag);
    return append_aside(lag, frame_ref(f));
}

/* ---- lagging begins and goes on ---- */

void session_lag_note(struct sessions *s, struct device *d, struct frame *f)
{
    fate_device(d, f, TRACE_LAGGING);
    owe(s, d, f->id_hash, f->conflate_key != 0);
    if (f->conflate_key && put_aside(s, d->busy->lag, f) < 0)
        conn_close(d->conn, CLOSE_INTERNAL);
}

/* What the device has so far is what the user's devices have: it was one of them until now. */
static struct lag *lag_new(const struct sessions *s, const struct user *u)
{
    struct lag *lag = calloc(1, sizeof(*lag));
    if (!lag)
        return NULL;
    lag->had_count = recent_count(u->recent);
    lag->had = malloc((lag->had_count + 1) * sizeof(*lag->had));
    if (!lag->had) {
        free(lag);
        return NULL;
    }
    recent_copy(u->recent, lag->had);
    qsort(lag->had, lag->had_count, sizeof(*lag->had), compare_ids);
    lag->is_had_partial = recent_has_forgotten(u->recent);
    lag->since_us = worker_wall_ms(s->w) * 1000;
    lag->is_stalled = true;
    counters_inc(CTR_devices_lagging);
    return lag;
}

void session_lag_begin(struct sessions *s, struct device *d, struct frame *f)
{
    char id[CONN_ID_BYTES];
    struct device_busy *busy = device_busy(d);
    struct lag *lag = busy ? lag_new(s, d->user) : NULL;
    if (!lag) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    busy->lag = lag;
    log_debug("device-lags", "conn", conn_id(d->conn, id));
    session_lag_note(s, d, f);
}

static void lag_free(struct lag *lag)
{
    if (!lag)
        return;
    while (lag->aside_count)
        take_aside(lag, lag->aside_count - 1);
    free(lag->aside);
    free(lag->had);
    free(lag->owed);
    free(lag);
    counters_dec(CTR_devices_lagging);
}

void session_lag_free(struct device *d)
{
    lag_free(d->busy->lag);
    if (d->busy->lag)
        device_busy(d)->lag = NULL;
    device_settle(d);
}

void session_lag_asked(struct device *d)
{
    struct lag *lag = d->busy->lag;
    if (!lag)
        return;
    if (d->state != DEVICE_ATTACHING && lag->is_stalled && is_drained(d)) {
        lag->is_stalled = false;
        d->state = DEVICE_REPAIRING;
    }
    lag->asked = lag->count;
}

/* Held frames become ids. */
static void stall(struct sessions *s, struct device *d)
{
    struct held *h = device_take_held(d);
    d->in_reading = false;
    d->busy->lag->is_stalled = true;
    for (size_t i = 0; h && i < h->count; i++)
        if (!h->items[i].frame)
            owe(s, d, h->items[i].id_hash, false);
        else if (h->items[i].frame->kind == FRAME_USER)
            session_lag_note(s, d, h->items[i].frame);
    held_free(h);
}

bool session_lag_hold(struct sessions *s, struct device *d, struct frame *f)
{
    const struct held *h = d->busy->held;
    if (!d->busy->lag)
        return false;
    if (h && (h->frames >= HELD_MAX_FRAMES ||
              h->bytes + f->len > (size_t)s->w->opt->send_buffer_limit / 2))
        stall(s, d);
    if (d->busy->lag->is_stalled) {
        session_lag_note(s, d, f);
        return true;
    }
    if (f->conflate_key)
        replace_aside(d->busy->lag, f->conflate_key);
    return false;
}

void session_on_drained(struct worker *w, struct device *d)
{
    if (session_lag_needs_list(w->sessions, d))
        session_want_reading(w->sessions, d->user);
}

/* ---- the list was read ---- */

/* Everything that one reading means for one device. */
struct serving {
    struct sessions *s;
    struct device *d;
    struct lag *lag;
    struct session_list *list;
    uint64_t *owed;     /* sorted */
    uint64_t *listed;   /* sorted */
    uint64_t *aside;    /* ids, sorted */
    uint64_t *held;     /* ids of what is aside, then of what is held */
    uint32_t *held_out;
    size_t held_count;
    struct merge_result result;
};

static bool is_listed(const struct serving *v, uint64_t id_hash)
{
    return is_in(v->listed, v->list->order_count, id_hash);
}

static bool is_had(const void *data, uint64_t id_hash)
{
    const struct serving *v = data;
    const struct recent *adopted = session_adopted_recent(v->d, NULL);
    return recent_knows(adopted ? adopted : v->d->user->recent, id_hash) ||
           is_in(v->lag->had, v->lag->had_count, id_hash);
}

static bool is_owed(const void *data, uint64_t id_hash)
{
    const struct serving *v = data;
    return is_in(v->owed, v->lag->count, id_hash);
}

/* One block, the widest elements first. */
static int allocate(struct serving *v)
{
    const struct lag *lag = v->lag;
    const struct held *h = v->d->busy->held;
    size_t listed = v->list->order_count, held = lag->aside_count + (h ? h->count : 0);
    v->owed = malloc((lag->count + listed + lag->aside_count + held + 1) * sizeof(uint64_t) +
                     held * sizeof(uint32_t));
    if (!v->owed)
        return -ENOMEM;
    v->listed = v->owed + lag->count;
    v->aside = v->listed + listed;
    v->held = v->aside + lag->aside_count;
    v->held_out = (uint32_t *)(v->held + held);
    for (size_t i = 0; i < lag->count; i++)
        v->owed[i] = lag->owed[i].id_hash;
    for (size_t k = 0; k < listed; k++)
        v->listed[k] = v->list->entries[v->list->order[k]].id_hash;
    for (size_t i = 0; i < lag->aside_count; i++)
        v->held[v->held_count++] = v->aside[i] = lag->aside[i].frame->id_hash;
    for (size_t i = 0; h && i < h->count; i++)
        v->held[v->held_count++] = h->items[i].id_hash;
    qsort(v->owed, lag->count, sizeof(*v->owed), compare_ids);
    qsort(v->listed, listed, sizeof(*v->listed), compare_ids);
    qsort(v->aside, lag->aside_count, sizeof(*v->aside), compare_ids);
    return 0;
}

/*
 * The list was cut off (trimmed, expired, lost) between the place where the device stands and what
 * is there now: what it stood before is gone from the list, and something it was owed with it.
 * When a full list shows nothing that the device had, and the oldest it is owed is not there, that
 * is taken to be gone too: it may have been published only.
 */
static bool was_cut(const struct serving *v)
{
    const struct lag *lag = v->lag;
    bool had_any = v->result.missed_count < v->list->order_count;
    bool is_full = v->list->is_cut ||
                   v->list->order_count >= (size_t)v->s->w->opt->history_size;
    if (lag->last_stored && !is_listed(v, lag->last_stored))
        return true;
    if (had_any)
        return false;
    if (lag->first_stored && !is_listed(v, lag->first_stored))
        return true;
    return is_full && (lag->forgotten || (lag->count && !is_listed(v, lag->owed[0].id_hash)));
}

struct keyed {
    uint64_t key;
    size_t at; /* in missed */
};

static int compare_keyed(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Of missed entries that conflate only the newest of each key stays. */
static void conflate_missed(struct serving *v)
{
    struct session_list *l = v->list;
    size_t count = 0, out = 0;
    struct keyed *keyed = malloc((v->result.missed_count + 1) * sizeof(*keyed));
    if (!keyed)
        return; /* more is sent than need be */
    for (size_t i = 0; i < v->result.missed_count; i++)
        if (l->messages[l->missed[i]].conflate_key)
            keyed[count++] = (struct keyed){l->messages[l->missed[i]].conflate_key, i};
    qsort(keyed, count, sizeof(*keyed), compare_keyed);
    for (size_t i = 0; i + 1 < count; i++)
        if (keyed[i].key == keyed[i + 1].key) {
            fate_id(v->d, l->entries[l->missed[keyed[i].at]].id_hash, TRACE_CONFLATED);
            l->missed[keyed[i].at] = UINT32_MAX;
            counters_inc(CTR_messages_conflated);
        }
    for (size_t i = 0; i < v->result.missed_count; i++)
        if (l->missed[i] != UINT32_MAX)
            l->missed[out++] = l->missed[i];
    v->result.missed_count = out;
    free(keyed);
}

/* Counts what is owed, not in the list and will not come there; what was noted while the list was
 * being read may still. Keeps the latter. */
static void settle_absent(struct serving *v)
{
    struct lag *lag = v->lag;
    size_t kept = 0, made_good = 0;
    for (size_t i = 0; i < v->result.missed_count; i++)
        made_good += !is_owed(v, v->list->entries[v->list->missed[i]].id_hash);
    if (lag->forgotten > made_good)
        counters_add(CTR_messages_dropped_slow, lag->forgotten - made_good);
    lag->forgotten = 0;
    for (size_t i = 0; i < lag->count; i++) {
        const struct owed *o = &lag->owed[i];
        if (is_listed(v, o->id_hash))
            continue;
        if (i >= lag->asked)
            lag->owed[kept++] = *o;
        else if (!o->conflates) {
            counters_inc(CTR_messages_dropped_slow);
            fate_id(v->d, o->id_hash, TRACE_DROPPED);
        } else if (!is_in(v->aside, lag->aside_count, o->id_hash)) { /* what is aside comes */
            counters_inc(CTR_messages_conflated);
            fate_id(v->d, o->id_hash, TRACE_CONFLATED);
        }
    }
    lag->count = kept;
    lag->asked = 0;
}

/* What is owed now: missed from there on, and what may still come. */
static void owe_rest(struct serving *v, size_t from)
{
    struct session_list *l = v->list;
    struct lag *lag = v->lag;
    size_t rest = v->result.missed_count - from, count = rest + lag->count;
    struct owed *owed = malloc((count + 1) * sizeof(*owed));
    if (!owed) {
        conn_close(v->d->conn, CLOSE_INTERNAL);
        return;
    }
    for (size_t i = 0; i < rest; i++) {
        const struct message *m = &l->messages[l->missed[from + i]];
        owed[i] = (struct owed){m->id_hash, m->conflate_key != 0};
    }
    if (lag->count)
        memcpy(owed + rest, lag->owed, lag->count * sizeof(*owed));
    lag->first_stored = rest ? owed[0].id_hash : 0;
    lag->last_stored = rest ? owed[rest - 1].id_hash : 0;
    free(lag->owed);
    lag->owed = owed;
    lag->count = count;
    lag->cap = count + 1;
}

static size_t count_wanted(const struct serving *v)
{
    const struct session_list *l = v->list;
    size_t wanted = 0;
    for (size_t i = 0; i < v->result.missed_count; i++)
        wanted += filter_allows(v->d->filter, l->messages[l->missed[i]].type_hash);
    return wanted;
}

static void tell_cut(struct serving *v)
{
    bool is_lower = v->s->w->style.lower_case;
    counters_inc(CTR_lag_replays_unrecovered);
    session_list_full_sync(v->list, v->d, is_lower ? "full_sync" : "FULL_SYNC", false,
                           count_wanted(v));
}

/* Sends what there is room for; returns how many of missed are done with. */
static size_t send_missed(struct serving *v)
{
    struct device *d = v->d;
    size_t i = 0;
    for (; i < v->result.missed_count; i++) {
        struct frame *f = session_list_frame(v->list, v->list->missed[i]);
        if (!f) {
            conn_close(d->conn, CLOSE_INTERNAL);
            break;
        }
        if (!session_wants(d, f)) {
            counters_inc(CTR_deliveries_filtered);
            fate_device(d, f, TRACE_FILTERED);
            continue;
        }
        if (!conn_catch_up(d->conn, f)) {
            v->lag->next_bytes = f->len;
            break;
        }
        counters_inc(CTR_deliveries);
        counters_inc(CTR_messages_replayed);
        fate_source(d, f, CTR_messages_replayed);
    }
    return i;
}

/* A frame of held_out. */
static struct frame *held_frame(const struct serving *v, const struct lag *lag,
                                const struct held *h, size_t i)
{
    size_t at = v->held_out[i];
    return at < lag->aside_count ? lag->aside[at].frame : h->items[at - lag->aside_count].frame;
}

/* Not all had room. What is aside and was sent from the list is not to be sent again; what was held
 * and is in the list is sent or owed already. */
static void stay(struct serving *v, size_t sent)
{
    struct session_list *l = v->list;
    struct lag *lag = v->lag;
    struct held *h = device_take_held(v->d);
    size_t aside_count = lag->aside_count;
    lag->is_stalled = true;
    owe_rest(v, sent);
    for (size_t i = lag->aside_count; i-- > 0;) {
        uint64_t id_hash = lag->aside[i].frame->id_hash;
        bool is_rest = !is_listed(v, id_hash);
        for (size_t k = sent; k < v->result.missed_count && !is_rest; k++)
            is_rest = l->entries[l->missed[k]].id_hash == id_hash;
        if (!is_rest)
            take_aside(lag, i);
    }
    for (size_t i = 0; i < v->result.held_count; i++)
        if (v->held_out[i] >= aside_count)
            session_lag_note(v->s, v->d, h->items[v->held_out[i] - aside_count].frame);
    held_free(h);
}

/* All was sent. What follows may be the beginning of the next lag. */
static void finish(struct serving *v)
{
    char id[CONN_ID_BYTES];
    struct device *d = v->d;
    struct held *h = device_take_held(d);
    struct lag *lag = v->lag;
    device_busy(d)->lag = NULL;
    device_settle(d);
    d->state = DEVICE_LIVE;
    counters_inc(CTR_lag_replays);
    log_debug("device-lags-no-more", "conn", conn_id(d->conn, id));
    for (size_t i = 0; i < v->result.held_count; i++)
        session_give(d, held_frame(v, lag, h, i));
    lag_free(lag);
    held_free(h);
}

void session_lag_serve(struct sessions *s, struct device *d, struct session_list *list)
{
    struct serving v = {.s = s, .d = d, .lag = d->busy->lag, .list = list};
    if (allocate(&v) < 0) {
        conn_close(d->conn, CLOSE_INTERNAL);
        return;
    }
    struct merge_known known = {.is_known = is_had,
                                .data = &v,
                                .is_owed = is_owed,
                                .owed_data = &v,
                                .has_forgotten = v.lag->is_had_partial,
                                .before_us = v.lag->since_us - SESSION_CROSSING_US};
    v.result = merge_repair(list->entries, list->order, list->order_count, &known, v.held,
                            v.held_count, list->missed, v.held_out);
    v.lag->is_cut = was_cut(&v) || v.lag->is_cut;
    settle_absent(&v);
    conflate_missed(&v);
    d->state = DEVICE_LIVE;
    if (v.lag->is_stalled) {
        owe_rest(&v, 0);
    } else {
        if (v.lag->is_cut)
            tell_cut(&v);
        v.lag->is_cut = false;
        size_t sent = send_missed(&v);
        if (sent < v.result.missed_count)
            stay(&v, sent);
        else
            finish(&v);
    }
    free(v.owed);
}

void session_lag_listed(struct device *d, const struct session_list *list)
{
    struct lag *lag = d->busy->lag;
    uint64_t *had = lag ? malloc((list->order_count + 1) * sizeof(*had)) : NULL;
    if (!had)
        return; /* without memory something may be sent twice; nothing is lost */
    for (size_t k = 0; k < list->order_count; k++)
        had[k] = list->entries[list->order[k]].id_hash;
    qsort(had, list->order_count, sizeof(*had), compare_ids);
    free(lag->had);
    lag->had = had;
    lag->had_count = list->order_count;
    lag->is_had_partial = false;
}

/* ---- for another process ---- */

void session_lag_save(struct sessions *s, struct device *d, struct text_buf *out)
{
    if (!d->busy->lag)
        return;
    if (!d->busy->lag->is_stalled)
        stall(s, d);
    const struct lag *lag = d->busy->lag;
    pack_u8(out, (uint8_t)(lag->is_had_partial | lag->is_cut << 1));
    pack_u64(out, lag->forgotten);
    pack_u64(out, lag->first_stored);
    pack_u64(out, lag->last_stored);
    pack_i64(out, lag->since_us);
    pack_u32(out, (uint32_t)lag->had_count);
    for (size_t i = 0; i < lag->had_count; i++)
        pack_u64(out, lag->had[i]);
    pack_u32(out, (uint32_t)lag->count);
    for (size_t i = 0; i < lag->count; i++) {
        pack_u64(out, lag->owed[i].id_hash);
        pack_u8(out, lag->owed[i].conflates);
    }
    for (size_t i = 0; i < lag->aside_count; i++)
        frame_save(lag->aside[i].frame, out);
}

static int restore(struct lag *lag, struct unpack *in)
{
    uint8_t flags = unpack_u8(in);
    lag->is_stalled = true;
    lag->is_had_partial = flags & 1;
    lag->is_cut = flags & 2;
    lag->forgotten = unpack_u64(in);
    lag->first_stored = unpack_u64(in);
    lag->last_stored = unpack_u64(in);
    lag->since_us = unpack_time(in);
    lag->had_count = unpack_count(in, 8);
    lag->had = malloc((lag->had_count + 1) * sizeof(*lag->had));
    for (size_t i = 0; lag->had && i < lag->had_count; i++)
        lag->had[i] = unpack_u64(in);
    lag->count = unpack_count(in, 9);
    lag->cap = lag->count + 1;
    lag->owed = malloc(lag->cap * sizeof(*lag->owed));
    if (!lag->had || !lag->owed)
        return -ENOMEM;
    for (size_t i = 0; i < lag->count; i++) {
        uint64_t id_hash = unpack_u64(in);
        lag->owed[i] = (struct owed){id_hash, unpack_u8(in) != 0};
    }
    qsort(lag->had, lag->had_count, sizeof(*lag->had), compare_ids);
    while (unpack_left(in) && lag->aside_count < ASIDE_MAX) {
        struct frame *f = frame_restore(in);
        if (!f)
            return -EBADMSG;
        if (append_aside(lag, f) < 0)
            return -ENOMEM;
    }
    return unpack_is_done(in) ? 0 : -EBADMSG;
}

int session_lag_restore(struct device *d, struct text_span saved)
{
    struct unpack in = unpack_of(saved);
    if (!saved.len)
        return 0;
    struct device_busy *busy = device_busy(d);
    struct lag *lag = busy ? calloc(1, sizeof(*lag)) : NULL;
    if (!lag)
        return -ENOMEM;
    counters_inc(CTR_devices_lagging);
    int error = restore(lag, &in);
    if (error)
        lag_free(lag);
    else
        busy->lag = lag;
    return error;
}
