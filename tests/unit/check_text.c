#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/text.h"

static void assert_buf(struct text_buf *b, const char *expected)
{
    ck_assert(!b->failed);
    ck_assert_str_eq(b->data, expected);
    ck_assert_uint_eq(b->len, strlen(expected));
    text_buf_free(b);
}

START_TEST(a_buffer_grows_byte_by_byte_and_keeps_its_nul)
{
    struct text_buf b = {0};
    for (int i = 0; i < 5000; i++) {
        text_addc(&b, (char)('a' + i % 26));
        ck_assert_uint_eq(b.len, (size_t)i + 1);
        ck_assert_int_eq(b.data[b.len], '\0');
    }
    for (int i = 0; i < 5000; i++)
        ck_assert_int_eq(b.data[i], 'a' + i % 26);
    text_buf_reset(&b);
    ck_assert_uint_eq(b.len, 0);
    text_addf(&b, "%d-%s", 12, "x");
    text_add(&b, NULL, 0);
    assert_buf(&b, "12-x");
}
END_TEST

START_TEST(formatted_text_longer_than_the_buffer_is_added_as_a_whole)
{
    struct text_buf b = {0};
    char long_text[300];
    memset(long_text, 'y', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    text_adds(&b, "x");
    text_addf(&b, "%s", long_text);
    ck_assert_uint_eq(b.len, 300);
    ck_assert_str_eq(b.data + 1, long_text);
    text_buf_free(&b);
}
END_TEST

START_TEST(an_impossible_size_fails_for_good_and_changes_nothing)
{
    struct text_buf b = {0};
    text_adds(&b, "abc");
    text_add(&b, "x", SIZE_MAX - 2);
    ck_assert(b.failed);
    text_adds(&b, "more");
    ck_assert_str_eq(b.data, "abc");
    text_buf_reset(&b);
    ck_assert(!b.failed);
    text_buf_free(&b);
    text_buf_free(NULL);
}
END_TEST

START_TEST(json_strings_are_escaped)
{
    struct text_buf b = {0};
    text_add_json(&b, "a\"b\\c\b\f\n\r\t\x01\x1f/\x7f", 14);
    assert_buf(&b, "\"a\\\"b\\\\c\\b\\f\\n\\r\\t\\u0001\\u001f/\x7f\"");
    text_add_json(&b, "", 0);
    assert_buf(&b, "\"\"");
    text_add_json(&b, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 15);
    assert_buf(&b, "\"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80\"");
    text_add_json(&b, "a\0b", 3);
    assert_buf(&b, "\"a\\u0000b\"");
}
END_TEST

START_TEST(json_strings_replace_what_is_not_utf8)
{
    struct text_buf b = {0};
    text_add_json(&b, "a\xff" "b\xc3", 4);
    assert_buf(&b, "\"a\xef\xbf\xbd" "b\xef\xbf\xbd\"");
    text_add_json(&b, "\xed\xa0\x80", 3); /* a surrogate: three bytes that are nothing */
    assert_buf(&b, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}
END_TEST

START_TEST(json_for_a_terminal_is_one_line_without_controls)
{
    static const char json[] = "{\r\n\t\"a\": \"\x7f\xc2\x80\xc2\x9f\xc2\xa0\xc3\x9b\"\n}\n";
    static const char other[] = "\x1b]0;a\x07\x9b" "31m\xc2";
    struct text_buf b = {0};
    text_add_line(&b, json, sizeof(json) - 1);
    assert_buf(&b, "{   \"a\": \"\\u007f\\u0080\\u009f\xc2\xa0\xc3\x9b\" } \n");
    text_add_line(&b, other, sizeof(other) - 1);
    assert_buf(&b, "\\u001b]0;a\\u0007\xef\xbf\xbd" "31m\xef\xbf\xbd\n");
    text_add_line(&b, "a\0b", 3);
    assert_buf(&b, "a\\u0000b\n");
    text_add_line(&b, "", 0);
    assert_buf(&b, "\n");
}
END_TEST

START_TEST(of_tame_text_a_terminal_obeys_nothing)
{
    static const char *const pairs[][2] = {
        {"", ""},
        {"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"},
        {"\x1b[2J\n\x7f", "?[2J??"},
        {"\xc2\x9b" "2J\xc2\xa0", "??2J\xc2\xa0"},
        {"\x9b" "2J \x80 \xff", "?2J ? ?"},
        {"cut short \xe2\x82", "cut short ??"},
        {"\xe2\x9b" "2J", "??2J"}, /* what follows a lead byte may be C1 as well */
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char text[64];
        snprintf(text, sizeof(text), "%s", pairs[i][0]);
        text_tame(text);
        ck_assert_str_eq(text, pairs[i][1]);
    }
}
END_TEST

START_TEST(escaped_text_is_printable_and_bounded)
{
    struct text_buf b = {0};
    text_add_escaped(&b, "a \"b\" \\ \n\x7f\xc3\xa9", 12, 100);
    assert_buf(&b, "a \\\"b\\\" \\\\ \\x0a\\x7f\\xc3\\xa9");
    text_add_escaped(&b, "abcdef", 6, 6);
    assert_buf(&b, "abcdef");
    text_add_escaped(&b, "abcdef", 6, 5);
    assert_buf(&b, "abcde...");
}
END_TEST

START_TEST(lists_split_at_commas_and_trim_blanks)
{
    struct text_list l = {0}, copy = {0};
    ck_assert_int_eq(text_list_split(&l, " a, b c ,,\t, d,"), 0);
    ck_assert_uint_eq(l.count, 3);
    ck_assert_str_eq(l.items[0], "a");
    ck_assert_str_eq(l.items[1], "b c");
    ck_assert_str_eq(l.items[2], "d");
    ck_assert_int_eq(text_list_split(&l, ""), 0);
    ck_assert_int_eq(text_list_split(&l, " , "), 0);
    ck_assert_uint_eq(l.count, 3);
    ck_assert(text_list_has(&l, "b c!", 3));
    ck_assert(!text_list_has(&l, "b c!", 4));
    ck_assert(!text_list_has(&l, "", 0));
    ck_assert_int_eq(text_list_copy(&l, &copy), 0);
    text_list_free(&l);
    ck_assert_uint_eq(copy.count, 3);
    ck_assert_str_eq(copy.items[2], "d");
    text_list_free(&copy);
    text_list_free(NULL);
}
END_TEST

START_TEST(spans_are_compared_with_strings)
{
    ck_assert(text_span_eq(text_span_of("abc"), "abc"));
    ck_assert(!text_span_eq(text_span_of("abc"), "abcd"));
    ck_assert(!text_span_eq(text_span_of("abc"), "abC"));
    ck_assert(text_span_eq((struct text_span){0}, ""));
    ck_assert(text_span_eq(text_span_of(NULL), ""));
    ck_assert(text_span_ieq(text_span_of("aBc-Z"), "AbC-z"));
    ck_assert(!text_span_ieq(text_span_of("a"), "ab"));
    ck_assert(!text_span_ieq(text_span_of("[@"), "{`")); /* not letters, though 0x20 apart */
}
END_TEST

static void assert_time(const char *s, int rc, int64_t expected)
{
    int64_t ms = -7;
    ck_assert_msg(text_parse_time_ms(s, &ms) == rc, "%s", s);
    ck_assert_msg(ms == (rc ? -7 : expected), "%s is %lld", s, (long long)ms);
}

START_TEST(times_are_read_with_units_and_sums)
{
    assert_time("25s", 0, 25000);
    assert_time("25", 0, 25000);
    assert_time("0", 0, 0);
    assert_time("500ms", 0, 500);
    assert_time("7d", 0, 604800000);
    assert_time("1h30m", 0, 5400000);
    assert_time("1d2h3m4s5ms", 0, 93784005);
    assert_time("007s", 0, 7000);
    assert_time("9223372036854775807ms", 0, INT64_MAX);
}
END_TEST

START_TEST(times_that_are_none_are_refused)
{
    static const char *const bad[] = {"",     "s",    "-5s",  "+5s", " 5s",  "5s ",  "5 s",
                                      "1.5h", "5x",   "5sec", "5S",  "30m1h", "5s5s", "1h30",
                                      "ms",   "5msx", "0x10", "1,5s"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_time(bad[i], -EINVAL, 0);
    assert_time("9223372036854775807", -ERANGE, 0);
    assert_time("9223372036854775808ms", -ERANGE, 0);
    assert_time("99999999999999999999999d", -ERANGE, 0);
    assert_time("9223372036854775s808ms", -ERANGE, 0);
    assert_time("106751991167d23h", -ERANGE, 0);
    assert_time("99999999999999999999999x", -EINVAL, 0);
}
END_TEST

START_TEST(sizes_and_counts_are_read_without_overflow)
{
    int64_t n = -7;
    ck_assert_int_eq(text_parse_bytes("16k", &n), 0);
    ck_assert_int_eq(n, 16384);
    ck_assert_int_eq(text_parse_bytes("1M", &n), 0);
    ck_assert_int_eq(n, 1048576);
    ck_assert_int_eq(text_parse_bytes("2G", &n), 0);
    ck_assert_int_eq(n, INT64_C(2147483648));
    ck_assert_int_eq(text_parse_bytes("1048576", &n), 0);
    ck_assert_int_eq(n, 1048576);
    ck_assert_int_eq(text_parse_bytes("9007199254740992k", &n), -ERANGE);
    ck_assert_int_eq(text_parse_bytes("9223372036854775808", &n), -ERANGE);
    ck_assert_int_eq(text_parse_bytes("1kb", &n), -EINVAL);
    ck_assert_int_eq(text_parse_bytes("k", &n), -EINVAL);
    ck_assert_int_eq(text_parse_bytes("", &n), -EINVAL);
    ck_assert_int_eq(text_parse_bytes("1.5M", &n), -EINVAL);
    ck_assert_int_eq(n, 1048576);
    ck_assert_int_eq(text_parse_count("9223372036854775807", &n), 0);
    ck_assert(n == INT64_MAX);
    ck_assert_int_eq(text_parse_count("9223372036854775808", &n), -ERANGE);
    ck_assert_int_eq(text_parse_count("99999999999999999999x", &n), -EINVAL);
    ck_assert_int_eq(text_parse_count("-1", &n), -EINVAL);
    ck_assert_int_eq(text_parse_count("1 ", &n), -EINVAL);
    ck_assert_int_eq(text_parse_count("", &n), -EINVAL);
}
END_TEST

START_TEST(distance_counts_changes_and_swaps)
{
    ck_assert_uint_eq(text_distance("", ""), 0);
    ck_assert_uint_eq(text_distance("abc", ""), 3);
    ck_assert_uint_eq(text_distance("", "abc"), 3);
    ck_assert_uint_eq(text_distance("listen", "listne"), 1);
    ck_assert_uint_eq(text_distance("kitten", "sitting"), 3);
    ck_assert_uint_eq(text_distance("ca", "abc"), 3); /* no piece is changed twice */
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = '\0';
    ck_assert_uint_eq(text_distance(longest, "a"), SIZE_MAX);
    ck_assert_uint_eq(text_distance("a", longest), SIZE_MAX);
    longest[64] = '\0';
    ck_assert_uint_eq(text_distance(longest, longest), 0);
}
END_TEST

/* Decodes by the definition of UTF-8 alone: shift, then look whether the shortest form was used. */
static bool is_utf8_by_definition(const unsigned char *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char lead = p[i];
        int more = lead < 0x80        ? 0
                   : lead >> 5 == 6  ? 1
                   : lead >> 4 == 14 ? 2
                   : lead >> 3 == 30 ? 3
                                     : -1;
        if (more < 0 || len - i <= (size_t)more)
            return false;
        uint32_t c = more ? p[i] & (0x3Fu >> more) : p[i];
        for (int k = 1; k <= more; k++) {
            if (p[i + (size_t)k] >> 6 != 2)
                return false;
            c = c << 6 | (p[i + (size_t)k] & 0x3F);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (c < least[more] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
            return false;
        i += (size_t)more + 1;
    }
    return true;
}

/* Not ck_assert, which writes a message each time: these are millions. */
static void compare_utf8(const unsigned char *s, size_t len)
{
    if (text_is_utf8((const char *)s, len) != is_utf8_by_definition(s, len))
        ck_abort_msg("%zu bytes of %02x %02x %02x %02x", len, s[0], s[1], s[2], s[3]);
}

START_TEST(utf8_is_told_right_for_all_pairs_and_all_leads_of_three_and_four)
{
    static const unsigned char later[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    for (unsigned pair = 0; pair < 65536; pair++) {
        unsigned char s[4] = {(unsigned char)(pair >> 8), (unsigned char)pair, 0, 0};
        for (size_t len = 0; len <= 2; len++)
            compare_utf8(s, len);
        for (size_t c = 0; c < 36; c++) {
            s[2] = later[c / 6];
            s[3] = later[c % 6];
            compare_utf8(s, 3);
            compare_utf8(s, 4);
        }
    }
}
END_TEST

START_TEST(utf8_behind_and_across_eight_byte_steps_is_told_right)
{
    char s[40];
    for (size_t at = 0; at < 30; at++) {
        memset(s, 'a', sizeof(s));
        memcpy(s + at, "\xf0\x9f\x98\x80", 4);
        for (size_t len = 0; len <= sizeof(s); len++)
            ck_assert(text_is_utf8(s, len) == (len <= at || len >= at + 4));
        s[at + 3] = 'a';
        ck_assert(!text_is_utf8(s, sizeof(s)));
    }
}
END_TEST

START_TEST(percent_escapes_are_decoded)
{
    char out[16];
    ck_assert_int_eq(text_percent_decode(text_span_of("a%20b+c%2Fd%C3%a9"), false, out, 16), 9);
    ck_assert_str_eq(out, "a b+c/d\xc3\xa9");
    ck_assert_int_eq(text_percent_decode(text_span_of("a+b%2B"), true, out, 16), 4);
    ck_assert_str_eq(out, "a b+");
    ck_assert_int_eq(text_percent_decode((struct text_span){0}, true, out, 1), 0);
    ck_assert_str_eq(out, "");
}
END_TEST

START_TEST(bad_percent_escapes_and_small_buffers_are_refused)
{
    char out[4];
    static const char *const bad[] = {"%", "%2", "a%", "%zz", "%2g", "%00", "a%0"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_int_eq(text_percent_decode(text_span_of(bad[i]), false, out, 4), -EINVAL);
    ck_assert_int_eq(text_percent_decode(text_span_of("abc"), false, out, 4), 3);
    ck_assert_int_eq(text_percent_decode(text_span_of("abcd"), false, out, 4), -ENOSPC);
    ck_assert_int_eq(text_percent_decode(text_span_of(""), false, out, 0), -ENOSPC);
    /* The span ends before the second digit, though the memory goes on. */
    ck_assert_int_eq(text_percent_decode((struct text_span){"%41", 2}, false, out, 4), -EINVAL);
}
END_TEST

START_TEST(query_values_are_found)
{
    struct text_span v, q = text_span_of("token=a.b&last_id=&&types=A,B&token=c&flag&x=1=2");
    ck_assert(text_query_find(q, "token", &v));
    ck_assert(text_span_eq(v, "a.b"));
    ck_assert(text_query_find(q, "last_id", &v));
    ck_assert(text_span_eq(v, ""));
    ck_assert(text_query_find(q, "types", &v));
    ck_assert(text_span_eq(v, "A,B"));
    ck_assert(text_query_find(q, "flag", &v));
    ck_assert(text_span_eq(v, ""));
    ck_assert(text_query_find(q, "x", &v));
    ck_assert(text_span_eq(v, "1=2"));
    ck_assert(!text_query_find(q, "tok", &v));
    ck_assert(!text_query_find(q, "tokens", &v));
    ck_assert(!text_query_find((struct text_span){0}, "a", &v));
    /* Cut short at every byte: never beyond the end. */
    for (size_t len = 0; len <= q.len; len++) {
        char *copy = malloc(len ? len : 1);
        memcpy(copy, q.ptr, len);
        bool found = text_query_find((struct text_span){copy, len}, "types", &v);
        ck_assert(found == (len >= strlen("token=a.b&last_id=&&types")));
        if (found)
            ck_assert(v.ptr + v.len <= copy + len);
        free(copy);
    }
}
END_TEST

START_TEST(hashes_differ_are_stable_and_never_zero)
{
    uint64_t seen[2000];
    for (int i = 0; i < 2000; i++) {
        char id[16];
        int len = snprintf(id, sizeof(id), "user-%d", i);
        seen[i] = text_hash64(id, (size_t)len);
        ck_assert(seen[i] != 0);
        for (int j = 0; j < i; j++)
            if (seen[i] == seen[j])
                ck_abort_msg("user-%d and user-%d are one", i, j);
    }
    ck_assert(text_hash64("", 0) != 0);
    ck_assert(text_hash64("a", 1) == text_hash64("ab", 1));
    /* Low bits serve as bucket numbers: 2000 ids over 64 buckets leave none empty or crowded. */
    int buckets[64] = {0};
    for (int i = 0; i < 2000; i++)
        buckets[seen[i] & 63]++;
    for (int i = 0; i < 64; i++)
        ck_assert(buckets[i] > 8 && buckets[i] < 70);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("text");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, a_buffer_grows_byte_by_byte_and_keeps_its_nul);
    tcase_add_test(tc, formatted_text_longer_than_the_buffer_is_added_as_a_whole);
    tcase_add_test(tc, an_impossible_size_fails_for_good_and_changes_nothing);
    tcase_add_test(tc, json_strings_are_escaped);
    tcase_add_test(tc, json_strings_replace_what_is_not_utf8);
    tcase_add_test(tc, json_for_a_terminal_is_one_line_without_controls);
    tcase_add_test(tc, of_tame_text_a_terminal_obeys_nothing);
    tcase_add_test(tc, escaped_text_is_printable_and_bounded);
    tcase_add_test(tc, lists_split_at_commas_and_trim_blanks);
    tcase_add_test(tc, spans_are_compared_with_strings);
    tcase_add_test(tc, times_are_read_with_units_and_sums);
    tcase_add_test(tc, times_that_are_none_are_refused);
    tcase_add_test(tc, sizes_and_counts_are_read_without_overflow);
    tcase_add_test(tc, distance_counts_changes_and_swaps);
    tcase_add_test(tc, utf8_is_told_right_for_all_pairs_and_all_leads_of_three_and_four);
    tcase_add_test(tc, utf8_behind_and_across_eight_byte_steps_is_told_right);
    tcase_add_test(tc, percent_escapes_are_decoded);
    tcase_add_test(tc, bad_percent_escapes_and_small_buffers_are_refused);
    tcase_add_test(tc, query_values_are_found);
    tcase_add_test(tc, hashes_differ_are_stable_and_never_zero);
    Suite *s = suite_create("text");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
