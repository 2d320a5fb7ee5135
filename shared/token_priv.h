/*
 * token_priv.h - what token.c (tokens) and token_keys.c (rules and key files) share.
 */
#ifndef BELFRY_SHARED_TOKEN_PRIV_H
#define BELFRY_SHARED_TOKEN_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"
#include "shared/token.h"

/* One row for each signature algorithm that may be configured (RFC 7518, section 3.1). */
enum token_key_kind { TOKEN_KEY_HMAC, TOKEN_KEY_RSA, TOKEN_KEY_EC };
struct token_algorithm {
    const char *name;
    enum token_key_kind kind;
    int curve_nid; /* EC: the one curve the algorithm is for */
    const char *curve;
};
#define TOKEN_ALGORITHMS 9
extern const struct token_algorithm token_algorithms[TOKEN_ALGORITHMS];

/* A configured claim: its name as it stands, and taken apart at the dots. */
struct token_claim_path {
    char *whole;
    struct text_list parts;
};

struct token_keys {
    bool allowed[TOKEN_ALGORITHMS];
    const struct token_algorithm *mint_with; /* NULL: cannot mint */
    unsigned char *secret;                   /* HS* and nothing else */
    size_t secret_len;
    unsigned char *public_pem; /* RS* and ES* and nothing else; one key, NUL-terminated */
    size_t public_pem_len;
    char *issuer;   /* "": any */
    char *audience; /* "": any */
    struct token_claim_path user;
    struct token_claim_path admin;
    struct text_list admin_values;
    int64_t leeway_ms;
    bool require_exp;
};

#endif
