#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/options_priv.h"

#ifndef BELFRY_SYSCONFDIR
#define BELFRY_SYSCONFDIR "/etc"
#endif
#define DEFAULT_FILE BELFRY_SYSCONFDIR "/belfry/" OPTIONS_DEFAULT_FILE_NAME

#define FILE_MAX_BYTES (1 << 20)
#define LINE_MAX_BYTES 8192
#define FILE_WAIT_MS 3000 /* what is no file on a disk may take to be there: <(COMMAND), say */
#define NAME_SHOWN_BYTES 64
#define ERRORS_MAX 100 /* a file of another kind should not fill a screen for each of its lines */

/* One options_load under way. */
struct loader {
    struct options *o;
    struct options_command *command;
    options_report_fn *report;
    void *report_data;
    const char *config; /* file to read; NULL: the default one */
    int errors;
    bool no_memory;
};

__attribute__((format(printf, 3, 4))) static void say(struct loader *l, bool is_error,
                                                      const char *format, ...)
{
    char line[1024];
    va_list args;
    if (is_error && ++l->errors > ERRORS_MAX)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    l->report(l->report_data, is_error, line);
    if (is_error && l->errors == ERRORS_MAX)
        l->report(l->report_data, true, "too many errors: the rest is not shown");
}

/* where: "belfry.conf:12" and such; name NULL when where names the option already. */
static void set_value(struct loader *l, enum option_id id, enum option_source source, int line,
                      const char *where, const char *name, const char *value)
{
    struct text_buf why = {0};
    int rc = options_set(l->o, id, source, line, value, &why);
    if (rc == -ENOMEM || why.failed)
        l->no_memory = true;
    else if (rc)
        say(l, true, "%s: %s%s%s", where, name ? name : "", name ? ": " : "",
            why.data ? why.data : "bad value");
    text_buf_free(&why);
}

static void say_unknown(struct loader *l, bool is_error, const char *where, const char *shown,
                        const char *name)
{
    struct text_buf safe = {0};
    const char *near = options_nearest(name);
    text_add_escaped(&safe, shown, strlen(shown), NAME_SHOWN_BYTES);
    say(l, is_error, "%s%sunknown option %s%s%s%s", where, *where ? ": " : "",
        safe.data ? safe.data : "", near ? ", did you mean " : "", near ? near : "",
        near ? "?" : "");
    text_buf_free(&safe);
}

/* ---- command line ---- */

struct arguments {
    int count;
    char **words;
    int next;
};

/* The value of an option that needs one: behind '=', or the next word unless that is an option. */
static const char *take_value(struct loader *l, struct arguments *a, const char *name,
                              const char *equals)
{
    if (equals)
        return equals + 1;
    if (a->next < a->count && strncmp(a->words[a->next], "--", 2))
        return a->words[a->next++];
    say(l, true, "--%s: a value is needed (--%s=VALUE)", name, name);
    return NULL;
}

/* --config, --test-config, --help, --version. False when it is none of them. */
static bool read_command_word(struct loader *l, struct arguments *a, const char *name,
                              const char *equals)
{
    bool *flag = NULL;
    if (!strcmp(name, "config")) {
        const char *value = take_value(l, a, name, equals);
        if (value && !*value)
            say(l, true, "--config: a file name is needed (/dev/null for none)");
        else if (value)
            l->config = value;
        return true;
    }
    if (!strcmp(name, "test-config"))
        flag = &l->command->test_config;
    else if (!strcmp(name, "help"))
        flag = &l->command->help;
    else if (!strcmp(name, "version"))
        flag = &l->command->version;
    if (!flag)
        return false;
    if (equals)
        say(l, true, "--%s: takes no value", name);
    *flag = true;
    return true;
}

static void read_argument(struct loader *l, struct arguments *a)
{
    const char *word = a->words[a->next++] + 2;
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    char name[NAME_SHOWN_BYTES + 1];
    if (len > NAME_SHOWN_BYTES)
        len = NAME_SHOWN_BYTES; /* too long to be known; enough to be named */
    memcpy(name, word, len);
    name[len] = '\0';

    if (read_command_word(l, a, name, equals))
        return;
    char where[NAME_SHOWN_BYTES + 3];
    snprintf(where, sizeof(where), "--%s", name);
    int id = options_find(name);
    int negated = id < 0 && !strncmp(name, "no-", 3) ? options_find(name + 3) : -1;
    if (negated >= 0 && options_is_switch((enum option_id)negated)) {
        if (equals)
            say(l, true, "%s: takes no value", where);
        set_value(l, (enum option_id)negated, SOURCE_COMMAND_LINE, 0, where, NULL, "no");
    } else if (id < 0)
        say_unknown(l, true, "", where, name);
    else if (options_is_switch((enum option_id)id))
        set_value(l, (enum option_id)id, SOURCE_COMMAND_LINE, 0, where, NULL,
                  equals ? equals + 1 : "yes");
    else {
        const char *value = take_value(l, a, name, equals);
        if (value)
            set_value(l, (enum option_id)id, SOURCE_COMMAND_LINE, 0, where, NULL, value);
    }
}

