/*
 * The end of a lease: what it has changed in its session, and the message that undoes it
 * (PgPoolReset).
 *
 * Model.  The command tags of a lease's results tell its effects.  They decide whether a reset
 * is due, and which: one message, which finish_lease() sends without waiting.  The next
 * acquire, or the keeper's look at an idle connection, collects the answer, which also proves
 * the connection alive.  There are three messages; each runs PgPoolInitSQL again, since it has
 * undone that as well:
 *
 *   session    the statements of DISCARD ALL one by one, without those that drop prepared
 *              statements and plans: a PL/pgSQL function keeps its plans.
 *   prepared   the same, and DEALLOCATE ALL: for a lease that has deallocated a statement where
 *              PgPoolInitSQL prepares one.  Its PREPAREs run again as well.
 *   all        DISCARD ALL.  It cannot share a message with other statements.  So if
 *              PgPoolInitSQL has to follow, this message lists the statements of DISCARD ALL
 *              instead.
 *
 * Ownership and threads.  The messages live as long as the settings.  The functions on a
 * connection are for its owner (pgp_driver.h); the others are for any thread.
 */
#ifndef PGP_PQ_RESET_H
#define PGP_PQ_RESET_H

#include "pgp_driver.h"

/* --- judgement: pure --------------------------------------------------------- */

/* Whether a statement of PgPoolInitSQL is a PREPARE: where prepared statements stay, it need
 * not run again. */
bool pgp_pq_reset_is_prepare(const char *sql);

/* Whether a lease with these effects needs a reset. */
bool pgp_pq_reset_is_due(pgp_reset reset, unsigned effects);

/* The message for a lease with these effects. */
const char *pgp_pq_reset_sql(const pgp_settings *settings, unsigned effects);

/* Compose the messages of complete settings. */
void pgp_pq_reset_compose(pgp_settings *settings, apr_pool_t *p);

/* --- on a connection ---------------------------------------------------------- */

/* Begin a lease that has done nothing yet, on a session without variables. */
void pgp_pq_reset_begin_lease(pgp_connection *connection);

/* The driver's finish_lease(). */
pgp_return pgp_pq_reset_finish_lease(pgp_connection *connection);

/* No answer is pending any more: enter blocking mode, as a borrower expects it.  false: the
 * connection is lost, or does not speak UTF-8. */
bool pgp_pq_reset_set_blocking(pgp_connection *connection);

#endif
