/*
 * fuzz_token.c - JSON Web Tokens (shared/token.c). The input is one byte of rules, then either a
 * token as it is, or header and claims, a NUL between them, which are signed here with the right
 * key (HMAC or Ed25519), so that what comes behind the signature is reached.
 *
 * Holds: only a well-signed token is good, and its user fits; one with a bit changed in the
 * signature is not; what token_mint makes is good and names the same user. What a public key has
 * signed is remembered, and nothing else: asked again, and again when all was forgotten, each token
 * gets the same answer; a remembered one expires, and is worth nothing when its key is gone.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "shared/token.h"
#include "shared/token_priv.h"

#define NOW_MS INT64_C(1769860800000)
#define LEEWAY_MS 10000
#define SECRET "0123456789abcdef0123456789abcdef" /* the private key of Ed25519, too */

/* Bits of the first byte; the lowest two are the number of the rules. */
enum { IS_SIGNED_HERE = 4, IS_HS512 = 8, IS_ED25519 = 16 };

#define SET(x) "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" x "\"}," EC "]}"
#define EC \
    "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"c\"," \
    "\"x\":\"H3aSZBl9tFEs46ot_eT2UKsZudi_SYNE52FBt_IKDk8\"," \
    "\"y\":\"ulOJjk1_GSr82tKUSJM20eAKiLPQXHMqZPhXvbbX-gI\"}"
static const char set[] = SET("I7xUkSwebpLEqGglyGfif_3FVb_71CRPF6Jqv__ull0");
static const char other_set[] = SET("D18-I17Yr3nep2FBSN5JZaYys-PVKNtxGdDG3QJtTgs");

static struct token_keys *rules[4];
static EVP_PKEY *private_key;

static void take_keys(struct token_keys *k, const char *jwks)
{
    char why[300];
    FUZZ_CHECK(token_keys_take_jwks(k, text_span_of(jwks), why, sizeof(why)) == 0);
}

static void allow(struct token_keys *k, const char *name)
{
    k->allowed[token_algorithm_find(text_span_of(name)) - token_algorithms] = true;
}

static void begin_process(void)
{
    static struct options opt = {.jwt_secret_file = "",
                                 .jwt_public_key_file = "",
                                 .jwt_issuer = "",
                                 .jwt_audience = "",
                                 .jwt_leeway = LEEWAY_MS,
                                 .jwt_user_claim = "sub",
                                 .admin_claim = "role"};
    FUZZ_CHECK(text_list_split(&opt.jwt_algorithms, "HS256,HS512") == 0);
    FUZZ_CHECK(text_list_split(&opt.admin_values, "admin,root") == 0);
    for (int i = 0; i < 4; i++) {
        opt.jwt_require_exp = i & 1 ? CHOICE_YES : CHOICE_NO;
        opt.jwt_user_claim = i & 2 ? "app.user" : "sub";
        opt.admin_claim = i & 2 ? "app.roles" : "role";
        opt.jwt_issuer = i == 3 ? "me" : "";
        opt.jwt_audience = i == 3 ? "you" : "";
        FUZZ_CHECK(token_keys_from_secret(&opt, SECRET, strlen(SECRET), &rules[i]) == 0);
        allow(rules[i], "EdDSA");
        allow(rules[i], "ES256");
        take_keys(rules[i], set);
    }
    private_key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL,
                                               (const unsigned char *)SECRET, strlen(SECRET));
    FUZZ_CHECK(private_key);
}

static void add_base64url(struct text_buf *out, struct text_span s)
{
    char *text = malloc(s.len * 2 + 8);
    FUZZ_CHECK(text);
    int n = EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)s.ptr, (int)s.len);
    while (n > 0 && text[n - 1] == '=')
        n--;
    for (int i = 0; i < n; i++)
        text_addc(out, text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i]);
    free(text);
}

static size_t sign_with_secret(const struct text_buf *text, bool is_512, unsigned char *out)
{
    unsigned len = 0;
    FUZZ_CHECK(HMAC(is_512 ? EVP_sha512() : EVP_sha256(), SECRET, (int)strlen(SECRET),
                    (const unsigned char *)text->data, text->len, out, &len));
    return len;
}

static size_t sign_with_key(const struct text_buf *text, unsigned char *out, size_t cap)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    FUZZ_CHECK(c && EVP_DigestSignInit(c, NULL, NULL, NULL, private_key) == 1);
    FUZZ_CHECK(EVP_DigestSign(c, out, &cap, (const unsigned char *)text->data, text->len) == 1);
    EVP_MD_CTX_free(c);
    return cap;
}

static void sign(struct text_buf *token, unsigned flags)
{
    unsigned char signature[EVP_MAX_MD_SIZE];
    size_t len = flags & IS_ED25519 ? sign_with_key(token, signature, sizeof(signature))
                                    : sign_with_secret(token, flags & IS_HS512, signature);
    text_addc(token, '.');
    add_base64url(token, (struct text_span){(const char *)signature, len});
}

static void check_same(enum token_result r, const struct token_claims *a, enum token_result again,
                       const struct token_claims *b)
{
    FUZZ_CHECK(r == again);
    if (r != TOKEN_OK)
        return;
    FUZZ_CHECK(a->user_id_len == b->user_id_len && !strcmp(a->user_id, b->user_id));
    FUZZ_CHECK(a->jti_len == b->jti_len && !strcmp(a->jti, b->jti));
    FUZZ_CHECK(a->expires_at_ms == b->expires_at_ms && a->is_admin == b->is_admin);
}

