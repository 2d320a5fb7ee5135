/*
 * fuzz_options.c - the options file, words and environment (shared/options_load.c,
 * options_value.c, redisurl.c, address.c). The input is the file, and behind it, each behind a NUL,
 * words of the command line and, where they begin with BELFRY_, variables.
 *
 * Holds: a file that cannot be taken says why, on one printable line for each error; of one that
 * can, every option written as it is shown makes a file that means the same.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shared/options.h"
#include "shared/options_priv.h"

#define WORDS_MAX 12

static unsigned errors;

static void report(void *data, bool is_error, const char *line)
{
    (void)data;
    errors += is_error;
    FUZZ_CHECK(*line);
    for (const char *p = line; *p; p++)
        FUZZ_CHECK((unsigned char)*p >= ' ' && *p != 0x7f);
}

/* The file is memory, under a name in /proc. words: each with its NUL. */
static struct options *load(struct text_span file, struct text_span words)
{
    static int fd = -1;
    static char name[] = "belfryd", config[64];
    char *argv[WORDS_MAX + 3] = {name, config}, *environment[WORDS_MAX + 1] = {NULL};
    int argc = 2, variables = 0;
    struct options_command command = {0};
    struct options *o = NULL;
    char *copy = fuzz_text(words);
    for (size_t at = 0; at < words.len && argc + variables < WORDS_MAX;
         at += strlen(copy + at) + 1) {
        char *word = copy + at;
        if (!strncmp(word, "BELFRY_CONFIG", 13) || !strncmp(word, "--config", 8))
            continue; /* no other files */
        if (!strncmp(word, "BELFRY_", 7))
            environment[variables++] = word;
        else
            argv[argc++] = word;
    }
    if (fd < 0) {
        FUZZ_CHECK((fd = memfd_create("options", MFD_CLOEXEC)) >= 0);
        snprintf(config, sizeof(config), "--config=/proc/self/fd/%d", fd);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0);
    FUZZ_CHECK(pwrite(fd, file.ptr, file.len, 0) == (ssize_t)file.len);
    errors = 0;
    int rc = options_load(argc, argv, environment, false, &command, report, NULL, &o);
    FUZZ_CHECK((rc == 0) == (errors == 0));
    options_command_free(&command);
    free(copy);
    return rc ? NULL : o;
}

static void write_all(const struct options *o, struct text_buf *out)
{
    for (int id = 0; id < OPTIONS; id++) {
        if (id == OPT_dev || !strcmp(options_table[id].name, "dev"))
            continue;
        text_addf(out, "%s = ", options_table[id].name);
        options_format(o, (enum option_id)id, out);
        text_addc(out, '\n');
    }
}

/* Where an option came from, and an error about one; both printable. */
static void check_where(const struct options *o)
{
    struct text_buf out = {0};
    for (int id = 0; id < OPTIONS; id++) {
        char text[100];
        size_t before = out.len;
        snprintf(text, sizeof(text), "%s: wrong", options_table[id].name);
        options_where(o, (enum option_id)id, &out);
        FUZZ_CHECK(out.len > before);
        options_locate(o, text, &out);
        options_locate(o, text + 1, &out);
    }
    FUZZ_CHECK(!out.failed);
    for (size_t i = 0; i < out.len; i++)
        FUZZ_CHECK((unsigned char)out.data[i] >= ' ' && out.data[i] != 0x7f);
    text_buf_free(&out);
}

/* No password is left in the arguments, and they are as long as before. */
static void check_scrub(struct text_span words)
{
    static char name[] = "belfryd";
    char *argv[WORDS_MAX + 1] = {name}, *copy = fuzz_text(words);
    int argc = 1;
    for (size_t at = 0; at < words.len && argc < WORDS_MAX; at += strlen(copy + at) + 1)
        argv[argc++] = copy + at;
    options_scrub_argv(argc, argv);
    size_t at = 0;
    for (int i = 1; i < argc; i++) {
        FUZZ_CHECK(argv[i] == copy + at);
        at += strlen(argv[i]) + 1;
    }
    FUZZ_CHECK(argc == WORDS_MAX || at >= words.len);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text_buf first = {0}, second = {0};
    struct fuzz_input in = {data, size};
    struct text_span file = fuzz_until(&in, '\0');
    struct text_span words = fuzz_bytes(&in, in.left);
    struct options *o = load(file, words);
    enum option_id changed[OPTIONS];
    check_scrub(words);
    if (!o)
        return 0;
    check_where(o);
    write_all(o, &first);
    FUZZ_CHECK(!first.failed);
    if (!strstr(first.data, "***")) { /* a password is not shown */
        struct options *again = load(fuzz_span(&first), (struct text_span){0});
        FUZZ_CHECK(again);
        size_t changes = (size_t)options_diff(o, again, changed);
        FUZZ_CHECK(!changes || (changes == 1 && changed[0] == OPT_dev)); /* of no file */
        write_all(again, &second);
        FUZZ_CHECK(fuzz_same(fuzz_span(&first), fuzz_span(&second)));
        options_free(again);
    }
    options_free(o);
    text_buf_free(&first);
    text_buf_free(&second);
    return 0;
}
