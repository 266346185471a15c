/*
 * A statement on any borrowed connection, with a deadline but without watching a client:
 * pgpool_execute() of mod_pgpool_companion.h, and what it shares with mod_pgpool_statement.c.
 */
#ifndef MOD_PGPOOL_EXECUTE_H
#define MOD_PGPOOL_EXECUTE_H

#include "core/pgp_pq_run.h"
#include "mod_pgpool.h"

/* The core's form of a statement and its values.  params: NULL: none. */
pgp_pq_query pgpool_execute_compose(const pgpool_statement *st, const pgpool_params *params);

apr_status_t pgpool_execute(request_rec *r, PGconn *conn, const pgpool_statement *st,
                            const pgpool_params *params, PGresult **result);

#endif
