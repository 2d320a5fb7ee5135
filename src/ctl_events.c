/*
 * ctl_events.c - belfryctl events: the event table for people; and payloads made up from it.
 */
#include "config.h"

#include "src/ctl.h"

#include <string.h>

#include "shared/clock.h"
#include "shared/uuid7.h"

bool ctl_field_next(const char **fields, struct ctl_field *out)
{
    const char *p = *fields + strspn(*fields, " ");
    size_t len = strcspn(p, " ");
    if (len == 0)
        return false;
    *fields = p + len;
    size_t name = strcspn(p, "?: ");
    out->name = (struct text_span){p, name};
    out->is_optional = p[name] == '?';
    out->kind = p[len - 1];
    return true;
}

const char *ctl_field_kind(char kind)
{
    switch (kind) {
    case 's': return "text";
    case 'i': return "whole number";
    case 'n': return "number";
    case 'b': return "true or false";
    case 'o': return "object";
    case 'a': return "array";
    case 't': return "ISO 8601 time";
    case 'p': return "low, medium, high or critical";
    case 'k': return "success, error, warning or info";
    default: return "anything";
    }
}

/* Values of made-up payloads, so that they look like something on a front end's screen. The first
 * row that fits counts; group NULL fits all. @id, @now, @today are filled in. */
static const struct {
    const char *group;
    const char *name;
    const char *json;
} samples[] = {
    {"transaction", "amount_cents", "-1250"},
    {"transaction", "description", "\"Coffee at the corner\""},
    {"transaction", "transaction_count", "42"},
    {NULL, "merchant", "\"Corner Coffee\""},
    {NULL, "category_id", "\"cat-eating-out\""},
    {NULL, "category_name", "\"Eating out\""},
    {NULL, "category_emoji", "\"\\u2615\""},
    {NULL, "category", "\"Eating out\""},
    {NULL, "account_id", "\"acc-checking\""},
    {NULL, "account_name", "\"Checking\""},
    {NULL, "is_income", "false"},
    {NULL, "budget_id", "\"budget-eating-out\""},
    {NULL, "budget_name", "\"Eating out\""},
    {"budget", "amount_cents", "20000"},
    {"budget", "spent_cents", "18400"},
    {"budget", "remaining_cents", "1600"},
    {NULL, "percentage_used", "92"},
    {"budget", "alert_type", "\"threshold\""},
    {"budget", "priority", "\"high\""},
    {"budget", "message", "\"92 % of this month's budget for eating out is used\""},
    {NULL, "period", "\"monthly\""},
    {NULL, "goal_id", "\"goal-bicycle\""},
    {NULL, "goal_name", "\"A new bicycle\""},
    {NULL, "target_amount_cents", "100000"},
    {NULL, "current_amount_cents", "60000"},
    {"goal", "remaining_cents", "40000"},
    {NULL, "progress_percentage", "60"},
    {NULL, "is_achieved", "false"},
    {NULL, "achieved_amount_cents", "100000"},
    {NULL, "celebration_message", "\"You made it: the bicycle is yours\""},
    {NULL, "transactions_added", "3"},
    {NULL, "new_balance_cents", "123400"},
    {NULL, "old_balance_cents", "124650"},
    {NULL, "change_cents", "-1250"},
    {NULL, "sync_duration_ms", "812"},
    {NULL, "error_message", "\"The bank asks for a new login\""},
    {NULL, "error_code", "\"ITEM_LOGIN_REQUIRED\""},
    {"insight", "title", "\"Coffee adds up\""},
    {"insight", "description", "\"Four coffees a week cost as much as a train ticket\""},
    {NULL, "insight_type", "\"spending\""},
    {NULL, "data", "{\"weekly_cents\":5000}"},
    {NULL, "confidence_score", "0.87"},
    {NULL, "confidence", "0.87"},
    {NULL, "action_items", "[\"Set a budget for coffee\"]"},
    {NULL, "pattern_type", "\"recurring\""},
    {"insight", "amount_cents", "5000"},
    {NULL, "frequency", "\"weekly\""},
    {NULL, "suggestion", "\"Set a budget for coffee\""},
    {NULL, "total_balance", "1234.00"},
    {NULL, "monthly_spending", "812.50"},
    {NULL, "monthly_income", "2400.00"},
    {NULL, "budget_utilization", "0.92"},
    {NULL, "active_goals", "1"},
    {NULL, "recent_transactions", "[{\"id\":\"tx-1\",\"amount_cents\":-1250}]"},
    {NULL, "account_summary", "{\"checking\":1234.00}"},
    {NULL, "spending_by_category", "[{\"category\":\"Eating out\",\"amount_cents\":18400}]"},
    {"system", "title", "\"Welcome\""},
    {"system", "alert_type", "\"maintenance\""},
    {"system", "message", "\"This is a sample\""},
    {NULL, "notification_type", "\"info\""},
    {NULL, "action_url", "\"/budgets\""},
    {NULL, "metadata", "{\"sample\":true}"},
    {NULL, "read", "false"},
    {NULL, "id", "@id"},
    {NULL, "insight_id", "@id"},
    {NULL, "transaction_date", "@today"},
    {NULL, "target_date", "@today"},
    {NULL, "achievement_date", "@today"},
};

