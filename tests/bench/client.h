/*
 * client.h - one WebSocket client of the load generator: what it understands, what it has got.
 *
 * Pure but for the bytes it asks its owner to send. Understands unmasked frames that are not
 * fragmented; answers pings; looks into messages only for the numbers this program wrote.
 */
#ifndef BELFRY_TESTS_BENCH_CLIENT_H
#define BELFRY_TESTS_BENCH_CLIENT_H

#include "tests/bench/bench.h"

enum client_state { CLIENT_DOWN, CLIENT_CONNECTING, CLIENT_SHAKING, CLIENT_OPEN, CLIENT_LIVE };

struct client {
    int fd;
    uint32_t index;       /* among all clients of the run */
    uint32_t user;
    struct {
        uint64_t seen;      /* bit n: last_seq - n came */
        uint32_t last_seq;  /* highest number that came */
    } streams[STREAMS];
    int64_t heard_ns;     /* when a message of this run came last; 0: none did */
    int64_t closed_ns;    /* flow: when it was thrown out; 0: it was not, or is back */
    uint32_t kept_len;
    uint8_t state;        /* enum client_state */
    bool is_resuming;     /* asks for what came after the last it had */
    char *kept;           /* the beginning of a head or frame; NULL: nothing */
    char *token;
    char last_id[48];     /* of the last message, as a subprotocol told it; "": none */
};

/* What a client is measured against. */
struct client_rules {
    const struct bench *b;
    const struct crowd_share *share;
    struct crowd_tally *tally;
    /* Sends bytes, all or nothing; what does not fit is a lost connection. */
    void (*send)(struct client *c, const void *bytes, size_t len);
};

/* Appends the request that opens a connection. */
void client_request(const struct client *c, const struct bench *b, struct text_buf *out);
/* Bytes that came, what was kept before included. Returns how many were used, the rest is to be
 * kept; negative: the connection is of no use any more. */
long client_feed(struct client *c, const struct client_rules *r, const char *bytes, size_t len);
/* Everything up to last_seq must have come: counts what did not. */
void client_end(struct client *c, const struct client_rules *r, enum bench_stream stream,
                uint32_t last_seq);
/* In a flow: the client has heard nothing since its last message until now. */
void client_note_silence(const struct client *c, const struct client_rules *r, int64_t now_ns);

#endif
