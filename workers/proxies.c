#include "config.h"

#include "workers/proxies.h"

#include <stdlib.h>
#include <string.h>

#define HOPS_MAX 32 /* looked at; who stands behind more has put them there */

struct proxies {
    bool has_unix;
    size_t count;
    struct ip_range ranges[];
};

struct proxies *proxies_new(const struct text_list *words)
{
    struct proxies *p = calloc(1, sizeof(*p) + words->count * sizeof(p->ranges[0]));
    const char *reason;
    if (!p)
        return NULL;
    for (size_t i = 0; i < words->count; i++) {
        if (!strcmp(words->items[i], "unix"))
            p->has_unix = true;
        else if (ip_range_parse(words->items[i], &p->ranges[p->count], &reason) == 0)
            p->count++;
    }
    return p;
}

void proxies_free(struct proxies *p)
{
    free(p);
}

bool proxies_trust(const struct proxies *p, const struct ip *ip)
{
    for (size_t i = 0; i < p->count; i++)
        if (ip_range_has(&p->ranges[i], ip))
            return true;
    return false;
}

bool proxies_trust_unix(const struct proxies *p)
{
    return p->has_unix;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Takes the last item off a comma-separated list. */
static struct text_span take_last(struct text_span *list)
{
    size_t start = list->len;
    while (start > 0 && list->ptr[start - 1] != ',')
        start--;
    struct text_span item = {list->ptr + start, list->len - start};
    list->len = start ? start - 1 : 0;
    while (item.len && is_blank(item.ptr[0]))
        item.ptr++, item.len--;
    while (item.len && is_blank(item.ptr[item.len - 1]))
        item.len--;
    return item;
}

bool proxies_client(const struct proxies *p, struct text_span forwarded_for, struct ip *out)
{
    struct ip ip;
    bool is_found = false;
    for (int hop = 0; hop < HOPS_MAX && forwarded_for.len; hop++) {
        if (ip_parse(take_last(&forwarded_for), &ip) < 0)
            break;
        *out = ip;
        is_found = true;
        if (!proxies_trust(p, &ip))
            break;
    }
    return is_found;
}
