#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/token.h"
#include "tests/unit/token_maker.h"

/* Result for these claims, signed well with HS256. */
static enum token_result verify_claims(const struct token_keys *k, const char *text)
{
    char *token = sign_alg("HS256", text, NULL);
    enum token_result r = verify(k, token);
    free(token);
    return r;
}

/* The same under the options as they are. */
static enum token_result judge(const char *text)
{
    struct token_keys *k = keys_hs();
    enum token_result r = verify_claims(k, text);
    token_keys_free(k);
    return r;
}

/* --- signatures --- */

START_TEST(each_hmac_algorithm_is_verified)
{
    static const char *const algs[] = {"HS256", "HS384", "HS512"};
    set_algorithms("HS256,HS384,HS512");
    struct token_keys *k = keys_hs();
    for (int n = 0; n < 6; n++) { /* each again after the others */
        int i = n % 3;
        char *token = sign_alg(algs[i], CLAIMS, NULL);
        memset(&claims, 0xAA, sizeof(claims));
        ck_assert_int_eq(verify(k, token), TOKEN_OK);
        ck_assert_str_eq(claims.user_id, "u1");
        ck_assert_uint_eq(claims.user_id_len, 2);
        ck_assert_int_eq(claims.expires_at_ms, INT64_C(1769860900000));
        ck_assert(!claims.is_admin);
        free(token);
        token = sign("{\"alg\":\"HS256\"}", CLAIMS, algs[i], NULL, "another secret of another one");
        ck_assert_int_eq(verify(k, token), TOKEN_SIGNATURE);
        free(token);
    }
    char *token = sign("{\"alg\":\"HS256\"}", CLAIMS, "HS512", NULL, SECRET);
    ck_assert_int_eq(verify(k, token), TOKEN_SIGNATURE);
    free(token);
    token_keys_free(k);
    token_keys_free(NULL);
}
END_TEST

START_TEST(headers_that_name_no_configured_algorithm_are_refused)
{
    struct token_keys *k = keys_hs();
    const struct {
        const char *header;
        enum token_result result;
    } rows[] = {
        {"{\"alg\":\"HS256\"}", TOKEN_OK},
        {"{\"kid\":\"x\",\"alg\":\"HS256\",\"typ\":\"JWT\"}", TOKEN_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"jwt\"}", TOKEN_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", TOKEN_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"application/AT+JWT\"}", TOKEN_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"dpop+jwt\"}", TOKEN_TYPE},
        {"{\"alg\":\"HS256\",\"typ\":\"application/\"}", TOKEN_TYPE},
        {"{\"alg\":\"HS256\",\"typ\":\"\"}", TOKEN_TYPE},
        {"{\"alg\":\"HS256\",\"typ\":null}", TOKEN_TYPE},
        {"{\"alg\":\"HS256\",\"typ\":\"JWT\\u0000\"}", TOKEN_TYPE},
        {"{\"alg\":\"HS256\",\"kid\":1}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":\"\"}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":\"a\\u0000\"}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"jku\":\"https://evil.example\"}", TOKEN_OK},
        {"{\"alg\":\"NONE\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"nOnE\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"none\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"None\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"hs256\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"HS256 \"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"HS256\\u0000\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"HS512\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"RS256\"}", TOKEN_ALGORITHM},
        {"{\"alg\":[\"HS256\"]}", TOKEN_ALGORITHM},
        {"{\"alg\":256}", TOKEN_ALGORITHM},
        {"{\"alg\":null}", TOKEN_ALGORITHM},
        {"{}", TOKEN_ALGORITHM},
        {"{\"ALG\":\"HS256\"}", TOKEN_ALGORITHM},
        {"{\"alg\":\"none\",\"alg\":\"HS256\"}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"alg\":\"HS256\"}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"\\u0061lg\":\"none\"}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":1,\"kid\":2}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"cri\\u0074\":[]}", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\"} x", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\"", TOKEN_MALFORMED},
        {"[\"HS256\"]", TOKEN_MALFORMED},
        {"\"HS256\"", TOKEN_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":\"\xFF\"}", TOKEN_MALFORMED},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *token = sign(rows[i].header, CLAIMS, "HS256", NULL, SECRET);
        ck_assert_msg(verify(k, token) == rows[i].result, "%s", rows[i].header);
        free(token);
    }
    struct text_buf many = {0};
    text_adds(&many, "{\"alg\":\"HS256\"");
    for (int i = 0; i < 40; i++)
        text_addf(&many, ",\"m%d\":0", i);
    text_addc(&many, '}');
    char *token = sign(many.data, CLAIMS, "HS256", NULL, SECRET);
    ck_assert_int_eq(verify(k, token), TOKEN_MALFORMED);
    free(token);
    text_buf_reset(&many);
    text_adds(&many, "{\"alg\":\"HS256\",\"x\":");
    for (int i = 0; i < 1000; i++)
        text_addc(&many, '[');
    token = sign(many.data, CLAIMS, "HS256", NULL, SECRET);
    ck_assert_int_eq(verify(k, token), TOKEN_MALFORMED);
    free(token);
    text_buf_free(&many);
    token_keys_free(k);
}
END_TEST

