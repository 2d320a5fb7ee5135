#include "config.h"

#include "workers/outq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"
#include "workers/delivery.h"

#define KEYS_MIN_SLOTS 16
#define PONGS_KEPT_BYTES 4096 /* beyond, only the last ping of several is answered */

enum item_kind { ITEM_FRAME, ITEM_BYTES, ITEM_CONTROL };

struct outq_item {
    struct outq_item *next, *prev;
    struct frame *frame;   /* ITEM_FRAME */
    uint32_t len;
    uint32_t kind : 2;     /* enum item_kind */
    trace_ticket ticket : TRACE_TICKET_BITS;
    unsigned char bytes[]; /* the other kinds */
};

/* Open addressing. A key whose frame is gone keeps its slot, for the next of its key, until the
 * next rebuild. */
struct key_slot {
    uint64_t key;           /* 0: free */
    struct outq_item *item; /* NULL: nothing of this key waits */
};

struct outq_keys {
    size_t mask;
    size_t used; /* slots with a key */
    struct key_slot slots[];
};

/* ---- keys ---- */

/* Messages to a user and to everybody do not replace each other. 0: never conflates. */
static uint64_t key_of(const struct frame *f)
{
    if (f->kind == FRAME_REPLY || !f->conflate_key)
        return 0;
    uint64_t key = f->kind == FRAME_BROADCAST ? ~f->conflate_key : f->conflate_key;
    return key ? key : 1;
}

static uint64_t key_of_item(const struct outq_item *item)
{
    return item->kind == ITEM_FRAME ? key_of(item->frame) : 0;
}

static struct outq_keys *keys_new(size_t live)
{
    size_t size = KEYS_MIN_SLOTS;
    while (size < live * 4)
        size *= 2;
    struct outq_keys *keys = calloc(1, sizeof *keys + size * sizeof *keys->slots);
    if (keys)
        keys->mask = size - 1;
    return keys;
}

/* The key's slot, or the free one where it belongs. */
static struct key_slot *keys_find(struct outq_keys *keys, uint64_t key)
{
    size_t i = (size_t)(key ^ key >> 32) & keys->mask;
    while (keys->slots[i].key && keys->slots[i].key != key)
        i = (i + 1) & keys->mask;
    return &keys->slots[i];
}

static void keys_put(struct outq_keys *keys, uint64_t key, struct outq_item *item)
{
    struct key_slot *slot = keys_find(keys, key);
    keys->used += !slot->key;
    *slot = (struct key_slot){key, item};
}

/* Room for one more key. */
static int keys_grow(struct outq *q)
{
    struct outq_keys *old = q->keys;
    size_t live = 0;
    if (old->used + 1 <= (old->mask + 1) / 4 * 3)
        return 0;
    for (size_t i = 0; i <= old->mask; i++)
        live += old->slots[i].item != NULL;
    struct outq_keys *keys = keys_new(live + 1);
    if (!keys)
        return -ENOMEM;
    for (size_t i = 0; i <= old->mask; i++)
        if (old->slots[i].item)
            keys_put(keys, old->slots[i].key, old->slots[i].item);
    free(old);
    q->keys = keys;
    return 0;
}

/* The item came to the tail. Without memory the queue stops conflating. */
static void keys_note(struct outq *q, struct outq_item *item)
{
    uint64_t key = key_of_item(item);
    if (!q->keys || !key)
        return;
    if (keys_grow(q) == 0)
        keys_put(q->keys, key, item);
    else
        outq_stop_conflating(q);
}

static void keys_forget(struct outq *q, const struct outq_item *item)
{
    uint64_t key = q->keys ? key_of_item(item) : 0;
    struct key_slot *slot = key ? keys_find(q->keys, key) : NULL;
    if (slot && slot->item == item)
        slot->item = NULL;
}

/* ---- items ---- */

static bool has_room(const struct outq *q, size_t len)
{
    return len <= OUTQ_BYTES_MAX - q->bytes;
}

