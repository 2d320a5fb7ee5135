/*
 * fuzz_message.c - JSON and the envelope (shared/json.c, shared/message.c), and questions between
 * instances (shared/inquiry.c). The input is what somebody published.
 *
 * Holds: what the one-pass scanner accepts cJSON reads, too, with the same strings; every span lies
 * within the bytes; a payload that is accepted comes back from an envelope as it went in; what is
 * read of a question or an answer and written is read as the same again.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <cjson/cJSON.h>

#include "shared/inquiry.h"
#include "shared/json.h"
#include "shared/message.h"

struct seen {
    const char *bytes;
    size_t len;
    const cJSON *next; /* the member that cJSON has in this place; NULL: not compared */
    bool is_compared;
};

static bool is_within(const struct seen *s, struct text_span span)
{
    return !span.len || (span.ptr >= s->bytes && span.ptr + span.len <= s->bytes + s->len);
}

/* cJSON ends strings at \u0000, and refuses lone surrogates, which are replaced here. */
static void compare_string(struct text_span value, const cJSON *other)
{
    char *out = fuzz_copy(value);
    long len = json_string_decode(value, out, value.len);
    FUZZ_CHECK(len >= 0 && (size_t)len <= value.len);
    FUZZ_CHECK(text_is_utf8(out, (size_t)len));
    if (other && cJSON_IsString(other) && !memchr(out, 0, (size_t)len))
        FUZZ_CHECK(strlen(other->valuestring) == (size_t)len &&
                   !memcmp(out, other->valuestring, (size_t)len));
    free(out);
}

static void compare_value(struct text_span value, const cJSON *other)
{
    enum json_kind kind = json_kind(value);
    FUZZ_CHECK(kind != JSON_KIND_NONE);
    if (kind == JSON_KIND_STRING)
        compare_string(value, other);
    if (!other)
        return;
    FUZZ_CHECK((kind == JSON_KIND_OBJECT) == (bool)cJSON_IsObject(other));
    FUZZ_CHECK((kind == JSON_KIND_ARRAY) == (bool)cJSON_IsArray(other));
    FUZZ_CHECK((kind == JSON_KIND_STRING) == (bool)cJSON_IsString(other));
    FUZZ_CHECK((kind == JSON_KIND_NUMBER) == (bool)cJSON_IsNumber(other));
    FUZZ_CHECK((kind == JSON_KIND_NULL) == (bool)cJSON_IsNull(other));
}

static void on_member(void *data, struct text_span key, struct text_span value)
{
    struct seen *s = data;
    FUZZ_CHECK(is_within(s, key) && is_within(s, value) && value.len > 0);
    FUZZ_CHECK(!s->is_compared || s->next);
    if (s->next && !strchr(s->next->string, '\\') && !memchr(key.ptr, '\\', key.len))
        FUZZ_CHECK(json_key_is(key, s->next->string));
    compare_value(value, s->next);
    if (s->next)
        s->next = s->next->next;
}

static void on_element(void *data, struct text_span value)
{
    struct seen *s = data;
    FUZZ_CHECK(is_within(s, value) && value.len > 0);
    compare_value(value, s->next);
    if (s->next)
        s->next = s->next->next;
}

/* True when cJSON can be expected to read it: it refuses depth and surrogates that we take. */
static bool is_plain(const char *bytes, size_t len)
{
    size_t depth = 0;
    for (size_t i = 0; i < len; i++) {
        depth += bytes[i] == '[' || bytes[i] == '{';
        if (bytes[i] == '\\' && i + 1 < len && bytes[i + 1] == 'u')
            return false;
    }
    return depth < CJSON_NESTING_LIMIT - 1;
}