START_TEST(an_unsigned_token_is_refused_in_every_shape)
{
    struct token_keys *k = keys_hs();
    struct text_buf t = {0};
    add_base64url(&t, "{\"alg\":\"none\"}", 14);
    text_addc(&t, '.');
    add_base64url(&t, CLAIMS, strlen(CLAIMS));
    ck_assert_int_eq(verify(k, t.data), TOKEN_MALFORMED);
    text_addc(&t, '.');
    ck_assert_int_eq(verify(k, t.data), TOKEN_MALFORMED);
    text_adds(&t, "AAAA");
    ck_assert_int_eq(verify(k, t.data), TOKEN_ALGORITHM);
    text_buf_free(&t);
    token_keys_free(k);
}
END_TEST

START_TEST(no_changed_or_missing_byte_leaves_a_token_valid)
{
    struct token_keys *k = keys_hs();
    char *token = sign_alg("HS256", CLAIMS, NULL);
    size_t len = strlen(token);
    static const char others[] = "AQgw-_.=\0 \n\xFF";
    ck_assert_int_eq(token_verify(k, token, len, NOW_MS, &claims), TOKEN_OK);
    memset(&claims, 0xAA, sizeof(claims));
    for (size_t at = 0; at < len; at++) {
        char was = token[at];
        for (size_t i = 0; i < sizeof(others) - 1; i++) {
            token[at] = others[i] == was ? 'z' : others[i];
            ck_assert_int_ne(token_verify(k, token, len, NOW_MS, &claims), TOKEN_OK);
        }
        token[at] = was;
    }
    for (size_t n = 0; n < len; n++) {
        char *copy = malloc(n ? n : 1);
        memcpy(copy, token, n);
        ck_assert_int_ne(token_verify(k, copy, n, NOW_MS, &claims), TOKEN_OK);
        free(copy);
    }
    for (size_t i = 0; i < sizeof(claims); i++) /* outputs are for valid tokens */
        ck_assert_int_eq(((unsigned char *)&claims)[i], 0xAA);
    ck_assert_int_eq(token_verify(k, token, len, NOW_MS, &claims), TOKEN_OK); /* it still is */
    free(token);
    token_keys_free(k);
}
END_TEST

START_TEST(shapes_that_are_no_token_are_refused)
{
    struct token_keys *k = keys_hs();
    char *good = sign_alg("HS256", CLAIMS, NULL), text[1024];
    static const char *const forms[] = {"%s.",  ".%s", "%s.AAAA", " %s",      "%s ",
                                        "%s\n", "%s=", "%s==",    "Bearer %s"};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        snprintf(text, sizeof(text), forms[i], good);
        ck_assert_msg(verify(k, text) == TOKEN_MALFORMED, "%s", forms[i]);
    }
    static const char *const none[] = {"", ".", "..", "...", "a.b", "a.b.c", "....", "x"};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        ck_assert_msg(verify(k, none[i]) == TOKEN_MALFORMED, "%s", none[i]);
    size_t len = strlen(good);
    memcpy(text, good, len + 1); /* its NUL belongs to it */
    ck_assert_int_eq(token_verify(k, text, len + 1, NOW_MS, &claims), TOKEN_MALFORMED);
    /* 32 bytes end in two unused bits: another spelling of the same signature */
    char last = text[len - 1];
    ck_assert_ptr_nonnull(strchr("AEIMQUYcgkosw048", last));
    text[len - 1] = (char)(last + 1);
    ck_assert_int_eq(verify(k, text), TOKEN_MALFORMED);
    free(good);
    char *large = malloc(TOKEN_MAX_BYTES + 1);
    memset(large, 'A', TOKEN_MAX_BYTES + 1);
    ck_assert_int_eq(token_verify(k, large, TOKEN_MAX_BYTES + 1, NOW_MS, &claims), TOKEN_MALFORMED);
    ck_assert_int_eq(token_verify(k, large, TOKEN_MAX_BYTES, NOW_MS, &claims), TOKEN_MALFORMED);
    free(large);
    token_keys_free(k);
}
END_TEST

