/*
 * model.h - the model checker of delivery: the real session code among a played Redis, played
 * connections and a played clock, driven through every order in which things can happen.
 *
 *   arena.c    memory of the code under test: copied, put back, hashed
 *   world.c    the fakes: store.h, subscriber.h, conn.h, the clock, the loop's timers
 *   judge.c    what must hold: belfry-protocol(7), "Delivery"
 *   steps.c    what can happen, and what of it can happen now
 *   explore.c  depth first over the choices, random walks, traces made short
 *   main.c     the scenarios and the command line
 *
 * A schedule is a sequence of steps from the start. Between two steps all state lies in `world`
 * (plain bytes) and in the arena, so a state can be put back instead of being run up to again, and
 * two schedules that lead to one state are followed only once.
 */
#ifndef BELFRY_TESTS_MODEL_MODEL_H
#define BELFRY_TESTS_MODEL_MODEL_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/conn.h"
#include "workers/store.h"

#define DEVICES 2
#define PRODUCERS 2
#define MESSAGES_MAX 64 /* ids are bits of a set */
#define ON_ITS_WAY_MAX 100
#define CALLS_MAX 8
#define LIST_MAX 96
#define STEPS_MAX 1000  /* of one schedule */
#define NOBODY (-1)

/* ---- steps ---- */

/* name, token, is it an event (bounded; the rest only carries on what events began), text */
#define MODEL_STEPS(S)                                                                             \
    S(ATTACH0, "A0", true, "device 0 connects, with what it has")                                  \
    S(ATTACH1, "A1", true, "device 1 connects, with what it has")                                  \
    S(GONE0, "G0", true, "device 0 is gone")                                                       \
    S(GONE1, "G1", true, "device 1 is gone")                                                       \
    S(CUT0, "C0", true, "device 0 is gone, and the last message never reached it")                 \
    S(CUT1, "C1", true, "device 1 is gone, and the last message never reached it")                 \
    S(BEGIN0, "P0", true, "producer 0 begins a message: LPUSH")                                    \
    S(BEGIN1, "P1", true, "producer 1 begins a message: LPUSH")                                    \
    S(ATOMIC, "X", true, "an atomic writer stores and publishes")                                  \
    S(PASSING, "N", true, "a message is published and not stored")                                 \
    S(AGAIN0, "R0", true, "producer 0 repeats its last message: LPUSH")                            \
    S(REPUBLISH0, "Q0", true, "producer 0 publishes its last message again")                       \
    S(JANITOR, "J", true, "the janitor reverses the list")                                         \
    S(EXPIRE, "E", true, "the list is deleted")                                                    \
    S(BREAK, "B", true, "the subscriber link breaks, unnoticed")                                   \
    S(STORE_LOST, "L", true, "the command link is lost")                                           \
    S(FAIL, "F", true, "the oldest reading is answered with an error")                             \
    S(CONTINUE0, "p0", false, "producer 0 goes on")                                                \
    S(CONTINUE1, "p1", false, "producer 1 goes on")                                                \
    S(NOTICE, "n", false, "the worker notices that the subscriber link is lost")                   \
    S(RELINK, "u", false, "the subscriber link is back: SUBSCRIBE is sent")                        \
    S(STORE_BACK, "l", false, "the command link is back")                                          \
    S(REDIS_TAKES, "s", false, "Redis handles the next SUBSCRIBE or UNSUBSCRIBE")                  \
    S(WORKER_TAKES, "w", false, "the worker takes the next item from the subscriber link")         \
    S(READ, "i", false, "Redis reads the list for the oldest call")                                \
    S(ANSWER, "a", false, "the worker takes the oldest answer")                                    \
    S(WORK, "k", false, "the worker goes on with an answer that it left in line")                  \
    S(WRITTEN0, "o0", false, "what waits for device 0 is written")                                 \
    S(WRITTEN1, "o1", false, "what waits for device 1 is written")                                 \
    S(TIMER, "t", false, "the retry timer fires")

enum step {
#define S(name, token, is_event, text) STEP_##name,
    MODEL_STEPS(S)
#undef S
    STEP_KINDS
};

struct step_row {
    const char *token, *text;
    bool is_event;
};
extern const struct step_row step_rows[STEP_KINDS];

/* ---- scenarios ---- */

enum style { ALONE, ATOMICALLY, CROSSING };
enum resuming { WITH_LAST_ID, WITH_SEEN };

