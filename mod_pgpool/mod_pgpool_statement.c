/*
 * Runs a statement for a request (mod_pgpool_statement.h).
 */
#include "mod_pgpool_statement.h"

#include <apr_strings.h>
#include <http_log.h>

#include "core/pgp_pq_driver.h"
#include "core/pgp_pq_run.h"
#include "mod_pgpool_api.h"
#include "mod_pgpool_client.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_execute.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_outcome.h"
#include "mod_pgpool_pin.h"
#include "mod_pgpool_request.h"
#include "mod_pgpool_sqlstate.h"

APLOG_USE_MODULE(pgpool);

/* So much of the SQL stands in the log. */
#define SQL_SHOWN 100

/* While rows come without a pause, the client is looked at this often. */
#define LOOK_STEP PGP_MS(100)

/* One call of pgpool_query() or pgpool_query_rows(). */
typedef struct {
    request_rec *r;
    const char *pool; /* as the caller has named it */
    pgpool_pin *pin;
    bool is_borrowed;   /* this call has borrowed the connection */
    apr_uint64_t lease; /* of that connection */
    pgp_pq_query query;
    pgp_pq_run run;
    pgpool_client client;
    apr_interval_time_t timeout; /* or PGP_NEVER */
    apr_time_t until;
    apr_time_t next_look; /* when to look at the client next, if rows come without a pause */
    pgpool_row_fn fn;     /* NULL: the caller wants the whole result */
    void *baton;
    bool has_rows; /* fn has been called */
} query_call;

/* --- how it ends ------------------------------------------------------------ */

static apr_status_t call_fail(const query_call *call, int level, apr_status_t rv,
                              const char *cause)
{
    const char *text = apr_psprintf(call->r->pool, "pool %s: backend %u: %s",
                                    pgp_pool_name(call->pin->pool->core),
                                    pgp_slot_backend(call->pin->slot), cause);

    pgpool_note_error(call->r, text);
    ap_log_rerror(APLOG_MARK, level, 0, call->r, "PGP%d: %s; the statement: %.*s",
                  PGP_MSG_STATEMENT, text, SQL_SHOWN, call->query.key.sql);
    return rv;
}

static void deadline_report(const query_call *call)
{
    call_fail(
        call, APLOG_ERR, PGPOOL_ETIMEDOUT,
        apr_psprintf(call->r->pool,
                     "no end of the statement within PgPoolStatementTimeout (%" APR_TIME_T_FMT
                     " ms): it is cancelled",
                     call->timeout / 1000));
}

static const char *shutdown_cause(apr_status_t rv)
{
    switch (rv) {
    case PGPOOL_ETIMEDOUT:
        return "its statement had no end within PgPoolStatementTimeout";
    case PGPOOL_EABORTED:
        return "the client has gone during its statement";
    default:
        return "its statement was ended before its last row";
    }
}

/* Whether the pin still holds the connection that the statement runs on.  An output filter that
 * the rows pass may acquire as well.  If the connection has died, the filter's acquire finds
 * out, and the pin gives the connection up or holds another one. */
static bool connection_is_held(const query_call *call)
{
    return call->pin->slot && pgp_slot_lease_id(call->pin->slot) == call->lease;
}

/* Leave with the statement under way.  A connection that the request had before is shut down,
 * since somebody may still have its PGconn. */
static apr_status_t statement_abandon(query_call *call, apr_status_t rv)
{
    if (!connection_is_held(call)) {
        pgp_pq_run_forget(&call->run);
        return rv;
    }
    if (rv == PGPOOL_ETIMEDOUT) {
        pgp_slot_set_cancel(call->pin->slot, PGP_CANCEL_DEADLINE);
        deadline_report(call);
    }
    if (rv == PGPOOL_EABORTED) {
        pgp_slot_set_cancel(call->pin->slot, PGP_CANCEL_HANG_UP);
        call_fail(call, APLOG_INFO, rv, "the client has gone: the statement is cancelled");
        pgpool_client_stop_output(call->r);
    }
    if (call->is_borrowed) {
        pgp_pq_run_abandon(&call->run);
        pgpool_release(call->r, call->pool);
    }
    else
        pgp_pq_run_shutdown(&call->run, shutdown_cause(rv));
    return rv;
}

/* The SQLSTATE tells a client's mistake (a status below 500), which must not fill the log. */
static apr_status_t refusal_report(query_call *call, const PGresult *error)
{
    const char *sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(error, PG_DIAG_MESSAGE_PRIMARY);
    pgpool_request *kept = pgpool_request_of(pgpool_request_initial(call->r));

    apr_cpystrn(kept->sqlstate, sqlstate ? sqlstate : "", sizeof kept->sqlstate);
    return call_fail(call, pgpool_sqlstate_http(kept->sqlstate) < 500 ? APLOG_INFO : APLOG_ERR,
                     PGPOOL_ESTATEMENT,
                     apr_psprintf(call->r->pool,
                                  "the server refused the statement: SQLSTATE %s: %s",
                                  sqlstate ? sqlstate : "none",
                                  message ? message : PQresultErrorMessage(error)));
}

static apr_status_t result_finish(query_call *call, PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        return APR_SUCCESS;
    case PGRES_TUPLES_OK:
        return call->fn && (PQntuples(result) || !call->has_rows)
                   ? call->fn(call->baton, result)
                   : APR_SUCCESS;
    default:
        return refusal_report(call, result);
    }
}

/* --- running ---------------------------------------------------------------- */

