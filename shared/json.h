/*
 * json.h - one-pass JSON check without a tree.
 *
 * All processes and libbelfry. Pure, allocates nothing, never recurses, strict RFC 8259: UTF-8 is
 * validated in the same pass (Unicode 15, table 3-7), depth is bounded, no byte order mark, no
 * trailing bytes, no control characters in strings, no leading zeros. It exists because every
 * relayed message is checked and none is changed: a tree would be built only to be thrown away.
 * Code that makes or changes JSON uses cJSON or a text_buf.
 *
 * Where a name stands twice in an object, the last one counts, as JSON.parse in browsers has it
 * (RFC 8259, section 4, leaves it open).
 */
#ifndef BELFRY_SHARED_JSON_H
#define BELFRY_SHARED_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

/* A multiple of 64, for a level costs a bit. Parsers behind us give up near it: cJSON and Python's
 * at 1000. */
#define JSON_MAX_DEPTH 1024

/* Two errors in one document: the one that comes first is told. JSON_NOT_OBJECT: well-formed to the
 * end, but another kind of value. */
enum json_result { JSON_OK, JSON_INVALID, JSON_INVALID_UTF8, JSON_NOT_OBJECT, JSON_TOO_DEEP };

/* Called for each member of the top-level object, in order; key is the raw text between the quotes
 * (escapes not decoded), value the raw text of the value (strings with their quotes). */
typedef void json_member_fn(void *data, struct text_span key, struct text_span value);
/* Called for each element of the top-level array, in order. */
typedef void json_element_fn(void *data, struct text_span value);

/* Checks the bytes; on_member may be NULL. Members may have been reported before an error
 * is found. */
enum json_result json_scan_object(const char *bytes, size_t len, json_member_fn *on_member,
                                  void *data);
/* The same for an array; JSON_NOT_OBJECT then means that it is none. */
enum json_result json_scan_array(const char *bytes, size_t len, json_element_fn *on_element,
                                 void *data);
/* "not JSON", for error texts. */
const char *json_result_text(enum json_result r);

/* What a checked value is, told by its first byte. JSON_KIND_NONE for no bytes. */
enum json_kind {
    JSON_KIND_NONE,
    JSON_KIND_OBJECT,
    JSON_KIND_ARRAY,
    JSON_KIND_STRING,
    JSON_KIND_NUMBER,
    JSON_KIND_BOOL,
    JSON_KIND_NULL
};
enum json_kind json_kind(struct text_span value);

/* True when a key as json_member_fn gives it is this name (any UTF-8 without NUL), escapes
 * decoded. */
bool json_key_is(struct text_span key, const char *name);
/* Value of the last member with this name of an object already checked; false when absent or when
 * object is none. */
bool json_find(struct text_span object, const char *name, struct text_span *value);

/* Decodes a checked JSON string value (with quotes) to UTF-8. Length, or -ENOSPC, or -EINVAL when
 * value is not a string. out gets no NUL. Lone surrogates become U+FFFD. A string without escapes
 * needs no decoding: see json_string_plain. The decoded text is never longer than the value. */
long json_string_decode(struct text_span value, char *out, size_t cap);
/* True when value is a string without escapes; *inner is the text between the quotes. */
bool json_string_plain(struct text_span value, struct text_span *inner);

#endif