/* Of this queue, NULL without memory. */
static struct outq_item *item_of_bytes(const struct outq *q, enum item_kind kind, const void *bytes,
                                       size_t len)
{
    if (!has_room(q, len))
        return NULL;
    struct outq_item *item = malloc(sizeof *item + len);
    if (!item)
        return NULL;
    *item = (struct outq_item){.len = (uint32_t)len, .kind = (uint32_t)kind & 3};
    memcpy(item->bytes, bytes, len);
    return item;
}

static bool is_of(const struct outq_item *item, enum frame_kind kind)
{
    return item->kind == ITEM_FRAME && item->frame->kind == kind;
}

static bool is_pong(const struct outq_item *item)
{
    return item->kind == ITEM_CONTROL && (item->bytes[0] & 0xf) == FRAME_PONG;
}

static bool is_begun(const struct outq *q, const struct outq_item *item)
{
    return item == q->head && q->head_done > 0;
}

/* Adds or takes an item's share of the sums. */
static void account(struct outq *q, const struct outq_item *item, size_t bytes, bool is_coming)
{
    uint32_t change = is_coming ? (uint32_t)bytes : 0 - (uint32_t)bytes;
    counters_add(CTR_queued_bytes, is_coming ? bytes : 0 - bytes);
    q->bytes += change;
    if (item->kind == ITEM_CONTROL || is_of(item, FRAME_REPLY))
        q->reply_bytes += change;
    else if (is_of(item, FRAME_BROADCAST))
        q->broadcast_bytes += change;
}

static void item_free(struct outq_item *item)
{
    if (item->kind == ITEM_FRAME)
        frame_unref(item->frame);
    free(item);
}

/* Links item in after prev (NULL: at the front). */
static void insert(struct outq *q, struct outq_item *prev, struct outq_item *item)
{
    struct outq_item **link = prev ? &prev->next : &q->head;
    item->prev = prev;
    item->next = *link;
    *link = item;
    if (item->next)
        item->next->prev = item;
    else
        q->tail = item;
    account(q, item, item->len, true);
}

/* Takes out an item of which done bytes were written. */
static void take(struct outq *q, struct outq_item *item, size_t done, enum trace_end end)
{
    trace_finish(item->ticket, end, q->written);
    *(item->prev ? &item->prev->next : &q->head) = item->next;
    *(item->next ? &item->next->prev : &q->tail) = item->prev;
    if (q->broadcast == item)
        q->broadcast = item->next;
    if (q->control == item)
        q->control = NULL; /* they leave in order: it was the last one */
    keys_forget(q, item);
    account(q, item, item->len - done, false);
    item_free(item);
}

/* ---- filling ---- */

int outq_push(struct outq *q, struct frame *f)
{
    struct outq_item *item = has_room(q, f->len) ? malloc(sizeof *item) : NULL;
    if (!item)
        return -ENOMEM;
    *item = (struct outq_item){.frame = frame_ref(f), .len = f->len, .kind = ITEM_FRAME};
    insert(q, q->tail, item);
    if (!q->broadcast && f->kind == FRAME_BROADCAST)
        q->broadcast = item;
    q->has_joined |= f->part_count > 0;
    keys_note(q, item);
    return 0;
}

void outq_set_ticket(struct outq *q, trace_ticket ticket)
{
    q->tail->ticket = ticket & ((1u << TRACE_TICKET_BITS) - 1);
}

int outq_push_bytes(struct outq *q, const void *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct outq_item *item = item_of_bytes(q, ITEM_BYTES, bytes, len);
    if (!item)
        return -ENOMEM;
    insert(q, q->tail, item);
    return 0;
}

int outq_push_control(struct outq *q, const void *frame, size_t len)
{
    struct outq_item *item = item_of_bytes(q, ITEM_CONTROL, frame, len);
    if (!item)
        return -ENOMEM;
    struct outq_item *prev = q->control;
    if (!prev) {
        prev = q->head_done > 0 ? q->head : NULL;
        for (struct outq_item *at = prev ? prev->next : q->head; at && at->kind != ITEM_FRAME;
             at = at->next)
            prev = at;
    }
    insert(q, prev, item);
    q->control = item;
    if (prev && q->reply_bytes > PONGS_KEPT_BYTES && !is_begun(q, prev) && is_pong(prev) &&
        is_pong(item))
        take(q, prev, 0, TRACE_END_CONFLATED);
    return 0;
}

