/*
 * delivery.h - how long messages take from Redis to the sockets: rows delivered_in_... of the
 * counters.
 *
 * From the beginning of the turn that read a message to the end of its write to a device: what it
 * waits for here, and nothing of what it waited before or waits in the kernel. Messages that came
 * from the list are not measured, nor those that another worker had read.
 *
 * Costs next to nothing for each device: a frame knows when it was read, devices are counted under
 * that time, and the clock is looked at once for all of them, or where somebody looks at it anyway.
 * Workers; one for each process, as counters_self is.
 */
#ifndef BELFRY_WORKERS_DELIVERY_H
#define BELFRY_WORKERS_DELIVERY_H

#include <stdint.h>

#include "workers/frame.h"

/* Times are monotonic us. 0 stands for none, and the lower half is enough for what waits less than
 * an hour. */
struct delivery {
    uint32_t turn_us; /* when this turn began */
    uint32_t read_us; /* when those that are counted were read */
    uint64_t count;   /* of messages to devices, written and not measured yet */
};

extern struct delivery delivery_now;

void delivery_begin_turn(int64_t now_us);
/* All that is counted was written by now, which is given back. */
int64_t delivery_measure(int64_t now_us);
/* The same with the time as it is, if anything is counted. */
void delivery_end(void);
/* So many that were read at another time. */
void delivery_other(uint32_t read_us, uint32_t n);

/* A frame was made of a message that this turn has read. */
static inline void delivery_read(struct frame *f)
{
    f->read_us = delivery_now.turn_us;
}

/* A frame was written to a device, to its last byte. */
static inline void delivery_written(const struct frame *f)
{
    uint32_t n = f->part_count ? f->part_count : 1;
    if (f->read_us == delivery_now.read_us)
        delivery_now.count += n;
    else if (f->read_us)
        delivery_other(f->read_us, n);
}

#endif
