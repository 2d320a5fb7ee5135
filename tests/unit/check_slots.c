#include "config.h"

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/slots.h"

/*
 * A model of the world around one slot: is there a process, is the timer armed, is a fork's outcome
 * awaited. All worlds that can be reached are walked, and in each of them every event that can
 * happen there.
 */
struct world {
    enum slot_phase phase;
    bool has_process;
    bool has_timer;
    bool is_forking;
};

static bool can_happen(const struct world *w, enum slot_event event)
{
    if (w->is_forking)
        return event == SLOT_EVENT_FORKED || event == SLOT_EVENT_FORK_FAILED;
    switch (event) {
    case SLOT_EVENT_START:
        return w->phase == SLOT_PHASE_EMPTY;
    case SLOT_EVENT_FORKED:
    case SLOT_EVENT_FORK_FAILED:
        return false;
    case SLOT_EVENT_READY:
    case SLOT_EVENT_FAILED:
    case SLOT_EVENT_LINK_LOST:
    case SLOT_EVENT_EXIT:
    case SLOT_EVENT_HUNG:
        return w->has_process;
    case SLOT_EVENT_TIMER:
        return w->has_timer;
    case SLOT_EVENT_DRAIN:
    case SLOT_EVENT_STOP:
        return true;
    case SLOT_EVENTS:
        break;
    }
    return false;
}

/* What supervisor.c does, as far as the model sees it. */
static void apply(struct world *w, enum slot_event event)
{
    struct slot_step step = slots_step(w->phase, event);
    w->phase = step.phase;
    if (event == SLOT_EVENT_FORKED)
        w->has_process = true;
    if (event == SLOT_EVENT_FORKED || event == SLOT_EVENT_FORK_FAILED)
        w->is_forking = false;
    if (event == SLOT_EVENT_EXIT)
        w->has_process = false;
    if (event == SLOT_EVENT_TIMER)
        w->has_timer = false;
    switch (step.action) {
    case SLOT_DO_FORK:
        w->is_forking = true;
        break;
    case SLOT_DO_WATCH:
    case SLOT_DO_AWAIT_END:
    case SLOT_DO_SEND_DRAIN:
    case SLOT_DO_SEND_STOP:
    case SLOT_DO_KILL:
    case SLOT_DO_BACK_OFF:
    case SLOT_DO_COUNT_LOSS:
        w->has_timer = true;
        break;
    case SLOT_DO_TELL_READY:
    case SLOT_DO_RETIRE:
    case SLOT_DO_FORGET:
        w->has_timer = false;
        break;
    case SLOT_DO_NOTHING:
        break;
    case SLOT_DO_REPORT_BUG:
        ck_abort_msg("%s in phase %s", slots_event_name(event), slots_phase_name(w->phase));
    }
}

static void check_world(const struct world *w)
{
    const char *name = slots_phase_name(w->phase);
    bool wants_process = w->phase != SLOT_PHASE_EMPTY && w->phase != SLOT_PHASE_BACKOFF;
    ck_assert_msg(w->has_process == wants_process, "process in phase %s", name);
    if (w->is_forking)
        return;
    bool wants_timer = w->phase != SLOT_PHASE_EMPTY && w->phase != SLOT_PHASE_READY;
    ck_assert_msg(w->has_timer == wants_timer, "timer in phase %s: %d", name, w->has_timer);
}

static unsigned code_of(const struct world *w)
{
    return (unsigned)w->phase * 8 + w->has_process * 4u + w->has_timer * 2u + w->is_forking;
}

static struct world world_of(unsigned code)
{
    return (struct world){(enum slot_phase)(code / 8), code & 4, code & 2, code & 1};
}

/* Every reachable world, checked; returns how many phases were seen. */
static int walk(bool seen[SLOT_PHASES * 8])
{
    unsigned queue[SLOT_PHASES * 8], first = 0, last = 0;
    bool phases[SLOT_PHASES] = {false};
    seen[0] = true;
    queue[last++] = 0;
    while (first < last) {
        struct world from = world_of(queue[first++]);
        phases[from.phase] = true;
        for (int e = 0; e < SLOT_EVENTS; e++) {
            struct world to = from;
            if (!can_happen(&from, (enum slot_event)e))
                continue;
            apply(&to, (enum slot_event)e);
            check_world(&to);
            if (!seen[code_of(&to)])
                queue[last++] = code_of(&to);
            seen[code_of(&to)] = true;
        }
    }
    int count = 0;
    for (int i = 0; i < SLOT_PHASES; i++)
        count += phases[i];
    return count;
}

START_TEST(every_event_that_can_happen_leaves_process_and_timer_as_the_phase_says)
{
    bool seen[SLOT_PHASES * 8] = {false};
    ck_assert_int_eq(walk(seen), SLOT_PHASES);
}
END_TEST

START_TEST(a_stopped_slot_is_empty_once_its_process_is_gone)
{
    bool seen[SLOT_PHASES * 8] = {false};
    walk(seen);
    for (unsigned code = 0; code < SLOT_PHASES * 8; code++) {
        struct world w = world_of(code);
        if (!seen[code] || w.is_forking)
            continue;
        apply(&w, SLOT_EVENT_STOP);
        for (int i = 0; i < 3 && w.has_timer; i++)
            apply(&w, SLOT_EVENT_TIMER); /* killed, once more killed */
        if (w.has_process)
            apply(&w, SLOT_EVENT_EXIT);
        ck_assert_int_eq(w.phase, SLOT_PHASE_EMPTY);
    }
}
END_TEST

