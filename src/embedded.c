#include "config.h"

#include "src/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "src/scratch.h"
#include "src/slots.h"
#include "src/unixsock.h"

#define DIRECTORY "redis"
#define POLL_S 0.02
#define LOG_NAME "redis.log"

struct embedded {
    struct ev_loop *loop;
    const struct privileges *workers;
    struct embedded_events events;
    void *data;
    char program[256];
    char directory[SCRATCH_PATH_BYTES + 16];
    char socket[SCRATCH_PATH_BYTES + 32];
    pid_t pid; /* 0: not running */
    struct ev_child child;
    struct ev_timer poll;    /* until it accepts */
    struct ev_timer restart; /* after it died */
    int64_t started_ms;
    bool is_up;
    bool was_up; /* once */
    uint32_t young_deaths;
};

void embedded_socket(const char *scratch, char *out, size_t cap)
{
    snprintf(out, cap, "%s/" DIRECTORY "/redis.sock", scratch);
}

static bool find_in_path(const char *name, char *out, size_t cap)
{
    const char *path = getenv("PATH");
    if (!path || !*path)
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        size_t len = strcspn(path, ":");
        int n = snprintf(out, cap, "%.*s/%s", (int)len, path, name);
        if (len && n > 0 && (size_t)n < cap && !access(out, X_OK))
            return true;
        path += len + (path[len] == ':');
    }
    return false;
}

/* ---- the child ---- */

