#include "config.h"

#include "shared/base64url.h"

#include <errno.h>

/* The digits' values and one; 0 is none. Which digit comes next is chance: a processor that has to
 * guess it loses more time than all else here takes. */
static const unsigned char values[256] = {
    ['A'] = 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13,
            14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,
    ['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39,
            40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,
    ['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
    ['-'] = 63, ['_'] = 64,
};

long base64url_decode(struct text_span in, unsigned char *out, size_t cap)
{
    unsigned bits = 0, held = 0;
    size_t len = 0;
    if (in.len == 0 || in.len % 4 == 1)
        return -EINVAL;
    for (size_t i = 0; i < in.len; i++) {
        unsigned v = values[(unsigned char)in.ptr[i]];
        if (v == 0)
            return -EINVAL;
        held = (held << 6 | (v - 1)) & 0xFFFF;
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
