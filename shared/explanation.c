#include "config.h"

#include "shared/explanation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/closes.h"
#include "shared/json.h"

#define LABEL_BYTES 11 /* of a line: a word and blanks */

/* ---- what the server tells ---- */

static long long number_of(struct text_span object, const char *name)
{
    int64_t n = 0;
    inquiry_number(object, name, INT64_MIN, INT64_MAX, &n);
    return n;
}

static bool is_true(struct text_span object, const char *name)
{
    struct text_span value;
    return json_find(object, name, &value) && text_span_eq(value, "true");
}

static void on_record(void *data, struct text_span value)
{
    struct explanation *q = data;
    if (q->fact_count == q->fact_cap) {
        size_t cap = q->fact_cap ? q->fact_cap * 2 : 256;
        struct verdict_fact *grown = realloc(q->facts, cap * sizeof(*grown));
        if (!grown)
            return;
        q->facts = grown;
        q->fact_cap = cap;
    }
    struct verdict_fact *f = &q->facts[q->fact_count];
    if (inquiry_read_record(value, &f->record) == 0 &&
        inquiry_read_instance(value, f->instance))
        q->fact_count++;
}

void explanation_take(struct explanation *q, struct text_span reply)
{
    struct text_span records;
    q->reply = reply;
    q->has_server = is_true(reply, "ok");
    if (!q->has_server) {
        if (inquiry_string(reply, "error", q->refusal, sizeof(q->refusal)) < 1)
            memcpy(q->refusal, "refused", sizeof("refused"));
    } else if (json_find(reply, "records", &records))
        json_scan_array(records.ptr, records.len, on_record, q);
}

int explanation_judge(struct explanation *q)
{
    const struct stored *s = &q->stored;
    q->now_us = clock_wall_us();
    if (verdict_read(q->facts, q->fact_count, q->has_stored ? s->timestamp_us : 0,
                     &q->verdict) != 0)
        return -ENOMEM;
    q->is_known = q->verdict.is_known ||
                  (q->has_stored && (s->position >= 0 || s->is_read || s->is_acked));
    return 0;
}

void explanation_fini(struct explanation *q)
{
    verdict_free(&q->verdict);
    free(q->facts);
    q->facts = NULL;
}

/* ---- the table ---- */

static void add_escaped(struct text_buf *b, const char *text)
{
    text_add_escaped(b, text, strlen(text), INQUIRY_ID_MAX_BYTES);
}

static bool has_come_from_list(const struct explanation *q)
{
    for (size_t i = 0; i < q->fact_count; i++)
        if (q->facts[i].record.trace.fate == TRACE_REPLAYED ||
            q->facts[i].record.trace.fate == TRACE_REPAIRED)
            return true;
    return false;
}

static const char *why_not_stored(const struct explanation *q)
{
    if (q->verdict.is_broadcast)
        return "no: broadcasts are not";
    if (has_come_from_list(q))
        return "not any more: trimmed or expired since it was sent from the list";
    if (!q->stored.count)
        return "no: the list is empty";
    if (q->verdict.first_us && q->stored.oldest_us && q->stored.oldest_us < q->verdict.first_us)
        return "no, though older messages are: it was only published, or taken out";
    return "no: trimmed, expired, or only published";
}

static void add_stored(const struct explanation *q, struct text_buf *b)
{
    const struct stored *s = &q->stored;
    text_adds(b, "stored     ");
    if (!q->has_stored) {
        text_adds(b, "not known: Redis could not be asked\n");
        return;
    }
    if (s->position < 0) {
        text_addf(b, "%s\n", why_not_stored(q));
    } else {
        text_addf(b, "at position %ld of %ld (0 is the newest): ", s->position, s->count);
        add_escaped(b, s->type[0] ? s->type : "no type");
        text_addf(b, ", %zu bytes, ", s->bytes);
        add_escaped(b, s->timestamp[0] ? s->timestamp : "no timestamp");
        text_adds(b, s->copies > 1 ? ", more than once\n" : "\n");
    }
    if (s->is_read || s->is_acked)
        text_addf(b, "marks      %s%s%s\n", s->is_read ? "read" : "",
                  s->is_read && s->is_acked ? ", " : "", s->is_acked ? "acknowledged" : "");
}

static void add_where(const struct verdict_fact *f, struct text_buf *b)
{
    size_t len = strlen(f->instance);
    text_addf(b, "worker %u of instance %s", f->record.slot,
              f->instance + (len > 8 ? len - 8 : 0));
}

static void add_seen(const struct explanation *q, const struct verdict_fact *f, struct text_buf *b)
{
    const struct trace_record *t = &f->record.trace;
    verdict_time(t->at_us, q->now_us, b);
    text_addc(b, ' ');
    add_where(f, b);
    if (t->fate == TRACE_DUPLICATE)
        text_adds(b, ": not relayed, it had come or was listed before\n");
    else
        text_addf(b, "%s, %u device%s\n", t->fate == TRACE_BROADCAST ? ", broadcast" : "",
                  t->detail, t->detail == 1 ? "" : "s");
}

