/*
 * model - see model.h. Prints TAP.
 *
 *   model                       every scenario up to its small bound, and some random walks
 *   model --seconds=N           as far as it gets in about that time
 *   model --scenario=NAME       only this one
 *   model --events=N            this bound
 *   model --walks=N --seed=N    only random walks
 *   model --scenario=NAME --replay="A0 s w ..."    one schedule, with a trace
 *   model --list
 */
#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "tests/model/model.h"

#define WALK_STEPS 400
#define SMALL_TABLE 23 /* bits: 64 MB */
#define LARGE_TABLE 26 /* 512 MB, when it takes that long */

#define EVENT(name, n) [STEP_##name] = (n)
#define ANY(name) [STEP_##name] = 30
#define DEVICES_COME_AND_GO ANY(ATTACH0), ANY(ATTACH1), ANY(GONE0), ANY(GONE1), ANY(CUT0)
#define FAULTS ANY(BREAK), ANY(STORE_LOST)
#define CROSSING_EVENTS DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(BEGIN1), FAULTS

static const struct scenario scenarios[] = {
    {.name = "alone", .says = "one plain producer at a time, last_id alone",
     .style = ALONE, .events = 5, .gap_ms = 3000,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), FAULTS}},
    {.name = "atomic", .says = "atomic writers, last_id alone",
     .style = ATOMICALLY, .events = 5, .gap_ms = 3000,
     .max = {DEVICES_COME_AND_GO, ANY(ATOMIC), FAULTS}},
    {.name = "atomic-seen", .says = "atomic writers, last_id and seen, a history of two",
     .style = ATOMICALLY, .resuming = WITH_SEEN, .events = 5, .gap_ms = 3000, .history = 2,
     .max = {DEVICES_COME_AND_GO, ANY(ATOMIC), FAULTS}},
    {.name = "crossing", .says = "plain producers cross, last_id and seen",
     .style = CROSSING, .resuming = WITH_SEEN, .events = 5, .gap_ms = 900,
     .max = {CROSSING_EVENTS}},
    {.name = "busy", .says = "lists that were read wait for the worker, a history of two",
     .style = ALONE, .events = 5, .gap_ms = 3000, .history = 2, .is_busy = true,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), FAULTS}},
    {.name = "busy-crossing", .says = "the same, producers cross, last_id and seen",
     .style = CROSSING, .resuming = WITH_SEEN, .events = 4, .gap_ms = 900, .is_busy = true,
     .max = {CROSSING_EVENTS}},
    {.name = "busy-limited", .says = "the same, replay-limit 1",
     .style = ALONE, .resuming = WITH_SEEN, .events = 5, .gap_ms = 3000, .replay_limit = 1,
     .is_busy = true,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(BREAK), ANY(STORE_LOST)}},
    {.name = "crossing-last-id", .says = "plain producers cross, last_id alone",
     .style = CROSSING, .events = 4, .gap_ms = 900, .max = {CROSSING_EVENTS}},
    {.name = "trimmed", .says = "a history of two: the link lags by more than the list has",
     .style = ALONE, .events = 5, .gap_ms = 3000, .history = 2,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), FAULTS}},
    {.name = "crossing-trimmed", .says = "a history of two, producers cross, last_id and seen",
     .style = CROSSING, .resuming = WITH_SEEN, .events = 4, .gap_ms = 900, .history = 2,
     .max = {CROSSING_EVENTS}},
    {.name = "janitor", .says = "the list is reversed, and deleted",
     .style = ALONE, .events = 5, .gap_ms = 3000,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(JANITOR), EVENT(EXPIRE, 1),
             ANY(BREAK), ANY(STORE_LOST)}},
    {.name = "retry", .says = "a producer repeats itself",
     .style = ALONE, .events = 5, .gap_ms = 3000,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), EVENT(AGAIN0, 2), EVENT(REPUBLISH0, 1),
             ANY(BREAK), ANY(STORE_LOST)}},
    {.name = "limited", .says = "replay-limit 1, last_id and seen",
     .style = ALONE, .resuming = WITH_SEEN, .events = 5, .gap_ms = 3000, .replay_limit = 1,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(BREAK),
             ANY(STORE_LOST)}},
    {.name = "unreplayed", .says = "replay-limit 0",
     .style = ALONE, .events = 5, .gap_ms = 3000, .replay_limit = REPLAY_NONE,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(BREAK),
             ANY(STORE_LOST)}},
    {.name = "crossing-limited", .says = "replay-limit 1, producers cross, last_id and seen",
     .style = CROSSING, .resuming = WITH_SEEN, .events = 4, .gap_ms = 900, .replay_limit = 1,
     .max = {CROSSING_EVENTS}},
    {.name = "flooded", .says = "live messages overflow while a device waits",
     .style = ALONE, .events = 5, .gap_ms = 3000, .held_bytes = 200,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(PASSING), FAULTS}},
    {.name = "slow", .says = "devices read slowly",
     .style = ALONE, .events = 5, .gap_ms = 3000, .room = 2,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), FAULTS}},
    {.name = "slow-trimmed", .says = "devices read slowly, a history of two",
     .style = ALONE, .events = 6, .gap_ms = 3000, .room = 1, .history = 2,
     .max = {ANY(ATTACH0), ANY(GONE0), ANY(BEGIN0)}},
    {.name = "errors", .says = "readings fail",
     .style = ALONE, .events = 5, .gap_ms = 3000,
     .max = {DEVICES_COME_AND_GO, ANY(BEGIN0), ANY(FAIL), FAULTS}},
    {.name = "forgetful", .says = "more ids than are remembered; messages minutes apart",
     .style = ATOMICALLY, .events = 6, .gap_ms = 130000, .history = 1, .known_beyond = 3,
     .max = {ANY(ATTACH0), ANY(GONE0), ANY(ATOMIC), ANY(PASSING), ANY(BREAK)}},
};
#define SCENARIOS (sizeof(scenarios) / sizeof(*scenarios))

