#include "config.h"

#include <check.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/counters.h"
#include "shared/token.h"
#include "shared/token_priv.h"
#include "tests/unit/token_maker.h"

/* Keys take time to make: main makes them once, the tests' processes inherit them. */
static EVP_PKEY *rsa, *other_rsa, *weak_rsa, *p256, *p384, *p521, *ed25519;
static char why[512];
static struct token_keys *keys;

static EVP_PKEY *make_rsa(unsigned bits)
{
    EVP_PKEY *key = EVP_RSA_gen(bits);
    if (!key)
        abort();
    return key;
}

/* --- writing sets --- */

static void add_number(struct text_buf *out, const char *name, EVP_PKEY *key, const char *param,
                       int bytes)
{
    unsigned char text[1100];
    BIGNUM *n = NULL;
    ck_assert_int_eq(EVP_PKEY_get_bn_param(key, param, &n), 1);
    int len = bytes ? bytes : BN_num_bytes(n);
    ck_assert_int_eq(BN_bn2binpad(n, text, len), len);
    BN_free(n);
    text_addf(out, ",\"%s\":\"", name);
    add_base64url(out, text, (size_t)len);
    text_addc(out, '"');
}

static void add_parts(struct text_buf *out, EVP_PKEY *key)
{
    unsigned char raw[32];
    size_t len = sizeof(raw);
    int size = (EVP_PKEY_get_bits(key) + 7) / 8;
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
        text_adds(out, "\"kty\":\"RSA\"");
        add_number(out, "n", key, OSSL_PKEY_PARAM_RSA_N, 0);
        add_number(out, "e", key, OSSL_PKEY_PARAM_RSA_E, 0);
        break;
    case EVP_PKEY_EC:
        text_addf(out, "\"kty\":\"EC\",\"crv\":\"P-%d\"", size == 66 ? 521 : size * 8);
        add_number(out, "x", key, OSSL_PKEY_PARAM_EC_PUB_X, size);
        add_number(out, "y", key, OSSL_PKEY_PARAM_EC_PUB_Y, size);
        break;
    default:
        ck_assert_int_eq(EVP_PKEY_get_raw_public_key(key, raw, &len), 1);
        text_adds(out, "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"");
        add_base64url(out, raw, len);
        text_addc(out, '"');
    }
}

/* One key with more members; key NULL: an oct key of this secret. To be freed. */
static char *jwk(EVP_PKEY *key, const char *secret, const char *more)
{
    struct text_buf out = {0};
    text_addc(&out, '{');
    if (key) {
        add_parts(&out, key);
    } else {
        text_adds(&out, "\"kty\":\"oct\",\"k\":\"");
        add_base64url(&out, secret, strlen(secret));
        text_addc(&out, '"');
    }
    text_addf(&out, "%s}", more);
    return out.data;
}

static int take_text(const char *text)
{
    struct options *o = &opt;
    if (!keys) {
        ck_assert_int_eq(token_keys_from_secret(o, SECRET, strlen(SECRET), &keys), 0);
        for (int i = 0; i < TOKEN_ALGORITHMS; i++)
            keys->allowed[i] = text_list_has(&o->jwt_algorithms, token_algorithms[i].name,
                                             strlen(token_algorithms[i].name));
    }
    why[0] = '\0';
    return token_keys_take_jwks(keys, text_span_of(text), why, sizeof(why));
}

/* Takes a set of these keys (freed, NULL ends them). */
static int take(char *first, ...)
{
    struct text_buf set = {0};
    va_list rest;
    va_start(rest, first);
    text_adds(&set, "{\"keys\":[");
    for (char *key = first; key; key = va_arg(rest, char *)) {
        text_addf(&set, "%s%s", key == first ? "" : ",", key);
        free(key);
    }
    va_end(rest);
    text_adds(&set, "],\"more\":{\"keys\":1}}");
    int r = take_text(set.data);
    text_buf_free(&set);
    return r;
}

static const char *notes(void)
{
    static struct text_buf text;
    text_buf_reset(&text);
    text_adds(&text, "");
    token_keys_notes(keys, add_note, &text);
    return text.data ? text.data : "";
}

static void done(void)
{
    token_keys_free(keys);
    keys = NULL;
    teardown();
}

