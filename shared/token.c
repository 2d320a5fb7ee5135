/*
 * token.c - tokens checked: see token.h.
 *
 * The token is taken apart strictly, the algorithm and the keys it may have are chosen, and only
 * then a signature is looked at (token_key.h). Claims are read from the bytes that it covers.
 * libjwt is not asked: 1.10 knows neither PS nor EdDSA, verifies with whatever algorithm the header
 * names, reads base64 leniently, reads the PEM anew for each token, and refuses most typ.
 */
#include "config.h"

#include "shared/token.h"

#include <string.h>
#include <strings.h>

#include "shared/base64url.h"
#include "shared/counters.h"
#include "shared/json.h"
#include "shared/token_priv.h"

#define PART_MAX_BYTES (TOKEN_MAX_BYTES / 4 * 3)
#define HEADER_MEMBERS_MAX 32
#define ADMIN_VALUE_MAX_BYTES 256
#define TRIES_MAX 8 /* signatures checked for one token: it may fit many keys, and each costs */

const char *token_result_text(enum token_result r)
{
    switch (r) {
    case TOKEN_OK: return "valid";
    case TOKEN_MALFORMED: return "not a token";
    case TOKEN_ALGORITHM: return "algorithm not accepted";
    case TOKEN_TYPE: return "not a bearer's token";
    case TOKEN_KEY: return "signed by an unknown key";
    case TOKEN_SIGNATURE: return "signature does not match";
    case TOKEN_EXPIRED: return "expired";
    case TOKEN_NO_EXP: return "has no expiry";
    case TOKEN_NOT_YET: return "not valid yet";
    case TOKEN_ISSUER: return "issuer not accepted";
    case TOKEN_AUDIENCE: return "not for this audience";
    case TOKEN_REVOKED: return "revoked";
    case TOKEN_NO_USER: return "names no user";
    case TOKEN_RESULTS: break;
    }
    return "not a token";
}

/* --- the header --- */

struct header {
    struct text_span alg, typ, kid;
    uint64_t names[HEADER_MEMBERS_MAX];
    int members;
    bool bad; /* a name twice, too many of them, or crit */
};

/* What is left of it when it was looked at. */
struct signer {
    const struct token_algorithm *algorithm;
    char kid[TOKEN_KID_MAX_BYTES + 1]; /* "": it names none */
};

static void on_header_member(void *data, struct text_span key, struct text_span value)
{
    struct header *h = data;
    char name[64];
    struct text_span quoted = {key.ptr - 1, key.len + 2};
    long n = json_string_decode(quoted, name, sizeof name);
    if (n < 0 || h->members == HEADER_MEMBERS_MAX) {
        h->bad = true;
        return;
    }
    uint64_t hash = text_hash64(name, (size_t)n);
    for (int i = 0; i < h->members; i++)
        if (h->names[i] == hash)
            h->bad = true;
    h->names[h->members++] = hash;
    struct text_span decoded = {name, (size_t)n};
    if (text_span_eq(decoded, "alg"))
        h->alg = value;
    else if (text_span_eq(decoded, "typ"))
        h->typ = value;
    else if (text_span_eq(decoded, "kid"))
        h->kid = value;
    else if (text_span_eq(decoded, "crit"))
        h->bad = true; /* RFC 7515, section 4.1.11: we understand no extension */
}

/* Tokens for other purposes (logout, events, proofs of possession) may be signed by the same keys:
 * what says that it is one of these is none (RFC 8725, section 3.11; RFC 9068, section 4). */
static bool is_bearers(struct text_span typ)
{
    static const char prefix[] = "application/";
    char text[64];
    if (typ.len == 0)
        return true;
    long n = json_string_decode(typ, text, sizeof text);
    if (n < 0)
        return false;
    struct text_span name = {text, (size_t)n};
    size_t skip = sizeof prefix - 1;
    if (name.len > skip && strncasecmp(name.ptr, prefix, skip) == 0)
        name = (struct text_span){name.ptr + skip, name.len - skip};
    return text_span_ieq(name, "JWT") || text_span_ieq(name, "at+jwt");
}

/* False when it is no text of 1 to TOKEN_KID_MAX_BYTES bytes. */
static bool read_kid(struct text_span value, struct signer *out)
{
    out->kid[0] = '\0';
    if (value.len == 0)
        return true;
    long n = json_string_decode(value, out->kid, sizeof out->kid - 1);
    if (n <= 0 || memchr(out->kid, '\0', (size_t)n))
        return false;
    out->kid[n] = '\0';
    return true;
}

