/*
 * Connecting with libpq, without ever blocking.
 *
 * Model.  A new connection passes the phases LOOKING_UP (the names of its hosts), CONNECTING,
 * INITIALISING (PgPoolInitSQL) and SURVEYING (the first connection of a pool asks the server
 * for its capacity), and is READY.  pgp_pq_connect_start() enters the first phase that it
 * needs, and pgp_pq_connect_step() drives it through the others.
 *
 * libpq's callbacks (notices, results) are the driver's from the moment at which the PGconn
 * exists, so that nothing that a server says meanwhile goes to stderr.
 *
 * Ownership and threads: see pgp_driver.h.  Errors: after a failure the connection is good for
 * destroy() only.
 */
#ifndef PGP_PQ_CONNECT_H
#define PGP_PQ_CONNECT_H

#include "pgp_pq.h"

/* Start an attempt to connect, on a connection whose context, first_host and survey are set.
 * false: it has failed already, *error says why. */
bool pgp_pq_connect_start(pgp_connection *connection, pgp_error *error);

/* Go on with a connection that is in one of the phases above.  AGAIN: it waits for *await.
 * DONE: it is READY.  FAILED: *error says why. */
pgp_step pgp_pq_connect_step(pgp_connection *connection, struct pollfd *await,
                             pgp_error *error);

/* Give up a look-up of names that is under way. */
void pgp_pq_connect_abandon(pgp_connection *connection);

#endif
