#include "config.h"

#include "shared/base64url.h"

#include <errno.h>

static int value_of(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

long base64url_decode(struct text_span in, unsigned char *out, size_t cap)
{
    unsigned bits = 0, held = 0;
    size_t len = 0;
    if (in.len == 0 || in.len % 4 == 1)
        return -EINVAL;
    for (size_t i = 0; i < in.len; i++) {
        int v = value_of((unsigned char)in.ptr[i]);
        if (v < 0)
            return -EINVAL;
        held = (held << 6 | (unsigned)v) & 0xFFFF;
        bits += 6;
        if (bits < 8)
            continue;
        bits -= 8;
        if (len == cap)
            return -EINVAL;
        out[len++] = (unsigned char)(held >> bits);
    }
    return (held & ((1u << bits) - 1)) == 0 ? (long)len : -EINVAL;
}
