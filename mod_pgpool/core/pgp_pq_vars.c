/* Sets session variables, undoes them, and notices that a session may have lost them. */

#include "pgp_pq_vars.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "pgp_alloc.h"

/* Changes that results have told of since the variables were set; bits of
 * connection->vars.disturbed.
 */
enum {
    DISTURBED_BY_COMMAND = 1, /* a command that can change settings */
    DISTURBED_BY_ERROR = 2,   /* a statement that may have changed some before it failed */
    DISTURBED_BY_RESET = 4    /* PgPoolInitSQL's settings may be gone as well */
};

void pgp_pq_vars_disturb(pgp_connection *connection, const PGresult *result)
{
    static const char *const commands[] = {"SET", "DO", "CALL"};
    const char *tag = PQcmdStatus((PGresult *)result);
    size_t i;

    if (PQresultStatus(result) == PGRES_FATAL_ERROR)
        connection->vars.disturbed |= DISTURBED_BY_ERROR;
    else if (!strcmp(tag, "DISCARD ALL") || !strcmp(tag, "RESET"))
        connection->vars.disturbed |= DISTURBED_BY_COMMAND | DISTURBED_BY_RESET;
    else
        for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
            if (!strcmp(tag, commands[i]))
                connection->vars.disturbed |= DISTURBED_BY_COMMAND;
}

void pgp_pq_vars_doubt(pgp_connection *connection)
{
    const PGTransactionStatusType status = PQtransactionStatus(connection->conn);

    if (status == PQTRANS_IDLE || status == PQTRANS_INTRANS)
        connection->vars.disturbed |= DISTURBED_BY_COMMAND;
}

static void applied_replace(pgp_connection *connection, const pgp_vars *vars)
{
    free(connection->vars.applied);
    connection->vars.applied = vars && vars->n ? pgp_vars_copy(vars) : NULL;
    connection->vars.hide_role = pgp_vars_find(connection->vars.applied,
                                               "default_transaction_read_only") != NULL;
}

void pgp_pq_vars_forget(pgp_connection *connection)
{
    applied_replace(connection, NULL);
    connection->vars.disturbed = 0;
}

/* A variable is set after all those of a lower rank, and undone before them. */
enum { RANK_ANY, RANK_SESSION_AUTHORIZATION, RANK_ROLE, RANKS };

static int rank_of(const char *name)
{
    if (!strcasecmp(name, "role"))
        return RANK_ROLE;
    return strcasecmp(name, "session_authorization") ? RANK_ANY : RANK_SESSION_AUTHORIZATION;
}

/* --- statements ------------------------------------------------------------- */

#define SET_DEFAULT "%spg_catalog.set_config('%s',NULL,false)"
#define SET_VALUE "%spg_catalog.set_config($%d,$%d,false)"
#define SET_ROOM (sizeof SET_DEFAULT + sizeof SET_VALUE + 20)

/* Room for a statement that undoes one list and sets another; the caller frees it. */
static char *sql_alloc(const pgp_vars *undone, const pgp_vars *set, size_t *size)
{
    int i;

    *size = sizeof "SELECT " + (set ? set->n * SET_ROOM : 0);
    for (i = 0; undone && i < undone->n; i++)
        *size += SET_ROOM + strlen(undone->names[i]);
    return pgp_alloc(*size);
}

static const char *sql_separator(const char *sql, const char *end)
{
    return end == sql ? "SELECT " : ",";
}

/* Append calls that give variables their defaults back: the highest rank first, down to
 * `lowest`. */
static char *sql_append_undo(char *sql, char *end, const char *stop, const pgp_vars *vars,
                             int lowest)
{
    int rank, i;

    for (rank = RANKS - 1; rank >= lowest; rank--)
        for (i = 0; vars && i < vars->n; i++)
            if (rank_of(vars->names[i]) == rank)
                end += apr_snprintf(end, stop - end, SET_DEFAULT, sql_separator(sql, end),
                                    vars->names[i]);
    return end;
}

/* Append calls that set variables.  params: room for two for each variable. */
static void sql_append_set(char *sql, char *end, const char *stop, const pgp_vars *vars,
                           const char **params)
{
    int rank, i, n = 0;

    for (rank = RANK_ANY; rank < RANKS; rank++)
        for (i = 0; i < vars->n; i++)
            if (rank_of(vars->names[i]) == rank) {
                end += apr_snprintf(end, stop - end, SET_VALUE, sql_separator(sql, end), n + 1,
                                    n + 2);
                params[n++] = vars->names[i];
                params[n++] = vars->values[i];
            }
}

/* The message that undoes what is applied.  It gives the variables the server's defaults, so
 * PgPoolInitSQL follows. */
static char *undo_message(const pgp_connection *connection)
{
    const char *begin = connection->settings->undo_begin, *end = connection->settings->undo_end;
    size_t size, whole;
    char *undo = sql_alloc(connection->vars.applied, NULL, &size), *message;

    sql_append_undo(undo, undo, undo + size, connection->vars.applied, RANK_ANY);
    whole = strlen(begin) + strlen(undo) + strlen(end) + 1;
    message = pgp_alloc(whole);
    apr_snprintf(message, whole, "%s%s%s", begin, undo, end);
    free(undo);
    return message;
}

char *pgp_pq_vars_undo_sql(const pgp_connection *connection)
{
    return connection->vars.applied ? undo_message(connection) : NULL;
}

/* --- setting ---------------------------------------------------------------- */

static pgp_set_outcome set_failed(const pgp_connection *connection, pgp_error *error)
{
    pgp_pq_error_last(error, connection);
    return PGP_SET_FAILED;
}

/* Set variables by one statement, so that the server sets all of them or none.  The roles among
 * `applied` go first: what comes after them may need the login role. */
