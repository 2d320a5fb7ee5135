#include "config.h"

#include <check.h>
#include <errno.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/counters.h"
#include "shared/token.h"
#include "shared/token_priv.h"
#include "tests/unit/token_maker.h"

/* Keys take time to make: main makes them once, the tests' processes inherit them. */
static EVP_PKEY *rsa, *weak_rsa, *p256, *p384, *p521, *k256, *ed25519, *ed448;
static char dir[64], why[512];

static EVP_PKEY *make_key(int type, int parameter)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(type, NULL);
    if (!ctx || EVP_PKEY_keygen_init(ctx) != 1)
        abort();
    if (parameter &&
        (type == EVP_PKEY_RSA ? EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, parameter)
                              : EVP_PKEY_CTX_set_ec_paramgen_curve_nid(ctx, parameter)) != 1)
        abort();
    if (EVP_PKEY_keygen(ctx, &key) != 1)
        abort();
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static EVP_PKEY *another_like(const EVP_PKEY *key)
{
    if (key == rsa)
        return make_key(EVP_PKEY_RSA, 2048);
    if (key == ed25519)
        return make_key(EVP_PKEY_ED25519, 0);
    return make_key(EVP_PKEY_EC, key == p256   ? NID_X9_62_prime256v1
                                 : key == p384 ? NID_secp384r1
                                               : NID_secp521r1);
}

static char *write_file(const char *name, const void *bytes, size_t len)
{
    static char path[4][128];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    FILE *f = fopen(p, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    fclose(f);
    return p;
}

static char *pem_file(const char *name, EVP_PKEY *key, bool private)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    if (private)
        PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    else
        PEM_write_bio_PUBKEY(bio, key);
    long len = BIO_get_mem_data(bio, &text);
    char *path = write_file(name, text, (size_t)len);
    BIO_free(bio);
    return path;
}

/* Loads the options' files; NULL and why when they are refused. */
static struct token_keys *load(void)
{
    struct token_keys *k = NULL;
    why[0] = '\0';
    int r = token_keys_load(&opt, &k, why, sizeof(why));
    ck_assert_int_eq(r < 0, k == NULL);
    ck_assert_int_eq(r < 0, why[0] != '\0');
    return k;
}

START_TEST(each_public_key_algorithm_is_verified_with_its_own_key_only)
{
    const struct {
        const char *alg;
        EVP_PKEY *key;
    } rows[] = {{"RS256", rsa},  {"RS384", rsa},  {"RS512", rsa},
                {"PS256", rsa},  {"PS384", rsa},  {"PS512", rsa},
                {"ES256", p256}, {"ES384", p384}, {"ES512", p521},
                {"EdDSA", ed25519}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        set_algorithms(rows[i].alg);
        opt.jwt_public_key_file = pem_file("public.pem", rows[i].key, false);
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s: %s", rows[i].alg, why);
        for (size_t j = 0; j < sizeof(rows) / sizeof(rows[0]); j++) {
            char *token = sign_alg(rows[j].alg, CLAIMS, rows[j].key);
            enum token_result r = verify(k, token);
            ck_assert_msg(r == (i == j ? TOKEN_OK : TOKEN_ALGORITHM), "%s by %s: %d", rows[j].alg,
                          rows[i].alg, (int)r);
            free(token);
        }
        EVP_PKEY *other = another_like(rows[i].key);
        char *token = sign_alg(rows[i].alg, CLAIMS, other);
        ck_assert_int_eq(verify(k, token), TOKEN_SIGNATURE);
        free(token);
        EVP_PKEY_free(other);
        token_keys_free(k);
    }
}
END_TEST

