/*
 * text.h - strings: growing buffers, lists, escaping, numbers with units, nearest names.
 *
 * All processes and libbelfry. No I/O. Nothing here knows what the text means.
 */
#ifndef BELFRY_SHARED_TEXT_H
#define BELFRY_SHARED_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A span of bytes somebody else owns; not NUL-terminated. ptr may be NULL when len is 0. */
struct text_span {
    const char *ptr;
    size_t len;
};

/* Growing buffer. Zero-initialised is empty. After a failed allocation `failed` is set and stays
 * set, later appends do nothing: check once at the end. data is NUL-terminated whenever it is not
 * NULL. */
struct text_buf {
    char *data;
    size_t len;
    size_t cap;
    bool failed;
};

/* List of owned strings. Zero-initialised is empty. */
struct text_list {
    char **items;
    size_t count;
};

void text_buf_free(struct text_buf *b);
void text_buf_reset(struct text_buf *b);
void text_add(struct text_buf *b, const char *bytes, size_t len);
void text_adds(struct text_buf *b, const char *string);
void text_addc(struct text_buf *b, char c);
void text_addf(struct text_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends a JSON string with its quotes (RFC 8259, section 7). Bytes that are not UTF-8 become
 * U+FFFD. */
void text_add_json(struct text_buf *b, const char *bytes, size_t len);
/* Appends JSON as one line, still the same JSON, of which a terminal obeys nothing: white space
 * between tokens becomes blanks, DEL and U+0080 to U+009F escapes (a valid text has them in strings
 * only), and where it is no JSON after all, C0 escapes, too, and what is not UTF-8 U+FFFD. */
void text_add_line(struct text_buf *b, const char *bytes, size_t len);
/* In place: of the string a terminal obeys nothing. Control characters, C1 too, and what is not
 * UTF-8 (some terminals take 0x80 to 0x9F for C1) become '?'. */
void text_tame(char *string);
/* Appends bytes made safe for a log line: printable ASCII as is, quotes and backslash escaped, all
 * else \xNN; at most max_bytes of input, then "...". */
void text_add_escaped(struct text_buf *b, const char *bytes, size_t len, size_t max_bytes);

/* 0 or -ENOMEM. The string is copied. */
int text_list_add(struct text_list *l, const char *bytes, size_t len);
/* Appends the items of a comma-separated value, surrounding blanks trimmed, empty items skipped. 0
 * or -ENOMEM. */
int text_list_split(struct text_list *l, const char *value);
bool text_list_has(const struct text_list *l, const char *bytes, size_t len);
int text_list_copy(const struct text_list *from, struct text_list *to);
void text_list_free(struct text_list *l);

static inline struct text_span text_span_of(const char *string)
{
    return (struct text_span){string, string ? __builtin_strlen(string) : 0};
}
bool text_span_eq(struct text_span a, const char *string);
bool text_span_ieq(struct text_span a, const char *string);

/* "25s", "500ms", "7d", "1h30m" -> milliseconds; bare numbers are seconds; no fractions.
 * 0 or -EINVAL, -ERANGE. */
int text_parse_time_ms(const char *s, int64_t *out);
/* "16k", "1M", "1048576" -> bytes. 0 or -EINVAL, -ERANGE. */
int text_parse_bytes(const char *s, int64_t *out);
int text_parse_count(const char *s, int64_t *out);

/* Optimal string alignment distance, for "did you mean"; inputs above 64 bytes give SIZE_MAX. */
size_t text_distance(const char *a, const char *b);

/* True when the bytes are well-formed UTF-8 (Unicode 15, table 3-7). */
bool text_is_utf8(const char *bytes, size_t len);

/* Percent-decodes (RFC 3986, section 2.1) into out (cap includes the NUL); plus_is_blank for query
 * strings. Length or -EINVAL (bad escape or %00) or -ENOSPC. */
int text_percent_decode(struct text_span in, bool plus_is_blank, char *out, size_t cap);
/* Finds name in a query string ("a=1&b=2"); value undecoded. False when absent. First one wins. */
bool text_query_find(struct text_span query, const char *name, struct text_span *value);

/* SipHash-free 64-bit hash with a per-process-tree secret is not needed for ids (no table of theirs
 * can be flooded beyond its bound); this one is FNV-1a finished with an avalanche. Never returns 0,
 * so 0 can mean "no id". */
uint64_t text_hash64(const void *bytes, size_t len);

#endif
