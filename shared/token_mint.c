/*
 * token_mint.c - tokens made: see token.h. The only file that knows libjwt.
 *
 * What is made here is checked by token.c, which stands on another library: neither can hide the
 * other's mistakes.
 */
#include "config.h"

#include "shared/token.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <jwt.h>
#include <stdlib.h>
#include <string.h>

#include "shared/token_priv.h"

/* Puts value (given, also on failure) at a claim's place, objects on the way made. */
static int put_claim(cJSON *root, const struct token_claim_path *path, cJSON *value)
{
    bool literal = path->parts.count == 1 || strstr(path->whole, "://");
    cJSON *at = root;
    const char *last = literal ? path->whole : path->parts.items[path->parts.count - 1];
    for (size_t i = 0; value && !literal && i + 1 < path->parts.count; i++) {
        cJSON *next = cJSON_GetObjectItemCaseSensitive(at, path->parts.items[i]);
        if (!next)
            next = cJSON_AddObjectToObject(at, path->parts.items[i]);
        if (!next || !cJSON_IsObject(next)) {
            cJSON_Delete(value);
            return next ? -EINVAL : -ENOMEM;
        }
        at = next;
    }
    if (!value)
        return -ENOMEM;
    if (cJSON_GetObjectItemCaseSensitive(at, last) || !cJSON_AddItemToObject(at, last, value)) {
        cJSON_Delete(value);
        return -EINVAL;
    }
    return 0;
}

static int fill_claims(const struct token_keys *k, const struct token_request *what,
                       int64_t now_ms, cJSON *root)
{
    int64_t iat_s = now_ms / 1000;
    int64_t exp_s = iat_s + (what->ttl_ms + (what->ttl_ms > 0 ? 999 : 0)) / 1000;
    if (!cJSON_AddNumberToObject(root, "iat", (double)iat_s) ||
        !cJSON_AddNumberToObject(root, "exp", (double)exp_s))
        return -ENOMEM;
    if (k->issuer[0] && !cJSON_AddStringToObject(root, "iss", k->issuer))
        return -ENOMEM;
    if (k->audience[0] && !cJSON_AddStringToObject(root, "aud", k->audience))
        return -ENOMEM;
    if (what->jti && !cJSON_AddStringToObject(root, "jti", what->jti))
        return -ENOMEM;
    int r = put_claim(root, &k->user, cJSON_CreateString(what->user_id));
    if (r == 0 && what->is_admin)
        r = k->admin_values.count
                ? put_claim(root, &k->admin, cJSON_CreateString(k->admin_values.items[0]))
                : -EINVAL;
    return r;
}

/* A key to sign with: the one of this name or, without, the first; and the algorithm. */
static int choose(const struct token_keys *k, const char *kid, const struct token_key **out,
                  const struct token_algorithm **algorithm)
{
    const struct token_key *key;
    if (!k->mint_with)
        return -ENOKEY;
    for (size_t i = 0; (key = token_keys_at(k, i)); i++) {
        if (key->kind != TOKEN_KEY_HMAC || (kid && (!key->kid || strcmp(key->kid, kid) != 0)))
            continue;
        *out = key;
        *algorithm = key->only ? key->only : k->mint_with;
        return 0;
    }
    return kid ? -ENOENT : -ENOKEY;
}

static int sign(const struct token_key *key, const struct token_algorithm *algorithm,
                const char *claims, char **out)
{
    jwt_t *jwt = NULL;
    if (jwt_new(&jwt) != 0)
        return -ENOMEM;
    int r = -ENOMEM;
    if (jwt_add_grants_json(jwt, claims) == 0 &&
        (!key->kid || jwt_add_header(jwt, "kid", key->kid) == 0) &&
        jwt_set_alg(jwt, jwt_str_alg(algorithm->name), key->secret, (int)key->secret_len) == 0) {
        *out = jwt_encode_str(jwt);
        r = *out ? 0 : -ENOMEM;
    }
    jwt_free(jwt);
    return r;
}

int token_mint(const struct token_keys *k, const struct token_request *what, int64_t now_ms,
               char **out)
{
    const struct token_key *key = NULL;
    const struct token_algorithm *algorithm = NULL;
    int r = choose(k, what->kid, &key, &algorithm);
    if (r < 0)
        return r;
    if (!keys_is_user_id(what->user_id, strlen(what->user_id)) ||
        (what->jti && !keys_is_user_id(what->jti, strlen(what->jti))) ||
        what->ttl_ms > TOKEN_FAR_FUTURE_MS || what->ttl_ms < -now_ms)
        return -EINVAL;
    cJSON *root = cJSON_CreateObject();
    if (!root)
        return -ENOMEM;
    char *text = NULL;
    r = fill_claims(k, what, now_ms, root);
    if (r == 0) {
        text = cJSON_PrintUnformatted(root);
        r = text ? sign(key, algorithm, text, out) : -ENOMEM;
    }
    cJSON_free(text);
    cJSON_Delete(root);
    return r;
}
