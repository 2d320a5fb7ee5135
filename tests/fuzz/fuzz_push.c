/*
 * fuzz_push.c - what Redis pushes, read where it lies (workers/push.c), against hiredis' own
 * reader. The input is what comes over the link.
 *
 * Holds: a push that is read is what hiredis makes of the same bytes, all of them; of bytes cut
 * short nothing is read; all spans lie within the bytes.
 */
#include "config.h"

#include "tests/fuzz/fuzz.h"

#include <hiredis/hiredis.h>

#include "workers/push.h"

#define MAX_PAYLOAD 100

static bool is_string(const redisReply *r, struct text_span is)
{
    return r->type == REDIS_REPLY_STRING && fuzz_same((struct text_span){r->str, r->len}, is);
}

static void compare(const char *bytes, size_t len, const struct push *p)
{
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;
    FUZZ_CHECK(reader);
    FUZZ_CHECK(redisReaderFeed(reader, bytes, len) == REDIS_OK);
    FUZZ_CHECK(redisReaderGetReply(reader, &reply) == REDIS_OK && reply);
    const redisReply *r = reply;
    FUZZ_CHECK(r->type == REDIS_REPLY_ARRAY && r->elements == 3);
    FUZZ_CHECK(is_string(r->element[0], p->kind));
    FUZZ_CHECK(is_string(r->element[1], p->channel));
    if (p->is_number)
        FUZZ_CHECK(r->element[2]->type == REDIS_REPLY_INTEGER &&
                   r->element[2]->integer == p->number);
    else
        FUZZ_CHECK(is_string(r->element[2], p->payload));
    freeReplyObject(reply);
    FUZZ_CHECK(redisReaderGetReply(reader, &reply) == REDIS_OK && !reply);
    redisReaderFree(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *bytes = fuzz_copy((struct text_span){(const char *)data, size});
    struct push p, again;
    size_t at = 0;
    while (at < size && push_read(bytes + at, size - at, MAX_PAYLOAD, &p) == PUSH_WHOLE) {
        FUZZ_CHECK(p.size <= size - at && (p.is_number || p.payload.len <= MAX_PAYLOAD));
        compare(bytes + at, (size_t)p.size, &p);
        for (size_t cut = p.size > 20 ? (size_t)p.size - 20 : 0; cut < p.size; cut++)
            FUZZ_CHECK(push_read(bytes + at, cut, MAX_PAYLOAD, &again) == PUSH_CUT);
        at += (size_t)p.size;
    }
    if (push_read(bytes + at, size - at, MAX_PAYLOAD, &p) == PUSH_LARGE)
        FUZZ_CHECK(p.payload.len > MAX_PAYLOAD && p.size > p.payload.len);
    free(bytes);
    return 0;
}
