#include "config.h"

#include "workers/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/json.h"
#include "shared/log.h"
#include "shared/message.h"
#include "workers/auth.h"
#include "workers/fate.h"
#include "workers/filter.h"
#include "workers/session.h"
#include "workers/store.h"

#define TYPE_MAX_BYTES 64
/* What one client may ask of others, in tokens a second and at once: of Redis, and of whoever
 * verifies signatures. */
#define COSTLY_RATE 50
#define COSTLY_BURST 400
#define COST_MARKS 1         /* and one more for COST_MARKS_EACH ids */
#define COST_MARKS_EACH 100
#define COST_REFRESH 4
#define COST_AUTH 20
#define RESUME_TEXT_BYTES 8192 /* of an auth frame's last_id or seen, as in a query */
#define AWAITED_MAX 64       /* commands of one client that may wait for Redis */

/* One message of a client. Spans point into the message. */
struct call {
    struct conn *c;
    struct text_span type;    /* raw JSON values; len 0: absent */
    struct text_span payload;
    struct text_span token, last_id, seen, types; /* of an auth frame without payload */
    char name[TYPE_MAX_BYTES + 1]; /* type decoded, cut */
    size_t name_len;
    bool is_lower; /* case of the reply's type */
};

static const struct message_style *style(const struct call *call)
{
    return &call->c->worker->style;
}

static void now_text(const struct call *call, char out[CLOCK_ISO_BYTES])
{
    clock_format_us(clock_wall_us(), style(call)->with_zone, out);
}

/* ---- replies ---- */

/* lower: the type in lower case. What follows is the payload. */
static void reply_start(const struct call *call, struct text_buf *out, const char *lower)
{
    text_adds(out, "{\"type\":\"");
    for (const char *p = lower; *p; p++)
        text_addc(out, !call->is_lower && *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p);
    text_adds(out, "\",\"payload\":");
}

static void reply_finish(const struct call *call, struct text_buf *out)
{
    text_addc(out, '}');
    if (out->failed)
        conn_close(call->c, CLOSE_INTERNAL);
    else
        conn_send_text(call->c, out->data, out->len);
    text_buf_free(out);
}

static void reply_failure(const struct call *call, const char *code, const char *message)
{
    char now[CLOCK_ISO_BYTES];
    struct text_buf out = {0};
    now_text(call, now);
    counters_inc(CTR_command_errors);
    reply_start(call, &out, "error");
    text_adds(&out, "{\"message\":");
    text_add_json(&out, message, strlen(message));
    text_addf(&out, ",\"code\":\"%s\",\"timestamp\":\"%s\"}", code, now);
    reply_finish(call, &out);
}

static void reply_invalid(const struct call *call, const char *message)
{
    reply_failure(call, "INVALID_PAYLOAD", message);
}

static void reply_no_redis(const struct call *call)
{
    reply_failure(call, "REDIS_UNAVAILABLE", "Redis is not available, try again later");
}

/* True when the client may ask for so much now; otherwise it was told. */
static bool may_ask(const struct call *call, uint32_t cost)
{
    struct conn *c = call->c;
    if (c->awaited < AWAITED_MAX &&
        bucket_take(&c->costly, worker_now_ms(c->worker), COSTLY_RATE, COSTLY_BURST, cost))
        return true;
    counters_inc(CTR_commands_refused);
    reply_failure(call, "RATE_LIMITED", "Too many requests at once, try again later");
    return false;
}

/* Appends a JSON value of the payload as it came, null when absent. */
static void add_echo(const struct call *call, struct text_buf *out, const char *name)
{
    struct text_span value;
    if (json_find(call->payload, name, &value))
        text_add(out, value.ptr, value.len);
    else
        text_adds(out, "null");
}

/* ---- reading values ---- */

/* A JSON array of strings, decoded one behind the other. */
struct strings {
    char *storage;
    size_t used;
    size_t cap;
    size_t count;
    size_t max_count;
    size_t max_bytes; /* of each; all are at least one */
    struct text_span *items;
    bool is_bad;
};

