/*
 * Depth first over all choices, each state once; random walks; and traces made short.
 */
#include "config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "shared/clock.h"
#include "tests/model/model.h"

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif

#define DEPTH_MAX 200
#define COPY_ROOM 65536
#define LOOK_AT_CLOCK 1024 /* states */
#define CHECK_COPIES 256

/* ---- states seen ---- */

#define TABLE_FIRST 14 /* bits; it is small as long as it can be, for the caches' sake */

static uint64_t *table;
static unsigned table_bits, table_bits_max;
static size_t table_count;

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

void explore_init(unsigned bits_max)
{
    if (table)
        munmap(table, sizeof(*table) << table_bits);
    table_bits = TABLE_FIRST;
    table_bits_max = bits_max;
    table_count = 0;
    table = map(sizeof(*table) << table_bits);
}

/* Where a hash stands or is to stand. */
static uint64_t *place_of(uint64_t hash)
{
    size_t mask = ((size_t)1 << table_bits) - 1;
    size_t at = (size_t)(hash >> (64 - table_bits));
    while (table[at] && table[at] != hash)
        at = (at + 1) & mask;
    return &table[at];
}

static void grow_table(void)
{
    uint64_t *old = table;
    size_t old_size = (size_t)1 << table_bits++;
    table = map(sizeof(*table) << table_bits);
    for (size_t i = 0; i < old_size; i++)
        if (old[i])
            *place_of(old[i]) = old[i];
    munmap(old, old_size * sizeof(*old));
}

/* True when the state is new. */
static bool note_state(uint64_t hash)
{
    hash += !hash;
    uint64_t *place = place_of(hash);
    if (*place)
        return false;
    *place = hash;
    if (++table_count > (size_t)5 << table_bits >> 3 && table_bits < table_bits_max)
        grow_table();
    return true;
}

static bool is_table_full(void)
{
    return table_count > (size_t)7 << table_bits >> 3;
}

/* ---- copies of the world, one for each depth ---- */

struct copy {
    struct world world;
    unsigned char arena[COPY_ROOM];
};

static struct copy *copies;

static void save(unsigned depth)
{
    if (!copies)
        copies = map(DEPTH_MAX * sizeof(*copies));
    copies[depth].world = world;
    (void)arena_save(copies[depth].arena, COPY_ROOM);
}

static void restore(unsigned depth)
{
    world = copies[depth].world;
    arena_load(copies[depth].arena);
}

/* ---- all schedules ---- */

static struct {
    struct tally *tally;
    int64_t until_us;
    bool is_over;
    struct schedule path;
} search;

static bool is_time_over(void)
{
    struct tally *t = search.tally;
    if (t->states % LOOK_AT_CLOCK == 0 && clock_mono_us() > search.until_us)
        search.is_over = true;
    search.is_over |= is_table_full();
    return search.is_over;
}

/* Does a state that was put back again and again come of its schedule alone? */
static void check_copies(uint64_t hash)
{
    world_start();
    for (unsigned i = 0; i < search.path.count; i++)
        step_do(search.path.steps[i]);
    if (world_hash() != hash)
        violated("the model is wrong: a state depends on what was looked at before");
}

/* A state where only events, or what may wait as long as it likes, would change anything. */
static void judge_leaf(unsigned depth, uint64_t hash)
{
    if (search.tally->settled++ % CHECK_COPIES == 0) {
        check_copies(hash);
        restore(depth);
    }
    steps_settle();
    restore(depth);
}

static void explore(unsigned depth)
{
    struct tally *t = search.tally;
    uint8_t steps[STEP_KINDS];
    uint64_t hash = world_hash();
    if (!note_state(hash)) {
        t->schedules++;
        return;
    }
    t->states++;
    if (depth > t->depth)
        t->depth = depth;
    size_t count = steps_enabled(steps);
    bool is_cut = depth == DEPTH_MAX - 1;
    save(depth);
    search.path.count = depth;
    if (!steps_pending() || is_cut)
        judge_leaf(depth, hash);
    if (!count || is_cut)
        t->schedules++;
    /* Where time may run out, what was looked at until then is of every kind. */
    size_t first = search.until_us < INT64_MAX && count ? hash % count : 0;
    for (size_t i = 0; i < count && !is_cut && !is_time_over(); i++) {
        uint8_t s = steps[(first + i) % count];
        search.path.steps[depth] = s;
        search.path.count = depth + 1;
        step_do(s);
        t->steps++;
        explore(depth + 1);
        if (i + 1 < count)
            restore(depth);
    }
}

/* ---- one schedule ---- */

enum outcome { HELD, VIOLATED };

