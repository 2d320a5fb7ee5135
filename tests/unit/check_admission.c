/*
 * check_admission.c - what Redis has to say about a token, with Redis and connections played: each
 * question waits until the test answers it.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "workers/admission.h"
#include "workers/auth.h"

#define PEOPLE 600
#define CALLS 2000
#define INTERVAL_MS 200

struct store_call {
    struct text_buf key; /* of HGET the field */
    size_t count;        /* of keys */
    store_done_fn *done;
    store_text_fn *text;
    void *data;
    bool is_cancelled, is_answered;
};

static struct worker worker;
static struct options opt;
static struct admissions *all;
static void (*on_up)(void *data);
static void *on_up_data;
static bool is_up;
static struct store_call calls[CALLS];
static size_t call_count, first_open;

static struct person {
    struct conn conn;
    int closed; /* -1: not */
    unsigned failures, admitted, went_on;
    bool is_reply_due, is_lower;
    char user[300];
    struct text_buf heard;
    const char *next_jti; /* comes with the next message heard */
} people[PEOPLE];

/* ---- Redis ---- */

static struct store_call *ask(const struct text_span *keys, size_t count, void *data)
{
    ck_assert_uint_lt(call_count, CALLS);
    if (!is_up)
        return NULL;
    struct store_call *c = &calls[call_count++];
    *c = (struct store_call){.count = count, .data = data};
    for (size_t i = 0; i < count; i++) {
        text_add(&c->key, keys[i].ptr, keys[i].len);
        text_addc(&c->key, ' ');
    }
    return c;
}

struct store_call *store_exists(struct store *s, const struct text_span *keys, size_t count,
                                store_done_fn *fn, void *data)
{
    (void)s;
    struct store_call *c = ask(keys, count, data);
    if (c)
        c->done = fn;
    return c;
}

struct store_call *store_hget(struct store *s, const char *key, struct text_span field,
                              store_text_fn *fn, void *data)
{
    (void)s;
    ck_assert_str_eq(key, opt.user_map_key);
    struct store_call *c = ask(&field, 1, data);
    if (c)
        c->text = fn;
    return c;
}

void store_cancel(struct store_call *c)
{
    if (c)
        c->is_cancelled = true;
}

void store_listen(struct store *s, void (*fn)(void *data), void *data)
{
    (void)s;
    on_up = fn;
    on_up_data = data;
}

/* The oldest question that is open; NULL: none. */
static struct store_call *question(void)
{
    while (first_open < call_count &&
           (calls[first_open].is_cancelled || calls[first_open].is_answered))
        first_open++;
    return first_open < call_count ? &calls[first_open] : NULL;
}

static struct store_call *asked(const char *key)
{
    struct store_call *c = question();
    ck_assert_ptr_nonnull(c);
    ck_assert_str_eq(c->key.data, key);
    c->is_answered = true;
    return c;
}

static void answer_revoked(const char *key, int error, int64_t value)
{
    struct store_call *c = asked(key);
    ck_assert_ptr_nonnull(c->done);
    c->done(c->data, error, value);
}

static void answer_user(const char *claim, int error, const char *user)
{
    struct store_call *c = asked(claim);
    ck_assert_ptr_nonnull(c->text);
    c->text(c->data, error, text_span_of(user));
}

static void comes_up(void)
{
    is_up = true;
    on_up(on_up_data);
}

/* ---- connections ---- */

static struct person *who(const struct conn *c)
{
    return (struct person *)((uintptr_t)c - offsetof(struct person, conn));
}

void conn_close(struct conn *c, enum close_reason reason)
{
    who(c)->closed = (int)reason;
    c->state = CONN_CLOSING;
}

/* It is read from again. */
void conn_go_on(struct conn *c)
{
    ck_assert_int_ne(c->state, CONN_DEAD);
    who(c)->went_on++;
}

void auth_failed(const struct conn *c, const char *why)
{
    ck_assert(why[0]);
    who(c)->failures++;
}

void conn_admitted(struct conn *c, const struct token_claims *claims, bool is_reply_due,
                   bool is_lower)
{
    struct person *p = who(c);
    p->admitted++;
    p->is_reply_due = is_reply_due;
    p->is_lower = is_lower;
    ck_assert_uint_eq(claims->user_id_len, strlen(claims->user_id));
    memcpy(p->user, claims->user_id, claims->user_id_len + 1);
    c->state = CONN_OPEN;
}

