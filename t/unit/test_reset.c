/* The reset of a session: the effects that command tags tell, and the SQL that undoes them. */
#include <string.h>
#include <apr_strings.h>

#include "stage.h"

#include "pgp_pq_effects.h"
#include "pgp_pq_reset.h"

/* --- effects ------------------------------------------------------------------ */

#define ONLY PGP_EFFECT_ANY
#define CHANGE (PGP_EFFECT_ANY | PGP_EFFECT_CHANGE)
#define PREPARED (CHANGE | PGP_EFFECT_PREPARE)
#define DEALLOCATED (CHANGE | PGP_EFFECT_DEALLOCATE)

static const struct {
    const char *tag;
    int rows;
    unsigned effects;
} tags[] = {
    {"SELECT 1", 1, ONLY},
    {"SELECT 1", 0, CHANGE}, /* SELECT INTO, CREATE TABLE AS */
    {"INSERT 0 1", 0, ONLY},
    {"INSERT 0 1", 1, ONLY}, /* RETURNING */
    {"UPDATE 3", 0, ONLY},
    {"DELETE 0", 0, ONLY},
    {"MERGE 2", 0, ONLY},
    {"COPY 5", 0, ONLY},
    {"BEGIN", 0, ONLY},
    {"START TRANSACTION", 0, ONLY},
    {"COMMIT", 0, ONLY},
    {"ROLLBACK", 0, ONLY},
    {"SAVEPOINT", 0, ONLY},
    {"SHOW", 1, ONLY},
    {"EXPLAIN", 1, CHANGE}, /* EXPLAIN ANALYZE CREATE TABLE AS ... runs it */
    {"NOTIFY", 0, ONLY},
    {"PREPARE TRANSACTION", 0, ONLY},
    {"PREPARE", 0, PREPARED},
    {"", 0, PREPARED}, /* a Parse message has no tag */
    {"SET", 0, CHANGE},
    {"RESET", 0, CHANGE},
    {"LISTEN", 0, CHANGE},
    {"DISCARD ALL", 0, DEALLOCATED},
    {"DO", 0, DEALLOCATED},
    {"CALL", 0, DEALLOCATED},
    {"DISCARD TEMP", 0, CHANGE},
    {"DEALLOCATE", 0, DEALLOCATED},
    {"DEALLOCATE ALL", 0, DEALLOCATED},
    {"CREATE TABLE", 0, CHANGE},
    {"LOAD", 0, CHANGE},
    {"DECLARE CURSOR", 0, CHANGE},
    {"SELECTION", 1, CHANGE}, /* it only begins like SELECT */
    {"INSERTION", 0, CHANGE},
};

START_TEST(effects_by_tag)
{
    ck_assert_msg(pgp_pq_effects_of_tag(tags[_i].tag, tags[_i].rows) == tags[_i].effects, "%s",
                  tags[_i].tag);
}
END_TEST

START_TEST(reset_is_due_by_mode)
{
    int mode;

    for (mode = PGP_RESET_SESSION; mode <= PGP_RESET_CLOSE; mode++)
        ck_assert(!pgp_pq_reset_is_due(mode, 0));
    ck_assert(pgp_pq_reset_is_due(PGP_RESET_SESSION, ONLY));
    ck_assert(pgp_pq_reset_is_due(PGP_RESET_ALL, ONLY));
    ck_assert(!pgp_pq_reset_is_due(PGP_RESET_AUTO, ONLY));
    ck_assert(pgp_pq_reset_is_due(PGP_RESET_AUTO, CHANGE));
    ck_assert(!pgp_pq_reset_is_due(PGP_RESET_TRANSACTION, PREPARED));
    ck_assert(!pgp_pq_reset_is_due(PGP_RESET_CLOSE, CHANGE));
}
END_TEST

/* --- the message ------------------------------------------------------------ */

static const struct {
    const char *sql;
    int prepares;
} statements[] = {
    {"PREPARE q AS SELECT 1", 1},
    {" \n\tprepare q AS SELECT 1", 1},
    {"PREPARE\nq AS SELECT 1", 1},
    {"PREPARED", 0},
    {"PREPARE", 0},
    {"SET a.b = 1", 0},
};

START_TEST(statements_that_prepare)
{
    ck_assert_int_eq(pgp_pq_reset_is_prepare(statements[_i].sql) != 0, statements[_i].prepares);
}
END_TEST

