#include "config.h"

#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/text.h"

/* A line never exceeds PIPE_BUF, so that lines of several processes on one pipe do not mix
 * (pipe(7)). */
#define LINE_MAX_BYTES 4096
#define VALUE_MAX_BYTES 512

#define LIMIT_LINES 20
#define LIMIT_WINDOW_MS 10000
#define LIMIT_EVENTS 64 /* a power of two; events beyond share places */

enum target { TARGET_STDERR, TARGET_SYSLOG, TARGET_FILE };

/* One event's window in the limiter. */
struct limit {
    uint64_t hash; /* 0: free */
    int64_t since_ms;
    uint32_t lines;
    uint64_t suppressed; /* not told yet */
};

/* The log of this process: the documented global of log.h. */
static struct {
    enum target target;
    enum log_level level;
    enum log_format format;
    int fd; /* of the file; -1 otherwise */
    char *path; /* "" when the file was handed over open */
    char role[16];
    struct text_buf line; /* kept, so that logging allocates nothing once warm */
    struct limit limits[LIMIT_EVENTS];
    uint64_t suppressed;
    uint64_t lost;
} state = {.level = LOG_LEVEL_INFO, .fd = -1, .role = "belfry"};

static const struct {
    const char *name;
    int priority; /* of syslog(3) */
} levels[] = {[LOG_LEVEL_ERROR] = {"error", LOG_ERR},
              [LOG_LEVEL_WARNING] = {"warning", LOG_WARNING},
              [LOG_LEVEL_NOTICE] = {"notice", LOG_NOTICE},
              [LOG_LEVEL_INFO] = {"info", LOG_INFO},
              [LOG_LEVEL_DEBUG] = {"debug", LOG_DEBUG}};

/* ---- targets ---- */

static int open_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    return fd < 0 ? -errno : fd;
}

static void close_target(void)
{
    if (state.target == TARGET_SYSLOG)
        closelog();
    if (state.fd >= 0)
        close(state.fd);
    state.fd = -1;
    free(state.path);
    state.path = NULL;
    state.target = TARGET_STDERR;
}

int log_open(const char *target, enum log_level level, enum log_format format)
{
    enum target kind = TARGET_FILE;
    const char *path = target;
    char *copy = NULL;
    int fd = -1;
    if (!strcmp(target, "stderr"))
        kind = TARGET_STDERR;
    else if (!strcmp(target, "syslog"))
        kind = TARGET_SYSLOG;
    else {
        if (!strncmp(path, "file:", 5))
            path += 5;
        if (path[0] != '/') /* a daemon's directory is not where it was started */
            return -EINVAL;
        copy = strdup(path);
        if (!copy)
            return -ENOMEM;
        fd = open_file(path);
        if (fd < 0) {
            free(copy);
            return fd;
        }
    }
    close_target();
    state.target = kind;
    state.path = copy;
    state.fd = fd;
    state.level = level;
    state.format = format;
    if (kind == TARGET_SYSLOG)
        openlog("belfryd", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    return 0;
}

int log_reopen(void)
{
    if (state.target != TARGET_FILE || !state.path)
        return 0;
    int fd = open_file(state.path);
    if (fd < 0)
        return fd;
    close(state.fd);
    state.fd = fd;
    return 0;
}

int log_fd(void)
{
    return state.target == TARGET_FILE ? state.fd : -1;
}

void log_take_fd(int fd)
{
    close_target();
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    state.target = TARGET_FILE;
    state.fd = fd;
}

void log_set_level(enum log_level level)
{
    state.level = level;
}

void log_set_format(enum log_format format)
{
    state.format = format;
}

enum log_level log_present_level(void)
{
    return state.level;
}

enum log_format log_present_format(void)
{
    return state.format;
}

void log_set_role(const char *role)
{
    snprintf(state.role, sizeof(state.role), "%s", role);
}

bool log_enabled(enum log_level level)
{
    return level <= state.level;
}

uint64_t log_suppressed(void)
{
    return state.suppressed;
}

uint64_t log_lost(void)
{
    return state.lost;
}

/* ---- the limiter ---- */

/*
 * The row of an event: its own, else a free one, else the one with the oldest window among the few
 * looked at (what it had not told is told by the event that takes the row: the number is right, its
 * name is not).
 */
static struct limit *find_limit(uint64_t hash)
{
    struct limit *oldest = NULL;
    for (unsigned i = 0; i < 8; i++) {
        struct limit *l = &state.limits[(hash + i) & (LIMIT_EVENTS - 1)];
        if (l->hash == hash || !l->hash) {
            l->hash = hash;
            return l;
        }
        if (!oldest || l->since_ms < oldest->since_ms)
            oldest = l;
    }
    oldest->hash = hash;
    oldest->lines = 0;
    return oldest;
}

/* False when the line is one too many; else *told is what was suppressed since the last line that
 * passed. */
static bool limit_passes(const char *event, uint64_t *told)
{
    struct limit *l = find_limit(text_hash64(event, strlen(event)));
    int64_t now_ms = clock_mono_ms();
    if (!l->lines || now_ms - l->since_ms >= LIMIT_WINDOW_MS) {
        l->since_ms = now_ms;
        l->lines = 0;
    }
    if (l->lines >= LIMIT_LINES) {
        l->suppressed++;
        state.suppressed++;
        return false;
    }
    l->lines++;
    *told = l->suppressed;
    l->suppressed = 0;
    return true;
}

/* ---- the line ---- */

static bool needs_quotes(const char *value)
{
    if (!*value)
        return true;
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p <= ' ' || *p >= 0x7F || *p == '"' || *p == '\\' || *p == '=')
            return true;
    return false;
}