START_TEST(a_token_of_the_largest_size_is_read)
{
    struct token_keys *k = keys_hs();
    struct text_buf text = {0};
    text_adds(&text, "{\"sub\":\"u1\",\"exp\":1769860900,\"x\":\"");
    while (text.len < 6040)
        text_addc(&text, 'x');
    text_adds(&text, "\"}");
    char *token = sign("{\"alg\":\"HS256\"}", text.data, "HS256", NULL, SECRET);
    ck_assert_uint_gt(strlen(token), 8000);
    ck_assert_uint_le(strlen(token), TOKEN_MAX_BYTES);
    ck_assert_int_eq(verify(k, token), TOKEN_OK);
    free(token);
    text_buf_free(&text);
    token_keys_free(k);
}
END_TEST

START_TEST(random_bytes_are_refused)
{
    struct token_keys *k = keys_hs();
    static const char set[] = "ABCDEFabcdef0189-_....{}\":,=%\0\x80\xFF eyJhbGciOiJIUzI1NiJ9";
    unsigned seed = 1;
    for (int i = 0; i < 20000; i++) {
        char text[200];
        size_t len = (size_t)rand_r(&seed) % sizeof(text);
        for (size_t j = 0; j < len; j++)
            text[j] = set[(size_t)rand_r(&seed) % (sizeof(set) - 1)];
        ck_assert_int_ne(token_verify(k, text, len, NOW_MS, &claims), TOKEN_OK);
    }
    token_keys_free(k);
}
END_TEST

/* --- claims --- */

START_TEST(claims_that_are_no_object_are_refused)
{
    ck_assert_int_eq(judge("[]"), TOKEN_MALFORMED);
    ck_assert_int_eq(judge("\"sub\""), TOKEN_MALFORMED);
    ck_assert_int_eq(judge("{"), TOKEN_MALFORMED);
    ck_assert_int_eq(judge("{} {}"), TOKEN_MALFORMED);
    ck_assert_int_eq(judge("{\"sub\":\"\xFF\",\"exp\":1769860900}"), TOKEN_MALFORMED);
    ck_assert_int_eq(judge("\xEF\xBB\xBF" CLAIMS), TOKEN_MALFORMED);
    ck_assert_int_eq(judge(" " CLAIMS " "), TOKEN_OK);
}
END_TEST

static enum token_result judge_time(const char *name, const char *value)
{
    char text[200];
    snprintf(text, sizeof(text), "{\"sub\":\"u\",\"%s\":%s%s}", name, value,
             strcmp(name, "nbf") ? "" : ",\"exp\":1769960800");
    return judge(text);
}

START_TEST(expiry_holds_to_the_millisecond_with_leeway)
{
    /* now is 1769860800 and leeway 10 */
    ck_assert_int_eq(judge_time("exp", "1769860801"), TOKEN_OK);
    ck_assert_int_eq(judge_time("exp", "1769860791"), TOKEN_OK);
    ck_assert_int_eq(judge_time("exp", "1769860790.001"), TOKEN_OK);
    ck_assert_int_eq(claims.expires_at_ms, INT64_C(1769860790001));
    ck_assert_int_eq(judge_time("exp", "1769860790"), TOKEN_EXPIRED);
    ck_assert_int_eq(judge_time("exp", "1.769860791e9"), TOKEN_OK);
    ck_assert_int_eq(claims.expires_at_ms, INT64_C(1769860791000));
    ck_assert_int_eq(judge_time("exp", "17698607910E-1"), TOKEN_OK);
    ck_assert_int_eq(claims.expires_at_ms, INT64_C(1769860791000));
    ck_assert_int_eq(judge_time("exp", "1769860791.12399999999999999999999999"), TOKEN_OK);
    ck_assert_int_eq(claims.expires_at_ms, INT64_C(1769860791123));
    ck_assert_int_eq(judge_time("exp", "1e300"), TOKEN_OK);
    ck_assert_int_eq(claims.expires_at_ms, INT64_C(253402300799000));
    ck_assert_int_eq(judge_time("exp", "9223372036854775807"), TOKEN_OK);
    ck_assert_int_eq(judge_time("exp", "0"), TOKEN_EXPIRED);
    ck_assert_int_eq(judge_time("exp", "1e-300"), TOKEN_EXPIRED);
    ck_assert_int_eq(judge_time("exp", "-1e300"), TOKEN_EXPIRED);
    ck_assert_int_eq(judge_time("exp", "-1769860900"), TOKEN_EXPIRED);
    opt.jwt_leeway = 0;
    ck_assert_int_eq(judge_time("exp", "1769860800"), TOKEN_EXPIRED);
    ck_assert_int_eq(judge_time("exp", "1769860800.001"), TOKEN_OK);
}
END_TEST

