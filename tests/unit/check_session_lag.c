/*
 * check_session_lag.c - devices that read too slowly: what they are owed, and what they are told.
 * (Random walks of slow readers are among those of check_session.c.)
 */
#include "config.h"

#include "tests/unit/session_fixture.h"

/* Device 0 takes two frames and reads none; the others read all. */
static void stall_a_client(void)
{
    room = 2;
    connect_client(0, NULL);
    connect_client(1, NULL);
    for (bool moved = true; moved;) {
        moved = redis_takes_command() || worker_takes_item() || redis_reads_list() ||
                worker_takes_answer(0);
        clients[1].waiting = 0;
    }
}

static void produce_stored(unsigned count)
{
    while (count--) {
        store_next();
        publish(redis.list[0]);
        settle_items();
        clients[1].waiting = 0;
    }
}

START_TEST(a_slow_device_gets_from_the_list_what_found_no_room_and_others_do_not_wait)
{
    stall_a_client();
    produce_stored(20);
    ck_assert_uint_eq(times(&clients[0], "m2"), 1);
    ck_assert_uint_eq(times(&clients[0], "m3"), 0);
    ck_assert_ptr_nonnull(clients[0].conn.device.busy->lag);
    ck_assert_ptr_null(judge(&clients[1]));
    settle();
    ck_assert_ptr_null(clients[0].conn.device.busy->lag);
    ck_assert_ptr_null(judge(&clients[0]));
    ck_assert_uint_eq(clients[0].full_syncs, 1);
    produce_stored(20); /* again */
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
    ck_assert_ptr_null(judge(&clients[1]));
}
END_TEST

START_TEST(a_slow_device_is_told_when_the_list_has_not_all_of_it_any_more)
{
    stall_a_client();
    produce_stored(HISTORY + 30);
    settle();
    ck_assert_uint_eq(clients[0].full_syncs, 2);
    ck_assert(has_sync(&clients[0], "\"recovered\":false"));
    ck_assert_uint_eq(clients[0].got_count, 2 + 2 + HISTORY);
    ck_assert_str_eq(clients[0].got[3], "FULL_SYNC");
    ck_assert_str_eq(clients[0].got[4], "m31");
    ck_assert_str_eq(clients[0].got[3 + HISTORY], "m94");
    ck_assert_uint_eq(clients[1].full_syncs, 1);
    ck_assert_ptr_null(judge(&clients[1]));
}
END_TEST

START_TEST(a_slow_device_is_told_when_redis_has_lost_what_it_was_about_to_get)
{
    stall_a_client();
    produce_stored(20);
    read_frames(0, 2); /* it is given some of them, and stalls again */
    while (redis_reads_list() || worker_takes_answer(0))
        ;
    ck_assert_ptr_nonnull(clients[0].conn.device.busy->lag);
    redis.list_len = 0;
    settle();
    ck_assert_uint_eq(clients[0].full_syncs, 2);
    ck_assert(has_sync(&clients[0], "\"recovered\":false"));
}
END_TEST

START_TEST(a_slow_device_misses_what_was_only_published_and_is_told_nothing)
{
    stall_a_client();
    produce_stored(3);
    for (unsigned p = 0; p < 12000; p++) {
        publish(text_of("p", p));
        settle_items();
        while (redis_reads_list() || worker_takes_answer(0))
            ;
        clients[1].got_count = 20; /* or there were no room */
        clients[1].waiting = 0;
        if (redis.pipe_first == redis.pipe_end)
            redis.pipe_first = redis.pipe_end = 0;
    }
    produce_stored(3);
    settle();
    ck_assert_pstr_eq(judge(&clients[0]), NULL);
    ck_assert_uint_eq(clients[0].full_syncs, 1);
    ck_assert_uint_eq(times(&clients[0], "p11999"), 0);
}
END_TEST

START_TEST(a_stalled_device_is_owed_what_a_lost_link_kept_from_it)
{
    stall_a_client();
    produce_stored(10);
    lose_link();
    store_next();
    publish(redis.list[0]); /* nobody hears it */
    store_next();
    gain_link();
    while (redis_takes_command() || worker_takes_item() || redis_reads_list() ||
           worker_takes_answer(0))
        clients[1].waiting = 0;
    ck_assert_ptr_null(judge(&clients[1]));
    ck_assert_uint_eq(times(&clients[0], "m11"), 0);
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
}
END_TEST

