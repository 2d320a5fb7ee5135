/*
 * token_key.h - one key: which algorithms it may serve, and whether a signature is its own.
 *
 * For token*.c and jwks.c. RFC 7518 (JWA), RFC 8037 (Ed25519), by OpenSSL's EVP: one mechanism for
 * all algorithms, with the key parsed once. A key serves its own kind of algorithm only, an EC key
 * only the one of its curve. What is too weak is no key: HMAC secrets under 32 bytes, RSA under
 * 2048 bits; nor is RSA above 8192, for checking one signature must stay cheap.
 */
#ifndef BELFRY_SHARED_TOKEN_KEY_H
#define BELFRY_SHARED_TOKEN_KEY_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

#define TOKEN_SECRET_MIN_BYTES 32 /* RFC 7518, section 3.2, for HS256 */
#define TOKEN_RSA_MIN_BITS 2048   /* section 3.3 */
#define TOKEN_RSA_MAX_BITS 8192
#define TOKEN_HASHES 3 /* SHA-256, SHA-384, SHA-512 */

enum token_key_kind {
    TOKEN_KEY_HMAC,
    TOKEN_KEY_RSA,
    TOKEN_KEY_RSA_PSS, /* of algorithms only */
    TOKEN_KEY_EC,
    TOKEN_KEY_ED25519
};
enum token_curve { TOKEN_CURVE_NONE, TOKEN_CURVE_P256, TOKEN_CURVE_P384, TOKEN_CURVE_P521 };

struct token_algorithm {
    const char *name;
    enum token_key_kind kind;
    int hash_bytes;
    enum token_curve curve;
};

enum {
#define ALGORITHM(NAME, KIND, hash_bytes, CURVE) TOKEN_ALGORITHM_##NAME,
#include "shared/algorithms.def"
#undef ALGORITHM
    TOKEN_ALGORITHMS
};
extern const struct token_algorithm token_algorithms[TOKEN_ALGORITHMS];
const struct token_algorithm *token_algorithm_find(struct text_span name); /* NULL: none */

/* Zero-initialised is empty. */
struct token_key {
    char *kid;                          /* NULL: it has no name */
    const struct token_algorithm *only; /* NULL: any it may serve */
    enum token_key_kind kind;
    enum token_curve curve;
    unsigned char *secret;              /* HMAC */
    size_t secret_len;
    EVP_MAC_CTX *macs[TOKEN_HASHES];    /* have taken the secret in; copied for each token */
    EVP_PKEY *public_key;               /* the others */
};

/* Each fills the key but for kid and only. 0; -ENOMEM; -ERANGE: too short, or an RSA key too long;
 * -EINVAL: no valid key (a point off its curve, numbers that are none of an RSA key). */
int token_key_from_secret(struct token_key *k, const void *bytes, size_t len);
/* public_key is given, whatever is returned. -ENOTSUP: of a kind that no algorithm uses. */
int token_key_from_public(struct token_key *k, EVP_PKEY *public_key);
/* Big-endian numbers, as a JWK has them. */
int token_key_from_rsa(struct token_key *k, const unsigned char *n, size_t n_len,
                       const unsigned char *e, size_t e_len);
/* x and y of token_curve_bytes each. */
int token_key_from_point(struct token_key *k, enum token_curve curve, const unsigned char *x,
                         const unsigned char *y);
int token_key_from_ed25519(struct token_key *k, const unsigned char *x, size_t len);
void token_key_fini(struct token_key *k);
/* "P-256" -> TOKEN_CURVE_P256. */
enum token_curve token_curve_find(struct text_span name);
const char *token_curve_name(enum token_curve curve);
size_t token_curve_bytes(enum token_curve curve);

/* May the key serve the algorithm? */
bool token_key_fits(const struct token_key *k, const struct token_algorithm *a);
/* Is this the key's signature of the text? False also for a key that does not fit. HMACs are
 * compared in constant time. */
bool token_key_verify(const struct token_key *k, const struct token_algorithm *a,
                      struct text_span text, const unsigned char *signature, size_t len);

#endif
