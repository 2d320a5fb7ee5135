#include "config.h"

#include "shared/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_GROW | F_SEAL_SHRINK)

static int map(int fd, size_t bytes, void **at)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *at = p;
    return 0;
}

int segment_create(const char *name, size_t bytes, void **at, int *fd)
{
    int new = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (new < 0)
        return -errno;
    int error = ftruncate(new, (off_t)bytes) < 0 || fcntl(new, F_ADD_SEALS, SEALS) < 0 ? -errno : 0;
    if (!error)
        error = map(new, bytes, at);
    if (error)
        close(new);
    else
        *fd = new;
    return error;
}

int segment_map(int fd, size_t least, void **at, size_t *bytes)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || st.st_size < (off_t)least)
        return -EPROTO;
    int error = map(fd, (size_t)st.st_size, at);
    if (!error)
        *bytes = (size_t)st.st_size;
    return error;
}

int segment_seal_text(const char *name, struct text_span text)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (write(fd, text.ptr, text.len) == (ssize_t)text.len &&
        fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
        return fd;
    int error = errno ? -errno : -EIO;
    close(fd);
    return error;
}

int segment_read_text(int fd, size_t max, struct text_buf *out)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size <= 0 || (uint64_t)st.st_size > max)
        return -EFBIG;
    char *text = malloc((size_t)st.st_size);
    if (!text)
        return -ENOMEM;
    /* Several processes may share the file, and its position. */
    ssize_t n = pread(fd, text, (size_t)st.st_size, 0);
    if (n == st.st_size)
        text_add(out, text, (size_t)n);
    free(text);
    return n != st.st_size ? -EIO : out->failed ? -ENOMEM : 0;
}

void segment_free(void *at, size_t bytes, int fd)
{
    if (at)
        munmap(at, bytes);
    if (fd >= 0)
        close(fd);
}
