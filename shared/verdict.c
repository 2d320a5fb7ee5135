#include "config.h"

#include "shared/verdict.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/closes.h"

#define DETAIL_TLS 1u
#define DETAIL_UNIX 2u

/* ---- order ---- */

static int compare_facts(const void *a, const void *b)
{
    const struct trace_record *x = &((const struct verdict_fact *)a)->record.trace;
    const struct trace_record *y = &((const struct verdict_fact *)b)->record.trace;
    if (x->at_us != y->at_us)
        return x->at_us < y->at_us ? -1 : 1;
    /* A worker's records of one turn share their time; what is told of now comes last. */
    return (x->fate == TRACE_OPEN) - (y->fate == TRACE_OPEN);
}

/* Stable: records of one time stay in the order of their ring. */
static void sort(struct verdict_fact *facts, size_t n, struct verdict_fact *scratch)
{
    if (n < 2)
        return;
    size_t half = n / 2, a = 0, b = half, out = 0;
    sort(facts, half, scratch);
    sort(facts + half, n - half, scratch);
    memcpy(scratch, facts, n * sizeof(*facts));
    while (out < n) {
        bool takes_b = a == half || (b < n && compare_facts(&scratch[b], &scratch[a]) < 0);
        facts[out++] = takes_b ? scratch[b++] : scratch[a++];
    }
}

/* ---- devices ---- */

static struct verdict_device *device_of(struct verdict *v, const struct verdict_fact *f)
{
    for (size_t i = 0; i < v->count; i++) {
        struct verdict_device *d = &v->devices[i];
        if (d->serial == f->record.trace.serial && !strcmp(d->instance, f->instance))
            return d;
    }
    struct verdict_device *d = &v->devices[v->count++];
    *d = (struct verdict_device){.slot = f->record.slot, .serial = f->record.trace.serial};
    memcpy(d->instance, f->instance, sizeof(d->instance));
    return d;
}

/* The first that was written counts, else the last. */
static void note_sent(struct verdict_device *d, const struct verdict_fact *f)
{
    d->times_written += f->record.trace.end == TRACE_END_WRITTEN;
    if (!d->sent || d->sent->record.trace.end != TRACE_END_WRITTEN)
        d->sent = f;
}

/* One record of a connection. */
static void note(struct verdict_device *d, const struct verdict_fact *f)
{
    const struct trace_record *t = &f->record.trace;
    switch ((enum trace_fate)t->fate) {
    case TRACE_QUEUED:
    case TRACE_REPLAYED:
    case TRACE_REPAIRED:
        note_sent(d, f);
        break;
    case TRACE_HELD:
    case TRACE_FILTERED:
    case TRACE_LAGGING:
    case TRACE_CONFLATED:
    case TRACE_DROPPED:
    case TRACE_CLOSING:
        d->spared = f;
        break;
    case TRACE_ACKED:
        d->acked_us = t->at_us;
        break;
    case TRACE_READ:
        d->read_us = t->at_us;
        break;
    case TRACE_GIVEN:
        d->is_moving = true;
        break;
    case TRACE_TAKEN:
    case TRACE_OPENED:
        if (t->fate == TRACE_OPENED)
            d->opened_us = t->at_us;
        d->slot = f->record.slot;
        d->is_moving = false;
        d->is_tls = t->detail & DETAIL_TLS;
        d->is_unix = t->detail & DETAIL_UNIX;
        break;
    case TRACE_CLOSED:
        d->closed_us = t->at_us;
        d->close_reason = t->detail;
        d->has_acked_bytes = true;
        d->acked_bytes = t->position;
        break;
    case TRACE_OPEN:
        d->is_open = true;
        d->slot = f->record.slot;
        d->waiting_bytes = t->detail;
        d->has_acked_bytes = true;
        d->acked_bytes = t->position;
        break;
    default:
        break;
    }
}

/* A worker began: what was open in its slot, and is not told of as open, ended before. */
static void note_start(struct verdict *v, const struct verdict_fact *f)
{
    for (size_t i = 0; i < v->count; i++) {
        struct verdict_device *d = &v->devices[i];
        if (d->closed_us || d->is_moving || d->slot != f->record.slot ||
            strcmp(d->instance, f->instance) != 0)
            continue;
        d->closed_us = f->record.trace.at_us;
        d->has_died = true;
    }
}

