/*
 * ctl_args.c - belfryctl's command line: the table of subcommands, whose option is whose, help.
 */
#include "config.h"

#include "src/ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/keys.h"
#include "src/ctl_reply.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "0"
#endif

#define JSON_OPTION {"json", NULL, "Print JSON instead of text.", false}

const struct ctl_command ctl_commands[] = {
    {"token", "", 0, 0, "Print a token for a user, signed with the configured secret.",
     "Needs jwt-secret-file, or an oct key in jwt-jwks-file, and one of HS256, HS384,\n"
     "HS512 among jwt-algorithms.\n"
     "The token stands alone on stdout: TOKEN=$(belfryctl token --user alice)\n",
     ctl_token,
     {{"user", "ID", "Whom the token is for; required.", false},
      {"admin", NULL, "Make the bearer an administrator.", false},
      {"ttl", "TIME", "How long it is good (1h).", false},
      {"jti", "ID", "Give it an id, by which it can be revoked.", false},
      {"kid", "KID", "Sign with this key of jwt-jwks-file instead of the first.", false}}},
    {"emit", "USER TYPE [JSON|-]", 2, 3, "Send an event to every device of a user.",
     "JSON is the payload, one object; - reads it from stdin. It is checked against the\n"
     "event table (belfryctl events). Without JSON an empty object is sent, if the type\n"
     "needs no field.\n",
     ctl_emit,
     {{"no-store", NULL, "Publish only: devices that are away miss it.", false},
      {"no-check", NULL, "Do not check the payload's fields.", false},
      {"sample", NULL, "Send a plausible payload made up for the type.", false},
      JSON_OPTION}},
    {"broadcast", "TYPE [JSON|-]", 1, 2, "Send an event to every connected device.",
     "Broadcasts are not stored: devices that are away miss them.\n",
     ctl_broadcast,
     {{"priority", "P", "Set the payload's priority: low, medium, high, critical.", false},
      {"no-check", NULL, "Do not check the payload's fields.", false},
      {"sample", NULL, "Send a plausible payload made up for the type.", false},
      JSON_OPTION}},
    {"listen", "", 0, 0, "Connect as a device and print what arrives, one message a line.",
     "One of --user, --token, --token-file is needed. Without --url the first listen address\n"
     "of the configuration is used. Messages go to stdout, everything else to stderr. Exits\n"
     "1 when the server closes, 3 when --timeout is over.\n",
     ctl_listen,
     {{"user", "ID", "Make a token for this user with the configured secret.", false},
      {"token", "TOKEN", "Use this token (process lists show it until it was read).", true},
      {"token-file", "FILE", "Read the token from FILE; - is stdin.", false},
      {"url", "URL", "ws://HOST:PORT/ws, wss://..., ws+unix:///SOCKET:/ws.", false},
      {"ca-file", "FILE", "Certificates (PEM) to trust for wss instead of the system's.", false},
      {"last-id", "ID", "Resume after this message.", false},
      {"types", "TYPE,...", "Receive these types only.", false},
      {"count", "N", "Exit 0 after N messages; FULL_SYNC and replies do not count.", false},
      {"timeout", "TIME", "Exit 3 when not done by then.", false},
      {"reconnect", NULL, "Come back after a lost connection and resume.", false},
      {"quiet", NULL, "Say nothing about connections.", false}}},
    {"history", "USER", 1, 1, "Show a user's stored messages, newest first.",
     "",
     ctl_history,
     {{"limit", "N", "At most N of them (all).", false},
      {"json", NULL, "Print the entries as they are stored, one a line.", false}}},
    {"explain", "USER ID", 2, 2, "Tell what happened to a message of a user.",
     "Where it is stored, which workers saw it live, and for each device when it was sent and\n"
     "whether TCP acknowledged it, or why it was not. Asks Redis, the running server\n"
     "(control-socket), and through both the other servers on the same Redis. How far back it\n"
     "reaches is the option trace-size. Times are UTC. Exits 1 for an id that nobody knows.\n",
     ctl_explain,
     {JSON_OPTION,
      {"timeout", "TIME", "Wait so long for workers and instances to answer (3s).", false}}},
    {"events", "[TYPE]", 0, 1, "Show the event table: types, what is stored, payload fields.",
     "",
     ctl_events,
     {{"names", NULL, "Print the types' names only.", false},
      {"json", NULL, "Print one JSON object a line.", false}}},
    {"show", "[ID]", 0, 1, "Show the state of one connection, or of a user's.",
     "ID is what FULL_SYNC and the log call it. Connections of this instance only. Exits 1 when\n"
     "there is none.\n",
     ctl_show,
     {{"user", "ID", "Show this user's connections instead.", false},
      {"json", NULL, "Print one JSON object a line.", false},
      {"timeout", "TIME", "Wait so long for workers and instances to answer (3s).", false}}},
    {"kick", "USER", 1, 1, "Close all connections of a user, on every instance.",
     "They are closed with 4003, which tells a client to stay away; but the user's tokens are\n"
     "as good as before. Exits 0 also when the user was not connected, and 1 when an instance on\n"
     "the same Redis could not be asked or did not answer.\n",
     ctl_kick,
     {JSON_OPTION,
      {"timeout", "TIME", "Wait so long for workers and instances to answer (3s).", false}}},
    {"revoke", "JTI", 1, 1, "Revoke a token and close its connections, on every instance.",
     "JTI is the token's jti claim. Writes denylist-key to Redis, so that the token is not\n"
     "accepted any more, and has its connections closed with 4003. Exits 1 when an instance on\n"
     "the same Redis could not be asked or did not answer: it looks within denylist-interval.\n",
     ctl_revoke,
     {{"ttl", "TIME", "How long it stays revoked (30d); not less than the token is good.", false},
      JSON_OPTION,
      {"timeout", "TIME", "Wait so long for workers and instances to answer (3s).", false}}},
    {"status", "", 0, 0, "Show what the running server says about itself.",
     "Asks the control socket (control-socket). Rates are those of the last five seconds.\n",
     ctl_status,
     {JSON_OPTION,
      {"timeout", "TIME", "Exit 3 without an answer by then (5s).", false}}},
    {"top", "", 0, 0, "Show the workers, what they do and what they need, again and again.",
     "Keys: r, c, m sort by messages a second, connections, memory; q quits. Without a terminal\n"
     "the screens follow each other as text.\n",
     ctl_top,
     {{"interval", "TIME", "Time between two screens (1s).", false},
      {"sort", "KEY", "rate, connections or memory (rate).", false},
      {"count", "N", "End after N screens.", false},
      {"json", NULL, "Print one JSON object a line.", false},
      {"timeout", "TIME", "Exit 3 without an answer by then (5s).", false}}},
    {"reload", "", 0, 0, "Make the running server read its configuration again.",
     "As the signal HUP does, but waits for the outcome and prints it. Exits 1 when refused.\n",
     ctl_reload,
     {JSON_OPTION,
      {"timeout", "TIME", "Exit 3 without an answer by then (60s).", false}}},
    {"drain", "", 0, 0, "Stop the running server gracefully, over drain-time.",
     "As the signal QUIT does.\n",
     ctl_drain,
     {JSON_OPTION,
      {"timeout", "TIME", "Exit 3 without an answer by then (5s).", false}}},
    {"stop", "", 0, 0, "Stop the running server at once.",
     "As the signal TERM does.\n",
     ctl_stop,
     {JSON_OPTION,
      {"timeout", "TIME", "Exit 3 without an answer by then (5s).", false}}},
    {"help", "[SUBCOMMAND]", 0, 1, "Show help about a subcommand.",
     "",
     ctl_help,
     {{NULL, NULL, NULL, false}}},
};
const size_t ctl_command_count = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