#define REPLAY_NONE 255

struct scenario {
    const char *name, *says;
    enum style style;
    enum resuming resuming;
    uint8_t max[STEP_KINDS]; /* how often an event may happen; 0: not at all */
    uint8_t events;          /* together, in a quick run */
    uint8_t history;         /* 0: nothing is ever trimmed */
    uint8_t replay_limit;    /* 0: the whole list; REPLAY_NONE: nothing */
    uint8_t known_beyond;    /* ids known beyond history (0: as the code has it): fewer messages
                              * come between the two copies of one, or during a repair */
    uint8_t room;            /* messages that wait for a device at most; 0: devices are fast */
    bool is_busy;            /* the worker leaves what Redis answered for later turns */
    uint16_t held_bytes;     /* send-buffer-limit; 0: ample */
    uint32_t gap_ms;         /* between one message and the next */
};

/* ---- the world ---- */

enum link_state { LINK_UP, LINK_BROKEN, LINK_DOWN };
enum item_kind { ITEM_CONFIRM, ITEM_MESSAGE, ITEM_PASSING, ITEM_MARKER };
enum phase { PHASE_IDLE, PHASE_STORED, PHASE_TRIMMED };

struct item { /* on its way from Redis to the worker */
    uint8_t kind, number;
    uint8_t audience; /* devices that were there when it was published, and are still */
};

struct command { /* on its way to Redis */
    uint8_t is_subscribe, number;
};

struct store_call { /* a reading, or the publication of a marker */
    store_user_fn *fn;
    store_done_fn *done;
    void *data;
    uint8_t marker;          /* number; 0: a reading */
    bool is_used, is_cancelled, is_executed;
    uint8_t count;
    uint8_t stored;          /* messages stored by the time of the reading */
    uint64_t mask;           /* the entries as a set */
    uint64_t published;      /* by the time of the reading */
    uint8_t entries[LIST_MAX];
};

struct producer {
    uint8_t phase;
    uint8_t message;
    bool has_last;
};

/* One device and what its owner remembers over all its connections. Sets are of messages. */
struct client {
    struct conn conn;
    bool is_open, is_closing, was_open;
    bool is_attaching;     /* FULL_SYNC was sent in this step */
    bool needs_reading;    /* it was under repair when this step began */
    bool was_told;         /* of a gap, in this step */
    uint8_t syncs;         /* FULL_SYNCs on this connection */
    uint8_t missed_left;   /* announced and not sent yet */
    uint8_t waiting;       /* messages not written yet */
    int8_t resumed_at;     /* last_id of this connection; NOBODY: none */
    uint64_t seen;         /* what it named as seen */
    uint8_t count;         /* of got */
    uint8_t got[200];      /* in order */
    uint8_t epoch;         /* got before this: the device was told recovered:false since */
    uint8_t began;         /* got before this: on earlier connections */
    uint64_t had;          /* got since the epoch */
    uint64_t had_before;   /* got before it */
    uint64_t had_passing;
    uint64_t heard;        /* published and taken by the worker since this connection began */
    uint64_t late;         /* had left the list when this connection began */
    uint64_t gone;         /* so the last time, and late or not heard */
    uint64_t told;         /* left the list, and it was told so */
    uint64_t crossed;      /* stored before, published after all that the device named */
    uint64_t limited;      /* beyond replay-limit, and published when the list was read */
    uint64_t withheld;     /* beyond replay-limit, and not heard since */
    uint64_t may_repeat;
};

struct world {
    /* Redis */
    uint8_t list[LIST_MAX]; /* head first */
    uint8_t list_count;
    bool is_subscribed;
    /* producers */
    struct producer producers[PRODUCERS];
    uint8_t stored;                      /* messages stored so far: 0 .. stored-1, in that order */
    uint8_t passing;
    uint8_t ticks;
    uint8_t tick_of[MESSAGES_MAX];
    uint8_t passing_tick[MESSAGES_MAX];
    uint64_t published;
    uint64_t placeless;                  /* left the list, and their order is not promised */
    uint64_t made_by[PRODUCERS];
    uint64_t overlaps[MESSAGES_MAX];     /* messages under way at the same time */
    /* links */
    uint8_t link;
    bool store_up;
    struct item items[ON_ITS_WAY_MAX];
    uint8_t item_count;
    struct command commands[ON_ITS_WAY_MAX];
    uint8_t command_count;
    struct store_call calls[CALLS_MAX];
    uint8_t order[CALLS_MAX];            /* slots in calls, oldest first */
    uint8_t call_count;
    struct store_call kept;              /* the reading whose answer is not applied yet */
    /* devices */
    struct client clients[DEVICES];
    uint64_t shown;                      /* in readings answered while the user had devices */
    uint8_t under_repair;                /* messages since a repair became due */
    uint8_t entered;                     /* usertable_enter without _leave */
    /* bounds */
    uint8_t used[STEP_KINDS];
    uint8_t events;
    /* the code under test */
    struct sessions *sessions;
    struct markers *markers;
    struct hub *hub;
};

