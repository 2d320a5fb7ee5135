#include "config.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/ipc.h"
#include "workers/sandbox.h"

/*
 * The worker's own sandbox, entered by a child that then does one thing. What it returns must be
 * below 100: 0 it could, else errno. 200: the sandbox lacks the part that is tested.
 */
enum { PART_SECCOMP = 1, PART_FILES = 2, PART_NET = 4, PART_SCOPE = 8 };

#define LACKING 200

static int redis_port;  /* somebody listens there */
static int other_port;  /* and there */

static struct redisurl redis_of(const char *host)
{
    struct redisurl u = {.port = redis_port};
    u.is_unix = *host == '/';
    snprintf(u.host, sizeof(u.host), "%s", host);
    return u;
}

static bool has_parts(const struct sandbox *s, int parts)
{
    return (!(parts & PART_SECCOMP) || s->has_seccomp) && (!(parts & PART_FILES) || s->landlock) &&
           (!(parts & PART_NET) || s->landlock >= 4) &&
           (!(parts & PART_SCOPE) || s->landlock >= 6);
}

/* The child's wait status. */
static int in_sandbox(const char *host, int parts, int (*fn)(void))
{
    int status;
    pid_t pid = fork();
    if (!pid) {
        struct redisurl u = redis_of(host);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
            _exit(201);
        if (!sandbox_is_possible())
            _exit(LACKING);
        struct sandbox s = sandbox_enter(&u);
        if (s.seccomp_error || s.landlock_error)
            _exit(202);
        _exit(has_parts(&s, parts) ? fn() : LACKING);
    }
    ck_assert_int_gt(pid, 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static int result_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void expect(const char *host, int parts, int (*fn)(void), int result)
{
    int got = result_of(in_sandbox(host, parts, fn));
    if (got != LACKING)
        ck_assert_int_eq(got, result);
}

/* ---- what only an intruder does ---- */

static int do_execve(void)
{
    char *const argv[] = {(char[]){"true"}, NULL};
    execve("/bin/true", argv, argv + 1);
    return errno;
}

static int do_ptrace(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? errno : 0;
}

static int do_unshare(void)
{
    return syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */) ? errno : 0;
}

static int do_io_uring(void)
{
    return syscall(SYS_io_uring_setup, 1, NULL) < 0 ? errno : 0;
}

static int do_read_of_another(void)
{
    return syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0) < 0 ? errno : 0;
}

static int (*const fatal[])(void) = {do_execve, do_ptrace, do_unshare, do_io_uring,
                                     do_read_of_another};

START_TEST(what_only_an_intruder_does_ends_the_process)
{
    static const char *const hosts[] = {"/run/redis.sock", "127.0.0.1", "localhost"};
    for (int i = 0; i < 3; i++)
        expect(hosts[i], PART_SECCOMP, fatal[_i], -SIGSYS);
}
END_TEST

/* ---- files ---- */

static int open_result(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    return fd < 0 ? errno : 0;
}

static int do_read_passwd(void)
{
    return open_result("/etc/passwd", O_RDONLY);
}

static int do_read_status(void)
{
    return open_result("/proc/self/status", O_RDONLY);
}

static int do_read_temporary(void)
{
    return open_result("/tmp", O_RDONLY | O_DIRECTORY);
}

static int do_write(void)
{
    return open_result("/tmp/check_sandbox.file", O_WRONLY | O_CREAT) ? 1 : 0;
}

static int do_write_null(void)
{
    return open_result("/dev/null", O_RDWR) ? 1 : 0;
}

static int do_unlink(void)
{
    return unlink("/tmp/check_sandbox.file") ? 1 : 0;
}

START_TEST(no_file_is_opened)
{
    static const char *const hosts[] = {"/run/redis.sock", "127.0.0.1", "::1"};
    for (int i = 0; i < 3; i++) {
        expect(hosts[i], PART_SECCOMP, do_read_passwd, EACCES);
        expect(hosts[i], PART_SECCOMP, do_read_status, EACCES);
        expect(hosts[i], 0, do_write, 1);
        expect(hosts[i], 0, do_unlink, 1);
        expect(hosts[i], 0, do_write_null, 1);
    }
    ck_assert_int_lt(access("/tmp/check_sandbox.file", F_OK), 0);
}
END_TEST

START_TEST(where_names_are_looked_up_their_files_are_read_and_no_others)
{
    expect("localhost", PART_FILES, do_read_passwd, 0); /* it is below /etc */
    expect("localhost", PART_FILES, do_read_status, EACCES);
    expect("localhost", PART_FILES, do_read_temporary, EACCES);
    expect("localhost", 0, do_write, 1);
    expect("localhost", 0, do_write_null, 1);
}
END_TEST

/* ---- sockets ---- */

static int socket_result(int family, int type)
{
    int fd = socket(family, type, 0);
    return fd < 0 ? 1 : 0;
}

static int do_packet(void)
{
    return socket_result(17 /* AF_PACKET */, SOCK_RAW);
}

static int do_netlink(void)
{
    return socket_result(AF_NETLINK, SOCK_RAW);
}

static int do_vsock(void)
{
    return socket_result(40 /* AF_VSOCK */, SOCK_STREAM);
}

static int connect_result(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(fd, (const struct sockaddr *)&to, sizeof(to)) ? errno : 0;
}

static int do_connect(void)
{
    return connect_result(redis_port);
}

static int do_connect_elsewhere(void)
{
    return connect_result(other_port);
}

static int do_bind(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return bind(fd, (const struct sockaddr *)&to, sizeof(to)) ? 1 : 0;
}

