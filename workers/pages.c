#include "config.h"

#include "workers/pages.h"

#include "workers/api.h"

/* Scripts, styles and sockets of the page's own server, and nothing else from anywhere. */
#define POLICY \
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; " \
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; " \
    "frame-ancestors 'none'\r\n"

const struct page *pages_find(const struct pages *pages, struct text_span path)
{
    for (size_t i = 0; pages && i < pages->count; i++) {
        if (text_span_eq(path, pages->items[i].route))
            return &pages->items[i];
    }
    return NULL;
}

/* Accept-Encoding names gzip, and not with a weight of zero. */
static bool takes_gzip(const struct http *h)
{
    struct text_span accepted, item;
    if (!http_header(h, "Accept-Encoding", &accepted))
        return false;
    while (http_list_next(&accepted, &item)) {
        size_t len = 0;
        while (len < item.len && item.ptr[len] != ';' && item.ptr[len] != ' ')
            len++;
        if (!text_span_ieq((struct text_span){item.ptr, len}, "gzip"))
            continue;
        struct text_span weight = {item.ptr + len, item.len - len};
        while (weight.len && (*weight.ptr == ';' || *weight.ptr == ' '))
            weight = (struct text_span){weight.ptr + 1, weight.len - 1};
        return !text_span_ieq(weight, "q=0") && !text_span_ieq(weight, "q=0.0") &&
               !text_span_ieq(weight, "q=0.00") && !text_span_ieq(weight, "q=0.000");
    }
    return false;
}

/* If-None-Match compares weakly: a W/ in front says nothing. */
static bool has_it(const struct http *h, const struct page *page)
{
    struct text_span tags, tag;
    if (!http_header(h, "If-None-Match", &tags))
        return false;
    while (http_list_next(&tags, &tag)) {
        if (tag.len > 2 && tag.ptr[0] == 'W' && tag.ptr[1] == '/')
            tag = (struct text_span){tag.ptr + 2, tag.len - 2};
        if (text_span_eq(tag, "*") || text_span_eq(tag, page->etag))
            return true;
    }
    return false;
}

void pages_serve(const struct request *rq, const struct page *page)
{
    struct text_buf headers = {0};
    bool is_gzip = page->gzip.len > 0 && takes_gzip(rq->http);
    text_addf(&headers, "Cache-Control: %s\r\nETag: W/%s\r\nVary: Accept-Encoding\r\n",
              page->is_asset ? "public, max-age=31536000, immutable" : "no-cache", page->etag);
    text_adds(&headers, "Referrer-Policy: no-referrer\r\n" POLICY);
    if (has_it(rq->http, page)) {
        reply_with_headers(rq->reply, 304, NULL, &headers, (struct text_span){NULL, 0});
        return;
    }
    if (is_gzip)
        text_adds(&headers, "Content-Encoding: gzip\r\n");
    reply_with_headers(rq->reply, 200, page->content_type, &headers,
                       is_gzip ? page->gzip : page->plain);
}
