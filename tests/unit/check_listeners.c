#include "config.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/address.h"
#include "src/listeners.h"
#include "src/unixsock.h"

static char directory[64];
static char why[512];

static void make_directory(void)
{
    strcpy(directory, "/tmp/belfry-check-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
}

static void remove_directory(void)
{
    ck_assert_int_eq(rmdir(directory), 0); /* fails when a socket file was left behind */
}

/* Options with these addresses only; up to two, NULL for none. */
static struct options *options_of(const char *first, const char *second, const char *metrics)
{
    struct options *o = calloc(1, sizeof(*o));
    ck_assert_ptr_nonnull(o);
    ck_assert_int_eq(text_list_add(&o->listen, first, strlen(first)), 0);
    if (second)
        ck_assert_int_eq(text_list_add(&o->listen, second, strlen(second)), 0);
    o->metrics_listen = strdup(metrics ? metrics : "");
    return o;
}

static int open_from(const char *first, const char *second, const char *metrics, uint32_t workers,
                     const struct listeners *previous, const struct listeners *inherited,
                     struct listeners **out)
{
    struct options *o = options_of(first, second, metrics);
    int error = listeners_open(o, workers, NULL, previous, inherited, out, why, sizeof(why));
    text_list_free(&o->listen);
    free(o->metrics_listen);
    free(o);
    return error;
}

/* Opens and has all listen. */
static int open_set(const char *first, const char *second, const char *metrics, uint32_t workers,
                    const struct listeners *previous, struct listeners **out)
{
    int error = open_from(first, second, metrics, workers, previous, NULL, out);
    if (!error)
        listeners_listen(*out);
    return error;
}

/* Connects; 0 or negative errno. The connection waits in the queue. */
static int try_connect(const char *text)
{
    struct address a;
    const char *reason;
    ck_assert_int_eq(address_parse(text, &a, &reason), 0);
    int fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error = connect(fd, (struct sockaddr *)&a.storage, a.len) < 0 ? -errno : 0;
    close(fd);
    return error;
}

START_TEST(port_0_is_replaced_by_one_port_for_all_workers)
{
    struct listeners *l;
    struct worker_listener out[4];
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 3, NULL, &l), 0);
    unsigned port = 0;
    ck_assert_int_eq(sscanf(listeners_address(l, 0, NULL), "127.0.0.1:%u", &port), 1);
    ck_assert_uint_gt(port, 0);
    ck_assert_ptr_null(listeners_address(l, 1, NULL));
    for (uint32_t place = 0; place < 3; place++) {
        struct sockaddr_in in;
        socklen_t len = sizeof(in);
        ck_assert_uint_eq(listeners_of_worker(l, place, 3, false, out, 4), 1);
        ck_assert_int_eq(getsockname(out[0].fd, (struct sockaddr *)&in, &len), 0);
        ck_assert_uint_eq(ntohs(in.sin_port), port);
    }
    listeners_free(l);
}
END_TEST

START_TEST(each_worker_has_tcp_sockets_of_its_own_and_shares_unix_and_metrics)
{
    struct listeners *l;
    struct worker_listener a[4], b[4];
    char path[128];
    make_directory();
    snprintf(path, sizeof(path), "unix:%s/s", directory);
    ck_assert_int_eq(open_set("127.0.0.1:0", path, "127.0.0.1:0", 2, NULL, &l), 0);
    ck_assert_uint_eq(listeners_of_worker(l, 0, 2, true, a, 4), 3);
    ck_assert_uint_eq(listeners_of_worker(l, 1, 2, true, b, 4), 3);
    ck_assert_int_ne(a[0].fd, b[0].fd);
    ck_assert(a[0].is_tls && !a[0].is_unix && !a[0].is_metrics);
    ck_assert_int_eq(a[1].fd, b[1].fd);
    ck_assert(a[1].is_unix && !a[1].is_tls);
    ck_assert_int_eq(a[2].fd, b[2].fd);
    ck_assert(a[2].is_metrics && !a[2].is_tls);
    bool is_metrics = false;
    ck_assert_ptr_nonnull(listeners_address(l, 2, &is_metrics));
    ck_assert(is_metrics);
    listeners_free(l);
    remove_directory();
}
END_TEST

