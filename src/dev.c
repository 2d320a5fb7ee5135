#include "config.h"

#include "src/dev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "shared/clock.h"
#include "src/pages.h"
#include "src/scratch.h"

#define SECRET_BYTES 32
#define SECRET_NAME "secret"
#define CONFIG_NAME "belfry.conf"
#define CONTROL_NAME "control.sock"
#define WORKERS 2
#define TOKEN_TTL_MS INT64_C(86400000)

struct dev {
    const char *scratch;
    char ctl[512]; /* how to call belfryctl */
    bool any_port;
    char *user_token;  /* NULL: tokens of a key we do not have */
    char *admin_token;
    struct pages *pages;
    char url[160];  /* of the first client listener */
    char http[160]; /* "": a unix socket */
};

/* ---- belfryctl beside belfryd ---- */

static bool is_there(const char *path)
{
    return !access(path, X_OK);
}

/* In the program's own directory, or above it when libtool put the real program into .libs; else
 * wherever PATH finds it. */
static void find_ctl(const char *program, char *out, size_t cap)
{
    const char *slash = strrchr(program, '/');
    if (slash) {
        size_t len = (size_t)(slash - program);
        size_t above = len >= 6 && !strncmp(program + len - 6, "/.libs", 6) ? len - 6 : len;
        snprintf(out, cap, "%.*s/belfryctl", (int)above, program);
        if (is_there(out))
            return;
        snprintf(out, cap, "%.*s/../bin/belfryctl", (int)len, program);
        if (is_there(out))
            return;
    }
    snprintf(out, cap, "belfryctl");
}

/* ---- values ---- */

/* RFC 4648, section 5, without padding. */
static size_t base64url(const unsigned char *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    size_t n = 0;
    unsigned bits = 0, count = 0;
    for (size_t i = 0; i < len; i++) {
        bits = (bits << 8) | in[i];
        for (count += 8; count >= 6; count -= 6)
            out[n++] = digits[(bits >> (count - 6)) & 63];
    }
    if (count)
        out[n++] = digits[(bits << (6 - count)) & 63];
    out[n] = '\0';
    return n;
}

static int make_secret(const char *scratch)
{
    unsigned char bytes[SECRET_BYTES];
    char text[SECRET_BYTES * 2];
    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return -EIO;
    size_t len = base64url(bytes, sizeof(bytes), text);
    int error = scratch_write(scratch, SECRET_NAME, text, len);
    explicit_bzero(bytes, sizeof(bytes));
    explicit_bzero(text, sizeof(text));
    return error;
}

int dev_new(const char *scratch, const char *program, struct dev **out)
{
    struct dev *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->scratch = scratch;
    find_ctl(program, d->ctl, sizeof(d->ctl));
    int error = make_secret(scratch);
    if (error)
        dev_free(d);
    else
        *out = d;
    return error;
}

static void free_token(char *token)
{
    if (token)
        explicit_bzero(token, strlen(token));
    free(token);
}

void dev_free(struct dev *d)
{
    if (!d)
        return;
    free_token(d->user_token);
    free_token(d->admin_token);
    pages_free(d->pages);
    free(d);
}

static bool is_given(const struct options *opt, enum option_id id)
{
    return opt->source[id] != SOURCE_DEFAULT && opt->source[id] != SOURCE_PROFILE;
}

static int set_path(const struct dev *d, const char *name, char **value)
{
    char path[SCRATCH_PATH_BYTES + 32];
    snprintf(path, sizeof(path), "%s/%s", d->scratch, name);
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    free(*value);
    *value = copy;
    return 0;
}

static bool has_hmac(const struct options *opt)
{
    for (size_t i = 0; i < opt->jwt_algorithms.count; i++)
        if (!strncmp(opt->jwt_algorithms.items[i], "HS", 2))
            return true;
    return false;
}

int dev_apply(struct dev *d, struct options *opt)
{
    int error = 0;
    if (!is_given(opt, OPT_workers))
        opt->workers = WORKERS;
    if (!is_given(opt, OPT_jwt_secret_file) && has_hmac(opt))
        error = set_path(d, SECRET_NAME, &opt->jwt_secret_file);
    if (!error && !is_given(opt, OPT_control_socket))
        error = set_path(d, CONTROL_NAME, &opt->control_socket);
    if (!error && d->any_port && !is_given(opt, OPT_listen)) {
        text_list_free(&opt->listen);
        error = text_list_add(&opt->listen, "127.0.0.1:0", strlen("127.0.0.1:0"));
    }
    return error;
}

bool dev_take_any_port(struct dev *d, const struct options *opt)
{
    if (d->any_port || is_given(opt, OPT_listen))
        return false;
    d->any_port = true;
    return true;
}

/* ---- the file for belfryctl ---- */

/* Everything that was given, as it was given, but what this run has decided itself. */
static void add_given(const struct options *opt, struct text_buf *out)
{
    static const enum option_id ours[] = {OPT_listen,     OPT_metrics_listen, OPT_redis_url,
                                          OPT_dev,        OPT_jwt_secret_file, OPT_control_socket,
                                          OPT_pid_file,   OPT_workers,         OPT_log_target};
    for (enum option_id id = 0; id < OPTIONS; id++) {
        bool is_ours = false;
        for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
            is_ours = is_ours || ours[i] == id;
        if (is_ours || !is_given(opt, id))
            continue;
        text_addf(out, "%s = ", options_table[id].name);
        options_format(opt, id, out);
        text_addc(out, '\n');
    }
}

