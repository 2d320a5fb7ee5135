/*
 * ctl_emit.c - belfryctl emit, broadcast: publish through libbelfry, as a backend would.
 *
 * Payloads are checked against the event table before anything is sent: what fails is a mistake on
 * the command line (2), what Redis answers or does not is a failure (1).
 */
#include "config.h"

#include "src/ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/keys.h"

#define PAYLOAD_MAX_BYTES (1024 * 1024)

/* What is to be sent. */
struct event {
    const char *user; /* NULL: everybody */
    const char *type;
    int row; /* -1: not in the table */
    struct text_buf payload;
    char id[BELFRY_ID_BYTES];
};

static struct belfry *open_belfry(const struct ctl *c, const char *redis_url)
{
    const struct options *o = c->options;
    struct belfry_config config = {
        .redis_url = redis_url,
        .user_channel = o->user_channel,
        .broadcast_channel = o->broadcast_channel,
        .notifications_key = o->notifications_key,
        .snapshot_key = o->snapshot_key,
        .history_size = (long)o->history_size,
        .history_ttl_s = (long)(o->history_ttl / 1000),
        .timeout_ms = (int)o->redis_command_timeout,
    };
    if (o->event_case == EVENT_CASE_LOWER)
        config.flags |= BELFRY_LOWER_CASE;
    if (o->profile == PROFILE_FINANCE_TRACKER)
        config.flags |= BELFRY_NAIVE_TIME;
    if (ctl_flag(c, "no-check"))
        config.flags |= BELFRY_CHECK_NOTHING;
    return belfry_open(&config);
}

/* A payload was not given: an empty one will do only when the type needs nothing. */
static int default_payload(struct event *e)
{
    struct text_buf needed = {0};
    const char *fields = e->row >= 0 ? events_table[e->row].fields : "";
    struct ctl_field f;
    while (ctl_field_next(&fields, &f)) {
        if (f.is_optional)
            continue;
        text_addf(&needed, "%s%.*s (%s)", needed.len ? ", " : "", (int)f.name.len, f.name.ptr,
                  ctl_field_kind(f.kind));
    }
    int result = 0;
    if (needed.len) {
        ctl_say("%s needs a payload with %s; --sample makes one up", e->type, needed.data);
        result = -EINVAL;
    }
    text_buf_free(&needed);
    text_adds(&e->payload, "{}");
    return result;
}

static int read_payload(struct ctl *c, struct event *e, const char *word)
{
    bool sample = ctl_flag(c, "sample");
    if (sample && word) {
        ctl_say("--sample makes the payload up: leave out \"%.60s\"", word);
        return -EINVAL;
    }
    if (sample) {
        if (e->row < 0) {
            const char *near = events_nearest(e->type);
            ctl_say("--sample: %s is not in the event table%s%s%s", e->type,
                    near ? "; did you mean " : " (belfryctl events)", near ? near : "",
                    near ? "?" : "");
            return -EINVAL;
        }
        ctl_sample(e->row, &e->payload);
    } else if (word && strcmp(word, "-") == 0) {
        int result = ctl_read_input("payload", "-", PAYLOAD_MAX_BYTES, &e->payload);
        if (result != 0)
            return result;
        while (e->payload.len > 0 && strchr(" \t\r\n", e->payload.data[e->payload.len - 1]))
            e->payload.data[--e->payload.len] = '\0';
    } else if (word) {
        text_adds(&e->payload, word);
    } else {
        int result = default_payload(e);
        if (result != 0)
            return result;
    }
    return e->payload.failed ? -ENOMEM : 0;
}

static int check_payload(const struct ctl *c, const struct event *e)
{
    const char *bytes = e->payload.data ? e->payload.data : "";
    enum json_result r = json_scan_object(bytes, e->payload.len, NULL, NULL);
    if (r != JSON_OK || strlen(bytes) != e->payload.len) {
        ctl_say("payload: must be one JSON object in UTF-8, is %s", json_result_text(r));
        return -EINVAL;
    }
    char why[256];
    if (e->row < 0 || ctl_flag(c, "no-check"))
        return 0;
    if (events_check_payload(e->row, (struct text_span){bytes, e->payload.len}, why, sizeof(why))) {
        ctl_say("%s: payload: %s (belfryctl events %s; --no-check sends it as it is)", e->type, why,
                e->type);
        return -EINVAL;
    }
    return 0;
}

