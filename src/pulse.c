#include "config.h"

#include "src/pulse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "src/master_priv.h"
#include "src/notify.h"

#define TICK_MAX_S 1.0
#define TICK_MIN_S 0.02

const char *pulse_number(uint64_t n, char out[32])
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    char *to = out;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

int64_t pulse_watchdog_ms(const char *usec, const char *pid, long self)
{
    char *end;
    if (!usec || *usec < '0' || *usec > '9')
        return 0;
    unsigned long long n = strtoull(usec, &end, 10);
    if (*end || n / 1000 > INT64_MAX / 1000)
        return 0;
    /* One that is meant for another process: a shell that started us, say. */
    if (pid && (strtol(pid, &end, 10) != self || *end))
        return 0;
    return n && n < 1000 ? 1 : (int64_t)(n / 1000);
}

void pulse_text(const struct master *m, char out[PULSE_TEXT_BYTES])
{
    char number[32];
    uint64_t open = counters_sum(&m->counters, CTR_websockets);
    uint32_t ready = supervisor_count(m->supervisor, m->current->number, SLOT_PHASE_READY);
    pulse_number(open, number);
    if (m->state == INSTANCE_DRAINING)
        snprintf(out, PULSE_TEXT_BYTES, "draining, %s connection%s left", number,
                 open == 1 ? "" : "s");
    else
        snprintf(out, PULSE_TEXT_BYTES, "%u worker%s, %s connection%s%s", ready,
                 ready == 1 ? "" : "s", number, open == 1 ? "" : "s",
                 m->last_reload_ms && !m->last_reload_ok ? "; the last reload or upgrade failed"
                                                         : "");
}

static void tell_status(struct master *m, int64_t now_ms)
{
    char text[PULSE_TEXT_BYTES], lines[PULSE_TEXT_BYTES + 16];
    struct pulse *p = &m->pulse;
    if (now_ms - p->told_ms < (int64_t)(PULSE_STATUS_S * 1e3))
        return;
    pulse_text(m, text);
    if (!strcmp(text, p->told))
        return;
    memcpy(p->told, text, sizeof(text));
    p->told_ms = now_ms;
    snprintf(lines, sizeof(lines), "STATUS=%s", text);
    notify_send(lines);
}

static void feed_watchdog(struct master *m, int64_t now_ms)
{
    struct pulse *p = &m->pulse;
    /* At the tick that is nearest to it: one that comes a little early must not let it wait for the
     * next. */
    int64_t early_ms = (int64_t)(p->timer.repeat * 1e3 / 2);
    if (!p->watchdog_ms || now_ms - p->fed_ms < p->watchdog_ms / 3 - early_ms)
        return;
    if (supervisor_is_silent(m->supervisor, PULSE_SILENT_MS)) {
        log_warning("watchdog-not-fed", "reason", "no worker's loop turns");
        return;
    }
    p->fed_ms = now_ms;
    notify_send("WATCHDOG=1");
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    struct master *m = timer->data;
    int64_t now_ms = clock_mono_ms();
    (void)loop;
    (void)events;
    tell_status(m, now_ms);
    feed_watchdog(m, now_ms);
}

void pulse_init(struct master *m)
{
    /* A new master has another pid than the one the variable names: its environment is without. */
    m->pulse.watchdog_ms =
        pulse_watchdog_ms(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"), (long)getpid());
    ev_timer_init(&m->pulse.timer, on_tick, 0.0, 0.0);
    m->pulse.timer.data = m;
}

void pulse_start(struct master *m)
{
    struct pulse *p = &m->pulse;
    double tick_s = p->watchdog_ms ? (double)p->watchdog_ms / 3e3 : TICK_MAX_S;
    tick_s = tick_s > TICK_MAX_S ? TICK_MAX_S : tick_s < TICK_MIN_S ? TICK_MIN_S : tick_s;
    p->told_ms = p->fed_ms = clock_mono_ms();
    pulse_text(m, p->told);
    ev_timer_stop(m->loop, &p->timer);
    ev_timer_set(&p->timer, tick_s, tick_s);
    ev_timer_start(m->loop, &p->timer);
}

void pulse_said(struct master *m, const char *status)
{
    m->pulse.told_ms = clock_mono_ms();
    snprintf(m->pulse.told, sizeof(m->pulse.told), "%s", status);
}

void pulse_stop(struct master *m)
{
    ev_timer_stop(m->loop, &m->pulse.timer);
}
