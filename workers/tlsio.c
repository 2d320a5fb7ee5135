#include "config.h"

#include "workers/tlsio.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RECORD_BYTES 16384
#define CIPHERS_TLS12 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define SECURITY_LEVEL 2 /* keys of 112 bits of strength at least: RSA with 2048, no SHA-1 */

struct tls_server {
    SSL_CTX *context;
    struct tickets tickets;
    bool has_tickets;
};

struct tlsio {
    struct tls_server *server;
    SSL *ssl;               /* NULL before the first byte of the handshake */
    unsigned char *pending; /* taken from the caller, refused by the socket */
    size_t pending_len, pending_done;
    unsigned long error; /* OpenSSL's, of the handshake that failed; 0: none, the peer is gone */
    int fd;
    bool is_broken; /* after a fatal error nothing may be called but SSL_free */
};

void tls_prepare(void)
{
    OPENSSL_init_ssl(OPENSSL_INIT_LOAD_SSL_STRINGS, NULL);
    ERR_clear_error();
}

/* ---- one certificate ---- */

/* A key with a passphrase must fail, not ask a terminal. */
static int no_passphrase(char *buf, int size, int is_writing, void *data)
{
    (void)buf;
    (void)size;
    (void)is_writing;
    (void)data;
    return -1;
}

static bool use_certificate(SSL_CTX *context, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *leaf = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    bool is_good = leaf && SSL_CTX_use_certificate(context, leaf) == 1;
    X509 *issuer;
    X509_free(leaf);
    while (is_good && (issuer = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
        if (SSL_CTX_add0_chain_cert(context, issuer) != 1) {
            X509_free(issuer);
            is_good = false;
        }
    }
    BIO_free(bio);
    if (is_good)
        ERR_clear_error(); /* "no start line" is how the chain ends */
    return is_good;
}

static bool use_key(SSL_CTX *context, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    bool is_good = key && SSL_CTX_use_PrivateKey(context, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return is_good;
}

/* Browsers may offer h2 first; only HTTP/1.1 is spoken here, and who speaks something else only is
 * told so: RFC 7301, section 3.2. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned int in_len, void *data)
{
    static const unsigned char ours[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
    unsigned char *chosen;
    (void)ssl;
    (void)data;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* ---- tickets ---- */

/* The key to seal a new ticket with, or the one that this ticket was sealed with; NULL: gone. */
static const struct ticket_key *find_key(const struct tickets *t, const unsigned char *name,
                                         bool is_new)
{
    if (is_new)
        return &t->keys[0];
    for (int i = 0; i < TICKETS_KEYS; i++)
        if (!memcmp(t->keys[i].name, name, TICKETS_NAME_BYTES))
            return &t->keys[i];
    return NULL;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 as asked, 2 the same and the client gets a new ticket,
 * 0 without this ticket, -1 failed. AES-256-CBC, then HMAC-SHA256, as RFC 5077 recommends. */
static int use_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                          EVP_MAC_CTX *mac, int is_new)
{
    const struct tls_server *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const struct ticket_key *key = find_key(&s->tickets, name, is_new);
    if (!key)
        return 0;
    if (is_new) {
        memcpy(name, key->name, TICKETS_NAME_BYTES);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
            return -1;
    }
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
        OSSL_PARAM_construct_end()};
    if (EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, is_new) != 1 ||
        EVP_MAC_CTX_set_params(mac, params) != 1)
        return -1;
    return is_new || key == &s->tickets.keys[0] ? 1 : 2;
}

void tls_server_set_tickets(struct tls_server *s, const struct tickets *t)
{
    s->tickets = *t;
    if (!s->has_tickets)
        SSL_CTX_set_tlsext_ticket_key_evp_cb(s->context, use_ticket_key);
    s->has_tickets = true;
}

/* ---- one server ---- */

static void allow_sessions(SSL_CTX *context, int64_t session_ms)
{
    /* Sessions kept here would cost memory, and other workers would not know them. */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (session_ms > 0) {
        SSL_CTX_set_timeout(context, (long)((session_ms + 999) / 1000));
    } else {
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(context, 0);
    }
}

