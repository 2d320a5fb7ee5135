/*
 * fuzz.h - what the fuzz targets share. Each target is one program, fuzz_X.c, with libFuzzer's
 * entry: LLVMFuzzerTestOneInput is given bytes, asks the code under test what it makes of them, and
 * aborts when a property does not hold. `make fuzz` links it with libFuzzer, `make check` with
 * replay.c, which feeds it the corpus in the tree. After config.h.
 *
 * A target keeps nothing from one input to the next, reads no clock and opens no socket to the
 * outside: an input that fails once fails always.
 */
#ifndef BELFRY_TESTS_FUZZ_H
#define BELFRY_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property of the code under test; also true of builds with NDEBUG. */
#define FUZZ_CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* The input, eaten from the front; what is asked for beyond its end is zero or empty. */
struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->at++;
}

static inline uint64_t fuzz_number(struct fuzz_input *in, int bytes)
{
    uint64_t v = 0;
    while (bytes-- > 0)
        v = v << 8 | fuzz_u8(in);
    return v;
}

static inline struct text_span fuzz_bytes(struct fuzz_input *in, size_t len)
{
    len = len < in->left ? len : in->left;
    struct text_span span = {(const char *)in->at, len};
    in->at += len;
    in->left -= len;
    return span;
}

/* A length in two bytes, and so many bytes. */
static inline struct text_span fuzz_piece(struct fuzz_input *in)
{
    return fuzz_bytes(in, (size_t)fuzz_number(in, 2));
}

/* Up to the next occurrence of the byte, which is eaten too. */
static inline struct text_span fuzz_until(struct fuzz_input *in, char end)
{
    const void *found = in->left ? memchr(in->at, end, in->left) : NULL;
    struct text_span span =
        fuzz_bytes(in, found ? (size_t)((const uint8_t *)found - in->at) : in->left);
    if (found)
        fuzz_u8(in);
    return span;
}

/* A copy of exactly so many bytes on the heap, so that reading beyond the end is seen; to be freed.
 * fuzz_text: with a NUL behind, and cut at the first one within. */
static inline char *fuzz_copy(struct text_span span)
{
    char *copy = malloc(span.len ? span.len : 1);
    FUZZ_CHECK(copy);
    if (span.len)
        memcpy(copy, span.ptr, span.len);
    return copy;
}

static inline char *fuzz_text(struct text_span span)
{
    char *copy = malloc(span.len + 1);
    FUZZ_CHECK(copy);
    if (span.len)
        memcpy(copy, span.ptr, span.len);
    copy[span.len] = '\0';
    return copy;
}

/* Reads every byte of a span, so that one that points nowhere is found. */
static inline unsigned fuzz_touch(struct text_span span)
{
    unsigned sum = 0;
    for (size_t i = 0; i < span.len; i++)
        sum += (unsigned char)span.ptr[i];
    return sum;
}

static inline bool fuzz_same(struct text_span a, struct text_span b)
{
    return a.len == b.len && (!a.len || !memcmp(a.ptr, b.ptr, a.len));
}

static inline struct text_span fuzz_span(const struct text_buf *b)
{
    return (struct text_span){b->data, b->len};
}

#endif