static void on_string(void *data, struct text_span value)
{
    struct strings *s = data;
    if (s->is_bad)
        return;
    long len = -EINVAL;
    if (s->count < s->max_count)
        len = json_string_decode(value, s->storage + s->used, s->cap - s->used);
    if (len < 1 || (size_t)len > s->max_bytes) {
        s->is_bad = true;
        return;
    }
    s->items[s->count++] = (struct text_span){s->storage + s->used, (size_t)len};
    s->used += (size_t)len;
}

static void strings_free(struct strings *s)
{
    free(s->storage);
    free(s->items);
}

/* 0, -EINVAL (no array of at most max_count strings of 1 to max_bytes bytes) or -ENOMEM. Free it in
 * either case. */
static int strings_read(struct strings *s, struct text_span value, size_t max_count,
                        size_t max_bytes)
{
    *s = (struct strings){.max_count = max_count, .max_bytes = max_bytes, .cap = value.len};
    if (json_kind(value) != JSON_KIND_ARRAY)
        return -EINVAL;
    s->storage = malloc(value.len);
    s->items = calloc(max_count, sizeof(*s->items));
    if (!s->storage || !s->items)
        return -ENOMEM;
    if (json_scan_array(value.ptr, value.len, on_string, s) != JSON_OK)
        return -EINVAL;
    return s->is_bad ? -EINVAL : 0;
}

/* ---- commands that need nobody else ---- */

static void run_ping(const struct call *call)
{
    char now[CLOCK_ISO_BYTES];
    struct text_buf out = {0};
    now_text(call, now);
    reply_start(call, &out, "pong");
    text_addf(&out, "{\"server_time\":\"%s\",\"client_time\":", now);
    add_echo(call, &out, "client_time");
    text_adds(&out, ",\"latency_ms\":");
    add_echo(call, &out, "sent_at");
    text_addf(&out, "},\"timestamp\":\"%s\"", now);
    reply_finish(call, &out);
}

/* Reads payload.types and applies each with change; the filter stays as it was when one is refused.
 * The raw list on success, len 0 after an error was told. */
static struct text_span change_filter(const struct call *call,
                                      int (*change)(struct filter **, struct text_span))
{
    struct text_span none = {NULL, 0}, types;
    struct strings names;
    struct device *d = &call->c->device;
    struct filter *changed = NULL;

    if (!json_find(call->payload, "types", &types))
        types = none;
    int error = strings_read(&names, types, FILTER_MAX_TYPES, FILTER_MAX_NAME_BYTES);
    if (!error)
        error = filter_copy(d->filter, &changed);
    for (size_t i = 0; !error && i < names.count; i++)
        error = change(&changed, names.items[i]);
    strings_free(&names);
    if (!error) {
        filter_free(d->filter);
        d->filter = changed;
        return types;
    }
    filter_free(changed);
    if (error == -ENOSPC)
        reply_invalid(call, "types: too many types, 64 can be kept");
    else if (error == -ENOMEM)
        conn_close(call->c, CLOSE_INTERNAL);
    else
        reply_invalid(call, "types: must be a list of at most 64 strings of 1 to 64 bytes");
    return none;
}

static void run_subscribe(const struct call *call)
{
    struct text_span types = change_filter(call, filter_subscribe);
    if (!types.len)
        return;
    const struct user *u = call->c->device.user;
    struct text_buf out = {0};
    reply_start(call, &out, "subscription_confirmed");
    text_adds(&out, "{\"subscribed_types\":");
    text_add(&out, types.ptr, types.len);
    text_adds(&out, ",\"user_id\":");
    text_add_json(&out, u->id, u->id_len);
    text_addc(&out, '}');
    reply_finish(call, &out);
}

static void run_unsubscribe(const struct call *call)
{
    struct text_span types = change_filter(call, filter_unsubscribe);
    if (!types.len)
        return;
    struct text_buf out = {0};
    reply_start(call, &out, "unsubscription_confirmed");
    text_adds(&out, "{\"unsubscribed_types\":");
    text_add(&out, types.ptr, types.len);
    text_adds(&out, ",\"remaining_subscriptions\":");
    filter_json(call->c->device.filter, &out);
    text_addc(&out, '}');
    reply_finish(call, &out);
}