static bool is_seen(const struct verdict_fact *f)
{
    return f->record.trace.fate == TRACE_RECEIVED || f->record.trace.fate == TRACE_BROADCAST ||
           f->record.trace.fate == TRACE_DUPLICATE;
}

static void add_published(const struct explanation *q, struct text_buf *b)
{
    const char *label = "published  ";
    for (size_t i = 0; i < q->fact_count; i++) {
        if (!is_seen(&q->facts[i]))
            continue;
        text_adds(b, label);
        add_seen(q, &q->facts[i], b);
        label = "           ";
    }
    if (*label == 'p' && q->has_server)
        text_addf(b, "%sno live copy was seen: not published, nobody was connected, or too long "
                     "ago\n", label);
}

static void add_devices(const struct explanation *q, struct text_buf *b)
{
    const struct verdict *v = &q->verdict;
    const char *label = "devices    ";
    char id[TRACE_CONNECTION_BYTES];
    for (size_t i = 0; i < v->count; i++) {
        const struct verdict_device *d = &v->devices[i];
        text_addf(b, "%s%s%s: ", label,
                  trace_connection(d->instance, d->serial, id),
                  d->is_open ? "" : " (gone)");
        verdict_sentence(v, d, q->now_us, b);
        text_addc(b, '\n');
        label = "           ";
    }
    if (!v->count && q->has_server && q->is_known)
        text_addf(b, "%snone was connected%s\n", label,
                  q->stored.position >= 0 ? "; it is in the list for those that come" : "");
}

static void add_silent(struct text_span workers, struct text_buf *b)
{
    if (number_of(workers, "answered") >= number_of(workers, "asked"))
        return;
    text_adds(b, "note       not every worker answered in time: slot");
    inquiry_add_silent(workers, b);
    text_addc(b, '\n');
}

/* What makes the answer less than whole. */
static void add_notes(const struct explanation *q, struct text_buf *b)
{
    struct text_span part;
    char text[EXPLANATION_TEXT_BYTES];
    if (!q->has_server) {
        text_addf(b, "note       the server could not be asked%s", q->refusal[0] ? ": " : "");
        add_escaped(b, q->refusal);
        text_addc(b, '\n');
        return;
    }
    if (!number_of(q->reply, "trace_size"))
        text_adds(b, "note       trace-size is 0 here: what happened is not recorded\n");
    if (is_true(q->reply, "cut"))
        text_adds(b, "note       there were more records than are shown\n");
    if (json_find(q->reply, "workers", &part))
        add_silent(part, b);
    if (!json_find(q->reply, "others", &part))
        return;
    if (inquiry_string(part, "error", text, sizeof(text)) > 0) {
        text_adds(b, "note       other instances could not be asked: ");
        add_escaped(b, text);
        text_addc(b, '\n');
    } else if (number_of(part, "answered") < number_of(part, "links"))
        text_addf(b, "note       %lld worker%s of other instances did not answer in time\n",
                  (number_of(part, "links") - number_of(part, "answered")),
                  number_of(part, "links") - number_of(part, "answered") == 1 ? "" : "s");
}

void explanation_table(const struct explanation *q, struct text_buf *b)
{
    text_adds(b, "message    ");
    add_escaped(b, q->id);
    text_adds(b, "\nuser       ");
    add_escaped(b, q->user);
    text_addc(b, '\n');
    add_stored(q, b);
    add_published(q, b);
    add_devices(q, b);
    add_notes(q, b);
}

/* ---- JSON ---- */

static void add_text(struct text_buf *b, const char *name, const char *value)
{
    text_addf(b, ",\"%s\":", name);
    text_add_json(b, value, strlen(value));
}

static void add_time(struct text_buf *b, const char *name, int64_t us)
{
    char text[CLOCK_ISO_BYTES];
    if (us) {
        clock_format_us(us, true, text);
        text_addf(b, ",\"%s\":\"%s\"", name, text);
    } else
        text_addf(b, ",\"%s\":null", name);
}

static const char *word_of(bool is_true)
{
    return is_true ? "true" : "false";
}

static void json_stored(const struct explanation *q, struct text_buf *b)
{
    const struct stored *s = &q->stored;
    if (!q->has_stored) {
        text_adds(b, ",\"stored\":null");
        return;
    }
    text_addf(b, ",\"stored\":{\"listed\":%s,\"position\":", word_of(s->position >= 0));
    if (s->position >= 0)
        text_addf(b, "%ld,\"bytes\":%zu", s->position, s->bytes);
    else
        text_adds(b, "null,\"bytes\":null");
    text_addf(b, ",\"count\":%ld,\"copies\":%ld,\"read\":%s,\"acked\":%s", s->count, s->copies,
              word_of(s->is_read), word_of(s->is_acked));
    add_text(b, "type", s->type);
    add_text(b, "timestamp", s->timestamp);
    text_addc(b, '}');
}