START_TEST(times_must_be_numbers)
{
    static const char *const bad[] = {"\"1769860900\"", "null", "true", "[1769860900]", "{}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(judge_time("exp", bad[i]) == TOKEN_MALFORMED, "exp %s", bad[i]);
        ck_assert_msg(judge_time("nbf", bad[i]) == TOKEN_MALFORMED, "nbf %s", bad[i]);
    }
    opt.jwt_require_exp = CHOICE_NO;
    ck_assert_int_eq(judge_time("exp", "\"1769860900\""), TOKEN_MALFORMED);
}
END_TEST

START_TEST(an_expiry_is_required_unless_configured_otherwise)
{
    ck_assert_int_eq(judge("{\"sub\":\"u\"}"), TOKEN_NO_EXP);
    opt.jwt_require_exp = CHOICE_NO;
    ck_assert_int_eq(judge("{\"sub\":\"u\"}"), TOKEN_OK);
    ck_assert_int_eq(claims.expires_at_ms, 0);
    ck_assert_int_eq(judge_time("exp", "1"), TOKEN_EXPIRED);
}
END_TEST

START_TEST(a_token_does_not_hold_before_nbf)
{
    ck_assert_int_eq(judge_time("nbf", "1769860800"), TOKEN_OK);
    ck_assert_int_eq(judge_time("nbf", "1769860810"), TOKEN_OK);
    ck_assert_int_eq(judge_time("nbf", "1769860810.001"), TOKEN_NOT_YET);
    ck_assert_int_eq(judge_time("nbf", "1e300"), TOKEN_NOT_YET);
    ck_assert_int_eq(judge_time("nbf", "-5"), TOKEN_OK);
}
END_TEST

#define WITH(more) "{\"sub\":\"u\",\"exp\":1769860900" more "}"

START_TEST(issuer_and_audience_hold_when_configured)
{
    ck_assert_int_eq(judge(WITH(",\"iss\":\"any\",\"aud\":7")), TOKEN_OK);
    opt.jwt_issuer = "https://id.example";
    ck_assert_int_eq(judge(WITH(",\"iss\":\"https:\\/\\/id.example\"")), TOKEN_OK);
    ck_assert_int_eq(judge(WITH(",\"iss\":\"https://id.example/\"")), TOKEN_ISSUER);
    ck_assert_int_eq(judge(WITH(",\"iss\":[\"https://id.example\"]")), TOKEN_ISSUER);
    ck_assert_int_eq(judge(WITH("")), TOKEN_ISSUER);
    opt.jwt_issuer = "";
    opt.jwt_audience = "belfry";
    ck_assert_int_eq(judge(WITH(",\"aud\":\"belfry\"")), TOKEN_OK);
    ck_assert_int_eq(judge(WITH(",\"aud\":[\"x\",7,\"b\\u0065lfry\"]")), TOKEN_OK);
    ck_assert_int_eq(judge(WITH(",\"aud\":[\"x\",[\"belfry\"]]")), TOKEN_AUDIENCE);
    ck_assert_int_eq(judge(WITH(",\"aud\":[]")), TOKEN_AUDIENCE);
    ck_assert_int_eq(judge(WITH(",\"aud\":\"belfry \"")), TOKEN_AUDIENCE);
    ck_assert_int_eq(judge(WITH(",\"aud\":\"belfry\\u0000\"")), TOKEN_AUDIENCE);
    ck_assert_int_eq(judge(WITH(",\"aud\":{\"belfry\":1}")), TOKEN_AUDIENCE);
    ck_assert_int_eq(judge(WITH("")), TOKEN_AUDIENCE);
}
END_TEST

