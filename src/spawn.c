#include "config.h"

#include "src/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <syslog.h>
#include <unistd.h>

#include "shared/ipc.h"
#include "shared/log.h"

static bool is_kept(const struct worker_start *s, int fd)
{
    if (fd <= STDERR_FILENO || fd == s->control_fd || fd == log_fd())
        return true;
    for (size_t i = 0; i < s->listener_count; i++)
        if (s->listeners[i].fd == fd)
            return true;
    return false;
}

/*
 * The list of open descriptors is asked of the kernel: the loop, the C library and whatever is
 * added to the master later own some that nobody here could name.
 */
static int close_others(const struct worker_start *s)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return -errno;
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        int fd = (int)strtol(entry->d_name, NULL, 10);
        if (*entry->d_name != '.' && fd != dirfd(dir) && !is_kept(s, fd))
            close(fd);
    }
    closedir(dir);
    return 0;
}

/*
 * Signals from the terminal reach the whole group; only the master acts on them and tells the
 * workers. SIGPIPE stays ignored: errors of write(2) say the same.
 */
static void reset_signals(void)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
    struct sigaction act = {.sa_handler = SIG_DFL};
    for (int i = 1; i < NSIG; i++)
        if (i != SIGKILL && i != SIGSTOP)
            sigaction(i, &act, NULL); /* fails for those the C library keeps to itself */
    act.sa_handler = SIG_IGN;
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        sigaction(ignored[i], &act, NULL);
}

static void set_names(uint32_t slot)
{
    char name[16];
    snprintf(name, sizeof(name), "belfryd-w%u", slot);
    prctl(PR_SET_NAME, name, 0, 0, 0);
    snprintf(name, sizeof(name), "w%u", slot);
    log_set_role(name);
}

static _Noreturn void fail(const struct worker_start *s, const char *what, int error)
{
    char why[160];
    int n = snprintf(why, sizeof(why), "%s: %s", what, log_errno(error));
    log_error("worker-start-failed", "reason", why);
    ipc_send(s->control_fd, CONTROL_FAILED, why, (size_t)n, -1);
    exit(EXIT_FAILURE);
}

static _Noreturn void run_child(const struct spawn *s, pid_t master)
{
    struct worker_start own = *s->start;
    const struct worker_start *start = &own;
    bool is_syslog = !strcmp(start->opt->log_target, "syslog");
    s->leave_loop(s->data);
    reset_signals();
    set_names(start->slot);
    if (is_syslog)
        closelog(); /* else its descriptor would be closed behind the C library's back */
    int error = close_others(start);
    if (is_syslog)
        log_open("syslog", (enum log_level)start->opt->log_level,
                 (enum log_format)start->opt->log_format);
    if (error)
        fail(start, "cannot list open descriptors in /proc/self/fd", error);
    own.memory_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    error = privileges_drop(s->privileges, master, SIGTERM);
    if (error == -ESRCH)
        exit(EXIT_FAILURE);
    if (error)
        fail(start, "cannot become the workers' user", error);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    exit(worker_run(start));
}

pid_t spawn_worker(const struct spawn *s)
{
    pid_t master = getpid();
    sigset_t all, before;
    fflush(NULL); /* or the child would write our buffers once more */
    /* A signal between fork and reset_signals would wake the master's loop out of the child's
     * handler. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid_t pid = fork();
    int error = errno;
    if (!pid)
        run_child(s, master);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid < 0 ? -error : pid;
}
