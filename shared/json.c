/*
 * json.c - see json.h. One loop over the bytes; what is open is remembered in one byte for each
 * level, so that a hostile document costs no stack.
 */
#include "config.h"

#include "shared/json.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

struct scan {
    const unsigned char *at;
    const unsigned char *end;
    json_member_fn *on_member;
    json_element_fn *on_element;
    void *data;
    struct text_span key;             /* of the member being read, at depth 1 */
    const unsigned char *value_start; /* of the value being read, at depth 1 */
    unsigned depth;
    uint64_t objects[JSON_MAX_DEPTH / 64]; /* bit of each depth: what is open there is an object */
};

static bool is_object(const struct scan *s, unsigned depth)
{
    return s->objects[depth / 64] >> depth % 64 & 1;
}

static void set_open(struct scan *s, unsigned depth, bool object)
{
    uint64_t bit = UINT64_C(1) << depth % 64;
    uint64_t *word = &s->objects[depth / 64];
    if (depth % 64 == 0)
        *word = 0; /* the deeper ones of it are set before they are looked at */
    *word = object ? *word | bit : *word & ~bit;
}

enum expect { EXPECT_VALUE, EXPECT_VALUE_OR_END, EXPECT_KEY, EXPECT_KEY_OR_END, EXPECT_AFTER };

/* Length of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7), 0 when there is none. */
static size_t utf8_length(const unsigned char *p, const unsigned char *end)
{
    size_t left = (size_t)(end - p);
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    if (left < 2)
        return 0;
    if (p[0] < 0xE0)
        return (p[1] & 0xC0) == 0x80 ? 2 : 0;
    unsigned char low = 0x80, high = 0xBF;
    if (p[0] == 0xE0)
        low = 0xA0; /* overlong */
    else if (p[0] == 0xED)
        high = 0x9F; /* surrogates */
    else if (p[0] == 0xF0)
        low = 0x90; /* overlong */
    else if (p[0] == 0xF4)
        high = 0x8F; /* above U+10FFFF */
    size_t need = p[0] < 0xF0 ? 3 : 4;
    if (left < need || p[1] < low || p[1] > high || (p[2] & 0xC0) != 0x80)
        return 0;
    if (need == 4 && (p[3] & 0xC0) != 0x80)
        return 0;
    return need;
}

/* The error for the byte that does not fit: whether it is text at all decides which. */
static enum json_result misfit(const struct scan *s)
{
    if (s->at < s->end && *s->at >= 0x80 && utf8_length(s->at, s->end) == 0)
        return JSON_INVALID_UTF8;
    return JSON_INVALID;
}

static inline void skip_blank(struct scan *s)
{
    if (s->at < s->end && *s->at > ' ')
        return; /* the rule */
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

/* End of the run of bytes that need no attention within a string: printable ASCII but quote and
 * backslash. Eight at a time, because nearly all bytes of all messages pass here. */
static inline const unsigned char *plain_run(const unsigned char *p, const unsigned char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    while (end - p >= 8) {
        uint64_t w;
        memcpy(&w, p, sizeof w);
        uint64_t quote = w ^ (ones * '"'), backslash = w ^ (ones * '\\');
        uint64_t control = (w - ones * 0x20) & ~w;
        uint64_t ends = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash);
        uint64_t found = (w | control | ends) & tops;
        if (found) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            /* Borrows spoil only bits above the first one that is right. */
            return p + (unsigned)__builtin_ctzll(found) / 8;
#else
            break; /* somewhere within these eight */
#endif
        }
        p += 8;
    }
    while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* s->at is at a backslash. */
static enum json_result take_escape(struct scan *s)
{
    s->at++;
    if (s->at == s->end)
        return JSON_INVALID;
    switch (*s->at) {
    case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
        s->at++;
        return JSON_OK;
    case 'u':
        s->at++;
        for (int i = 0; i < 4; i++, s->at++)
            if (s->at == s->end || hex_digit(*s->at) < 0)
                return misfit(s);
        return JSON_OK;
    default:
        return misfit(s);
    }
}

