#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/address.h"
#include "shared/keys.h"
#include "shared/options_priv.h"

struct checker {
    const struct options *o;
    options_report_fn *report;
    void *data;
    bool failed;
};

/* Reports what is to be said about one option. */
__attribute__((format(printf, 4, 5))) static void say(struct checker *c, bool is_error,
                                                      enum option_id id, const char *format, ...)
{
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct text_buf line = {0};
    options_where(c->o, id, &line);
    text_adds(&line, text);
    c->report(c->data, is_error, line.failed ? "out of memory" : line.data);
    text_buf_free(&line);
    c->failed = c->failed || is_error;
}

/* A path or name, fit for a report. */
static const char *shown(const char *text, char out[256])
{
    struct text_buf b = {0};
    text_add_escaped(&b, text, strlen(text), 60);
    snprintf(out, 256, "%s", b.data ? b.data : "");
    text_buf_free(&b);
    return out;
}

/* ---- files ---- */

/* Opens a file an option names and looks what it is. A descriptor, or -1 after a report. */
static int open_file(struct checker *c, enum option_id id, const char *path, struct stat *st)
{
    char text[256];
    /* Without O_NONBLOCK a named pipe would stop everything here. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, st) < 0) {
        say(c, true, id, "\"%s\" cannot be read: %s", shown(path, text), strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (S_ISREG(st->st_mode))
        return fd;
    say(c, true, id, "\"%s\" is %s", shown(path, text),
        S_ISDIR(st->st_mode) ? "a directory" : "not a regular file");
    close(fd);
    return -1;
}

static void warn_if_public(struct checker *c, enum option_id id, const char *path,
                           const struct stat *st)
{
    char text[256];
    if (st->st_mode & S_IROTH)
        say(c, false, id, "\"%s\" can be read by every user of this machine (chmod o-r)",
            shown(path, text));
}

static void check_files(struct checker *c)
{
    for (int i = 0; i < OPTIONS; i++) {
        enum option_id id = (enum option_id)i;
        if (strcmp(options_table[id].spec, "readable_file"))
            continue;
        const char *path = *options_field(c->o, id).string;
        struct stat st;
        if (!*path)
            continue;
        int fd = open_file(c, id, path, &st);
        if (fd < 0)
            continue;
        if (id == OPT_jwt_secret_file || id == OPT_tls_key)
            warn_if_public(c, id, path, &st);
        close(fd);
    }
    if (c->o->tls_certificate[0] && !c->o->tls_key[0])
        say(c, true, OPT_tls_certificate, "tls-key is needed with it");
    if (c->o->tls_key[0] && !c->o->tls_certificate[0])
        say(c, true, OPT_tls_key, "tls-certificate is needed with it");
}

/* Looks whether path can be made: its directory is there, and path itself is none. Paths that
 * systemd or a package makes before belfryd starts are not there yet, so for them it is only worth
 * a word. */
static void check_place(struct checker *c, enum option_id id, const char *path, bool is_error)
{
    char safe[256];
    struct stat st;
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : strdup(".");
    if (!dir)
        return;
    if (stat(dir, &st) < 0)
        say(c, is_error, id, "the directory of \"%s\": %s", shown(path, safe), strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        say(c, true, id, "the directory of \"%s\": %s", shown(path, safe), strerror(ENOTDIR));
    else if (!stat(path, &st) && S_ISDIR(st.st_mode))
        say(c, true, id, "\"%s\" is a directory", shown(path, safe));
    free(dir);
}

static void check_places(struct checker *c)
{
    static const char file[] = "file:", unix_socket[] = "unix:";
    const struct options *o = c->o;
    if (!strncmp(o->log_target, file, strlen(file)))
        check_place(c, OPT_log_target, o->log_target + strlen(file), true);
    if (o->pid_file[0])
        check_place(c, OPT_pid_file, o->pid_file, false);
    if (o->control_socket[0] && o->source[OPT_control_socket] != SOURCE_DEFAULT)
        check_place(c, OPT_control_socket, o->control_socket, false);
    for (size_t i = 0; i < o->listen.count; i++)
        if (!strncmp(o->listen.items[i], unix_socket, strlen(unix_socket)))
            check_place(c, OPT_listen, o->listen.items[i] + strlen(unix_socket), false);
}

/* ---- tokens ---- */

/* Algorithms that have no key, where no set of keys may bring one. */
static void check_keys(struct checker *c, bool hmac, bool public)
{
    const struct options *o = c->o;
    /* With --dev a random secret is made at start. */
    bool has_secret = o->jwt_secret_file[0] || o->dev == CHOICE_YES;
    bool has_public = o->jwt_public_key_file[0];
    if (!(hmac && has_secret) && !(public && has_public)) {
        const char *file = !public  ? "jwt-secret-file"
                           : !hmac ? "jwt-public-key-file"
                                   : "jwt-secret-file or jwt-public-key-file";
        say(c, true, OPT_jwt_algorithms,
            "there is no key to check tokens with: give %s, or jwt-jwks-file", file);
        return;
    }
    if (hmac && !has_secret)
        say(c, false, OPT_jwt_algorithms, "HS tokens will be refused: there is no jwt-secret-file");
    if (public && !has_public)
        say(c, false, OPT_jwt_algorithms,
            "all but HS tokens will be refused: there is no jwt-public-key-file");
}

static void check_tokens(struct checker *c)
{
    const struct options *o = c->o;
    bool hmac = false, public = false; /* kinds of key the configured algorithms need */
    for (size_t i = 0; i < o->jwt_algorithms.count; i++) {
        if (!strncmp(o->jwt_algorithms.items[i], "HS", 2))
            hmac = true;
        else
            public = true;
    }
    if (!o->jwt_jwks_file[0])
        check_keys(c, hmac, public);
    if (o->jwt_secret_file[0] && !hmac)
        say(c, false, OPT_jwt_secret_file, "not used: jwt-algorithms has no HS algorithm");
    if (o->jwt_public_key_file[0] && !public)
        say(c, false, OPT_jwt_public_key_file, "not used: jwt-algorithms has HS algorithms only");
}

/* ---- addresses ---- */

static void check_local(struct checker *c, enum option_id id, const char *text,
                        const struct address *a)
{
    char safe[256];
    if (address_is_local(a))
        return;
    if (c->o->dev == CHOICE_YES)
        say(c, true, id, "\"%s\" is not a loopback address, which dev needs", shown(text, safe));
    if (c->o->echo == CHOICE_ON && id == OPT_listen)
        say(c, true, id, "\"%s\" is not a loopback address, which echo needs", shown(text, safe));
}

static void check_addresses(struct checker *c)
{
    const struct text_list *listen = &c->o->listen;
    struct address a, b, metrics = {0};
    const char *reason;
    char safe[256];
    bool has_metrics = c->o->metrics_listen[0] &&
                       !address_parse(c->o->metrics_listen, &metrics, &reason);
    for (size_t i = 0; i < listen->count; i++) {
        if (address_parse(listen->items[i], &a, &reason))
            continue; /* options_load let none through */
        check_local(c, OPT_listen, listen->items[i], &a);
        for (size_t j = 0; j < i; j++)
            if (!address_parse(listen->items[j], &b, &reason) && address_equal(&a, &b))
                say(c, true, OPT_listen, "\"%s\" is given twice", shown(listen->items[i], safe));
        if (has_metrics && address_equal(&a, &metrics))
            say(c, true, OPT_metrics_listen, "\"%s\" is an address of listen already",
                shown(listen->items[i], safe));
    }
    if (has_metrics)
        check_local(c, OPT_metrics_listen, c->o->metrics_listen, &metrics);
}

/* ---- users, names, times ---- */

static void check_accounts(struct checker *c)
{
    char safe[256];
    if (c->o->user[0] && !getpwnam(c->o->user))
        say(c, true, OPT_user, "there is no user \"%s\"", shown(c->o->user, safe));
    if (c->o->group[0] && !getgrnam(c->o->group))
        say(c, true, OPT_group, "there is no group \"%s\"", shown(c->o->group, safe));
}

/* Two kinds of data under one name would destroy each other. */
static void check_names(struct checker *c)
{
    const struct options *o = c->o;
    struct keys k;
    struct text_span user;
    char safe[256];
    if (keys_init(&k, o->user_channel, o->broadcast_channel, o->notifications_key,
                  o->snapshot_key) < 0)
        return;
    if (!strcmp(k.snapshot, k.notifications) || !strcmp(k.snapshot, k.read_marks) ||
        !strcmp(k.snapshot, k.acked))
        say(c, true, OPT_snapshot_key,
            "is also the name of notifications-key or of a key made from it");
    if (keys_match(k.user_channel, text_span_of(k.broadcast_channel), &user))
        say(c, false, OPT_broadcast_channel, "\"%s\" is also the channel of one user",
            shown(k.broadcast_channel, safe));
    keys_fini(&k);
}

static void check_values(struct checker *c)
{
    const struct options *o = c->o;
    if (o->pong_timeout > o->ping_interval)
        say(c, false, OPT_pong_timeout,
            "is longer than ping-interval: a lost client is noticed late");
    if (o->replay_limit > o->history_size)
        say(c, false, OPT_replay_limit, "is more than history-size, which is what is stored");
    if (o->proxy_protocol == CHOICE_ON && !o->trusted_proxies.count)
        say(c, true, OPT_proxy_protocol, "trusted-proxies is needed with it");
    if (o->max_reading_size < o->max_payload_size)
        say(c, false, OPT_max_reading_size,
            "is less than max-payload-size: one large message hides all older ones");
    if (o->redis_command_timeout > 3 * o->redis_probe_interval)
        say(c, false, OPT_redis_command_timeout,
            "is longer than three times redis-probe-interval, after which health is degraded");
}

int options_check(const struct options *o, options_report_fn *report, void *report_data)
{
    struct checker c = {o, report, report_data, false};
    check_files(&c);
    check_places(&c);
    check_tokens(&c);
    check_addresses(&c);
    check_accounts(&c);
    check_names(&c);
    check_values(&c);
    return c.failed ? -EINVAL : 0;
}
