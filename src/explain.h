/*
 * explain.h - what an operator asks of all workers (shared/inquiry.h): the master's side of
 * `belfryctl explain`, `kick` and `show`, and of GET /ws/explain.
 *
 * Master only; never blocks. Every worker is asked, for its part of the answer or to close the
 * user's connections; one of them asks the other instances over Redis (not for `show`). To explain
 * a message the rings of all workers' traces are read from shared memory, too, one ring in a turn.
 * The answer is given when all have answered, or after a time limit. Questions of other
 * instances are answered the same way, except that nobody else is asked. Only collects: what it all
 * means is told by whoever asked (shared/explanation.h).
 *
 * Answer to all: {"ok":true, "instance_id", "trace_size": records in a ring (0: off), "cut": bool,
 *   "workers": {"asked": n, "answered": n, "silent": [slots]},
 *   "others": {"asked": bool, "error": TEXT or null, "links": n (workers of other instances that
 *     the question reached), "answered": n (of these)}, and
 *   explain, kick: "instances": [{"instance", "trace_size", "closed"}],
 *     "records": [{"instance", and what inquiry_write_record writes}]
 *   kick: "closed": n (connections, of all instances)
 *   show: "connections": [what workers/roster.h writes]}
 */
#ifndef BELFRY_SRC_EXPLAIN_H
#define BELFRY_SRC_EXPLAIN_H

#include <ev.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/counters.h"
#include "shared/inquiry.h"
#include "shared/ipc.h"
#include "shared/text.h"
#include "shared/trace.h"
#include "src/supervisor.h"

#define EXPLAIN_LIMIT_MS 3000         /* where the asker does not say */
#define EXPLAIN_LIMIT_MAX_MS 60000
#define EXPLAIN_RELAYED_LIMIT_MS 2000 /* a worker asks for somebody: a part is to come in time */
#define EXPLAIN_OWN 8       /* questions of belfryctl and the operator's page at a time */
#define EXPLAIN_FOREIGN 4   /* questions of other instances */
#define EXPLAIN_RECORDS 4000
#define EXPLAIN_FOREIGN_RECORDS 1000 /* of which the pair to a worker holds all parts at once */
#define EXPLAIN_INSTANCES 64
#define EXPLAIN_ROWS_BYTES (1u << 20) /* of connections that are shown */

struct explain;

struct explain_shared {
    struct ev_loop *loop;
    const struct counters *counters;
    const struct trace *trace;
    struct supervisor *supervisor;
    const char *instance_id;
    /* The answer to a question of explain_ask; text is borrowed. */
    void (*on_answer)(void *data, uint64_t ticket, const struct text_buf *text);
    void *data;
};

/* All borrowed. NULL without memory. */
struct explain *explain_new(const struct explain_shared *shared);
/* Questions under way are forgotten. Accepts NULL. */
void explain_free(struct explain *e);

/* on_answer follows with the ticket, within within_ms (0: EXPLAIN_LIMIT_MS), never from within. 0,
 * -EINVAL (see inquiry_set), -EBUSY (EXPLAIN_OWN are under way) or -ENOMEM. */
int explain_ask(struct explain *e, uint64_t ticket, enum inquiry_ask ask, struct text_span user,
                struct text_span id, int64_t within_ms);
/* CONTROL_TOLD, CONTROL_ASKED or CONTROL_INQUIRE of a worker. */
void explain_on_message(struct explain *e, uint32_t slot, enum control_type type, const void *body,
                        size_t len);

#endif