static const char *jti_of(const char *value)
{
    char text[700];
    snprintf(text, sizeof(text), "{\"sub\":\"u\",\"exp\":1769860900,\"jti\":%s}", value);
    enum token_result r = judge(text);
    return r == TOKEN_OK ? claims.jti : token_result_text(r);
}

/* What cannot be read could not be revoked. */
START_TEST(the_id_of_a_token_is_read_when_tokens_can_be_revoked)
{
    const char *bad = token_result_text(TOKEN_MALFORMED);
    ck_assert_int_eq(judge(CLAIMS), TOKEN_OK);
    ck_assert_uint_eq(claims.jti_len, 0);
    ck_assert_str_eq(jti_of("\"a:b \\u0063\""), "a:b c");
    ck_assert_uint_eq(claims.jti_len, 5);
    ck_assert_str_eq(jti_of("17"), "17");
    static const char *const none[] = {"\"\"", "null", "[]", "{}", "true", "1.5", "\"a\\nb\"",
                                       "\"a\\u0000\"", "\"a\",\"jti\":\"b\""};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        ck_assert_msg(jti_of(none[i]) == bad, "%s", none[i]);
    char text[600] = "\"";
    memset(text + 1, 'x', KEYS_USER_ID_MAX_BYTES + 1);
    strcpy(text + KEYS_USER_ID_MAX_BYTES + 2, "\"");
    ck_assert_ptr_eq(jti_of(text), bad);
    opt.denylist_key = "";
    ck_assert_str_eq(jti_of("[]"), "");
    ck_assert_str_eq(jti_of("\"a\""), "");
}
END_TEST

START_TEST(a_claim_that_stands_twice_is_refused)
{
    ck_assert_int_eq(judge(WITH(",\"sub\":\"admin\"")), TOKEN_MALFORMED);
    ck_assert_int_eq(judge(WITH(",\"e\\u0078p\":9999999999")), TOKEN_MALFORMED);
    ck_assert_int_eq(judge(WITH(",\"role\":\"x\",\"role\":\"admin\"")), TOKEN_MALFORMED);
    opt.jwt_user_claim = "a.b";
    ck_assert_int_eq(judge(WITH(",\"a\":{\"b\":\"x\",\"b\":\"y\"}")), TOKEN_MALFORMED);
}
END_TEST

static const char *user_of(const char *value)
{
    char text[2048];
    snprintf(text, sizeof(text), "{\"sub\":%s,\"exp\":1769860900}", value);
    enum token_result r = judge(text);
    return r == TOKEN_OK ? claims.user_id : token_result_text(r);
}