/* ---- writing ---- */

int outq_iov(const struct outq *q, struct iovec *iov, int max)
{
    int count = 0;
    size_t skip = q->head_done;
    for (struct outq_item *item = q->head; item && count < max; item = item->next) {
        unsigned char *bytes = item->kind == ITEM_FRAME ? item->frame->bytes : item->bytes;
        iov[count++] = (struct iovec){bytes + skip, item->len - skip};
        skip = 0;
    }
    return count;
}

void outq_consume(struct outq *q, size_t n)
{
    while (q->head && n >= q->head->len - q->head_done) {
        n -= q->head->len - q->head_done;
        q->written += q->head->len - q->head_done;
        if (q->head->kind == ITEM_FRAME)
            delivery_written(q->head->frame);
        take(q, q->head, q->head_done, TRACE_END_WRITTEN);
        q->head_done = 0;
    }
    if (q->head && n > 0) {
        account(q, q->head, n, false);
        q->head_done = (q->head_done + (uint32_t)n) & OUTQ_BYTES_MAX;
        q->written += n;
    }
}

/* Items for the parts of which not all bytes are written, linked; *done becomes what is written of
 * the first. NULL without memory, or when nothing is left. */
static struct outq_item *items_of_parts(const struct frame *joined, size_t *done)
{
    struct outq_item *first = NULL, *last = NULL;
    for (uint32_t i = 0; i < joined->part_count; i++) {
        struct frame *f = joined->parts[i];
        if (!first && *done >= f->len) {
            *done -= f->len;
            continue;
        }
        struct outq_item *item = malloc(sizeof *item);
        if (!item)
            break;
        *item = (struct outq_item){
            .prev = last, .frame = frame_ref(f), .len = f->len, .kind = ITEM_FRAME};
        *(last ? &last->next : &first) = item;
        last = item;
        if (i + 1 == joined->part_count)
            return first;
    }
    for (struct outq_item *next; first; first = next) {
        next = first->next;
        item_free(first);
    }
    return NULL;
}

/* The sums stay as they are: the parts have the same bytes, and are of the same kind. */
static void split(struct outq *q, struct outq_item *item)
{
    size_t done = item == q->head ? q->head_done : 0;
    struct outq_item *first = items_of_parts(item->frame, &done), *last = first;
    if (!first)
        return;
    while (last->next)
        last = last->next;
    first->prev = item->prev;
    last->next = item->next;
    *(item->prev ? &item->prev->next : &q->head) = first;
    *(item->next ? &item->next->prev : &q->tail) = last;
    if (q->head == first)
        q->head_done = (uint32_t)done & OUTQ_BYTES_MAX;
    if (q->broadcast == item)
        q->broadcast = first;
    item_free(item);
}

void outq_split(struct outq *q)
{
    for (struct outq_item *item = q->has_joined ? q->head : NULL, *next; item; item = next) {
        next = item->next;
        if (item->kind == ITEM_FRAME && item->frame->part_count)
            split(q, item);
    }
    q->has_joined = false;
}

/* ---- for another process ---- */

void outq_save(const struct outq *q, struct text_buf *out)
{
    pack_u64(out, q->written);
    pack_u32(out, q->head_done);
    for (const struct outq_item *item = q->head; item; item = item->next) {
        pack_u8(out, item->kind);
        if (item->kind == ITEM_FRAME)
            frame_save(item->frame, out);
        else
            pack_bytes(out, item->bytes, item->len);
    }
}

