/*
 * events.h - the event table (events.def) as data.
 *
 * All processes and libbelfry. Pure. Names and fields: belfry-protocol(7).
 */
#ifndef BELFRY_SHARED_EVENTS_H
#define BELFRY_SHARED_EVENTS_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

enum event_type {
#define EVENT(name, group, store, conflate, fields) EVENT_##name,
#include "shared/events.def"
#undef EVENT
    EVENT_TYPES
};

enum event_store { EVENT_STORE_NONE, EVENT_STORE_LIST, EVENT_STORE_SNAPSHOT };

struct event_row {
    const char *upper;
    const char *lower;
    const char *group; /* lower case */
    enum event_store store;
    const char *conflate;
    const char *fields;
};

extern const struct event_row events_table[EVENT_TYPES];

/* Row of a type name in any case; -1 when the table has none. */
int events_find(const char *name, size_t len);
/* Nearest name (in upper case) for an error message; NULL when nothing is near. */
const char *events_nearest(const char *name);
/* Checks a payload (raw JSON) against a row: required fields, types, words. 0, or -EINVAL with a
 * text in why (cut to cap, always ended) that names the field, what it must be and what it was:
 * "amount_cents: must be an integer, is a string". The text never holds any of the payload. */
int events_check_payload(int event, struct text_span payload, char *why, size_t cap);

#endif
