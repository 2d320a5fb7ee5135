#include "config.h"

#include "workers/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Every quiet device's: so nobody who reads has to ask whether there is one. */
static const struct device_busy quiet;

void device_init(struct device *d, struct conn *c)
{
    *d = (struct device){.conn = c, .busy = &quiet};
}

/* Not of a quiet device. */
static struct device_busy *own_busy(struct device *d)
{
    return (struct device_busy *)d->busy;
}

struct device_busy *device_busy(struct device *d)
{
    if (d->busy != &quiet)
        return own_busy(d);
    struct device_busy *own = calloc(1, sizeof(*own));
    if (own)
        d->busy = own;
    return own;
}

void device_settle(struct device *d)
{
    if (d->busy == &quiet || memcmp(d->busy, &quiet, sizeof(quiet)) != 0)
        return;
    free(own_busy(d));
    d->busy = &quiet;
}

int device_set_resume(struct device *d, struct resume *resume)
{
    if (!resume)
        return 0;
    struct device_busy *busy = device_busy(d);
    if (!busy) {
        free(resume);
        return -ENOMEM;
    }
    busy->resume = resume;
    return 0;
}

struct resume *device_take_resume(struct device *d)
{
    struct resume *resume = d->busy->resume;
    if (resume) {
        own_busy(d)->resume = NULL;
        device_settle(d);
    }
    return resume;
}

void device_drop_resume(struct device *d)
{
    free(device_take_resume(d));
}

struct held *device_take_held(struct device *d)
{
    struct held *held = d->busy->held;
    if (held) {
        own_busy(d)->held = NULL;
        device_settle(d);
    }
    return held;
}
