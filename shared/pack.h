/*
 * pack.h - numbers and byte strings in a row, for another process of this machine.
 *
 * PURE. Fixed widths, little-endian, no padding, so that neither compiler nor version decides what
 * lies where. Reading takes hostile bytes: it never reads beyond the end, and once something did
 * not fit everything that follows is zero and empty: check is_bad once, at the end.
 */
#ifndef BELFRY_SHARED_PACK_H
#define BELFRY_SHARED_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

void pack_u8(struct text_buf *out, uint8_t v);
void pack_u32(struct text_buf *out, uint32_t v);
void pack_u64(struct text_buf *out, uint64_t v);
void pack_i64(struct text_buf *out, int64_t v);
/* Length and bytes. */
void pack_bytes(struct text_buf *out, const void *bytes, size_t len);
/* The same with the bytes still to come: a place to give to pack_end once they were appended. */
size_t pack_begin(struct text_buf *out);
void pack_end(struct text_buf *out, size_t begun);

struct unpack {
    const unsigned char *at, *end;
    bool is_bad;
};

struct unpack unpack_of(struct text_span bytes);
uint8_t unpack_u8(struct unpack *in);
uint32_t unpack_u32(struct unpack *in);
uint64_t unpack_u64(struct unpack *in);
int64_t unpack_i64(struct unpack *in);
/* A time, of whatever clock and unit: negative or above PACK_TIME_MAX is bad, and 0, so that what
 * is added to it or taken from it does not overflow. */
#define PACK_TIME_MAX (INT64_C(1) << 60)
int64_t unpack_time(struct unpack *in);
struct text_span unpack_bytes(struct unpack *in); /* points into the input */
size_t unpack_left(const struct unpack *in);
/* A count of things of at least that many bytes each: more than can follow is bad, and 0. */
uint32_t unpack_count(struct unpack *in, size_t least_bytes);
/* True when all was read and nothing was bad. */
bool unpack_is_done(const struct unpack *in);

#endif
