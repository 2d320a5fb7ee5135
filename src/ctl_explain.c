/*
 * ctl_explain.c - belfryctl explain: what happened to one message. Asks Redis for what is stored
 * and the running server for what the traces say (src/explain.h), and shows what
 * shared/explanation.h makes of it.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/explanation.h"
#include "src/ctl.h"
#include "src/ctl_reply.h"
#include "src/ctl_stored.h"


/* 0 when the server answered, whatever it did; negative errno, told. */
static int ask_server(struct ctl *c, struct explanation *q, int64_t timeout_ms,
                      struct text_buf *reply)
{
    struct text_buf request = {0};
    text_adds(&request, "explain ");
    ctl_add_word(&request, q->user);
    text_addc(&request, ' ');
    ctl_add_word(&request, q->id);
    int error = ctl_ask_workers(c, &request, timeout_ms, reply);
    text_buf_free(&request);
    if (!error)
        explanation_take(q, ctl_reply_span(reply));
    return error;
}

static int answer(const struct ctl *c, struct explanation *q)
{
    struct text_buf b = {0};
    if (explanation_judge(q) != 0) {
        ctl_say("out of memory");
        return CTL_FAILED;
    }
    if (ctl_flag(c, "json")) {
        text_addc(&b, '{');
        explanation_json(q, &b);
        text_adds(&b, "}\n");
    } else {
        explanation_table(q, &b);
    }
    int result = ctl_print(&b);
    if (q->has_server)
        ctl_name_silent(c, q->reply);
    if (result != CTL_DONE || q->is_known)
        return result;
    ctl_say("%s: nobody knows this message of %s", q->id, q->user);
    return CTL_FAILED;
}

int ctl_explain(struct ctl *c)
{
    struct explanation q = {.user = c->words.items[0], .id = c->words.items[1]};
    struct text_buf reply = {0};
    size_t id_len = strlen(q.id);
    int64_t timeout_ms;
    if (ctl_check_user(q.user) != 0 || ctl_time(c, "timeout", CTL_WORKERS_MS, &timeout_ms) != 0)
        return CTL_USAGE;
    if (!id_len || id_len > INQUIRY_ID_MAX_BYTES) {
        ctl_say("a message id has 1 to %d bytes", INQUIRY_ID_MAX_BYTES);
        return CTL_USAGE;
    }
    q.has_stored = ctl_stored_read(c, q.user, q.id, &q.stored) == 0;
    int asked = ask_server(c, &q, timeout_ms, &reply);
    int result = CTL_FAILED;
    if (q.has_stored || q.has_server)
        result = answer(c, &q);
    else if (asked == -ETIMEDOUT)
        result = CTL_TIMED_OUT;
    explanation_fini(&q);
    text_buf_free(&reply);
    return result;
}
