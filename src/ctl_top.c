/*
 * ctl_top.c - belfryctl top: the running server's workers, sorted, again and again. On a terminal
 * it takes the screen and listens to keys; elsewhere it prints one table, or one line of JSON,
 * after the other. termios(3), console_codes(4).
 */
#include "config.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/counters.h"
#include "shared/json.h"
#include "src/ctl.h"
#include "src/ctl_reply.h"

#define INTERVAL_MS 1000
#define TIMEOUT_MS 5000
#define SCREEN_ROWS 24 /* of a terminal that does not tell */
/* Alternate screen, cursor off, lines are cut at the margin; and back. */
#define SCREEN_ON "\033[?1049h\033[?25l\033[?7l"
#define SCREEN_OFF "\033[?7h\033[?25h\033[?1049l"

struct row {
    struct text_span worker, rates;
    long long slot, connections, rss;
    double in, out, commands;
};

static double rate_of(const struct row *r)
{
    return r->in + r->out + r->commands;
}

static int by_rate(const void *a, const void *b)
{
    double x = rate_of(a), y = rate_of(b);
    return x != y ? (x < y ? 1 : -1) : 0;
}

static int by_connections(const void *a, const void *b)
{
    long long x = ((const struct row *)a)->connections, y = ((const struct row *)b)->connections;
    return x != y ? (x < y ? 1 : -1) : 0;
}

static int by_memory(const void *a, const void *b)
{
    long long x = ((const struct row *)a)->rss, y = ((const struct row *)b)->rss;
    return x != y ? (x < y ? 1 : -1) : 0;
}

static const struct order {
    const char *name; /* its first letter is the key */
    int (*compare)(const void *a, const void *b);
} orders[] = {{"rate", by_rate}, {"connections", by_connections}, {"memory", by_memory}};
#define ORDERS (sizeof(orders) / sizeof(orders[0]))

struct top {
    struct ctl *c;
    const struct order *order;
    int64_t interval_ms;
    int64_t count;  /* screens left; -1: no end */
    bool is_json, is_screen, has_keys, has_colour;
    bool is_over;
    int signals;    /* signalfd */
    struct termios before;
    struct text_buf status; /* the last answer */
    struct row rows[COUNTERS_MAX_SLOTS];
    size_t row_count;
};

/* ---- what is shown ---- */

static void on_worker(void *data, struct text_span worker)
{
    struct top *t = data;
    if (t->row_count == COUNTERS_MAX_SLOTS)
        return;
    struct row *r = &t->rows[t->row_count++];
    r->worker = worker;
    r->rates = ctl_object_of(worker, "rates");
    r->slot = ctl_number_of(worker, "slot");
    r->connections = ctl_nested(worker, "connections", "websockets");
    r->rss = ctl_number_of(worker, "rss_bytes");
    r->in = ctl_real_of(r->rates, "received");
    r->out = ctl_real_of(r->rates, "delivered");
    r->commands = ctl_real_of(r->rates, "commands");
}

/* Insertion: few rows, and equal ones keep the order of their slots. */
static void sort_rows(struct top *t)
{
    struct text_span workers;
    t->row_count = 0;
    if (json_find(ctl_reply_span(&t->status), "workers", &workers))
        json_scan_array(workers.ptr, workers.len, on_worker, t);
    for (size_t i = 1; i < t->row_count; i++) {
        struct row r = t->rows[i];
        size_t at = i;
        for (; at > 0 && t->order->compare(&t->rows[at - 1], &r) > 0; at--)
            t->rows[at] = t->rows[at - 1];
        t->rows[at] = r;
    }
}

static void add_head(const struct top *t, struct text_buf *b)
{
    struct text_span status = ctl_reply_span(&t->status);
    struct text_span rates = ctl_object_of(status, "rates");
    struct text_span links = ctl_object_of(status, "redis_links");
    long long workers = ctl_number_of(links, "workers");
    char version[64], state[32];
    bool is_up = ctl_number_of(links, "subscriber_up") >= workers &&
                 ctl_number_of(links, "command_up") >= workers;
    text_addf(b, "belfryd %s ", ctl_text_of(status, "version", version, sizeof(version)));
    ctl_add_state(b, ctl_text_of(status, "state", state, sizeof(state)), 0, t->has_colour);
    text_adds(b, ", up ");
    ctl_add_duration(b, ctl_number_of(status, "uptime_seconds"));
    text_addf(b, ", generation %lld, redis ", ctl_number_of(status, "generation"));
    ctl_add_state(b, is_up ? "up" : "DOWN", 0, t->has_colour);
    if (ctl_has(links, "latency_ms"))
        text_addf(b, " (%.1f ms)", ctl_real_of(links, "latency_ms"));
    text_addf(b, "\n%lld connections of %lld users; %.1f received/s, %.1f delivered/s, in ",
              ctl_nested(ctl_object_of(status, "totals"), "connections", "websockets"),
              ctl_number_of(status, "connected_users"), ctl_real_of(rates, "received"),
              ctl_real_of(rates, "delivered"));
    ctl_add_bytes(b, ctl_real_of(rates, "received_bytes"));
    text_adds(b, "/s, out ");
    ctl_add_bytes(b, ctl_real_of(rates, "sent_bytes"));
    text_adds(b, "/s");
    ctl_add_latency(b, rates);
    text_adds(b, "\n\n");
}

