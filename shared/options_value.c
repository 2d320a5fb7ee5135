#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/address.h"
#include "shared/ip.h"
#include "shared/keys.h"
#include "shared/options_priv.h"
#include "shared/redisurl.h"

#define VALUE_SHOWN_BYTES 100 /* of a bad value in a report */

static void say_value(struct text_buf *why, const char *value)
{
    text_addc(why, '"');
    text_add_escaped(why, value, strlen(value), VALUE_SHOWN_BYTES);
    text_addc(why, '"');
}

void options_suggest(const char *words, const char *value, struct text_buf *out)
{
    size_t best_distance = strlen(value) / 3 + 2;
    struct text_span best = {0};
    for (const char *p = words;;) {
        char word[32];
        size_t len = strcspn(p, "|");
        if (len < sizeof(word)) {
            memcpy(word, p, len);
            word[len] = '\0';
            size_t distance = text_distance(value, word);
            if (distance < best_distance) {
                best_distance = distance;
                best = (struct text_span){p, len};
            }
        }
        if (!p[len])
            break;
        p += len + 1;
    }
    if (best.len)
        text_addf(out, "; did you mean %.*s?", (int)best.len, best.ptr);
}

/* ---- checks of STRING and LIST values by themselves; the spec column names them ---- */

static bool check_listen(const char *value, struct text_buf *why)
{
    struct address a;
    const char *reason;
    if (!address_parse(value, &a, &reason))
        return true;
    say_value(why, value);
    text_addf(why, ": %s", reason);
    return false;
}

static bool check_listen_optional(const char *value, struct text_buf *why)
{
    return !value[0] || check_listen(value, why);
}

/* The serialised form of RFC 6454, section 6.2, which browsers send; compared as text later. */
static bool check_origin(const char *value, struct text_buf *why)
{
    const char *colon = strstr(value, "://");
    const char *host = colon ? colon + 3 : NULL;
    const char *reason = NULL;
    if (!strcmp(value, "*"))
        reason = "leave origins empty to allow all";
    else if (!host || colon == value || !host[0])
        reason = "write scheme://host[:port]";
    else if (strpbrk(host, "/?#@"))
        reason = "an origin is scheme://host[:port] without a path";
    else if (strpbrk(value, " \t\"'*"))
        reason = "blanks, quotes and * are not part of an origin";
    if (!reason)
        return true;
    say_value(why, value);
    text_addf(why, ": %s", reason);
    return false;
}

static bool check_proxy(const char *value, struct text_buf *why)
{
    struct ip_range range;
    const char *reason;
    if (!strcmp(value, "unix") || ip_range_parse(value, &range, &reason) == 0)
        return true;
    say_value(why, value);
    text_addf(why, ": %s", reason);
    return false;
}

static bool check_algorithm(const char *value, struct text_buf *why)
{
    static const char words[] =
#define ALGORITHM(NAME, KIND, hash_bytes, CURVE) #NAME "|"
#include "shared/algorithms.def"
#undef ALGORITHM
        ;
    for (const char *word = words; *word; word += strcspn(word, "|") + 1)
        if (strlen(value) == strcspn(word, "|") && !strncmp(word, value, strlen(value)))
            return true;
    say_value(why, value);
    text_adds(why, strcasecmp(value, "none") ? " is no known algorithm" : " is never accepted");
    for (const char *word = words; *word; word += strcspn(word, "|") + 1)
        text_addf(why, "%s%.*s", word == words ? " (" : ", ", (int)strcspn(word, "|"), word);
    text_addc(why, ')');
    options_suggest(words, value, why);
    return false;
}

static bool check_redis_url(const char *value, struct text_buf *why)
{
    struct redisurl url;
    const char *reason;
    int rc = redisurl_parse(value, &url, &reason);
    if (rc < 0)
        text_adds(why, reason); /* the value may hold a password */
    explicit_bzero(&url, sizeof(url));
    return !rc;
}

static bool check_user_template(const char *value, struct text_buf *why)
{
    if (keys_is_template(value))
        return true;
    say_value(why, value);
    text_adds(why, " must hold {user_id} exactly once");
    return false;
}

static bool check_nonempty(const char *value, struct text_buf *why)
{
    if (value[0])
        return true;
    text_adds(why, "must not be empty");
    return false;
}

static bool check_socket_path(const char *value, struct text_buf *why)
{
    if (strlen(value) < ADDRESS_PATH_BYTES)
        return true;
    say_value(why, value);
    text_adds(why, ": the path is too long (107 bytes)");
    return false;
}

