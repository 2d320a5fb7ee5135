#include "config.h"

#include "shared/token_key.h"

#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#define ED25519_BYTES 32
#define COORDINATE_MAX_BYTES 66

const struct token_algorithm token_algorithms[TOKEN_ALGORITHMS] = {
#define ALGORITHM(NAME, KIND, hash_bytes, CURVE)                                                   \
    {#NAME, TOKEN_KEY_##KIND, hash_bytes, TOKEN_CURVE_##CURVE},
#include "shared/algorithms.def"
#undef ALGORITHM
};

static const struct {
    const char *name;  /* in a JWK */
    const char *group; /* OpenSSL's name */
    size_t bytes;      /* of a coordinate, and of half a signature (RFC 7518, section 3.4) */
} curves[] = {
    [TOKEN_CURVE_NONE] = {"", "", 0},
    [TOKEN_CURVE_P256] = {"P-256", "prime256v1", 32},
    [TOKEN_CURVE_P384] = {"P-384", "secp384r1", 48},
    [TOKEN_CURVE_P521] = {"P-521", "secp521r1", COORDINATE_MAX_BYTES},
};
#define CURVES (sizeof(curves) / sizeof(curves[0]))

const struct token_algorithm *token_algorithm_find(struct text_span name)
{
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        if (text_span_eq(name, token_algorithms[i].name))
            return &token_algorithms[i];
    return NULL;
}

enum token_curve token_curve_find(struct text_span name)
{
    for (size_t i = 1; i < CURVES; i++)
        if (text_span_eq(name, curves[i].name))
            return (enum token_curve)i;
    return TOKEN_CURVE_NONE;
}

const char *token_curve_name(enum token_curve curve)
{
    return curves[curve].name;
}

size_t token_curve_bytes(enum token_curve curve)
{
    return curves[curve].bytes;
}

/* --- making --- */

static void hmac_fini(struct token_key *k)
{
    for (size_t i = 0; i < TOKEN_HASHES; i++) {
        EVP_MAC_CTX_free(k->macs[i]);
        k->macs[i] = NULL;
    }
    if (k->secret)
        explicit_bzero(k->secret, k->secret_len);
    free(k->secret);
    k->secret = NULL;
    k->secret_len = 0;
}

/* HMAC() looks its own code up and takes the key in for each token, which is three quarters of what
 * it costs. */
static int prepare_macs(struct token_key *k)
{
    char names[TOKEN_HASHES][8] = {"SHA256", "SHA384", "SHA512"};
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, OSSL_MAC_NAME_HMAC, NULL);
    bool is_done = hmac;
    for (size_t i = 0; is_done && i < TOKEN_HASHES; i++) {
        OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, names[i], 0),
            OSSL_PARAM_construct_end()};
        k->macs[i] = EVP_MAC_CTX_new(hmac);
        is_done = k->macs[i] && EVP_MAC_init(k->macs[i], k->secret, k->secret_len, params) == 1;
    }
    EVP_MAC_free(hmac);
    return is_done ? 0 : -ENOMEM;
}

int token_key_from_secret(struct token_key *k, const void *bytes, size_t len)
{
    if (len < TOKEN_SECRET_MIN_BYTES || len > INT_MAX)
        return -ERANGE;
    k->secret = malloc(len);
    if (!k->secret)
        return -ENOMEM;
    memcpy(k->secret, bytes, len);
    k->secret_len = len;
    k->kind = TOKEN_KEY_HMAC;
    int r = prepare_macs(k);
    if (r < 0)
        hmac_fini(k);
    return r;
}

static enum token_curve curve_of(EVP_PKEY *key)
{
    char name[80];
    size_t len = 0;
    if (EVP_PKEY_get_group_name(key, name, sizeof name, &len) == 1)
        for (size_t i = 1; i < CURVES; i++)
            if (strcmp(name, curves[i].group) == 0)
                return (enum token_curve)i;
    return TOKEN_CURVE_NONE;
}

