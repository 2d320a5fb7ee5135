#include "config.h"

#include "workers/tlsio.h"

#include <errno.h>
#include <ev.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_BYTES 16384
#define CIPHERS_TLS12 "ECDHE+AESGCM:ECDHE+CHACHA20"

struct tls_server {
    SSL_CTX *context;
};

struct tlsio {
    SSL *ssl;
    unsigned char *pending; /* taken from the caller, refused by the socket */
    size_t pending_len, pending_done;
    bool is_broken; /* after a fatal error nothing may be called but SSL_free */
};

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

/* Browsers offer h2 first; only HTTP/1.1 is spoken here. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned int in_len, void *data)
{
    static const unsigned char ours[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
    unsigned char *chosen;
    (void)ssl;
    (void)data;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void configure(SSL_CTX *context)
{
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(context, CIPHERS_TLS12);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE);
#ifdef SSL_OP_IGNORE_UNEXPECTED_EOF
    /* Clients that vanish without close_notify are daily life, and frames tell their own end. */
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
#endif
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
}

struct tls_server *tls_server_new(const char *certificate_pem, const char *key_pem, char *why,
                                  size_t cap)
{
    struct tls_server *s = calloc(1, sizeof *s);
    const char *problem = NULL;
    ERR_clear_error();
    if (!s || !(s->context = SSL_CTX_new(TLS_server_method()))) {
        problem = "out of memory";
    } else {
        configure(s->context);
        if (!use_certificate(s->context, certificate_pem))
            problem = "tls-certificate: no usable certificate in PEM form";
        else if (!use_key(s->context, key_pem))
            problem = "tls-key: no usable private key in PEM form, or not the certificate's";
        else if (SSL_CTX_check_private_key(s->context) != 1)
            problem = "tls-key: is not the key of tls-certificate";
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
    free(s);
}

/* ---- one connection ---- */

struct tlsio *tlsio_new(struct tls_server *s, int fd)
{
    struct tlsio *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->ssl = SSL_new(s->context);
    if (!t->ssl || SSL_set_fd(t->ssl, fd) != 1) {
        ERR_clear_error();
        tlsio_free(t);
        return NULL;
    }
    SSL_set_accept_state(t->ssl);
    return t;
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
    int result = SSL_do_handshake(t->ssl);
    if (result == 1)
        return 1;
    result = explain(t, result, events);
    return result == -EAGAIN ? 0 : result == 0 ? -ECONNRESET : result;
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
    if (t->is_broken || !SSL_is_init_finished(t->ssl) || tlsio_has_pending(t))
        return;
    prepare();
    SSL_shutdown(t->ssl);
    ERR_clear_error();
}
