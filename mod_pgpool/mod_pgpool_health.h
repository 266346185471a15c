/*
 * Health: one word for the state of a pool, and the sentence that explains it.
 */
#ifndef MOD_PGPOOL_HEALTH_H
#define MOD_PGPOOL_HEALTH_H

#include "mod_pgpool_view.h"

const char *pgpool_health_word(pgpool_health health);

/* The worst health of all pools. */
pgpool_health pgpool_health_worst(const pgpool_snapshot *all);

/* Judge a pool of a snapshot that is complete otherwise: set the fields of its view that only a
 * view over all children has. */
void pgpool_health_judge(apr_pool_t *p, const pgpool_snapshot *all, int pool);

#endif