static void run_connection_stats(const struct call *call)
{
    const struct worker_start *start = call->c->worker->start;
    int64_t up_ms = clock_wall_ms() - (int64_t)start->counters->head->started_at_ms;
    struct text_buf out = {0};
    reply_start(call, &out, "connection_stats");
    text_addf(&out,
              "{\"user_connections\":%u,\"total_connections\":%llu,\"connected_users\":%u,"
              "\"server_uptime\":%lld}",
              usertable_connections(start->users, call->c->device.user->id_hash),
              (unsigned long long)counters_sum(start->counters, CTR_websockets),
              usertable_users(start->users), up_ms > 0 ? (long long)(up_ms / 1000) : 0);
    reply_finish(call, &out);
}

/* ---- commands that ask Redis ---- */

static void run_dashboard_refresh(const struct call *call)
{
    char now[CLOCK_ISO_BYTES];
    struct text_buf out = {0};
    if (!may_ask(call, COST_REFRESH))
        return;
    now_text(call, now);
    reply_start(call, &out, "dashboard_refresh_completed");
    text_addf(&out, "{\"refreshed_at\":\"%s\"}}", now);
    struct frame *done = out.failed ? NULL : frame_text(FRAME_REPLY, out.data, out.len);
    text_buf_free(&out);
    int error = -ENOMEM;
    if (done)
        error = session_refresh(call->c->worker, &call->c->device,
                                call->is_lower ? "full_sync" : "FULL_SYNC", done);
    if (error == -ENOMEM)
        conn_close(call->c, CLOSE_INTERNAL);
    else if (error)
        reply_no_redis(call);
}

/* A command whose answer waits for Redis. It outlives its connection: that one is looked up again
 * by user and serial, so that nobody has to cancel anything. */
struct waiting {
    struct worker *worker;
    uint64_t serial;
    bool is_lower;
    size_t count;
    struct text_buf reply;   /* of an ack: the id that came meanwhile, to be sent next */
    size_t user_id_len;
    char user_id[];
};

static struct conn *waiting_conn(const struct waiting *w)
{
    struct user *u = hub_find(w->worker->hub, w->user_id, w->user_id_len);
    for (struct device *d = u ? u->devices : NULL; d; d = d->next) {
        if (d->conn->serial == w->serial)
            return d->conn;
    }
    return NULL;
}

static void waiting_free(struct waiting *w)
{
    if (!w)
        return;
    struct conn *c = waiting_conn(w);
    if (c)
        c->awaited--;
    if (c && c->acking == w)
        c->acking = NULL;
    text_buf_free(&w->reply);
    free(w);
}

static struct waiting *waiting_new(const struct call *call)
{
    const struct user *u = call->c->device.user;
    struct waiting *w = calloc(1, sizeof(*w) + u->id_len + 1);
    if (!w)
        return NULL;
    w->worker = call->c->worker;
    w->serial = call->c->serial;
    w->is_lower = call->is_lower;
    w->user_id_len = u->id_len;
    memcpy(w->user_id, u->id, u->id_len);
    call->c->awaited++;
    return w;
}

static void on_marked_read(void *data, int error, int64_t value)
{
    struct waiting *w = data;
    (void)value;
    struct conn *c = waiting_conn(w);
    if (!error)
        counters_add(CTR_marked_read, w->count);
    if (c && error)
        reply_no_redis(&(struct call){.c = c, .is_lower = w->is_lower});
    else if (c)
        conn_send_text(c, w->reply.data, w->reply.len);
    waiting_free(w);
}

/* What every device of the user but this one hears, on every worker and instance; it is a reply, so
 * in the case of the command. */
