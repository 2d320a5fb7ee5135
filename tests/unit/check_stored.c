#include "config.h"

#include <check.h>
#include <stdlib.h>

#include "shared/stored.h"

static struct stored s;

/* A list from the head, and an acknowledged id ("": none). */
static void look(const char *id, const char *acked, const char *const *entries, size_t count)
{
    stored_begin(&s, text_span_of(id), text_span_of(acked));
    for (size_t i = 0; i < count; i++)
        stored_look(&s, text_span_of(entries[i]));
    stored_end(&s);
}

static const char *const list[] = {
    "{\"id\":\"c\",\"type\":\"EVEN\",\"timestamp\":\"2026-01-31T12:00:02Z\",\"payload\":{}}",
    "{\"id\":\"b\",\"type\":\"ODD\",\"timestamp\":\"2026-01-31T12:00:01Z\",\"payload\":{}}",
    "no JSON",
    "{\"id\":\"b\",\"type\":\"OLDER\",\"timestamp\":\"2026-01-31T12:00:00Z\",\"payload\":{}}",
    "{\"type\":\"WITHOUT\",\"payload\":{}}",
};
#define COUNT (sizeof(list) / sizeof(list[0]))

START_TEST(the_newest_entry_with_the_id_is_told)
{
    look("b", "", list, COUNT);
    ck_assert_int_eq(s.count, COUNT);
    ck_assert_int_eq(s.position, 1);
    ck_assert_int_eq(s.copies, 2);
    ck_assert_str_eq(s.type, "ODD");
    ck_assert_str_eq(s.timestamp, "2026-01-31T12:00:01Z");
    ck_assert_int_gt(s.timestamp_us, s.oldest_us);
    ck_assert_uint_eq(s.bytes, text_span_of(list[1]).len);
    ck_assert(!s.is_acked);
}
END_TEST

START_TEST(what_is_not_there_has_no_place)
{
    look("x", "", list, COUNT);
    ck_assert_int_eq(s.position, -1);
    ck_assert_int_eq(s.copies, 0);
    ck_assert(!s.is_acked);
    look("x", "x", NULL, 0); /* acknowledged, and trimmed away since */
    ck_assert(s.is_acked);
}
END_TEST

START_TEST(an_acknowledgement_holds_for_all_that_is_older)
{
    look("b", "c", list, COUNT);
    ck_assert(s.is_acked);
    look("c", "b", list, COUNT);
    ck_assert(!s.is_acked);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stored");
    TCase *t = tcase_create("stored");
    tcase_add_test(t, the_newest_entry_with_the_id_is_told);
    tcase_add_test(t, what_is_not_there_has_no_place);
    tcase_add_test(t, an_acknowledgement_holds_for_all_that_is_older);
    suite_add_tcase(suite, t);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
