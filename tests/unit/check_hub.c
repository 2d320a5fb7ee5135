/*
 * check_hub.c - users and their devices.
 */
#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/text.h"
#include "workers/hub.h"

#define USERS 2000

static void forget_if_alone(void *data, struct user *u)
{
    struct hub *h = data;
    struct device *d = u->devices;
    if (!d || d->next)
        return;
    ck_assert(hub_leave(h, d));
    hub_forget(h, u);
}

static void count(void *data, struct user *u)
{
    ck_assert_uint_gt(u->device_count, 0);
    ++*(size_t *)data;
}

START_TEST(devices_of_one_id_share_a_user)
{
    struct hub *h = hub_new();
    struct device a = {0}, b = {0}, c = {0};
    struct user *u = hub_join(h, &a, "alice", 5);
    ck_assert_ptr_eq(hub_join(h, &b, "alice", 5), u);
    ck_assert_ptr_ne(hub_join(h, &c, "alic", 4), u);
    ck_assert_uint_eq(hub_users(h), 2);
    ck_assert_uint_eq(u->device_count, 2);
    ck_assert_ptr_eq(u->devices, &b); /* newest first */
    ck_assert_ptr_eq(b.next, &a);
    ck_assert_ptr_eq(a.user, u);
    ck_assert_str_eq(u->id, "alice");
    ck_assert_uint_eq(u->id_hash, text_hash64("alice", 5));
    hub_free(h);
}
END_TEST

START_TEST(the_last_device_that_leaves_says_so_and_the_user_stays_until_forgotten)
{
    struct hub *h = hub_new();
    struct device d[3] = {0};
    struct user *u = NULL;
    for (int i = 0; i < 3; i++)
        u = hub_join(h, &d[i], "bob", 3);
    ck_assert(!hub_leave(h, &d[1])); /* from the middle */
    ck_assert_ptr_eq(d[2].next, &d[0]);
    ck_assert_ptr_eq(d[0].prev, &d[2]);
    ck_assert(!hub_leave(h, &d[2]));
    ck_assert_ptr_eq(u->devices, &d[0]);
    ck_assert(hub_leave(h, &d[0]));
    ck_assert_ptr_null(d[0].user);
    ck_assert_ptr_eq(hub_find(h, "bob", 3), u);
    hub_forget(h, u);
    ck_assert_ptr_null(hub_find(h, "bob", 3));
    ck_assert_uint_eq(hub_users(h), 0);
    hub_free(h);
}
END_TEST

START_TEST(ids_are_bytes_with_a_length)
{
    struct hub *h = hub_new();
    struct device a = {0}, b = {0};
    const char text[] = "userx";
    struct user *u = hub_join(h, &a, text, 4); /* no NUL behind it */
    ck_assert_str_eq(u->id, "user");
    ck_assert_ptr_eq(hub_find(h, "user", 4), u);
    ck_assert_ptr_null(hub_find(h, "user", 3));
    ck_assert_ptr_ne(hub_join(h, &b, text, 5), u);
    hub_free(h);
}
END_TEST

START_TEST(ids_of_any_length_come_and_go)
{
    enum { LONGEST = 256 };
    struct hub *h = hub_new();
    struct device d[LONGEST + 1] = {0};
    char id[LONGEST + 1];
    memset(id, 'x', sizeof(id));
    for (size_t round = 0; round < 3; round++) {
        for (size_t len = 1; len <= LONGEST; len++) {
            const struct user *u = hub_join(h, &d[len], id, len);
            ck_assert_uint_eq(strlen(u->id), len);
            ck_assert_ptr_null(u->recent);
        }
        for (size_t len = 1; len <= LONGEST; len++) {
            struct user *u = hub_find(h, id, len);
            ck_assert_ptr_eq(u->devices, &d[len]);
            if ((len + round) % 3 && hub_leave(h, &d[len]))
                hub_forget(h, u);
        }
        hub_trim(h);
        for (size_t len = 1; len <= LONGEST; len++) {
            struct user *u = hub_find(h, id, len);
            ck_assert_int_eq(!u, (len + round) % 3 != 0);
            if (u && hub_leave(h, &d[len]))
                hub_forget(h, u);
        }
    }
    ck_assert_uint_eq(hub_users(h), 0);
    hub_free(h);
}
END_TEST

START_TEST(a_walk_meets_everybody_and_may_forget_the_one_it_is_at)
{
    struct hub *h = hub_new();
    struct device *d = calloc(USERS * 2, sizeof(*d));
    char id[16];
    for (int i = 0; i < USERS; i++) {
        size_t len = (size_t)snprintf(id, sizeof(id), "u%d", i);
        hub_join(h, &d[2 * i], id, len);
        if (i % 2)
            hub_join(h, &d[2 * i + 1], id, len);
    }
    size_t met = 0;
    hub_each(h, count, &met);
    ck_assert_uint_eq(met, USERS);
    hub_each(h, forget_if_alone, h);
    ck_assert_uint_eq(hub_users(h), USERS / 2);
    for (int i = 0; i < USERS; i++) {
        size_t len = (size_t)snprintf(id, sizeof(id), "u%d", i);
        ck_assert_int_eq(hub_find(h, id, len) != NULL, i % 2);
    }
    hub_free(h);
    free(d);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hub");
    TCase *t = tcase_create("hub");
    tcase_add_test(t, devices_of_one_id_share_a_user);
    tcase_add_test(t, the_last_device_that_leaves_says_so_and_the_user_stays_until_forgotten);
    tcase_add_test(t, ids_are_bytes_with_a_length);
    tcase_add_test(t, ids_of_any_length_come_and_go);
    tcase_add_test(t, a_walk_meets_everybody_and_may_forget_the_one_it_is_at);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
