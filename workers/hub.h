/*
 * hub.h - users and their devices on this worker.
 *
 * Index only: user id -> struct user -> list of devices. Says when a user's first device came and
 * its last one left; what that means (subscribing, reading the list) is the session's (session.h).
 */
#ifndef BELFRY_WORKERS_HUB_H
#define BELFRY_WORKERS_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/device.h"

struct answer;     /* session_answer.c: what was read of a list */
struct expected;   /* session_handover.c: devices are on their way from another worker */
struct hub;
struct recent;     /* recent.h: ids this user's devices were sent */
struct store_call; /* store.h */

enum subscription {
    SUBSCRIPTION_NONE,
    SUBSCRIPTION_WANTED,
    SUBSCRIPTION_SENT,
    SUBSCRIPTION_CONFIRMED
};

/* Lines of users. Each waits in one at most: to be subscribed or, once it is, for its list. */
enum user_place {
    PLACE_NONE,
    PLACE_WANTED,  /* subscriber.c */
    PLACE_READY,   /* session_read.c */
    PLACE_DELAYED  /* the same: its reading failed */
};

struct user_line {
    struct user *first, *last;
};

/* As small as can be, for there is one for nearly every connection. What a message looks at first
 * stands first. */
struct user {
    struct user *hash_next;       /* hub.c's */
    uint64_t id_hash;             /* text_hash64 of id: usertable.h */
    struct device *devices;       /* newest first */
    struct recent *recent;        /* what they were sent: the session's; NULL: nothing yet */
    struct expected *expected;    /* session_handover.c: is kept while there is one */
    struct store_call *reading;   /* session_read.c: its list is being read */
    struct answer *answer;        /* session_read.c: it was read, and is not applied yet */
    uint64_t newest_listed;       /* session_apply.c: id of its newest stored message; 0: none */
    struct user *line_next, *line_prev; /* in the line of its place */
    uint32_t device_count;
    uint32_t sub_seq;             /* subscriber.c: which confirmation is this subscription's */
    unsigned subscription : 2;    /* enum subscription; subscriber.c's */
    unsigned place : 2;           /* enum user_place */
    bool needs_repair : 1;        /* session.c: the link was lost since the list was read */
    bool is_spoiled : 1;          /* session_live.c: the reading under way serves nobody any more */
    bool is_leaving : 1;          /* handover_giver.c: another worker has been told to expect it */
    uint16_t id_len;
    char id[];                    /* NUL-terminated */
};

/* NULL without memory. */
struct hub *hub_new(void);
/* Nobody may be in it any more but users without devices. Accepts NULL. */
void hub_free(struct hub *h);
/* The user, made when new. NULL without memory. */
struct user *hub_add(struct hub *h, const char *user_id, size_t len);
/* Adds the device to its user, made when new. NULL without memory. */
struct user *hub_join(struct hub *h, struct device *d, const char *user_id, size_t len);
/* Takes the device out; true when it was the user's last (the user still exists until
 * hub_forget). */
bool hub_leave(struct hub *h, struct device *d);
/* Frees a user without devices (recent must be freed by its owner before). */
void hub_forget(struct hub *h, struct user *u);
/* NULL: no device of that user is here, nor expected. */
struct user *hub_find(struct hub *h, const char *user_id, size_t len);
/* The same where the id's hash (text_hash64) is known. Who knows some users ahead that it will look
 * for calls the other two before, one step for all of them and then the next, so that what is read
 * here is fetched from memory meanwhile: at 10,000 users none of it is in a cache. */
struct user *hub_find_hashed(struct hub *h, const char *user_id, size_t len, uint64_t id_hash);
void hub_prefetch_bucket(const struct hub *h, uint64_t id_hash);
void hub_prefetch_entry(const struct hub *h, uint64_t id_hash);
/* Calls fn for every user; fn may make device leave but not join, and must not forget other users
 * than u. */
void hub_each(struct hub *h, void (*fn)(void *data, struct user *u), void *data);
/* Calls fn for users until it returns false; fn must change nothing. */
void hub_some(struct hub *h, bool (*fn)(void *data, struct user *u), void *data);
size_t hub_users(const struct hub *h);
/* Memory of users who left goes back to the system, as far as nobody is beside them. */
void hub_trim(struct hub *h);

/* Puts a user that is in no line at the end of one. */
void hub_line_add(struct user_line *line, struct user *u, enum user_place place);
/* Takes it out of that line, where it is. */
void hub_line_remove(struct user_line *line, struct user *u);

#endif
