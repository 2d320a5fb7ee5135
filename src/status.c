#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"
#include "src/master_priv.h"

static const char *const groups[] = {"connections", "http",    "messages", "client",
                                     "redis",       "process", "latency",  "turns",
                                     "closes"};

static void add_string(struct text_buf *out, const char *name, const char *value)
{
    text_addf(out, ",\"%s\":", name);
    if (value)
        text_add_json(out, value, strlen(value));
    else
        text_adds(out, "null");
}

static void add_time(struct text_buf *out, const char *name, int64_t wall_ms)
{
    char text[CLOCK_ISO_BYTES];
    clock_format_us(wall_ms * 1000, true, text);
    add_string(out, name, text);
}

/* The members of one slot's, or (slot < 0) of all slots' counter groups. */
static void add_groups(const struct master *m, int slot, bool is_first, struct text_buf *out)
{
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        text_addf(out, "%s\"%s\":", i || !is_first ? "," : "", groups[i]);
        counters_json_group(&m->counters, slot, groups[i], out);
    }
}

static void add_addresses(const struct master *m, struct text_buf *out)
{
    const struct listeners *l = m->current->listeners;
    const char *address, *metrics = NULL;
    bool is_metrics, is_first = true;
    text_adds(out, ",\"listen\":[");
    for (size_t i = 0; (address = listeners_address(l, i, &is_metrics)); i++) {
        if (is_metrics) {
            metrics = address;
            continue;
        }
        if (!is_first)
            text_addc(out, ',');
        text_add_json(out, address, strlen(address));
        is_first = false;
    }
    text_addc(out, ']');
    add_string(out, "metrics_listen", metrics);
}

static void add_last_reload(const struct master *m, struct text_buf *out)
{
    if (!m->last_reload_ms) {
        text_adds(out, ",\"last_reload\":null");
        return;
    }
    text_addf(out, ",\"last_reload\":{\"ok\":%s", m->last_reload_ok ? "true" : "false");
    add_time(out, "at", m->last_reload_ms);
    add_string(out, "message", m->last_message.data ? m->last_message.data : "");
    text_addc(out, '}');
}

/* Resident memory of a worker, pages that it shares with others included; 0: not known. proc(5). */
static unsigned long long resident_bytes(pid_t pid)
{
    char path[40], text[64] = "";
    unsigned long long pages = 0;
    snprintf(path, sizeof(path), "/proc/%ld/statm", (long)pid);
    int fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    const char *second = read(fd, text, sizeof(text) - 1) > 0 ? strchr(text, ' ') : NULL;
    if (second)
        pages = strtoull(second, NULL, 10);
    close(fd);
    return pages * (unsigned long long)sysconf(_SC_PAGESIZE);
}

static void add_worker(const struct master *m, const struct supervisor_worker *w,
                       struct text_buf *out)
{
    text_addf(out, "{\"slot\":%u,\"position\":%u,\"pid\":%ld,\"generation\":%u", w->slot, w->place,
              (long)w->pid, w->generation);
    add_string(out, "state", slots_phase_name(w->phase));
    text_addf(out, ",\"restarts\":%u,\"uptime_seconds\":%lld", w->restarts,
              (long long)(w->uptime_ms / 1000));
    unsigned long long resident = resident_bytes(w->pid);
    if (resident)
        text_addf(out, ",\"rss_bytes\":%llu,\"rates\":", resident);
    else
        text_adds(out, ",\"rss_bytes\":null,\"rates\":");
    rates_write(m->rates, (int)w->slot, out);
    add_groups(m, (int)w->slot, false, out);
    text_addc(out, '}');
}

static void add_workers(const struct master *m, struct text_buf *out)
{
    struct supervisor_worker w;
    bool is_first = true;
    text_adds(out, ",\"workers\":[");
    for (uint32_t i = 0; i < m->counters.head->slots; i++) {
        if (!supervisor_worker(m->supervisor, i, &w))
            continue;
        if (!is_first)
            text_addc(out, ',');
        add_worker(m, &w, out);
        is_first = false;
    }
    text_addc(out, ']');
}

