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

/* One call's part in what the functions below do. */
typedef struct {
    request_rec *r;
    const char *pool; /* as the caller has said it */
    pgpool_pin *pin;
    bool is_borrowed; /* this call has borrowed the connection */
    pgp_pq_query query;
    pgp_pq_run run;
    pgpool_client client;
    apr_interval_time_t timeout; /* or PGP_NEVER */
    apr_time_t until;
    apr_time_t look_at; /* when to look at the client next, if rows come without a pause */
    pgpool_row_fn fn;   /* NULL: the caller wants the whole result */
    void *baton;
    bool has_rows; /* fn has been called */
} task;

/* --- how it ends ------------------------------------------------------------ */

static apr_status_t fail(const task *t, int level, apr_status_t rv, const char *cause)
{
    const char *text = apr_psprintf(t->r->pool, "pool %s: backend %u: %s",
                                    pgp_pool_name(t->pin->pool->core),
                                    pgp_slot_backend(t->pin->slot), cause);

    pgpool_note_error(t->r, text);
    ap_log_rerror(APLOG_MARK, level, 0, t->r, "PGP%d: %s; the statement: %.*s",
                  PGP_MSG_STATEMENT, text, SQL_SHOWN, t->query.key.sql);
    return rv;
}

static void tell_deadline(const task *t)
{
    fail(t, APLOG_ERR, PGPOOL_ETIMEDOUT,
         apr_psprintf(t->r->pool,
                      "no end of the statement within PgPoolStatementTimeout (%" APR_TIME_T_FMT
                      " ms): it is cancelled",
                      t->timeout / 1000));
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

/* Leave with the statement under way.  A connection that the request had before is shut down,
 * since somebody may still have its PGconn. */
static apr_status_t abandon(task *t, apr_status_t rv)
{
    if (rv == PGPOOL_ETIMEDOUT) {
        pgp_slot_set_cancel(t->pin->slot, PGP_CANCEL_DEADLINE);
        tell_deadline(t);
    }
    if (rv == PGPOOL_EABORTED) {
        pgp_slot_set_cancel(t->pin->slot, PGP_CANCEL_HANG_UP);
        fail(t, APLOG_INFO, rv, "the client has gone: the statement is cancelled");
        pgpool_client_leave(t->r);
    }
    if (t->is_borrowed) {
        pgp_pq_run_abandon(&t->run);
        pgpool_release(t->r, t->pool);
    }
    else
        pgp_pq_run_shutdown(&t->run, shutdown_cause(rv));
    return rv;
}

/* The server tells the client's mistakes from its own; a client must not fill the log. */
static apr_status_t refused(task *t, const PGresult *error)
{
    const char *sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(error, PG_DIAG_MESSAGE_PRIMARY);
    pgpool_request *kept = pgpool_request_of(pgpool_request_initial(t->r));

    apr_cpystrn(kept->sqlstate, sqlstate ? sqlstate : "", sizeof kept->sqlstate);
    return fail(t, pgpool_sqlstate_http(kept->sqlstate) < 500 ? APLOG_INFO : APLOG_ERR,
                PGPOOL_ESTATEMENT,
                apr_psprintf(t->r->pool, "the server refused the statement: SQLSTATE %s: %s",
                             sqlstate ? sqlstate : "none",
                             message ? message : PQresultErrorMessage(error)));
}

static apr_status_t ended(task *t, PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        return APR_SUCCESS;
    case PGRES_TUPLES_OK:
        return t->fn && (PQntuples(result) || !t->has_rows) ? t->fn(t->baton, result)
                                                            : APR_SUCCESS;
    default:
        return refused(t, result);
    }
}

/* --- running ---------------------------------------------------------------- */

/* Sleep until there is something to do. */
static apr_status_t sleep_for(task *t, struct pollfd server)
{
    apr_interval_time_t patience = pgpool_client_patience(&t->client);
    struct pollfd fds[] = {server, t->client.socket};

    if (t->timeout != PGP_NEVER) {
        const apr_interval_time_t left = t->until - pgp_now(pgpool_child_env());

        if (left <= 0)
            return PGPOOL_ETIMEDOUT;
        if (patience == PGP_NEVER || left < patience)
            patience = left;
    }
    poll(fds, 2, patience == PGP_NEVER ? -1 : (int)((patience + 999) / 1000));
    t->client.socket.revents = fds[1].revents;
    return pgpool_client_has_gone(&t->client) ? PGPOOL_EABORTED : APR_SUCCESS;
}

