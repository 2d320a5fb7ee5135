/*
 * fuzz_jwks.c - sets of keys (shared/jwks.c, token_key.c). The input is one byte of rules, a NUL-
 * terminated signature, and the set.
 *
 * Holds: a set that is refused leaves the keys as they were, and says why in one line; of one that
 * is taken, each key serves an algorithm that is configured, has the strength that is asked for and
 * a name of its own, and no signature out of the blue is its own; the same set read again gives as
 * many; a key that can sign makes tokens that are good.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "shared/token.h"
#include "shared/token_priv.h"

#define NOW_MS INT64_C(1769860800000)
#define SECRET "0123456789abcdef0123456789abcdef"
#define RULES 4

/* Which algorithms are configured. */
#define OF_CURVES "ES256,ES384,ES512,EdDSA"
#define OF_NUMBERS "RS256,RS384,RS512,PS256,PS384,PS512,"
static const char *const lists[RULES] = {"HS256", "RS256,PS512", OF_CURVES,
                                         ("HS256,HS384,HS512," OF_NUMBERS OF_CURVES)};
static struct token_keys *rules[RULES];

static void begin_process(void)
{
    static struct options opt = {.jwt_secret_file = "",
                                 .jwt_public_key_file = "",
                                 .jwt_issuer = "",
                                 .jwt_audience = "",
                                 .jwt_user_claim = "sub",
                                 .admin_claim = "role"};
    FUZZ_CHECK(text_list_split(&opt.jwt_algorithms, "HS256") == 0);
    for (int i = 0; i < RULES; i++) {
        struct text_list list = {0};
        FUZZ_CHECK(token_keys_from_secret(&opt, SECRET, strlen(SECRET), &rules[i]) == 0);
        FUZZ_CHECK(text_list_split(&list, lists[i]) == 0);
        for (int j = 0; j < TOKEN_ALGORITHMS; j++)
            rules[i]->allowed[j] = text_list_has(&list, token_algorithms[j].name,
                                                 strlen(token_algorithms[j].name));
        text_list_free(&list);
    }
}

static int take(struct token_keys *k, struct text_span set)
{
    char why[300] = "";
    char *copy = fuzz_copy(set);
    int error = token_keys_take_jwks(k, (struct text_span){copy, set.len}, why, sizeof(why));
    free(copy);
    FUZZ_CHECK((error < 0) == (why[0] != '\0') && error <= 0);
    for (const char *p = why; *p; p++)
        FUZZ_CHECK((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
    return error;
}

static void check_strength(const struct token_key *key)
{
    if (key->kind == TOKEN_KEY_HMAC) {
        FUZZ_CHECK(!key->public_key && key->secret_len >= TOKEN_SECRET_MIN_BYTES);
        return;
    }
    FUZZ_CHECK(key->public_key && !key->secret);
    if (key->kind == TOKEN_KEY_RSA)
        FUZZ_CHECK(EVP_PKEY_get_bits(key->public_key) >= TOKEN_RSA_MIN_BITS &&
                   EVP_PKEY_get_bits(key->public_key) <= TOKEN_RSA_MAX_BITS);
    FUZZ_CHECK((key->kind == TOKEN_KEY_EC) == (key->curve != TOKEN_CURVE_NONE));
}

static void check_mint(const struct token_keys *k, const char *kid)
{
    const struct token_request what = {.user_id = "u", .ttl_ms = 60000, .kid = kid};
    struct token_claims claims;
    char *token = NULL;
    FUZZ_CHECK(token_mint(k, &what, NOW_MS, &token) == 0);
    FUZZ_CHECK(token_verify(k, token, strlen(token), NOW_MS, &claims) == TOKEN_OK);
    FUZZ_CHECK(!strcmp(claims.user_id, "u"));
    free(token);
}

static void check_key(const struct token_keys *k, size_t number, struct text_span signature)
{
    const struct token_key *key = &k->jwks.keys[number];
    bool can_mint = false;
    FUZZ_CHECK(token_keys_uses(k, key));
    check_strength(key);
    for (size_t i = 0; key->kid && i < number; i++)
        FUZZ_CHECK(!k->jwks.keys[i].kid || strcmp(k->jwks.keys[i].kid, key->kid) != 0);
    for (int i = 0; i < TOKEN_ALGORITHMS; i++) {
        const struct token_algorithm *a = &token_algorithms[i];
        FUZZ_CHECK(!token_key_verify(key, a, text_span_of("text"),
                                     (const unsigned char *)signature.ptr, signature.len));
        can_mint |= k->allowed[i] && a->kind == TOKEN_KEY_HMAC && token_key_fits(key, a);
    }
    if (can_mint && key->kid)
        check_mint(k, key->kid);
}

static void count(void *data, const char *text)
{
    FUZZ_CHECK(strlen(text) < 300);
    ++*(unsigned *)data;
}

/* A modulus that is no product of two large primes is found out by chance only: OpenSSL's check
 * draws numbers. */
static bool has_rsa(const struct token_keys *k)
{
    for (size_t i = 0; i < k->jwks.count; i++)
        if (k->jwks.keys[i].kind == TOKEN_KEY_RSA)
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned notes = 0;
    if (!rules[0])
        begin_process();
    struct token_keys *k = rules[fuzz_u8(&in) % RULES];
    struct text_span signature = fuzz_until(&in, '\0'), set = fuzz_bytes(&in, in.left);
    FUZZ_CHECK(token_keys_jwks_count(k) == 0);
    if (take(k, set) == 0) {
        size_t keys = token_keys_jwks_count(k);
        FUZZ_CHECK(keys > 0 && keys <= TOKEN_JWKS_MAX_KEYS);
        for (size_t i = 0; i < keys; i++)
            check_key(k, i, signature);
        token_keys_notes(k, count, &notes);
        FUZZ_CHECK(take(k, text_span_of("{\"keys\":[]}")) == -ENOKEY);
        FUZZ_CHECK(token_keys_jwks_count(k) == keys);
        bool is_same = take(k, set) == 0;
        FUZZ_CHECK(is_same || has_rsa(k));
        FUZZ_CHECK(token_keys_jwks_count(k) == keys);
        token_keyset_fini(&k->jwks);
    }
    FUZZ_CHECK(token_keys_jwks_count(k) == 0);
    return 0;
}
