#include "config.h"

#include "workers/api.h"

void api_demo(const struct request *rq)
{
    reply_send(rq->reply, 200, "text/html; charset=utf-8",
               text_span_of(rq->worker->start->demo_page));
}
