/*
 * dev.h - belfryd --dev: what a first look needs and nobody should have to make: a secret, tokens,
 * a configuration for belfryctl, a demo page, and the text that says what to try.
 *
 * Master only. Fills in options that were not given, as a profile does. Everything lives in the
 * scratch directory (mode 0600) and is gone with it. Tokens are printed to standard output, never
 * logged. Loopback only: options_check sees to that.
 */
#ifndef BELFRY_SRC_DEV_H
#define BELFRY_SRC_DEV_H

#include <stdbool.h>
#include <stdio.h>

#include "shared/options.h"
#include "src/generation.h"

struct dev;
struct pages;

/* Makes a random HS256 secret in the scratch directory (borrowed). program: argv[0], beside which
 * belfryctl is looked for. 0 or negative errno. */
int dev_new(const char *scratch, const char *program, struct dev **out);
void dev_free(struct dev *d); /* accepts NULL */

/* Fills in a snapshot that nobody else has seen yet: secret, control socket, two workers, any free
 * port when asked to. 0 or -ENOMEM. */
int dev_apply(struct dev *d, struct options *opt);
/* From now on listen is any free loopback port. False when listen was given, or was that
 * already. */
bool dev_take_any_port(struct dev *d, const struct options *opt);

/* Once the listeners are open: writes belfry.conf for belfryctl, mints the tokens, makes the page.
 * 0 or negative errno. Again after a reload: only the file is new. */
int dev_prepare(struct dev *d, const struct generation *g);
/* The demo page with the user's token in it; NULL before dev_prepare. */
const struct pages *dev_pages(const struct dev *d);
/* What to try next. Flushes. */
void dev_announce(const struct dev *d, FILE *to);

#endif