static void add_rest(struct loader *l, const char *word)
{
    if (text_list_add(&l->command->rest, word, strlen(word)) < 0)
        l->no_memory = true;
}

static void read_command_line(struct loader *l, int argc, char **argv, bool stop_at_word)
{
    struct arguments a = {argc, argv, 1};
    while (a.next < argc) {
        const char *word = argv[a.next];
        if (word[0] != '-' || !word[1]) {
            if (stop_at_word)
                break;
            add_rest(l, word);
            a.next++;
        } else if (!strcmp(word, "--")) {
            a.next++;
            break;
        } else if (!strncmp(word, "--", 2))
            read_argument(l, &a);
        else {
            a.next++;
            if (!strcmp(word, "-h"))
                l->command->help = true;
            else /* its value may follow in the same word, so only the letter is shown */
                say(l, true, "unknown option -%c (options are written --NAME)",
                    word[1] > ' ' && word[1] < 0x7F ? word[1] : '?');
        }
    }
    while (a.next < argc)
        add_rest(l, argv[a.next++]);
}

/* ---- environment ---- */

#define ENVIRONMENT_PREFIX "BELFRY_"

/* "PING_INTERVAL" -> "ping-interval"; false when it cannot be an option's. */
static bool environment_name(const char *from, size_t len, char *to, size_t cap)
{
    if (!len || len >= cap)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = from[i];
        to[i] = c == '_' ? '-' : c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        if (c >= 'a' && c <= 'z')
            return false;
    }
    to[len] = '\0';
    return true;
}

static void read_environment(struct loader *l, char **environment)
{
    size_t prefix = strlen(ENVIRONMENT_PREFIX);
    for (; environment && *environment; environment++) {
        const char *entry = *environment, *equals = strchr(entry, '=');
        if (!equals || strncmp(entry, ENVIRONMENT_PREFIX, prefix))
            continue;
        char where[NAME_SHOWN_BYTES + 1], name[NAME_SHOWN_BYTES + 1];
        size_t len = (size_t)(equals - entry);
        if (len >= sizeof(where))
            len = sizeof(where) - 1; /* too long to be known; enough to be named */
        memcpy(where, entry, len);
        where[len] = '\0';
        if (!strcmp(where, "BELFRY_CONFIG")) {
            if (!l->config && equals[1])
                l->config = equals + 1;
            continue;
        }
        int id = -1;
        if (environment_name(entry + prefix, len - prefix, name, sizeof(name)))
            id = options_find(name);
        else
            name[0] = '\0';
        if (id < 0)
            say_unknown(l, false, "environment", where, name);
        else
            set_value(l, (enum option_id)id, SOURCE_ENVIRONMENT, 0, where, NULL, equals + 1);
    }
}

/* ---- file ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Ends at the closing quote; only blanks and a comment may follow. NULL, or what is wrong. */
static const char *read_quoted(char *p, char **value)
{
    char *out = *value = p;
    for (; *p != '"'; p++) {
        if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
            p++;
        if (!*p)
            return "the closing \" is missing";
        *out++ = *p;
    }
    p++;
    if (*p && !is_blank(*p))
        return "something follows the closing \"";
    while (is_blank(*p))
        p++;
    if (*p && *p != '#')
        return "something follows the closing \"";
    *out = '\0';
    return NULL;
}

/* The value in what follows the equals sign, changed in place. NULL, or what is wrong. */
static const char *read_file_value(char *p, char **value)
{
    while (is_blank(*p))
        p++;
    if (*p == '"')
        return read_quoted(p + 1, value);
    *value = p;
    char *end = p;
    for (; *p && !(*p == '#' && (p == *value || is_blank(p[-1]))); p++)
        if (!is_blank(*p))
            end = p + 1;
    *end = '\0';
    return NULL;
}