static void add_redis(const struct generation *g, struct text_buf *out)
{
    /* A URL that was given may hold a password, which options_format would hide; the file is ours
     * alone to read. */
    if (strcmp(g->opt->redis_url, "embedded"))
        text_addf(out, "redis-url = \"%s\"\n", g->opt->redis_url);
    else
        text_addf(out, "redis-url = unix://%s\n", g->redis.host);
}

static int write_config(struct dev *d, const struct generation *g)
{
    struct text_buf out = {0};
    bool is_metrics;
    const char *address;
    text_adds(&out, "# Made by belfryd --dev for belfryctl; gone when the server stops.\n");
    for (size_t i = 0; (address = listeners_address(g->listeners, i, &is_metrics)); i++)
        text_addf(&out, "%s = %s\n", is_metrics ? "metrics-listen" : "listen", address);
    add_redis(g, &out);
    if (*g->opt->jwt_secret_file)
        text_addf(&out, "jwt-secret-file = %s\n", g->opt->jwt_secret_file);
    if (*g->opt->control_socket)
        text_addf(&out, "control-socket = %s\n", g->opt->control_socket);
    add_given(g->opt, &out);
    int error = out.failed ? -ENOMEM : scratch_write(d->scratch, CONFIG_NAME, out.data, out.len);
    text_buf_free(&out);
    return error;
}

/* ---- tokens and page ---- */

static void set_urls(struct dev *d, const struct generation *g)
{
    const char *address = listeners_address(g->listeners, 0, NULL);
    bool is_tls = g->tls_certificate_pem != NULL;
    if (!address)
        return;
    if (!strncmp(address, "unix:", 5)) {
        snprintf(d->url, sizeof(d->url), "%s (path /ws)", address);
        d->http[0] = '\0';
        return;
    }
    snprintf(d->url, sizeof(d->url), "ws%s://%s/ws", is_tls ? "s" : "", address);
    snprintf(d->http, sizeof(d->http), "http%s://%s", is_tls ? "s" : "", address);
}

static int mint(struct dev *d, const struct generation *g)
{
    int64_t now_ms = clock_wall_ms();
    struct token_request user = {.user_id = "demo", .ttl_ms = TOKEN_TTL_MS};
    struct token_request admin = {.user_id = "admin", .ttl_ms = TOKEN_TTL_MS, .is_admin = true};
    int error = token_mint(g->token_keys, &user, now_ms, &d->user_token);
    if (!error)
        error = token_mint(g->token_keys, &admin, now_ms, &d->admin_token);
    return error == -ENOKEY ? 0 : error; /* only public keys were configured */
}

int dev_prepare(struct dev *d, const struct generation *g)
{
    int error = write_config(d, g);
    if (!error && !d->pages) {
        set_urls(d, g);
        error = mint(d, g);
        if (!error)
            error = pages_make(true, d->user_token, &d->pages);
    }
    return error;
}

const struct pages *dev_pages(const struct dev *d)
{
    return d->pages;
}

/* ---- what to try ---- */

static void print_tokens(const struct dev *d, FILE *to)
{
    if (!d->user_token) {
        fputs("  tokens        yours: no secret to make any with was configured\n", to);
        return;
    }
    fprintf(to,
            "  user token    %s\n"
            "  admin token   %s\n"
            "                (users demo and admin, for 24 hours)\n",
            d->user_token, d->admin_token);
}

static void print_examples(const struct dev *d, FILE *to)
{
    char now[CLOCK_ISO_BYTES];
    clock_format_us(clock_wall_us(), true, now);
    fprintf(to,
            "\nTry next, in a second terminal (it waits for messages):\n\n"
            "  %s --config %s/" CONFIG_NAME " listen --user demo\n"
            "\nand in a third:\n\n"
            "  %s --config %s/" CONFIG_NAME " emit demo NOTIFICATION "
            "'{\"id\":\"n1\",\"title\":\"Hello\",\"message\":\"It works.\","
            "\"notification_type\":\"success\",\"priority\":\"low\",\"metadata\":{},"
            "\"created_at\":\"%s\",\"read\":false}'\n"
            "  %s --config %s/" CONFIG_NAME " status\n",
            d->ctl, d->scratch, d->ctl, d->scratch, now, d->ctl, d->scratch);
}

void dev_announce(const struct dev *d, FILE *to)
{
    fputs("\nBelfry runs for a first look: on this machine only, with a Redis and a secret of its "
          "own.\n\n",
          to);
    if (d->any_port)
        fputs("  (port 8000 is taken: another one was chosen)\n", to);
    fprintf(to, "  WebSocket     %s\n", d->url);
    if (*d->http)
        fprintf(to, "  demo page     %s/\n  health        %s/ws/health\n", d->http, d->http);
    print_tokens(d, to);
    print_examples(d, to);
    fputs("\nCtrl-C stops it; nothing is left behind.\n\n", to);
    fflush(to);
}