START_TEST(an_address_that_stays_keeps_its_sockets_and_their_queues)
{
    struct listeners *l, *next;
    struct worker_listener before[2], after[2];
    char address[64];
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 1, NULL, &l), 0);
    snprintf(address, sizeof(address), "%s", listeners_address(l, 0, NULL));
    ck_assert_int_eq(try_connect(address), 0);
    ck_assert_int_eq(open_set("127.0.0.1:0", "127.0.0.1:0", NULL, 1, l, &next), 0);
    ck_assert_str_eq(listeners_address(next, 0, NULL), address);
    ck_assert_str_ne(listeners_address(next, 1, NULL), address);
    listeners_of_worker(l, 0, 1, false, before, 2);
    listeners_of_worker(next, 0, 1, false, after, 2);
    ck_assert_int_eq(before[0].fd, after[0].fd);
    listeners_free(l);
    int fd = accept(after[0].fd, NULL, NULL);
    ck_assert_msg(fd >= 0, "the queued connection is lost");
    close(fd);
    listeners_free(next);
    ck_assert_int_eq(try_connect(address), -ECONNREFUSED);
}
END_TEST

START_TEST(sockets_that_do_not_listen_yet_take_no_share_of_the_clients)
{
    struct listeners *first, *second;
    struct worker_listener old;
    enum { CLIENTS = 32 };
    int waiting = 0;
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 1, NULL, &first), 0);
    const char *address = listeners_address(first, 0, NULL);
    ck_assert_int_eq(open_from(address, NULL, NULL, 4, first, NULL, &second), 0);
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(try_connect(address), 0);
    ck_assert_uint_eq(listeners_of_worker(first, 0, 1, false, &old, 1), 1);
    for (int fd; (fd = accept(old.fd, NULL, NULL)) >= 0; waiting++)
        close(fd);
    ck_assert_int_eq(waiting, CLIENTS);
    listeners_listen(second);
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(try_connect(address), 0);
    for (waiting = 0; close(accept(old.fd, NULL, NULL)) == 0; waiting++)
        ;
    ck_assert_int_lt(waiting, CLIENTS);
    listeners_free(first);
    listeners_free(second);
}
END_TEST

START_TEST(with_fewer_workers_no_socket_is_left_without_one)
{
    struct listeners *l, *next;
    struct worker_listener out[8];
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 5, NULL, &l), 0);
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 2, l, &next), 0);
    listeners_free(l);
    ck_assert_uint_eq(listeners_of_worker(next, 0, 2, false, out, 8), 3);
    ck_assert_uint_eq(listeners_of_worker(next, 1, 2, false, out, 8), 2);
    ck_assert_uint_eq(listeners_of_worker(next, 1, 2, false, NULL, 0), 2);
    listeners_free(next);
}
END_TEST

START_TEST(an_address_that_goes_stops_listening_for_every_holder)
{
    struct listeners *l, *next;
    struct worker_listener out[1];
    char address[64];
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 1, NULL, &l), 0);
    snprintf(address, sizeof(address), "%s", listeners_address(l, 0, NULL));
    listeners_of_worker(l, 0, 1, false, out, 1);
    int copy = dup(out[0].fd); /* as a worker that still drains */
    ck_assert_int_eq(open_set("127.0.0.2:0", NULL, NULL, 1, l, &next), 0);
    listeners_free(l);
    ck_assert_int_eq(try_connect(address), -ECONNREFUSED);
    close(copy);
    listeners_free(next);
}
END_TEST

START_TEST(a_port_on_which_another_process_listens_is_refused)
{
    struct listeners *l, *second = NULL;
    char address[64];
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 1, NULL, &l), 0);
    snprintf(address, sizeof(address), "%s", listeners_address(l, 0, NULL));
    ck_assert_int_eq(open_set(address, NULL, NULL, 1, NULL, &second), -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(why, address));
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, address, 1, NULL, &second), -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(why, "metrics-listen"));
    ck_assert_ptr_null(second);
    listeners_free(l);
}
END_TEST

