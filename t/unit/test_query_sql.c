/* The scanner that looks at a PgPoolQuery's SQL before a server sees it. */
#include <string.h>

#include "stage.h"

#include "../mod_pgpool_query_sql.h"

/* --- one statement ---------------------------------------------------------- */

/* The scanner finds the end of the first statement; blanks, comments and semicolons after it do
 * not belong to it. */
static const struct {
    const char *sql, *statement;
    int params;
} good[] = {
    {"", "", 0},
    {" \t", "", 0},
    {";", "", 0},
    {" ; -- x ;; \n/* y */", "", 0},
    {"-- only a comment", "", 0},
    {"SELECT 1", "SELECT 1", 0},
    {"SELECT 1;", "SELECT 1", 0},
    {"SELECT 1 ; ;\t;", "SELECT 1", 0},
    {"SELECT 1; -- note; with \"signs'", "SELECT 1", 0},
    {"SELECT 1 -- the last (", "SELECT 1", 0},
    {"SELECT 1 -- one\n, 2", "SELECT 1 -- one\n, 2", 0},
    {"SELECT 1 -- one\r, 2;", "SELECT 1 -- one\r, 2", 0},
    {"SELECT 1; /* a /* b; */ c */ -- d", "SELECT 1", 0},
    {"/*+ hint */ SELECT 1 /* it's */", "/*+ hint */ SELECT 1", 0},
    {"SELECT '; -- /*'", "SELECT '; -- /*'", 0},
    {"SELECT 'it''s; '", "SELECT 'it''s; '", 0},
    {"SELECT 'back\\';", "SELECT 'back\\'", 0},
    {"SELECT E'it\\'s;';", "SELECT E'it\\'s;'", 0},
    {"SELECT e'\\\\';", "SELECT e'\\\\'", 0},
    {"SELECT E'it''s\\';';", "SELECT E'it''s\\';'", 0},
    {"SELECT one'\\';", "SELECT one'\\'", 0},
    {"SELECT U&'\\0041';", "SELECT U&'\\0041'", 0},
    {"SELECT \"a;\"\"b'\" ;", "SELECT \"a;\"\"b'\"", 0},
    {"SELECT U&\"d\\0061t\";", "SELECT U&\"d\\0061t\"", 0},
    {"SELECT $$it's; \"(\"$$;", "SELECT $$it's; \"(\"$$", 0},
    {"SELECT $a$ $b$ ; $$ $a$;", "SELECT $a$ $b$ ; $$ $a$", 0},
    {"SELECT $a_1$;$a$;$a_1$", "SELECT $a_1$;$a$;$a_1$", 0},
    {"SELECT $\xC3\xA4$;$\xC3\xA4$", "SELECT $\xC3\xA4$;$\xC3\xA4$", 0},
    {"SELECT a$b$c;", "SELECT a$b$c", 0},
    {"SELECT \xC3\xA4$b$ ;", "SELECT \xC3\xA4$b$", 0},
    {"SELECT 5 - -4 */* times */ 3", "SELECT 5 - -4 */* times */ 3", 0},
    {"SELECT (a[1])[2];", "SELECT (a[1])[2]", 0},
    {"SELECT ')', \"(\", $$)$$ /* ) */", "SELECT ')', \"(\", $$)$$", 0},
    {"SELECT $1", "SELECT $1", 1},
    {"SELECT $2::int + $1::int, $12;", "SELECT $2::int + $1::int, $12", 12},
    {"SELECT '$3', \"$4\", $$ $5 $$, $1 -- $6", "SELECT '$3', \"$4\", $$ $5 $$, $1", 1},
    {"SELECT a$7, $1", "SELECT a$7, $1", 1},
    {"SELECT $99999999999999999999", "SELECT $99999999999999999999", PGPOOL_SQL_PARAMS_MOST},
    {"SELECT $", "SELECT $", 0},
};

START_TEST(statement_and_its_parameters)
{
    const pgpool_sql found = pgpool_sql_scan(good[_i].sql);

    ck_assert_pstr_eq(found.wrong, NULL);
    ck_assert_uint_eq(found.length, strlen(good[_i].statement));
    ck_assert_mem_eq(good[_i].sql, good[_i].statement, found.length);
    ck_assert_int_eq(found.params, good[_i].params);
}
END_TEST

/* --- what is wrong ---------------------------------------------------------- */

static const char unclosed[] = "a quote or comment is not closed";
static const char another[] = "there is something behind its semicolon";
static const char no_end[] = "a parenthesis is not closed";
static const char no_begin[] = "a parenthesis is closed but not opened";

static const struct {
    const char *sql, *wrong, *at;
} bad[] = {
    {"SELECT 'x", unclosed, "'x"},
    {"SELECT 'x''", unclosed, "'x''"},
    {"SELECT E'x\\'", unclosed, "E'x\\'"},
    {"SELECT E'x\\", unclosed, "E'x\\"},
    {"SELECT \"x ;", unclosed, "\"x ;"},
    {"SELECT $$x$ $a$", unclosed, "$$x$ $a$"},
    {"SELECT $a$x$b$", unclosed, "$a$x$b$"},
    {"SELECT $a$", unclosed, "$a$"},
    {"SELECT 1 /* x", unclosed, "/* x"},
    {"SELECT 1 /* /* */", unclosed, "/* /* */"},
    {"SELECT 1 /*/", unclosed, "/*/"},
    {"SELECT 1; /* x", unclosed, "/* x"},
    {"SELECT 1; SELECT 2", another, "SELECT 2"},
    {"SELECT 1;; /* ; */ 'x'", another, "'x'"},
    {"; SELECT 1", another, "SELECT 1"},
    {"SELECT 1) SELECT 2 --", no_begin, ") SELECT 2 --"},
    {"SELECT a]", no_begin, "]"},
    {"SELECT (1, (2)", no_end, "(1, (2)"},
    {"SELECT (1) + (2", no_end, "(2"},
    {"SELECT ARRAY[1", no_end, "[1"},
    {"SELECT (1; SELECT 2)", another, "SELECT 2)"},
};

START_TEST(fault_and_its_place)
{
    const pgpool_sql found = pgpool_sql_scan(bad[_i].sql);

    ck_assert_pstr_eq(found.wrong, bad[_i].wrong);
    ck_assert_pstr_eq(found.at, bad[_i].at);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("query_sql");
    TCase *t = tcase(suite, "scanner");

    tcase_add_loop_test(t, statement_and_its_parameters, 0, LENGTH(good));
    tcase_add_loop_test(t, fault_and_its_place, 0, LENGTH(bad));
    return suite_run(suite);
}
