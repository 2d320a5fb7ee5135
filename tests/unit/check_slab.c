/*
 * check_slab.c - objects of one size, close together: each its own, all zero, and memory that comes
 * back when they leave.
 */
#include "config.h"

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workers/slab.h"

#define MANY 5000

static bool is_all(const unsigned char *at, size_t size, unsigned char value)
{
    for (size_t i = 0; i < size; i++)
        if (at[i] != value)
            return false;
    return true;
}

/* Whether the page of an address is in memory, as far as the kernel tells. */
static bool is_resident(const void *at)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char in = 0;
    void *start = (void *)((uintptr_t)at / page * page);
    return mincore(start, page, &in) == 0 && in & 1;
}

static uint32_t random_state = 1;

static uint32_t any(uint32_t below)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

START_TEST(objects_are_zero_and_apart_whatever_their_size)
{
    static const size_t sizes[] = {1, 8, 64, 104, 400, 448, 1000, SLAB_OBJECT_MAX};
    size_t size = sizes[_i];
    struct slab *s = slab_new(size);
    unsigned char *objects[1000];
    for (size_t i = 0; i < 1000; i++) {
        objects[i] = slab_take(s);
        ck_assert(is_all(objects[i], size, 0));
        ck_assert_uint_eq((uintptr_t)objects[i] % 8, 0);
        memset(objects[i], (int)(i % 255) + 1, size);
    }
    for (size_t i = 0; i < 1000; i++)
        ck_assert(is_all(objects[i], size, (unsigned char)(i % 255 + 1)));
    for (size_t i = 0; i < 1000; i++)
        slab_give(s, objects[i]);
    slab_free(s);
}
END_TEST

START_TEST(whoever_comes_and_goes_in_any_order_keeps_its_own)
{
    struct slab *s = slab_new(104);
    unsigned char **objects = calloc(MANY, sizeof(*objects));
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t at = any(MANY);
        if (objects[at]) {
            ck_assert(is_all(objects[at], 104, (unsigned char)(at % 255 + 1)));
            slab_give(s, objects[at]);
            objects[at] = NULL;
        } else {
            objects[at] = slab_take(s);
            ck_assert(is_all(objects[at], 104, 0));
            memset(objects[at], (int)(at % 255) + 1, 104);
        }
        if (i % 10000 == 0)
            slab_trim(s);
    }
    for (uint32_t at = 0; at < MANY; at++) {
        ck_assert(!objects[at] || is_all(objects[at], 104, (unsigned char)(at % 255 + 1)));
        slab_give(s, objects[at]);
    }
    slab_free(s);
    free(objects);
}
END_TEST

START_TEST(pages_on_which_nobody_is_left_go_back_and_others_stay)
{
    struct slab *s = slab_new(400);
    unsigned char *objects[MANY];
    for (size_t i = 0; i < MANY; i++) {
        objects[i] = slab_take(s);
        objects[i][0] = 1;
    }
    for (size_t i = 0; i < MANY; i++)
        if (i % 100)
            slab_give(s, objects[i]);
    slab_trim(s);
    size_t resident = 0;
    for (size_t i = 0; i < MANY; i++)
        resident += is_resident(objects[i]);
#ifndef __SANITIZE_ADDRESS__
    ck_assert_uint_lt(resident, MANY / 3); /* 1 of 10 shares a page with one who stays */
#endif
    for (size_t i = 0; i < MANY; i += 100) {
        ck_assert_uint_eq(objects[i][0], 1);
        slab_give(s, objects[i]);
    }
    slab_free(s);
}
END_TEST

START_TEST(what_is_too_large_is_refused_and_nothing_is_accepted)
{
    ck_assert_ptr_null(slab_new(SLAB_OBJECT_MAX + 1));
    slab_free(NULL);
    slab_trim(NULL);
    struct slab *s = slab_new(16);
    slab_give(s, NULL);
    slab_trim(s);
    slab_free(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("slab");
    TCase *t = tcase_create("slab");
    tcase_add_loop_test(t, objects_are_zero_and_apart_whatever_their_size, 0, 8);
    tcase_add_test(t, whoever_comes_and_goes_in_any_order_keeps_its_own);
    tcase_add_test(t, pages_on_which_nobody_is_left_go_back_and_others_stay);
    tcase_add_test(t, what_is_too_large_is_refused_and_nothing_is_accepted);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
