#include "config.h"

#include "workers/api.h"

static void add_gauge(struct text_buf *out, const char *name, const char *help, long long value)
{
    text_addf(out, "# HELP belfry_%s %s\n# TYPE belfry_%s gauge\nbelfry_%s %lld\n", name, help,
              name, name, value);
}

void api_metrics(const struct request *rq)
{
    const struct worker *w = rq->worker;
    const struct counters_head *head = w->start->counters->head;
    struct text_buf body = {0};
    text_addf(&body,
              "# HELP belfry_build_info Version of the running program.\n"
              "# TYPE belfry_build_info gauge\n"
              "belfry_build_info{version=\"%.*s\"} 1\n",
              (int)sizeof(head->version), head->version);
    add_gauge(&body, "connected_users", "Distinct users connected, over all workers.",
              usertable_users(w->start->users));
    add_gauge(&body, "workers", "Workers that serve.", api_ready_workers(w));
    add_gauge(&body, "uptime_seconds", "Time since the instance started.", api_uptime_s(w));
    counters_prometheus(w->start->counters, &body);
    if (body.failed)
        reply_error(rq->reply, 500, "Out of memory", NULL);
    else
        reply_send(rq->reply, 200, "text/plain; version=0.0.4",
                   (struct text_span){body.data, body.len});
    text_buf_free(&body);
}
