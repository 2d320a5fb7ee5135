#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "workers/fullsync.h"
#include "workers/session_parts.h"

/* One block for all arrays, the widest elements first. */
static int allocate(struct session_list *l, size_t n)
{
    size_t each = sizeof(struct message) + sizeof(struct merge_entry) + sizeof(struct frame *) +
                  2 * sizeof(uint32_t);
    char *at = calloc(n + 1, each);
    if (!at)
        return -ENOMEM;
    l->block = at;
    l->messages = (struct message *)(void *)at;
    at += n * sizeof(struct message);
    l->entries = (struct merge_entry *)(void *)at;
    at += n * sizeof(struct merge_entry);
    l->frames = (struct frame **)(void *)at;
    at += n * sizeof(struct frame *);
    l->order = (uint32_t *)(void *)at;
    l->missed = l->order + n;
    return 0;
}

static void read_entry(struct session_list *l, const struct user *u, size_t i, struct text_span raw)
{
    struct message *m = &l->messages[i];
    enum json_result result = message_read(raw.ptr, raw.len, m);
    if (result != JSON_OK) {
        counters_inc(CTR_stored_invalid);
        log_warning("stored-invalid", "user", u->id, "why", json_result_text(result));
        return; /* the entry stays zeroed: not valid */
    }
    l->entries[i] = (struct merge_entry){.id_hash = m->id_hash,
                                         .timestamp_us = m->timestamp_us,
                                         .is_valid = true,
                                         .has_id = m->has_id};
}

/* ---- sets of hashes, sorted ---- */

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool in_set(const uint64_t *set, size_t count, uint64_t hash)
{
    return count && bsearch(&hash, set, count, sizeof(*set), compare_hashes);
}

static int count_unread(struct session_list *l, const struct store_user *stored)
{
    uint64_t *marks = malloc((stored->read_count + 1) * sizeof(*marks));
    if (!marks)
        return -ENOMEM;
    for (size_t i = 0; i < stored->read_count; i++)
        marks[i] = message_id_hash(stored->read_ids[i].ptr, stored->read_ids[i].len);
    qsort(marks, stored->read_count, sizeof(*marks), compare_hashes);
    for (size_t k = 0; k < l->order_count; k++) {
        const struct merge_entry *e = &l->entries[l->order[k]];
        l->unread += e->has_id && !in_set(marks, stored->read_count, e->id_hash);
    }
    free(marks);
    return 0;
}

size_t session_list_stale_marks(const struct session_list *l, const struct store_user *stored,
                                struct text_span *out, size_t max)
{
    uint64_t *listed = malloc((l->order_count + 1) * sizeof(*listed));
    size_t count = 0;
    if (!listed)
        return 0;
    for (size_t k = 0; k < l->order_count; k++)
        listed[k] = l->entries[l->order[k]].id_hash;
    qsort(listed, l->order_count, sizeof(*listed), compare_hashes);
    for (size_t i = 0; i < stored->read_count && count < max; i++) {
        struct text_span mark = stored->read_ids[i];
        if (!in_set(listed, l->order_count, message_id_hash(mark.ptr, mark.len)))
            out[count++] = mark;
    }
    free(listed);
    return count;
}

/* ---- interface ---- */

/* So many bytes are read between two looks at the clock: more than the link brings in a turn. */
#define CLOCK_EVERY_BYTES 32768

/* False: time is over, and something is left. */
static bool read_entries(struct session_list *l, const struct user *u,
                         const struct store_user *stored, int64_t until_us)
{
    size_t bytes = 0;
    for (; l->read_count < l->count; l->read_count++) {
        struct text_span raw = stored->entries[l->read_count];
        if (bytes >= CLOCK_EVERY_BYTES) {
            bytes = 0;
            if (clock_mono_us() >= until_us)
                return false;
        }
        read_entry(l, u, l->read_count, raw);
        bytes += raw.len;
    }
    return true;
}

static int begin(struct session_list *l, const struct store_user *stored)
{
    *l = (struct session_list){.count = stored->entry_count,
                               .is_cut = stored->is_cut,
                               .snapshot = stored->snapshot};
    return allocate(l, l->count);
}

/* What needs all entries. */
static int conclude(struct session_list *l, const struct store_user *stored)
{
    uint32_t *scratch = malloc((2 * l->count + 1) * sizeof(*scratch));
    int error = scratch ? 0 : -ENOMEM;
    if (!error) {
        l->order_count = merge_order(l->entries, l->count, l->order, scratch);
        for (size_t k = l->order_count; k-- > 0 && !l->last_id.len;)
            if (l->entries[l->order[k]].has_id)
                l->last_id = l->messages[l->order[k]].id;
        if (stored->acked.len) {
            l->has_acked = true;
            l->acked = message_id_hash(stored->acked.ptr, stored->acked.len);
        }
        error = count_unread(l, stored);
    }
    free(scratch);
    return error;
}

int session_list_read(struct session_list *l, const struct user *u, const struct store_user *stored,
                      int64_t until_us)
{
    int error = l->block ? 0 : begin(l, stored);
    if (!error && !read_entries(l, u, stored, until_us))
        return -EAGAIN;
    error = error ? error : conclude(l, stored);
    if (error)
        session_list_free(l);
    return error;
}

void session_list_free(struct session_list *l)
{
    for (size_t i = 0; l->frames && i < l->count; i++)
        frame_unref(l->frames[i]);
    free(l->block);
    *l = (struct session_list){0};
}

struct frame *session_list_frame(struct session_list *l, uint32_t index)
{
    if (l->frames[index])
        return l->frames[index];
    const struct message *m = &l->messages[index];
    struct frame *f = frame_text(FRAME_USER, m->raw.ptr, m->raw.len);
    if (f) {
        f->is_stored = true;
        f->id_hash = m->id_hash;
        f->type_hash = m->type_hash;
        f->conflate_key = m->conflate_key;
    }
    l->frames[index] = f;
    return f;
}

void session_list_full_sync(const struct session_list *l, struct device *d, const char *type,
                            bool is_recovered, size_t missed)
{
    char id[CONN_ID_BYTES];
    const struct user *u = d->user;
    struct text_buf out = {0};
    struct fullsync f = {
        .type = type,
        .with_zone = d->conn->worker->style.with_zone,
        .user_id = {u->id, u->id_len},
        .snapshot = l->snapshot,
        .is_recovered = is_recovered,
        .missed = missed,
        .unread = l->unread,
        .last_id = l->last_id,
        .connection_id = conn_id(d->conn, id),
    };
    fullsync_write(&out, &f);
    if (out.failed)
        conn_close(d->conn, CLOSE_INTERNAL);
    else
        conn_send_text(d->conn, out.data, out.len);
    text_buf_free(&out);
}
