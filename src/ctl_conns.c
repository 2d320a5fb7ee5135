/*
 * ctl_conns.c - belfryctl show, kick and revoke: the connections of the running server, looked at
 * and closed. The server asks its workers and, to close them, the other instances (src/explain.h).
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/inquiry.h"
#include "shared/json.h"
#include "src/ctl.h"
#include "src/ctl_redis.h"
#include "src/ctl_reply.h"

#define REVOKE_TTL_MS (INT64_C(30) * 24 * 3600 * 1000)

/* Asks; a refusal is told. */
static int ask(struct ctl *c, const char *what, const char *word, struct text_buf *reply)
{
    struct text_buf request = {0};
    int64_t timeout_ms;
    if (ctl_time(c, "timeout", CTL_WORKERS_MS, &timeout_ms) != 0)
        return CTL_USAGE;
    text_addf(&request, "%s ", what);
    ctl_add_word(&request, word);
    int error = ctl_ask_workers(c, &request, timeout_ms, reply);
    int result = error == -ETIMEDOUT ? CTL_TIMED_OUT : error ? CTL_FAILED : CTL_DONE;
    text_buf_free(&request);
    if (result == CTL_DONE && !ctl_is_true(ctl_reply_span(reply), "ok")) {
        ctl_say_error(c->command->name, ctl_reply_span(reply));
        result = CTL_FAILED;
    }
    return result;
}

/* Did every worker of the instance answer? If not, it is told. */
static bool is_complete(struct text_span reply)
{
    struct text_span workers = ctl_object_of(reply, "workers");
    if (ctl_number_of(workers, "answered") >= ctl_number_of(workers, "asked"))
        return true;
    struct text_buf slots = {0};
    inquiry_add_silent(workers, &slots);
    ctl_say("not every worker answered in time: slot%s", slots.data ? slots.data : "s unknown");
    text_buf_free(&slots);
    return false;
}

/* ---- show ---- */

static void add_member(struct text_buf *b, struct text_span object, const char *name)
{
    char text[1024];
    ctl_text_of(object, name, text, sizeof(text));
    text_add_escaped(b, text, strlen(text), sizeof(text));
}

/* "2026-11-28T07:00:00.000000Z (4s ago)", or what to say when there is none. */
static void add_time(struct text_buf *b, struct text_span object, const char *name,
                     const char *none)
{
    char text[64];
    int64_t at_us;
    ctl_text_of(object, name, text, sizeof(text));
    if (clock_parse_us(text, strlen(text), &at_us) != 0) {
        text_adds(b, none);
        return;
    }
    int64_t ago_s = (clock_wall_us() - at_us) / 1000000;
    text_addf(b, "%s (%s", text, ago_s < 0 ? "in " : "");
    ctl_add_duration(b, ago_s < 0 ? -ago_s : ago_s);
    text_adds(b, ago_s < 0 ? ")" : " ago)");
}

static void add_name(void *data, struct text_span value)
{
    struct text_buf *b = data;
    char name[128];
    long n = json_string_decode(value, name, sizeof(name));
    text_addc(b, ' ');
    text_add_escaped(b, name, n > 0 ? (size_t)n : 0, sizeof(name));
}

static void add_filter(struct text_buf *b, struct text_span device)
{
    struct text_span filter = ctl_object_of(device, "filter"), names;
    text_adds(b, "\nfilter      ");
    if (json_find(filter, "only", &names))
        text_adds(b, "only:");
    else if (json_find(filter, "except", &names))
        text_adds(b, "all but:");
    else {
        text_adds(b, "none: everything passes");
        return;
    }
    json_scan_array(names.ptr, names.len, add_name, b);
    if (ctl_has(filter, "more"))
        text_addf(b, " and %lld more", ctl_number_of(filter, "more"));
}

static void add_device(struct text_buf *b, struct text_span device)
{
    struct text_span lag = ctl_object_of(device, "lag");
    text_adds(b, "\nlag         ");
    if (ctl_has(device, "lag")) {
        text_addf(b, "%lld messages owed, since ", ctl_number_of(lag, "owed_messages"));
        add_time(b, lag, "since", "?");
    } else {
        text_adds(b, "none");
    }
    add_filter(b, device);
}

