/*
 * options_fixture.h - for check_options.c and check_options_check.c: a folder for files, loading
 * with words and environment, and the reports of the last load or check.
 */
#ifndef BELFRY_TESTS_UNIT_OPTIONS_FIXTURE_H
#define BELFRY_TESTS_UNIT_OPTIONS_FIXTURE_H

#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/options.h"

static char folder[40];
static char file[64]; /* the configuration file, written by write_file */
static struct options *o;
static struct options_command command;
static struct text_buf errors, warnings; /* reported lines, each with a newline */

static void report(void *data, bool is_error, const char *line)
{
    ck_assert_ptr_eq(data, folder);
    ck_assert(!strchr(line, '\n'));
    text_addf(is_error ? &errors : &warnings, "%s\n", line);
}

static void set_up(void)
{
    strcpy(folder, "/tmp/check_options_XXXXXX");
    ck_assert(mkdtemp(folder));
    snprintf(file, sizeof(file), "%s/b.conf", folder);
}

static void tear_down(void)
{
    char command_line[80];
    options_free(o);
    options_command_free(&command);
    text_buf_free(&errors);
    text_buf_free(&warnings);
    snprintf(command_line, sizeof(command_line), "rm -rf %s", folder);
    ck_assert_int_eq(system(command_line), 0);
}

static void forget(void)
{
    options_free(o);
    o = NULL;
    options_command_free(&command);
    text_buf_reset(&errors);
    text_buf_reset(&warnings);
}

static void write_bytes(const char *path, const char *bytes, size_t len)
{
    FILE *f = fopen(path, "w");
    ck_assert(f);
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    fclose(f);
    chmod(path, 0600);
}

static inline void write_file(const char *text)
{
    write_bytes(file, text, strlen(text));
}

/* A path in the folder; valid until the next call but three. */
static inline const char *in_folder(const char *name)
{
    static char paths[4][80];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

/* Loads from words (up to a NULL) and environment; the file only when it was written. */
static int load_with(char **environment, bool stop_at_word, va_list words)
{
    char config[80];
    char *argv[32] = {(char[]){"belfryd"}};
    int argc = 1;
    snprintf(config, sizeof(config), "--config=%s", access(file, F_OK) ? "/dev/null" : file);
    argv[argc++] = config;
    while ((argv[argc] = va_arg(words, char *)))
        argc++;
    forget();
    int rc = options_load(argc, argv, environment, stop_at_word, &command, report, folder, &o);
    ck_assert(rc == 0 || rc == -EINVAL);
    ck_assert((rc == 0) == (errors.len == 0));
    ck_assert((rc == 0) == (o != NULL));
    return rc;
}

#define load(...) load_words(NULL, false, ##__VA_ARGS__, (char *)NULL)

__attribute__((sentinel)) static int load_words(char **environment, int stop_at_word, ...)
{
    va_list words;
    va_start(words, stop_at_word);
    int rc = load_with(environment, stop_at_word, words);
    va_end(words);
    return rc;
}

static void assert_text(struct text_buf *b, const char *expected)
{
    ck_assert_str_eq(b->data ? b->data : "", expected);
}

static void assert_holds(struct text_buf *b, const char *piece)
{
    ck_assert_msg(b->data && strstr(b->data, piece), "\"%s\" is not in: %s", piece,
                  b->data ? b->data : "(nothing)");
}

#endif
