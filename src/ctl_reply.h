/*
 * ctl_reply.h - belfryctl: reading the server's answers, and writing them for people.
 *
 * Pure, but for the look at what stdout is. An answer is a checked JSON object; a member that is
 * missing or of another kind reads as empty, 0 or false, so that an older server can be asked.
 */
#ifndef BELFRY_SRC_CTL_REPLY_H
#define BELFRY_SRC_CTL_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

struct text_span ctl_reply_span(const struct text_buf *reply);
/* A string, decoded, its line feeds blanks, tame (text.h); empty when it is longer than cap, or no
 * string. */
const char *ctl_text(struct text_span value, char *out, size_t cap);
/* The same of a member. */
const char *ctl_text_of(struct text_span object, const char *name, char *out, size_t cap);
long long ctl_number_of(struct text_span object, const char *name);
double ctl_real_of(struct text_span object, const char *name);
bool ctl_is_true(struct text_span object, const char *name);
/* The member is there, and not null. */
bool ctl_has(struct text_span object, const char *name);
/* An object's member that is an object; "{}" when it is none. */
struct text_span ctl_object_of(struct text_span object, const char *name);
/* A number two objects down: totals.connections.websockets. */
long long ctl_nested(struct text_span object, const char *a, const char *name);

/* "3d 2h", "4m 10s". */
void ctl_add_duration(struct text_buf *b, long long s);
/* "812 B", "3.4 kB", "1.2 GB": powers of 1000. */
void ctl_add_bytes(struct text_buf *b, double bytes);

/* "; delivered in 0.21 ms, 99 % in 1.30 ms", from the rates; nothing when nothing was delivered. */
void ctl_add_latency(struct text_buf *b, struct text_span rates);

/* May escape codes be written to stdout? A terminal that knows them; NO_COLOR is not set
 * (https://no-color.org/). */
bool ctl_has_colour(void);
/* A worker's or the instance's state in at least width columns: green, yellow or red if asked. */
void ctl_add_state(struct text_buf *b, const char *state, int width, bool has_colour);

#endif