START_TEST(both_families_are_served_by_one_star)
{
    struct listeners *l;
    unsigned port = 0;
    char address[64];
    ck_assert_int_eq(open_set("*:0", NULL, NULL, 2, NULL, &l), 0);
    if (sscanf(listeners_address(l, 0, NULL), "*:%u", &port) == 1) {
        snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        ck_assert_int_eq(try_connect(address), 0);
        snprintf(address, sizeof(address), "[::1]:%u", port);
        ck_assert_int_eq(try_connect(address), 0);
    } else /* a machine without IPv6 */
        ck_assert_int_eq(sscanf(listeners_address(l, 0, NULL), "0.0.0.0:%u", &port), 1);
    listeners_free(l);
}
END_TEST

START_TEST(clients_are_shut_out_while_metrics_go_on)
{
    struct listeners *l;
    char path[128], clients[64], metrics[64];
    make_directory();
    snprintf(path, sizeof(path), "unix:%s/s", directory);
    ck_assert_int_eq(open_set("127.0.0.1:0", path, "127.0.0.1:0", 1, NULL, &l), 0);
    snprintf(clients, sizeof(clients), "%s", listeners_address(l, 0, NULL));
    snprintf(metrics, sizeof(metrics), "%s", listeners_address(l, 2, NULL));
    listeners_shut_clients(l);
    ck_assert_int_eq(try_connect(clients), -ECONNREFUSED);
    ck_assert_int_eq(try_connect(path), -ENOENT);
    ck_assert_int_eq(try_connect(metrics), 0);
    listeners_free(l);
    remove_directory();
}
END_TEST

START_TEST(who_waits_is_kept_while_nobody_new_gets_into_a_queue)
{
    struct listeners *l;
    struct address a;
    const char *reason;
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, "127.0.0.1:0", 1, NULL, &l), 0);
    ck_assert_int_eq(address_parse(listeners_address(l, 0, NULL), &a, &reason), 0);
    int waits = socket(AF_INET, SOCK_STREAM, 0), late = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(waits, (struct sockaddr *)&a.storage, a.len), 0);
    ck_assert(listeners_close_queues(l));
    ck_assert_int_eq(fcntl(late, F_SETFL, O_NONBLOCK), 0);
    ck_assert_int_lt(connect(late, (struct sockaddr *)&a.storage, a.len), 0);
    ck_assert_int_eq(errno, EINPROGRESS);
    ck_assert(listeners_close_queues(l));
    struct worker_listener w;
    ck_assert_uint_ge(listeners_of_worker(l, 0, 1, false, &w, 1), 1);
    int accepted = accept(w.fd, NULL, NULL);
    ck_assert_int_ge(accepted, 0);
    ck_assert_int_eq(send(waits, "x", 1, 0), 1);
    char byte;
    ck_assert_int_eq(recv(accepted, &byte, 1, 0), 1);
    ck_assert(!listeners_close_queues(l));
    ck_assert_int_eq(try_connect(listeners_address(l, 1, NULL)), 0); /* metrics */
    listeners_shut_clients(l);
    ck_assert(!listeners_close_queues(l));
    close(accepted);
    close(late);
    close(waits);
    listeners_free(l);
}
END_TEST

START_TEST(a_stale_socket_file_is_replaced_and_a_live_one_is_not)
{
    struct unixsock_file file, second;
    struct stat st;
    char path[128];
    make_directory();
    snprintf(path, sizeof(path), "%s/s", directory);
    int fd = unixsock_listen(path, 0660, (uid_t)-1, (gid_t)-1, 4, &file);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_mode & 07777, 0660);
    ck_assert_int_eq(unixsock_listen(path, 0660, (uid_t)-1, (gid_t)-1, 4, &second), -EADDRINUSE);
    close(fd);
    ck_assert_int_eq(unixsock_probe(path), -ECONNREFUSED);
    int again = unixsock_listen(path, 0600, (uid_t)-1, (gid_t)-1, 4, &second);
    ck_assert_int_ge(again, 0);
    ck_assert_int_eq(unixsock_probe(path), 0);
    if (file.ino != second.ino || file.dev != second.dev) {
        unixsock_remove(path, &file); /* the first one's file: gone already */
        ck_assert_int_eq(unixsock_probe(path), 0);
    }
    unixsock_remove(path, &second);
    ck_assert_int_eq(unixsock_probe(path), -ENOENT);
    close(again);
    remove_directory();
}
END_TEST

