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
    size_t at = 0, used;
    while (at < size && (used = push_read(bytes + at, size - at, &p)) > 0) {
        FUZZ_CHECK(used <= size - at);
        compare(bytes + at, used, &p);
        for (size_t cut = used > 20 ? used - 20 : 0; cut < used; cut++)
            FUZZ_CHECK(push_read(bytes + at, cut, &again) == 0);
        at += used;
    }
    free(bytes);
    return 0;
}