/* The server may be so fast that the thread never sleeps between rows. */
static apr_status_t look_around(task *t)
{
    const apr_time_t now = pgp_now(pgpool_child_env());

    if (t->timeout != PGP_NEVER && now >= t->until)
        return PGPOOL_ETIMEDOUT;
    if (now < t->look_at)
        return APR_SUCCESS;
    t->look_at = now + LOOK_STEP;
    poll(&t->client.socket, 1, 0);
    return pgpool_client_has_gone(&t->client) ? PGPOOL_EABORTED : APR_SUCCESS;
}

static apr_status_t rows_hand_out(task *t, PGresult *rows)
{
    const apr_status_t rv = t->fn(t->baton, rows);

    t->has_rows = true;
    PQclear(rows);
    return rv == APR_SUCCESS ? look_around(t) : rv;
}

/* *result is set if the run has an end. */
static apr_status_t run(task *t, PGresult **result)
{
    apr_status_t rv = APR_SUCCESS;
    PGresult *got;
    struct pollfd server;

    while (rv == APR_SUCCESS)
        switch (pgp_pq_run_step(&t->run, &got, &server)) {
        case PGP_RUN_WAIT:
            rv = sleep_for(t, server);
            break;
        case PGP_RUN_ROWS:
            rv = rows_hand_out(t, got);
            break;
        case PGP_RUN_COPY:
            PQclear(got);
            rv = fail(t, APLOG_ERR, PGPOOL_ESTATEMENT, "COPY is no statement for pgpool_query");
            break;
        case PGP_RUN_DONE:
            *result = got;
            return got ? APR_SUCCESS : pgpool_pin_lose(t->r, t->pin);
        }
    return abandon(t, rv);
}

static apr_status_t clear_result(void *result)
{
    PQclear(result);
    return APR_SUCCESS;
}

/* The connection of the request, and everything that the run needs. */
static apr_status_t task_begin(task *t, const pgpool_statement *st, const pgpool_params *params)
{
    const pgpool_dir_conf *dir = ap_get_module_config(t->r->per_dir_config, &pgpool_module);
    PGconn *conn;
    apr_status_t rv;

    t->pin = pgpool_pin_of(t->r, t->pool);
    t->is_borrowed = !t->pin || !t->pin->slot;
    rv = pgpool_acquire(t->r, t->pool, &conn);
    if (rv != APR_SUCCESS)
        return rv;
    t->pin = pgpool_pin_of(t->r, t->pool);
    pgpool_request_of(pgpool_request_initial(t->r))->sqlstate[0] = '\0';
    t->query = pgpool_query_make(st, params);
    t->query.by_rows = t->fn != NULL;
    t->client = pgpool_client_watch(t->r, dir->abort != PGPOOL_ABORT_IGNORE);
    t->timeout = pgpool_config_statement_timeout(dir);
    t->until = pgp_now(pgpool_child_env()) + t->timeout;
    if (!pgp_pq_driver_speaks_utf8(conn))
        return fail(t, APLOG_ERR, PGPOOL_EUNAVAIL,
                    "another handler of the request has changed client_encoding, so that the "
                    "values would be misread");
    if (!pgp_pq_run_begin(&t->run, conn, &t->query))
        return fail(t, APLOG_ERR, PGPOOL_EUNAVAIL,
                    "the request has another query under way on its connection");
    pgp_slot_count_statement(t->pin->slot, t->run.was_prepared);
    return APR_SUCCESS;
}

static apr_status_t task_run(task *t, const pgpool_statement *st, const pgpool_params *params,
                             PGresult **result)
{
    apr_status_t rv = task_begin(t, st, params);

    *result = NULL;
    if (rv == APR_SUCCESS)
        rv = run(t, result);
    if (*result)
        apr_pool_cleanup_register(t->r->pool, *result, clear_result, apr_pool_cleanup_null);
    return rv == APR_SUCCESS ? ended(t, *result) : rv;
}

apr_status_t pgpool_query(request_rec *r, const char *pool, const pgpool_statement *st,
                          const pgpool_params *params, PGresult **result)
{
    task t = {.r = r, .pool = pool};

    return task_run(&t, st, params, result);
}

apr_status_t pgpool_query_rows(request_rec *r, const char *pool, const pgpool_statement *st,
                               const pgpool_params *params, pgpool_row_fn fn, void *baton)
{
    task t = {.r = r, .pool = pool, .fn = fn, .baton = baton};
    PGresult *last;

    return task_run(&t, st, params, &last);
}

const char *pgpool_statement_sqlstate(request_rec *r)
{
    return pgpool_request_of(pgpool_request_initial(r))->sqlstate;
}