/* At most VALUE_MAX_BYTES, and not ended within a UTF-8 sequence. */
static size_t value_length(const char *value)
{
    size_t len = strnlen(value, VALUE_MAX_BYTES + 1);
    if (len <= VALUE_MAX_BYTES)
        return len;
    len = VALUE_MAX_BYTES;
    while (len && ((unsigned char)value[len] & 0xC0) == 0x80)
        len--;
    return len;
}

static void add_key(struct text_buf *b, const char *key)
{
    if (state.format == LOG_FORMAT_JSON) {
        text_addc(b, ',');
        text_add_json(b, key, strlen(key));
        text_addc(b, ':');
    } else {
        text_addc(b, ' ');
        text_adds(b, key);
        text_addc(b, '=');
    }
}

static void add_int(struct text_buf *b, int64_t value)
{
    text_addf(b, "%lld", (long long)value);
}

static void add_bool(struct text_buf *b, bool value)
{
    static const char *const words[2][2] = {[LOG_FORMAT_TEXT] = {"no", "yes"},
                                            [LOG_FORMAT_JSON] = {"false", "true"}};
    text_adds(b, words[state.format][value]);
}

static void add_string(struct text_buf *b, const char *value)
{
    if (!value)
        value = "";
    if (state.format == LOG_FORMAT_JSON) {
        text_add_json(b, value, value_length(value));
        return;
    }
    bool quotes = needs_quotes(value);
    if (quotes)
        text_addc(b, '"');
    text_add_escaped(b, value, strlen(value), VALUE_MAX_BYTES);
    if (quotes)
        text_addc(b, '"');
}

static void add_head(struct text_buf *b, enum log_level level, const char *event)
{
    char now[CLOCK_ISO_BYTES];
    clock_format_us(clock_wall_us(), false, now);
    char *dot = strchr(now, '.');
    if (dot)
        memcpy(dot + 4, "Z", 2); /* milliseconds */
    if (state.format == LOG_FORMAT_JSON) {
        text_addf(b, "{\"ts\":\"%s\",\"level\":\"%s\",\"process\":", now, levels[level].name);
        text_add_json(b, state.role, strlen(state.role));
        text_adds(b, ",\"event\":");
        text_add_json(b, event, strlen(event));
    } else if (state.target == TARGET_SYSLOG) /* which adds time and level itself */
        text_addf(b, "%s %s", state.role, event);
    else
        text_addf(b, "%s %s %s %s", now, levels[level].name, state.role, event);
}

static void add_ended(struct text_buf *b, int status)
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        add_key(b, "signal");
        add_string(b, name ? name : "real-time");
    } else {
        add_key(b, "status");
        add_int(b, WEXITSTATUS(status));
    }
}

/* A value that is not NULL or a string says so by its address: log.h. */
static void add_pair(struct text_buf *b, const char *key, va_list *args)
{
    if (key == log_is_ended) {
        add_ended(b, va_arg(*args, int));
        return;
    }
    const char *value = va_arg(*args, const char *);
    add_key(b, key);
    if (value == log_is_int)
        add_int(b, va_arg(*args, int64_t));
    else if (value == log_is_bool)
        add_bool(b, va_arg(*args, int));
    else
        add_string(b, value);
}

/* What does not fit is left out as a whole pair, and the line says so. */
static void add_pairs(struct text_buf *b, va_list *args)
{
    size_t room = LINE_MAX_BYTES - sizeof(",\"truncated\":true}\n") -
                  sizeof(",\"suppressed\":18446744073709551615");
    const char *key;
    while ((key = va_arg(*args, const char *))) {
        size_t before = b->len;
        add_pair(b, key, args);
        if (b->failed || b->len <= room)
            continue;
        b->len = before;
        add_key(b, "truncated");
        add_bool(b, true);
        return;
    }
}

static void write_line(enum log_level level, struct text_buf *b)
{
    if (b->failed) {
        state.lost++;
        return;
    }
    if (state.target == TARGET_SYSLOG) {
        syslog(levels[level].priority, "%s", b->data);
        return;
    }
    text_addc(b, '\n');
    ssize_t n;
    do
        n = b->failed ? -1 : write(state.fd >= 0 ? state.fd : STDERR_FILENO, b->data, b->len);
    while (n < 0 && !b->failed && errno == EINTR);
    if (n < 0 || (size_t)n != b->len)
        state.lost++;
}

void log_event(enum log_level level, const char *event, ...)
{
    uint64_t told;
    if (!log_enabled(level) || !limit_passes(event, &told))
        return;
    int saved = errno;
    struct text_buf *b = &state.line;
    text_buf_reset(b);
    add_head(b, level, event);
    va_list args;
    va_start(args, event);
    add_pairs(b, &args);
    va_end(args);
    if (told) {
        add_key(b, "suppressed");
        add_int(b, (int64_t)told);
    }
    if (state.format == LOG_FORMAT_JSON)
        text_addc(b, '}');
    write_line(level, b);
    errno = saved;
}

/* ---- values ---- */

const char log_is_int[] = "int", log_is_bool[] = "bool", log_is_ended[] = "ended";

const char *log_errno(int error)
{
    const char *text = strerrordesc_np(error < 0 ? -error : error);
    return text ? text : "unknown error";
}