static bool is_known(const struct token_keys *k, struct text_span token)
{
    struct token_mark mark;
    FUZZ_CHECK(token_known_mark(k->known, token, &mark));
    return token_known_has(k->known, &mark);
}

/* Of a token that comes for the first time: afterwards it is remembered, if it is worth that. */
static enum token_result verify(const struct token_keys *k, struct text_span token,
                                struct token_claims *claims)
{
    char *copy = fuzz_copy(token);
    struct token_claims again;
    enum token_result r = token_verify(k, copy, token.len, NOW_MS, claims);
    FUZZ_CHECK(r < TOKEN_RESULTS && *token_result_text(r));
    if (r == TOKEN_ALGORITHM || r == TOKEN_TYPE || r == TOKEN_KEY || r == TOKEN_SIGNATURE)
        FUZZ_CHECK(!is_known(k, token));
    check_same(r, claims, token_verify(k, copy, token.len, NOW_MS, &again), &again);
    if (is_known(k, token)) {
        token_known_forget(k->known);
        check_same(r, claims, token_verify(k, copy, token.len, NOW_MS, &again), &again);
        FUZZ_CHECK(is_known(k, token));
    }
    free(copy);
    return r;
}

/* More than there is room for. */
static void crowd_out(const struct token_keys *k, struct text_span token)
{
    struct token_mark mark;
    FUZZ_CHECK(token_known_mark(k->known, token, &mark));
    for (int i = 0; i < 20; i++) {
        mark.bytes[2]++; /* the first two say where it is kept */
        token_known_add(k->known, &mark);
    }
}

/* A good one that is remembered. */
static void check_known(struct token_keys *k, struct text_span token,
                        const struct token_claims *claims)
{
    struct token_claims none;
    int64_t end_ms = claims->expires_at_ms + LEEWAY_MS;
    FUZZ_CHECK(is_known(k, token));
    if (claims->expires_at_ms)
        FUZZ_CHECK(token_verify(k, token.ptr, token.len, end_ms, &none) == TOKEN_EXPIRED);
    take_keys(k, other_set);
    FUZZ_CHECK(token_verify(k, token.ptr, token.len, NOW_MS, &none) == TOKEN_SIGNATURE);
    take_keys(k, set);
    FUZZ_CHECK(token_verify(k, token.ptr, token.len, NOW_MS, &none) == TOKEN_OK);
    crowd_out(k, token);
    FUZZ_CHECK(!is_known(k, token));
    FUZZ_CHECK(token_verify(k, token.ptr, token.len, NOW_MS, &none) == TOKEN_OK);
}

static void check_claims(const struct token_keys *k, const struct token_claims *c)
{
    struct token_claims again;
    char *minted = NULL;
    FUZZ_CHECK(c->user_id_len > 0 && c->user_id_len <= KEYS_USER_ID_MAX_BYTES);
    FUZZ_CHECK(strlen(c->user_id) == c->user_id_len);
    FUZZ_CHECK(keys_is_user_id(c->user_id, c->user_id_len));
    FUZZ_CHECK(c->expires_at_ms >= 0);
    const struct token_request what = {
        .user_id = c->user_id, .ttl_ms = 60000, .is_admin = c->is_admin};
    FUZZ_CHECK(token_mint(k, &what, NOW_MS, &minted) == 0);
    FUZZ_CHECK(verify(k, text_span_of(minted), &again) == TOKEN_OK);
    FUZZ_CHECK(!strcmp(again.user_id, c->user_id) && again.is_admin == c->is_admin);
    free(minted);
}

/* A signed one with a changed signature is refused for that. */
static void check_forged(const struct token_keys *k, struct text_buf *token)
{
    struct token_claims claims;
    char *at = strrchr(token->data, '.') + 5;
    *at = *at == 'A' ? 'B' : 'A';
    FUZZ_CHECK(verify(k, fuzz_span(token), &claims) != TOKEN_OK);
}

static void check_signed(struct token_keys *k, unsigned flags, struct fuzz_input *in)
{
    struct text_span header = fuzz_until(in, '\0');
    const char *name = flags & IS_ED25519 ? "EdDSA" : "HS";
    struct token_claims claims;
    struct text_buf token = {0};
    add_base64url(&token, header);
    text_addc(&token, '.');
    add_base64url(&token, fuzz_bytes(in, in->left));
    sign(&token, flags);
    if (verify(k, fuzz_span(&token), &claims) == TOKEN_OK) {
        FUZZ_CHECK(memmem(header.ptr, header.len, name, strlen(name)) ||
                   memmem(header.ptr, header.len, "\\u", 2));
        check_claims(k, &claims);
        if (flags & IS_ED25519)
            check_known(k, fuzz_span(&token), &claims);
        else
            FUZZ_CHECK(!is_known(k, fuzz_span(&token)));
        check_forged(k, &token);
    }
    text_buf_free(&token);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct token_claims claims;
    if (!rules[0])
        begin_process();
    unsigned flags = fuzz_u8(&in);
    struct token_keys *k = rules[flags & 3];
    if (flags & IS_SIGNED_HERE)
        check_signed(k, flags, &in);
    else if (verify(k, fuzz_bytes(&in, in.left), &claims) == TOKEN_OK)
        check_claims(k, &claims);
    token_known_forget(k->known);
    return 0;
}
