#include "config.h"

#include "shared/ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#define CUSTOMER_BYTES 8 /* of IPv6: a /64 */

static const unsigned char v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool ip_is_none(const struct ip *ip)
{
    static const struct ip none;
    return !memcmp(ip, &none, sizeof(none));
}

bool ip_is_v4(const struct ip *ip)
{
    return !memcmp(ip->bytes, v4_prefix, sizeof(v4_prefix));
}

struct ip ip_from_v4(const unsigned char bytes[4])
{
    struct ip ip;
    memcpy(ip.bytes, v4_prefix, sizeof(v4_prefix));
    memcpy(ip.bytes + sizeof(v4_prefix), bytes, 4);
    return ip;
}

struct ip ip_from_sockaddr(const struct sockaddr *sa)
{
    struct ip ip = {{0}};
    if (sa && sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        return ip_from_v4((const unsigned char *)&in.sin_addr);
    }
    if (sa && sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        memcpy(ip.bytes, &in6.sin6_addr, sizeof(ip.bytes));
    }
    return ip;
}

/* Digits alone, without port or brackets. */
static int parse_plain(const char *text, struct ip *out)
{
    unsigned char v4[4];
    if (inet_pton(AF_INET6, text, out->bytes) == 1)
        return 0;
    if (inet_pton(AF_INET, text, v4) != 1)
        return -EINVAL;
    *out = ip_from_v4(v4);
    return 0;
}

static bool is_port(const char *text)
{
    int64_t port;
    return text_parse_count(text, &port) == 0 && port <= UINT16_MAX;
}

int ip_parse(struct text_span text, struct ip *out)
{
    char copy[IP_TEXT_BYTES + sizeof("[]:65535")], *at = copy;
    if (!text.len || text.len >= sizeof(copy) || memchr(text.ptr, 0, text.len))
        return -EINVAL;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    char *colon = strchr(copy, ':');
    if (copy[0] == '[') {
        char *end = strchr(copy, ']');
        if (!end || (end[1] && (end[1] != ':' || !is_port(end + 2))))
            return -EINVAL;
        *end = '\0';
        at = copy + 1;
        if (!strchr(at, ':'))
            return -EINVAL;
    } else if (colon && !strchr(colon + 1, ':')) { /* one colon: of a port */
        if (!is_port(colon + 1))
            return -EINVAL;
        *colon = '\0';
    }
    struct ip ip;
    int error = parse_plain(at, &ip);
    if (!error)
        *out = ip;
    return error;
}

const char *ip_format(const struct ip *ip, char out[IP_TEXT_BYTES])
{
    out[0] = '\0';
    if (ip_is_v4(ip))
        inet_ntop(AF_INET, ip->bytes + sizeof(v4_prefix), out, IP_TEXT_BYTES);
    else if (!ip_is_none(ip))
        inet_ntop(AF_INET6, ip->bytes, out, IP_TEXT_BYTES);
    return out;
}

uint64_t ip_customer(const struct ip *ip)
{
    if (ip_is_none(ip))
        return 0;
    uint64_t hash = text_hash64(ip->bytes, ip_is_v4(ip) ? sizeof(ip->bytes) : CUSTOMER_BYTES);
    return hash ? hash : 1;
}

/* ---- ranges ---- */

static bool bit_of(const struct ip *ip, unsigned n)
{
    return ip->bytes[n / 8] >> (7 - n % 8) & 1;
}

int ip_range_parse(const char *text, struct ip_range *out, const char **reason)
{
    char address[IP_TEXT_BYTES];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    struct ip_range range;
    int64_t bits = 0;
    *reason = "not an address (ADDR or ADDR/BITS, numbers only)";
    if (len >= sizeof(address))
        return -EINVAL;
    memcpy(address, text, len);
    address[len] = '\0';
    if (parse_plain(address, &range.first) < 0)
        return -EINVAL;
    int64_t most = strchr(address, ':') ? 128 : 32;
    *reason = most == 32 ? "the bits are a number from 0 to 32"
                         : "the bits are a number from 0 to 128";
    if (slash && (text_parse_count(slash + 1, &bits) < 0 || bits > most))
        return -EINVAL;
    range.bits = (unsigned)(slash ? 128 - most + bits : 128);
    *reason = "there are bits of the address beyond those that count";
    for (unsigned n = range.bits; n < 128; n++)
        if (bit_of(&range.first, n))
            return -EINVAL;
    *out = range;
    return 0;
}

bool ip_range_has(const struct ip_range *range, const struct ip *ip)
{
    unsigned whole = range->bits / 8, rest = range->bits % 8;
    if (ip_is_none(ip) || memcmp(range->first.bytes, ip->bytes, whole) != 0)
        return false;
    return !rest || (range->first.bytes[whole] ^ ip->bytes[whole]) >> (8 - rest) == 0;
}