static void add_row(const struct top *t, const struct row *r, struct text_buf *b)
{
    struct text_buf memory = {0};
    char state[32];
    ctl_add_bytes(&memory, (double)r->rss);
    text_addf(b, "%4lld %8lld %4lld ", r->slot, ctl_number_of(r->worker, "pid"),
              ctl_number_of(r->worker, "generation"));
    ctl_add_state(b, ctl_text_of(r->worker, "state", state, sizeof(state)), 9, t->has_colour);
    text_addf(b, " %6.1f %8s %11lld %10.1f %10.1f %10.1f\n", ctl_real_of(r->rates, "cpu_percent"),
              memory.data ? memory.data : "", r->connections, r->in, r->out, r->commands);
    text_buf_free(&memory);
}

static void render(struct top *t, struct text_buf *b)
{
    add_head(t, b);
    text_addf(b, "%4s %8s %4s %-9s %6s %8s %11s %10s %10s %10s\n", "SLOT", "PID", "GEN", "STATE",
              "CPU%", "MEMORY", "CONNECTIONS", "IN/s", "OUT/s", "COMMANDS/s");
    for (size_t i = 0; i < t->row_count; i++)
        add_row(t, &t->rows[i], b);
}

static void add_span(struct text_buf *b, struct text_span object, const char *name)
{
    struct text_span value;
    if (!json_find(object, name, &value))
        value = text_span_of("null");
    text_addf(b, ",\"%s\":", name);
    text_add(b, value.ptr, value.len);
}

static void render_json(struct top *t, struct text_buf *b)
{
    static const char *const heads[] = {"state", "generation", "uptime_seconds", "connected_users",
                                        "redis_links", "rates"};
    static const char *const members[] = {"pid", "generation", "state", "rss_bytes", "rates"};
    struct text_span status = ctl_reply_span(&t->status);
    char at[CLOCK_ISO_BYTES];
    clock_format_us(clock_wall_us(), true, at);
    text_addf(b, "{\"at\":\"%s\"", at);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        add_span(b, status, heads[i]);
    text_addf(b, ",\"connections\":%lld,\"workers\":[",
              ctl_nested(ctl_object_of(status, "totals"), "connections", "websockets"));
    for (size_t i = 0; i < t->row_count; i++) {
        const struct row *r = &t->rows[i];
        text_addf(b, "%s{\"slot\":%lld,\"connections\":%lld", i ? "," : "", r->slot,
                  r->connections);
        for (size_t j = 0; j < sizeof(members) / sizeof(members[0]); j++)
            add_span(b, r->worker, members[j]);
        text_addc(b, '}');
    }
    text_adds(b, "]}\n");
}

/* ---- the screen ---- */

/* Each line of text over what stood there before, as many as there is room for. */
static void paint(struct text_buf *out, const struct text_buf *text)
{
    struct winsize size = {0};
    int rows = SCREEN_ROWS;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 1)
        rows = size.ws_row;
    text_adds(out, "\033[H");
    for (const char *line = text->data; line && *line && rows > 1; rows--) {
        size_t len = strcspn(line, "\n");
        text_add(out, line, len);
        text_adds(out, "\033[K\n");
        line += len + (line[len] == '\n');
    }
    text_adds(out, "\033[J");
}

static int show(struct top *t)
{
    struct text_buf text = {0}, screen = {0};
    sort_rows(t);
    if (t->is_json) {
        render_json(t, &text);
        return ctl_print(&text);
    }
    render(t, &text);
    if (!t->is_screen) {
        if (t->count != 1)
            text_addc(&text, '\n'); /* another one follows */
        return ctl_print(&text);
    }
    text_addf(&text, "\nsorted by %s%s\n", t->order->name,
              t->has_keys ? "; r rate, c connections, m memory, q quit" : "");
    paint(&screen, &text);
    screen.failed |= text.failed;
    text_buf_free(&text);
    return ctl_print(&screen);
}

