/*
 * base64url.h - RFC 4648, section 5, without padding, as RFC 7515, section 2, has it. PURE.
 */
#ifndef BELFRY_SHARED_BASE64URL_H
#define BELFRY_SHARED_BASE64URL_H

#include <stddef.h>

#include "shared/text.h"

/* Decodes what has exactly one spelling: unused bits must be zero, so that one token has one text.
 * Length, at least 1, or -EINVAL (also when it is more than cap). */
long base64url_decode(struct text_span in, unsigned char *out, size_t cap);

#endif
