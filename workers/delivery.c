/*
 * delivery.c - see delivery.h.
 */
#include "config.h"

#include "workers/delivery.h"

#include "shared/clock.h"
#include "shared/counters.h"

/* A time at which nothing was read. */
struct delivery delivery_now = {.read_us = 1};

void delivery_begin_turn(int64_t now_us)
{
    delivery_now.turn_us = (uint32_t)now_us | 1;
}

int64_t delivery_measure(int64_t now_us)
{
    struct delivery *d = &delivery_now;
    uint32_t took_us = (uint32_t)now_us - d->read_us;
    if (took_us == UINT32_MAX) /* the lowest bit of a time is always set: one too many */
        took_us = 0;
    if (d->count)
        counters_delivered(took_us, d->count);
    d->count = 0;
    return now_us;
}

void delivery_end(void)
{
    if (delivery_now.count)
        delivery_measure(clock_mono_us());
}

void delivery_other(uint32_t read_us, uint32_t n)
{
    delivery_end();
    delivery_now.read_us = read_us;
    delivery_now.count = n;
}
