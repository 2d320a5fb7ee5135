#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shared/counters.h"
#include "shared/segment.h"
#include "shared/trace.h"
#include "shared/usertable.h"

START_TEST(what_one_process_writes_another_that_maps_it_reads)
{
    void *at, *other;
    size_t bytes;
    int fd;
    ck_assert_int_eq(segment_create("check", 10000, &at, &fd), 0);
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    ck_assert_int_eq(segment_map(fd, 10000, &other, &bytes), 0);
    ck_assert_uint_eq(bytes, 10000);
    ck_assert_ptr_ne(at, other);
    memcpy(at, "word", 5);
    ck_assert_str_eq(other, "word");
    ck_assert_int_lt(ftruncate(fd, 1), 0); /* would make every access to the rest fail */
    segment_free(other, bytes, -1);
    segment_free(at, 10000, fd);
    segment_free(NULL, 0, -1);
}
END_TEST

START_TEST(what_is_no_sealed_segment_or_too_small_is_refused)
{
    void *at;
    size_t bytes;
    int fd, p[2];
    int loose = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(loose, 10000), 0);
    ck_assert_int_eq(segment_map(loose, 10000, &at, &bytes), -EPROTO);
    close(loose);
    ck_assert_int_eq(pipe(p), 0);
    ck_assert_int_eq(segment_map(p[0], 1, &at, &bytes), -EPROTO);
    close(p[0]);
    close(p[1]);
    ck_assert_int_eq(segment_map(-1, 1, &at, &bytes), -EBADF);
    ck_assert_int_eq(segment_create("check", 4096, &at, &fd), 0);
    void *other;
    ck_assert_int_eq(segment_map(fd, 4097, &other, &bytes), -EPROTO);
    segment_free(at, 4096, fd);
}
END_TEST

START_TEST(a_sealed_text_is_read_whole_and_written_by_nobody)
{
    struct text_buf got = {0};
    int fd = segment_seal_text("test", text_span_of("what is to be told"));
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, "W", 1, 0), -1);
    ck_assert_int_eq(segment_read_text(fd, 17, &got), -EFBIG);
    ck_assert_uint_eq(got.len, 0);
    for (int i = 0; i < 2; i++) /* whoever read it before */
        ck_assert_int_eq(segment_read_text(fd, 18, &got), 0);
    ck_assert_str_eq(got.data, "what is to be toldwhat is to be told");
    ck_assert_int_eq(segment_read_text(-1, 18, &got), -EBADF);
    text_buf_free(&got);
    close(fd);
}
END_TEST

START_TEST(counters_of_another_master_are_the_same_counters)
{
    struct counters mine, theirs;
    ck_assert_int_eq(counters_create(&theirs, 3), 0);
    ck_assert_int_eq(counters_adopt(&mine, dup(theirs.fd)), 0);
    ck_assert_uint_eq(mine.head->slots, 3);
    counters_attach(&theirs, 2);
    counters_add(CTR_acks, 5);
    ck_assert_uint_eq(counters_sum(&mine, CTR_acks), 5);
    theirs.head->slots = 4; /* does not fit the size */
    struct counters wrong;
    ck_assert_int_eq(counters_adopt(&wrong, theirs.fd), -EPROTO);
    theirs.head->slots = 0;
    ck_assert_int_eq(counters_adopt(&wrong, theirs.fd), -EPROTO);
    theirs.head->slots = 3;
    counters_destroy(&theirs);
    ck_assert_uint_eq(counters_sum(&mine, CTR_acks), 5);
    counters_destroy(&mine);
}
END_TEST

START_TEST(users_of_another_master_are_the_same_users)
{
    struct usertable *mine, *theirs;
    void *at;
    int fd;
    ck_assert_int_eq(usertable_create(100, 4, &theirs), 0);
    ck_assert_int_eq(usertable_enter(theirs, 1, 77, 0), 1);
    ck_assert_int_eq(usertable_adopt(dup(usertable_fd(theirs)), &mine), 0);
    ck_assert_int_eq(usertable_enter(mine, 2, 77, 0), 2);
    ck_assert_uint_eq(usertable_connections(theirs, 77), 2);
    usertable_free(theirs);
    usertable_sweep(mine, 1);
    ck_assert_uint_eq(usertable_connections(mine, 77), 1);
    usertable_free(mine);
    /* Zeroes, and as large as you like: no table. */
    ck_assert_int_eq(segment_create("check", 1 << 20, &at, &fd), 0);
    ck_assert_int_eq(usertable_adopt(fd, &mine), -EPROTO);
    memset(at, 0xFF, 1 << 20);
    ck_assert_int_eq(usertable_adopt(fd, &mine), -EPROTO);
    segment_free(at, 1 << 20, fd);
}
END_TEST

