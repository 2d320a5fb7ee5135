/*
 * jwks.c - JSON Web Key Sets (RFC 7517, RFC 7518 section 6, RFC 8037): see token_priv.h.
 *
 * What a set may hold beside keys for us is skipped and noted: other kinds and curves (RFC 7517,
 * section 5, asks for it), keys for encryption, keys of algorithms that are not configured. What
 * is wrong refuses the whole set: a broken key, a private one, one name for two keys, a member
 * that stands twice.
 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base64url.h"
#include "shared/json.h"
#include "shared/token_priv.h"

#define NUMBER_MAX_BYTES 1032 /* of 8192 bits, and some to tell that it is too long */
#define KEPT_NOTES_MAX TOKEN_JWKS_MAX_KEYS

enum member { KTY, USE, KEY_OPS, ALG, KID, CRV, N, E, X, Y, K, D, MEMBERS };

struct reading {
    const struct token_keys *rules;
    struct token_keyset *out;
    const struct token_reason *why;
    int number; /* of the key at hand, from 1 */
    int error;  /* of the set; nothing more is read */
    char name[128];
};

enum use { TAKEN, SKIPPED };

/* --- what is said --- */

static void set_name(struct reading *r, const char *kid)
{
    struct text_buf b = {0};
    text_addf(&b, "key %d", r->number);
    if (kid) {
        text_adds(&b, " (kid \"");
        text_add_escaped(&b, kid, strlen(kid), 24);
        text_adds(&b, "\")");
    }
    snprintf(r->name, sizeof r->name, "%s", b.data ? b.data : "a key");
    text_buf_free(&b);
}

static enum use skip(struct reading *r, const char *what)
{
    char text[300];
    snprintf(text, sizeof text, "jwt-jwks-file: %s: %s: skipped", r->name, what);
    if (r->out->notes.count < KEPT_NOTES_MAX &&
        text_list_add(&r->out->notes, text, strlen(text)) < 0)
        r->error = -ENOMEM;
    return SKIPPED;
}

static enum use refuse(struct reading *r, int error, const char *what)
{
    r->error = token_fail(r->why, error, "jwt-jwks-file: %s: %s", r->name, what);
    return SKIPPED;
}

/* --- members --- */

static bool is_text(const struct token_member *m, const char *text)
{
    struct text_span plain;
    return json_string_plain(m->value, &plain) && text_span_eq(plain, text);
}

static void note_verify(void *data, struct text_span value)
{
    struct text_span plain;
    if (json_string_plain(value, &plain) && text_span_eq(plain, "verify"))
        *(bool *)data = true;
}

/* An oct key that signs is the one that verifies; of others the two are different keys. */
static bool may_verify(const struct token_member *m)
{
    bool verifies = false;
    if (m[USE].count && !is_text(&m[USE], "sig"))
        return false;
    if (!m[KEY_OPS].count)
        return true;
    json_scan_array(m[KEY_OPS].value.ptr, m[KEY_OPS].value.len, note_verify, &verifies);
    return verifies;
}

/* Bytes of a base64url member; -1 when it is none, or more than cap. */
static long bytes_of(const struct token_member *m, unsigned char *out, size_t cap)
{
    struct text_span plain;
    if (!json_string_plain(m->value, &plain))
        return -1;
    return base64url_decode(plain, out, cap);
}

/* *kid is NULL without one. */
static bool read_kid(struct reading *r, const struct token_member *m, char **kid)
{
    char text[TOKEN_KID_MAX_BYTES];
    *kid = NULL;
    if (!m->count)
        return true;
    long n = json_string_decode(m->value, text, sizeof text);
    if (n <= 0 || memchr(text, '\0', (size_t)n)) {
        refuse(r, -EINVAL, "kid must be a text of 1 to 256 bytes");
        return false;
    }
    *kid = strndup(text, (size_t)n);
    if (!*kid)
        r->error = -ENOMEM;
    return *kid != NULL;
}

static bool is_repeated(const struct reading *r, const char *kid)
{
    for (size_t i = 0; kid && i < r->out->count; i++)
        if (r->out->keys[i].kid && strcmp(r->out->keys[i].kid, kid) == 0)
            return true;
    return false;
}

/* --- keys by kind --- */

static int read_oct(const struct token_member *m, struct token_key *key)
{
    unsigned char secret[NUMBER_MAX_BYTES];
    long n = bytes_of(&m[K], secret, sizeof secret);
    int error = n < 0 ? -EINVAL : token_key_from_secret(key, secret, (size_t)n);
    explicit_bzero(secret, sizeof secret);
    return error;
}

static int read_rsa(const struct token_member *m, struct token_key *key)
{
    unsigned char n[NUMBER_MAX_BYTES], e[16];
    long n_len = bytes_of(&m[N], n, sizeof n), e_len = bytes_of(&m[E], e, sizeof e);
    if (n_len < 0 || e_len < 0)
        return -EINVAL;
    return token_key_from_rsa(key, n, (size_t)n_len, e, (size_t)e_len);
}

static int read_point(const struct token_member *m, enum token_curve curve, struct token_key *key)
{
    unsigned char x[80], y[80];
    long bytes = (long)token_curve_bytes(curve);
    if (bytes_of(&m[X], x, sizeof x) != bytes || bytes_of(&m[Y], y, sizeof y) != bytes)
        return -EINVAL; /* RFC 7518, section 6.2.1.2: of the field's full size */
    return token_key_from_point(key, curve, x, y);
}