#ifdef UNDER_ASAN /* which says more about a crash, and about memory that malloc gave */
static void catch_crashes(void)
{
}
#else
static void on_crash(int signal_number)
{
    violated("the code under test crashed (signal %d)", signal_number);
}

static void catch_crashes(void)
{
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
}
#endif

/* Runs the steps that can be run, then to the end. *done: how many steps were run when it was
 * violated, or all. */
static enum outcome run(const struct schedule *s, struct schedule *done)
{
    static struct schedule ran; /* not on the stack: it is changed between setjmp and longjmp */
    ran.count = 0;
    if (setjmp(violation.where)) {
        *done = ran;
        return VIOLATED;
    }
    world_start();
    for (unsigned i = 0; i < s->count; i++) {
        if (!step_is_enabled(s->steps[i]))
            continue;
        ran.steps[ran.count++] = s->steps[i];
        if (is_tracing)
            printf("#   %3u %-3s %s\n", ran.count, step_rows[s->steps[i]].token,
                   step_rows[s->steps[i]].text);
        step_do(s->steps[i]);
    }
    steps_settle();
    *done = ran;
    return HELD;
}

/* Leaves steps out, first many, then single ones, as long as something is still violated. */
static void shorten(struct schedule *s)
{
    static struct schedule attempt, ran;
    events_max = 255;
    for (unsigned chunk = s->count / 2; chunk; chunk = chunk > 1 ? chunk / 2 : 0) {
        bool is_shorter = true;
        while (is_shorter) {
            is_shorter = false;
            for (unsigned at = 0; at + chunk <= s->count;) {
                attempt.count = s->count - chunk;
                memcpy(attempt.steps, s->steps, at);
                memcpy(attempt.steps + at, s->steps + at + chunk, s->count - at - chunk);
                if (run(&attempt, &ran) == VIOLATED) {
                    *s = ran;
                    is_shorter = true;
                } else
                    at++;
            }
        }
    }
}

bool explore_replay(const struct schedule *s)
{
    static struct schedule ran;
    arena_use(true);
    catch_crashes();
    events_max = 255;
    is_tracing = true;
    enum outcome outcome = run(s, &ran);
    is_tracing = false;
    if (outcome == VIOLATED)
        printf("#   VIOLATED: %s\n", violation.text);
    return outcome == HELD;
}

bool explore_all(unsigned events, int64_t until_us, struct tally *t, struct schedule *found)
{
    *t = (struct tally){0};
    search.tally = t;
    search.until_us = until_us;
    search.is_over = false;
    events_max = events;
    arena_use(true);
    catch_crashes();
    if (setjmp(violation.where)) {
        *found = search.path;
        shorten(found);
        return false;
    }
    world_start();
    explore(0);
    t->is_complete = !search.is_over;
    return true;
}

/* ---- random walks ---- */

static uint64_t any(uint64_t *seed)
{
    uint64_t x = *seed += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Carrying on is likelier than a new event, by a weight that differs from walk to walk. */
static enum step choose(const uint8_t *steps, size_t count, uint64_t *seed, unsigned weight)
{
    unsigned sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += step_rows[steps[i]].is_event ? 1 : weight;
    unsigned at = (unsigned)(any(seed) % sum);
    for (size_t i = 0;; i++) {
        unsigned share = step_rows[steps[i]].is_event ? 1 : weight;
        if (at < share)
            return steps[i];
        at -= share;
    }
}

static void walk(uint64_t seed, unsigned length, struct tally *t)
{
    uint8_t steps[STEP_KINDS];
    unsigned weight = 1U << any(&seed) % 5;
    search.path.count = 0;
    world_start();
    while (search.path.count < length) {
        size_t count = steps_enabled(steps);
        if (!count)
            break;
        enum step s = choose(steps, count, &seed, weight);
        search.path.steps[search.path.count++] = (uint8_t)s;
        step_do(s);
        t->steps++;
    }
    if (search.path.count > t->depth)
        t->depth = search.path.count;
    steps_settle();
    t->settled++;
    t->schedules++;
}

bool explore_walks(uint64_t seed, unsigned length, uint64_t walks, int64_t until_us,
                   struct tally *t, struct schedule *found)
{
    static uint64_t n; /* not in a register: setjmp */
    *t = (struct tally){.is_complete = true};
    search.tally = t;
    events_max = 255;
#ifdef UNDER_ASAN
    arena_use(false);
#else
    arena_use(true);
#endif
    catch_crashes();
    if (setjmp(violation.where)) {
        *found = search.path;
        shorten(found);
        return false;
    }
    for (n = 0; n < walks && (n % 16 || clock_mono_us() < until_us); n++)
        walk(seed + n, length < STEPS_MAX ? length : STEPS_MAX, t);
    return true;
}
