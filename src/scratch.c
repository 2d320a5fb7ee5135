#include "config.h"

#include "src/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 2

/* A directory of the user's own choice, when it can be used and its name leaves room for ours. */
static const char *usable_base(const char *variable)
{
    const char *path = getenv(variable);
    struct stat st;
    if (!path || path[0] != '/' || strlen(path) + sizeof("/belfry-XXXXXX") > SCRATCH_PATH_BYTES ||
        stat(path, &st) < 0 || !S_ISDIR(st.st_mode) || access(path, W_OK | X_OK) < 0)
        return NULL;
    return path;
}

int scratch_make(const struct privileges *workers, char out[SCRATCH_PATH_BYTES])
{
    const char *base = workers->is_switch ? NULL : usable_base("XDG_RUNTIME_DIR");
    if (!base && !workers->is_switch)
        base = usable_base("TMPDIR");
    char path[SCRATCH_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/belfry-XXXXXX", base ? base : "/tmp");
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
