/*
 * closes.h - the table of reasons a client leaves (closes.def) as data.
 *
 * Workers (codes, counters, log words) and the manual's lint. Pure. RFC 6455, section 7.4; the
 * codes from 4000 on are Belfry's own: belfry-protocol(7).
 */
#ifndef BELFRY_SHARED_CLOSES_H
#define BELFRY_SHARED_CLOSES_H

enum close_reason {
#define CLOSE(name, code, reason, word, client, help) CLOSE_##name,
#include "shared/closes.def"
#undef CLOSE
    CLOSE_REASONS
};

struct close_row {
    const char *name; /* lower case, as in the counter closed_NAME */
    int code;         /* 0: no close frame of ours */
    const char *reason;
    const char *word;
    const char *client;
    const char *help;
};

extern const struct close_row closes_table[CLOSE_REASONS];

#endif
