/*
 * fuzz_text.c - the small readers: addresses, URLs of Redis and WebSockets, times, numbers with
 * units, percent-encoding, queries, user ids in names, filters (shared/, src/wsclient.c,
 * workers/filter.c). The input is one text.
 *
 * Holds: what is read and written is read as the same; what is decoded is no longer than it was.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include "shared/address.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/keys.h"
#include "shared/log.h"
#include "shared/redisurl.h"
#include "src/wsclient.h"
#include "workers/filter.h"

static void check_address(const char *text)
{
    struct address a, again;
    char out[ADDRESS_TEXT_BYTES];
    const char *why = NULL;
    if (address_parse(text, &a, &why) < 0) {
        FUZZ_CHECK(why && *why);
        return;
    }
    address_format(&a, out);
    FUZZ_CHECK(address_parse(out, &again, &why) == 0);
    FUZZ_CHECK(a.len == again.len && a.is_unix == again.is_unix && a.is_dual == again.is_dual);
    FUZZ_CHECK(!memcmp(&a.storage, &again.storage, a.len));
    FUZZ_CHECK(!strcmp(a.path, again.path) && a.port == again.port);
    FUZZ_CHECK((!a.is_unix && a.port == 0) || address_equal(&a, &again));
    struct address any, bound;
    address_any_v4(a.port, &any);
    FUZZ_CHECK(address_equal(&a, &any) == address_equal(&any, &a));
    FUZZ_CHECK(address_from_sockaddr((struct sockaddr *)&a.storage, a.len, &bound) == 0);
    FUZZ_CHECK(bound.port == a.port && address_is_local(&bound) == address_is_local(&a));
    for (socklen_t len = 0; len < a.len; len++)
        address_from_sockaddr((struct sockaddr *)&a.storage, len, &bound);
}

static void check_urls(const char *text)
{
    struct redisurl u;
    struct wsclient_url w;
    char out[600];
    const char *why = NULL;
    if (redisurl_parse(text, &u, &why) == 0) {
        redisurl_describe(&u, out, sizeof(out));
        FUZZ_CHECK(*out && strlen(out) < sizeof(out));
        FUZZ_CHECK(strlen(u.password) < 5 || strlen(u.host) > 4 || !strstr(out, u.password));
    } else {
        FUZZ_CHECK(why && *why);
    }
    if (wsclient_url_parse(text, &w, &why) == 0) {
        FUZZ_CHECK(*w.host && (w.is_unix || (w.port > 0 && w.port < 65536)));
        for (const char *p = w.path; *p; p++)
            FUZZ_CHECK((unsigned char)*p > ' ');
    }
}

static void check_time(const char *text, size_t len)
{
    int64_t us, again, n;
    char out[CLOCK_ISO_BYTES];
    if (clock_parse_us(text, len, &us) == 0) {
        clock_format_us(us, true, out);
        FUZZ_CHECK(clock_parse_us(out, strlen(out), &again) == 0);
        FUZZ_CHECK(again == us || strstr(out, "0000-01-01") || strstr(out, "9999-12-31"));
    }
    if (text_parse_time_ms(text, &n) == 0)
        FUZZ_CHECK(n >= 0);
    if (text_parse_bytes(text, &n) == 0)
        FUZZ_CHECK(n >= 0);
    if (text_parse_count(text, &n) == 0)
        FUZZ_CHECK(n >= 0);
}

static void check_encoded(struct text_span s)
{
    struct text_span value;
    char *out = malloc(s.len + 1);
    FUZZ_CHECK(out);
    int len = text_percent_decode(s, true, out, s.len + 1);
    FUZZ_CHECK(len == -22 || (len >= 0 && (size_t)len <= s.len && !out[len]));
    if (s.len > 2)
        text_percent_decode(s, false, out, s.len / 2);
    if (text_query_find(s, "token", &value)) {
        FUZZ_CHECK(value.ptr >= s.ptr && value.ptr + value.len <= s.ptr + s.len);
        FUZZ_CHECK(!memchr(value.ptr, '&', value.len));
    }
    free(out);
}

static void check_escaped(struct text_span s)
{
    struct text_buf out = {0};
    text_add_escaped(&out, s.ptr, s.len, 100);
    for (size_t i = 0; i < out.len; i++)
        FUZZ_CHECK(out.data[i] >= ' ' && out.data[i] < 0x7f);
    FUZZ_CHECK(out.len <= 404);
    text_buf_reset(&out);
    text_add_json(&out, s.ptr, s.len);
    text_addc(&out, ']');
    FUZZ_CHECK(!out.failed);
    struct text_buf array = {0};
    text_addc(&array, '[');
    text_add(&array, out.data, out.len);
    FUZZ_CHECK(json_scan_array(array.data, array.len, NULL, NULL) == JSON_OK);
    if (text_is_utf8(s.ptr, s.len)) {
        char *back = malloc(array.len);
        FUZZ_CHECK(back);
        long n = json_string_decode((struct text_span){array.data + 1, array.len - 2}, back,
                                    array.len);
        FUZZ_CHECK(n >= 0 && fuzz_same((struct text_span){back, (size_t)n}, s));
        free(back);
    }
    text_buf_free(&array);
    text_buf_free(&out);
}

static void check_jti_template(const char *text)
{
    struct text_buf name = {0};
    const char *at = strstr(text, "{jti}");
    if (!keys_is_jti_template(text))
        return;
    keys_expand_jti(&name, text, "{jti}", 5);
    FUZZ_CHECK(at && !strcmp(name.data, text));
    text_buf_free(&name);
}

/* The text as a template. */
static void check_template(const char *text)
{
    struct keys k;
    struct text_buf name = {0};
    struct text_span id;
    keys_expand(&name, text, "", 0); /* none, or several places: as it is, or the first */
    FUZZ_CHECK(name.len + 9 >= strlen(text));
    keys_match(text, fuzz_span(&name), &id);
    text_buf_reset(&name);
    if (keys_init(&k, text, "b", text, text) != 0) {
        text_buf_free(&name);
        return;
    }
    keys_expand(&name, k.user_channel, "u", 1);
    FUZZ_CHECK(keys_match(k.user_channel, fuzz_span(&name), &id) && id.len == 1);
    FUZZ_CHECK(keys_is_template(k.read_marks) && keys_is_template(k.acked));
    FUZZ_CHECK(strlen(k.acked) == strlen(text) + 6);
    text_buf_free(&name);
    keys_fini(&k);
}

