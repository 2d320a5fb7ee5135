#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "shared/options_priv.h"

#define BEGINNING_BYTES 3 /* of a name tell which one is meant */

/* ---- rows ---- */

/* C names become option names once, before main: the preprocessor cannot write '-' for '_'. */
static char names[OPTIONS][OPTIONS_NAME_BYTES] = {
#define OPTION(field, kind, def, spec, reload, section, value, help) #field,
#include "shared/options.def"
#undef OPTION
};

#define OPTION(field, kind, def, spec, reload, section, value, help) \
    _Static_assert(sizeof(#field) <= OPTIONS_NAME_BYTES, "name of " #field " is too long");
#include "shared/options.def"
#undef OPTION

__attribute__((constructor)) static void spell_names(void)
{
    for (int id = 0; id < OPTIONS; id++)
        for (char *p = names[id]; *p; p++)
            if (*p == '_')
                *p = '-';
}

#define SECTION_NETWORK "network"
#define SECTION_PROCESSES "processes"
#define SECTION_LOGGING "logging"
#define SECTION_REDIS "redis"
#define SECTION_MESSAGES "messages"
#define SECTION_TOKENS "tokens"
#define SECTION_LIMITS "limits"
#define SECTION_PRESETS "presets"

const struct option_row options_table[OPTIONS] = {
#define OPTION(field, kind, def, spec, reload, section, value, help) \
    [OPT_##field] = {names[OPT_##field], OPTION_##kind, def, spec, OPTION_##reload, \
                     SECTION_##section, value, help},
#include "shared/options.def"
#undef OPTION
};

static const size_t offsets[OPTIONS] = {
#define OPTION(field, kind, def, spec, reload, section, value, help) \
    [OPT_##field] = offsetof(struct options, field),
#include "shared/options.def"
#undef OPTION
};

union options_field options_field(const struct options *o, enum option_id id)
{
    return (union options_field){.at = (char *)(uintptr_t)o + offsets[id]};
}

int options_find(const char *name)
{
    for (int id = 0; id < OPTIONS; id++)
        if (!strcmp(options_table[id].name, name))
            return id;
    return -1;
}

/* The first option whose name begins so: jwt-secret, max-conn. */
static const char *begun_by(const char *name)
{
    size_t len = strlen(name);
    for (int id = 0; len >= BEGINNING_BYTES && id < OPTIONS; id++)
        if (!strncmp(options_table[id].name, name, len))
            return options_table[id].name;
    return NULL;
}

const char *options_nearest(const char *given)
{
    char name[OPTIONS_NAME_BYTES * 2] = "";
    for (size_t i = 0; i < sizeof(name) - 1 && given[i]; i++)
        name[i] = given[i] == '_' ? '-' : (char)tolower((unsigned char)given[i]);
    const char *best = begun_by(name);
    if (best)
        return best;
    size_t best_distance = strlen(name) / 3 + 2; /* farther than this is another word */
    for (int id = 0; id < OPTIONS; id++) {
        size_t distance = text_distance(name, options_table[id].name);
        if (distance < best_distance) {
            best = options_table[id].name;
            best_distance = distance;
        }
    }
    return best;
}

/* ---- --help and the sample ---- */

#define COLUMNS 80

/* Prints text in lines of at most COLUMNS, each begun with prefix. */
static void print_wrapped(FILE *to, const char *prefix, const char *text)
{
    size_t width = COLUMNS - strlen(prefix);
    while (*text) {
        size_t len = strlen(text);
        if (len > width) {
            len = width;
            while (len && text[len] != ' ')
                len--;
            if (!len)
                len = strcspn(text, " "); /* a word longer than a line stands alone */
        }
        fprintf(to, "%s%.*s\n", prefix, (int)len, text);
        text += len;
        while (*text == ' ')
            text++;
    }
}

/* "1..64" of a number's spec (the word that may follow is in the placeholder); else empty. */
static struct text_span range_of(const struct option_row *row)
{
    bool is_number =
        row->kind == OPTION_COUNT || row->kind == OPTION_BYTES || row->kind == OPTION_TIME;
    return (struct text_span){row->spec, is_number ? strcspn(row->spec, " ") : 0};
}

static void print_section(FILE *to, const char *prefix, const char *section)
{
    fprintf(to, "%s%c%s\n", prefix, section[0] - 'a' + 'A', section + 1);
}

void options_print_help(FILE *to)
{
    const char *section = "";
    for (int id = 0; id < OPTIONS; id++) {
        const struct option_row *row = &options_table[id];
        if (strcmp(section, row->section)) {
            section = row->section;
            fputc('\n', to);
            print_section(to, "", section);
        }
        fprintf(to, "  --%s%s%s\n", row->name, row->value[0] ? "=" : "", row->value);
        struct text_buf text = {0};
        struct text_span range = range_of(row);
        text_adds(&text, row->help);
        if (range.len)
            text_addf(&text, " Range %.*s.", (int)range.len, range.ptr);
        if (row->def[0])
            text_addf(&text, " Default: %s.", row->def);
        if (!text.failed)
            print_wrapped(to, "        ", text.data);
        text_buf_free(&text);
    }
}

static const char sample_head[] =
    "# belfry.conf: options of belfryd and belfryctl; see belfry.conf(5).\n"
    "#\n"
    "# Every option is here, commented out, with its default. A line is a name, an\n"
    "# equals sign and a value; # begins a comment at the start of a line or after a\n"
    "# blank. A value in double quotes keeps its blanks and #, with \\\" and \\\\ for\n"
    "# these two characters. Times are written with ms, s, m, h, d (1h30m; bare\n"
    "# numbers are seconds), sizes with k, M, G.\n"
    "#\n"
    "# A reload (HUP, belfryctl reload) takes changes over, except where it says that\n"
    "# only a restart does.\n"
    "#\n"
    "# The command line (--redis-url=X) and the environment (BELFRY_REDIS_URL=X) are\n"
    "# stronger than this file. belfryd --test-config checks it.\n";

/* "Form: N|auto; range 1..64; only a restart changes it". */
static void add_form(const struct option_row *row, struct text_buf *out)
{
    struct text_span range = range_of(row);
    text_addf(out, "Form: %s", row->value[0] ? row->value : row->spec);
    if (range.len)
        text_addf(out, "; range %.*s", (int)range.len, range.ptr);
    if (row->kind == OPTION_LIST)
        text_adds(out, "; may be repeated");
    if (row->reload == OPTION_RESTART)
        text_adds(out, "; only a restart changes it");
}

void options_print_sample(FILE *to)
{
    const char *section = "";
    fputs(sample_head, to);
    for (int id = 0; id < OPTIONS; id++) {
        const struct option_row *row = &options_table[id];
        if (strcmp(section, row->section)) {
            section = row->section;
            fputs("\n# ----------------------------------------------------------------\n", to);
            print_section(to, "# ", section);
        }
        struct text_buf form = {0};
        add_form(row, &form);
        fputc('\n', to);
        print_wrapped(to, "# ", row->help);
        if (!form.failed)
            print_wrapped(to, "# ", form.data);
        text_buf_free(&form);
        fprintf(to, "#%s =%s%s\n", row->name, row->def[0] ? " " : "", row->def);
    }
}