static void add_close(struct text_buf *b, struct text_span connection)
{
    struct text_span close = ctl_object_of(connection, "close");
    if (!ctl_has(connection, "close"))
        return;
    text_adds(b, "\nclose       ");
    add_member(b, close, "reason");
    text_addf(b, ", code %lld, frame%s sent%s%s", ctl_number_of(close, "code"),
              ctl_is_true(close, "frame_sent") ? "" : " not",
              ctl_is_true(close, "frame_sent") ? " " : "",
              ctl_is_true(close, "frame_received") ? ", the client's came" : "");
    if (ctl_is_true(close, "frame_sent"))
        add_time(b, close, "at", "");
}

static void add_states(struct text_buf *b, struct text_span connection, struct text_span device)
{
    text_adds(b, "\nstate       ");
    add_member(b, connection, "state");
    if (ctl_has(connection, "device")) {
        text_adds(b, ", ");
        add_member(b, device, "state");
        text_adds(b, ", subscription ");
        add_member(b, device, "subscription");
    }
    text_adds(b, "\nfrom        ");
    add_member(b, connection, "family");
    text_addc(b, ' ');
    add_member(b, connection, "address");
    if (ctl_has(connection, "client")) {
        text_addc(b, ' ');
        add_member(b, connection, "client");
    }
    text_addf(b, "%s%s%s, worker %lld", ctl_is_true(connection, "tls") ? ", TLS" : "",
              ctl_is_true(connection, "compression") ? ", compressed" : "",
              ctl_is_true(connection, "admin") ? ", administrator" : "",
              ctl_number_of(connection, "worker"));
}

static void add_connection(struct text_buf *b, struct text_span connection)
{
    struct text_span device = ctl_object_of(connection, "device");
    text_adds(b, "connection  ");
    add_member(b, connection, "id");
    text_adds(b, "\nuser        ");
    add_member(b, connection, "user");
    add_states(b, connection, device);
    text_adds(b, "\nopened      ");
    add_time(b, connection, "opened_at", "?");
    text_adds(b, "\nlast read   ");
    add_time(b, connection, "last_read_at", "?");
    if (ctl_has(connection, "ping_sent_at")) {
        text_adds(b, "; pong awaited since ");
        add_time(b, connection, "ping_sent_at", "?");
    }
    text_addf(b, "\nbytes       %lld received, %lld sent, of these %lld acknowledged by TCP",
              ctl_number_of(connection, "received_bytes"), ctl_number_of(connection, "sent_bytes"),
              ctl_number_of(connection, "acknowledged_bytes"));
    text_addf(b, "\nqueued      %lld bytes%s", ctl_number_of(connection, "queued_bytes"),
              ctl_is_true(connection, "blocked") ? ", the socket is full" : "");
    if (ctl_has(connection, "device"))
        add_device(b, device);
    text_adds(b, "\ntoken       ends ");
    add_time(b, connection, "token_expires_at", "never");
    if (ctl_has(connection, "token_id")) {
        text_adds(b, ", id ");
        add_member(b, connection, "token_id");
    }
    add_close(b, connection);
    text_addc(b, '\n');
}

struct showing {
    struct text_buf out;
    bool is_json;
    size_t count;
};

static void on_connection(void *data, struct text_span connection)
{
    struct showing *s = data;
    if (s->is_json) {
        text_add(&s->out, connection.ptr, connection.len);
        text_addc(&s->out, '\n');
    } else {
        if (s->count)
            text_addc(&s->out, '\n');
        add_connection(&s->out, connection);
    }
    s->count++;
}

/* Nobody knows it: whose is it, then? An id begins with the end of its instance's. */
static void say_unknown(struct text_span reply, const char *id, const char *user)
{
    char instance[64];
    size_t len = strlen(ctl_text_of(reply, "instance_id", instance, sizeof(instance)));
    const char *end = instance + (len > 8 ? len - 8 : 0);
    if (user)
        ctl_say("%s: not connected to this instance", user);
    else if (strncmp(id, end, strlen(end)) != 0)
        ctl_say("%s: not known here; this instance's connections begin with %s", id, end);
    else
        ctl_say("%s: not known, or gone", id);
}

