/*
 * token_keys.c - the keys and rules by which tokens are checked: see token.h.
 *
 * Each mistake that would make a key serve an algorithm it is not for is refused here, at start,
 * with a text for the operator. Of a public key's file the one key in it is kept, and nothing else.
 */
#include "config.h"

#include "shared/token.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/token_priv.h"

#define KEY_FILE_MAX_BYTES 65536

int token_fail(const struct token_reason *why, int error, const char *format, ...)
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

/* Reads a key file of less than cap bytes; *out is given (free_secret with cap) and
 * NUL-terminated. */
static int read_key_file(const char *option, const char *path, size_t cap, unsigned char **out,
                         size_t *len, const struct token_reason *why)
{
    /* Non-blocking, so that a FIFO in the place of the file cannot stop the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        int e = errno;
        return token_fail(why, -e, "%s: %s: %s; whoever starts the program must be able to read it",
                    option, path, strerror(e));
    }
    struct stat st;
    int r = 0;
    unsigned char *bytes = NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        r = token_fail(why, -EINVAL, "%s: %s: must be a regular file", option, path);
        goto out;
    }
    bytes = calloc(1, cap);
    if (!bytes) {
        r = token_fail(why, -ENOMEM, "%s: no memory", option);
        goto out;
    }
    r = read_all(fd, bytes, cap, len); /* -EFBIG when it is full, with no room for the NUL */
    if (r == -EFBIG)
        token_fail(why, r, "%s: %s: is larger than %zu bytes; is it the right file?", option,
                   path, cap - 1);
    else if (r < 0)
        token_fail(why, r, "%s: %s: %s", option, path, strerror(-r));
    else if (*len == 0)
        r = token_fail(why, -EINVAL, "%s: %s: is empty", option, path);
out:
    close(fd);
    if (r < 0)
        free_secret(bytes, cap);
    else
        *out = bytes;
    return r;
}

/* --- the HMAC secret --- */

static int note(struct token_keys *k, const char *text)
{
    return text_list_add(&k->notes, text, strlen(text));
}

static struct token_key *next_file_key(struct token_keys *k)
{
    return &k->files[k->file_count++];
}

/* RFC 7518, section 3.2: as long as the hash's output. Shorter than the least is refused; between
 * the two an operator may know better. */
static int note_short(struct token_keys *k, size_t len)
{
    char text[200];
    for (int i = 0; i < TOKEN_ALGORITHMS; i++) {
        const struct token_algorithm *a = &token_algorithms[i];
        if (!k->allowed[i] || a->kind != TOKEN_KEY_HMAC || len >= (size_t)a->hash_bytes)
            continue;
        snprintf(text, sizeof text,
                 "jwt-secret-file: the secret has %zu bytes; %s is as strong as it can be from %d "
                 "on",
                 len, a->name, a->hash_bytes);
        return note(k, text);
    }
    return 0;
}

static int load_secret(struct token_keys *k, const char *path, const char *algorithm,
                       const struct token_reason *why)
{
    if (!path[0])
        return token_fail(why, -EINVAL,
                    "jwt-secret-file: is needed by %s of jwt-algorithms; give a file with the HMAC "
                    "secret, or configure other algorithms",
                    algorithm);
    unsigned char *bytes;
    size_t len;
    int r = read_key_file("jwt-secret-file", path, KEY_FILE_MAX_BYTES, &bytes, &len, why);
    if (r < 0)
        return r;
    if (bytes[len - 1] == '\n') {
        len--;
        if (len > 0 && bytes[len - 1] == '\r')
            len--;
    }
    /* A public key as HMAC secret is a secret that everybody knows; any PEM is a mix-up. */
    if (memmem(bytes, len, "-----BEGIN ", strlen("-----BEGIN ")))
        r = token_fail(why, -EINVAL,
                 "jwt-secret-file: %s: holds a PEM key, not an HMAC secret; a public key belongs "
                 "into jwt-public-key-file",
                 path);
    else if (len == 0)
        r = token_fail(why, -EINVAL, "jwt-secret-file: %s: holds nothing but a newline", path);
    else if ((r = token_key_from_secret(next_file_key(k), bytes, len)) == -ERANGE)
        token_fail(why, r,
                   "jwt-secret-file: %s: the secret has %zu bytes; at least %d are needed, and "
                   "these at random: openssl rand -hex 32",
                   path, len, TOKEN_SECRET_MIN_BYTES);
    else if (r < 0 || (r = note_short(k, len)) < 0)
        token_fail(why, r, "jwt-secret-file: no memory");
    free_secret(bytes, KEY_FILE_MAX_BYTES);
    return r;
}

