#include "config.h"

#include "workers/subscriber.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "shared/inquiry.h"
#include "shared/log.h"
#include "workers/canary.h"
#include "workers/fate.h"
#include "workers/handover.h"
#include "workers/inquest.h"
#include "workers/marker.h"
#include "workers/push.h"
#include "workers/redislink.h"
#include "workers/session.h"

#define BATCH_CHANNELS 512 /* in one command */
#define BATCHES_A_TURN 16
#define WAITING_MAX 16

/* A message to a user. Handed on in groups: see hand_on. */
struct waiting {
    struct text_span user_id;
    struct text_span payload;
    uint64_t user_hash;
};

/*
 * Confirmations come in the order of what was asked, one for each channel named in a SUBSCRIBE or
 * UNSUBSCRIBE. So each channel sent gets the next number, and each confirmation has the next
 * number: a user is subscribed when the confirmation with *its* number comes, whatever happened
 * under the same name before (a user who left and came back while the first answer was still under
 * way). A user may be freed after subscriber_drop, so a confirmation finds its user by name.
 */
struct subscriber {
    struct worker *w;
    struct redislink *link;
    struct ev_prepare flush;    /* end of the turn: batches leave */
    struct ev_timer more;       /* a batch was left for the next turn */
    struct user_line wanted;    /* to be subscribed */
    struct text_buf dropped;    /* to be unsubscribed: names, each with its NUL */
    size_t dropped_at;          /* of these, bytes sent already */
    uint32_t sent;              /* number of the last channel asked for */
    uint32_t confirmed;         /* number of the last confirmation */
    struct text_buf names;      /* scratch of one batch */
    size_t name_at[BATCH_CHANNELS];
    struct waiting waiting[WAITING_MAX]; /* messages to users that came in a row */
    size_t waiting_count;
    char probe_channel[96];
    char answer_channel[96];    /* answers of other instances to this worker: inquiry.h */
    char handover_channel[96];  /* markers, to all workers of this instance: handover.h */
};

/* ---- sending ---- */

/* Sends command with the names put together in s->names. */
static int send_batch(struct subscriber *s, const char *command, size_t count)
{
    const char *argv[BATCH_CHANNELS + 1] = {command};
    size_t argvlen[BATCH_CHANNELS + 1] = {strlen(command)};
    if (s->names.failed)
        return -1;
    for (size_t i = 0; i < count; i++) {
        size_t end = i + 1 < count ? s->name_at[i + 1] : s->names.len;
        argv[i + 1] = s->names.data + s->name_at[i];
        argvlen[i + 1] = end - s->name_at[i];
    }
    s->sent += (uint32_t)count;
    return redislink_send(s->link, (int)count + 1, argv, argvlen);
}

void subscriber_trim(struct subscriber *s)
{
    text_buf_free(&s->names);
    if (!s->dropped.len)
        text_buf_free(&s->dropped);
}

static void begin_batch(struct subscriber *s)
{
    /* A failed buffer stays failed; the next batch may find memory again. */
    if (s->names.failed)
        text_buf_free(&s->names);
    text_buf_reset(&s->names);
}

static int send_unsubscribe(struct subscriber *s)
{
    size_t count = 0;
    begin_batch(s);
    while (count < BATCH_CHANNELS && s->dropped_at < s->dropped.len) {
        const char *name = s->dropped.data + s->dropped_at;
        size_t len = strlen(name);
        s->name_at[count++] = s->names.len;
        text_add(&s->names, name, len);
        s->dropped_at += len + 1;
    }
    if (s->dropped_at == s->dropped.len) {
        text_buf_reset(&s->dropped);
        s->dropped_at = 0;
    }
    return send_batch(s, "UNSUBSCRIBE", count);
}

static int send_subscribe(struct subscriber *s)
{
    const char *template_text = s->w->start->keys->user_channel;
    size_t count = 0;
    begin_batch(s);
    while (count < BATCH_CHANNELS && s->wanted.first) {
        struct user *u = s->wanted.first;
        hub_line_remove(&s->wanted, u);
        s->name_at[count++] = s->names.len;
        keys_expand(&s->names, template_text, u->id, u->id_len);
        u->subscription = SUBSCRIPTION_SENT;
        u->sub_seq = s->sent + (uint32_t)count;
    }
    return send_batch(s, "SUBSCRIBE", count);
}

