/*
 * token_known.h - signatures that were found good: who comes back need not have his checked again.
 *
 * For token.c. To check a public key's signature takes 20 to 110 us, as much as all else of a
 * connect or three times that; after a drop the same devices come back with the same tokens. Kept
 * is the SHA-256 of a whole token, compared whole, and it says only: a key of the present ones has
 * signed this. Header, times and all other claims are judged anew each time, and so is what Redis
 * says. HMACs are not kept: to check one costs as little as to look here.
 *
 * A fixed number, in sets; in a full one another gives way. 512 kB at most, of which only what is
 * used takes memory, and none where no public key is. Keys that change forget all of it.
 */
#ifndef BELFRY_SHARED_TOKEN_KNOWN_H
#define BELFRY_SHARED_TOKEN_KNOWN_H

#include <stdbool.h>

#include "shared/text.h"

#define TOKEN_KNOWN_MAX 16384

struct token_known;

struct token_mark {
    unsigned char bytes[32];
};

struct token_known *token_known_new(void); /* NULL: no memory */
void token_known_free(struct token_known *k);
void token_known_forget(struct token_known *k);
/* The mark of a token as it came, signature included. False: none could be made. */
bool token_known_mark(const struct token_known *k, struct text_span token,
                      struct token_mark *out);
bool token_known_has(const struct token_known *k, const struct token_mark *mark);
/* Without memory nothing is kept. */
void token_known_add(struct token_known *k, const struct token_mark *mark);

#endif
