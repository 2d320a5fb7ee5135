/*
 * args.c - the command line of belfry-bench: the server's options, the mode, the run's options.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shared/clock.h"
#include "src/wsclient.h"
#include "tests/bench/bench.h"

extern char **environ;

#define FILES_KEPT 100 /* of a child's descriptors, for other things than connections */

static const char *const mode_names[] = {"idle", "broadcast", "unicast", "storm", "flow"};

static const char usage[] =
    "usage: belfry-bench [SERVER OPTIONS] MODE [OPTIONS]\n"
    "\n"
    "Server options are those of belfryd (--config=FILE, --jwt-secret-file=FILE,\n"
    "--redis-url=URL, --user-channel=TEMPLATE ...): from them it knows how to make tokens and\n"
    "where to publish.\n"
    "\n"
    "Modes:\n"
    "  idle       connect, hold, count what it costs\n"
    "  broadcast  messages to everybody\n"
    "  unicast    messages to users in random order\n"
    "  storm      all clients are dropped at once and come back with their last id\n"
    "  flow       stored, only published, and broadcast messages at a rate, until standard input\n"
    "             ends; each line there begins a phase of that name\n"
    "\n"
    "Options:\n"
    "  --url=URL           ws://ADDRESS:PORT[/PATH]; {token} and {user_id} are put in\n"
    "                      (default: ws://127.0.0.1:8000/ws?token={token})\n"
    "  --connections=N     clients (1000)\n"
    "  --users=N           users they belong to (as many)\n"
    "  --first-user=N      number of the first of them, for two at the same server (0)\n"
    "  --tokens=FILE       tokens made elsewhere, one a line, the first for user number 0\n"
    "  --connect-rate=N    connections begun in a second (as fast as they are taken)\n"
    "  --processes=N       that hold them (as the limit of open files asks for)\n"
    "  --size=BYTES        of a message (200)\n"
    "  --messages=N        measured (broadcast: 100, unicast: 20000)\n"
    "  --warmup=N          sent before (a tenth)\n"
    "  --window=N          messages in flight at most; 1 is a closed loop (1)\n"
    "  --rate=N            messages a second, whatever comes back; latency counts from when a\n"
    "                      message was due\n"
    "  --store             also LPUSH and LTRIM, as a producer whose messages may be resumed\n"
    "  --during=N          storm: messages published meanwhile (1000)\n"
    "  --beat=N            flow: broadcasts a second (4), besides --rate (200) to users\n"
    "  --return=HOW        flow: clients that are thrown out come back, with their last id\n"
    "                      (resume) or without (forget)\n"
    "  --return-within=MS  at once (0), or spread over this time\n"
    "  --protocol=NAME     subprotocol to ask for; of ws+meta.nchan the ids are understood\n"
    "  --seconds=N         idle: how long to hold (5)\n"
    "  --limit=SECONDS     to wait without any progress (20)\n"
    "  --pid=PID           the server's; repeatable; its children are found\n"
    "  --ready=WHEN        message: a client is live with its first message (default);\n"
    "                      open: with the 101\n"
    "  --hello=TEXT        text to send first\n"
    "  --publish-url=URL   POST messages there; {user_id} is put in (\"all\" in broadcast)\n"
    "  --centrifugo        PUBLISH in the form of Centrifugo's Redis broker\n"
    "  --name=TEXT         of the run, for the report\n"
    "  --json              one JSON object\n";

enum {
    ARG_URL = 256, ARG_CONNECTIONS, ARG_USERS, ARG_FIRST_USER, ARG_TOKENS, ARG_CONNECT_RATE,
    ARG_PROCESSES, ARG_SIZE, ARG_MESSAGES, ARG_WARMUP, ARG_WINDOW, ARG_RATE, ARG_STORE,
    ARG_DURING, ARG_SECONDS, ARG_LIMIT, ARG_PID, ARG_READY, ARG_HELLO, ARG_BEAT, ARG_RETURN,
    ARG_RETURN_WITHIN, ARG_PROTOCOL, ARG_PUBLISH_URL, ARG_CENTRIFUGO, ARG_NAME, ARG_JSON,
    ARG_HELP
};

