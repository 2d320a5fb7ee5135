/*
 * fuzz_conn.c - whole connections: up to four clients of a worker (worker.h), what they say,
 * what Redis does meanwhile, and time.
 *
 * The input is one byte of configuration, then steps: a byte for what and who, and for most of them
 * a piece, two bytes of length and the bytes.
 *
 * Holds: clients hear well-formed responses and frames and nothing after a close frame; nothing of
 * them is left when they are gone.
 */
#include "config.h"

#include "tests/fuzz/worker.h"

#define STEPS_MAX 60

enum step {
    CONNECT,
    SEND,       /* bytes as they are */
    SAY,        /* a text frame */
    FRAME,      /* a frame with that first byte */
    READ,
    PASS,       /* time */
    PUBLISH,
    BROADCAST,
    STORE,      /* and publish */
    SNAPSHOT,
    ANSWER,     /* Redis, the oldest command, with these bytes */
    REDIS,      /* holds its answers back, goes on, goes away, comes back */
    GONE,       /* the client */
    DRAIN,
    STEPS
};

static void change_redis(unsigned how)
{
    switch (how % 5) {
    case 0:
        fuzz_redis_hold(true);
        break;
    case 1:
        fuzz_redis_hold(false);
        break;
    case 2:
        fuzz_redis_set_up(false);
        break;
    case 3:
        fuzz_redis_set_up(true);
        break;
    default:
        fuzz_redis_answer();
    }
}

static void store(struct text_span entry)
{
    fuzz_redis_store(entry);
    fuzz_redis_publish(NULL, entry);
}

static void take_step(struct fuzz_input *in)
{
    unsigned byte = fuzz_u8(in), who = byte / STEPS % FUZZ_CLIENTS;
    switch ((enum step)(byte % STEPS)) {
    case CONNECT:
        fuzz_client_connect(who, byte / STEPS / FUZZ_CLIENTS == 4);
        break;
    case SEND:
        fuzz_client_send(who, fuzz_piece(in));
        break;
    case SAY:
        fuzz_client_frame(who, 0x81, fuzz_piece(in));
        break;
    case FRAME:
        byte = fuzz_u8(in);
        fuzz_client_frame(who, byte, fuzz_piece(in));
        break;
    case READ:
        fuzz_client_read(who);
        break;
    case PASS:
        fuzz_worker_pass((int64_t)fuzz_u8(in) * 250);
        break;
    case PUBLISH:
        fuzz_redis_publish(NULL, fuzz_piece(in));
        break;
    case BROADCAST:
        fuzz_redis_publish("ws:broadcast", fuzz_piece(in));
        break;
    case STORE:
        store(fuzz_piece(in));
        break;
    case SNAPSHOT:
        fuzz_redis_set_snapshot(fuzz_piece(in));
        break;
    case ANSWER:
        fuzz_redis_answer_raw(fuzz_piece(in));
        break;
    case REDIS:
        change_redis(byte / STEPS);
        break;
    case GONE:
        fuzz_client_close(who);
        break;
    case DRAIN:
        fuzz_worker.is_draining = true;
        fuzz_worker.is_replaced = who & 1;
        break;
    case STEPS:
        break;
    }
    fuzz_worker_turn();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    fuzz_worker_begin(fuzz_u8(&in));
    fuzz_client_connect(0, false);
    for (int steps = 0; in.left && steps < STEPS_MAX; steps++)
        take_step(&in);
    fuzz_worker_end();
    return 0;
}