static void open_screen(struct top *t)
{
    struct termios raw;
    if (!t->is_screen)
        return;
    t->has_keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->before) == 0;
    if (t->has_keys) {
        raw = t->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    struct text_buf b = {0};
    text_adds(&b, SCREEN_ON);
    ctl_print(&b);
}

static void close_screen(struct top *t)
{
    struct text_buf b = {0};
    if (!t->is_screen)
        return;
    text_adds(&b, SCREEN_OFF);
    ctl_print(&b);
    if (t->has_keys)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &t->before);
}

/* ---- keys, signals, time ---- */

/* True: it is to be shown again, in another order. */
static bool on_keys(struct top *t)
{
    char keys[64];
    bool is_new = false;
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));
    if (n <= 0)
        t->has_keys = false; /* the end of input */
    for (ssize_t i = 0; i < n; i++) {
        t->is_over |= keys[i] == 'q' || keys[i] == 'Q';
        for (size_t j = 0; j < ORDERS; j++)
            if (keys[i] == orders[j].name[0]) {
                t->order = &orders[j];
                is_new = true;
            }
    }
    return is_new;
}

/* True: the window changed. */
static bool on_signal(struct top *t)
{
    struct signalfd_siginfo info;
    if (read(t->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return false;
    t->is_over |= info.ssi_signo != SIGWINCH;
    return info.ssi_signo == SIGWINCH;
}

/* Until it is time for the next answer. */
static int wait_interval(struct top *t, int64_t until_ms)
{
    int result = CTL_DONE;
    while (!t->is_over && result == CTL_DONE) {
        int64_t left = until_ms - clock_mono_ms();
        struct pollfd p[] = {{.fd = t->signals, .events = POLLIN},
                             {.fd = t->has_keys ? STDIN_FILENO : -1, .events = POLLIN}};
        if (left <= 0)
            break;
        if (poll(p, 2, left > 60000 ? 60000 : (int)left) <= 0)
            continue;
        bool is_new = p[0].revents && on_signal(t);
        if (p[1].revents && on_keys(t))
            is_new = true;
        if (is_new && t->is_screen && !t->is_over)
            result = show(t);
    }
    return result;
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGTSTP); /* stopped, it would leave the terminal as it must not be left */
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigdelset(&set, SIGTSTP);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int run(struct top *t)
{
    int result = CTL_DONE;
    while (!t->is_over && result == CTL_DONE && t->count) {
        int64_t next_ms = clock_mono_ms() + t->interval_ms;
        text_buf_reset(&t->status);
        result = ctl_ask(t->c, "status", TIMEOUT_MS, &t->status);
        if (result == CTL_DONE)
            result = show(t);
        t->count -= t->count > 0;
        if (result == CTL_DONE && t->count)
            result = wait_interval(t, next_ms);
    }
    return result;
}

static int read_options(struct top *t)
{
    const char *sort = ctl_value(t->c, "sort");
    if (ctl_time(t->c, "interval", INTERVAL_MS, &t->interval_ms) != 0 ||
        ctl_number(t->c, "count", 1, 1000000000, -1, &t->count) != 0)
        return CTL_USAGE;
    t->order = &orders[0];
    for (size_t i = 0; sort && i < ORDERS; i++)
        if (!strcmp(sort, orders[i].name) ||
            (strlen(sort) == 1 && sort[0] == orders[i].name[0])) {
            t->order = &orders[i];
            sort = NULL;
        }
    if (!sort)
        return CTL_DONE;
    ctl_say("--sort=%s: expected rate, connections or memory", sort);
    return CTL_USAGE;
}

int ctl_top(struct ctl *c)
{
    const char *term = getenv("TERM");
    struct top *t = calloc(1, sizeof(*t));
    if (!t) {
        ctl_say("out of memory");
        return CTL_FAILED;
    }
    t->c = c;
    t->is_json = ctl_flag(c, "json");
    int result = read_options(t);
    if (result == CTL_DONE) {
        t->signals = open_signals();
        t->is_screen =
            !t->is_json && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
        t->has_colour = ctl_has_colour();
        /* Before the screen is taken: a server that does not answer is told on the old one. */
        result = ctl_ask(c, "status", TIMEOUT_MS, &t->status);
        if (result == CTL_DONE) {
            open_screen(t);
            result = run(t);
            close_screen(t);
            if (result != CTL_DONE && t->is_screen) /* what was told went with the screen */
                ctl_say("%s: no answer any more", c->options->control_socket);
        }
        if (t->signals >= 0)
            close(t->signals);
    }
    text_buf_free(&t->status);
    free(t);
    return result;
}
