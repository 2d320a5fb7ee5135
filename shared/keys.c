#include "config.h"

#include "shared/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PLACEHOLDER "{user_id}"
#define PLACEHOLDER_LEN (sizeof(PLACEHOLDER) - 1)

#define JTI "{jti}"

/* The only place of what; NULL when there is none or more than one. */
static const char *only_place(const char *template_text, const char *what)
{
    const char *at = strstr(template_text, what);
    return at && !strstr(at + strlen(what), what) ? at : NULL;
}

static const char *placeholder(const char *template_text)
{
    return only_place(template_text, PLACEHOLDER);
}

bool keys_is_template(const char *template_text)
{
    return placeholder(template_text) != NULL;
}

/*
 * Puts word before {user_id}. When braces stand around it they are a cluster hash tag
 * ("{{user_id}}", "{app:{user_id}}"), which must stay as it is for the derived key to live in the
 * same hash slot: then word goes before the tag. Given; NULL without memory.
 */
static char *derive(const char *template_text, const char *word)
{
    const char *at = placeholder(template_text);
    const char *tag = NULL;
    for (const char *p = template_text; p < at; p++) {
        if (*p == '{' && !tag)
            tag = p;
        else if (*p == '}')
            tag = NULL;
    }
    if (tag)
        at = tag;
    struct text_buf out = {0};
    text_add(&out, template_text, (size_t)(at - template_text));
    text_adds(&out, word);
    text_adds(&out, at);
    if (out.failed) {
        text_buf_free(&out);
        return NULL;
    }
    return out.data;
}

int keys_init(struct keys *k, const char *user_channel, const char *broadcast_channel,
              const char *notifications_key, const char *snapshot_key)
{
    *k = (struct keys){0};
    if (!keys_is_template(user_channel) || !keys_is_template(notifications_key) ||
        !keys_is_template(snapshot_key))
        return -EINVAL;
    k->user_channel = strdup(user_channel);
    k->broadcast_channel = strdup(broadcast_channel);
    k->notifications = strdup(notifications_key);
    k->snapshot = strdup(snapshot_key);
    k->read_marks = derive(notifications_key, "read:");
    k->acked = derive(notifications_key, "acked:");
    if (!k->user_channel || !k->broadcast_channel || !k->notifications || !k->snapshot ||
        !k->read_marks || !k->acked) {
        keys_fini(k);
        return -ENOMEM;
    }
    return 0;
}

void keys_fini(struct keys *k)
{
    if (!k)
        return;
    free(k->user_channel);
    free(k->broadcast_channel);
    free(k->notifications);
    free(k->snapshot);
    free(k->read_marks);
    free(k->acked);
    *k = (struct keys){0};
}

static void expand(struct text_buf *out, const char *template_text, const char *what,
                   const char *value, size_t len)
{
    const char *at = strstr(template_text, what);
    if (!at) {
        text_adds(out, template_text);
        return;
    }
    text_add(out, template_text, (size_t)(at - template_text));
    text_add(out, value, len);
    text_adds(out, at + strlen(what));
}

void keys_expand(struct text_buf *out, const char *template_text, const char *user_id,
                 size_t user_id_len)
{
    expand(out, template_text, PLACEHOLDER, user_id, user_id_len);
}

bool keys_is_jti_template(const char *template_text)
{
    return only_place(template_text, JTI) != NULL;
}

void keys_expand_jti(struct text_buf *out, const char *template_text, const char *jti,
                     size_t jti_len)
{
    expand(out, template_text, JTI, jti, jti_len);
}

bool keys_match(const char *template_text, struct text_span channel, struct text_span *user_id)
{
    const char *at = strstr(template_text, PLACEHOLDER);
    if (!at)
        return false;
    size_t before = (size_t)(at - template_text), after = strlen(at + PLACEHOLDER_LEN);
    if (channel.len <= before + after || channel.len - before - after > KEYS_USER_ID_MAX_BYTES)
        return false;
    if (memcmp(channel.ptr, template_text, before) ||
        memcmp(channel.ptr + channel.len - after, at + PLACEHOLDER_LEN, after))
        return false;
    *user_id = (struct text_span){channel.ptr + before, channel.len - before - after};
    return true;
}

bool keys_is_user_id(const char *id, size_t len)
{
    if (len < 1 || len > KEYS_USER_ID_MAX_BYTES || !text_is_utf8(id, len))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)id[i], next = i + 1 < len ? (unsigned char)id[i + 1] : 0;
        if (c < 0x20 || c == 0x7F || (c == 0xC2 && next < 0xA0)) /* C0, DEL, C1 */
            return false;
    }
    return true;
}