static bool check_log_target(const char *value, struct text_buf *why)
{
    if (!strcmp(value, "stderr") || !strcmp(value, "syslog"))
        return true;
    bool is_file = !strncmp(value, "file:", 5);
    const char *path = is_file ? value + 5 : value;
    if (path[0] == '/' && path[1])
        return true;
    say_value(why, value);
    if (is_file)
        text_adds(why, ": the path must be absolute (file:/PATH)");
    else {
        text_adds(why, " is none of stderr, syslog, file:/PATH");
        options_suggest("stderr|syslog", value, why);
    }
    return false;
}

static bool check_jti_template(const char *value, struct text_buf *why)
{
    if (!value[0] || keys_is_jti_template(value))
        return true;
    say_value(why, value);
    text_adds(why, " must hold {jti} exactly once, or be empty");
    return false;
}

/* Whether files, users and groups are there is options_check's to see. */
static bool check_later(const char *value, struct text_buf *why)
{
    (void)value;
    (void)why;
    return true;
}

static const struct {
    const char *name;
    bool (*good)(const char *value, struct text_buf *why);
    bool must_have_one; /* of lists: an empty one is an error */
} checks[] = {
    {"", check_later, false},
    {"listen", check_listen, true},
    {"listen_optional", check_listen_optional, false},
    {"origins", check_origin, false},
    {"trusted_proxies", check_proxy, false},
    {"readable_file", check_later, false},
    {"user", check_later, false},
    {"group", check_later, false},
    {"socket_path", check_socket_path, false},
    {"log_target", check_log_target, false},
    {"redis_url", check_redis_url, false},
    {"user_template", check_user_template, false},
    {"jti_template", check_jti_template, false},
    {"nonempty", check_nonempty, false},
    {"jwt_algorithms", check_algorithm, true},
};

static int find_check(const char *spec)
{
    for (size_t i = 0; i < sizeof(checks) / sizeof(*checks); i++)
        if (!strcmp(checks[i].name, spec))
            return (int)i;
    return -1;
}

bool options_is_check(const char *spec)
{
    return find_check(spec) >= 0;
}

/* ---- numbers and words ---- */

static int parse_number(enum option_kind kind, const char *value, int64_t *out)
{
    switch (kind) {
    case OPTION_COUNT:
        return text_parse_count(value, out);
    case OPTION_BYTES:
        return text_parse_bytes(value, out);
    default:
        return text_parse_time_ms(value, out);
    }
}

/* A number's spec taken apart: "min..max" and, after a blank, the word that stands for 0. */
struct range {
    int64_t min;
    int64_t max;
    const char *zero; /* "" : no word */
};

static struct range read_range(const struct option_row *row)
{
    struct range r = {0, INT64_MAX, ""};
    char text[64];
    size_t len = strcspn(row->spec, " ");
    if (row->spec[len])
        r.zero = row->spec + len + 1;
    char *dots = NULL;
    if (len < sizeof(text)) {
        memcpy(text, row->spec, len);
        text[len] = '\0';
        dots = strstr(text, "..");
    }
    if (dots) {
        *dots = '\0';
        parse_number(row->kind, text, &r.min);
        parse_number(row->kind, dots + 2, &r.max);
    }
    return r;
}

static int read_number(const struct option_row *row, const char *value, int64_t *out,
                       struct text_buf *why)
{
    static const char *const what[] = {[OPTION_COUNT] = "a number",
                                       [OPTION_BYTES] = "a size such as 4096, 16k or 1M",
                                       [OPTION_TIME] = "a time such as 500ms, 25s or 1h30m"};
    struct range range = read_range(row);
    if (range.zero[0] && !strcasecmp(value, range.zero)) {
        *out = 0;
        return 0;
    }
    int64_t n = 0;
    int rc = parse_number(row->kind, value, &n);
    if (!rc && n >= range.min && n <= range.max) {
        *out = n;
        return 0;
    }
    say_value(why, value);
    if (rc == -EINVAL)
        text_addf(why, " is not %s; range ", what[row->kind]);
    else
        text_adds(why, " is out of range ");
    text_add(why, row->spec, strcspn(row->spec, " "));
    if (range.zero[0])
        text_addf(why, ", or %s", range.zero);
    return -EINVAL;
}

bool options_is_switch(enum option_id id)
{
    const struct option_row *row = &options_table[id];
    return row->kind == OPTION_CHOICE &&
           (!strcmp(row->spec, "no|yes") || !strcmp(row->spec, "off|on"));
}

static bool is_one_of(const char *value, const char *const words[4])
{
    for (int i = 0; i < 4; i++)
        if (!strcasecmp(value, words[i]))
            return true;
    return false;
}

