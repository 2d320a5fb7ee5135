/*
 * token_maker.h - for check_token.c and check_token_keys.c: keys, tokens, and rules to check them
 * by.
 *
 * Tokens here are signed by OpenSSL, not by the library that verifies them.
 */
#ifndef BELFRY_TESTS_TOKEN_MAKER_H
#define BELFRY_TESTS_TOKEN_MAKER_H

#include <check.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/token.h"

#define NOW_MS INT64_C(1769860800000)
#define SECRET "0123456789abcdef0123456789abcdef"
#define CLAIMS "{\"sub\":\"u1\",\"exp\":1769860900}"

static inline void add_base64url(struct text_buf *out, const void *bytes, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < len ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < len ? p[i + 2] : 0);
        size_t n = len - i < 3 ? len - i + 1 : 4;
        for (size_t j = 0; j < n; j++)
            text_addc(out, digits[v >> (18 - 6 * j) & 63]);
    }
}

static const EVP_MD *digest_of(const char *alg)
{
    return strstr(alg, "512") ? EVP_sha512() : strstr(alg, "384") ? EVP_sha384() : EVP_sha256();
}

/* ES signatures are two numbers of fixed size (RFC 7518, section 3.4), not OpenSSL's DER. */
static inline size_t raw_of_der(EVP_PKEY *key, unsigned char *sig, size_t len)
{
    const unsigned char *p = sig;
    ECDSA_SIG *parsed = d2i_ECDSA_SIG(NULL, &p, (long)len);
    int size = (EVP_PKEY_bits(key) + 7) / 8;
    BN_bn2binpad(ECDSA_SIG_get0_r(parsed), sig, size);
    BN_bn2binpad(ECDSA_SIG_get0_s(parsed), sig + size, size);
    ECDSA_SIG_free(parsed);
    return 2 * (size_t)size;
}

/* As OpenSSL has it. */
static inline void sign_raw(const char *alg, EVP_PKEY *key, const struct text_buf *text,
                            unsigned char *sig, size_t *len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *how = NULL;
    const EVP_MD *md = strcmp(alg, "EdDSA") == 0 ? NULL : digest_of(alg);
    ck_assert_int_eq(EVP_DigestSignInit(ctx, &how, md, NULL, key), 1);
    if (alg[0] == 'P') {
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING), 1);
        ck_assert_int_eq(EVP_PKEY_CTX_set_rsa_pss_saltlen(how, RSA_PSS_SALTLEN_DIGEST), 1);
    }
    ck_assert_int_eq(EVP_DigestSign(ctx, sig, len, (unsigned char *)text->data, text->len), 1);
    EVP_MD_CTX_free(ctx);
}

static inline void add_signature(struct text_buf *token, const char *alg, EVP_PKEY *key,
                                 const char *secret)
{
    unsigned char sig[1024];
    size_t len = sizeof(sig);
    if (key) {
        sign_raw(alg, key, token, sig, &len);
        if (strncmp(alg, "ES", 2) == 0)
            len = raw_of_der(key, sig, len);
    } else {
        unsigned n;
        ck_assert_ptr_nonnull(secret);
        HMAC(digest_of(alg), secret, (int)strlen(secret), (unsigned char *)token->data, token->len,
             sig, &n);
        len = n;
    }
    text_addc(token, '.');
    add_base64url(token, sig, len);
}

/* A signed token of these two texts, to be freed; signed as alg says, whatever the header says. */
static inline char *sign(const char *header, const char *claims, const char *alg, EVP_PKEY *key,
                  const char *secret)
{
    struct text_buf token = {0};
    add_base64url(&token, header, strlen(header));
    text_addc(&token, '.');
    add_base64url(&token, claims, strlen(claims));
    add_signature(&token, alg, key, secret);
    return token.data;
}

static inline char *sign_alg(const char *alg, const char *claims, EVP_PKEY *key)
{
    char header[64];
    snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"typ\":\"JWT\"}", alg);
    return sign(header, claims, alg, key, SECRET);
}

/* --- rules --- */

static struct options opt;

static inline void setup(void)
{
    opt = (struct options){.jwt_secret_file = "",
                           .jwt_public_key_file = "",
                           .jwt_jwks_file = "",
                           .denylist_key = "denylist:{jti}",
                           .jwt_issuer = "",
                           .jwt_audience = "",
                           .jwt_leeway = 10000,
                           .jwt_require_exp = CHOICE_YES,
                           .jwt_user_claim = "sub",
                           .admin_claim = "role"};
    ck_assert_int_eq(text_list_split(&opt.jwt_algorithms, "HS256"), 0);
    ck_assert_int_eq(text_list_split(&opt.admin_values, "admin"), 0);
}

static inline void teardown(void)
{
    text_list_free(&opt.jwt_algorithms);
    text_list_free(&opt.admin_values);
}

static inline void set_algorithms(const char *list)
{
    text_list_free(&opt.jwt_algorithms);
    ck_assert_int_eq(text_list_split(&opt.jwt_algorithms, list), 0);
}

static inline void set_admin_values(const char *list)
{
    text_list_free(&opt.admin_values);
    ck_assert_int_eq(text_list_split(&opt.admin_values, list), 0);
}

/* For token_keys_notes: a line each. */
static inline void add_note(void *data, const char *text)
{
    text_addf(data, "%s\n", text);
}

static inline struct token_keys *keys_hs(void)
{
    struct token_keys *k = NULL;
    ck_assert_int_eq(token_keys_from_secret(&opt, SECRET, strlen(SECRET), &k), 0);
    return k;
}

static inline const struct token_request *request(const char *user, bool admin, int64_t ttl_ms)
{
    static struct token_request what;
    what = (struct token_request){.user_id = user, .is_admin = admin, .ttl_ms = ttl_ms};
    return &what;
}

static struct token_claims claims;

static inline enum token_result verify(const struct token_keys *k, const char *token)
{
    return token_verify(k, token, strlen(token), NOW_MS, &claims);
}

#endif