START_TEST(a_worker_that_dies_unasked_comes_back_and_one_told_to_end_does_not)
{
    static const enum slot_phase unasked[] = {SLOT_PHASE_STARTING, SLOT_PHASE_READY,
                                              SLOT_PHASE_FAILING};
    static const enum slot_phase asked[] = {SLOT_PHASE_DRAINING, SLOT_PHASE_STOPPING};
    for (size_t i = 0; i < 3; i++) {
        struct slot_step step = slots_step(unasked[i], SLOT_EVENT_EXIT);
        ck_assert_int_eq(step.phase, SLOT_PHASE_BACKOFF);
        ck_assert_int_eq(step.action, SLOT_DO_COUNT_LOSS);
    }
    for (size_t i = 0; i < 2; i++) {
        struct slot_step step = slots_step(asked[i], SLOT_EVENT_EXIT);
        ck_assert_int_eq(step.phase, SLOT_PHASE_EMPTY);
        ck_assert_int_eq(step.action, SLOT_DO_RETIRE);
    }
    ck_assert_int_eq(slots_step(SLOT_PHASE_BACKOFF, SLOT_EVENT_TIMER).action, SLOT_DO_FORK);
}
END_TEST

START_TEST(a_silent_worker_is_killed_in_every_phase_that_has_a_process)
{
    for (int phase = 0; phase < SLOT_PHASES; phase++) {
        enum slot_action action = slots_step((enum slot_phase)phase, SLOT_EVENT_HUNG).action;
        bool has_process = phase != SLOT_PHASE_EMPTY && phase != SLOT_PHASE_BACKOFF;
        ck_assert_int_eq(action, has_process ? SLOT_DO_KILL : SLOT_DO_REPORT_BUG);
    }
}
END_TEST

START_TEST(the_wait_doubles_with_each_young_death_up_to_ten_seconds)
{
    static const int64_t waits[] = {0, 100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000};
    for (uint32_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++)
        ck_assert_int_eq(slots_backoff_ms(i), waits[i]);
    ck_assert_int_eq(slots_backoff_ms(UINT32_MAX), 10000);
}
END_TEST

START_TEST(the_shared_memory_calls_a_slot_empty_exactly_when_no_worker_is_in_it)
{
    for (int phase = 0; phase < SLOT_PHASES; phase++) {
        bool is_empty = phase == SLOT_PHASE_EMPTY || phase == SLOT_PHASE_BACKOFF;
        ck_assert_int_eq(slots_shared_state((enum slot_phase)phase) == SLOT_EMPTY, is_empty);
    }
    ck_assert_int_eq(slots_shared_state(SLOT_PHASE_READY), SLOT_READY);
    ck_assert_int_eq(slots_shared_state(SLOT_PHASE_DRAINING), SLOT_DRAINING);
}
END_TEST

START_TEST(every_phase_and_event_has_a_name_of_its_own)
{
    for (int i = 0; i < SLOT_PHASES; i++)
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(slots_phase_name((enum slot_phase)i),
                             slots_phase_name((enum slot_phase)j));
    for (int i = 0; i < SLOT_EVENTS; i++)
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(slots_event_name((enum slot_event)i),
                             slots_event_name((enum slot_event)j));
    ck_assert_str_eq(slots_phase_name(SLOT_PHASE_BACKOFF), "backoff");
    ck_assert_str_eq(slots_event_name(SLOT_EVENT_HUNG), "hung");
}
END_TEST

START_TEST(a_death_is_of_one_kind)
{
    const struct {
        enum slot_phase phase;
        int status; /* as waitpid(2) lays it out: signal, or exit code in the next byte */
        bool was_hung, was_killed;
        enum slot_death death;
    } cases[] = {
        {SLOT_PHASE_READY, 9, false, false, SLOT_DEATH_KILLED},
        {SLOT_PHASE_DRAINING, 9, false, false, SLOT_DEATH_KILLED},
        {SLOT_PHASE_READY, 11, false, false, SLOT_DEATH_CRASHED},
        {SLOT_PHASE_STOPPING, 6, false, false, SLOT_DEATH_CRASHED},
        {SLOT_PHASE_FAILING, 9, true, true, SLOT_DEATH_HUNG},
        {SLOT_PHASE_STOPPING, 9, true, true, SLOT_DEATH_HUNG},
        {SLOT_PHASE_STOPPING, 9, false, true, SLOT_DEATH_NONE}, /* out of time */
        {SLOT_PHASE_READY, 0, false, false, SLOT_DEATH_OTHER},
        {SLOT_PHASE_STARTING, 1 << 8, false, false, SLOT_DEATH_OTHER},
        {SLOT_PHASE_DRAINING, 0, false, false, SLOT_DEATH_NONE},
        {SLOT_PHASE_STOPPING, 1 << 8, false, false, SLOT_DEATH_NONE},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        ck_assert_int_eq(slots_death(cases[i].phase, cases[i].status, cases[i].was_hung,
                                     cases[i].was_killed),
                         cases[i].death);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("slots");
    TCase *t = tcase_create("table");
    tcase_add_test(t, a_death_is_of_one_kind);
    tcase_add_test(t, every_event_that_can_happen_leaves_process_and_timer_as_the_phase_says);
    tcase_add_test(t, a_stopped_slot_is_empty_once_its_process_is_gone);
    tcase_add_test(t, a_worker_that_dies_unasked_comes_back_and_one_told_to_end_does_not);
    tcase_add_test(t, a_silent_worker_is_killed_in_every_phase_that_has_a_process);
    tcase_add_test(t, the_wait_doubles_with_each_young_death_up_to_ten_seconds);
    tcase_add_test(t, the_shared_memory_calls_a_slot_empty_exactly_when_no_worker_is_in_it);
    tcase_add_test(t, every_phase_and_event_has_a_name_of_its_own);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
