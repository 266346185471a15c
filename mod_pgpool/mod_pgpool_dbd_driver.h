/*
 * The driver: apr_dbd's functions over a pooled PGconn.
 *
 * apr-util keeps apr_dbd_driver_t private; its drivers are built with it.  The order of the
 * members has been the same in all of apr-util 1.x since 1.3, and is declared here again.
 * mod_pgpool_dbd_layout.c proves at every start that the apr-util at hand agrees.
 */
#ifndef MOD_PGPOOL_DBD_DRIVER_H
#define MOD_PGPOOL_DBD_DRIVER_H

#include <stdarg.h>

#include "mod_pgpool_dbd.h"

struct apr_dbd_driver_t {
    const char *name;
    void (*init)(apr_pool_t *p);
    void *(*native_handle)(apr_dbd_t *handle);
    apr_dbd_t *(*open)(apr_pool_t *p, const char *params, const char **error);
    apr_status_t (*check_conn)(apr_pool_t *p, apr_dbd_t *handle);
    apr_status_t (*close)(apr_dbd_t *handle);
    int (*set_dbname)(apr_pool_t *p, apr_dbd_t *handle, const char *name);
    int (*start_transaction)(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_transaction_t **trans);
    int (*end_transaction)(apr_dbd_transaction_t *trans);
    int (*query)(apr_dbd_t *handle, int *nrows, const char *sql);
    int (*select)(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res, const char *sql,
                  int random);
    int (*num_cols)(apr_dbd_results_t *res);
    int (*num_tuples)(apr_dbd_results_t *res);
    int (*get_row)(apr_pool_t *p, apr_dbd_results_t *res, apr_dbd_row_t **row, int number);
    const char *(*get_entry)(const apr_dbd_row_t *row, int column);
    const char *(*error)(apr_dbd_t *handle, int number);
    const char *(*escape)(apr_pool_t *p, const char *text, apr_dbd_t *handle);
    int (*prepare)(apr_pool_t *p, apr_dbd_t *handle, const char *sql, const char *label,
                   int nargs, int nvals, apr_dbd_type_e *types, apr_dbd_prepared_t **prepared);
    int (*pvquery)(apr_pool_t *p, apr_dbd_t *handle, int *nrows, apr_dbd_prepared_t *prepared,
                   va_list args);
    int (*pvselect)(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                    apr_dbd_prepared_t *prepared, int random, va_list args);
    int (*pquery)(apr_pool_t *p, apr_dbd_t *handle, int *nrows, apr_dbd_prepared_t *prepared,
                  const char **args);
    int (*pselect)(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                   apr_dbd_prepared_t *prepared, int random, const char **args);
    const char *(*get_name)(const apr_dbd_results_t *res, int column);
    int (*transaction_mode_get)(apr_dbd_transaction_t *trans);
    int (*transaction_mode_set)(apr_dbd_transaction_t *trans, int mode);
    const char *pformat;
    int (*pvbquery)(apr_pool_t *p, apr_dbd_t *handle, int *nrows, apr_dbd_prepared_t *prepared,
                    va_list args);
    int (*pvbselect)(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                     apr_dbd_prepared_t *prepared, int random, va_list args);
    int (*pbquery)(apr_pool_t *p, apr_dbd_t *handle, int *nrows, apr_dbd_prepared_t *prepared,
                   const void **args);
    int (*pbselect)(apr_pool_t *p, apr_dbd_t *handle, apr_dbd_results_t **res,
                    apr_dbd_prepared_t *prepared, int random, const void **args);
    apr_status_t (*datum_get)(const apr_dbd_row_t *row, int column, apr_dbd_type_e type,
                              void *data);
};

struct apr_dbd_prepared_t {
    pgpool_statement statement;
    const apr_dbd_type_e *types; /* statement.nparams of them */
    int nvals;                   /* arguments that a call passes: a LOB takes four */
    const char *label, *origin;  /* for the log; or NULL */
};

struct apr_dbd_results_t {
    PGresult *result; /* the whole one; NULL: it was read to its end */
    apr_pool_t *p;
    bool is_random;
    int next; /* the row that get_row(-1) takes */
};

struct apr_dbd_row_t {
    apr_dbd_results_t *res;
    int n;
};

extern const apr_dbd_driver_t pgpool_dbd_driver;

/* --- parameters and values: mod_pgpool_dbd_types.c --------------------------- */

/* The server types that apr_dbd's marks stand for; 0: the server infers the type. */
const Oid *pgpool_dbd_type_oids(apr_pool_t *p, const apr_dbd_type_e *types, int n);

/* Bring the arguments of a call into libpq's form.  is_binary: each points at a C value of its
 * mark's type; else each is a text.  false: a LOB's length is out of libpq's range. */
bool pgpool_dbd_params_bind(apr_pool_t *p, const apr_dbd_prepared_t *prepared,
                            const void *const *args, bool is_binary, pgpool_params *params);

apr_status_t pgpool_dbd_datum_get(const apr_dbd_row_t *row, int column, apr_dbd_type_e type,
                                  void *data);

/* --- transactions: mod_pgpool_dbd_transaction.c ------------------------------ */

struct apr_dbd_transaction_t {
    apr_dbd_t *handle; /* NULL: it has ended, or its connection was given back */
    apr_pool_t *p;
    int mode;    /* APR_DBD_TRANSACTION_* */
    bool failed; /* a statement has failed: it will be rolled back */
};

int pgpool_dbd_transaction_start(apr_pool_t *p, apr_dbd_t *handle,
                                 apr_dbd_transaction_t **trans);
int pgpool_dbd_transaction_end(apr_dbd_transaction_t *trans);
int pgpool_dbd_transaction_mode_get(apr_dbd_transaction_t *trans);
int pgpool_dbd_transaction_mode_set(apr_dbd_transaction_t *trans, int mode);

/* --- statements: mod_pgpool_dbd_driver.c ------------------------------------- */

/* Run one statement, whatever the state of the transaction.  Returns 0, or 1 with the handle's
 * error set. */
int pgpool_dbd_execute(apr_dbd_t *handle, const pgpool_statement *statement,
                       const pgpool_params *params, PGresult **result);

/* Set the handle's error.  Returns 1. */
int pgpool_dbd_fail(apr_dbd_t *handle, const char *error);

/* Run a command whose result does not matter.  Returns 0 or 1. */
int pgpool_dbd_command(apr_dbd_t *handle, const char *sql);

#endif
