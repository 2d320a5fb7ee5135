/*
 * fuzz_reply.c - what the server answers to belfryctl on the control socket (src/ctl_control.c,
 * ctl_reply.c, ctl_status.c, ctl_top.c, ctl_conns.c, ctl_explain.c, shared/explanation.c,
 * verdict.c). The input is one byte, for the subcommand and whether it is to print JSON, and the
 * answer's bytes.
 *
 * Holds: what is printed for people is lines of text without control characters, whatever came;
 * what is printed as JSON is JSON.
 */
#include "config.h"

#include <sys/socket.h>

/* Instead of a server: a socket that holds the answer. */
static int play_connect(int fd, const struct sockaddr *address, unsigned len);
#define connect(fd, address, len) play_connect(fd, address, len)
#include "src/ctl_control.c"
#undef connect

#include <signal.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static struct text_span answer_bytes;
static int peer = -1; /* the server's end */

static int play_connect(int fd, const struct sockaddr *address, unsigned len)
{
    int fds[2];
    (void)address, (void)len;
    if (peer >= 0)
        close(peer);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    if (answer_bytes.len)
        FUZZ_CHECK(send(fds[1], answer_bytes.ptr, answer_bytes.len, MSG_DONTWAIT) > 0);
    shutdown(fds[1], SHUT_WR);
    FUZZ_CHECK(dup2(fds[0], fd) == fd);
    close(fds[0]);
    peer = fds[1];
    return 0;
}

/* ---- subcommands ---- */

static const struct call {
    const char *name, *words, *option, *value;
} calls[] = {
    {"status", "", NULL, NULL}, {"top", "", "count", "1"},   {"show", "0123-1", NULL, NULL},
    {"show", "", "user", "u"},  {"kick", "u", NULL, NULL},   {"explain", "u,m1", NULL, NULL},
    {"reload", "", NULL, NULL}, {"drain", "", "timeout", "1s"},
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

static struct options opt;

static void begin_process(void)
{
    static char path[] = "/played", url[] = "unix:///nonexistent/belfry-fuzz",
                channel[] = "ws:user:{user_id}", broadcast[] = "ws:broadcast",
                list[] = "notifications:{user_id}", snapshot[] = "ws:snapshot:{user_id}";
    opt.control_socket = path;
    opt.redis_url = url;
    opt.user_channel = channel;
    opt.broadcast_channel = broadcast;
    opt.notifications_key = list;
    opt.snapshot_key = snapshot;
    opt.redis_connect_timeout = opt.redis_command_timeout = 1000;
    setenv("NO_COLOR", "1", 1);
    setenv("TERM", "dumb", 1);
}

static void set_value(struct ctl *c, const char *name, const char *value)
{
    for (size_t i = 0; i < CTL_MAX_OPTIONS && c->command->options[i].name; i++)
        if (!strcmp(c->command->options[i].name, name))
            c->values[i] = value;
}

static int run(const struct call *call, bool is_json)
{
    struct ctl c = {.options = &opt};
    for (size_t i = 0; i < ctl_command_count; i++)
        if (!strcmp(ctl_commands[i].name, call->name))
            c.command = &ctl_commands[i];
    FUZZ_CHECK(c.command);
    FUZZ_CHECK(text_list_split(&c.words, call->words) == 0);
    if (call->option)
        set_value(&c, call->option, call->value);
    if (is_json)
        set_value(&c, "json", "");
    int result = c.command->run(&c);
    text_list_free(&c.words);
    return result;
}

/* ---- what was printed ---- */

static void check_text(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)text[i], next = (unsigned char)text[i + 1];
        FUZZ_CHECK((byte >= 0x20 && byte != 0x7f) || byte == '\n');
        FUZZ_CHECK(byte != 0xc2 || next < 0x80 || next >= 0xa0); /* U+0080 to U+009F */
    }
}

static void check_json(const struct call *call, const char *text, size_t len)
{
    if (!strcmp(call->name, "show")) /* an object for each, as they came */
        return;
    FUZZ_CHECK(len && json_scan_object(text, len, NULL, NULL) == JSON_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    FILE *out = stdout, *err = stderr;
    char *printed = NULL, *said = NULL;
    size_t printed_len = 0, said_len = 0;
    sigset_t signals;
    if (!opt.redis_url)
        begin_process();
    unsigned byte = fuzz_u8(&in);
    const struct call *call = &calls[byte % CALLS];
    bool is_json = byte / CALLS & 1;
    answer_bytes = fuzz_bytes(&in, in.left);
    sigprocmask(SIG_SETMASK, NULL, &signals); /* top blocks some */
    stdout = open_memstream(&printed, &printed_len);
    stderr = open_memstream(&said, &said_len);
    FUZZ_CHECK(stdout && stderr);
    int result = run(call, is_json);
    fclose(stdout);
    fclose(stderr);
    stdout = out;
    stderr = err;
    sigprocmask(SIG_SETMASK, &signals, NULL);
    check_text(said, said_len);
    if (!is_json)
        check_text(printed, printed_len);
    else if (result == CTL_DONE)
        check_json(call, printed, printed_len);
    free(printed);
    free(said);
    return 0;
}
