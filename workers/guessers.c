#include "config.h"

#include "workers/guessers.h"

#include <stdlib.h>

#define WAYS 8 /* places that an address may have */
#define SETS (GUESSERS_MAX / WAYS)
#define MINUTE_MS 60000

/* Failures flow out at per_minute a minute, and so many are borne at once. In parts of MINUTE_MS to
 * one failure, so that a millisecond takes per_minute of them. */
struct guesser {
    uint64_t customer; /* 0: free */
    int64_t at_ms;
    uint64_t level;
};

struct guessers {
    uint64_t per_minute;
    struct guesser sets[SETS][WAYS];
};

struct guessers *guessers_new(int64_t per_minute)
{
    struct guessers *g = calloc(1, sizeof(*g)); /* untouched memory costs nothing */
    if (g)
        g->per_minute = per_minute > 0 ? (uint64_t)per_minute : 0;
    return g;
}

void guessers_free(struct guessers *g)
{
    free(g);
}

static uint64_t level_at(const struct guessers *g, const struct guesser *one, int64_t now_ms)
{
    uint64_t passed_ms = now_ms > one->at_ms ? (uint64_t)(now_ms - one->at_ms) : 0;
    if (passed_ms > MINUTE_MS)
        return 0; /* a minute takes all that is ever borne */
    uint64_t gone = passed_ms * g->per_minute;
    return one->level > gone ? one->level - gone : 0;
}

/* Its place, or the one that it would get. */
static size_t find(const struct guessers *g, const struct guesser *set, uint64_t customer,
                   int64_t now_ms)
{
    size_t least = 0;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].customer == customer)
            return i;
        if (level_at(g, &set[i], now_ms) < level_at(g, &set[least], now_ms))
            least = i;
    }
    return least;
}

bool guessers_may_try(const struct guessers *g, const struct ip *ip, int64_t now_ms)
{
    uint64_t customer = ip_customer(ip);
    if (!g->per_minute || !customer)
        return true;
    const struct guesser *set = g->sets[customer % SETS];
    const struct guesser *one = &set[find(g, set, customer, now_ms)];
    return one->customer != customer ||
           level_at(g, one, now_ms) + MINUTE_MS <= g->per_minute * MINUTE_MS;
}

void guessers_note(struct guessers *g, const struct ip *ip, int64_t now_ms)
{
    uint64_t customer = ip_customer(ip);
    if (!g->per_minute || !customer)
        return;
    struct guesser *set = g->sets[customer % SETS];
    struct guesser *one = &set[find(g, set, customer, now_ms)];
    uint64_t level = one->customer == customer ? level_at(g, one, now_ms) : 0;
    *one = (struct guesser){customer, now_ms, level + MINUTE_MS};
}
