#include "config.h"

#include "workers/handover_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FLAG_MID_FRAME = 1 }; /* of the prefix that never changes */
enum { IS_UNIX = 1, IS_ADMIN = 2, IS_ECHO = 4 };

/* One list of the parts, in their order, for both directions. */
#define WORDS(d, X)                                                                                \
    X((d)->serial) X((d)->received_bytes) X((d)->sent_bytes)                                       \
    X((d)->ping_taken_bytes)
#define TIMES(d, X)                                                                                \
    X((d)->opened_ms) X((d)->last_read_ms) X((d)->ping_sent_ms) X((d)->phase_until_ms)             \
    X((d)->rate_at_ms) X((d)->token_expires_ms)
#define SPANS(d, X)                                                                                \
    X((d)->input) X((d)->queue) X((d)->filter) X((d)->resume) X((d)->left_out) X((d)->held)        \
    X((d)->lag) X((d)->refreshes) X((d)->jti)

void handover_device_encode(const struct handover_device *d, struct text_buf *out)
{
    pack_u32(out, HANDOVER_MAGIC);
    pack_u32(out, HANDOVER_VERSION);
    pack_u32(out, d->is_mid_frame ? FLAG_MID_FRAME : 0);
#define PUT(x) pack_u64(out, x);
    WORDS(d, PUT)
#undef PUT
#define PUT(x) pack_i64(out, x);
    TIMES(d, PUT)
#undef PUT
    pack_u32(out, d->rate_spent);
    pack_bytes(out, d->address.bytes, sizeof(d->address.bytes));
    pack_u8(out, d->conn_state);
    pack_u8(out, d->device_state);
    pack_u8(out, d->overflows);
    pack_u8(out, d->deflate_bits);
    pack_u8(out, (uint8_t)((d->is_unix ? IS_UNIX : 0) | (d->is_admin ? IS_ADMIN : 0) |
                           (d->is_echo ? IS_ECHO : 0)));
#define PUT(x) pack_bytes(out, (x).ptr, (x).len);
    SPANS(d, PUT)
#undef PUT
}

int handover_device_decode(struct text_span bytes, struct handover_device *out)
{
    struct unpack in = unpack_of(bytes);
    struct handover_device d = {0};
    bool is_ours = unpack_u32(&in) == HANDOVER_MAGIC;
    uint32_t version = unpack_u32(&in);
    uint32_t flags = unpack_u32(&in);
    d.is_mid_frame = in.is_bad || !is_ours || (flags & FLAG_MID_FRAME);
    out->is_mid_frame = d.is_mid_frame;
    if (in.is_bad || !is_ours)
        return -EBADMSG;
    if (version != HANDOVER_VERSION)
        return -EPROTONOSUPPORT;
#define GET(x) x = unpack_u64(&in);
    WORDS(&d, GET)
#undef GET
#define GET(x) x = unpack_time(&in);
    TIMES(&d, GET)
#undef GET
    d.rate_spent = unpack_u32(&in);
    struct text_span address = unpack_bytes(&in);
    if (address.len == sizeof(d.address.bytes))
        memcpy(d.address.bytes, address.ptr, address.len);
    else
        in.is_bad = true;
    d.conn_state = unpack_u8(&in);
    d.device_state = unpack_u8(&in);
    d.overflows = unpack_u8(&in);
    d.deflate_bits = unpack_u8(&in);
    uint8_t is = unpack_u8(&in);
    d.is_unix = is & IS_UNIX;
    d.is_admin = is & IS_ADMIN;
    d.is_echo = is & IS_ECHO;
#define GET(x) x = unpack_bytes(&in);
    SPANS(&d, GET)
#undef GET
    if (!unpack_is_done(&in))
        return -EBADMSG;
    *out = d;
    return 0;
}

void handover_resume_save(const struct resume *r, struct text_buf *out)
{
    if (!r)
        return;
    pack_u8(out, r->has_last_id);
    pack_u64(out, r->last_id);
    pack_u32(out, r->seen_count);
    for (uint32_t i = 0; i < r->seen_count; i++)
        pack_u64(out, r->seen[i]);
}

int handover_resume_restore(struct text_span saved, struct resume **out)
{
    struct unpack in = unpack_of(saved);
    *out = NULL;
    if (!saved.len)
        return 0;
    struct resume *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    r->has_last_id = unpack_u8(&in);
    r->last_id = unpack_u64(&in);
    r->seen_count = unpack_count(&in, 8);
    if (r->seen_count > RESUME_SEEN_MAX)
        in.is_bad = true;
    for (uint32_t i = 0; !in.is_bad && i < r->seen_count; i++)
        r->seen[i] = unpack_u64(&in);
    if (!unpack_is_done(&in)) {
        free(r);
        return -EBADMSG;
    }
    *out = r;
    return 0;
}