static struct token_claims claims_of(const char *user, const char *jti)
{
    struct token_claims claims = {.user_id_len = strlen(user), .jti_len = strlen(jti)};
    memcpy(claims.user_id, user, strlen(user) + 1);
    memcpy(claims.jti, jti, strlen(jti) + 1);
    return claims;
}

static int begins(struct person *p, const char *user, const char *jti)
{
    struct token_claims claims = claims_of(user, jti);
    return admission_begin(&p->conn, &claims, true, false);
}

void conn_hear(struct conn *c, const char *text, size_t len)
{
    struct person *p = who(c);
    text_add(&p->heard, text, len);
    text_addc(&p->heard, '|');
    if (p->next_jti) {
        const char *jti = p->next_jti;
        p->next_jti = NULL;
        ck_assert_int_eq(begins(p, "other", jti), 0);
    }
}

static struct person *person(int number)
{
    struct person *p = &people[number];
    *p = (struct person){.conn = {.worker = &worker, .state = CONN_AUTH}, .closed = -1};
    return p;
}

/* Lets time pass, as much as the slowest turn through all. */
static void pass(void)
{
    ev_tstamp until = ev_time() + 30;
    size_t before = call_count;
    while (call_count == before && ev_time() < until)
        ev_run(worker.loop, EVRUN_ONCE);
    ck_assert_msg(call_count > before, "nobody was asked for");
}

static void start(void)
{
    static char denied[] = "denied:{jti}", none[] = "";
    opt.denylist_key = denied;
    opt.denylist_interval = INTERVAL_MS;
    opt.user_map_key = none;
    ck_assert_ptr_nonnull(worker.loop = ev_loop_new(EVFLAG_NOENV));
    worker.opt = &opt;
    call_count = first_open = 0;
    memset(people, 0, sizeof(people));
    is_up = true;
    ck_assert_ptr_nonnull(all = admissions_new(&worker));
    worker.admissions = all;
}

static void start_mapped(void)
{
    static char map[] = "users";
    start();
    opt.user_map_key = map;
}

static void stop(void)
{
    for (int i = 0; i < PEOPLE; i++) {
        if (people[i].conn.worker)
            admission_end(&people[i].conn);
        text_buf_free(&people[i].heard);
    }
    ck_assert_ptr_null(question());
    for (size_t i = 0; i < call_count; i++)
        text_buf_free(&calls[i].key);
    admissions_free(all);
    ev_loop_destroy(worker.loop);
}

/* ---- revocation ---- */

START_TEST(a_token_without_a_name_needs_no_answer)
{
    struct person *p = person(0);
    ck_assert_int_eq(begins(p, "u", ""), 1);
    ck_assert_ptr_null(p->conn.admission);
    ck_assert_uint_eq(admission_jti(&p->conn).len, 0);
    ck_assert_ptr_null(question());
}
END_TEST

START_TEST(a_named_token_is_good_until_redis_says_otherwise)
{
    struct person *p = person(0);
    ck_assert_int_eq(begins(p, "u", "j1"), 1);
    ck_assert(!admission_is_pending(&p->conn));
    ck_assert(text_span_eq(admission_jti(&p->conn), "j1"));
    answer_revoked("denied:j1 ", 0, 0);
    ck_assert_int_eq(p->closed, -1);
}
END_TEST

START_TEST(one_that_was_revoked_before_is_refused_as_a_bad_one)
{
    struct person *p = person(0);
    begins(p, "u", "j1");
    answer_revoked("denied:j1 ", 0, 1);
    ck_assert_int_eq(p->closed, CLOSE_AUTH);
    ck_assert_uint_eq(p->failures, 1);
}
END_TEST

START_TEST(a_fresh_one_counts_when_redis_has_answered)
{
    struct person *p = person(0);
    p->conn.state = CONN_OPEN;
    ck_assert_int_eq(begins(p, "u", "j1"), 0);
    ck_assert(admission_is_pending(&p->conn) && admission_is_awaited(&p->conn));
    ck_assert_int_eq(admission_keep(&p->conn, "one", 3), 0);
    ck_assert_uint_eq(p->admitted, 0);
    answer_revoked("denied:j1 ", 0, 0);
    ck_assert_uint_eq(p->admitted, 1);
    ck_assert(p->is_reply_due && !admission_is_pending(&p->conn));
    ck_assert_str_eq(p->heard.data, "one|");
    ck_assert_int_eq(begins(p, "u", "j2"), 0);
    answer_revoked("denied:j2 ", 0, 1);
    ck_assert_uint_eq(p->admitted, 1);
    ck_assert_int_eq(p->closed, CLOSE_AUTH);
}
END_TEST

