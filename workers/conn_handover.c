#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/counters.h"
#include "shared/log.h"
#include "workers/admission.h"
#include "workers/conn_internal.h"
#include "workers/deflate.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/inquest.h"
#include "workers/session_handover.h"

#define WRITE_ROUNDS 4

bool conn_is_plain_websocket(const struct conn *c)
{
    return (c->state == CONN_AUTH || c->state == CONN_OPEN) && !c->tls;
}

bool conn_is_movable(const struct conn *c)
{
    return conn_is_plain_websocket(c) && !c->awaited && !c->kept && !c->http && !c->reply &&
           !c->close_after_flush && !c->saw_eof && !c->is_deaf && !c->needs_session_close &&
           c->device.state != DEVICE_ADOPTED && !c->device.busy->adopted &&
           !admission_is_pending(c);
}

/* ---- giving ---- */

static void save(struct conn *c, struct handover_device *d)
{
    *d = (struct handover_device){
        .serial = c->serial,
        .received_bytes = c->received_bytes,
        .sent_bytes = c->outq.written,
        .ping_taken_bytes = c->ping_taken_bytes,
        .opened_ms = c->opened_ms,
        .last_read_ms = c->last_read_ms,
        .ping_sent_ms = c->ping_sent_ms,
        .phase_until_ms = c->phase_until_ms,
        .rate_at_ms = c->rate.at_ms,
        .token_expires_ms = c->token_expires_ms,
        .rate_spent = c->rate.spent,
        .address = c->address,
        .conn_state = c->state,
        .is_mid_frame = c->outq.head_done > 0,
        .is_unix = c->is_unix,
        .is_admin = c->is_admin,
        .is_echo = c->is_echo,
        .deflate_bits = c->deflate_bits,
        .jti = admission_jti(c),
    };
}

/* Whatever it was, it is not here any more. */
static int let_go(struct conn *c, bool is_shared)
{
    int fd = c->io.fd;
    fate_given(c);
    conn_io_forget(c);
    c->io.fd = -1;
    wheel_disarm(c->worker->wheel, &c->deadline);
    if (c->is_counted_ws) {
        c->is_counted_ws = false;
        if (is_shared)
            counters_depart(c->worker->start->counters);
        else
            counters_dec(CTR_websockets);
    }
    if (is_shared)
        c->device.is_counted = false;
    conn_release_session(c);
    outq_give(&c->outq);
    c->state = CONN_DEAD;
    conn_mark(c);
    return fd;
}

int conn_give(struct conn *c, bool is_shared, struct text_buf *out)
{
    struct session_parts parts = {{0}, {0}, {0}, {0}, {0}, {0}};
    struct text_buf input = {0}, queue = {0};
    struct handover_device d;
    if (c->outq.head && !c->is_blocked)
        conn_write(c, WRITE_ROUNDS);
    if (!conn_is_movable(c))
        return -EPIPE;
    outq_split(&c->outq);
    save(c, &d);
    session_save(c->worker, &c->device, &parts, &d);
    wsock_save(c->wsock, &input);
    outq_save(&c->outq, &queue);
    d.input = (struct text_span){input.data, input.len};
    d.queue = (struct text_span){queue.data, queue.len};
    bool has_failed = input.failed || queue.failed || parts.filter.failed ||
                      parts.resume.failed || parts.left_out.failed || parts.held.failed ||
                      parts.lag.failed || parts.refreshes.failed;
    if (!has_failed)
        handover_device_encode(&d, out);
    session_parts_free(&parts);
    text_buf_free(&input);
    text_buf_free(&queue);
    if (has_failed || out->failed)
        return -ENOMEM;
    counters_inc(CTR_handover_given);
    return let_go(c, is_shared);
}

/* ---- taking ---- */

static int restore(struct conn *c, const struct handover_device *d)
{
    if (d->deflate_bits &&
        (d->deflate_bits < DEFLATE_WINDOW_MIN || d->deflate_bits > DEFLATE_WINDOW_MAX))
        return -EBADMSG;
    c->serial = d->serial;
    c->received_bytes = d->received_bytes;
    c->outq.written = d->sent_bytes;
    c->ping_taken_bytes = d->ping_taken_bytes;
    c->opened_ms = d->opened_ms;
    c->last_read_ms = d->last_read_ms;
    c->ping_sent_ms = d->ping_sent_ms;
    c->phase_until_ms = d->phase_until_ms;
    c->rate = (struct bucket){(uint32_t)d->rate_at_ms, d->rate_spent};
    c->token_expires_ms = d->token_expires_ms;
    c->is_admin = d->is_admin;
    c->is_echo = d->is_echo;
    c->deflate_bits = d->deflate_bits;
    c->state = d->conn_state == CONN_AUTH ? CONN_AUTH : CONN_OPEN;
    return 0;
}

