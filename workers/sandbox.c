#include "config.h"

#include "workers/sandbox.h"

#include <stdlib.h>
#include <string.h>

#ifdef ENABLE_SANDBOX

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_LIBSECCOMP
#include <seccomp.h>
#endif

#include "workers/tlsio.h"

/* What the way to Redis leaves open. */
struct needs {
    bool names;    /* host names are looked up, in threads; or certificates are read */
    uint16_t port; /* TCP port of Redis; 0: a unix socket */
};

static struct needs needs_of(const struct redisurl *redis)
{
    unsigned char address[sizeof(struct in6_addr)];
    if (redis->is_unix)
        return (struct needs){0};
    bool is_address = inet_pton(AF_INET, redis->host, address) == 1 ||
                      inet_pton(AF_INET6, redis->host, address) == 1;
    return (struct needs){.names = !is_address || redis->is_tls, .port = (uint16_t)redis->port};
}

/* ---- seccomp ---- */

#ifdef HAVE_LIBSECCOMP

enum rule { RULE_ALLOW, RULE_NAMES, RULE_KILL, RULE_ASK };

static const struct {
    int number;
    enum rule rule;
} table[] = {
#define SYSCALL(name, rule) {SCMP_SYS(name), RULE_##rule},
#include "workers/sandbox.def"
#undef SYSCALL
};

static int allow(scmp_filter_ctx filter, int number)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
}

static int allow_if(scmp_filter_ctx filter, int number, struct scmp_arg_cmp condition)
{
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &condition);
}

static int allow_one_of(scmp_filter_ctx filter, int number, unsigned argument,
                        const unsigned long *values, size_t count)
{
    int error = 0;
    for (size_t i = 0; !error && i < count; i++)
        error = allow_if(filter, number, SCMP_CMP(argument, SCMP_CMP_EQ, values[i], 0));
    return error;
}

/* Nothing that could be written to may be run. Libraries for looking names up are loaded late. */
static int ask_mmap(scmp_filter_ctx filter, int number, const struct needs *n)
{
    int error = allow_if(filter, number, SCMP_CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (!error && n->names)
        error = allow_if(filter, number,
                         SCMP_CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC));
    return error;
}

static int ask_open(scmp_filter_ctx filter, int number, unsigned flags, const struct needs *n)
{
    const unsigned long writing = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    if (!n->names)
        return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), number, 0);
    return allow_if(filter, number, SCMP_CMP(flags, SCMP_CMP_MASKED_EQ, writing, O_RDONLY));
}

