/*
 * token_keys.c - the keys and rules by which tokens are checked: see token.h.
 *
 * Each mistake that would make a key serve an algorithm it is not for is refused here, at start,
 * with a text for the operator. A public key is kept as PEM written anew from the one key that was
 * checked: whatever else its file held never reaches libjwt.
 */
#include "config.h"

#include "shared/token.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/token_priv.h"

#define KEY_FILE_MAX_BYTES 65536
#define RSA_MIN_BITS 2048 /* RFC 7518, section 3.3 */

const struct token_algorithm token_algorithms[TOKEN_ALGORITHMS] = {
    {"HS256", TOKEN_KEY_HMAC, 0, ""},
    {"HS384", TOKEN_KEY_HMAC, 0, ""},
    {"HS512", TOKEN_KEY_HMAC, 0, ""},
    {"RS256", TOKEN_KEY_RSA, 0, ""},
    {"RS384", TOKEN_KEY_RSA, 0, ""},
    {"RS512", TOKEN_KEY_RSA, 0, ""},
    {"ES256", TOKEN_KEY_EC, NID_X9_62_prime256v1, "P-256"},
    {"ES384", TOKEN_KEY_EC, NID_secp384r1, "P-384"},
    {"ES512", TOKEN_KEY_EC, NID_secp521r1, "P-521"},
};

struct reason {
    char *text;
    size_t cap;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct reason *why, int error,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why->text, why->cap, format, args);
    va_end(args);
    return error;
}

/* --- files --- */

static void free_secret(unsigned char *bytes, size_t len)
{
    if (bytes)
        explicit_bzero(bytes, len);
    free(bytes);
}