/* What is dropped goes before what is wanted: a user who left and came back within one turn ends
 * subscribed. */
static void on_flush(struct ev_loop *loop, struct ev_prepare *p, int events)
{
    (void)events;
    struct subscriber *s = p->data;
    int batches = 0, rc = 0;
    if (!redislink_is_up(s->link))
        return;
    while (!rc && batches++ < BATCHES_A_TURN && (s->dropped.len || s->wanted.first))
        rc = s->dropped.len ? send_unsubscribe(s) : send_subscribe(s);
    if (rc)
        redislink_reset(s->link, "no memory to subscribe");
    else if (s->dropped.len || s->wanted.first) {
        counters_inc(CTR_turn_bound_hits);
        ev_timer_start(loop, &s->more);
    }
}

static void on_more(struct ev_loop *loop, struct ev_timer *t, int events)
{
    (void)loop, (void)t, (void)events; /* the turn it makes ends in on_flush */
}

/* ---- the link ---- */

static void want_again(void *data, struct user *u)
{
    struct subscriber *s = data;
    u->subscription = SUBSCRIPTION_WANTED;
    hub_line_add(&s->wanted, u, PLACE_WANTED);
}

static void on_up(void *data)
{
    struct subscriber *s = data;
    const char *channels[SUBSCRIBER_FIXED_CHANNELS] = {
        s->w->start->keys->broadcast_channel, s->probe_channel, INQUIRY_CHANNEL, s->answer_channel,
        s->handover_channel};
    s->sent = s->confirmed = 0;
    begin_batch(s);
    for (size_t i = 0; i < SUBSCRIBER_FIXED_CHANNELS; i++) {
        s->name_at[i] = s->names.len;
        text_adds(&s->names, channels[i]);
    }
    if (send_batch(s, "SUBSCRIBE", SUBSCRIBER_FIXED_CHANNELS) < 0) {
        redislink_reset(s->link, "no memory to subscribe");
        return;
    }
    hub_each(s->w->hub, want_again, s);
    fate_link(true);
}

static void forget_subscription(void *data, struct user *u)
{
    struct subscriber *s = data;
    if (u->place == PLACE_WANTED)
        hub_line_remove(&s->wanted, u);
    u->subscription = SUBSCRIPTION_WANTED;
}

static void on_down(void *data)
{
    struct subscriber *s = data;
    text_buf_reset(&s->dropped);
    s->dropped_at = 0;
    hub_each(s->w->hub, forget_subscription, s);
    counters_set(CTR_redis_subscriptions, 0);
    fate_link(false);
    session_on_link_lost(s->w);
}

/* The user whose channel it is; NULL when it is none, or nobody's any more. */
static struct user *user_of(const struct subscriber *s, struct text_span channel)
{
    struct text_span id;
    if (!keys_match(s->w->start->keys->user_channel, channel, &id))
        return NULL;
    return hub_find(s->w->hub, id.ptr, id.len);
}

static void on_confirmed(struct subscriber *s, struct text_span channel, bool is_subscribe)
{
    uint32_t number = ++s->confirmed;
    if (number == 2) { /* on_up's second channel */
        if (s->w->canary)
            canary_on_subscribed(s->w->canary);
        return;
    }
    if (number == SUBSCRIBER_FIXED_CHANNELS && s->w->handover)
        handover_on_listening(s->w->handover);
    bool is_users = is_subscribe && number > SUBSCRIBER_FIXED_CHANNELS;
    struct user *u = is_users ? user_of(s, channel) : NULL;
    if (u && u->subscription == SUBSCRIPTION_SENT && u->sub_seq == number) {
        u->subscription = SUBSCRIPTION_CONFIRMED;
        session_on_subscribed(s->w, u);
    }
}

/*
 * Memory is most of what a message to one of many users costs: hardly anything of that user's is in
 * a cache. So its parts are fetched for all of a group before the first of it is looked at, each
 * step with what the one before has brought. A user is looked for again when its turn comes: a
 * message before may have ended it.
 */
