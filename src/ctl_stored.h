/*
 * ctl_stored.h - what Redis has of one message: place in the user's list, marks. belfryctl only.
 */
#ifndef BELFRY_SRC_CTL_STORED_H
#define BELFRY_SRC_CTL_STORED_H

#include "shared/stored.h"
#include "src/ctl.h"

/* 0, or -1 after telling why Redis could not be asked. */
int ctl_stored_read(const struct ctl *c, const char *user, const char *id, struct stored *out);

#endif
