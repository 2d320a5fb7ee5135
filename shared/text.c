#include "config.h"

#include "shared/text.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- growing buffer ---- */

#define BUF_FIRST_BYTES 64

/* Makes room for more bytes and a NUL; false (and failed) when there is none. */
static bool buf_room(struct text_buf *b, size_t more)
{
    if (b->failed)
        return false;
    if (more >= SIZE_MAX / 4 - b->len) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + more + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : BUF_FIRST_BYTES;
    while (cap < need)
        cap *= 2;
    char *data = realloc(b->data, cap);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

void text_buf_free(struct text_buf *b)
{
    if (!b)
        return;
    free(b->data);
    *b = (struct text_buf){0};
}

void text_buf_reset(struct text_buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

void text_add(struct text_buf *b, const char *bytes, size_t len)
{
    if (!buf_room(b, len))
        return;
    if (len)
        memcpy(b->data + b->len, bytes, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void text_adds(struct text_buf *b, const char *string)
{
    text_add(b, string, strlen(string));
}

void text_addc(struct text_buf *b, char c)
{
    text_add(b, &c, 1);
}

void text_addf(struct text_buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (need < 0)
        b->failed = true;
    else if (buf_room(b, (size_t)need)) {
        vsnprintf(b->data + b->len, (size_t)need + 1, format, again);
        b->len += (size_t)need;
    }
    va_end(again);
}

/* Length of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7); 0 when there is none. */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
    unsigned char c = p[0];
    if (c < 0x80)
        return 1;
    unsigned char low = 0x80, high = 0xBF; /* bounds of the second byte */
    size_t n;
    if (c >= 0xC2 && c <= 0xDF)
        n = 2;
    else if (c >= 0xE0 && c <= 0xEF) {
        n = 3;
        if (c == 0xE0)
            low = 0xA0; /* no overlong forms */
        else if (c == 0xED)
            high = 0x9F; /* no surrogates */
    } else if (c >= 0xF0 && c <= 0xF4) {
        n = 4;
        if (c == 0xF0)
            low = 0x90;
        else if (c == 0xF4)
            high = 0x8F; /* nothing above U+10FFFF */
    } else
        return 0;
    if (left < n || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

bool text_is_utf8(const char *bytes, size_t len)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (len - i >= sizeof(eight)) { /* most text is ASCII */
            memcpy(&eight, p + i, sizeof(eight));
            if (!(eight & UINT64_C(0x8080808080808080))) {
                i += sizeof(eight);
                continue;
            }
        }
        size_t n = utf8_sequence(p + i, len - i);
        if (!n)
            return false;
        i += n;
    }
    return true;
}

static void add_json_control(struct text_buf *b, unsigned char c)
{
    switch (c) {
    case '\b':
        text_add(b, "\\b", 2);
        break;
    case '\f':
        text_add(b, "\\f", 2);
        break;
    case '\n':
        text_add(b, "\\n", 2);
        break;
    case '\r':
        text_add(b, "\\r", 2);
        break;
    case '\t':
        text_add(b, "\\t", 2);
        break;
    default:
        text_addf(b, "\\u%04x", c);
    }
}

void text_add_json(struct text_buf *b, const char *bytes, size_t len)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t i = 0, run = 0; /* bytes [run, i) need no change and are not yet copied */
    text_addc(b, '"');
    while (i < len) {
        size_t n = utf8_sequence(p + i, len - i);
        if (n && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\') {
            i += n;
            continue;
        }
        if (i > run)
            text_add(b, bytes + run, i - run);
        if (!n)
            text_add(b, "\xEF\xBF\xBD", 3);
        else if (p[i] < 0x20)
            add_json_control(b, p[i]);
        else {
            text_addc(b, '\\');
            text_addc(b, bytes[i]);
        }
        run = ++i;
    }
    if (i > run)
        text_add(b, bytes + run, i - run);
    text_addc(b, '"');
}

/* May a terminal take this sequence of n bytes for a command? C0, DEL, and C1, of two bytes. */
static bool is_control(const unsigned char *p, size_t n)
{
    return n == 1 ? *p < 0x20 || *p == 0x7F : n == 2 && p[0] == 0xC2 && p[1] < 0xA0;
}

void text_add_line(struct text_buf *b, const char *bytes, size_t len)
{
    const unsigned char *p = (const unsigned char *)bytes;
    size_t run = 0; /* bytes [run, i) need no change and are not yet copied */
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_sequence(p + i, len - i);
        if (n && !is_control(p + i, n))
            continue;
        text_add(b, bytes + run, i - run);
        if (!n)
            text_add(b, "\xEF\xBF\xBD", 3);
        else if (p[i] == '\n' || p[i] == '\r' || p[i] == '\t')
            text_addc(b, ' ');
        else /* the second byte of C1 is its code point */
            text_addf(b, "\\u%04x", p[i + n - 1]);
        n = n ? n : 1;
        run = i + n;
    }
    text_add(b, bytes + run, len - run);
    text_addc(b, '\n');
}

void text_tame(char *string)
{
    unsigned char *p = (unsigned char *)string;
    size_t left = strlen(string);
    while (left) {
        size_t n = utf8_sequence(p, left);
        bool is_obeyed = !n || is_control(p, n);
        n = n ? n : 1;
        if (is_obeyed)
            memset(p, '?', n);
        p += n;
        left -= n;
    }
}

void text_add_escaped(struct text_buf *b, const char *bytes, size_t len, size_t max_bytes)
{
    size_t n = len < max_bytes ? len : max_bytes;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\') {
            text_addc(b, '\\');
            text_addc(b, (char)c);
        } else if (c >= 0x20 && c < 0x7F)
            text_addc(b, (char)c);
        else
            text_addf(b, "\\x%02x", c);
    }
    if (n < len)
        text_add(b, "...", 3);
}

