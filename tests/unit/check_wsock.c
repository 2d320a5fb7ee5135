#include "config.h"

#include <check.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/text.h"
#include "workers/deflate.h"
#include "workers/frame.h"
#include "workers/wsock.h"

#define MAX_MESSAGE 100000

static struct wsock_terms terms;
static struct deflate *deflate;
static struct wsock_pool *pool;
static struct wsock *wsock;
static struct text_buf told; /* what the callbacks said, one word each */
static struct text_buf in;   /* bytes to feed */

/* ---- what comes out ---- */

static void tell_bytes(const char *word, const char *bytes, size_t len)
{
    text_addf(&told, "%s:", word);
    if (len > 40)
        text_addf(&told, "%zux%c", len, bytes[0]);
    else
        text_add(&told, bytes, len);
    text_addc(&told, ' ');
}

static void on_text(void *data, const char *text, size_t len)
{
    ck_assert_ptr_eq(data, &told);
    ck_assert(text_is_utf8(text, len));
    tell_bytes("text", text, len);
}

static void on_binary(void *data, const void *bytes, size_t len)
{
    (void)data;
    tell_bytes("binary", bytes, len);
}

static void on_pong(void *data)
{
    (void)data;
    text_adds(&told, "pong ");
}

static void on_close(void *data, int code)
{
    (void)data;
    text_addf(&told, "close:%d ", code);
}

static void on_send(void *data, const void *frame, size_t len)
{
    const unsigned char *bytes = frame;
    (void)data;
    ck_assert_uint_ge(len, 2);
    ck_assert_int_eq(bytes[0], 0x8a); /* nothing but pongs */
    ck_assert_uint_eq(bytes[1], len - 2);
    tell_bytes("send", (const char *)bytes + 2, len - 2);
}

static void on_error(void *data, enum close_reason reason)
{
    (void)data;
    text_adds(&told, reason == CLOSE_PROTOCOL ? "1002 " : reason == CLOSE_UTF8 ? "1007 "
                     : reason == CLOSE_TOO_BIG ? "1009 "
                     : reason == CLOSE_DEFLATE ? "1007-deflate " : "? ");
}

static bool is_refusing; /* whatever is whole */

static bool on_whole(void *data)
{
    (void)data;
    if (is_refusing)
        text_adds(&told, "refused ");
    return !is_refusing;
}

static const struct wsock_events events = {on_whole, on_text, on_binary, on_pong,
                                           on_close, on_send, on_error};

static void setup(void)
{
    terms = (struct wsock_terms){MAX_MESSAGE, false};
    is_refusing = false;
    deflate = deflate_new(0);
    pool = wsock_pool_new(deflate, &events);
    wsock = NULL;
}

static void teardown(void)
{
    wsock_release(pool, wsock);
    wsock_pool_free(pool);
    deflate_free(deflate);
    text_buf_free(&told);
    text_buf_free(&in);
}

/* ---- what goes in ---- */

/* Appends a masked frame. first: the first byte; len_form: 0 the shortest, 16, 64. */
static void add_frame_form(int first, const void *payload, size_t len, int len_form)
{
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    text_addc(&in, (char)first);
    if (len_form == 0)
        len_form = len < 126 ? 7 : len < 65536 ? 16 : 64;
    if (len_form == 7) {
        text_addc(&in, (char)(0x80 | len));
    } else {
        text_addc(&in, (char)(0x80 | (len_form == 16 ? 126 : 127)));
        for (int shift = len_form - 8; shift >= 0; shift -= 8)
            text_addc(&in, (char)((uint64_t)len >> shift));
    }
    text_add(&in, (const char *)mask, 4);
    for (size_t i = 0; i < len; i++)
        text_addc(&in, (char)(((const unsigned char *)payload)[i] ^ mask[i % 4]));
}

static void add_frame(int first, const char *payload)
{
    add_frame_form(first, payload, strlen(payload), 0);
}

static void add_close(int code, const char *reason)
{
    char payload[125];
    payload[0] = (char)(code >> 8);
    payload[1] = (char)code;
    size_t len = strlen(reason);
    memcpy(payload + 2, reason, len);
    add_frame_form(0x88, payload, len + 2, 0);
}

static void feed(const char *bytes, size_t len)
{
    ck_assert_int_eq(wsock_feed(pool, &wsock, terms, &told, (const unsigned char *)bytes, len), 0);
}