static int classify(struct token_key *k, EVP_PKEY *key)
{
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
        k->kind = TOKEN_KEY_RSA;
        if (EVP_PKEY_get_bits(key) < TOKEN_RSA_MIN_BITS ||
            EVP_PKEY_get_bits(key) > TOKEN_RSA_MAX_BITS)
            return -ERANGE;
        return 0;
    case EVP_PKEY_EC:
        k->kind = TOKEN_KEY_EC;
        k->curve = curve_of(key);
        return k->curve == TOKEN_CURVE_NONE ? -ENOTSUP : 0;
    case EVP_PKEY_ED25519:
        k->kind = TOKEN_KEY_ED25519;
        return 0;
    default:
        return -ENOTSUP;
    }
}

int token_key_from_public(struct token_key *k, EVP_PKEY *public_key)
{
    int r = classify(k, public_key);
    if (r == 0) {
        EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(public_key, NULL);
        r = !ctx ? -ENOMEM : EVP_PKEY_public_check(ctx) == 1 ? 0 : -EINVAL;
        EVP_PKEY_CTX_free(ctx);
    }
    if (r == 0)
        k->public_key = public_key;
    else
        EVP_PKEY_free(public_key);
    if (r < 0)
        ERR_clear_error();
    return r;
}

/* A key of these parts; they are freed. */
static int from_parts(struct token_key *k, const char *type, OSSL_PARAM_BLD *parts)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = parts ? OSSL_PARAM_BLD_to_param(parts) : NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    int r = -ENOMEM;
    if (params && ctx && EVP_PKEY_fromdata_init(ctx) == 1)
        r = EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) == 1 ? 0 : -EINVAL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(parts);
    return r < 0 ? r : token_key_from_public(k, key);
}

int token_key_from_rsa(struct token_key *k, const unsigned char *n, size_t n_len,
                       const unsigned char *e, size_t e_len)
{
    k->kind = TOKEN_KEY_RSA;
    if (n_len > TOKEN_RSA_MAX_BITS / 8 + 1 || e_len > 8)
        return -ERANGE;
    BIGNUM *modulus = BN_bin2bn(n, (int)n_len, NULL), *exponent = BN_bin2bn(e, (int)e_len, NULL);
    OSSL_PARAM_BLD *parts = OSSL_PARAM_BLD_new();
    int r = -ENOMEM;
    if (modulus && exponent && parts && OSSL_PARAM_BLD_push_BN(parts, "n", modulus) == 1 &&
        OSSL_PARAM_BLD_push_BN(parts, "e", exponent) == 1)
        r = from_parts(k, "RSA", parts);
    else
        OSSL_PARAM_BLD_free(parts);
    BN_free(modulus);
    BN_free(exponent);
    return r;
}

int token_key_from_point(struct token_key *k, enum token_curve curve, const unsigned char *x,
                         const unsigned char *y)
{
    unsigned char point[1 + 2 * COORDINATE_MAX_BYTES] = {POINT_CONVERSION_UNCOMPRESSED};
    size_t bytes = curves[curve].bytes;
    memcpy(point + 1, x, bytes);
    memcpy(point + 1 + bytes, y, bytes);
    OSSL_PARAM_BLD *parts = OSSL_PARAM_BLD_new();
    if (!parts ||
        OSSL_PARAM_BLD_push_utf8_string(parts, OSSL_PKEY_PARAM_GROUP_NAME, curves[curve].group,
                                        0) != 1 ||
        OSSL_PARAM_BLD_push_octet_string(parts, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * bytes) !=
            1) {
        OSSL_PARAM_BLD_free(parts);
        return -ENOMEM;
    }
    return from_parts(k, "EC", parts);
}

int token_key_from_ed25519(struct token_key *k, const unsigned char *x, size_t len)
{
    if (len != ED25519_BYTES)
        return -EINVAL;
    k->public_key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, len);
    k->kind = TOKEN_KEY_ED25519;
    return k->public_key ? 0 : -ENOMEM;
}

void token_key_fini(struct token_key *k)
{
    hmac_fini(k);
    free(k->kid);
    EVP_PKEY_free(k->public_key);
    *k = (struct token_key){0};
}

