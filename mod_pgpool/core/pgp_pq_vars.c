/* Session variables on libpq: setting, undoing, and noticing that they may be gone. */
#include "pgp_pq_vars.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

/* What results have told since the variables were set; bits of link->disturbed. */
enum {
    DISTURBED_BY_COMMAND = 1, /* a command that can change settings */
    DISTURBED_BY_ERROR = 2,   /* a statement that may have changed some before it failed */
    DISTURBED_BY_DISCARD = 4  /* PgPoolInitSQL's settings are gone as well */
};

void pgp_pq_vars_disturb(pgp_link *link, const PGresult *result)
{
    static const char *const commands[] = {"SET", "RESET", "DO", "CALL"};
    const char *tag = PQcmdStatus((PGresult *)result);
    size_t i;

    if (PQresultStatus(result) == PGRES_FATAL_ERROR)
        link->disturbed |= DISTURBED_BY_ERROR;
    else if (!strcmp(tag, "DISCARD ALL"))
        link->disturbed |= DISTURBED_BY_COMMAND | DISTURBED_BY_DISCARD;
    else
        for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
            if (!strcmp(tag, commands[i]))
                link->disturbed |= DISTURBED_BY_COMMAND;
}

static void vars_replace(pgp_link *link, const pgp_vars *vars)
{
    free(link->applied);
    link->applied = vars && vars->n ? pgp_vars_copy(vars) : NULL;
    link->role_set = pgp_vars_find(link->applied, "default_transaction_read_only") != NULL;
}

void pgp_pq_vars_forget(pgp_link *link)
{
    vars_replace(link, NULL);
    link->disturbed = 0;
}

/* Which is set after all those of a lower rank, and undone before them. */
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

/* Room for a statement that undoes one list and sets another. */
static char *sql_room(const pgp_vars *undone, const pgp_vars *set, size_t *size)
{
    int i;
    char *sql;

    *size = sizeof "SELECT " + (set ? set->n * SET_ROOM : 0);
    for (i = 0; undone && i < undone->n; i++)
        *size += SET_ROOM + strlen(undone->names[i]);
    sql = malloc(*size);
    if (!sql)
        abort();
    *sql = '\0';
    return sql;
}

static const char *separator(const char *sql, const char *end)
{
    return end == sql ? "SELECT " : ",";
}

/* Append what gives the variables down to a rank their defaults back, highest rank first. */
static char *sql_undo(char *sql, char *end, const char *stop, const pgp_vars *vars, int lowest)
{
    int rank, i;

    for (rank = RANKS - 1; rank >= lowest; rank--)
        for (i = 0; vars && i < vars->n; i++)
            if (rank_of(vars->names[i]) == rank)
                end += apr_snprintf(end, stop - end, SET_DEFAULT, separator(sql, end),
                                    vars->names[i]);
    return end;
}

/* Append what sets them; params: room for two for each. */
static char *sql_set(char *sql, char *end, const char *stop, const pgp_vars *vars,
                     const char **params)
{
    int rank, i, n = 0;

    for (rank = RANK_ANY; rank < RANKS; rank++)
        for (i = 0; i < vars->n; i++)
            if (rank_of(vars->names[i]) == rank) {
                end += apr_snprintf(end, stop - end, SET_VALUE, separator(sql, end), n + 1,
                                    n + 2);
                params[n++] = vars->names[i];
                params[n++] = vars->values[i];
            }
    return end;
}

/* The variables' defaults are the server's: what the init SQL set comes after them. */
static char *undo_message(const pgp_link *link)
{
    const char *begin = link->settings->undo_begin, *end = link->settings->undo_end;
    size_t size, whole;
    char *undo = sql_room(link->applied, NULL, &size), *message;

    sql_undo(undo, undo, undo + size, link->applied, RANK_ANY);
    whole = strlen(begin) + strlen(undo) + strlen(end) + 1;
    message = malloc(whole);
    if (!message)
        abort();
    apr_snprintf(message, whole, "%s%s%s", begin, undo, end);
    free(undo);
    return message;
}

char *pgp_pq_vars_undo_sql(const pgp_link *link)
{
    return link->applied ? undo_message(link) : NULL;
}

/* --- setting ---------------------------------------------------------------- */

static pgp_set_outcome send_failed(const pgp_link *link, pgp_error *error)
{
    pgp_error_text(error, PQerrorMessage(link->conn));
    return PGP_SET_FAILED;
}

/* One statement, so that the server sets all of them or none.  The roles among those that are
 * applied go first: what comes after them may need the login role. */