/* For fields of a new row that nobody has put above. */
static const char *sample_of_kind(const struct ctl_field *f)
{
    bool is_time = f->name.len > 3 && memcmp(f->name.ptr + f->name.len - 3, "_at", 3) == 0;
    switch (f->kind) {
    case 's': return is_time ? "@now" : "\"sample\"";
    case 't': return "@now";
    case 'i':
    case 'n': return "1";
    case 'b': return "true";
    case 'o': return "{}";
    case 'a': return "[]";
    case 'p': return "\"medium\"";
    case 'k': return "\"info\"";
    default: return "null";
    }
}

static const char *sample_value(const char *group, const struct ctl_field *f)
{
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
        if (text_span_eq(f->name, samples[i].name) &&
            (!samples[i].group || strcmp(samples[i].group, group) == 0))
            return samples[i].json;
    return sample_of_kind(f);
}

void ctl_sample(int event, struct text_buf *out)
{
    const struct event_row *row = &events_table[event];
    const char *fields = row->fields;
    char now[CLOCK_ISO_BYTES], id[UUID7_TEXT_BYTES];
    struct ctl_field f;
    clock_format_us(clock_wall_us(), true, now);
    uuid7_make(id);
    text_addc(out, '{');
    for (bool first = true; ctl_field_next(&fields, &f); first = false) {
        const char *value = sample_value(row->group, &f);
        if (!first)
            text_addc(out, ',');
        text_add_json(out, f.name.ptr, f.name.len);
        text_addc(out, ':');
        if (strcmp(value, "@id") == 0)
            text_add_json(out, id, strlen(id));
        else if (strcmp(value, "@now") == 0)
            text_add_json(out, now, strlen(now));
        else if (strcmp(value, "@today") == 0)
            text_add_json(out, now, 10);
        else
            text_adds(out, value);
    }
    text_addc(out, '}');
}

static const char *store_word(enum event_store store)
{
    switch (store) {
    case EVENT_STORE_LIST: return "list";
    case EVENT_STORE_SNAPSHOT: return "snapshot";
    case EVENT_STORE_NONE: break;
    }
    return "no";
}

static void print_json(const struct event_row *row, struct text_buf *b)
{
    const char *fields = row->fields;
    struct ctl_field f;
    text_addf(b, "{\"type\":\"%s\",\"group\":\"%s\",\"stored\":\"%s\",\"conflates_by\":",
              row->upper, row->group, store_word(row->store));
    if (row->conflate[0])
        text_add_json(b, row->conflate, strlen(row->conflate));
    else
        text_adds(b, "null");
    text_adds(b, ",\"fields\":[");
    for (bool first = true; ctl_field_next(&fields, &f); first = false)
        text_addf(b, "%s{\"name\":\"%.*s\",\"required\":%s,\"kind\":\"%s\"}", first ? "" : ",",
                  (int)f.name.len, f.name.ptr, f.is_optional ? "false" : "true",
                  ctl_field_kind(f.kind));
    text_adds(b, "]}\n");
}

/* Fields in lines below the type, as many to a line as fit. */
static void print_fields(const struct event_row *row, struct text_buf *b)
{
    const char *fields = row->fields;
    struct ctl_field f;
    size_t column = 0;
    while (ctl_field_next(&fields, &f)) {
        size_t width = f.name.len + (f.is_optional ? 2 : 1);
        if (column == 0 || column + width > 76) {
            text_adds(b, column == 0 ? "   " : "\n   ");
            column = 3;
        }
        text_addf(b, " %.*s%s", (int)f.name.len, f.name.ptr, f.is_optional ? "?" : "");
        column += width;
    }
    if (column > 0)
        text_addc(b, '\n');
}

/* One type with everything about its fields. */
static void print_one(const struct event_row *row, struct text_buf *b)
{
    const char *fields = row->fields;
    struct ctl_field f;
    text_addf(b, "%s: group %s, stored: %s, conflates: %s\n", row->upper, row->group,
              store_word(row->store),
              row->conflate[0] == '*' ? "all" : row->conflate[0] ? row->conflate : "never");
    while (ctl_field_next(&fields, &f))
        text_addf(b, "  %-24.*s %s%s\n", (int)f.name.len, f.name.ptr, ctl_field_kind(f.kind),
                  f.is_optional ? ", optional" : "");
}

static void print_table(struct text_buf *b)
{
    text_addf(b, "%-28s %-12s %-9s %s\n", "TYPE", "GROUP", "STORED", "CONFLATES BY");
    for (int i = 0; i < EVENT_TYPES; i++) {
        const struct event_row *row = &events_table[i];
        text_addf(b, "%-28s %-12s %-9s %s\n", row->upper, row->group, store_word(row->store),
                  row->conflate[0] == '*' ? "type" : row->conflate[0] ? row->conflate : "-");
        print_fields(row, b);
    }
}

int ctl_events(struct ctl *c)
{
    struct text_buf b = {0};
    int only = -1;
    if (c->words.count > 0) {
        const char *name = c->words.items[0];
        only = events_find(name, strlen(name));
        if (only < 0) {
            const char *near = events_nearest(name);
            ctl_say("%s: no such type in the event table%s%s%s", name,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
            return CTL_USAGE;
        }
    }
    if (!ctl_flag(c, "names") && !ctl_flag(c, "json")) {
        if (only >= 0)
            print_one(&events_table[only], &b);
        else
            print_table(&b);
        return ctl_print(&b);
    }
    for (int i = 0; i < EVENT_TYPES; i++) {
        if (only >= 0 && i != only)
            continue;
        if (ctl_flag(c, "json"))
            print_json(&events_table[i], &b);
        else
            text_addf(&b, "%s\n", events_table[i].upper);
    }
    return ctl_print(&b);
}
