/*
 * belfry-bench.c - the parent: what is done in each mode, and the report.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/bench.h"

#define NS 1000000000
#define SETTLE_MS 500 /* after connecting, before memory is looked at */
#define ROWS_MAX 64

struct row {
    const char *name;
    double value;
    int decimals;
};

struct run {
    const struct bench *b;
    struct crowd *crowd;
    struct crowd_share *share;
    struct publisher *publisher;
    uint64_t random;
    uint64_t sent;      /* messages */
    uint64_t expected;  /* deliveries of them */
    bool has_stalled;
    struct usage before, open; /* without clients; with all of them */
    struct row rows[ROWS_MAX];
    size_t row_count;
};

/* ---- small things ---- */

int64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS + now.tv_nsec;
}

static void sleep_until(int64_t ns)
{
    struct timespec until = {.tv_sec = ns / NS, .tv_nsec = ns % NS};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static void sleep_ms(int64_t ms)
{
    sleep_until(bench_now_ns() + ms * 1000000);
}

const char *bench_user(const struct bench *b, uint32_t user, char out[BENCH_USER_BYTES])
{
    snprintf(out, BENCH_USER_BYTES, "bench-%" PRIu32, b->first_user + user);
    return out;
}

void bench_expand(struct text_buf *out, const char *template_text, const char *token,
                  const char *user_id)
{
    static const char token_mark[] = "{token}", user_mark[] = "{user_id}";
    for (const char *at = template_text; *at;) {
        if (!strncmp(at, token_mark, sizeof(token_mark) - 1)) {
            text_adds(out, token ? token : "");
            at += sizeof(token_mark) - 1;
        } else if (!strncmp(at, user_mark, sizeof(user_mark) - 1)) {
            text_adds(out, user_id);
            at += sizeof(user_mark) - 1;
        } else {
            text_addc(out, *at++);
        }
    }
}

size_t bench_seq_count(const struct bench *b)
{
    return b->mode == MODE_FLOW ? 2 * (size_t)b->users + 1 : b->users;
}

size_t bench_seq_at(const struct bench *b, enum bench_stream stream, uint32_t user)
{
    if (b->mode == MODE_BROADCAST)
        return 0;
    return stream == STREAM_BROADCAST ? 2 * (size_t)b->users : stream * (size_t)b->users + user;
}

/* xorshift64: the same users in the same order in every run. */
static uint32_t next_user(struct run *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return (uint32_t)(r->random % r->b->users);
}

/* ---- the report ---- */

static void tell(struct run *r, const char *name, double value, int decimals)
{
    if (r->row_count < ROWS_MAX)
        r->rows[r->row_count++] = (struct row){name, value, decimals};
}

static void tell_latency(struct run *r, const struct hist *h, const char *const names[4])
{
    tell(r, names[0], (double)hist_at(h, 0.5) / 1e3, 1);
    tell(r, names[1], (double)hist_at(h, 0.99) / 1e3, 1);
    tell(r, names[2], (double)hist_at(h, 0.999) / 1e3, 1);
    tell(r, names[3], (double)h->max / 1e3, 1);
}

static void print_report(const struct run *r, bool is_good)
{
    const struct bench *b = r->b;
    if (b->is_json)
        printf("{\"name\":\"%s\",\"mode\":\"%s\",\"ok\":%s", b->name ? b->name : "",
               b->mode_name, is_good ? "true" : "false");
    for (size_t i = 0; i < r->row_count; i++)
        printf(b->is_json ? ",\"%s\":%.*f" : "%-32s %14.*f\n", r->rows[i].name,
               r->rows[i].decimals, r->rows[i].value);
    if (b->mode == MODE_FLOW)
        flow_print(b, r->crowd);
    puts(b->is_json ? "}" : is_good ? "good" : "NOT GOOD");
}

/* ---- waiting ---- */

/* What is waited for, of the sums over all children. */
typedef bool done_fn(const struct run *r, const struct crowd_tally *sum);

static bool is_live(const struct run *r, const struct crowd_tally *sum)
{
    return sum->live + sum->refused + sum->closed >= r->b->connections;
}

static bool is_delivered(const struct run *r, const struct crowd_tally *sum)
{
    return sum->delivered >= r->expected;
}

/* False when nothing moved for too long. */
static bool wait_for(struct run *r, done_fn *is_done, uint64_t generation)
{
    struct crowd_tally sum;
    uint64_t progress = 0;
    int64_t moved_ns = bench_now_ns();
    for (;;) {
        crowd_sum(r->crowd, false, &sum);
        if (sum.generation >= generation && is_done(r, &sum))
            return true;
        if (sum.live + sum.delivered != progress) {
            progress = sum.live + sum.delivered;
            moved_ns = bench_now_ns();
        }
        if (bench_now_ns() - moved_ns > (int64_t)r->b->limit_s * NS) {
            bench_say("nothing moves: %" PRIu64 " live, %" PRIu64 " of %" PRIu64 " delivered",
                      sum.live, sum.delivered, r->expected);
            r->has_stalled = true;
            return false;
        }
        crowd_wait(r->crowd, 100);
    }
}

/* ---- publishing ---- */

static int publish_to(struct run *r, uint32_t user, int64_t sent_ns)
{
    const struct bench *b = r->b;
    bool is_broadcast = b->mode == MODE_BROADCAST;
    uint32_t seq = ++r->share->last_seq[bench_seq_at(b, STREAM_STORED, user)];
    r->sent++;
    r->expected += is_broadcast ? b->connections
                                : b->connections / b->users + (user < b->connections % b->users);
    return publisher_add(r->publisher, user, seq, sent_ns);
}

static int publish_next(struct run *r, int64_t sent_ns)
{
    return publish_to(r, r->b->mode == MODE_BROADCAST ? 0 : next_user(r), sent_ns);
}

/* Open loop: each message when it is due, whatever comes back. */
static int publish_at_rate(struct run *r, uint64_t count, uint32_t rate)
{
    int64_t start_ns = bench_now_ns();
    for (uint64_t i = 0; i < count;) {
        int64_t now_ns = bench_now_ns();
        for (; i < count; i++) {
            int64_t due_ns = start_ns + (int64_t)(i * NS / rate);
            if (due_ns > now_ns)
                break;
            if (publish_next(r, due_ns) != 0)
                return -EIO;
        }
        if (publisher_flush(r->publisher) != 0)
            return -EIO;
        if (i < count)
            sleep_until(start_ns + (int64_t)(i * NS / rate));
    }
    return 0;
}

/* At most `window` messages on their way, counted by deliveries; filled up when an eighth of it is
 * free, so that the publisher does not wake for each. */
static int publish_windowed(struct run *r, uint64_t count, uint32_t window)
{
    double receivers = r->b->mode == MODE_BROADCAST ? r->b->connections
                                                    : (double)r->b->connections / r->b->users;
    uint64_t step = (window + 7) / 8;
    struct crowd_tally sum;
    int64_t moved_ns = bench_now_ns();
    for (uint64_t i = 0; i < count;) {
        crowd_sum(r->crowd, false, &sum);
        uint64_t pending = r->expected > sum.delivered ? r->expected - sum.delivered : 0;
        uint64_t on_way = (uint64_t)((double)pending / receivers + 0.999999);
        uint64_t room = on_way < window ? window - on_way : 0;
        int64_t now_ns = bench_now_ns();
        if (room >= step || (room && room >= count - i)) {
            for (; room > 0 && i < count; room--, i++)
                if (publish_next(r, bench_now_ns()) != 0)
                    return -EIO;
            if (publisher_flush(r->publisher) != 0)
                return -EIO;
            moved_ns = now_ns;
        } else if (now_ns - moved_ns > (int64_t)r->b->limit_s * NS) {
            bench_say("nothing moves: %" PRIu64 " messages are on their way", on_way);
            r->has_stalled = true;
            return 0;
        } else {
            crowd_wait(r->crowd, 100);
        }
    }
    return 0;
}

static int publish(struct run *r, uint64_t count)
{
    int result = r->b->rate ? publish_at_rate(r, count, r->b->rate)
                            : publish_windowed(r, count, r->b->window);
    if (result == 0 && !r->has_stalled)
        wait_for(r, is_delivered, 0);
    return result;
}

/* ---- modes ---- */

static int measure_usage(const struct run *r, bool with_memory, struct usage *out)
{
    const struct bench *b = r->b;
    int result = with_memory ? usage_read(b->pids, b->pid_count, out)
                             : usage_read_cpu(b->pids, b->pid_count, out);
    if (result != 0)
        bench_say("--pid: %s", strerror(-result));
    return result;
}

static int connect_all(struct run *r)
{
    static const char *const names[] = {"connect_p50_us", "connect_p99_us", "connect_p999_us",
                                        "connect_max_us"};
    double clients = r->b->connections;
    struct crowd_tally sum;
    if (measure_usage(r, true, &r->before) != 0)
        return -ESRCH;
    int64_t start_ns = bench_now_ns();
    crowd_order(r->crowd, CROWD_CONNECT);
    if (!wait_for(r, is_live, 1))
        return -ETIMEDOUT;
    int64_t took_ns = bench_now_ns() - start_ns;
    sleep_ms(SETTLE_MS);
    crowd_sum(r->crowd, true, &sum);
    if (measure_usage(r, true, &r->open) != 0)
        return -ESRCH;
    tell(r, "connections", (double)sum.live, 0);
    tell(r, "connect_s", (double)took_ns / 1e9, 3);
    tell_latency(r, &sum.back, names);
    if (r->b->pid_count) {
        tell(r, "cpu_us_per_connect", (r->open.cpu_s - r->before.cpu_s) * 1e6 / clients, 2);
        tell(r, "server_processes", r->open.processes, 0);
        tell(r, "pss_bytes", (double)r->open.pss_bytes, 0);
        tell(r, "pss_bytes_per_connection",
             ((double)r->open.pss_bytes - (double)r->before.pss_bytes) / clients, 0);
    }
    tell(r, "slab_bytes_per_connection_both_ends",
         ((double)r->open.slab_bytes - (double)r->before.slab_bytes) / clients, 0);
    tell(r, "tcp_buffer_bytes_per_connection",
         ((double)r->open.tcp_bytes - (double)r->before.tcp_bytes) / clients, 0);
    return sum.live == r->b->connections ? 0 : -ECONNREFUSED;
}

static int run_idle(struct run *r)
{
    struct usage after;
    sleep_ms((int64_t)r->b->hold_s * 1000);
    if (measure_usage(r, true, &after) != 0)
        return -ESRCH;
    double seconds = (double)(after.at_ns - r->open.at_ns) / 1e9;
    tell(r, "held_s", seconds, 1);
    if (r->b->pid_count) {
        tell(r, "cpu_percent", (after.cpu_s - r->open.cpu_s) / seconds * 100, 2);
        tell(r, "pss_bytes_per_connection_held",
             ((double)after.pss_bytes - (double)r->before.pss_bytes) / r->b->connections, 0);
    }
    return 0;
}

static int run_messages(struct run *r)
{
    static const char *const names[] = {"latency_p50_us", "latency_p99_us", "latency_p999_us",
                                        "latency_max_us"};
    struct usage start, end;
    struct crowd_tally sum;
    r->share->measure_from_ns = INT64_MAX;
    if (publish(r, r->b->warmup) != 0)
        return -EIO;
    uint64_t expected = r->expected;
    if (measure_usage(r, false, &start) != 0)
        return -ESRCH;
    r->share->measure_from_ns = bench_now_ns();
    if (publish(r, r->b->messages) != 0 || measure_usage(r, false, &end) != 0)
        return -EIO;
    crowd_sum(r->crowd, true, &sum);
    double deliveries = (double)(r->expected - expected);
    double seconds = (double)(end.at_ns - start.at_ns) / 1e9;
    tell(r, "messages", r->b->messages, 0);
    tell(r, "deliveries", deliveries, 0);
    tell(r, "window", r->b->rate ? 0 : r->b->window, 0);
    tell(r, "rate", r->b->rate, 0);
    tell(r, "seconds", seconds, 3);
    tell(r, "deliveries_per_s", deliveries / seconds, 0);
    if (r->b->pid_count) {
        tell(r, "cpu_us_per_delivery", (end.cpu_s - start.cpu_s) * 1e6 / deliveries, 4);
        tell(r, "cpu_percent", (end.cpu_s - start.cpu_s) / seconds * 100, 1);
    }
    tell_latency(r, &sum.latency, names);
    return 0;
}

/* Every device has had one message, which it comes back with. */
static int give_each_one(struct run *r)
{
    for (uint32_t i = 0; i < r->b->users; i++)
        if (publish_to(r, i, bench_now_ns()) != 0 ||
            (i % 500 == 499 && (publisher_flush(r->publisher) != 0 ||
                                !wait_for(r, is_delivered, 0))))
            return -EIO;
    return publisher_flush(r->publisher) == 0 && wait_for(r, is_delivered, 0) ? 0 : -EIO;
}

static int run_storm(struct run *r)
{
    static const char *const names[] = {"back_p50_us", "back_p99_us", "back_p999_us",
                                        "back_max_us"};
    struct usage start, end;
    struct crowd_tally sum;
    r->share->measure_from_ns = INT64_MAX;
    if (give_each_one(r) != 0 || measure_usage(r, false, &start) != 0)
        return -EIO;
    r->share->measure_from_ns = bench_now_ns();
    crowd_order(r->crowd, CROWD_DROP);
    if (r->b->during && publish_at_rate(r, r->b->during, r->b->rate ? r->b->rate : 2000) != 0)
        return -EIO;
    if (!wait_for(r, is_live, 2) || !wait_for(r, is_delivered, 2))
        return -ETIMEDOUT;
    if (measure_usage(r, false, &end) != 0)
        return -ESRCH;
    crowd_sum(r->crowd, true, &sum);
    tell(r, "back_s", (double)sum.back.max / 1e9, 3);
    tell_latency(r, &sum.back, names);
    tell(r, "during", r->b->during, 0);
    tell(r, "unrecovered", (double)sum.unrecovered, 0);
    if (r->b->pid_count)
        tell(r, "cpu_us_per_return", (end.cpu_s - start.cpu_s) * 1e6 / r->b->connections, 2);
    return sum.unrecovered ? -ENODATA : 0;
}

static int run_flow(struct run *r)
{
    int result = flow_run(r->b, r->crowd, r->publisher, &r->expected);
    if (result == 0)
        wait_for(r, is_delivered, 0);
    return result;
}

static int run_mode(struct run *r)
{
    switch (r->b->mode) {
    case MODE_IDLE: return run_idle(r);
    case MODE_BROADCAST:
    case MODE_UNICAST: return run_messages(r);
    case MODE_STORM: return run_storm(r);
    case MODE_FLOW: return run_flow(r);
    }
    return -EINVAL;
}

/* The verdict on every delivery. */
static bool judge(struct run *r)
{
    struct crowd_tally sum;
    crowd_sum(r->crowd, false, &sum);
    uint64_t generation = sum.generation;
    crowd_order(r->crowd, CROWD_END);
    for (int i = 0; i < 100 && sum.generation <= generation; i++) {
        crowd_wait(r->crowd, 100);
        crowd_sum(r->crowd, false, &sum);
    }
    tell(r, "lost", (double)sum.lost, 0);
    tell(r, "repeated", (double)sum.repeated, 0);
    tell(r, "disordered", (double)sum.disordered, 0);
    tell(r, "refused", (double)sum.refused, 0);
    tell(r, "closed", (double)sum.closed, 0);
    return !sum.lost && !sum.repeated && !sum.disordered && !sum.refused && !sum.closed &&
           sum.delivered == r->expected && !r->has_stalled;
}

int main(int argc, char **argv)
{
    struct bench b;
    struct run r = {.b = &b, .random = 88172645463325252};
    bool is_over = false, is_good = false;
    int code = bench_args(argc, argv, &b, &is_over);
    if (is_over || code != BENCH_DONE)
        return code;
    if (b.mode == MODE_STORM)
        b.is_stored = true;
    r.crowd = crowd_new(&b);
    if (r.crowd) {
        r.share = crowd_share(r.crowd);
        r.publisher = b.mode == MODE_IDLE ? NULL : publisher_new(&b);
        if (b.mode == MODE_IDLE || r.publisher) {
            is_good = connect_all(&r) == 0 && run_mode(&r) == 0;
            is_good = judge(&r) && is_good;
            print_report(&r, is_good);
        }
    }
    publisher_free(r.publisher);
    crowd_free(r.crowd);
    bench_args_free(&b);
    return is_good ? BENCH_DONE : BENCH_FAILED;
}