/* The algorithm that the header names and the configuration allows, and the key it names. */
static enum token_result read_header(const struct token_keys *k, struct text_span part,
                                     struct signer *out)
{
    unsigned char text[PART_MAX_BYTES];
    struct header h = {.members = 0};
    long len = base64url_decode(part, text, sizeof text);
    if (len < 0)
        return TOKEN_MALFORMED;
    if (json_scan_object((char *)text, (size_t)len, on_header_member, &h) != JSON_OK || h.bad ||
        !read_kid(h.kid, out))
        return TOKEN_MALFORMED;
    struct text_span name;
    out->algorithm = json_string_plain(h.alg, &name) ? token_algorithm_find(name) : NULL;
    if (!out->algorithm || !k->allowed[out->algorithm - token_algorithms])
        return TOKEN_ALGORITHM;
    return is_bearers(h.typ) ? TOKEN_OK : TOKEN_TYPE;
}

/* --- the signature --- */

static const struct token_key *find_key(const struct token_keys *k, const char *kid)
{
    const struct token_key *key;
    for (size_t i = 0; *kid && (key = token_keys_at(k, i)); i++)
        if (key->kid && strcmp(key->kid, kid) == 0)
            return key;
    return NULL;
}

/* The key that the header names, and only that. If there is none of this name: every key that has
 * none; if the header names none: every key. Always of the algorithm's kind alone. */
static enum token_result check_signature(const struct token_keys *k, const struct signer *signer,
                                         struct text_span text, const unsigned char *signature,
                                         size_t len)
{
    const struct token_key *named = find_key(k, signer->kid), *key;
    int tries = 0;
    for (size_t i = 0; (key = token_keys_at(k, i)) && tries < TRIES_MAX; i++) {
        bool is_meant = named ? key == named : !signer->kid[0] || !key->kid;
        if (!is_meant || !token_key_fits(key, signer->algorithm))
            continue;
        tries++;
        if (token_key_verify(key, signer->algorithm, text, signature, len))
            return TOKEN_OK;
    }
    return tries ? TOKEN_SIGNATURE : TOKEN_KEY;
}

/* The same for a token as it came; who was here before is believed for his signature alone. */
static enum token_result check_signature_once(const struct token_keys *k,
                                              const struct signer *signer, struct text_span token,
                                              struct text_span text,
                                              const unsigned char *signature, size_t len)
{
    struct token_mark mark;
    if (signer->algorithm->kind == TOKEN_KEY_HMAC || !token_known_mark(k->known, token, &mark))
        return check_signature(k, signer, text, signature, len);
    if (token_known_has(k->known, &mark)) {
        counters_inc(CTR_tokens_known);
        return TOKEN_OK;
    }
    enum token_result r = check_signature(k, signer, text, signature, len);
    if (r == TOKEN_OK)
        token_known_add(k->known, &mark);
    return r;
}

/* --- claims --- */

struct members {
    struct token_member *member;
    size_t count;
};

static void on_member(void *data, struct text_span key, struct text_span value)
{
    struct members *m = data;
    for (size_t i = 0; i < m->count; i++)
        if (json_key_is(key, m->member[i].name)) {
            m->member[i].value = value;
            m->member[i].count++;
        }
}

bool token_members_read(struct text_span object, struct token_member *members, size_t count)
{
    struct members m = {members, count};
    if (json_scan_object(object.ptr, object.len, on_member, &m) != JSON_OK)
        return false;
    for (size_t i = 0; i < count; i++)
        if (members[i].count > 1)
            return false;
    return true;
}

/* Finds a configured claim; value->len is 0 when it is absent. False: a name twice. */
static bool resolve(struct text_span object, const struct token_claim_path *path,
                    struct text_span *value)
{
    struct token_member c = {.name = path->whole};
    if (!token_members_read(object, &c, 1))
        return false;
    for (size_t i = 0; c.count == 0 && path->parts.count > 1 && i < path->parts.count; i++) {
        struct token_member step = {.name = path->parts.items[i]};
        if (json_kind(object) != JSON_KIND_OBJECT)
            break;
        if (!token_members_read(object, &step, 1))
            return false;
        object = step.value;
        if (i + 1 == path->parts.count)
            c = step;
    }
    *value = c.value;
    return true;
}

