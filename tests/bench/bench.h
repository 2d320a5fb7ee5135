/*
 * bench.h - belfry-bench, a load generator: what its files share.
 *
 * One parent process publishes, measures and reports; forked children hold the connections, for one
 * process may not open as many files as there are clients. They meet in one shared mapping, where
 * each child alone writes its own tally, and in an eventfd by which a child tells that something
 * happened. See README.md of this folder for what is measured and how.
 */
#ifndef BELFRY_TESTS_BENCH_H
#define BELFRY_TESTS_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/keys.h"
#include "shared/options.h"

#define BENCH_PIDS_MAX 16
#define BENCH_CROWDS_MAX 64

enum bench_mode { MODE_IDLE, MODE_BROADCAST, MODE_UNICAST, MODE_STORM, MODE_FLOW };

/* Each counts up by itself. All modes but flow have the first only. */
enum bench_stream { STREAM_STORED, STREAM_PUBLISHED, STREAM_BROADCAST, STREAMS };


/* What one run was asked to do. */
struct bench {
    enum bench_mode mode;
    const char *mode_name;
    const char *name;        /* goes into the report */
    struct options *options; /* the server's: where it listens, its secret, its Redis */
    struct keys keys;
    struct text_list tokens; /* by number of user; none: they are made with the secret */
    char host[256];
    int port;
    const char *path;        /* {token} and {user_id} are put in; NULL: /ws?token={token} */
    const char *hello;       /* text frame to be sent first ({token} put in); NULL: none */
    const char *publish_url; /* POST there instead of PUBLISH; NULL: Redis */
    bool is_open_ready;      /* a client is live with the 101, not with its first message */
    bool is_centrifugo;      /* PUBLISH in the form of Centrifugo's Redis broker */
    const char *protocol;    /* subprotocol to ask for; NULL: none */
    bool is_stored;          /* LPUSH, LTRIM and PUBLISH */
    bool is_returning;       /* a client that was thrown out comes back */
    bool is_forgetful;       /* it does not say what it had */
    bool is_json;
    uint32_t connections;
    uint32_t users;
    uint32_t first_user;     /* number of the first */
    uint32_t processes;
    uint32_t connect_rate;   /* connections begun in a second; 0: as fast as they are taken */
    uint32_t message_bytes;
    uint32_t messages;
    uint32_t warmup;
    uint32_t window;         /* messages in flight at most; 1: closed loop */
    uint32_t rate;           /* messages a second; 0: as the window allows */
    uint32_t beat;           /* flow: broadcasts a second */
    uint32_t return_ms;      /* flow: within this time, each at its own */
    uint32_t hold_s;         /* idle: how long */
    uint32_t limit_s;        /* of waiting without any progress */
    uint32_t during;         /* storm: messages while the devices come back */
    pid_t pids[BENCH_PIDS_MAX];
    size_t pid_count;
    uint32_t run;            /* tells the messages of this run from older ones in the lists */
};

/* Exit codes. */
enum { BENCH_DONE, BENCH_FAILED, BENCH_USAGE };

/* Fills *b from the command line. BENCH_DONE, or what to exit with (BENCH_DONE after --help, with
 * *is_over set). */
int bench_args(int argc, char **argv, struct bench *b, bool *is_over);
void bench_args_free(struct bench *b);
/* One line to stderr. */
void bench_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t bench_now_ns(void); /* monotonic */
/* The template with {token}, {user_id} put in. */
void bench_expand(struct text_buf *out, const char *template_text, const char *token,
                  const char *user_id);
/* "bench-17" for user 17 of a run whose first is number 0. */
#define BENCH_USER_BYTES 24
const char *bench_user(const struct bench *b, uint32_t user, char out[BENCH_USER_BYTES]);
/* Where the number of the last message stands in crowd_share's last_seq; and how many places. */
size_t bench_seq_at(const struct bench *b, enum bench_stream stream, uint32_t user);
size_t bench_seq_count(const struct bench *b);

/* ---- hist.c: times in ns, in buckets of 1.6 % ---- */

#define HIST_BUCKETS 2560

struct hist {
    uint64_t count;
    uint64_t max;
    uint32_t buckets[HIST_BUCKETS];
};

void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *into, const struct hist *from);
/* fraction 0..1; 0 of an empty one. */
uint64_t hist_at(const struct hist *h, double fraction);

/* ---- usage.c: what the server's processes and the kernel use ---- */

