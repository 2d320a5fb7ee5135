#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/emit.h"
#include "shared/events.h"
#include "shared/json.h"
#include "shared/usertable.h"
#include "workers/api.h"
#include "workers/filter.h"
#include "workers/store.h"

/* A request whose message is on its way. */
struct sending {
    char type[FILTER_MAX_NAME_BYTES + 1];
    char user_id[KEYS_USER_ID_MAX_BYTES + 1];
    bool is_broadcast;
    uint32_t recipients;
    struct emit_command command;
};

static void sending_free(void *data)
{
    struct sending *s = data;
    emit_command_free(&s->command);
    free(s);
}

/* ---- reading the request ---- */

/* Decodes a query parameter. False when it is absent, empty, longer than cap - 1, badly encoded or
 * not printable. */
static bool query_word(const struct request *rq, const char *name, char *out, size_t cap)
{
    struct text_span raw;
    if (!text_query_find(http_query(rq->http), name, &raw) ||
        text_percent_decode(raw, true, out, cap) < 1)
        return false;
    for (const char *p = out; *p; p++) {
        if (*p <= ' ' || *p > '~')
            return false;
    }
    return true;
}

/* Copies all members of the body but those that are ours to write. */
struct copying {
    struct text_buf *out;
    const char *const *ours; /* NULL-terminated */
};

static void copy_member(void *data, struct text_span key, struct text_span value)
{
    struct copying *c = data;
    for (const char *const *name = c->ours; *name; name++) {
        if (json_key_is(key, *name))
            return;
    }
    text_addc(c->out, '"');
    text_add(c->out, key.ptr, key.len);
    text_adds(c->out, "\":");
    text_add(c->out, value.ptr, value.len);
    text_addc(c->out, ',');
}

/* {body's members, byte for byte; a comma follows each. False when the body is no object:
 * answered. */
static bool copy_body(const struct request *rq, const char *const *ours, struct text_buf *out)
{
    struct text_span body = http_body(rq->http);
    struct copying copying = {out, ours};
    text_addc(out, '{');
    enum json_result result = json_scan_object(body.ptr, body.len, copy_member, &copying);
    if (result == JSON_OK)
        return true;
    struct text_buf why = {0};
    text_addf(&why, "body: must be a JSON object, is %s",
              body.len ? json_result_text(result) : "empty");
    reply_error(rq->reply, 422, why.failed ? "body: must be a JSON object" : why.data, NULL);
    text_buf_free(&why);
    return false;
}

static struct sending *sending_new(const struct request *rq)
{
    struct sending *s = calloc(1, sizeof(*s));
    if (!s) {
        reply_error(rq->reply, 500, "Out of memory", NULL);
        return NULL;
    }
    rq->reply->data = s;
    rq->reply->free_data = sending_free;
    if (query_word(rq, "message_type", s->type, sizeof(s->type)))
        return s;
    reply_error(rq->reply, 422,
                "message_type: is required as a query parameter, 1 to 64 printable characters",
                NULL);
    return NULL;
}

/* ---- answering ---- */

static void reply_no_redis(struct reply *r)
{
    reply_error(r, 502, "WebSocket Service: Redis is not available", NULL);
}

static void on_emitted(void *data, int error, int64_t value)
{
    struct reply *r = data;
    const struct sending *s = r->data;
    struct text_buf body = {0}, message = {0};
    (void)value;
    r->waiting = NULL;
    if (error) {
        reply_no_redis(r);
        return;
    }
    if (s->is_broadcast)
        text_addf(&message, "System message broadcasted to %u users", s->recipients);
    else
        text_addf(&message, "Test message sent to user %s", s->user_id);
    text_adds(&body, "{\"success\":true,\"message\":");
    if (message.failed)
        body.failed = true;
    else
        text_add_json(&body, message.data, message.len);
    text_adds(&body, ",\"message_type\":");
    text_add_json(&body, s->type, strlen(s->type));
    text_addf(&body, ",\"id\":\"%s\"", s->command.id);
    if (s->is_broadcast)
        text_addf(&body, ",\"recipients\":%u", s->recipients);
    text_addc(&body, '}');
    text_buf_free(&message);
    reply_json(r, 200, &body);
}

