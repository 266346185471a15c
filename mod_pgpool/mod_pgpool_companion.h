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

/* A directive calls this if its handler will acquire with pool NULL.  If the server has no such
 * pool, the configuration is rejected with the directive's file and line. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_config_needs_pool, (cmd_parms *cmd));

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