/* ---- lists ---- */

int text_list_add(struct text_list *l, const char *bytes, size_t len)
{
    if (l->count >= SIZE_MAX / sizeof(*l->items) - 1)
        return -ENOMEM;
    char **items = realloc(l->items, (l->count + 1) * sizeof(*items));
    if (!items)
        return -ENOMEM;
    l->items = items;
    char *copy = malloc(len + 1);
    if (!copy)
        return -ENOMEM;
    if (len)
        memcpy(copy, bytes, len);
    copy[len] = '\0';
    l->items[l->count++] = copy;
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

int text_list_split(struct text_list *l, const char *value)
{
    for (;;) {
        while (is_blank(*value))
            value++;
        size_t len = strcspn(value, ","), used = len;
        while (used && is_blank(value[used - 1]))
            used--;
        if (used) {
            int rc = text_list_add(l, value, used);
            if (rc < 0)
                return rc;
        }
        if (!value[len])
            return 0;
        value += len + 1;
    }
}

bool text_list_has(const struct text_list *l, const char *bytes, size_t len)
{
    for (size_t i = 0; i < l->count; i++)
        if (strlen(l->items[i]) == len && !memcmp(l->items[i], bytes, len))
            return true;
    return false;
}

int text_list_copy(const struct text_list *from, struct text_list *to)
{
    struct text_list copy = {0};
    for (size_t i = 0; i < from->count; i++) {
        int rc = text_list_add(&copy, from->items[i], strlen(from->items[i]));
        if (rc < 0) {
            text_list_free(&copy);
            return rc;
        }
    }
    *to = copy;
    return 0;
}

void text_list_free(struct text_list *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->count; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct text_list){0};
}

/* ---- spans ---- */

bool text_span_eq(struct text_span a, const char *string)
{
    return strlen(string) == a.len && (!a.len || !memcmp(a.ptr, string, a.len));
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* ASCII only, whatever the locale. */
bool text_span_ieq(struct text_span a, const char *string)
{
    if (strlen(string) != a.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(string[i]))
            return false;
    return true;
}

/* ---- numbers ---- */

/* Reads decimal digits at *s and moves it behind them. 0, -EINVAL (no digit) or -ERANGE (then *s is
 * behind them too). */
static int read_digits(const char **s, int64_t *out)
{
    const char *p = *s;
    int64_t n = 0;
    int rc = 0;
    if (*p < '0' || *p > '9')
        return -EINVAL;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *p - '0', &n)) {
            rc = -ERANGE;
            n = 0;
        }
    *s = p;
    *out = n;
    return rc;
}

int text_parse_count(const char *s, int64_t *out)
{
    int64_t n;
    int rc = read_digits(&s, &n);
    if (rc == -EINVAL || *s)
        return -EINVAL;
    if (!rc)
        *out = n;
    return rc;
}