static void check_keys(struct text_span s)
{
    static const char template_text[] = "ws:{user_id}:x";
    struct text_buf name = {0};
    struct text_span id;
    if (keys_match(template_text, s, &id)) {
        keys_expand(&name, template_text, id.ptr, id.len);
        FUZZ_CHECK(fuzz_same(fuzz_span(&name), s));
    }
    if (keys_is_user_id(s.ptr, s.len)) {
        text_buf_reset(&name);
        keys_expand(&name, template_text, s.ptr, s.len);
        FUZZ_CHECK(keys_match(template_text, fuzz_span(&name), &id) && fuzz_same(id, s));
    }
    text_buf_free(&name);
}

static void check_filter(const char *text)
{
    struct filter *f = NULL, *again = NULL;
    struct text_buf saved = {0}, twice = {0};
    filter_parse(&f, text);
    filter_unsubscribe(&f, text_span_of(text));
    filter_save(f, &saved);
    FUZZ_CHECK(filter_restore(fuzz_span(&saved), &again) == 0);
    filter_save(again, &twice);
    FUZZ_CHECK(fuzz_same(fuzz_span(&saved), fuzz_span(&twice)));
    filter_free(again);
    FUZZ_CHECK(filter_copy(f, &again) == 0);
    text_buf_reset(&twice);
    filter_save(again, &twice);
    FUZZ_CHECK(fuzz_same(fuzz_span(&saved), fuzz_span(&twice)));
    text_buf_reset(&saved);
    filter_describe(f, &saved);
    filter_json(f, &twice);
    filter_free(f);
    filter_free(again);
    text_buf_free(&saved);
    text_buf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text_span s = {(const char *)data, size};
    char *text = fuzz_text(s), *copy = fuzz_copy(s);
    s.ptr = copy;
    check_address(text);
    check_urls(text);
    check_time(text, strlen(text));
    check_encoded(s);
    check_escaped(s);
    check_keys(s);
    check_template(text);
    check_jti_template(text);
    check_filter(text);
    free(text);
    free(copy);
    return 0;
}
