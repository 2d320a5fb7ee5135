/*
 * proxies.h - who may say for whom it speaks: the option trusted-proxies. Workers; pure.
 */
#ifndef BELFRY_WORKERS_PROXIES_H
#define BELFRY_WORKERS_PROXIES_H

#include "shared/ip.h"

struct proxies;

/* From the option's words, which are checked. NULL without memory. */
struct proxies *proxies_new(const struct text_list *words);
void proxies_free(struct proxies *p); /* accepts NULL */
bool proxies_trust(const struct proxies *p, const struct ip *ip);
/* The word `unix` is there. */
bool proxies_trust_unix(const struct proxies *p);
/* The client that X-Forwarded-For tells of, read from its end: each proxy adds whom it heard, so
 * the first address that is no trusted proxy's is the last that can be believed. Where none can be
 * read, it is the one before. False: there is none. */
bool proxies_client(const struct proxies *p, struct text_span forwarded_for, struct ip *out);

#endif
