/*
 * ctl_listen.c - belfryctl listen: a device on the command line.
 *
 * Follows the protocol as a good client does (belfry-protocol(7)): token in the header, last_id and
 * seen when it comes back, the advice of each close code, back-off with jitter.
 */
#include "config.h"

#include "src/ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/address.h"
#include "shared/chance.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/message.h"
#include "shared/token.h"
#include "src/wsclient.h"

#define CONNECT_TIMEOUT_MS 10000
#define GOODBYE_MS 1000
#define TOKEN_TTL_MS (3600 * 1000)
#define BACKOFF_MIN_MS 200
#define BACKOFF_MAX_MS 10000
#define ID_MAX_BYTES 256 /* longer ids are not resumed from */
#define RECENT 64
#define SEEN 32 /* as many as the protocol takes */

struct listener {
    struct ctl *c;
    struct text_buf url; /* as given or found, for people */
    struct wsclient_url base;
    char *token;
    bool reconnect;
    bool is_own_server;
    const char *ca_file;
    int64_t count;       /* messages still wanted; -1: no end */
    int64_t deadline_ms; /* INT64_MAX: none */
    int failures;        /* connections in a row that never got to FULL_SYNC */
    char last_id[ID_MAX_BYTES];
    char recent[RECENT][ID_MAX_BYTES]; /* ids printed, a ring */
    size_t recent_at;
    size_t recent_count;
};

static volatile sig_atomic_t stop_signal; /* written by the handler only */