static void forget(void)
{
    text_buf_free(&told);
    wsock_release(pool, wsock);
    wsock = NULL;
}

/* Another process takes over: whatever is under way is saved, and fed to a new pool. */
static void move(void)
{
    struct text_buf saved = {0};
    size_t before = told.len;
    wsock_save(wsock, &saved);
    wsock_release(pool, wsock);
    wsock = NULL;
    wsock_pool_free(pool);
    pool = wsock_pool_new(deflate, &events);
    feed(saved.data, saved.len);
    ck_assert_uint_eq(told.len, before);
    text_buf_free(&saved);
}

static bool is_over(void)
{
    return told.data && (strstr(told.data, "close:") || strstr(told.data, "100"));
}

/* The same at every byte, and with a move of a move. */
static void expect_after_moves(const char *what)
{
    for (size_t cut = 0; cut < in.len && in.len < 1000; cut++) {
        feed(in.data, cut);
        if (!is_over()) {
            move();
            move();
        }
        feed(in.data + cut, in.len - cut);
        ck_assert_str_eq(told.data ? told.data : "", what);
        forget();
    }
    for (size_t i = 0; i < in.len && in.len < 1000; i++) {
        feed(in.data + i, 1);
        if (!is_over())
            move();
    }
    if (in.len < 1000)
        ck_assert_str_eq(told.data ? told.data : "", what);
    forget();
}

/* Feeds what was added whole, byte by byte and in every split in two; each must tell the same, also
 * when another process goes on in between. */
static void expect(const char *what)
{
    feed(in.data, in.len);
    ck_assert_str_eq(told.data ? told.data : "", what);
    forget();
    for (size_t i = 0; i < in.len; i++)
        feed(in.data + i, 1);
    ck_assert_str_eq(told.data ? told.data : "", what);
    forget();
    for (size_t cut = 1; cut < in.len && in.len < 1000; cut++) {
        feed(in.data, cut);
        feed(in.data + cut, in.len - cut);
        ck_assert_str_eq(told.data ? told.data : "", what);
        forget();
    }
    expect_after_moves(what);
    text_buf_free(&in);
}

/* ---- messages ---- */

START_TEST(messages_are_told_in_order)
{
    add_frame(0x81, "one");
    add_frame(0x82, "two");
    add_frame(0x81, "");
    add_frame(0x81, "drei \xe2\x82\xac \xf0\x9f\x98\x80");
    expect("text:one binary:two text: text:drei \xe2\x82\xac \xf0\x9f\x98\x80 ");
}
END_TEST

START_TEST(a_long_message_moves_at_any_place)
{
    static char text[70000];
    memset(text, 'x', sizeof(text));
    add_frame_form(0x01, text, 300, 0);
    add_frame_form(0x00, text, 66000, 0);
    add_frame(0x89, "ping");
    add_frame_form(0x80, text, 200, 0);
    for (size_t cut = 1; cut < in.len; cut += 977) {
        feed(in.data, cut);
        move();
        feed(in.data + cut, in.len - cut);
        ck_assert_str_eq(told.data, "send:ping text:66500xx ");
        forget();
    }
}
END_TEST

START_TEST(fragments_are_joined_with_control_frames_between)
{
    add_frame(0x01, "Hal");
    add_frame(0x89, "p1");
    add_frame(0x00, "");
    add_frame(0x8a, "unasked");
    add_frame(0x00, "lo ");
    add_frame(0x89, "");
    add_frame(0x80, "Welt");
    expect("send:p1 pong send: text:Hallo Welt ");
}
END_TEST

START_TEST(empty_fragments_make_an_empty_message)
{
    add_frame(0x01, "");
    add_frame(0x00, "");
    add_frame(0x80, "");
    add_frame(0x02, "");
    add_frame(0x80, "x");
    expect("text: binary:x ");
}
END_TEST

START_TEST(character_may_be_split_between_fragments)
{
    add_frame(0x01, "\xe2");
    add_frame(0x89, "p");
    add_frame(0x00, "\x82");
    add_frame(0x80, "\xac");
    expect("send:p text:\xe2\x82\xac ");
}
END_TEST

START_TEST(every_length_form_is_read)
{
    /* Short ones stand in other tests. */
    static const size_t lengths[] = {125, 126, 127, 4095, 4096, 4097, 65535, 65536, MAX_MESSAGE};
    static char payload[MAX_MESSAGE];
    memset(payload, 'y', sizeof payload);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char what[40];
        snprintf(what, sizeof what, "text:%zuxy ", lengths[i]);
        add_frame_form(0x81, payload, lengths[i], 0);
        expect(what);
    }
}
END_TEST