/* --- the public key --- */

static int no_password(char *buf, int size, int writing, void *data)
{
    (void)buf, (void)size, (void)writing, (void)data;
    return -1; /* OpenSSL would ask the terminal */
}

/* Whether the key is of the algorithm's kind. */
static int check_key(const struct token_key *key, const struct token_algorithm *a,
                     const char *path, const struct token_reason *why)
{
    if (token_key_fits(key, a))
        return 0;
    if (a->kind == TOKEN_KEY_EC)
        return token_fail(why, -EINVAL,
                          "jwt-public-key-file: %s: is not an EC key on curve %s, which %s of "
                          "jwt-algorithms needs",
                          path, token_curve_name(a->curve), a->name);
    return token_fail(why, -EINVAL,
                      "jwt-public-key-file: %s: is not an %s key, which %s of jwt-algorithms needs",
                      path, a->kind == TOKEN_KEY_ED25519 ? "Ed25519" : "RSA", a->name);
}

/* The key in its file is alone, and must fit all that is configured, unless others may come from a
 * set. */
static int check_public(const struct token_keys *k, const struct token_key *key, bool has_set,
                        const char *path, const struct token_reason *why)
{
    int r = 0;
    if (has_set && token_keys_uses(k, key))
        return 0;
    for (int i = 0; r == 0 && i < TOKEN_ALGORITHMS; i++)
        if (k->allowed[i] && token_algorithms[i].kind != TOKEN_KEY_HMAC)
            r = check_key(key, &token_algorithms[i], path, why);
    return r;
}

static int take_public(struct token_keys *k, EVP_PKEY *public_key, bool has_set, const char *path,
                       const struct token_reason *why)
{
    struct token_key *key = next_file_key(k);
    int bits = EVP_PKEY_get_bits(public_key);
    int r = token_key_from_public(key, public_key);
    switch (r) {
    case 0:
    case -ENOTSUP: /* check_key says what is wanted instead */
        r = check_public(k, key, has_set, path, why);
        return r || key->public_key
                   ? r
                   : token_fail(why, -EINVAL,
                                "jwt-public-key-file: %s: holds a key of a kind that is not used",
                                path);
    case -ERANGE:
        return token_fail(why, r,
                          "jwt-public-key-file: %s: is an RSA key of %d bits; it needs %d to %d",
                          path, bits, TOKEN_RSA_MIN_BITS, TOKEN_RSA_MAX_BITS);
    case -EINVAL:
        return token_fail(why, r, "jwt-public-key-file: %s: holds numbers that are no key", path);
    default:
        return token_fail(why, r, "jwt-public-key-file: no memory");
    }
}

/* The next public key of a PEM text; NULL: there is none. */
static EVP_PKEY *next_public(BIO *in)
{
    EVP_PKEY *key = in ? PEM_read_bio_PUBKEY(in, NULL, no_password, NULL) : NULL;
    ERR_clear_error();
    return key;
}

