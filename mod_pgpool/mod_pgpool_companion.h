/*
 * What mod_pgpool offers to the modules that are built with it, beside mod_pgpool.h.  It is not
 * installed, and it may change with any version.
 */
#ifndef MOD_PGPOOL_COMPANION_H
#define MOD_PGPOOL_COMPANION_H

#include <ap_expr.h>
#include <apr_optional.h>
#include <http_config.h>
#include <httpd.h>

/* A directive says that its handler will acquire with pool NULL.  The configuration is then
 * refused, with the directive's file and line, if its server has no pool to give. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_config_needs_pool, (cmd_parms *cmd));

/* Set the note pgpool-error, on r and on the initial request of its chain.  The text is copied
 * and made clean: valid UTF-8 without control characters. */
APR_DECLARE_OPTIONAL_FN(void, pgpool_note_error, (request_rec *r, const char *text));

/* The value of a string expression, as ap_expr_str_exec() has it; but %{REMOTE_USER} is empty
 * as long as authentication has not verified the user.  *error is NULL, or why there is no
 * value. */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_expr_value,
                        (request_rec *r, const ap_expr_info_t *expr, const char **error));

#endif
