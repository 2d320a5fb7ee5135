/*
 * tlsio.h - OpenSSL as non-blocking read and write. TLS 1.2 and 1.3 (RFC 5246, RFC 8446), only
 * ciphers with forward secrecy and authenticated encryption (RFC 9325), no renegotiation, no
 * compression, no early data; sessions are resumed by tickets alone.
 *
 * Reads should offer at least 16 KB: then a record is taken whole and nothing readable hides inside
 * OpenSSL where no poll sees it. Where the kernel can (kTLS), it does the encryption.
 */
#ifndef BELFRY_WORKERS_TLSIO_H
#define BELFRY_WORKERS_TLSIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "shared/tickets.h"

struct tls_server; /* certificate and settings of one snapshot */
struct tlsio;      /* one connection */

/* What is wrong with a pair of files. */
enum tls_fault { TLS_FAULT_NONE, TLS_FAULT_CERTIFICATE, TLS_FAULT_KEY, TLS_FAULT_MEMORY };

/* Why a handshake failed. */
enum tls_failure {
    TLS_FAILURE_PROTOCOL,   /* messages that break the protocol */
    TLS_FAILURE_NOT_TLS,    /* something else was spoken from the first byte */
    TLS_FAILURE_PLAIN_HTTP, /* and that was HTTP */
    TLS_FAILURE_NO_COMMON,  /* no version, cipher or application protocol that both know */
    TLS_FAILURE_ALERT,      /* the client gave up: as a rule it does not trust the certificate */
    TLS_FAILURE_LEFT        /* the client is gone */
};

/* OpenSSL reads its configuration now, and opens no file for itself later. */
void tls_prepare(void);
/* From PEM texts. session_ms: for how long a session may be resumed; 0: not at all. NULL when
 * certificate and key cannot be used: then *fault and a text in why (no secrets, no file names). */
struct tls_server *tls_server_new(const char *certificate_pem, const char *key_pem,
                                  int64_t session_ms, enum tls_fault *fault, char *why, size_t cap);
void tls_server_free(struct tls_server *s);
/* Keys of tickets from now on; copied. Without any, sessions are resumed on this server only. */
void tls_server_set_tickets(struct tls_server *s, const struct tickets *t);
/* Between which wall-clock times the certificate is valid. */
void tls_server_validity(const struct tls_server *s, int64_t *from_ms, int64_t *until_ms);

/* fd stays the caller's. Costs next to nothing before the first tlsio_handshake. NULL without
 * memory. */
struct tlsio *tlsio_new(struct tls_server *s, int fd);
void tlsio_free(struct tlsio *t);
/* 1 done; 0 more is needed (events: EV_READ or EV_WRITE to wait for); negative errno: failed. */
int tlsio_handshake(struct tlsio *t, int *events);
/* After a handshake that failed; *detail (may be NULL): OpenSSL's words, borrowed for ever. */
enum tls_failure tlsio_failure(const struct tlsio *t, const char **detail);
/* After one that succeeded. */
bool tlsio_is_resumed(const struct tlsio *t);
bool tlsio_is_in_kernel(const struct tlsio *t); /* what is sent is encrypted there */
/* Bytes read; 0 end of stream; -EAGAIN with *events; other negative errno. */
ssize_t tlsio_read(struct tlsio *t, void *buf, size_t len, int *events);
/* Bytes taken (may be fewer); -EAGAIN with *events; other negative errno. Taken bytes may still
 * wait inside for the socket, so that the caller's queue may change meanwhile: tlsio_has_pending
 * tells, and the next call (count may be 0) writes them first. */
ssize_t tlsio_writev(struct tlsio *t, const struct iovec *iov, int count, int *events);
bool tlsio_has_pending(const struct tlsio *t);
/* Sends close_notify if that works at once. */
void tlsio_shutdown(struct tlsio *t);

#endif
