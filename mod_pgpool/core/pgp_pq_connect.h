/*
 * Connecting with libpq, without ever blocking.
 *
 * Model.  A new connection passes the phases LOOKING_UP (the names of its hosts), CONNECTING,
 * INITIALISING (PgPoolInitSQL) and SURVEYING (the first connection of a pool asks the server
 * for its capacity).  pgp_pq_connect_begin() enters the first of them that is needed,
 * pgp_pq_connect_step() drives the connection through the others.
 *
 * libpq's callbacks (notices, results) are ours from the moment at which the PGconn exists,
 * so that nothing that a server says while we connect goes to stderr.
 */
#ifndef PGP_PQ_CONNECT_H
#define PGP_PQ_CONNECT_H

#include "pgp_pq_private.h"

/* Start to connect a link whose context, first_host and survey are set.  0: it failed, *error
 * says why. */
int pgp_pq_connect_begin(pgp_link *link, pgp_error *error);

/* Go on with a link that is in one of the phases above.  AGAIN: it waits for *await.  DONE: the
 * session is set up, and the phase is the caller's to change.  FAILED: *error says why. */
pgp_step pgp_pq_connect_step(pgp_link *link, struct pollfd *await, pgp_error *error);

/* Free what a link holds of a name look-up that is not over. */
void pgp_pq_connect_drop(pgp_link *link);

#endif
