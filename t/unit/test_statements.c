/* The list of a connection's prepared statements. */

#include <check.h>
#include <string.h>

#include "pgp_pq_statements.h"
#include "stage.h"

static pgp_pq_statements list;

static void list_begin(void)
{
    list = (pgp_pq_statements){.count = 0};
    pgp_pq_statements_init(&list);
}

static void list_end(void)
{
    pgp_pq_statements_forget(&list);
}

static pgp_pq_statement_key text_key(const char *sql)
{
    return (pgp_pq_statement_key){.sql = sql};
}

static const char *name_of(const char *sql)
{
    const pgp_pq_statement_key key = text_key(sql);
    const pgp_pq_statement *statement = pgp_pq_statements_find(&list, &key);

    return statement ? statement->name : "none";
}

static void add(const char *sql)
{
    const pgp_pq_statement_key key = text_key(sql);

    pgp_pq_statements_add(&list, &key);
}

START_TEST(statement_is_known_by_its_text)
{
    char copy[] = "SELECT 1";

    add(copy);
    memset(copy, 'x', strlen(copy));
    ck_assert_str_eq(name_of("SELECT 1"), "pgpool_1");
    ck_assert_str_eq(name_of("SELECT 2"), "none");
    ck_assert_str_eq(name_of(""), "none");
}
END_TEST

START_TEST(types_tell_statements_apart)
{
    static const Oid ints[] = {23, 23}, mixed[] = {23, 25};
    const pgp_pq_statement_key keys[] = {{"SELECT $1, $2", 2, NULL},
                                         {"SELECT $1, $2", 2, ints},
                                         {"SELECT $1, $2", 2, mixed},
                                         {"SELECT $1, $2", 1, ints}};

    for (int i = 0; i < LENGTH(keys); i++) {
        ck_assert_ptr_null(pgp_pq_statements_find(&list, &keys[i]));
        pgp_pq_statements_add(&list, &keys[i]);
    }
    ck_assert_int_eq(list.count, LENGTH(keys));
    ck_assert_str_eq(pgp_pq_statements_find(&list, &keys[2])->name, "pgpool_3");
}
END_TEST

/* The session still has it, so it counts until it is dropped. */
START_TEST(outdated_statement_is_not_found)
{
    const pgp_pq_statement_key key = text_key("b");

    add("a");
    add("b");
    add("c");
    pgp_pq_statements_outdate(&list, pgp_pq_statements_find(&list, &key));
    ck_assert_str_eq(name_of("b"), "none");
    ck_assert_int_eq(list.count, 3);
    ck_assert_str_eq(pgp_pq_statements_oldest(&list)->name, "pgpool_2");
    add("b");
    ck_assert_str_eq(name_of("b"), "pgpool_4");
    ck_assert_str_eq(pgp_pq_statements_oldest(&list)->name, "pgpool_2");
}
END_TEST

START_TEST(least_used_is_the_oldest)
{
    add("a");
    add("b");
    add("c");
    ck_assert_str_eq(pgp_pq_statements_oldest(&list)->key.sql, "a");
    name_of("a");
    ck_assert_str_eq(pgp_pq_statements_oldest(&list)->key.sql, "b");
    pgp_pq_statements_drop(&list, pgp_pq_statements_oldest(&list));
    ck_assert_str_eq(name_of("b"), "none");
    ck_assert_int_eq(list.count, 2);
}
END_TEST

START_TEST(no_name_is_given_twice)
{
    add("a");
    pgp_pq_statements_forget(&list);
    ck_assert_int_eq(list.count, 0);
    add("a");
    ck_assert_str_eq(name_of("a"), "pgpool_2");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("statements");
    TCase *t = tcase(suite, "list");

    tcase_add_checked_fixture(t, list_begin, list_end);
    tcase_add_test(t, statement_is_known_by_its_text);
    tcase_add_test(t, types_tell_statements_apart);
    tcase_add_test(t, outdated_statement_is_not_found);
    tcase_add_test(t, least_used_is_the_oldest);
    tcase_add_test(t, no_name_is_given_twice);
    return suite_run(suite);
}