int ctl_show(struct ctl *c)
{
    struct text_buf reply = {0};
    struct showing s = {.is_json = ctl_flag(c, "json")};
    struct text_span connections;
    const char *user = ctl_value(c, "user"), *id = c->words.count ? c->words.items[0] : NULL;
    if (!user == !id || (id && (!*id || strlen(id) > INQUIRY_ID_MAX_BYTES))) {
        ctl_say("show: either a connection's id or --user is needed");
        return CTL_USAGE;
    }
    if (user && ctl_check_user(user) != 0)
        return CTL_USAGE;
    int result = ask(c, user ? "connections" : "show", user ? user : id, &reply);
    if (result == CTL_DONE) {
        struct text_span answer = ctl_reply_span(&reply);
        if (json_find(answer, "connections", &connections))
            json_scan_array(connections.ptr, connections.len, on_connection, &s);
        result = s.count ? ctl_print(&s.out) : CTL_FAILED;
        if (ctl_is_true(answer, "cut"))
            ctl_say("there are more than are shown");
        is_complete(answer);
        if (!s.count)
            say_unknown(answer, id, user);
    }
    text_buf_free(&reply);
    return result;
}

/* ---- kick ---- */

/* Who listens and has not answered at all, one instance a line. Told as far as Redis says it: every
 * worker listens on a channel that has its instance's name. */
struct naming {
    struct text_span reply;
    char instance[64];      /* looked for among those that answered; empty: found */
    struct text_buf told;   /* several of its workers listen */
};

static void compare_instance(void *data, struct text_span instance)
{
    struct naming *n = data;
    char id[64];
    if (!strcmp(ctl_text_of(instance, "instance", id, sizeof(id)), n->instance))
        n->instance[0] = '\0';
}

static void name_silent(void *data, struct text_span channel)
{
    struct naming *n = data;
    struct text_span instances;
    const size_t head = sizeof(INQUIRY_ANSWERS) - 1;
    if (channel.len < head || memcmp(channel.ptr, INQUIRY_ANSWERS, head) != 0)
        return;
    const char *name = channel.ptr + head, *colon = memrchr(name, ':', channel.len - head);
    size_t len = colon ? (size_t)(colon - name) : 0;
    if (!len || len >= sizeof(n->instance))
        return;
    memcpy(n->instance, name, len);
    n->instance[len] = '\0';
    if (json_find(n->reply, "instances", &instances))
        json_scan_array(instances.ptr, instances.len, compare_instance, n);
    if (!n->instance[0] || (n->told.data && strstr(n->told.data, n->instance)))
        return;
    text_addf(&n->told, "%s ", n->instance);
    ctl_say("no answer from instance %s", n->instance);
}

static long long missing_links(struct text_span others)
{
    return ctl_number_of(others, "links") - ctl_number_of(others, "answered");
}

void ctl_name_silent(const struct ctl *c, struct text_span reply)
{
    struct naming n = {.reply = reply};
    if (missing_links(ctl_object_of(reply, "others")) <= 0)
        return;
    ctl_redis_channels(c, INQUIRY_ANSWERS "*", name_silent, &n);
    text_buf_free(&n.told);
}

static bool have_others_answered(const struct ctl *c, struct text_span reply)
{
    struct text_span others = ctl_object_of(reply, "others");
    long long missing = missing_links(others);
    char why[256];
    if (!ctl_is_true(others, "asked"))
        ctl_say("other instances could not be asked: %s",
                ctl_text_of(others, "error", why, sizeof(why)));
    else if (missing > 0)
        ctl_say("%lld worker%s of other instances did not answer in time", missing,
                missing == 1 ? "" : "s");
    ctl_name_silent(c, reply);
    return ctl_is_true(others, "asked") && missing <= 0;
}

static void add_instance(void *data, struct text_span instance)
{
    struct text_buf *b = data;
    char id[64];
    long long closed = ctl_number_of(instance, "closed");
    ctl_text_of(instance, "instance", id, sizeof(id));
    text_addf(b, "  instance %s: %lld\n", id, closed);
}

