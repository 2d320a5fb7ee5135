#include "config.h"

#include "workers/wsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include "shared/text.h"
#include "workers/deflate.h"
#include "workers/frame.h"

#define POOL_MAX_IDLE 64
#define HEADER_MAX 14
#define CONTROL_PAYLOAD_MAX 125
#define IS_MASKED 0x80
#define IS_FINAL 0x80
#define OPCODE_BITS 0x0f

/*
 * wslay reads through its own 4096-byte buffer. It is given a data frame's bytes up to the frame's
 * end and no further, so at a message border nothing of ours is inside it; and it is given a
 * control frame only when the frame is whole, because it checks the UTF-8 of a close reason rightly
 * only then. For both, frame borders are found here.
 */
struct wsock {
    struct wsock_pool *pool;
    struct wsock *next; /* in the pool */
    wslay_event_context_ptr context;
    void *data;
    struct wsock_terms terms;
    unsigned char head[HEADER_MAX + CONTROL_PAYLOAD_MAX]; /* of a data frame the header only */
    size_t head_len;
    uint64_t left;         /* bytes of a data frame's payload still to come; 0: in a header */
    bool in_message;       /* a message is not whole after the frame under way */
    bool had_message;      /* it was not whole before it, either */
    uint8_t opcode;        /* of the message under way */
    bool is_deflated;      /* that message */
    uint64_t size;         /* of the payload of the data frame under way, whose header is in head */
    bool is_control;       /* the frame wslay is in */
    bool is_done;          /* an error or the peer's close was told */
    const unsigned char *in; /* what recv_callback gives out */
    size_t in_len;
    struct text_buf message; /* of the message under way; unused when one chunk held it all */
    const char *whole;       /* that chunk */
    size_t whole_len;
    unsigned char out[FRAME_CONTROL_MAX]; /* control frame that wslay sends */
    size_t out_len;
};

struct wsock_pool {
    struct wsock_events events;
    struct deflate *deflate;
    struct wsock *idle;
    size_t idle_count;
};

static void fail(struct wsock *w, enum close_reason reason)
{
    if (w->is_done)
        return;
    w->is_done = true;
    wslay_event_shutdown_read(w->context);
    w->pool->events.on_error(w->data, reason);
}

/* ---- what wslay calls ---- */

