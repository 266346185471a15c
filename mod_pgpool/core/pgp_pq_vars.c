/* Session variables on libpq: setting, undoing, and noticing that they may be gone. */

#include "pgp_pq_vars.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "pgp_alloc.h"

/* Changes that results have told of since the variables were set; bits of link->vars.disturbed.
 */
enum {
    DISTURBED_BY_COMMAND = 1, /* a command that can change settings */
    DISTURBED_BY_ERROR = 2,   /* a statement that may have changed some before it failed */
    DISTURBED_BY_DISCARD = 4  /* PgPoolInitSQL's settings are gone as well */
};

void pgp_pq_vars_disturb(pgp_connection *link, const PGresult *result)
{
    static const char *const commands[] = {"SET", "RESET", "DO", "CALL"};
    const char *tag = PQcmdStatus((PGresult *)result);
    size_t i;

    if (PQresultStatus(result) == PGRES_FATAL_ERROR)
        link->vars.disturbed |= DISTURBED_BY_ERROR;
    else if (!strcmp(tag, "DISCARD ALL"))
        link->vars.disturbed |= DISTURBED_BY_COMMAND | DISTURBED_BY_DISCARD;
    else
        for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
            if (!strcmp(tag, commands[i]))
                link->vars.disturbed |= DISTURBED_BY_COMMAND;
}

static void applied_replace(pgp_connection *link, const pgp_vars *vars)
{
    free(link->vars.applied);
    link->vars.applied = vars && vars->n ? pgp_vars_copy(vars) : NULL;
    link->vars.hide_role = pgp_vars_find(link->vars.applied, "default_transaction_read_only") !=
                           NULL;
}