/* s->at is at the opening quote; afterwards behind the closing one. */
static enum json_result take_string(struct scan *s)
{
    s->at++;
    for (;;) {
        s->at = plain_run(s->at, s->end);
        if (s->at == s->end)
            return JSON_INVALID;
        if (*s->at == '"') {
            s->at++;
            return JSON_OK;
        }
        if (*s->at == '\\') {
            enum json_result r = take_escape(s);
            if (r != JSON_OK)
                return r;
            continue;
        }
        if (*s->at < 0x80)
            return JSON_INVALID; /* control character */
        size_t n = utf8_length(s->at, s->end);
        if (n == 0)
            return JSON_INVALID_UTF8;
        s->at += n;
    }
}

static bool take_digits(struct scan *s)
{
    const unsigned char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
        s->at++;
    return s->at > from;
}

/* s->at is at '-' or a digit. What may follow a number is checked by whoever reads on. */
static enum json_result take_number(struct scan *s)
{
    if (*s->at == '-')
        s->at++;
    if (s->at < s->end && *s->at == '0')
        s->at++;
    else if (!take_digits(s))
        return misfit(s);
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (!take_digits(s))
            return misfit(s);
    }
    if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-'))
            s->at++;
        if (!take_digits(s))
            return misfit(s);
    }
    return JSON_OK;
}

static enum json_result take_word(struct scan *s, const char *word)
{
    for (; *word; word++, s->at++)
        if (s->at == s->end || *s->at != (unsigned char)*word)
            return misfit(s);
    return JSON_OK;
}

/* A value other than an object or array. */
static enum json_result take_scalar(struct scan *s)
{
    switch (*s->at) {
    case '"':
        return take_string(s);
    case 't':
        return take_word(s, "true");
    case 'f':
        return take_word(s, "false");
    case 'n':
        return take_word(s, "null");
    default:
        return *s->at == '-' || (*s->at >= '0' && *s->at <= '9') ? take_number(s) : misfit(s);
    }
}

/* A value has ended at s->at: tells the caller's function when it was one of the top level. */
static void value_ended(struct scan *s)
{
    if (s->depth != 1)
        return;
    struct text_span value = {(const char *)s->value_start, (size_t)(s->at - s->value_start)};
    if (is_object(s, 0) && s->on_member)
        s->on_member(s->data, s->key, value);
    else if (!is_object(s, 0) && s->on_element)
        s->on_element(s->data, value);
}

static enum json_result step_value(struct scan *s, enum expect *next)
{
    if (s->depth == 1)
        s->value_start = s->at;
    if (*s->at == '{' || *s->at == '[') {
        if (s->depth == JSON_MAX_DEPTH)
            return JSON_TOO_DEEP;
        set_open(s, s->depth++, *s->at == '{');
        *next = *s->at == '{' ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
        s->at++;
        return JSON_OK;
    }
    enum json_result r = take_scalar(s);
    if (r != JSON_OK)
        return r;
    value_ended(s);
    *next = EXPECT_AFTER;
    return JSON_OK;
}

static enum json_result step_key(struct scan *s, enum expect *next)
{
    if (*s->at != '"')
        return misfit(s);
    const unsigned char *from = s->at + 1;
    enum json_result r = take_string(s);
    if (r != JSON_OK)
        return r;
    if (s->depth == 1)
        s->key = (struct text_span){(const char *)from, (size_t)(s->at - 1 - from)};
    skip_blank(s);
    if (s->at == s->end || *s->at != ':')
        return misfit(s);
    s->at++;
    *next = EXPECT_VALUE;
    return JSON_OK;
}

static void step_end(struct scan *s, enum expect *next)
{
    s->at++;
    s->depth--;
    value_ended(s);
    *next = EXPECT_AFTER;
}