static bool is_name(const char *name)
{
    return *name && name[strspn(name, "abcdefghijklmnopqrstuvwxyz"
                                      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")] == '\0';
}

/* One line, without its end, writable. */
static void read_line(struct loader *l, const char *file, int number, char *line)
{
    char where[300];
    snprintf(where, sizeof(where), "%.280s:%d", file, number);
    while (is_blank(*line))
        line++;
    if (!*line || *line == '#')
        return;
    char *equals = strchr(line, '='), *end = equals;
    while (end && end > line && is_blank(end[-1]))
        end--;
    if (end)
        *end = '\0';
    if (!equals || !is_name(line)) { /* not shown: it may be a secret that slipped off its name */
        say(l, true, "%s: expected a line such as \"name = value\"", where);
        return;
    }
    int id = options_find(line);
    if (id < 0) {
        say_unknown(l, true, where, line, line);
        return;
    }
    char *value;
    const char *wrong = read_file_value(equals + 1, &value);
    if (wrong) {
        say(l, true, "%s: %s: %s", where, line, wrong);
        return;
    }
    if (options_table[id].kind != OPTION_LIST && l->o->source[id] == SOURCE_FILE)
        say(l, false, "%s: %s: given before, in line %d; this one counts", where, line,
            l->o->line[id]);
    set_value(l, (enum option_id)id, SOURCE_FILE, number, where, line, value);
}

/* text is NUL-terminated behind len. */
static void read_lines(struct loader *l, const char *file, char *text, size_t len)
{
    char *p = text, *end = text + len;
    if (len >= 3 && !memcmp(p, "\xEF\xBB\xBF", 3))
        p += 3; /* the byte order mark some editors write */
    for (int number = 1; p < end; number++) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop)
            stop = end;
        size_t used = (size_t)(stop - p);
        if (used && p[used - 1] == '\r')
            used--;
        if (memchr(p, '\0', used))
            say(l, true, "%.280s:%d: holds a NUL byte", file, number);
        else if (used > LINE_MAX_BYTES)
            say(l, true, "%.280s:%d: longer than %d bytes", file, number, LINE_MAX_BYTES);
        else {
            p[used] = '\0';
            read_line(l, file, number, p);
        }
        p = stop + 1;
    }
}

/* As read, but with an end: a pipe into which nobody writes must not hold up a master that reloads.
 * (Such a pipe is at its end for read, but not for poll.) */
static ssize_t read_until(int fd, char *to, size_t cap, int64_t deadline_ms)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left = deadline_ms - clock_mono_ms();
        int count = poll(&ready, 1, left > 0 ? (int)left : 0);
        ssize_t n = count > 0 ? read(fd, to, cap) : count;
        if (count == 0)
            errno = ETIMEDOUT;
        if (count > 0 && n >= 0)
            return n;
        if (errno != EINTR && (errno != EAGAIN || left <= 0))
            return -1;
    }
}

/* Reads all of fd. Length, -EFBIG or another negative errno; *out (given) has a NUL behind it. */
static ssize_t read_all(int fd, char **out)
{
    char *text = malloc(FILE_MAX_BYTES + 2);
    if (!text)
        return -ENOMEM;
    size_t len = 0;
    int64_t deadline_ms = clock_mono_ms() + FILE_WAIT_MS;
    for (;;) {
        ssize_t n = read_until(fd, text + len, FILE_MAX_BYTES + 1 - len, deadline_ms);
        if (n < 0 || len + (size_t)n > FILE_MAX_BYTES) {
            int rc = n < 0 ? -errno : -EFBIG;
            free(text);
            return rc;
        }
        len += (size_t)n;
        if (!n)
            break;
    }
    text[len] = '\0';
    *out = text;
    return (ssize_t)len;
}

static void read_file(struct loader *l)
{
    const char *path = l->config ? l->config : DEFAULT_FILE;
    struct text_buf shown = {0};
    char *text = NULL;
    text_add_escaped(&shown, path, strlen(path), 250);
    l->o->file = strdup("");
    ssize_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (shown.failed || !l->o->file) {
        l->no_memory = true;
        goto out;
    }
    if (fd < 0) {
        if (l->config || (errno != ENOENT && errno != ENOTDIR))
            say(l, true, "%s: cannot be read: %s", shown.data, strerror(errno));
        goto out;
    }
    len = read_all(fd, &text);
    if (len == -EFBIG)
        say(l, true, "%s: larger than 1M", shown.data);
    else if (len < 0)
        say(l, true, "%s: cannot be read: %s", shown.data, strerror((int)-len));
    else {
        free(l->o->file);
        l->o->file = strdup(path);
        l->no_memory = l->no_memory || !l->o->file;
        read_lines(l, shown.data, text, (size_t)len);
    }
out:
    if (fd >= 0)
        close(fd);
    if (text)
        explicit_bzero(text, (size_t)len);
    free(text);
    text_buf_free(&shown);
}