/* Value of a decimal number in milliseconds, cut towards zero, limited to year 9999 either way. The
 * C library's functions read numbers by locale. */
static int64_t number_to_ms(struct text_span number)
{
    const char *p = number.ptr, *end = p + number.len;
    bool negative = p < end && *p == '-';
    bool fraction = false;
    int64_t mantissa = 0;
    int exponent = 3;
    for (p += negative; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        bool room = mantissa < INT64_MAX / 100;
        if (room)
            mantissa = mantissa * 10 + (*p - '0');
        exponent += (room ? 0 : 1) - (fraction ? 1 : 0);
    }
    if (p < end) {
        p++;
        bool down = *p == '-';
        int shown = 0;
        for (p += *p == '-' || *p == '+'; p < end; p++)
            if (shown < 100000)
                shown = shown * 10 + (*p - '0');
        exponent += down ? -shown : shown;
    }
    for (; exponent > 0 && mantissa != 0 && mantissa < TOKEN_FAR_FUTURE_MS; exponent--)
        mantissa *= 10;
    for (; exponent < 0 && mantissa != 0; exponent++)
        mantissa /= 10;
    if (mantissa > TOKEN_FAR_FUTURE_MS)
        mantissa = TOKEN_FAR_FUTURE_MS;
    return negative ? -mantissa : mantissa;
}

static bool text_equals(struct text_span value, const char *text)
{
    /* Decoded text is never longer than the value, and values are part of a token. */
    char decoded[PART_MAX_BYTES];
    long n = json_string_decode(value, decoded, sizeof decoded);
    return n >= 0 && text_span_eq((struct text_span){decoded, (size_t)n}, text);
}

struct audience {
    const char *wanted;
    bool found;
};

static void on_audience(void *data, struct text_span value)
{
    struct audience *a = data;
    if (text_equals(value, a->wanted))
        a->found = true;
}

static bool audience_fits(struct text_span aud, const char *wanted)
{
    struct audience a = {wanted, false};
    if (json_kind(aud) == JSON_KIND_ARRAY)
        json_scan_array(aud.ptr, aud.len, on_audience, &a);
    else
        on_audience(&a, aud);
    return a.found;
}

/* Times, issuer and audience. */
static enum token_result check_registered(const struct token_keys *k, struct text_span payload,
                                          int64_t now_ms, int64_t *expires_at_ms)
{
    enum { EXP, NBF, ISS, AUD, COUNT };
    struct token_member c[COUNT] = {
        {.name = "exp"}, {.name = "nbf"}, {.name = "iss"}, {.name = "aud"}};
    if (!token_members_read(payload, c, COUNT))
        return TOKEN_MALFORMED;
    *expires_at_ms = 0;
    if (c[EXP].count) {
        if (json_kind(c[EXP].value) != JSON_KIND_NUMBER)
            return TOKEN_MALFORMED;
        int64_t exp_ms = number_to_ms(c[EXP].value);
        if (exp_ms <= 0 || now_ms >= exp_ms + k->leeway_ms)
            return TOKEN_EXPIRED;
        *expires_at_ms = exp_ms;
    } else if (k->require_exp) {
        return TOKEN_NO_EXP;
    }
    if (c[NBF].count) {
        if (json_kind(c[NBF].value) != JSON_KIND_NUMBER)
            return TOKEN_MALFORMED;
        if (now_ms + k->leeway_ms < number_to_ms(c[NBF].value))
            return TOKEN_NOT_YET;
    }
    if (k->issuer[0] && !text_equals(c[ISS].value, k->issuer))
        return TOKEN_ISSUER;
    if (k->audience[0] && !audience_fits(c[AUD].value, k->audience))
        return TOKEN_AUDIENCE;
    return TOKEN_OK;
}

/* An id as text: a string's, or a whole number's digits. out has room for KEYS_USER_ID_MAX_BYTES
 * and a NUL. */
