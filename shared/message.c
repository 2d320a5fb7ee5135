/*
 * message.c - see message.h.
 */
#include "config.h"

#include "shared/message.h"

#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/events.h"
#include "shared/uuid7.h"

#define DECODE_BYTES 1024

static void on_member(void *data, struct text_span key, struct text_span value)
{
    struct message *m = data;
    static const struct {
        const char *name;
        size_t len, offset;
    } fields[] = {
#define FIELD(name, member) {name, sizeof name - 1, offsetof(struct message, member)}
        FIELD("id", id),
        FIELD("type", type),
        FIELD("payload", payload),
        FIELD("timestamp", timestamp),
        FIELD("connection_id", origin),
#undef FIELD
    };
    const size_t count = sizeof fields / sizeof fields[0];
    size_t i = 0;
    while (i < count &&
           !(key.len == fields[i].len && memcmp(key.ptr, fields[i].name, key.len) == 0))
        i++;
    if (i == count && memchr(key.ptr, '\\', key.len)) /* written with escapes */
        for (i = 0; i < count && !json_key_is(key, fields[i].name);)
            i++;
    if (i < count)
        memcpy((char *)m + fields[i].offset, &value, sizeof value);
}

/* Hash of a string value's decoded text; 0 when value is no string, is empty, or memory is
 * short. */
static uint64_t string_hash(struct text_span value)
{
    struct text_span plain;
    if (json_string_plain(value, &plain))
        return plain.len ? text_hash64(plain.ptr, plain.len) : 0;
    if (json_kind(value) != JSON_KIND_STRING)
        return 0;
    char local[DECODE_BYTES], *text = local;
    if (value.len > sizeof local && !(text = malloc(value.len)))
        return 0;
    long n = json_string_decode(value, text, value.len);
    uint64_t hash = n > 0 ? text_hash64(text, (size_t)n) : 0;
    if (text != local)
        free(text);
    return hash;
}

static uint64_t pair_hash(uint64_t a, uint64_t b)
{
    uint64_t both[2] = {a, b};
    return text_hash64(both, sizeof both);
}

static uint64_t span_hash(struct text_span s)
{
    return s.len ? text_hash64(s.ptr, s.len) : 0;
}

uint64_t message_id_hash(const char *id, size_t len)
{
    return text_hash64(id, len);
}

/* Names longer than the buffer are hashed piece by piece, each piece with the hash so far before
 * it. */
uint64_t message_type_hash(const char *type, size_t len)
{
    uint64_t hash = 0;
    for (size_t at = 0; at < len;) {
        char piece[8 + 128];
        size_t n = len - at < 128 ? len - at : 128;
        memcpy(piece, &hash, 8);
        for (size_t i = 0; i < n; i++) {
            char c = type[at + i];
            piece[8 + i] = c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
        }
        hash = text_hash64(piece, 8 + n);
        at += n;
    }
    return hash;
}

static void read_type(struct message *m)
{
    struct text_span plain;
    if (json_string_plain(m->type, &plain)) {
        m->type_hash = message_type_hash(plain.ptr, plain.len);
        m->event = events_find(plain.ptr, plain.len);
        return;
    }
    char text[DECODE_BYTES];
    long n = json_string_decode(m->type, text, sizeof text);
    if (n >= 0) {
        m->type_hash = message_type_hash(text, (size_t)n);
        m->event = events_find(text, (size_t)n);
    } else if (json_kind(m->type) == JSON_KIND_STRING) {
        /* A kilobyte of escapes names no type of ours; it only needs to differ from others. */
        m->type_hash = text_hash64(m->type.ptr, m->type.len);
    }
}

static void read_timestamp(struct message *m)
{
    struct text_span plain;
    char text[CLOCK_ISO_BYTES * 2];
    if (!json_string_plain(m->timestamp, &plain)) {
        long n = json_string_decode(m->timestamp, text, sizeof text);
        if (n < 0)
            return;
        plain = (struct text_span){text, (size_t)n};
    }
    int64_t us;
    if (clock_parse_us(plain.ptr, plain.len, &us) == 0)
        m->timestamp_us = us;
}

static void read_conflation(struct message *m)
{
    if (m->event < 0 || events_table[m->event].conflate[0] == '\0')
        return;
    const char *field = events_table[m->event].conflate;
    if (strcmp(field, "*") == 0) {
        m->conflate_key = pair_hash(m->type_hash, 0);
        return;
    }
    struct text_span value;
    if (!json_find(m->payload, field, &value))
        return;
    uint64_t key = json_kind(value) == JSON_KIND_NUMBER ? span_hash(value) : string_hash(value);
    if (key)
        m->conflate_key = pair_hash(m->type_hash, key);
}

enum json_result message_read(const char *bytes, size_t len, struct message *out)
{
    *out = (struct message){.raw = {bytes, len}, .event = -1};
    enum json_result r = json_scan_object(bytes, len, on_member, out);
    if (r != JSON_OK)
        return r;
    if (out->type.len)
        read_type(out);
    if (out->timestamp.len)
        read_timestamp(out);
    read_conflation(out);
    out->id_hash = string_hash(out->id);
    out->has_id = out->id_hash != 0;
    if (out->has_id)
        return JSON_OK;
    if (out->type.len || out->payload.len)
        out->id_hash = pair_hash(span_hash(out->type), span_hash(out->payload));
    else
        out->id_hash = span_hash(out->raw); /* never empty: it is an object */
    return JSON_OK;
}

static void add_member(struct text_buf *out, const char *name, const char *value)
{
    bool first = out->len && out->data[out->len - 1] == '{';
    text_adds(out, first ? "\"" : ",\"");
    text_adds(out, name);
    text_adds(out, "\":");
    text_add_json(out, value, strlen(value));
}

void message_write(struct text_buf *out, const struct message_style *style, const char *id,
                   const char *type, const char *user_id, struct text_span payload,
                   const char *channel, char *id_out)
{
    char made[UUID7_TEXT_BYTES], when[CLOCK_ISO_BYTES];
    if (!id) {
        uuid7_make(made);
        id = made;
        if (id_out)
            memcpy(id_out, made, sizeof made);
    }
    clock_format_us(clock_wall_us(), style->with_zone, when);
    text_addc(out, '{');
    if (id[0])
        add_member(out, "id", id);
    add_member(out, "type", type);
    add_member(out, "timestamp", when);
    if (user_id)
        add_member(out, "user_id", user_id);
    text_adds(out, ",\"payload\":");
    if (payload.len)
        text_add(out, payload.ptr, payload.len);
    else
        text_adds(out, "{}");
    if (channel)
        add_member(out, "channel", channel);
    text_addc(out, '}');
}