static struct {
    double seconds; /* 0: quick */
    unsigned events;
    uint64_t walks, seed;
    const char *scenario, *replay;
} wanted;

static unsigned done;
static bool is_bad;

/* ---- output ---- */

static void report(const struct scenario *s, const char *what, const struct tally *t, bool held,
                   int64_t us)
{
    double seconds = (double)us / 1e6;
    printf("%sok %u - %s: %s; %s\n", held ? "" : "not ", ++done, s->name, s->says, what);
    printf("#   %llu schedules, %llu states, %llu steps, %llu run to the end, up to %u steps "
           "long; %.2f s, %.0f schedules a second\n", (unsigned long long)t->schedules,
           (unsigned long long)t->states, (unsigned long long)t->steps,
           (unsigned long long)t->settled, t->depth, seconds,
           (double)t->schedules / (seconds > 0.001 ? seconds : 0.001));
    fflush(stdout);
}

static void report_violation(const struct schedule *found)
{
    is_bad = true;
    if (explore_replay(found))
        printf("#   but run by itself it holds: the model is wrong\n");
    printf("#   again: model --scenario=%s --replay=\"", scenario->name);
    for (unsigned i = 0; i < found->count; i++)
        printf("%s%s", i ? " " : "", step_rows[found->steps[i]].token);
    printf("\"\n");
    fflush(stdout);
}

/* ---- runs ---- */

static bool explore_to(unsigned events, int64_t until_us, struct tally *t)
{
    static struct schedule found;
    int64_t began = clock_mono_us();
    char what[64];
    explore_init(wanted.seconds > 0 ? LARGE_TABLE : SMALL_TABLE);
    bool held = explore_all(events, until_us, t, &found);
    snprintf(what, sizeof(what), "%s schedules of %u events",
             held && !t->is_complete ? "some of the" : "all", events);
    report(scenario, what, t, held, clock_mono_us() - began);
    if (!held)
        report_violation(&found);
    return held;
}

static bool walk(uint64_t walks, int64_t until_us)
{
    static struct schedule found;
    int64_t began = clock_mono_us();
    struct tally t;
    char what[64];
    bool held = explore_walks(wanted.seed, WALK_STEPS, walks, until_us, &t, &found);
    snprintf(what, sizeof(what), "random walks from seed %llu", (unsigned long long)wanted.seed);
    report(scenario, what, &t, held, clock_mono_us() - began);
    if (!held)
        report_violation(&found);
    return held;
}

