#include "config.h"

#include "workers/proxyhead.h"

#include <errno.h>
#include <string.h>

#define V1_MAX_BYTES 107 /* with CR LF */
#define V2_HEAD_BYTES 16
#define V2_SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V2_SIGNATURE_BYTES 12

enum { V2_LOCAL = 0x20, V2_PROXY = 0x21 };
enum { V2_UNSPEC = 0, V2_INET = 1, V2_INET6 = 2, V2_UNIX = 3 }; /* high half of the byte */

/* Bytes that the addresses of a family take. */
static const size_t v2_sizes[] = {[V2_UNSPEC] = 0, [V2_INET] = 12, [V2_INET6] = 36,
                                  [V2_UNIX] = 216};

/* ---- version 1 ---- */

/* The next word of a line, after exactly one blank; none left: len 0. */
static struct text_span next_word(struct text_span *rest)
{
    struct text_span word = {rest->ptr, 0};
    while (word.len < rest->len && rest->ptr[word.len] != ' ')
        word.len++;
    size_t step = word.len < rest->len ? word.len + 1 : word.len;
    rest->ptr += step;
    rest->len -= step;
    return word;
}

static bool is_port(struct text_span word)
{
    unsigned value = 0;
    if (!word.len || word.len > 5 || (word.len > 1 && word.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < word.len; i++) {
        if (word.ptr[i] < '0' || word.ptr[i] > '9')
            return false;
        value = value * 10 + (unsigned)(word.ptr[i] - '0');
    }
    return value <= 65535;
}

/* An address of the family that the line names, and nothing around it. */
static bool read_v1_address(struct text_span word, bool is_v6, struct ip *out)
{
    if (memchr(word.ptr, '[', word.len) || !memchr(word.ptr, ':', word.len) == is_v6)
        return false;
    return ip_parse(word, out) == 0;
}

static bool read_v1_line(struct text_span line, struct ip *source)
{
    struct ip from, to;
    if (!text_span_eq(next_word(&line), "PROXY"))
        return false;
    struct text_span family = next_word(&line);
    *source = (struct ip){{0}};
    if (text_span_eq(family, "UNKNOWN"))
        return true; /* whatever follows */
    bool is_v6 = text_span_eq(family, "TCP6");
    if (!is_v6 && !text_span_eq(family, "TCP4"))
        return false;
    if (!read_v1_address(next_word(&line), is_v6, &from) ||
        !read_v1_address(next_word(&line), is_v6, &to) || !is_port(next_word(&line)) ||
        !is_port(next_word(&line)) || line.len)
        return false;
    *source = from;
    return true;
}

static int read_v1(const unsigned char *bytes, size_t len, struct ip *source)
{
    static const char begin[] = "PROXY ";
    size_t known = len < sizeof(begin) - 1 ? len : sizeof(begin) - 1;
    if (memcmp(bytes, begin, known) != 0)
        return -EBADMSG;
    size_t seen = len < V1_MAX_BYTES ? len : V1_MAX_BYTES;
    const unsigned char *end = memchr(bytes, '\r', seen);
    if (!end || end + 1 == bytes + seen)
        return seen == V1_MAX_BYTES ? -EBADMSG : 0;
    struct text_span line = {(const char *)bytes, (size_t)(end - bytes)};
    if (end[1] != '\n' || !read_v1_line(line, source))
        return -EBADMSG;
    return (int)line.len + 2;
}

/* ---- version 2 ---- */

static int read_v2(const unsigned char *bytes, size_t len, struct ip *source)
{
    size_t known = len < V2_SIGNATURE_BYTES ? len : V2_SIGNATURE_BYTES;
    if (memcmp(bytes, V2_SIGNATURE, known) != 0)
        return -EBADMSG;
    if (len < V2_HEAD_BYTES)
        return 0;
    unsigned command = bytes[12], family = bytes[13] >> 4, transport = bytes[13] & 0xf;
    size_t rest = (size_t)bytes[14] << 8 | bytes[15];
    if ((command != V2_LOCAL && command != V2_PROXY) || V2_HEAD_BYTES + rest > PROXYHEAD_MAX_BYTES)
        return -EBADMSG;
    /* Of LOCAL the receiver must not look at the rest. */
    if (command == V2_PROXY && (family > V2_UNIX || transport > 2 || rest < v2_sizes[family]))
        return -EBADMSG;
    if (len < V2_HEAD_BYTES + rest)
        return 0;
    *source = (struct ip){{0}};
    if (command == V2_PROXY && family == V2_INET)
        *source = ip_from_v4(bytes + V2_HEAD_BYTES);
    else if (command == V2_PROXY && family == V2_INET6)
        memcpy(source->bytes, bytes + V2_HEAD_BYTES, sizeof(source->bytes));
    return (int)(V2_HEAD_BYTES + rest);
}

int proxyhead_read(const unsigned char *bytes, size_t len, struct ip *source)
{
    if (!len)
        return 0;
    return bytes[0] == V2_SIGNATURE[0] ? read_v2(bytes, len, source)
                                       : read_v1(bytes, len, source);
}
