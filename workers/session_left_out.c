/*
 * What a device was not given of the list when it attached, for replay-limit and replay-window, and
 * what may not have been published yet. Its live copy is for this device, even if it passes for
 * known because another device was given it.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "workers/session_parts.h"

struct left_out {
    size_t count;
    uint64_t ids[];
};

int session_leave_out(struct device *d, const uint64_t *ids, size_t count)
{
    session_left_out_free(d);
    if (!count)
        return 0;
    struct device_busy *busy = device_busy(d);
    struct left_out *l = busy ? malloc(sizeof(*l) + count * sizeof(*ids)) : NULL;
    if (!l)
        return -ENOMEM;
    l->count = count;
    for (size_t i = 0; ids && i < count; i++)
        l->ids[i] = ids[i];
    busy->left_out = l;
    return 0;
}

bool session_is_left_out(const struct device *d, uint64_t id_hash)
{
    for (size_t i = 0; d->busy->left_out && i < d->busy->left_out->count; i++)
        if (d->busy->left_out->ids[i] == id_hash)
            return true;
    return false;
}

bool session_is_left_out_for_any(const struct user *u, uint64_t id_hash)
{
    for (const struct device *d = u->devices; d; d = d->next)
        if (session_is_left_out(d, id_hash))
            return true;
    return false;
}

void session_left_out_take(struct device *d, uint64_t id_hash)
{
    struct left_out *l = d->busy->left_out;
    for (size_t i = 0; l && i < l->count; i++)
        if (l->ids[i] == id_hash) {
            l->ids[i] = l->ids[--l->count];
            break;
        }
    if (l && !l->count)
        session_left_out_free(d);
}

void session_left_out_free(struct device *d)
{
    free(d->busy->left_out);
    if (d->busy->left_out)
        device_busy(d)->left_out = NULL;
    device_settle(d);
}

void session_left_out_save(const struct device *d, struct text_buf *out)
{
    for (size_t i = 0; d->busy->left_out && i < d->busy->left_out->count; i++)
        pack_u64(out, d->busy->left_out->ids[i]);
}

int session_left_out_restore(struct device *d, struct text_span saved)
{
    struct unpack in = unpack_of(saved);
    size_t count = saved.len / sizeof(uint64_t);
    int error = session_leave_out(d, NULL, count);
    for (size_t i = 0; !error && i < count; i++)
        d->busy->left_out->ids[i] = unpack_u64(&in);
    return error ? error : unpack_is_done(&in) ? 0 : -EBADMSG;
}