void ctl_say(const char *format, ...)
{
    char line[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof(line), format, ap);
    va_end(ap);
    text_tame(line);
    fprintf(stderr, "belfryctl: %s\n", line);
}

/* What SIGPIPE does to us when it is stdout's: see ctl_main. */
static void (*broken_pipe)(int) = SIG_DFL;

static void output_failed(void)
{
    if (errno == EPIPE && broken_pipe == SIG_DFL) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE); /* nobody reads any more: we end as other programs in a pipe do */
    }
    ctl_say("stdout: %s", strerror(errno));
}

int ctl_print(struct text_buf *b)
{
    int result = CTL_DONE;
    if (b->failed) {
        ctl_say("out of memory");
        result = CTL_FAILED;
    } else if (fwrite(b->data ? b->data : "", 1, b->len, stdout) != b->len || fflush(stdout) != 0) {
        output_failed();
        result = CTL_FAILED;
    }
    text_buf_free(b);
    return result;
}

int ctl_print_line(const char *bytes, size_t len)
{
    struct text_buf line = {0};
    text_add_line(&line, bytes, len);
    return ctl_print(&line) == CTL_DONE ? 0 : -EIO;
}

int ctl_read_input(const char *what, const char *path, size_t max_bytes, struct text_buf *out)
{
    int result = 0;
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "re");
    if (!f) {
        result = -errno;
        ctl_say("%s: %s: %s", what, path, strerror(errno));
        return result;
    }
    char chunk[8192];
    size_t n;
    while (result == 0 && (n = fread(chunk, 1, sizeof(chunk), f)) > 0) {
        text_add(out, chunk, n);
        if (out->len > max_bytes)
            result = -EFBIG;
    }
    if (result == 0 && ferror(f))
        result = -EIO;
    if (result == 0 && out->failed)
        result = -ENOMEM;
    if (result == -EFBIG)
        ctl_say("%s: %s: longer than %zu bytes", what, is_stdin ? "stdin" : path, max_bytes);
    else if (result != 0)
        ctl_say("%s: %s: %s", what, is_stdin ? "stdin" : path, strerror(-result));
    if (!is_stdin)
        fclose(f);
    return result;
}