static void on_signal(int number)
{
    stop_signal = number;
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

static void note(const struct listener *l, const char *what, const char *detail)
{
    if (!ctl_flag(l->c, "quiet"))
        ctl_say("%s%s%s", what, detail[0] ? " " : "", detail);
}

/* ---- where to connect ---- */

/* The address the running server really has, for port 0. */
static void ask_address(const struct ctl *c, struct address *a)
{
    struct text_buf reply = {0};
    struct text_span list;
    char text[ADDRESS_TEXT_BYTES];
    const char *reason;
    if (ctl_control_request(c, "status", 2000, true, &reply) == 0 &&
        json_find((struct text_span){reply.data, reply.len}, "listen", &list) && list.len > 2) {
        const char *begin = list.ptr + 2, *end = memchr(begin, '"', list.len - 2);
        size_t len = end ? (size_t)(end - begin) : 0;
        if (len > 0 && len < sizeof(text)) {
            memcpy(text, begin, len);
            text[len] = '\0';
            address_parse(text, a, &reason);
        }
    }
    text_buf_free(&reply);
}

static int url_of_listener(struct listener *l)
{
    const struct options *o = l->c->options;
    const char *reason = "no listen address";
    const char *scheme = o->tls_certificate[0] ? "wss" : "ws";
    struct address a;
    char host[ADDRESS_TEXT_BYTES];
    if (o->listen.count == 0 || address_parse(o->listen.items[0], &a, &reason) != 0) {
        ctl_say("listen: %s; give --url", reason);
        return -EINVAL;
    }
    if (!a.is_unix && a.port == 0)
        ask_address(l->c, &a);
    if (!a.is_unix && a.port == 0) {
        ctl_say("listen is port 0 and no server answers on control-socket %s; give --url",
                o->control_socket);
        return -EINVAL;
    }
    address_format(&a, host);
    if (a.is_unix)
        text_addf(&l->url, "ws+unix://%s:/ws", a.path);
    else if (a.is_dual || strncmp(host, "0.0.0.0:", 8) == 0)
        text_addf(&l->url, "%s://127.0.0.1:%d/ws", scheme, a.port);
    else if (strncmp(host, "[::]:", 5) == 0)
        text_addf(&l->url, "%s://[::1]:%d/ws", scheme, a.port);
    else
        text_addf(&l->url, "%s://%s/ws", scheme, host);
    if (!a.is_unix && o->tls_certificate[0] && !l->ca_file) {
        /* Our own server: its certificate is at hand, and the name in it is not this address. */
        l->is_own_server = true;
        l->ca_file = o->tls_certificate;
    }
    return 0;
}

static int find_url(struct listener *l)
{
    const char *given = ctl_value(l->c, "url"), *reason;
    l->ca_file = ctl_value(l->c, "ca-file");
    if (given)
        text_adds(&l->url, given);
    else if (url_of_listener(l) != 0)
        return -EINVAL;
    if (l->url.failed)
        return -ENOMEM;
    if (wsclient_url_parse(l->url.data, &l->base, &reason) == 0)
        return 0;
    ctl_say("--url=%s: %s", l->url.data, reason);
    return -EINVAL;
}

static void add_escaped(struct text_buf *b, const char *text)
{
    for (; *text; text++) {
        unsigned char ch = (unsigned char)*text;
        bool plain = (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') ||
                     (ch >= 'a' && ch <= 'z') || strchr("-._~,", ch);
        if (plain)
            text_addc(b, (char)ch);
        else
            text_addf(b, "%%%02X", ch);
    }
}

static void add_parameter(struct text_buf *b, const char *name, const char *value)
{
    if (!value || value[0] == '\0')
        return;
    text_addf(b, "%c%s=", strchr(b->data, '?') ? '&' : '?', name);
    add_escaped(b, value);
}

/* Ids with a comma in them cannot be listed; the newest ones go first into the room there is. */
static void add_seen(struct listener *l, struct text_buf *b)
{
    struct text_buf seen = {0};
    for (size_t i = 1; i <= l->recent_count && i <= SEEN; i++) {
        const char *id = l->recent[(l->recent_at + RECENT - i) % RECENT];
        if (strchr(id, ',') || seen.len + strlen(id) > 1200)
            continue;
        text_addf(&seen, "%s%s", seen.len ? "," : "", id);
    }
    add_parameter(b, "seen", seen.data);
    text_buf_free(&seen);
}

/* The URL with where to resume. */
static int url_with_query(struct listener *l, struct wsclient_url *out)
{
    struct text_buf path = {0};
    *out = l->base;
    text_adds(&path, l->base.path);
    add_parameter(&path, "types", ctl_value(l->c, "types"));
    add_parameter(&path, "last_id", l->last_id);
    if (l->last_id[0])
        add_seen(l, &path);
    int result = path.failed || path.len >= sizeof(out->path) ? -EMSGSIZE : 0;
    if (result == 0)
        memcpy(out->path, path.data, path.len + 1);
    else
        ctl_say("--types, --last-id: together longer than a URL may be");
    text_buf_free(&path);
    return result;
}

/* ---- the token ---- */

/* token: given, may be NULL. */
static void set_token(struct listener *l, char *token)
{
    if (l->token)
        explicit_bzero(l->token, strlen(l->token));
    free(l->token);
    l->token = token;
}

static int read_token_file(struct listener *l, const char *file)
{
    struct text_buf b = {0};
    if (ctl_read_input("--token-file", file, TOKEN_MAX_BYTES, &b) != 0) {
        text_buf_free(&b);
        return CTL_FAILED;
    }
    while (b.len > 0 && strchr(" \t\r\n", b.data[b.len - 1]))
        b.data[--b.len] = '\0';
    set_token(l, b.data); /* NULL for an empty file */
    return CTL_DONE;
}

static int get_token(struct listener *l)
{
    const char *user = ctl_value(l->c, "user"), *token = ctl_value(l->c, "token");
    const char *file = ctl_value(l->c, "token-file");
    int result = CTL_DONE;
    if (!!user + !!token + !!file != 1) {
        ctl_say("listen: just one of --user, --token, --token-file is needed");
        return CTL_USAGE;
    }
    if (user && ctl_check_user(user) != 0)
        return CTL_USAGE;
    if (file) {
        result = read_token_file(l, file);
    } else if (user) {
        char *minted = NULL;
        struct token_request what = {.user_id = user, .ttl_ms = TOKEN_TTL_MS};
        result = ctl_mint(l->c, &what, &minted);
        if (result == CTL_DONE)
            set_token(l, minted);
    } else if (!l->token) {
        set_token(l, strdup(token));
    }
    if (result != CTL_DONE)
        return result;
    if (!l->token || l->token[0] == '\0') {
        ctl_say("the token is empty");
        return CTL_USAGE;
    }
    for (const char *p = l->token; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f) {
            ctl_say("the token holds blanks or other characters that no JWT has");
            return CTL_USAGE;
        }
    return CTL_DONE;
}

/* Is there a way to a newer token than the one that was refused? */
static bool can_renew(const struct listener *l)
{
    const char *file = ctl_value(l->c, "token-file");
    return ctl_value(l->c, "user") || (file && strcmp(file, "-") != 0);
}

/* ---- what arrives ---- */

static bool is_reply(struct text_span type)
{
    static const char *const replies[] = {
        "PONG", "SUBSCRIPTION_CONFIRMED", "UNSUBSCRIPTION_CONFIRMED", "DASHBOARD_REFRESH_COMPLETED",
        "NOTIFICATIONS_MARKED_READ", "CONNECTION_STATS", "AUTH_OK", "ERROR",
    };
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++)
        if (text_span_ieq(type, replies[i]))
            return true;
    return false;
}

static bool was_printed(const struct listener *l, const char *id)
{
    for (size_t i = 0; i < l->recent_count; i++)
        if (strcmp(l->recent[i], id) == 0)
            return true;
    return false;
}

/* Would a list hold this message? Broadcasts and what the table does not store are no place to
 * resume from. */
static bool is_position(const struct listener *l, const struct message *m)
{
    struct text_span channel, text;
    if (m->event >= 0 && events_table[m->event].store != EVENT_STORE_LIST)
        return false;
    return !(json_find(m->raw, "channel", &channel) && json_string_plain(channel, &text) &&
             text_span_eq(text, l->c->options->broadcast_channel));
}

/* A list whose newest entry FULL_SYNC names, with nothing to follow, is a place to resume from. */
static void take_sync(struct listener *l, const struct message *m)
{
    struct text_span sync, value;
    char id[ID_MAX_BYTES];
    if (l->last_id[0] || !json_find(m->raw, "sync", &sync) ||
        !json_find(sync, "missed", &value) || !text_span_eq(value, "0") ||
        !json_find(sync, "last_id", &value))
        return;
    long n = json_string_decode(value, id, sizeof(id) - 1);
    if (n > 0 && !memchr(id, '\0', (size_t)n)) {
        memcpy(l->last_id, id, (size_t)n);
        l->last_id[n] = '\0';
    }
}

/* Remembers the id. False: it was printed before, and came again after a reconnect. */
static bool is_news(struct listener *l, const struct message *m)
{
    char id[ID_MAX_BYTES];
    long n = m->has_id ? json_string_decode(m->id, id, sizeof(id) - 1) : 0;
    if (n <= 0 || memchr(id, '\0', (size_t)n))
        return true;
    id[n] = '\0';
    if (was_printed(l, id))
        return false;
    memcpy(l->recent[l->recent_at], id, (size_t)n + 1);
    l->recent_at = (l->recent_at + 1) % RECENT;
    if (l->recent_count < RECENT)
        l->recent_count++;
    if (is_position(l, m))
        memcpy(l->last_id, id, (size_t)n + 1);
    return true;
}

/* 1: go on; 0: all that was wanted has come; -EIO: stdout. */
static int take_message(struct listener *l, struct text_span bytes)
{
    struct message m;
    struct text_span type = {NULL, 0};
    bool counts = false;
    if (message_read(bytes.ptr, bytes.len, &m) == JSON_OK) {
        json_string_plain(m.type, &type);
        if (m.event == EVENT_FULL_SYNC) {
            l->failures = 0;
            take_sync(l, &m);
        } else {
            counts = !is_reply(type) || (m.has_id && m.origin.len == 0);
        }
        if (l->reconnect && counts && !is_news(l, &m))
            return 1;
    }
    if (ctl_print_line(bytes.ptr, bytes.len) != 0)
        return -EIO;
    if (counts && l->count > 0)
        l->count--;
    return l->count == 0 ? 0 : 1;
}

/* ---- coming and going ---- */

enum fate { FATE_DONE, FATE_FAILED, FATE_TIMED_OUT, FATE_AGAIN, FATE_AGAIN_NEW_TOKEN };

static enum fate fate_of_close(const struct listener *l, int code)
{
    switch (code) {
    case 1002:
    case 1003:
    case 1007:
    case 1009:
    case 4003:
    case 4029: return FATE_FAILED;
    case 4001:
    case 4002: return can_renew(l) && l->failures < 2 ? FATE_AGAIN_NEW_TOKEN : FATE_FAILED;
    default: return FATE_AGAIN;
    }
}

static enum fate fate_of_refusal(const struct listener *l, int result)
{
    if (result == -ETIMEDOUT)
        return l->deadline_ms <= clock_mono_ms() ? FATE_TIMED_OUT : FATE_AGAIN;
    if (result == 401)
        return can_renew(l) && l->failures < 2 ? FATE_AGAIN_NEW_TOKEN : FATE_FAILED;
    if (result == -EPROTO || result == -EINVAL || result == -ENOMEM)
        return FATE_FAILED;
    return result > 0 && result < 500 && result != 429 ? FATE_FAILED : FATE_AGAIN;
}

static enum fate interrupted(const struct listener *l)
{
    /* Without --count there is no other way to be done. */
    return l->count < 0 ? FATE_DONE : FATE_FAILED;
}

static enum fate receive(struct listener *l, struct wsclient *ws)
{
    struct text_span bytes;
    int result;
    while ((result = wsclient_next(ws, l->deadline_ms, &bytes)) == 1) {
        result = take_message(l, bytes);
        if (result <= 0)
            break;
    }
    int code = wsclient_close_code(ws);
    if (code == 0) {
        wsclient_close(ws, clock_mono_ms() + GOODBYE_MS);
        if (result == -EINTR)
            return interrupted(l);
        if (result == -ETIMEDOUT)
            return FATE_TIMED_OUT;
        return result == 0 ? FATE_DONE : FATE_FAILED;
    }
    if (l->count == 0)
        return FATE_DONE;
    const char *reason = wsclient_close_reason(ws);
    ctl_say("closed: %d%s%s", code, reason[0] ? " " : "", reason);
    return fate_of_close(l, code);
}

static enum fate connect_once(struct listener *l)
{
    struct wsclient_url url;
    struct wsclient *ws = NULL;
    char why[512];
    if (url_with_query(l, &url) != 0)
        return FATE_FAILED;
    struct wsclient_config config = {
        .url = &url,
        .token = l->token,
        .subprotocol = "belfry.v1",
        .ca_file = l->ca_file,
        .is_own_server = l->is_own_server,
        .stop = &stop_signal,
    };
    int64_t deadline = clock_mono_ms() + CONNECT_TIMEOUT_MS;
    if (deadline > l->deadline_ms)
        deadline = l->deadline_ms;
    l->failures++;
    int result = wsclient_open(&config, deadline, &ws, why, sizeof(why));
    if (result == -EINTR)
        return interrupted(l);
    if (result != 0) {
        ctl_say("%s: %s", l->url.data, why);
        return fate_of_refusal(l, result);
    }
    note(l, "connected to", l->url.data);
    enum fate fate = receive(l, ws);
    wsclient_free(ws);
    return fate;
}

/* Waits a random time below a bound that doubles. FATE_AGAIN, or what came first. */
static enum fate back_off(struct listener *l)
{
    int64_t bound = BACKOFF_MIN_MS;
    char text[64];
    for (int i = 1; i < l->failures && bound < BACKOFF_MAX_MS; i++)
        bound *= 2;
    if (bound > BACKOFF_MAX_MS)
        bound = BACKOFF_MAX_MS;
    int64_t wait = bound / 2 + (int64_t)(chance_seed() % (uint64_t)(bound / 2 + 1));
    int64_t until = clock_mono_ms() + wait;
    snprintf(text, sizeof(text), "in %lld ms", (long long)wait);
    note(l, "reconnecting", text);
    while (clock_mono_ms() < until) {
        struct timespec step = {.tv_nsec = 20 * 1000 * 1000};
        if (stop_signal)
            return interrupted(l);
        if (clock_mono_ms() >= l->deadline_ms)
            return FATE_TIMED_OUT;
        nanosleep(&step, NULL);
    }
    return FATE_AGAIN;
}

static int listen_on(struct listener *l)
{
    for (;;) {
        enum fate fate = connect_once(l);
        if (l->reconnect && (fate == FATE_AGAIN || fate == FATE_AGAIN_NEW_TOKEN)) {
            bool renew = fate == FATE_AGAIN_NEW_TOKEN;
            fate = back_off(l);
            if (fate == FATE_AGAIN && (!renew || get_token(l) == CTL_DONE))
                continue;
        }
        if (fate == FATE_TIMED_OUT)
            ctl_say("listen: --timeout is over");
        return fate == FATE_DONE ? CTL_DONE : fate == FATE_TIMED_OUT ? CTL_TIMED_OUT : CTL_FAILED;
    }
}

static int read_settings(struct listener *l)
{
    int64_t timeout_ms;
    const char *last_id = ctl_value(l->c, "last-id");
    if (ctl_number(l->c, "count", 1, 1000000000, -1, &l->count) != 0 ||
        ctl_time(l->c, "timeout", -1, &timeout_ms) != 0)
        return CTL_USAGE;
    l->deadline_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
    l->reconnect = ctl_flag(l->c, "reconnect");
    if (last_id && strlen(last_id) >= sizeof(l->last_id)) {
        ctl_say("--last-id: longer than %d bytes", ID_MAX_BYTES - 1);
        return CTL_USAGE;
    }
    snprintf(l->last_id, sizeof(l->last_id), "%s", last_id ? last_id : "");
    int result = get_token(l);
    if (result == CTL_DONE && find_url(l) != 0)
        result = CTL_USAGE;
    return result;
}

int ctl_listen(struct ctl *c)
{
    struct listener *l = calloc(1, sizeof(*l));
    int result = CTL_FAILED;
    if (!l) {
        ctl_say("out of memory");
        return CTL_FAILED;
    }
    l->c = c;
    result = read_settings(l);
    if (result == CTL_DONE) {
        catch_signals();
        result = listen_on(l);
    }
    set_token(l, NULL);
    text_buf_free(&l->url);
    free(l);
    return result;
}
