/*
 * token.h - JSON Web Tokens: who the bearer is, until when, and whether an administrator.
 *
 * Master (loads the keys), workers and belfryctl. RFC 7519; RFC 8725 for the rules: the header's
 * alg must be one of the configured ones *and* the key used is one of that algorithm's kind (for
 * ES*, on the algorithm's curve), checked before any signature; "none" is never accepted, nor a
 * header with crit or with a name twice, nor one whose typ says that it is for something else. Keys
 * in a header (jwk, jku, x5u, x5c) are not looked at. Claims are read from the token's own bytes.
 * Tokens never reach a log.
 *
 * Keys come from files: one HMAC secret, one public key, and a set of keys with names (RFC 7517).
 * They are read by the privileged master or belfryctl and kept in memory; a set that changed is
 * read again, and given to workers as text.
 *
 * Six files: token.c (checks), token_key.c (one key and its signatures; OpenSSL), token_known.c
 * (signatures that were good), token_keys.c (rules and files), jwks.c (sets), token_mint.c (makes
 * tokens; libjwt).
 */
#ifndef BELFRY_SHARED_TOKEN_H
#define BELFRY_SHARED_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/keys.h"
#include "shared/options.h"

#define TOKEN_MAX_BYTES 8192 /* longer ones are refused unread */
#define TOKEN_JWKS_MAX_BYTES (256 * 1024)
#define TOKEN_JWKS_MAX_KEYS 64
#define TOKEN_FAR_FUTURE_MS INT64_C(253402300799000) /* the end of year 9999: later is no better */

struct token_keys; /* rules and keys of one snapshot */

struct token_claims {
    char user_id[KEYS_USER_ID_MAX_BYTES + 1];
    size_t user_id_len;
    char jti[KEYS_USER_ID_MAX_BYTES + 1];
    size_t jti_len;        /* 0: it has none, or denylist-key is off */
    int64_t expires_at_ms; /* wall clock, leeway not added; 0: never */
    bool is_admin;
};

/* Reads the key files that the configured algorithms need. 0, or negative errno with a text in why
 * (cut to cap) naming option, file and remedy, never the contents. */
int token_keys_load(const struct options *opt, struct token_keys **out, char *why, size_t cap);
/* What is to be said about keys that were loaded, lines: such as are not used. */
void token_keys_notes(const struct token_keys *k, void (*note)(void *data, const char *text),
                      void *data);
/* Reads jwt-jwks-file, which may hold secrets (token_jwks_free). Errors as above. */
int token_jwks_read(const struct options *opt, struct text_span *text, char *why, size_t cap);
void token_jwks_free(struct text_span text);
/* Puts the keys of such a text in the place of those of jwt-jwks-file. On error, as above, all is
 * as it was. */
int token_keys_take_jwks(struct token_keys *k, struct text_span text, char *why, size_t cap);
size_t token_keys_jwks_count(const struct token_keys *k);
/* The same from a secret in memory (--dev): of the configured algorithms only the HS ones remain.
 * -EINVAL when that is none, -ERANGE when the secret is too short, -ENOMEM. It is copied. */
int token_keys_from_secret(const struct options *opt, const void *secret, size_t len,
                           struct token_keys **out);
void token_keys_free(struct token_keys *k);

enum token_result {
    TOKEN_OK,
    TOKEN_MALFORMED,
    TOKEN_ALGORITHM,  /* not configured, or none */
    TOKEN_TYPE,       /* typ names another kind of token */
    TOKEN_KEY,        /* no key that it names, or that fits the algorithm */
    TOKEN_SIGNATURE,
    TOKEN_EXPIRED,    /* exp passed, leeway included */
    TOKEN_NO_EXP,
    TOKEN_NOT_YET,    /* nbf */
    TOKEN_ISSUER,
    TOKEN_AUDIENCE,
    TOKEN_REVOKED,    /* told by who asks Redis, not by token_verify */
    TOKEN_NO_USER,    /* the user claim is absent, empty, too long or not text or whole number */
    TOKEN_RESULTS
};
/* "signature does not match", for error bodies and logs; never any of the token. */
const char *token_result_text(enum token_result r);

/* Checks a token (not NUL-terminated) at wall clock now_ms. *out is written on TOKEN_OK only.
 * Bounded work, no I/O. Claims with dots in jwt-user-claim and admin-claim are looked for as one
 * name first, then as a path. A number as user is its digits as they stand in the token. */
enum token_result token_verify(const struct token_keys *k, const char *token, size_t len,
                               int64_t now_ms, struct token_claims *out);

struct token_request {
    const char *user_id;
    int64_t ttl_ms;
    bool is_admin;
    const char *jti; /* NULL: none */
    const char *kid; /* NULL: the first key that can sign */
};
/* Signs a token for belfryctl and --dev with the configured secret or an oct key of the set, by
 * the first configured HS algorithm, or the key's own: user claim, iss and aud as configured,
 * iat, exp = now + ttl (rounded up to seconds), and admin-claim = first of admin-values when
 * admin. Dotted claims make nested objects, but for names that hold "://". 0, -ENOKEY (no HMAC
 * key or no HS algorithm configured), -ENOENT (no such kid), -EINVAL (user_id or jti may not
 * enter, ttl out of range, the claims' names collide, or admin without admin-values), -ENOMEM.
 * *out is malloc'ed. */
int token_mint(const struct token_keys *k, const struct token_request *what, int64_t now_ms,
               char **out);

#endif
