#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"

/* Scans a copy of exactly this size, so that a sanitizer sees a read of one byte more. */
static enum json_result scan(const char *bytes, size_t len)
{
    char *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    enum json_result r = json_scan_object(copy, len, NULL, NULL);
    free(copy);
    return r;
}

static const char *const accepted[] = {
    "{}",
    " \t\r\n{ } \n",
    "{\"a\":1}",
    "{\"\":null}",
    "{ \"a\" : [ ] , \"b\" : { } }",
    "{\"a\":0,\"b\":-0,\"c\":-1,\"d\":10,\"e\":1.5,\"f\":-0.0,\"g\":1e5,\"h\":1E+5,\"i\":0e-0}",
    "{\"n\":123456789012345678901234567890.123456789e-999999}",
    "{\"t\":true,\"f\":false,\"n\":null}",
    "{\"e\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u00e9\\uD83D\\uDE00\"}",
    "{\"lone\":\"\\ud800\",\"low\":\"\\uDC00x\"}",
    "{\"u\":\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"}",
    "{\"edge2\":\"\xC2\x80\xDF\xBF\"}",
    "{\"edge3\":\"\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\"}",
    "{\"edge4\":\"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"}",
    "{\"del\":\"\x7F\"}",
    "{\"a\":1,\"a\":2}",
    "{\"deep\":[[[[{\"x\":[{\"y\":[]}]}]]]],\"after\":[1,\"2\",{},[],true]}",
    "{\"0123456\":\"01234567\",\"abcdefgh\":\"abcdefghijklmnopqrstuvwxyz \xC3\xA9 abcdefghijkl\"}",
};

START_TEST(well_formed_objects_are_accepted)
{
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++)
        ck_assert_msg(scan(accepted[i], strlen(accepted[i])) == JSON_OK, "%s", accepted[i]);
}
END_TEST

START_TEST(every_prefix_of_a_document_is_refused)
{
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        size_t len = strlen(accepted[i]);
        while (accepted[i][len - 1] != '}') /* white space behind it may be cut off */
            len--;
        for (size_t cut = 0; cut < len; cut++) {
            enum json_result r = scan(accepted[i], cut);
            ck_assert_msg(r == JSON_INVALID || r == JSON_INVALID_UTF8, "%.*s: %d", (int)cut,
                          accepted[i], (int)r);
        }
    }
}
END_TEST

static const char *const refused[] = {
    "",
    " ",
    "{",
    "}",
    "{]",
    "[}",
    "{}}",
    "{}{}",
    "{} x",
    "{},",
    "[]]",
    "x",
    "nul",
    "nulll",
    "\xEF\xBB\xBF{}", /* byte order mark */
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "{null:1}",
    "{\"a\"}",
    "{\"a\" 1}",
    "{\"a\":}",
    "{\"a\"::1}",
    "{\"a\":1,}",
    "{,}",
    "{,\"a\":1}",
    "{\"a\":1 \"b\":2}",
    "{\"a\":1,,\"b\":2}",
    "{:1}",
    "{\"a\":[1,]}",
    "{\"a\":[,1]}",
    "{\"a\":[1 2]}",
    "{\"a\":[1,2}",
    "{\"a\":[1}]",
    "{\"a\":01}",
    "{\"a\":-}",
    "{\"a\":+1}",
    "{\"a\":.5}",
    "{\"a\":5.}",
    "{\"a\":1e}",
    "{\"a\":1e+}",
    "{\"a\":-01}",
    "{\"a\":1.e5}",
    "{\"a\":0x10}",
    "{\"a\":1_0}",
    "{\"a\":NaN}",
    "{\"a\":Infinity}",
    "{\"a\":-Infinity}",
    "{\"a\":- 1}",
    "{\"a\":1 .5}",
    "{\"a\":1.5.5}",
    "{\"a\":1e5e5}",
    "{\"a\":00}",
    "{\"a\":True}",
    "{\"a\":tru}",
    "{\"a\":truee}",
    "{\"a\":nul}",
    "{\"a\":fals e}",
    "{\"a\":undefined}",
    "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12\"}",
    "{\"a\":\"\\u12G4\"}",
    "{\"a\":\"\\U0041\"}",
    "{\"a\":\"\\'\"}",
    "{\"a\":\"\\\"}",
    "{\"a\":\"x}",
    "{\"a\":\"\t\"}",
    "{\"a\":\"\n\"}",
    "{\"a\":\"\x1F\"}",
    "{\"a\t\":1}",
    "{\"a\":1}/* x */",
    "{\"a\":1}//",
    "{/**/}",
    "\f{}",
    "\v{}",
    "{\"a\":1\f}",
    "[1,2",
    "\"abc",
    "-",
    "[1,2] 3",
    "1 2",
    "{\"a\":\"b\"\"c\"}",
    "{\"a\" \"b\"}",
    "{\"a\":1;\"b\":2}",
    "[\"a\":1]",
    "{\"a\",\"b\"}",
};

