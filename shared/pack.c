#include "config.h"

#include "shared/pack.h"

#include <string.h>

static void pack(struct text_buf *out, uint64_t v, size_t width)
{
    char bytes[8];
    for (size_t i = 0; i < width; i++)
        bytes[i] = (char)(v >> (8 * i));
    text_add(out, bytes, width);
}

void pack_u8(struct text_buf *out, uint8_t v)
{
    pack(out, v, 1);
}

void pack_u32(struct text_buf *out, uint32_t v)
{
    pack(out, v, 4);
}

void pack_u64(struct text_buf *out, uint64_t v)
{
    pack(out, v, 8);
}

void pack_i64(struct text_buf *out, int64_t v)
{
    pack(out, (uint64_t)v, 8);
}

void pack_bytes(struct text_buf *out, const void *bytes, size_t len)
{
    size_t begun = pack_begin(out);
    if (len)
        text_add(out, bytes, len);
    pack_end(out, begun);
}

size_t pack_begin(struct text_buf *out)
{
    pack_u32(out, 0);
    return out->len;
}

void pack_end(struct text_buf *out, size_t begun)
{
    if (out->failed)
        return;
    uint64_t len = out->len - begun;
    if (len > UINT32_MAX) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < 4; i++)
        out->data[begun - 4 + i] = (char)(len >> (8 * i));
}

struct unpack unpack_of(struct text_span bytes)
{
    const unsigned char *at = (const unsigned char *)bytes.ptr;
    return (struct unpack){.at = at, .end = bytes.len ? at + bytes.len : at};
}

size_t unpack_left(const struct unpack *in)
{
    return in->is_bad ? 0 : (size_t)(in->end - in->at);
}

static const unsigned char *take(struct unpack *in, size_t len)
{
    if (len > unpack_left(in)) {
        in->is_bad = true;
        return NULL;
    }
    const unsigned char *at = in->at;
    in->at += len;
    return at;
}

static uint64_t unpack(struct unpack *in, size_t width)
{
    const unsigned char *bytes = take(in, width);
    uint64_t v = 0;
    for (size_t i = 0; bytes && i < width; i++)
        v |= (uint64_t)bytes[i] << (8 * i);
    return v;
}

uint8_t unpack_u8(struct unpack *in)
{
    return (uint8_t)unpack(in, 1);
}

uint32_t unpack_u32(struct unpack *in)
{
    return (uint32_t)unpack(in, 4);
}

uint64_t unpack_u64(struct unpack *in)
{
    return unpack(in, 8);
}

int64_t unpack_i64(struct unpack *in)
{
    return (int64_t)unpack(in, 8);
}

int64_t unpack_time(struct unpack *in)
{
    int64_t t = unpack_i64(in);
    if (t >= 0 && t <= PACK_TIME_MAX)
        return t;
    in->is_bad = true;
    return 0;
}

struct text_span unpack_bytes(struct unpack *in)
{
    size_t len = unpack_u32(in);
    const unsigned char *bytes = len ? take(in, len) : NULL;
    return (struct text_span){(const char *)bytes, bytes ? len : 0};
}

uint32_t unpack_count(struct unpack *in, size_t least_bytes)
{
    uint32_t count = unpack_u32(in);
    if (count > unpack_left(in) / least_bytes) {
        in->is_bad = true;
        return 0;
    }
    return count;
}

bool unpack_is_done(const struct unpack *in)
{
    return !in->is_bad && in->at == in->end;
}
