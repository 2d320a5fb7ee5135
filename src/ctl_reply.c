#include "config.h"

#include "src/ctl_reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/json.h"

struct text_span ctl_reply_span(const struct text_buf *reply)
{
    return (struct text_span){reply->data, reply->len};
}

const char *ctl_text(struct text_span value, char *out, size_t cap)
{
    long n = json_string_decode(value, out, cap - 1);
    out[n > 0 ? n : 0] = '\0';
    for (char *p = out; (p = strchr(p, '\n'));)
        *p = ' ';
    text_tame(out);
    return out;
}

const char *ctl_text_of(struct text_span object, const char *name, char *out, size_t cap)
{
    struct text_span value;
    out[0] = '\0';
    return json_find(object, name, &value) ? ctl_text(value, out, cap) : out;
}

long long ctl_number_of(struct text_span object, const char *name)
{
    struct text_span value;
    long long n = 0;
    char text[32];
    if (json_find(object, name, &value) && value.len < sizeof(text)) {
        memcpy(text, value.ptr, value.len);
        text[value.len] = '\0';
        n = strtoll(text, NULL, 10);
    }
    return n;
}

double ctl_real_of(struct text_span object, const char *name)
{
    struct text_span value;
    char text[40];
    if (!json_find(object, name, &value) || json_kind(value) != JSON_KIND_NUMBER ||
        value.len >= sizeof(text))
        return 0;
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    return strtod(text, NULL);
}

bool ctl_is_true(struct text_span object, const char *name)
{
    struct text_span value;
    return json_find(object, name, &value) && text_span_eq(value, "true");
}

bool ctl_has(struct text_span object, const char *name)
{
    struct text_span value;
    return json_find(object, name, &value) && !text_span_eq(value, "null");
}

struct text_span ctl_object_of(struct text_span object, const char *name)
{
    struct text_span value;
    if (json_find(object, name, &value) && json_kind(value) == JSON_KIND_OBJECT)
        return value;
    return text_span_of("{}");
}

long long ctl_nested(struct text_span object, const char *a, const char *name)
{
    struct text_span inner;
    return json_find(object, a, &inner) ? ctl_number_of(inner, name) : 0;
}

void ctl_add_duration(struct text_buf *b, long long s)
{
    if (s >= 86400)
        text_addf(b, "%lldd %lldh", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        text_addf(b, "%lldh %lldm", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        text_addf(b, "%lldm %llds", s / 60, s % 60);
    else
        text_addf(b, "%llds", s);
}

void ctl_add_bytes(struct text_buf *b, double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t i = 0;
    for (; bytes >= 999.5 && i + 1 < sizeof(units) / sizeof(units[0]); i++)
        bytes /= 1000;
    text_addf(b, i && bytes < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[i]);
}

void ctl_add_latency(struct text_buf *b, struct text_span rates)
{
    struct text_span latency = ctl_object_of(rates, "delivery_ms");
    if (ctl_has(latency, "p50"))
        text_addf(b, "; delivered in %.2f ms, 99 %% in %.2f ms", ctl_real_of(latency, "p50"),
                  ctl_real_of(latency, "p99"));
}

bool ctl_has_colour(void)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && (!no_color || !*no_color) && term && strcmp(term, "dumb") != 0;
}

void ctl_add_state(struct text_buf *b, const char *state, int width, bool has_colour)
{
    static const char *const good[] = {"running", "ready", "up", "open", "live"};
    static const char *const bad[] = {"failing", "backoff", "DOWN", "REFUSED"};
    int colour = 33;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!strcmp(state, good[i]))
            colour = 32;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (!strcmp(state, bad[i]))
            colour = 31;
    if (has_colour)
        text_addf(b, "\033[%dm%-*s\033[0m", colour, width, state);
    else
        text_addf(b, "%-*s", width, state);
}
