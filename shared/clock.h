/*
 * clock.h - time: wall clock in ms, monotonic clock in ms, ISO 8601 in and out.
 *
 * All processes and libbelfry. Does not block. ISO 8601 as in RFC 3339, with the zone optional when
 * read (none is UTC).
 */
#ifndef BELFRY_SHARED_CLOCK_H
#define BELFRY_SHARED_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLOCK_ISO_BYTES 40 /* room for one formatted time and its NUL */

int64_t clock_wall_ms(void);
int64_t clock_wall_us(void);
int64_t clock_mono_ms(void);
/* The monotonic clock as of the kernel's last tick, at most 10 ms old: costs a few nanoseconds. */
int64_t clock_mono_coarse_ms(void);
int64_t clock_mono_us(void);

/* "2026-01-31T12:00:00.123456Z" (microseconds), without the Z when with_zone is false;
 * years before 0000 and after 9999 become these. */
void clock_format_us(int64_t wall_us, bool with_zone, char out[CLOCK_ISO_BYTES]);
/* Reads date-time with 'T' or blank, 0 to 9 fraction digits, and zone Z, +hh:mm, +hhmm, +hh or
 * none. 0 or -EINVAL. */
int clock_parse_us(const char *s, size_t len, int64_t *wall_us);

#endif
