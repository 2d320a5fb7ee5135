#include "config.h"

#include "src/generation.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"
#include "src/dev.h"
#include "workers/tlsio.h"

#define WORKERS_MAX 64
#define PEM_MAX_BYTES (1 << 20)
#define TLS_SOON_MS (7 * 24 * 3600 * INT64_C(1000)) /* a certificate that ends then is told of */

static __attribute__((format(printf, 4, 5))) void report(const struct generation_source *from,
                                                         const struct options *opt,
                                                         bool is_error, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct text_buf line = {0};
    options_locate(opt, text, &line);
    from->report(from->report_data, is_error, line.failed ? "no memory" : line.data);
    text_buf_free(&line);
}

/* One for each processor this process may use, which in a container are fewer than the machine
 * has. */
static uint32_t count_workers(const struct options *opt)
{
    cpu_set_t set;
    if (opt->workers)
        return (uint32_t)opt->workers;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (uint32_t)n;
}

/* Reads a whole file. 0 or negative errno. */
static int read_file(const char *path, char **out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    char *text = malloc(PEM_MAX_BYTES + 1);
    ssize_t n = 0, len = 0;
    int error = text ? 0 : -ENOMEM;
    while (!error && len <= PEM_MAX_BYTES &&
           (n = read(fd, text + len, (size_t)(PEM_MAX_BYTES + 1 - len))) > 0)
        len += n;
    if (!error && n < 0)
        error = -errno;
    if (!error && len > PEM_MAX_BYTES)
        error = -EFBIG;
    close(fd);
    if (error) {
        free(text);
        return error;
    }
    text[len] = '\0';
    char *fit = realloc(text, (size_t)len + 1);
    *out = fit ? fit : text;
    return 0;
}

static int load_pem(const struct generation_source *from, const struct options *opt,
                    const char *option, const char *path, char **out)
{
    int error = *path ? read_file(path, out) : 0;
    if (error)
        report(from, opt, true, "%s: %s: %s", option, path, log_errno(error));
    return error;
}

static int load_redis(struct generation *g, const struct generation_source *from)
{
    const char *reason;
    int error = redisurl_parse(g->opt->redis_url, &g->redis, &reason);
    if (error) {
        report(from, g->opt, true, "redis-url: %s", reason);
        return error;
    }
    if (!g->redis.is_embedded || !from->embedded_socket)
        return 0;
    memset(&g->redis, 0, sizeof(g->redis));
    g->redis.is_unix = true;
    snprintf(g->redis.host, sizeof(g->redis.host), "%s", from->embedded_socket);
    return 0;
}

static void note_key(void *data, const char *text)
{
    const struct generation_source *from = data;
    from->report(from->report_data, false, text);
}

static int load_tokens(struct generation *g, const struct generation_source *from)
{
    char why[512];
    /* --test-config --dev: the secret is made at start. */
    if (g->opt->dev == CHOICE_YES && !from->dev)
        return 0;
    g->jwks_stamp = keywatch_look(g->opt->jwt_jwks_file);
    int error = token_keys_load(g->opt, &g->token_keys, why, sizeof(why));
    if (error)
        report(from, g->opt, true, "%s", why);
    else
        token_keys_notes(g->token_keys, note_key, (void *)(uintptr_t)from);
    return error;
}

/* Clients refuse such a certificate, but it is theirs to do so, and the clock that is wrong may be
 * this machine's: it is told, and stops no start and no reload. */
static void check_validity(const struct tls_server *tls, const struct generation_source *from,
                           const struct options *opt)
{
    char text[CLOCK_ISO_BYTES];
    int64_t from_ms, until_ms, now_ms = clock_wall_ms();
    tls_server_validity(tls, &from_ms, &until_ms);
    bool is_early = now_ms < from_ms, is_late = now_ms >= until_ms;
    if (!is_early && !is_late && until_ms - now_ms >= TLS_SOON_MS)
        return;
    clock_format_us((is_early ? from_ms : until_ms) * 1000, true, text);
    report(from, opt, false, "tls-certificate: %s: %s %s", opt->tls_certificate,
           is_early  ? "it is not valid before"
           : is_late ? "it has expired at"
                     : "it expires soon, at",
           text);
}

/* A certificate and a key that are not one pair would end each new worker. */
static int load_tls(struct generation *g, const struct generation_source *from)
{
    char why[200];
    const struct options *opt = g->opt;
    enum tls_fault fault;
    int error =
        load_pem(from, opt, "tls-certificate", opt->tls_certificate, &g->tls_certificate_pem);
    if (!error)
        error = load_pem(from, opt, "tls-key", opt->tls_key, &g->tls_key_pem);
    if (error || !g->tls_certificate_pem || !g->tls_key_pem)
        return error;
    struct tls_server *tls =
        tls_server_new(g->tls_certificate_pem, g->tls_key_pem, 0, &fault, why, sizeof(why));
    if (!tls && fault == TLS_FAULT_KEY)
        report(from, opt, true, "tls-key: %s: %s", opt->tls_key, why);
    else if (!tls)
        report(from, opt, true, "tls-certificate: %s: %s", opt->tls_certificate, why);
    else
        check_validity(tls, from, opt);
    tls_server_free(tls);
    return tls ? 0 : -EINVAL;
}

int generation_from_options(struct options *opt, const struct generation_source *from,
                            struct generation **out)
{
    struct generation *g = calloc(1, sizeof(*g));
    if (!g) {
        options_free(opt);
        from->report(from->report_data, true, "no memory");
        return -EINVAL;
    }
    g->opt = opt;
    g->jwks_fd = -1;
    int error = from->dev ? dev_apply(from->dev, opt) : 0;
    if (error)
        report(from, opt, true, "dev: %s", log_errno(error));
    else
        error = options_check(opt, from->report, from->report_data);
    if (error)
        goto out;
    g->workers = count_workers(opt);
    error = keys_init(&g->keys, opt->user_channel, opt->broadcast_channel, opt->notifications_key,
                      opt->snapshot_key);
    if (error)
        report(from, opt, true, "user-channel, notifications-key, snapshot-key: %s",
               log_errno(error));
    if (!error)
        error = load_redis(g, from);
    if (!error)
        error = load_tokens(g, from);
    if (!error)
        error = load_tls(g, from);
out:
    if (error) {
        generation_free(g);
        return -EINVAL;
    }
    *out = g;
    return 0;
}

int generation_load(const struct generation_source *from, struct generation **out)
{
    struct options_command command = {0};
    struct options *opt = NULL;
    int error = options_load(from->argc, from->argv, from->environment, false, &command,
                             from->report, from->report_data, &opt);
    options_command_free(&command);
    return error ? -EINVAL : generation_from_options(opt, from, out);
}

int generation_listen(struct generation *g, const struct privileges *owner,
                      const struct generation *previous, const struct generation_source *from)
{
    char why[512];
    int error = listeners_open(g->opt, g->workers, owner, previous ? previous->listeners : NULL,
                               from->inherited, &g->listeners, why, sizeof(why));
    if (error)
        report(from, g->opt, true, "%s", why);
    return error;
}

static void free_secret(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

void generation_free(struct generation *g)
{
    if (!g)
        return;
    listeners_free(g->listeners);
    token_keys_free(g->token_keys);
    if (g->jwks_fd >= 0)
        close(g->jwks_fd);
    keys_fini(&g->keys);
    explicit_bzero(&g->redis, sizeof(g->redis));
    free(g->tls_certificate_pem);
    free_secret(g->tls_key_pem);
    options_free(g->opt);
    free(g);
}
