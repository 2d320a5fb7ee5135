/*
 * check_subscriber.c - subscriptions of users who come and go, against a real redis-server.
 */
#include "config.h"

#include "tests/unit/redis_server.h"

#include "shared/log.h"
#include "workers/canary.h"
#include "workers/handover.h"
#include "workers/hub.h"
#include "workers/inquest.h"
#include "workers/marker.h"
#include "workers/session.h"
#include "workers/subscriber.h"

#define MANY 3000
#define FIXED SUBSCRIBER_FIXED_CHANNELS

static struct redis_server server;
static unsigned confirmed, messages, broadcasts, losses, probes_ready, listenings;
static unsigned broadcasts_then; /* at the latest message to a user */
static uint64_t subscriptions_then; /* at the latest confirmation */
static char last_user[64], last_text[64], last_echo[64], last_question[64], last_answer[64];
static char last_marker[64];
static char last_handover[64];
static char some_handover; /* nobody looks at it */

void session_on_subscribed(struct worker *w, struct user *u)
{
    (void)w, (void)u;
    confirmed++;
    subscriptions_then = counter(CTR_redis_subscriptions);
}

static void copy(char to[64], const char *text, size_t len)
{
    snprintf(to, 64, "%.*s", (int)len, text);
}

void session_on_message(struct worker *w, struct user *u, struct text_span payload)
{
    (void)w;
    messages++;
    broadcasts_then = broadcasts;
    copy(last_user, u->id, u->id_len);
    copy(last_text, payload.ptr, payload.len);
}

void session_prefetch(const struct user *u)
{
    (void)u;
}

void session_prefetch_more(const struct user *u)
{
    (void)u;
}

void session_on_broadcast(struct worker *w, const char *payload, size_t len)
{
    (void)w;
    broadcasts++;
    copy(last_text, payload, len);
}

void session_on_link_lost(struct worker *w)
{
    (void)w;
    losses++;
}

void handover_on_listening(struct handover *h)
{
    (void)h;
    listenings++;
}

void handover_on_marker(struct handover *h, const char *text, size_t len)
{
    (void)h;
    copy(last_handover, text, len);
}

void canary_on_subscribed(struct canary *c)
{
    (void)c;
    probes_ready++;
}

void canary_on_echo(struct canary *c, const char *payload, size_t len)
{
    (void)c;
    copy(last_echo, payload, len);
}

bool markers_on_echo(struct markers *m, const char *payload, size_t len)
{
    (void)m;
    if (!len || payload[0] != 'm')
        return false;
    copy(last_marker, payload, len);
    return true;
}

void inquest_on_request(struct inquest *q, const char *payload, size_t len)
{
    (void)q;
    copy(last_question, payload, len);
}

void inquest_on_answer(struct inquest *q, const char *payload, size_t len)
{
    (void)q;
    copy(last_answer, payload, len);
}

static void setup(void)
{
    unit_setup();
    redis_prepare(&server);
    redis_start(&server, NULL, NULL, NULL);
    unit_use(&server);
    broadcasts_then = 0;
    confirmed = messages = broadcasts = losses = probes_ready = listenings = 0;
    last_handover[0] = '\0';
    last_text[0] = last_echo[0] = last_user[0] = last_question[0] = last_answer[0] = '\0';
    unit_worker.hub = hub_new();
    unit_worker.canary = (struct canary *)&server; /* is there, is never looked into */
    unit_worker.markers = (struct markers *)&server;
    unit_worker.subscriber = subscriber_new(&unit_worker);
}

static void teardown(void)
{
    subscriber_free(unit_worker.subscriber);
    hub_free(unit_worker.hub);
    redis_remove(&server);
    unit_teardown();
}

static struct user *come(struct device *d, const char *id)
{
    *d = (struct device){0};
    struct user *u = hub_join(unit_worker.hub, d, id, strlen(id));
    if (u->device_count == 1)
        subscriber_want(unit_worker.subscriber, u);
    return u;
}

