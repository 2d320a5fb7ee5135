/*
 * api.h - the handlers of the HTTP endpoints, as the router's table calls them.
 *
 * Each answers request->reply exactly once: before it returns, or from the callback of a store
 * call that it kept in reply->waiting. Nothing of the request but the reply outlives the call.
 * belfryd(8), "HTTP endpoints".
 */
#ifndef BELFRY_WORKERS_API_H
#define BELFRY_WORKERS_API_H

#include "workers/router.h"

struct request {
    struct reply *reply;
    struct worker *worker;
    const struct http *http;
    const struct token_claims *claims; /* NULL where anyone may ask */
    const char *user_id;               /* of the path, decoded; NULL without */
    size_t user_id_len;
};

void api_health(const struct request *rq);
void api_stats(const struct request *rq);
void api_explain(const struct request *rq);
void api_test_message(const struct request *rq);
void api_broadcast(const struct request *rq);
void api_metrics(const struct request *rq);

/* "timestamp":"..." of now, in the worker's style. */
void api_add_timestamp(const struct worker *w, struct text_buf *out);
/* Number of workers that serve. */
uint32_t api_ready_workers(const struct worker *w);
/* Whole seconds since the instance started. */
long long api_uptime_s(const struct worker *w);

#endif
