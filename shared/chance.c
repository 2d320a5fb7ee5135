#include "config.h"

#include "shared/chance.h"

#include <stdatomic.h>
#include <sys/random.h>
#include <unistd.h>

#include "shared/clock.h"

uint64_t chance_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t chance_seed(void)
{
    static _Atomic uint64_t calls;
    uint64_t seed;
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == (ssize_t)sizeof(seed))
        return seed;
    seed = (uint64_t)clock_wall_us() ^ (uint64_t)getpid() << 44 ^ (uint64_t)(uintptr_t)&calls ^
           atomic_fetch_add(&calls, 1) << 20;
    return chance_next(&seed);
}