static pgp_set_outcome vars_send(pgp_connection *connection, const pgp_vars *applied,
                                 const pgp_vars *vars, apr_time_t until, pgp_error *error)
{
    const char **params = pgp_alloc(2 * vars->n * sizeof(*params));
    size_t size;
    char *sql = sql_alloc(applied, vars, &size), *end;
    int sent;

    end = sql_append_undo(sql, sql, sql + size, applied, RANK_SESSION_AUTHORIZATION);
    sql_append_set(sql, end, sql + size, vars, params);
    connection->exchange.failed = false;
    sent = PQsendQueryParams(connection->conn, sql, 2 * vars->n, NULL, params, NULL, NULL, 0);
    free(params);
    free(sql);
    if (!sent)
        return set_failed(connection, error);
    if (pgp_pq_exchange_receive_until(connection, until, error))
        return PGP_SET_DONE;
    return connection->exchange.failed && connection->exchange.rejected ? PGP_SET_DENIED
                                                                        : PGP_SET_FAILED;
}

/* Undo all that is applied, then set variables.  A denial leaves the session as it was before,
 * so what was undone is set again then. */
static pgp_set_outcome undo_and_set(pgp_connection *connection, const pgp_vars *vars,
                                    apr_time_t until, pgp_error *error)
{
    pgp_set_outcome outcome = PGP_SET_DONE;
    char *sql = undo_message(connection);
    const bool is_undone = pgp_pq_exchange_send(connection, sql, error) &&
                           pgp_pq_exchange_receive_until(connection, until, error);
    pgp_error unsaid;

    free(sql);
    if (!is_undone)
        return PGP_SET_FAILED;
    if (vars->n)
        outcome = vars_send(connection, NULL, vars, until, error);
    if (outcome == PGP_SET_DENIED && connection->vars.applied &&
        vars_send(connection, NULL, connection->vars.applied, until, &unsaid) != PGP_SET_DONE)
        return PGP_SET_FAILED;
    return outcome;
}

/* In a transaction only what is applied already may be set: it holds afterwards, whether the
 * transaction commits or not.  A rollback may bring back what was set before it began, so
 * `disturbed` stays set, and the next call sets the variables again. */
static pgp_set_outcome vars_apply(pgp_connection *connection, const pgp_vars *vars,
                                  apr_time_t until, pgp_error *error)
{
    const bool is_idle = PQtransactionStatus(connection->conn) == PQTRANS_IDLE;
    const bool is_reset = is_idle && connection->vars.disturbed & DISTURBED_BY_RESET;
    const unsigned disturbed = connection->vars.disturbed;
    pgp_set_outcome outcome;

    if (is_reset || !pgp_vars_within(connection->vars.applied, vars))
        outcome = undo_and_set(connection, vars, until, error);
    else
        outcome = vars_send(connection, connection->vars.applied, vars, until, error);
    if (outcome == PGP_SET_DONE)
        applied_replace(connection, vars);
    connection->vars.disturbed = outcome == PGP_SET_DONE && is_idle ? 0 : disturbed;
    return outcome;
}

/* Whether variables cannot be set now, because of what the borrower has under way.  is_same:
 * they are those that are applied. */
static bool is_in_use(const pgp_connection *connection, bool is_same)
{
    const PGTransactionStatusType status = PQtransactionStatus(connection->conn);

    return PQpipelineStatus(connection->conn) != PQ_PIPELINE_OFF ||
           (status != PQTRANS_IDLE && !(is_same && status == PQTRANS_INTRANS));
}

/* An error within a transaction has changed nothing: its rollback takes all of it back. */
static bool is_disturbed(const pgp_connection *connection, bool in_use)
{
    if (connection->vars.applied)
        return connection->vars.disturbed & (in_use ? ~(unsigned)DISTURBED_BY_ERROR : ~0u);
    return PQtransactionStatus(connection->conn) == PQTRANS_IDLE &&
           connection->settings->init_sql && connection->vars.disturbed & DISTURBED_BY_RESET;
}

bool pgp_pq_vars_are_set(const pgp_connection *connection, const pgp_vars *vars)
{
    const bool is_same = pgp_vars_equal(connection->vars.applied, vars);

    pgp_pq_assert_ready(connection);
    return is_same && !is_disturbed(connection, is_in_use(connection, is_same));
}

pgp_set_outcome pgp_pq_vars_set(pgp_connection *connection, const pgp_vars *vars,
                                apr_time_t until, pgp_error *error)
{
    static const char in_use_text[] =
        "a setting cannot be changed within a transaction or a query";
    static const char encoding_text[] =
        "a setting is UTF-8, but client_encoding has been changed";
    const int nonblocking = PQisnonblocking(connection->conn);
    const unsigned effects = connection->lease.effects;
    pgp_set_outcome outcome;
    bool in_use;

    pgp_pq_assert_ready(connection);
    if (pgp_pq_vars_are_set(connection, vars))
        return PGP_SET_DONE;
    if (PQstatus(connection->conn) != CONNECTION_OK)
        return set_failed(connection, error);
    in_use = is_in_use(connection, pgp_vars_equal(connection->vars.applied, vars));
    if (in_use || !pgp_pq_has_kept_encoding(connection)) {
        pgp_error_set_text(error, in_use ? in_use_text : encoding_text);
        return PGP_SET_DENIED;
    }
    if (!pgp_pq_exchange_set_nonblocking(connection))
        return set_failed(connection, error);
    outcome = vars_apply(connection, vars, until, error);
    connection->lease.effects = effects; /* the driver's own do not count */
    if (outcome == PGP_SET_FAILED)
        return outcome;
    return PQsetnonblocking(connection->conn, nonblocking) == 0 ? outcome
                                                                : set_failed(connection, error);
}