START_TEST(what_is_not_json_is_refused)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        ck_assert_msg(scan(refused[i], strlen(refused[i])) == JSON_INVALID, "%s", refused[i]);
    ck_assert_int_eq(json_scan_object(NULL, 0, NULL, NULL), JSON_INVALID);
}
END_TEST

START_TEST(nul_bytes_are_refused_wherever_they_stand)
{
    const char text[] = "{\"ab\":\"cd\",\"e\":[1,true]}";
    for (size_t at = 0; at < sizeof(text) - 1; at++) {
        char copy[sizeof(text)];
        memcpy(copy, text, sizeof(text));
        copy[at] = '\0';
        ck_assert_msg(scan(copy, sizeof(text) - 1) == JSON_INVALID, "at %zu", at);
    }
    ck_assert_int_eq(scan(text, sizeof(text)), JSON_INVALID); /* its own NUL is trailing */
}
END_TEST

START_TEST(other_values_are_told_from_objects_and_from_errors)
{
    const char *other[] = {"[]",   " [1,{\"a\":2}] ", "1",   "-1.5e3", "\"x\"",
                           "true", "false",           "null"};
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++)
        ck_assert_msg(scan(other[i], strlen(other[i])) == JSON_NOT_OBJECT, "%s", other[i]);
    ck_assert_int_eq(scan("[1,", 3), JSON_INVALID);
    ck_assert_int_eq(scan("[\"\xFF\"]", 5), JSON_INVALID_UTF8);
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_told_from_what_is_not_json)
{
    const char *bad[] = {
        "\x80",
        "\xBF",
        "\xC0\x80",
        "\xC1\xBF",
        "\xC2",
        "\xC2x",
        "\xE0\x9F\xBF",
        "\xE0\xA0",
        "\xE2\x82",
        "\xED\xA0\x80",
        "\xED\xBF\xBF",
        "\xE2\x28\xA1",
        "\xF0\x8F\xBF\xBF",
        "\xF0\x9F\x98",
        "\xF0\x9F\x98x",
        "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80",
        "\xF8\x88\x80\x80\x80",
        "\xFE",
        "\xFF",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        for (int pad = 0; pad < 9;
             pad++) { /* on every place of the eight bytes looked at together */
            char text[64];
            int n = snprintf(text, sizeof(text), "{\"a\":\"%.*s%s\"}", pad, "12345678", bad[i]);
            ck_assert_msg(scan(text, (size_t)n) == JSON_INVALID_UTF8, "value %zu", i);
            n = snprintf(text, sizeof(text), "{\"%.*s%s\":1}", pad, "12345678", bad[i]);
            ck_assert_msg(scan(text, (size_t)n) == JSON_INVALID_UTF8, "key %zu", i);
            n = snprintf(text, sizeof(text), "{\"a\":%s}", bad[i]);
            ck_assert_msg(scan(text, (size_t)n) == JSON_INVALID_UTF8, "bare %zu", i);
        }
    /* Good UTF-8 in a bad place is a matter of JSON. */
    ck_assert_int_eq(scan("{\"a\":\xC3\xA9}", 8), JSON_INVALID);
    ck_assert_int_eq(scan("\xC3\xA9", 2), JSON_INVALID);
}
END_TEST

START_TEST(control_characters_are_found_at_every_place_of_a_string)
{
    char text[64];
    for (int c = 1; c < 0x20; c++)
        for (int pad = 0; pad < 17; pad++) {
            int n = snprintf(text, sizeof(text), "{\"a\":\"%.*s%cxxxxxxxxx\"}", pad,
                             "1234567890123456", c);
            ck_assert_msg(scan(text, (size_t)n) == JSON_INVALID, "%d after %d", c, pad);
        }
    for (int c = 0x20; c < 0x80; c++) { /* and all others pass */
        int n = snprintf(text, sizeof(text), "{\"a\":\"xyz%c%cxxxxxx\"}", c,
                         c == '"' || c == '\\' ? ':' : c);
        if (c != '"' && c != '\\')
            ck_assert_msg(scan(text, (size_t)n) == JSON_OK, "%d", c);
    }
}
END_TEST

static size_t nest(char *out, int depth, char open, char close)
{
    size_t n = 0;
    for (int i = 0; i < depth; i++) {
        if (i == 0 || open == '{')
            n += (size_t)sprintf(out + n, i + 1 < depth ? "{\"a\":" : "{");
        else
            out[n++] = open;
    }
    for (int i = depth - 1; i >= 0; i--)
        out[n++] = i == 0 ? '}' : close;
    return n;
}

START_TEST(depth_is_bounded_at_its_number)
{
    char text[JSON_MAX_DEPTH * 16];
    for (int kind = 0; kind < 2; kind++) {
        char open = kind ? '{' : '[', close = kind ? '}' : ']';
        ck_assert_int_eq(scan(text, nest(text, JSON_MAX_DEPTH - 1, open, close)), JSON_OK);
        ck_assert_int_eq(scan(text, nest(text, JSON_MAX_DEPTH, open, close)), JSON_OK);
        ck_assert_int_eq(scan(text, nest(text, JSON_MAX_DEPTH + 1, open, close)), JSON_TOO_DEEP);
    }
    enum { MANY = 1000000 };
    char *many = malloc(MANY);
    memset(many, '[', MANY);
    ck_assert_int_eq(scan(many, MANY), JSON_TOO_DEEP);
    free(many);
}
END_TEST

/* Objects and arrays by turns, so that neighbours differ on both sides of each limit of a word. */
START_TEST(each_level_is_closed_by_its_own_kind)
{
    enum { DEPTH = 1000 };
    char text[DEPTH * 8];
    size_t n = 0, closers;
    for (int i = 0; i < DEPTH; i++)
        n += (size_t)sprintf(text + n, "%s", i % 2 ? "[" : "{\"a\":");
    closers = n;
    for (int i = DEPTH - 1; i >= 0; i--)
        text[n++] = i % 2 ? ']' : '}';
    ck_assert_int_eq(scan(text, n), JSON_OK);
    for (size_t at = closers; at < n; at++) {
        text[at] ^= '}' ^ ']';
        ck_assert_int_eq(scan(text, n), JSON_INVALID);
        text[at] ^= '}' ^ ']';
    }
}
END_TEST

START_TEST(no_corruption_of_a_single_byte_is_read_out_of_bounds)
{
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        size_t len = strlen(accepted[i]);
        char *copy = malloc(len);
        for (size_t at = 0; at < len; at++)
            for (int c = 0; c < 256; c++) {
                memcpy(copy, accepted[i], len);
                copy[at] = (char)c;
                struct text_span v;
                char out[256];
                if (json_scan_object(copy, len, NULL, NULL) == JSON_OK &&
                    json_find((struct text_span){copy, len}, "e", &v))
                    json_string_decode(v, out, sizeof(out));
            }
        free(copy);
    }
}
END_TEST