static void write_marked_read(const struct call *call, const char *payload, size_t len,
                              struct text_buf *out)
{
    const struct worker *w = call->c->worker;
    const struct user *u = call->c->device.user;
    struct text_buf channel = {0};
    char id[CONN_ID_BYTES];
    keys_expand(&channel, w->start->keys->user_channel, u->id, u->id_len);
    if (channel.failed) {
        out->failed = true;
        return;
    }
    message_write(out, &w->style, NULL,
                  call->is_lower ? "notifications_marked_read" : "NOTIFICATIONS_MARKED_READ",
                  u->id, (struct text_span){payload, len}, channel.data, NULL);
    text_buf_free(&channel);
    if (out->failed)
        return;
    out->len--; /* the envelope's closing brace */
    text_addf(out, ",\"connection_id\":\"%s\"}", conn_id(call->c, id));
}

static int mark_read(const struct call *call, struct text_span raw, const struct strings *ids)
{
    char now[CLOCK_ISO_BYTES];
    struct text_buf publish = {0};
    struct waiting *w = waiting_new(call);
    if (!w)
        return -ENOMEM;
    now_text(call, now);
    w->count = ids->count;
    reply_start(call, &w->reply, "notifications_marked_read");
    size_t start = w->reply.len;
    text_adds(&w->reply, "{\"marked_read\":");
    text_add(&w->reply, raw.ptr, raw.len);
    text_addf(&w->reply, ",\"marked_at\":\"%s\"}", now);
    if (!w->reply.failed)
        write_marked_read(call, w->reply.data + start, w->reply.len - start, &publish);
    text_addc(&w->reply, '}');

    int error = w->reply.failed || publish.failed ? -ENOMEM : 0;
    if (!error && !ids->count) { /* nothing to remember, nobody to tell */
        conn_send_text(call->c, w->reply.data, w->reply.len);
        waiting_free(w);
        w = NULL;
    } else if (!error && store_mark_read(w->worker->store, w->user_id, ids->items, ids->count,
                                         (struct text_span){publish.data, publish.len},
                                         on_marked_read, w)) {
        for (size_t i = 0; i < ids->count; i++)
            fate_said(call->c, TRACE_READ, ids->items[i].ptr, ids->items[i].len);
        w = NULL;
    } else if (!error) {
        error = -ENOTCONN;
    }
    waiting_free(w);
    text_buf_free(&publish);
    return error;
}

static void run_mark_read(const struct call *call)
{
    struct text_span raw;
    struct strings ids;
    if (!json_find(call->payload, "notification_ids", &raw))
        raw = (struct text_span){NULL, 0};
    int error = strings_read(&ids, raw, COMMANDS_MAX_READ_IDS, COMMANDS_MAX_ID_BYTES);
    if (error == -EINVAL)
        reply_invalid(call, "notification_ids: must be a list of at most 10000 strings of 1 to "
                            "256 bytes");
    if (!error && may_ask(call, COST_MARKS + (uint32_t)ids.count / COST_MARKS_EACH))
        error = mark_read(call, raw, &ids);
    strings_free(&ids);
    if (error == -ENOMEM)
        conn_close(call->c, CLOSE_INTERNAL);
    else if (error == -ENOTCONN)
        reply_no_redis(call);
}

static void on_acked(void *data, int error, int64_t value);

/* w is given. */
static void send_ack(const struct call *call, struct waiting *w, struct text_span id)
{
    if (store_set_acked(w->worker->store, w->user_id, id, on_acked, w)) {
        call->c->acking = w;
        return;
    }
    waiting_free(w);
    reply_no_redis(call);
}

static void on_acked(void *data, int error, int64_t value)
{
    struct waiting *w = data;
    (void)value;
    struct conn *c = waiting_conn(w);
    struct call call = {.c = c, .is_lower = w->is_lower};
    struct text_buf next = w->reply;
    w->reply = (struct text_buf){0};
    if (c && !error && next.len) {
        send_ack(&call, w, (struct text_span){next.data, next.len});
    } else {
        if (c && error)
            reply_no_redis(&call);
        waiting_free(w);
    }
    text_buf_free(&next);
}

/* Only the newest position counts: of those that come while one is under way the last is sent when
 * that one is done, so that a client has one under way at most. */
static bool ack_later(const struct call *call, const char *id, size_t len)
{
    struct waiting *w = call->c->acking;
    if (!w)
        return false;
    text_buf_reset(&w->reply);
    text_add(&w->reply, id, len);
    if (w->reply.failed)
        conn_close(call->c, CLOSE_INTERNAL);
    return true;
}

