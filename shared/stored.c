#include "config.h"

#include "shared/stored.h"

#include "shared/json.h"
#include "shared/message.h"

void stored_begin(struct stored *s, struct text_span id, struct text_span acked)
{
    *s = (struct stored){.position = -1, .acked_position = -1};
    s->id_hash = message_id_hash(id.ptr, id.len);
    if (acked.len)
        s->acked_hash = message_id_hash(acked.ptr, acked.len);
}

static void copy_string(struct text_span value, char *out, size_t cap)
{
    long n = json_string_decode(value, out, cap - 1);
    out[n > 0 ? n : 0] = '\0';
}

void stored_look(struct stored *s, struct text_span entry)
{
    struct message m;
    long at = s->count++;
    if (message_read(entry.ptr, entry.len, &m) != JSON_OK)
        return;
    if (m.timestamp_us && (!s->oldest_us || m.timestamp_us < s->oldest_us))
        s->oldest_us = m.timestamp_us;
    if (s->acked_hash && m.id_hash == s->acked_hash && s->acked_position < 0)
        s->acked_position = at;
    if (m.id_hash != s->id_hash || !m.has_id)
        return;
    s->copies++;
    if (s->position >= 0)
        return; /* the newest is shown */
    s->position = at;
    s->bytes = entry.len;
    s->timestamp_us = m.timestamp_us;
    copy_string(m.type, s->type, sizeof(s->type));
    copy_string(m.timestamp, s->timestamp, sizeof(s->timestamp));
}

void stored_end(struct stored *s)
{
    s->is_acked = s->acked_hash == s->id_hash ||
                  (s->position >= 0 && s->acked_position >= 0 && s->position >= s->acked_position);
}