static _Noreturn void run_server(const struct embedded *e, pid_t master)
{
    const char *const argv[] = {e->program, "--port", "0", "--unixsocket", e->socket,
                                "--unixsocketperm", "700", "--save", "", "--appendonly", "no",
                                "--daemonize", "no", "--supervised", "no", "--dir", e->directory,
                                NULL};
    struct sigaction act = {.sa_handler = SIG_DFL};
    for (int i = 1; i < NSIG; i++)
        sigaction(i, &act, NULL);
    setsid(); /* Ctrl-C is the master's to handle */
    /* SIGKILL: there is nothing to save, and nobody left to insist. */
    int error = privileges_drop(e->workers, master, SIGKILL);
    if (error)
        _exit(126);
    unsetenv("NOTIFY_SOCKET");
    int in = open("/dev/null", O_RDONLY);
    int log = -1;
    if (!chdir(e->directory))
        log = open(LOG_NAME, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (in < 0 || log < 0)
        _exit(126);
    dup2(in, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (in > STDERR_FILENO)
        close(in);
    if (log > STDERR_FILENO)
        close(log);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(e->program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

static int fork_server(struct embedded *e)
{
    pid_t master = getpid();
    sigset_t all, before;
    fflush(NULL);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    int error = errno;
    if (!pid)
        run_server(e, master);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return -error;
    e->pid = pid;
    return 0;
}

/* The last line the server said, for a log. */
static void last_words(const struct embedded *e, char *out, size_t cap)
{
    char path[sizeof(e->directory) + sizeof(LOG_NAME) + 1], text[1024];
    snprintf(path, sizeof(path), "%s/" LOG_NAME, e->directory);
    snprintf(out, cap, "(nothing)");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END);
    off_t from = size > (off_t)sizeof(text) - 1 ? size - ((off_t)sizeof(text) - 1) : 0;
    ssize_t n = pread(fd, text, sizeof(text) - 1, from);
    close(fd);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    if (n <= 0)
        return;
    text[n] = '\0';
    const char *line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    size_t len = strnlen(line, cap - 1);
    memcpy(out, line, len);
    out[len] = '\0';
}

/* ---- supervision ---- */

static void set_timer(struct embedded *e, struct ev_timer *timer, double after_s, double repeat_s)
{
    ev_timer_stop(e->loop, timer);
    ev_timer_set(timer, after_s, repeat_s);
    ev_timer_start(e->loop, timer);
}

static void start_later(struct embedded *e)
{
    bool was_young = clock_mono_ms() - e->started_ms < SLOTS_YOUNG_MS;
    e->young_deaths = was_young ? e->young_deaths + 1 : 0;
    int64_t wait_ms = slots_backoff_ms(e->young_deaths);
    log_notice("embedded-redis-restart", "in_ms", LOG_INT(wait_ms));
    set_timer(e, &e->restart, (double)wait_ms / 1e3, 0.0);
}

static int start_now(struct embedded *e)
{
    e->started_ms = clock_mono_ms();
    int error = fork_server(e);
    if (error)
        return error;
    log_info("embedded-redis-started", "pid", LOG_INT(e->pid), "program", e->program);
    ev_child_set(&e->child, e->pid, 0);
    ev_child_start(e->loop, &e->child);
    set_timer(e, &e->poll, POLL_S, POLL_S);
    return 0;
}

static void on_restart(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct embedded *e = timer->data;
    (void)loop;
    (void)events;
    int error = start_now(e);
    if (error) {
        log_warning("fork-failed", "program", e->program, "error", log_errno(error));
        start_later(e);
    }
}

static void on_poll(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct embedded *e = timer->data;
    (void)events;
    if (!unixsock_probe(e->socket)) {
        ev_timer_stop(loop, timer);
        bool is_first = !e->was_up;
        e->is_up = e->was_up = true;
        log_info("embedded-redis-ready", "pid", LOG_INT(e->pid), "after_ms",
                 LOG_INT(clock_mono_ms() - e->started_ms));
        if (is_first)
            e->events.on_up(e->data);
        return;
    }
    if (clock_mono_ms() - e->started_ms < (int64_t)(EMBEDDED_START_S * 1e3))
        return;
    ev_timer_stop(loop, timer);
    log_warning("embedded-redis-killed", "pid", LOG_INT(e->pid), "cause", "does not accept");
    kill(e->pid, SIGKILL);
}

static void on_end(struct ev_loop *loop, struct ev_child *child, int events)
{
    struct embedded *e = child->data;
    char words[200], reason[512];
    int status = child->rstatus;
    (void)events;
    ev_child_stop(loop, child);
    ev_timer_stop(loop, &e->poll);
    last_words(e, words, sizeof(words));
    log_warning("embedded-redis-ended", "pid", LOG_INT(e->pid), LOG_ENDED(status), "said",
                words);
    e->pid = 0;
    e->is_up = false;
    if (e->was_up) {
        start_later(e);
        return;
    }
    snprintf(reason, sizeof(reason), "%s did not come up; it said: %s", e->program, words);
    e->events.on_failed(e->data, reason);
}

int embedded_start(struct ev_loop *loop, const char *scratch, const struct privileges *workers,
                   const struct embedded_events *events, void *data, struct embedded **out,
                   char *why, size_t cap)
{
    struct embedded *e = calloc(1, sizeof(*e));
    if (!e) {
        snprintf(why, cap, "redis-url = embedded: no memory");
        return -ENOMEM;
    }
    e->loop = loop;
    e->workers = workers;
    e->events = *events;
    e->data = data;
    snprintf(e->directory, sizeof(e->directory), "%s/" DIRECTORY, scratch);
    embedded_socket(scratch, e->socket, sizeof(e->socket));
    ev_child_init(&e->child, on_end, 0, 0);
    ev_timer_init(&e->poll, on_poll, 0.0, 0.0);
    ev_timer_init(&e->restart, on_restart, 0.0, 0.0);
    e->child.data = e->poll.data = e->restart.data = e;
    int error = 0;
    if (!find_in_path("redis-server", e->program, sizeof(e->program)) &&
        !find_in_path("valkey-server", e->program, sizeof(e->program))) {
        error = -ENOENT;
        snprintf(why, cap,
                 "redis-url = embedded: no redis-server or valkey-server in PATH; install one "
                 "(apt install redis-server) or give redis-url");
        goto out;
    }
    error = scratch_make_worker_dir(scratch, DIRECTORY, workers);
    if (!error)
        error = start_now(e);
    if (error)
        snprintf(why, cap, "redis-url = embedded: cannot start %s: %s", e->program,
                 log_errno(error));
out:
    if (error)
        embedded_free(e);
    else
        *out = e;
    return error;
}

void embedded_free(struct embedded *e)
{
    if (!e)
        return;
    ev_timer_stop(e->loop, &e->poll);
    ev_timer_stop(e->loop, &e->restart);
    ev_child_stop(e->loop, &e->child);
    if (e->pid) {
        const struct timespec pause = {.tv_nsec = 5000000};
        kill(e->pid, SIGKILL);
        for (int i = 0; i < 100 && !waitpid(e->pid, NULL, WNOHANG); i++)
            nanosleep(&pause, NULL);
    }
    free(e);
}
