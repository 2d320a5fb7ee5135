#include "config.h"

#include "workers/filter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/message.h"
#include "shared/pack.h"

struct filter_name {
    uint64_t hash; /* message_type_hash: without case */
    char *text;    /* as the client wrote it, for filter_json */
};

struct filter {
    bool is_list; /* else names are the excluded ones */
    uint32_t count;
    uint32_t cap;
    struct filter_name *names;
};

static int find(const struct filter *f, uint64_t hash)
{
    for (uint32_t i = 0; i < f->count; i++) {
        if (f->names[i].hash == hash)
            return (int)i;
    }
    return -1;
}

static void clear(struct filter *f)
{
    for (uint32_t i = 0; i < f->count; i++)
        free(f->names[i].text);
    f->count = 0;
}

static int add(struct filter *f, uint64_t hash, struct text_span type)
{
    if (find(f, hash) >= 0)
        return 0;
    if (f->count >= FILTER_MAX_TYPES)
        return -ENOSPC;
    if (f->count == f->cap) {
        uint32_t cap = f->cap ? f->cap * 2 : 4;
        struct filter_name *names = realloc(f->names, cap * sizeof(*names));
        if (!names)
            return -ENOMEM;
        f->names = names;
        f->cap = cap;
    }
    char *text = strndup(type.ptr, type.len);
    if (!text)
        return -ENOMEM;
    f->names[f->count++] = (struct filter_name){hash, text};
    return 0;
}

static int check_and_make(struct filter **f, struct text_span type)
{
    if (type.len == 0 || type.len > FILTER_MAX_NAME_BYTES || memchr(type.ptr, 0, type.len))
        return -EINVAL;
    if (!*f)
        *f = calloc(1, sizeof(**f));
    return *f ? 0 : -ENOMEM;
}

int filter_subscribe(struct filter **f, struct text_span type)
{
    bool is_new = !*f;
    int error = check_and_make(f, type);
    if (error)
        return error;
    uint64_t hash = message_type_hash(type.ptr, type.len);
    if ((*f)->is_list)
        return add(*f, hash, type);

    /* The first subscribe: what was excluded until now is forgotten, but only when the list could
     * be started. */
    struct filter list = {.is_list = true};
    error = add(&list, hash, type);
    if (error) {
        free(list.names);
        if (is_new) {
            filter_free(*f);
            *f = NULL;
        }
        return error;
    }
    clear(*f);
    free((*f)->names);
    **f = list;
    return 0;
}

int filter_unsubscribe(struct filter **f, struct text_span type)
{
    bool is_new = !*f;
    int error = check_and_make(f, type);
    if (error)
        return error;
    uint64_t hash = message_type_hash(type.ptr, type.len);
    if (!(*f)->is_list) {
        error = add(*f, hash, type);
        if (error && is_new) {
            filter_free(*f);
            *f = NULL;
        }
        return error;
    }
    int i = find(*f, hash);
    if (i >= 0) {
        free((*f)->names[i].text);
        (*f)->count--;
        memmove(&(*f)->names[i], &(*f)->names[i + 1],
                ((*f)->count - (uint32_t)i) * sizeof((*f)->names[0]));
    }
    return 0;
}

int filter_parse(struct filter **f, const char *value)
{
    while (*value) {
        size_t len = strcspn(value, ",");
        struct text_span name = {value, len};
        while (name.len && name.ptr[0] == ' ') {
            name.ptr++;
            name.len--;
        }
        while (name.len && name.ptr[name.len - 1] == ' ')
            name.len--;
        if (name.len) {
            int error = filter_subscribe(f, name);
            if (error)
                return error;
        }
        value += len + (value[len] == ',');
    }
    return 0;
}

bool filter_allows(const struct filter *f, uint64_t type_hash)
{
    return !f || (find(f, type_hash) >= 0) == f->is_list;
}

void filter_json(const struct filter *f, struct text_buf *out)
{
    text_addc(out, '[');
    for (uint32_t i = 0; f && f->is_list && i < f->count; i++) {
        if (i)
            text_addc(out, ',');
        text_add_json(out, f->names[i].text, strlen(f->names[i].text));
    }
    text_addc(out, ']');
}

void filter_describe(const struct filter *f, struct text_buf *out)
{
    size_t bytes = 0;
    uint32_t i = 0;
    if (!f || (!f->is_list && !f->count)) {
        text_adds(out, "null");
        return;
    }
    text_addf(out, "{\"%s\":[", f->is_list ? "only" : "except");
    for (; i < f->count; i++) {
        bytes += strlen(f->names[i].text);
        if (bytes > FILTER_DESCRIBED_BYTES)
            break;
        if (i)
            text_addc(out, ',');
        text_add_json(out, f->names[i].text, strlen(f->names[i].text));
    }
    text_addc(out, ']');
    if (i < f->count)
        text_addf(out, ",\"more\":%u", f->count - i);
    text_addc(out, '}');
}

int filter_copy(const struct filter *f, struct filter **copy)
{
    if (!f) {
        *copy = NULL;
        return 0;
    }
    struct filter *made = calloc(1, sizeof(*made));
    if (!made)
        return -ENOMEM;
    made->is_list = f->is_list;
    for (uint32_t i = 0; i < f->count; i++) {
        if (add(made, f->names[i].hash, text_span_of(f->names[i].text))) {
            filter_free(made);
            return -ENOMEM;
        }
    }
    *copy = made;
    return 0;
}

void filter_free(struct filter *f)
{
    if (!f)
        return;
    clear(f);
    free(f->names);
    free(f);
}

void filter_save(const struct filter *f, struct text_buf *out)
{
    if (!f)
        return;
    pack_u8(out, f->is_list);
    for (uint32_t i = 0; i < f->count; i++)
        pack_bytes(out, f->names[i].text, strlen(f->names[i].text));
}

int filter_restore(struct text_span saved, struct filter **out)
{
    struct unpack in = unpack_of(saved);
    *out = NULL;
    if (!saved.len)
        return 0;
    struct filter *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    int error = 0;
    f->is_list = unpack_u8(&in) != 0;
    while (!error && unpack_left(&in)) {
        struct text_span name = unpack_bytes(&in);
        error = in.is_bad || check_and_make(&f, name) < 0 ? -EBADMSG : 0;
        if (!error)
            error = add(f, message_type_hash(name.ptr, name.len), name);
    }
    if (error) {
        filter_free(f);
        return error == -ENOMEM ? error : -EBADMSG;
    }
    *out = f;
    return 0;
}
