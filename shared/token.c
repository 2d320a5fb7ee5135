/*
 * token.c - tokens checked and made: see token.h. The only file that knows libjwt.
 *
 * libjwt 1.10 verifies with whatever algorithm the header names, reads base64 leniently and looks
 * at no time. So the token is taken apart here first, strictly, and libjwt is asked one thing:
 * whether the signature fits this key. Claims are read from the bytes that the signature covers.
 */
#include "config.h"

#include "shared/token.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <jwt.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/token_priv.h"

#define PART_MAX_BYTES (TOKEN_MAX_BYTES / 4 * 3)
#define HEADER_MEMBERS_MAX 32
#define ADMIN_VALUE_MAX_BYTES 256
#define FAR_FUTURE_MS INT64_C(253402300799000) /* the end of year 9999: later is no better */

const char *token_result_text(enum token_result r)
{
    switch (r) {
    case TOKEN_OK: return "valid";
    case TOKEN_MALFORMED: return "not a token";
    case TOKEN_ALGORITHM: return "algorithm not accepted";
    case TOKEN_SIGNATURE: return "signature does not match";
    case TOKEN_EXPIRED: return "expired";
    case TOKEN_NO_EXP: return "has no expiry";
    case TOKEN_NOT_YET: return "not valid yet";
    case TOKEN_ISSUER: return "issuer not accepted";
    case TOKEN_AUDIENCE: return "not for this audience";
    case TOKEN_NO_USER: return "names no user";
    case TOKEN_RESULTS: break;
    }
    return "not a token";
}

/* --- base64url (RFC 4648, section 5; RFC 7515, section 2: no padding) --- */

