/*
 * ctl_stored.h - what Redis has of one message: place in the user's list, marks. belfryctl only.
 */
#ifndef BELFRY_SRC_CTL_STORED_H
#define BELFRY_SRC_CTL_STORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/ctl.h"

struct ctl_stored {
    long count;          /* entries of the list */
    long position;       /* from the head, 0 is the newest; -1: not in the list */
    long copies;         /* entries with this id */
    size_t bytes;
    char type[128];      /* "" when it is none, or longer */
    char timestamp[64];
    int64_t timestamp_us; /* 0: none that can be read */
    int64_t oldest_us;    /* oldest timestamp in the list; 0: none */
    long acked_position;  /* of the id the user acknowledged; -1: none, or not in the list */
    bool is_acked;        /* it is that one, or older in the list */
    bool is_read;
};

/* 0, or -1 after telling why Redis could not be asked. */
int ctl_stored_read(const struct ctl *c, const char *user, const char *id, struct ctl_stored *out);

#endif
