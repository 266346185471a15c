/* Lists of session variables. */
#include <stdlib.h>

#include "pgp_vars.h"
#include "stage.h"

static const pgp_vars none = {.n = 0};
static const pgp_vars ann = {.n = 2,
                             .names = (const char *const[]){"app.user", "role"},
                             .values = (const char *const[]){"ann", ""}};
static const pgp_vars turned = {.n = 2,
                                .names = (const char *const[]){"ROLE", "App.User"},
                                .values = (const char *const[]){"", "ann"}};
static const pgp_vars bob = {.n = 2,
                             .names = (const char *const[]){"app.user", "role"},
                             .values = (const char *const[]){"bob", ""}};
static const pgp_vars role = {
    .n = 1, .names = (const char *const[]){"role"}, .values = (const char *const[]){""}};

START_TEST(names_are_found_in_any_case)
{
    ck_assert_str_eq(pgp_vars_find(&ann, "APP.user"), "ann");
    ck_assert_str_eq(pgp_vars_find(&ann, "role"), "");
    ck_assert_ptr_null(pgp_vars_find(&ann, "app"));
    ck_assert_ptr_null(pgp_vars_find(NULL, "role"));
}
END_TEST

static const struct {
    const pgp_vars *a, *b;
    int equal, within;
} pairs[] = {
    {NULL, &none, 1, 1},   {NULL, &ann, 0, 1}, {&ann, NULL, 0, 0},  {&ann, &ann, 1, 1},
    {&ann, &turned, 1, 1}, {&ann, &bob, 0, 1}, {&role, &ann, 0, 1}, {&ann, &role, 0, 0},
};

START_TEST(lists_are_compared)
{
    ck_assert_int_eq(pgp_vars_equal(pairs[_i].a, pairs[_i].b), pairs[_i].equal);
    ck_assert_int_eq(pgp_vars_within(pairs[_i].a, pairs[_i].b), pairs[_i].within);
}
END_TEST

START_TEST(copy_is_equal)
{
    pgp_vars *copy = pgp_vars_copy(&ann);

    ck_assert(pgp_vars_equal(copy, &ann));
    ck_assert_ptr_ne(copy->values[0], ann.values[0]);
    free(copy);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vars");
    TCase *t = tcase(suite, "lists");

    tcase_add_test(t, names_are_found_in_any_case);
    tcase_add_loop_test(t, lists_are_compared, 0, LENGTH(pairs));
    tcase_add_test(t, copy_is_equal);
    return suite_run(suite);
}
