/*
 * options_priv.h - what the files of options share among themselves: options_table.c (rows, --help,
 * the sample), options_value.c (one value), options_load.c (sources), options_check.c (the
 * outside).
 */
#ifndef BELFRY_SHARED_OPTIONS_PRIV_H
#define BELFRY_SHARED_OPTIONS_PRIV_H

#include "shared/options.h"

#define OPTIONS_NAME_BYTES 32 /* no option's name is longer */

/* Where the value of an option lies in a snapshot; row kinds say which of the three it is. */
union options_field {
    void *at;
    char **string;
    struct text_list *list;
    int64_t *number;
};
union options_field options_field(const struct options *o, enum option_id id);

/* The option of that name; -1 when there is none. */
int options_find(const char *name);

/*
 * Reads one value (checked by itself, whatever its source) and puts it into the snapshot unless a
 * stronger source has given the option already. Repeated LIST values of one source add up. 0;
 * -EINVAL with a text in why that tells what is wrong with the value and what would be right, and
 * holds no secret; -ENOMEM.
 */
int options_set(struct options *o, enum option_id id, enum option_source source, int line,
                const char *value, struct text_buf *why);
/* True for yes/no and on/off choices. */
bool options_is_switch(enum option_id id);
/* ", did you mean X?" unless nothing is near; words: '|' between them. */
void options_suggest(const char *words, const char *value, struct text_buf *out);
/* True when spec names a check that options_value.c or options_check.c knows. */
bool options_is_check(const char *spec);

/* The part of a Redis URL that holds credentials: [*from, *from + *len), len 0 without. */
void options_credentials(const char *url, size_t *from, size_t *len);

/* Where an option's value comes from, as reports begin: "belfry.conf:12: name: ". */
void options_where(const struct options *o, enum option_id id, struct text_buf *out);

#endif
