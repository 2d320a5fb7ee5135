#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "workers/api.h"
#include "workers/store.h"

/* Members of redis_stats, without the braces. */
#define NO_INFO "\"error\":\"Redis is not available\""

/* ---- redis_stats ---- */

/* Fields of INFO that are told, under the names that readers of /ws/stats know. */
static const struct {
    const char *field, *name;
    bool is_number;
} info_fields[] = {
    {"connected_clients", "connected_clients", true},
    {"total_commands_processed", "total_commands_processed", true},
    {"used_memory", "used_memory", true},
    {"used_memory_human", "used_memory_human", false},
    {"redis_version", "redis_version", false},
    {"uptime_in_seconds", "uptime_seconds", true},
    {"role", "role", false},
};

/* Value of "field:value\r\n" in INFO's text; len 0 when absent. */
static struct text_span info_find(struct text_span info, const char *field)
{
    size_t len = strlen(field);
    if (!info.len) /* and no address either */
        return (struct text_span){NULL, 0};
    const char *end = info.ptr + info.len;
    for (const char *line = info.ptr; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            stop = end;
        if ((size_t)(stop - line) > len && line[len] == ':' && memcmp(line, field, len) == 0) {
            struct text_span value = {line + len + 1, (size_t)(stop - line) - len - 1};
            if (value.len && value.ptr[value.len - 1] == '\r')
                value.len--;
            return value;
        }
        line = stop + 1;
    }
    return (struct text_span){NULL, 0};
}