/* Walks are long: there is more of everything than in a scenario that is explored. */
static struct scenario enlarge(const struct scenario *s)
{
    struct scenario large = *s;
    for (unsigned i = 0; i < STEP_KINDS; i++)
        if (large.max[i])
            large.max[i] = 15; /* two producers stay below what seen can name */
    return large;
}

static void run_scenario(const struct scenario *s, int64_t share_us)
{
    struct tally t = {.is_complete = true};
    int64_t until = clock_mono_us() + share_us;
    unsigned events = wanted.events ? wanted.events : s->events;
    bool held = true;
    scenario = s;
    if (!wanted.walks) /* so far it goes, however slow the machine is */
        held = explore_to(events, INT64_MAX, &t);
    while (held && wanted.seconds > 0 && !wanted.events && t.is_complete && events < 30)
        held = explore_to(++events, until, &t);
    if (!held || wanted.events)
        return;
    struct scenario large = enlarge(s);
    scenario = &large;
    uint64_t walks = wanted.walks ? wanted.walks : 300;
    (void)walk(wanted.seconds > 0 ? UINT64_MAX : walks,
               wanted.seconds > 0 ? clock_mono_us() + share_us / 5 : INT64_MAX);
}

static const struct scenario *find_scenario(const char *name)
{
    for (size_t i = 0; i < SCENARIOS; i++)
        if (!strcmp(scenarios[i].name, name))
            return &scenarios[i];
    fprintf(stderr, "model: no scenario %s\n", name);
    exit(2);
}

static int replay(void)
{
    static struct schedule s;
    static struct scenario large;
    char *steps = strdup(wanted.replay);
    large = enlarge(find_scenario(wanted.scenario ? wanted.scenario : ""));
    scenario = &large;
    for (char *token = strtok(steps, " "); token; token = strtok(NULL, " ")) {
        unsigned k = 0;
        while (k < STEP_KINDS && strcmp(step_rows[k].token, token))
            k++;
        if (k == STEP_KINDS || s.count == STEPS_MAX) {
            fprintf(stderr, "model: no step %s\n", token);
            return 2;
        }
        s.steps[s.count++] = (uint8_t)k;
    }
    bool held = explore_replay(&s);
    if (held)
        printf("#   it holds\n");
    return held ? 0 : 1;
}

static void list(void)
{
    for (size_t i = 0; i < SCENARIOS; i++)
        printf("%-18s %s\n", scenarios[i].name, scenarios[i].says);
    for (unsigned i = 0; i < STEP_KINDS; i++)
        printf("  %-3s %s\n", step_rows[i].token, step_rows[i].text);
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'}, {"events", required_argument, NULL, 'e'},
        {"scenario", required_argument, NULL, 'c'}, {"replay", required_argument, NULL, 'r'},
        {"walks", required_argument, NULL, 'w'}, {"seed", required_argument, NULL, 'd'},
        {"list", no_argument, NULL, 'l'}, {0}};
    wanted.seed = 1;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) >= 0;)
        switch (o) {
        case 's':
            wanted.seconds = atof(optarg);
            break;
        case 'e':
            wanted.events = (unsigned)atoi(optarg);
            break;
        case 'c':
            wanted.scenario = optarg;
            break;
        case 'r':
            wanted.replay = optarg;
            break;
        case 'w':
            wanted.walks = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            wanted.seed = strtoull(optarg, NULL, 10);
            break;
        case 'l':
            list();
            exit(0);
        default:
            exit(2);
        }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    world_init();
    if (wanted.replay)
        return replay();
    const struct scenario *only = wanted.scenario ? find_scenario(wanted.scenario) : NULL;
    int64_t share_us = (int64_t)(wanted.seconds * 1e6 / 1.2 / (only ? 1 : SCENARIOS));
    for (size_t i = 0; i < SCENARIOS; i++)
        if (!only || only == &scenarios[i])
            run_scenario(&scenarios[i], share_us);
    printf("1..%u\n", done);
    return is_bad ? 1 : 0;
}