/* --- checking --- */

bool token_key_fits(const struct token_key *k, const struct token_algorithm *a)
{
    enum token_key_kind kind = a->kind == TOKEN_KEY_RSA_PSS ? TOKEN_KEY_RSA : a->kind;
    return k->kind == kind && k->curve == a->curve && (!k->only || k->only == a);
}

static const EVP_MD *hash_of(const struct token_algorithm *a)
{
    switch (a->hash_bytes) {
    case 32: return EVP_sha256();
    case 48: return EVP_sha384();
    case 64: return EVP_sha512();
    default: return NULL; /* Ed25519 */
    }
}

static EVP_MAC_CTX *mac_for(const struct token_key *k, const struct token_algorithm *a)
{
    return EVP_MAC_CTX_dup(k->macs[(a->hash_bytes - 32) / 16]);
}

static bool verify_hmac(const struct token_key *k, const struct token_algorithm *a,
                        struct text_span text, const unsigned char *signature, size_t len)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    size_t mac_len = 0;
    EVP_MAC_CTX *ctx = mac_for(k, a);
    bool is_done = ctx && EVP_MAC_update(ctx, (const unsigned char *)text.ptr, text.len) == 1 &&
                   EVP_MAC_final(ctx, mac, &mac_len, sizeof mac) == 1;
    EVP_MAC_CTX_free(ctx);
    return is_done && len == mac_len && CRYPTO_memcmp(mac, signature, mac_len) == 0;
}

/* Two numbers of fixed size are all there is: OpenSSL's DER is another text for the same, and not
 * accepted in its place. The DER of it; its length, 0: it is none. *out is OpenSSL's to free. */
static size_t der_of(const struct token_algorithm *a, const unsigned char *signature, size_t len,
                     unsigned char **out)
{
    int half = (int)curves[a->curve].bytes, der_len = 0;
    if (len != 2 * (size_t)half)
        return 0;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature, half, NULL), *s = BN_bin2bn(signature + half, half, NULL);
    if (pair && r && s && ECDSA_SIG_set0(pair, r, s) == 1) {
        r = s = NULL; /* the pair's now */
        der_len = i2d_ECDSA_SIG(pair, out);
    }
    ECDSA_SIG_free(pair);
    BN_free(r);
    BN_free(s);
    return der_len > 0 ? (size_t)der_len : 0;
}

/* RFC 7518, section 3.5: MGF1 with the same hash, which is OpenSSL's default, and a salt of its
 * size. */
static bool set_padding(EVP_PKEY_CTX *ctx, const struct token_algorithm *a)
{
    if (a->kind != TOKEN_KEY_RSA_PSS)
        return true;
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) == 1 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1;
}

static bool verify_public(const struct token_key *k, const struct token_algorithm *a,
                          struct text_span text, const unsigned char *signature, size_t len)
{
    unsigned char *der = NULL;
    if (a->kind == TOKEN_KEY_EC) {
        len = der_of(a, signature, len, &der);
        signature = der;
        if (len == 0)
            return false;
    }
    EVP_PKEY_CTX *ctx = NULL;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool is_good = digest &&
                   EVP_DigestVerifyInit(digest, &ctx, hash_of(a), NULL, k->public_key) == 1 &&
                   set_padding(ctx, a) &&
                   EVP_DigestVerify(digest, signature, len, (const unsigned char *)text.ptr,
                                    text.len) == 1;
    EVP_MD_CTX_free(digest);
    OPENSSL_free(der);
    if (!is_good)
        ERR_clear_error(); /* it would be taken for one of a TLS connection's */
    return is_good;
}

bool token_key_verify(const struct token_key *k, const struct token_algorithm *a,
                      struct text_span text, const unsigned char *signature, size_t len)
{
    if (!token_key_fits(k, a))
        return false;
    return a->kind == TOKEN_KEY_HMAC ? verify_hmac(k, a, text, signature, len)
                                     : verify_public(k, a, text, signature, len);
}
