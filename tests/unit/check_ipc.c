#include "config.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/ipc.h"

#define FDS_ROOM (IPC_FDS_MAX + 8)

static struct ipc_message m;

static int open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(d))
        count++;
    closedir(d);
    return count;
}

/* Sends bytes and descriptors as no ipc_send would. */
static void send_raw(int socket, const void *bytes, size_t len, const int *fds, size_t count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_ROOM * sizeof(int))];
    } control;
    struct iovec part = {(void *)(uintptr_t)bytes, len};
    struct msghdr h = {.msg_iov = &part, .msg_iovlen = 1};
    memset(&control, 0, sizeof(control));
    if (count) {
        h.msg_control = control.bytes;
        h.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    ck_assert_int_eq(sendmsg(socket, &h, 0), (ssize_t)len);
}

START_TEST(messages_arrive_whole_and_in_order)
{
    int s[2];
    struct control_drain drain = {.over_ms = 30000, .restart = 1};
    ck_assert_int_eq(ipc_pair(s), 0);
    ck_assert_int_eq(ipc_recv(s[1], &m), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_READY, NULL, 0, -1), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_DRAIN, &drain, sizeof(drain), -1), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_FAILED, "why", 3, -1), 0);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_uint_eq(m.type, CONTROL_READY);
    ck_assert_uint_eq(m.body_len, 0);
    ck_assert_uint_eq(m.fd_count, 0);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_uint_eq(m.type, CONTROL_DRAIN);
    ck_assert_uint_eq(m.body_len, sizeof(drain));
    ck_assert_int_eq(memcmp(m.body, &drain, sizeof(drain)), 0);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_int_eq(memcmp(m.body, "why", 3), 0);
    ck_assert_int_eq(ipc_recv(s[1], &m), 0);
    ck_assert_int_eq(ipc_send(s[1], CONTROL_STOP, NULL, 0, -1), 0); /* both ways */
    ck_assert_int_eq(ipc_recv(s[0], &m), 1);
    close(s[0]);
    close(s[1]);
}
END_TEST

START_TEST(the_longest_body_fits_and_one_byte_more_does_not)
{
    static unsigned char body[IPC_BODY_MAX_BYTES + 1];
    int s[2];
    ck_assert_int_eq(ipc_pair(s), 0);
    memset(body, 0xA5, sizeof(body));
    ck_assert_int_eq(ipc_send(s[0], CONTROL_FAILED, body, IPC_BODY_MAX_BYTES, -1), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_FAILED, body, IPC_BODY_MAX_BYTES + 1, -1), -EMSGSIZE);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_uint_eq(m.body_len, IPC_BODY_MAX_BYTES);
    ck_assert_int_eq(memcmp(m.body, body, IPC_BODY_MAX_BYTES), 0);
    close(s[0]);
    close(s[1]);
}
END_TEST

START_TEST(a_descriptor_goes_along_and_is_closed_on_exec)
{
    int s[2], p[2];
    char byte;
    ck_assert_int_eq(ipc_pair(s), 0);
    ck_assert_int_eq(pipe(p), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_LOG, NULL, 0, p[1]), 0);
    close(p[1]);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    int fd = ipc_take_fd(&m);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ipc_take_fd(&m), -1);
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    ck_assert_int_eq(read(p[0], &byte, 1), 1);
    close(fd);
    ck_assert_int_eq(read(p[0], &byte, 1), 0); /* nobody else holds it */
    close(p[0]);
    close(s[0]);
    close(s[1]);
}
END_TEST

START_TEST(the_pair_does_not_block_and_closes_on_exec)
{
    int s[2], sent = 0, rc;
    ck_assert_int_eq(ipc_pair(s), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert(fcntl(s[i], F_GETFD) & FD_CLOEXEC);
        ck_assert(fcntl(s[i], F_GETFL) & O_NONBLOCK);
    }
    while ((rc = ipc_send(s[0], CONTROL_STOP, NULL, 0, -1)) == 0)
        ck_assert_int_lt(++sent, 1000000);
    ck_assert_int_eq(rc, -EAGAIN);
    for (; sent; sent--)
        ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_int_eq(ipc_recv(s[1], &m), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_STOP, NULL, 0, -1), 0);
    close(s[0]);
    close(s[1]);
}
END_TEST

START_TEST(a_closed_peer_is_told_after_its_last_message)
{
    int s[2];
    ck_assert_int_eq(ipc_pair(s), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_DRAINED, NULL, 0, -1), 0);
    close(s[0]);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_uint_eq(m.type, CONTROL_DRAINED);
    ck_assert_int_eq(ipc_recv(s[1], &m), -EPIPE);
    ck_assert_int_eq(ipc_send(s[1], CONTROL_STOP, NULL, 0, -1), -EPIPE); /* and no SIGPIPE */
    close(s[1]);
}
END_TEST

START_TEST(a_peer_that_leaves_messages_unread_is_told_as_closed)
{
    int s[2];
    ck_assert_int_eq(ipc_pair(s), 0);
    ck_assert_int_eq(ipc_send(s[1], CONTROL_STOP, NULL, 0, -1), 0);
    close(s[0]);
    ck_assert_int_eq(ipc_recv(s[1], &m), -EPIPE);
    close(s[1]);
}
END_TEST

