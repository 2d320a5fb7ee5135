/*
 * uuid7.h - UUID version 7 (RFC 9562, section 5.7): time-ordered ids for messages, connections and
 * instances.
 *
 * All processes and libbelfry. Strictly increasing within a process. Random bits from getrandom(2).
 */
#ifndef BELFRY_SHARED_UUID7_H
#define BELFRY_SHARED_UUID7_H

#define UUID7_TEXT_BYTES 37

/* Writes 36 characters and a NUL, lower case. */
void uuid7_make(char out[UUID7_TEXT_BYTES]);

#endif