static void json_record(const struct verdict_fact *f, struct text_buf *b)
{
    const struct trace_record *t = &f->record.trace;
    char id[TRACE_CONNECTION_BYTES];
    text_addf(b, "{\"fate\":\"%s\"", trace_fate_word(t->fate));
    add_time(b, "at", t->at_us);
    add_text(b, "instance", f->instance);
    text_addf(b, ",\"worker\":%u", f->record.slot);
    if (t->serial)
        add_text(b, "connection", trace_connection(f->instance, t->serial, id));
    text_addf(b, ",\"detail\":%u,\"position\":%llu", t->detail, (unsigned long long)t->position);
    if (t->fate == TRACE_QUEUED || t->fate == TRACE_REPLAYED || t->fate == TRACE_REPAIRED) {
        add_text(b, "end", trace_end_word(t->end));
        add_time(b, "end_at", t->end_us);
    }
    text_addc(b, '}');
}

static void json_sent(const struct verdict_device *d, struct text_buf *b)
{
    static const char *const tcp[] = {"null", "false", "true"};
    const struct trace_record *t = d->sent ? &d->sent->record.trace : NULL;
    bool is_written = t && t->end == TRACE_END_WRITTEN;
    add_time(b, "queued_at", t ? t->at_us : 0);
    add_time(b, "sent_at", is_written ? t->end_us : 0);
    text_addf(b, ",\"source\":%s%s%s", t ? "\"" : "", t ? trace_fate_word(t->fate) : "null",
              t ? "\"" : "");
    text_addf(b, ",\"bytes\":%u,\"tcp_acknowledged\":%s,\"times_written\":%u", t ? t->detail : 0,
              tcp[d->tcp], d->times_written);
}

static void json_device(const struct explanation *q, const struct verdict_device *d,
                        struct text_buf *b)
{
    char id[TRACE_CONNECTION_BYTES];
    struct text_buf sentence = {0};
    text_addf(b, "{\"outcome\":\"%s\"", verdict_word(d->outcome));
    verdict_sentence(&q->verdict, d, q->now_us, &sentence);
    add_text(b, "verdict", sentence.data ? sentence.data : "");
    b->failed |= sentence.failed;
    text_buf_free(&sentence);
    add_text(b, "connection", trace_connection(d->instance, d->serial, id));
    add_text(b, "instance", d->instance);
    text_addf(b, ",\"worker\":%u,\"open\":%s", d->slot, word_of(d->is_open));
    add_time(b, "connected_at", d->opened_us);
    add_time(b, "closed_at", d->closed_us);
    if (d->closed_us && !d->has_died && d->close_reason < CLOSE_REASONS)
        add_text(b, "close", closes_table[d->close_reason].word);
    json_sent(d, b);
    add_time(b, "acked_at", d->acked_us);
    add_time(b, "read_at", d->read_us);
    text_addc(b, '}');
}

/* The server's words about how whole its answer is, as they came. */
static void json_server(const struct explanation *q, struct text_buf *b)
{
    static const char *const names[] = {"instance_id", "trace_size", "cut",
                                        "workers",     "others",     "instances"};
    if (!q->has_server) {
        text_adds(b, ",\"server\":null");
        return;
    }
    text_adds(b, ",\"server\":{\"asked\":true");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct text_span value;
        if (!json_find(q->reply, names[i], &value))
            continue;
        text_addf(b, ",\"%s\":", names[i]);
        text_add(b, value.ptr, value.len);
    }
    text_addc(b, '}');
}

static void json_records(const struct explanation *q, const char *name, bool only_seen,
                         struct text_buf *b)
{
    bool is_first = true;
    text_addf(b, ",\"%s\":[", name);
    for (size_t i = 0; i < q->fact_count; i++) {
        if (only_seen && !is_seen(&q->facts[i]))
            continue;
        if (!is_first)
            text_addc(b, ',');
        json_record(&q->facts[i], b);
        is_first = false;
    }
    text_addc(b, ']');
}

/* The table's lines, each with the word that stands before it or before the one above. */
static void json_lines(const struct explanation *q, struct text_buf *b)
{
    struct text_buf table = {0};
    struct text_span about = text_span_of("");
    explanation_table(q, &table);
    text_adds(b, ",\"lines\":[");
    for (char *at = table.data, *end; at && (end = strchr(at, '\n')); at = end + 1) {
        if (*at != ' ')
            about = (struct text_span){at, strcspn(at, " ")};
        text_adds(b, at == table.data ? "{\"about\":" : ",{\"about\":");
        text_add_json(b, about.ptr, about.len);
        text_adds(b, ",\"text\":");
        text_add_json(b, at + LABEL_BYTES, (size_t)(end - at) - LABEL_BYTES);
        text_addc(b, '}');
    }
    text_addc(b, ']');
    b->failed |= table.failed;
    text_buf_free(&table);
}

void explanation_json(const struct explanation *q, struct text_buf *b)
{
    text_addf(b, "\"known\":%s", word_of(q->is_known));
    add_text(b, "user", q->user);
    add_text(b, "id", q->id);
    json_lines(q, b);
    json_stored(q, b);
    json_records(q, "published", true, b);
    text_adds(b, ",\"devices\":[");
    for (size_t i = 0; i < q->verdict.count; i++) {
        if (i)
            text_addc(b, ',');
        json_device(q, &q->verdict.devices[i], b);
    }
    text_addc(b, ']');
    json_server(q, b);
    json_records(q, "records", false, b);
}
