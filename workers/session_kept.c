/*
 * An answer that came ahead of the subscriber link: kept until the link has brought all that was
 * published before it was made.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/session_parts.h"

static size_t bytes_of(const struct text_span *spans, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += spans[i].len;
    return bytes;
}

static struct text_span copy(char **to, struct text_span from)
{
    struct text_span made = {*to, from.len};
    if (from.len)
        memcpy(*to, from.ptr, from.len);
    *to += from.len;
    return made;
}

static size_t bytes_to_keep(const struct store_user *from)
{
    return (from->entry_count + from->read_count) * sizeof(struct text_span) +
           bytes_of(from->entries, from->entry_count) +
           bytes_of(from->read_ids, from->read_count) + from->snapshot.len + from->acked.len;
}

/* One block: the struct, the spans, and then their bytes. */
static struct kept *kept_new(const struct store_user *from, size_t bytes)
{
    struct kept *k = malloc(sizeof(*k) + bytes);
    if (!k)
        return NULL;
    struct text_span *to = (struct text_span *)(k + 1);
    char *text = (char *)(to + from->entry_count + from->read_count);
    k->bytes = bytes;
    k->stored = (struct store_user){.entries = to,
                                    .entry_count = from->entry_count,
                                    .read_ids = to + from->entry_count,
                                    .read_count = from->read_count,
                                    .snapshot = copy(&text, from->snapshot),
                                    .acked = copy(&text, from->acked),
                                    .is_cut = from->is_cut};
    for (size_t i = 0; i < from->entry_count; i++)
        *to++ = copy(&text, from->entries[i]);
    for (size_t i = 0; i < from->read_count; i++)
        *to++ = copy(&text, from->read_ids[i]);
    return k;
}

int session_keep(struct sessions *s, struct user *u, const struct store_user *stored, marker_fn *fn)
{
    size_t bytes = bytes_to_keep(stored);
    if (s->kept_bytes && s->kept_bytes + bytes > SESSION_KEPT_BYTES)
        return -ENOBUFS;
    struct kept *k = kept_new(stored, bytes);
    if (!k)
        return -ENOMEM;
    k->marker = (struct marker){.fn = fn, .data = u};
    u->kept = k;
    s->kept_bytes += bytes;
    counters_inc(CTR_readings_kept);
    marker_want(s->w->markers, &k->marker);
    return 0;
}

struct kept *session_take_kept(struct sessions *s, struct user *u)
{
    struct kept *k = u->kept;
    u->kept = NULL;
    s->kept_bytes -= k->bytes;
    return k;
}

void session_unkeep(struct sessions *s, struct user *u)
{
    if (!u->kept)
        return;
    marker_cancel(s->w->markers, &u->kept->marker);
    free(session_take_kept(s, u));
}