static void note_member(void *data, struct text_span key, struct text_span value)
{
    struct text_buf *b = data;
    text_addf(b, "<%.*s=%.*s>", (int)key.len, key.ptr, (int)value.len, value.ptr);
}

static void note_element(void *data, struct text_span value)
{
    struct text_buf *b = data;
    text_addf(b, "<%.*s>", (int)value.len, value.ptr);
}

START_TEST(members_of_the_top_level_are_reported_in_order_as_they_stand)
{
    struct text_buf seen = {0};
    const char *text =
        " { \"a\" : 1 ,\"b\\u0063\":\"x\\n\", \"c\":{\"a\":[ 1 ]} ,\"d\":[{\"e\":2}],\"\":-1.5e3 }";
    ck_assert_int_eq(json_scan_object(text, strlen(text), note_member, &seen), JSON_OK);
    ck_assert_str_eq(seen.data,
                     "<a=1><b\\u0063=\"x\\n\"><c={\"a\":[ 1 ]}><d=[{\"e\":2}]><=-1.5e3>");
    text_buf_reset(&seen);
    text = "[ 1, \"a\" ,[2,[3]],{\"x\":[4]}, null]";
    ck_assert_int_eq(json_scan_array(text, strlen(text), note_element, &seen), JSON_OK);
    ck_assert_str_eq(seen.data, "<1><\"a\"><[2,[3]]><{\"x\":[4]}><null>");
    text_buf_reset(&seen);
    ck_assert_int_eq(json_scan_array("{\"a\":1}", 7, note_element, &seen), JSON_NOT_OBJECT);
    ck_assert_int_eq(json_scan_object("[1]", 3, note_member, &seen), JSON_NOT_OBJECT);
    ck_assert_uint_eq(seen.len, 0);
    text_buf_free(&seen);
}
END_TEST