static void hand_on(struct subscriber *s)
{
    struct user *users[WAITING_MAX];
    size_t count = s->waiting_count;
    s->waiting_count = 0;
    for (size_t i = 0; i < count; i++)
        hub_prefetch_entry(s->w->hub, s->waiting[i].user_hash);
    for (size_t i = 0; i < count; i++) {
        const struct waiting *m = &s->waiting[i];
        users[i] = hub_find_hashed(s->w->hub, m->user_id.ptr, m->user_id.len, m->user_hash);
        if (users[i])
            session_prefetch(users[i]);
    }
    for (size_t i = 0; i < count; i++)
        if (users[i])
            session_prefetch_more(users[i]);
    for (size_t i = 0; i < count; i++) {
        const struct waiting *m = &s->waiting[i];
        struct user *u = hub_find_hashed(s->w->hub, m->user_id.ptr, m->user_id.len, m->user_hash);
        /* Before the confirmation it can only be an earlier subscription under the same name; the
         * list, which is read after the confirmation, has it if it was stored. */
        if (u && u->subscription == SUBSCRIPTION_CONFIRMED)
            session_on_message(s->w, u, m->payload);
    }
}

/* Before anything else is looked at, so that all stays in order. */
static void on_pause(void *data)
{
    struct subscriber *s = data;
    counters_doing(DOING_TURN, 0);
    if (s->waiting_count)
        hand_on(s);
}

static void on_message(struct subscriber *s, struct text_span channel, struct text_span payload)
{
    counters_doing(DOING_MESSAGE, 0);
    if (text_span_eq(channel, s->w->start->keys->broadcast_channel)) {
        on_pause(s);
        session_on_broadcast(s->w, payload.ptr, payload.len);
        return;
    }
    if (text_span_eq(channel, s->probe_channel)) {
        on_pause(s);
        if (s->w->markers && markers_on_echo(s->w->markers, payload.ptr, payload.len))
            return;
        if (s->w->canary)
            canary_on_echo(s->w->canary, payload.ptr, payload.len);
        return;
    }
    if (text_span_eq(channel, INQUIRY_CHANNEL)) {
        inquest_on_request(s->w->inquest, payload.ptr, payload.len);
        return;
    }
    if (text_span_eq(channel, s->answer_channel)) {
        inquest_on_answer(s->w->inquest, payload.ptr, payload.len);
        return;
    }
    if (text_span_eq(channel, s->handover_channel)) {
        on_pause(s);
        if (s->w->handover)
            handover_on_marker(s->w->handover, payload.ptr, payload.len);
        return;
    }
    struct waiting *m = &s->waiting[s->waiting_count];
    if (!keys_match(s->w->start->keys->user_channel, channel, &m->user_id))
        return;
    m->payload = payload;
    m->user_hash = text_hash64(m->user_id.ptr, m->user_id.len);
    hub_prefetch_bucket(s->w->hub, m->user_hash);
    if (++s->waiting_count == WAITING_MAX)
        hand_on(s);
}

static void on_push(void *data, const struct push *p)
{
    struct subscriber *s = data;
    if (p->is_number) {
        on_pause(s);
        counters_set(CTR_redis_subscriptions, (uint64_t)p->number);
        on_confirmed(s, p->channel, text_span_eq(p->kind, "subscribe"));
    } else if (text_span_eq(p->kind, "message"))
        on_message(s, p->channel, p->payload);
}

static void on_large(void *data, const struct push *p)
{
    const struct subscriber *s = data;
    struct text_buf channel = {0};
    text_add_escaped(&channel, p->channel.ptr, p->channel.len, 100);
    counters_inc(CTR_messages_received);
    counters_inc(CTR_messages_too_big);
    log_warning("message-too-big", "channel", channel.data ? channel.data : "", "bytes",
                LOG_INT(p->payload.len), "max", LOG_INT(s->w->opt->max_payload_size));
    text_buf_free(&channel);
}

static struct text_span span_of(const redisReply *r)
{
    return (struct text_span){r->str, r->len};
}

static void on_reply(void *data, const struct redisReply *reply)
{
    struct subscriber *s = data;
    if (reply->type == REDIS_REPLY_ERROR) {
        counters_inc(CTR_redis_errors);
        redislink_reset(s->link, reply->str);
        return;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
        reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING) {
        redislink_reset(s->link, "an unexpected reply");
        return;
    }
    const redisReply *last = reply->element[2];
    struct push p = {.kind = span_of(reply->element[0]), .channel = span_of(reply->element[1])};
    p.is_number = last->type == REDIS_REPLY_INTEGER;
    if (p.is_number)
        p.number = last->integer;
    else if (last->type == REDIS_REPLY_STRING)
        p.payload = span_of(last);
    else
        return;
    on_push(s, &p);
    on_pause(s); /* the reply is freed */
}

