/*
 * Functions for the modules that are built together with mod_pgpool, beside mod_pgpool.h.  This
 * header is not installed, and may change with any version.
 */
#ifndef MOD_PGPOOL_COMPANION_H
#define MOD_PGPOOL_COMPANION_H

#include <ap_expr.h>
#include <apr_optional.h>
#include <http_config.h>
#include <httpd.h>
#include <stdint.h>

#include "mod_pgpool.h"

/* A directive calls this if its handler will acquire with pool NULL.  If that can mean no pool,
 * the configuration is rejected with the directive's file and line. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_config_needs_pool, (cmd_parms *cmd));

/* A directive calls this with the name of a pool.  If the server has no such pool, the
 * configuration is rejected with the directive's file and line. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_config_uses_pool, (cmd_parms *cmd, const char *pool));

/* A directive of another module sets a pool directive, such as "PgPoolMax", of the pool with
 * this name, which it may define thereby.  It counts more than the same directive outside of
 * any <PgPool>, and less than one inside of the pool's <PgPool>.  Returns NULL, or why the
 * value is rejected. */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_config_offer,
                        (cmd_parms *cmd, const char *pool, const char *directive,
                         const char *value));

/* The effective value of this pool directive, as DUMP_PGPOOL prints it; NULL: the server has
 * no such pool, or the directive has no value.  From check_config on. */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_config_value,
                        (apr_pool_t *p, const server_rec *s, const char *pool,
                         const char *directive));

/* Run a statement on a connection of pgpool_acquire() or pgpool_open(), prepared as
 * pgpool_query() prepares it.  With nparams -1 the text is sent as it is, and may have several
 * statements.  r gives the deadline, PgPoolStatementTimeout; NULL: its default.
 *
 * Returns as pgpool_query(): APR_SUCCESS, PGPOOL_ESTATEMENT (*result has the error; NULL: the
 * statement was a COPY, and the connection is shut down), PGPOOL_ETIMEDOUT and PGPOOL_ELOST
 * (the connection is shut down, and *result is NULL), PGPOOL_EUNAVAIL (a query is under way on
 * it), PGPOOL_ESTOPPING (this is a fork of the child).  *result is the caller's to clear.
 * Nothing is logged.  Call it on the thread that has the connection. */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_execute,
                        (request_rec *r, PGconn *conn, const pgpool_statement *st,
                         const pgpool_params *params, PGresult **result));

/* The number of the lease that the request's family has of the pool; no other lease of that
 * pool in this child has the same.  0: none. */
APR_DECLARE_OPTIONAL_FN(uint64_t, pgpool_lease_number, (request_rec *r, const char *pool));

/* Other code has used the connection of the request's family, and may have changed the settings
 * of PgPoolSet: the next pgpool_acquire() sets them again. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_lease_doubt, (request_rec *r, const char *pool));

/* Whether a PgPoolSet applies to the request: what its statements see may differ from user to
 * user. */
APR_DECLARE_OPTIONAL_FN(int, pgpool_is_personal, (const request_rec *r));

/* Set the note pgpool-error, on r and on the initial request of its chain.  The text is copied
 * and cleaned: it becomes valid UTF-8 without control characters. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_note_error, (request_rec *r, const char *text));

/* The HTTP status for a statement that the server refused with this SQLSTATE, from 400 to 599.
 * The functions of the database choose one with the SQLSTATE PTxyz. */
APR_DECLARE_OPTIONAL_FN(int, pgpool_sqlstate_http, (const char *sqlstate));

/* The SQLSTATE of the family's last statement, if the server refused it (PGPOOL_ESTATEMENT);
 * else "". */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_statement_sqlstate, (request_rec *r));

/* The value of a string expression, as ap_expr_str_exec() computes it, but with an empty
 * %{REMOTE_USER} as long as authentication has not verified the user.  *error is NULL, or why
 * there is no value. */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_expr_value,
                        (request_rec *r, const ap_expr_info_t *expr, const char **error));

#endif
