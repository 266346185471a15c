/* The effects of a lease on its session, as far as its results tell. */

#include "pgp_pq_effects.h"

#include <string.h>

#include "pgp_pq.h"
#include "pgp_pq_vars.h"

/* libpq's buffers grow to hold what comes and goes, and shrink only when the connection is
 * closed.  A message larger than this marks its connection as one to be closed.  For a result
 * that is an upper bound: its rows may have come one by one, through a small buffer. */
#define LARGE_MESSAGE ((size_t)8 * 1024 * 1024)

static bool has_tag(const char *tag, const char *word)
{
    const size_t length = strlen(word);

    return !strncmp(tag, word, length) && (tag[length] == '\0' || tag[length] == ' ');
}

unsigned pgp_pq_effects_of_tag(const char *tag, bool has_rows)
{
    /* Commands that leave nothing behind in the session once their transaction is over. EXPLAIN
     * is none of them: EXPLAIN ANALYZE runs what it explains, a CREATE TEMP TABLE AS for one.
     */
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
    size_t i;

    if (has_rows && has_tag(tag, "SELECT")) /* first, as most are */
        return PGP_EFFECT_ANY;
    if (!*tag || !strcmp(tag, "PREPARE"))
        return PGP_EFFECT_ANY | PGP_EFFECT_CHANGE | PGP_EFFECT_PREPARE;
    if (has_tag(tag, "DEALLOCATE") || !strcmp(tag, "DISCARD ALL") || !strcmp(tag, "DO") ||
        !strcmp(tag, "CALL")) /* these may contain any command */
        return PGP_EFFECT_ANY | PGP_EFFECT_CHANGE | PGP_EFFECT_DEALLOCATE;
    for (i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++)
        if (has_tag(tag, harmless[i]))
            return PGP_EFFECT_ANY;
    return PGP_EFFECT_ANY | PGP_EFFECT_CHANGE;
}

static unsigned effects_of_result(const PGresult *result)
{
    const char *tag = PQcmdStatus((PGresult *)result);

    switch (PQresultStatus(result)) {
    case PGRES_EMPTY_QUERY:
        return 0;
    case PGRES_COMMAND_OK:
        return pgp_pq_effects_of_tag(tag, false);
    case PGRES_TUPLES_OK:
        return pgp_pq_effects_of_tag(tag, true);
    case PGRES_FATAL_ERROR: /* a DO may have changed the session before it failed */
        return PGP_EFFECT_ANY | PGP_EFFECT_CHANGE;
    default:
        return PGP_EFFECT_ANY;
    }
}

/* Whether all prepared statements have gone.  A borrower that drops a single statement drops
 * one of its own. */
static bool drops_all(const PGresult *result)
{
    const char *tag = PQcmdStatus((PGresult *)result);

    return !strcmp(tag, "DEALLOCATE ALL") || !strcmp(tag, "DISCARD ALL");
}

void pgp_pq_effects_measure(pgp_connection *connection, size_t size)
{
    if (size > LARGE_MESSAGE)
        connection->lease.large = true;
}

void pgp_pq_effects_note(pgp_connection *connection, const PGresult *result)
{
    const unsigned effects = effects_of_result(result);

    connection->lease.effects |= effects;
    /* read_only_sql_transaction */
    if (pgp_pq_error_has_field(result, PG_DIAG_SQLSTATE, "25006"))
        connection->lease.read_only = true;
    pgp_pq_effects_measure(connection, PQresultMemorySize(result));
    if (effects & PGP_EFFECT_CHANGE)
        pgp_pq_vars_disturb(connection, result);
    if (effects & PGP_EFFECT_DEALLOCATE && drops_all(result))
        pgp_pq_statements_forget(&connection->statements);
    connection->lease.unsynced = PQpipelineStatus(connection->conn) != PQ_PIPELINE_OFF &&
                                 PQresultStatus(result) != PGRES_PIPELINE_SYNC;
}

void pgp_pq_effects_forget(pgp_connection *connection)
{
    connection->lease.effects = 0;
    connection->lease.read_only = false;
}