static void scan(const char *bytes, size_t len)
{
    struct seen s = {.bytes = bytes, .len = len};
    cJSON *tree = is_plain(bytes, len) ? cJSON_ParseWithLength(bytes, len) : NULL;
    enum json_result first = json_scan_object(bytes, len, NULL, NULL);
    if (first == JSON_OK && is_plain(bytes, len)) {
        FUZZ_CHECK(tree);
        s.next = tree->child;
        s.is_compared = true;
    }
    FUZZ_CHECK(json_scan_object(bytes, len, first ? NULL : on_member, &s) == first);
    FUZZ_CHECK(first != JSON_OK || !s.next);
    enum json_result second = json_scan_array(bytes, len, NULL, NULL);
    FUZZ_CHECK(first != JSON_OK || second == JSON_NOT_OBJECT);
    FUZZ_CHECK((first == JSON_NOT_OBJECT) ==
               (second == JSON_OK || (second == JSON_NOT_OBJECT && first != JSON_OK)));
    if (second == JSON_OK) {
        s = (struct seen){.bytes = bytes, .len = len, .next = tree ? tree->child : NULL};
        json_scan_array(bytes, len, on_element, &s);
    }
    FUZZ_CHECK(*json_result_text(first));
    cJSON_Delete(tree);
}

static void check_message(const char *bytes, size_t len)
{
    struct seen s = {.bytes = bytes, .len = len};
    struct message m, back;
    if (message_read(bytes, len, &m) != JSON_OK) {
        FUZZ_CHECK(json_scan_object(bytes, len, NULL, NULL) != JSON_OK);
        return;
    }
    FUZZ_CHECK(json_scan_object(bytes, len, NULL, NULL) == JSON_OK);
    FUZZ_CHECK(is_within(&s, m.id) && is_within(&s, m.type) && is_within(&s, m.timestamp) &&
               is_within(&s, m.payload) && is_within(&s, m.origin));
    FUZZ_CHECK(m.id_hash != 0);
    FUZZ_CHECK(m.conflate_key == 0 || m.type_hash != 0);
    struct text_buf out = {0};
    const struct message_style style = {.with_zone = true};
    message_write(&out, &style, "an-id", "SOME_TYPE", "u", m.payload, "c", NULL);
    FUZZ_CHECK(!out.failed);
    if (message_read(out.data, out.len, &back) == JSON_OK) { /* else it is a level too deep now */
        FUZZ_CHECK(back.has_id && back.id_hash == message_id_hash("an-id", 5));
        FUZZ_CHECK(back.type_hash == message_type_hash("some_type", 9));
        FUZZ_CHECK(!m.payload.len || fuzz_same(back.payload, m.payload));
    }
    text_buf_free(&out);
}

static void check_request(const char *bytes, size_t len)
{
    static struct inquiry first, second;
    if (inquiry_read_request(bytes, len, &first) < 0)
        return;
    struct text_buf out = {0};
    inquiry_write_request(&out, &first);
    FUZZ_CHECK(!out.failed);
    FUZZ_CHECK(inquiry_read_request(out.data, out.len, &second) == 0);
    FUZZ_CHECK(!memcmp(&first, &second, sizeof(first)));
    text_buf_free(&out);
}

static void check_answer(const char *bytes, size_t len)
{
    static struct inquiry_message first, second;
    if (inquiry_read_answer(bytes, len, &first) < 0)
        return;
    struct text_buf out = {0};
    inquiry_write_answer(&out, &first, first.head.instance);
    FUZZ_CHECK(!out.failed);
    FUZZ_CHECK(inquiry_read_answer(out.data, out.len, &second) == 0);
    FUZZ_CHECK(inquiry_size(&first.head) == inquiry_size(&second.head));
    FUZZ_CHECK(!memcmp(&first, &second, inquiry_size(&first.head)));
    FUZZ_CHECK(inquiry_take(&first, inquiry_size(&first.head), &second));
    text_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct inquiry_message m;
    char *bytes = fuzz_copy((struct text_span){(const char *)data, size});
    scan(bytes, size);
    check_message(bytes, size);
    check_request(bytes, size);
    check_answer(bytes, size);
    if (inquiry_take(bytes, size, &m))
        FUZZ_CHECK(inquiry_size(&m.head) <= size);
    free(bytes);
    return 0;
}
