#include "config.h"

#include "workers/deflate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "shared/counters.h"

#define TAIL_BYTES 4      /* what Z_SYNC_FLUSH ends with, and the wire leaves out: section 7.2.1 */
#define LOOKAHEAD 262     /* zlib.h, deflateSetDictionary: so much of a window is not searched */
#define WINDOW_SMALLEST 9 /* zlib's; deflateInit2 */
#define WINDOWS (DEFLATE_WINDOW_MAX - WINDOW_SMALLEST + 1)
#define MEM_LEVEL_MAX 8   /* zlib's default */
#define CHUNK_BYTES 16384
#define AT_BLOCK_BORDER 128 /* of data_type: zlib.h, inflate */

static const unsigned char tail[TAIL_BYTES] = {0, 0, 0xff, 0xff};

struct deflate {
    size_t threshold_bytes;
    z_stream *packers[WINDOWS]; /* by window; NULL: not needed yet */
    z_stream *unpacker;
    unsigned char chunk[CHUNK_BYTES];
};

struct deflate *deflate_new(size_t threshold_bytes)
{
    struct deflate *d = calloc(1, sizeof *d);
    if (d)
        d->threshold_bytes = threshold_bytes;
    return d;
}

void deflate_free(struct deflate *d)
{
    if (!d)
        return;
    for (int i = 0; i < WINDOWS; i++) {
        if (d->packers[i])
            deflateEnd(d->packers[i]);
        free(d->packers[i]);
    }
    if (d->unpacker)
        inflateEnd(d->unpacker);
    free(d->unpacker);
    free(d);
}

/* ---- out ---- */

/* A window that holds all of the message finds all that a larger one finds. Of one of 2^8 bytes
 * zlib can do no better than to leave it to us that no distance is longer. */
int deflate_window(const struct deflate *d, size_t len, int allowed_bits)
{
    int bits = WINDOW_SMALLEST;
    if (len < d->threshold_bytes || len == 0 || len > DEFLATE_MAX_BYTES)
        return 0;
    if (allowed_bits < WINDOW_SMALLEST)
        return len <= (size_t)1 << allowed_bits ? WINDOW_SMALLEST : 0;
    while (bits < allowed_bits && ((size_t)1 << bits) < len + LOOKAHEAD)
        bits++;
    return bits;
}

/* Small windows come with small tables: these are cleared for each message, and the 64 kB of zlib's
 * default would take longer than a short message itself. Long messages are deflated at the fastest
 * level, for the worker's other clients wait meanwhile. */
static z_stream *packer(struct deflate *d, int window_bits)
{
    z_stream **slot = &d->packers[window_bits - WINDOW_SMALLEST];
    int level = window_bits < DEFLATE_WINDOW_MAX ? Z_DEFAULT_COMPRESSION : Z_BEST_SPEED;
    int memory = window_bits - 6 < MEM_LEVEL_MAX ? window_bits - 6 : MEM_LEVEL_MAX;
    if (*slot)
        return *slot;
    z_stream *z = calloc(1, sizeof *z);
    if (z && deflateInit2(z, level, Z_DEFLATED, -window_bits, memory, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(z);
        z = NULL;
    }
    *slot = z;
    return z;
}

ssize_t deflate_pack(struct deflate *d, int window_bits, const void *in, size_t len,
                     unsigned char *out, size_t cap)
{
    z_stream *z = packer(d, window_bits);
    if (!z)
        return -ENOMEM;
    z->next_in = (unsigned char *)(uintptr_t)in; /* zlib does not write there */
    z->avail_in = (uInt)len;
    z->next_out = out;
    z->avail_out = (uInt)cap;
    int result = deflate(z, Z_SYNC_FLUSH);
    size_t made = cap - z->avail_out;
    /* Room that is left says that the flush is whole: zlib.h, deflate. */
    bool is_whole = result == Z_OK && z->avail_in == 0 && z->avail_out > 0 && made >= TAIL_BYTES;
    deflateReset(z);
    if (!is_whole) {
        counters_inc(CTR_deflate_vain);
        return -ENOSPC;
    }
    counters_inc(CTR_messages_deflated);
    counters_add(CTR_deflate_in_bytes, len);
    counters_add(CTR_deflate_out_bytes, made - TAIL_BYTES);
    return (ssize_t)(made - TAIL_BYTES);
}

/* ---- in ---- */

static z_stream *unpacker(struct deflate *d)
{
    z_stream *z = d->unpacker;
    if (z)
        return inflateReset(z) == Z_OK ? z : NULL;
    z = calloc(1, sizeof *z);
    if (z && inflateInit2(z, -DEFLATE_WINDOW_MAX) != Z_OK) {
        free(z);
        z = NULL;
    }
    d->unpacker = z;
    return z;
}

/* Some of the input. A block may be marked as the last one, and others may follow nevertheless:
 * section 7.2.3.4. */
static int unpack_some(struct deflate *d, const void *in, size_t len, size_t max_bytes,
                       struct text_buf *out)
{
    z_stream *z = d->unpacker;
    int result = Z_OK;
    z->next_in = (unsigned char *)(uintptr_t)in;
    z->avail_in = (uInt)len;
    do {
        if (result == Z_STREAM_END)
            inflateReset(z);
        z->next_out = d->chunk;
        z->avail_out = sizeof d->chunk;
        result = inflate(z, Z_SYNC_FLUSH);
        size_t made = sizeof d->chunk - z->avail_out;
        if (made > max_bytes - out->len)
            return -EMSGSIZE;
        text_add(out, (const char *)d->chunk, made);
        if (out->failed || result == Z_MEM_ERROR)
            return -ENOMEM;
        if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
            return -EBADMSG;
    } while (z->avail_in > 0 || z->avail_out == 0);
    return 0;
}

static int unpack(struct deflate *d, const void *in, size_t len, size_t max_bytes,
                  struct text_buf *out)
{
    z_stream *z = unpacker(d);
    if (!z)
        return -ENOMEM;
    if (len == 0) /* of a writer that has flushed before: nothing to say, and said so */
        return 0;
    int error = unpack_some(d, in, len, max_bytes, out);
    if (!error)
        error = unpack_some(d, tail, sizeof tail, max_bytes, out);
    if (error)
        return error;
    return z->data_type & AT_BLOCK_BORDER ? 0 : -EBADMSG; /* it is cut off */
}

int deflate_unpack(struct deflate *d, const void *in, size_t len, size_t max_bytes,
                   struct text_buf *out)
{
    size_t before = out->len;
    int error = len <= UINT32_MAX ? unpack(d, in, len, max_bytes + before, out) : -EMSGSIZE;
    if (error) {
        counters_inc(CTR_inflate_errors);
        return error;
    }
    counters_inc(CTR_messages_inflated);
    counters_add(CTR_inflate_in_bytes, len);
    counters_add(CTR_inflate_out_bytes, out->len - before);
    return 0;
}

size_t deflate_bound(size_t len)
{
    return len + len / 64 + 256; /* stored blocks take five bytes for each of up to 64 kB */
}