/* ---- interface ---- */

static const struct redislink_owner owner = {
    .name = "subscriber",
    .up = CTR_redis_subscriber_up,
    .is_raw = true,
    .on_up = on_up,
    .on_down = on_down,
    .on_push = on_push,
    .on_large = on_large,
    .on_reply = on_reply,
    .on_pause = on_pause,
};

struct subscriber *subscriber_new(struct worker *w)
{
    struct subscriber *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->w = w;
    snprintf(s->probe_channel, sizeof(s->probe_channel), "belfry:probe:%.48s:%u",
             w->start->instance_id, w->start->slot);
    snprintf(s->handover_channel, sizeof(s->handover_channel), HANDOVER_CHANNEL "%.48s",
             w->start->instance_id);
    snprintf(s->answer_channel, sizeof(s->answer_channel), INQUIRY_ANSWERS "%.48s:%u",
             w->start->instance_id, w->start->slot);
    ev_prepare_init(&s->flush, on_flush);
    ev_timer_init(&s->more, on_more, 0., 0.);
    s->flush.data = s;
    s->link = redislink_new(w, &owner, s);
    if (!s->link) {
        free(s);
        return NULL;
    }
    ev_prepare_start(w->loop, &s->flush);
    return s;
}

void subscriber_free(struct subscriber *s)
{
    if (!s)
        return;
    ev_prepare_stop(s->w->loop, &s->flush);
    ev_timer_stop(s->w->loop, &s->more);
    redislink_free(s->link);
    text_buf_free(&s->dropped);
    text_buf_free(&s->names);
    free(s);
}

void subscriber_want(struct subscriber *s, struct user *u)
{
    if (u->subscription != SUBSCRIPTION_NONE)
        return;
    u->subscription = SUBSCRIPTION_WANTED;
    if (redislink_is_up(s->link))
        hub_line_add(&s->wanted, u, PLACE_WANTED);
}

void subscriber_drop(struct subscriber *s, struct user *u)
{
    enum subscription was = u->subscription;
    u->subscription = SUBSCRIPTION_NONE;
    if (u->place == PLACE_WANTED)
        hub_line_remove(&s->wanted, u);
    if ((was != SUBSCRIPTION_SENT && was != SUBSCRIPTION_CONFIRMED) || !redislink_is_up(s->link))
        return;
    size_t start = s->dropped.len;
    keys_expand(&s->dropped, s->w->start->keys->user_channel, u->id, u->id_len);
    text_addc(&s->dropped, '\0');
    if (s->dropped.failed) {
        text_buf_free(&s->dropped);
        s->dropped_at = 0;
        redislink_reset(s->link, "no memory to unsubscribe");
        return;
    }
    /* A template can make a user's channel the same as the broadcast channel; that one stays. */
    if (!strcmp(s->dropped.data + start, s->w->start->keys->broadcast_channel) ||
        !strcmp(s->dropped.data + start, s->probe_channel) ||
        !strcmp(s->dropped.data + start, INQUIRY_CHANNEL) ||
        !strcmp(s->dropped.data + start, s->answer_channel) ||
        !strcmp(s->dropped.data + start, s->handover_channel))
        s->dropped.len = start;
}

bool subscriber_is_up(const struct subscriber *s)
{
    return redislink_is_up(s->link);
}

bool subscriber_is_listening(const struct subscriber *s)
{
    return redislink_is_up(s->link) && s->confirmed >= SUBSCRIBER_FIXED_CHANNELS;
}

bool subscriber_has_tried(const struct subscriber *s)
{
    return redislink_is_up(s->link) ? subscriber_is_listening(s) : redislink_has_tried(s->link);
}

void subscriber_reset(struct subscriber *s, const char *why)
{
    redislink_reset(s->link, why);
}

void subscriber_look(struct subscriber *s)
{
    redislink_look(s->link);
}

const char *subscriber_probe_channel(const struct subscriber *s)
{
    return s->probe_channel;
}
