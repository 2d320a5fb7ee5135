#include "config.h"

#include "workers/held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"

/* Gives the frames up. Broadcasts and what has no id are lost with them: no list has them. */
static void give_up(struct held *h, size_t max_ids)
{
    size_t kept = 0;
    for (size_t i = 0; i < h->count; i++) {
        struct held_item *item = &h->items[i];
        bool may_be_listed = !item->frame || (item->frame->kind == FRAME_USER && item->id_hash);
        frame_unref(item->frame);
        item->frame = NULL;
        if (may_be_listed)
            h->items[kept++] = *item;
        else
            counters_inc(CTR_messages_dropped_slow);
    }
    if (kept > max_ids) { /* what is older has left the list by now */
        counters_add(CTR_messages_dropped_slow, kept - max_ids);
        memmove(h->items, h->items + (kept - max_ids), max_ids * sizeof(*h->items));
        kept = max_ids;
    }
    h->count = kept;
    h->frames = h->bytes = 0;
}

static int make_room(struct held *h)
{
    if (h->count < h->cap)
        return 0;
    size_t cap = h->cap ? h->cap * 2 : 8;
    struct held_item *items = realloc(h->items, cap * sizeof(*items));
    if (!items)
        return -ENOMEM;
    h->items = items;
    h->cap = cap;
    return 0;
}

static int append(struct held *h, struct frame *f)
{
    int error = make_room(h);
    if (error)
        return error;
    h->items[h->count++] = (struct held_item){frame_ref(f), f->id_hash};
    h->frames++;
    h->bytes += f->len;
    return 0;
}

int held_add(struct held **h, struct frame *f, const struct held_limits *limits)
{
    if (!*h)
        *h = calloc(1, sizeof(**h));
    if (!*h || append(*h, f) < 0) {
        counters_inc(CTR_messages_dropped_slow);
        return -ENOMEM;
    }
    if ((*h)->frames <= HELD_MAX_FRAMES && (*h)->bytes <= limits->max_bytes)
        return 0;
    give_up(*h, limits->max_ids);
    return -ENOBUFS;
}

void held_free(struct held *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < h->count; i++)
        frame_unref(h->items[i].frame);
    free(h->items);
    free(h);
}

void held_save(const struct held *h, struct text_buf *out)
{
    for (size_t i = 0; h && i < h->count; i++) {
        pack_u64(out, h->items[i].id_hash);
        pack_u8(out, h->items[i].frame != NULL);
        if (h->items[i].frame)
            frame_save(h->items[i].frame, out);
    }
}

static int restore_given_up(struct held **h, uint64_t id_hash)
{
    if (!*h && !(*h = calloc(1, sizeof(**h))))
        return -ENOMEM;
    int error = make_room(*h);
    if (!error)
        (*h)->items[(*h)->count++] = (struct held_item){NULL, id_hash};
    return error;
}

int held_restore(struct held **h, struct text_span saved, const struct held_limits *limits)
{
    struct unpack in = unpack_of(saved);
    int error = 0;
    while (!error && unpack_left(&in)) {
        uint64_t id_hash = unpack_u64(&in);
        if (!unpack_u8(&in)) {
            error = in.is_bad ? -EBADMSG : restore_given_up(h, id_hash);
            continue;
        }
        struct frame *f = frame_restore(&in);
        error = !f ? -EBADMSG : held_add(h, f, limits);
        frame_unref(f);
        if (error == -ENOBUFS) /* the ids are kept */
            error = 0;
    }
    return error ? error : in.is_bad ? -EBADMSG : 0;
}
