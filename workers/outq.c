#include "config.h"

#include "workers/outq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum item_kind { ITEM_FRAME, ITEM_BYTES, ITEM_CONTROL };

struct outq_item {
    struct outq_item *next;
    struct frame *frame;   /* ITEM_FRAME */
    uint32_t len;
    uint8_t kind;          /* enum item_kind */
    unsigned char bytes[]; /* the other kinds */
};

static struct outq_item *item_of_bytes(enum item_kind kind, const void *bytes, size_t len)
{
    if (len > UINT32_MAX)
        return NULL;
    struct outq_item *item = malloc(sizeof *item + len);
    if (!item)
        return NULL;
    *item = (struct outq_item){.len = (uint32_t)len, .kind = (uint8_t)kind};
    memcpy(item->bytes, bytes, len);
    return item;
}

/* Adds or, with a negative sign, takes an item's share of the sums. */
static void account(struct outq *q, const struct outq_item *item, size_t bytes, bool is_coming)
{
    bool is_reply = item->kind == ITEM_FRAME && item->frame->kind == FRAME_REPLY;
    if (is_coming) {
        q->bytes += bytes;
        q->reply_bytes += is_reply ? bytes : 0;
    } else {
        q->bytes -= bytes;
        q->reply_bytes -= is_reply ? bytes : 0;
    }
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
    item->next = *link;
    *link = item;
    if (!item->next)
        q->tail = item;
    account(q, item, item->len, true);
}

/* Takes out the item after prev (NULL: the first), of which done bytes were written. */
static void take(struct outq *q, struct outq_item *prev, size_t done)
{
    struct outq_item **link = prev ? &prev->next : &q->head;
    struct outq_item *item = *link;
    *link = item->next;
    if (!item->next)
        q->tail = prev;
    account(q, item, item->len - done, false);
    item_free(item);
}

int outq_push(struct outq *q, struct frame *f)
{
    struct outq_item *item = malloc(sizeof *item);
    if (!item)
        return -ENOMEM;
    *item = (struct outq_item){.frame = frame_ref(f), .len = f->len, .kind = ITEM_FRAME};
    insert(q, q->tail, item);
    return 0;
}

int outq_push_bytes(struct outq *q, const void *bytes, size_t len)
{
    if (len == 0)
        return 0;
    struct outq_item *item = item_of_bytes(ITEM_BYTES, bytes, len);
    if (!item)
        return -ENOMEM;
    insert(q, q->tail, item);
    return 0;
}

int outq_push_control(struct outq *q, const void *frame, size_t len)
{
    struct outq_item *item = item_of_bytes(ITEM_CONTROL, frame, len);
    if (!item)
        return -ENOMEM;
    struct outq_item *prev = q->head_done > 0 ? q->head : NULL;
    for (struct outq_item *at = prev ? prev->next : q->head; at && at->kind != ITEM_FRAME;
         at = at->next)
        prev = at;
    insert(q, prev, item);
    return 0;
}

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
        take(q, NULL, q->head_done);
        q->head_done = 0;
    }
    if (q->head && n > 0) {
        account(q, q->head, n, false);
        q->head_done += n;
    }
}

bool outq_conflate(struct outq *q, uint64_t conflate_key)
{
    struct outq_item *prev = q->head_done > 0 ? q->head : NULL;
    for (struct outq_item *item = prev ? prev->next : q->head; item; item = item->next) {
        if (item->kind == ITEM_FRAME && item->frame->conflate_key == conflate_key &&
            item->frame->kind != FRAME_REPLY) {
            take(q, prev, 0);
            return true;
        }
        prev = item;
    }
    return false;
}

void outq_drop_frames(struct outq *q)
{
    struct outq_item *prev = q->head_done > 0 ? q->head : NULL;
    for (;;) {
        struct outq_item *item = prev ? prev->next : q->head;
        if (!item)
            return;
        if (item->kind == ITEM_FRAME)
            take(q, prev, 0);
        else
            prev = item;
    }
}

void outq_clear(struct outq *q)
{
    while (q->head) {
        take(q, NULL, q->head_done);
        q->head_done = 0;
    }
}
