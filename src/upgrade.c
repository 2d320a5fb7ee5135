#include "config.h"

#include "src/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/log.h"
#include "src/master_priv.h"
#include "src/notify.h"

#define TOTALS_S 1.0 /* how often a new master that counts apart is told our totals */

/* ---- the program ---- */

static bool is_same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    return !stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* Where argv[0] is: a path, made absolute, or the first of this name in PATH. */
static int find_program(const char *argv0, char *out, size_t cap)
{
    const char *path = getenv("PATH");
    char here[PATH_MAX];
    int n = -1;
    if (*argv0 == '/')
        n = snprintf(out, cap, "%s", argv0);
    else if (strchr(argv0, '/') && getcwd(here, sizeof(here)))
        n = snprintf(out, cap, "%s/%s", here, argv0);
    if (n >= 0 || strchr(argv0, '/') || !path)
        return n >= 0 && (size_t)n < cap ? 0 : -ENOENT;
    while (*path) {
        size_t len = strcspn(path, ":");
        n = snprintf(out, cap, "%.*s/%s", (int)len, path, argv0);
        if (len && n >= 0 && (size_t)n < cap && is_same_file(out, "/proc/self/exe"))
            return 0;
        path += len + (path[len] == ':');
    }
    return -ENOENT;
}

int upgrade_program(const char *argv0, char *out, size_t cap)
{
    static const char deleted[] = " (deleted)";
    if (!find_program(argv0, out, cap) && is_same_file(out, "/proc/self/exe"))
        return 0;
    ssize_t n = readlink("/proc/self/exe", out, cap);
    if (n < 0)
        return -errno;
    if ((size_t)n >= cap)
        return -ENAMETOOLONG;
    out[n] = '\0';
    size_t end = sizeof(deleted) - 1;
    if ((size_t)n > end && !strcmp(out + n - end, deleted)) /* replaced since it was started */
        out[(size_t)n - end] = '\0';
    return 0;
}

/* ---- starting it ---- */

static bool is_named(const char *variable, const char *name)
{
    size_t len = strlen(name);
    return !strncmp(variable, name, len) && variable[len] == '=';
}

/* The environment as it was, with the link's variable, and without what was meant for this process
 * alone. An array to free; NULL: no memory. */
static char **make_environment(char **from, char *variable)
{
    static const char *const ours[] = {UPGRADE_ENVIRONMENT, "LISTEN_PID", "LISTEN_FDS",
                                       "LISTEN_FDNAMES", "WATCHDOG_PID"};
    size_t count = 0, kept = 0;
    while (from[count])
        count++;
    char **to = calloc(count + 2, sizeof(*to));
    for (size_t i = 0; to && i < count; i++) {
        bool is_ours = false;
        for (size_t j = 0; j < sizeof(ours) / sizeof(*ours); j++)
            is_ours = is_ours || is_named(from[i], ours[j]);
        if (!is_ours)
            to[kept++] = from[i];
    }
    if (to)
        to[kept] = variable;
    return to;
}

