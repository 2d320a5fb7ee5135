/*
 * deflate.h - permessage-deflate for one worker (zlib). RFC 7692, section 7.2; RFC 1951. The only
 * file that knows zlib.
 *
 * No context is kept from one message to the next, on either side: so a message is deflated once
 * for all devices that may get it, and a quiet connection owns no window. A worker has one context
 * for inflating and, for each size of window, one for deflating; each is made when it is first
 * needed. Counts what it does.
 *
 * Takes hostile bytes: deflate_unpack() writes no more than it is allowed, and stops there.
 */
#ifndef BELFRY_WORKERS_DEFLATE_H
#define BELFRY_WORKERS_DEFLATE_H

#include <stddef.h>
#include <sys/types.h>

#include "shared/text.h"

#define DEFLATE_WINDOW_MIN 8
#define DEFLATE_WINDOW_MAX 15
/* Longer messages go plain: deflating this much takes some 6 ms, in which a worker does nothing
 * else. */
#define DEFLATE_MAX_BYTES (1 << 20)

struct deflate;

/* Messages under threshold_bytes are not to be deflated. NULL without memory. */
struct deflate *deflate_new(size_t threshold_bytes);
void deflate_free(struct deflate *d); /* accepts NULL */

/* For a message of len bytes and a reader whose window has allowed_bits: the window to deflate it
 * with, or 0: it is to go plain. */
int deflate_window(const struct deflate *d, size_t len, int allowed_bits);
/* Deflates a whole message with a window that deflate_window() told. The length in out, less than
 * cap; -ENOSPC: it does not fit; -ENOMEM. */
ssize_t deflate_pack(struct deflate *d, int window_bits, const void *in, size_t len,
                     unsigned char *out, size_t cap);
/* Inflates a whole message, appending to out. 0; -EMSGSIZE: it has more than max_bytes, of which
 * not much more were made; -EBADMSG: it is no message; -ENOMEM. */
int deflate_unpack(struct deflate *d, const void *in, size_t len, size_t max_bytes,
                   struct text_buf *out);
/* Bytes that a message of len bytes may take when it is deflated badly, but not in bad faith. */
size_t deflate_bound(size_t len);

#endif