/* What becomes of a token with this header, signed by alg and key (NULL: by secret). */
static enum token_result judge(const char *header, const char *alg, EVP_PKEY *key,
                               const char *secret)
{
    char *token = sign(header, CLAIMS, alg, key, secret);
    enum token_result r = verify(keys, token);
    free(token);
    return r;
}

#define ALL "HS256,HS384,HS512,RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA"
#define OTHER "another secret of thirty-two bytes and more"

/* --- tests --- */

START_TEST(every_kind_of_key_is_read_and_serves_its_algorithms_only)
{
    const struct {
        const char *alg;
        EVP_PKEY *key;
    } rows[] = {{"HS256", NULL}, {"HS512", NULL}, {"RS256", rsa},   {"PS256", rsa}, {"PS512", rsa},
                {"ES256", p256}, {"ES384", p384}, {"ES512", p521}, {"EdDSA", ed25519}};
    set_algorithms(ALL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_msg(take(jwk(rows[i].key, OTHER, ",\"kid\":\"k\",\"use\":\"sig\""), NULL) == 0,
                      "%s: %s", rows[i].alg, why);
        ck_assert_uint_eq(token_keys_jwks_count(keys), 1);
        for (size_t j = 0; j < sizeof(rows) / sizeof(rows[0]); j++) {
            char header[64];
            snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"kid\":\"k\"}", rows[j].alg);
            enum token_result r = judge(header, rows[j].alg, rows[j].key, OTHER);
            ck_assert_msg(r == (rows[i].key == rows[j].key ? TOKEN_OK : TOKEN_KEY), "%s by %s: %d",
                          rows[j].alg, rows[i].alg, (int)r);
        }
    }
}
END_TEST

START_TEST(a_token_that_names_a_key_is_checked_with_that_one_only)
{
    set_algorithms("HS256,RS256");
    ck_assert_int_eq(take(jwk(rsa, NULL, ",\"kid\":\"a\""), jwk(other_rsa, NULL, ",\"kid\":\"b\""),
                          jwk(NULL, OTHER, ",\"kid\":\"c\""), NULL), 0);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\",\"kid\":\"a\"}", "RS256", rsa, NULL), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\",\"kid\":\"b\"}", "RS256", other_rsa, NULL),
                     TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\",\"kid\":\"b\"}", "RS256", rsa, NULL),
                     TOKEN_SIGNATURE);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\",\"kid\":\"c\"}", "RS256", rsa, NULL), TOKEN_KEY);
    ck_assert_int_eq(judge("{\"alg\":\"HS256\",\"kid\":\"a\"}", "HS256", NULL, OTHER), TOKEN_KEY);
    /* Without a name: all that fit. */
    ck_assert_int_eq(judge("{\"alg\":\"RS256\"}", "RS256", rsa, NULL), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\"}", "RS256", other_rsa, NULL), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"HS256\"}", "HS256", NULL, OTHER), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"HS256\"}", "HS256", NULL, SECRET), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\"}", "RS256", weak_rsa, NULL), TOKEN_SIGNATURE);
    /* A name that none has: keys without one, as the secret's file. */
    ck_assert_int_eq(judge("{\"alg\":\"HS256\",\"kid\":\"x\"}", "HS256", NULL, SECRET), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"HS256\",\"kid\":\"x\"}", "HS256", NULL, OTHER),
                     TOKEN_SIGNATURE);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\",\"kid\":\"x\"}", "RS256", rsa, NULL), TOKEN_KEY);
}
END_TEST

START_TEST(the_tries_for_a_token_without_a_key_s_name_are_bounded)
{
    struct text_buf set = {0};
    char secret[64];
    set_algorithms("HS512");
    text_adds(&set, "{\"keys\":[");
    for (int i = 0; i < 20; i++) {
        snprintf(secret, sizeof(secret), "%02d of many secrets with thirty-two bytes", i);
        char *key = jwk(NULL, secret, "");
        text_addf(&set, "%s%s", i ? "," : "", key);
        free(key);
    }
    text_adds(&set, "]}");
    ck_assert_int_eq(take_text(set.data), 0);
    for (int i = 0; i < 20; i++) {
        snprintf(secret, sizeof(secret), "%02d of many secrets with thirty-two bytes", i);
        /* the file's secret is the first of eight */
        ck_assert_int_eq(judge("{\"alg\":\"HS512\"}", "HS512", NULL, secret),
                         i < 7 ? TOKEN_OK : TOKEN_SIGNATURE);
    }
    text_buf_free(&set);
}
END_TEST