static void go(struct device *d)
{
    struct user *u = d->user;
    if (!hub_leave(unit_worker.hub, d))
        return;
    subscriber_drop(unit_worker.subscriber, u);
    hub_forget(unit_worker.hub, u);
}

/* Channels of users that Redis has. */
static size_t channels(void)
{
    redisReply *r = redis_do(&server, "PUBSUB CHANNELS ws:user:*");
    size_t n = r->elements;
    freeReplyObject(r);
    return n;
}

START_TEST(a_user_is_confirmed_and_its_messages_come)
{
    struct device d;
    struct user *u = come(&d, "alice");
    ck_assert_int_eq(u->subscription, SUBSCRIPTION_WANTED);
    unit_run_until(confirmed == 1);
    ck_assert_int_eq(u->subscription, SUBSCRIPTION_CONFIRMED);
    ck_assert_int_eq(redis_int(&server, "PUBLISH ws:user:alice %s", "hello"), 1);
    redis_int(&server, "PUBLISH ws:user:bob no");
    unit_run_until(messages == 1);
    ck_assert_str_eq(last_user, "alice");
    ck_assert_str_eq(last_text, "hello");
    ck_assert_uint_eq(counter(CTR_redis_subscriptions), FIXED + 1);
}
END_TEST

START_TEST(broadcasts_probes_and_markers_need_no_user)
{
    unit_run_until(probes_ready == 1);
    redis_int(&server, "PUBLISH ws:broadcast all");
    redis_int(&server, "PUBLISH %s 42", subscriber_probe_channel(unit_worker.subscriber));
    redis_int(&server, "PUBLISH %s marker:1:1", subscriber_probe_channel(unit_worker.subscriber));
    unit_run_until(broadcasts == 1 && last_echo[0] && last_marker[0]);
    ck_assert_str_eq(last_marker, "marker:1:1");
    ck_assert_str_eq(last_text, "all");
    ck_assert_str_eq(last_echo, "42");
    ck_assert_str_eq(subscriber_probe_channel(unit_worker.subscriber), "belfry:probe:unit:0");
}
END_TEST

/* One write to Redis, so that they come in one read, and what stands between them stays there. */
START_TEST(what_comes_in_one_read_is_handed_on_in_order)
{
    struct device d;
    come(&d, "alice");
    unit_run_until(confirmed == 1);
    redisContext *c = redisConnectUnix(server.socket);
    for (int i = 0; i < 100; i++) {
        redisAppendCommand(c, "PUBLISH ws:broadcast b%d", i);
        if (i == 49)
            redisAppendCommand(c, "PUBLISH ws:user:alice between");
    }
    for (int i = 0; i < 101; i++) {
        redisReply *r = NULL;
        ck_assert_int_eq(redisGetReply(c, (void **)&r), REDIS_OK);
        freeReplyObject(r);
    }
    redisFree(c);
    unit_run_until(broadcasts == 100);
    ck_assert_str_eq(last_text, "b99");
    ck_assert_uint_eq(messages, 1);
    ck_assert_uint_eq(broadcasts_then, 50);
    go(&d);
}
END_TEST

/* Who asks Redis once more knows that what was published before has left it. */
START_TEST(what_has_come_is_handed_on_without_a_word_from_the_loop)
{
    struct device d;
    subscriber_look(unit_worker.subscriber); /* there is no link yet */
    come(&d, "alice");
    unit_run_until(confirmed == 1);
    redis_int(&server, "PUBLISH ws:user:alice hello");
    redis_int(&server, "EXISTS nothing");
    ck_assert_uint_eq(messages, 0);
    subscriber_look(unit_worker.subscriber);
    ck_assert_uint_eq(messages, 1);
    ck_assert_str_eq(last_text, "hello");
    subscriber_look(unit_worker.subscriber);
    redis_int(&server, "PUBLISH ws:user:alice again");
    unit_run_until(messages == 2);
    ck_assert_str_eq(last_text, "again");
}
END_TEST