/* A comma or the end of what is open. */
static enum json_result step_after(struct scan *s, enum expect *next)
{
    if (s->depth == 0)
        return misfit(s); /* bytes behind the document */
    bool in_object = is_object(s, s->depth - 1);
    if (*s->at == ',') {
        s->at++;
        *next = in_object ? EXPECT_KEY : EXPECT_VALUE;
        return JSON_OK;
    }
    if (*s->at != (in_object ? '}' : ']'))
        return misfit(s);
    step_end(s, next);
    return JSON_OK;
}

static enum json_result scan(struct scan *s)
{
    enum expect expect = EXPECT_VALUE;
    for (;;) {
        skip_blank(s);
        if (s->at == s->end)
            return expect == EXPECT_AFTER && s->depth == 0 ? JSON_OK : JSON_INVALID;
        enum json_result r = JSON_OK;
        switch (expect) {
        case EXPECT_VALUE_OR_END:
            if (*s->at == ']') {
                step_end(s, &expect);
                break;
            }
            /* fall through */
        case EXPECT_VALUE:
            r = step_value(s, &expect);
            break;
        case EXPECT_KEY_OR_END:
            if (*s->at == '}') {
                step_end(s, &expect);
                break;
            }
            /* fall through */
        case EXPECT_KEY:
            r = step_key(s, &expect);
            break;
        case EXPECT_AFTER:
            r = step_after(s, &expect);
            break;
        }
        if (r != JSON_OK)
            return r;
    }
}

static enum json_result scan_root(const char *bytes, size_t len, unsigned char root, struct scan *s)
{
    static const unsigned char nothing[1];
    s->at = bytes ? (const unsigned char *)bytes : nothing;
    s->end = s->at + len;
    skip_blank(s);
    unsigned char first = s->at < s->end ? *s->at : 0;
    enum json_result r = scan(s);
    return r == JSON_OK && first != root ? JSON_NOT_OBJECT : r;
}

enum json_result json_scan_object(const char *bytes, size_t len, json_member_fn *on_member,
                                  void *data)
{
    struct scan s;
    s.on_member = on_member;
    s.on_element = NULL;
    s.data = data;
    s.depth = 0;
    return scan_root(bytes, len, '{', &s);
}

enum json_result json_scan_array(const char *bytes, size_t len, json_element_fn *on_element,
                                 void *data)
{
    struct scan s;
    s.on_member = NULL;
    s.on_element = on_element;
    s.data = data;
    s.depth = 0;
    return scan_root(bytes, len, '[', &s);
}

const char *json_result_text(enum json_result r)
{
    switch (r) {
    case JSON_OK: return "a JSON object";
    case JSON_INVALID: return "not JSON";
    case JSON_INVALID_UTF8: return "not UTF-8";
    case JSON_NOT_OBJECT: return "JSON, but not an object";
    case JSON_TOO_DEEP: return "nested too deeply";
    }
    return "not JSON";
}

enum json_kind json_kind(struct text_span value)
{
    if (value.len == 0)
        return JSON_KIND_NONE;
    switch (value.ptr[0]) {
    case '{': return JSON_KIND_OBJECT;
    case '[': return JSON_KIND_ARRAY;
    case '"': return JSON_KIND_STRING;
    case 't': case 'f': return JSON_KIND_BOOL;
    case 'n': return JSON_KIND_NULL;
    default: return JSON_KIND_NUMBER;
    }
}

/* --- strings --- */

static unsigned hex4(const unsigned char *p)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++)
        value = value << 4 | (unsigned)hex_digit(p[i]); /* checked before to be digits */
    return value;
}