START_TEST(malformed_messages_are_refused_and_their_descriptors_closed)
{
    static unsigned char big[8 + IPC_BODY_MAX_BYTES + 1];
    const struct {
        uint32_t head[3];
        size_t len;
    } bad[] = {
        {{CONTROL_READY, 0, 0}, 4},        {{CONTROL_READY, 0, 0}, 7},
        {{CONTROL_READY, 1, 0}, 8},        {{CONTROL_READY, 0, 0}, 9},
        {{CONTROL_READY, UINT32_MAX, 0}, 12}, {{CONTROL_NONE, 0, 0}, 8},
        {{CONTROL_READY, 0, 0}, 1},
    };
    int s[2], devnull = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(ipc_pair(s), 0);
    int before = open_descriptors();
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        for (size_t fds = 0; fds < 2; fds++) {
            send_raw(s[0], bad[i].head, bad[i].len, &devnull, fds);
            ck_assert_int_eq(ipc_recv(s[1], &m), -EBADMSG);
            ck_assert_uint_eq(m.fd_count, 0);
            ck_assert_int_eq(open_descriptors(), before);
        }
    ((uint32_t *)(void *)big)[0] = CONTROL_FAILED;
    ((uint32_t *)(void *)big)[1] = IPC_BODY_MAX_BYTES;
    send_raw(s[0], big, sizeof(big), &devnull, 1);
    ck_assert_int_eq(ipc_recv(s[1], &m), -EBADMSG);
    ck_assert_int_eq(open_descriptors(), before);
    close(devnull);
    close(s[0]);
    close(s[1]);
}
END_TEST

START_TEST(as_many_descriptors_as_fit_go_along_and_of_more_none_leaks)
{
    uint32_t head[2] = {CONTROL_TAKE, 0};
    int s[2], fds[FDS_ROOM];
    ck_assert_int_eq(ipc_pair(s), 0);
    for (int i = 0; i < FDS_ROOM; i++)
        fds[i] = open("/dev/null", O_RDONLY);
    int before = open_descriptors();
    ck_assert_int_eq(ipc_send_fds(s[0], CONTROL_TAKE, NULL, 0, fds, IPC_FDS_MAX + 1), -EMSGSIZE);
    ck_assert_int_eq(ipc_send_fds(s[0], CONTROL_TAKE, NULL, 0, fds, IPC_FDS_MAX), 0);
    ck_assert_int_eq(ipc_recv(s[1], &m), 1);
    ck_assert_uint_eq(m.fd_count, IPC_FDS_MAX);
    ck_assert_int_eq(open_descriptors(), before + IPC_FDS_MAX);
    ipc_close_fds(&m);
    ck_assert_int_eq(open_descriptors(), before);
    /* More than there is room for are cut off by the kernel. */
    for (size_t count = IPC_FDS_MAX + 1; count <= FDS_ROOM; count++) {
        send_raw(s[0], head, sizeof(head), fds, count);
        ck_assert_int_eq(ipc_recv(s[1], &m), -EBADMSG);
        ck_assert_uint_eq(m.fd_count, 0);
        ck_assert_int_eq(open_descriptors(), before);
    }
    for (int i = 0; i < FDS_ROOM; i++)
        close(fds[i]);
    close(s[0]);
    close(s[1]);
}
END_TEST

START_TEST(last_words_of_a_peer_that_did_not_read_everything_are_heard)
{
    int s[2];
    ck_assert_int_eq(ipc_pair(s), 0);
    ck_assert_int_eq(ipc_send(s[0], CONTROL_STOP, NULL, 0, -1), 0);
    ck_assert_int_eq(ipc_send(s[1], CONTROL_FAILED, "why", 3, -1), 0);
    close(s[1]);
    ck_assert_int_eq(ipc_recv(s[0], &m), 1);
    ck_assert_uint_eq(m.type, CONTROL_FAILED);
    ck_assert_int_eq(ipc_recv(s[0], &m), -EPIPE);
    close(s[0]);
}
END_TEST

START_TEST(every_type_has_a_name_and_unknown_ones_too)
{
    ck_assert_str_eq(control_name(CONTROL_READY), "READY");
    ck_assert_str_eq(control_name(CONTROL_DRAINED), "DRAINED");
    for (uint32_t i = 0; i < CONTROL_TYPES; i++)
        ck_assert(control_name(i)[0]);
    ck_assert_str_eq(control_name(CONTROL_TYPES), "UNKNOWN");
    ck_assert_str_eq(control_name(UINT32_MAX), "UNKNOWN");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("ipc");
    tcase_set_timeout(tc, 60); /* seconds; a busy machine is slow */
    tcase_add_test(tc, messages_arrive_whole_and_in_order);
    tcase_add_test(tc, the_longest_body_fits_and_one_byte_more_does_not);
    tcase_add_test(tc, a_descriptor_goes_along_and_is_closed_on_exec);
    tcase_add_test(tc, the_pair_does_not_block_and_closes_on_exec);
    tcase_add_test(tc, a_closed_peer_is_told_after_its_last_message);
    tcase_add_test(tc, a_peer_that_leaves_messages_unread_is_told_as_closed);
    tcase_add_test(tc, malformed_messages_are_refused_and_their_descriptors_closed);
    tcase_add_test(tc, as_many_descriptors_as_fit_go_along_and_of_more_none_leaks);
    tcase_add_test(tc, last_words_of_a_peer_that_did_not_read_everything_are_heard);
    tcase_add_test(tc, every_type_has_a_name_and_unknown_ones_too);
    Suite *s = suite_create("ipc");
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
