/*
 * What must hold. Messages are numbered in the order in which they were stored, which is the order
 * of the list (a janitor's reversal is undone by time: messages are further apart than the two
 * seconds of the rule).
 *
 * A device is owed every message that was stored and published, unless
 *   gone      it was not in the list when the list was read for this device, and had left it before
 *             the device came, or its live copy did not reach the worker since, or was taken for
 *             a repeat of what another device had been given from the list
 *   told      the message left the list while it lagged or its link was lost, and it was told so
 *   crossed   producers crossed: the message stands before all in the list that the device named,
 *             last_id and seen, and was under way at the same time as the oldest of these
 *   limited   the device came without a known position, and the message lies beyond replay-limit;
 *             once it is live it is owed what is published from then on
 * It is owed them in the order of the list, but for those that left it because it was deleted;
 * where producers cross, in the order of each producer, but for those that left it or were left
 * out. It is sent nothing twice, unless it was told recovered:false since, or the message is gone,
 * or crossed as above, at the time it resumes.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model.h"

struct violation violation;

void violated(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(violation.text, sizeof(violation.text), format, args);
    va_end(args);
    longjmp(violation.where, 1);
}

void trace(const char *format, ...)
{
    if (!is_tracing)
        return;
    va_list args;
    va_start(args, format);
    printf("#           ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

static int index_of(const struct client *c)
{
    return (int)(c - world.clients);
}

/* Of all sent after FULL_SYNC in the same step, so many are from the list as it said, or older. */
static void judge_place(struct client *c, const char *what, unsigned number, bool is_listed)
{
    int d = index_of(c);
    if (!c->is_open)
        violated("device %d is gone and was sent %s%02u", d, what, number);
    if (!c->syncs)
        violated("device %d was sent %s%02u before FULL_SYNC", d, what, number);
    if (c->is_attaching && is_listed && !c->missed_left)
        violated("device %d was sent more than FULL_SYNC said", d);
    c->missed_left -= c->missed_left > 0;
}

static void judge_order(const struct client *c, unsigned number)
{
    uint64_t later = c->had & ~(bit(number) | (bit(number) - 1));
    if (scenario->style == CROSSING)
        later &= world.made_by[world.made_by[1] & bit(number) ? 1 : 0];
    if (later && !(world.placeless & bit(number)))
        violated("device %d was sent m%02u after m%02d", index_of(c), number,
                 63 - __builtin_clzll(later));
}

void judge_message(struct client *c, unsigned number, bool is_listed)
{
    trace("device %d gets m%02u (%s)", index_of(c), number, is_listed ? "list" : "live");
    judge_place(c, "m", number, is_listed);
    if (c->had & bit(number)) {
        if (!(c->may_repeat & bit(number)))
            violated("device %d was sent m%02u twice", index_of(c), number);
        c->may_repeat &= ~bit(number);
    } else
        judge_order(c, number);
    c->had |= bit(number);
    if (c->count == sizeof(c->got))
        violated("device %d was sent more than the model can count", index_of(c));
    c->got[c->count++] = (uint8_t)number;
}

void judge_passing(struct client *c, unsigned number)
{
    trace("device %d gets p%02u", index_of(c), number);
    judge_place(c, "p", number, false);
    if (c->had_passing & bit(number))
        violated("device %d was sent p%02u twice", index_of(c), number);
    c->had_passing |= bit(number);
}

/* ---- FULL_SYNC ---- */

static const char *after(const char *text, size_t len, const char *name)
{
    const char *at = memmem(text, len, name, strlen(name));
    if (!at)
        violated("FULL_SYNC has no %s", name);
    return at + strlen(name);
}

static void judge_last_id(const struct client *c, const char *said, uint64_t list)
{
    char expected[16] = "null";
    if (list)
        snprintf(expected, sizeof(expected), "\"m%02d\"", 63 - __builtin_clzll(list));
    if (strncmp(said, expected, strlen(expected)))
        violated("device %d was told last_id %.5s instead of %s", index_of(c), said, expected);
}

/* What is not in the list when it is read because of the device: nobody can give it any more, but
 * what was heard is in the worker's hands. */
static void note_gone(struct client *c, const struct store_call *reading)
{
    uint64_t absent = (bit(reading->stored) - 1) & ~reading->mask;
    c->late &= ~reading->mask;
    c->gone = absent & (c->late | ~c->heard);
}

static void note_crossed(struct client *c, const struct store_call *reading)
{
    if (scenario->style != CROSSING)
        return;
    uint64_t named = bit((unsigned)c->resumed_at) | (c->seen & reading->mask);
    unsigned at = (unsigned)__builtin_ctzll(named);
    uint64_t had = c->had | c->had_before;
    uint64_t crossing = reading->mask & world.overlaps[at];
    c->crossed |= crossing & (bit(at) - 1) & ~had;
    if (scenario->resuming == WITH_LAST_ID)
        c->may_repeat |= crossing & ~(bit(at) - 1) & had;
}