static int read_choice(enum option_id id, const char *value, int64_t *out, struct text_buf *why)
{
    static const char *const no[4] = {"no", "off", "false", "0"};
    static const char *const yes[4] = {"yes", "on", "true", "1"};
    const char *spec = options_table[id].spec;
    if (options_is_switch(id) && (is_one_of(value, no) || is_one_of(value, yes))) {
        *out = is_one_of(value, yes);
        return 0;
    }
    int64_t index = 0;
    for (const char *p = spec;; index++) {
        size_t len = strcspn(p, "|");
        if (strlen(value) == len && !strncasecmp(value, p, len)) {
            *out = index;
            return 0;
        }
        if (!p[len])
            break;
        p += len + 1;
    }
    say_value(why, value);
    text_adds(why, " is none of ");
    for (const char *p = spec; *p; p++) {
        if (*p == '|')
            text_adds(why, ", ");
        else
            text_addc(why, *p);
    }
    options_suggest(spec, value, why);
    return -EINVAL;
}

/* ---- setting ---- */

static bool has_control(const char *value)
{
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p < 0x20 || *p == 0x7F)
            return true;
    return false;
}

static int read_list(const struct option_row *row, const char *value, struct text_list *out,
                     struct text_buf *why)
{
    int check = find_check(row->spec);
    int rc = text_list_split(out, value);
    for (size_t i = 0; !rc && check >= 0 && i < out->count; i++)
        if (!checks[check].good(out->items[i], why))
            rc = -EINVAL;
    if (!rc && !out->count && check >= 0 && checks[check].must_have_one) {
        text_adds(why, "at least one value is needed");
        rc = -EINVAL;
    }
    if (rc)
        text_list_free(out);
    return rc;
}

static int add_items(struct text_list *to, const struct text_list *from)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < from->count; i++)
        rc = text_list_add(to, from->items[i], strlen(from->items[i]));
    return rc;
}

static int set_list(struct options *o, enum option_id id, bool take, bool add, const char *value,
                    struct text_buf *why)
{
    struct text_list items = {0};
    struct text_list *field = options_field(o, id).list;
    int rc = read_list(&options_table[id], value, &items, why);
    if (rc || !take) {
        text_list_free(&items);
        return rc;
    }
    if (add) {
        rc = add_items(field, &items);
        text_list_free(&items);
        return rc;
    }
    text_list_free(field);
    *field = items;
    return 0;
}

static int set_string(struct options *o, enum option_id id, bool take, const char *value,
                      struct text_buf *why)
{
    int check = find_check(options_table[id].spec);
    if (check >= 0 && !checks[check].good(value, why))
        return -EINVAL;
    if (!take)
        return 0;
    char *copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    char **field = options_field(o, id).string;
    free(*field);
    *field = copy;
    return 0;
}

int options_set(struct options *o, enum option_id id, enum option_source source, int line,
                const char *value, struct text_buf *why)
{
    const struct option_row *row = &options_table[id];
    /* A weaker source's value is read all the same: better wrong now than some other day. */
    bool take = source >= o->source[id];
    bool add = source == o->source[id] && source != SOURCE_DEFAULT;
    int64_t number = 0;
    int rc;
    if (has_control(value)) {
        text_adds(why, "holds a control character");
        return -EINVAL;
    }
    switch (row->kind) {
    case OPTION_STRING:
        rc = set_string(o, id, take, value, why);
        break;
    case OPTION_LIST:
        rc = set_list(o, id, take, add, value, why);
        break;
    case OPTION_CHOICE:
        rc = read_choice(id, value, &number, why);
        break;
    default:
        rc = read_number(row, value, &number, why);
    }
    if (rc || !take)
        return rc;
    if (row->kind != OPTION_STRING && row->kind != OPTION_LIST)
        *options_field(o, id).number = number;
    o->source[id] = source;
    o->line[id] = line;
    return 0;
}

/* ---- writing values ---- */

void options_credentials(const char *url, size_t *from, size_t *len)
{
    /* Whatever stands before the last '@', so that a malformed URL shows no password either. */
    const char *scheme = strstr(url, "://"), *at = strrchr(url, '@');
    const char *start = scheme && (!at || scheme < at) ? scheme + 3 : url;
    *from = (size_t)(start - url);
    *len = at ? (size_t)(at - start) : 0;
}

