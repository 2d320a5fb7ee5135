#include "config.h"

#include "workers/roster.h"

#include <netinet/in.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/closes.h"
#include "workers/admission.h"
#include "workers/conn.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/session.h"

static const char *const states[] = {
    [CONN_PROXY] = "proxy", [CONN_TLS] = "tls",   [CONN_HTTP] = "http",       [CONN_AUTH] = "auth",
    [CONN_OPEN] = "open", [CONN_CLOSING] = "closing", [CONN_DEAD] = "dead"};
static const char *const device_states[] = {[DEVICE_NONE] = "none",
                                            [DEVICE_ATTACHING] = "attaching",
                                            [DEVICE_REPAIRING] = "repairing",
                                            [DEVICE_LIVE] = "live"};
static const char *const subscriptions[] = {[SUBSCRIPTION_NONE] = "none",
                                            [SUBSCRIPTION_WANTED] = "wanted",
                                            [SUBSCRIPTION_SENT] = "sent",
                                            [SUBSCRIPTION_CONFIRMED] = "confirmed"};

static void add_flag(struct text_buf *out, const char *name, bool value)
{
    text_addf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

static void add_number(struct text_buf *out, const char *name, uint64_t value)
{
    text_addf(out, ",\"%s\":%llu", name, (unsigned long long)value);
}

/* A moment on the wall clock; 0: null. */
static void add_time(struct text_buf *out, const char *name, int64_t wall_us)
{
    char text[CLOCK_ISO_BYTES] = "";
    if (wall_us)
        clock_format_us(wall_us, true, text);
    text_addf(out, wall_us ? ",\"%s\":\"%s\"" : ",\"%s\":null%s", name, text);
}

/* A worker_now_ms; 0: null. */
static void add_moment(const struct conn *c, struct text_buf *out, const char *name, int64_t ms)
{
    int64_t ago_ms = worker_now_ms(c->worker) - ms;
    add_time(out, name, ms ? (worker_wall_ms(c->worker) - ago_ms) * 1000 : 0);
}

/* ---- address ---- */

static const char *kind_of_v4(const unsigned char a[4])
{
    if (a[0] == 127)
        return "loopback";
    bool is_private = a[0] == 10 || (a[0] == 172 && (a[1] & 0xf0) == 16) ||
                      (a[0] == 192 && a[1] == 168) || (a[0] == 169 && a[1] == 254) ||
                      (a[0] == 100 && (a[1] & 0xc0) == 64);
    return is_private ? "private" : "public";
}

static const char *kind_of(const struct ip *ip)
{
    const unsigned char *a = ip->bytes;
    if (ip_is_v4(ip))
        return kind_of_v4(a + 12);
    if (IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)(const void *)a))
        return "loopback";
    bool is_link_local = a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
    return (a[0] & 0xfe) == 0xfc || is_link_local ? "private" : "public";
}

/* RFC 1918, 3927, 4193, 4291, 6598. */
static void add_address(const struct conn *c, struct text_buf *out)
{
    char text[IP_TEXT_BYTES];
    const struct ip *ip = &c->address;
    if (ip_is_none(ip)) {
        const char *family = c->is_unix ? "unix" : "unknown";
        text_addf(out, ",\"family\":\"%s\",\"address\":\"%s\",\"client\":null", family, family);
        return;
    }
    text_addf(out, ",\"family\":\"%s\",\"address\":\"%s\",\"client\":\"%s\"",
              ip_is_v4(ip) ? "ipv4" : "ipv6", kind_of(ip), ip_format(ip, text));
}

/* ---- the whole ---- */

static void add_device(const struct device *d, struct text_buf *out)
{
    if (!d->user) {
        text_adds(out, ",\"device\":null");
        return;
    }
    text_addf(out, ",\"device\":{\"state\":\"%s\",\"lag\":", device_states[d->state]);
    if (d->busy->lag) {
        struct session_lag_state lag = session_lag_state(d);
        text_addf(out, "{\"owed_messages\":%zu", lag.owed);
        add_time(out, "since", lag.since_us);
        text_addc(out, '}');
    } else {
        text_adds(out, "null");
    }
    add_number(out, "user_devices", d->user->device_count);
    text_addf(out, ",\"subscription\":\"%s\",\"filter\":", subscriptions[d->user->subscription]);
    filter_describe(d->filter, out);
    text_addc(out, '}');
}

static void add_close(const struct conn *c, struct text_buf *out)
{
    bool is_closing = c->was_ws && !c->is_counted_ws;
    if (!is_closing || c->close_reason >= CLOSE_REASONS) {
        text_adds(out, ",\"close\":null");
        return;
    }
    text_addf(out, ",\"close\":{\"reason\":\"%s\",\"code\":%u", closes_table[c->close_reason].word,
              c->close_code);
    add_flag(out, "frame_sent", c->close_frame_sent);
    add_flag(out, "frame_received", c->close_frame_received);
    add_moment(c, out, "at", c->close_frame_sent ? c->closing_ms : 0);
    text_addc(out, '}');
}

void roster_write(const struct conn *c, struct text_buf *out)
{
    char id[CONN_ID_BYTES];
    const struct user *u = c->device.user;
    struct text_span jti = admission_jti(c);
    text_addf(out, "{\"id\":\"%s\",\"worker\":%u,\"user\":", conn_id(c, id),
              c->worker->start->slot);
    if (u)
        text_add_json(out, u->id, u->id_len);
    else
        text_adds(out, "null");
    text_addf(out, ",\"state\":\"%s\"", states[c->state]);
    add_address(c, out);
    add_flag(out, "tls", c->tls != NULL);
    add_flag(out, "admin", c->is_admin);
    add_flag(out, "compression", c->deflate_bits != 0);
    add_moment(c, out, "opened_at", c->opened_ms);
    add_moment(c, out, "last_read_at", c->last_read_ms);
    bool is_heard = c->state == CONN_AUTH || c->state == CONN_OPEN;
    add_moment(c, out, "ping_sent_at", is_heard ? c->ping_sent_ms : 0);
    add_time(out, "token_expires_at", c->token_expires_ms * 1000);
    text_adds(out, ",\"token_id\":");
    if (jti.len)
        text_add_json(out, jti.ptr, jti.len);
    else
        text_adds(out, "null");
    add_number(out, "received_bytes", c->received_bytes);
    add_number(out, "sent_bytes", c->outq.written);
    add_number(out, "acknowledged_bytes", fate_acked_bytes(c));
    add_number(out, "queued_bytes", c->outq.bytes);
    add_flag(out, "blocked", c->is_blocked);
    add_device(&c->device, out);
    add_close(c, out);
    text_addc(out, '}');
}