static void note_limited(struct client *c, const struct store_call *reading)
{
    uint64_t newest = 0, left = reading->mask;
    if (!scenario->replay_limit)
        return;
    for (unsigned n = 0; left && n < scenario->replay_limit % REPLAY_NONE; n++) {
        newest |= bit(63U - (unsigned)__builtin_clzll(left));
        left = reading->mask & ~newest;
    }
    c->limited |= reading->mask & ~newest & reading->published;
    c->withheld |= reading->mask & ~newest & ~reading->published;
    if (scenario->style == CROSSING)
        world.placeless |= reading->mask & ~newest;
}

void judge_full_sync(struct client *c, const char *text, size_t len,
                     const struct store_call *reading)
{
    int d = index_of(c);
    bool is_recovered = *after(text, len, "\"recovered\":") == 't';
    unsigned missed = (unsigned)atoi(after(text, len, "\"missed\":"));
    trace("device %d gets FULL_SYNC: recovered %s, missed %u", d, is_recovered ? "true" : "false",
          missed);
    if (!c->is_open)
        violated("device %d is gone and was sent FULL_SYNC", d);
    bool is_lagging = c->conn.device.busy->lag;
    c->was_told = c->syncs++ && !is_recovered && (c->needs_reading || is_lagging);
    if (c->syncs > 1 && !c->was_told)
        violated("device %d was sent FULL_SYNC twice", d);
    if (!reading || !reading->is_executed)
        violated("device %d was sent FULL_SYNC out of nothing", d);
    judge_last_id(c, after(text, len, "\"last_id\":"), reading->mask);
    c->is_attaching = true;
    c->missed_left = (uint8_t)missed;
    if (c->was_told) {
        c->told |= (bit(reading->stored) - 1) & ~reading->mask & ~c->had;
        return;
    }
    bool has_place = c->resumed_at != NOBODY && reading->mask & bit((unsigned)c->resumed_at);
    if (is_recovered != (c->resumed_at == NOBODY || has_place))
        violated("device %d was told recovered:%s", d, is_recovered ? "true" : "false");
    note_gone(c, reading);
    c->may_repeat |= c->gone;
    if (has_place)
        note_crossed(c, reading);
    else
        note_limited(c, reading);
    if (!is_recovered) {
        c->epoch = c->count;
        c->had_before |= c->had;
        c->had = 0;
    }
}

/* A device under repair is told of a gap that nobody can fill, but where Redis lost the list, and
 * where producers cross and it has what is newer than the gap. */
static void note_gap(struct client *c, const struct store_call *reading)
{
    uint64_t before = c->gone;
    note_gone(c, reading);
    uint64_t lost = c->gone & ~before & world.published &
                    ~(c->had | c->had_before | c->told | c->limited);
    if (lost && !c->was_told && !scenario->max[STEP_EXPIRE] && scenario->style != CROSSING)
        violated("device %d never gets m%02d, and was not told of a gap", index_of(c),
                 __builtin_ctzll(lost));
}

/* ---- live copies and readings ---- */

/* With little room for what waits, only a live device counts: from the others it may be taken
 * again, and has to come from the list then. */
void judge_heard(unsigned number, unsigned audience)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        struct client *c = &world.clients[i];
        if (!(audience & 1U << i) || !c->is_open ||
            (scenario->held_bytes && c->conn.device.state != DEVICE_LIVE))
            continue;
        if (c->syncs)
            c->withheld &= ~bit(number);
        if (world.shown & bit(number))
            continue;
        c->heard |= bit(number);
        c->gone &= ~bit(number) | c->late;
    }
}

/* Whoever is live does not need the reading: all the worker takes has to reach it in order. */
void judge_before_answer(const struct store_call *reading)
{
    trace("the reading has %u entries", reading->count);
    for (int i = 0; i < DEVICES; i++) {
        struct client *c = &world.clients[i];
        c->needs_reading = c->is_open && c->conn.device.state == DEVICE_REPAIRING;
    }
}

void judge_after_answer(const struct store_call *reading)
{
    for (int i = 0; i < DEVICES; i++) {
        struct client *c = &world.clients[i];
        bool is_lagging = c->conn.device.busy->lag; /* the rest comes once there is room */
        if (c->missed_left && c->is_open && !c->is_closing && !is_lagging)
            violated("device %d was sent %u less than FULL_SYNC said", i, c->missed_left);
        if (c->needs_reading && c->conn.device.state == DEVICE_LIVE && !is_lagging)
            note_gap(c, reading);
        c->is_attaching = c->needs_reading = c->was_told = false;
    }
    world.shown |= reading->mask;
}

/* ---- at rest ---- */

void judge_rest(bool all_are_back)
{
    uint64_t stored = world.stored < 64 ? bit(world.stored) - 1 : UINT64_MAX;
    for (int i = 0; i < DEVICES; i++) {
        const struct client *c = &world.clients[i];
        if (!c->was_open || (!c->is_open && !all_are_back))
            continue;
        if (!c->is_open || c->conn.device.state != DEVICE_LIVE || c->conn.device.busy->lag)
            violated("device %d is not live, and nothing moves any more", i);
        uint64_t lost = stored & world.published &
                        ~(c->had | c->had_before | c->gone | c->told | c->crossed | c->limited |
                          c->withheld);
        if (lost)
            violated("device %d never gets m%02d", i, __builtin_ctzll(lost));
    }
}