static ssize_t on_recv(wslay_event_context_ptr context, uint8_t *buf, size_t len, int flags,
                       void *user_data)
{
    struct wsock *w = user_data;
    (void)flags;
    if (w->in_len == 0) {
        wslay_event_set_error(context, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    if (len > w->in_len)
        len = w->in_len;
    memcpy(buf, w->in, len);
    w->in += len;
    w->in_len -= len;
    return (ssize_t)len;
}

/* A frame comes in two pieces, header and payload: WSLAY_MSG_MORE says that a second one follows.
 * */
static ssize_t on_send(wslay_event_context_ptr context, const uint8_t *data, size_t len, int flags,
                       void *user_data)
{
    struct wsock *w = user_data;
    (void)context;
    if (len > sizeof w->out - w->out_len)
        len = sizeof w->out - w->out_len; /* not reached: control frames only */
    memcpy(w->out + w->out_len, data, len);
    w->out_len += len;
    if (!(flags & WSLAY_MSG_MORE)) {
        /* Close frames are the caller's business. */
        if ((w->out[0] & OPCODE_BITS) == FRAME_PONG && w->pool->events.on_send)
            w->pool->events.on_send(w->data, w->out, w->out_len);
        w->out_len = 0;
    }
    return (ssize_t)len;
}

static void on_frame_start(wslay_event_context_ptr context,
                           const struct wslay_event_on_frame_recv_start_arg *arg, void *user_data)
{
    struct wsock *w = user_data;
    (void)context;
    w->is_control = wslay_is_ctrl_frame(arg->opcode);
}

static void on_frame_chunk(wslay_event_context_ptr context,
                           const struct wslay_event_on_frame_recv_chunk_arg *arg, void *user_data)
{
    struct wsock *w = user_data;
    (void)context;
    if (w->is_control || w->is_done)
        return;
    /* The last frame's only chunk stays where it is, in wslay's buffer. */
    if (w->message.len == 0 && w->left == 0 && w->in_len == 0 && !w->in_message) {
        w->whole = (const char *)arg->data;
        w->whole_len = arg->data_length;
        return;
    }
    text_add(&w->message, (const char *)arg->data, arg->data_length);
}

/* Of a deflated message nobody has seen the text yet. False: it is refused. */
static bool inflate_message(struct wsock *w, struct text_span deflated, struct text_buf *out)
{
    int error = deflate_unpack(w->pool->deflate, deflated.ptr, deflated.len,
                               w->terms.max_message_bytes, out);
    if (error == -ENOMEM)
        w->message.failed = true; /* told by wsock_feed */
    else if (error)
        fail(w, error == -EMSGSIZE ? CLOSE_TOO_BIG : CLOSE_DEFLATE);
    else if (w->opcode == FRAME_TEXT && !text_is_utf8(out->data, out->len))
        fail(w, CLOSE_UTF8);
    else
        return true;
    return false;
}

static void tell_message(struct wsock *w, struct text_span message)
{
    const struct wsock_events *events = &w->pool->events;
    if (!message.ptr)
        message.ptr = "";
    if (w->opcode == FRAME_TEXT && events->on_text)
        events->on_text(w->data, message.ptr, message.len);
    if (w->opcode == FRAME_BINARY && events->on_binary)
        events->on_binary(w->data, message.ptr, message.len);
}

static void deliver(struct wsock *w)
{
    const struct wsock_events *events = &w->pool->events;
    struct text_span message = {w->message.data, w->message.len};
    struct text_buf inflated = {0};
    if (w->message.failed)
        return; /* told by wsock_feed */
    if (w->whole)
        message = (struct text_span){w->whole, w->whole_len};
    if (events->on_whole && !events->on_whole(w->data))
        ;
    else if (!w->is_deflated)
        tell_message(w, message);
    else if (inflate_message(w, message, &inflated))
        tell_message(w, (struct text_span){inflated.data, inflated.len});
    w->whole = NULL;
    text_buf_free(&inflated);
    if (!w->message.failed)
        text_buf_free(&w->message);
}

static void on_message(wslay_event_context_ptr context,
                       const struct wslay_event_on_msg_recv_arg *arg, void *user_data)
{
    struct wsock *w = user_data;
    (void)context;
    if (w->is_done)
        return;
    if (!wslay_is_ctrl_frame(arg->opcode)) {
        deliver(w);
    } else if (arg->opcode == WSLAY_PONG) {
        if (w->pool->events.on_pong)
            w->pool->events.on_pong(w->data);
    } else if (arg->opcode == WSLAY_CONNECTION_CLOSE) {
        if (arg->msg_length == 1) { /* half a code: wslay takes it for none */
            fail(w, CLOSE_PROTOCOL);
            return;
        }
        w->is_done = true;
        w->pool->events.on_close(w->data, arg->status_code ? arg->status_code
                                                           : WSLAY_CODE_NO_STATUS_RCVD);
    }
}

/* ---- life ---- */

static void destroy(struct wsock *w)
{
    wslay_event_context_free(w->context);
    text_buf_free(&w->message);
    free(w);
}

static struct wsock *acquire(struct wsock_pool *p)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_recv,
        .send_callback = on_send,
        .on_frame_recv_start_callback = on_frame_start,
        .on_frame_recv_chunk_callback = on_frame_chunk,
        .on_msg_recv_callback = on_message,
    };
    struct wsock *w = p->idle;
    if (w) {
        p->idle = w->next;
        p->idle_count--;
        return w;
    }
    w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    if (wslay_event_context_server_init(&w->context, &callbacks, w) != 0) {
        free(w);
        return NULL;
    }
    w->pool = p;
    wslay_event_config_set_no_buffering(w->context, 1);
    return w;
}

/* True where the next byte begins a message: wslay's context is then as if new. */
static bool is_at_border(const struct wsock *w)
{
    return !w->is_done && w->head_len == 0 && w->left == 0 && !w->in_message;
}

struct wsock_pool *wsock_pool_new(struct deflate *deflate, const struct wsock_events *events)
{
    struct wsock_pool *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->events = *events;
    p->deflate = deflate;
    return p;
}

void wsock_pool_free(struct wsock_pool *p)
{
    if (!p)
        return;
    while (p->idle) {
        struct wsock *w = p->idle;
        p->idle = w->next;
        destroy(w);
    }
    free(p);
}

size_t wsock_pool_idle(const struct wsock_pool *p)
{
    return p->idle_count;
}

