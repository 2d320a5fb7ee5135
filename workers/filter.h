/*
 * filter.h - which types a device wants: everything, a list, or everything but a list. Pure.
 *
 * Contract of subscribe and unsubscribe: everything passes until the first subscribe, which starts
 * a list; unsubscribe takes from the list, or excludes while there is none. A list from which
 * everything was taken stays a list: nothing passes. Case does not matter. Bounded:
 * FILTER_MAX_TYPES names of FILTER_MAX_NAME_BYTES.
 */
#ifndef BELFRY_WORKERS_FILTER_H
#define BELFRY_WORKERS_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

#define FILTER_MAX_TYPES 64
#define FILTER_MAX_NAME_BYTES 64

struct filter;

/* Each takes *f (may be NULL) and makes or changes it. 0; or, with *f as it was, -EINVAL (name
 * empty or too long), -ENOSPC (too many), -ENOMEM. */
int filter_subscribe(struct filter **f, struct text_span type);
int filter_unsubscribe(struct filter **f, struct text_span type);
/* "A,B" as in ?types=: subscribes to each. Blanks around a name and empty names are skipped. Same
 * errors, after which *f may hold the names before the bad one. */
int filter_parse(struct filter **f, const char *value);
bool filter_allows(const struct filter *f, uint64_t type_hash); /* NULL: true */
/* The list of subscribed names as a JSON array, upper or lower as given; [] when everything passes
 * or only exclusions are kept. */
void filter_json(const struct filter *f, struct text_buf *out);
/* For people: null (everything passes), {"only":[...]} or {"except":[...]}; so many bytes of names
 * at most, then "more":n. */
#define FILTER_DESCRIBED_BYTES 1000
void filter_describe(const struct filter *f, struct text_buf *out);
/* *copy is NULL for a NULL filter. 0 or -ENOMEM. */
int filter_copy(const struct filter *f, struct filter **copy);
/* For another process. Accepts NULL. */
void filter_save(const struct filter *f, struct text_buf *out);
/* *f is NULL for what was saved of NULL. 0, -ENOMEM or -EBADMSG. */
int filter_restore(struct text_span saved, struct filter **f);
void filter_free(struct filter *f);

#endif
