/*
 * pages.h - files that the server serves as they are: the demo page and what belongs to it.
 *
 * Everything lies in memory, made by the master before the workers are forked (src/pages.h); a
 * worker reads no file. Answers with ETag, compressed for who takes gzip, and with a policy that
 * lets a page load from its own server only. RFC 9110, sections 8.8, 12.5.3 and 13.1.2.
 */
#ifndef BELFRY_WORKERS_PAGES_H
#define BELFRY_WORKERS_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"
#include "workers/router.h"

struct request;

#define PAGES_ETAG_BYTES 24

struct page {
    const char *route; /* path it is served at */
    const char *content_type;
    char etag[PAGES_ETAG_BYTES]; /* of the plain body, with quotes */
    bool is_asset;               /* its name changes with its content: may be kept for ever */
    struct text_span plain, gzip; /* gzip.len 0: plain only */
};

struct pages {
    size_t count;
    struct page *items;
};

/* NULL: none is served at this path. pages may be NULL. */
const struct page *pages_find(const struct pages *pages, struct text_span path);
/* Answers a GET or HEAD for the page: 200 or 304. */
void pages_serve(const struct request *rq, const struct page *page);

#endif