static void configure(SSL_CTX *context, int64_t session_ms)
{
    /* What the machine's openssl.cnf asks for beyond this stays. */
    if (SSL_CTX_get_min_proto_version(context) < TLS1_2_VERSION)
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    if (SSL_CTX_get_security_level(context) < SECURITY_LEVEL)
        SSL_CTX_set_security_level(context, SECURITY_LEVEL);
    SSL_CTX_set_cipher_list(context, CIPHERS_TLS12);
    /* Our order, but for clients that put ChaCha20 first: they lack AES in hardware. Clients that
     * vanish without close_notify are daily life, and frames tell their own end. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_ENABLE_KTLS);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    /* Records without data (key updates, say) end a read, so that a stream of them does not hold
     * the loop. */
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    allow_sessions(context, session_ms);
}

/* What is wrong; NULL: nothing. */
static const char *use_pair(SSL_CTX *context, const char *certificate_pem, const char *key_pem,
                            enum tls_fault *fault)
{
    *fault = TLS_FAULT_CERTIFICATE;
    if (!use_certificate(context, certificate_pem)) {
        int reason = ERR_GET_REASON(ERR_peek_last_error());
        return reason == SSL_R_EE_KEY_TOO_SMALL || reason == SSL_R_CA_KEY_TOO_SMALL
                   ? "its key is too short (RSA needs 2048 bits)"
               : reason == SSL_R_CA_MD_TOO_WEAK ? "it is signed with a hash that is too weak"
                                                : "no usable certificate in PEM form";
    }
    *fault = TLS_FAULT_KEY;
    if (!use_key(context, key_pem))
        return "no usable private key in PEM form, or not that of tls-certificate";
    if (SSL_CTX_check_private_key(context) != 1)
        return "is not the key of tls-certificate";
    *fault = TLS_FAULT_NONE;
    return NULL;
}

struct tls_server *tls_server_new(const char *certificate_pem, const char *key_pem,
                                  int64_t session_ms, enum tls_fault *fault, char *why, size_t cap)
{
    struct tls_server *s = calloc(1, sizeof *s);
    const char *problem = "out of memory";
    ERR_clear_error();
    *fault = TLS_FAULT_MEMORY;
    if (s && (s->context = SSL_CTX_new(TLS_server_method()))) {
        configure(s->context, session_ms);
        SSL_CTX_set_app_data(s->context, s);
        problem = use_pair(s->context, certificate_pem, key_pem, fault);
    }
    ERR_clear_error();
    if (!problem)
        return s;
    snprintf(why, cap, "%s", problem);
    tls_server_free(s);
    return NULL;
}

void tls_server_free(struct tls_server *s)
{
    if (!s)
        return;
    SSL_CTX_free(s->context);
    explicit_bzero(&s->tickets, sizeof s->tickets);
    free(s);
}

