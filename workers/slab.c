#include "config.h"

#include "workers/slab.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#define SLAB_IS_HEAP
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_IS_HEAP
#endif
#endif

#ifdef SLAB_IS_HEAP

struct slab {
    size_t size;
};

struct slab *slab_new(size_t size)
{
    struct slab *s = size <= SLAB_OBJECT_MAX ? calloc(1, sizeof(*s)) : NULL;
    if (s)
        s->size = size;
    return s;
}

void slab_free(struct slab *s)
{
    free(s);
}

void *slab_take(struct slab *s)
{
    return calloc(1, s->size);
}

void slab_give(struct slab *s, void *object)
{
    (void)s;
    free(object);
}

void slab_trim(struct slab *s)
{
    (void)s;
}

#else

#define BLOCK_BYTES 65536u /* aligned to it, so that an object finds its block */
#define LINE_BYTES 64u
#define WORD_BITS 64u

/* Head of a block. Which objects are taken stands in bits behind it, not in a chain through the
 * free ones: their pages can be given back. */
struct block {
    struct block *next, *prev;
    uint32_t used;
    uint32_t first_word; /* none before it has an object to give */
};

/* Blocks stand in one ring: those with room at the front, full ones at the back. The one that was
 * full last is taken from first, so that those with few in them become empty. */
struct slab {
    struct block ring;   /* its links only */
    struct block *spare; /* empty, in no ring; may be NULL */
    size_t size;
    size_t page_bytes;
    uint32_t per_block;
    uint32_t offset;     /* of the first object */
};

static uint64_t *taken_of(struct block *b)
{
    return (uint64_t *)(void *)(b + 1);
}

static uint32_t words_for(size_t objects)
{
    return (uint32_t)((objects + WORD_BITS - 1) / WORD_BITS);
}

static uint32_t offset_for(size_t objects)
{
    size_t head = sizeof(struct block) + words_for(objects) * sizeof(uint64_t);
    return (uint32_t)((head + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
}

struct slab *slab_new(size_t size)
{
    struct slab *s = size <= SLAB_OBJECT_MAX ? calloc(1, sizeof(*s)) : NULL;
    if (!s)
        return NULL;
    s->size = (size + 7) & ~(size_t)7;
    size_t objects = BLOCK_BYTES / s->size;
    while (offset_for(objects) + objects * s->size > BLOCK_BYTES)
        objects--;
    s->per_block = (uint32_t)objects;
    s->offset = offset_for(objects);
    s->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    s->ring.next = s->ring.prev = &s->ring;
    return s;
}

static void unmap(struct block *b)
{
    if (b)
        munmap(b, BLOCK_BYTES);
}

void slab_free(struct slab *s)
{
    if (!s)
        return;
    for (struct block *b = s->ring.next, *next; b != &s->ring; b = next) {
        next = b->next;
        unmap(b);
    }
    unmap(s->spare);
    free(s);
}

static void *map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* The kernel puts mappings side by side, so that mostly the first try is aligned. */
static struct block *map_block(void)
{
    char *at = map(BLOCK_BYTES);
    if (!at || (uintptr_t)at % BLOCK_BYTES == 0)
        return (struct block *)(void *)at;
    munmap(at, BLOCK_BYTES);
    at = map(2 * (size_t)BLOCK_BYTES);
    if (!at)
        return NULL;
    size_t before = (BLOCK_BYTES - (uintptr_t)at % BLOCK_BYTES) % BLOCK_BYTES;
    if (before)
        munmap(at, before);
    munmap(at + before + BLOCK_BYTES, BLOCK_BYTES - before);
    return (struct block *)(void *)(at + before);
}

static void take_out(struct block *b)
{
    b->prev->next = b->next;
    b->next->prev = b->prev;
}

static void put_behind(struct block *place, struct block *b)
{
    b->prev = place;
    b->next = place->next;
    place->next->prev = b;
    place->next = b;
}

static struct block *block_with_room(struct slab *s)
{
    struct block *b = s->ring.next;
    if (b != &s->ring && b->used < s->per_block)
        return b;
    b = s->spare ? s->spare : map_block();
    s->spare = NULL;
    if (b)
        put_behind(&s->ring, b);
    return b;
}

void *slab_take(struct slab *s)
{
    struct block *b = block_with_room(s);
    if (!b)
        return NULL;
    uint64_t *taken = taken_of(b);
    uint32_t word = b->first_word;
    while (taken[word] == UINT64_MAX)
        word++;
    uint32_t bit = (uint32_t)__builtin_ctzll(~taken[word]);
    taken[word] |= UINT64_C(1) << bit;
    b->first_word = word;
    if (++b->used == s->per_block) {
        take_out(b);
        put_behind(s->ring.prev, b);
    }
    void *object = (char *)b + s->offset + s->size * (word * WORD_BITS + bit);
    return memset(object, 0, s->size);
}

void slab_give(struct slab *s, void *object)
{
    if (!object)
        return;
    struct block *b = (struct block *)(void *)((char *)object - (uintptr_t)object % BLOCK_BYTES);
    uint32_t n = (uint32_t)(((size_t)((char *)object - (char *)b) - s->offset) / s->size);
    taken_of(b)[n / WORD_BITS] &= ~(UINT64_C(1) << n % WORD_BITS);
    if (n / WORD_BITS < b->first_word)
        b->first_word = n / WORD_BITS;
    if (b->used-- == s->per_block) {
        take_out(b);
        put_behind(&s->ring, b);
    }
    if (b->used)
        return;
    take_out(b);
    if (s->spare)
        unmap(b);
    else
        s->spare = b;
}

/* Whether one of the objects that lie on these bytes of the block is taken. */
static bool is_any_taken(const struct slab *s, struct block *b, size_t from, size_t to)
{
    if (from < s->offset)
        return true; /* the head */
    size_t n = (from - s->offset) / s->size, end = (to - 1 - s->offset) / s->size + 1;
    for (; n < end && n < s->per_block; n++)
        if (taken_of(b)[n / WORD_BITS] >> n % WORD_BITS & 1)
            return true;
    return false;
}

void slab_trim(struct slab *s)
{
    if (!s)
        return;
    unmap(s->spare);
    s->spare = NULL;
    for (struct block *b = s->ring.next; b != &s->ring && b->used < s->per_block; b = b->next) {
        size_t from = 0;
        for (size_t at = 0; at < BLOCK_BYTES; at += s->page_bytes) {
            if (!is_any_taken(s, b, at, at + s->page_bytes))
                continue;
            if (from < at)
                madvise((char *)b + from, at - from, MADV_DONTNEED);
            from = at + s->page_bytes;
        }
        if (from < BLOCK_BYTES)
            madvise((char *)b + from, BLOCK_BYTES - from, MADV_DONTNEED);
    }
}

#endif