static int read_all(int fd, unsigned char *bytes, size_t cap, size_t *len)
{
    *len = 0;
    while (*len < cap) {
        ssize_t n = read(fd, bytes + *len, cap - *len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        *len += (size_t)n;
    }
    return -EFBIG;
}

/* Reads a key file; *out is given (free_secret with KEY_FILE_MAX_BYTES) and NUL-terminated. */
static int read_key_file(const char *option, const char *path, unsigned char **out, size_t *len,
                         const struct reason *why)
{
    /* Non-blocking, so that a FIFO in the place of the file cannot stop the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int e = errno;
        return fail(why, -e, "%s: %s: %s; whoever starts the program must be able to read it",
                    option, path, strerror(e));
    }
    struct stat st;
    int r = 0;
    unsigned char *bytes = NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        r = fail(why, -EINVAL, "%s: %s: must be a regular file", option, path);
        goto out;
    }
    bytes = calloc(1, KEY_FILE_MAX_BYTES);
    if (!bytes) {
        r = fail(why, -ENOMEM, "%s: no memory", option);
        goto out;
    }
    r = read_all(fd, bytes, KEY_FILE_MAX_BYTES - 1, len);
    if (r == -EFBIG)
        fail(why, r, "%s: %s: is larger than %d bytes; is it the right file?", option, path,
             KEY_FILE_MAX_BYTES - 1);
    else if (r < 0)
        fail(why, r, "%s: %s: %s", option, path, strerror(-r));
    else if (*len == 0)
        r = fail(why, -EINVAL, "%s: %s: is empty", option, path);
out:
    close(fd);
    if (r < 0)
        free_secret(bytes, KEY_FILE_MAX_BYTES);
    else
        *out = bytes;
    return r;
}

/* --- the HMAC secret --- */

static int set_secret(struct token_keys *k, const void *bytes, size_t len)
{
    k->secret = malloc(len);
    if (!k->secret)
        return -ENOMEM;
    memcpy(k->secret, bytes, len);
    k->secret_len = len;
    return 0;
}

static int load_secret(struct token_keys *k, const char *path, const char *algorithm,
                       const struct reason *why)
{
    if (!path[0])
        return fail(why, -EINVAL,
                    "jwt-secret-file: is needed by %s of jwt-algorithms; give a file with the HMAC "
                    "secret, or configure other algorithms",
                    algorithm);
    unsigned char *bytes;
    size_t len;
    int r = read_key_file("jwt-secret-file", path, &bytes, &len, why);
    if (r < 0)
        return r;
    if (bytes[len - 1] == '\n') {
        len--;
        if (len > 0 && bytes[len - 1] == '\r')
            len--;
    }
    /* A public key as HMAC secret is a secret that everybody knows; any PEM is a mix-up. */
    if (memmem(bytes, len, "-----BEGIN ", strlen("-----BEGIN ")))
        r = fail(why, -EINVAL,
                 "jwt-secret-file: %s: holds a PEM key, not an HMAC secret; a public key belongs "
                 "into jwt-public-key-file",
                 path);
    else if (len == 0)
        r = fail(why, -EINVAL, "jwt-secret-file: %s: holds nothing but a newline", path);
    else if (set_secret(k, bytes, len) < 0)
        r = fail(why, -ENOMEM, "jwt-secret-file: no memory");
    free_secret(bytes, KEY_FILE_MAX_BYTES);
    return r;
}

/* --- the public key --- */

static int no_password(char *buf, int size, int writing, void *data)
{
    (void)buf, (void)size, (void)writing, (void)data;
    return -1; /* OpenSSL would ask the terminal */
}

static int curve_of(EVP_PKEY *key)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
    char name[80];
    size_t len = 0;
    if (EVP_PKEY_get_group_name(key, name, sizeof name, &len) != 1)
        return NID_undef;
    int nid = OBJ_txt2nid(name);
    return nid != NID_undef ? nid : EC_curve_nist2nid(name);
#else
    const EC_KEY *ec = EVP_PKEY_get0_EC_KEY(key);
    return ec ? EC_GROUP_get_curve_name(EC_KEY_get0_group(ec)) : NID_undef;
#endif
}

/* Whether the key is of the algorithm's kind. */
static int check_key(EVP_PKEY *key, const struct token_algorithm *a, const char *path,
                     const struct reason *why)
{
    int kind = EVP_PKEY_base_id(key);
    if (a->kind == TOKEN_KEY_RSA && kind != EVP_PKEY_RSA)
        return fail(why, -EINVAL,
                    "jwt-public-key-file: %s: is not an RSA key, which %s of jwt-algorithms needs",
                    path, a->name);
    if (a->kind == TOKEN_KEY_RSA && EVP_PKEY_bits(key) < RSA_MIN_BITS)
        return fail(why, -EINVAL, "jwt-public-key-file: %s: has %d bits; %s needs %d at least",
                    path, EVP_PKEY_bits(key), a->name, RSA_MIN_BITS);
    if (a->kind == TOKEN_KEY_EC && (kind != EVP_PKEY_EC || curve_of(key) != a->curve_nid))
        return fail(why, -EINVAL,
                    "jwt-public-key-file: %s: is not an EC key on curve %s, which %s of "
                    "jwt-algorithms needs",
                    path, a->curve, a->name);
    return 0;
}

static int keep_public(struct token_keys *k, EVP_PKEY *key)
{
    int r = -ENOMEM;
    BIO *out = BIO_new(BIO_s_mem());
    char *text;
    if (!out || PEM_write_bio_PUBKEY(out, key) != 1)
        goto out;
    long len = BIO_get_mem_data(out, &text);
    k->public_pem = len > 0 ? calloc(1, (size_t)len + 1) : NULL;
    if (!k->public_pem)
        goto out;
    memcpy(k->public_pem, text, (size_t)len);
    k->public_pem_len = (size_t)len;
    r = 0;
out:
    BIO_free(out);
    return r;
}

static int parse_public(const unsigned char *bytes, size_t len, const char *path, EVP_PKEY **key,
                        const struct reason *why)
{
    if (memmem(bytes, len, "PRIVATE KEY-----", strlen("PRIVATE KEY-----")))
        return fail(why, -EINVAL,
                    "jwt-public-key-file: %s: holds a private key, which a gateway must not have; "
                    "write its public half with: openssl pkey -pubout",
                    path);
    BIO *in = BIO_new_mem_buf(bytes, (int)len);
    *key = in ? PEM_read_bio_PUBKEY(in, NULL, no_password, NULL) : NULL;
    BIO_free(in);
    if (*key)
        return 0;
    if (memmem(bytes, len, "BEGIN CERTIFICATE", strlen("BEGIN CERTIFICATE")))
        return fail(why, -EINVAL,
                    "jwt-public-key-file: %s: holds a certificate; write its key with: "
                    "openssl x509 -pubkey -noout",
                    path);
    return fail(why, -EINVAL,
                "jwt-public-key-file: %s: holds no public key in PEM form "
                "(-----BEGIN PUBLIC KEY-----)",
                path);
}

/* The first configured algorithm that needs a public key; NULL when none does. */
static const char *public_user(const struct token_keys *k)
{
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        if (k->allowed[i] && token_algorithms[i].kind != TOKEN_KEY_HMAC)
            return token_algorithms[i].name;
    return NULL;
}

static int load_public(struct token_keys *k, const char *path, const struct reason *why)
{
    unsigned char *bytes;
    size_t len;
    EVP_PKEY *key = NULL;
    if (!path[0])
        return fail(why, -EINVAL,
                    "jwt-public-key-file: is needed by %s of jwt-algorithms; give a file with the "
                    "public key (PEM), or configure other algorithms",
                    public_user(k));
    int r = read_key_file("jwt-public-key-file", path, &bytes, &len, why);
    if (r < 0)
        return r;
    r = parse_public(bytes, len, path, &key, why);
    for (int i = 0; r == 0 && i < TOKEN_ALGORITHMS; i++)
        if (k->allowed[i] && token_algorithms[i].kind != TOKEN_KEY_HMAC)
            r = check_key(key, &token_algorithms[i], path, why);
    if (r == 0 && keep_public(k, key) < 0)
        r = fail(why, -ENOMEM, "jwt-public-key-file: no memory");
    EVP_PKEY_free(key);
    free_secret(bytes, KEY_FILE_MAX_BYTES);
    return r;
}

/* --- rules --- */

static int set_claim(struct token_claim_path *path, const char *name)
{
    path->whole = strdup(name);
    if (!path->whole)
        return -ENOMEM;
    for (;;) {
        size_t n = strcspn(name, ".");
        if (text_list_add(&path->parts, name, n) < 0)
            return -ENOMEM;
        if (!name[n])
            return 0;
        name += n + 1;
    }
}

static int set_algorithms(struct token_keys *k, const struct text_list *names,
                          const struct reason *why)
{
    for (size_t i = 0; i < names->count; i++) {
        int found = -1;
        for (int a = 0; a < TOKEN_ALGORITHMS; a++)
            if (strcmp(names->items[i], token_algorithms[a].name) == 0)
                found = a;
        if (found < 0)
            return fail(why, -EINVAL, "jwt-algorithms: %s is not one of HS256 to ES512",
                        names->items[i]);
        k->allowed[found] = true;
        if (!k->mint_with && token_algorithms[found].kind == TOKEN_KEY_HMAC)
            k->mint_with = &token_algorithms[found];
    }
    return names->count ? 0 : fail(why, -EINVAL, "jwt-algorithms: must not be empty");
}

static int make_rules(const struct options *opt, struct token_keys **out, const struct reason *why)
{
    struct token_keys *k = calloc(1, sizeof *k);
    if (!k)
        return fail(why, -ENOMEM, "no memory");
    k->issuer = strdup(opt->jwt_issuer ? opt->jwt_issuer : "");
    k->audience = strdup(opt->jwt_audience ? opt->jwt_audience : "");
    k->leeway_ms = opt->jwt_leeway;
    k->require_exp = opt->jwt_require_exp == CHOICE_YES;
    int r = 0;
    if (!k->issuer || !k->audience || set_claim(&k->user, opt->jwt_user_claim) < 0 ||
        set_claim(&k->admin, opt->admin_claim) < 0 ||
        text_list_copy(&opt->admin_values, &k->admin_values) < 0)
        r = fail(why, -ENOMEM, "no memory");
    if (r == 0)
        r = set_algorithms(k, &opt->jwt_algorithms, why);
    if (r < 0) {
        token_keys_free(k);
        return r;
    }
    *out = k;
    return 0;
}

/* Of algorithms that lack their key nothing is accepted; options_check.c warns. */
static void disallow(struct token_keys *k, bool hmac)
{
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        if ((token_algorithms[i].kind == TOKEN_KEY_HMAC) == hmac)
            k->allowed[i] = false;
    if (hmac)
        k->mint_with = NULL;
}

int token_keys_load(const struct options *opt, struct token_keys **out, char *why, size_t cap)
{
    struct reason reason = {why, cap};
    struct token_keys *k;
    int r = make_rules(opt, &k, &reason);
    if (r < 0)
        return r;
    const char *secret_file = opt->jwt_secret_file ? opt->jwt_secret_file : "";
    const char *public_file = opt->jwt_public_key_file ? opt->jwt_public_key_file : "";
    if (!*secret_file && *public_file && public_user(k))
        disallow(k, true);
    else if (!*public_file && *secret_file && k->mint_with)
        disallow(k, false);
    if (k->mint_with)
        r = load_secret(k, secret_file, k->mint_with->name, &reason);
    if (r == 0 && public_user(k))
        r = load_public(k, public_file, &reason);
    if (r < 0) {
        token_keys_free(k);
        return r;
    }
    *out = k;
    return 0;
}

int token_keys_from_secret(const struct options *opt, const void *secret, size_t len,
                           struct token_keys **out)
{
    char unused[1];
    struct reason reason = {unused, sizeof unused};
    struct token_keys *k;
    int r = make_rules(opt, &k, &reason);
    if (r < 0)
        return r;
    disallow(k, false);
    r = k->mint_with && len > 0 ? set_secret(k, secret, len) : -EINVAL;
    if (r < 0) {
        token_keys_free(k);
        return r;
    }
    *out = k;
    return 0;
}

static void free_claim(struct token_claim_path *path)
{
    free(path->whole);
    text_list_free(&path->parts);
}

void token_keys_free(struct token_keys *k)
{
    if (!k)
        return;
    free_secret(k->secret, k->secret_len);
    free(k->public_pem);
    free(k->issuer);
    free(k->audience);
    free_claim(&k->user);
    free_claim(&k->admin);
    text_list_free(&k->admin_values);
    free(k);
}