static size_t utf8_encode(unsigned c, unsigned char out[4])
{
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (unsigned char)(0xC0 | c >> 6);
        out[1] = (unsigned char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (unsigned char)(0xE0 | c >> 12);
        out[1] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (unsigned char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (unsigned char)(0xF0 | c >> 18);
    out[1] = (unsigned char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (unsigned char)(0x80 | (c & 0x3F));
    return 4;
}

/* Code point of a checked \uXXXX at p (behind the u); *used is how many bytes of p it took, the
 * second half of a surrogate pair included. */
static unsigned unicode_escape(const unsigned char *p, const unsigned char *end, size_t *used)
{
    unsigned c = hex4(p);
    *used = 4;
    if (c < 0xD800 || c > 0xDFFF)
        return c;
    if (c <= 0xDBFF && end - p >= 10 && p[4] == '\\' && p[5] == 'u') {
        unsigned low = hex4(p + 6);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            *used = 10;
            return 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    return 0xFFFD;
}

/* Decodes one unit (a byte as it is, or an escape) of checked string text; p moves on. */
static size_t decode_unit(const unsigned char **p, const unsigned char *end, unsigned char out[4])
{
    if (**p != '\\') {
        out[0] = *(*p)++;
        return 1;
    }
    unsigned char c = (*p)[1];
    *p += 2;
    switch (c) {
    case 'b': out[0] = '\b'; return 1;
    case 'f': out[0] = '\f'; return 1;
    case 'n': out[0] = '\n'; return 1;
    case 'r': out[0] = '\r'; return 1;
    case 't': out[0] = '\t'; return 1;
    case 'u': {
        size_t used;
        size_t n = utf8_encode(unicode_escape(*p, end, &used), out);
        *p += used;
        return n;
    }
    default: out[0] = c; return 1;
    }
}

bool json_key_is(struct text_span key, const char *name)
{
    size_t name_len = strlen(name);
    if (key.len < name_len)
        return false; /* escapes only make it longer */
    if (key.len == name_len)
        return memcmp(key.ptr, name, name_len) == 0 && !memchr(name, '\\', name_len);
    if (!memchr(key.ptr, '\\', key.len))
        return false;
    const unsigned char *p = (const unsigned char *)key.ptr, *end = p + key.len;
    size_t at = 0;
    while (p < end) {
        unsigned char unit[4];
        size_t n = decode_unit(&p, end, unit);
        if (name_len - at < n || memcmp(name + at, unit, n) != 0)
            return false;
        at += n;
    }
    return at == name_len;
}

struct find {
    const char *name;
    struct text_span value;
    bool found;
};

static void find_member(void *data, struct text_span key, struct text_span value)
{
    struct find *f = data;
    if (!json_key_is(key, f->name))
        return;
    f->value = value;
    f->found = true;
}

bool json_find(struct text_span object, const char *name, struct text_span *value)
{
    struct find f = {.name = name};
    if (json_scan_object(object.ptr, object.len, find_member, &f) != JSON_OK || !f.found)
        return false;
    *value = f.value;
    return true;
}

bool json_string_plain(struct text_span value, struct text_span *inner)
{
    if (value.len < 2 || value.ptr[0] != '"' || memchr(value.ptr, '\\', value.len))
        return false;
    *inner = (struct text_span){value.ptr + 1, value.len - 2};
    return true;
}

long json_string_decode(struct text_span value, char *out, size_t cap)
{
    if (value.len < 2 || value.ptr[0] != '"')
        return -EINVAL;
    const unsigned char *p = (const unsigned char *)value.ptr + 1, *end = p + value.len - 2;
    size_t len = 0;
    while (p < end) {
        const unsigned char *backslash = memchr(p, '\\', (size_t)(end - p));
        size_t n = (size_t)((backslash ? backslash : end) - p);
        if (n > cap - len)
            return -ENOSPC;
        memcpy(out + len, p, n);
        len += n;
        p += n;
        if (p == end)
            break;
        unsigned char unit[4];
        n = decode_unit(&p, end, unit);
        if (n > cap - len)
            return -ENOSPC;
        memcpy(out + len, unit, n);
        len += n;
    }
    return (long)len;
}
