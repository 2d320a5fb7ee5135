/*
 * ctl_status.c - belfryctl status: what the running server says about itself, on one screen.
 */
#include "config.h"

#include <string.h>

#include "shared/clock.h"
#include "shared/json.h"
#include "src/ctl.h"
#include "src/ctl_reply.h"

static void add_address(void *data, struct text_span address)
{
    struct text_buf *b = data;
    char text[256];
    text_addf(b, "%s%s", b->data[b->len - 1] == ' ' ? "" : ",",
              ctl_text(address, text, sizeof(text)));
}

static void add_listeners(struct text_buf *b, struct text_span status)
{
    struct text_span list, metrics;
    char text[256];
    text_adds(b, "listen      ");
    if (json_find(status, "listen", &list))
        json_scan_array(list.ptr, list.len, add_address, b);
    if (json_find(status, "metrics_listen", &metrics) && json_kind(metrics) == JSON_KIND_STRING)
        text_addf(b, "; metrics %s", ctl_text_of(status, "metrics_listen", text, sizeof(text)));
    text_addc(b, '\n');
}

static void add_head(struct text_buf *b, struct text_span status, bool has_colour)
{
    char a[512], d[64], e[64];
    text_addf(b, "belfryd %s, pid %lld, ", ctl_text_of(status, "version", d, sizeof(d)),
              ctl_number_of(status, "pid"));
    ctl_add_state(b, ctl_text_of(status, "state", e, sizeof(e)), 0, has_colour);
    text_adds(b, ", up ");
    ctl_add_duration(b, ctl_number_of(status, "uptime_seconds"));
    text_addf(b, ", generation %lld\n", ctl_number_of(status, "generation"));
    text_addf(b, "instance    %s\n", ctl_text_of(status, "instance_id", a, sizeof(a)));
    ctl_text_of(status, "config_file", a, sizeof(a));
    text_addf(b, "config      %s\n", a[0] ? a : "(none)");
    add_listeners(b, status);
}

static void add_link(struct text_buf *b, const char *what, long long up, long long workers,
                     bool has_colour)
{
    text_addf(b, "%s ", what);
    ctl_add_state(b, up >= workers ? "up" : "DOWN", 0, has_colour);
    if (up < workers)
        text_addf(b, " for %lld of %lld workers", workers - up, workers);
    text_adds(b, ", ");
}

static void add_probe(struct text_buf *b, struct text_span links)
{
    char at[64];
    int64_t at_us;
    ctl_text_of(links, "last_delivery_probe_at", at, sizeof(at));
    if (ctl_has(links, "latency_ms"))
        text_addf(b, "answers in %.1f ms", ctl_real_of(links, "latency_ms"));
    else
        text_adds(b, "does not answer");
    if (clock_parse_us(at, strlen(at), &at_us) != 0) {
        text_adds(b, "; no delivery probe came back yet\n");
        return;
    }
    text_addf(b, "; last delivery probe took %.1f ms, ",
              ctl_real_of(links, "last_delivery_probe_ms"));
    int64_t ago_s = (clock_wall_us() - at_us) / 1000000;
    ctl_add_duration(b, ago_s > 0 ? ago_s : 0);
    text_adds(b, " ago\n");
}

static void add_redis(struct text_buf *b, struct text_span status, struct text_span totals,
                      bool has_colour)
{
    char url[512];
    struct text_span links = ctl_object_of(status, "redis_links");
    long long workers = ctl_number_of(links, "workers");
    text_addf(b, "redis       %s\n            ", ctl_text_of(status, "redis", url, sizeof(url)));
    add_link(b, "subscriber links", ctl_number_of(links, "subscriber_up"), workers, has_colour);
    add_link(b, "command links", ctl_number_of(links, "command_up"), workers, has_colour);
    text_addf(b, "%lld subscriptions, %lld links lost\n            ",
              ctl_nested(totals, "redis", "redis_subscriptions"),
              ctl_nested(totals, "redis", "redis_disconnects"));
    add_probe(b, links);
}

