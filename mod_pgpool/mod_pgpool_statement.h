/*
 * A statement for a request: pgpool_query() and pgpool_query_rows() of mod_pgpool.h.
 *
 * Model.  The request's thread runs the statement on the pinned connection (core/pgp_pq_run.h)
 * and sleeps in one poll() for three things: the server's answer, the deadline of
 * PgPoolStatementTimeout, and the client's hang-up (PgPoolAbort).
 *
 * Giving up.  Past the deadline, without a client, or if the caller's function says so, the
 * thread leaves at once, with the statement still under way.  A connection that this call has
 * borrowed goes back to the pool: the keeper cancels the statement, and lends the connection
 * again only when the cancel has ended.  A connection that the request had before is known to
 * somebody who may use it again.  It is shut down, after a cancel, and the request's next
 * acquire returns PGPOOL_ELOST.
 */
#ifndef MOD_PGPOOL_STATEMENT_H
#define MOD_PGPOOL_STATEMENT_H

#include "mod_pgpool.h"

apr_status_t pgpool_query(request_rec *r, const char *pool, const pgpool_statement *st,
                          const pgpool_params *params, PGresult **result);
apr_status_t pgpool_query_rows(request_rec *r, const char *pool, const pgpool_statement *st,
                               const pgpool_params *params, pgpool_row_fn fn, void *baton);

/* An optional function of mod_pgpool_companion.h. */
const char *pgpool_statement_sqlstate(request_rec *r);

#endif