/* One key, one algorithm: what another algorithm made of the same key is another signature. */
START_TEST(signatures_have_one_form)
{
    set_algorithms("ES256");
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    struct token_keys *k = load();
    ck_assert_ptr_nonnull(k);
    struct text_buf token = {0}, bad = {0};
    char *good = sign_alg("ES256", CLAIMS, p256);
    text_add(&token, good, (size_t)(strrchr(good, '.') - good));
    unsigned char sig[200] = {0};
    size_t len = sizeof(sig);
    ck_assert_int_eq(verify(k, good), TOKEN_OK);
    sign_raw("ES256", p256, &token, sig, &len); /* DER, as OpenSSL has it */
    text_addf(&bad, "%s.", token.data);
    add_base64url(&bad, sig, len);
    ck_assert_int_eq(verify(k, bad.data), TOKEN_SIGNATURE);
    size_t raw = raw_of_der(p256, sig, len);
    for (size_t n = 1; n <= raw + 2; n++) {
        text_buf_reset(&bad);
        text_addf(&bad, "%s.", token.data);
        add_base64url(&bad, sig, n);
        ck_assert_int_eq(verify(k, bad.data), n == raw ? TOKEN_OK : TOKEN_SIGNATURE);
    }
    memset(sig, 0, sizeof(sig)); /* r = s = 0: CVE-2022-21449 elsewhere */
    text_buf_reset(&bad);
    text_addf(&bad, "%s.", token.data);
    add_base64url(&bad, sig, raw);
    ck_assert_int_eq(verify(k, bad.data), TOKEN_SIGNATURE);
    free(good);
    token_keys_free(k);
    set_algorithms("RS256,PS256");
    opt.jwt_public_key_file = pem_file("k.pem", rsa, false);
    k = load();
    ck_assert_msg(k != NULL, "%s", why);
    good = sign("{\"alg\":\"PS256\"}", CLAIMS, "RS256", rsa, NULL);
    ck_assert_int_eq(verify(k, good), TOKEN_SIGNATURE);
    free(good);
    good = sign("{\"alg\":\"RS256\"}", CLAIMS, "PS256", rsa, NULL);
    ck_assert_int_eq(verify(k, good), TOKEN_SIGNATURE);
    free(good);
    token_keys_free(k);
    text_buf_free(&token);
    text_buf_free(&bad);
}
END_TEST

/* How many tokens this process did not check the signature of. */
static unsigned known(void)
{
    return (unsigned)counters_self->values[CTR_tokens_known];
}

START_TEST(a_signature_is_checked_once_and_all_else_each_time)
{
    set_algorithms("ES256,HS256");
    opt.jwt_secret_file = write_file("secret", SECRET, strlen(SECRET));
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    opt.jwt_leeway = 0;
    struct token_keys *k = load();
    ck_assert_ptr_nonnull(k);
    char *token = sign_alg("ES256", "{\"sub\":\"u\",\"exp\":1769860900,\"nbf\":1769860700}", p256);
    size_t len = strlen(token);
    const int64_t nbf_ms = INT64_C(1769860700000), exp_ms = INT64_C(1769860900000);
    /* Whatever it was refused for, its signature is good. */
    ck_assert_int_eq(token_verify(k, token, len, exp_ms, &claims), TOKEN_EXPIRED);
    ck_assert_uint_eq(known(), 0);
    ck_assert_int_eq(token_verify(k, token, len, nbf_ms, &claims), TOKEN_OK);
    ck_assert_str_eq(claims.user_id, "u");
    ck_assert_int_eq(token_verify(k, token, len, exp_ms - 1, &claims), TOKEN_OK);
    ck_assert_int_eq(token_verify(k, token, len, exp_ms, &claims), TOKEN_EXPIRED);
    ck_assert_int_eq(token_verify(k, token, len, nbf_ms - 1, &claims), TOKEN_NOT_YET);
    ck_assert_uint_eq(known(), 4);
    for (size_t at = 0; at < len; at++) { /* no other token is taken for it */
        char was = token[at];
        token[at] = was == 'A' ? 'B' : 'A';
        ck_assert_int_ne(token_verify(k, token, len, NOW_MS, &claims), TOKEN_OK);
        token[at] = was;
    }
    ck_assert_uint_eq(known(), 4);
    token_keys_free(k);
    k = load(); /* a reload's */
    ck_assert_int_eq(token_verify(k, token, len, NOW_MS, &claims), TOKEN_OK);
    ck_assert_uint_eq(known(), 4);
    free(token);
    token = sign_alg("HS256", CLAIMS, NULL);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(verify(k, token), TOKEN_OK);
    ck_assert_uint_eq(known(), 4);
    free(token);
    token_keys_free(k);
}
END_TEST

