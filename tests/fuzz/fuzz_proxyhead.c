/*
 * fuzz_proxyhead.c - whose connection a proxy says it brings (workers/proxyhead.c), and addresses
 * as proxies write them (shared/ip.c). The input is the head of a connection.
 *
 * Holds: a header is as long as it says, and the same with anything behind it; of one that is cut
 * short no more is told than that; an address that is read and written is read as the same.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "workers/proxyhead.h"

static int read_head(const uint8_t *data, size_t size, struct ip *source)
{
    char *copy = fuzz_copy((struct text_span){(const char *)data, size});
    int used = proxyhead_read((unsigned char *)copy, size, source);
    FUZZ_CHECK(used == 0 || used == -EBADMSG || (used > 0 && (size_t)used <= size));
    FUZZ_CHECK(used <= PROXYHEAD_MAX_BYTES);
    free(copy);
    return used;
}

static void check_address(struct text_span text)
{
    struct ip ip, again;
    char out[IP_TEXT_BYTES];
    if (ip_parse(text, &ip) != 0)
        return;
    FUZZ_CHECK(ip_is_none(&ip) || ip_customer(&ip) != 0);
    ip_format(&ip, out);
    if (!ip_is_none(&ip))
        FUZZ_CHECK(ip_parse(text_span_of(out), &again) == 0 && !memcmp(&ip, &again, sizeof(ip)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ip source, part;
    struct ip_range range;
    const char *why = NULL;
    int used = read_head(data, size, &source);
    for (size_t cut = 0; used > 0 && cut < (size_t)used; cut++)
        FUZZ_CHECK(read_head(data, cut, &part) == 0);
    if (used > 0) {
        FUZZ_CHECK(read_head(data, (size_t)used, &part) == used);
        FUZZ_CHECK(!memcmp(&source, &part, sizeof(part)));
    }
    char *text = fuzz_text((struct text_span){(const char *)data, size});
    check_address(text_span_of(text));
    if (ip_range_parse(text, &range, &why) == 0)
        FUZZ_CHECK(range.bits <= 128 &&
                   (ip_is_none(&range.first) || ip_range_has(&range, &range.first)));
    else
        FUZZ_CHECK(why && *why);
    free(text);
    return 0;
}