static int find_own(const struct ctl_command *cmd, const char *name, size_t len)
{
    for (int i = 0; i < CTL_MAX_OPTIONS && cmd->options[i].name; i++)
        if (strlen(cmd->options[i].name) == len && memcmp(cmd->options[i].name, name, len) == 0)
            return i;
    return -1;
}

const char *ctl_value(const struct ctl *c, const char *name)
{
    int i = find_own(c->command, name, strlen(name));
    return i < 0 ? NULL : c->values[i];
}

bool ctl_flag(const struct ctl *c, const char *name)
{
    return ctl_value(c, name) != NULL;
}

int ctl_time(const struct ctl *c, const char *name, int64_t fallback_ms, int64_t *out_ms)
{
    const char *text = ctl_value(c, name);
    *out_ms = fallback_ms;
    if (!text)
        return 0;
    if (text_parse_time_ms(text, out_ms) == 0 && *out_ms > 0)
        return 0;
    ctl_say("--%s=%s: not a time above zero, such as 30s, 5m, 1h30m", name, text);
    return -EINVAL;
}

int ctl_number(const struct ctl *c, const char *name, int64_t min, int64_t max, int64_t fallback,
               int64_t *out)
{
    const char *text = ctl_value(c, name);
    *out = fallback;
    if (!text)
        return 0;
    if (text_parse_count(text, out) == 0 && *out >= min && *out <= max)
        return 0;
    ctl_say("--%s=%s: not a number from %lld to %lld", name, text, (long long)min, (long long)max);
    return -EINVAL;
}

int ctl_check_user(const char *user_id)
{
    if (keys_is_user_id(user_id, strlen(user_id)))
        return 0;
    ctl_say("user \"%s\": a user id has 1 to %d bytes of UTF-8 without control characters", user_id,
            KEYS_USER_ID_MAX_BYTES);
    return -EINVAL;
}

static void usage_line(const struct ctl_command *cmd, struct text_buf *b)
{
    text_addf(b, "belfryctl [--config FILE] [--OPTION=X ...] %s%s%s%s", cmd->name,
              *cmd->words ? " " : "", cmd->words, cmd->options[0].name ? " [options]" : "");
}

static void help_about(const struct ctl_command *cmd, struct text_buf *b)
{
    text_adds(b, "Usage: ");
    usage_line(cmd, b);
    text_addf(b, "\n\n%s\n%s", cmd->summary, cmd->detail);
    for (int i = 0; i < CTL_MAX_OPTIONS && cmd->options[i].name; i++) {
        char left[64];
        snprintf(left, sizeof(left), "--%s%s%s", cmd->options[i].name,
                 cmd->options[i].value ? "=" : "",
                 cmd->options[i].value ? cmd->options[i].value : "");
        text_addf(b, "%s  %-20s %s\n", i == 0 ? "\n" : "", left, cmd->options[i].help);
    }
    text_adds(b, "\nbelfryctl reads the server's configuration and takes all of its options; see\n"
                 "belfry.conf(5), belfryctl(1).\n");
}

static void help_overview(struct text_buf *b)
{
    text_adds(b, "Usage: belfryctl [--config FILE] [--OPTION=X ...] SUBCOMMAND ...\n\n");
    for (size_t i = 0; i < ctl_command_count; i++)
        text_addf(b, "  %-10s %s\n", ctl_commands[i].name, ctl_commands[i].summary);
    text_adds(b, "\nbelfryctl help SUBCOMMAND tells more. The server's configuration file is read\n"
                 "(--config, BELFRY_CONFIG), and all of its options are taken, before or after\n"
                 "the subcommand. Exit status: 0 done, 1 failed, 2 usage, 3 timed out.\n");
}