/* Sleep until there is something to do. */
static apr_status_t statement_await(query_call *call, struct pollfd server)
{
    apr_interval_time_t patience = pgpool_client_patience(&call->client);
    struct pollfd fds[] = {server, call->client.socket};

    if (call->timeout != PGP_NEVER) {
        const apr_interval_time_t left = call->until - pgp_now(pgpool_child_env());

        if (left <= 0)
            return PGPOOL_ETIMEDOUT;
        if (patience == PGP_NEVER || left < patience)
            patience = left;
    }
    poll(fds, 2, patience == PGP_NEVER ? -1 : (int)((patience + 999) / 1000));
    call->client.socket.revents = fds[1].revents;
    return pgpool_client_has_gone(&call->client) ? PGPOOL_EABORTED : APR_SUCCESS;
}

/* The server may be so fast that the thread never sleeps between rows. */
static apr_status_t limits_check(query_call *call)
{
    const apr_time_t now = pgp_now(pgpool_child_env());

    if (call->timeout != PGP_NEVER && now >= call->until)
        return PGPOOL_ETIMEDOUT;
    if (now < call->next_look)
        return APR_SUCCESS;
    call->next_look = now + LOOK_STEP;
    poll(&call->client.socket, 1, 0);
    return pgpool_client_has_gone(&call->client) ? PGPOOL_EABORTED : APR_SUCCESS;
}

static apr_status_t rows_hand_out(query_call *call, PGresult *rows)
{
    const apr_status_t rv = call->fn(call->baton, rows);

    call->has_rows = true;
    PQclear(rows);
    if (rv != APR_SUCCESS)
        return rv;
    return connection_is_held(call) ? limits_check(call) : PGPOOL_ELOST;
}

/* *result is set only if the statement has ended. */
static apr_status_t statement_run(query_call *call, PGresult **result)
{
    apr_status_t rv = APR_SUCCESS;
    PGresult *got;
    struct pollfd server;

    while (rv == APR_SUCCESS)
        switch (pgp_pq_run_step(&call->run, &got, &server)) {
        case PGP_RUN_WAIT:
            rv = statement_await(call, server);
            break;
        case PGP_RUN_ROWS:
            rv = rows_hand_out(call, got);
            break;
        case PGP_RUN_COPY:
            PQclear(got);
            rv = call_fail(call, APLOG_ERR, PGPOOL_ESTATEMENT,
                           "COPY is no statement for pgpool_query");
            break;
        case PGP_RUN_DONE:
            *result = got;
            return got ? APR_SUCCESS : pgpool_pin_report_loss(call->r, call->pin);
        }
    return statement_abandon(call, rv);
}

static apr_status_t result_cleanup(void *result)
{
    PQclear(result);
    return APR_SUCCESS;
}

/* Acquire the request's connection, and begin the run. */
static apr_status_t call_begin(query_call *call, const pgpool_statement *st,
                               const pgpool_params *params)
{
    const pgpool_dir_conf *dir = ap_get_module_config(call->r->per_dir_config, &pgpool_module);
    PGconn *conn;
    apr_status_t rv;

    call->pin = pgpool_pin_of(call->r, call->pool);
    call->is_borrowed = !call->pin || !call->pin->slot;
    rv = pgpool_acquire(call->r, call->pool, &conn);
    if (rv != APR_SUCCESS)
        return rv;
    call->pin = pgpool_pin_of(call->r, call->pool);
    call->lease = pgp_slot_lease_id(call->pin->slot);
    pgpool_request_of(pgpool_request_initial(call->r))->sqlstate[0] = '\0';
    call->query = pgpool_execute_compose(st, params);
    call->query.by_rows = call->fn != NULL;
    call->client = pgpool_client_watch(call->r, dir->abort != PGPOOL_ABORT_IGNORE);
    call->timeout = pgpool_config_statement_timeout(dir);
    call->until = pgp_now(pgpool_child_env()) + call->timeout;
    if (!pgp_pq_driver_speaks_utf8(conn))
        return call_fail(
            call, APLOG_ERR, PGPOOL_EUNAVAIL,
            "another handler of the request has changed client_encoding, so that the "
            "values would be misread");
    if (!pgp_pq_run_begin(&call->run, conn, &call->query))
        return call_fail(call, APLOG_ERR, PGPOOL_EUNAVAIL,
                         "the request has another query under way on its connection");
    pgp_slot_count_statement(call->pin->slot, call->run.was_prepared);
    return APR_SUCCESS;
}

static apr_status_t call_run(query_call *call, const pgpool_statement *st,
                             const pgpool_params *params, PGresult **result)
{
    apr_status_t rv = call_begin(call, st, params);

    *result = NULL;
    if (rv == APR_SUCCESS)
        rv = statement_run(call, result);
    if (*result)
        apr_pool_cleanup_register(call->r->pool, *result, result_cleanup,
                                  apr_pool_cleanup_null);
    return rv == APR_SUCCESS ? result_finish(call, *result) : rv;
}

apr_status_t pgpool_query(request_rec *r, const char *pool, const pgpool_statement *st,
                          const pgpool_params *params, PGresult **result)
{
    query_call call = {.r = r, .pool = pool};

    return call_run(&call, st, params, result);
}

apr_status_t pgpool_query_rows(request_rec *r, const char *pool, const pgpool_statement *st,
                               const pgpool_params *params, pgpool_row_fn fn, void *baton)
{
    query_call call = {.r = r, .pool = pool, .fn = fn, .baton = baton};
    PGresult *last;

    return call_run(&call, st, params, &last);
}

const char *pgpool_statement_sqlstate(request_rec *r)
{
    return pgpool_request_of(pgpool_request_initial(r))->sqlstate;
}