/* ---- defaults ---- */

static void set_default(struct loader *l, enum option_id id, enum option_source source,
                        const char *value)
{
    set_value(l, id, source, 0, "default", options_table[id].name, value);
}

static void set_profile(struct loader *l)
{
    /* The application's hook never comes back after a clean close, and knows its types in lower
     * case only. */
    if (l->o->profile == PROFILE_FINANCE_TRACKER) {
        set_default(l, OPT_event_case, SOURCE_PROFILE, "lower");
        set_default(l, OPT_restart_close, SOURCE_PROFILE, "drop");
    }
    if (l->o->dev == CHOICE_YES) {
        set_default(l, OPT_redis_url, SOURCE_PROFILE, "embedded");
        set_default(l, OPT_listen, SOURCE_PROFILE, "127.0.0.1:8000");
    }
}

int options_load(int argc, char **argv, char **environment, bool stop_at_word,
                 struct options_command *command, options_report_fn *report, void *report_data,
                 struct options **out)
{
    struct options_command unused = {0};
    struct loader l = {.command = command ? command : &unused,
                       .report = report,
                       .report_data = report_data};
    bool is_tolerant = l.command->is_tolerant;
    *l.command = (struct options_command){.is_tolerant = is_tolerant};
    l.o = calloc(1, sizeof(*l.o));
    if (!l.o) {
        report(report_data, true, "out of memory");
        return -EINVAL;
    }
    for (int id = 0; id < OPTIONS; id++)
        set_default(&l, (enum option_id)id, SOURCE_DEFAULT, options_table[id].def);
    read_command_line(&l, argc, argv, stop_at_word);
    /* Who asks for help gets it, whatever the environment and the file say. */
    if (!l.command->help && !l.command->version) {
        read_environment(&l, environment);
        int outside_file = l.errors;
        read_file(&l);
        if (is_tolerant)
            l.errors = outside_file;
    } else
        l.o->file = strdup("");
    set_profile(&l);
    if (l.no_memory || !l.o->file)
        say(&l, true, "out of memory");
    if (command == NULL)
        options_command_free(&unused);
    if (l.no_memory || l.errors) {
        options_free(l.o);
        return -EINVAL;
    }
    *out = l.o;
    return 0;
}

/* ---- hiding secrets ---- */

static void scrub(char *url)
{
    size_t from, len;
    options_credentials(url, &from, &len);
    memset(url + from, '*', len);
}

void options_scrub_argv(int argc, char **argv)
{
    static const char name[] = "--redis-url";
    size_t len = sizeof(name) - 1;
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (strncmp(argv[i], name, len))
            continue;
        if (argv[i][len] == '=')
            scrub(argv[i] + len + 1);
        else if (!argv[i][len] && i + 1 < argc)
            scrub(argv[++i]);
    }
}

void options_where(const struct options *o, enum option_id id, struct text_buf *out)
{
    const char *name = options_table[id].name;
    switch (o->source[id]) {
    case SOURCE_COMMAND_LINE:
        text_addf(out, "--%s: ", name);
        return;
    case SOURCE_ENVIRONMENT:
        text_adds(out, ENVIRONMENT_PREFIX);
        for (; *name; name++)
            text_addc(out, *name == '-' ? '_' : *name >= 'a' && *name <= 'z'
                                                  ? (char)(*name - 'a' + 'A')
                                                  : *name);
        text_adds(out, ": ");
        return;
    case SOURCE_FILE:
        text_add_escaped(out, o->file, strlen(o->file), 250);
        text_addf(out, ":%d: %s: ", o->line[id], name);
        return;
    case SOURCE_PROFILE:
    case SOURCE_DEFAULT:
        break;
    }
    text_addf(out, "%s: ", name);
}

void options_locate(const struct options *o, const char *text, struct text_buf *out)
{
    char name[OPTIONS_NAME_BYTES];
    size_t len = strcspn(text, ":");
    int id = -1;
    if (len < sizeof(name) && strncmp(text + len, ": ", 2) == 0) {
        memcpy(name, text, len);
        name[len] = '\0';
        id = options_find(name);
    }
    if (id >= 0)
        options_where(o, (enum option_id)id, out);
    text_adds(out, id >= 0 ? text + len + 2 : text);
}
