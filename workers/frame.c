#include "config.h"

#include "workers/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/deflate.h"

#define FRAME_FINAL 0x80
#define FRAME_OPCODE 0x0f
#define FRAME_LEN_16 126
#define FRAME_LEN_64 127
#define FRAME_NO_STATUS 1005 /* RFC 6455, section 7.4.1: stands for "no code", never sent */

static void put_big_endian(unsigned char *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
}

size_t frame_header(unsigned char out[FRAME_HEADER_MAX], int opcode, bool is_final,
                    uint64_t payload_len)
{
    out[0] = (unsigned char)((is_final ? FRAME_FINAL : 0) | opcode);
    if (payload_len < FRAME_LEN_16) {
        out[1] = (unsigned char)payload_len;
        return 2;
    }
    if (payload_len <= UINT16_MAX) {
        out[1] = FRAME_LEN_16;
        put_big_endian(out + 2, payload_len, 2);
        return 4;
    }
    out[1] = FRAME_LEN_64;
    put_big_endian(out + 2, payload_len, 8);
    return 10;
}

struct frame *frame_data(enum frame_kind kind, int opcode, const void *payload, size_t len)
{
    unsigned char header[FRAME_HEADER_MAX];
    if (len > INT32_MAX)
        return NULL;
    size_t header_len = frame_header(header, opcode, true, len);
    struct frame *f = malloc(sizeof *f + header_len + len);
    if (!f)
        return NULL;
    *f = (struct frame){.refs = 1, .len = (uint32_t)(header_len + len), .kind = kind};
    memcpy(f->bytes, header, header_len);
    if (len > 0)
        memcpy(f->bytes + header_len, payload, len);
    return f;
}

struct frame *frame_text(enum frame_kind kind, const void *payload, size_t len)
{
    return frame_data(kind, FRAME_TEXT, payload, len);
}

/* ---- deflated ---- */

/* It takes over what f has of other windows. NULL: it would be no shorter, or without memory. */
static struct frame *make_deflated(struct frame *f, struct deflate *d, int window_bits)
{
    unsigned char header[FRAME_HEADER_MAX];
    size_t len;
    const char *payload = frame_payload(f, &len);
    struct frame *made = malloc(sizeof *made + FRAME_HEADER_MAX + len);
    if (!made)
        return NULL;
    *made = *f; /* before any of its bytes: some may stand in the padding of the rest */
    made->refs = 1;
    made->window_bits = (uint8_t)window_bits;
    ssize_t packed =
        deflate_pack(d, window_bits, payload, len, made->bytes + FRAME_HEADER_MAX, len);
    if (packed < 0) {
        if (packed == -ENOSPC)
            f->stays_plain |= (uint16_t)(1u << window_bits);
        free(made);
        return NULL;
    }
    size_t header_len = frame_header(header, f->bytes[0] & FRAME_OPCODE, true, (uint64_t)packed);
    header[0] |= FRAME_DEFLATED;
    memmove(made->bytes + header_len, made->bytes + FRAME_HEADER_MAX, (size_t)packed);
    memcpy(made->bytes, header, header_len);
    made->len = (uint32_t)(header_len + (size_t)packed);
    struct frame *fitting = realloc(made, sizeof *made + made->len);
    return fitting ? fitting : made;
}

struct frame *frame_for_window(struct frame *f, struct deflate *d, int allowed_bits)
{
    size_t len;
    if (f->part_count || (f->bytes[0] & FRAME_DEFLATED))
        return f;
    frame_payload(f, &len);
    int bits = deflate_window(d, len, allowed_bits);
    if (!bits || (f->stays_plain & 1u << bits))
        return f;
    for (struct frame *known = f->deflated; known; known = known->deflated)
        if (known->window_bits == bits)
            return known;
    struct frame *made = make_deflated(f, d, bits);
    if (!made)
        return f;
    f->deflated = made;
    return made;
}

/* ---- several, and control frames ---- */

struct frame *frame_join(enum frame_kind kind, struct frame *const *parts, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i]->len;
    struct frame *f = len <= INT32_MAX ? malloc(sizeof *f + len) : NULL;
    struct frame **kept = f ? malloc(count * sizeof *kept) : NULL;
    if (!kept) {
        free(f);
        return NULL;
    }
    *f = (struct frame){.refs = 1, .kind = kind, .parts = kept, .part_count = (uint32_t)count};
    f->read_us = parts[0]->read_us; /* the oldest */
    for (size_t i = 0; i < count; i++) {
        memcpy(f->bytes + f->len, parts[i]->bytes, parts[i]->len);
        f->len += parts[i]->len;
        kept[i] = frame_ref(parts[i]);
    }
    return f;
}

size_t frame_close(unsigned char out[FRAME_CONTROL_MAX], int code, const char *reason)
{
    unsigned char payload[FRAME_CONTROL_MAX - 2];
    size_t len = 0;
    if (code != 0 && code != FRAME_NO_STATUS) {
        size_t reason_len = strlen(reason);
        if (reason_len > sizeof payload - 2) {
            reason_len = sizeof payload - 2;
            while (reason_len > 0 && ((unsigned char)reason[reason_len] & 0xc0) == 0x80)
                reason_len--;
        }
        put_big_endian(payload, (uint64_t)code, 2);
        memcpy(payload + 2, reason, reason_len);
        len = 2 + reason_len;
    }
    size_t header_len = frame_header(out, FRAME_CLOSE, true, len);
    memcpy(out + header_len, payload, len);
    return header_len + len;
}

struct frame *frame_ref(struct frame *f)
{
    f->refs++;
    return f;
}

void frame_unref(struct frame *f)
{
    if (!f || --f->refs > 0)
        return;
    for (uint32_t i = 0; i < f->part_count; i++)
        frame_unref(f->parts[i]); /* a part has none itself */
    frame_unref(f->deflated); /* of these there are no more than sizes of window */
    free(f->parts);
    free(f);
}

const char *frame_payload(const struct frame *f, size_t *len)
{
    size_t header_len = f->bytes[1] < FRAME_LEN_16 ? 2 : f->bytes[1] == FRAME_LEN_16 ? 4 : 10;
    *len = f->len - header_len;
    return (const char *)f->bytes + header_len;
}

void frame_save(const struct frame *f, struct text_buf *out)
{
    pack_u8(out, (uint8_t)f->kind);
    pack_u8(out, (uint8_t)(f->is_stored | f->has_id << 1));
    pack_u64(out, f->id_hash);
    pack_u64(out, f->type_hash);
    pack_u64(out, f->conflate_key);
    pack_i64(out, f->timestamp_us);
    pack_bytes(out, f->bytes, f->len);
}

struct frame *frame_restore(struct unpack *in)
{
    uint8_t kind = unpack_u8(in), flags = unpack_u8(in);
    uint64_t id_hash = unpack_u64(in), type_hash = unpack_u64(in), key = unpack_u64(in);
    int64_t timestamp_us = unpack_i64(in);
    struct text_span bytes = unpack_bytes(in);
    if (in->is_bad || kind > FRAME_BROADCAST || bytes.len < 2)
        return NULL;
    struct frame *f = malloc(sizeof *f + bytes.len);
    if (!f)
        return NULL;
    *f = (struct frame){.refs = 1,
                        .len = (uint32_t)bytes.len,
                        .kind = (enum frame_kind)kind,
                        .is_stored = flags & 1,
                        .has_id = flags & 2,
                        .id_hash = id_hash,
                        .type_hash = type_hash,
                        .conflate_key = key,
                        .timestamp_us = timestamp_us};
    memcpy(f->bytes, bytes.ptr, bytes.len);
    return f;
}