static int64_t time_ms(const ASN1_TIME *when)
{
    struct tm tm;
    return ASN1_TIME_to_tm(when, &tm) == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

void tls_server_validity(const struct tls_server *s, int64_t *from_ms, int64_t *until_ms)
{
    const X509 *leaf = SSL_CTX_get0_certificate(s->context);
    *from_ms = time_ms(X509_get0_notBefore(leaf));
    *until_ms = time_ms(X509_get0_notAfter(leaf));
}

/* ---- one connection ---- */

struct tlsio *tlsio_new(struct tls_server *s, int fd)
{
    struct tlsio *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->server = s;
    t->fd = fd;
    return t;
}

static int begin(struct tlsio *t)
{
    t->ssl = SSL_new(t->server->context);
    if (!t->ssl || SSL_set_fd(t->ssl, t->fd) != 1)
        return -ENOMEM;
    SSL_set_accept_state(t->ssl);
    return 0;
}

void tlsio_free(struct tlsio *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    free(t->pending);
    free(t);
}

/* What a call that did not succeed means: 0 (end of stream), -EAGAIN with *events, another errno.
 * */
static int explain(struct tlsio *t, int result, int *events)
{
    int error = errno;
    switch (SSL_get_error(t->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        *events = EV_READ;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        *events = EV_WRITE;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        t->is_broken = true;
        return error ? -error : -ECONNRESET;
    default:
        t->is_broken = true;
        return -EPROTO;
    }
}

static void prepare(void)
{
    /* SSL_get_error looks at the thread's queue: another connection's error must not be taken for
     * this one's. */
    ERR_clear_error();
    errno = 0;
}

int tlsio_handshake(struct tlsio *t, int *events)
{
    prepare();
    if (!t->ssl && begin(t) != 0)
        return -ENOMEM;
    int result = SSL_do_handshake(t->ssl);
    if (result == 1)
        return 1;
    result = explain(t, result, events);
    if (result == -EAGAIN)
        return 0;
    t->error = result == -EPROTO ? ERR_peek_error() : 0;
    ERR_clear_error();
    return result == 0 ? -ECONNRESET : result;
}

enum tls_failure tlsio_failure(const struct tlsio *t, const char **detail)
{
    const char *words = t->error ? ERR_reason_error_string(t->error) : NULL;
    int reason = ERR_GET_REASON(t->error);
    if (detail)
        *detail = words ? words : "the client is gone";
    if (!t->error)
        return TLS_FAILURE_LEFT;
    if (reason > SSL_AD_REASON_OFFSET) /* what the client's alert said */
        return TLS_FAILURE_ALERT;
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
        return TLS_FAILURE_PLAIN_HTTP;
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_BAD_RECORD_TYPE:
        return TLS_FAILURE_NOT_TLS;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return TLS_FAILURE_LEFT;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_SUITABLE_GROUPS:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_INAPPROPRIATE_FALLBACK:
        return TLS_FAILURE_NO_COMMON;
    default:
        return TLS_FAILURE_PROTOCOL;
    }
}

bool tlsio_is_resumed(const struct tlsio *t)
{
    return SSL_session_reused(t->ssl) == 1;
}

bool tlsio_is_in_kernel(const struct tlsio *t)
{
    return BIO_get_ktls_send(SSL_get_wbio(t->ssl));
}

ssize_t tlsio_read(struct tlsio *t, void *buf, size_t len, int *events)
{
    if (t->is_broken)
        return -ECONNRESET;
    prepare();
    int n = SSL_read(t->ssl, buf, len > INT_MAX ? INT_MAX : (int)len);
    return n > 0 ? n : explain(t, n, events);
}

/* One SSL_write; 0 of it taken is -EAGAIN. */
static ssize_t write_once(struct tlsio *t, const void *bytes, size_t len, int *events)
{
    prepare();
    int n = SSL_write(t->ssl, bytes, (int)len);
    if (n > 0)
        return n;
    n = explain(t, n, events);
    return n == 0 ? -EPIPE : n;
}

static int flush_pending(struct tlsio *t, int *events)
{
    while (t->pending_done < t->pending_len) {
        ssize_t n = write_once(t, t->pending + t->pending_done, t->pending_len - t->pending_done,
                               events);
        if (n < 0)
            return (int)n;
        t->pending_done += (size_t)n;
    }
    free(t->pending);
    t->pending = NULL;
    t->pending_len = t->pending_done = 0;
    return 0;
}

/* OpenSSL has begun a record with these bytes and will insist on them. */
static ssize_t keep_pending(struct tlsio *t, const void *bytes, size_t len)
{
    t->pending = malloc(len);
    if (!t->pending) {
        t->is_broken = true;
        return -ENOMEM;
    }
    memcpy(t->pending, bytes, len);
    t->pending_len = len;
    t->pending_done = 0;
    return (ssize_t)len;
}

ssize_t tlsio_writev(struct tlsio *t, const struct iovec *iov, int count, int *events)
{
    unsigned char record[RECORD_BYTES]; /* one record for many small frames */
    size_t len = 0;
    if (t->is_broken)
        return -EPIPE;
    int error = flush_pending(t, events);
    if (error)
        return error;
    for (int i = 0; i < count && len < sizeof record; i++) {
        size_t n = iov[i].iov_len < sizeof record - len ? iov[i].iov_len : sizeof record - len;
        memcpy(record + len, iov[i].iov_base, n);
        len += n;
    }
    if (len == 0)
        return 0;
    ssize_t written = write_once(t, record, len, events);
    return written == -EAGAIN ? keep_pending(t, record, len) : written;
}

bool tlsio_has_pending(const struct tlsio *t)
{
    return t->pending_done < t->pending_len;
}

void tlsio_shutdown(struct tlsio *t)
{
    if (t->is_broken || !t->ssl || !SSL_is_init_finished(t->ssl) || tlsio_has_pending(t))
        return;
    prepare();
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}
