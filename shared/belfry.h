/*
 * belfry.h - libbelfry: publish events to the users of a Belfry gateway, from C. See libbelfry(3).
 *
 * One handle is one Redis connection, used by one thread at a time. Calls block for at most the
 * timeout (looking up a host's name excepted). An event is stored and published in one atomic
 * script; see belfry-protocol(7). Nothing here prints, exits, or leaves a signal behind.
 */
#ifndef BELFRY_H
#define BELFRY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct belfry; /* a connection to Redis and the names used in it */

/* What may be changed before the first event; every pointer may be NULL for the default in
 * parentheses. Strings are copied. */
struct belfry_config {
    const char *redis_url;         /* (redis://127.0.0.1:6379/0) or unix://, rediss:// */
    const char *user_channel;      /* (ws:user:{user_id}) */
    const char *broadcast_channel; /* (ws:broadcast) */
    const char *notifications_key; /* (notifications:{user_id}) */
    const char *snapshot_key;      /* (ws:snapshot:{user_id}) */
    long history_size;             /* (100 when 0) */
    long history_ttl_s;            /* (604800 when 0) */
    int timeout_ms;                /* (5000 when 0) for one call, connecting included */
    int flags;                     /* BELFRY_LOWER_CASE, BELFRY_NAIVE_TIME, BELFRY_CHECK_NOTHING */
};

#define BELFRY_LOWER_CASE 1    /* write the table's types in lower case (event-case = lower) */
#define BELFRY_NAIVE_TIME 2    /* write timestamps without Z (profile = finance-tracker) */
#define BELFRY_CHECK_NOTHING 4 /* as BELFRY_NO_CHECK on every call, broadcasts too */

#define BELFRY_NO_STORE 1 /* belfry_emit: publish only */
#define BELFRY_NO_CHECK 2 /* belfry_emit: do not check the payload's fields */

#define BELFRY_ID_BYTES 37

/* Makes a handle; config may be NULL. Does not connect yet: the first call does, and a lost
 * connection is made again by the next call. NULL only without memory or with a config that is
 * malformed or asks for TLS in a library without it (belfry_errmsg(NULL) then says why). */
struct belfry *belfry_open(const struct belfry_config *config);
void belfry_close(struct belfry *b);

/* Event to every device of one user, online or not. payload: one JSON object as text (NULL: {}). A
 * type of the event table has its payload's fields checked; other types pass as they are. id_out:
 * NULL or room for BELFRY_ID_BYTES, written on success. Returns the number of gateways' workers the
 * live copy reached (0: nobody is connected, the event waits in the list), or a negative errno:
 *
 *   -EINVAL   user, type or payload; belfry_errmsg names the field. Nothing was sent.
 *   -EACCES   Redis refuses the user or password. The event was not stored.
 *   -ETIMEDOUT, -ECONNREFUSED, -ENOENT, -EHOSTUNREACH and other errors of connecting: not sent.
 *   -EIO      Redis refused the event (belfry_errmsg has its words), or the connection broke or
 *             fell silent after it was sent: then it is unknown whether it arrived.
 *   -ENOMEM
 */
int belfry_emit(struct belfry *b, const char *user_id, const char *type, const char *payload,
                int flags, char *id_out);
/* To every connected device; not stored. Returns as belfry_emit. */
int belfry_broadcast(struct belfry *b, const char *type, const char *payload, char *id_out);

/* Text about the last failed call on this handle; valid until the next call. With NULL: about this
 * thread's last failed belfry_open. Never NULL. */
const char *belfry_errmsg(const struct belfry *b);

#ifdef __cplusplus
}
#endif

#endif
