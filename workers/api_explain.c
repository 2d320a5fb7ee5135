#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "shared/inquiry.h"
#include "workers/api.h"

/* More than this is not read within one turn of the loop: belfryctl asks the master, which takes
 * its time. */
#define MAX_RECORDS (UINT32_C(1) << 20)

/* ?user=U&id=I into q. False when one is missing, too long, or badly encoded. */
static bool read_question(const struct request *rq, struct inquiry *q)
{
    struct text_span raw;
    char user[KEYS_USER_ID_MAX_BYTES + 1], id[INQUIRY_ID_MAX_BYTES + 1];
    int user_len = 0, id_len = 0;
    if (text_query_find(http_query(rq->http), "user", &raw))
        user_len = text_percent_decode(raw, true, user, sizeof(user));
    if (text_query_find(http_query(rq->http), "id", &raw))
        id_len = text_percent_decode(raw, true, id, sizeof(id));
    q->ask = INQUIRY_EXPLAIN;
    return user_len > 0 && id_len > 0 &&
           !inquiry_set(q, user, (size_t)user_len, id, (size_t)id_len);
}

/* The records of one worker's ring, those of messages and of the user's connections. */
static void add_ring(const struct trace *t, uint32_t slot, const struct inquiry *q,
                     struct trace_record *found, struct text_buf *out, bool *is_cut)
{
    bool is_ring_cut = false;
    size_t n = trace_find(t, slot, q->user_hash, q->id_hash, found, &is_ring_cut);
    *is_cut |= is_ring_cut;
    for (size_t i = 0; i < n; i++) {
        struct inquiry_record record = {.trace = found[i], .slot = slot};
        if (out->data[out->len - 1] != '[')
            text_addc(out, ',');
        inquiry_write_record(out, &record, NULL);
        if (out->failed)
            return;
    }
}

/* What this instance's workers remember of a message, as records of the trace: belfryctl explain
 * tells more, and of all instances. */
void api_explain(const struct request *rq)
{
    const struct trace *t = rq->worker->start->trace;
    bool is_on = t && t->segment;
    struct inquiry q = {0};
    struct text_buf body = {0};
    bool is_cut = false;
    if (!read_question(rq, &q)) {
        reply_error(rq->reply, 422, "user and id: are required as query parameters", NULL);
        return;
    }
    if (is_on && (uint64_t)t->slots * t->size > MAX_RECORDS) {
        reply_error(rq->reply, 503, "The trace is too large to be read here: belfryctl explain",
                    NULL);
        return;
    }
    struct trace_record *found = calloc(TRACE_FOUND_MAX, sizeof(*found));
    text_addf(&body, "{\"instance_id\":\"%s\",\"trace_size\":%u,\"records\":[",
              rq->worker->start->instance_id, is_on ? t->size : 0);
    for (uint32_t slot = 0; found && is_on && slot < t->slots && !body.failed; slot++)
        add_ring(t, slot, &q, found, &body, &is_cut);
    body.failed |= !found;
    free(found);
    text_addf(&body, "],\"cut\":%s,", is_cut ? "true" : "false");
    api_add_timestamp(rq->worker, &body);
    text_addc(&body, '}');
    reply_json(rq->reply, 200, &body);
}