static const struct ctl_command *find_command(const char *name)
{
    size_t best = 3;
    const char *near = NULL;
    for (size_t i = 0; i < ctl_command_count; i++) {
        size_t d = text_distance(name, ctl_commands[i].name);
        if (d == 0)
            return &ctl_commands[i];
        if (d < best) {
            best = d;
            near = ctl_commands[i].name;
        }
    }
    if (near)
        ctl_say("%s: no such subcommand; did you mean %s?", name, near);
    else
        ctl_say("%s: no such subcommand; belfryctl help lists them", name);
    return NULL;
}

int ctl_help(struct ctl *c)
{
    struct text_buf b = {0};
    if (c->words.count == 0) {
        help_overview(&b);
    } else {
        const struct ctl_command *cmd = find_command(c->words.items[0]);
        if (!cmd)
            return CTL_USAGE;
        help_about(cmd, &b);
    }
    return ctl_print(&b);
}

/* Is there a server option of this name ("redis-url", "no-dev"), and does it take the next word? */
static bool server_option(const char *name, size_t len, bool *takes_word)
{
    *takes_word = true;
    if (len == 6 && memcmp(name, "config", 6) == 0)
        return true;
    bool negated = len > 3 && memcmp(name, "no-", 3) == 0;
    for (int i = 0; i < OPTIONS; i++) {
        const struct option_row *row = &options_table[i];
        bool is_switch = row->kind == OPTION_CHOICE &&
                         (strcmp(row->spec, "off|on") == 0 || strcmp(row->spec, "no|yes") == 0);
        if (strlen(row->name) == len && memcmp(row->name, name, len) == 0) {
            *takes_word = !is_switch;
            return true;
        }
        if (negated && is_switch && strlen(row->name) == len - 3 &&
            memcmp(row->name, name + 3, len - 3) == 0) {
            *takes_word = false;
            return true;
        }
    }
    return false;
}

/* A file with errors must not keep these from the server, which may be running on what stood there
 * before. */
static bool only_asks_server(const struct ctl_command *cmd)
{
    return cmd->run == ctl_status || cmd->run == ctl_reload || cmd->run == ctl_drain ||
           cmd->run == ctl_stop;
}

/* The command line taken apart. Strings are argv's until scrubbed; values are copied before. */
struct line {
    int argc;
    char **argv;
    int at;
    char **server; /* argv for options_load; [0] is the program */
    int server_count;
    bool help;
    bool version;
    bool json;
};

static int unknown_option(const struct ctl_command *cmd, const char *name, size_t len)
{
    char text[64];
    snprintf(text, sizeof(text), "%.*s", (int)(len < 60 ? len : 60), name);
    const char *near = options_nearest(text);
    size_t best = near ? text_distance(text, near) : 4;
    for (int i = 0; cmd && i < CTL_MAX_OPTIONS && cmd->options[i].name; i++) {
        size_t d = text_distance(text, cmd->options[i].name);
        if (d <= best) {
            best = d;
            near = cmd->options[i].name;
        }
    }
    ctl_say("--%s: no option of %s%s or of the server%s%s%s", text, cmd ? cmd->name : "belfryctl",
            cmd ? "" : " before the subcommand", near ? "; did you mean --" : "", near ? near : "",
            near ? "?" : "");
    return -EINVAL;
}

static int take_server_option(struct line *l, const struct ctl_command *cmd, const char *name,
                              size_t len, bool has_value)
{
    bool takes_word;
    if (!server_option(name, len, &takes_word))
        return unknown_option(cmd, name, len);
    l->server[l->server_count++] = l->argv[l->at];
    if (!has_value && takes_word) {
        if (l->at + 1 >= l->argc) {
            ctl_say("--%.*s: a value is missing", (int)len, name);
            return -EINVAL;
        }
        l->server[l->server_count++] = l->argv[++l->at];
    }
    return 0;
}

static int take_own_option(struct line *l, struct ctl *c, int index, char *value)
{
    const struct ctl_option *o = &c->command->options[index];
    if (!o->value && value) {
        ctl_say("--%s takes no value", o->name);
        return -EINVAL;
    }
    if (o->value && !value) {
        if (l->at + 1 >= l->argc) {
            ctl_say("--%s: a value is missing (%s)", o->name, o->value);
            return -EINVAL;
        }
        value = l->argv[++l->at];
    }
    if (text_list_add(&c->copies, value ? value : "", value ? strlen(value) : 0) != 0) {
        ctl_say("out of memory");
        return -ENOMEM;
    }
    c->values[index] = c->copies.items[c->copies.count - 1];
    if (o->is_secret && value)
        memset(value, 'x', strlen(value));
    return 0;
}