START_TEST(ping_of_full_size_comes_back)
{
    char payload[126];
    memset(payload, 'p', 125);
    payload[125] = 0;
    add_frame(0x89, payload);
    expect("send:125xp ");
}
END_TEST

/* ---- refusals ---- */

START_TEST(frame_without_a_mask_is_a_protocol_error)
{
    text_add(&in, "\x81\x02hi", 4);
    expect("1002 ");
}
END_TEST

START_TEST(empty_frame_without_a_mask_is_a_protocol_error)
{
    text_add(&in, "\x81\x00", 2);
    expect("1002 ");
}
END_TEST

START_TEST(reserved_bits_are_protocol_errors)
{
    for (int bits = 1; bits < 8; bits++) {
        add_frame(0x81 | bits << 4, "x");
        expect("1002 ");
        add_frame(0x89 | bits << 4, "x");
        expect("1002 ");
    }
}
END_TEST

START_TEST(reserved_opcodes_are_protocol_errors)
{
    static const int opcodes[] = {3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf};
    for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; i++) {
        add_frame(0x80 | opcodes[i], "");
        expect("1002 ");
        add_frame(0x80 | opcodes[i], "x");
        expect("1002 ");
    }
}
END_TEST

START_TEST(continuation_of_nothing_is_a_protocol_error)
{
    add_frame(0x80, "x");
    expect("1002 ");
    add_frame(0x81, "whole");
    add_frame(0x00, "x");
    expect("text:whole 1002 ");
}
END_TEST

START_TEST(new_message_inside_a_fragmented_one_is_a_protocol_error)
{
    add_frame(0x01, "a");
    add_frame(0x81, "b");
    expect("1002 ");
}
END_TEST

START_TEST(control_frames_must_be_short_and_whole)
{
    char payload[127];
    memset(payload, 'p', 126);
    payload[126] = 0;
    add_frame(0x89, payload);
    expect("1002 ");
    add_frame(0x09, "p");
    expect("1002 ");
    add_frame_form(0x89, "pp", 2, 16);
    expect("1002 ");
    add_frame_form(0x88, "pp", 2, 64);
    expect("1002 ");
}
END_TEST

START_TEST(length_must_be_in_its_shortest_form)
{
    add_frame_form(0x81, "short", 5, 16);
    expect("1002 ");
    add_frame_form(0x81, "short", 5, 64);
    expect("1002 ");
    text_add(&in, "\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00x", 15);
    expect("1002 ");
}
END_TEST

START_TEST(bad_utf8_is_refused_wherever_it_is_cut)
{
    static const char *const bad[] = {"\xff", "a\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "cut \xe2\x82", "\xe2\x28\xa1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        add_frame(0x81, bad[i]);
        expect("1007 ");
        add_frame(0x01, "ok ");
        add_frame(0x80, bad[i]);
        expect("1007 ");
    }
}
END_TEST

START_TEST(binary_need_not_be_utf8)
{
    add_frame(0x82, "\xff\xfe");
    expect("binary:\xff\xfe ");
}
END_TEST

START_TEST(too_big_a_message_is_refused_before_it_is_collected)
{
    enum { HEADER = 2 + 8 + 4 }; /* eight more bytes of length, and the mask */
    static char payload[MAX_MESSAGE + 1];
    memset(payload, 'y', sizeof payload);
    add_frame_form(0x81, payload, MAX_MESSAGE + 1, 0);
    feed(in.data, HEADER);
    ck_assert_str_eq(told.data, "1009 ");
    feed(in.data + HEADER, in.len - HEADER); /* the rest is ignored */
    ck_assert_str_eq(told.data, "1009 ");
}
END_TEST

START_TEST(fragments_together_may_not_be_too_big)
{
    static char payload[MAX_MESSAGE];
    memset(payload, 'y', sizeof payload);
    add_frame_form(0x01, payload, MAX_MESSAGE, 0);
    add_frame(0x89, "still");
    add_frame(0x80, "z");
    expect("send:still 1009 ");
}
END_TEST

/* ---- deflated: RFC 7692, section 7.2.3, and what must not pass ---- */

/* "Hello" as its examples have it. */
#define HELLO "\xf2\x48\xcd\xc9\xc9\x07\x00"