static const struct option names[] = {
    {"url", required_argument, NULL, ARG_URL},
    {"connections", required_argument, NULL, ARG_CONNECTIONS},
    {"users", required_argument, NULL, ARG_USERS},
    {"first-user", required_argument, NULL, ARG_FIRST_USER},
    {"tokens", required_argument, NULL, ARG_TOKENS},
    {"connect-rate", required_argument, NULL, ARG_CONNECT_RATE},
    {"processes", required_argument, NULL, ARG_PROCESSES},
    {"size", required_argument, NULL, ARG_SIZE},
    {"messages", required_argument, NULL, ARG_MESSAGES},
    {"warmup", required_argument, NULL, ARG_WARMUP},
    {"window", required_argument, NULL, ARG_WINDOW},
    {"rate", required_argument, NULL, ARG_RATE},
    {"store", no_argument, NULL, ARG_STORE},
    {"during", required_argument, NULL, ARG_DURING},
    {"seconds", required_argument, NULL, ARG_SECONDS},
    {"limit", required_argument, NULL, ARG_LIMIT},
    {"pid", required_argument, NULL, ARG_PID},
    {"ready", required_argument, NULL, ARG_READY},
    {"hello", required_argument, NULL, ARG_HELLO},
    {"beat", required_argument, NULL, ARG_BEAT},
    {"return", required_argument, NULL, ARG_RETURN},
    {"return-within", required_argument, NULL, ARG_RETURN_WITHIN},
    {"protocol", required_argument, NULL, ARG_PROTOCOL},
    {"publish-url", required_argument, NULL, ARG_PUBLISH_URL},
    {"centrifugo", no_argument, NULL, ARG_CENTRIFUGO},
    {"name", required_argument, NULL, ARG_NAME},
    {"json", no_argument, NULL, ARG_JSON},
    {"help", no_argument, NULL, ARG_HELP},
    {NULL, 0, NULL, 0},
};

void bench_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("belfry-bench: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

static int take_number(const char *name, const char *text, uint32_t *out)
{
    int64_t value = 0;
    if (text_parse_count(text, &value) != 0 || value > 1000000000) {
        bench_say("--%s: a number is needed, not '%s'", name, text);
        return -EINVAL;
    }
    *out = (uint32_t)value;
    return 0;
}

static int take_url(struct bench *b, const char *url)
{
    struct wsclient_url parsed;
    const char *reason = "";
    if (wsclient_url_parse(url, &parsed, &reason) != 0 || parsed.is_tls || parsed.is_unix) {
        bench_say("--url: %s", reason[0] ? reason : "only ws:// with an IPv4 address");
        return -EINVAL;
    }
    snprintf(b->host, sizeof(b->host), "%s", parsed.host);
    b->port = parsed.port;
    const char *slash = strchr(url + strlen("ws://"), '/');
    b->path = slash ? slash : "/ws?token={token}";
    return 0;
}

static int take_pid(struct bench *b, const char *text)
{
    uint32_t pid = 0;
    if (b->pid_count == BENCH_PIDS_MAX || take_number("pid", text, &pid) != 0)
        return -EINVAL;
    b->pids[b->pid_count++] = (pid_t)pid;
    return 0;
}

static int take_tokens(struct bench *b, const char *path)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int result = 0;
    FILE *f = fopen(path, "r");
    if (!f) {
        bench_say("--tokens: %s: %s", path, strerror(errno));
        return -EINVAL;
    }
    while (!result && (len = getline(&line, &cap, f)) > 0)
        result = text_list_add(&b->tokens, line, (size_t)len - (line[len - 1] == '\n'));
    free(line);
    fclose(f);
    if (!b->tokens.count) {
        bench_say("--tokens: %s: there is none", path);
        result = -EINVAL;
    }
    return result;
}

static int take_option(struct bench *b, int which, const char *name)
{
    uint32_t *number = NULL;
    switch (which) {
    case ARG_URL: return take_url(b, optarg);
    case ARG_PID: return take_pid(b, optarg);
    case ARG_READY: b->is_open_ready = !strcmp(optarg, "open"); return 0;
    case ARG_TOKENS: return take_tokens(b, optarg);
    case ARG_HELLO: b->hello = optarg; return 0;
    case ARG_PUBLISH_URL: b->publish_url = optarg; return 0;
    case ARG_NAME: b->name = optarg; return 0;
    case ARG_STORE: b->is_stored = true; return 0;
    case ARG_RETURN:
        b->is_returning = true;
        b->is_forgetful = !strcmp(optarg, "forget");
        return 0;
    case ARG_PROTOCOL: b->protocol = optarg; return 0;
    case ARG_RETURN_WITHIN: number = &b->return_ms; break;
    case ARG_BEAT: number = &b->beat; break;
    case ARG_CENTRIFUGO: b->is_centrifugo = true; return 0;
    case ARG_JSON: b->is_json = true; return 0;
    case ARG_CONNECTIONS: number = &b->connections; break;
    case ARG_USERS: number = &b->users; break;
    case ARG_FIRST_USER: number = &b->first_user; break;
    case ARG_CONNECT_RATE: number = &b->connect_rate; break;
    case ARG_PROCESSES: number = &b->processes; break;
    case ARG_SIZE: number = &b->message_bytes; break;
    case ARG_MESSAGES: number = &b->messages; break;
    case ARG_WARMUP: number = &b->warmup; break;
    case ARG_WINDOW: number = &b->window; break;
    case ARG_RATE: number = &b->rate; break;
    case ARG_DURING: number = &b->during; break;
    case ARG_SECONDS: number = &b->hold_s; break;
    case ARG_LIMIT: number = &b->limit_s; break;
    default: return -EINVAL;
    }
    return take_number(name, optarg, number);
}

