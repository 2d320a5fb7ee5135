/*
 * log.h - one line for each event: level, time, process, key=value pairs; text or JSON form;
 * stderr, syslog or a file.
 *
 * Master, workers and belfryctl. One of the documented globals: the log of this process (level,
 * target, limiter). Never blocks beyond one write(2); a line that cannot be written is lost and
 * counted. Callers never pass payloads or tokens.
 *
 *   log_info("worker-ready", "slot", LOG_INT(3), "pid", LOG_INT(pid))  is written
 *   2026-01-31T12:00:00.123Z info w3 worker-ready slot=3 pid=77
 * or, as JSON, with numbers that are numbers:
 *   {"ts":"2026-01-31T12:00:00.123Z","level":"info","event":"worker-ready","slot":3}
 */
#ifndef BELFRY_SHARED_LOG_H
#define BELFRY_SHARED_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_NOTICE,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* Where lines go: target as in the option log-target ("stderr", "syslog", "file:PATH" or an
 * absolute path). 0 or negative errno from opening the file. May be called again; the old target is
 * closed. */
int log_open(const char *target, enum log_level level, enum log_format format);
/* Opens the file again under its name (after rotation); other targets: nothing. 0 or negative errno
 * (old one stays). */
int log_reopen(void);
/* Descriptor of the log file, -1 for other targets: handed to workers, which may not open it
 * themselves. */
int log_fd(void);
/* Takes fd (given) as the log file from now on. */
void log_take_fd(int fd);
void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
enum log_level log_present_level(void);
enum log_format log_present_format(void);
/* Short name of this process in each line: "master", "w0", "ctl". Copied. */
void log_set_role(const char *role);
bool log_enabled(enum log_level level);

/* Writes event with key, value pairs up to a NULL key. A value is a string, escaped, quoted where
 * it needs that, or LOG_INT or LOG_BOOL, which the JSON form writes as a number and as true or
 * false: what a value is, is said where it is written and never read off its text. One key has one
 * type in all events: a database of logs has one column for it. A line whose event was written more
 * than 20 times within ten seconds is suppressed and counted; the count is told with the next one
 * that passes. */
void log_event(enum log_level level, const char *event, ...) __attribute__((sentinel));

/* Two arguments each: an address that no string has, and behind it the value. So none can be part
 * of a larger expression: LOG_INT(a ? b : c). */
extern const char log_is_int[], log_is_bool[], log_is_ended[];
#define LOG_INT(v) log_is_int, (int64_t)(v)
#define LOG_BOOL(v) log_is_bool, (int)!!(v)
/* Key and value: how a process ended, a status of wait(2): signal=SEGV or status=1. */
#define LOG_ENDED(status) log_is_ended, (int)(status)
/* Text of a negative (or positive) errno value. */
const char *log_errno(int error);

#define log_error(event, ...) log_event(LOG_LEVEL_ERROR, event, ##__VA_ARGS__, (char *)NULL)
#define log_warning(event, ...) log_event(LOG_LEVEL_WARNING, event, ##__VA_ARGS__, (char *)NULL)
#define log_notice(event, ...) log_event(LOG_LEVEL_NOTICE, event, ##__VA_ARGS__, (char *)NULL)
#define log_info(event, ...) log_event(LOG_LEVEL_INFO, event, ##__VA_ARGS__, (char *)NULL)
#define log_debug(event, ...) \
    do { \
        if (log_enabled(LOG_LEVEL_DEBUG)) \
            log_event(LOG_LEVEL_DEBUG, event, ##__VA_ARGS__, (char *)NULL); \
    } while (0)

/* Lines suppressed since the process started (counter log_lines_suppressed). */
uint64_t log_suppressed(void);
/* Lines lost because they could not be written. */
uint64_t log_lost(void);

#endif