struct usage {
    int64_t at_ns;
    double cpu_s;         /* schedstat of all tasks of the given processes and their children */
    uint64_t pss_bytes;   /* smaps_rollup */
    uint64_t slab_bytes;  /* of sockets and what belongs to them, both ends; 0: not readable */
    uint64_t tcp_bytes;   /* /proc/net/sockstat: buffers of TCP */
    uint32_t processes;
};

/* 0 or -ESRCH when a given process is not there. */
int usage_read(const pid_t *roots, size_t count, struct usage *out);
/* Only cpu_s, at_ns and processes: quick enough for the border of a measurement. */
int usage_read_cpu(const pid_t *roots, size_t count, struct usage *out);

/* ---- publish.c ---- */

struct publisher;

struct publisher *publisher_new(const struct bench *b);
void publisher_free(struct publisher *p);
/* Queues message number seq to a user (or to everybody: broadcast mode). 0 or -EIO after telling
 * why. */
int publisher_add(struct publisher *p, uint32_t user, uint32_t seq, int64_t sent_ns);
/* The same for a message of one of the streams, sent as a plain producer does: each command when
 * the one before was answered. */
int publisher_step(struct publisher *p, enum bench_stream stream, uint32_t user, uint32_t seq,
                   int64_t sent_ns);
/* Sends what is queued and takes all answers. 0 or -EIO after telling why. */
int publisher_flush(struct publisher *p);

/* ---- crowd.c: the children ---- */

/* Of a flow, which is measured in phases. */
#define BENCH_PHASES 16
struct crowd_phase {
    uint64_t delivered;
    uint64_t closed;
    uint64_t silence_ns;  /* the longest that any client heard nothing; counted where it ended */
    uint64_t away_ns;     /* the longest from being closed to being live again */
    struct hist latency;
};

/* Written by one child. Aligned: two children never write one cache line. */
struct crowd_tally {
    uint64_t generation; /* orders to connect that were begun */
    uint64_t live;       /* clients that got their first message, or 101 with --ready=open */
    uint64_t delivered;
    uint64_t lost;       /* never came; minus those that came late after all */
    uint64_t repeated;
    uint64_t disordered;
    uint64_t refused;    /* connections that failed */
    uint64_t closed;     /* connections that the server ended */
    uint64_t unrecovered; /* resumed, and were told that their position is not known */
    uint64_t bytes;
    struct hist latency; /* publication -> client */
    struct hist back;    /* order to connect -> live */
    struct crowd_phase phases[BENCH_PHASES];
} __attribute__((aligned(64)));

struct crowd_share {
    int64_t measure_from_ns; /* deliveries of messages sent before are not in `latency` */
    int64_t ordered_ns;      /* when the last order to connect was given */
    int64_t phase_from_ns;   /* no silence began before; 0: there are no phases */
    int64_t phase_until_ns;  /* the end of the last; silence is looked at until then */
    uint32_t phase;
    struct crowd_tally tallies[BENCH_CROWDS_MAX];
    uint32_t last_seq[];     /* bench_seq_at: what must have come */
};

struct crowd;

enum crowd_order {
    CROWD_CONNECT = 'c', /* a few at a time */
    CROWD_DROP = 'd',    /* close everything, come back all at once with last_id */
    CROWD_END = 'e',     /* count what never came; generation is raised when that is done */
    CROWD_QUIT = 'q'
};

/* Forks the children. NULL after telling why. */
struct crowd *crowd_new(const struct bench *b);
void crowd_free(struct crowd *c);
struct crowd_share *crowd_share(struct crowd *c);
void crowd_order(struct crowd *c, enum crowd_order order);
/* Sum over all children, histograms too when with_hist. generation is the lowest. */
void crowd_sum(const struct crowd *c, bool with_hist, struct crowd_tally *out);
/* Of one phase of a flow. */
void crowd_sum_phase(const struct crowd *c, uint32_t phase, struct crowd_phase *out);
/* Waits until a child tells that something happened, at most so long. */
void crowd_wait(struct crowd *c, int timeout_ms);

/* ---- flow.c ---- */

/* A steady flow to connected clients, in phases (README.md), until standard input ends. *expected:
 * deliveries that were to come of it. 0 or negative errno after telling why. */
int flow_run(const struct bench *b, struct crowd *c, struct publisher *p, uint64_t *expected);
/* What each phase came to: as the member "phases" of a JSON object, or as lines. */
void flow_print(const struct bench *b, const struct crowd *c);

#endif
