#include "config.h"

#include "workers/fullsync.h"

#include <string.h>

#include "shared/clock.h"
#include "shared/counters.h"
#include "shared/json.h"
#include "shared/log.h"

/* The snapshot is a producer's: one that is no JSON object is skipped like a stored message. */
static bool is_usable(struct text_span user_id, struct text_span snapshot)
{
    if (!snapshot.len)
        return false;
    enum json_result result = json_scan_object(snapshot.ptr, snapshot.len, NULL, NULL);
    if (result == JSON_OK)
        return true;
    char id[65] = "";
    strncat(id, user_id.ptr, user_id.len < 64 ? user_id.len : 64);
    counters_inc(CTR_stored_invalid);
    log_warning("snapshot-invalid", "user", id, "why", json_result_text(result));
    return false;
}

void fullsync_write(struct text_buf *out, const struct fullsync *f)
{
    char now[CLOCK_ISO_BYTES];
    clock_format_us(clock_wall_us(), f->with_zone, now);
    text_addf(out, "{\"type\":\"%s\",\"timestamp\":\"%s\",\"user_id\":", f->type, now);
    text_add_json(out, f->user_id.ptr, f->user_id.len);
    text_adds(out, ",\"payload\":");
    if (is_usable(f->user_id, f->snapshot))
        text_add(out, f->snapshot.ptr, f->snapshot.len);
    else
        text_adds(out, "{}");
    text_addf(out, ",\"sync\":{\"recovered\":%s,\"missed\":%zu,\"unread\":%zu,\"last_id\":",
              f->is_recovered ? "true" : "false", f->missed, f->unread);
    if (f->last_id.len)
        text_add(out, f->last_id.ptr, f->last_id.len);
    else
        text_adds(out, "null");
    text_adds(out, ",\"connection_id\":");
    text_add_json(out, f->connection_id, strlen(f->connection_id));
    text_adds(out, "}}");
}
