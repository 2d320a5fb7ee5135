#include "config.h"

#include "workers/extensions.h"

#include <ctype.h>
#include <string.h>

#include "workers/deflate.h"

#define VALUE_BYTES 8 /* no valid one of ours is longer */

/* What of a header is still to be read. */
struct cursor {
    const char *at, *end;
};

struct parameter {
    struct text_span name;
    bool has_value;
    char value[VALUE_BYTES];
};

enum { SERVER_NO_CONTEXT = 1, CLIENT_NO_CONTEXT = 2, SERVER_WINDOW = 4, CLIENT_WINDOW = 8 };

/* ---- syntax: RFC 9110, section 5.6 ---- */

static bool is_token_char(char c)
{
    return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static void skip_blanks(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
}

/* A character that may stand there, with blanks around it. */
static bool take_char(struct cursor *c, char wanted)
{
    skip_blanks(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    skip_blanks(c);
    return true;
}

static bool take_token(struct cursor *c, struct text_span *token)
{
    const char *begin = c->at;
    while (c->at < c->end && is_token_char(*c->at))
        c->at++;
    *token = (struct text_span){begin, (size_t)(c->at - begin)};
    return token->len > 0;
}

/* A token, bare or quoted (what is quoted must be one, too: RFC 6455, section 9.1). */
static bool take_value(struct cursor *c, char value[VALUE_BYTES])
{
    size_t len = 0;
    bool is_quoted = c->at < c->end && *c->at == '"';
    for (c->at += is_quoted; c->at < c->end; c->at++) {
        if (is_quoted && *c->at == '\\' && ++c->at == c->end)
            return false;
        if (!is_token_char(*c->at))
            break;
        if (len == VALUE_BYTES - 1)
            return false;
        value[len++] = *c->at;
    }
    value[len] = 0;
    if (is_quoted && (c->at == c->end || *c->at++ != '"'))
        return false;
    return len > 0;
}

static bool take_parameter(struct cursor *c, struct parameter *p)
{
    *p = (struct parameter){.name = {NULL, 0}};
    if (!take_token(c, &p->name))
        return false;
    p->has_value = take_char(c, '=');
    return !p->has_value || take_value(c, p->value);
}

/* The next offer of several; a comma within quotes ends none. */
static bool next_offer(struct cursor *all, struct cursor *offer)
{
    bool is_quoted = false;
    if (all->at == all->end)
        return false;
    offer->at = all->at;
    for (; all->at < all->end && (is_quoted || *all->at != ','); all->at++) {
        if (*all->at == '"')
            is_quoted = !is_quoted;
        else if (is_quoted && *all->at == '\\' && all->at + 1 < all->end)
            all->at++;
    }
    offer->end = all->at;
    if (all->at < all->end)
        all->at++;
    return true;
}

/* ---- permessage-deflate ---- */

/* "8" to "15", without leading zeros: RFC 7692, section 7.1.2. 0: it is no such number. */
static int window_bits(const char *value)
{
    int64_t n;
    if (value[0] == '0' || text_parse_count(value, &n) != 0 || n < DEFLATE_WINDOW_MIN ||
        n > DEFLATE_WINDOW_MAX)
        return 0;
    return (int)n;
}

/* Which parameter it is, and whether its value is valid; 0: not. */
static int read_parameter(const struct parameter *p, struct extensions_deflate *out)
{
    if (text_span_ieq(p->name, "server_no_context_takeover"))
        return p->has_value ? 0 : SERVER_NO_CONTEXT;
    if (text_span_ieq(p->name, "client_no_context_takeover"))
        return p->has_value ? 0 : CLIENT_NO_CONTEXT;
    /* What window the client uses is all the same to who inflates with the largest. */
    if (text_span_ieq(p->name, "client_max_window_bits"))
        return !p->has_value || window_bits(p->value) ? CLIENT_WINDOW : 0;
    if (!text_span_ieq(p->name, "server_max_window_bits") || !window_bits(p->value))
        return 0;
    out->window_bits = window_bits(p->value);
    out->is_window_asked = true;
    return SERVER_WINDOW;
}

static bool read_offer(struct cursor offer, struct extensions_deflate *out)
{
    struct text_span name;
    struct parameter p;
    int seen = 0;
    *out = (struct extensions_deflate){DEFLATE_WINDOW_MAX, false};
    skip_blanks(&offer);
    if (!take_token(&offer, &name) || !text_span_ieq(name, "permessage-deflate"))
        return false;
    while (take_char(&offer, ';')) {
        int which = take_parameter(&offer, &p) ? read_parameter(&p, out) : 0;
        if (!which || (seen & which))
            return false;
        seen |= which;
    }
    skip_blanks(&offer);
    return offer.at == offer.end;
}

bool extensions_choose(struct text_span offers, struct extensions_deflate *out)
{
    struct cursor all = {offers.ptr, offers.ptr + offers.len}, offer;
    struct extensions_deflate found;
    while (next_offer(&all, &offer)) {
        if (read_offer(offer, &found)) {
            *out = found;
            return true;
        }
    }
    return false;
}

void extensions_answer(const struct extensions_deflate *chosen, struct text_buf *out)
{
    text_adds(out, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
    if (chosen->is_window_asked)
        text_addf(out, "; server_max_window_bits=%d", chosen->window_bits);
}