void outq_trace(struct outq *q, trace_ticket (*fn)(void *data, const struct frame *f), void *data)
{
    for (struct outq_item *item = q->head; item; item = item->next)
        if (item->kind == ITEM_FRAME)
            item->ticket = fn(data, item->frame) & ((1u << TRACE_TICKET_BITS) - 1);
}

/* At the tail, in whatever order they were before. */
static int restore_item(struct outq *q, struct unpack *in)
{
    uint8_t kind = unpack_u8(in);
    if (kind == ITEM_FRAME) {
        struct frame *f = frame_restore(in);
        int error = !f ? -EBADMSG : outq_push(q, f);
        frame_unref(f);
        return error;
    }
    struct text_span bytes = unpack_bytes(in);
    if (in->is_bad || !bytes.len || kind > ITEM_CONTROL)
        return -EBADMSG;
    struct outq_item *item = item_of_bytes(q, (enum item_kind)kind, bytes.ptr, bytes.len);
    if (!item)
        return -ENOMEM;
    insert(q, q->tail, item);
    if (kind == ITEM_CONTROL)
        q->control = item;
    return 0;
}

int outq_restore(struct outq *q, struct text_span saved)
{
    struct unpack in = unpack_of(saved);
    uint64_t written = unpack_u64(&in);
    uint32_t done = unpack_u32(&in);
    int error = 0;
    if (!saved.len)
        return 0;
    while (!error && unpack_left(&in))
        error = restore_item(q, &in);
    if (!error && (in.is_bad || (done && (!q->head || done >= q->head->len))))
        error = -EBADMSG;
    if (error)
        return error;
    outq_consume(q, done);
    q->written = written;
    return 0;
}

/* ---- taking out ---- */

/* From the newest to the oldest: the first of a key stays. */
int outq_start_conflating(struct outq *q)
{
    int taken = 0;
    if (q->keys)
        return 0;
    size_t live = 0;
    for (const struct outq_item *item = q->head; item; item = item->next)
        live += key_of_item(item) != 0;
    struct outq_keys *keys = keys_new(live);
    if (!keys)
        return -ENOMEM;
    for (struct outq_item *item = q->tail, *prev; item; item = prev) {
        uint64_t key = key_of_item(item);
        prev = item->prev;
        if (!key || is_begun(q, item))
            continue;
        if (keys_find(keys, key)->item) {
            take(q, item, 0, TRACE_END_CONFLATED);
            taken++;
        } else
            keys_put(keys, key, item);
    }
    q->keys = keys;
    return taken;
}

void outq_stop_conflating(struct outq *q)
{
    free(q->keys);
    q->keys = NULL;
}

bool outq_conflate(struct outq *q, const struct frame *f)
{
    uint64_t key = q->keys ? key_of(f) : 0;
    struct outq_item *item = key ? keys_find(q->keys, key)->item : NULL;
    if (!item || is_begun(q, item))
        return false;
    take(q, item, 0, TRACE_END_CONFLATED);
    return true;
}

bool outq_drop_broadcast(struct outq *q)
{
    /* Each item is passed once on the way from the front to the tail. */
    while (q->broadcast && (!is_of(q->broadcast, FRAME_BROADCAST) || is_begun(q, q->broadcast)))
        q->broadcast = q->broadcast->next;
    if (!q->broadcast)
        return false;
    take(q, q->broadcast, 0, TRACE_END_DROPPED);
    return true;
}

void outq_drop_frames(struct outq *q)
{
    outq_stop_conflating(q);
    for (struct outq_item *item = q->head, *next; item; item = next) {
        next = item->next;
        if (item->kind == ITEM_FRAME && !is_begun(q, item))
            take(q, item, 0, TRACE_END_DROPPED);
    }
}

static void take_all(struct outq *q, enum trace_end end)
{
    outq_stop_conflating(q);
    while (q->head) {
        take(q, q->head, q->head_done, end);
        q->head_done = 0;
    }
}

void outq_clear(struct outq *q)
{
    take_all(q, TRACE_END_CLOSED);
}

void outq_give(struct outq *q)
{
    take_all(q, TRACE_END_GIVEN);
}