START_TEST(a_file_that_is_no_socket_is_never_removed)
{
    struct listeners *l = NULL;
    char path[128], text[160];
    make_directory();
    snprintf(path, sizeof(path), "%s/data", directory);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fclose(f);
    snprintf(text, sizeof(text), "unix:%s", path);
    ck_assert_int_eq(open_set(text, NULL, NULL, 1, NULL, &l), -EEXIST);
    ck_assert_int_eq(unlink(path), 0);
    remove_directory();
}
END_TEST

START_TEST(one_bad_address_opens_nothing)
{
    struct listeners *l = NULL;
    char path[128];
    make_directory();
    snprintf(path, sizeof(path), "unix:%s/s", directory);
    ck_assert_int_eq(open_set(path, "203.0.113.1:0", NULL, 1, NULL, &l), -EADDRNOTAVAIL);
    ck_assert_ptr_null(l);
    ck_assert_int_eq(open_set(path, "nonsense", NULL, 1, NULL, &l), -EINVAL);
    remove_directory();
}
END_TEST

/* ---- sockets from outside ---- */

/* What an upgrade does: every socket goes over with its record. */
static struct listeners *hand_over(const struct listeners *from)
{
    struct listeners *l = listeners_new();
    struct listener_record record;
    int fd;
    ck_assert_ptr_nonnull(l);
    for (size_t i = 0; (fd = listeners_record(from, i, &record)) >= 0; i++)
        ck_assert_int_eq(listeners_add(l, dup(fd), &record), 0);
    return l;
}

START_TEST(a_set_that_was_handed_over_serves_the_same_addresses)
{
    struct listeners *old, *inherited, *new;
    struct worker_listener a[2];
    char path[128], tcp[64], gone[64];
    make_directory();
    snprintf(path, sizeof(path), "unix:%s/s", directory);
    ck_assert_int_eq(open_set("127.0.0.1:0", path, "127.0.0.1:0", 2, NULL, &old), 0);
    snprintf(tcp, sizeof(tcp), "%s", listeners_address(old, 0, NULL));
    snprintf(gone, sizeof(gone), "%s", listeners_address(old, 2, NULL));
    inherited = hand_over(old);
    listeners_set_shared(inherited, true);
    ck_assert_int_eq(open_from("127.0.0.1:0", path, NULL, 2, NULL, inherited, &new), 0);
    ck_assert_str_eq(listeners_address(new, 0, NULL), tcp);
    ck_assert_uint_eq(listeners_of_worker(new, 1, 2, false, a, 2), 2);
    ck_assert(listeners_is_used(inherited, 0) && listeners_is_used(inherited, 1));
    ck_assert(listeners_is_used(inherited, 2) && !listeners_is_used(inherited, 3));
    /* The old one leaves: it closes, and shuts nothing. */
    listeners_set_shared(old, true);
    listeners_shut_clients(old);
    listeners_free(old);
    ck_assert_int_eq(try_connect(tcp), 0);
    ck_assert_int_eq(try_connect(path), 0);
    ck_assert_int_eq(try_connect(gone), 0);
    /* The new one is alone: what nobody names is shut, the rest ends with it. */
    listeners_set_shared(inherited, false);
    listeners_keep_borrowed(inherited);
    ck_assert_int_eq(try_connect(gone), -ECONNREFUSED);
    ck_assert_int_eq(try_connect(tcp), 0);
    listeners_free(inherited);
    ck_assert_int_eq(try_connect(path), 0);
    listeners_free(new);
    ck_assert_int_eq(try_connect(tcp), -ECONNREFUSED);
    remove_directory();
}
END_TEST

START_TEST(a_failed_new_master_leaves_the_old_ones_sockets_alone)
{
    struct listeners *old, *inherited, *new;
    char tcp[64], own[64];
    ck_assert_int_eq(open_set("127.0.0.1:0", NULL, NULL, 1, NULL, &old), 0);
    snprintf(tcp, sizeof(tcp), "%s", listeners_address(old, 0, NULL));
    inherited = hand_over(old);
    listeners_set_shared(inherited, true);
    ck_assert_int_eq(open_from(tcp, "[::1]:0", NULL, 3, NULL, inherited, &new), 0);
    snprintf(own, sizeof(own), "%s", listeners_address(new, 1, NULL));
    listeners_free(new);
    listeners_free(inherited);
    ck_assert_int_eq(try_connect(tcp), 0);
    ck_assert_int_eq(try_connect(own), -ECONNREFUSED);
    listeners_free(old);
}
END_TEST

