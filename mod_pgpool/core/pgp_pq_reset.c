/* The messages of PgPoolReset, and when they are due. */
#include "pgp_pq_reset.h"

#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#define DISCARD_ALL "DISCARD ALL"

/* RESET ROLE is part of SET SESSION AUTHORIZATION DEFAULT. */
#define DISCARD_SESSION                                                                        \
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "                    \
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"

/* Tags of commands that leave nothing behind in the session once their transaction
 * is over.  Everything else counts as a change; EXPLAIN does, since EXPLAIN ANALYZE runs
 * what it explains, a CREATE TEMP TABLE ... AS for one. */
static const char *const harmless[] = {
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "COPY",
    "BEGIN",
    "COMMIT",
    "SHOW",
    "FETCH",
    "SAVEPOINT",
    "NOTIFY",
    "START TRANSACTION",
    "MOVE",
    "ROLLBACK",
    "RELEASE",
    "LOCK TABLE",
    "PREPARE TRANSACTION",
};

static int tag_is(const char *tag, const char *word)
{
    const size_t length = strlen(word);

    return !strncmp(tag, word, length) && (tag[length] == '\0' || tag[length] == ' ');
}

unsigned pgp_pq_reset_tag(const char *tag, int rows)
{
    size_t i;

    if (rows && tag_is(tag, "SELECT")) /* first, as most are */
        return PGP_DID_SOMETHING;
    if (!*tag || !strcmp(tag, "PREPARE"))
        return PGP_DID_SOMETHING | PGP_DID_CHANGE | PGP_DID_PREPARE;
    if (tag_is(tag, "DEALLOCATE") || !strcmp(tag, DISCARD_ALL))
        return PGP_DID_SOMETHING | PGP_DID_CHANGE | PGP_DID_FORGET;
    for (i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++)
        if (tag_is(tag, harmless[i]))
            return PGP_DID_SOMETHING;
    return PGP_DID_SOMETHING | PGP_DID_CHANGE;
}

int pgp_pq_reset_due(pgp_reset reset, unsigned deeds)
{
    switch (reset) {
    case PGP_RESET_SESSION:
    case PGP_RESET_ALL:
        return deeds != 0;
    case PGP_RESET_AUTO:
        return (deeds & PGP_DID_CHANGE) != 0;
    case PGP_RESET_TRANSACTION:
    case PGP_RESET_CLOSE:
        break;
    }
    return 0;
}

int pgp_pq_reset_prepares(const char *sql)
{
    static const char blank[] = " \t\r\n";

    sql += strspn(sql, blank);
    return !strncasecmp(sql, "PREPARE", 7) && sql[7] && strchr(blank, sql[7]);
}

/* The text with the init SQL behind it; prepare: with its PREPAREs, too.  In each line of its
 * own, since a line's end ends a comment. */
static const char *with_init(apr_pool_t *p, const char *text, const pgp_settings *settings,
                             int prepare)
{
    int i;

    for (i = 0; settings->init_sql && i < settings->init_sql->nelts; i++) {
        const char *sql = APR_ARRAY_IDX(settings->init_sql, i, const char *);

        if (prepare || !pgp_pq_reset_prepares(sql))
            text = apr_pstrcat(p, text, ";\n", sql, NULL);
    }
    return text;
}

static int init_prepares(const pgp_settings *settings)
{
    int i;

    for (i = 0; settings->init_sql && i < settings->init_sql->nelts; i++)
        if (pgp_pq_reset_prepares(APR_ARRAY_IDX(settings->init_sql, i, const char *)))
            return 1;
    return 0;
}

/* The init SQL has a transaction of its own: one that has begun before the RESET ALL is
 * what the borrower has made the default, perhaps read-only. */
void pgp_pq_reset_compose(pgp_settings *settings, apr_pool_t *p)
{
    if (!settings->init_sql) {
        settings->reset_all = DISCARD_ALL;
        settings->reset_session = settings->reset_prepared = DISCARD_SESSION;
        settings->undo_begin = settings->undo_end = "";
        return;
    }
    settings->reset_all = with_init(
        p, "BEGIN; " DISCARD_SESSION "; DEALLOCATE ALL; DISCARD PLANS; COMMIT", settings, 1);
    settings->reset_session = with_init(p, "BEGIN; " DISCARD_SESSION "; COMMIT", settings, 0);
    settings->reset_prepared = init_prepares(settings) ? with_init(p,
                                                                   "BEGIN; " DISCARD_SESSION
                                                                   "; DEALLOCATE ALL; COMMIT",
                                                                   settings, 1)
                                                       : settings->reset_session;
    settings->undo_begin = "BEGIN; ";
    settings->undo_end = with_init(p, "; COMMIT", settings, 0);
}

const char *pgp_pq_reset_sql(const pgp_settings *settings, unsigned deeds)
{
    if (settings->reset == PGP_RESET_ALL)
        return settings->reset_all;
    return deeds & PGP_DID_FORGET ? settings->reset_prepared : settings->reset_session;
}