START_TEST(the_last_member_of_a_name_is_found_however_it_is_spelled)
{
    struct text_span v,
        o = text_span_of("{\"a\":{\"b\":1},\"b\":2,\"\\u0062\":3,\"bb\":4,\"c\\n\":5}");
    ck_assert(json_find(o, "b", &v));
    ck_assert(text_span_eq(v, "3"));
    ck_assert(json_find(o, "bb", &v));
    ck_assert(text_span_eq(v, "4"));
    ck_assert(json_find(o, "c\n", &v));
    ck_assert(text_span_eq(v, "5"));
    ck_assert(!json_find(o, "c\\n", &v));
    ck_assert(!json_find(o, "c", &v));
    ck_assert(!json_find(o, "", &v));
    ck_assert(!json_find(text_span_of("[1]"), "a", &v));
    ck_assert(!json_find((struct text_span){NULL, 0}, "a", &v));
    ck_assert(json_key_is(text_span_of("\\uD83D\\uDE00"), "\xF0\x9F\x98\x80"));
    ck_assert(!json_key_is(text_span_of("\\u0000a"), ""));
    ck_assert(!json_key_is(text_span_of("ab"), "abc"));
    ck_assert(!json_key_is(text_span_of("\\u0061b"), "abc"));
    ck_assert(!json_key_is(text_span_of("\\u0061bc"), "ab"));
}
END_TEST

static const char *decoded(const char *value)
{
    static char out[64];
    long n = json_string_decode(text_span_of(value), out, sizeof(out) - 1);
    ck_assert_int_ge(n, 0);
    out[n] = '\0';
    return out;
}

