/*
 * What can happen, and what of it can happen now.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "tests/model/model.h"
#include "workers/session_parts.h"

#define SETTLING_STEPS 4000

const struct step_row step_rows[STEP_KINDS] = {
#define S(name, token, is_event, text) {token, text, is_event},
    MODEL_STEPS(S)
#undef S
};

unsigned events_max;

static bool is_allowed(enum step s)
{
    return world.used[s] < scenario->max[s] && world.events < events_max;
}

/* ---- producers ---- */

static bool is_anybody_busy(void)
{
    for (int p = 0; p < PRODUCERS; p++)
        if (world.producers[p].phase != PHASE_IDLE)
            return true;
    return false;
}

/* Who repeats a message is busy with it, but it is the first time that counts. */
static void begin(int producer, uint8_t message)
{
    struct producer *p = &world.producers[producer];
    for (int other = 0; other < PRODUCERS; other++)
        if (other != producer && world.producers[other].phase != PHASE_IDLE) {
            world.overlaps[message] |= bit(world.producers[other].message);
            world.overlaps[world.producers[other].message] |= bit(message);
        }
    memmove(world.list + 1, world.list, world.list_count++);
    world.list[0] = message;
    p->phase = PHASE_STORED;
    p->message = message;
    p->has_last = true;
}

static uint8_t new_message(int producer)
{
    uint8_t n = world.stored++;
    world.tick_of[n] = ++world.ticks;
    world.made_by[producer] |= bit(n);
    return n;
}

static void trim(void)
{
    if (world.list_count > scenario->history)
        world.list_count = scenario->history;
}

static void go_on(int producer)
{
    struct producer *p = &world.producers[producer];
    if (p->phase == PHASE_STORED && scenario->history) {
        trace("LTRIM");
        trim();
        p->phase = PHASE_TRIMMED;
        return;
    }
    trace("PUBLISH m%02u", p->message);
    world_publish(ITEM_MESSAGE, p->message);
    p->phase = PHASE_IDLE;
}

static bool may_begin(int producer)
{
    if (world.producers[producer].phase != PHASE_IDLE || world.stored >= MESSAGES_MAX - 1 ||
        world.list_count >= LIST_MAX - 1)
        return false;
    if (scenario->style != CROSSING)
        return producer == 0 && !is_anybody_busy();
    return producer == 0 || world.producers[0].has_last; /* one is as good as the other */
}

static bool is_repair_due(void)
{
    bool is_due = world.link != LINK_UP;
    for (int d = 0; d < DEVICES; d++)
        is_due |= world.clients[d].conn.device.state == DEVICE_REPAIRING;
    return is_due;
}

/* The little that is remembered must do: see known_beyond. And messages are minutes apart then, for
 * which no lost link is unnoticed. */
static bool is_remembered(void)
{
    if (scenario->known_beyond && world.link == LINK_BROKEN)
        return false;
    return !scenario->known_beyond || world.under_repair < scenario->known_beyond - 1;
}

/* ---- janitor ---- */

/* DEL, and LPUSH of all that was there, newest first, in one transaction. */
static void reverse_list(void)
{
    for (uint8_t i = 0, j = world.list_count; i < j--; i++) {
        uint8_t entry = world.list[i];
        world.list[i] = world.list[j];
        world.list[j] = entry;
    }
}

/* ---- devices ---- */

static bool may_attach(int device)
{
    return !world.clients[device].is_open && (device == 0 || world.clients[0].was_open);
}

static bool may_cut(int device)
{
    const struct client *c = &world.clients[device];
    return c->is_open && c->count > c->began && c->count > c->epoch;
}

static void cut(int device)
{
    struct client *c = &world.clients[device];
    uint8_t lost = c->got[--c->count];
    bool is_had = false;
    for (unsigned i = c->epoch; i < c->count; i++)
        is_had |= c->got[i] == lost;
    if (!is_had)
        c->had &= ~bit(lost);
    world_leave(device);
}

/* ---- all steps ---- */

static bool is_read_pending(void)
{
    for (uint8_t k = 0; k < world.call_count; k++)
        if (!world.calls[world.order[k]].is_executed)
            return true;
    return false;
}