static bool is_priority(const char *text)
{
    static const char *const words[] = {"low", "medium", "high", "critical"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

/* Sets the payload's member "priority", in the place of one that is there. */
static int set_priority(struct event *e, const char *priority)
{
    if (!is_priority(priority)) {
        ctl_say("--priority=%s: one of low, medium, high, critical", priority);
        return -EINVAL;
    }
    struct text_span all = {e->payload.data, e->payload.len}, old;
    if (!all.ptr || json_scan_object(all.ptr, all.len, NULL, NULL) != JSON_OK)
        return 0; /* check_payload tells why */
    struct text_buf b = {0};
    if (json_find(all, "priority", &old)) {
        text_add(&b, all.ptr, (size_t)(old.ptr - all.ptr));
        text_addf(&b, "\"%s\"", priority);
        text_add(&b, old.ptr + old.len, (size_t)(all.ptr + all.len - (old.ptr + old.len)));
    } else {
        const char *brace = memchr(all.ptr, '{', all.len);
        size_t before = (size_t)(brace - all.ptr) + 1;
        size_t blanks = strspn(brace + 1, " \t\r\n");
        bool is_empty = brace[1 + blanks] == '}';
        text_add(&b, all.ptr, before);
        text_addf(&b, "\"priority\":\"%s\"%s", priority, is_empty ? "" : ",");
        text_add(&b, all.ptr + before, all.len - before);
    }
    text_buf_free(&e->payload);
    e->payload = b;
    return b.failed ? -ENOMEM : 0;
}

static void note_unknown_type(const struct event *e)
{
    const char *near = events_nearest(e->type);
    if (near)
        ctl_say("note: %s is not in the event table; did you mean %s?", e->type, near);
    else
        ctl_say("note: %s is not in the event table: it is not checked, and never conflated",
                e->type);
}

static const char *stored_where(const struct ctl *c, const struct event *e)
{
    enum event_store store = e->row < 0 ? EVENT_STORE_LIST : events_table[e->row].store;
    if (!e->user || ctl_flag(c, "no-store") || store == EVENT_STORE_NONE)
        return "no";
    return store == EVENT_STORE_SNAPSHOT ? "snapshot" : "list";
}

static int print_result(const struct ctl *c, const struct event *e, int receivers)
{
    struct text_buf b = {0};
    const char *stored = stored_where(c, e);
    if (ctl_flag(c, "json")) {
        text_adds(&b, "{\"id\":");
        text_add_json(&b, e->id, strlen(e->id));
        text_addf(&b, ",\"receivers\":%d,\"stored\":\"%s\"}\n", receivers, stored);
    } else {
        text_addf(&b, "id=%s receivers=%d stored=%s\n", e->id, receivers, stored);
    }
    if (receivers == 0 && strcmp(stored, "no") == 0)
        ctl_say("note: nobody was there to receive it");
    else if (receivers == 0)
        ctl_say("note: %s is not connected; it waits", e->user);
    return ctl_print(&b);
}

static int send_event(const struct ctl *c, struct event *e)
{
    struct text_buf url = {0};
    int result = CTL_FAILED;
    struct belfry *b = NULL;
    if (ctl_redis_url(c, &url) != 0)
        goto out;
    b = open_belfry(c, url.data);
    if (!b) {
        ctl_say("%s", belfry_errmsg(NULL));
        goto out;
    }
    int flags = ctl_flag(c, "no-store") ? BELFRY_NO_STORE : 0;
    int n = e->user ? belfry_emit(b, e->user, e->type, e->payload.data, flags, e->id)
                    : belfry_broadcast(b, e->type, e->payload.data, e->id);
    if (n >= 0) {
        result = print_result(c, e, n);
    } else {
        ctl_say("%s", belfry_errmsg(b));
        result = n == -EINVAL ? CTL_USAGE : CTL_FAILED;
    }
out:
    belfry_close(b);
    text_buf_free(&url);
    return result;
}

static int prepare_and_send(struct ctl *c, const char *user, const char *type, const char *payload)
{
    struct event e = {.user = user, .type = type};
    const char *priority = ctl_value(c, "priority");
    e.row = events_find(type, strlen(type));
    if (type[0] == '\0') {
        ctl_say("the type is empty");
        return CTL_USAGE;
    }
    int result = read_payload(c, &e, payload);
    if (result == 0 && priority)
        result = set_priority(&e, priority);
    if (result == 0)
        result = check_payload(c, &e);
    if (result == 0) {
        if (e.row < 0)
            note_unknown_type(&e);
        result = send_event(c, &e);
    } else {
        result = result == -ENOMEM || result == -EIO ? CTL_FAILED : CTL_USAGE;
    }
    text_buf_free(&e.payload);
    return result;
}

int ctl_emit(struct ctl *c)
{
    const char *payload = c->words.count > 2 ? c->words.items[2] : NULL;
    if (ctl_check_user(c->words.items[0]) != 0)
        return CTL_USAGE;
    return prepare_and_send(c, c->words.items[0], c->words.items[1], payload);
}

int ctl_broadcast(struct ctl *c)
{
    const char *payload = c->words.count > 1 ? c->words.items[1] : NULL;
    return prepare_and_send(c, NULL, c->words.items[0], payload);
}