/* What is a session's, with a user or (before its auth frame) without. */
static int restore_session(struct conn *c, const struct handover_device *d, struct expected *e)
{
    /* Who has a user has shown its token and wants no echo; who has none is still to show it, or
     * wants that. Anything else would end up with two users, or leave one without saying so. */
    if (d->conn_state != (e || c->is_echo ? CONN_OPEN : CONN_AUTH) || (e && c->is_echo))
        return -EBADMSG;
    if (e)
        return session_adopt(e, &c->device, d);
    if (c->is_echo)
        return 0;
    struct resume *resume = NULL;
    int error = filter_restore(d->filter, &c->device.filter);
    if (!error)
        error = handover_resume_restore(d->resume, &resume);
    if (!error)
        return device_set_resume(&c->device, resume);
    free(resume);
    return error;
}

/* As if it had been accepted and upgraded here, but for what counts such things. */
static struct conn *make(struct worker *w, int fd, int from_slot, const struct handover_device *d)
{
    struct conn *c = conn_new(w, fd, &(struct worker_listener){.is_unix = d->is_unix});
    if (!c)
        return NULL;
    c->address = d->address;
    conn_enter_address(c, false);
    c->state = CONN_OPEN;
    c->had_request = c->was_ws = c->is_counted_ws = true;
    counters_inc(CTR_connections);
    if (from_slot >= 0)
        counters_arrive(w->start->counters, (uint32_t)from_slot);
    else
        counters_inc(CTR_websockets);
    conn_io_start(c);
    return c;
}

static bool is_too_many(const struct worker *w)
{
    int64_t limit = w->opt->max_connections;
    return limit > 0 &&
           counters_sum(w->start->counters, CTR_websockets) > (uint64_t)limit;
}

/* Why it cannot stay. */
static void refuse(struct conn *c, int error, bool is_mid_frame)
{
    char id[CONN_ID_BYTES];
    enum close_reason reason = CLOSE_RESTART;
    if (c->worker->opt->restart_close == RESTART_CLOSE_DROP)
        reason = CLOSE_DROPPED;
    counters_inc(CTR_handover_refused);
    log_warning("handover-refused", "conn", conn_id(c, id), "error", log_errno(error));
    if (is_mid_frame) /* a close frame would be taken for a part of it */
        conn_drop(c, reason);
    else
        conn_close(c, reason);
}

bool conn_take(struct worker *w, int fd, int from_slot, struct text_span state, struct expected *e)
{
    struct handover_device d = {0};
    int error = handover_device_decode(state, &d);
    struct conn *c = make(w, fd, from_slot, &d);
    if (!c) {
        log_error("no-memory", "for", "connection");
        close(fd);
        return false;
    }
    if (error) {
        refuse(c, error, d.is_mid_frame);
        return false;
    }
    error = restore(c, &d);
    if (!error)
        error = restore_session(c, &d, e);
    if (!error)
        error = admission_restore(c, d.jti);
    if (error || (error = outq_restore(&c->outq, d.queue))) {
        /* What is queued by now may be less than what was to follow. */
        refuse(c, error, d.is_mid_frame);
        return false;
    }
    counters_inc(CTR_handover_taken);
    fate_taken(c);
    const struct user *u = c->device.user;
    bool is_kicked = u && inquest_has_kicked(w->inquest, u, c->opened_ms);
    if (is_kicked || is_too_many(w)) {
        conn_close(c, is_kicked ? CLOSE_ADMIN : CLOSE_OVERLOAD);
        return false;
    }
    if (d.input.len)
        conn_ws_input(c, (const unsigned char *)d.input.ptr, d.input.len);
    conn_arm(c);
    conn_mark(c);
    return c->state == CONN_AUTH || c->state == CONN_OPEN;
}