extern struct world world;
extern const struct scenario *scenario;
extern unsigned events_max;
extern bool is_tracing;

void world_init(void);  /* once */
void world_start(void); /* a fresh world; what stood in the arena is forgotten */
void world_stop(void);  /* everybody leaves; a violation when anything stays */
uint64_t world_hash(void);
/* What Redis and the worker do, each if it can (steps.c asks first). */
void world_redis_takes(void);
void world_worker_takes(void);
void world_read(void);
void world_answer(int error);
void world_link_lost(void);
void world_link_back(void);
void world_store_lost(void);
void world_store_back(void);
void world_publish(enum item_kind kind, unsigned number);
void world_written(int device);
void world_timer(void);
void world_work(void);
bool world_has_work(void);
bool world_timer_is_active(void);
void world_attach(int device);
void world_leave(int device);
void world_end_of_turn(void);
/* The oldest call under way, NULL when there is none. */
const struct store_call *world_oldest_call(void);

/* ---- judging ---- */

struct violation {
    jmp_buf where;
    char text[200];
};
extern struct violation violation;

/* Ends the schedule. */
_Noreturn void violated(const char *format, ...) __attribute__((format(printf, 1, 2)));
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline uint64_t bit(unsigned n)
{
    return UINT64_C(1) << n;
}

void judge_message(struct client *c, unsigned number, bool is_listed);
void judge_passing(struct client *c, unsigned number);
void judge_full_sync(struct client *c, const char *text, size_t len,
                     const struct store_call *reading);
void judge_heard(unsigned number, unsigned audience);
/* Around an answered reading. */
void judge_before_answer(const struct store_call *reading);
void judge_after_answer(const struct store_call *reading);
/* Nothing moves any more: whoever is connected is live and has everything. */
void judge_rest(bool all_are_back);

/* ---- steps.c ---- */

size_t steps_enabled(uint8_t out[STEP_KINDS]);
bool step_is_enabled(enum step s);
void step_do(enum step s); /* must be enabled */
/* Steps without which the world cannot come to rest are pending. */
bool steps_pending(void);
/* Everything that is pending is run to its end, links and devices come back, and all is judged and
 * taken down. The world is of no use afterwards. */
void steps_settle(void);

/* ---- explore.c ---- */

struct tally {
    uint64_t schedules, states, steps, settled;
    unsigned depth;   /* of the longest schedule */
    bool is_complete; /* nothing was cut off by time or by memory */
};

struct schedule {
    unsigned count;
    uint8_t steps[STEPS_MAX];
};

/* All schedules of the scenario with so many events at most. until_us: monotonic, gives up then.
 * False when a violation was found: *found is the schedule, already made short. */
bool explore_all(unsigned events, int64_t until_us, struct tally *t, struct schedule *found);
/* Random schedules of so many steps. */
bool explore_walks(uint64_t seed, unsigned length, uint64_t walks, int64_t until_us,
                   struct tally *t, struct schedule *found);
/* Runs a schedule with a trace. False: violated. */
bool explore_replay(const struct schedule *s);
/* Forgets all states seen; room for 7/8 of 2^bits_max. */
void explore_init(unsigned bits_max);

/* ---- arena.c ---- */

void arena_reset(void);
void arena_use(bool on); /* off: malloc as it is, counted */
size_t arena_live(void);
size_t arena_save(void *to, size_t room); /* bytes written */
void arena_load(const void *from);
uint64_t hash_add(uint64_t h, uint64_t word);
uint64_t hash_bytes(uint64_t h, const void *bytes, size_t len);
/* A block of plain bytes or of the arena, followed through every pointer into the arena. */
void hash_begin(void);
uint64_t hash_graph(uint64_t h, const void *root, size_t len);

#endif
