/*
 * token_priv.h - what the files of token.h share: token.c (checks tokens), token_keys.c (rules and
 * key files), jwks.c (sets of keys), token_mint.c (makes tokens).
 */
#ifndef BELFRY_SHARED_TOKEN_PRIV_H
#define BELFRY_SHARED_TOKEN_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"
#include "shared/token.h"
#include "shared/token_key.h"
#include "shared/token_known.h"

#define TOKEN_FILE_KEYS 2 /* jwt-secret-file's and jwt-public-key-file's */
#define TOKEN_KID_MAX_BYTES 256

/* A configured claim: its name as it stands, and taken apart at the dots. */
struct token_claim_path {
    char *whole;
    struct text_list parts;
};

/* Keys, and what is to be said about those that are none. */
struct token_keyset {
    struct token_key *keys;
    size_t count;
    struct text_list notes;
};

struct token_keys {
    bool allowed[TOKEN_ALGORITHMS];
    const struct token_algorithm *mint_with; /* the first HS one; NULL: none */
    struct token_key files[TOKEN_FILE_KEYS]; /* keys without a kid */
    size_t file_count;
    struct token_keyset jwks;
    struct token_known *known; /* what these keys have signed */
    struct text_list notes;                  /* about files */
    char *issuer;   /* "": any */
    char *audience; /* "": any */
    struct token_claim_path user;
    struct token_claim_path admin;
    struct text_list admin_values;
    int64_t leeway_ms;
    bool require_exp;
    bool wants_jti;
};

/* Keys by number, for a walk over all; NULL behind the last. */
const struct token_key *token_keys_at(const struct token_keys *k, size_t i);
/* Does it serve any algorithm that is configured? */
bool token_keys_uses(const struct token_keys *k, const struct token_key *key);

/* Where an error is written, cut to cap. */
struct token_reason {
    char *text;
    size_t cap;
};
/* Returns error. */
int token_fail(const struct token_reason *why, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A member of a JSON object that is looked for. */
struct token_member {
    const char *name;
    struct text_span value; /* raw; len 0: absent */
    int count;
};
/* False when it is no object, or one of the names stands there twice: parsers differ in which one
 * counts (RFC 8725, section 2.4, is about such differences). */
bool token_members_read(struct text_span object, struct token_member *members, size_t count);

/* jwks.c: the keys of a JSON Web Key Set that serve an algorithm which k allows; others are noted.
 * 0, or negative errno and why. *out is written on success (token_keyset_fini). */
int token_jwks_parse(const struct token_keys *k, struct text_span text, struct token_keyset *out,
                     const struct token_reason *why);
void token_keyset_fini(struct token_keyset *s);

#endif
