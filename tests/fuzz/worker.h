/*
 * worker.h - a whole worker with its links to Redis and its clock played, for targets that
 * feed connections: everything above redislink.h is the real code, sockets are real socket pairs,
 * time passes when the target says so, and Redis answers when and what the target says.
 */
#ifndef BELFRY_TESTS_FUZZ_WORKER_H
#define BELFRY_TESTS_FUZZ_WORKER_H

#include "tests/fuzz/fuzz.h"

#include "shared/options.h"
#include "workers/conn.h"
#include "workers/context.h"

#define FUZZ_CLIENTS 4
#define FUZZ_SECRET "0123456789abcdef0123456789abcdef"
#define FUZZ_START_MS INT64_C(10000)
#define FUZZ_WALL_MS (INT64_C(1769860800000) - FUZZ_START_MS)

struct fuzz_client {
    int fd; /* -1: not there, or closed */
    struct text_buf heard;
    bool is_taken; /* came from another worker: frames from the first byte */
    bool is_rough; /* its stream may begin or end anywhere */
};

extern struct worker fuzz_worker;
extern struct options fuzz_opt;
extern struct fuzz_client fuzz_clients[FUZZ_CLIENTS];

/* Everything made anew, with both links up. flags: a few bits that change the configuration. */
void fuzz_worker_begin(unsigned flags);
/* Ends all clients and links, and checks that nothing is left of them; frees everything. */
void fuzz_worker_end(void);
/* One turn of the loop, and what Redis says by itself. */
void fuzz_worker_turn(void);
void fuzz_worker_pass(int64_t ms);

/* A new client in that place, if it is free. */
void fuzz_client_connect(unsigned place, bool is_metrics);
void fuzz_client_send(unsigned place, struct text_span bytes);
/* The same as one masked frame. */
void fuzz_client_frame(unsigned place, unsigned first_byte, struct text_span payload);
void fuzz_client_read(unsigned place);
void fuzz_client_close(unsigned place);

/* Redis answers by itself in each turn, or when told to. */
void fuzz_redis_hold(bool is_held);
/* The oldest command gets a good answer. */
void fuzz_redis_answer(void);
/* It gets whatever reply hiredis reads from these bytes. */
void fuzz_redis_answer_raw(struct text_span bytes);
/* A message on a channel; NULL: on that of user u. */
void fuzz_redis_publish(const char *channel, struct text_span payload);
/* Whatever hiredis reads from these bytes comes over the subscriber link. */
void fuzz_redis_push_raw(struct text_span bytes);
/* One more entry at the head of the user's list. */
void fuzz_redis_store(struct text_span entry);
void fuzz_redis_set_snapshot(struct text_span text);
void fuzz_redis_set_acked(struct text_span text);
/* Both links are lost, or come back. */
void fuzz_redis_set_up(bool is_up);

#endif
