/*
 * Identity: the session variables (PgPoolSet) that a request's statements run with.
 *
 * Rule.  A statement on a pinned connection runs with the variables of the innermost running
 * request that acquired the connection.  Each acquire evaluates the expressions with the
 * request that acquires, and sets its variables; if a value cannot be had or set, the acquire
 * fails.  The other half of the rule, the end of a request inside another one, is in
 * mod_pgpool_bracket.c.
 *
 * Users.  A user's name counts only if authentication has verified it, or if it was set without
 * authentication (mod_ssl's SSLUserName).  While an expression is evaluated, any other name is
 * hidden.
 */
#ifndef MOD_PGPOOL_IDENTITY_H
#define MOD_PGPOOL_IDENTITY_H

#include <ap_expr.h>
#include <httpd.h>
#include <libpq-fe.h>

#include "core/pgp_vars.h"

/* Optional functions of mod_pgpool_companion.h. */
const char *pgpool_expr_value(request_rec *r, const ap_expr_info_t *expr, const char **error);
int pgpool_is_personal(const request_rec *r);

/* The session variables that r wants; in memory of r->pool.  Returns NULL, or why a value
 * cannot be had. */
const char *pgpool_identity_evaluate(request_rec *r, pgp_vars *vars);

/* Why the variables of r must not be set on this connection, or NULL. */
const char *pgpool_identity_forbidden(request_rec *r, const pgp_vars *vars, const PGconn *conn);

#endif
