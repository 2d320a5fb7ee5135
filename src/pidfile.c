#include "config.h"

#include "src/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"

static pid_t read_pid(int fd)
{
    char text[32];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    long pid = strtol(text, NULL, 10);
    return pid > 0 ? (pid_t)pid : 0;
}

int pidfile_check(const char *path, pid_t *holder)
{
    *holder = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int error = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
    if (error)
        *holder = read_pid(fd);
    close(fd);
    return error;
}

const char *pidfile_error_text(const char *path, int error)
{
    struct stat st;
    if (error == -ELOOP && !lstat(path, &st) && S_ISLNK(st.st_mode))
        return "this is a symbolic link, which is not followed; remove it or name its target";
    return log_errno(error);
}

/* A new file under another name, locked, with our pid in it. */
static int write_fresh(const char *fresh)
{
    int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    char text[32];
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || write(fd, text, (size_t)len) != len) {
        int error = errno ? -errno : -EIO;
        close(fd);
        unlink(fresh);
        return error;
    }
    return fd;
}

int pidfile_write(struct pidfile *p, const char *path, pid_t *holder)
{
    char *fresh = NULL;
    char *copy = strdup(path);
    int fd = -1, error = -ENOMEM;
    if (!copy)
        goto out;
    if (asprintf(&fresh, "%s.%ld", path, (long)getpid()) < 0) {
        fresh = NULL;
        goto out;
    }
    unlink(fresh); /* of a dead process with our number */
    error = pidfile_check(path, holder);
    if (error)
        goto out;
    fd = write_fresh(fresh);
    error = fd < 0 ? fd : 0;
    if (!error && rename(fresh, path) < 0) {
        error = -errno;
        unlink(fresh);
    }
    if (error)
        goto out;
    p->fd = fd;
    p->path = copy;
    fd = -1;
    copy = NULL;
out:
    if (fd >= 0)
        close(fd);
    free(copy);
    free(fresh);
    return error;
}

void pidfile_release(struct pidfile *p)
{
    if (p->fd >= 0)
        flock(p->fd, LOCK_UN);
}

void pidfile_lock(struct pidfile *p)
{
    if (p->fd >= 0)
        flock(p->fd, LOCK_EX | LOCK_NB);
}

void pidfile_remove(struct pidfile *p)
{
    struct stat ours, there;
    if (p->fd < 0)
        return;
    if (!fstat(p->fd, &ours) && !lstat(p->path, &there) && ours.st_dev == there.st_dev &&
        ours.st_ino == there.st_ino)
        unlink(p->path);
    close(p->fd);
    free(p->path);
    p->fd = -1;
    p->path = NULL;
}