START_TEST(a_bad_signature_stays_bad)
{
    set_algorithms("EdDSA");
    opt.jwt_public_key_file = pem_file("k.pem", ed25519, false);
    struct token_keys *k = load();
    EVP_PKEY *other = another_like(ed25519);
    char *token = sign_alg("EdDSA", CLAIMS, other);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(verify(k, token), TOKEN_SIGNATURE);
    ck_assert_uint_eq(known(), 0);
    free(token);
    EVP_PKEY_free(other);
    token_keys_free(k);
}
END_TEST

START_TEST(a_short_secret_for_a_long_hash_is_noted)
{
    struct text_buf notes = {0};
    set_algorithms("HS256,HS512");
    opt.jwt_secret_file = write_file("secret", SECRET, strlen(SECRET));
    struct token_keys *k = load();
    ck_assert_msg(k != NULL, "%s", why);
    token_keys_notes(k, add_note, &notes);
    ck_assert_str_eq(notes.data, "jwt-secret-file: the secret has 32 bytes; HS512 is as strong as "
                                 "it can be from 64 on\n");
    token_keys_free(k);
    text_buf_free(&notes);
}
END_TEST

START_TEST(a_public_key_never_serves_as_a_secret)
{
    char *path = pem_file("public.pem", rsa, false);
    FILE *f = fopen(path, "r");
    char pem[4096];
    size_t len = fread(pem, 1, sizeof(pem) - 1, f);
    fclose(f);
    pem[len] = '\0';
    opt.jwt_public_key_file = path;
    opt.jwt_secret_file = write_file("secret", SECRET, strlen(SECRET));
    static const char *const lists[] = {"RS256", "RS256,HS256", "HS256,RS256"};
    for (int i = 0; i < 3; i++) {
        set_algorithms(lists[i]);
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s", why);
        for (size_t cut = 0; cut < 2; cut++) { /* with its last newline and without */
            pem[len - 1] = cut ? '\0' : '\n';
            char *token = sign("{\"alg\":\"HS256\"}", CLAIMS, "HS256", NULL, pem);
            ck_assert_int_eq(verify(k, token), i == 0 ? TOKEN_ALGORITHM : TOKEN_SIGNATURE);
            free(token);
        }
        char *token = sign_alg("RS256", CLAIMS, rsa);
        ck_assert_int_eq(verify(k, token), TOKEN_OK);
        free(token);
        token = sign_alg("HS256", CLAIMS, NULL);
        ck_assert_int_eq(verify(k, token), i == 0 ? TOKEN_ALGORITHM : TOKEN_OK);
        free(token);
        token_keys_free(k);
    }
}
END_TEST

/* --- key files --- */

static void refuse(const char *part1, const char *part2)
{
    struct token_keys *k = load();
    ck_assert_msg(k == NULL, "%s", part1);
    ck_assert_msg(strstr(why, part1) && strstr(why, part2), "%s", why);
}

