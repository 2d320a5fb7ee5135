/*
 * hist.c - a histogram: 64 buckets to each power of two.
 */
#include "config.h"

#include "tests/bench/bench.h"

#define SUB_BITS 6
#define SUB (1u << SUB_BITS)

static unsigned bucket_of(uint64_t ns)
{
    if (ns < SUB)
        return (unsigned)ns;
    unsigned exponent = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (exponent - SUB_BITS + 1) * SUB + (ns >> (exponent - SUB_BITS) & (SUB - 1));
    return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

static uint64_t value_of(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = bucket / SUB - 1;
    return ((uint64_t)(SUB + bucket % SUB) << shift) + ((uint64_t)1 << shift) / 2;
}

void hist_add(struct hist *h, uint64_t ns)
{
    h->count++;
    h->buckets[bucket_of(ns)]++;
    if (ns > h->max)
        h->max = ns;
}

void hist_merge(struct hist *into, const struct hist *from)
{
    into->count += from->count;
    if (from->max > into->max)
        into->max = from->max;
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t hist_at(const struct hist *h, double fraction)
{
    uint64_t wanted = (uint64_t)((double)h->count * fraction), seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted)
            return value_of(i) < h->max ? value_of(i) : h->max;
    }
    return h->max;
}