static void run_ack(const struct call *call)
{
    struct text_span raw;
    char id[COMMANDS_MAX_ID_BYTES];
    long len = -EINVAL;
    if (json_find(call->payload, "last_id", &raw))
        len = json_string_decode(raw, id, sizeof(id));
    if (len < 1) {
        reply_invalid(call, "last_id: must be a string of 1 to 256 bytes");
        return;
    }
    counters_inc(CTR_acks);
    fate_said(call->c, TRACE_ACKED, id, (size_t)len);
    if (ack_later(call, id, (size_t)len))
        return;
    struct waiting *w = waiting_new(call);
    if (w)
        send_ack(call, w, (struct text_span){id, (size_t)len});
    else
        conn_close(call->c, CLOSE_INTERNAL);
}

/* ---- auth ---- */

/* Member of the payload, else the one beside it: some clients send {"type":"auth","token":...}. */
static struct text_span auth_member(const struct call *call, const char *name,
                                    struct text_span beside)
{
    struct text_span value;
    return json_find(call->payload, name, &value) ? value : beside;
}

static void add_seen(struct resume *r, const char *id, size_t len)
{
    if (len && r->seen_count < RESUME_SEEN_MAX)
        r->seen[r->seen_count++] = message_id_hash(id, len);
}

static void on_seen(void *data, struct text_span value)
{
    char id[RESUME_TEXT_BYTES];
    long len = json_string_decode(value, id, sizeof(id));
    if (len > 0)
        add_seen(data, id, (size_t)len);
}

/* "A,B" as in ?seen=. */
static void split_seen(struct resume *r, const char *list, size_t len)
{
    for (size_t start = 0, i = 0; i <= len; i++) {
        if (i == len || list[i] == ',') {
            add_seen(r, list + start, i - start);
            start = i + 1;
        }
    }
}

/* *out stays NULL when the frame says nothing of it: then what the query said holds. */
static int read_resume(const struct call *call, struct resume **out)
{
    struct text_span last_id = auth_member(call, "last_id", call->last_id);
    struct text_span seen = auth_member(call, "seen", call->seen);
    char text[RESUME_TEXT_BYTES];
    if (!last_id.len && !seen.len)
        return 0;
    struct resume *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    long len = json_string_decode(last_id, text, sizeof(text));
    if (len > 0) {
        r->has_last_id = true;
        r->last_id = message_id_hash(text, (size_t)len);
    }
    if (json_kind(seen) == JSON_KIND_ARRAY) {
        json_scan_array(seen.ptr, seen.len, on_seen, r);
    } else if ((len = json_string_decode(seen, text, sizeof(text))) > 0) {
        split_seen(r, text, (size_t)len);
    }
    *out = r;
    return 0;
}

static int read_types(const struct call *call, struct filter **out)
{
    struct text_span types = auth_member(call, "types", call->types);
    enum json_kind kind = json_kind(types);
    if (kind == JSON_KIND_NONE || kind == JSON_KIND_NULL)
        return 0;
    if (kind == JSON_KIND_STRING) {
        char text[FILTER_MAX_TYPES * (FILTER_MAX_NAME_BYTES + 1) + 1];
        long len = json_string_decode(types, text, sizeof(text) - 1);
        if (len < 0)
            return -EINVAL;
        text[len] = 0;
        return filter_parse(out, text);
    }
    struct strings names;
    int error = strings_read(&names, types, FILTER_MAX_TYPES, FILTER_MAX_NAME_BYTES);
    for (size_t i = 0; !error && i < names.count; i++)
        error = filter_subscribe(out, names.items[i]);
    strings_free(&names);
    return error;
}