static void add_reload(struct text_buf *b, struct text_span status, bool has_colour)
{
    struct text_span last = ctl_object_of(status, "last_reload");
    char at[64], message[512];
    text_adds(b, "reload      ");
    if (!ctl_has(status, "last_reload")) {
        text_adds(b, "none yet\n");
        return;
    }
    ctl_text_of(last, "message", message, sizeof(message));
    ctl_add_state(b, ctl_is_true(last, "ok") ? "done" : "REFUSED", 0,
                  has_colour && !ctl_is_true(last, "ok"));
    text_addf(b, " at %s%s%s\n", ctl_text_of(last, "at", at, sizeof(at)), message[0] ? ": " : "",
              message);
}

static void add_rates(struct text_buf *b, struct text_span rates)
{
    text_addf(b, "now         %.1f received/s, %.1f delivered/s, %.1f commands/s; in ",
              ctl_real_of(rates, "received"), ctl_real_of(rates, "delivered"),
              ctl_real_of(rates, "commands"));
    ctl_add_bytes(b, ctl_real_of(rates, "received_bytes"));
    text_adds(b, "/s, out ");
    ctl_add_bytes(b, ctl_real_of(rates, "sent_bytes"));
    text_addf(b, "/s; %.1f new connections/s", ctl_real_of(rates, "opened"));
    ctl_add_latency(b, rates);
    text_addc(b, '\n');
}

static void add_totals(struct text_buf *b, struct text_span status, struct text_span totals)
{
    text_addf(b, "clients     %lld connections of %lld users; %lld so far, %lld tokens refused\n",
              ctl_nested(totals, "connections", "websockets"),
              ctl_number_of(status, "connected_users"),
              ctl_nested(totals, "connections", "websockets_opened"),
              ctl_nested(totals, "connections", "auth_failures"));
    text_addf(b, "messages    %lld received, %lld delivered, %lld replayed, %lld not relayed\n",
              ctl_nested(totals, "messages", "messages_received"),
              ctl_nested(totals, "messages", "deliveries"),
              ctl_nested(totals, "messages", "messages_replayed"),
              ctl_nested(totals, "messages", "messages_invalid_json") +
                  ctl_nested(totals, "messages", "messages_invalid_utf8") +
                  ctl_nested(totals, "messages", "messages_not_object"));
}

struct screen {
    struct text_buf *b;
    bool has_colour;
};

static void add_worker(void *data, struct text_span worker)
{
    struct screen *s = data;
    struct text_span rates = ctl_object_of(worker, "rates");
    char state[32];
    text_addf(s->b, "  %4lld %8lld %4lld ", ctl_number_of(worker, "slot"),
              ctl_number_of(worker, "pid"), ctl_number_of(worker, "generation"));
    ctl_add_state(s->b, ctl_text_of(worker, "state", state, sizeof(state)), 9, s->has_colour);
    text_addf(s->b, " %5lld %11lld %11.1f %11.1f %11.1f\n", ctl_number_of(worker, "restarts"),
              ctl_nested(worker, "connections", "websockets"), ctl_real_of(rates, "received"),
              ctl_real_of(rates, "delivered"), ctl_real_of(rates, "commands"));
}

static void render_status(struct text_span status, struct text_buf *b)
{
    struct screen screen = {b, ctl_has_colour()};
    struct text_span totals = ctl_object_of(status, "totals"), workers;
    add_head(b, status, screen.has_colour);
    add_redis(b, status, totals, screen.has_colour);
    add_reload(b, status, screen.has_colour);
    add_totals(b, status, totals);
    add_rates(b, ctl_object_of(status, "rates"));
    text_addf(b, "workers     %lld, %lld restarted\n", ctl_number_of(status, "worker_count"),
              ctl_number_of(status, "restarts"));
    text_addf(b, "  %4s %8s %4s %-9s %5s %11s %11s %11s %11s\n", "slot", "pid", "gen", "state",
              "died", "connections", "received/s", "delivered/s", "commands/s");
    if (json_find(status, "workers", &workers))
        json_scan_array(workers.ptr, workers.len, add_worker, &screen);
}

int ctl_status(struct ctl *c)
{
    struct text_buf reply = {0}, text = {0};
    int result = ctl_ask(c, "status", 5000, &reply);
    if (result == CTL_DONE && ctl_flag(c, "json")) {
        result = ctl_print_line(reply.data, reply.len) == 0 ? CTL_DONE : CTL_FAILED;
    } else if (result == CTL_DONE) {
        render_status(ctl_reply_span(&reply), &text);
        result = ctl_print(&text);
    }
    text_buf_free(&reply);
    return result;
}