START_TEST(a_fresh_one_counts_though_redis_is_away_and_is_looked_up_later)
{
    struct person *p = person(0), *other = person(1);
    p->conn.state = other->conn.state = CONN_OPEN;
    ck_assert_int_eq(begins(p, "u", "j1"), 0);
    answer_revoked("denied:j1 ", -ETIMEDOUT, 0);
    ck_assert_uint_eq(p->admitted, 1);
    is_up = false;
    ck_assert_int_eq(begins(other, "u", "j2"), 1);
    ck_assert(!admission_is_pending(&other->conn));
    comes_up();
    answer_revoked("denied:j1 ", 0, 0);
    answer_revoked("denied:j2 ", 0, 1);
    ck_assert_int_eq(p->closed, -1);
    ck_assert_int_eq(other->closed, CLOSE_AUTH);
}
END_TEST

START_TEST(who_is_open_waits_for_its_name_no_longer_than_redis_is_there)
{
    struct person *p = person(0);
    p->conn.state = CONN_OPEN;
    ck_assert_int_eq(begins(p, "claim", "j1"), 0);
    admission_keep(&p->conn, "one", 3);
    answer_revoked("denied:j1 ", 0, 0);
    ck_assert(admission_is_awaited(&p->conn));
    answer_user("claim ", -ECONNRESET, "");
    ck_assert(admission_is_pending(&p->conn) && !admission_is_awaited(&p->conn));
    ck_assert_str_eq(p->heard.data, "one|");
    ck_assert_uint_eq(p->went_on, 1);
    ck_assert_uint_eq(p->admitted, 0);
    comes_up();
    answer_revoked("denied:j1 ", 0, 0);
    answer_user("claim ", 0, "alice");
    ck_assert_uint_eq(p->admitted, 1);
    ck_assert_str_eq(p->user, "alice");
}
END_TEST

START_TEST(one_that_is_revoked_later_is_found_in_a_turn)
{
    struct person *p = person(0), *other = person(1);
    begins(p, "u", "j1");
    begins(other, "u", "j2");
    answer_revoked("denied:j1 ", 0, 0);
    answer_revoked("denied:j2 ", 0, 0);
    pass();
    answer_revoked("denied:j1 denied:j2 ", 0, 1);
    answer_revoked("denied:j1 ", 0, 0); /* which of them it is, is asked */
    answer_revoked("denied:j2 ", 0, 1);
    ck_assert_int_eq(p->closed, -1);
    ck_assert_int_eq(other->closed, CLOSE_REVOKED);
    ck_assert_uint_eq(other->failures, 0);
}
END_TEST

START_TEST(a_turn_asks_for_all_in_questions_of_bounded_size)
{
    size_t seen = 0;
    for (int i = 0; i < PEOPLE; i++) {
        begins(person(i), "u", "j");
        answer_revoked("denied:j ", 0, 0);
    }
    pass();
    for (struct store_call *c; (c = question());) {
        ck_assert_uint_le(c->count, 256);
        seen += c->count;
        c->is_answered = true;
        c->done(c->data, seen > 256 ? 0 : -EIO, 0); /* an error: they come again */
    }
    ck_assert_uint_eq(seen, PEOPLE);
}
END_TEST

START_TEST(redis_that_is_away_is_asked_when_it_is_back)
{
    struct person *p = person(0);
    is_up = false;
    ck_assert_int_eq(begins(p, "u", "j1"), 1);
    ck_assert_ptr_null(question());
    comes_up();
    answer_revoked("denied:j1 ", -ECONNRESET, 0); /* and gone again */
    ck_assert_ptr_null(question());
    ck_assert_int_eq(p->closed, -1);
    comes_up();
    answer_revoked("denied:j1 ", 0, 1);
    ck_assert_int_eq(p->closed, CLOSE_AUTH);
    comes_up();
    ck_assert_ptr_null(question());
}
END_TEST

