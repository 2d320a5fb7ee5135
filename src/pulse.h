/*
 * pulse.h - what the service manager is told all the time: how many are served (STATUS), and that
 * this instance works (WATCHDOG). sd_notify(3), sd_watchdog_enabled(3).
 *
 * Master only, while it is the instance. The watchdog is fed from the master's loop, so it is not
 * when that hangs; and it is not fed while every worker that serves is silent, for then nobody is
 * served either. One hung worker is the supervisor's business. STATUS changes at most every
 * PULSE_STATUS_S.
 */
#ifndef BELFRY_SRC_PULSE_H
#define BELFRY_SRC_PULSE_H

#include <ev.h>
#include <stddef.h>
#include <stdint.h>

#define PULSE_STATUS_S 5.0
#define PULSE_SILENT_MS 5000 /* workers mark each second that their loop turns */
#define PULSE_TEXT_BYTES 160

struct pulse {
    struct ev_timer timer;
    int64_t watchdog_ms; /* 0: nobody waits for it */
    int64_t fed_ms;
    int64_t told_ms;
    char told[PULSE_TEXT_BYTES];
};

struct master;

void pulse_init(struct master *m);
/* From now on; the first STATUS is told by READY. */
void pulse_start(struct master *m);
void pulse_stop(struct master *m);
/* STATUS was told otherwise: it stays for a while. */
void pulse_said(struct master *m, const char *status);
/* "4 workers, 12,031 connections", and what else there is to know. */
void pulse_text(const struct master *m, char out[PULSE_TEXT_BYTES]);

/* A number as people read it: 12,031. out has room for 32 bytes. */
const char *pulse_number(uint64_t n, char out[32]);
/* Time within which the service manager wants to hear of this process, in milliseconds; 0: it does
 * not. usec and pid: the values of WATCHDOG_USEC and WATCHDOG_PID; NULL: not set. */
int64_t pulse_watchdog_ms(const char *usec, const char *pid, long self);

#endif
