/*
 * token_known.c - see token_known.h.
 */
#include "config.h"

#include "shared/token_known.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define WAYS 8
#define SETS (TOKEN_KNOWN_MAX / WAYS)

/* All zeros is an empty place: no token is known whose SHA-256 that would be. */
struct set {
    struct token_mark marks[WAYS];
};

struct token_known {
    struct set *sets; /* SETS; NULL until one is kept */
    EVP_MD *hash;     /* looked up once: to look it up costs as much as to use it */
};

struct token_known *token_known_new(void)
{
    struct token_known *k = calloc(1, sizeof *k);
    if (k)
        k->hash = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (k && !k->hash) {
        free(k);
        return NULL;
    }
    return k;
}

void token_known_forget(struct token_known *k)
{
    free(k->sets);
    k->sets = NULL;
}

void token_known_free(struct token_known *k)
{
    if (!k)
        return;
    token_known_forget(k);
    EVP_MD_free(k->hash);
    free(k);
}

bool token_known_mark(const struct token_known *k, struct text_span token, struct token_mark *out)
{
    return EVP_Digest(token.ptr, token.len, out->bytes, NULL, k->hash, NULL) == 1;
}

static struct set *set_of(const struct token_known *k, const struct token_mark *mark)
{
    return &k->sets[(mark->bytes[0] << 8 | mark->bytes[1]) % SETS];
}

static bool is_same(const struct token_mark *a, const struct token_mark *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

bool token_known_has(const struct token_known *k, const struct token_mark *mark)
{
    const struct set *set = k->sets ? set_of(k, mark) : NULL;
    for (int i = 0; set && i < WAYS; i++)
        if (is_same(&set->marks[i], mark))
            return true;
    return false;
}

/* In a full set it is chance who gives way, and always the same for the same: were it the oldest,
 * nine that come in turn would all be forgotten before they are back. */
void token_known_add(struct token_known *k, const struct token_mark *mark)
{
    static const struct token_mark empty;
    int at = 0;
    if (!k->sets)
        k->sets = calloc(SETS, sizeof *k->sets);
    if (!k->sets)
        return;
    struct set *set = set_of(k, mark);
    while (at < WAYS && !is_same(&set->marks[at], &empty))
        at++;
    set->marks[at < WAYS ? at : mark->bytes[2] % WAYS] = *mark;
}