/* Appends a message in so many frames, deflated. */
static void add_deflated(int opcode, const void *message, size_t len, size_t frames)
{
    unsigned char packed[3000];
    ssize_t n = deflate_pack(deflate, 15, message, len, packed, sizeof packed);
    ck_assert_int_gt(n, 0);
    for (size_t i = 0; i < frames; i++) {
        size_t from = (size_t)n * i / frames, to = (size_t)n * (i + 1) / frames;
        int first = (i ? 0 : opcode | 0x40) | (i + 1 == frames ? 0x80 : 0);
        add_frame_form(first, packed + from, to - from, 0);
    }
}

START_TEST(deflated_messages_are_inflated)
{
    terms.is_deflate = true;
    add_frame_form(0xc1, HELLO, 7, 0);
    add_frame_form(0xc2, HELLO, 7, 0);
    add_frame(0x81, "plain");
    add_frame_form(0xc1, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", 11, 0); /* stored */
    add_frame_form(0xc1, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", 8, 0); /* a last block */
    add_frame_form(0xc1, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", 13, 0);
    add_frame_form(0xc1, "\x00", 1, 0);
    add_frame_form(0xc1, "", 0, 0);
    expect("text:Hello binary:Hello text:plain text:Hello text:Hello text:Hello text: text: ");
}
END_TEST

START_TEST(deflated_fragments_are_joined_with_control_frames_between)
{
    char text[2000];
    terms.is_deflate = true;
    memset(text, 'x', sizeof text);
    add_frame_form(0x41, HELLO, 3, 0);
    add_frame(0x89, "ping");
    add_frame_form(0x00, "", 0, 0);
    add_frame_form(0x80, HELLO + 3, 4, 0);
    add_deflated(FRAME_TEXT, text, sizeof text, 4);
    add_deflated(FRAME_BINARY, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 2);
    expect("send:ping text:Hello text:2000xx binary:\xff\xff\xff\xff\xff\xff\xff\xff ");
}
END_TEST

START_TEST(a_bit_of_an_extension_not_agreed_on_is_a_protocol_error)
{
    add_frame_form(0xc1, HELLO, 7, 0);
    expect("1002 ");
}
END_TEST

START_TEST(only_the_first_frame_of_a_message_tells_that_it_is_deflated)
{
    terms.is_deflate = true;
    add_frame_form(0x41, HELLO, 3, 0);
    add_frame_form(0xc0, HELLO + 3, 4, 0);
    expect("1002 ");
    add_frame_form(0x01, "Hel", 3, 0);
    add_frame_form(0xc0, "lo", 2, 0);
    expect("1002 ");
    add_frame_form(0x41, HELLO, 3, 0);
    add_frame_form(0xc1, HELLO, 7, 0);
    expect("1002 ");
    for (int opcode = 8; opcode <= 10; opcode++) {
        add_frame_form(0xc0 | opcode, "", 0, 0);
        expect("1002 ");
    }
}
END_TEST

START_TEST(other_reserved_bits_and_opcodes_stay_protocol_errors)
{
    terms.is_deflate = true;
    for (int bits = 1; bits < 8; bits++) {
        if (bits == 4)
            continue;
        add_frame_form(0x81 | bits << 4, HELLO, 7, 0);
        expect("1002 ");
    }
    add_frame_form(0xc3, HELLO, 7, 0);
    expect("1002 ");
    add_frame_form(0xc0, HELLO, 7, 0);
    expect("1002 ");
}
END_TEST

START_TEST(what_does_not_inflate_is_refused)
{
    terms.is_deflate = true;
    add_frame_form(0xc1, "\xff\xff\xff", 3, 0); /* a block of no type */
    expect("1007-deflate ");
    add_frame_form(0xc1, HELLO, 4, 0); /* cut off */
    expect("1007-deflate ");
    add_frame_form(0xc1, "plain text", 10, 0);
    expect("1007-deflate ");
    /* A distance into the message before, whose window nobody kept. */
    add_frame_form(0xc1, HELLO, 7, 0);
    add_frame_form(0xc1, "\xf2\x00\x11\x00\x00", 5, 0);
    expect("text:Hello 1007-deflate ");
}
END_TEST

START_TEST(inflated_text_must_be_utf8)
{
    terms.is_deflate = true;
    add_deflated(FRAME_TEXT, "good \xe2\x82\xac", 8, 2);
    add_deflated(FRAME_TEXT, "cut \xe2\x82", 6, 1);
    expect("text:good \xe2\x82\xac 1007 ");
}
END_TEST

START_TEST(a_bomb_is_refused_as_too_big)
{
    static char same[MAX_MESSAGE + 1];
    memset(same, 'z', sizeof same);
    terms.is_deflate = true;
    add_deflated(FRAME_BINARY, same, MAX_MESSAGE, 3);
    add_deflated(FRAME_BINARY, same, MAX_MESSAGE + 1, 3);
    expect("binary:100000xz 1009 ");
}
END_TEST

START_TEST(a_refused_message_is_not_inflated_and_the_next_one_is_a_new_one)
{
    terms.is_deflate = true;
    is_refusing = true;
    add_frame_form(0xc1, "no such thing", 13, 0);
    add_frame_form(0x41, HELLO, 3, 0);
    add_frame_form(0x80, HELLO + 3, 4, 0);
    add_frame(0x82, "plain");
    add_frame(0x89, "ping");
    expect("refused refused refused send:ping ");
}
END_TEST

START_TEST(deflated_bytes_are_bounded_before_they_are_inflated)
{
    static char payload[2 * MAX_MESSAGE];
    terms.is_deflate = true;
    add_frame_form(0x42, payload, MAX_MESSAGE, 0);
    add_frame_form(0x80, payload, MAX_MESSAGE, 0);
    size_t header = in.len - MAX_MESSAGE;
    feed(in.data, header);
    ck_assert_str_eq(told.data, "1009 ");
}
END_TEST

/* ---- the closing handshake ---- */

START_TEST(close_tells_the_code_and_ends_listening)
{
    add_close(1000, "bye");
    add_frame(0x81, "too late");
    expect("close:1000 ");
    add_frame(0x88, "");
    expect("close:1005 ");
    add_close(1001, "");
    expect("close:1001 ");
}
END_TEST

START_TEST(close_may_come_between_fragments)
{
    add_frame(0x01, "a");
    add_close(1000, "");
    expect("close:1000 ");
}
END_TEST

START_TEST(close_codes_are_those_of_the_registry)
{
    static const int good[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013,
                               1014, 3000, 3999, 4000, 4999};
    static const int bad[] = {0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char what[20];
        snprintf(what, sizeof what, "close:%d ", good[i]);
        add_close(good[i], "reason \xe2\x82\xac");
        expect(what);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        add_close(bad[i], "reason");
        expect("1002 ");
    }
}
END_TEST

START_TEST(half_a_close_code_is_a_protocol_error)
{
    add_frame(0x88, "\x03");
    expect("1002 ");
}
END_TEST

START_TEST(close_reason_must_be_utf8)
{
    add_close(1000, "bad \xff");
    expect("1007 ");
    add_close(1012, "cut \xe2\x82");
    expect("1007 ");
}
END_TEST

/* ---- the pool ---- */

START_TEST(context_goes_back_at_a_message_border_only)
{
    add_frame(0x01, "first");
    size_t fragment = in.len;
    add_frame(0x80, "last");
    for (size_t i = 0; i < in.len; i++) {
        ck_assert((wsock == NULL) == (i == 0));
        feed(in.data + i, 1);
        if (i + 1 == fragment)
            ck_assert_ptr_nonnull(wsock);
    }
    ck_assert_ptr_null(wsock);
    ck_assert_uint_eq(wsock_pool_idle(pool), 1);
}
END_TEST

START_TEST(pooled_context_serves_another_connection_as_if_new)
{
    static char big[70000];
    memset(big, 'y', sizeof big);
    struct wsock *other = NULL;
    add_frame(0x01, "a \xe2");
    add_frame(0x00, "\x82");
    add_frame(0x80, "\xac b");
    add_frame_form(0x81, big, sizeof big, 0);
    for (int round = 0; round < 3; round++) {
        for (size_t at = 0; at < in.len; at += 1000) {
            size_t n = in.len - at < 1000 ? in.len - at : 1000;
            feed(in.data + at, n);
            ck_assert_int_eq(
                wsock_feed(pool, &other, terms, &told, (const unsigned char *)in.data + at, n), 0);
        }
        ck_assert_ptr_null(wsock);
        ck_assert_ptr_null(other);
        ck_assert_uint_eq(wsock_pool_idle(pool), 2);
        ck_assert_str_eq(told.data, "text:a \xe2\x82\xac b text:a \xe2\x82\xac b "
                                    "text:70000xy text:70000xy ");
        text_buf_free(&told);
    }
}
END_TEST

START_TEST(failed_context_is_not_pooled)
{
    add_frame(0x83, "x");
    feed(in.data, in.len);
    ck_assert_ptr_nonnull(wsock);
    forget();
    ck_assert_uint_eq(wsock_pool_idle(pool), 0);
    text_buf_free(&in);
    add_frame(0x81, "next");
    expect("text:next ");
}
END_TEST

START_TEST(nothing_to_feed_takes_nothing_from_the_pool)
{
    feed("", 0);
    ck_assert_ptr_null(wsock);
    wsock_release(pool, NULL);
    wsock_pool_free(NULL);
}
END_TEST

START_TEST(any_bytes_are_survived)
{
    srandom(3);
    for (int round = 0; round < 20000; round++) {
        char bytes[64];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (char)random();
        if (round % 2)
            bytes[0] = (char)(0x80 | random() % 11);
        if (round % 3)
            bytes[1] = (char)(0x80 | random() % 40);
        terms.is_deflate = round % 5;
        if (round % 5 == 1)
            bytes[0] |= 0x40;
        feed(bytes, sizeof bytes);
        forget();
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wsock");
    TCase *tc = tcase_create("wsock");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_long_message_moves_at_any_place);
    tcase_add_test(tc, messages_are_told_in_order);
    tcase_add_test(tc, fragments_are_joined_with_control_frames_between);
    tcase_add_test(tc, empty_fragments_make_an_empty_message);
    tcase_add_test(tc, character_may_be_split_between_fragments);
    tcase_add_test(tc, every_length_form_is_read);
    tcase_add_test(tc, ping_of_full_size_comes_back);
    tcase_add_test(tc, frame_without_a_mask_is_a_protocol_error);
    tcase_add_test(tc, empty_frame_without_a_mask_is_a_protocol_error);
    tcase_add_test(tc, reserved_bits_are_protocol_errors);
    tcase_add_test(tc, reserved_opcodes_are_protocol_errors);
    tcase_add_test(tc, continuation_of_nothing_is_a_protocol_error);
    tcase_add_test(tc, new_message_inside_a_fragmented_one_is_a_protocol_error);
    tcase_add_test(tc, control_frames_must_be_short_and_whole);
    tcase_add_test(tc, length_must_be_in_its_shortest_form);
    tcase_add_test(tc, bad_utf8_is_refused_wherever_it_is_cut);
    tcase_add_test(tc, binary_need_not_be_utf8);
    tcase_add_test(tc, too_big_a_message_is_refused_before_it_is_collected);
    tcase_add_test(tc, fragments_together_may_not_be_too_big);
    tcase_add_test(tc, deflated_messages_are_inflated);
    tcase_add_test(tc, deflated_fragments_are_joined_with_control_frames_between);
    tcase_add_test(tc, a_bit_of_an_extension_not_agreed_on_is_a_protocol_error);
    tcase_add_test(tc, only_the_first_frame_of_a_message_tells_that_it_is_deflated);
    tcase_add_test(tc, other_reserved_bits_and_opcodes_stay_protocol_errors);
    tcase_add_test(tc, what_does_not_inflate_is_refused);
    tcase_add_test(tc, inflated_text_must_be_utf8);
    tcase_add_test(tc, a_bomb_is_refused_as_too_big);
    tcase_add_test(tc, a_refused_message_is_not_inflated_and_the_next_one_is_a_new_one);
    tcase_add_test(tc, deflated_bytes_are_bounded_before_they_are_inflated);
    tcase_add_test(tc, close_tells_the_code_and_ends_listening);
    tcase_add_test(tc, close_may_come_between_fragments);
    tcase_add_test(tc, close_codes_are_those_of_the_registry);
    tcase_add_test(tc, half_a_close_code_is_a_protocol_error);
    tcase_add_test(tc, close_reason_must_be_utf8);
    tcase_add_test(tc, context_goes_back_at_a_message_border_only);
    tcase_add_test(tc, pooled_context_serves_another_connection_as_if_new);
    tcase_add_test(tc, failed_context_is_not_pooled);
    tcase_add_test(tc, nothing_to_feed_takes_nothing_from_the_pool);
    tcase_add_test(tc, any_bytes_are_survived);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