START_TEST(alg_use_and_key_ops_are_respected)
{
    set_algorithms("RS256,PS256,HS256,HS512");
    static const char good[] = ",\"alg\":\"PS256\",\"key_ops\":[\"x\",\"verify\"]";
    ck_assert_int_eq(take(jwk(rsa, NULL, good), NULL), 0);
    ck_assert_int_eq(judge("{\"alg\":\"PS256\"}", "PS256", rsa, NULL), TOKEN_OK);
    ck_assert_int_eq(judge("{\"alg\":\"RS256\"}", "RS256", rsa, NULL), TOKEN_KEY);
    ck_assert_str_eq(notes(), "");
    static const char *const skipped[] = {
        ",\"use\":\"enc\"",         ",\"use\":7",        ",\"key_ops\":[\"encrypt\"]",
        ",\"key_ops\":[]",          ",\"key_ops\":\"verify\"", ",\"alg\":\"RSA-OAEP\"",
        ",\"alg\":\"ES256\"",       ",\"alg\":\"RS512\"", ",\"alg\":[\"RS256\"]",
    };
    for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++) {
        ck_assert_int_eq(take(jwk(rsa, NULL, skipped[i]), jwk(NULL, OTHER, ""), NULL), 0);
        ck_assert_msg(strstr(notes(), "jwt-jwks-file: key 1: "), "%s", skipped[i]);
        ck_assert_int_eq(judge("{\"alg\":\"RS256\"}", "RS256", rsa, NULL), TOKEN_KEY);
        ck_assert_int_eq(take(jwk(rsa, NULL, skipped[i]), NULL), -ENOKEY); /* nothing is left */
    }
}
END_TEST

START_TEST(what_keys_of_a_former_set_have_signed_is_known_no_more)
{
    set_algorithms("HS256,RS256");
    char *token = sign_alg("RS256", CLAIMS, rsa);
    ck_assert_int_eq(take(jwk(rsa, NULL, ""), NULL), 0);
    for (uint64_t i = 0; i < 2; i++) {
        ck_assert_int_eq(verify(keys, token), TOKEN_OK);
        ck_assert_uint_eq(counters_self->values[CTR_tokens_known], i);
    }
    ck_assert_int_eq(take(jwk(other_rsa, NULL, ""), NULL), 0);
    ck_assert_int_eq(verify(keys, token), TOKEN_SIGNATURE);
    ck_assert_int_eq(take(jwk(rsa, NULL, ""), NULL), 0);
    ck_assert_int_eq(verify(keys, token), TOKEN_OK);
    ck_assert_uint_eq(counters_self->values[CTR_tokens_known], 1);
    ck_assert_int_lt(take_text("{"), 0); /* a set that is refused changes nothing */
    ck_assert_int_eq(verify(keys, token), TOKEN_OK);
    ck_assert_uint_eq(counters_self->values[CTR_tokens_known], 2);
    free(token);
}
END_TEST

START_TEST(keys_of_unknown_kinds_are_skipped_with_a_note)
{
    set_algorithms("HS256");
    static const char *const unknown[] = {
        "{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"AAAA\",\"kid\":\"a\\nb\"}",
        "{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\"AAAA\",\"y\":\"AAAA\",\"kid\":\"a\\nb\"}",
        "{\"kty\":\"AKP\",\"alg\":\"ML-DSA-44\",\"pub\":\"AAAA\",\"kid\":\"a\\nb\"}",
        "{\"kty\":7,\"kid\":\"a\\nb\"}",
        "{\"kid\":\"a\\nb\"}",
    };
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        ck_assert_msg(take(strdup(unknown[i]), jwk(NULL, OTHER, ""), NULL) == 0, "%s", why);
        ck_assert_str_eq(notes(), "jwt-jwks-file: key 1 (kid \"a\\x0ab\"): no algorithm here uses "
                                  "this kind of key, or its curve: skipped\n");
        ck_assert_int_eq(judge("{\"alg\":\"HS256\"}", "HS256", NULL, OTHER), TOKEN_OK);
    }
    ck_assert_int_eq(take(jwk(rsa, NULL, ""), jwk(NULL, OTHER, ""), NULL), 0);
    ck_assert_str_eq(notes(), "jwt-jwks-file: key 1: no algorithm of jwt-algorithms uses it: "
                              "skipped\n");
}
END_TEST

