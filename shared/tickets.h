/*
 * tickets.h - the keys that TLS session tickets are sealed with. RFC 5077, section 4; RFC 8446,
 * section 4.6.1.
 *
 * The master makes and rotates them and gives them to its workers, so that a session begun with one
 * worker is resumed by any other, also after a reload or an upgrade. They never leave memory.
 * Nothing here knows TLS: that is workers/tlsio.c. The layout crosses versions of the program.
 */
#ifndef BELFRY_SHARED_TICKETS_H
#define BELFRY_SHARED_TICKETS_H

#include <stdint.h>

#define TICKETS_KEYS 2
#define TICKETS_NAME_BYTES 16
#define TICKETS_SECRET_BYTES 32

struct ticket_key {
    uint8_t name[TICKETS_NAME_BYTES]; /* stands in each ticket in the clear */
    uint8_t cipher[TICKETS_SECRET_BYTES];
    uint8_t mac[TICKETS_SECRET_BYTES];
};

struct tickets {
    int64_t made_ms;                       /* monotonic: the first key */
    struct ticket_key keys[TICKETS_KEYS];  /* the first one seals, each opens */
};
_Static_assert(sizeof(struct tickets) == 8 + TICKETS_KEYS * 80, "two versions of Belfry see this");

/* The first key becomes the second, and a new one comes before it; a second one is forgotten. On
 * an object of zeros: makes both. 0; negative errno: nothing was changed. */
int tickets_rotate(struct tickets *t, int64_t now_ms);

#endif