static void add_closed(struct text_buf *b, struct text_span reply, const char *what)
{
    struct text_span instances;
    long long closed = ctl_number_of(reply, "closed");
    text_addf(b, "%lld connection%s of ", closed, closed == 1 ? "" : "s");
    text_add_escaped(b, what, strlen(what), strlen(what));
    text_adds(b, " closed\n");
    if (closed && json_find(reply, "instances", &instances))
        json_scan_array(instances.ptr, instances.len, add_instance, b);
}

static void add_instance_json(void *data, struct text_span instance)
{
    struct text_buf *b = data;
    char id[64];
    ctl_text_of(instance, "instance", id, sizeof(id));
    text_addf(b, "%s{\"instance\":", b->data[b->len - 1] == '[' ? "" : ",");
    text_add_json(b, id, strlen(id));
    text_addf(b, ",\"closed\":%lld}", ctl_number_of(instance, "closed"));
}

/* name: of the member that says whose they were. */
static void add_closed_json(struct text_buf *b, struct text_span reply, const char *name,
                            const char *what, bool is_whole)
{
    struct text_span value;
    text_addf(b, "{\"%s\":", name);
    text_add_json(b, what, strlen(what));
    text_addf(b, ",\"closed\":%lld,\"complete\":%s,\"instances\":[",
              ctl_number_of(reply, "closed"), is_whole ? "true" : "false");
    if (!b->failed && json_find(reply, "instances", &value))
        json_scan_array(value.ptr, value.len, add_instance_json, b);
    text_addc(b, ']');
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"instance_id", "workers", "others"};
        if (!json_find(reply, names[i], &value))
            continue;
        text_addf(b, ",\"%s\":", names[i]);
        text_add(b, value.ptr, value.len);
    }
    text_adds(b, "}\n");
}

/* Has the connections closed, and tells how many. */
static int close_all(struct ctl *c, const char *request, const char *name, const char *what)
{
    struct text_buf reply = {0}, out = {0};
    int result = ask(c, request, what, &reply);
    if (result == CTL_DONE) {
        struct text_span answer = ctl_reply_span(&reply);
        bool is_own_whole = is_complete(answer);
        bool is_whole = have_others_answered(c, answer) && is_own_whole;
        if (ctl_flag(c, "json"))
            add_closed_json(&out, answer, name, what, is_whole);
        else
            add_closed(&out, answer, what);
        result = ctl_print(&out);
        if (result == CTL_DONE && !is_whole)
            result = CTL_FAILED;
    }
    text_buf_free(&reply);
    return result;
}

int ctl_kick(struct ctl *c)
{
    const char *user = c->words.items[0];
    return ctl_check_user(user) != 0 ? CTL_USAGE : close_all(c, "kick", "user", user);
}

/* ---- revoke ---- */

/* Writes the key first: whoever connects from then on is refused. */
int ctl_revoke(struct ctl *c)
{
    const char *jti = c->words.items[0], *template_text = c->options->denylist_key;
    struct text_buf key = {0};
    int64_t ttl_ms;
    if (!keys_is_user_id(jti, strlen(jti))) {
        ctl_say("revoke: the jti must be 1 to 256 bytes of text");
        return CTL_USAGE;
    }
    if (ctl_time(c, "ttl", REVOKE_TTL_MS, &ttl_ms) != 0)
        return CTL_USAGE;
    if (!template_text[0]) {
        ctl_say("revoke: denylist-key is empty, so no token is looked up");
        return CTL_FAILED;
    }
    keys_expand_jti(&key, template_text, jti, strlen(jti));
    int error = key.failed ? -ENOMEM : ctl_redis_set(c, key.data, key.len, ttl_ms);
    text_buf_free(&key);
    if (error)
        return CTL_FAILED;
    int result = close_all(c, "revoke", "jti", jti);
    if (result != CTL_DONE)
        ctl_say("the token is revoked; connections that were not closed now are closed within "
                "denylist-interval");
    return result;
}
