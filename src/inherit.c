#include "config.h"

#include "src/inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "src/master_priv.h"

/* ---- the link ---- */

int inherit_find_link(void)
{
    const char *text = getenv(UPGRADE_ENVIRONMENT);
    char *end;
    if (!text)
        return -1;
    long fd = strtol(text, &end, 10);
    bool is_number = *text && !*end && fd > STDERR_FILENO && fd < 1 << 30;
    unsetenv(UPGRADE_ENVIRONMENT);
    int type = 0;
    socklen_t len = sizeof(type);
    if (!is_number || getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        type != SOCK_SEQPACKET || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        return -EINVAL;
    return (int)fd;
}

void inherit_tell_failure(int link, const char *reason)
{
    size_t len = strlen(reason);
    ipc_send(link, UPGRADE_FAILED, reason, len < IPC_BODY_MAX_BYTES ? len : IPC_BODY_MAX_BYTES, -1);
}

/* ---- what is received ---- */

/* Copies a body that may be longer than what this version knows; false when it is shorter. */
static bool read_body(const struct ipc_message *message, void *out, size_t len)
{
    if (message->body_len < len)
        return false;
    memcpy(out, message->body, len);
    return true;
}

static int take_start(struct master *m, const struct ipc_message *message)
{
    struct upgrade_start *start = &m->inherit.start;
    if (!read_body(message, start, sizeof(*start)) || start->version != UPGRADE_VERSION)
        return -EPROTO;
    start->instance_id[sizeof(start->instance_id) - 1] = '\0';
    start->release[sizeof(start->release) - 1] = '\0';
    snprintf(m->instance_id, sizeof(m->instance_id), "%.*s", UUID7_TEXT_BYTES - 1,
             start->instance_id);
    m->started_mono_ms = start->started_mono_ms;
    m->started_wall_ms = start->started_wall_ms;
    m->last_reload_ms = start->last_reload_ms;
    m->last_reload_ok = start->last_reload_ok;
    return 0;
}

static int take_listener(struct master *m, struct ipc_message *message)
{
    struct listener_record record;
    int fd = ipc_take_fd(message), error = -EPROTO;
    if (fd >= 0 && read_body(message, &record, sizeof(record)))
        error = listeners_add(m->source.inherited, fd, &record);
    if (error && fd >= 0)
        close(fd);
    return error;
}

static int take_segment(struct inherit *in, struct ipc_message *message)
{
    struct upgrade_segment segment;
    if (!read_body(message, &segment, sizeof(segment)))
        return -EPROTO;
    if (segment.kind < SEGMENT_KINDS && in->segments[segment.kind] < 0)
        in->segments[segment.kind] = ipc_take_fd(message);
    return 0;
}

static int take_control(struct inherit *in, struct ipc_message *message)
{
    if (in->control_fd >= 0 || !read_body(message, &in->control, sizeof(in->control)) ||
        !memchr(in->control.path, 0, sizeof(in->control.path)))
        return -EPROTO;
    in->control_fd = ipc_take_fd(message);
    return 0;
}

static int take_text(struct text_buf *out, const struct ipc_message *message)
{
    text_buf_reset(out);
    text_add(out, (const char *)message->body, message->body_len);
    return out->failed ? -ENOMEM : 0;
}

/* 0, or negative errno when it cannot be what an old master sends. */
static int take(struct master *m, struct ipc_message *message)
{
    struct inherit *in = &m->inherit;
    switch (message->type) {
    case UPGRADE_START:
        return take_start(m, message);
    case UPGRADE_LISTENER:
        return take_listener(m, message);
    case UPGRADE_SEGMENT:
        return take_segment(in, message);
    case UPGRADE_CONTROL:
        return take_control(in, message);
    case UPGRADE_TICKETS:
        return read_body(message, &m->tickets, sizeof(m->tickets)) ? 0 : -EPROTO;
    case UPGRADE_RELOADED:
        return take_text(&m->last_message, message);
    case UPGRADE_TOTALS:
        return take_text(&in->totals, message);
    case UPGRADE_SENT:
        in->is_sent = true;
        return 0;
    default:
        log_warning("upgrade-unexpected", "message", upgrade_name(message->type));
        return 0;
    }
}

static int receive_one(struct master *m, int link, int64_t until_ms)
{
    struct ipc_message *message = &m->inherit.link.message;
    int got = ipc_recv(link, message);
    if (got > 0) {
        int error = take(m, message);
        ipc_close_fds(message);
        return error;
    }
    int64_t left_ms = until_ms - clock_mono_ms();
    if (got < 0 || left_ms <= 0)
        return got < 0 ? got : -ETIMEDOUT;
    struct pollfd p = {.fd = link, .events = POLLIN};
    return poll(&p, 1, (int)left_ms) < 0 && errno != EINTR ? -errno : 0;
}

int inherit_receive(struct master *m, int link, char *why, size_t cap)
{
    struct inherit *in = &m->inherit;
    int64_t until_ms = clock_mono_ms() + (int64_t)(INHERIT_RECEIVE_S * 1e3);
    int error = 0;
    in->link.fd = link;
    m->source.inherited = m->source.inherited ? m->source.inherited : listeners_new();
    if (!m->source.inherited)
        error = -ENOMEM;
    fcntl(link, F_SETFL, O_NONBLOCK);
    while (!error && !in->is_sent)
        error = receive_one(m, link, until_ms);
    if (!error && !*m->instance_id)
        error = -EPROTO;
    if (error) {
        snprintf(why, cap, "the old master's state cannot be taken over: %s", log_errno(error));
        return error;
    }
    in->phase = INHERIT_STARTING;
    listeners_set_shared(m->source.inherited, true);
    log_notice("upgrade-from", "version", in->start.release, "generation",
               LOG_INT(in->start.generation));
    return 0;
}

bool inherit_is_active(const struct master *m)
{
    return m->inherit.phase == INHERIT_STARTING || m->inherit.phase == INHERIT_READY;
}

/* ---- shared memory, control socket ---- */

static uint32_t free_slots(const struct upgrade_slots *slots, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += !(slots->in_use[i / 8] & 1u << i % 8);
    return n;
}

/* Maps one; the descriptor belongs to it then. */
static int map_segment(struct master *m, enum upgrade_segment_kind kind)
{
    int fd = m->inherit.segments[kind], error = -EPROTO;
    if (kind == SEGMENT_TRACE && !m->inherit.start.trace_size)
        return 0;
    if (fd < 0)
        return error;
    switch (kind) {
    case SEGMENT_COUNTERS:
        error = counters_adopt(&m->counters, fd);
        break;
    case SEGMENT_TRACE:
        error = trace_adopt(&m->trace, m->counters.head->slots, m->inherit.start.trace_size, fd);
        break;
    case SEGMENT_USERS:
        error = usertable_adopt(fd, &m->users);
        break;
    case SEGMENT_ADDRESSES:
        error = usertable_adopt(fd, &m->addresses);
        break;
    case SEGMENT_KINDS:
        break;
    }
    if (!error)
        m->inherit.segments[kind] = -1;
    return error;
}

static void unmap(struct master *m)
{
    trace_destroy(&m->trace);
    counters_destroy(&m->counters);
    usertable_free(m->users);
    usertable_free(m->addresses);
    m->users = m->addresses = NULL;
}

bool inherit_map(struct master *m)
{
    struct inherit *in = &m->inherit;
    int error = 0;
    if (!inherit_is_active(m))
        return false;
    const char *obstacle = "it is laid out differently";
    if (in->start.layout != upgrade_layout() ||
        in->start.trace_size != trace_rounded((uint32_t)m->current->opt->trace_size))
        error = -EPROTO;
    for (int kind = 0; !error && kind < SEGMENT_KINDS; kind++)
        error = map_segment(m, (enum upgrade_segment_kind)kind);
    if (!error &&
        free_slots(&in->start.slots, m->counters.head->slots) < m->current->workers) {
        obstacle = "it has too few free slots";
        error = -ENOSPC;
    }
    in->has_segments = !error;
    if (!error)
        return true;
    unmap(m);
    log_notice("shared-memory-anew", "reason", obstacle);
    return false;
}

void inherit_take_totals(struct master *m)
{
    const struct text_buf *totals = &m->inherit.totals;
    if (!m->inherit.has_segments && totals->len)
        counters_take_earlier(&m->counters, (struct text_span){totals->data, totals->len});
}

bool inherit_control(struct master *m, const char *path, const struct control_handlers *handlers)
{
    struct inherit *in = &m->inherit;
    struct unixsock_file file = {in->control.file_dev, in->control.file_ino};
    if (in->control_fd < 0 || strcmp(path, in->control.path) ||
        control_adopt(m->loop, path, in->control_fd, &file, handlers, m, &m->control))
        return false;
    in->control_fd = -1;
    in->has_control = true;
    return true;
}

/* ---- in the loop ---- */

static void set_timer(struct master *m, double after_s)
{
    ev_timer_stop(m->loop, &m->inherit.timer);
    ev_timer_set(&m->inherit.timer, after_s, 0.0);
    ev_timer_start(m->loop, &m->inherit.timer);
}

static void take_over(struct master *m, bool reload_again)
{
    ev_timer_stop(m->loop, &m->inherit.timer);
    m->inherit.phase = INHERIT_SERVING;
    m->reload_again = reload_again;
    master_begin(m);
}

/* One old worker's links: the first goes to the worker in the first place, and so on. */
static void take_links(struct master *m, struct ipc_message *message)
{
    uint32_t slots[IPC_FDS_MAX];
    int fd;
    uint32_t count = supervisor_list(m->supervisor, m->current->number, SLOT_PHASE_READY, slots,
                                     IPC_FDS_MAX);
    for (uint32_t i = 0; (fd = ipc_take_fd(message)) >= 0; i++) {
        if (i >= count) { /* a worker died meanwhile: the giver finds the link closed */
            close(fd);
            continue;
        }
        int error = supervisor_take(m->supervisor, slots[i], fd);
        if (error)
            log_warning("take-over-failed", "slot", LOG_INT(slots[i]), "error", log_errno(error));
    }
}

static void on_message(void *data, struct ipc_message *message)
{
    struct master *m = data;
    struct inherit *in = &m->inherit;
    struct upgrade_slots slots;
    struct upgrade_switch order;
    switch (message->type) {
    case UPGRADE_SWITCH:
        if (in->phase == INHERIT_READY && read_body(message, &order, sizeof(order)))
            take_over(m, order.reload_again);
        break;
    case UPGRADE_TAKE:
        if (in->phase == INHERIT_SERVING)
            take_links(m, message);
        break;
    case UPGRADE_SLOTS:
        if (in->has_segments && read_body(message, &slots, sizeof(slots)))
            supervisor_set_foreign(m->supervisor, slots.in_use);
        upgrade_on_gone(m); /* the next master is told, too */
        break;
    case UPGRADE_TOTALS:
        if (!take_text(&in->totals, message))
            inherit_take_totals(m);
        break;
    default:
        log_warning("upgrade-unexpected", "message", upgrade_name(message->type));
    }
}

static void on_end(void *data)
{
    struct master *m = data;
    bool is_waiting = m->inherit.phase == INHERIT_READY;
    if (m->inherit.has_segments)
        supervisor_take_orphans(m->supervisor);
    if (m->inherit.phase == INHERIT_SERVING) {
        log_info("old-master-gone");
        m->inherit.phase = INHERIT_NOTHING;
        return;
    }
    log_warning("old-master-lost", "then", "this one takes over");
    if (is_waiting)
        take_over(m, false);
    m->inherit.phase = INHERIT_NOTHING;
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    master_fail_upgrade(timer->data, "the old master does not answer");
}

void inherit_watch(struct master *m)
{
    struct inherit *in = &m->inherit;
    if (!inherit_is_active(m))
        return;
    if (in->has_segments)
        supervisor_set_foreign(m->supervisor, in->start.slots.in_use);
    upgrade_link_open(&in->link, m->loop, in->link.fd);
}

void inherit_ready(struct master *m)
{
    struct inherit *in = &m->inherit;
    struct upgrade_ready ready = {.workers = m->current->workers,
                                  .has_control = in->has_control,
                                  .has_segments = in->has_segments,
                                  .drop = master_drain_order(m, true).drop,
                                  .drain_ms = m->current->opt->drain_time};
    if (in->phase != INHERIT_STARTING)
        return;
    in->phase = INHERIT_READY;
    set_timer(m, INHERIT_SWITCH_S);
    upgrade_link_send(&in->link, UPGRADE_READY, &ready, sizeof(ready), NULL, 0);
}

void inherit_fail(struct master *m, const char *reason)
{
    if (inherit_is_active(m) || (m->inherit.phase == INHERIT_NOTHING && m->inherit.link.fd >= 0))
        inherit_tell_failure(m->inherit.link.fd, reason);
}

void inherit_init(struct master *m)
{
    struct inherit *in = &m->inherit;
    in->link = (struct upgrade_link){.fd = -1, .on_message = on_message, .on_end = on_end};
    in->link.data = m;
    in->link.last = &in->link.first;
    in->control_fd = -1;
    for (int i = 0; i < SEGMENT_KINDS; i++)
        in->segments[i] = -1;
    ev_timer_init(&in->timer, on_timer, 0.0, 0.0);
    in->timer.data = m;
}

void inherit_fini(struct master *m)
{
    struct inherit *in = &m->inherit;
    ev_timer_stop(m->loop, &in->timer);
    if (in->link.loop)
        upgrade_link_close(&in->link);
    else if (in->link.fd >= 0)
        close(in->link.fd);
    if (in->control_fd >= 0)
        close(in->control_fd);
    for (int i = 0; i < SEGMENT_KINDS; i++)
        if (in->segments[i] >= 0)
            close(in->segments[i]);
    text_buf_free(&in->totals);
}
