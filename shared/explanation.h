/*
 * explanation.h - what happened to one message: from what Redis has of it (stored.h) and what the
 * traces say (verdict.h) to lines for people, and JSON.
 *
 * PURE: belfryctl explain and GET /ws/explain collect, each in its own way, and show what this
 * makes of it. Either half may be missing: then what the other knows is shown.
 */
#ifndef BELFRY_SHARED_EXPLANATION_H
#define BELFRY_SHARED_EXPLANATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/inquiry.h"
#include "shared/stored.h"
#include "shared/text.h"
#include "shared/verdict.h"

#define EXPLANATION_TEXT_BYTES 256

struct explanation {
    const char *user;        /* borrowed, as is id */
    const char *id;
    bool has_stored;         /* Redis answered */
    struct stored stored;    /* with has_stored */
    bool has_server;         /* the server answered */
    char refusal[EXPLANATION_TEXT_BYTES]; /* why not; "": told already */
    struct text_span reply;  /* of the server; borrowed */
    struct verdict_fact *facts;
    size_t fact_count, fact_cap;
    int64_t now_us;
    struct verdict verdict;
    bool is_known;           /* Redis or a trace knows of the message */
};

/* Starts zeroed, with user, id and perhaps stored. The master's answer (src/explain.h). */
void explanation_take(struct explanation *q, struct text_span reply);
/* After all that is known is there. 0 or -ENOMEM. */
int explanation_judge(struct explanation *q);
void explanation_fini(struct explanation *q);

/* A line for each thing that is known, of a word in 11 columns and a sentence. */
void explanation_table(const struct explanation *q, struct text_buf *b);
/* Members of an object: "known", "user", "id", "lines": [{"about", "text"}] (the table), "stored",
 * "published", "devices", "server", "records": belfryctl(1). */
void explanation_json(const struct explanation *q, struct text_buf *b);

#endif