static pgp_set_outcome set_all(pgp_link *link, const pgp_vars *applied, const pgp_vars *vars,
                               apr_time_t until, pgp_error *error)
{
    const char **params = calloc(2 * vars->n, sizeof(*params));
    size_t size;
    char *sql = sql_room(applied, vars, &size), *end;
    int sent;

    if (!params)
        abort();
    end = sql_undo(sql, sql, sql + size, applied, RANK_SESSION_AUTHORIZATION);
    sql_set(sql, end, sql + size, vars, params);
    link->failed = 0;
    sent = PQsendQueryParams(link->conn, sql, 2 * vars->n, NULL, params, NULL, NULL, 0);
    free(params);
    free(sql);
    if (!sent)
        return send_failed(link, error);
    if (pgp_pq_answer_until(link, until, error))
        return PGP_SET_DONE;
    return link->failed && link->refused ? PGP_SET_DENIED : PGP_SET_FAILED;
}

static bool undo_all(pgp_link *link, apr_time_t until, pgp_error *error)
{
    char *sql = undo_message(link);
    const bool undone = pgp_pq_ask(link, sql, error) && pgp_pq_answer_until(link, until, error);

    free(sql);
    return undone;
}

/* After a denial the session is as it was before: then what was undone is set again. */
static pgp_set_outcome undo_and_set(pgp_link *link, const pgp_vars *vars, apr_time_t until,
                                    pgp_error *error)
{
    pgp_set_outcome outcome = PGP_SET_DONE;
    pgp_error unsaid;

    if (!undo_all(link, until, error))
        return PGP_SET_FAILED;
    if (vars->n)
        outcome = set_all(link, NULL, vars, until, error);
    if (outcome == PGP_SET_DENIED && link->applied &&
        set_all(link, NULL, link->applied, until, &unsaid) != PGP_SET_DONE)
        return PGP_SET_FAILED;
    return outcome;
}

/* In a transaction only what is applied already may be set: whether it commits or not, that is
 * what holds after it.  What was set before it began may come back with a rollback, so that the
 * next call sets once more. */
static pgp_set_outcome apply(pgp_link *link, const pgp_vars *vars, apr_time_t until,
                             pgp_error *error)
{
    const bool idle = PQtransactionStatus(link->conn) == PQTRANS_IDLE;
    const bool discarded = idle && link->disturbed & DISTURBED_BY_DISCARD;
    const unsigned disturbed = link->disturbed;
    pgp_set_outcome outcome;

    if (discarded || !pgp_vars_within(link->applied, vars))
        outcome = undo_and_set(link, vars, until, error);
    else
        outcome = set_all(link, link->applied, vars, until, error);
    if (outcome == PGP_SET_DONE)
        vars_replace(link, vars);
    link->disturbed = outcome == PGP_SET_DONE && idle ? 0 : disturbed;
    return outcome;
}

/* Whether variables cannot be set now, because of what the borrower has under way. */
static bool is_in_use(const pgp_link *link, bool same)
{
    const PGTransactionStatusType status = PQtransactionStatus(link->conn);

    return PQpipelineStatus(link->conn) != PQ_PIPELINE_OFF ||
           (status != PQTRANS_IDLE && !(same && status == PQTRANS_INTRANS));
}

/* An error within a transaction has changed nothing: its rollback takes all of it back. */
static bool is_disturbed(const pgp_link *link, bool in_use)
{
    if (link->applied)
        return link->disturbed & (in_use ? ~(unsigned)DISTURBED_BY_ERROR : ~0u);
    return PQtransactionStatus(link->conn) == PQTRANS_IDLE && link->settings->init_sql &&
           link->disturbed & DISTURBED_BY_DISCARD;
}

static const char in_use_text[] = "a setting cannot be changed within a transaction or a query";
static const char encoding_text[] = "a setting is UTF-8, but client_encoding has been changed";

int pgp_pq_vars_are_set(const pgp_link *link, const pgp_vars *vars)
{
    const bool same = pgp_vars_equal(link->applied, vars);

    return same && !is_disturbed(link, is_in_use(link, same));
}

pgp_set_outcome pgp_pq_vars_set(pgp_link *link, const pgp_vars *vars, apr_time_t until,
                                pgp_error *error)
{
    const bool same = pgp_vars_equal(link->applied, vars), in_use = is_in_use(link, same);
    const int nonblocking = PQisnonblocking(link->conn);
    const unsigned deeds = link->deeds;
    pgp_set_outcome outcome;

    if (pgp_pq_vars_are_set(link, vars))
        return PGP_SET_DONE;
    if (PQstatus(link->conn) != CONNECTION_OK)
        return send_failed(link, error);
    if (in_use || PQclientEncoding(link->conn) != link->encoding) {
        pgp_error_text(error, in_use ? in_use_text : encoding_text);
        return PGP_SET_DENIED;
    }
    if (!pgp_pq_nonblocking(link))
        return send_failed(link, error);
    outcome = apply(link, vars, until, error);
    link->deeds = deeds; /* the borrower's; ours do not count */
    if (outcome == PGP_SET_FAILED)
        return outcome;
    return PQsetnonblocking(link->conn, nonblocking) == 0 ? outcome : send_failed(link, error);
}
