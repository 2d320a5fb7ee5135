/*
 * bucket.h - token bucket: so many a second, and bursts. Workers; pure.
 *
 * Eight bytes for each thing that is limited. The rate is the caller's, each time: what is limited
 * may be many, the rate is one.
 */
#ifndef BELFRY_WORKERS_BUCKET_H
#define BELFRY_WORKERS_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_UNIT 1000 /* parts of a token: what one token a second brings in a millisecond */

struct bucket {
    uint32_t at_ms;  /* low half of the monotonic clock when spent was right */
    uint32_t spent;  /* parts of tokens that are missing: all zero is a full bucket */
};

/* Brings the bucket up to date. per_second tokens flow back until it is full again. */
static inline void bucket_flow(struct bucket *b, int64_t now_ms, uint32_t per_second)
{
    uint64_t back = (uint64_t)((uint32_t)now_ms - b->at_ms) * per_second;
    b->spent = back < b->spent ? b->spent - (uint32_t)back : 0;
    b->at_ms = (uint32_t)now_ms;
}

/* Takes cost tokens of at most burst. False, and nothing is taken: there are not so many. burst is
 * at most 4 million. */
static inline bool bucket_take(struct bucket *b, int64_t now_ms, uint32_t per_second,
                               uint32_t burst, uint32_t cost)
{
    bucket_flow(b, now_ms, per_second);
    uint64_t after = (uint64_t)b->spent + (uint64_t)cost * BUCKET_UNIT;
    if (after > (uint64_t)burst * BUCKET_UNIT)
        return false;
    b->spent = (uint32_t)after;
    return true;
}

#endif
