/*
 * The baseline of the page's rates: the counters that a viewer saw before, carried in the
 * page's own links as "TIME,POOLS_1,2,0,3_...": a time, the number of pools, and after each "_"
 * the counters of one pool.
 */
#ifndef MOD_PGPOOL_BASELINE_H
#define MOD_PGPOOL_BASELINE_H

#include "mod_pgpool_view.h"

typedef struct {
    apr_time_t at;
    int pools;                   /* it has so many; the link had no room for the others */
    const apr_int64_t *counters; /* pool after pool, each in the order of the metrics' table */
} pgpool_baseline;

/* How many counters a pool has in a baseline. */
int pgpool_baseline_counters(void);

/* NULL if the text is not a baseline of these pools, from an earlier moment. */
const pgpool_baseline *pgpool_baseline_read(apr_pool_t *p, const pgpool_snapshot *all,
                                            const char *text);
const char *pgpool_baseline_text(apr_pool_t *p, const pgpool_snapshot *all);

#endif
