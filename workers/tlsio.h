/*
 * tlsio.h - OpenSSL as non-blocking read and write. TLS 1.2 and 1.3.
 *
 * Reads should offer at least 16 KB: then a record is taken whole and nothing readable hides inside
 * OpenSSL where no poll sees it.
 */
#ifndef BELFRY_WORKERS_TLSIO_H
#define BELFRY_WORKERS_TLSIO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls_server; /* certificate and settings of one snapshot */
struct tlsio;      /* one connection */

/* From PEM texts. NULL and a text in why (no secrets) when certificate and key cannot be used. */
struct tls_server *tls_server_new(const char *certificate_pem, const char *key_pem, char *why,
                                  size_t cap);
void tls_server_free(struct tls_server *s);

/* fd stays the caller's. NULL without memory. */
struct tlsio *tlsio_new(struct tls_server *s, int fd);
void tlsio_free(struct tlsio *t);
/* 1 done; 0 more is needed (events: EV_READ or EV_WRITE to wait for); negative errno: failed. */
int tlsio_handshake(struct tlsio *t, int *events);
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
