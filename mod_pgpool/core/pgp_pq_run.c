/* Runs one statement on a borrowed connection. */

#include "pgp_pq_run.h"

#include <string.h>
#include <sys/socket.h>
#include <apr_strings.h>

#include "pgp_pq.h"
#include "pgp_pq_effects.h"

/* --- the phases' messages --------------------------------------------------- */

static bool close_send(PGconn *conn, const char *name)
{
#ifdef LIBPQ_HAS_CLOSE_PREPARED
    return PQsendClosePrepared(conn, name);
#else
    char sql[48];

    apr_snprintf(sql, sizeof sql, "DEALLOCATE %s", name);
    return PQsendQuery(conn, sql);
#endif
}

static pgp_pq_statement *statement_find(const pgp_pq_run *run)
{
    return pgp_pq_statements_find(&run->connection->statements, &run->query->key);
}

/* Whether the session has as many statements as it may. */
static bool is_full(const pgp_pq_run *run)
{
    return run->connection->statements.count >= run->connection->settings->statements;
}

static bool room_make(pgp_pq_run *run)
{
    pgp_pq_statements *list = &run->connection->statements;
    pgp_pq_statement *oldest = pgp_pq_statements_oldest(list);
    const bool is_sent = close_send(run->connection->conn, oldest->name);

    pgp_pq_statements_drop(list, oldest);
    run->phase = PGP_RUN_MAKING_ROOM;
    return is_sent;
}

/* Put the statement on the list, and prepare it.  prepare_forget() takes it off again if the
 * server refuses it. */
static bool prepare_send(pgp_pq_run *run)
{
    const pgp_pq_statement_key *key = &run->query->key;
    const pgp_pq_statement *made = pgp_pq_statements_add(&run->connection->statements, key);

    run->phase = PGP_RUN_PREPARING;
    return PQsendPrepare(run->connection->conn, made->name, key->sql, key->nparams, key->types);
}

/* Take the statement off the list again: the server may never have prepared it. */
static void prepare_forget(pgp_pq_run *run)
{
    pgp_pq_statement *asked = statement_find(run);

    if (run->phase == PGP_RUN_PREPARING && asked)
        pgp_pq_statements_drop(&run->connection->statements, asked);
}

/* statement: the prepared statement to execute; NULL: send the text. */
static bool execute_send(pgp_pq_run *run, const pgp_pq_statement *statement)
{
    const pgp_pq_query *query = run->query;
    const pgp_pq_statement_key *key = &query->key;
    PGconn *conn = run->connection->conn;
    bool is_sent;

    if (statement)
        is_sent = PQsendQueryPrepared(conn, statement->name, key->nparams, query->values,
                                      query->lengths, query->formats, query->result_format);
    else if (key->nparams < 0)
        is_sent = PQsendQuery(conn, key->sql);
    else
        is_sent = PQsendQueryParams(conn, key->sql, key->nparams, key->types, query->values,
                                    query->lengths, query->formats, query->result_format);
    run->phase = PGP_RUN_EXECUTING;
    run->is_prepared = statement != NULL;
    /* Not libpq 17's chunks of rows: libpq keeps a row back until its chunk is full. */
    if (is_sent && query->by_rows)
        PQsetSingleRowMode(conn);
    return is_sent;
}

static bool first_send(pgp_pq_run *run, bool is_in_transaction)
{
    const bool is_text = run->query->key.nparams < 0;
    const bool may_prepare = !is_text && run->connection->settings->statements;
    const pgp_pq_statement *known = may_prepare ? statement_find(run) : NULL;

    run->was_prepared = known != NULL;
    if (known || !may_prepare || (is_full(run) && is_in_transaction))
        return execute_send(run, known);
    return is_full(run) ? room_make(run) : prepare_send(run);
}

/* --- from phase to phase ---------------------------------------------------- */

static void last_clear(pgp_pq_run *run)
{
    PQclear(run->last);
    run->last = NULL;
}

/* Whether the server has refused to execute the statement because its session has lost it, or
 * cannot execute it any more.  If so, correct the list.  Such an error has no context, while an
 * error from inside of a function has one; the name of the server's own function tells it from
 * other errors with SQLSTATE 0A000. */
static bool refusal_handle(pgp_pq_run *run)
{
    pgp_pq_statements *list = &run->connection->statements;
    const PGresult *error = run->last;
    pgp_pq_statement *statement;

    if (!run->is_prepared || PQresultErrorField(error, PG_DIAG_CONTEXT))
        return false;
    if (pgp_pq_error_has_field(error, PG_DIAG_SQLSTATE,
                               "26000")) { /* invalid_sql_statement_name */
        pgp_pq_statements_forget(list);
        return true;
    }
    if (!pgp_pq_error_has_field(error, PG_DIAG_SQLSTATE, "0A000") ||
        !pgp_pq_error_has_field(error, PG_DIAG_SOURCE_FUNCTION, "RevalidateCachedQuery"))
        return false;
    statement = statement_find(run);
    if (statement)
        pgp_pq_statements_outdate(list, statement);
    return true;
}

