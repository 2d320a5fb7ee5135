/*
 * token.h - JSON Web Tokens: who the bearer is, until when, and whether an administrator.
 *
 * Master (loads the keys), workers and belfryctl. RFC 7519; RFC 8725 for the rules: the header's
 * alg must be one of the configured ones *and* the key used is the one of that algorithm's kind
 * (for ES*, on the algorithm's curve), checked before any signature; "none" is never accepted, nor
 * a header with crit or with a name twice. libjwt verifies signatures (token.c is the only file
 * that knows it); claims are read from the token's own bytes. Keys are read once at start (by the
 * privileged master or belfryctl) and kept in memory. Tokens never reach a log.
 *
 * libjwt 1.10 reads no token whose header has a typ other than JWT (as RFC 9068's at+jwt): such
 * tokens are TOKEN_MALFORMED.
 */
#ifndef BELFRY_SHARED_TOKEN_H
#define BELFRY_SHARED_TOKEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/keys.h"
#include "shared/options.h"

#define TOKEN_MAX_BYTES 8192 /* longer ones are refused unread */

struct token_keys; /* rules and keys of one snapshot */

struct token_claims {
    char user_id[KEYS_USER_ID_MAX_BYTES + 1];
    size_t user_id_len;
    int64_t expires_at_ms; /* wall clock, leeway not added; 0: never */
    bool is_admin;
};

/* Reads the key files that the configured algorithms need. 0, or negative errno with a text in why
 * (cut to cap) naming option, file and remedy, never the contents. */
int token_keys_load(const struct options *opt, struct token_keys **out, char *why, size_t cap);
/* The same from a secret in memory (--dev): of the configured algorithms only the HS ones remain.
 * -EINVAL when that is none or the secret is empty; -ENOMEM. The secret is copied. */
int token_keys_from_secret(const struct options *opt, const void *secret, size_t len,
                           struct token_keys **out);
void token_keys_free(struct token_keys *k);

enum token_result {
    TOKEN_OK,
    TOKEN_MALFORMED,
    TOKEN_ALGORITHM,  /* not configured, or none */
    TOKEN_SIGNATURE,
    TOKEN_EXPIRED,    /* exp passed, leeway included */
    TOKEN_NO_EXP,
    TOKEN_NOT_YET,    /* nbf */
    TOKEN_ISSUER,
    TOKEN_AUDIENCE,
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

/* Signs a token for belfryctl and --dev with the configured secret and the first configured HS
 * algorithm: user claim, iss and aud as configured, iat, exp = now + ttl (rounded up to seconds),
 * and admin-claim = first of admin-values when admin. Dotted claims make nested objects, but for
 * names that hold "://". 0, -ENOKEY (no HMAC secret or no HS algorithm configured), -EINVAL
 * (user_id may not enter, ttl out of range, the claims' names collide, or admin without
 * admin-values), -ENOMEM. *out is malloc'ed. */
int token_mint(const struct token_keys *k, const char *user_id, bool admin, int64_t ttl_ms,
               int64_t now_ms, char **out);

/* Has libjwt's JSON library take its random seed now: later /dev/urandom may be out of reach, and
 * without it the seed could be guessed. */
void token_prepare(void);

#endif