START_TEST(strings_are_decoded)
{
    ck_assert_str_eq(decoded("\"\""), "");
    ck_assert_str_eq(decoded("\"plain \xC3\xA9\""), "plain \xC3\xA9");
    ck_assert_str_eq(decoded("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), "\"\\/\b\f\n\r\t");
    ck_assert_str_eq(decoded("\"\\u0041\\u00e9\\u20AC\""), "A\xC3\xA9\xE2\x82\xAC");
    ck_assert_str_eq(decoded("\"\\uD83D\\uDE00\""), "\xF0\x9F\x98\x80");
    ck_assert_str_eq(decoded("\"\\uD83Dx\\uDE00\""), "\xEF\xBF\xBDx\xEF\xBF\xBD");
    ck_assert_str_eq(decoded("\"\\uD83D\""), "\xEF\xBF\xBD");
    ck_assert_str_eq(decoded("\"\\uD83D\\n\""), "\xEF\xBF\xBD\n");
    ck_assert_str_eq(decoded("\"\\uD83D\\uD83D\\uDE00\""), "\xEF\xBF\xBD\xF0\x9F\x98\x80");
    char out[8];
    ck_assert_int_eq(json_string_decode(text_span_of("\"a\\u0000b\""), out, 8), 3);
    ck_assert_mem_eq(out, "a\0b", 3);
    ck_assert_int_eq(json_string_decode(text_span_of("\"abc\""), out, 3), 3);
    ck_assert_int_eq(json_string_decode(text_span_of("\"abc\""), out, 2), -ENOSPC);
    ck_assert_int_eq(json_string_decode(text_span_of("\"ab\\u20AC\""), out, 4), -ENOSPC);
    ck_assert_int_eq(json_string_decode(text_span_of("123"), out, 8), -EINVAL);
    ck_assert_int_eq(json_string_decode((struct text_span){NULL, 0}, out, 8), -EINVAL);
}
END_TEST

START_TEST(plain_strings_are_told_from_those_with_escapes)
{
    struct text_span inner;
    ck_assert(json_string_plain(text_span_of("\"abc\""), &inner));
    ck_assert(text_span_eq(inner, "abc"));
    ck_assert(json_string_plain(text_span_of("\"\""), &inner));
    ck_assert_uint_eq(inner.len, 0);
    ck_assert(!json_string_plain(text_span_of("\"a\\n\""), &inner));
    ck_assert(!json_string_plain(text_span_of("12"), &inner));
    ck_assert(!json_string_plain((struct text_span){NULL, 0}, &inner));
}
END_TEST

START_TEST(kinds_are_told_by_the_first_byte)
{
    ck_assert_int_eq(json_kind(text_span_of("{}")), JSON_KIND_OBJECT);
    ck_assert_int_eq(json_kind(text_span_of("[]")), JSON_KIND_ARRAY);
    ck_assert_int_eq(json_kind(text_span_of("\"\"")), JSON_KIND_STRING);
    ck_assert_int_eq(json_kind(text_span_of("-1")), JSON_KIND_NUMBER);
    ck_assert_int_eq(json_kind(text_span_of("0")), JSON_KIND_NUMBER);
    ck_assert_int_eq(json_kind(text_span_of("true")), JSON_KIND_BOOL);
    ck_assert_int_eq(json_kind(text_span_of("false")), JSON_KIND_BOOL);
    ck_assert_int_eq(json_kind(text_span_of("null")), JSON_KIND_NULL);
    ck_assert_int_eq(json_kind(text_span_of("")), JSON_KIND_NONE);
    for (int r = JSON_OK; r <= JSON_TOO_DEEP; r++)
        ck_assert_str_ne(json_result_text((enum json_result)r), "");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("json");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, well_formed_objects_are_accepted);
    tcase_add_test(tc, every_prefix_of_a_document_is_refused);
    tcase_add_test(tc, what_is_not_json_is_refused);
    tcase_add_test(tc, nul_bytes_are_refused_wherever_they_stand);
    tcase_add_test(tc, other_values_are_told_from_objects_and_from_errors);
    tcase_add_test(tc, bytes_that_are_not_utf8_are_told_from_what_is_not_json);
    tcase_add_test(tc, control_characters_are_found_at_every_place_of_a_string);
    tcase_add_test(tc, depth_is_bounded_at_its_number);
    tcase_add_test(tc, each_level_is_closed_by_its_own_kind);
    tcase_add_test(tc, no_corruption_of_a_single_byte_is_read_out_of_bounds);
    tcase_add_test(tc, members_of_the_top_level_are_reported_in_order_as_they_stand);
    tcase_add_test(tc, the_last_member_of_a_name_is_found_however_it_is_spelled);
    tcase_add_test(tc, strings_are_decoded);
    tcase_add_test(tc, plain_strings_are_told_from_those_with_escapes);
    tcase_add_test(tc, kinds_are_told_by_the_first_byte);
    Suite *s = suite_create("json");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