START_TEST(sockets_are_those_of_redis_and_of_clients)
{
    expect("127.0.0.1", PART_SECCOMP, do_packet, 1);
    expect("127.0.0.1", PART_SECCOMP, do_vsock, 1);
    expect("127.0.0.1", PART_SECCOMP, do_netlink, 1);
    expect("localhost", PART_SECCOMP, do_packet, 1);
    expect("localhost", PART_SECCOMP, do_netlink, 0);
    expect("127.0.0.1", 0, do_connect, 0);
    expect("localhost", 0, do_connect, 0);
    expect("127.0.0.1", PART_NET, do_connect_elsewhere, EACCES);
    expect("localhost", PART_NET, do_connect_elsewhere, EACCES);
    expect("/run/redis.sock", PART_NET, do_connect, EACCES);
    expect("127.0.0.1", PART_SECCOMP, do_bind, 1);
    expect("localhost", PART_NET, do_bind, 1);
}
END_TEST

/* ---- processes and memory ---- */

static int do_fork(void)
{
    pid_t pid = fork();
    if (!pid)
        _exit(0);
    return pid < 0 ? 1 : 0;
}

static int do_kill_parent(void)
{
    return kill(getppid(), 0) ? 1 : 0;
}

static int do_raise_limit(void)
{
    struct rlimit limit = {10, 10};
    return setrlimit(RLIMIT_NOFILE, &limit) ? 1 : 0;
}

static int do_map_code(void)
{
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
    return at == MAP_FAILED ? 1 : 0;
}

static int do_make_code(void)
{
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? 99 : mprotect(at, 4096, PROT_READ | PROT_EXEC) ? 1 : 0;
}

static int do_setuid(void)
{
    return setuid(12345) ? 1 : 0;
}

START_TEST(nothing_is_started_changed_or_made_to_run)
{
    static int (*const fns[])(void) = {do_fork,     do_kill_parent, do_raise_limit,
                                       do_map_code, do_make_code,   do_setuid};
    for (size_t i = 0; i < sizeof(fns) / sizeof(*fns); i++) {
        expect("127.0.0.1", PART_SECCOMP, fns[i], 1);
        expect("localhost", PART_SECCOMP, fns[i], 1);
    }
    expect("127.0.0.1", PART_SCOPE, do_kill_parent, 1);
}
END_TEST

/* ---- what a worker does ---- */

static int do_abort(void)
{
    abort();
}

static int do_crash(void)
{
    raise(SIGSEGV);
    return 0;
}

static int do_work(void)
{
    struct ipc_message m;
    struct timespec now;
    struct rlimit limit;
    time_t day = 0;
    char *big = malloc(1 << 24);
    int pair[2], epoll = epoll_create1(EPOLL_CLOEXEC), at = open("/", O_PATH);
    if (!big || epoll < 0 || at >= 0)
        return 1;
    memset(big, 1, 1 << 24);
    free(big);
    if (clock_gettime(CLOCK_MONOTONIC, &now) || getrlimit(RLIMIT_NOFILE, &limit) ||
        !localtime(&day))
        return 2;
    pair[0] = atoi(getenv("CHECK_SANDBOX_PAIR"));
    pair[1] = pair[0] + 1;
    if (ipc_send(pair[0], CONTROL_LOG, "x", 1, epoll) || ipc_recv(pair[1], &m) != 1 ||
        m.fd_count != 1)
        return 3;
    ipc_close_fds(&m);
    return 0;
}

static void *look_up(void *data)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int error = getaddrinfo("localhost", NULL, &hints, &list);
    if (!error)
        freeaddrinfo(list);
    *(int *)data = error ? 1 : 0;
    return NULL;
}

static int do_look_up(void)
{
    pthread_t thread;
    int result = 2;
    if (pthread_create(&thread, NULL, look_up, &result))
        return 3;
    pthread_join(thread, NULL);
    return result;
}

START_TEST(a_worker_can_do_its_work)
{
    int pair[2], next = 0;
    char number[16];
    ck_assert_int_eq(ipc_pair(pair), 0);
    for (next = 200; next < 210; next += 2) /* a pair of neighbours */
        if (dup2(pair[0], next) == next && dup2(pair[1], next + 1) == next + 1)
            break;
    snprintf(number, sizeof(number), "%d", next);
    setenv("CHECK_SANDBOX_PAIR", number, 1);
    expect("127.0.0.1", PART_SECCOMP, do_work, 0);
    expect("/run/redis.sock", PART_SECCOMP, do_work, 0);
    expect("127.0.0.1", 0, do_abort, -SIGABRT);
    expect("127.0.0.1", 0, do_crash, -SIGSEGV);
    expect("localhost", 0, do_look_up, 0);
    expect("127.0.0.1", PART_SECCOMP, do_look_up, 3); /* no thread is needed there */
}
END_TEST

static int listen_somewhere(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(fd, 128), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    return ntohs(at.sin_port);
}

static void listen_twice(void)
{
    redis_port = listen_somewhere();
    other_port = listen_somewhere();
}

int main(void)
{
    Suite *s = suite_create("sandbox");
    TCase *c = tcase_create("sandbox");
    tcase_add_unchecked_fixture(c, listen_twice, NULL);
    tcase_add_loop_test(c, what_only_an_intruder_does_ends_the_process, 0,
                        (int)(sizeof(fatal) / sizeof(*fatal)));
    tcase_add_test(c, no_file_is_opened);
    tcase_add_test(c, where_names_are_looked_up_their_files_are_read_and_no_others);
    tcase_add_test(c, sockets_are_those_of_redis_and_of_clients);
    tcase_add_test(c, nothing_is_started_changed_or_made_to_run);
    tcase_add_test(c, a_worker_can_do_its_work);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