static bool is_count(struct text_span s)
{
    if (s.len == 0 || s.len > 18 || (s.len > 1 && s.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    }
    return true;
}

static void info_members(struct text_span info, struct text_buf *out)
{
    for (size_t i = 0; i < sizeof(info_fields) / sizeof(info_fields[0]); i++) {
        struct text_span value = info_find(info, info_fields[i].field);
        text_addf(out, "%s\"%s\":", i ? "," : "", info_fields[i].name);
        if (!value.len || (info_fields[i].is_number && !is_count(value)))
            text_adds(out, "null");
        else if (info_fields[i].is_number)
            text_add(out, value.ptr, value.len);
        else
            text_add_json(out, value.ptr, value.len);
    }
}

/* ---- the answer ---- */

static void add_group(const struct counters *c, int slot, const char *group, struct text_buf *out)
{
    text_addf(out, ",\"%s\":", group);
    counters_json_group(c, slot, group, out);
}

/* Every counter but those of Redis, which go elsewhere in the sum. */
static void add_groups(const struct counters *c, int slot, struct text_buf *out)
{
    static const char *const groups[] = {"messages", "connections", "http",
                                         "client",   "process",     "latency", "turns",
                                         "closes"};
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
        add_group(c, slot, groups[i], out);
}

static void add_statistics(const struct worker *w, const char *info, struct text_buf *out)
{
    const struct counters *c = w->start->counters;
    struct text_buf own = {0};
    text_addf(out,
              "\"statistics\":{\"active_connections\":%llu,\"connected_users\":%u,"
              "\"total_connections_since_start\":%llu,\"uptime_seconds\":%lld,"
              "\"active_subscribers\":%llu",
              (unsigned long long)counters_sum(c, CTR_websockets), usertable_users(w->start->users),
              (unsigned long long)counters_sum(c, CTR_websockets_opened), api_uptime_s(w),
              (unsigned long long)counters_sum(c, CTR_redis_subscriptions));
    add_groups(c, -1, out);
    counters_json_group(c, -1, "redis", &own);
    if (own.failed)
        out->failed = true;
    else
        text_addf(out, ",\"redis_stats\":{%s,%s}", info, own.data + 1);
    text_buf_free(&own);
}

static const char *state_name(uint32_t state)
{
    static const char *const names[] = {"empty", "starting", "ready", "draining", "stopping"};
    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

static void add_worker(const struct counters *c, uint32_t slot, struct text_buf *out)
{
    const struct counters_slot *s = &c->slots[slot];
    int64_t started_ms = (int64_t)counters_get(c, slot, CTR_started_at_ms);
    int64_t up_ms = started_ms ? clock_wall_ms() - started_ms : 0;
    text_addf(out,
              "{\"slot\":%u,\"pid\":%u,\"generation\":%u,\"state\":\"%s\",\"restarts\":%u,"
              "\"active_connections\":%llu,\"connected_users\":%llu,"
              "\"total_connections_since_start\":%llu,\"uptime_seconds\":%lld,"
              "\"active_subscribers\":%llu",
              slot, __atomic_load_n(&s->pid, __ATOMIC_RELAXED),
              __atomic_load_n(&s->generation, __ATOMIC_RELAXED),
              state_name(__atomic_load_n(&s->state, __ATOMIC_RELAXED)),
              __atomic_load_n(&s->restarts, __ATOMIC_RELAXED),
              (unsigned long long)counters_get(c, slot, CTR_websockets),
              (unsigned long long)counters_get(c, slot, CTR_connected_users_local),
              (unsigned long long)counters_get(c, slot, CTR_websockets_opened),
              up_ms > 0 ? (long long)(up_ms / 1000) : 0,
              (unsigned long long)counters_get(c, slot, CTR_redis_subscriptions));
    add_groups(c, (int)slot, out);
    add_group(c, (int)slot, "redis", out);
    text_addc(out, '}');
}

static void add_workers(const struct worker *w, struct text_buf *out)
{
    const struct counters *c = w->start->counters;
    bool first = true;
    text_adds(out, "\"workers\":[");
    for (uint32_t i = 0; i < c->head->slots; i++) {
        if (__atomic_load_n(&c->slots[i].state, __ATOMIC_RELAXED) == SLOT_EMPTY)
            continue;
        if (!first)
            text_addc(out, ',');
        add_worker(c, i, out);
        first = false;
    }
    text_addc(out, ']');
}

static void add_manager(const struct worker *w, struct text_buf *out)
{
    const struct counters *c = w->start->counters;
    struct counters_reload reload;
    text_addf(out, "\"manager_info\":{\"connected_users\":%u,\"total_connections\":%llu,"
              "\"instance_id\":\"%s\",\"generation\":%u,\"last_reload\":",
              usertable_users(w->start->users),
              (unsigned long long)counters_sum(c, CTR_websockets), w->start->instance_id,
              __atomic_load_n(&c->head->generation, __ATOMIC_RELAXED));
    if (counters_get_reload(c, &reload)) {
        char at[CLOCK_ISO_BYTES];
        clock_format_us(reload.at_ms * 1000, true, at);
        text_addf(out, "{\"ok\":%s,\"at\":\"%s\",\"message\":", reload.ok ? "true" : "false", at);
        text_add_json(out, reload.message, strlen(reload.message));
        text_addc(out, '}');
    } else {
        text_adds(out, "null");
    }
    text_adds(out, "},");
}

static void answer(struct reply *r, const char *info)
{
    const struct worker *w = r->worker;
    struct text_buf body = {0};
    text_addc(&body, '{');
    add_statistics(w, info, &body);
    text_addc(&body, ',');
    add_workers(w, &body);
    text_addc(&body, ',');
    add_manager(w, &body);
    api_add_timestamp(w, &body);
    text_addc(&body, '}');
    reply_json(r, 200, &body);
}

static void on_info(void *data, int error, struct text_span text)
{
    struct reply *r = data;
    struct text_buf info = {0};
    r->waiting = NULL;
    if (error) {
        answer(r, NO_INFO);
        return;
    }
    info_members(text, &info);
    if (info.failed)
        reply_error(r, 500, "Out of memory", NULL);
    else
        answer(r, info.data);
    text_buf_free(&info);
}

/* Redis is asked each time: what each worker had kept would differ from one to the next, and totals
 * go back.
 *
 * ?close ends the connection with the answer: a load balancer that chooses once for each connection
 * gives whoever asks again the chance of another instance. A page's script cannot send the header
 * for it. */
void api_stats(const struct request *rq)
{
    struct reply *r = rq->reply;
    struct text_span value;
    if (text_query_find(http_query(rq->http), "close", &value))
        r->keep_alive = false;
    r->waiting = store_info(rq->worker->store, on_info, r);
    if (!r->waiting)
        answer(r, NO_INFO);
}