static int ask(scmp_filter_ctx filter, int number, const struct needs *n)
{
    static const unsigned long families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
    static const unsigned long requests[] = {FIONREAD, FIONBIO, SIOCOUTQ, TCGETS};
    if (number == SCMP_SYS(socket)) /* netlink tells which addresses can be reached */
        return allow_one_of(filter, number, 0, families, n->names ? 4 : 3);
    if (number == SCMP_SYS(ioctl))
        return allow_one_of(filter, number, 1, requests, 4);
    if (number == SCMP_SYS(mmap) || number == SCMP_SYS(mmap2))
        return ask_mmap(filter, number, n);
    if (number == SCMP_SYS(mprotect))
        return allow_if(filter, number, SCMP_CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (number == SCMP_SYS(open))
        return ask_open(filter, number, 1, n);
    if (number == SCMP_SYS(openat))
        return ask_open(filter, number, 2, n);
    if (number == SCMP_SYS(prlimit64)) /* may be asked, not changed */
        return allow_if(filter, number, SCMP_CMP(2, SCMP_CMP_EQ, 0, 0));
    if (number == SCMP_SYS(tgkill)) /* abort(3) */
        return allow_if(filter, number, SCMP_CMP(0, SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    if (number == SCMP_SYS(clone) && n->names) /* threads, no processes */
        return allow_if(filter, number,
                        SCMP_CMP(0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    return 0;
}

static int add_rule(scmp_filter_ctx filter, int number, enum rule rule, const struct needs *n)
{
    int error = 0;
    switch (rule) {
    case RULE_ALLOW:
        error = allow(filter, number);
        break;
    case RULE_NAMES:
        error = n->names ? allow(filter, number) : 0;
        break;
    case RULE_KILL:
        error = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, number, 0);
        break;
    case RULE_ASK:
        error = ask(filter, number, n);
        break;
    }
    return error == -EDOM ? 0 : error; /* this architecture has no such call */
}

static int enter_seccomp(const struct needs *n)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    int error = filter ? 0 : -ENOMEM;
    for (size_t i = 0; !error && i < sizeof(table) / sizeof(*table); i++)
        error = add_rule(filter, table[i].number, table[i].rule, n);
    if (!error) {
        /* Both are only nice to have: the kernel's log tells what was denied, and rules are found
         * by search. */
        seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
        seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        error = seccomp_load(filter);
    }
    seccomp_release(filter);
    return error;
}

#else

static int enter_seccomp(const struct needs *n)
{
    (void)n;
    return -ENOSYS;
}

#endif

/* ---- Landlock ---- */

/* Our own words for them: Debian 12's kernel headers know the first two versions only. */
struct ruleset {
    uint64_t files;
    uint64_t net;   /* from version 4 on */
    uint64_t scope; /* from version 6 on */
};

struct path_rule {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

struct port_rule {
    uint64_t allowed;
    uint64_t port;
};

enum { RULE_PATH = 1, RULE_PORT = 2 };
enum { CREATE_VERSION = 1 };
#define FILES_READ (UINT64_C(1) << 2)
#define FILES_READ_DIR (UINT64_C(1) << 3)
#define NET_BIND (UINT64_C(1) << 0)
#define NET_CONNECT (UINT64_C(1) << 1)
#define SCOPE_ABSTRACT_SOCKETS (UINT64_C(1) << 0)
#define SCOPE_SIGNALS (UINT64_C(1) << 1)
#define DNS_PORT 53

#ifdef SYS_landlock_create_ruleset

/* Everything that the version knows of is forbidden, but for what rules allow. */
static struct ruleset ruleset_of(int version)
{
    int file_rights = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
    return (struct ruleset){
        .files = (UINT64_C(1) << file_rights) - 1,
        .net = version >= 4 ? NET_BIND | NET_CONNECT : 0,
        .scope = version >= 6 ? SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS : 0};
}

static size_t ruleset_bytes(int version)
{
    return version >= 6   ? sizeof(struct ruleset)
           : version >= 4 ? offsetof(struct ruleset, scope)
                          : offsetof(struct ruleset, net);
}

/* What is not there now is not needed. */
static void allow_below(int rules, const char *path)
{
    struct path_rule rule = {.allowed = FILES_READ | FILES_READ_DIR};
    rule.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (rule.fd < 0)
        return;
    syscall(SYS_landlock_add_rule, rules, RULE_PATH, &rule, 0);
    close(rule.fd);
}

static int allow_port(int rules, uint16_t port)
{
    struct port_rule rule = {.allowed = NET_CONNECT, .port = port};
    return syscall(SYS_landlock_add_rule, rules, RULE_PORT, &rule, 0) < 0 ? -errno : 0;
}

/* The resolver's files and libraries, and certificates. Whole directories: files that are replaced
 * while the worker runs are other files then. */
static void allow_names(int rules)
{
    static const char *const directories[] = {
        "/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/ca-certificates",
        "/usr/local/share/ca-certificates", "/run/systemd/resolve", "/run/resolvconf",
        "/run/NetworkManager"};
    for (size_t i = 0; i < sizeof(directories) / sizeof(*directories); i++)
        allow_below(rules, directories[i]);
}

/* The version, or negative errno. */
static int enter_landlock(const struct needs *n)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);
    if (version < 1)
        return -ENOSYS; /* switched off at boot, or forbidden from outside, is the same to us */
    struct ruleset set = ruleset_of((int)version);
    int rules = (int)syscall(SYS_landlock_create_ruleset, &set, ruleset_bytes((int)version), 0);
    if (rules < 0)
        return -errno;
    int error = 0;
    if (n->names)
        allow_names(rules);
    if (set.net && n->port)
        error = allow_port(rules, n->port);
    if (!error && set.net && n->names)
        error = allow_port(rules, DNS_PORT); /* answers too long for UDP */
    if (!error && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        error = -errno;
    close(rules);
    return error ? error : (int)version;
}

#else

static int enter_landlock(const struct needs *n)
{
    (void)n;
    return -ENOSYS;
}

#endif

/* ---- both ---- */

/* valgrind runs in this very process, and makes calls and code of its own. */
static bool is_under_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return preload && strstr(preload, "/vgpreload_");
}

bool sandbox_is_possible(void)
{
    return !is_under_valgrind();
}

struct sandbox sandbox_enter(const struct redisurl *redis)
{
    struct sandbox result = {0};
    struct needs n = needs_of(redis);
    tzset(); /* syslog(3) tells local time */
    tls_prepare();
    int landlock = enter_landlock(&n);
    int error = enter_seccomp(&n);
    result.has_seccomp = !error;
    result.landlock = landlock > 0 ? landlock : 0;
    result.seccomp_error = error == -ENOSYS ? 0 : error;
    result.landlock_error = landlock < 0 && landlock != -ENOSYS ? landlock : 0;
    return result;
}

#else

bool sandbox_is_possible(void)
{
    return false;
}

struct sandbox sandbox_enter(const struct redisurl *redis)
{
    (void)redis;
    return (struct sandbox){0};
}

#endif
