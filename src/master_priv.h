/*
 * master_priv.h - the master's one object, shared by its files: master.c (start, signals, end),
 * reload.c (HUP), upgrade.c and inherit.c (USR2, both sides), status.c (JSON).
 */
#ifndef BELFRY_SRC_MASTER_PRIV_H
#define BELFRY_SRC_MASTER_PRIV_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/counters.h"
#include "shared/text.h"
#include "shared/tickets.h"
#include "shared/trace.h"
#include "shared/usertable.h"
#include "shared/uuid7.h"
#include "src/control.h"
#include "src/dev.h"
#include "src/embedded.h"
#include "src/explain.h"
#include "src/generation.h"
#include "src/inherit.h"
#include "src/keywatch.h"
#include "src/pidfile.h"
#include "src/privileges.h"
#include "src/pulse.h"
#include "src/rates.h"
#include "src/scratch.h"
#include "src/supervisor.h"
#include "src/upgrade.h"

#define MASTER_SIGNALS 6
#define MASTER_RELOAD_S 45.0 /* a reload that has not ended by then is given up */
#define MASTER_LAME_MS 5000  /* most of a graceful stop that is spent telling load balancers */
#define MASTER_SHUT_S 0.05   /* time for workers to stop accepting before a socket is shut down */
#define MASTER_QUEUE_MS 400  /* for workers to accept who waits when nobody new gets in any more */

struct master {
    struct ev_loop *loop;
    struct generation_source source;
    struct generation *current;
    struct generation *next;    /* a reload is under way */
    struct generation *retired; /* their workers still end */
    struct supervisor *supervisor;
    struct control *control;    /* NULL: none */
    struct explain *explain;
    struct rates *rates;
    struct embedded *embedded;  /* NULL: none */
    struct dev *dev;            /* NULL: none */
    struct pages *pages;        /* served without --dev */
    char scratch[SCRATCH_PATH_BYTES]; /* "": none */
    int scratch_lock;                 /* with scratch */
    char embedded_socket[SCRATCH_PATH_BYTES + 32];
    struct pidfile pidfile;
    struct privileges privileges;
    struct counters counters;
    struct trace trace;
    struct usertable *users;
    struct usertable *addresses;
    struct tickets tickets;         /* TLS sessions can be resumed with all workers */
    struct ev_timer tickets_timer;
    char instance_id[UUID7_TEXT_BYTES];
    enum instance_state state;
    bool is_head_ours; /* this master says what the shared memory's head says of the instance */
    const char *program; /* path of the binary */
    struct pulse pulse;
    struct keywatch keywatch;
    struct upgrade upgrade;
    struct inherit inherit;
    int exit_code;
    bool had_terminal;
    bool is_upgraded;    /* started by another master, to replace it */
    bool is_starting;    /* errors go to standard error, too, unless the log goes there anyway */
    bool is_log_stderr;
    int64_t started_mono_ms;
    int64_t started_wall_ms;
    struct ev_signal signals[MASTER_SIGNALS];
    struct ev_timer shut_timer; /* of sockets that nobody is to serve any more */
    int64_t shut_by_ms;         /* monotonic: until then those in the queues are waited for */

    struct text_buf report;        /* errors of the start or the reload, lines */
    struct ev_timer reload_timer;  /* end of the time a reload may take; at once when it failed */
    const char *reload_failure;    /* inside reload_reason; NULL: out of time */
    char reload_reason[512];
    bool reload_again;             /* HUP came during a reload or an upgrade */
    bool upgrade_again;            /* USR2 came during a reload */
    struct text_buf last_message;  /* of the last reload */
    int64_t last_reload_ms;        /* wall clock; 0: none yet */
    bool last_reload_ok;
};

/* reload.c. 0: control_reload_done follows; -EBUSY, -ECANCELED or -EINVAL: refused, and why says
 * it. */
int reload_begin(struct master *m, char *why, size_t cap);
void reload_on_ready(struct master *m, uint32_t generation);
void reload_on_start_failed(struct master *m, const char *reason);
/* The instance is about to end. */
void reload_cancel(struct master *m);
/* Notes and tells how a reload or an upgrade ended, and begins what waited for that. failed: what
 * to say before the message in systemd's status; NULL: nothing failed. */
void reload_told(struct master *m, const char *failed, const char *message);
/* Closes the sockets of retired generations, as far as no other generation shares them. */
void reload_shut(struct master *m);
/* Frees generations without workers. */
void reload_reap(struct master *m);
void reload_init(struct master *m);
void reload_fini(struct master *m);

/* status.c: the answer to belfryctl status, see control.h. */
void status_write(const struct master *m, struct text_buf *out);

/* master.c: calls reload_shut and, when the instance ends, closes all sockets for clients, once the
 * workers had the time to hear that they shall not accept. */
void master_shut_later(struct master *m);
/* Has the current generation served: its sockets listen, its workers accept. */
void master_serve(struct master *m);
/* This master is the instance from now on. */
void master_begin(struct master *m);
/* An upgrade to this master failed: it ends. */
void master_fail_upgrade(struct master *m, const char *reason);
/* Leaves the loop when the instance is ending and nothing is left to wait for. */
void master_finish_if_empty(struct master *m);
/* What draining workers do with connections they cannot hand over, as the present options say. */
struct control_drain master_drain_order(const struct master *m, bool is_restart);
/* The next rotation of the tickets is when the present options say. Makes the first ones. */
void master_plan_tickets(struct master *m);
/* Takes log-target, log-level and log-format of the snapshot. 0 or negative errno. */
int master_open_log(const struct options *opt);
const char *master_state_name(enum instance_state state);

#endif