/* Live copies of what had left the list by the time of the reading are still to be taken. */
static bool is_overtaking(const struct store_call *c)
{
    for (uint8_t i = 0; i < world.item_count; i++) {
        const struct item *item = &world.items[i];
        if (item->kind == ITEM_MESSAGE && item->number < c->stored &&
            !(c->mask & bit(item->number)))
            return true;
    }
    return false;
}

/* With messages minutes apart none is on its way when the next but one is made. */
static bool is_answer_pending(void)
{
    const struct store_call *c = world_oldest_call();
    if (!c || !c->is_executed)
        return false;
    if (scenario->known_beyond && world.item_count >= scenario->known_beyond - 1U)
        return false;
    return c->is_cancelled || scenario->gap_ms < SESSION_LAG_US / 1000 || !is_overtaking(c);
}

static bool is_possible(enum step s)
{
    switch (s) {
    case STEP_ATTACH0:
    case STEP_ATTACH1:
        return may_attach(s - STEP_ATTACH0);
    case STEP_GONE0:
    case STEP_GONE1:
        return world.clients[s - STEP_GONE0].is_open;
    case STEP_CUT0:
    case STEP_CUT1:
        return may_cut(s - STEP_CUT0);
    case STEP_BEGIN0:
    case STEP_BEGIN1:
        return may_begin(s - STEP_BEGIN0);
    case STEP_ATOMIC:
        return may_begin(0) && is_remembered();
    case STEP_PASSING:
        return world.passing < MESSAGES_MAX - 1 && is_remembered();
    case STEP_AGAIN0:
        return may_begin(0) && world.producers[0].has_last;
    case STEP_REPUBLISH0:
        return world.producers[0].has_last && world.producers[0].phase == PHASE_IDLE;
    case STEP_JANITOR:
        return world.list_count > 1;
    case STEP_EXPIRE:
        return world.list_count > 0;
    case STEP_BREAK:
        return world.link == LINK_UP;
    case STEP_STORE_LOST:
        return world.store_up;
    case STEP_FAIL:
    case STEP_ANSWER:
        return is_answer_pending() &&
               (s == STEP_ANSWER || !world_oldest_call()->is_cancelled);
    case STEP_CONTINUE0:
    case STEP_CONTINUE1:
        return world.producers[s - STEP_CONTINUE0].phase != PHASE_IDLE;
    case STEP_NOTICE:
        return world.link == LINK_BROKEN;
    case STEP_RELINK:
        return world.link == LINK_DOWN;
    case STEP_STORE_BACK:
        return !world.store_up;
    case STEP_REDIS_TAKES:
        return world.link == LINK_UP && world.command_count;
    case STEP_WORKER_TAKES:
        return world.link != LINK_DOWN && world.item_count;
    case STEP_READ:
        return is_read_pending();
    case STEP_WRITTEN0:
    case STEP_WRITTEN1:
        return world.clients[s - STEP_WRITTEN0].is_open &&
               world.clients[s - STEP_WRITTEN0].waiting;
    case STEP_TIMER:
        return world_timer_is_active();
    case STEP_WORK:
        return world_has_work();
    case STEP_KINDS:
        break;
    }
    return false;
}

bool step_is_enabled(enum step s)
{
    return (!step_rows[s].is_event || is_allowed(s)) && is_possible(s);
}

/* What carries on comes first: a schedule without faults is the first to be looked at. */
size_t steps_enabled(uint8_t out[STEP_KINDS])
{
    size_t n = 0;
    for (unsigned s = STEP_KINDS; s-- > 0;)
        if (step_is_enabled(s))
            out[n++] = (uint8_t)s;
    return n;
}

bool steps_pending(void)
{
    return is_possible(STEP_REDIS_TAKES) || is_possible(STEP_WORKER_TAKES) ||
           is_possible(STEP_READ) || is_possible(STEP_ANSWER) || is_possible(STEP_TIMER) ||
           is_possible(STEP_WORK) ||
           is_possible(STEP_WRITTEN0) || is_possible(STEP_WRITTEN1);
}

static void write_atomically(void)
{
    uint8_t n = new_message(0);
    begin(0, n);
    if (scenario->history)
        trim();
    world_publish(ITEM_MESSAGE, n);
    world.producers[0].phase = PHASE_IDLE;
}

