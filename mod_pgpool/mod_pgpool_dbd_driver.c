/*
 * The driver's functions (mod_pgpool_dbd_driver.h).
 *
 * Each result is read as a whole: the connection is free for the next statement at once, and a
 * look-up without a row takes no longer than one with a row.
 */
#include "mod_pgpool_dbd_driver.h"

#include <stdlib.h>
#include <apr_strings.h>
#include <http_log.h>

#include "core/pgp_env.h"

APLOG_USE_MODULE(dbd);

/* --- statements ------------------------------------------------------------- */

int pgpool_dbd_fail(apr_dbd_t *handle, const char *error)
{
    apr_cpystrn(handle->error, error, sizeof handle->error);
    return 1;
}

/* Set the handle's error, in one line: consumers write it into the log. */
static void error_set(apr_dbd_t *handle, const PGresult *error)
{
    const char *message = PQresultErrorField(error, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(error, PG_DIAG_SQLSTATE);

    apr_snprintf(handle->error, sizeof handle->error, "%s (SQLSTATE %s)",
                 message ? message : PQresultErrorMessage(error), sqlstate ? sqlstate : "none");
}

int pgpool_dbd_execute(apr_dbd_t *handle, const pgpool_statement *statement,
                       const pgpool_params *params, PGresult **result)
{
    apr_status_t rv;

    *result = NULL;
    if (!pgpool_dbd_handle_is_held(handle))
        return pgpool_dbd_fail(handle, "the connection was given back to its pool");
    rv = pgpool_dbd_api.execute(handle->running, handle->conn, statement, params, result);
    if (rv == APR_SUCCESS)
        return 0;
    if (*result)
        error_set(handle, *result);
    else
        pgpool_dbd_fail(handle, pgpool_dbd_api.strerror(rv));
    PQclear(*result);
    *result = NULL;
    return 1;
}

int pgpool_dbd_command(apr_dbd_t *handle, const char *sql)
{
    const pgpool_statement text = {.sql = sql, .nparams = -1};
    PGresult *result;
    const int wrong = pgpool_dbd_execute(handle, &text, NULL, &result);

    PQclear(result);
    return wrong;
}

static bool is_ignoring_errors(const apr_dbd_t *handle)
{
    return handle->trans && (handle->trans->mode & APR_DBD_TRANSACTION_IGNORE_ERRORS);
}

/* An error fails the transaction around it, unless that ignores errors.  Returns 1. */
static int statement_fail(apr_dbd_t *handle)
{
    if (handle->trans && !is_ignoring_errors(handle))
        handle->trans->failed = true;
    return 1;
}

/* Run a statement of the consumer's.  In a transaction that ignores errors a savepoint keeps
 * the work of its other statements. */
static int statement_run(apr_dbd_t *handle, const pgpool_statement *statement,
                         const pgpool_params *params, PGresult **result)
{
    const bool is_ignoring = is_ignoring_errors(handle);
    int wrong;

    *result = NULL;
    if (handle->trans && handle->trans->failed && !is_ignoring)
        return 1;
    if (is_ignoring && pgpool_dbd_command(handle, "SAVEPOINT pgpool_dbd"))
        return 1;
    wrong = pgpool_dbd_execute(handle, statement, params, result);
    if (is_ignoring)
        pgpool_dbd_command(handle, wrong ? "ROLLBACK TO SAVEPOINT pgpool_dbd"
                                         : "RELEASE SAVEPOINT pgpool_dbd");
    return wrong ? statement_fail(handle) : 0;
}

/* Refuse a statement of the consumer's, without asking the server. */
static int statement_refuse(apr_dbd_t *handle, const char *why)
{
    pgpool_dbd_fail(handle, why);
    return statement_fail(handle);
}

static void failure_log(const apr_dbd_t *handle, const apr_dbd_prepared_t *prepared)
{
    ap_log_error(
        APLOG_MARK, APLOG_ERR, 0, handle->s, "PGP%d: pool %s: %s%s%s%s%s: %s; the SQL: %.200s",
        PGP_MSG_STATEMENT, pgpool_dbd_pool_name(pgpool_dbd_conf_of(handle->s)),
        prepared->label ? "label " : "a statement", prepared->label ? prepared->label : "",
        prepared->origin ? " (" : "", prepared->origin ? prepared->origin : "",
        prepared->origin ? ")" : "", handle->error, prepared->statement.sql);
}

/* mod_rewrite does not check whether it has found the label. */
static int prepared_run(apr_pool_t *p, apr_dbd_t *handle, const apr_dbd_prepared_t *prepared,
                        const void *const *args, bool is_binary, PGresult **result)
{
    pgpool_params params;
    int wrong;

    *result = NULL;
    if (!prepared)
        return statement_refuse(handle, "there is no prepared statement with that label");
    if (pgpool_dbd_params_bind(p, prepared, args, is_binary, &params))
        wrong = statement_run(handle, &prepared->statement, &params, result);
    else
        wrong = statement_refuse(handle, "a LOB's length is negative or exceeds 2 GB");
    if (wrong)
        failure_log(handle, prepared);
    return wrong;
}

/* --- results ---------------------------------------------------------------- */

static apr_status_t result_clear(void *result)
{
    PQclear(result);
    return APR_SUCCESS;
}

static int rows_count(int wrong, PGresult *result, int *nrows)
{
    if (!wrong)
        *nrows = atoi(PQcmdTuples(result));
    PQclear(result);
    return wrong;
}

static int results_make(int wrong, apr_pool_t *p, PGresult *result, apr_dbd_results_t **res,
                        int random)
{
    if (wrong)
        return wrong;
    if (!*res)
        *res = apr_palloc(p, sizeof(**res));
    **res = (apr_dbd_results_t){.result = result, .p = p, .is_random = random != 0};
    apr_pool_cleanup_register(p, result, result_clear, apr_pool_cleanup_null);
    return 0;
}

static int num_cols(apr_dbd_results_t *res)
{
    return PQnfields(res->result);
}

static int num_tuples(apr_dbd_results_t *res)
{
    return res->is_random ? PQntuples(res->result) : -1;
}

/* number: from 1, where the consumer has asked for random access; else, or if it is negative,
 * the next one.  Without random access the result's memory is freed at its end. */
static int get_row(apr_pool_t *p, apr_dbd_results_t *res, apr_dbd_row_t **row, int number)
{
    const bool is_next = number < 0 || !res->is_random;
    const int n = !is_next ? number - 1 : *row && res->is_random ? (*row)->n + 1 : res->next;

    if (n < 0 || n >= PQntuples(res->result)) {
        *row = NULL;
        if (res->result && !res->is_random) {
            apr_pool_cleanup_run(res->p, res->result, result_clear);
            res->result = NULL;
        }
        return -1;
    }
    if (!*row)
        *row = apr_palloc(p, sizeof(**row));
    **row = (apr_dbd_row_t){.res = res, .n = n};
    res->next = n + 1;
    return 0;
}

/* A null is "" as in apr_dbd_pgsql: consumers compare the text without a check.  datum_get
 * tells them apart. */
static const char *get_entry(const apr_dbd_row_t *row, int column)
{
    if (column < 0 || column >= PQnfields(row->res->result))
        return NULL;
    return PQgetvalue(row->res->result, row->n, column);
}

static const char *get_name(const apr_dbd_results_t *res, int column)
{
    return column < 0 || column >= PQnfields(res->result) ? NULL : PQfname(res->result, column);
}

/* --- the connection --------------------------------------------------------- */

static void *native_handle(apr_dbd_t *handle)
{
    return pgpool_dbd_handle_is_held(handle) ? handle->conn : NULL;
}

static apr_dbd_t *open_refused(apr_pool_t *p, const char *params, const char **error)
{
    if (error)
        *error = "this driver has the connections of mod_pgpool only: call ap_dbd_open()";
    return NULL;
}

static apr_status_t check_conn(apr_pool_t *p, apr_dbd_t *handle)
{
    return pgpool_dbd_handle_is_held(handle) && PQstatus(handle->conn) == CONNECTION_OK
               ? APR_SUCCESS
               : APR_EGENERAL;
}

/* mod_lua calls this for what it has from ap_dbd_open(). */
static apr_status_t close_handle(apr_dbd_t *handle)
{
    pgpool_dbd_handle_close(handle);
    return APR_SUCCESS;
}

/* PostgreSQL has one database a connection. */
static int set_dbname(apr_pool_t *p, apr_dbd_t *handle, const char *name)
{
    return APR_ENOTIMPL;
}

static const char *last_error(apr_dbd_t *handle, int number)
{
    return handle->error;
}

static const char *text_escape(apr_pool_t *p, const char *text, apr_dbd_t *handle)
{
    const size_t length = strlen(text);
    char *escaped = apr_pcalloc(p, 2 * length + 1);

    /* The connection may have gone back; PQescapeString() needs none. */
    if (pgpool_dbd_handle_is_held(handle))
        PQescapeStringConn(handle->conn, escaped, text, length, NULL);
    else
        PQescapeString(escaped, text, length);
    return escaped;
}

/* --- query and select, in each of their forms ------------------------------- */

static int text_query(apr_dbd_t *handle, int *nrows, const char *sql)
{
    const pgpool_statement text = {.sql = sql, .nparams = -1};
    PGresult *result;
    const int wrong = statement_run(handle, &text, NULL, &result);

    return rows_count(wrong, result, nrows);
}

static int text_select(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                       const char *sql, int random)
{
    const pgpool_statement text = {.sql = sql, .nparams = -1};
    PGresult *result;
    const int wrong = statement_run(handle, &text, NULL, &result);

    return results_make(wrong, p, result, res, random);
}

/* Nothing is sent: see "Prepared on demand" in mod_pgpool_dbd.h. */
static int statement_prepare(apr_pool_t *p, apr_dbd_t *handle, const char *sql,
                             const char *label, int nargs, int nvals, apr_dbd_type_e *types,
                             apr_dbd_prepared_t **prepared)
{
    if (!*prepared)
        *prepared = apr_palloc(p, sizeof(**prepared));
    **prepared = (apr_dbd_prepared_t){
        .statement = {.sql = sql,
                      .nparams = nargs,
                      .types = pgpool_dbd_type_oids(p, types, nargs)},
        .types = types,
        .nvals = nvals,
        .label = label ? apr_pstrdup(p, label) : NULL,
    };
    return 0;
}

static int statement_pquery(apr_pool_t *p, apr_dbd_t *handle, int *nrows,
                            apr_dbd_prepared_t *prepared, const char **args)
{
    PGresult *result;
    const int wrong = prepared_run(p, handle, prepared, (const void **)args, false, &result);

    return rows_count(wrong, result, nrows);
}

static int statement_pselect(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                             apr_dbd_prepared_t *prepared, int random, const char **args)
{
    PGresult *result;
    const int wrong = prepared_run(p, handle, prepared, (const void **)args, false, &result);

    return results_make(wrong, p, result, res, random);
}

static int statement_pbquery(apr_pool_t *p, apr_dbd_t *handle, int *nrows,
                             apr_dbd_prepared_t *prepared, const void **args)
{
    PGresult *result;
    const int wrong = prepared_run(p, handle, prepared, args, true, &result);

    return rows_count(wrong, result, nrows);
}

static int statement_pbselect(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                              apr_dbd_prepared_t *prepared, int random, const void **args)
{
    PGresult *result;
    const int wrong = prepared_run(p, handle, prepared, args, true, &result);

    return results_make(wrong, p, result, res, random);
}

/* The arguments of a call with "...". */
static const void **args_read(apr_pool_t *p, const apr_dbd_prepared_t *prepared, va_list args)
{
    const int n = prepared ? prepared->nvals : 0;
    const void **values = apr_palloc(p, (n + 1) * sizeof(*values));
    int i;

    for (i = 0; i < n; i++)
        values[i] = va_arg(args, const void *);
    return values;
}

static int statement_pvquery(apr_pool_t *p, apr_dbd_t *handle, int *nrows,
                             apr_dbd_prepared_t *prepared, va_list args)
{
    return statement_pquery(p, handle, nrows, prepared,
                            (const char **)args_read(p, prepared, args));
}

static int statement_pvselect(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                              apr_dbd_prepared_t *prepared, int random, va_list args)
{
    return statement_pselect(p, handle, res, prepared, random,
                             (const char **)args_read(p, prepared, args));
}

static int statement_pvbquery(apr_pool_t *p, apr_dbd_t *handle, int *nrows,
                              apr_dbd_prepared_t *prepared, va_list args)
{
    return statement_pbquery(p, handle, nrows, prepared, args_read(p, prepared, args));
}

static int statement_pvbselect(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                               apr_dbd_prepared_t *prepared, int random, va_list args)
{
    return statement_pbselect(p, handle, res, prepared, random, args_read(p, prepared, args));
}

const apr_dbd_driver_t pgpool_dbd_driver = {
    .name = "pgsql",
    .native_handle = native_handle,
    .open = open_refused,
    .check_conn = check_conn,
    .close = close_handle,
    .set_dbname = set_dbname,
    .start_transaction = pgpool_dbd_transaction_start,
    .end_transaction = pgpool_dbd_transaction_end,
    .query = text_query,
    .select = text_select,
    .num_cols = num_cols,
    .num_tuples = num_tuples,
    .get_row = get_row,
    .get_entry = get_entry,
    .error = last_error,
    .escape = text_escape,
    .prepare = statement_prepare,
    .pvquery = statement_pvquery,
    .pvselect = statement_pvselect,
    .pquery = statement_pquery,
    .pselect = statement_pselect,
    .get_name = get_name,
    .transaction_mode_get = pgpool_dbd_transaction_mode_get,
    .transaction_mode_set = pgpool_dbd_transaction_mode_set,
    .pformat = "$%d",
    .pvbquery = statement_pvbquery,
    .pvbselect = statement_pvbselect,
    .pbquery = statement_pbquery,
    .pbselect = statement_pbselect,
    .datum_get = pgpool_dbd_datum_get,
};
