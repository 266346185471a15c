/*
 * Session variables (PgPoolSet) of a connection on libpq: set for a borrower, undone after it.
 *
 * Model.  The connection remembers which variables are applied, and whether a result since then
 * tells that the session may have lost them (connection->vars.disturbed).  To set variables is
 * to make the session look as if it had these and no others:
 *
 *   nothing to do    They are applied already, and nothing has disturbed them.
 *   set              No applied variable has to go: one statement sets all of them.
 *   undo, then set   A variable has to go, or a DISCARD ALL or RESET may have taken what
 *                    PgPoolInitSQL has set: the message that the end of a lease sends,
 *                    PgPoolInitSQL included, then all variables.
 *
 * Order.  `session_authorization` and then `role` are set last and undone first: the login role
 * may set what a lesser role may not.
 *
 * Ownership and threads: see pgp_driver.h.  Errors: see pgp_set_outcome.
 */
#ifndef PGP_PQ_VARS_H
#define PGP_PQ_VARS_H

#include "pgp_pq.h"

/* The driver's has_vars() and set_vars(). */
bool pgp_pq_vars_are_set(const pgp_connection *connection, const pgp_vars *vars);
pgp_set_outcome pgp_pq_vars_set(pgp_connection *connection, const pgp_vars *vars,
                                apr_time_t until, pgp_error *error);

/* The message that undoes what is applied; NULL if nothing is.  The caller frees it. */
char *pgp_pq_vars_undo_sql(const pgp_connection *connection);

/* Forget what is applied: that message was sent, or another that undoes as much. */
void pgp_pq_vars_forget(pgp_connection *connection);

/* Note what a result tells that may have changed the session (PGP_EFFECT_CHANGE). */
void pgp_pq_vars_disturb(pgp_connection *connection, const PGresult *result);

/* The driver's doubt_vars().  Code that ran in a failed transaction has changed nothing. */
void pgp_pq_vars_doubt(pgp_connection *connection);

#endif
