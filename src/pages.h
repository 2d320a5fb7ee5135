/*
 * pages.h - makes what workers/pages.h serves, in the master, before the workers are forked.
 *
 * The files are those that npm built in client/ when the program was built, embedded in it; where
 * there were none, the plain page of demo_page.c. Nothing is read from disk.
 */
#ifndef BELFRY_SRC_PAGES_H
#define BELFRY_SRC_PAGES_H

#include <stddef.h>

#include "workers/pages.h"

/* One embedded file, compressed with gzip. */
struct pages_file {
    const char *route;
    const char *content_type;
    const unsigned char *gzip;
    size_t gzip_bytes;
};

/* Made by client/embed; ends with a row of NULL. */
extern const struct pages_file pages_files[];
/* One that is served where npm built nothing. */
struct pages_text {
    const char *route;
    const char *content_type;
    const char *text;
};

/* demo_page.c: the page at "/" and what belongs to it; ends with a row of NULL. */
extern const struct pages_text pages_plain[];

/* Without with_demo only the operator's page and what belongs to it, which may be nothing at all;
 * with it the demo page, too: @TOKEN@ in it becomes token (NULL: nothing). 0, -ENOMEM or -EBADMSG
 * (an embedded file cannot be unpacked). */
int pages_make(bool with_demo, const char *token, struct pages **out);
void pages_free(struct pages *p); /* accepts NULL; wipes, for the token is in it */

#endif