static int read_ed25519(const struct token_member *m, struct token_key *key)
{
    unsigned char x[80];
    long n = bytes_of(&m[X], x, sizeof x);
    return n < 0 ? -EINVAL : token_key_from_ed25519(key, x, (size_t)n);
}

/* 0; -ENOTSUP: of a kind or on a curve that is not known; or another negative errno. */
static int read_parts(const struct token_member *m, struct token_key *key)
{
    struct text_span crv;
    if (is_text(&m[KTY], "oct"))
        return read_oct(m, key);
    if (is_text(&m[KTY], "RSA"))
        return read_rsa(m, key);
    if (is_text(&m[KTY], "OKP"))
        return is_text(&m[CRV], "Ed25519") ? read_ed25519(m, key) : -ENOTSUP;
    if (!is_text(&m[KTY], "EC") || !json_string_plain(m[CRV].value, &crv))
        return -ENOTSUP;
    enum token_curve curve = token_curve_find(crv);
    return curve == TOKEN_CURVE_NONE ? -ENOTSUP : read_point(m, curve, key);
}

static enum use take_parts(struct reading *r, const struct token_member *m, struct token_key *key)
{
    struct text_span alg;
    int error = read_parts(m, key);
    if (error == -ENOTSUP)
        return skip(r, "no algorithm here uses this kind of key, or its curve");
    if (error == -ERANGE)
        return refuse(r, error,
                      key->kind == TOKEN_KEY_RSA ? "RSA keys must have 2048 to 8192 bits"
                                                 : "HMAC secrets must have 32 bytes at least");
    if (error)
        return refuse(r, error, error == -ENOMEM ? "no memory" : "its parts are no key");
    if (m[ALG].count) {
        key->only = json_string_plain(m[ALG].value, &alg) ? token_algorithm_find(alg) : NULL;
        if (!key->only)
            return skip(r, "its alg is none that is known");
    }
    if (!token_keys_uses(r->rules, key))
        return skip(r, "no algorithm of jwt-algorithms uses it");
    return is_repeated(r, key->kid) ? refuse(r, -EEXIST, "another key has this kid") : TAKEN;
}

static enum use read_key(struct reading *r, struct text_span value, struct token_key *key)
{
    static const char *const names[MEMBERS] = {"kty", "use", "key_ops", "alg", "kid", "crv",
                                               "n",   "e",   "x",       "y",   "k",   "d"};
    struct token_member m[MEMBERS];
    for (int i = 0; i < MEMBERS; i++)
        m[i] = (struct token_member){.name = names[i]};
    if (!token_members_read(value, m, MEMBERS))
        return refuse(r, -EINVAL, "is no object, or a member stands there twice");
    if (!read_kid(r, &m[KID], &key->kid))
        return SKIPPED;
    set_name(r, key->kid);
    if (m[D].count)
        return refuse(r, -EINVAL, "is a private key, which a gateway must not have");
    if (!may_verify(m))
        return skip(r, "its use or key_ops is not to verify signatures");
    return take_parts(r, m, key);
}

static void on_key(void *data, struct text_span value)
{
    struct reading *r = data;
    struct token_keyset *set = r->out;
    r->number++;
    if (r->error)
        return;
    set_name(r, NULL);
    if (r->number > TOKEN_JWKS_MAX_KEYS) {
        refuse(r, -E2BIG, "more than 64 keys");
        return;
    }
    if (read_key(r, value, &set->keys[set->count]) == TAKEN)
        set->count++;
    else
        token_key_fini(&set->keys[set->count]);
}

void token_keyset_fini(struct token_keyset *s)
{
    for (size_t i = 0; i < s->count; i++)
        token_key_fini(&s->keys[i]);
    free(s->keys);
    text_list_free(&s->notes);
    *s = (struct token_keyset){0};
}

int token_jwks_parse(const struct token_keys *k, struct text_span text, struct token_keyset *out,
                     const struct token_reason *why)
{
    struct token_member keys = {.name = "keys"};
    struct token_keyset set = {.keys = calloc(TOKEN_JWKS_MAX_KEYS + 1, sizeof(*set.keys))};
    struct reading r = {.rules = k, .out = &set, .why = why};
    if (!set.keys)
        return token_fail(why, -ENOMEM, "jwt-jwks-file: no memory");
    if (text.len >= TOKEN_JWKS_MAX_BYTES || !token_members_read(text, &keys, 1) ||
        json_kind(keys.value) != JSON_KIND_ARRAY)
        r.error = token_fail(why, -EINVAL,
                             "jwt-jwks-file: is no JSON object with one array \"keys\"");
    else
        json_scan_array(keys.value.ptr, keys.value.len, on_key, &r);
    if (r.error == -ENOMEM)
        token_fail(why, -ENOMEM, "jwt-jwks-file: no memory");
    else if (!r.error && !set.count)
        r.error = token_fail(why, -ENOKEY,
                             "jwt-jwks-file: holds no key that an algorithm of jwt-algorithms "
                             "uses");
    if (r.error)
        token_keyset_fini(&set);
    else
        *out = set;
    return r.error;
}
