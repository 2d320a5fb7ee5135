#include "config.h"

#include "shared/inquiry.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/message.h"

#define LAYOUT 1 /* of what goes over Redis */
#define HEX_BYTES 17 /* of 64 bits, with the NUL */

/* ---- layouts ---- */

size_t inquiry_bytes(uint32_t count)
{
    return offsetof(struct inquiry_message, records) + count * sizeof(struct inquiry_record);
}

size_t inquiry_size(const struct inquiry *q)
{
    if (q->kind == INQUIRY_TEXT)
        return offsetof(struct inquiry_message, text) + q->count;
    return inquiry_bytes(q->count);
}

static bool is_terminated(const char *text, size_t cap)
{
    return memchr(text, '\0', cap) != NULL;
}

bool inquiry_take(const void *bytes, size_t len, struct inquiry_message *out)
{
    struct inquiry *q = &out->head;
    if (len < inquiry_bytes(0) || len > sizeof(*out))
        return false;
    memcpy(out, bytes, len);
    uint32_t most = q->kind == INQUIRY_TEXT ? INQUIRY_TEXT_BYTES : INQUIRY_RECORDS;
    return q->count <= most && len == inquiry_size(q) && q->kind <= INQUIRY_REMOTE &&
           q->ask < INQUIRY_ASKS && is_terminated(q->instance, sizeof(q->instance)) &&
           is_terminated(q->user, sizeof(q->user)) && is_terminated(q->id, sizeof(q->id));
}

int inquiry_set(struct inquiry *q, const char *user, size_t user_len, const char *id, size_t id_len)
{
    bool has_user = keys_is_user_id(user, user_len), has_id = id_len > 0;
    bool is_whole = q->ask == INQUIRY_EXPLAIN   ? has_user && has_id
                    : q->ask == INQUIRY_KICK    ? has_user && !has_id
                    : q->ask == INQUIRY_REVOKE  ? has_id && !user_len
                                                : has_user != has_id;
    if (!is_whole || (!has_user && user_len) || id_len > INQUIRY_ID_MAX_BYTES)
        return -EINVAL;
    if (has_user)
        memcpy(q->user, user, user_len);
    q->user[user_len] = '\0';
    if (has_id)
        memcpy(q->id, id, id_len);
    q->id[id_len] = '\0';
    q->user_hash = text_hash64(user, user_len);
    q->id_hash = has_id ? message_id_hash(id, id_len) : 0;
    return 0;
}

/* ---- members ---- */

bool inquiry_number(struct text_span object, const char *name, int64_t min, int64_t max,
                    int64_t *out)
{
    struct text_span value;
    char text[24], *end;
    if (!json_find(object, name, &value) || json_kind(value) != JSON_KIND_NUMBER ||
        value.len >= sizeof(text))
        return false;
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (*end || errno || n < min || n > max)
        return false;
    *out = n;
    return true;
}

long inquiry_string(struct text_span object, const char *name, char *out, size_t cap)
{
    struct text_span value;
    if (!json_find(object, name, &value))
        return -1;
    long len = json_string_decode(value, out, cap - 1);
    if (len < 0 || memchr(out, '\0', (size_t)len))
        return -1;
    out[len] = '\0';
    return len;
}