/* Redis as the workers that serve see it: as bad as the worst of them. */
struct links {
    uint32_t workers, subscriber_up, command_up;
    uint64_t latency_us, probe_us;
    int64_t probed_at_ms; /* 0: one was never probed */
};

static void look_at_links(const struct counters *c, uint32_t slot, struct links *links)
{
    uint64_t latency_us = counters_get(c, slot, CTR_redis_latency_us);
    uint64_t probe_us = counters_get(c, slot, CTR_redis_delivery_probe_us);
    int64_t at_ms = (int64_t)counters_get(c, slot, CTR_redis_delivery_probe_at_ms);
    links->subscriber_up += counters_get(c, slot, CTR_redis_subscriber_up) != 0;
    links->command_up += counters_get(c, slot, CTR_redis_command_up) != 0;
    links->latency_us = latency_us > links->latency_us ? latency_us : links->latency_us;
    links->probe_us = probe_us > links->probe_us ? probe_us : links->probe_us;
    if (!links->workers++ || at_ms < links->probed_at_ms)
        links->probed_at_ms = at_ms;
}

static void add_links(const struct master *m, struct text_buf *out)
{
    struct links links = {0};
    struct supervisor_worker w;
    for (uint32_t i = 0; i < m->counters.head->slots; i++)
        if (supervisor_worker(m->supervisor, i, &w) && w.phase == SLOT_PHASE_READY)
            look_at_links(&m->counters, i, &links);
    text_addf(out, ",\"redis_links\":{\"workers\":%u,\"subscriber_up\":%u,\"command_up\":%u",
              links.workers, links.subscriber_up, links.command_up);
    if (links.workers && links.command_up == links.workers)
        text_addf(out, ",\"latency_ms\":%.3f", (double)links.latency_us / 1000);
    else
        text_adds(out, ",\"latency_ms\":null");
    if (links.probed_at_ms) {
        text_addf(out, ",\"last_delivery_probe_ms\":%.3f", (double)links.probe_us / 1000);
        add_time(out, "last_delivery_probe_at", links.probed_at_ms);
    } else {
        text_adds(out, ",\"last_delivery_probe_ms\":null,\"last_delivery_probe_at\":null");
    }
    text_addc(out, '}');
}

void status_write(const struct master *m, struct text_buf *out)
{
    const struct generation *g = m->current;
    char redis[512];
    redisurl_describe(&g->redis, redis, sizeof(redis));
    text_adds(out, "{\"ok\":true");
    add_string(out, "version", PACKAGE_VERSION);
    add_string(out, "instance_id", m->instance_id);
    text_addf(out, ",\"pid\":%ld", (long)getpid());
    add_string(out, "state", master_state_name(m->state));
    text_addf(out, ",\"generation\":%u,\"uptime_seconds\":%lld", g->number,
              (long long)((clock_mono_ms() - m->started_mono_ms) / 1000));
    add_time(out, "started_at", m->started_wall_ms);
    add_string(out, "config_file", *g->opt->file ? g->opt->file : NULL);
    add_addresses(m, out);
    add_string(out, "control_socket", g->opt->control_socket);
    add_string(out, "redis", redis);
    add_string(out, "user", m->privileges.name);
    add_last_reload(m, out);
    text_addf(out, ",\"connected_users\":%u,\"worker_count\":%u,\"restarts\":%llu",
              usertable_users(m->users), g->workers,
              (unsigned long long)supervisor_restarts(m->supervisor));
    add_links(m, out);
    text_adds(out, ",\"rates\":");
    rates_write(m->rates, -1, out);
    text_adds(out, ",\"totals\":{");
    add_groups(m, -1, true, out);
    text_addc(out, '}');
    add_workers(m, out);
    text_addc(out, '}');
}
