/*
 * fuzz_commands.c - what a client may say (workers/commands.c), without the rest of a connection:
 * what it asks of others is noted here and answered at once, or when all has been said. The input
 * is one byte of flags and one or more messages, a NUL between them.
 *
 * Holds: a message gets at most one reply, JSON but for "pong", not much longer than what was said;
 * what goes to Redis is bounded; nothing is closed but for authentication, or too much of it.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "shared/json.h"
#include "shared/log.h"
#include "workers/commands.h"
#include "workers/filter.h"
#include "workers/session.h"
#include "workers/store.h"

#define REPLY_EXTRA_BYTES 4096 /* beyond what was said, with all of it escaped */
#define MESSAGES_MAX 24
#define CALLS_MAX (4 * MESSAGES_MAX)

static unsigned replies, closes;
static size_t said_bytes;
static struct {
    store_done_fn *fn;
    void *data;
} calls[CALLS_MAX];
static unsigned first_call, call_end;
static bool is_redis_up, is_redis_slow;
static struct worker worker;
static struct counters counters;
static struct usertable *users;
static struct keys keys;
static struct worker_start start;
static struct conn conn;
static struct user *user;

int64_t worker_now_ms(const struct worker *w)
{
    (void)w;
    return 10000;
}

void conn_send_text(struct conn *c, const char *text, size_t len)
{
    (void)c;
    replies++;
    FUZZ_CHECK(len <= said_bytes * 6 + REPLY_EXTRA_BYTES);
    if (len == 4 && !memcmp(text, "pong", 4))
        return;
    FUZZ_CHECK(json_scan_object(text, len, NULL, NULL) == JSON_OK);
    struct text_span type;
    FUZZ_CHECK(json_find((struct text_span){text, len}, "type", &type));
}

void conn_close(struct conn *c, enum close_reason reason)
{
    (void)c;
    FUZZ_CHECK(reason == CLOSE_AUTH || reason == CLOSE_RATE || reason == CLOSE_INTERNAL);
    closes++;
}

/* With --dev only. */
void conn_drop(struct conn *c, enum close_reason reason)
{
    conn_close(c, reason);
}

const char *conn_id(const struct conn *c, char out[CONN_ID_BYTES])
{
    (void)c;
    snprintf(out, CONN_ID_BYTES, "conn");
    return out;
}

bool conn_authenticated(struct conn *c, const struct token_claims *claims, struct resume *resume,
                        struct filter *filter, bool is_lower)
{
    struct text_buf out = {0};
    (void)claims, (void)is_lower;
    filter_json(filter, &out);
    FUZZ_CHECK(json_scan_array(out.data, out.len, NULL, NULL) == JSON_OK);
    FUZZ_CHECK(!resume || resume->seen_count <= RESUME_SEEN_MAX);
    text_buf_free(&out);
    free(resume);
    filter_free(filter);
    c->state = CONN_OPEN;
    return true;
}

int session_refresh(struct worker *w, struct device *d, const char *full_sync_type,
                    struct frame *done)
{
    (void)w, (void)d;
    FUZZ_CHECK(*full_sync_type);
    frame_unref(done);
    replies++;
    return is_redis_up ? 0 : -EAGAIN;
}

static struct store_call *call(store_done_fn *fn, void *data)
{
    if (!is_redis_up)
        return NULL;
    FUZZ_CHECK(call_end < CALLS_MAX);
    calls[call_end].fn = fn;
    calls[call_end++].data = data;
    return (struct store_call *)(void *)&worker;
}

struct store_call *store_mark_read(struct store *s, const char *user_id,
                                   const struct text_span *ids, size_t count,
                                   struct text_span publish, store_done_fn *fn, void *data)
{
    (void)s;
    FUZZ_CHECK(!strcmp(user_id, "u1"));
    FUZZ_CHECK(count > 0 && count <= COMMANDS_MAX_READ_IDS);
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(ids[i].len > 0 && ids[i].len <= COMMANDS_MAX_ID_BYTES);
        FUZZ_CHECK(text_is_utf8(ids[i].ptr, ids[i].len));
    }
    FUZZ_CHECK(json_scan_object(publish.ptr, publish.len, NULL, NULL) == JSON_OK);
    return call(fn, data);
}