static void emit(struct reply *r)
{
    struct sending *s = r->data;
    r->waiting = store_emit(r->worker->store, &s->command, on_emitted, r);
    if (!r->waiting)
        reply_no_redis(r);
}

/* ---- POST /ws/test-message/{user_id} ---- */

static void on_numsub(void *data, int error, int64_t value)
{
    struct reply *r = data;
    const struct sending *s = r->data;
    r->waiting = NULL;
    if (error) {
        reply_no_redis(r);
    } else if (value > 0) {
        emit(r);
    } else {
        struct text_buf message = {0};
        text_addf(&message, "Connected user not found with ID: %s", s->user_id);
        reply_error(r, 404, message.failed ? "Connected user not found" : message.data, NULL);
        text_buf_free(&message);
    }
}

/* store=no: not in the list. Other words are refused: what was not to stay would be there for a
 * week. False after a refusal. */
static bool read_store(const struct request *rq, bool *is_stored)
{
    struct text_span store;
    bool is_given = text_query_find(http_query(rq->http), "store", &store) && store.len;
    *is_stored = !is_given || text_span_ieq(store, "yes");
    if (*is_stored || text_span_ieq(store, "no"))
        return true;
    reply_error(rq->reply, 422, "store: must be yes or no", NULL);
    return false;
}

void api_test_message(const struct request *rq)
{
    static const char *const ours[] = {"test_message", "sent_by", NULL};
    struct reply *r = rq->reply;
    struct text_buf payload = {0};
    struct sending *s = sending_new(rq);
    bool is_stored;
    if (!s || !read_store(rq, &is_stored) || !copy_body(rq, ours, &payload)) {
        text_buf_free(&payload);
        return;
    }
    text_adds(&payload, "\"test_message\":true,\"sent_by\":");
    text_add_json(&payload, rq->claims->user_id, rq->claims->user_id_len);
    text_addc(&payload, '}');
    memcpy(s->user_id, rq->user_id, rq->user_id_len);
    int error = payload.failed
                    ? -ENOMEM
                    : emit_prepare_user(&s->command, &rq->worker->emit_rules, s->user_id, s->type,
                                        (struct text_span){payload.data, payload.len}, is_stored);
    text_buf_free(&payload);
    if (error) {
        reply_error(r, 500, "Out of memory", NULL);
        return;
    }
    /* Who is connected here is known without Redis, whose word lags while a link comes back. */
    uint64_t hash = text_hash64(s->user_id, rq->user_id_len);
    if (usertable_connections(rq->worker->start->users, hash)) {
        emit(r);
        return;
    }
    r->waiting = store_numsub(rq->worker->store, s->user_id, on_numsub, r);
    if (!r->waiting)
        reply_no_redis(r);
}

/* ---- POST /ws/broadcast ---- */

static bool is_priority(const char *word)
{
    static const char *const words[] = {"low", "medium", "high", "critical"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i]) == 0)
            return true;
    }
    return false;
}

void api_broadcast(const struct request *rq)
{
    static const char *const ours[] = {"system_broadcast", "priority", "broadcast_by", NULL};
    struct reply *r = rq->reply;
    char priority[16] = "medium";
    struct text_span given;
    struct sending *s = sending_new(rq);
    if (!s)
        return;
    if (text_query_find(http_query(rq->http), "priority", &given) &&
        (!query_word(rq, "priority", priority, sizeof(priority)) || !is_priority(priority))) {
        reply_error(r, 422, "priority: must be low, medium, high or critical", NULL);
        return;
    }
    struct text_buf payload = {0};
    if (!copy_body(rq, ours, &payload)) {
        text_buf_free(&payload);
        return;
    }
    text_addf(&payload, "\"system_broadcast\":true,\"priority\":\"%s\",\"broadcast_by\":",
              priority);
    text_add_json(&payload, rq->claims->user_id, rq->claims->user_id_len);
    text_addc(&payload, '}');
    s->is_broadcast = true;
    s->recipients = usertable_users(rq->worker->start->users);
    int error = payload.failed
                    ? -ENOMEM
                    : emit_prepare_broadcast(&s->command, &rq->worker->emit_rules, s->type,
                                             (struct text_span){payload.data, payload.len});
    text_buf_free(&payload);
    if (error)
        reply_error(r, 500, "Out of memory", NULL);
    else
        emit(r);
}