static int base64url_value(unsigned char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Decodes what has exactly one spelling: unused bits must be zero, so that one token has one text.
 * Length or -EINVAL. */
static long base64url_decode(struct text_span in, unsigned char *out, size_t cap)
{
    unsigned bits = 0, held = 0;
    size_t len = 0;
    if (in.len == 0 || in.len % 4 == 1)
        return -EINVAL;
    for (size_t i = 0; i < in.len; i++) {
        int v = base64url_value((unsigned char)in.ptr[i]);
        if (v < 0)
            return -EINVAL;
        held = (held << 6 | (unsigned)v) & 0xFFFF;
        bits += 6;
        if (bits < 8)
            continue;
        bits -= 8;
        if (len == cap)
            return -EINVAL;
        out[len++] = (unsigned char)(held >> bits);
    }
    return (held & ((1u << bits) - 1)) == 0 ? (long)len : -EINVAL;
}

/* --- the header --- */

struct header {
    struct text_span alg;
    uint64_t names[HEADER_MEMBERS_MAX];
    int members;
    bool bad; /* a name twice, too many of them, or crit */
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
    else if (text_span_eq(decoded, "crit"))
        h->bad = true; /* RFC 7515, section 4.1.11: we understand no extension */
}

/* The algorithm that the header names and the configuration allows. */
static enum token_result read_header(const struct token_keys *k, struct text_span part,
                                     const struct token_algorithm **algorithm)
{
    unsigned char text[PART_MAX_BYTES];
    struct header h = {.members = 0};
    long len = base64url_decode(part, text, sizeof text);
    if (len < 0)
        return TOKEN_MALFORMED;
    if (json_scan_object((char *)text, (size_t)len, on_header_member, &h) != JSON_OK || h.bad)
        return TOKEN_MALFORMED;
    struct text_span name;
    if (!json_string_plain(h.alg, &name))
        return TOKEN_ALGORITHM;
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        if (k->allowed[i] && text_span_eq(name, token_algorithms[i].name)) {
            *algorithm = &token_algorithms[i];
            return TOKEN_OK;
        }
    return TOKEN_ALGORITHM;
}

/* --- the signature --- */

/* token is NUL-terminated and has been taken apart. The key is chosen by the algorithm's kind
 * alone. */
static enum token_result check_signature(const struct token_keys *k, const char *token,
                                         const struct token_algorithm *algorithm)
{
    bool hmac = algorithm->kind == TOKEN_KEY_HMAC;
    const unsigned char *key = hmac ? k->secret : k->public_pem;
    size_t key_len = hmac ? k->secret_len : k->public_pem_len;
    if (!key || key_len == 0)
        return TOKEN_ALGORITHM; /* libjwt verifies nothing without a key */
    jwt_t *jwt = NULL;
    int e = jwt_decode(&jwt, token, key, (int)key_len);
    if (e == 0) {
        jwt_alg_t used = jwt_get_alg(jwt);
        jwt_free(jwt);
        bool same = used != JWT_ALG_NONE && used == jwt_str_alg(algorithm->name);
        return same ? TOKEN_OK : TOKEN_ALGORITHM;
    }
    /* It has one errno for all: what it cannot read without a key either is no matter of the key.
     * */
    e = jwt_decode(&jwt, token, NULL, 0);
    if (e == 0)
        jwt_free(jwt);
    return e == 0 ? TOKEN_SIGNATURE : TOKEN_MALFORMED;
}

/* --- claims --- */

struct claim {
    const char *name;
    struct text_span value;
    int count;
};

struct claims {
    struct claim *claim;
    size_t count;
};

static void on_claim(void *data, struct text_span key, struct text_span value)
{
    struct claims *c = data;
    for (size_t i = 0; i < c->count; i++)
        if (json_key_is(key, c->claim[i].name)) {
            c->claim[i].value = value;
            c->claim[i].count++;
        }
}

/* False when one of the names stands there twice: parsers differ in which one counts (RFC 8725,
 * section 2.4, is about such differences). */
static bool read_claims(struct text_span object, struct claim *claim, size_t count)
{
    struct claims c = {claim, count};
    if (json_scan_object(object.ptr, object.len, on_claim, &c) != JSON_OK)
        return false;
    for (size_t i = 0; i < count; i++)
        if (claim[i].count > 1)
            return false;
    return true;
}

/* Finds a configured claim; value->len is 0 when it is absent. False: a name twice. */
static bool resolve(struct text_span object, const struct token_claim_path *path,
                    struct text_span *value)
{
    struct claim c = {.name = path->whole};
    if (!read_claims(object, &c, 1))
        return false;
    for (size_t i = 0; c.count == 0 && path->parts.count > 1 && i < path->parts.count; i++) {
        struct claim step = {.name = path->parts.items[i]};
        if (json_kind(object) != JSON_KIND_OBJECT)
            break;
        if (!read_claims(object, &step, 1))
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
    for (; exponent > 0 && mantissa != 0 && mantissa < FAR_FUTURE_MS; exponent--)
        mantissa *= 10;
    for (; exponent < 0 && mantissa != 0; exponent++)
        mantissa /= 10;
    if (mantissa > FAR_FUTURE_MS)
        mantissa = FAR_FUTURE_MS;
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
    struct claim c[COUNT] = {{.name = "exp"}, {.name = "nbf"}, {.name = "iss"}, {.name = "aud"}};
    if (!read_claims(payload, c, COUNT))
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

/* The user as text: a string's, or a whole number's digits. */
static bool read_user(struct text_span value, struct token_claims *out)
{
    if (json_kind(value) == JSON_KIND_STRING) {
        long n = json_string_decode(value, out->user_id, sizeof out->user_id - 1);
        if (n < 0)
            return false;
        out->user_id_len = (size_t)n;
    } else if (json_kind(value) == JSON_KIND_NUMBER) {
        if (value.len >= sizeof out->user_id || memchr(value.ptr, '.', value.len) ||
            memchr(value.ptr, 'e', value.len) || memchr(value.ptr, 'E', value.len) ||
            text_span_eq(value, "-0"))
            return false;
        memcpy(out->user_id, value.ptr, value.len);
        out->user_id_len = value.len;
    } else {
        return false;
    }
    out->user_id[out->user_id_len] = '\0';
    return keys_is_user_id(out->user_id, out->user_id_len);
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
    if (!read_user(value, out))
        return TOKEN_NO_USER;
    if (!resolve(payload, &k->admin, &value))
        return TOKEN_MALFORMED;
    out->is_admin = is_admin(value, &k->admin_values);
    return TOKEN_OK;
}

/* Exactly three parts, none empty, each in the one spelling of base64url. */
static bool split(const char *token, size_t len, struct text_span part[3])
{
    unsigned char scratch[PART_MAX_BYTES];
    const char *end = token + len;
    for (int i = 0; i < 3; i++) {
        const char *dot = i < 2 ? memchr(token, '.', (size_t)(end - token)) : end;
        if (!dot)
            return false;
        part[i] = (struct text_span){token, (size_t)(dot - token)};
        token = dot + 1;
    }
    return base64url_decode(part[2], scratch, sizeof scratch) > 0;
}

enum token_result token_verify(const struct token_keys *k, const char *token, size_t len,
                               int64_t now_ms, struct token_claims *out)
{
    char copy[TOKEN_MAX_BYTES + 1];
    unsigned char payload[PART_MAX_BYTES];
    struct text_span part[3];
    if (len == 0 || len > TOKEN_MAX_BYTES)
        return TOKEN_MALFORMED;
    memcpy(copy, token, len);
    copy[len] = '\0';
    if (!split(copy, len, part))
        return TOKEN_MALFORMED;
    const struct token_algorithm *algorithm = NULL;
    enum token_result r = read_header(k, part[0], &algorithm);
    if (r != TOKEN_OK)
        return r;
    long payload_len = base64url_decode(part[1], payload, sizeof payload);
    if (payload_len < 0 ||
        json_scan_object((char *)payload, (size_t)payload_len, NULL, NULL) != JSON_OK)
        return TOKEN_MALFORMED;
    r = check_signature(k, copy, algorithm);
    if (r != TOKEN_OK)
        return r;
    struct token_claims claims;
    r = check_claims(k, (struct text_span){(char *)payload, (size_t)payload_len}, now_ms, &claims);
    if (r == TOKEN_OK)
        *out = claims;
    return r;
}

/* --- making tokens --- */

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

static int fill_claims(const struct token_keys *k, const char *user_id, bool admin, int64_t ttl_ms,
                       int64_t now_ms, cJSON *root)
{
    double iat = (double)(now_ms / 1000), exp = (double)((now_ms + ttl_ms + 999) / 1000);
    if (!cJSON_AddNumberToObject(root, "iat", iat) || !cJSON_AddNumberToObject(root, "exp", exp))
        return -ENOMEM;
    if (k->issuer[0] && !cJSON_AddStringToObject(root, "iss", k->issuer))
        return -ENOMEM;
    if (k->audience[0] && !cJSON_AddStringToObject(root, "aud", k->audience))
        return -ENOMEM;
    int r = put_claim(root, &k->user, cJSON_CreateString(user_id));
    if (r == 0 && admin)
        r = k->admin_values.count
                ? put_claim(root, &k->admin, cJSON_CreateString(k->admin_values.items[0]))
                : -EINVAL;
    return r;
}

static int sign(const struct token_keys *k, const char *claims, char **out)
{
    jwt_t *jwt = NULL;
    if (jwt_new(&jwt) != 0)
        return -ENOMEM;
    int r = -ENOMEM;
    if (jwt_add_grants_json(jwt, claims) == 0 &&
        jwt_set_alg(jwt, jwt_str_alg(k->mint_with->name), k->secret, (int)k->secret_len) == 0) {
        *out = jwt_encode_str(jwt);
        r = *out ? 0 : -ENOMEM;
    }
    jwt_free(jwt);
    return r;
}

int token_mint(const struct token_keys *k, const char *user_id, bool admin, int64_t ttl_ms,
               int64_t now_ms, char **out)
{
    if (!k->secret || !k->mint_with)
        return -ENOKEY;
    if (!keys_is_user_id(user_id, strlen(user_id)) || ttl_ms > FAR_FUTURE_MS || ttl_ms < -now_ms)
        return -EINVAL;
    cJSON *root = cJSON_CreateObject();
    if (!root)
        return -ENOMEM;
    char *text = NULL;
    int r = fill_claims(k, user_id, admin, ttl_ms, now_ms, root);
    if (r == 0) {
        text = cJSON_PrintUnformatted(root);
        r = text ? sign(k, text, out) : -ENOMEM;
    }
    cJSON_free(text);
    cJSON_Delete(root);
    return r;
}

void token_prepare(void)
{
    jwt_t *jwt = NULL;
    if (jwt_new(&jwt) == 0)
        jwt_free(jwt);
}
