/*
 * proxyhead.h - the header by which a proxy tells whose connection it brings. Workers; pure.
 *
 * PROXY protocol, versions 1 (a line) and 2 (binary), told apart by their first byte; a connection
 * without one is malformed, for a receiver must not guess. Addresses are all that is taken; TLVs
 * are passed over. https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt
 */
#ifndef BELFRY_WORKERS_PROXYHEAD_H
#define BELFRY_WORKERS_PROXYHEAD_H

#include <stddef.h>

#include "shared/ip.h"

/* A header that is longer, TLVs included, is malformed. */
#define PROXYHEAD_MAX_BYTES 2048

/* Bytes that the header takes, and *source: whose connection it is; none when the proxy speaks for
 * itself (LOCAL), does not know (UNKNOWN, UNSPEC), or has it from a unix socket. 0: the header is
 * not whole. -EBADMSG: it is none. */
int proxyhead_read(const unsigned char *bytes, size_t len, struct ip *source);

#endif
