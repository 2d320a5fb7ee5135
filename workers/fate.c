#include "config.h"

#include "workers/fate.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "shared/message.h"
#include "workers/conn.h"

#define DETAIL_TLS 1u
#define DETAIL_UNIX 2u

static void worker_record(enum trace_fate fate)
{
    if (trace_is_on())
        trace_add(&(struct trace_record){.fate = (uint16_t)fate});
}

void fate_started(void)
{
    worker_record(TRACE_STARTED);
}

void fate_link(bool is_up)
{
    worker_record(is_up ? TRACE_LINK_BACK : TRACE_LINK_LOST);
}

void fate_received(const struct user *u, uint64_t id_hash, enum trace_fate fate)
{
    if (!trace_is_on())
        return;
    /* Of a broadcast, connections still without a token are counted too: walking over all devices
     * only to count them would cost more than the number is worth. */
    uint64_t devices = u ? u->device_count : counters_self->values[CTR_websockets];
    trace_add(&(struct trace_record){.id_hash = id_hash,
                                     .user_hash = u ? u->id_hash : 0,
                                     .detail = (uint32_t)devices,
                                     .fate = (uint16_t)fate});
}

static bool is_message(const struct frame *f)
{
    return f->kind != FRAME_REPLY && f->id_hash;
}

static struct trace_record about(const struct conn *c, const struct frame *f, enum trace_fate fate)
{
    return (struct trace_record){.id_hash = f->id_hash,
                                 .user_hash = c->user_hash,
                                 .serial = c->serial,
                                 .detail = f->len,
                                 .fate = (uint16_t)fate};
}

void fate_device(const struct device *d, const struct frame *f, enum trace_fate fate)
{
    if (!trace_is_on() || !is_message(f))
        return;
    struct trace_record r = about(d->conn, f, fate);
    trace_add(&r);
}

void fate_id(const struct device *d, uint64_t id_hash, enum trace_fate fate)
{
    if (trace_is_on() && id_hash)
        trace_add(&(struct trace_record){.id_hash = id_hash,
                                         .user_hash = d->conn->user_hash,
                                         .serial = d->conn->serial,
                                         .fate = (uint16_t)fate});
}

void fate_left(const struct conn *c, const struct frame *f)
{
    fate_device(&c->device, f, c->state == CONN_OPEN ? TRACE_DROPPED : TRACE_CLOSING);
}

void fate_queued(struct conn *c, const struct frame *f)
{
    if (!trace_is_on() || !is_message(f) || (f->kind == FRAME_BROADCAST && !c->is_blocked))
        return;
    struct trace_record r = about(c, f, TRACE_QUEUED);
    outq_set_ticket(&c->outq, trace_add(&r));
}

void fate_source(const struct device *d, const struct frame *f, enum counter counter)
{
    if (trace_is_on())
        trace_relabel(f->id_hash, d->conn->serial, TRACE_QUEUED,
                      counter == CTR_messages_repaired ? TRACE_REPAIRED : TRACE_REPLAYED);
}

void fate_said(const struct conn *c, enum trace_fate fate, const char *id, size_t len)
{
    if (trace_is_on())
        trace_add(&(struct trace_record){.id_hash = message_id_hash(id, len),
                                         .user_hash = c->user_hash,
                                         .serial = c->serial,
                                         .fate = (uint16_t)fate});
}

static void came(struct conn *c, enum trace_fate fate)
{
    c->user_hash = c->device.user->id_hash;
    if (trace_is_on())
        trace_add(&(struct trace_record){
            .user_hash = c->user_hash,
            .serial = c->serial,
            .detail = (c->tls ? DETAIL_TLS : 0) | (c->is_unix ? DETAIL_UNIX : 0),
            .fate = (uint16_t)fate});
}

void fate_opened(struct conn *c)
{
    came(c, TRACE_OPENED);
}

static trace_ticket note_waiting(void *data, const struct frame *f)
{
    struct trace_record r = about(data, f, TRACE_QUEUED);
    return is_message(f) ? trace_add(&r) : 0;
}

void fate_taken(struct conn *c)
{
    if (!c->device.user)
        return;
    came(c, TRACE_TAKEN);
    if (trace_is_on())
        outq_trace(&c->outq, note_waiting, c);
}

void fate_given(const struct conn *c)
{
    if (trace_is_on() && c->user_hash)
        trace_add(&(struct trace_record){.user_hash = c->user_hash,
                                         .serial = c->serial,
                                         .position = fate_acked_bytes(c),
                                         .fate = TRACE_GIVEN});
}

void fate_closed(const struct conn *c)
{
    if (trace_is_on() && c->user_hash)
        trace_add(&(struct trace_record){.user_hash = c->user_hash,
                                         .serial = c->serial,
                                         .position = fate_acked_bytes(c),
                                         .detail = c->close_reason,
                                         .fate = TRACE_CLOSED});
}

uint64_t fate_acked_bytes(const struct conn *c)
{
    /* tcp(7), unix(7): what the peer has not acknowledged, or not read; with TLS in bytes on the
     * wire, with FIN one more, and of a Unix socket with the kernel's overhead. */
    int left = 0;
    if (ioctl(c->io.fd, SIOCOUTQ, &left) < 0 || left < 0)
        return 0;
    return c->outq.written > (uint64_t)left ? c->outq.written - (uint64_t)left : 0;
}