static int take_option(struct line *l, struct ctl *c)
{
    char *word = l->argv[l->at];
    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
        l->help = true;
        return 0;
    }
    if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0) {
        l->version = true;
        return 0;
    }
    if (strncmp(word, "--", 2) != 0) {
        ctl_say("%s: options begin with two dashes", word);
        return -EINVAL;
    }
    const char *name = word + 2;
    char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    if (!c->command && strcmp(word, "--json") == 0) {
        l->json = true;
        return 0;
    }
    int own = c->command ? find_own(c->command, name, len) : -1;
    if (own >= 0)
        return take_own_option(l, c, own, equals ? equals + 1 : NULL);
    return take_server_option(l, c->command, name, len, equals != NULL);
}

static int take_word(struct ctl *c, const char *word)
{
    if (!c->command) {
        c->command = find_command(word);
        return c->command ? 0 : -EINVAL;
    }
    if (text_list_add(&c->words, word, strlen(word)) != 0) {
        ctl_say("out of memory");
        return -ENOMEM;
    }
    return 0;
}

static int take_line(struct line *l, struct ctl *c)
{
    bool only_words = false;
    for (l->at = 1; l->at < l->argc; l->at++) {
        char *word = l->argv[l->at];
        int result;
        if (!only_words && strcmp(word, "--") == 0) {
            only_words = true;
            continue;
        }
        if (!only_words && word[0] == '-' && word[1] != '\0')
            result = take_option(l, c);
        else
            result = take_word(c, word);
        if (result != 0)
            return result;
    }
    if (l->json && c->command) {
        int own = find_own(c->command, "json", 4);
        if (own < 0)
            return unknown_option(c->command, "json", 4);
        c->values[own] = "";
    }
    return 0;
}

static int check_words(const struct ctl *c)
{
    const struct ctl_command *cmd = c->command;
    if (c->words.count >= cmd->min_words && c->words.count <= cmd->max_words)
        return 0;
    struct text_buf b = {0};
    usage_line(cmd, &b);
    if (c->words.count > cmd->max_words)
        ctl_say("%s: \"%s\" is one word too many; usage: %s", cmd->name,
                c->words.items[cmd->max_words], b.data ? b.data : "");
    else
        ctl_say("%s: too few words; usage: %s", cmd->name, b.data ? b.data : "");
    text_buf_free(&b);
    return -EINVAL;
}

static void report(void *data, bool is_error, const char *line)
{
    (void)data;
    ctl_say("%s%s", is_error ? "" : "warning: ", line);
}

static int print_version(void)
{
    struct text_buf b = {0};
    text_addf(&b, "belfryctl %s\n", PACKAGE_VERSION);
    return ctl_print(&b);
}

static int run(struct line *l, struct ctl *c)
{
    if (take_line(l, c) != 0)
        return CTL_USAGE;
    if (l->version)
        return print_version();
    if (!c->command || l->help) {
        struct text_buf b = {0};
        if (c->command)
            help_about(c->command, &b);
        else
            help_overview(&b);
        if (l->help)
            return ctl_print(&b);
        fputs(b.data ? b.data : "", stderr);
        text_buf_free(&b);
        return CTL_USAGE;
    }
    if (check_words(c) != 0)
        return CTL_USAGE;
    if (c->command->run == ctl_help || c->command->run == ctl_events)
        return c->command->run(c);

    struct options_command ignored = {.is_tolerant = only_asks_server(c->command)};
    int result = options_load(l->server_count, l->server, environ, true, &ignored, report, NULL,
                              &c->options);
    options_command_free(&ignored);
    options_scrub_argv(l->argc, l->argv);
    if (result != 0)
        return CTL_USAGE;
    return c->command->run(c);
}

int ctl_main(int argc, char **argv)
{
    struct ctl c = {0};
    struct line l = {.argc = argc, .argv = argv};
    /* A connection that breaks is an error to be told: OpenSSL and hiredis write without
     * MSG_NOSIGNAL. */
    broken_pipe = signal(SIGPIPE, SIG_IGN);
    l.server = calloc((size_t)argc + 2, sizeof(*l.server));
    if (!l.server) {
        ctl_say("out of memory");
        return CTL_FAILED;
    }
    l.server[l.server_count++] = argc > 0 ? argv[0] : (char[]){"belfryctl"};
    int result = run(&l, &c);
    options_free(c.options);
    text_list_free(&c.words);
    text_list_free(&c.copies);
    free(l.server);
    return result;
}
