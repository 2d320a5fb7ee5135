/*
 * options.h - options: the table (options.def), the parser, the checked snapshot.
 *
 * Master, workers, belfryctl. A snapshot is built once, checked as a whole, and never changed
 * afterwards; a reload builds another one. Order of sources: command line > environment > file >
 * profile > default. No globals.
 */
#ifndef BELFRY_SHARED_OPTIONS_H
#define BELFRY_SHARED_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/text.h"

#define OPTIONS_DEFAULT_FILE_NAME "belfry.conf" /* in SYSCONFDIR/belfry */

enum option_id {
#define OPTION(field, kind, def, spec, reload, section, value, help) OPT_##field,
#include "shared/options.def"
#undef OPTION
    OPTIONS
};

enum option_kind {
    OPTION_STRING,
    OPTION_LIST,
    OPTION_COUNT,
    OPTION_BYTES,
    OPTION_TIME,
    OPTION_CHOICE
};
enum option_reload { OPTION_LIVE, OPTION_WORKERS, OPTION_RESTART };
enum option_source {
    SOURCE_DEFAULT,
    SOURCE_PROFILE,
    SOURCE_FILE,
    SOURCE_ENVIRONMENT,
    SOURCE_COMMAND_LINE
};

struct option_row {
    const char *name; /* with '-' */
    enum option_kind kind;
    const char *def;
    const char *spec;
    enum option_reload reload;
    const char *section; /* lower case */
    const char *value;
    const char *help;
};

extern const struct option_row options_table[OPTIONS];

#define OPTION_CTYPE_STRING char *
#define OPTION_CTYPE_LIST struct text_list
#define OPTION_CTYPE_COUNT int64_t
#define OPTION_CTYPE_BYTES int64_t
#define OPTION_CTYPE_TIME int64_t
#define OPTION_CTYPE_CHOICE int64_t

struct options {
#define OPTION(field, kind, def, spec, reload, section, value, help) OPTION_CTYPE_##kind field;
#include "shared/options.def"
#undef OPTION
    enum option_source source[OPTIONS];
    int line[OPTIONS];  /* of the file, for SOURCE_FILE */
    char *file;         /* configuration file read; "" for none */
};

/* Values of CHOICE options, in the order of their spec; a unit test holds them together. */
enum { CHOICE_OFF, CHOICE_ON };
enum { CHOICE_NO, CHOICE_YES };
enum { RESTART_CLOSE_FRAME, RESTART_CLOSE_DROP };
enum { EVENT_CASE_UPPER, EVENT_CASE_LOWER };
enum { AUTH_FAILURE_CLOSE, AUTH_FAILURE_HTTP };
enum { SLOW_CONSUMER_CONFLATE, SLOW_CONSUMER_DISCONNECT };
enum { PROFILE_STANDARD, PROFILE_FINANCE_TRACKER };

/* What else a command line may hold; which of them a program understands is its own business. */
struct options_command {
    bool test_config;
    bool help;
    bool version;
    struct text_list rest; /* words that are not options, in order */
    /* Set before options_load: errors in the file are reported all the same, but what they spoil
     * keeps its default and the load succeeds. For belfryctl's questions to a running server, whose
     * file may be the very thing that is wrong. */
    bool is_tolerant;
};

/* Error and warning lines go here, one callback for each, without newline:
 * "belfry.conf:12: ping-interval: ...". */
typedef void options_report_fn(void *data, bool is_error, const char *line);

/*
 * Builds a snapshot from argv (argv[0] skipped), environ and the file (--config FILE or
 * BELFRY_CONFIG, else the default file when it exists). Understands --name=X, --name X, --no-name
 * for on/off choices, --name alone for them; --config, --test-config, --help, --version; "--" ends
 * options. With stop_at_word the first word that is no option ends parsing (belfryctl's subcommand)
 * and all the following go to command->rest unread. A value is checked by itself whatever its
 * source, also when a stronger source overrides it. Reports every error, not only the first. After
 * --help or --version neither environment nor file are read.
 * 0 and *out (given; options_free), or -EINVAL after at least one error was reported. Errors name
 * source, line, option, allowed range and the nearest name. Secrets in values (redis-url) never
 * appear in a report. command (may be NULL) is written in any case; options_command_free.
 */
int options_load(int argc, char **argv, char **environment, bool stop_at_word,
                 struct options_command *command, options_report_fn *report, void *report_data,
                 struct options **out);
void options_free(struct options *o);
void options_command_free(struct options_command *c);

/* Checks of what options_load cannot see in one value: files readable, users there, keys and
 * algorithms that fit, addresses that do not clash, unused keys (a warning). 0 or -EINVAL. */
int options_check(const struct options *o, options_report_fn *report, void *report_data);
/* Appends what others have to say of a value, "name: text", as a report that tells where the value
 * was given. Text that does not begin with an option's name is appended as it is. */
void options_locate(const struct options *o, const char *text, struct text_buf *out);

/* Appends the value of one option as it would stand in the file; the password in redis-url is
 * written as ***. */
void options_format(const struct options *o, enum option_id id, struct text_buf *out);
/* Ids of options whose values differ; returns how many were written to ids (room for OPTIONS). */
int options_diff(const struct options *a, const struct options *b, enum option_id ids[OPTIONS]);
/* Nearest option name; NULL when nothing is near. */
const char *options_nearest(const char *name);
/* Writes the options part of --help, by section, or the sample file etc/belfry.conf (every option,
 * commented, with its default). */
void options_print_help(FILE *to);
void options_print_sample(FILE *to);

/* Overwrites in argv the values of options that hold secrets (redis-url), so that process lists do
 * not show them. */
void options_scrub_argv(int argc, char **argv);

#endif
