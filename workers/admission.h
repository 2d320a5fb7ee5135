/*
 * admission.h - what Redis has to say about a token: whose it is (user-map-key), and whether it has
 * been revoked (denylist-key).
 *
 * The token itself was checked before. The id: nothing is known of the user until the hash told it;
 * the connection stays in CONN_AUTH, is not read from, and what it said already is kept. So it is
 * with a token in the place of another, until Redis answered: auth_ok tells that the new one
 * counts. The denylist, for a first token: asked at once, on the link that the user's list is asked
 * for on later, so that the answer is there first and costs no time; then again in turns, all
 * connections within denylist-interval, and when somebody tells (inquest.h). Redis away: both are
 * asked for when it is back, before any list is; an open connection goes on meanwhile.
 *
 * A connection has an object here only while its user is looked up, or when its token can be
 * revoked. It is gone with the session (conn_release_session). HTTP requests use the two questions
 * alone (router.c).
 */
#ifndef BELFRY_WORKERS_ADMISSION_H
#define BELFRY_WORKERS_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"
#include "shared/token.h"
#include "workers/conn.h"
#include "workers/store.h"

struct admission;  /* one connection's: conn->admission */
struct admissions; /* the worker's */

/* After store_new. NULL without memory. */
struct admissions *admissions_new(struct worker *w);
/* After conns_free and store_free. Accepts NULL. */
void admissions_free(struct admissions *s);

/* A token was accepted, at first or anew: what it had of an older one is forgotten, and Redis is
 * asked. 1: go on, the user claim is the id. 0: not yet: conn_admitted follows, with what is given
 * here, or the connection is closed. -ENOMEM. */
int admission_begin(struct conn *c, const struct token_claims *claims, bool is_reply_due,
                    bool is_lower);
/* Accepts a connection that has none. Not from within conn_admitted. */
void admission_end(struct conn *c);
/* Is its token not decided on yet? */
bool admission_is_pending(const struct conn *c);
/* And is what the client says to wait for that? */
bool admission_is_awaited(const struct conn *c);
/* A message that came meanwhile: conn_hear gives it back. -ENOMEM. */
int admission_keep(struct conn *c, const char *text, size_t len);

/* The id by which its token can be revoked; len 0: none. For the hand-over. */
struct text_span admission_jti(const struct conn *c);
/* The same taken over: is looked up anew. 0 or -ENOMEM. */
int admission_restore(struct conn *c, struct text_span jti);

/* The token was revoked just now: closes its connections. How many. */
unsigned admissions_revoke(struct admissions *s, const char *jti);

/* ---- the two questions ---- */

bool admission_maps(const struct worker *w); /* is there a user-map-key? */
/* Errors and the call as in store.h. value: 1 when the token is revoked. */
struct store_call *admission_ask_revoked(struct worker *w, struct text_span jti, store_done_fn *fn,
                                         void *data);
struct store_call *admission_ask_user(struct worker *w, const struct token_claims *claims,
                                      store_text_fn *fn, void *data);
/* Puts the answer in the place of the claim. False: it is no user id, or there was none. */
bool admission_take_user(struct token_claims *claims, struct text_span answer);

#endif
