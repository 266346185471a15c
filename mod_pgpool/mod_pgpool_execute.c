/*
 * Runs a statement on any borrowed connection (mod_pgpool_execute.h).
 */
#include "mod_pgpool_execute.h"

#include "core/pgp_pool.h"
#include "core/pgp_pq_driver.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_module.h"

pgp_pq_query pgpool_execute_compose(const pgpool_statement *st, const pgpool_params *params)
{
    return (pgp_pq_query){
        .key = {.sql = st->sql, .nparams = st->nparams, .types = st->types},
        .values = params ? params->values : NULL,
        .lengths = params ? params->lengths : NULL,
        .formats = params ? params->formats : NULL,
        .result_format = st->result_format,
    };
}

static apr_interval_time_t timeout_of(const request_rec *r)
{
    static const pgpool_dir_conf defaults = {.use = NULL};

    return pgpool_config_statement_timeout(
        r ? ap_get_module_config(r->per_dir_config, &pgpool_module) : &defaults);
}

/* Sleep until the server's socket is ready.  false: the deadline has passed. */
static bool await_server(struct pollfd server, apr_time_t until)
{
    apr_interval_time_t left;

    if (until == PGP_NEVER)
        return poll(&server, 1, -1) != 0;
    left = until - pgp_now(pgpool_child_env());
    if (left <= 0)
        return false;
    poll(&server, 1, (int)((left + 999) / 1000));
    return true;
}

static apr_status_t result_status(const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
    case PGRES_TUPLES_OK:
        return APR_SUCCESS;
    default:
        return PGPOOL_ESTATEMENT;
    }
}

apr_status_t pgpool_execute(request_rec *r, PGconn *conn, const pgpool_statement *st,
                            const pgpool_params *params, PGresult **result)
{
    const pgp_pq_query query = pgpool_execute_compose(st, params);
    const apr_interval_time_t timeout = timeout_of(r);
    const apr_time_t until = timeout == PGP_NEVER ? PGP_NEVER
                                                  : pgp_now(pgpool_child_env()) + timeout;
    struct pollfd server;
    pgp_pq_run run;

    *result = NULL;
    if (!pgpool_child_is_here())
        return PGPOOL_ESTOPPING;
    if (!pgp_pq_run_begin(&run, conn, &query))
        return PGPOOL_EUNAVAIL;
    if (st->nparams >= 0)
        pgp_slot_count_statement(pgp_pq_driver_owner(conn), run.was_prepared);
    for (;;)
        switch (pgp_pq_run_step(&run, result, &server)) {
        case PGP_RUN_WAIT:
            if (await_server(server, until))
                break;
            pgp_slot_set_cancel(pgp_pq_driver_owner(conn), PGP_CANCEL_DEADLINE);
            pgp_pq_run_shutdown(&run, "its statement had no end within PgPoolStatementTimeout");
            return PGPOOL_ETIMEDOUT;
        case PGP_RUN_ROWS:
        case PGP_RUN_COPY:
            PQclear(*result);
            *result = NULL;
            pgp_pq_run_shutdown(&run, "its statement was a COPY");
            return PGPOOL_ESTATEMENT;
        case PGP_RUN_DONE:
            return *result ? result_status(*result) : PGPOOL_ELOST;
        }
}