START_TEST(markers_of_a_hand_over_come_from_the_moment_on_that_is_told)
{
    unit_worker.handover = (struct handover *)(void *)&some_handover;
    ck_assert(!subscriber_is_listening(unit_worker.subscriber));
    unit_run_until(listenings == 1);
    ck_assert(subscriber_is_listening(unit_worker.subscriber));
    redis_int(&server, "PUBLISH " HANDOVER_CHANNEL "unit 0.1.2");
    unit_run_until(last_handover[0]);
    ck_assert_str_eq(last_handover, "0.1.2");
    unit_worker.handover = NULL;
}
END_TEST

START_TEST(questions_of_instances_and_answers_to_this_worker_come)
{
    unit_run_until(counter(CTR_redis_subscriptions) == FIXED);
    redis_int(&server, "PUBLISH belfry:request who");
    redis_int(&server, "PUBLISH belfry:answer:unit:1 other");
    redis_int(&server, "PUBLISH belfry:answer:unit:0 me");
    unit_run_until(last_question[0] && last_answer[0]);
    ck_assert_str_eq(last_question, "who");
    ck_assert_str_eq(last_answer, "me");
}
END_TEST

START_TEST(thousands_of_users_are_subscribed_in_few_commands_and_again_after_a_loss)
{
    struct device *d = calloc(MANY, sizeof(*d));
    char id[16];
    unit_run_until(probes_ready == 1);
    uint64_t commands = counter(CTR_redis_commands);
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof(id), "u%d", i);
        come(&d[i], id);
    }
    unit_run_until(confirmed == MANY);
    ck_assert_uint_le(counter(CTR_redis_commands) - commands, MANY / 512 + 1);
    ck_assert_uint_eq(channels(), MANY);
    freeReplyObject(redis_do(&server, "CLIENT KILL TYPE pubsub"));
    unit_run_until(losses == 1);
    ck_assert_int_eq(d[7].user->subscription, SUBSCRIPTION_WANTED);
    unit_run_until(confirmed == 2 * MANY);
    ck_assert_uint_eq(channels(), MANY);
    for (int i = 0; i < MANY; i++)
        go(&d[i]);
    unit_run_until(counter(CTR_redis_subscriptions) == FIXED);
    ck_assert_uint_eq(channels(), 0);
    free(d);
}
END_TEST

START_TEST(a_user_who_leaves_before_the_turn_ends_costs_no_command)
{
    struct device d;
    unit_run_until(probes_ready == 1);
    uint64_t commands = counter(CTR_redis_commands);
    come(&d, "alice");
    go(&d);
    unit_run(0.05);
    ck_assert_uint_eq(counter(CTR_redis_commands), commands);
}
END_TEST

START_TEST(a_user_who_leaves_and_comes_back_is_confirmed_by_its_own_confirmation_only)
{
    struct device alice, bob;
    unit_run_until(probes_ready == 1);
    come(&alice, "alice");
    ev_run(unit_worker.loop, EVRUN_NOWAIT);
    ck_assert_int_eq(alice.user->subscription, SUBSCRIPTION_SENT); /* SUBSCRIBE is on its way */
    go(&alice);
    come(&bob, "bob");
    come(&alice, "alice");
    ck_assert_int_eq(alice.user->subscription, SUBSCRIPTION_WANTED);
    unit_run_until(alice.user->subscription == SUBSCRIPTION_CONFIRMED);
    ck_assert_uint_eq(confirmed, 2);
    /* With bob: not the answer to the first SUBSCRIBE. */
    ck_assert_uint_eq(subscriptions_then, FIXED + 2);
    ck_assert_int_eq(redis_int(&server, "PUBLISH ws:user:alice x"), 1);
    unit_run_until(messages == 1);
}
END_TEST