static void note_message(struct verdict *v, const struct verdict_fact *f)
{
    const struct trace_record *t = &f->record.trace;
    v->is_known |= trace_about((enum trace_fate)t->fate) == TRACE_ABOUT_MESSAGE;
    v->is_broadcast |= t->fate == TRACE_BROADCAST;
    if ((t->fate == TRACE_RECEIVED || t->fate == TRACE_BROADCAST) && !v->first_us)
        v->first_us = t->at_us;
}

/* ---- judging ---- */

static bool is_at(const struct verdict_device *d, const struct verdict_fact *f)
{
    return d->slot == f->record.slot && !strcmp(d->instance, f->instance);
}

/* Was the subscriber link of the device's worker down then? */
static bool was_unheard(const struct verdict_device *d, const struct verdict_fact *facts, size_t n,
                        int64_t at_us)
{
    bool is_down = false;
    for (size_t i = 0; i < n && facts[i].record.trace.at_us <= at_us; i++) {
        if (!is_at(d, &facts[i]))
            continue;
        if (facts[i].record.trace.fate == TRACE_LINK_LOST ||
            facts[i].record.trace.fate == TRACE_STARTED)
            is_down = true;
        else if (facts[i].record.trace.fate == TRACE_LINK_BACK)
            is_down = false;
    }
    return is_down;
}

static bool got_broadcast(const struct verdict_device *d, const struct verdict_fact *facts,
                          size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (facts[i].record.trace.fate == TRACE_BROADCAST && is_at(d, &facts[i]))
            return true;
    return false;
}

static enum verdict_outcome judge_sent(const struct verdict_device *d)
{
    switch ((enum trace_end)d->sent->record.trace.end) {
    case TRACE_END_WRITTEN:
        return VERDICT_DELIVERED;
    case TRACE_END_CONFLATED:
        return VERDICT_CONFLATED;
    case TRACE_END_DROPPED:
        return VERDICT_DROPPED;
    case TRACE_END_CLOSED:
        return VERDICT_LOST;
    case TRACE_END_GIVEN: /* nobody says what became of it there */
    case TRACE_END_WAITING:
    case TRACE_ENDS:
        break;
    }
    if (d->has_died) /* perhaps between writing it and saying so */
        return VERDICT_UNSURE;
    return d->closed_us ? VERDICT_LOST : VERDICT_WAITING;
}

static enum verdict_outcome judge_spared(const struct verdict_device *d)
{
    switch ((enum trace_fate)d->spared->record.trace.fate) {
    case TRACE_FILTERED:
        return VERDICT_FILTERED;
    case TRACE_LAGGING:
        return VERDICT_LAGGING;
    case TRACE_CONFLATED:
        return VERDICT_CONFLATED;
    case TRACE_DROPPED:
        return VERDICT_DROPPED;
    case TRACE_CLOSING:
        return VERDICT_CLOSING;
    default:
        return d->closed_us ? VERDICT_LOST : VERDICT_HELD;
    }
}

/* A sent copy says more than one that was not, unless that came to nothing. */
static enum verdict_outcome judge(const struct verdict *v, const struct verdict_device *d,
                                  const struct verdict_fact *facts, size_t n, int64_t at_us)
{
    enum verdict_outcome sent = d->sent ? judge_sent(d) : VERDICT_UNKNOWN;
    if (sent == VERDICT_DELIVERED || sent == VERDICT_WAITING || (sent && !d->spared))
        return sent;
    if (d->spared && (!sent || d->spared->record.trace.at_us > d->sent->record.trace.at_us))
        return judge_spared(d);
    if (sent)
        return sent;
    if (at_us && d->opened_us > at_us)
        return VERDICT_LATER;
    if (v->is_broadcast && got_broadcast(d, facts, n))
        return VERDICT_BROADCAST;
    return at_us && was_unheard(d, facts, n, at_us) ? VERDICT_UNHEARD : VERDICT_UNKNOWN;
}

static enum verdict_tcp judge_tcp(const struct verdict_device *d)
{
    if (!d->sent || d->sent->record.trace.end != TRACE_END_WRITTEN || !d->has_acked_bytes)
        return VERDICT_TCP_UNKNOWN;
    return d->acked_bytes >= d->sent->record.trace.position ? VERDICT_TCP_ACKED
                                                            : VERDICT_TCP_UNACKED;
}

