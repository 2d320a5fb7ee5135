/*
 * rates.h - how much happened in the last seconds: a short history of some counters, for
 * `belfryctl status` and `top`.
 *
 * Master only; never blocks. Looks at the shared counters once a second, and keeps RATES_WINDOW_S
 * seconds of what it saw. A rate is the difference between now and the oldest of these.
 */
#ifndef BELFRY_SRC_RATES_H
#define BELFRY_SRC_RATES_H

#include <ev.h>

#include "shared/counters.h"
#include "shared/text.h"

#define RATES_WINDOW_S 5

struct rates;

/* counters is kept. NULL without memory. */
struct rates *rates_new(struct ev_loop *loop, const struct counters *counters);
void rates_free(struct rates *r); /* accepts NULL */
/* Looks at the counters, as it does by itself once a second. */
void rates_look(struct rates *r);

/* Appends, of one slot or (slot < 0) of all: {"seconds": x (the time looked at), "received",
 * "delivered", "commands", "received_bytes", "sent_bytes", "opened" (WebSockets): each a second,
 * "delivery_ms": {"p50", "p99"} of what was delivered (counters.h; null: nothing was),
 * "cpu_percent" (of one processor; of all together it may be over 100; null: not known)}. */
void rates_write(const struct rates *r, int slot, struct text_buf *out);

#endif
