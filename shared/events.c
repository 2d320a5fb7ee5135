/*
 * events.c - see events.h.
 */
#include "config.h"

#include "shared/events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "shared/clock.h"
#include "shared/json.h"

#define NAME_BYTES 40
#define FIELDS_MAX 32

#define GROUP_TRANSACTION "transaction"
#define GROUP_BUDGET "budget"
#define GROUP_GOAL "goal"
#define GROUP_ACCOUNT "account"
#define GROUP_INSIGHT "insight"
#define GROUP_DASHBOARD "dashboard"
#define GROUP_SYSTEM "system"

/* The lower-case names are made from the others when the program is loaded: a second column would
 * be a second place for every name. */
static char lower_names[EVENT_TYPES][NAME_BYTES];

#define EVENT(name, group, store, conflate, fields) \
    _Static_assert(sizeof #name <= NAME_BYTES, "NAME_BYTES is too small for " #name);
#include "shared/events.def"
#undef EVENT

const struct event_row events_table[EVENT_TYPES] = {
#define EVENT(name, group, store, conflate, fields) \
    {#name, lower_names[EVENT_##name], GROUP_##group, EVENT_STORE_##store, conflate, fields},
#include "shared/events.def"
#undef EVENT
};

/* Rows by the length of their name: each leads to the next; row + 1, 0: none. */
static unsigned char first_of_length[NAME_BYTES], next_of_length[EVENT_TYPES];
_Static_assert(EVENT_TYPES < 255, "a row and one fit into a byte");

__attribute__((constructor)) static void make_lower_names(void)
{
    for (int i = EVENT_TYPES - 1; i >= 0; i--) {
        size_t len = 0;
        for (; events_table[i].upper[len]; len++) {
            char c = events_table[i].upper[len];
            lower_names[i][len] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
        }
        next_of_length[i] = first_of_length[len];
        first_of_length[len] = (unsigned char)(i + 1);
    }
}

int events_find(const char *name, size_t len)
{
    for (int i = len < NAME_BYTES ? first_of_length[len] : 0; i; i = next_of_length[i - 1]) {
        const struct event_row *row = &events_table[i - 1];
        if ((name[0] & 0xDF) == row->upper[0] &&
            (memcmp(name, row->upper, len) == 0 || memcmp(name, row->lower, len) == 0 ||
             text_span_ieq((struct text_span){name, len}, row->upper)))
            return i - 1;
    }
    return -1;
}

const char *events_nearest(const char *name)
{
    char upper[NAME_BYTES * 2];
    size_t len = strlen(name), best_distance = len / 3 < 2 ? 3 : len / 3 + 1;
    const char *best = NULL;
    if (len >= sizeof upper)
        return NULL;
    for (size_t i = 0; i <= len; i++)
        upper[i] = name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 32) : name[i];
    for (int i = 0; i < EVENT_TYPES; i++) {
        size_t d = text_distance(upper, events_table[i].upper);
        if (d < best_distance) {
            best_distance = d;
            best = events_table[i].upper;
        }
    }
    return best;
}

/* --- payloads --- */

struct field {
    char name[NAME_BYTES];
    bool optional;
    char type;
    struct text_span value;
};

struct fields {
    struct field row[FIELDS_MAX];
    int count;
};

/* Takes the row's "name:type name?:type ..." apart. */
static void parse_fields(const char *spec, struct fields *out)
{
    out->count = 0;
    while (*spec && out->count < FIELDS_MAX) {
        struct field *f = &out->row[out->count++];
        size_t n = strcspn(spec, "?:");
        size_t kept = n < sizeof f->name ? n : sizeof f->name - 1;
        memcpy(f->name, spec, kept);
        f->name[kept] = '\0';
        f->optional = spec[n] == '?';
        spec += n + (f->optional ? 2 : 1);
        f->type = *spec;
        f->value = (struct text_span){NULL, 0};
        spec += strcspn(spec, " ");
        spec += strspn(spec, " ");
    }
}

static void on_member(void *data, struct text_span key, struct text_span value)
{
    struct fields *fields = data;
    for (int i = 0; i < fields->count; i++)
        if (json_key_is(key, fields->row[i].name)) {
            fields->row[i].value = value;
            return;
        }
}

static bool is_integer(struct text_span v)
{
    return json_kind(v) == JSON_KIND_NUMBER && !memchr(v.ptr, '.', v.len) &&
           !memchr(v.ptr, 'e', v.len) && !memchr(v.ptr, 'E', v.len);
}

static bool is_word(struct text_span v, const char *const words[])
{
    char text[16];
    long n = json_string_decode(v, text, sizeof text);
    if (n < 0)
        return false;
    for (; *words; words++)
        if (text_span_eq((struct text_span){text, (size_t)n}, *words))
            return true;
    return false;
}

static bool is_time(struct text_span v)
{
    char text[CLOCK_ISO_BYTES * 2];
    int64_t us;
    long n = json_string_decode(v, text, sizeof text);
    return n >= 0 && clock_parse_us(text, (size_t)n, &us) == 0;
}

static bool field_fits(const struct field *f)
{
    static const char *const priorities[] = {"low", "medium", "high", "critical", NULL};
    static const char *const kinds[] = {"success", "error", "warning", "info", NULL};
    switch (f->type) {
    case 's': return json_kind(f->value) == JSON_KIND_STRING;
    case 'i': return is_integer(f->value);
    case 'n': return json_kind(f->value) == JSON_KIND_NUMBER;
    case 'b': return json_kind(f->value) == JSON_KIND_BOOL;
    case 'o': return json_kind(f->value) == JSON_KIND_OBJECT;
    case 'a': return json_kind(f->value) == JSON_KIND_ARRAY;
    case 't': return is_time(f->value);
    case 'p': return is_word(f->value, priorities);
    case 'k': return is_word(f->value, kinds);
    default: return true;
    }
}

static const char *expectation(char type)
{
    switch (type) {
    case 's': return "a string";
    case 'i': return "an integer";
    case 'n': return "a number";
    case 'b': return "true or false";
    case 'o': return "an object";
    case 'a': return "an array";
    case 't': return "an ISO 8601 time";
    case 'p': return "low, medium, high or critical";
    case 'k': return "success, error, warning or info";
    default: return "present";
    }
}

static const char *actual(const struct field *f)
{
    switch (json_kind(f->value)) {
    case JSON_KIND_OBJECT: return "an object";
    case JSON_KIND_ARRAY: return "an array";
    case JSON_KIND_STRING: return strchr("tpk", f->type) ? "another string" : "a string";
    case JSON_KIND_NUMBER: return f->type == 'i' ? "a number in another form" : "a number";
    case JSON_KIND_BOOL: return "a boolean";
    case JSON_KIND_NULL: return "null";
    case JSON_KIND_NONE: break;
    }
    return "missing";
}

int events_check_payload(int event, struct text_span payload, char *why, size_t cap)
{
    struct fields fields;
    parse_fields(event >= 0 && event < EVENT_TYPES ? events_table[event].fields : "", &fields);
    enum json_result r = json_scan_object(payload.ptr, payload.len, on_member, &fields);
    if (r != JSON_OK) {
        snprintf(why, cap, "payload: must be a JSON object, is %s", json_result_text(r));
        return -EINVAL;
    }
    for (int i = 0; i < fields.count; i++) {
        struct field *f = &fields.row[i];
        enum json_kind kind = json_kind(f->value);
        bool empty = kind == JSON_KIND_NONE || kind == JSON_KIND_NULL;
        if (f->optional && empty)
            continue;
        if (kind != JSON_KIND_NONE && field_fits(f))
            continue;
        snprintf(why, cap, "%s: must be %s, is %s", f->name, expectation(f->type), actual(f));
        return -EINVAL;
    }
    return 0;
}