void pgp_pq_vars_forget(pgp_connection *link)
{
    applied_replace(link, NULL);
    link->vars.disturbed = 0;
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

/* Append what gives variables their defaults back: the highest rank first, down to `lowest`. */
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

/* Append what sets variables; params: room for two for each. */
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

/* The variables' defaults are the server's, so what PgPoolInitSQL sets comes after them. */
static char *undo_message(const pgp_connection *link)
{
    const char *begin = link->settings->undo_begin, *end = link->settings->undo_end;
    size_t size, whole;
    char *undo = sql_alloc(link->vars.applied, NULL, &size), *message;

    sql_append_undo(undo, undo, undo + size, link->vars.applied, RANK_ANY);
    whole = strlen(begin) + strlen(undo) + strlen(end) + 1;
    message = pgp_alloc(whole);
    apr_snprintf(message, whole, "%s%s%s", begin, undo, end);
    free(undo);
    return message;
}

char *pgp_pq_vars_undo_sql(const pgp_connection *link)
{
    return link->vars.applied ? undo_message(link) : NULL;
}

/* --- setting ---------------------------------------------------------------- */

static pgp_set_outcome set_failed(const pgp_connection *link, pgp_error *error)
{
    pgp_pq_error_last(error, link);
    return PGP_SET_FAILED;
}

/* Set variables by one statement, so that the server sets all of them or none.  The roles among
 * `applied` go first: what comes after them may need the login role. */
static pgp_set_outcome vars_send(pgp_connection *link, const pgp_vars *applied,
                                 const pgp_vars *vars, apr_time_t until, pgp_error *error)
{
    const char **params = pgp_alloc(2 * vars->n * sizeof(*params));
    size_t size;
    char *sql = sql_alloc(applied, vars, &size), *end;
    int sent;

    end = sql_append_undo(sql, sql, sql + size, applied, RANK_SESSION_AUTHORIZATION);
    sql_append_set(sql, end, sql + size, vars, params);
    link->exchange.failed = false;
    sent = PQsendQueryParams(link->conn, sql, 2 * vars->n, NULL, params, NULL, NULL, 0);
    free(params);
    free(sql);
    if (!sent)
        return set_failed(link, error);
    if (pgp_pq_exchange_receive_until(link, until, error))
        return PGP_SET_DONE;
    return link->exchange.failed && link->exchange.rejected ? PGP_SET_DENIED : PGP_SET_FAILED;
}

/* Undo all that is applied, then set variables.  A denial leaves the session as it was before,
 * so what was undone is set again then. */
static pgp_set_outcome undo_and_set(pgp_connection *link, const pgp_vars *vars,
                                    apr_time_t until, pgp_error *error)
{
    pgp_set_outcome outcome = PGP_SET_DONE;
    char *sql = undo_message(link);
    const bool is_undone = pgp_pq_exchange_send(link, sql, error) &&
                           pgp_pq_exchange_receive_until(link, until, error);
    pgp_error unsaid;

    free(sql);
    if (!is_undone)
        return PGP_SET_FAILED;
    if (vars->n)
        outcome = vars_send(link, NULL, vars, until, error);
    if (outcome == PGP_SET_DENIED && link->vars.applied &&
        vars_send(link, NULL, link->vars.applied, until, &unsaid) != PGP_SET_DONE)
        return PGP_SET_FAILED;
    return outcome;
}

/* In a transaction only what is applied already may be set: it holds afterwards, whether the
 * transaction commits or not.  A rollback may bring back what was set before it began, so the
 * connection stays disturbed, and the next call sets once more. */
static pgp_set_outcome vars_apply(pgp_connection *link, const pgp_vars *vars, apr_time_t until,
                                  pgp_error *error)
{
    const bool is_idle = PQtransactionStatus(link->conn) == PQTRANS_IDLE;
    const bool is_discarded = is_idle && link->vars.disturbed & DISTURBED_BY_DISCARD;
    const unsigned disturbed = link->vars.disturbed;
    pgp_set_outcome outcome;

    if (is_discarded || !pgp_vars_within(link->vars.applied, vars))
        outcome = undo_and_set(link, vars, until, error);
    else
        outcome = vars_send(link, link->vars.applied, vars, until, error);
    if (outcome == PGP_SET_DONE)
        applied_replace(link, vars);
    link->vars.disturbed = outcome == PGP_SET_DONE && is_idle ? 0 : disturbed;
    return outcome;
}

/* Whether variables cannot be set now, because of what the borrower has under way.  is_same:
 * they are those that are applied. */
static bool is_in_use(const pgp_connection *link, bool is_same)
{
    const PGTransactionStatusType status = PQtransactionStatus(link->conn);

    return PQpipelineStatus(link->conn) != PQ_PIPELINE_OFF ||
           (status != PQTRANS_IDLE && !(is_same && status == PQTRANS_INTRANS));
}

/* An error within a transaction has changed nothing: its rollback takes all of it back. */
static bool is_disturbed(const pgp_connection *link, bool in_use)
{
    if (link->vars.applied)
        return link->vars.disturbed & (in_use ? ~(unsigned)DISTURBED_BY_ERROR : ~0u);
    return PQtransactionStatus(link->conn) == PQTRANS_IDLE && link->settings->init_sql &&
           link->vars.disturbed & DISTURBED_BY_DISCARD;
}

bool pgp_pq_vars_are_set(const pgp_connection *link, const pgp_vars *vars)
{
    const bool is_same = pgp_vars_equal(link->vars.applied, vars);

    pgp_pq_assert_ready(link);
    return is_same && !is_disturbed(link, is_in_use(link, is_same));
}

pgp_set_outcome pgp_pq_vars_set(pgp_connection *link, const pgp_vars *vars, apr_time_t until,
                                pgp_error *error)
{
    static const char in_use_text[] =
        "a setting cannot be changed within a transaction or a query";
    static const char encoding_text[] =
        "a setting is UTF-8, but client_encoding has been changed";
    const int nonblocking = PQisnonblocking(link->conn);
    const unsigned effects = link->lease.effects;
    pgp_set_outcome outcome;
    bool in_use;

    pgp_pq_assert_ready(link);
    if (pgp_pq_vars_are_set(link, vars))
        return PGP_SET_DONE;
    if (PQstatus(link->conn) != CONNECTION_OK)
        return set_failed(link, error);
    in_use = is_in_use(link, pgp_vars_equal(link->vars.applied, vars));
    if (in_use || !pgp_pq_has_kept_encoding(link)) {
        pgp_error_text(error, in_use ? in_use_text : encoding_text);
        return PGP_SET_DENIED;
    }
    if (!pgp_pq_exchange_set_nonblocking(link))
        return set_failed(link, error);
    outcome = vars_apply(link, vars, until, error);
    link->lease.effects = effects; /* the driver's own do not count */
    if (outcome == PGP_SET_FAILED)
        return outcome;
    return PQsetnonblocking(link->conn, nonblocking) == 0 ? outcome : set_failed(link, error);
}