static bool read_id(struct text_span value, char *out, size_t *len)
{
    if (json_kind(value) == JSON_KIND_STRING) {
        long n = json_string_decode(value, out, KEYS_USER_ID_MAX_BYTES);
        if (n < 0)
            return false;
        *len = (size_t)n;
    } else if (json_kind(value) == JSON_KIND_NUMBER) {
        if (value.len > KEYS_USER_ID_MAX_BYTES || memchr(value.ptr, '.', value.len) ||
            memchr(value.ptr, 'e', value.len) || memchr(value.ptr, 'E', value.len) ||
            text_span_eq(value, "-0"))
            return false;
        memcpy(out, value.ptr, value.len);
        *len = value.len;
    } else {
        return false;
    }
    out[*len] = '\0';
    return keys_is_user_id(out, *len);
}

/* What cannot be read could not be revoked either. */
static bool read_jti(const struct token_keys *k, struct text_span payload,
                     struct token_claims *out)
{
    struct token_member jti = {.name = "jti"};
    out->jti_len = 0;
    out->jti[0] = '\0';
    return !k->wants_jti || (token_members_read(payload, &jti, 1) &&
                             (!jti.count || read_id(jti.value, out->jti, &out->jti_len)));
}

struct admin {
    const struct text_list *values;
    bool is_admin;
};

static void on_admin_value(void *data, struct text_span value)
{
    struct admin *a = data;
    char text[ADMIN_VALUE_MAX_BYTES];
    long n = json_string_decode(value, text, sizeof text);
    if (n >= 0 && text_list_has(a->values, text, (size_t)n))
        a->is_admin = true;
}

static bool is_admin(struct text_span value, const struct text_list *values)
{
    struct admin a = {values, false};
    if (json_kind(value) == JSON_KIND_ARRAY)
        json_scan_array(value.ptr, value.len, on_admin_value, &a);
    else if (json_kind(value) == JSON_KIND_BOOL)
        return text_span_eq(value, "true") && text_list_has(values, "true", 4);
    else
        on_admin_value(&a, value);
    return a.is_admin;
}

static enum token_result check_claims(const struct token_keys *k, struct text_span payload,
                                      int64_t now_ms, struct token_claims *out)
{
    struct text_span value;
    enum token_result r = check_registered(k, payload, now_ms, &out->expires_at_ms);
    if (r != TOKEN_OK)
        return r;
    if (!resolve(payload, &k->user, &value))
        return TOKEN_MALFORMED;
    if (!read_id(value, out->user_id, &out->user_id_len))
        return TOKEN_NO_USER;
    if (!read_jti(k, payload, out))
        return TOKEN_MALFORMED;
    if (!resolve(payload, &k->admin, &value))
        return TOKEN_MALFORMED;
    out->is_admin = is_admin(value, &k->admin_values);
    return TOKEN_OK;
}

/* Exactly three parts. */
static bool split(const char *token, size_t len, struct text_span part[3])
{
    const char *end = token + len;
    for (int i = 0; i < 3; i++) {
        const char *dot = i < 2 ? memchr(token, '.', (size_t)(end - token)) : end;
        if (!dot)
            return false;
        part[i] = (struct text_span){token, (size_t)(dot - token)};
        token = dot + 1;
    }
    return true;
}

enum token_result token_verify(const struct token_keys *k, const char *token, size_t len,
                               int64_t now_ms, struct token_claims *out)
{
    unsigned char payload[PART_MAX_BYTES], signature[PART_MAX_BYTES];
    struct text_span part[3];
    if (len == 0 || len > TOKEN_MAX_BYTES || !split(token, len, part))
        return TOKEN_MALFORMED;
    /* Each part in the one spelling of base64url, so none empty. */
    long signature_len = base64url_decode(part[2], signature, sizeof signature);
    if (signature_len < 0)
        return TOKEN_MALFORMED;
    struct signer signer;
    enum token_result r = read_header(k, part[0], &signer);
    if (r != TOKEN_OK)
        return r;
    long payload_len = base64url_decode(part[1], payload, sizeof payload);
    if (payload_len < 0 ||
        json_scan_object((char *)payload, (size_t)payload_len, NULL, NULL) != JSON_OK)
        return TOKEN_MALFORMED;
    struct text_span text = {token, part[0].len + 1 + part[1].len};
    r = check_signature_once(k, &signer, (struct text_span){token, len}, text, signature,
                             (size_t)signature_len);
    if (r != TOKEN_OK)
        return r;
    struct token_claims claims;
    r = check_claims(k, (struct text_span){(char *)payload, (size_t)payload_len}, now_ms, &claims);
    if (r == TOKEN_OK)
        *out = claims;
    return r;
}