/* In the child: nothing of this process but the standard streams and the link goes along. */
static _Noreturn void exec_program(const struct master *m, char **environment, int link)
{
    struct sigaction act = {.sa_handler = SIG_DFL};
    sigset_t none;
    char why[PATH_MAX + 64];
    for (int i = 1; i < NSIG; i++)
        if (i != SIGKILL && i != SIGSTOP)
            sigaction(i, &act, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Ours are all closed by exec; of what a library may have opened this makes sure. */
    close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    fcntl(link, F_SETFD, 0);
    execve(m->program, m->source.argv, environment);
    int n = snprintf(why, sizeof(why), "cannot execute %s: %s", m->program, log_errno(errno));
    ipc_send(link, UPGRADE_FAILED, why, (size_t)n, -1);
    _exit(127);
}

/* The child's pid, or negative errno. */
static pid_t spawn_program(struct master *m, int link)
{
    char variable[sizeof(UPGRADE_ENVIRONMENT) + 16];
    snprintf(variable, sizeof(variable), UPGRADE_ENVIRONMENT "=%d", link);
    char **environment = make_environment(m->source.environment, variable);
    if (!environment)
        return -ENOMEM;
    sigset_t all, before;
    fflush(NULL);
    sigfillset(&all); /* see spawn_worker */
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    int error = errno;
    if (!pid)
        exec_program(m, environment, link);
    sigprocmask(SIG_SETMASK, &before, NULL);
    free(environment);
    return pid < 0 ? -error : pid;
}

/* ---- what it is given ---- */

static int tell(struct master *m, enum upgrade_type type, const void *body, size_t len, int fd)
{
    return upgrade_link_send(&m->upgrade.link, type, body, len, &fd, fd >= 0);
}

static int send_start(struct master *m)
{
    struct upgrade_start start = {.version = UPGRADE_VERSION,
                                  .generation = m->current->number,
                                  .layout = upgrade_layout(),
                                  .started_mono_ms = m->started_mono_ms,
                                  .started_wall_ms = m->started_wall_ms,
                                  .last_reload_ms = m->last_reload_ms,
                                  .last_reload_ok = m->last_reload_ok,
                                  .trace_size = m->trace.size};
    supervisor_slots(m->supervisor, start.slots.in_use);
    snprintf(start.instance_id, sizeof(start.instance_id), "%s", m->instance_id);
    snprintf(start.release, sizeof(start.release), "%s", PACKAGE_VERSION);
    return tell(m, UPGRADE_START, &start, sizeof(start), -1);
}

static int send_listeners(struct master *m, const struct listeners *l, bool is_spare)
{
    struct listener_record record;
    int fd, error = 0;
    for (size_t i = 0; l && !error && (fd = listeners_record(l, i, &record)) >= 0; i++)
        if (!is_spare || !listeners_is_used(l, i))
            error = tell(m, UPGRADE_LISTENER, &record, sizeof(record), fd);
    return error;
}

static int send_segment(struct master *m, enum upgrade_segment_kind kind, int fd)
{
    struct upgrade_segment segment = {.kind = kind};
    return tell(m, UPGRADE_SEGMENT, &segment, sizeof(segment), fd);
}

static int send_segments(struct master *m)
{
    int error = send_segment(m, SEGMENT_COUNTERS, m->counters.fd);
    if (!error && m->trace.segment)
        error = send_segment(m, SEGMENT_TRACE, m->trace.fd);
    if (!error)
        error = send_segment(m, SEGMENT_USERS, usertable_fd(m->users));
    return error ? error : send_segment(m, SEGMENT_ADDRESSES, usertable_fd(m->addresses));
}

static int send_control(struct master *m)
{
    struct upgrade_control body = {0};
    struct unixsock_file file;
    const char *path;
    if (!m->control)
        return 0;
    int fd = control_socket(m->control, &path, &file);
    snprintf(body.path, sizeof(body.path), "%s", path);
    body.file_dev = file.dev;
    body.file_ino = file.ino;
    return tell(m, UPGRADE_CONTROL, &body, sizeof(body), fd);
}

static int send_totals(struct master *m)
{
    struct text_buf totals = {0};
    counters_write_totals(&m->counters, &totals);
    int error = totals.failed ? -ENOMEM
                              : tell(m, UPGRADE_TOTALS, totals.data, totals.len, -1);
    text_buf_free(&totals);
    return error;
}

static int send_all(struct master *m)
{
    size_t len = m->last_message.len;
    if (len > IPC_BODY_MAX_BYTES)
        len = IPC_BODY_MAX_BYTES;
    int error = send_start(m);
    if (!error)
        error = send_listeners(m, m->current->listeners, false);
    if (!error)
        error = send_listeners(m, m->source.inherited, true);
    if (!error)
        error = send_segments(m);
    if (!error)
        error = send_control(m);
    if (!error)
        error = tell(m, UPGRADE_TICKETS, &m->tickets, sizeof(m->tickets), -1);
    if (!error && len)
        error = tell(m, UPGRADE_RELOADED, m->last_message.data, len, -1);
    if (!error)
        error = send_totals(m);
    return error ? error : tell(m, UPGRADE_SENT, NULL, 0, -1);
}

/* ---- it failed ---- */

static void set_timer(struct upgrade *u, double after_s, double repeat_s)
{
    struct master *m = u->timer.data;
    ev_timer_stop(m->loop, &u->timer);
    ev_timer_set(&u->timer, after_s, repeat_s);
    ev_timer_start(m->loop, &u->timer);
}

/* The first one holds. */
static void set_reason(struct upgrade *u, const char *text)
{
    if (!*u->reason)
        snprintf(u->reason, sizeof(u->reason), "%s", text);
}

/* The new master is gone, and had not become the master. */
static void end_failed(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    char message[sizeof(u->reason) + 32];
    ev_timer_stop(m->loop, &u->timer);
    upgrade_link_close(&u->link);
    u->phase = UPGRADE_PHASE_NONE;
    supervisor_take_orphans(m->supervisor);
    log_error("upgrade-failed", "reason", u->reason, "still", "serving with the old binary");
    snprintf(message, sizeof(message), "upgrade failed: %s", u->reason);
    reload_told(m, "", message);
    master_finish_if_empty(m);
}

static void on_child(struct ev_loop *loop, struct ev_child *child, int events)
{
    struct master *m = child->data;
    struct upgrade *u = &m->upgrade;
    char text[96];
    (void)events;
    ev_child_stop(loop, child);
    bool is_signal = WIFSIGNALED(child->rstatus);
    if (u->phase == UPGRADE_PHASE_LEFT) {
        log_error("new-master-ended", "pid", LOG_INT(u->pid), LOG_ENDED(child->rstatus));
        return;
    }
    u->phase = UPGRADE_PHASE_ENDING;
    /* Its last words may still be in the link. */
    if (u->link.fd >= 0)
        ev_invoke(loop, &u->link.in, EV_READ);
    snprintf(text, sizeof(text), "the new binary ended before it was ready (%s %d)",
             is_signal ? "signal" : "status",
             is_signal ? WTERMSIG(child->rstatus) : WEXITSTATUS(child->rstatus));
    set_reason(u, text);
    end_failed(m);
}

/* ---- it is ready ---- */

/* One hand-over link from the worker in that slot to each new worker. */
static int give(struct master *m, uint32_t slot, uint32_t takers)
{
    int gives[IPC_FDS_MAX], takes[IPC_FDS_MAX], pair[2], error = 0;
    uint32_t count = 0;
    for (; count < takers; count++) {
        error = ipc_stream_pair(pair);
        if (error)
            break;
        gives[count] = pair[0];
        takes[count] = pair[1];
    }
    if (!error)
        error = upgrade_link_send(&m->upgrade.link, UPGRADE_TAKE, NULL, 0, takes, count);
    for (uint32_t i = 0; i < count; i++)
        close(takes[i]);
    if (!error)
        return supervisor_give(m->supervisor, slot, gives, count);
    while (count)
        close(gives[--count]);
    return error;
}

static void give_all(struct master *m, uint32_t takers)
{
    uint32_t slots[IPC_FDS_MAX];
    uint32_t number = m->current->number;
    uint32_t count = supervisor_list(m->supervisor, number, SLOT_PHASE_READY, slots, IPC_FDS_MAX);
    if (takers > IPC_FDS_MAX)
        takers = IPC_FDS_MAX;
    for (uint32_t i = 0; takers && i < count; i++) {
        int error = give(m, slots[i], takers);
        if (error) /* its connections are closed with restart-close instead */
            log_warning("hand-over-failed", "slot", LOG_INT(slots[i]), "error", log_errno(error));
    }
}

/* The new one is told that it is the master; it may write the pid file at once. */
static int pass_on(struct master *m)
{
    struct upgrade_switch order = {.reload_again = m->reload_again};
    pidfile_release(&m->pidfile);
    int error = tell(m, UPGRADE_SWITCH, &order, sizeof(order), -1);
    if (error)
        pidfile_lock(&m->pidfile);
    return error;
}

static void leave(struct master *m, const struct upgrade_ready *ready)
{
    struct upgrade *u = &m->upgrade;
    struct control_drain how = {.over_ms = ready->drain_ms, .restart = 1, .drop = ready->drop != 0};
    char lines[64];
    if (pass_on(m)) /* it is gone: its end is heard next */
        return;
    u->phase = UPGRADE_PHASE_LEFT;
    u->is_apart = !ready->has_segments;
    ev_timer_stop(m->loop, &u->timer);
    ev_timer_stop(m->loop, &m->tickets_timer);
    pulse_stop(m);
    listeners_set_shared(m->current->listeners, true);
    control_leave(m->control, ready->has_control);
    m->is_head_ours = false;
    m->reload_again = false;
    m->state = INSTANCE_DRAINING;
    snprintf(lines, sizeof(lines), "MAINPID=%ld", (long)u->pid);
    notify_send(lines);
    supervisor_send_left(m->supervisor);
    give_all(m, ready->workers);
    supervisor_drain(m->supervisor, m->current->number, &how);
    if (u->is_apart)
        set_timer(u, TOTALS_S, TOTALS_S);
    log_notice("upgraded", "new_pid", LOG_INT(u->pid), "new_workers", LOG_INT(ready->workers));
    upgrade_on_gone(m);
    master_finish_if_empty(m);
}

void upgrade_on_gone(struct master *m)
{
    struct upgrade_slots slots;
    if (m->upgrade.phase != UPGRADE_PHASE_LEFT)
        return;
    supervisor_slots(m->supervisor, slots.in_use);
    tell(m, UPGRADE_SLOTS, &slots, sizeof(slots), -1);
    if (m->upgrade.is_apart)
        send_totals(m);
}

static void on_message(void *data, struct ipc_message *message)
{
    struct master *m = data;
    struct upgrade *u = &m->upgrade;
    struct upgrade_ready ready;
    char why[sizeof(u->reason)];
    if (message->type == UPGRADE_FAILED && upgrade_is_under_way(m)) {
        snprintf(why, sizeof(why), "%.*s", (int)message->body_len, (const char *)message->body);
        set_reason(u, why);
        u->phase = UPGRADE_PHASE_ENDING;
        set_timer(u, UPGRADE_END_S, 0.0);
    } else if (message->type == UPGRADE_READY && message->body_len >= sizeof(ready)) {
        memcpy(&ready, message->body, sizeof(ready));
        if (u->phase == UPGRADE_PHASE_STARTING)
            leave(m, &ready);
    } else {
        log_warning("upgrade-unexpected", "message", upgrade_name(message->type));
    }
}

/* Before the switch it is ending, and its status tells more. */
static void on_end(void *data)
{
    struct master *m = data;
    if (m->upgrade.phase != UPGRADE_PHASE_STARTING)
        return;
    m->upgrade.phase = UPGRADE_PHASE_ENDING;
    set_timer(&m->upgrade, UPGRADE_END_S, 0.0);
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct master *m = timer->data;
    struct upgrade *u = &m->upgrade;
    char text[64];
    (void)loop;
    (void)events;
    if (u->phase == UPGRADE_PHASE_LEFT) {
        send_totals(m);
        return;
    }
    snprintf(text, sizeof(text), "the new binary was not ready within %d s", (int)UPGRADE_READY_S);
    set_reason(u, text);
    u->phase = UPGRADE_PHASE_ENDING;
    kill(u->pid, SIGKILL);
    set_timer(u, UPGRADE_END_S, 0.0);
}

/* ---- orders ---- */

/* Why it cannot begin now; NULL when it can. */
static const char *find_obstacle(const struct master *m)
{
    if (m->upgrade.phase == UPGRADE_PHASE_LEFT)
        return "a new binary has taken over already";
    if (m->upgrade.phase != UPGRADE_PHASE_NONE)
        return "an upgrade is under way";
    if (m->state != INSTANCE_RUNNING)
        return "the instance is not running yet, or no more";
    if (m->dev || m->embedded)
        return "an instance with a private Redis is stopped and started instead";
    return NULL;
}

int upgrade_begin(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    int pair[2];
    const char *obstacle = find_obstacle(m);
    if (obstacle) {
        log_warning("upgrade-refused", "reason", obstacle);
        return -EBUSY;
    }
    int error = ipc_pair(pair);
    if (!error) {
        u->pid = spawn_program(m, pair[1]);
        close(pair[1]);
        error = u->pid < 0 ? u->pid : 0;
        if (error)
            close(pair[0]);
    }
    if (error) {
        log_error("upgrade-failed", "reason", log_errno(error), "still", "serving");
        return error;
    }
    log_notice("upgrade-started", "program", m->program, "pid", LOG_INT(u->pid));
    u->phase = UPGRADE_PHASE_STARTING;
    u->reason[0] = '\0';
    upgrade_link_open(&u->link, m->loop, pair[0]);
    ev_child_set(&u->child, u->pid, 0);
    ev_child_start(m->loop, &u->child);
    set_timer(u, UPGRADE_READY_S, 0.0);
    error = send_all(m); /* a link that is gone is heard, too */
    if (error && error != -EPIPE) {
        set_reason(u, log_errno(error));
        set_timer(u, 0.0, 0.0);
    }
    return 0;
}

void upgrade_cancel(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    if (u->phase != UPGRADE_PHASE_STARTING)
        return;
    set_reason(u, "the instance stops");
    u->phase = UPGRADE_PHASE_ENDING;
    kill(u->pid, SIGTERM);
    set_timer(u, UPGRADE_END_S / 2, 0.0);
}

bool upgrade_is_under_way(const struct master *m)
{
    return m->upgrade.phase == UPGRADE_PHASE_STARTING || m->upgrade.phase == UPGRADE_PHASE_ENDING;
}

bool upgrade_has_left(const struct master *m)
{
    return m->upgrade.phase == UPGRADE_PHASE_LEFT;
}

void upgrade_init(struct master *m)
{
    struct upgrade *u = &m->upgrade;
    u->link = (struct upgrade_link){.fd = -1, .on_message = on_message, .on_end = on_end};
    u->link.data = m;
    ev_child_init(&u->child, on_child, 0, 0);
    ev_timer_init(&u->timer, on_timer, 0.0, 0.0);
    u->child.data = u->timer.data = m;
}

void upgrade_fini(struct master *m)
{
    upgrade_link_close(&m->upgrade.link);
    ev_timer_stop(m->loop, &m->upgrade.timer);
    ev_child_stop(m->loop, &m->upgrade.child);
}