static void add_url(struct text_buf *out, const char *url)
{
    size_t from, len;
    options_credentials(url, &from, &len);
    if (!len) {
        text_adds(out, url);
        return;
    }
    const char *colon = memchr(url + from, ':', len);
    if (colon)
        text_add(out, url, (size_t)(colon - url) + 1);
    else
        text_add(out, url, from);
    text_adds(out, "***");
    text_adds(out, url + from + len);
}

/* As "1h30m" and "16k": every unit that is needed, the largest first; one unit only for sizes. */
static void add_time(struct text_buf *out, int64_t ms)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    if (!ms)
        text_adds(out, "0s");
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (ms / units[i].ms)
            text_addf(out, "%lld%s", (long long)(ms / units[i].ms), units[i].name);
        ms %= units[i].ms;
    }
}

static void add_size(struct text_buf *out, int64_t bytes)
{
    static const char letters[] = {'k', 'M', 'G'};
    int unit = -1;
    while (unit < 2 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    text_addf(out, "%lld", (long long)bytes);
    if (unit >= 0)
        text_addc(out, letters[unit]);
}

static void add_choice(struct text_buf *out, const char *spec, int64_t index)
{
    for (; index > 0; index--)
        spec += strcspn(spec, "|") + 1;
    text_add(out, spec, strcspn(spec, "|"));
}

/* Text as the file's parser reads it back: in quotes where blanks or # would be lost. */
static void add_file_text(struct text_buf *out, const char *s)
{
    size_t len = strlen(s);
    bool quotes = len && (strchr(" \t\"#", s[0]) || strchr(" \t", s[len - 1]) ||
                          strstr(s, " #") || strstr(s, "\t#"));
    if (!quotes) {
        text_add(out, s, len);
        return;
    }
    text_addc(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            text_addc(out, '\\');
        text_addc(out, *s);
    }
    text_addc(out, '"');
}

static void add_string(struct text_buf *out, enum option_id id, const char *s)
{
    struct text_buf plain = {0};
    if (id == OPT_redis_url)
        add_url(&plain, s);
    else
        text_adds(&plain, s);
    add_file_text(out, plain.data ? plain.data : "");
    out->failed = out->failed || plain.failed;
    text_buf_free(&plain);
}

static void add_list(struct text_buf *out, const struct text_list *list)
{
    struct text_buf plain = {0};
    for (size_t i = 0; i < list->count; i++)
        text_addf(&plain, "%s%s", i ? "," : "", list->items[i]);
    add_file_text(out, plain.data ? plain.data : "");
    out->failed = out->failed || plain.failed;
    text_buf_free(&plain);
}

void options_format(const struct options *o, enum option_id id, struct text_buf *out)
{
    const struct option_row *row = &options_table[id];
    union options_field field = options_field(o, id);
    switch (row->kind) {
    case OPTION_STRING:
        add_string(out, id, *field.string);
        return;
    case OPTION_LIST:
        add_list(out, field.list);
        return;
    case OPTION_CHOICE:
        add_choice(out, row->spec, *field.number);
        return;
    default:
        break;
    }
    struct range range = read_range(row);
    if (!*field.number && range.zero[0])
        text_adds(out, range.zero);
    else if (row->kind == OPTION_TIME)
        add_time(out, *field.number);
    else if (row->kind == OPTION_BYTES)
        add_size(out, *field.number);
    else
        text_addf(out, "%lld", (long long)*field.number);
}

/* ---- comparing and freeing ---- */

static bool same_list(const struct text_list *a, const struct text_list *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i], b->items[i]))
            return false;
    return true;
}

int options_diff(const struct options *a, const struct options *b, enum option_id ids[OPTIONS])
{
    int count = 0;
    for (int id = 0; id < OPTIONS; id++) {
        union options_field x = options_field(a, id), y = options_field(b, id);
        bool same;
        if (options_table[id].kind == OPTION_STRING)
            same = !strcmp(*x.string, *y.string);
        else if (options_table[id].kind == OPTION_LIST)
            same = same_list(x.list, y.list);
        else
            same = *x.number == *y.number;
        if (!same)
            ids[count++] = (enum option_id)id;
    }
    return count;
}

void options_free(struct options *o)
{
    if (!o)
        return;
    if (o->redis_url)
        explicit_bzero(o->redis_url, strlen(o->redis_url));
    for (int id = 0; id < OPTIONS; id++) {
        if (options_table[id].kind == OPTION_STRING)
            free(*options_field(o, id).string);
        else if (options_table[id].kind == OPTION_LIST)
            text_list_free(options_field(o, id).list);
    }
    free(o->file);
    free(o);
}

void options_command_free(struct options_command *c)
{
    if (!c)
        return;
    text_list_free(&c->rest);
    *c = (struct options_command){0};
}
