#include "config.h"

#include "src/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "belfry-"
#define RANDOM "XXXXXX"
#define LOCK_NAME "lock"
#define DEPTH 2

/* A directory of the user's own choice, when it can be used and its name leaves room for ours. */
static const char *usable_base(const char *variable)
{
    const char *path = getenv(variable);
    struct stat st;
    if (!path || path[0] != '/' || strlen(path) + sizeof("/" NAME RANDOM) > SCRATCH_PATH_BYTES ||
        stat(path, &st) < 0 || !S_ISDIR(st.st_mode) || access(path, W_OK | X_OK) < 0)
        return NULL;
    return path;
}

static const char *find_base(const struct privileges *workers)
{
    const char *base = workers->is_switch ? NULL : usable_base("XDG_RUNTIME_DIR");
    if (!base && !workers->is_switch)
        base = usable_base("TMPDIR");
    return base ? base : "/tmp";
}

int scratch_make(const struct privileges *workers, char out[SCRATCH_PATH_BYTES])
{
    char path[SCRATCH_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/" NAME RANDOM, find_base(workers));
    if (!mkdtemp(path))
        return -errno;
    if (workers->is_switch && chmod(path, 0711) < 0) {
        int error = -errno;
        rmdir(path);
        return error;
    }
    memcpy(out, path, sizeof(path));
    return 0;
}

int scratch_make_worker_dir(const char *scratch, const char *name,
                            const struct privileges *workers)
{
    char path[SCRATCH_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    if (mkdir(path, 0700) < 0)
        return -errno;
    if (workers->is_switch && lchown(path, workers->uid, workers->gid) < 0)
        return -errno;
    return 0;
}

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

int scratch_write(const char *scratch, const char *name, const char *bytes, size_t len)
{
    char path[SCRATCH_PATH_BYTES + 32], fresh[SCRATCH_PATH_BYTES + 40];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int error = write_all(fd, bytes, len);
    if (close(fd) < 0 && !error)
        error = -errno;
    if (!error && rename(fresh, path) < 0)
        error = -errno;
    if (error)
        unlink(fresh);
    return error;
}

/*
 * Empties the directory open as fd (given). Works by descriptors: the workers' user owns a
 * directory in here, and must not be able to lead root elsewhere by exchanging it for a link.
 */
static void empty(int fd, int depth)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    const struct dirent *e;
    while ((e = readdir(dir))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (!unlinkat(dirfd(dir), e->d_name, 0) || depth <= 1)
            continue;
        int sub = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub >= 0)
            empty(sub, depth - 1);
        unlinkat(dirfd(dir), e->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

void scratch_remove(const char *scratch)
{
    if (!*scratch)
        return;
    int fd = open(scratch, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        empty(fd, DEPTH);
    rmdir(scratch);
}

/* ---- what was left behind ---- */

int scratch_lock(const char *scratch)
{
    char path[SCRATCH_PATH_BYTES + 32], fresh[SCRATCH_PATH_BYTES + 40];
    snprintf(path, sizeof(path), "%s/" LOCK_NAME, scratch);
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    int fd = open(fresh, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    /* It has its name only when it is locked: nobody finds it free before. */
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || rename(fresh, path) < 0) {
        int error = -errno;
        close(fd);
        unlink(fresh);
        return error;
    }
    return fd;
}

static bool is_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    size_t prefix = strlen(NAME), len = strlen(RANDOM);
    return !strncmp(name, NAME, prefix) && strlen(name) == prefix + len &&
           strspn(name + prefix, letters) == len;
}

/* A file of this type that is ours alone; 0711 is what scratch_make gives a directory that others
 * pass through. */
static bool is_ours(int fd, mode_t type)
{
    struct stat st;
    return !fstat(fd, &st) && (st.st_mode & S_IFMT) == type && st.st_uid == geteuid() &&
           !(st.st_mode & (type == S_IFDIR ? 07066 : 07077));
}

/* Its owner is gone when the lock is free: the kernel says so, where a pid may be somebody else's
 * by now. One without a lock is of somebody else, or of one that just starts. */
static bool sweep_one(int base, const char *name)
{
    int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return false;
    int lock = -1;
    if (is_ours(fd, S_IFDIR))
        lock = openat(fd, LOCK_NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool is_left = lock >= 0 && is_ours(lock, S_IFREG) && !flock(lock, LOCK_EX | LOCK_NB);
    if (is_left)
        empty(fd, DEPTH);
    else
        close(fd);
    if (lock >= 0)
        close(lock);
    return is_left && !unlinkat(base, name, AT_REMOVEDIR);
}

unsigned scratch_sweep(const struct privileges *workers)
{
    unsigned swept = 0;
    DIR *dir = opendir(find_base(workers));
    if (!dir)
        return 0;
    const struct dirent *e;
    while ((e = readdir(dir)))
        swept += is_name(e->d_name) && sweep_one(dirfd(dir), e->d_name);
    closedir(dir);
    return swept;
}