/* Go on to the next phase.  false: there is none, or libpq cannot send its message. */
static bool phase_next(pgp_pq_run *run)
{
    switch (run->phase) {
    case PGP_RUN_MAKING_ROOM:
        last_clear(run);
        return prepare_send(run);
    case PGP_RUN_PREPARING:
        if (PQresultStatus(run->last) != PGRES_COMMAND_OK) {
            prepare_forget(run);
            return false;
        }
        last_clear(run);
        return execute_send(run, statement_find(run));
    case PGP_RUN_EXECUTING:
        if (!refusal_handle(run) || !run->may_repeat)
            return false;
        run->may_repeat = false;
        last_clear(run);
        return is_full(run) ? room_make(run) : prepare_send(run);
    }
    return false;
}

/* The last result is the caller's.  Without one libpq has refused to send, and says why. */
static PGresult *run_end(pgp_pq_run *run)
{
    PGconn *conn = run->connection->conn;
    PGresult *last = run->last;

    run->connection->is_preparing = false;
    run->last = NULL;
    PQsetnonblocking(conn, run->was_nonblocking);
    if (PQstatus(conn) == CONNECTION_OK)
        return last ? last : PQmakeEmptyPGresult(conn, PGRES_FATAL_ERROR);
    if (last && PQresultStatus(last) == PGRES_FATAL_ERROR)
        pgp_pq_error_note_end(run->connection, last);
    PQclear(last);
    return NULL;
}

/* --- the caller's side ------------------------------------------------------ */

/* The bytes of the text and its values, as libpq's buffer takes them. */
static size_t query_size(const pgp_pq_query *query)
{
    size_t size = strlen(query->key.sql);
    int i;

    for (i = 0; i < query->key.nparams; i++)
        if (query->values[i])
            size += query->formats && query->formats[i] ? (size_t)query->lengths[i]
                                                        : strlen(query->values[i]);
    return size;
}

bool pgp_pq_run_begin(pgp_pq_run *run, PGconn *conn, const pgp_pq_query *query)
{
    const PGTransactionStatusType transaction = PQtransactionStatus(conn);

    if (transaction == PQTRANS_ACTIVE || PQpipelineStatus(conn) != PQ_PIPELINE_OFF)
        return false;
    *run = (pgp_pq_run){.connection = pgp_pq_callbacks_connection(conn),
                        .query = query,
                        .was_nonblocking = PQisnonblocking(conn),
                        .may_repeat = transaction == PQTRANS_IDLE};
    pgp_pq_effects_measure(run->connection, query_size(query));
    if (PQsetnonblocking(conn, 1) == 0)
        first_send(run, transaction != PQTRANS_IDLE);
    run->connection->is_preparing = run->phase != PGP_RUN_EXECUTING;
    return true;
}

/* A phase's first error counts, else its last result. */
static void last_keep(pgp_pq_run *run, PGresult *result)
{
    if (run->last && PQresultStatus(run->last) == PGRES_FATAL_ERROR) {
        PQclear(result);
        return;
    }
    PQclear(run->last);
    run->last = result;
}

pgp_pq_run_state pgp_pq_run_step(pgp_pq_run *run, PGresult **result, struct pollfd *await)
{
    PGconn *conn = run->connection->conn;
    int unsent = PQflush(conn);

    /* Use up the rows that have come before reading more: to read with each row would take
     * memory for the whole result.  Do not read before the first wait: nothing has come yet. */
    if (unsent < 0 || (run->has_waited && PQisBusy(conn) && !PQconsumeInput(conn))) {
        *result = run_end(run);
        return PGP_RUN_DONE;
    }
    while (!PQisBusy(conn)) {
        *result = PQgetResult(conn);
        switch (PQresultStatus(*result)) {
        case PGRES_SINGLE_TUPLE:
            return PGP_RUN_ROWS;
        case PGRES_COPY_IN:
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH:
            return PGP_RUN_COPY;
        default:
            break;
        }
        if (*result) {
            last_keep(run, *result);
            continue;
        }
        if (!phase_next(run)) {
            *result = run_end(run);
            return PGP_RUN_DONE;
        }
        run->connection->is_preparing = run->phase != PGP_RUN_EXECUTING;
        unsent = PQflush(conn);
    }
    run->has_waited = true;
    *await = pgp_pq_exchange_await(run->connection, unsent != 0);
    return PGP_RUN_WAIT;
}

void pgp_pq_run_forget(pgp_pq_run *run)
{
    last_clear(run);
}

void pgp_pq_run_abandon(pgp_pq_run *run)
{
    last_clear(run);
    prepare_forget(run);
    run->connection->is_preparing = false;
}

void pgp_pq_run_shutdown(pgp_pq_run *run, const char *why)
{
    pgp_pq_run_abandon(run);
    pgp_pq_cleanup_abandon(run->connection);
    pgp_pq_exchange_shutdown(run->connection, why);
}