START_TEST(who_is_told_of_a_revocation_closes_all_of_that_name)
{
    struct person *a = person(0), *b = person(1), *longer = person(2), *closing = person(3);
    begins(a, "u", "j1");
    begins(b, "v", "j1");
    begins(longer, "w", "j11");
    begins(closing, "x", "j1");
    closing->conn.state = CONN_CLOSING;
    ck_assert_uint_eq(admissions_revoke(all, "j1"), 2);
    ck_assert_int_eq(a->closed, CLOSE_REVOKED);
    ck_assert_int_eq(b->closed, CLOSE_REVOKED);
    ck_assert_int_eq(longer->closed, -1);
    ck_assert_int_eq(closing->closed, -1);
    ck_assert_uint_eq(admissions_revoke(all, ""), 0);
    ck_assert_uint_eq(admissions_revoke(NULL, "j1"), 0);
    answer_revoked("denied:j1 ", 0, 1); /* closed already, for the first reason */
    ck_assert_int_eq(a->closed, CLOSE_REVOKED);
    ck_assert_uint_eq(a->failures, 0);
}
END_TEST

START_TEST(who_was_taken_over_is_asked_for_anew)
{
    static char none[] = "";
    struct person *p = person(0), *q = person(1);
    p->conn.state = q->conn.state = CONN_OPEN;
    ck_assert_int_eq(admission_restore(&p->conn, text_span_of("j1")), 0);
    answer_revoked("denied:j1 ", 0, 1);
    ck_assert_int_eq(p->closed, CLOSE_REVOKED); /* it was good once */
    ck_assert_int_eq(admission_restore(&q->conn, text_span_of("")), 0);
    ck_assert_int_eq(admission_restore(&q->conn, text_span_of("a\nb")), -EBADMSG);
    opt.denylist_key = none;
    ck_assert_int_eq(admission_restore(&q->conn, text_span_of("j2")), 0);
    ck_assert_ptr_null(q->conn.admission);
    ck_assert_ptr_null(question());
}
END_TEST

/* ---- the user map ---- */

START_TEST(a_user_is_looked_up_and_what_was_said_meanwhile_is_heard_then)
{
    struct person *p = person(0);
    ck_assert_int_eq(begins(p, "sub-1", ""), 0);
    ck_assert(admission_is_pending(&p->conn));
    ck_assert_int_eq(admission_keep(&p->conn, "one", 3), 0);
    ck_assert_int_eq(admission_keep(&p->conn, "", 0), 0);
    ck_assert_int_eq(admission_keep(&p->conn, "three", 5), 0);
    ck_assert_uint_eq(p->admitted, 0);
    answer_user("sub-1 ", 0, "alice");
    ck_assert_uint_eq(p->admitted, 1);
    ck_assert_str_eq(p->user, "alice");
    ck_assert(p->is_reply_due && !p->is_lower);
    ck_assert_str_eq(p->heard.data, "one||three|");
    ck_assert_ptr_null(p->conn.admission); /* nothing is left to be asked */
}
END_TEST

START_TEST(a_mapped_user_with_a_named_token_is_watched_on)
{
    struct person *p = person(0);
    begins(p, "sub-1", "j1");
    answer_revoked("denied:j1 ", 0, 0);
    answer_user("sub-1 ", 0, "alice");
    ck_assert_str_eq(p->user, "alice");
    ck_assert(text_span_eq(admission_jti(&p->conn), "j1"));
    ck_assert(!admission_is_pending(&p->conn));
}
END_TEST

START_TEST(a_revoked_token_is_not_let_in_by_the_map)
{
    struct person *p = person(0);
    begins(p, "sub-1", "j1");
    answer_revoked("denied:j1 ", 0, 1);
    ck_assert_int_eq(p->closed, CLOSE_AUTH);
    answer_user("sub-1 ", 0, "alice");
    ck_assert_uint_eq(p->admitted, 0);
}
END_TEST