int text_parse_bytes(const char *s, int64_t *out)
{
    int64_t n, unit = 1;
    int rc = read_digits(&s, &n);
    if (rc == -EINVAL)
        return rc;
    switch (lower(*s)) {
    case 'k':
        unit = INT64_C(1) << 10;
        break;
    case 'm':
        unit = INT64_C(1) << 20;
        break;
    case 'g':
        unit = INT64_C(1) << 30;
        break;
    case '\0':
        break;
    default:
        return -EINVAL;
    }
    if (*s && s[1])
        return -EINVAL;
    if (rc || __builtin_mul_overflow(n, unit, &n))
        return -ERANGE;
    *out = n;
    return 0;
}

static const struct {
    const char *name;
    int64_t ms;
} time_units[] = {{"d", 86400000}, {"h", 3600000}, {"ms", 1}, {"m", 60000}, {"s", 1000}};

/* Milliseconds of the unit at *s, which is moved behind it; 0 when there is none. */
static int64_t read_time_unit(const char **s)
{
    for (size_t i = 0; i < sizeof(time_units) / sizeof(*time_units); i++) {
        size_t len = strlen(time_units[i].name);
        if (!strncmp(*s, time_units[i].name, len)) {
            *s += len;
            return time_units[i].ms;
        }
    }
    return 0;
}

int text_parse_time_ms(const char *s, int64_t *out)
{
    int64_t sum = 0, last_unit = INT64_MAX;
    bool too_big = false, first = true;
    do {
        int64_t n;
        int rc = read_digits(&s, &n);
        if (rc == -EINVAL)
            return rc;
        int64_t unit = read_time_unit(&s);
        if (!unit && first && !*s)
            unit = 1000;
        /* Units get smaller from left to right: "30m1h" and "5s5s" are slips rather than sums. */
        if (!unit || unit >= last_unit)
            return -EINVAL;
        last_unit = unit;
        first = false;
        if (rc || __builtin_mul_overflow(n, unit, &n) || __builtin_add_overflow(sum, n, &sum))
            too_big = true;
    } while (*s);
    if (too_big)
        return -ERANGE;
    *out = sum;
    return 0;
}

/* ---- nearest names ---- */

#define DISTANCE_MAX_BYTES 64

size_t text_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    if (la > DISTANCE_MAX_BYTES || lb > DISTANCE_MAX_BYTES)
        return SIZE_MAX;
    size_t rows[3][DISTANCE_MAX_BYTES + 1];
    size_t *two_up = rows[0], *up = rows[1], *row = rows[2];
    for (size_t j = 0; j <= lb; j++)
        up[j] = two_up[j] = j;
    for (size_t i = 1; i <= la; i++) {
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best)
                best = up[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                two_up[j - 2] + 1 < best)
                best = two_up[j - 2] + 1;
            row[j] = best;
        }
        size_t *spare = two_up;
        two_up = up;
        up = row;
        row = spare;
    }
    return up[lb];
}

/* ---- URLs ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int text_percent_decode(struct text_span in, bool plus_is_blank, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        char c = in.ptr[i];
        if (c == '%') {
            if (in.len - i < 3)
                return -EINVAL;
            int high = hex_digit(in.ptr[i + 1]), low = hex_digit(in.ptr[i + 2]);
            if (high < 0 || low < 0 || (!high && !low))
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_blank)
            c = ' ';
        if (n + 1 >= cap || n >= INT_MAX)
            return -ENOSPC;
        out[n++] = c;
    }
    if (n >= cap)
        return -ENOSPC;
    out[n] = '\0';
    return (int)n;
}

bool text_query_find(struct text_span query, const char *name, struct text_span *value)
{
    if (!query.len)
        return false;
    const char *p = query.ptr, *end = query.ptr + query.len;
    for (;;) {
        const char *stop = memchr(p, '&', (size_t)(end - p));
        if (!stop)
            stop = end;
        const char *equals = p == stop ? NULL : memchr(p, '=', (size_t)(stop - p));
        const char *name_end = equals ? equals : stop;
        if (text_span_eq((struct text_span){p, (size_t)(name_end - p)}, name)) {
            const char *from = equals ? equals + 1 : stop;
            *value = (struct text_span){from, (size_t)(stop - from)};
            return true;
        }
        if (stop == end)
            return false;
        p = stop + 1;
    }
}

/* ---- hash ---- */

uint64_t text_hash64(const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a, 64 bits */
    for (size_t i = 0; i < len; i++) {
        h ^= p[i];
        h *= UINT64_C(0x100000001b3);
    }
    /* Avalanche (the finaliser of MurmurHash3): FNV's low bits alone are poor bucket numbers. */
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    h ^= h >> 33;
    return h ? h : 1;
}