struct store_call *store_set_acked(struct store *s, const char *user_id, struct text_span id,
                                   store_done_fn *fn, void *data)
{
    (void)s;
    FUZZ_CHECK(!strcmp(user_id, "u1"));
    FUZZ_CHECK(id.len > 0 && id.len <= COMMANDS_MAX_ID_BYTES);
    fuzz_touch(id);
    return call(fn, data);
}

enum token_result token_verify(const struct token_keys *k, const char *token, size_t len,
                               int64_t now_ms, struct token_claims *out)
{
    (void)k;
    fuzz_touch((struct text_span){token, len});
    FUZZ_CHECK(len <= TOKEN_MAX_BYTES);
    if (len != 4 || memcmp(token, "good", 4) != 0)
        return TOKEN_SIGNATURE;
    *out = (struct token_claims){.user_id = "u1", .user_id_len = 2};
    out->expires_at_ms = is_redis_up ? now_ms + 60000 : 0;
    return TOKEN_OK;
}

const char *token_result_text(enum token_result r)
{
    (void)r;
    return "bad";
}

struct user *hub_find(struct hub *h, const char *user_id, size_t len)
{
    (void)h;
    return len == 2 && !memcmp(user_id, "u1", 2) ? user : NULL;
}

static void begin_process(void)
{
    FUZZ_CHECK(log_open("file:/dev/null", LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT) == 0);
    FUZZ_CHECK(counters_create(&counters, 2) == 0);
    counters_attach(&counters, 0);
    FUZZ_CHECK(usertable_create(64, 2, &users) == 0);
    FUZZ_CHECK(keys_init(&keys, "ws:user:{user_id}", "ws:broadcast", "notifications:{user_id}",
                         "ws:snapshot:{user_id}") == 0);
    start = (struct worker_start){.counters = &counters, .users = users, .keys = &keys};
    worker = (struct worker){.start = &start, .style = {.with_zone = true}};
    user = calloc(1, sizeof(*user) + 3);
    FUZZ_CHECK(user);
    *user = (struct user){.id_len = 2, .id_hash = 77, .devices = &conn.device};
    memcpy(user->id, "u1", 3);
}

/* Answers may bring new questions. */
static void answer_all(int error)
{
    while (first_call < call_end) {
        unsigned at = first_call++;
        said_bytes = 65536;
        calls[at].fn(calls[at].data, error, 1);
    }
}

static void say(struct text_span text)
{
    char *copy = fuzz_copy(text);
    replies = 0;
    said_bytes = text.len;
    commands_on_message(&conn, copy, text.len);
    free(copy);
    FUZZ_CHECK(replies == 0 || first_call == call_end || is_redis_slow);
    if (!is_redis_slow)
        answer_all(text.len & 1 ? -EIO : 0);
    FUZZ_CHECK(replies + closes <= 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    if (!user)
        begin_process();
    unsigned flags = fuzz_u8(&in);
    is_redis_up = flags & 1;
    is_redis_slow = flags & 8;
    first_call = call_end = 0;
    worker.style.lower_case = flags & 2;
    conn = (struct conn){.worker = &worker, .serial = 5};
    conn.state = flags & 4 ? CONN_AUTH : CONN_OPEN;
    device_init(&conn.device, &conn);
    conn.device.user = flags & 4 ? NULL : user;
    conn.device.state = DEVICE_LIVE;
    closes = 0;
    for (int i = 0; in.left && i < MESSAGES_MAX && !closes; i++) {
        struct text_span text = fuzz_until(&in, '\0');
        if (text_is_utf8(text.ptr, text.len)) /* wsock.c sees to that */
            say(text);
        if (conn.state == CONN_OPEN)
            conn.device.user = user;
    }
    answer_all(flags & 16 ? -EIO : 0);
    filter_free(conn.device.filter);
    return 0;
}
