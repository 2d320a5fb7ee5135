/*
 * extensions.h - PURE: the header Sec-WebSocket-Extensions, as far as Belfry knows any extension:
 * permessage-deflate. RFC 6455, section 9.1; RFC 7692, sections 5 and 7.1.
 */
#ifndef BELFRY_WORKERS_EXTENSIONS_H
#define BELFRY_WORKERS_EXTENSIONS_H

#include <stdbool.h>

#include "shared/text.h"

struct extensions_deflate {
    int window_bits;      /* 8 to 15: no distance in what the server sends may be longer */
    bool is_window_asked; /* the offer says so, and the answer must */
};

/* Chooses the first offer of permessage-deflate that can be kept to. One with an unknown or
 * malformed parameter, or with one that stands there twice, is passed over. False: there is none.
 */
bool extensions_choose(struct text_span offers, struct extensions_deflate *out);
/* Appends the value of the header that accepts it: neither side keeps a context. */
void extensions_answer(const struct extensions_deflate *chosen, struct text_buf *out);

#endif