/* 64 bits do not fit into the numbers of every JSON reader. */
static bool read_hex(struct text_span object, const char *name, uint64_t *out)
{
    char text[HEX_BYTES];
    if (inquiry_string(object, name, text, sizeof(text)) < 1 ||
        text[strspn(text, "0123456789abcdef")])
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

static bool read_flag(struct text_span object, const char *name)
{
    struct text_span value;
    return json_find(object, name, &value) && text_span_eq(value, "true");
}

/* It is a UUID; letters, digits and hyphens also keep it harmless in a channel's name. */
bool inquiry_read_instance(struct text_span object, char out[INQUIRY_INSTANCE_BYTES])
{
    long len = inquiry_string(object, "instance", out, INQUIRY_INSTANCE_BYTES);
    return len > 0 && !out[strspn(out, "0123456789abcdefghijklmnopqrstuvwxyz-")];
}

static bool is_object(const char *bytes, size_t len, struct text_span *out)
{
    int64_t version;
    *out = (struct text_span){bytes, len};
    return len <= INQUIRY_ANSWER_MAX_BYTES && json_scan_object(bytes, len, NULL, NULL) == JSON_OK &&
           inquiry_number(*out, "v", LAYOUT, LAYOUT, &version);
}

/* ---- the question ---- */

/* What other instances may be asked. */
static const char *const ask_words[] = {
    [INQUIRY_EXPLAIN] = "explain", [INQUIRY_KICK] = "kick", [INQUIRY_REVOKE] = "revoke"};
#define ASK_WORDS (sizeof(ask_words) / sizeof(ask_words[0]))

static bool names_user(uint32_t ask)
{
    return ask != INQUIRY_REVOKE;
}

static bool names_id(uint32_t ask)
{
    return ask != INQUIRY_KICK;
}

void inquiry_write_request(struct text_buf *out, const struct inquiry *q)
{
    text_addf(out, "{\"v\":%d,\"ask\":\"%s\",\"instance\":\"%s\",\"worker\":%u", LAYOUT,
              q->ask < ASK_WORDS ? ask_words[q->ask] : "", q->instance, q->asker_slot);
    text_addf(out, ",\"request\":\"%llx\"", (unsigned long long)q->number);
    if (names_user(q->ask)) {
        text_adds(out, ",\"user\":");
        text_add_json(out, q->user, strlen(q->user));
    }
    if (names_id(q->ask)) {
        text_adds(out, ",\"id\":");
        text_add_json(out, q->id, strlen(q->id));
    }
    text_addc(out, '}');
}

static bool read_ask(struct text_span object, uint32_t *out)
{
    char word[16];
    if (inquiry_string(object, "ask", word, sizeof(word)) < 0)
        return false;
    for (*out = 0; *out < ASK_WORDS; ++*out)
        if (ask_words[*out] && !strcmp(word, ask_words[*out]))
            return true;
    return false;
}

int inquiry_read_request(const char *bytes, size_t len, struct inquiry *out)
{
    struct text_span object;
    char user[KEYS_USER_ID_MAX_BYTES + 1], id[INQUIRY_ID_MAX_BYTES + 1];
    int64_t slot;
    *out = (struct inquiry){0};
    if (!is_object(bytes, len, &object) || !read_ask(object, &out->ask) ||
        !inquiry_read_instance(object, out->instance) ||
        !inquiry_number(object, "worker", 0, UINT16_MAX, &slot) ||
        !read_hex(object, "request", &out->number))
        return -EINVAL;
    out->asker_slot = (uint32_t)slot;
    long user_len = names_user(out->ask) ? inquiry_string(object, "user", user, sizeof(user)) : 0;
    long id_len = names_id(out->ask) ? inquiry_string(object, "id", id, sizeof(id)) : 0;
    if (user_len < 0 || id_len < 0)
        return -EINVAL;
    return inquiry_set(out, user, (size_t)user_len, id, (size_t)id_len);
}

/* ---- records ---- */

void inquiry_write_record(struct text_buf *out, const struct inquiry_record *r,
                          const char *instance)
{
    const struct trace_record *t = &r->trace;
    text_addc(out, '{');
    if (instance)
        text_addf(out, "\"instance\":\"%s\",", instance);
    text_addf(out, "\"worker\":%u,\"fate\":\"%s\",\"at_us\":%lld,\"serial\":\"%llx\"", r->slot,
              trace_fate_word(t->fate), (long long)t->at_us, (unsigned long long)t->serial);
    text_addf(out, ",\"position\":%llu,\"detail\":%u,\"end\":\"%s\",\"end_us\":%lld}",
              (unsigned long long)t->position, t->detail, trace_end_word(t->end),
              (long long)t->end_us);
}

int inquiry_read_record(struct text_span object, struct inquiry_record *out)
{
    char fate[16], end[16];
    int64_t slot, at_us, end_us, position, detail;
    *out = (struct inquiry_record){0};
    long fate_len = inquiry_string(object, "fate", fate, sizeof(fate));
    long end_len = inquiry_string(object, "end", end, sizeof(end));
    if (fate_len < 0 || end_len < 0 || !inquiry_number(object, "worker", 0, UINT16_MAX, &slot) ||
        !inquiry_number(object, "at_us", 0, INT64_MAX, &at_us) ||
        !inquiry_number(object, "end_us", 0, INT64_MAX, &end_us) ||
        !inquiry_number(object, "position", 0, INT64_MAX, &position) ||
        !inquiry_number(object, "detail", 0, UINT32_MAX, &detail) ||
        !read_hex(object, "serial", &out->trace.serial))
        return -EINVAL;
    enum trace_fate known_fate = trace_fate_of(fate, (size_t)fate_len);
    enum trace_end known_end = trace_end_of(end, (size_t)end_len);
    if (known_fate == TRACE_NONE || known_end == TRACE_ENDS)
        return -ENOTSUP;
    out->slot = (uint32_t)slot;
    out->trace.at_us = at_us;
    out->trace.end_us = end_us;
    out->trace.position = (uint64_t)position;
    out->trace.detail = (uint32_t)detail;
    out->trace.fate = (uint16_t)known_fate;
    out->trace.end = (uint16_t)known_end;
    return 0;
}

/* ---- answers ---- */

void inquiry_write_answer(struct text_buf *out, const struct inquiry_message *m,
                          const char *instance)
{
    const struct inquiry *q = &m->head;
    text_addf(out, "{\"v\":%d,\"instance\":\"%s\",\"request\":\"%llx\",\"links\":%u", LAYOUT,
              instance, (unsigned long long)q->number, q->links);
    text_addf(out, ",\"closed\":%u,\"trace_size\":%u,\"cut\":%s,\"last\":%s,\"records\":[",
              q->closed, q->trace_size, q->flags & INQUIRY_CUT ? "true" : "false",
              q->flags & INQUIRY_LAST ? "true" : "false");
    for (uint32_t i = 0; i < q->count; i++) {
        if (i)
            text_addc(out, ',');
        inquiry_write_record(out, &m->records[i], NULL);
    }
    text_adds(out, "]}");
}

struct reading {
    struct inquiry_message *to;
    int error;
};

static void on_record(void *data, struct text_span value)
{
    struct reading *reading = data;
    struct inquiry *q = &reading->to->head;
    if (reading->error)
        return;
    if (q->count == INQUIRY_RECORDS) {
        reading->error = -E2BIG;
        return;
    }
    int error = inquiry_read_record(value, &reading->to->records[q->count]);
    if (!error)
        q->count++;
    else if (error != -ENOTSUP)
        reading->error = error;
}

int inquiry_read_answer(const char *bytes, size_t len, struct inquiry_message *out)
{
    struct text_span object, records;
    struct reading reading = {.to = out};
    struct inquiry *q = &out->head;
    int64_t links, trace_size, closed;
    *q = (struct inquiry){.kind = INQUIRY_REMOTE};
    if (!is_object(bytes, len, &object) || !inquiry_read_instance(object, q->instance) ||
        !read_hex(object, "request", &q->number) ||
        !inquiry_number(object, "links", 0, UINT16_MAX, &links) ||
        !inquiry_number(object, "trace_size", 0, TRACE_MAX_RECORDS, &trace_size) ||
        !json_find(object, "records", &records))
        return -EINVAL;
    if (!inquiry_number(object, "closed", 0, UINT32_MAX, &closed))
        closed = 0; /* an instance of before there was KICK does not tell */
    q->closed = (uint32_t)closed;
    q->links = (uint32_t)links;
    q->trace_size = (uint32_t)trace_size;
    q->flags = (read_flag(object, "cut") ? INQUIRY_CUT : 0U) |
               (read_flag(object, "last") ? INQUIRY_LAST : 0U);
    if (json_scan_array(records.ptr, records.len, on_record, &reading) != JSON_OK)
        return -EINVAL;
    return reading.error;
}

static void add_slot(void *data, struct text_span slot)
{
    if (json_kind(slot) != JSON_KIND_NUMBER)
        return;
    text_addc(data, ' ');
    text_add(data, slot.ptr, slot.len);
}

void inquiry_add_silent(struct text_span workers, struct text_buf *out)
{
    struct text_span silent;
    if (json_find(workers, "silent", &silent))
        json_scan_array(silent.ptr, silent.len, add_slot, out);
}
