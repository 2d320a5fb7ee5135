/*
 * fuzz_deflate.c - permessage-deflate (workers/deflate.c). The input is one byte for the window and
 * what is done, and a message, deflated or to be.
 *
 * Holds: no more is made of a message than is allowed; what was deflated inflates to what it was,
 * and not with less room than it takes; a context serves the next message as if it were new.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "workers/deflate.h"

#define MAX_MESSAGE 2000
#define CHUNK_MAX 65536 /* that may have been made when it is found to be too much */

static struct deflate *deflate;

static void check_unpack(struct text_span in)
{
    struct text_buf out = {0}, again = {0};
    char *copy = fuzz_copy(in);
    int result = deflate_unpack(deflate, copy, in.len, MAX_MESSAGE, &out);
    FUZZ_CHECK(result == 0 || result == -EMSGSIZE || result == -EBADMSG);
    FUZZ_CHECK(out.len <= (result ? CHUNK_MAX : MAX_MESSAGE));
    FUZZ_CHECK(deflate_unpack(deflate, copy, in.len, MAX_MESSAGE, &again) == result);
    FUZZ_CHECK(result || fuzz_same(fuzz_span(&out), fuzz_span(&again)));
    if (result == 0 && out.len > 0) {
        text_buf_reset(&again);
        FUZZ_CHECK(deflate_unpack(deflate, copy, in.len, out.len - 1, &again) == -EMSGSIZE);
    }
    free(copy);
    text_buf_free(&out);
    text_buf_free(&again);
}

static void check_pack(struct text_span in, int allowed_bits)
{
    struct text_buf back = {0};
    int bits = deflate_window(deflate, in.len, allowed_bits);
    size_t cap = in.len + 1;
    if (!bits)
        return;
    /* zlib has no smaller one than 9; a short message refers to nothing that far back. */
    FUZZ_CHECK(bits <= allowed_bits || in.len <= (size_t)1 << allowed_bits);
    unsigned char *out = malloc(cap);
    FUZZ_CHECK(out);
    ssize_t len = deflate_pack(deflate, bits, in.ptr, in.len, out, cap);
    FUZZ_CHECK(len == -ENOSPC || (len >= 0 && (size_t)len < cap));
    if (len >= 0) {
        FUZZ_CHECK(deflate_unpack(deflate, out, (size_t)len, in.len, &back) == 0);
        FUZZ_CHECK(fuzz_same(fuzz_span(&back), in));
    }
    free(out);
    text_buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    if (!deflate)
        FUZZ_CHECK(deflate = deflate_new(16));
    unsigned flags = fuzz_u8(&in);
    struct text_span message = fuzz_bytes(&in, in.left);
    if (flags & 8)
        check_pack(message, DEFLATE_WINDOW_MIN + (int)(flags & 7));
    else
        check_unpack(message);
    return 0;
}