static void refuse(int error, const char *words)
{
    ck_assert_msg(error < 0 && strstr(why, words) && strstr(why, "jwt-jwks-file"), "%d %s, not %s",
                  error, why, words);
    /* what was there before is there still */
    ck_assert_int_eq(judge("{\"alg\":\"HS256\",\"kid\":\"old\"}", "HS256", NULL, OTHER), TOKEN_OK);
}

START_TEST(what_is_wrong_refuses_the_whole_set_and_leaves_the_old_one)
{
    set_algorithms(ALL);
    ck_assert_int_eq(take(jwk(NULL, OTHER, ",\"kid\":\"old\""), NULL), 0);
    static const char *const broken[] = {"",
                                         " ",
                                         "null",
                                         "[]",
                                         "{}",
                                         "\xFF",
                                         "{\"keys\":{}}",
                                         "{\"keys\":[]",
                                         "{\"keys\":[]} x",
                                         "{\"keys\":[],\"keys\":[]}",
                                         "{\"keys\":[],\"k\\u0065ys\":[]}"};
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
        refuse(take_text(broken[i]), "one array");
    refuse(take_text("{\"keys\":[]}"), "holds no key");
    refuse(take_text("{\"keys\":[7]}"), "is no object");
    refuse(take_text("{\"keys\":[{\"kty\":\"oct\",\"kty\":\"RSA\"}]}"), "twice");
    refuse(take(jwk(NULL, "this one has 31 bytes, not more", ""), NULL), "32 bytes");
    refuse(take(jwk(weak_rsa, NULL, ""), NULL), "2048");
    refuse(take(jwk(rsa, NULL, ",\"d\":\"AAAA\""), NULL), "private");
    refuse(take(jwk(ed25519, NULL, ",\"d\":\"AAAA\""), NULL), "private");
    refuse(take(jwk(rsa, NULL, ",\"kid\":7"), NULL), "kid must be");
    refuse(take(jwk(rsa, NULL, ",\"kid\":\"\""), NULL), "kid must be");
    refuse(take(jwk(rsa, NULL, ",\"kid\":\"x\""), jwk(other_rsa, NULL, ",\"kid\":\"\\u0078\""),
                NULL),
           "another key");
    refuse(take(jwk(rsa, NULL, ",\"n\":\"AAAA\""), NULL), "twice");
    static const char *const bad[] = {
        "{\"kty\":\"oct\"}",
        "{\"kty\":\"oct\",\"k\":7}",
        "{\"kty\":\"oct\",\"k\":\"AAAA=\"}",
        "{\"kty\":\"RSA\",\"e\":\"AQAB\"}",
        "{\"kty\":\"EC\",\"crv\":\"P-256\"}",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
        "\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", /* not on the curve */
        "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refuse(take(strdup(bad[i]), NULL), "its parts are no key");
}
END_TEST

START_TEST(sets_are_bounded)
{
    struct text_buf set = {0};
    set_algorithms("HS256");
    ck_assert_int_eq(take(jwk(NULL, OTHER, ",\"kid\":\"old\""), NULL), 0);
    text_adds(&set, "{\"keys\":[");
    for (int i = 0; i < 65; i++)
        text_addf(&set, "%s{}", i ? "," : "");
    text_adds(&set, "]}");
    refuse(take_text(set.data), "64");
    text_buf_reset(&set);
    text_adds(&set, "{\"keys\":[");
    for (int i = 0; i < 300000; i++)
        text_addc(&set, '[');
    refuse(take_text(set.data), "one array");
    text_buf_reset(&set);
    text_adds(&set, "{\"keys\":[{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"");
    for (int i = 0; i < 100000; i++)
        text_addc(&set, 'B');
    text_adds(&set, "\"}]}");
    refuse(take_text(set.data), "no key");
    text_buf_free(&set);
}
END_TEST

START_TEST(no_cut_or_changed_byte_of_a_set_does_harm)
{
    set_algorithms(ALL);
    char *text = jwk(p256, NULL, ",\"kid\":\"a\",\"alg\":\"ES256\",\"use\":\"sig\"");
    struct text_buf set = {0};
    text_addf(&set, "{\"keys\":[%s]}", text);
    ck_assert_int_eq(take_text(set.data), 0);
    for (size_t n = 0; n < set.len; n++) {
        char *cut = malloc(n + 1);
        memcpy(cut, set.data, n);
        cut[n] = '\0';
        ck_assert_int_lt(take_text(cut), 0);
        free(cut);
    }
    for (size_t n = 0; n < set.len; n++) {
        char was = set.data[n];
        for (const char *c = "\"{}[]:,A0\\\xFF"; *c; c++) {
            set.data[n] = *c;
            (void)take_text(set.data);
        }
        set.data[n] = was;
    }
    ck_assert_int_eq(take_text(set.data), 0);
    text_buf_free(&set);
    free(text);
}
END_TEST

START_TEST(a_token_can_be_made_with_an_oct_key)
{
    struct token_request what = {.user_id = "u", .ttl_ms = 60000, .jti = "id-1"};
    char *token = NULL;
    set_algorithms("HS256,HS512,RS256");
    ck_assert_int_eq(take(jwk(rsa, NULL, ",\"kid\":\"r\""),
                          jwk(NULL, OTHER, ",\"kid\":\"o\",\"alg\":\"HS512\""), NULL), 0);
    what.kid = "o";
    ck_assert_int_eq(token_mint(keys, &what, NOW_MS, &token), 0);
    ck_assert_int_eq(verify(keys, token), TOKEN_OK);
    ck_assert_str_eq(claims.jti, "id-1");
    keys->file_count = 0; /* it was the set's key */
    ck_assert_int_eq(verify(keys, token), TOKEN_OK);
    free(token);
    what.kid = NULL;
    ck_assert_int_eq(token_mint(keys, &what, NOW_MS, &token), 0);
    ck_assert_int_eq(verify(keys, token), TOKEN_OK);
    free(token);
    keys->file_count = 1;
    what.kid = "r"; /* there is no private half of it here */
    ck_assert_int_eq(token_mint(keys, &what, NOW_MS, &token), -ENOENT);
    what.kid = NULL;
    what.jti = "a\nb";
    ck_assert_int_eq(token_mint(keys, &what, NOW_MS, &token), -EINVAL);
}
END_TEST

static void make_keys(void)
{
    rsa = make_rsa(2048);
    other_rsa = make_rsa(2048);
    weak_rsa = make_rsa(1024);
    p256 = EVP_EC_gen("P-256");
    p384 = EVP_EC_gen("P-384");
    p521 = EVP_EC_gen("P-521");
    ed25519 = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

int main(void)
{
    make_keys();
    TCase *tc = tcase_create("jwks");
    tcase_add_checked_fixture(tc, setup, done);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_kind_of_key_is_read_and_serves_its_algorithms_only);
    tcase_add_test(tc, a_token_that_names_a_key_is_checked_with_that_one_only);
    tcase_add_test(tc, the_tries_for_a_token_without_a_key_s_name_are_bounded);
    tcase_add_test(tc, alg_use_and_key_ops_are_respected);
    tcase_add_test(tc, what_keys_of_a_former_set_have_signed_is_known_no_more);
    tcase_add_test(tc, keys_of_unknown_kinds_are_skipped_with_a_note);
    tcase_add_test(tc, what_is_wrong_refuses_the_whole_set_and_leaves_the_old_one);
    tcase_add_test(tc, sets_are_bounded);
    tcase_add_test(tc, no_cut_or_changed_byte_of_a_set_does_harm);
    tcase_add_test(tc, a_token_can_be_made_with_an_oct_key);
    Suite *s = suite_create("jwks");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    EVP_PKEY *all[] = {rsa, other_rsa, weak_rsa, p256, p384, p521, ed25519};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        EVP_PKEY_free(all[i]);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