START_TEST(users_are_text_or_whole_numbers)
{
    const char *no_user = token_result_text(TOKEN_NO_USER);
    ck_assert_str_eq(user_of("\"anna\""), "anna");
    ck_assert_str_eq(user_of("\"a\\u006ena\\\"\""), "anna\"");
    ck_assert_str_eq(user_of("\"\xC3\xA9\""), "\xC3\xA9");
    ck_assert_str_eq(user_of("42"), "42");
    ck_assert_str_eq(user_of("0"), "0");
    ck_assert_str_eq(user_of("-7"), "-7");
    ck_assert_str_eq(user_of("9007199254740993"), "9007199254740993"); /* 2^53 + 1 */
    ck_assert_str_eq(user_of("9223372036854775807"), "9223372036854775807");
    static const char *const bad[] = {"1.0",  "1e3",       "1E3",        "-0", "1.5",
                                      "true", "null",      "{}",         "[]", "[\"u\"]",
                                      "\"\"", "\"a\\nb\"", "\"\\u007f\""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(user_of(bad[i]) == no_user, "%s", bad[i]);
    ck_assert_str_eq(user_of("\"a\\u0000b\""), no_user);
    ck_assert_str_eq(user_of("99999999999999999999999"), "99999999999999999999999");
    char text[600];
    for (size_t len = KEYS_USER_ID_MAX_BYTES - 1; len <= KEYS_USER_ID_MAX_BYTES + 2; len++) {
        text[0] = '"';
        memset(text + 1, 'x', len);
        strcpy(text + 1 + len, "\"");
        ck_assert_int_eq(user_of(text) == no_user, len > KEYS_USER_ID_MAX_BYTES);
    }
    opt.jwt_user_claim = "uid";
    ck_assert_int_eq(judge(CLAIMS), TOKEN_NO_USER);
}
END_TEST

START_TEST(claims_with_dots_are_names_first_and_paths_then)
{
    opt.jwt_user_claim = "app.user.id";
    ck_assert_int_eq(judge(WITH(",\"app\":{\"user\":{\"id\":5}}")), TOKEN_OK);
    ck_assert_str_eq(claims.user_id, "5");
    ck_assert_int_eq(judge(WITH(",\"app.user.id\":\"name\",\"app\":{\"user\":{\"id\":5}}")),
                     TOKEN_OK);
    ck_assert_str_eq(claims.user_id, "name");
    ck_assert_int_eq(judge(WITH(",\"app\":{\"user\":\"x\"}")), TOKEN_NO_USER);
    ck_assert_int_eq(judge(WITH(",\"app\":[{\"user\":{\"id\":5}}]")), TOKEN_NO_USER);
    ck_assert_int_eq(judge(WITH(",\"app\":{\"user\":{\"id\":{}}}")), TOKEN_NO_USER);
    ck_assert_int_eq(judge(WITH(",\"id\":\"x\"")), TOKEN_NO_USER);
    ck_assert_int_eq(judge(WITH("")), TOKEN_NO_USER);
    opt.jwt_user_claim = "https://example.com/uid";
    ck_assert_int_eq(judge(WITH(",\"https://example.com/uid\":\"url\"")), TOKEN_OK);
    ck_assert_str_eq(claims.user_id, "url");
    opt.jwt_user_claim = "a..b";
    ck_assert_int_eq(judge(WITH(",\"a\":{\"\":{\"b\":\"odd\"}}")), TOKEN_OK);
}
END_TEST

static bool admin_with(const char *more)
{
    char text[512];
    snprintf(text, sizeof(text), "{\"sub\":\"u\",\"exp\":1769860900%s}", more);
    ck_assert_int_eq(judge(text), TOKEN_OK);
    return claims.is_admin;
}

START_TEST(administrators_are_those_the_configuration_names)
{
    ck_assert(!admin_with(""));
    ck_assert(admin_with(",\"role\":\"admin\""));
    ck_assert(admin_with(",\"role\":\"\\u0061dmin\""));
    ck_assert(admin_with(",\"role\":[\"user\",\"admin\"]"));
    static const char *const none[] = {
        ",\"role\":\"Admin\"",     ",\"role\":\"admin,user\"",   ",\"role\":\"\"", ",\"role\":[]",
        ",\"role\":[[\"admin\"]]", ",\"role\":{\"admin\":true}", ",\"role\":true", ",\"role\":1",
        ",\"role\":null",          ",\"roles\":\"admin\""};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        ck_assert_msg(!admin_with(none[i]), "%s", none[i]);
    set_admin_values("root,true,1");
    ck_assert(admin_with(",\"role\":true"));
    ck_assert(admin_with(",\"role\":\"true\""));
    ck_assert(admin_with(",\"role\":\"root\""));
    ck_assert(!admin_with(",\"role\":false"));
    ck_assert(!admin_with(",\"role\":[true]"));
    ck_assert(!admin_with(",\"role\":1"));
    ck_assert(!admin_with(",\"role\":\"admin\""));
    opt.admin_claim = "realm_access.roles";
    ck_assert(admin_with(",\"realm_access\":{\"roles\":[\"user\",\"root\"]}"));
    ck_assert(!admin_with(",\"realm_access\":{\"roles\":[\"user\"]}"));
    set_admin_values("");
    ck_assert(!admin_with(",\"realm_access\":{\"roles\":[\"\"]}"));
}
END_TEST

/* --- making --- */

START_TEST(a_made_token_holds_for_its_time)
{
    opt.jwt_issuer = "me";
    opt.jwt_audience = "you";
    opt.jwt_leeway = 0;
    set_algorithms("HS384,HS256");
    struct token_keys *k = keys_hs();
    char *token = NULL;
    ck_assert_int_eq(token_mint(k, request("u\"1\"", false, 60000), NOW_MS + 1, &token), 0);
    ck_assert_int_eq(verify(k, token), TOKEN_OK);
    ck_assert_str_eq(claims.user_id, "u\"1\"");
    ck_assert(!claims.is_admin);
    ck_assert_int_eq(claims.expires_at_ms, NOW_MS + 60000); /* counted from iat, in seconds */
    ck_assert_int_eq(token_verify(k, token, strlen(token), NOW_MS + 59999, &claims), TOKEN_OK);
    ck_assert_int_eq(token_verify(k, token, strlen(token), NOW_MS + 60000, &claims), TOKEN_EXPIRED);
    free(token);
    ck_assert_int_eq(token_mint(k, request("u", true, -60000), NOW_MS, &token), 0);
    ck_assert_int_eq(verify(k, token), TOKEN_EXPIRED);
    free(token);
    ck_assert_int_eq(token_mint(k, request("", false, 60000), NOW_MS, &token), -EINVAL);
    ck_assert_int_eq(token_mint(k, request("a\nb", false, 60000), NOW_MS, &token), -EINVAL);
    ck_assert_int_eq(token_mint(k, request("u", false, INT64_MAX), NOW_MS, &token), -EINVAL);
    ck_assert_int_eq(token_mint(k, request("u", false, INT64_MIN), NOW_MS, &token), -EINVAL);
    token_keys_free(k);
}
END_TEST

static int mint(bool admin, char **token)
{
    struct token_keys *k = keys_hs();
    int r = token_mint(k, request("u", admin, 60000), NOW_MS, token);
    if (r == 0)
        ck_assert_int_eq(verify(k, *token), TOKEN_OK);
    token_keys_free(k);
    return r;
}

START_TEST(made_tokens_carry_the_configured_claims)
{
    const struct {
        char *user, *admin;
        int result;
    } rows[] = {
        {"sub", "role", 0},         {"a.b", "a.c", 0},
        {"a.b.c", "a.d.e", 0},      {"a.b", "c.b", 0},
        {"Role", "role", 0},        {"https://x.y/uid", "https://x.y/admin", 0},
        {"sub", "sub", -EINVAL},    {"sub", "sub.x", -EINVAL},
        {"a.b", "a", -EINVAL},      {"exp", "role", -EINVAL},
        {"iat.x", "role", -EINVAL}, {"a.b.c", "a.b", -EINVAL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        opt.jwt_user_claim = rows[i].user;
        opt.admin_claim = rows[i].admin;
        char *token = NULL;
        ck_assert_msg(mint(true, &token) == rows[i].result, "%s %s", rows[i].user, rows[i].admin);
        ck_assert_int_eq(token == NULL, rows[i].result < 0);
        ck_assert(rows[i].result < 0 || claims.is_admin);
        free(token);
    }
    opt.jwt_user_claim = "sub";
    opt.admin_claim = "role";
    set_admin_values("");
    char *token = NULL;
    ck_assert_int_eq(mint(true, &token), -EINVAL);
    ck_assert_int_eq(mint(false, &token), 0);
    free(token);
}
END_TEST

START_TEST(every_result_has_its_own_text)
{
    for (int i = 0; i < TOKEN_RESULTS; i++)
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(token_result_text((enum token_result)i),
                             token_result_text((enum token_result)j));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("token");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, each_hmac_algorithm_is_verified);
    tcase_add_test(tc, headers_that_name_no_configured_algorithm_are_refused);
    tcase_add_test(tc, an_unsigned_token_is_refused_in_every_shape);
    tcase_add_test(tc, no_changed_or_missing_byte_leaves_a_token_valid);
    tcase_add_test(tc, shapes_that_are_no_token_are_refused);
    tcase_add_test(tc, a_token_of_the_largest_size_is_read);
    tcase_add_test(tc, random_bytes_are_refused);
    tcase_add_test(tc, claims_that_are_no_object_are_refused);
    tcase_add_test(tc, expiry_holds_to_the_millisecond_with_leeway);
    tcase_add_test(tc, times_must_be_numbers);
    tcase_add_test(tc, an_expiry_is_required_unless_configured_otherwise);
    tcase_add_test(tc, a_token_does_not_hold_before_nbf);
    tcase_add_test(tc, issuer_and_audience_hold_when_configured);
    tcase_add_test(tc, the_id_of_a_token_is_read_when_tokens_can_be_revoked);
    tcase_add_test(tc, a_claim_that_stands_twice_is_refused);
    tcase_add_test(tc, users_are_text_or_whole_numbers);
    tcase_add_test(tc, claims_with_dots_are_names_first_and_paths_then);
    tcase_add_test(tc, administrators_are_those_the_configuration_names);
    tcase_add_test(tc, a_made_token_holds_for_its_time);
    tcase_add_test(tc, made_tokens_carry_the_configured_claims);
    tcase_add_test(tc, every_result_has_its_own_text);
    Suite *s = suite_create("token");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
