/*
 * tlsio.h - OpenSSL as non-blocking read and write. TLS 1.2 and 1.3.
 */
#ifndef BELFRY_WORKERS_TLSIO_H
#define BELFRY_WORKERS_TLSIO_H

#include <stddef.h>
#include <sys/uio.h>
#include <sys/types.h>

struct tls_server; /* certificate and settings of one snapshot */
struct tlsio;      /* one connection */

/* From PEM texts. NULL and a text in why (no secrets) when certificate and key cannot be used. */
struct tls_server *tls_server_new(const char *certificate_pem, const char *key_pem, char *why, size_t cap);
void tls_server_free(struct tls_server *s);

struct tlsio *tlsio_new(struct tls_server *s, int fd);
void tlsio_free(struct tlsio *t);
/* 1 done; 0 more is needed (events: EV_READ or EV_WRITE to wait for); negative errno: failed. */
int tlsio_handshake(struct tlsio *t, int *events);
/* Bytes read; 0 end of stream; -EAGAIN with *events; other negative errno. */
ssize_t tlsio_read(struct tlsio *t, void *buf, size_t len, int *events);
/* Bytes written (may be fewer); -EAGAIN with *events; other negative errno. */
ssize_t tlsio_writev(struct tlsio *t, const struct iovec *iov, int count, int *events);
/* Sends close_notify if that works at once. */
void tlsio_shutdown(struct tlsio *t);

#endif