START_TEST(a_borrowed_socket_is_one_for_all_workers_and_outlives_every_set)
{
    struct listeners *first, *next, *inherited = listeners_new();
    struct listener_record record;
    struct worker_listener a[4], b[4];
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(listeners_describe(fd, &record), -EINVAL); /* it does not listen */
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    ck_assert_int_eq(listen(fd, 16), 0);
    ck_assert_int_eq(listeners_describe(fd, &record), 0);
    ck_assert(record.is_borrowed && record.is_single && record.is_any);
    ck_assert_int_eq(listeners_add(inherited, dup(fd), &record), 0);
    ck_assert_int_eq(open_from(record.real, NULL, NULL, 3, NULL, inherited, &first), 0);
    ck_assert_uint_eq(listeners_of_worker(first, 0, 3, false, a, 4), 1);
    ck_assert_uint_eq(listeners_of_worker(first, 2, 3, false, b, 4), 1);
    ck_assert_int_eq(a[0].fd, b[0].fd);
    /* Named no more, then again, and for metrics. */
    ck_assert_int_eq(open_from("[::1]:0", NULL, NULL, 1, first, inherited, &next), 0);
    listeners_shut_clients(first);
    listeners_free(first);
    ck_assert_int_eq(try_connect(record.real), 0);
    ck_assert_int_eq(open_from("[::1]:0", NULL, record.real, 1, next, inherited, &first), 0);
    listeners_free(next);
    listeners_keep_borrowed(inherited);
    listeners_free(first);
    listeners_free(inherited);
    ck_assert_int_eq(try_connect(record.real), 0); /* it is the service manager's */
    close(fd);
}
END_TEST

START_TEST(records_that_make_no_sense_are_refused)
{
    struct listeners *l = listeners_new();
    struct listener_record record = {.real = "nowhere"};
    ck_assert_int_eq(listeners_add(l, 0, &record), -EINVAL);
    memset(record.real, 'x', sizeof(record.real)); /* no end */
    ck_assert_int_eq(listeners_add(l, 0, &record), -EINVAL);
    ck_assert_int_eq(listeners_record(l, 0, &record), -1);
    ck_assert_int_eq(listeners_describe(STDERR_FILENO, &record), -EINVAL);
    listeners_free(l);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("listeners");
    TCase *t = tcase_create("sockets");
    tcase_add_test(t, port_0_is_replaced_by_one_port_for_all_workers);
    tcase_add_test(t, each_worker_has_tcp_sockets_of_its_own_and_shares_unix_and_metrics);
    tcase_add_test(t, an_address_that_stays_keeps_its_sockets_and_their_queues);
    tcase_add_test(t, sockets_that_do_not_listen_yet_take_no_share_of_the_clients);
    tcase_add_test(t, with_fewer_workers_no_socket_is_left_without_one);
    tcase_add_test(t, an_address_that_goes_stops_listening_for_every_holder);
    tcase_add_test(t, a_port_on_which_another_process_listens_is_refused);
    tcase_add_test(t, both_families_are_served_by_one_star);
    tcase_add_test(t, clients_are_shut_out_while_metrics_go_on);
    tcase_add_test(t, who_waits_is_kept_while_nobody_new_gets_into_a_queue);
    tcase_add_test(t, a_stale_socket_file_is_replaced_and_a_live_one_is_not);
    tcase_add_test(t, a_file_that_is_no_socket_is_never_removed);
    tcase_add_test(t, one_bad_address_opens_nothing);
    tcase_add_test(t, a_set_that_was_handed_over_serves_the_same_addresses);
    tcase_add_test(t, a_failed_new_master_leaves_the_old_ones_sockets_alone);
    tcase_add_test(t, a_borrowed_socket_is_one_for_all_workers_and_outlives_every_set);
    tcase_add_test(t, records_that_make_no_sense_are_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
