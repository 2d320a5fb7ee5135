/*
 * Memory of the code under test. malloc and its family are wrapped at link time (--wrap). Blocks
 * are taken from slots of fixed places, so that what they hold, pointers included, can be copied
 * away and put back.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/model/model.h"

#define CLASSES 11
#define SLOTS 64
#define SMALLEST 32
#define SPOIL 0xdd

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);

static struct {
    uint64_t used[CLASSES];
    uint32_t sizes[CLASSES][SLOTS];
} book;

/* Class c has SLOTS slots of SMALLEST << c bytes; they stand one class behind the other. */
static _Alignas(64) unsigned char space[(size_t)SMALLEST * SLOTS * ((1U << CLASSES) - 1)];
static bool is_used;
static size_t live;

static size_t slot_bytes(unsigned class)
{
    return (size_t)SMALLEST << class;
}

static unsigned char *slot_at(unsigned class, unsigned slot)
{
    return space + (size_t)SMALLEST * SLOTS * ((1U << class) - 1) + slot * slot_bytes(class);
}

static bool is_ours(const void *p)
{
    return (const unsigned char *)p >= space && (const unsigned char *)p < space + sizeof(space);
}

/* Where an address inside space belongs. */
static void locate(const void *p, unsigned *class, unsigned *slot)
{
    size_t at = (size_t)((const unsigned char *)p - space);
    *class = 31U - (unsigned)__builtin_clz((unsigned)(at / (SMALLEST * SLOTS)) + 1);
    *slot = (unsigned)((size_t)((const unsigned char *)p - slot_at(*class, 0)) >> (*class + 5));
}

static void *take(size_t size)
{
    unsigned class = size <= SMALLEST
                         ? 0
                         : 64U - (unsigned)__builtin_clzll((size - 1) / SMALLEST);
    while (class < CLASSES && book.used[class] == UINT64_MAX)
        class++;
    if (class >= CLASSES)
        violated("the model's arena is too small for %zu bytes", size);
    unsigned slot = (unsigned)__builtin_ctzll(~book.used[class]);
    book.used[class] |= bit(slot);
    book.sizes[class][slot] = (uint32_t)((size + 7) & ~(size_t)7);
    void *p = slot_at(class, slot);
    memset(p, 0, book.sizes[class][slot]);
    return p;
}

/* ---- malloc and its family ---- */

void *__wrap_malloc(size_t size)
{
    if (is_used)
        return take(size);
    live++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    if (is_used)
        return take(n * size);
    live++;
    return __real_calloc(n, size);
}

void __wrap_free(void *p)
{
    if (!p)
        return;
    if (!is_ours(p)) {
        live--;
        __real_free(p);
        return;
    }
    unsigned class, slot;
    locate(p, &class, &slot);
    if (p != slot_at(class, slot) || !(book.used[class] & bit(slot)))
        violated("freed twice, or never taken");
    book.used[class] &= ~bit(slot);
    memset(p, SPOIL, book.sizes[class][slot]);
}

void *__wrap_realloc(void *p, size_t size)
{
    if (!p)
        return __wrap_malloc(size);
    if (!is_ours(p))
        return __real_realloc(p, size);
    unsigned class, slot;
    locate(p, &class, &slot);
    size_t old = book.sizes[class][slot];
    void *to = take(size);
    memcpy(to, p, old < size ? old : size);
    __wrap_free(p);
    return to;
}

void arena_use(bool on)
{
    is_used = on;
}

void arena_reset(void)
{
    memset(&book, 0, sizeof(book));
    live = 0;
}

size_t arena_live(void)
{
    size_t n = live;
    for (unsigned c = 0; is_used && c < CLASSES; c++)
        n += (size_t)__builtin_popcountll(book.used[c]);
    return n;
}

/* ---- copies ---- */

size_t arena_save(void *to, size_t room)
{
    unsigned char *at = to, *end = at + room;
    memcpy(at, book.used, sizeof(book.used));
    at += sizeof(book.used);
    for (unsigned c = 0; c < CLASSES; c++)
        for (uint64_t left = book.used[c]; left; left &= left - 1) {
            unsigned slot = (unsigned)__builtin_ctzll(left);
            uint32_t size = book.sizes[c][slot];
            if ((size_t)(end - at) < size + 8U)
                violated("the model's room for a copy is too small");
            memcpy(at, &size, sizeof(size));
            memcpy(at + 8, slot_at(c, slot), size);
            at += size + 8U;
        }
    return (size_t)(at - (unsigned char *)to);
}

void arena_load(const void *from)
{
    const unsigned char *at = from;
    memcpy(book.used, at, sizeof(book.used));
    at += sizeof(book.used);
    for (unsigned c = 0; c < CLASSES; c++)
        for (uint64_t left = book.used[c]; left; left &= left - 1) {
            unsigned slot = (unsigned)__builtin_ctzll(left);
            uint32_t size;
            memcpy(&size, at, sizeof(size));
            memcpy(slot_at(c, slot), at + 8, size);
            book.sizes[c][slot] = size;
            at += size + 8U;
        }
}

/* ---- hashes ---- */

uint64_t hash_add(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

uint64_t hash_bytes(uint64_t h, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = hash_add(h, word);
    }
    uint64_t rest = 0;
    memcpy(&rest, p, len);
    return hash_add(h, rest ^ (uint64_t)len << 56);
}

/*
 * The same structure at other addresses is the same state, so blocks are numbered in the order in
 * which they are reached, and a pointer counts as number and offset. What is a pointer is told by
 * its value alone: the code under test may change its structs as it likes.
 */
static uint16_t number_of[CLASSES][SLOTS];
static struct {
    const unsigned char *at;
    size_t len;
} waiting[CLASSES * SLOTS + 1];
static unsigned numbered;

void hash_begin(void)
{
    memset(number_of, 0, sizeof(number_of));
    numbered = 0;
}

static uint64_t number_pointer(uint64_t word, unsigned *end)
{
    const unsigned char *p = (const unsigned char *)(uintptr_t)word;
    unsigned class, slot;
    locate(p, &class, &slot);
    if (!(book.used[class] & bit(slot)))
        return 1; /* dangling: never followed */
    if (!number_of[class][slot]) {
        number_of[class][slot] = (uint16_t)++numbered;
        waiting[*end].at = slot_at(class, slot);
        waiting[(*end)++].len = book.sizes[class][slot];
    }
    return (uint64_t)number_of[class][slot] << 32 | (uint64_t)(p - slot_at(class, slot)) | 2;
}

uint64_t hash_graph(uint64_t h, const void *root, size_t len)
{
    unsigned first = 0, end = 1;
    waiting[0].at = root;
    waiting[0].len = len;
    for (; first < end; first++) {
        const unsigned char *p = waiting[first].at;
        for (size_t left = waiting[first].len; left >= 8; left -= 8, p += 8) {
            uint64_t word;
            memcpy(&word, p, 8);
            if (is_ours((const void *)(uintptr_t)word))
                word = number_pointer(word, &end);
            h = hash_add(h, word);
        }
    }
    return h;
}