static void publish_only(void)
{
    uint8_t n = world.passing++;
    world.passing_tick[n] = ++world.ticks;
    world_publish(ITEM_PASSING, n);
}

static void perform_event(enum step s)
{
    switch (s) {
    case STEP_ATTACH0:
    case STEP_ATTACH1:
        world_attach(s - STEP_ATTACH0);
        break;
    case STEP_GONE0:
    case STEP_GONE1:
        world_leave(s - STEP_GONE0);
        break;
    case STEP_CUT0:
    case STEP_CUT1:
        cut(s - STEP_CUT0);
        break;
    case STEP_BEGIN0:
    case STEP_BEGIN1:
        begin(s - STEP_BEGIN0, new_message(s - STEP_BEGIN0));
        trace("LPUSH m%02u", world.stored - 1);
        break;
    case STEP_ATOMIC:
        write_atomically();
        break;
    case STEP_PASSING:
        publish_only();
        break;
    case STEP_AGAIN0:
        begin(0, world.producers[0].message);
        break;
    case STEP_REPUBLISH0:
        world_publish(ITEM_MESSAGE, world.producers[0].message);
        break;
    case STEP_JANITOR:
        reverse_list();
        break;
    case STEP_EXPIRE:
        while (world.list_count)
            world.placeless |= bit(world.list[--world.list_count]);
        break;
    case STEP_BREAK:
        world.link = LINK_BROKEN;
        world.is_subscribed = false;
        break;
    case STEP_STORE_LOST:
        world_store_lost();
        break;
    case STEP_FAIL:
        world_answer(-EIO);
        break;
    default:
        break;
    }
}

static void perform(enum step s)
{
    switch (s) {
    case STEP_CONTINUE0:
    case STEP_CONTINUE1:
        go_on(s - STEP_CONTINUE0);
        break;
    case STEP_NOTICE:
        world_link_lost();
        break;
    case STEP_RELINK:
        world_link_back();
        break;
    case STEP_STORE_BACK:
        world_store_back();
        break;
    case STEP_REDIS_TAKES:
        world_redis_takes();
        break;
    case STEP_WORKER_TAKES:
        world_worker_takes();
        break;
    case STEP_READ:
        world_read();
        break;
    case STEP_ANSWER:
        world_answer(0);
        break;
    case STEP_WRITTEN0:
    case STEP_WRITTEN1:
        world_written(s - STEP_WRITTEN0);
        break;
    case STEP_TIMER:
        world_timer();
        break;
    case STEP_WORK:
        world_work();
        break;
    default:
        perform_event(s);
    }
}

void step_do(enum step s)
{
    if (step_rows[s].is_event) {
        world.used[s]++;
        world.events++;
    }
    perform(s);
    world_end_of_turn();
    if (s == STEP_PASSING || s == STEP_ATOMIC)
        world.under_repair++;
    if (!scenario->known_beyond || !is_repair_due())
        world.under_repair = 0;
}

/* ---- settling ---- */

static bool try_step(enum step s)
{
    if (!is_possible(s))
        return false;
    step_do(s);
    return true;
}

static void drain(void)
{
    for (unsigned n = 0; n < SETTLING_STEPS; n++)
        if (!try_step(STEP_REDIS_TAKES) && !try_step(STEP_WORKER_TAKES) && !try_step(STEP_READ) &&
            !try_step(STEP_ANSWER) && !try_step(STEP_TIMER) && !try_step(STEP_WORK) &&
            !try_step(STEP_WRITTEN0) && !try_step(STEP_WRITTEN1))
            return;
    violated("it never comes to rest");
}

void steps_settle(void)
{
    trace("to the end:");
    (void)try_step(STEP_NOTICE);
    (void)try_step(STEP_RELINK);
    (void)try_step(STEP_STORE_BACK);
    drain();
    for (int p = 0; p < PRODUCERS; p++)
        while (try_step(STEP_CONTINUE0 + p))
            ;
    drain();
    judge_rest(false);
    for (int round = 0; round < 4; round++) { /* one that was too slow comes once more */
        for (int d = 0; d < DEVICES; d++)
            if (world.clients[d].was_open && !world.clients[d].is_open) {
                trace("device %d comes back", d);
                world_attach(d);
            }
        drain();
    }
    judge_rest(true);
    world_stop();
}
