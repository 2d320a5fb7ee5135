/*
 * emit.c - see emit.h.
 */
#include "config.h"

#include "shared/emit.h"

#include <errno.h>
#include <string.h>

#include "shared/events.h"

enum { AT_LIST, AT_SNAPSHOT, AT_CHANNEL, AT_LIVE, AT_STORED, AT_NUMBERS };

static void add_arg(struct emit_command *c, const char *bytes, size_t len)
{
    c->argv[c->argc] = bytes ? bytes : "";
    c->argvlen[c->argc] = bytes ? len : 0;
    c->argc++;
}

static void add_text_arg(struct emit_command *c, const char *text)
{
    add_arg(c, text, strlen(text));
}

static void add_buf_arg(struct emit_command *c, int at)
{
    add_arg(c, c->storage[at].data, c->storage[at].len);
}

static int finish(const struct emit_command *c)
{
    for (size_t i = 0; i < sizeof c->storage / sizeof c->storage[0]; i++)
        if (c->storage[i].failed)
            return -ENOMEM;
    return 0;
}

static const char *written_type(const struct emit_rules *rules, const char *type, int event)
{
    if (event < 0)
        return type;
    return rules->style.lower_case ? events_table[event].lower : events_table[event].upper;
}

/* The live copy is the stored one with a last member, so both have one id and one timestamp. */
static void add_live(struct emit_command *c)
{
    struct text_buf *live = &c->storage[AT_LIVE], *stored = &c->storage[AT_STORED];
    const struct text_buf *channel = &c->storage[AT_CHANNEL];
    if (stored->len)
        text_add(live, stored->data, stored->len - 1);
    text_adds(live, ",\"channel\":");
    text_add_json(live, channel->data ? channel->data : "", channel->len);
    text_addc(live, '}');
}

static void add_numbers(struct emit_command *c, const struct emit_rules *rules)
{
    struct text_buf *numbers = &c->storage[AT_NUMBERS];
    int64_t ttl_s = rules->history_ttl_ms / 1000;
    text_addf(numbers, "%lld", (long long)(rules->history_size > 0 ? rules->history_size : 1));
    text_addc(numbers, '\0');
    size_t second = numbers->len;
    text_addf(numbers, "%lld", (long long)(ttl_s > 0 ? ttl_s : 1));
    if (numbers->failed) {
        add_text_arg(c, "1");
        add_text_arg(c, "1");
        return;
    }
    add_arg(c, numbers->data, second - 1);
    add_arg(c, numbers->data + second, numbers->len - second);
}

int emit_prepare_user(struct emit_command *c, const struct emit_rules *rules, const char *user_id,
                      const char *type, struct text_span payload, bool store)
{
    *c = (struct emit_command){.argc = 0};
    int event = events_find(type, strlen(type));
    enum event_store kind = event < 0 ? EVENT_STORE_LIST : events_table[event].store;
    if (!store)
        kind = EVENT_STORE_NONE;
    size_t user_id_len = strlen(user_id);
    keys_expand(&c->storage[AT_LIST], rules->keys->notifications, user_id, user_id_len);
    keys_expand(&c->storage[AT_SNAPSHOT], rules->keys->snapshot, user_id, user_id_len);
    keys_expand(&c->storage[AT_CHANNEL], rules->keys->user_channel, user_id, user_id_len);
    message_write(&c->storage[AT_STORED], &rules->style, NULL, written_type(rules, type, event),
                  user_id, payload, NULL, c->id);
    add_live(c);

    add_text_arg(c, "EVALSHA");
    add_text_arg(c, emit_script_sha);
    add_text_arg(c, "2");
    add_buf_arg(c, AT_LIST);
    add_buf_arg(c, AT_SNAPSHOT);
    add_buf_arg(c, AT_CHANNEL);
    add_buf_arg(c, AT_LIVE);
    if (kind == EVENT_STORE_LIST)
        add_buf_arg(c, AT_STORED);
    else
        add_text_arg(c, "");
    add_numbers(c, rules);
    const struct text_buf *stored = &c->storage[AT_STORED];
    size_t payload_len = payload.len ? payload.len : strlen("{}");
    if (kind == EVENT_STORE_SNAPSHOT && !stored->failed) /* it is the envelope's last member */
        add_arg(c, stored->data + stored->len - 1 - payload_len, payload_len);
    else
        add_text_arg(c, "");
    return finish(c);
}

int emit_prepare_broadcast(struct emit_command *c, const struct emit_rules *rules, const char *type,
                           struct text_span payload)
{
    *c = (struct emit_command){.argc = 0};
    int event = events_find(type, strlen(type));
    text_adds(&c->storage[AT_CHANNEL], rules->keys->broadcast_channel);
    message_write(&c->storage[AT_LIVE], &rules->style, NULL, written_type(rules, type, event),
                  "system", payload, rules->keys->broadcast_channel, c->id);
    add_text_arg(c, "PUBLISH");
    add_buf_arg(c, AT_CHANNEL);
    add_buf_arg(c, AT_LIVE);
    return finish(c);
}

void emit_use_eval(struct emit_command *c)
{
    if (c->argc < 2 || strcmp(c->argv[0], "EVALSHA") != 0)
        return;
    c->argv[0] = "EVAL";
    c->argvlen[0] = 4;
    c->argv[1] = emit_script;
    c->argvlen[1] = strlen(emit_script);
}

bool emit_is_noscript(const char *error)
{
    return error && strncmp(error, "NOSCRIPT", 8) == 0;
}

void emit_command_free(struct emit_command *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < sizeof c->storage / sizeof c->storage[0]; i++)
        text_buf_free(&c->storage[i]);
    *c = (struct emit_command){.argc = 0};
}
