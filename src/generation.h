/*
 * generation.h - everything one generation of workers is started with: checked options, keys,
 * listeners.
 *
 * Master only. A generation is loaded as a whole or not at all; it never changes afterwards but for
 * being served, and for a new set of keys (keywatch.h). A reload loads the next one beside the
 * present one, and whichever loses is freed. Reads files, so it is built at start and on reload
 * only.
 */
#ifndef BELFRY_SRC_GENERATION_H
#define BELFRY_SRC_GENERATION_H

#include <stdint.h>

#include "shared/keys.h"
#include "shared/options.h"
#include "shared/redisurl.h"
#include "shared/token.h"
#include "src/keywatch.h"
#include "src/listeners.h"
#include "src/privileges.h"

struct dev;

struct generation {
    uint32_t number; /* 1 for the first */
    uint32_t workers;
    struct options *opt;
    struct token_keys *token_keys;
    struct keywatch_stamp jwks_stamp; /* of the set that is in token_keys, or was refused */
    int jwks_fd;                      /* its text, when it is not the one of the start; -1: it is */
    struct keys keys;
    struct redisurl redis;
    struct listeners *listeners;
    char *tls_certificate_pem; /* NULL: no TLS */
    char *tls_key_pem;
    bool is_serving; /* its workers accept; not before the instance has changed to it */
    struct generation *older; /* master's list of generations whose workers still drain */
};

/* Where configuration comes from, each time; all borrowed. */
struct generation_source {
    int argc;
    char **argv; /* unscrubbed */
    char **environment;
    struct dev *dev; /* NULL without --dev */
    const char *embedded_socket; /* of the private Redis; NULL when none was started */
    struct listeners *inherited; /* sockets from outside; NULL: none */
    options_report_fn *report;
    void *report_data;
};

/*
 * Loads and checks options, then the keys and TLS files they name: all but the listeners. Every
 * error was reported when it returns -EINVAL. 0 and *out (given).
 */
int generation_load(const struct generation_source *from, struct generation **out);
/* The same from options that are loaded already (given, freed on failure, too). */
int generation_from_options(struct options *opt, const struct generation_source *from,
                            struct generation **out);
/* Opens the listeners, sharing what previous (may be NULL) has. 0 or negative errno; the reason was
 * reported. */
int generation_listen(struct generation *g, const struct privileges *owner,
                      const struct generation *previous, const struct generation_source *from);
void generation_free(struct generation *g); /* accepts NULL */

#endif
