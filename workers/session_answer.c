/*
 * Answers to readings, from Redis' reply until they are applied. A list may be 16 MB, and to look
 * through that takes a tenth of a second or more: so all answers stand in one line, and are worked
 * off at the end of each turn for some milliseconds. What stays behind is to its user as if Redis
 * had answered later. The line cannot grow: a turn brings as much as one read of the link, and
 * takes apart more.
 *
 * An answer that came ahead of the subscriber link waits, taken apart, until the link has brought
 * all that was published before it was made, and stands in line again.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "shared/clock.h"
#include "workers/session_parts.h"

#define SLICE_US 4000

static void line_up(struct answer *a)
{
    struct sessions *s = a->s;
    a->next = NULL;
    a->prev = s->last_answer;
    *(a->prev ? &a->prev->next : &s->first_answer) = a;
    s->last_answer = a;
    a->is_in_line = true;
}

static void leave_line(struct answer *a)
{
    struct sessions *s = a->s;
    *(a->prev ? &a->prev->next : &s->first_answer) = a->next;
    *(a->next ? &a->next->prev : &s->last_answer) = a->prev;
    a->is_in_line = false;
}

struct answer *session_answer_new(struct sessions *s, const struct user *u,
                                  struct store_user *stored, answer_fn *fn, void *data)
{
    struct answer *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->s = s;
    a->u = u;
    a->fn = fn;
    a->data = data;
    a->stored = store_user_take(stored);
    line_up(a);
    return a;
}

void session_answer_free(struct answer *a)
{
    if (!a)
        return;
    if (a->is_in_line)
        leave_line(a);
    if (a->waiting_bytes) {
        marker_cancel(a->s->w->markers, &a->marker);
        a->s->waiting_bytes -= a->waiting_bytes;
    }
    session_list_free(&a->list);
    store_user_free(&a->stored);
    free(a);
}

/* ---- waiting for the link ---- */

static size_t bytes_of(const struct text_span *spans, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += spans[i].len + sizeof(*spans);
    return bytes;
}

static size_t bytes_to_keep(const struct answer *a)
{
    const struct store_user *stored = &a->stored;
    return sizeof(*a) + bytes_of(stored->entries, stored->entry_count) +
           bytes_of(stored->read_ids, stored->read_count) + stored->snapshot.len +
           stored->acked.len;
}

/* Where Redis refuses to publish markers, the list is taken as it came. */
static void on_marker(void *data, int error)
{
    struct answer *a = data;
    a->s->waiting_bytes -= a->waiting_bytes;
    a->waiting_bytes = 0;
    a->is_settled = true;
    a->error = error == -EIO ? 0 : error;
    line_up(a);
}

int session_answer_wait(struct answer *a)
{
    struct sessions *s = a->s;
    size_t bytes = bytes_to_keep(a);
    if (s->waiting_bytes && s->waiting_bytes + bytes > SESSION_KEPT_BYTES)
        return -ENOBUFS;
    a->marker = (struct marker){.fn = on_marker, .data = a};
    a->waiting_bytes = bytes;
    s->waiting_bytes += bytes;
    counters_inc(CTR_readings_kept);
    marker_want(s->w->markers, &a->marker);
    return 0;
}

/* ---- the line ---- */

/* False: the time was over before it was done. */
static bool work_off(struct answer *a, int64_t until_us)
{
    if (!a->is_read && !a->error) {
        int rc = session_list_read(&a->list, a->u, &a->stored, until_us);
        if (rc == -EAGAIN)
            return false;
        a->is_read = !rc;
        a->error = rc;
    }
    leave_line(a);
    a->fn(a->data, a, a->error);
    return true;
}

bool session_work(struct worker *w, int64_t now_us)
{
    struct sessions *s = w->sessions;
    int64_t until_us = now_us + SLICE_US;
    while (s->first_answer)
        if (!work_off(s->first_answer, until_us) || clock_mono_us() >= until_us)
            break;
    if (!s->first_answer)
        return false;
    counters_inc(CTR_turn_bound_hits);
    return true;
}