START_TEST(an_answer_that_is_no_user_refuses)
{
    char long_id[KEYS_USER_ID_MAX_BYTES + 2];
    memset(long_id, 'x', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    const char *const bad[] = {"", "a\nb", "\x7f", "\xff", long_id};
    for (int i = 0; i < (int)(sizeof(bad) / sizeof(bad[0])); i++) {
        struct person *p = person(i);
        begins(p, "sub-1", "");
        answer_user("sub-1 ", 0, bad[i]);
        ck_assert_int_eq(p->closed, CLOSE_AUTH);
        ck_assert_uint_eq(p->failures, 1);
        ck_assert_uint_eq(p->admitted, 0);
    }
}
END_TEST

START_TEST(an_error_refuses_nobody_and_is_asked_again)
{
    struct person *p = person(0);
    begins(p, "sub-1", "");
    answer_user("sub-1 ", -ETIMEDOUT, "");
    ck_assert(admission_is_pending(&p->conn));
    ck_assert_int_eq(p->closed, -1);
    comes_up();
    answer_user("sub-1 ", 0, "alice");
    ck_assert_str_eq(p->user, "alice");
    ck_assert_uint_eq(p->went_on, 0);
}
END_TEST

START_TEST(an_open_connection_goes_on_while_its_new_token_cannot_be_looked_up)
{
    struct person *p = person(0);
    begins(p, "sub-1", "");
    answer_user("sub-1 ", 0, "alice");
    begins(p, "sub-1", "");
    admission_keep(&p->conn, "kept", 4);
    answer_user("sub-1 ", -ETIMEDOUT, "");
    ck_assert_uint_eq(p->went_on, 1);
    ck_assert_str_eq(p->heard.data, "kept|");
    ck_assert_int_eq(p->closed, -1);
}
END_TEST

START_TEST(who_leaves_meanwhile_is_asked_for_no_more)
{
    struct person *p = person(0);
    begins(p, "sub-1", "j1");
    admission_keep(&p->conn, "kept", 4);
    admission_end(&p->conn);
    admission_end(&p->conn);
    ck_assert_ptr_null(question());
    comes_up();
    ck_assert_ptr_null(question());
}
END_TEST

START_TEST(another_token_takes_the_place_of_the_first)
{
    struct person *p = person(0);
    begins(p, "sub-1", "j1");
    begins(p, "sub-2", "");
    answer_user("sub-2 ", 0, "bob");
    ck_assert_str_eq(p->user, "bob");
    ck_assert_uint_eq(p->admitted, 1);
    ck_assert_uint_eq(admission_jti(&p->conn).len, 0);
}
END_TEST

START_TEST(a_kept_message_may_bring_another_token)
{
    struct person *p = person(0);
    begins(p, "sub-1", "j1");
    answer_revoked("denied:j1 ", 0, 0);
    admission_keep(&p->conn, "a", 1);
    admission_keep(&p->conn, "b", 1);
    p->next_jti = "j2";
    answer_user("sub-1 ", 0, "alice");
    ck_assert_str_eq(p->heard.data, "a|b|");
    ck_assert(admission_is_pending(&p->conn)); /* of the second token */
    ck_assert(text_span_eq(admission_jti(&p->conn), "j2"));
    answer_revoked("denied:j2 ", 0, 0);
    answer_user("other ", 0, "carol");
    ck_assert_str_eq(p->user, "carol");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("admission");
    TCase *t = tcase_create("revocation");
    tcase_add_checked_fixture(t, start, stop);
    tcase_add_test(t, a_token_without_a_name_needs_no_answer);
    tcase_add_test(t, a_named_token_is_good_until_redis_says_otherwise);
    tcase_add_test(t, one_that_was_revoked_before_is_refused_as_a_bad_one);
    tcase_add_test(t, a_fresh_one_counts_when_redis_has_answered);
    tcase_add_test(t, a_fresh_one_counts_though_redis_is_away_and_is_looked_up_later);
    tcase_add_test(t, one_that_is_revoked_later_is_found_in_a_turn);
    tcase_add_test(t, a_turn_asks_for_all_in_questions_of_bounded_size);
    tcase_add_test(t, redis_that_is_away_is_asked_when_it_is_back);
    tcase_add_test(t, who_is_told_of_a_revocation_closes_all_of_that_name);
    tcase_add_test(t, who_was_taken_over_is_asked_for_anew);
    suite_add_tcase(s, t);

    t = tcase_create("user map");
    tcase_add_checked_fixture(t, start_mapped, stop);
    tcase_add_test(t, who_is_open_waits_for_its_name_no_longer_than_redis_is_there);
    tcase_add_test(t, a_user_is_looked_up_and_what_was_said_meanwhile_is_heard_then);
    tcase_add_test(t, a_mapped_user_with_a_named_token_is_watched_on);
    tcase_add_test(t, a_revoked_token_is_not_let_in_by_the_map);
    tcase_add_test(t, an_answer_that_is_no_user_refuses);
    tcase_add_test(t, an_error_refuses_nobody_and_is_asked_again);
    tcase_add_test(t, an_open_connection_goes_on_while_its_new_token_cannot_be_looked_up);
    tcase_add_test(t, who_leaves_meanwhile_is_asked_for_no_more);
    tcase_add_test(t, another_token_takes_the_place_of_the_first);
    tcase_add_test(t, a_kept_message_may_bring_another_token);
    suite_add_tcase(s, t);

    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