/* *more: a key follows that is not used. */
static int parse_public(const unsigned char *bytes, size_t len, const char *path, EVP_PKEY **key,
                        bool *more, const struct token_reason *why)
{
    if (memmem(bytes, len, "PRIVATE KEY-----", strlen("PRIVATE KEY-----")))
        return token_fail(why, -EINVAL,
                    "jwt-public-key-file: %s: holds a private key, which a gateway must not have; "
                    "write its public half with: openssl pkey -pubout",
                    path);
    BIO *in = BIO_new_mem_buf(bytes, (int)len);
    *key = next_public(in);
    EVP_PKEY *second = *key ? next_public(in) : NULL;
    *more = second;
    EVP_PKEY_free(second);
    BIO_free(in);
    if (*key)
        return 0;
    if (memmem(bytes, len, "BEGIN CERTIFICATE", strlen("BEGIN CERTIFICATE")))
        return token_fail(why, -EINVAL,
                    "jwt-public-key-file: %s: holds a certificate; write its key with: "
                    "openssl x509 -pubkey -noout",
                    path);
    return token_fail(why, -EINVAL,
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

static int note_more(struct token_keys *k)
{
    return note(k, "jwt-public-key-file: only the first of its keys is used; several belong into "
                   "jwt-jwks-file");
}

static int load_public(struct token_keys *k, const char *path, bool has_set,
                       const struct token_reason *why)
{
    unsigned char *bytes;
    size_t len;
    EVP_PKEY *key = NULL;
    bool more = false;
    if (!path[0])
        return token_fail(why, -EINVAL,
                          "jwt-public-key-file: is needed by %s of jwt-algorithms; give a file "
                          "with the public key (PEM), or configure other algorithms",
                          public_user(k));
    int r = read_key_file("jwt-public-key-file", path, KEY_FILE_MAX_BYTES, &bytes, &len, why);
    if (r < 0)
        return r;
    r = parse_public(bytes, len, path, &key, &more, why);
    if (r == 0)
        r = take_public(k, key, has_set, path, why);
    if (r == 0 && more && (r = note_more(k)) < 0)
        token_fail(why, r, "jwt-public-key-file: no memory");
    free_secret(bytes, KEY_FILE_MAX_BYTES);
    return r;
}

/* --- the set --- */

int token_jwks_read(const struct options *opt, struct text_span *text, char *why, size_t cap)
{
    struct token_reason reason = {why, cap};
    unsigned char *bytes;
    size_t len;
    int r = read_key_file("jwt-jwks-file", opt->jwt_jwks_file, TOKEN_JWKS_MAX_BYTES, &bytes, &len,
                          &reason);
    if (r == 0)
        *text = (struct text_span){(char *)bytes, len};
    return r;
}

void token_jwks_free(struct text_span text)
{
    free_secret((unsigned char *)(uintptr_t)text.ptr, text.len);
}

int token_keys_take_jwks(struct token_keys *k, struct text_span text, char *why, size_t cap)
{
    struct token_reason reason = {why, cap};
    struct token_keyset set = {0};
    int r = token_jwks_parse(k, text, &set, &reason);
    if (r < 0)
        return r;
    token_keyset_fini(&k->jwks);
    token_known_forget(k->known);
    k->jwks = set;
    return 0;
}

size_t token_keys_jwks_count(const struct token_keys *k)
{
    return k->jwks.count;
}

static int note_readable(struct token_keys *k, const char *path)
{
    struct stat st;
    bool has_secret = false;
    for (size_t i = 0; i < k->jwks.count; i++)
        has_secret |= k->jwks.keys[i].kind == TOKEN_KEY_HMAC;
    if (!has_secret || stat(path, &st) < 0 || !(st.st_mode & S_IROTH))
        return 0;
    return note(k, "jwt-jwks-file: holds secrets and can be read by every user of this machine "
                   "(chmod o-r)");
}

static int load_set(struct token_keys *k, const struct options *opt,
                    const struct token_reason *why)
{
    struct text_span text;
    int r = token_jwks_read(opt, &text, why->text, why->cap);
    if (r < 0)
        return r;
    r = token_keys_take_jwks(k, text, why->text, why->cap);
    token_jwks_free(text);
    if (r == 0 && (r = note_readable(k, opt->jwt_jwks_file)) < 0)
        token_fail(why, r, "jwt-jwks-file: no memory");
    return r;
}

/* --- all of them --- */

const struct token_key *token_keys_at(const struct token_keys *k, size_t i)
{
    if (i < k->file_count)
        return &k->files[i];
    i -= k->file_count;
    return i < k->jwks.count ? &k->jwks.keys[i] : NULL;
}

bool token_keys_uses(const struct token_keys *k, const struct token_key *key)
{
    for (int i = 0; i < TOKEN_ALGORITHMS; i++)
        if (k->allowed[i] && token_key_fits(key, &token_algorithms[i]))
            return true;
    return false;
}

void token_keys_notes(const struct token_keys *k, void (*say)(void *data, const char *text),
                      void *data)
{
    const struct text_list *lists[] = {&k->notes, &k->jwks.notes};
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            say(data, lists[l]->items[i]);
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
                          const struct token_reason *why)
{
    for (size_t i = 0; i < names->count; i++) {
        const struct token_algorithm *a = token_algorithm_find(text_span_of(names->items[i]));
        if (!a)
            return token_fail(why, -EINVAL, "jwt-algorithms: %s is none that is known",
                              names->items[i]);
        k->allowed[a - token_algorithms] = true;
        if (!k->mint_with && a->kind == TOKEN_KEY_HMAC)
            k->mint_with = a;
    }
    return names->count ? 0 : token_fail(why, -EINVAL, "jwt-algorithms: must not be empty");
}

static int make_rules(const struct options *opt, struct token_keys **out,
                      const struct token_reason *why)
{
    struct token_keys *k = calloc(1, sizeof *k);
    if (!k)
        return token_fail(why, -ENOMEM, "no memory");
    k->issuer = strdup(opt->jwt_issuer ? opt->jwt_issuer : "");
    k->audience = strdup(opt->jwt_audience ? opt->jwt_audience : "");
    k->leeway_ms = opt->jwt_leeway;
    k->require_exp = opt->jwt_require_exp == CHOICE_YES;
    k->wants_jti = opt->denylist_key && opt->denylist_key[0];
    k->known = token_known_new();
    int r = 0;
    if (!k->known || !k->issuer || !k->audience || set_claim(&k->user, opt->jwt_user_claim) < 0 ||
        set_claim(&k->admin, opt->admin_claim) < 0 ||
        text_list_copy(&opt->admin_values, &k->admin_values) < 0)
        r = token_fail(why, -ENOMEM, "no memory");
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

/* The keys of the configured files. Without a set each algorithm must have its key, or one kind of
 * algorithm is done without. */
static int load_files(struct token_keys *k, const struct options *opt, bool has_set,
                      const struct token_reason *why)
{
    const char *secret_file = opt->jwt_secret_file ? opt->jwt_secret_file : "";
    const char *public_file = opt->jwt_public_key_file ? opt->jwt_public_key_file : "";
    int r = 0;
    if (!has_set && !*secret_file && *public_file && public_user(k))
        disallow(k, true);
    else if (!has_set && !*public_file && *secret_file && k->mint_with)
        disallow(k, false);
    if (k->mint_with && (*secret_file || !has_set))
        r = load_secret(k, secret_file, k->mint_with->name, why);
    if (r == 0 && public_user(k) && (*public_file || !has_set))
        r = load_public(k, public_file, has_set, why);
    return r;
}

int token_keys_load(const struct options *opt, struct token_keys **out, char *why, size_t cap)
{
    struct token_reason reason = {why, cap};
    struct token_keys *k;
    bool has_set = opt->jwt_jwks_file && opt->jwt_jwks_file[0];
    int r = make_rules(opt, &k, &reason);
    if (r < 0)
        return r;
    r = load_files(k, opt, has_set, &reason);
    if (r == 0 && has_set)
        r = load_set(k, opt, &reason);
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
    struct token_reason reason = {unused, sizeof unused};
    struct token_keys *k;
    int r = make_rules(opt, &k, &reason);
    if (r < 0)
        return r;
    disallow(k, false);
    r = k->mint_with ? token_key_from_secret(next_file_key(k), secret, len) : -EINVAL;
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
    for (size_t i = 0; i < k->file_count; i++)
        token_key_fini(&k->files[i]);
    token_keyset_fini(&k->jwks);
    token_known_free(k->known);
    text_list_free(&k->notes);
    free(k->issuer);
    free(k->audience);
    free_claim(&k->user);
    free_claim(&k->admin);
    text_list_free(&k->admin_values);
    free(k);
}