void wsock_release(struct wsock_pool *p, struct wsock *w)
{
    if (!w)
        return;
    if (!is_at_border(w) || p->idle_count >= POOL_MAX_IDLE) {
        destroy(w);
        return;
    }
    w->next = p->idle;
    p->idle = w;
    p->idle_count++;
}

size_t wsock_held_bytes(const struct wsock *w)
{
    return w ? w->message.cap : 0;
}

/* ---- frame borders ---- */

static bool head_is_control(const struct wsock *w)
{
    uint8_t opcode = w->head[0] & OPCODE_BITS; /* the macro does not bracket its argument */
    return wslay_is_ctrl_frame(opcode);
}

/* Length of the header that begins in head, as far as it is known; at least 2. */
static size_t header_size(const struct wsock *w)
{
    if (w->head_len < 2)
        return 2;
    int len7 = w->head[1] & 0x7f;
    return 2u + (len7 == 126 ? 2 : len7 == 127 ? 8 : 0) + (w->head[1] & IS_MASKED ? 4 : 0);
}

static uint64_t payload_size(const struct wsock *w)
{
    int len7 = w->head[1] & 0x7f;
    size_t bytes = len7 == 126 ? 2 : len7 == 127 ? 8 : 0;
    if (bytes == 0)
        return (uint64_t)len7;
    uint64_t size = 0;
    for (size_t i = 0; i < bytes; i++)
        size = size << 8 | w->head[2 + i];
    return size;
}

/* How many bytes head must hold before wslay sees it: the header, or a whole control frame (one
 * that is too long to be valid: its header, at which wslay fails). */
static size_t head_size(const struct wsock *w)
{
    size_t size = header_size(w);
    if (w->head_len >= size && head_is_control(w) && payload_size(w) <= CONTROL_PAYLOAD_MAX)
        size += (size_t)payload_size(w);
    return size;
}

/* IANA has registered 1012 to 1014 since wslay was written, which knows the codes of RFC 6455 only.
 * It comes to the code last, so whatever else may be wrong with the frame it has told already. */
static bool has_newer_code(const struct wsock *w, int *code)
{
    if (w->head[0] != (IS_FINAL | FRAME_CLOSE) || !(w->head[1] & IS_MASKED) ||
        payload_size(w) < 2 || w->head_len < 8)
        return false;
    *code = (w->head[6] ^ w->head[2]) << 8 | (w->head[7] ^ w->head[3]);
    return *code >= 1012 && *code <= 1014;
}

/* wslay stopped reading on its own: why? Its close frame tells. */
static void tell_refusal(struct wsock *w)
{
    int code;
    switch (wslay_event_get_status_code_sent(w->context)) {
    case WSLAY_CODE_INVALID_FRAME_PAYLOAD_DATA:
        fail(w, CLOSE_UTF8);
        break;
    case WSLAY_CODE_MESSAGE_TOO_BIG:
        fail(w, CLOSE_TOO_BIG);
        break;
    case WSLAY_CODE_PROTOCOL_ERROR:
        if (has_newer_code(w, &code)) {
            w->is_done = true;
            w->pool->events.on_close(w->data, code);
            break;
        }
        fail(w, CLOSE_PROTOCOL);
        break;
    default: /* a header it cannot read gets a close frame without a code */
        fail(w, CLOSE_PROTOCOL);
    }
}

/* Lets wslay eat bytes of one frame. 0 or -ENOMEM. */
static int eat(struct wsock *w, const unsigned char *bytes, size_t len)
{
    w->in = bytes;
    w->in_len = len;
    int error = wslay_event_recv(w->context);
    if (error == WSLAY_ERR_NOMEM || w->message.failed) {
        w->is_done = true;
        return -ENOMEM;
    }
    if (wslay_event_want_write(w->context))
        wslay_event_send(w->context);
    if (!w->is_done && (error != 0 || !wslay_event_get_read_enabled(w->context)))
        tell_refusal(w);
    return 0;
}

/* A message begins, with the frame whose header is in head. */
static void begin_message(struct wsock *w)
{
    w->opcode = w->head[0] & OPCODE_BITS;
    w->is_deflated = w->terms.is_deflate && (w->head[0] & FRAME_DEFLATED) &&
                     (w->opcode == FRAME_TEXT || w->opcode == FRAME_BINARY);
}

