/*
 * handover_link.h - records and descriptors between the giving and the taking worker: an
 * ipc_stream_pair. Workers.
 *
 * A record is a type, a length and a body; one descriptor may go along. A stream, because what a
 * packet socket holds is too little (ten packets by default) and a record may be as long as what
 * waits for a slow client. Nothing blocks: what the socket does not take waits here. A peer that
 * breaks the form, or is gone, ends the link: on_end, once. unix(7), SCM_RIGHTS.
 */
#ifndef BELFRY_WORKERS_HANDOVER_LINK_H
#define BELFRY_WORKERS_HANDOVER_LINK_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/text.h"

#define HANDOVER_RECORD_MAX_BYTES (256U << 20)
#define HANDOVER_LINK_FULL_BYTES (1U << 20) /* handover_link_is_full above it */

struct handover_link;

struct handover_link_owner {
    /* fd: -1, or given. body is borrowed. May end the link by handover_link_free: false then. */
    bool (*on_record)(void *data, uint32_t type, struct text_span body, int fd);
    void (*on_end)(void *data, const char *why);
};

/* fd is given, also when NULL comes back (no memory). owner is kept, not copied. */
struct handover_link *handover_link_new(struct ev_loop *loop, int fd,
                                        const struct handover_link_owner *owner, void *data);
/* Calls nothing. Accepts NULL. What waits is not sent any more. */
void handover_link_free(struct handover_link *l);
/* Appends a record; fd (given, -1: none) goes along. 0, or -ENOMEM and fd closed. It leaves with
 * handover_link_flush, or as the socket takes it. */
int handover_link_send(struct handover_link *l, uint32_t type, const void *body, size_t len,
                       int fd);
/* May end the link: on_end is then called later. */
void handover_link_flush(struct handover_link *l);
bool handover_link_is_full(const struct handover_link *l);
bool handover_link_is_flushed(const struct handover_link *l);

#endif
