/*
 * keys.h - names in Redis: templates with {user_id}, filled and matched.
 *
 * Workers, belfryctl, libbelfry. Pure. The layout is public: belfry-protocol(7). Derived keys are
 * made from notifications-key by putting a word before {user_id} (before its hash tag's brace when
 * it is written {{user_id}}): notifications:read:{user_id} and notifications:acked:{user_id}.
 */
#ifndef BELFRY_SHARED_KEYS_H
#define BELFRY_SHARED_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/text.h"

#define KEYS_USER_ID_MAX_BYTES 256 /* longer ids are refused wherever they enter */

struct keys {
    char *user_channel;
    char *broadcast_channel;
    char *notifications;
    char *snapshot;
    char *read_marks;
    char *acked;
};

/* Copies the templates and derives two. 0, -EINVAL (a template without exactly one {user_id}) or
 * -ENOMEM. */
int keys_init(struct keys *k, const char *user_channel, const char *broadcast_channel,
              const char *notifications_key, const char *snapshot_key);
void keys_fini(struct keys *k);

/* True when the template holds {user_id} exactly once. */
bool keys_is_template(const char *template_text);
/* Appends the template with user_id put in. */
void keys_expand(struct text_buf *out, const char *template_text, const char *user_id,
                 size_t user_id_len);
/* The same for {jti}, in denylist-key. */
bool keys_is_jti_template(const char *template_text);
void keys_expand_jti(struct text_buf *out, const char *template_text, const char *jti,
                     size_t jti_len);
/* The user id in a channel's name, as a span of channel; false when the name does not fit the
 * template. */
bool keys_match(const char *template_text, struct text_span channel, struct text_span *user_id);
/* A user id that may enter: 1 to KEYS_USER_ID_MAX_BYTES bytes of UTF-8, no control characters. */
bool keys_is_user_id(const char *id, size_t len);

#endif