START_TEST(a_trace_of_another_master_is_read)
{
    struct trace mine, theirs;
    struct trace_record r = {.id_hash = 9, .fate = 1}, out;
    ck_assert_int_eq(trace_create(&theirs, 2, 100), 0);
    ck_assert_uint_eq(theirs.size, 128);
    ck_assert_uint_eq(trace_rounded(100), 128);
    ck_assert_uint_eq(trace_rounded(0), 0);
    ck_assert_int_eq(trace_adopt(&mine, 2, 100, theirs.fd), -EPROTO); /* no power of two */
    ck_assert_int_eq(trace_adopt(&mine, 200, 128, theirs.fd), -EPROTO); /* too small for it */
    ck_assert_int_eq(trace_adopt(&mine, 2, 128, dup(theirs.fd)), 0);
    trace_attach(&theirs, 1);
    trace_add(&r);
    ck_assert(trace_read(&mine, 1, 1, &out));
    ck_assert_uint_eq(out.id_hash, 9);
    trace_destroy(&theirs);
    trace_destroy(&mine);
}
END_TEST

static void take(struct counters *c, const char *lines)
{
    counters_take_earlier(c, (struct text_span){lines, strlen(lines)});
}

START_TEST(totals_of_another_version_come_by_name_and_never_go_back)
{
    struct counters c;
    ck_assert_int_eq(counters_create(&c, 2), 0);
    counters_attach(&c, 0);
    counters_add(CTR_acks, 2);
    take(&c, "acks 10\nunknown_row 5\nrestarts 3\nwebsockets 9\n");
    ck_assert_uint_eq(counters_sum(&c, CTR_acks), 12);
    ck_assert_uint_eq(counters_restarts(&c), 3);
    take(&c, "acks \n99\nacks -1\n"); /* no number, and what is below it is none of its line's */
    static const char with_nul[] = "acks\0 and so on, longer than the longest name of all 99\n";
    counters_take_earlier(&c, (struct text_span){with_nul, sizeof(with_nul) - 1});
    ck_assert_uint_eq(counters_sum(&c, CTR_acks), 12);
    ck_assert_uint_eq(counters_sum(&c, CTR_websockets), 0); /* a gauge is of now */
    take(&c, "acks 8\n");
    ck_assert_uint_eq(counters_sum(&c, CTR_acks), 12);
    take(&c, "acks 11\nack 99\nacksx 99\n");
    ck_assert_uint_eq(counters_sum(&c, CTR_acks), 13);
    take(&c, "acks\nacks \n\n 5\nacks -\nacks x\nacks 99"); /* cut short, or nothing */
    ck_assert_uint_eq(counters_sum(&c, CTR_acks), 13);
    counters_destroy(&c);
}
END_TEST

START_TEST(totals_that_were_written_are_taken_whole)
{
    struct counters c, next;
    struct text_buf lines = {0};
    ck_assert_int_eq(counters_create(&c, 2), 0);
    ck_assert_int_eq(counters_create(&next, 5), 0);
    for (int i = 0; i < COUNTERS; i++)
        counters_add_for_dead(&c, 1, (enum counter)i, (uint64_t)i + 1);
    counters_write_totals(&c, &lines);
    counters_take_earlier(&next, (struct text_span){lines.data, lines.len});
    for (int i = 0; i < COUNTERS; i++)
        ck_assert_uint_eq(counters_sum(&next, (enum counter)i),
                          counters_table[i].kind == COUNTER_TOTAL ? (uint64_t)i + 1 : 0);
    text_buf_free(&lines);
    counters_destroy(&c);
    counters_destroy(&next);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("segment");
    TCase *tc = tcase_create("segment");
    tcase_add_test(tc, what_one_process_writes_another_that_maps_it_reads);
    tcase_add_test(tc, what_is_no_sealed_segment_or_too_small_is_refused);
    tcase_add_test(tc, a_sealed_text_is_read_whole_and_written_by_nobody);
    tcase_add_test(tc, counters_of_another_master_are_the_same_counters);
    tcase_add_test(tc, users_of_another_master_are_the_same_users);
    tcase_add_test(tc, a_trace_of_another_master_is_read);
    tcase_add_test(tc, totals_of_another_version_come_by_name_and_never_go_back);
    tcase_add_test(tc, totals_that_were_written_are_taken_whole);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
