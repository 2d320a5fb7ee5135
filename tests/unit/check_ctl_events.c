#include "config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/events.h"
#include "src/ctl.h"

START_TEST(fields_of_a_row_come_one_by_one)
{
    const char *fields = "id:s  note?:x amount_cents:i";
    struct ctl_field f;
    ck_assert(ctl_field_next(&fields, &f));
    ck_assert(text_span_eq(f.name, "id"));
    ck_assert(!f.is_optional);
    ck_assert_int_eq(f.kind, 's');
    ck_assert(ctl_field_next(&fields, &f));
    ck_assert(text_span_eq(f.name, "note"));
    ck_assert(f.is_optional);
    ck_assert_int_eq(f.kind, 'x');
    ck_assert(ctl_field_next(&fields, &f));
    ck_assert(text_span_eq(f.name, "amount_cents"));
    ck_assert(!ctl_field_next(&fields, &f));
    fields = "";
    ck_assert(!ctl_field_next(&fields, &f));
}
END_TEST

START_TEST(a_sample_of_every_type_passes_the_check_and_holds_every_field)
{
    for (int i = 0; i < EVENT_TYPES; i++) {
        struct text_buf b = {0};
        char why[256] = "";
        ctl_sample(i, &b);
        ck_assert(!b.failed);
        int result = events_check_payload(i, (struct text_span){b.data, b.len}, why, sizeof(why));
        ck_assert_msg(result == 0, "%s: %s: %s", events_table[i].upper, why, b.data);
        const char *fields = events_table[i].fields;
        struct ctl_field f;
        while (ctl_field_next(&fields, &f)) {
            char quoted[80];
            snprintf(quoted, sizeof(quoted), "\"%.*s\":", (int)f.name.len, f.name.ptr);
            ck_assert_msg(strstr(b.data, quoted) != NULL, "%s: no %s", events_table[i].upper,
                          quoted);
        }
        text_buf_free(&b);
    }
}
END_TEST

START_TEST(every_kind_of_field_has_words)
{
    for (int i = 0; i < EVENT_TYPES; i++) {
        const char *fields = events_table[i].fields;
        struct ctl_field f;
        while (ctl_field_next(&fields, &f)) {
            ck_assert_ptr_nonnull(strchr("sinboatpkx", f.kind));
            ck_assert_str_ne(ctl_field_kind(f.kind), "");
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ctl_events");
    TCase *all = tcase_create("all");
    tcase_add_test(all, fields_of_a_row_come_one_by_one);
    tcase_add_test(all, a_sample_of_every_type_passes_the_check_and_holds_every_field);
    tcase_add_test(all, every_kind_of_field_has_words);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