/* Has the connection to do with the message, or had it ended before? */
static bool is_concerned(const struct verdict_device *d, int64_t at_us)
{
    if (d->sent || d->spared || d->acked_us || d->read_us || d->is_open)
        return true;
    return at_us && (!d->closed_us || d->closed_us >= at_us);
}

static void judge_all(struct verdict *v, const struct verdict_fact *facts, size_t n,
                      int64_t stored_us)
{
    int64_t at_us = v->first_us ? v->first_us : stored_us;
    size_t kept = 0;
    for (size_t i = 0; i < v->count; i++) {
        struct verdict_device d = v->devices[i];
        if (!is_concerned(&d, at_us)) {
            v->gone_before++;
            continue;
        }
        d.outcome = judge(v, &d, facts, n, at_us);
        d.tcp = judge_tcp(&d);
        v->devices[kept++] = d;
    }
    v->count = kept;
}

int verdict_read(struct verdict_fact *facts, size_t count, int64_t stored_us, struct verdict *out)
{
    *out = (struct verdict){0};
    struct verdict_fact *scratch = malloc((count + 1) * sizeof(*scratch));
    out->devices = calloc(count + 1, sizeof(*out->devices));
    if (!scratch || !out->devices) {
        free(scratch);
        verdict_free(out);
        return -ENOMEM;
    }
    sort(facts, count, scratch);
    free(scratch);
    for (size_t i = 0; i < count; i++) {
        const struct trace_record *t = &facts[i].record.trace;
        note_message(out, &facts[i]);
        if (t->fate == TRACE_STARTED)
            note_start(out, &facts[i]);
        else if (t->serial)
            note(device_of(out, &facts[i]), &facts[i]);
    }
    judge_all(out, facts, count, stored_us);
    return 0;
}

void verdict_free(struct verdict *v)
{
    free(v->devices);
    *v = (struct verdict){0};
}

/* ---- words ---- */

const char *verdict_word(enum verdict_outcome outcome)
{
    static const char *const words[VERDICTS] = {
        "unknown",   "delivered", "broadcast", "waiting", "held",    "filtered",
        "conflated", "dropped",   "lagging",   "lost",    "unsure",  "closing", "unheard", "later",
    };
    return outcome < VERDICTS ? words[outcome] : "unknown";
}

void verdict_time(int64_t us, int64_t now_us, struct text_buf *out)
{
    char at[CLOCK_ISO_BYTES], now[CLOCK_ISO_BYTES];
    clock_format_us(us, false, at); /* YYYY-MM-DDTHH:MM:SS.uuuuuu */
    clock_format_us(now_us, false, now);
    if (strncmp(at, now, 10) != 0)
        text_addf(out, "%.10s ", at);
    text_addf(out, "%.12s", at + 11);
}

static const char *close_word(const struct verdict_device *d)
{
    return d->close_reason < CLOSE_REASONS ? closes_table[d->close_reason].word : "unknown";
}

static void add_end_of_connection(const struct verdict_device *d, int64_t now_us,
                                  struct text_buf *out)
{
    if (d->has_died) {
        text_adds(out, "its worker ended");
    } else if (d->closed_us) {
        text_addf(out, "the connection ended (%s) at ", close_word(d));
        verdict_time(d->closed_us, now_us, out);
    } else
        text_adds(out, "the connection ended");
}

static void add_tcp(const struct verdict_device *d, int64_t now_us, struct text_buf *out)
{
    const char *by = d->is_unix ? "read by the peer" : "acknowledged by TCP";
    text_addf(out, " (%u bytes, ", d->sent->record.trace.detail);
    if (d->tcp == VERDICT_TCP_ACKED) {
        text_adds(out, by);
    } else if (d->tcp == VERDICT_TCP_UNACKED && d->is_open) {
        text_addf(out, "written, not yet %s", by);
    } else if (d->tcp == VERDICT_TCP_UNACKED || d->has_died) {
        text_addf(out, "written, not known to be %s: ", by);
        add_end_of_connection(d, now_us, out);
    } else
        text_addf(out, "written, not known whether %s", by);
    text_addc(out, ')');
}

