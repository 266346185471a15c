/*
 * The metrics of a pool: two tables, of numbers and of histograms.
 *
 * Every printer goes over these tables, so a metric has one name in all formats, and a new row
 * shows up in all of them.
 */
#ifndef MOD_PGPOOL_METRICS_H
#define MOD_PGPOOL_METRICS_H

#include <stdbool.h>

#include "mod_pgpool_view.h"

typedef enum {
    PGPOOL_LIMIT,  /* a setting */
    PGPOOL_GAUGE,  /* of this moment */
    PGPOOL_COUNTER /* only grows */
} pgpool_metric_kind;

/* A number, or a family of numbers that a dimension tells apart. */
typedef struct {
    const char *key, *label, *help;
    pgpool_metric_kind kind;
    apr_int64_t (*get)(const pgpool_pool_view *view, int member);
    const char *dimension; /* NULL: one number, whose only member is `first` */
    int first, end;        /* members: from `first` up to, but not including, `end` */
    const char *(*member)(int member);
} pgpool_metric;

/* A distribution of times. */
typedef struct {
    const char *key, *label, *help;
    pgp_time time;
} pgpool_histogram;

typedef struct {
    const char *key;
    double fraction;
} pgpool_quantile;

/* Each table ends with an entry whose key is NULL. */
extern const pgpool_metric pgpool_metrics[];
extern const pgpool_histogram pgpool_histograms[];
extern const pgpool_quantile pgpool_quantiles[];

bool pgpool_metric_is_plain_counter(const pgpool_metric *metric);
/* Whether this is the family of connections by state. */
bool pgpool_metric_is_state(const pgpool_metric *metric);

/* How many connections a view has, in whatever state; the metric "open" has fewer. */
int pgpool_metric_connections(const pgpool_pool_view *view);

apr_uint64_t pgpool_histogram_count(const pgpool_pool_view *view,
                                    const pgpool_histogram *histogram);
/* In microseconds: the sum of all times, the longest, and the upper bound of a quantile, which
 * is APR_INT64_MAX if the quantile lies in the last bucket. */
apr_interval_time_t pgpool_histogram_sum(const pgpool_pool_view *view,
                                         const pgpool_histogram *histogram);
apr_interval_time_t pgpool_histogram_longest(const pgpool_pool_view *view,
                                             const pgpool_histogram *histogram);
apr_interval_time_t pgpool_histogram_quantile(const pgpool_pool_view *view,
                                              const pgpool_histogram *histogram,
                                              const pgpool_quantile *quantile);

#endif
