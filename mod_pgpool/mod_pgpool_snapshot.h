/*
 * The snapshot: the state of all pools over all children, at one moment.
 */
#ifndef MOD_PGPOOL_SNAPSHOT_H
#define MOD_PGPOOL_SNAPSHOT_H

#include "mod_pgpool_definition.h"
#include "mod_pgpool_view.h"

/* Read the board.  The snapshot is in memory of p.  Any thread of a child. */
pgpool_snapshot *pgpool_snapshot_take(apr_pool_t *p);

/* The view of one pool over all children; the others are not read. */
pgpool_pool_view pgpool_snapshot_pool(apr_pool_t *p, const pgpool_definition *pool);

#endif
