#include "config.h"

#include "shared/uuid7.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "shared/chance.h"
#include "shared/clock.h"

/*
 * The first 60 free bits of an id are one number: milliseconds times 4096 plus a 12-bit counter
 * (RFC 9562, section 6.2, method 1, with the counter in rand_a). It only ever grows, in one
 * compare-and-swap, so ids increase over all threads without a lock that a fork could leave taken.
 * A full counter runs over into the milliseconds: the clock is a little ahead then, as that section
 * allows.
 */
#define COUNTER_BITS 12
#define COUNTER_SEED_MASK 0x7FF /* half of the counter's range is left to count in */

static _Atomic uint64_t last; /* the highest number given out */

static uint64_t next_number(uint64_t seed)
{
    uint64_t now = (uint64_t)clock_wall_ms() << COUNTER_BITS | (seed & COUNTER_SEED_MASK);
    uint64_t seen = atomic_load_explicit(&last, memory_order_relaxed), next;
    do
        /* Within the millisecond of the last id count on; the seed is for a new one. */
        next = now >> COUNTER_BITS > seen >> COUNTER_BITS ? now : seen + 1;
    while (!atomic_compare_exchange_weak_explicit(&last, &seen, next, memory_order_relaxed,
                                                  memory_order_relaxed));
    return next;
}

/* Random bytes in stock, for each thread its own. A child process must not use what its parent has
 * left over: pid tells. */
static _Thread_local struct {
    unsigned char bytes[512];
    size_t left;
    pid_t pid;
} stock;

/* Ids need to differ, not to be secret: when the kernel gives no random bytes (a sandbox without
 * the call), chance is enough. */
static void fill_without_kernel(unsigned char *p, size_t len)
{
    uint64_t x = chance_seed();
    for (size_t i = 0; i < len; i += sizeof(x)) {
        uint64_t z = chance_next(&x);
        memcpy(p + i, &z, len - i < sizeof(z) ? len - i : sizeof(z));
    }
}

static void fill_stock(void)
{
    size_t got = 0;
    while (got < sizeof(stock.bytes)) {
        ssize_t n = getrandom(stock.bytes + got, sizeof(stock.bytes) - got, 0);
        if (n > 0)
            got += (size_t)n;
        else if (n == 0 || errno != EINTR) {
            fill_without_kernel(stock.bytes + got, sizeof(stock.bytes) - got);
            break;
        }
    }
    stock.left = sizeof(stock.bytes);
}

static void take_random(unsigned char *out, size_t len)
{
    pid_t pid = getpid();
    if (stock.left < len || stock.pid != pid) {
        fill_stock();
        stock.pid = pid;
    }
    stock.left -= len;
    memcpy(out, stock.bytes + stock.left, len);
}

void uuid7_make(char out[UUID7_TEXT_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char random[10], id[16];
    take_random(random, sizeof(random));
    uint64_t number = next_number((uint64_t)random[8] << 8 | random[9]);
    uint64_t ms = number >> COUNTER_BITS;
    for (int i = 0; i < 6; i++)
        id[i] = (unsigned char)(ms >> (40 - 8 * i));
    id[6] = (unsigned char)(0x70 | (number >> 8 & 0x0F)); /* version 7 */
    id[7] = (unsigned char)number;
    memcpy(id + 8, random, 8);
    id[8] = (unsigned char)(0x80 | (id[8] & 0x3F)); /* variant of RFC 9562 */

    char *p = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        *p++ = hex[id[i] >> 4];
        *p++ = hex[id[i] & 0x0F];
    }
    *p = '\0';
}