START_TEST(one_newline_at_the_end_is_not_part_of_the_secret)
{
    const struct {
        const char *file, *secret;
    } rows[] = {{SECRET, SECRET},
                {SECRET "\n", SECRET},
                {SECRET "\r\n", SECRET},
                {SECRET "\n\n", SECRET "\n"},
                {" " SECRET " ", " " SECRET " "},
                {SECRET "\rb", SECRET "\rb"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        opt.jwt_secret_file = write_file("secret", rows[i].file, strlen(rows[i].file));
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s", why);
        char *token = sign("{\"alg\":\"HS256\"}", CLAIMS, "HS256", NULL, rows[i].secret);
        ck_assert_msg(verify(k, token) == TOKEN_OK, "row %zu", i);
        free(token);
        token_keys_free(k);
    }
}
END_TEST

START_TEST(a_secret_may_hold_any_bytes)
{
    /* but HMAC itself cannot tell a key from the same with zero bytes behind it */
    const unsigned char bytes[40] = {0, 1, 0xFF, 0, 'x', 0, [39] = 'y'};
    opt.jwt_secret_file = write_file("secret", bytes, sizeof(bytes));
    struct token_keys *k = load(), *same = NULL;
    ck_assert_ptr_nonnull(k);
    ck_assert_int_eq(token_keys_from_secret(&opt, bytes, sizeof(bytes), &same), 0);
    char *token = NULL;
    ck_assert_int_eq(token_mint(same, request("u", false, 1000), NOW_MS, &token), 0);
    ck_assert_int_eq(verify(k, token), TOKEN_OK);
    free(token);
    token_keys_free(same);
    ck_assert_int_eq(token_keys_from_secret(&opt, bytes, sizeof(bytes) - 1, &same), 0);
    ck_assert_int_eq(token_mint(same, request("u", false, 1000), NOW_MS, &token), 0);
    ck_assert_int_eq(verify(k, token), TOKEN_SIGNATURE);
    free(token);
    token_keys_free(same);
    token_keys_free(k);
}
END_TEST

START_TEST(secret_files_that_cannot_be_meant_are_refused)
{
    refuse("jwt-secret-file", "HS256");
    opt.jwt_secret_file = "/nonexistent/secret";
    refuse("jwt-secret-file", "/nonexistent/secret");
    opt.jwt_secret_file = dir;
    refuse("jwt-secret-file", "regular file");
    opt.jwt_secret_file = write_file("secret", "", 0);
    refuse("jwt-secret-file", "empty");
    opt.jwt_secret_file = write_file("secret", "\r\n", 2);
    refuse("jwt-secret-file", "newline");
    opt.jwt_secret_file = write_file("secret", SECRET, 31);
    refuse("31 bytes", "at least 32");
    opt.jwt_secret_file = write_file("secret", "short\n", 6);
    refuse("5 bytes", "openssl rand");
    ck_assert_ptr_null(strstr(why, "short"));
    opt.jwt_secret_file = pem_file("public.pem", rsa, false);
    refuse("jwt-secret-file", "jwt-public-key-file");
    opt.jwt_secret_file = pem_file("private.pem", p256, true);
    refuse("jwt-secret-file", "PEM");
    ck_assert_ptr_null(strstr(why, "BEGIN"));
    char fifo[128];
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    opt.jwt_secret_file = fifo; /* must not block */
    refuse("jwt-secret-file", "regular file");
    unlink(fifo);
}
END_TEST

START_TEST(a_key_file_may_have_65535_bytes)
{
    char *large = malloc(65537);
    memset(large, 's', 65537);
    for (size_t len = 65535; len <= 65537; len++) {
        opt.jwt_secret_file = write_file("secret", large, len);
        if (len > 65535) {
            refuse("jwt-secret-file", "larger than 65535 bytes");
            continue;
        }
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s", why);
        ck_assert_uint_eq(k->files[0].secret_len, len);
        token_keys_free(k);
    }
    free(large);
}
END_TEST

#define SET "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"k\":\"" \
    "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}" /* SECRET */

START_TEST(a_set_of_keys_is_read_from_a_file_only)
{
    char *large = malloc(TOKEN_JWKS_MAX_BYTES);
    memset(large, ' ', TOKEN_JWKS_MAX_BYTES);
    memcpy(large, SET, strlen(SET));
    for (size_t len = TOKEN_JWKS_MAX_BYTES - 1; len <= TOKEN_JWKS_MAX_BYTES; len++) {
        opt.jwt_jwks_file = write_file("set", large, len);
        if (len == TOKEN_JWKS_MAX_BYTES) {
            refuse("jwt-jwks-file", "larger than 262143 bytes");
            continue;
        }
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s", why);
        char *token = sign("{\"alg\":\"HS256\",\"kid\":\"a\"}", CLAIMS, "HS256", NULL, SECRET);
        ck_assert_int_eq(verify(k, token), TOKEN_OK);
        free(token);
        token_keys_free(k);
    }
    free(large);
    opt.jwt_jwks_file = dir;
    refuse("jwt-jwks-file", "regular file");
    opt.jwt_jwks_file = "/nonexistent/set";
    refuse("jwt-jwks-file", "/nonexistent/set");
    opt.jwt_jwks_file = write_file("set", "", 0);
    refuse("jwt-jwks-file", "empty");
    opt.jwt_jwks_file = write_file("set", "{\"keys\":[]}", 11);
    refuse("jwt-jwks-file", "");
}
END_TEST

START_TEST(a_set_with_secrets_that_everybody_can_read_is_noted)
{
    opt.jwt_jwks_file = write_file("set", SET, strlen(SET));
    for (int mode = 0600; mode <= 0604; mode += 4) {
        struct text_buf notes = {0};
        ck_assert_int_eq(chmod(opt.jwt_jwks_file, (mode_t)mode), 0);
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s", why);
        token_keys_notes(k, add_note, &notes);
        ck_assert_int_eq(notes.len && strstr(notes.data, "chmod o-r"), mode == 0604);
        token_keys_free(k);
        text_buf_free(&notes);
    }
}
END_TEST

/* An RSA key of these numbers, whatever they are. */
static EVP_PKEY *rsa_of(int bits, bool is_odd)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    OSSL_PARAM_BLD *parts = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_new(), *e = BN_new();
    ck_assert_int_eq(BN_set_word(e, 65537), 1);
    ck_assert_int_eq(BN_set_bit(n, bits - 1), 1);
    if (is_odd)
        ck_assert_int_eq(BN_set_bit(n, 0), 1);
    ck_assert_int_eq(OSSL_PARAM_BLD_push_BN(parts, "n", n), 1);
    ck_assert_int_eq(OSSL_PARAM_BLD_push_BN(parts, "e", e), 1);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(parts);
    ck_assert_int_eq(EVP_PKEY_fromdata_init(ctx), 1);
    ck_assert_int_eq(EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(parts);
    EVP_PKEY_CTX_free(ctx);
    BN_free(n);
    BN_free(e);
    return key;
}

START_TEST(rsa_keys_that_are_too_large_or_none_are_refused)
{
    set_algorithms("RS256");
    EVP_PKEY *large = rsa_of(8200, true), *even = rsa_of(2048, false);
    opt.jwt_public_key_file = pem_file("k.pem", large, false);
    refuse("8200 bits", "2048 to 8192");
    opt.jwt_public_key_file = pem_file("k.pem", even, false);
    refuse("no key", "numbers");
    EVP_PKEY_free(large);
    EVP_PKEY_free(even);
    /* A key that says of itself that it is for PSS only. */
    EVP_PKEY *pss = make_key(EVP_PKEY_RSA_PSS, 0);
    set_algorithms("PS256");
    opt.jwt_public_key_file = pem_file("k.pem", pss, false);
    refuse("jwt-public-key-file", "PS256");
    EVP_PKEY_free(pss);
}
END_TEST

static void append(const char *to, const char *from)
{
    char bytes[4096];
    FILE *in = fopen(from, "r"), *out = fopen(to, "a");
    ck_assert(in && out);
    size_t len = fread(bytes, 1, sizeof(bytes), in);
    ck_assert_uint_eq(fwrite(bytes, 1, len, out), len);
    fclose(in);
    fclose(out);
}

START_TEST(the_first_of_several_public_keys_is_used_and_that_is_noted)
{
    struct text_buf notes = {0};
    set_algorithms("ES256");
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    struct token_keys *k = load();
    ck_assert_msg(k != NULL, "%s", why);
    token_keys_notes(k, add_note, &notes);
    ck_assert_uint_eq(notes.len, 0);
    token_keys_free(k);
    append(opt.jwt_public_key_file, pem_file("public.pem", p384, false));
    k = load();
    ck_assert_msg(k != NULL, "%s", why);
    token_keys_notes(k, add_note, &notes);
    ck_assert_ptr_nonnull(strstr(notes.data, "only the first of its keys is used"));
    char *token = sign_alg("ES256", CLAIMS, p256);
    ck_assert_int_eq(verify(k, token), TOKEN_OK);
    free(token);
    token_keys_free(k);
    text_buf_free(&notes);
}
END_TEST

START_TEST(public_keys_of_another_kind_are_refused)
{
    set_algorithms("RS256");
    refuse("jwt-public-key-file", "RS256");
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    refuse("not an RSA key", "RS256");
    opt.jwt_public_key_file = pem_file("k.pem", weak_rsa, false);
    refuse("1024 bits", "2048");
    opt.jwt_public_key_file = pem_file("k.pem", rsa, true);
    refuse("private key", "pubout");
    opt.jwt_public_key_file = write_file("k.pem", "secret!", 7);
    refuse("no public key", "PEM");
    ck_assert_ptr_null(strstr(why, "secret!"));
    opt.jwt_public_key_file = write_file("k.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", 33);
    refuse("certificate", "x509");
    set_algorithms("ES256");
    opt.jwt_public_key_file = pem_file("k.pem", rsa, false);
    refuse("P-256", "ES256");
    opt.jwt_public_key_file = pem_file("k.pem", p384, false);
    refuse("P-256", "ES256");
    opt.jwt_public_key_file = pem_file("k.pem", k256, false); /* as many bits, another curve */
    refuse("P-256", "ES256");
    set_algorithms("ES256,ES384");
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    refuse("P-384", "ES384");
    set_algorithms("ES512");
    refuse("P-521", "ES512");
    set_algorithms("EdDSA");
    refuse("Ed25519", "EdDSA");
    opt.jwt_public_key_file = pem_file("k.pem", ed448, false);
    refuse("Ed25519", "EdDSA");
    set_algorithms("PS256");
    refuse("not an RSA key", "PS256");
    set_algorithms("ES256,PS224");
    refuse("jwt-algorithms", "PS224");
    set_algorithms("none");
    refuse("jwt-algorithms", "none");
    set_algorithms("");
    refuse("jwt-algorithms", "empty");
}
END_TEST

/* options_check.c warns of these. */
START_TEST(algorithms_without_a_key_of_their_own_are_not_accepted)
{
    set_algorithms("HS256,ES256");
    refuse("jwt-secret-file", "HS256"); /* no key at all */
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    struct token_keys *k = load();
    ck_assert_msg(k != NULL, "%s", why);
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        ck_assert_int_eq(k->allowed[i], strcmp(token_algorithms[i].name, "ES256") == 0);
    ck_assert_ptr_null(k->mint_with);
    token_keys_free(k);
    opt.jwt_public_key_file = "";
    opt.jwt_secret_file = write_file("secret", SECRET, strlen(SECRET));
    k = load();
    ck_assert_msg(k != NULL, "%s", why);
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        ck_assert_int_eq(k->allowed[i], strcmp(token_algorithms[i].name, "HS256") == 0);
    token_keys_free(k);
}
END_TEST

START_TEST(keys_that_no_algorithm_uses_are_not_read)
{
    opt.jwt_secret_file = write_file("secret", SECRET, strlen(SECRET));
    opt.jwt_public_key_file = "/nonexistent/public.pem";
    struct token_keys *k = load();
    ck_assert_msg(k != NULL, "%s", why);
    token_keys_free(k);
    set_algorithms("ES256");
    opt.jwt_secret_file = "/nonexistent/secret";
    opt.jwt_public_key_file = pem_file("k.pem", p256, false);
    k = load();
    ck_assert_msg(k != NULL, "%s", why);
    char *token = NULL;
    ck_assert_int_eq(token_mint(k, request("u", false, 1000), NOW_MS, &token), -ENOKEY);
    token_keys_free(k);
    ck_assert_int_eq(token_keys_from_secret(&opt, SECRET, 32, &k), -EINVAL);
    set_algorithms("HS256");
    ck_assert_int_eq(token_keys_from_secret(&opt, SECRET, 31, &k), -ERANGE);
    /* a secret in memory leaves only the HMAC algorithms */
    set_algorithms("ES256,HS512,RS256");
    k = keys_hs();
    token = sign_alg("ES256", CLAIMS, p256);
    ck_assert_int_eq(verify(k, token), TOKEN_ALGORITHM);
    free(token);
    token = sign_alg("HS512", CLAIMS, NULL);
    ck_assert_int_eq(verify(k, token), TOKEN_OK);
    free(token);
    token_keys_free(k);
}
END_TEST

/* --- tokens that nobody here made --- */

static const char python_makes[] =
    "import sys, jwt\n"
    "secret, folder = sys.argv[1], sys.argv[2]\n"
    "claims = {'sub': 'py', 'exp': 1769860900, 'aud': ['a', 'belfry'], 'role': ['admin']}\n"
    "for alg in ('HS256', 'HS384', 'HS512'):\n"
    "    print(alg, jwt.encode(claims, secret, algorithm=alg))\n"
    "for alg, key in (('RS256', 'rsa'), ('RS512', 'rsa'), ('ES256', 'p256'), ('ES384', 'p384')):\n"
    "    try:\n"
    "        print(alg, jwt.encode(claims, open(folder + '/' + key).read(), algorithm=alg))\n"
    "    except NotImplementedError:\n" /* without python3-cryptography */
    "        pass\n";

static const char python_reads[] =
    "import sys, jwt\n"
    "secret, token = sys.argv[1], sys.argv[2]\n"
    "claims = jwt.decode(token, secret, algorithms=['HS256'], audience='belfry',\n"
    "                    options={'verify_exp': False, 'verify_iat': False})\n"
    "print(claims['sub'], claims['role'], claims['exp'] - claims['iat'], claims['aud'])\n";

/* Runs a Python script with two words and gives what it prints; false when there is no PyJWT. */
static bool python(const char *script, const char *a, const char *b, char *out, size_t cap)
{
    const char *program = getenv("PYTHON3");
    if (!program || !*program)
        program = "/usr/bin/python3";
    int fds[2], status;
    ck_assert_int_eq(pipe(fds), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(fds[1], 1);
        close(fds[0]);
        close(fds[1]);
        if (access(program, X_OK) != 0)
            _exit(77);
        execl(program, "python3", "-c",
              "import sys\ntry:\n import jwt; jwt.encode\nexcept Exception: sys.exit(77)\n"
              "exec(sys.argv.pop(1))",
              script, a, b, (char *)NULL);
        _exit(77);
    }
    close(fds[1]);
    size_t len = 0;
    for (ssize_t n; len < cap - 1 && (n = read(fds[0], out + len, cap - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = '\0';
    close(fds[0]);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return false;
    ck_assert_msg(status == 0, "python: %d", status);
    return true;
}

static EVP_PKEY *key_of(const char *alg)
{
    return alg[0] == 'R' ? rsa : strcmp(alg, "ES256") == 0 ? p256 : p384;
}

START_TEST(tokens_made_by_pyjwt_are_verified)
{
    char out[16384], alg[16], token[4096];
    pem_file("rsa", rsa, true);
    pem_file("p256", p256, true);
    pem_file("p384", p384, true);
    if (!python(python_makes, SECRET, dir, out, sizeof(out)))
        return;
    int lines = 0;
    opt.jwt_audience = "belfry";
    for (char *line = out; sscanf(line, "%15s %4095s", alg, token) == 2;
         line = strchr(line, '\n') + 1) {
        set_algorithms(alg);
        opt.jwt_secret_file = write_file("secret", SECRET "\n", strlen(SECRET) + 1);
        if (alg[0] != 'H')
            opt.jwt_public_key_file = pem_file("k.pem", key_of(alg), false);
        struct token_keys *k = load();
        ck_assert_msg(k != NULL, "%s", why);
        ck_assert_msg(verify(k, token) == TOKEN_OK, "%s %s", alg, token);
        ck_assert_str_eq(claims.user_id, "py");
        ck_assert(claims.is_admin);
        token_keys_free(k);
        lines++;
    }
    ck_assert_int_ge(lines, 3);
}
END_TEST

START_TEST(tokens_made_here_are_verified_by_pyjwt)
{
    char out[1024], *token = NULL;
    opt.jwt_audience = "belfry";
    struct token_keys *k = keys_hs();
    ck_assert_int_eq(token_mint(k, request("u1", true, 3600000), NOW_MS, &token), 0);
    if (python(python_reads, SECRET, token, out, sizeof(out)))
        ck_assert_str_eq(out, "u1 admin 3600 belfry\n");
    free(token);
    token_keys_free(k);
}
END_TEST

static void make_keys(void)
{
    rsa = make_key(EVP_PKEY_RSA, 2048);
    weak_rsa = make_key(EVP_PKEY_RSA, 1024);
    p256 = make_key(EVP_PKEY_EC, NID_X9_62_prime256v1);
    p384 = make_key(EVP_PKEY_EC, NID_secp384r1);
    p521 = make_key(EVP_PKEY_EC, NID_secp521r1);
    k256 = make_key(EVP_PKEY_EC, NID_secp256k1);
    ed25519 = make_key(EVP_PKEY_ED25519, 0);
    ed448 = make_key(EVP_PKEY_ED448, 0);
}

static void clean_up(void)
{
    static const char *const names[] = {"secret", "public.pem", "private.pem", "k.pem",
                                        "rsa",    "p256",       "p384",        "fifo", "set"};
    EVP_PKEY *keys[] = {rsa, weak_rsa, p256, p384, p521, k256, ed25519, ed448};
    char path[128];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        EVP_PKEY_free(keys[i]);
}

int main(void)
{
    strcpy(dir, "/tmp/belfry-token-XXXXXX");
    if (!mkdtemp(dir))
        return EXIT_FAILURE;
    make_keys();
    TCase *tc = tcase_create("token_keys");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, each_public_key_algorithm_is_verified_with_its_own_key_only);
    tcase_add_test(tc, signatures_have_one_form);
    tcase_add_test(tc, a_signature_is_checked_once_and_all_else_each_time);
    tcase_add_test(tc, a_bad_signature_stays_bad);
    tcase_add_test(tc, a_short_secret_for_a_long_hash_is_noted);
    tcase_add_test(tc, a_public_key_never_serves_as_a_secret);
    tcase_add_test(tc, one_newline_at_the_end_is_not_part_of_the_secret);
    tcase_add_test(tc, a_secret_may_hold_any_bytes);
    tcase_add_test(tc, secret_files_that_cannot_be_meant_are_refused);
    tcase_add_test(tc, a_key_file_may_have_65535_bytes);
    tcase_add_test(tc, a_set_of_keys_is_read_from_a_file_only);
    tcase_add_test(tc, a_set_with_secrets_that_everybody_can_read_is_noted);
    tcase_add_test(tc, rsa_keys_that_are_too_large_or_none_are_refused);
    tcase_add_test(tc, the_first_of_several_public_keys_is_used_and_that_is_noted);
    tcase_add_test(tc, public_keys_of_another_kind_are_refused);
    tcase_add_test(tc, algorithms_without_a_key_of_their_own_are_not_accepted);
    tcase_add_test(tc, keys_that_no_algorithm_uses_are_not_read);
    tcase_add_test(tc, tokens_made_by_pyjwt_are_verified);
    tcase_add_test(tc, tokens_made_here_are_verified_by_pyjwt);
    Suite *s = suite_create("token_keys");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    clean_up();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
