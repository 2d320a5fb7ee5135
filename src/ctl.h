/*
 * ctl.h - belfryctl: the command line, the table of subcommands, and what they share.
 *
 * belfryctl only; one thread, blocking calls with deadlines. It knows Redis through libbelfry (and
 * a plain read of one list), the server through its control socket and its WebSocket, and nothing
 * of workers/. Results go to stdout, everything else to stderr. See belfryctl(1).
 */
#ifndef BELFRY_SRC_CTL_H
#define BELFRY_SRC_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/belfry.h"
#include "shared/events.h"
#include "shared/options.h"
#include "shared/text.h"

/* Exit codes. */
enum { CTL_DONE, CTL_FAILED, CTL_USAGE, CTL_TIMED_OUT };

#define CTL_MAX_OPTIONS 12

struct ctl;

/* An option of one subcommand; value NULL: it takes none. Where a name is also one of the server's
 * options, it is the subcommand's after the subcommand and the server's before it. */
struct ctl_option {
    const char *name;
    const char *value;
    const char *help;
    bool is_secret; /* overwritten in argv once read */
};

/* One row of the table of subcommands (ctl_args.c). */
struct ctl_command {
    const char *name;
    const char *words; /* as the usage line shows them */
    size_t min_words;
    size_t max_words;
    const char *summary;
    const char *detail; /* more for `help NAME`; lines end with \n */
    int (*run)(struct ctl *c);
    struct ctl_option options[CTL_MAX_OPTIONS]; /* up to the first without a name */
};

/* What one call of belfryctl was asked to do. */
struct ctl {
    const struct ctl_command *command;
    const char *values[CTL_MAX_OPTIONS]; /* of command->options; NULL: not given; "" for a flag */
    struct text_list words;
    struct text_list copies; /* owns values */
    struct options *options;
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;

int ctl_main(int argc, char **argv);

/* Value of an option of this subcommand, borrowed; NULL when it was not given. */
const char *ctl_value(const struct ctl *c, const char *name);
bool ctl_flag(const struct ctl *c, const char *name);
/* Time option in ms; fallback when not given. 0 or -EINVAL after telling why. */
int ctl_time(const struct ctl *c, const char *name, int64_t fallback_ms, int64_t *out_ms);
/* The same for a number between min and max. */
int ctl_number(const struct ctl *c, const char *name, int64_t min, int64_t max, int64_t fallback,
               int64_t *out);
/* Checks a user id from the command line. 0 or -EINVAL after telling why. */
int ctl_check_user(const char *user_id);

/* One line to stderr, "belfryctl: " before it; control characters become '?', because half of what
 * is told here came from a file, Redis or the network. */
void ctl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* JSON from elsewhere as one line to stdout, flushed, the way text_add_line writes it: what a
 * terminal would obey does not reach it. 0, or -EIO after telling why. */
int ctl_print_line(const char *bytes, size_t len);
/* What is in b to stdout, flushed; frees b. CTL_DONE, or CTL_FAILED after telling why. */
int ctl_print(struct text_buf *b);

/* Reads a file, or stdin for "-", up to max_bytes. 0, or negative errno after telling why. */
int ctl_read_input(const char *what, const char *path, size_t max_bytes, struct text_buf *out);

/* Subcommands: a CTL_ exit code each. */
int ctl_token(struct ctl *c);
int ctl_emit(struct ctl *c);
int ctl_broadcast(struct ctl *c);
int ctl_listen(struct ctl *c);
int ctl_history(struct ctl *c);
int ctl_explain(struct ctl *c);
int ctl_events(struct ctl *c);
int ctl_status(struct ctl *c);
int ctl_top(struct ctl *c);
int ctl_show(struct ctl *c);
int ctl_kick(struct ctl *c);
int ctl_revoke(struct ctl *c);
int ctl_reload(struct ctl *c);
int ctl_drain(struct ctl *c);
int ctl_stop(struct ctl *c);
int ctl_help(struct ctl *c);

struct token_request; /* shared/token.h */

/* Mints a token with the configured secret. CTL_DONE and *out (malloc'ed), or another CTL_ code
 * after telling why. */
int ctl_mint(const struct ctl *c, const struct token_request *what, char **out);

/* Sends one request line to the control socket and reads the answer's line into reply. 0, or
 * negative errno; tells why unless quiet. */
int ctl_control_request(const struct ctl *c, const char *request, int64_t timeout_ms, bool quiet,
                        struct text_buf *reply);
/* One word of a request, percent-encoded. */
void ctl_add_word(struct text_buf *out, const char *word);
/* Asks with the subcommand's --timeout, and turns failure into an exit code, after telling why. */
int ctl_ask(struct ctl *c, const char *request, int64_t default_timeout_ms, struct text_buf *reply);
/* Sends a question that workers and instances have to answer: all of them within timeout_ms, then
 * the server answers with what it has. As ctl_control_request. */
#define CTL_WORKERS_MS 3000 /* --timeout, where it is not given */
int ctl_ask_workers(const struct ctl *c, struct text_buf *request, int64_t timeout_ms,
                    struct text_buf *reply);
/* Tells which other instances did not answer such a question at all; asks Redis who listens. */
void ctl_name_silent(const struct ctl *c, struct text_span reply);
/* Tells each line of a refusal on its own. */
void ctl_say_error(const char *request, struct text_span reply);
/* redis-url, or for `embedded` what the running server says it is. Appends to out. 0, or -EINVAL
 * after telling why. */
int ctl_redis_url(const struct ctl *c, struct text_buf *out);

/* One word of an event row's fields: "name?:type". */
struct ctl_field {
    struct text_span name;
    bool is_optional;
    char kind; /* as events.def says */
};
/* Takes the next field from *fields; false at the end. */
bool ctl_field_next(const char **fields, struct ctl_field *out);
/* "text", "whole number": what a field of this kind is, for people. */
const char *ctl_field_kind(char kind);
/* Appends a plausible payload for a row of the event table; it passes events_check_payload. */
void ctl_sample(int event, struct text_buf *out);

#endif
