/*
 * stored.h - what Redis has of one message: its place in the user's list, marks.
 *
 * PURE: belfryctl and workers read the list each in their own way, and show it to this entry by
 * entry.
 */
#ifndef BELFRY_SHARED_STORED_H
#define BELFRY_SHARED_STORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

struct stored {
    long count;          /* entries of the list */
    long position;       /* from the head, 0 is the newest; -1: not in the list */
    long copies;         /* entries with this id */
    size_t bytes;
    char type[128];      /* "" when it is none, or longer */
    char timestamp[64];
    int64_t timestamp_us; /* 0: none that can be read */
    int64_t oldest_us;    /* oldest timestamp in the list; 0: none */
    bool is_acked;        /* the user acknowledged it, or a newer one of the list */
    bool is_read;         /* the caller's to set */
    uint64_t id_hash;
    uint64_t acked_hash;  /* 0: none */
    long acked_position;  /* -1: none, or not in the list */
};

/* acked: the id that the user acknowledged; len 0: none. */
void stored_begin(struct stored *s, struct text_span id, struct text_span acked);
/* The next entry from the head. */
void stored_look(struct stored *s, struct text_span entry);
/* After the last one. */
void stored_end(struct stored *s);

#endif
