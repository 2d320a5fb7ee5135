/*
 * flow.c - a steady flow to clients that stay connected, while somebody else does something to the
 * server: what do they notice?
 *
 * Each line on standard input begins a phase and names it; what comes then is counted there. The
 * answer is a line on standard output with the phase's number, so that whoever drives this knows
 * that the border is set.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define NS 1000000000
#define NAME_BYTES 32
#define LATE_STEPS 64 /* messages sent in one go, when they are overdue */

struct flow {
    const struct bench *b;
    struct crowd_share *share;
    struct publisher *publisher;
    uint64_t expected;
    uint64_t sent;      /* to users */
    uint64_t beats;
    int64_t start_ns;
};

static struct {
    char name[NAME_BYTES];
    int64_t from_ns, until_ns;
} phases[BENCH_PHASES];
static uint32_t phase_count;

/* ---- phases ---- */

static void begin_phase(struct flow *f, const char *name)
{
    int64_t now_ns = bench_now_ns();
    if (phase_count == BENCH_PHASES)
        return;
    if (phase_count)
        phases[phase_count - 1].until_ns = now_ns;
    else
        f->share->phase_from_ns = now_ns;
    snprintf(phases[phase_count].name, NAME_BYTES, "%s", name);
    phases[phase_count].from_ns = now_ns;
    __atomic_store_n(&f->share->phase, phase_count, __ATOMIC_RELEASE);
    printf("phase %u\n", phase_count++);
    fflush(stdout);
}

/* False at the end of standard input. Names are words of letters, digits and blanks: JSON as they
 * are. */
static bool take_lines(struct flow *f, int timeout_ms)
{
    static char line[NAME_BYTES];
    static size_t len;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    while (poll(&in, 1, timeout_ms) > 0) {
        char c;
        if (read(STDIN_FILENO, &c, 1) != 1)
            return false;
        timeout_ms = 0;
        if (c == '\n') {
            line[len] = '\0';
            len = 0;
            begin_phase(f, line);
        } else if (len < NAME_BYTES - 1 && c >= ' ' && c != '"' && c != '\\') {
            line[len++] = c;
        }
    }
    return true;
}

/* ---- the flow ---- */

/* Stored and only published in turn, to users in an order in which neighbours are far apart. */
static int send_one(struct flow *f, int64_t due_ns)
{
    const struct bench *b = f->b;
    enum bench_stream stream = f->sent % 2 ? STREAM_PUBLISHED : STREAM_STORED;
    uint32_t user = (uint32_t)(f->sent / 2 * 7919 % b->users);
    uint32_t seq = ++f->share->last_seq[bench_seq_at(b, stream, user)];
    f->sent++;
    f->expected += b->connections / b->users + (user < b->connections % b->users);
    return publisher_step(f->publisher, stream, user, seq, due_ns);
}

static int send_beat(struct flow *f, int64_t due_ns)
{
    uint32_t seq = ++f->share->last_seq[bench_seq_at(f->b, STREAM_BROADCAST, 0)];
    f->beats++;
    f->expected += f->b->connections;
    return publisher_step(f->publisher, STREAM_BROADCAST, 0, seq, due_ns);
}

static int64_t due_ns(const struct flow *f, uint64_t number, uint32_t rate)
{
    return f->start_ns + (int64_t)(number * NS / rate);
}

/* What is due; *next_ns: when something is again. */
static int send_due(struct flow *f, int64_t *next_ns)
{
    for (int i = 0; i < LATE_STEPS; i++) {
        int64_t one_ns = due_ns(f, f->sent, f->b->rate);
        int64_t beat_ns = due_ns(f, f->beats, f->b->beat);
        *next_ns = one_ns < beat_ns ? one_ns : beat_ns;
        if (*next_ns > bench_now_ns())
            return 0;
        int result = beat_ns <= one_ns ? send_beat(f, beat_ns) : send_one(f, one_ns);
        if (result != 0)
            return result;
    }
    return 0;
}

int flow_run(const struct bench *b, struct crowd *c, struct publisher *p, uint64_t *expected)
{
    struct flow f = {.b = b, .share = crowd_share(c), .publisher = p};
    int result = 0;
    begin_phase(&f, "begin");
    f.start_ns = bench_now_ns();
    for (bool is_over = false; !is_over && result == 0;) {
        int64_t next_ns = 0;
        result = send_due(&f, &next_ns);
        int64_t wait_ns = next_ns - bench_now_ns();
        is_over = !take_lines(&f, wait_ns > 0 ? (int)((wait_ns + 999999) / 1000000) : 0);
    }
    phases[phase_count - 1].until_ns = f.share->phase_until_ns = bench_now_ns();
    *expected = f.expected;
    return result;
}

/* ---- the report ---- */

static void print_phase(const struct bench *b, const struct crowd_phase *p, uint32_t number)
{
    double seconds = (double)(phases[number].until_ns - phases[number].from_ns) / 1e9;
    printf(b->is_json ? "%s{\"name\":\"%s\",\"seconds\":%.3f,\"deliveries\":%" PRIu64
                        ",\"latency_p50_ms\":%.3f,\"latency_p99_ms\":%.3f,"
                        "\"latency_p999_ms\":%.3f,\"latency_max_ms\":%.3f,\"silence_ms\":%.1f,"
                        "\"closed\":%" PRIu64 ",\"away_ms\":%.1f}"
                      : "%s%s: %.1f s, %" PRIu64 " deliveries, latency p50 %.3f p99 %.3f p999 %.3f"
                        " max %.3f ms, silence %.0f ms, %" PRIu64 " closed, away %.0f ms\n",
           b->is_json && number ? "," : "", phases[number].name, seconds, p->delivered,
           (double)hist_at(&p->latency, 0.5) / 1e6, (double)hist_at(&p->latency, 0.99) / 1e6,
           (double)hist_at(&p->latency, 0.999) / 1e6, (double)p->latency.max / 1e6,
           (double)p->silence_ns / 1e6, p->closed, (double)p->away_ns / 1e6);
}

void flow_print(const struct bench *b, const struct crowd *c)
{
    if (b->is_json)
        printf(",\"phases\":[");
    for (uint32_t i = 0; i < phase_count; i++) {
        struct crowd_phase sum;
        crowd_sum_phase(c, i, &sum);
        print_phase(b, &sum, i);
    }
    if (b->is_json)
        printf("]");
}
