/*
 * fuzz_token.c - JSON Web Tokens (shared/token.c). The input is one byte of rules, then either a
 * token as it is, or header and claims, a NUL between them, which are signed here with the right
 * secret, so that what comes behind the signature is reached.
 *
 * Holds: only a well-signed token is good, and its user fits; one with a bit changed in the
 * signature is not; what token_mint makes is good and names the same user.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "shared/token.h"

#define NOW_MS INT64_C(1769860800000)
#define SECRET "0123456789abcdef0123456789abcdef"

static struct token_keys *rules[4];

static void begin_process(void)
{
    static struct options opt = {.jwt_secret_file = "",
                                 .jwt_public_key_file = "",
                                 .jwt_issuer = "",
                                 .jwt_audience = "",
                                 .jwt_leeway = 10000,
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
    }
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

static void sign(struct text_buf *token, bool is_512)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    FUZZ_CHECK(HMAC(is_512 ? EVP_sha512() : EVP_sha256(), SECRET, (int)strlen(SECRET),
                    (const unsigned char *)token->data, token->len, mac, &len));
    text_addc(token, '.');
    add_base64url(token, (struct text_span){(const char *)mac, len});
}

static enum token_result verify(const struct token_keys *k, struct text_span token,
                                struct token_claims *claims)
{
    char *copy = fuzz_copy(token);
    enum token_result r = token_verify(k, copy, token.len, NOW_MS, claims);
    FUZZ_CHECK(r < TOKEN_RESULTS && *token_result_text(r));
    free(copy);
    return r;
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct token_claims claims;
    if (!rules[0])
        begin_process();
    unsigned flags = fuzz_u8(&in);
    const struct token_keys *k = rules[flags & 3];
    if (!(flags & 4)) {
        struct text_span token = fuzz_bytes(&in, in.left);
        if (verify(k, token, &claims) == TOKEN_OK)
            check_claims(k, &claims);
        return 0;
    }
    struct text_span header = fuzz_until(&in, '\0');
    struct text_buf token = {0};
    add_base64url(&token, header);
    text_addc(&token, '.');
    add_base64url(&token, fuzz_bytes(&in, in.left));
    sign(&token, flags & 8);
    if (verify(k, fuzz_span(&token), &claims) == TOKEN_OK) {
        FUZZ_CHECK(memmem(header.ptr, header.len, "HS", 2) ||
                   memmem(header.ptr, header.len, "\\u", 2));
        check_claims(k, &claims);
        check_forged(k, &token);
    }
    text_buf_free(&token);
    return 0;
}