static void add_delivered(const struct verdict_device *d, int64_t now_us, struct text_buf *out)
{
    const struct trace_record *t = &d->sent->record.trace;
    text_adds(out, t->fate == TRACE_REPLAYED   ? "replayed from the list at "
                   : t->fate == TRACE_REPAIRED ? "repaired from the list at "
                                               : "delivered at ");
    verdict_time(t->end_us, now_us, out);
    add_tcp(d, now_us, out);
    if (d->times_written > 1)
        text_addf(out, ", written %u times", d->times_written);
}

static void add_sent(const struct verdict_device *d, const char *then, int64_t now_us,
                     struct text_buf *out)
{
    const struct verdict_fact *f = d->sent ? d->sent : d->spared;
    text_adds(out, d->sent ? "queued at " : "not queued at ");
    verdict_time(f->record.trace.at_us, now_us, out);
    text_adds(out, then);
}

static void add_waiting(const struct verdict_device *d, int64_t now_us, struct text_buf *out)
{
    add_sent(d, d->is_open ? ", waits to be written" : ", not known to be written", now_us, out);
    if (d->is_open && d->waiting_bytes)
        text_addf(out, " (%u bytes wait)", d->waiting_bytes);
}

static void add_dropped(const struct verdict_device *d, int64_t now_us, struct text_buf *out)
{
    bool was_queued = d->sent && d->sent->record.trace.end == TRACE_END_DROPPED;
    if (was_queued) {
        add_sent(d, ", taken out of the queue at ", now_us, out);
        verdict_time(d->sent->record.trace.end_us, now_us, out);
        text_adds(out, ": the device was too slow");
    } else {
        text_adds(out, "not queued at ");
        verdict_time(d->spared->record.trace.at_us, now_us, out);
        text_adds(out, ": the device was too slow");
    }
}

static void add_later(const struct verdict *v, const struct verdict_device *d, int64_t now_us,
                      struct text_buf *out)
{
    text_adds(out, "connected at ");
    verdict_time(d->opened_us, now_us, out);
    text_adds(out, v->is_broadcast
                       ? ", after the broadcast, which is not stored"
                       : ", after it, and not replayed it: not in the list, or not new to the "
                         "device");
}

static void add_outcome(const struct verdict *v, const struct verdict_device *d, int64_t now_us,
                        struct text_buf *out)
{
    switch (d->outcome) {
    case VERDICT_DELIVERED:
        add_delivered(d, now_us, out);
        break;
    case VERDICT_BROADCAST:
        text_adds(out, "sent with the broadcast; nothing else is recorded for single devices");
        break;
    case VERDICT_WAITING:
        add_waiting(d, now_us, out);
        break;
    case VERDICT_HELD:
        text_adds(out, "held until the device's list is read");
        break;
    case VERDICT_FILTERED:
        text_adds(out, "not sent: filtered by its types");
        break;
    case VERDICT_CONFLATED:
        add_sent(d, ", replaced by a newer message of its key", now_us, out);
        break;
    case VERDICT_LAGGING:
        text_adds(out, "not sent: the device reads too slowly; what is stored comes from the list "
                       "when it has caught up");
        break;
    case VERDICT_DROPPED:
        add_dropped(d, now_us, out);
        break;
    case VERDICT_LOST:
        add_sent(d, ", not written: ", now_us, out);
        add_end_of_connection(d, now_us, out);
        break;
    case VERDICT_UNSURE:
        add_sent(d, ", not known whether it was written: ", now_us, out);
        add_end_of_connection(d, now_us, out);
        break;
    case VERDICT_CLOSING:
        text_adds(out, "not sent: the connection was being closed");
        break;
    case VERDICT_UNHEARD:
        text_adds(out, "not sent: the worker's link to Redis was down, and it was not repaired "
                       "from the list");
        break;
    case VERDICT_LATER:
        add_later(v, d, now_us, out);
        break;
    case VERDICT_UNKNOWN:
    case VERDICTS:
        text_adds(out, "nothing is recorded for it");
        break;
    }
}

void verdict_sentence(const struct verdict *v, const struct verdict_device *d, int64_t now_us,
                      struct text_buf *out)
{
    add_outcome(v, d, now_us, out);
    if (d->acked_us) {
        text_adds(out, "; the device said ack at ");
        verdict_time(d->acked_us, now_us, out);
    }
    if (d->read_us) {
        text_adds(out, "; marked read at ");
        verdict_time(d->read_us, now_us, out);
    }
}
