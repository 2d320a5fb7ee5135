#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/keys.h"

START_TEST(the_default_templates_give_the_public_layout)
{
    struct keys k;
    struct text_buf b = {0};
    ck_assert_int_eq(keys_init(&k, "ws:user:{user_id}", "ws:broadcast", "notifications:{user_id}",
                               "ws:snapshot:{user_id}"),
                     0);
    keys_expand(&b, k.user_channel, "42", 2);
    text_addc(&b, ' ');
    keys_expand(&b, k.notifications, "42", 2);
    text_addc(&b, ' ');
    keys_expand(&b, k.snapshot, "42", 2);
    text_addc(&b, ' ');
    keys_expand(&b, k.read_marks, "42", 2);
    text_addc(&b, ' ');
    keys_expand(&b, k.acked, "42", 2);
    ck_assert_str_eq(b.data, "ws:user:42 notifications:42 ws:snapshot:42 notifications:read:42 "
                             "notifications:acked:42");
    ck_assert_str_eq(k.broadcast_channel, "ws:broadcast");
    text_buf_free(&b);
    keys_fini(&k);
    keys_fini(&k);
    keys_fini(NULL);
}
END_TEST

static void assert_marks(const char *notifications, const char *read_marks, const char *acked)
{
    struct keys k;
    ck_assert_int_eq(keys_init(&k, "{user_id}", "b", notifications, "s{user_id}"), 0);
    ck_assert_str_eq(k.read_marks, read_marks);
    ck_assert_str_eq(k.acked, acked);
    keys_fini(&k);
}

START_TEST(derived_keys_leave_a_hash_tag_as_it_is)
{
    assert_marks("n:{{user_id}}", "n:read:{{user_id}}", "n:acked:{{user_id}}");
    assert_marks("{n:{user_id}}:x", "read:{n:{user_id}}:x", "acked:{n:{user_id}}:x");
    assert_marks("{app}:n:{user_id}", "{app}:n:read:{user_id}", "{app}:n:acked:{user_id}");
    assert_marks("{user_id}:n", "read:{user_id}:n", "acked:{user_id}:n");
}
END_TEST

START_TEST(a_template_has_the_user_exactly_once)
{
    struct keys k;
    ck_assert(keys_is_template("{user_id}"));
    ck_assert(keys_is_template("a{{user_id}}b"));
    ck_assert(!keys_is_template(""));
    ck_assert(!keys_is_template("ws:user:"));
    ck_assert(!keys_is_template("{user_id"));
    ck_assert(!keys_is_template("{USER_ID}"));
    ck_assert(!keys_is_template("{user_id}{user_id}"));
    ck_assert_int_eq(keys_init(&k, "a", "b", "c{user_id}", "d{user_id}"), -EINVAL);
    ck_assert_int_eq(keys_init(&k, "a{user_id}", "b", "c", "d{user_id}"), -EINVAL);
    ck_assert_int_eq(keys_init(&k, "a{user_id}", "b", "c{user_id}", "d"), -EINVAL);
    keys_fini(&k);
}
END_TEST

static void assert_match(const char *template_text, const char *channel, const char *user)
{
    struct text_span found = {0};
    bool match = keys_match(template_text, text_span_of(channel), &found);
    ck_assert_msg(match == (user != NULL), "%s", channel);
    if (user)
        ck_assert(text_span_eq(found, user));
}

START_TEST(a_channel_is_matched_from_both_ends)
{
    assert_match("ws:user:{user_id}", "ws:user:42", "42");
    assert_match("ws:user:{user_id}", "ws:user:a:b", "a:b");
    assert_match("ws:user:{user_id}", "ws:user:", NULL);
    assert_match("ws:user:{user_id}", "ws:users:42", NULL);
    assert_match("ws:user:{user_id}", "ws:broadcast", NULL);
    assert_match("ws:user:{user_id}", "", NULL);
    assert_match("{{user_id}}:ws", "{42}:ws", "42");
    assert_match("{{user_id}}:ws", "{42}:wx", NULL);
    assert_match("{{user_id}}:ws", "{}:ws", NULL);
    assert_match("a{user_id}a", "aa", NULL);
    assert_match("a{user_id}a", "aaa", "a");
    assert_match("no template", "no template", NULL);
}
END_TEST

START_TEST(expanding_and_matching_are_inverse)
{
    static const char *const ids[] = {"1", "a b", "{user_id}", "\xc3\xa9", "a}b{", "x:y"};
    for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
        struct text_buf b = {0};
        struct text_span user;
        keys_expand(&b, "p:{{user_id}}:s", ids[i], strlen(ids[i]));
        ck_assert(keys_match("p:{{user_id}}:s", (struct text_span){b.data, b.len}, &user));
        ck_assert(text_span_eq(user, ids[i]));
        text_buf_free(&b);
    }
}
END_TEST

START_TEST(a_token_s_key_has_its_jti_exactly_once)
{
    struct text_buf out = {0};
    ck_assert(keys_is_jti_template("denylist:{jti}"));
    ck_assert(keys_is_jti_template("{{jti}}:{user_id}"));
    ck_assert(!keys_is_jti_template(""));
    ck_assert(!keys_is_jti_template("denylist"));
    ck_assert(!keys_is_jti_template("{jti}{jti}"));
    keys_expand_jti(&out, "a:{jti}:b", "x\0{jti}", 7);
    ck_assert_uint_eq(out.len, 11);
    ck_assert_mem_eq(out.data, "a:x\0{jti}:b", 11);
    text_buf_free(&out);
}
END_TEST

START_TEST(user_ids_are_short_utf8_without_control_characters)
{
    char longest[KEYS_USER_ID_MAX_BYTES + 1];
    memset(longest, 'a', sizeof(longest));
    ck_assert(keys_is_user_id("42", 2));
    ck_assert(keys_is_user_id("J\xc3\xb6rg \xf0\x9f\x98\x80", 10));
    ck_assert(keys_is_user_id(longest, KEYS_USER_ID_MAX_BYTES));
    ck_assert(!keys_is_user_id(longest, KEYS_USER_ID_MAX_BYTES + 1));
    ck_assert(!keys_is_user_id("", 0));
    ck_assert(!keys_is_user_id("a\nb", 3));
    ck_assert(!keys_is_user_id("a\0b", 3));
    ck_assert(!keys_is_user_id("\x7f", 1));
    ck_assert(!keys_is_user_id("\xc2\x85", 2)); /* NEL, a C1 control */
    ck_assert(keys_is_user_id("\xc2\xa0", 2));
    ck_assert(!keys_is_user_id("\xc2", 1));
    ck_assert(!keys_is_user_id("\xff", 1));
    struct text_span user;
    struct text_buf b = {0};
    keys_expand(&b, "u{user_id}", longest, sizeof(longest));
    ck_assert(!keys_match("u{user_id}", (struct text_span){b.data, b.len}, &user));
    ck_assert(keys_match("u{user_id}", (struct text_span){b.data, b.len - 1}, &user));
    text_buf_free(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("keys");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, the_default_templates_give_the_public_layout);
    tcase_add_test(tc, derived_keys_leave_a_hash_tag_as_it_is);
    tcase_add_test(tc, a_template_has_the_user_exactly_once);
    tcase_add_test(tc, a_channel_is_matched_from_both_ends);
    tcase_add_test(tc, expanding_and_matching_are_inverse);
    tcase_add_test(tc, a_token_s_key_has_its_jti_exactly_once);
    tcase_add_test(tc, user_ids_are_short_utf8_without_control_characters);
    Suite *s = suite_create("keys");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