/* The reset's SQL after these effects, with this PgPoolReset and PgPoolInitSQL (NULL: none). */
static const char *message_after(unsigned effects, const char *mode, const char *init)
{
    apr_pool_t *p;
    pgp_settings *settings;
    const char *wrong = NULL, *argv[1];

    apr_pool_create(&p, NULL);
    settings = pgp_settings_defaults(p);
    argv[0] = mode;
    wrong = pgp_settings_set(settings, p, PGP_OPTION_RESET, 1, argv, "t:1");
    argv[0] = init;
    if (!wrong && init)
        wrong = pgp_settings_set(settings, p, PGP_OPTION_INIT_SQL, 1, argv, "t:1");
    ck_assert_msg(!wrong, "%s", wrong);
    pgp_pq_reset_compose(settings, p);
    return pgp_pq_reset_sql(settings, effects);
}

static const char *message(const char *mode, const char *init)
{
    return message_after(CHANGE, mode, init);
}

/* Whether the cached plans of functions survive this SQL. */
static int keeps_plans(const char *sql)
{
    return !strstr(sql, "DISCARD ALL") && !strstr(sql, "DISCARD PLANS");
}

/* Whether prepared statements survive this SQL. */
static int keeps_prepared(const char *sql)
{
    return keeps_plans(sql) && !strstr(sql, "DEALLOCATE");
}

/* PostgreSQL's manual lists these for DISCARD ALL, and DEALLOCATE ALL and DISCARD PLANS. */
static const char *const session[] = {
    "CLOSE ALL",    "SET SESSION AUTHORIZATION DEFAULT", "RESET ALL",         "UNLISTEN *",
    "DISCARD TEMP", "pg_advisory_unlock_all()",          "DISCARD SEQUENCES",
};

static void undoes_session(const char *sql)
{
    int i;

    for (i = 0; i < LENGTH(session); i++)
        ck_assert_msg(strstr(sql, session[i]) != NULL, "%s is missing", session[i]);
}

static const char *const modes[] = {"session", "auto"};

START_TEST(session_is_undone_but_nothing_else)
{
    static const char *const init[] = {NULL, "SET a.b = 1", "PREPARE q AS SELECT 1"};
    static const unsigned effects[] = {CHANGE, PREPARED};
    int i, k;

    for (i = 0; i < LENGTH(init); i++)
        for (k = 0; k < LENGTH(effects); k++) {
            const char *sql = message_after(effects[k], modes[_i], init[i]);

            undoes_session(sql);
            ck_assert(keeps_prepared(sql));
        }
}
END_TEST

START_TEST(all_is_undone)
{
    const char *sql = message("all", "SET a.b = 1");

    ck_assert_str_eq(message("all", NULL), "DISCARD ALL");
    undoes_session(sql);
    ck_assert_ptr_nonnull(strstr(sql, "DEALLOCATE ALL"));
    ck_assert_ptr_nonnull(strstr(sql, "DISCARD PLANS"));
}
END_TEST

START_TEST(init_sql_is_run_again)
{
    const char *sql = message("session", "SET a.b = 1 -- mine");
    const char *init = strstr(sql, "SET a.b = 1 -- mine");

    ck_assert_ptr_nonnull(init);
    ck_assert_ptr_nonnull(strstr(sql, "RESET ALL"));
    ck_assert(strstr(sql, "RESET ALL") < init);
    /* If prepared statements survive, to prepare one again would fail. */
    ck_assert_ptr_null(strstr(message("session", "PREPARE q AS SELECT 1"), "PREPARE q"));
    ck_assert_ptr_nonnull(strstr(message("all", "PREPARE q AS SELECT 1"), "PREPARE q"));
}
END_TEST

START_TEST(statements_of_init_sql_are_prepared_again)
{
    const char *sql = message_after(DEALLOCATED, modes[_i], "PREPARE q AS SELECT 1");

    undoes_session(sql);
    ck_assert_ptr_nonnull(strstr(sql, "DEALLOCATE ALL"));
    ck_assert_ptr_nonnull(strstr(sql, "PREPARE q"));
    ck_assert(strstr(sql, "DEALLOCATE ALL") < strstr(sql, "PREPARE q"));
    ck_assert(keeps_plans(sql));
    /* Init SQL that prepares nothing has nothing to prepare again. */
    ck_assert(keeps_prepared(message_after(DEALLOCATED, modes[_i], "SET a.b = 1")));
    ck_assert(keeps_prepared(message_after(DEALLOCATED, modes[_i], NULL)));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reset");
    TCase *t = tcase(suite, "reset");

    tcase_add_loop_test(t, effects_by_tag, 0, LENGTH(tags));
    tcase_add_test(t, reset_is_due_by_mode);
    tcase_add_loop_test(t, statements_that_prepare, 0, LENGTH(statements));
    tcase_add_loop_test(t, session_is_undone_but_nothing_else, 0, LENGTH(modes));
    tcase_add_test(t, all_is_undone);
    tcase_add_test(t, init_sql_is_run_again);
    tcase_add_loop_test(t, statements_of_init_sql_are_prepared_again, 0, LENGTH(modes));
    return suite_run(suite);
}
