#include "config.h"

#include "src/unixsock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/log.h"

static int set_path(const char *path, struct sockaddr_un *out)
{
    size_t len = strlen(path);
    if (len >= sizeof(out->sun_path))
        return -ENAMETOOLONG;
    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    memcpy(out->sun_path, path, len);
    return 0;
}

static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

int unixsock_probe(const char *path)
{
    struct sockaddr_un to;
    int error = set_path(path, &to);
    if (error)
        return error;
    int fd = new_socket();
    if (fd < 0)
        return fd;
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        error = errno == EAGAIN ? 0 : -errno; /* a full queue has an owner */
    close(fd);
    return error;
}

/* Makes room for a new file; leaves what is alive or none of ours to remove. */
static int clear_path(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    int error = unixsock_probe(path);
    if (!error)
        return -EADDRINUSE;
    if (error != -ECONNREFUSED)
        return error == -ENOENT ? 0 : error;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_listen(int fd, const struct sockaddr_un *at, mode_t mode, uid_t uid, gid_t gid,
                       int backlog)
{
    /* The mode holds from the first moment: umask instead of a later chmod alone. */
    mode_t old = umask(~mode & 0777);
    int error = bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 ? -errno : 0;
    umask(old);
    if (error)
        return error;
    if (((uid != (uid_t)-1 || gid != (gid_t)-1) && lchown(at->sun_path, uid, gid) < 0) ||
        listen(fd, backlog) < 0) {
        error = -errno;
        unlink(at->sun_path);
    }
    return error;
}

int unixsock_listen(const char *path, mode_t mode, uid_t uid, gid_t gid, int backlog,
                    struct unixsock_file *file)
{
    struct sockaddr_un at;
    int error = set_path(path, &at);
    if (!error)
        error = clear_path(path);
    if (error)
        return error;
    int fd = new_socket();
    if (fd < 0)
        return fd;
    error = bind_listen(fd, &at, mode, uid, gid, backlog);
    struct stat st;
    if (!error && lstat(path, &st) < 0)
        error = -errno;
    if (error) {
        close(fd);
        return error;
    }
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    return fd;
}

const char *unixsock_error_text(int error)
{
    switch (error) {
    case -EADDRINUSE:
        return "another process listens there";
    case -EEXIST:
        return "there is a file of this name that is no socket; remove it or choose another path";
    default:
        return log_errno(error);
    }
}

void unixsock_remove(const char *path, const struct unixsock_file *file)
{
    struct stat st;
    if (!lstat(path, &st) && st.st_dev == file->dev && st.st_ino == file->ino)
        unlink(path);
}