static enum token_result verify(const struct call *call, struct token_claims *claims)
{
    struct text_span token = auth_member(call, "token", call->token);
    char decoded[TOKEN_MAX_BYTES];
    struct text_span plain;
    if (!json_string_plain(token, &plain)) {
        long len = json_string_decode(token, decoded, sizeof(decoded));
        plain = (struct text_span){decoded, len > 0 ? (size_t)len : 0};
    }
    if (!plain.len || plain.len > TOKEN_MAX_BYTES)
        return TOKEN_MALFORMED;
    return token_verify(call->c->worker->start->token_keys, plain.ptr, plain.len, clock_wall_ms(),
                        claims);
}

static void auth_refused(const struct call *call, const char *why)
{
    auth_failed(call->c, why);
    conn_close(call->c, CLOSE_AUTH);
}

/* A client renews its token now and then, and does not try out others. */
static bool may_authenticate(const struct call *call)
{
    struct conn *c = call->c;
    if (auth_may_try(c) &&
        bucket_take(&c->costly, worker_now_ms(c->worker), COSTLY_RATE, COSTLY_BURST, COST_AUTH))
        return true;
    conn_close(c, CLOSE_RATE);
    return false;
}

/* Before FULL_SYNC, which waits for Redis at least once around the loop. */
static void reply_auth_ok(const struct call *call, const struct token_claims *claims)
{
    char expires[CLOCK_ISO_BYTES];
    struct text_buf out = {0};
    reply_start(call, &out, "auth_ok");
    if (claims->expires_at_ms) {
        clock_format_us(claims->expires_at_ms * 1000, style(call)->with_zone, expires);
        text_addf(&out, "{\"expires_at\":\"%s\"}", expires);
    } else {
        text_adds(&out, "{\"expires_at\":null}");
    }
    reply_finish(call, &out);
}

void commands_auth_ok(struct conn *c, const struct token_claims *claims, bool is_lower)
{
    reply_auth_ok(&(struct call){.c = c, .is_lower = is_lower}, claims);
}

static void run_auth(const struct call *call)
{
    struct token_claims claims;
    struct resume *resume = NULL;
    struct filter *filter = NULL;
    if (!may_authenticate(call))
        return;
    enum token_result result = verify(call, &claims);
    if (result != TOKEN_OK) {
        auth_refused(call, token_result_text(result));
        return;
    }
    int error = 0;
    if (call->c->state == CONN_AUTH) {
        error = read_types(call, &filter);
        if (!error)
            error = read_resume(call, &resume);
    }
    if (error) {
        filter_free(filter);
        if (error == -ENOMEM)
            conn_close(call->c, CLOSE_INTERNAL);
        else
            reply_invalid(call, "types: must be at most 64 names of 1 to 64 bytes");
        return;
    }
    if (conn_authenticated(call->c, &claims, resume, filter, call->is_lower))
        reply_auth_ok(call, &claims);
}

/* ---- --dev only ---- */

/* For the demo page: what else only happens on bad days. A command like any unknown one without
 * --dev. */
static void run_dev_break(const struct call *call)
{
    static const struct {
        const char *what;
        enum close_reason reason;
    } ways[] = {
        {"connection", CLOSE_DROPPED}, {"token", CLOSE_EXPIRED}, {"account", CLOSE_ADMIN},
    };
    char what[32];
    struct text_span raw = {NULL, 0};
    json_find(call->payload, "what", &raw);
    long len = json_string_decode(raw, what, sizeof(what) - 1);
    what[len > 0 ? len : 0] = 0;
    if (!strcmp(what, "worker")) {
        log_warning("dev-break", "what", "worker");
        raise(SIGKILL);
        _exit(1); /* where signals to oneself are forbidden */
    }
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (strcmp(what, ways[i].what))
            continue;
        if (ways[i].reason == CLOSE_DROPPED)
            conn_drop(call->c, ways[i].reason);
        else
            conn_close(call->c, ways[i].reason);
        return;
    }
    reply_invalid(call, "what: must be connection, token, account or worker");
}

/* ---- finding the command ---- */

static const struct command {
    const char *name;
    void (*run)(const struct call *call);
    bool is_dev; /* with --dev only */
} commands[] = {
    {"ping", run_ping, false},
    {"subscribe", run_subscribe, false},
    {"unsubscribe", run_unsubscribe, false},
    {"dashboard_refresh", run_dashboard_refresh, false},
    {"mark_notification_read", run_mark_read, false},
    {"get_connection_stats", run_connection_stats, false},
    {"ack", run_ack, false},
    {"auth", run_auth, false},
    {"dev_break", run_dev_break, true},
};