/* wslay gets the header of a deflated message as that of a plain binary one: it could be told to
 * let RSV1 pass, but would then look for UTF-8 in what is none. Wherever else that bit stands, it
 * is wslay's to refuse. */
static int eat_header(struct wsock *w, bool begins_deflated)
{
    unsigned char first = w->head[0];
    if (begins_deflated)
        w->head[0] = (unsigned char)((first & ~(FRAME_DEFLATED | OPCODE_BITS)) | FRAME_BINARY);
    int error = eat(w, w->head, w->head_len);
    w->head[0] = first; /* for wsock_save */
    w->head_len = 0;
    return error;
}

/* Of the payload as it comes. What it may inflate to is deflate_unpack's to see. */
static size_t limit_of(const struct wsock *w)
{
    size_t most = w->terms.max_message_bytes;
    return w->is_deflated ? deflate_bound(most) : most;
}

/* The head is whole. */
static int begin_frame(struct wsock *w)
{
    bool is_final = w->head[0] & IS_FINAL;
    bool is_control = head_is_control(w);
    bool begins = !is_control && !w->in_message;
    w->left = is_control ? 0 : payload_size(w);
    if (!is_control) {
        w->had_message = w->in_message;
        w->in_message = !is_final;
        w->size = w->left;
    }
    if (begins)
        begin_message(w);
    int error = eat_header(w, begins && w->is_deflated);
    /* wslay looks at single frames when it does not buffer, and at none before its first byte: what
     * makes it refuse a frame by its header is told by then, so that none of that is ever saved. */
    if (!w->is_done && !is_control && !(w->head[1] & IS_MASKED))
        fail(w, CLOSE_PROTOCOL);
    if (!w->is_done && w->left > limit_of(w) - w->message.len)
        fail(w, CLOSE_TOO_BIG);
    return error;
}

int wsock_feed(struct wsock_pool *p, struct wsock **handle, struct wsock_terms terms, void *data,
               const unsigned char *bytes, size_t len)
{
    int error = 0;
    if (!*handle && len > 0 && !(*handle = acquire(p)))
        return -ENOMEM;
    struct wsock *w = *handle;
    if (!w)
        return 0;
    w->data = data;
    w->terms = terms;
    while (len > 0 && error == 0 && !w->is_done) {
        size_t n;
        if (w->left > 0) {
            n = w->left < len ? (size_t)w->left : len;
            w->left -= n;
            error = eat(w, bytes, n);
        } else {
            n = head_size(w) - w->head_len;
            if (n > len)
                n = len;
            memcpy(w->head + w->head_len, bytes, n);
            w->head_len += n;
            if (w->head_len == head_size(w))
                error = begin_frame(w);
        }
        bytes += n;
        len -= n;
    }
    if (error == 0 && is_at_border(w)) {
        wsock_release(p, w);
        *handle = NULL;
    }
    return error;
}

/* ---- for another process ---- */

/* The payload goes under the key of the frame's own header, which the rest of it comes under. */
static void save_frame(const struct wsock *w, const char *payload, size_t len, struct text_buf *out)
{
    size_t head_len = 2;
    int len7 = w->head[1] & 0x7f;
    head_len += len7 == 126 ? 2 : len7 == 127 ? 8 : 0;
    text_add(out, (const char *)w->head, head_len + 4);
    for (size_t i = 0; i < len; i++)
        text_addc(out, (char)(payload[i] ^ w->head[head_len + i % 4]));
}

/* What earlier frames brought, as one: an unfinished message of their payload, under the key 0. */
static void save_earlier(const struct wsock *w, size_t len, struct text_buf *out)
{
    unsigned char head[FRAME_HEADER_MAX];
    size_t head_len = frame_header(head, w->opcode, false, len);
    if (w->is_deflated)
        head[0] |= FRAME_DEFLATED;
    head[1] |= IS_MASKED;
    text_add(out, (const char *)head, head_len);
    text_add(out, "\0\0\0\0", 4);
    if (len)
        text_add(out, w->message.data, len);
}

void wsock_save(const struct wsock *w, struct text_buf *out)
{
    if (!w || w->is_done)
        return;
    size_t done = w->left ? (size_t)(w->size - w->left) : 0;
    if (w->left ? w->had_message : w->in_message)
        save_earlier(w, w->message.len - done, out);
    if (w->left)
        save_frame(w, done ? w->message.data + w->message.len - done : NULL, done, out);
    else
        text_add(out, (const char *)w->head, w->head_len);
}
