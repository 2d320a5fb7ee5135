#include "config.h"

#include "shared/tickets.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/types.h>

static int make(void *out, size_t len)
{
    ssize_t n = getrandom(out, len, 0); /* up to 256 bytes come at once, or none */
    return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

int tickets_rotate(struct tickets *t, int64_t now_ms)
{
    struct ticket_key fresh[TICKETS_KEYS];
    int error = make(fresh, sizeof(fresh));
    if (!error) {
        /* What nobody knows stands where no key was: it opens nothing. */
        t->keys[1] = t->made_ms ? t->keys[0] : fresh[1];
        t->keys[0] = fresh[0];
        t->made_ms = now_ms;
    }
    explicit_bzero(fresh, sizeof(fresh));
    return error;
}