static const struct command *find_command(const struct call *call)
{
    struct text_span name = {call->name, call->name_len};
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (text_span_ieq(name, commands[i].name) &&
            (!commands[i].is_dev || call->c->worker->start->is_dev))
            return &commands[i];
    }
    return NULL;
}

static void on_member(void *data, struct text_span key, struct text_span value)
{
    struct call *call = data;
    const struct {
        const char *name;
        struct text_span *member;
    } members[] = {
        {"type", &call->type},       {"payload", &call->payload}, {"token", &call->token},
        {"last_id", &call->last_id}, {"seen", &call->seen},       {"types", &call->types},
    };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (json_key_is(key, members[i].name))
            *members[i].member = value;
    }
}

/* Decodes the type's name and takes the reply's case from it. False when there is none. */
static bool read_name(struct call *call)
{
    bool has_lower = false, has_upper = false;
    long len = json_string_decode(call->type, call->name, TYPE_MAX_BYTES);
    if (len == -ENOSPC) { /* no command's name is that long: only its beginning is told */
        struct text_span plain;
        len = 0;
        if (json_string_plain(call->type, &plain)) {
            len = TYPE_MAX_BYTES;
            while (len > 0 && ((unsigned char)plain.ptr[len] & 0xC0) == 0x80)
                len--; /* not within a character */
            memcpy(call->name, plain.ptr, (size_t)len);
        }
    } else if (len < 1) {
        return false;
    }
    call->name_len = (size_t)len;
    for (size_t i = 0; i < call->name_len; i++) {
        has_lower |= call->name[i] >= 'a' && call->name[i] <= 'z';
        has_upper |= call->name[i] >= 'A' && call->name[i] <= 'Z';
    }
    if (has_lower != has_upper)
        call->is_lower = has_lower;
    return true;
}

static void unknown_type(const struct call *call)
{
    struct text_buf message = {0};
    text_adds(&message, "Unknown message type: ");
    text_add(&message, call->name, call->name_len);
    if (message.failed)
        conn_close(call->c, CLOSE_INTERNAL);
    else
        reply_failure(call, "UNKNOWN_TYPE", message.data);
    text_buf_free(&message);
}

/* Before its auth frame a client may say nothing else. */
static void on_first_message(struct call *call, const char *text, size_t len)
{
    const struct command *command = NULL;
    if (json_scan_object(text, len, on_member, call) == JSON_OK && read_name(call))
        command = find_command(call);
    if (command && command->run == run_auth)
        run_auth(call);
    else
        auth_refused(call, "first message is no auth frame");
}

void commands_on_message(struct conn *c, const char *text, size_t len)
{
    struct call call = {.c = c, .is_lower = c->worker->style.lower_case};
    counters_inc(CTR_commands);
    if (c->state == CONN_AUTH) {
        on_first_message(&call, text, len);
        return;
    }
    if (len == 4 && memcmp(text, "ping", 4) == 0) {
        conn_send_text(c, "pong", 4);
        return;
    }
    enum json_result result = json_scan_object(text, len, on_member, &call);
    if (result == JSON_NOT_OBJECT) {
        reply_failure(&call, "INVALID_MESSAGE", "A message must be a JSON object");
    } else if (result != JSON_OK) {
        reply_failure(&call, "INVALID_JSON", "Invalid JSON format");
    } else if (!read_name(&call)) {
        reply_failure(&call, "INVALID_MESSAGE", "A message must have a type");
    } else {
        const struct command *command = find_command(&call);
        enum json_kind kind = json_kind(call.payload);
        if (!command)
            unknown_type(&call);
        else if (kind != JSON_KIND_OBJECT && kind != JSON_KIND_NONE && kind != JSON_KIND_NULL)
            reply_invalid(&call, "payload: must be an object");
        else
            command->run(&call);
    }
}