START_TEST(after_any_coming_and_going_redis_has_exactly_who_is_here)
{
    enum { USERS = 12 };
    struct device d[USERS] = {0};
    unsigned seed = (unsigned)_i + 1;
    char id[16];
    for (int step = 0; step < 3000; step++) {
        int i = rand_r(&seed) % USERS;
        snprintf(id, sizeof(id), "u%d", i);
        if (d[i].user)
            go(&d[i]);
        else
            come(&d[i], id);
        if (rand_r(&seed) % 3 == 0)
            ev_run(unit_worker.loop, EVRUN_NOWAIT);
        if (rand_r(&seed) % 500 == 0)
            freeReplyObject(redis_do(&server, "CLIENT KILL TYPE pubsub"));
        if (rand_r(&seed) % 20 == 0)
            subscriber_trim(unit_worker.subscriber);
    }
    size_t here = 0;
    for (int i = 0; i < USERS; i++) {
        if (!d[i].user)
            continue;
        here++;
        unit_run_until(d[i].user->subscription == SUBSCRIPTION_CONFIRMED);
    }
    unit_run_until(counter(CTR_redis_subscriptions) == here + FIXED);
    ck_assert_uint_eq(channels(), here);
    for (int i = 0; i < USERS; i++) {
        snprintf(id, sizeof(id), "u%d", i);
        ck_assert_int_eq(redis_int(&server, "PUBLISH ws:user:%s x", id), d[i].user != NULL);
    }
    unit_run_until(messages == here);
}
END_TEST

START_TEST(a_user_whose_channel_is_the_broadcast_channel_does_not_end_it)
{
    struct device d;
    keys_fini(&unit_keys);
    ck_assert_int_eq(keys_init(&unit_keys, "ws:{user_id}", "ws:broadcast", "n:{user_id}",
                               "s:{user_id}"), 0);
    unit_run_until(probes_ready == 1);
    come(&d, "broadcast");
    unit_run_until(confirmed == 1);
    go(&d);
    unit_run(0.05);
    ck_assert_int_eq(redis_int(&server, "PUBLISH ws:broadcast x"), 1);
    unit_run_until(broadcasts == 1);
    ck_assert_uint_eq(messages, 0);
}
END_TEST

START_TEST(bytes_of_any_kind_pass)
{
    struct device d;
    come(&d, "%s \xc3\xa9*");
    unit_run_until(confirmed == 1);
    ck_assert_int_eq(redis_int(&server, "PUBLISH %b %b", "ws:user:%s \xc3\xa9*", (size_t)14, "a\0b",
                               (size_t)3), 1);
    unit_run_until(messages == 1);
    ck_assert_mem_eq(last_text, "a", 2);
}
END_TEST

int main(void)
{
    if (!redis_is_installed())
        return redis_skip();
    log_set_level(LOG_LEVEL_ERROR);
    Suite *s = suite_create("subscriber");
    TCase *t = tcase_create("subscriber");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_user_is_confirmed_and_its_messages_come);
    tcase_add_test(t, broadcasts_probes_and_markers_need_no_user);
    tcase_add_test(t, what_comes_in_one_read_is_handed_on_in_order);
    tcase_add_test(t, what_has_come_is_handed_on_without_a_word_from_the_loop);
    tcase_add_test(t, markers_of_a_hand_over_come_from_the_moment_on_that_is_told);
    tcase_add_test(t, questions_of_instances_and_answers_to_this_worker_come);
    tcase_add_test(t, thousands_of_users_are_subscribed_in_few_commands_and_again_after_a_loss);
    tcase_add_test(t, a_user_who_leaves_before_the_turn_ends_costs_no_command);
    tcase_add_test(t, a_user_who_leaves_and_comes_back_is_confirmed_by_its_own_confirmation_only);
    tcase_add_loop_test(t, after_any_coming_and_going_redis_has_exactly_who_is_here, 0, 3);
    tcase_add_test(t, a_user_whose_channel_is_the_broadcast_channel_does_not_end_it);
    tcase_add_test(t, bytes_of_any_kind_pass);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