START_TEST(of_a_type_that_conflates_the_newest_comes_though_it_is_not_stored)
{
    stall_a_client();
    produce_stored(5);
    for (unsigned n = 0; n < 100; n++) {
        char text[TEXT];
        snprintf(text, sizeof(text), "{\"id\":\"d%u\",\"type\":\"DASHBOARD_UPDATE\"}", n);
        publish(text);
        settle_items();
        clients[1].waiting = 0;
    }
    produce_stored(5);
    settle();
    ck_assert_ptr_null(judge(&clients[0]));
    ck_assert_uint_eq(times(&clients[0], "d98"), 0);
    ck_assert_uint_eq(times(&clients[0], "d99"), 1);
}
END_TEST

/* A fourth of what the queue may have is there for the newest of each key, and 1024 of them. */
START_TEST(of_many_keys_the_newest_are_kept_and_the_others_counted)
{
    stall_a_client();
    produce_stored(3);
    for (unsigned n = 0; n < 1042; n++) {
        char text[TEXT];
        snprintf(text, sizeof(text),
                 "{\"id\":\"k%u\",\"type\":\"BALANCE_UPDATE\",\"payload\":{\"account_id\":\"%u\"}}",
                 n, n);
        publish(text);
        settle_items();
        clients[1].waiting = 0;
    }
    settle();
    ck_assert_pstr_eq(judge(&clients[0]), NULL);
    ck_assert_uint_eq(times(&clients[0], "k17"), 0);
    ck_assert_uint_eq(times(&clients[0], "k18"), 1);
    ck_assert_uint_eq(times(&clients[0], "k1041"), 1);
}
END_TEST

START_TEST(of_stored_messages_of_one_key_only_the_newest_is_replayed)
{
    stall_a_client();
    produce_stored(3);
    for (unsigned n = 0; n < 20; n++) {
        char text[TEXT];
        snprintf(text, sizeof(text),
                 "{\"id\":\"k%u\",\"type\":\"BALANCE_UPDATE\",\"payload\":{\"account_id\":\"%u\"}}",
                 n, n % 2);
        store_text(text);
        publish(text);
        settle_items();
        clients[1].waiting = 0;
    }
    produce_stored(3);
    settle();
    ck_assert_pstr_eq(judge(&clients[0]), NULL);
    ck_assert_uint_eq(times(&clients[0], "k17"), 0);
    ck_assert_uint_eq(times(&clients[0], "k18"), 1);
    ck_assert_uint_eq(times(&clients[0], "k19"), 1);
    ck_assert_str_eq(clients[0].got[clients[0].got_count - 4], "k19");
}
END_TEST

START_TEST(a_flood_while_a_slow_device_is_served_stalls_it_again_and_loses_nothing)
{
    stall_a_client();
    produce_stored(10);
    read_frames(0, 2); /* its reading is under way now */
    ck_assert(!session_lag_is_stalled(&clients[0].conn.device));
    redis_reads_list();
    produce_stored(5); /* after the list was read */
    for (unsigned p = 0; p < 2 * HELD_MAX_FRAMES; p++) {
        publish(text_of("p", p));
        settle_items();
        clients[1].waiting = 0;
        clients[1].got_count = 20;
    }
    ck_assert(session_lag_is_stalled(&clients[0].conn.device));
    produce_stored(10);
    settle();
    ck_assert_pstr_eq(judge(&clients[0]), NULL);
}
END_TEST

START_TEST(a_stalled_device_may_leave)
{
    stall_a_client();
    produce_stored(20);
    read_frames(0, 2);
    leave(0); /* a reading is under way for it */
    settle();
    come_back(0);
    settle();
    ck_assert_ptr_null(judge(&clients[1]));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session_lag");
    TCase *t = tcase_create("cases");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60); /* seconds; a busy machine is slow */
    tcase_add_test(t, a_slow_device_gets_from_the_list_what_found_no_room_and_others_do_not_wait);
    tcase_add_test(t, a_slow_device_is_told_when_the_list_has_not_all_of_it_any_more);
    tcase_add_test(t, a_slow_device_is_told_when_redis_has_lost_what_it_was_about_to_get);
    tcase_add_test(t, a_slow_device_misses_what_was_only_published_and_is_told_nothing);
    tcase_add_test(t, a_stalled_device_is_owed_what_a_lost_link_kept_from_it);
    tcase_add_test(t, of_a_type_that_conflates_the_newest_comes_though_it_is_not_stored);
    tcase_add_test(t, of_many_keys_the_newest_are_kept_and_the_others_counted);
    tcase_add_test(t, of_stored_messages_of_one_key_only_the_newest_is_replayed);
    tcase_add_test(t, a_flood_while_a_slow_device_is_served_stalls_it_again_and_loses_nothing);
    tcase_add_test(t, a_stalled_device_may_leave);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
