/*
 * A lease: a connection borrowed from a pool and made ready for its borrower, with or without a
 * request.
 */
#ifndef MOD_PGPOOL_LEASE_H
#define MOD_PGPOOL_LEASE_H

#include <stdbool.h>
#include <httpd.h>

#include "core/pgp_pool.h"

/*
 * Borrow a connection, run the hooks that are due on it, and set the session variables.  r is
 * the request that acquires, initial the first one of its family; both NULL without a request.
 *
 * Returns APR_SUCCESS, or a status of mod_pgpool.h; then info->error is the cause.  *denied
 * says whether the cause is these variables: the connection was good, and an acquire with other
 * variables may succeed at once.
 */
apr_status_t pgpool_lease_take(request_rec *r, request_rec *initial, pgp_pool *pool,
                               const pgp_vars *vars, pgp_slot **slot, pgp_acquire_info *info,
                               bool *denied);

/* pgp_slot_set_vars(), but DENIED if r may not have these variables. */
pgp_set_outcome pgpool_lease_set(request_rec *r, pgp_slot *slot, const pgp_vars *vars,
                                 apr_time_t until, pgp_error *error);

/* The identifier of a lease: "<pool>/<backend pid>/<lease number>". */
const char *pgpool_lease_text(apr_pool_t *p, const pgp_slot *slot);

#endif