static int take_mode(struct bench *b, const char *word)
{
    for (size_t i = 0; i < sizeof(mode_names) / sizeof(*mode_names); i++)
        if (!strcmp(word, mode_names[i])) {
            b->mode = (enum bench_mode)i;
            b->mode_name = mode_names[i];
            return 0;
        }
    bench_say("%s: no such mode", word);
    return -EINVAL;
}

/* What was not given follows from the rest. */
static int complete(struct bench *b)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_max <= FILES_KEPT)
        return -EMFILE;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    uint32_t room = files.rlim_max > 1000000 ? 1000000 : (uint32_t)files.rlim_max - FILES_KEPT;
    if (!b->port && take_url(b, "ws://127.0.0.1:8000") != 0)
        return -EINVAL;
    if (!b->connections)
        b->connections = 1000;
    if (!b->users || b->users > b->connections)
        b->users = b->connections;
    if (!b->processes)
        b->processes = (b->connections + room - 1) / room;
    if (!b->messages)
        b->messages = b->mode == MODE_BROADCAST ? 100 : 20000;
    if (b->warmup == UINT32_MAX)
        b->warmup = (b->messages + 9) / 10;
    if (!b->window)
        b->window = 1;
    if (!b->rate && b->mode == MODE_FLOW)
        b->rate = 200;
    if (!b->beat)
        b->beat = 4;
    if (b->tokens.count && b->tokens.count < (size_t)b->first_user + b->users) {
        bench_say("--tokens: %zu of them are too few", b->tokens.count);
        return -EINVAL;
    }
    if (b->processes > BENCH_CROWDS_MAX || b->connections > 10000000) {
        bench_say("--processes: at most %d", BENCH_CROWDS_MAX);
        return -EINVAL;
    }
    b->run = (uint32_t)(clock_wall_ms() / 100 % 1000000000);
    return 0;
}

static void on_report(void *data, bool is_error, const char *line)
{
    (void)data;
    if (is_error)
        bench_say("%s", line);
}

static int take_rest(struct bench *b, char **words, size_t count)
{
    /* getopt_long wants a program's name first; the mode is in its place. */
    for (int which, index = 0; (which = getopt_long((int)count, words, "", names, &index)) != -1;) {
        if (which == ARG_HELP || which == '?')
            return -EINVAL;
        if (take_option(b, which, names[index].name) != 0)
            return -EINVAL;
    }
    if ((size_t)optind < count) {
        bench_say("%s: what is that?", words[optind]);
        return -EINVAL;
    }
    return 0;
}

int bench_args(int argc, char **argv, struct bench *b, bool *is_over)
{
    static struct options_command command; /* its words are borrowed by *b */
    *b = (struct bench){.message_bytes = 200, .hold_s = 5, .limit_s = 20, .during = 1000,
                        .warmup = UINT32_MAX};
    int result = options_load(argc, argv, environ, true, &command, on_report, NULL, &b->options);
    *is_over = command.help || (result == 0 && command.rest.count == 0);
    if (*is_over) {
        fputs(usage, stdout);
        return command.help ? BENCH_DONE : BENCH_USAGE;
    }
    if (result != 0 || take_mode(b, command.rest.items[0]) != 0 ||
        take_rest(b, command.rest.items, command.rest.count) != 0 || complete(b) != 0 ||
        keys_init(&b->keys, b->options->user_channel, b->options->broadcast_channel,
                  b->options->notifications_key, b->options->snapshot_key) != 0) {
        fputs("try: belfry-bench --help\n", stderr);
        return BENCH_USAGE;
    }
    return BENCH_DONE;
}

void bench_args_free(struct bench *b)
{
    text_list_free(&b->tokens);
    keys_fini(&b->keys);
    options_free(b->options);
}
