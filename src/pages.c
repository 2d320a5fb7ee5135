#include "config.h"

#include "src/pages.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define TOKEN_MARK "@TOKEN@"
#define MAX_BYTES ((size_t)8 << 20) /* of one file, unpacked */
#define GZIP_BITS (15 + 16)         /* zlib: the largest window, gzip's head */

/* ---- packing ---- */

static int unpack(const struct pages_file *file, struct text_buf *out)
{
    char buf[16384];
    z_stream z = {.next_in = (Bytef *)(uintptr_t)file->gzip, .avail_in = (uInt)file->gzip_bytes};
    int result = inflateInit2(&z, GZIP_BITS);
    if (result != Z_OK)
        return -ENOMEM;
    while (result == Z_OK && out->len < MAX_BYTES) {
        z.next_out = (Bytef *)buf;
        z.avail_out = sizeof(buf);
        result = inflate(&z, Z_NO_FLUSH);
        text_add(out, buf, sizeof(buf) - z.avail_out);
    }
    inflateEnd(&z);
    if (result != Z_STREAM_END)
        return -EBADMSG;
    return out->failed ? -ENOMEM : 0;
}

static int pack(struct text_span plain, struct text_span *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)plain.ptr, .avail_in = (uInt)plain.len};
    if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, GZIP_BITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    uLong bound = deflateBound(&z, (uLong)plain.len);
    char *packed = malloc(bound);
    z.next_out = (Bytef *)packed;
    z.avail_out = (uInt)bound;
    int result = packed ? deflate(&z, Z_FINISH) : Z_MEM_ERROR;
    if (result == Z_STREAM_END)
        *out = (struct text_span){packed, bound - z.avail_out};
    else
        free(packed);
    deflateEnd(&z);
    return result == Z_STREAM_END ? 0 : -ENOMEM;
}

/* ---- one page ---- */

/* FNV-1a, 64 bits: tells versions of one file apart, and is no secret. */
static void set_etag(struct page *page)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < page->plain.len; i++)
        hash = (hash ^ (unsigned char)page->plain.ptr[i]) * UINT64_C(1099511628211);
    snprintf(page->etag, sizeof(page->etag), "\"%016llx\"", (unsigned long long)hash);
}

/* Takes body over. */
static void add_page(struct pages *p, const char *route, const char *content_type,
                     struct text_buf *body)
{
    struct page *page = &p->items[p->count++];
    *page = (struct page){.route = route, .content_type = content_type};
    page->plain = (struct text_span){body->data, body->len};
    page->is_asset = strstr(route, "-assets/") != NULL;
    set_etag(page);
}

static void add_with_token(struct text_buf *out, const char *html, size_t len, const char *token)
{
    const char *mark = memmem(html, len, TOKEN_MARK, strlen(TOKEN_MARK));
    size_t before = mark ? (size_t)(mark - html) : len;
    text_add(out, html, before);
    if (!mark)
        return;
    text_adds(out, token ? token : "");
    before += strlen(TOKEN_MARK);
    text_add(out, html + before, len - before);
}

static int add_text(struct pages *p, const struct pages_text *text, const char *token)
{
    struct text_buf body = {0};
    add_with_token(&body, text->text, strlen(text->text), token);
    if (body.failed) {
        text_buf_free(&body);
        return -ENOMEM;
    }
    add_page(p, text->route, text->content_type, &body);
    return pack(p->items[p->count - 1].plain, &p->items[p->count - 1].gzip);
}

static int add_file(struct pages *p, const struct pages_file *file, const char *token)
{
    struct text_buf plain = {0};
    int error = unpack(file, &plain);
    if (!error && !strncmp(file->content_type, "text/html", strlen("text/html")))
        error = add_text(p, &(struct pages_text){file->route, file->content_type, plain.data},
                         token);
    else if (!error) {
        add_page(p, file->route, file->content_type, &plain);
        p->items[p->count - 1].gzip =
            (struct text_span){(const char *)file->gzip, file->gzip_bytes};
        return 0;
    }
    text_buf_free(&plain);
    return error;
}

/* ---- all ---- */

/* Names of assets begin with the page's. */
static bool is_demo(const struct pages_file *file)
{
    return !strcmp(file->route, "/") || strstr(file->route, "-assets/demo-");
}

int pages_make(bool with_demo, const char *token, struct pages **out)
{
    size_t count = 0, plain_count = 0;
    int error = 0;
    while (pages_files[count].route)
        count++;
    while (pages_plain[plain_count].route)
        plain_count++;
    struct pages *p = calloc(1, sizeof(*p));
    if (p)
        p->items = calloc(count + plain_count, sizeof(*p->items));
    if (!p || !p->items) {
        free(p);
        return -ENOMEM;
    }
    for (size_t i = 0; i < count && !error; i++) {
        if (with_demo || !is_demo(&pages_files[i]))
            error = add_file(p, &pages_files[i], token);
    }
    bool is_plain = with_demo && !error && !pages_find(p, text_span_of("/"));
    for (size_t i = 0; i < plain_count && is_plain && !error; i++)
        error = add_text(p, &pages_plain[i], token);
    if (error)
        pages_free(p);
    else
        *out = p;
    return error;
}

static bool is_embedded(const char *gzip)
{
    for (const struct pages_file *file = pages_files; file->route; file++) {
        if ((const char *)file->gzip == gzip)
            return true;
    }
    return false;
}

static void wipe(struct text_span s)
{
    if (s.ptr)
        explicit_bzero((char *)(uintptr_t)s.ptr, s.len);
    free((char *)(uintptr_t)s.ptr);
}

void pages_free(struct pages *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++) {
        wipe(p->items[i].plain);
        if (!is_embedded(p->items[i].gzip.ptr))
            wipe(p->items[i].gzip);
    }
    free(p->items);
    free(p);
}
