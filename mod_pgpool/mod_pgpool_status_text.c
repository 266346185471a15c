/*
 * Prints the status for other programs: OpenMetrics, and lines of "Key: value"
 * (mod_pgpool_status.h).
 *
 * The values of OpenMetrics' labels are the labels of pools (pgpool_definition) and words of
 * the tables, in which no character needs an escape.
 */
#include "mod_pgpool_status.h"

#include <apr_strings.h>
#include <http_protocol.h>

#include "mod_pgpool.h"
#include "mod_pgpool_health.h"
#include "mod_pgpool_metrics.h"

static const pgpool_pool_view *view_of(const pgpool_snapshot *all, int n)
{
    return &APR_ARRAY_IDX(all->pools, n, pgpool_pool_view);
}

/* --- OpenMetrics ------------------------------------------------------------ */

static void family_head(request_rec *r, const char *name, const char *type, const char *help)
{
    ap_rprintf(r, "# TYPE pgpool_%s %s\n# HELP pgpool_%s %s.\n", name, type, name, help);
}

static void family_unit_seconds(request_rec *r, const char *name)
{
    ap_rprintf(r, "# UNIT pgpool_%s seconds\n", name);
}

static void metric_samples(request_rec *r, const pgpool_metric *metric,
                           const pgpool_pool_view *view)
{
    const char *total = metric->kind == PGPOOL_COUNTER ? "_total" : "";
    int i;

    if (!metric->dimension) {
        ap_rprintf(r, "pgpool_%s%s{pool=\"%s\"} %" APR_INT64_T_FMT "\n", metric->key, total,
                   view->label, metric->get(view, metric->first));
        return;
    }
    for (i = metric->first; i < metric->end; i++)
        ap_rprintf(r, "pgpool_%s%s{pool=\"%s\",%s=\"%s\"} %" APR_INT64_T_FMT "\n", metric->key,
                   total, view->label, metric->dimension, metric->member(i),
                   metric->get(view, i));
}

static void bucket_samples(request_rec *r, const pgpool_histogram *histogram,
                           const pgpool_pool_view *view)
{
    apr_uint64_t below = 0;
    int b;

    for (b = 0; b < PGP_BUCKETS - 1; b++) {
        below += view->stats.n[pgp_stats_histogram(histogram->time) + b];
        ap_rprintf(r,
                   "pgpool_%s_seconds_bucket{pool=\"%s\",le=\"%.6f\"} %" APR_UINT64_T_FMT "\n",
                   histogram->key, view->label, pgp_stats_bound(b) / 1e6, below);
    }
    ap_rprintf(r, "pgpool_%s_seconds_bucket{pool=\"%s\",le=\"+Inf\"} %" APR_UINT64_T_FMT "\n",
               histogram->key, view->label,
               below + view->stats.n[pgp_stats_histogram(histogram->time) + b]);
}

static void histogram_samples(request_rec *r, const pgpool_histogram *histogram,
                              const pgpool_pool_view *view)
{
    bucket_samples(r, histogram, view);
    ap_rprintf(r, "pgpool_%s_seconds_count{pool=\"%s\"} %" APR_UINT64_T_FMT "\n",
               histogram->key, view->label, pgpool_histogram_count(view, histogram));
    ap_rprintf(r, "pgpool_%s_seconds_sum{pool=\"%s\"} %.6f\n", histogram->key, view->label,
               pgpool_histogram_sum(view, histogram) / 1e6);
}

static void histogram_family(request_rec *r, const pgpool_histogram *histogram,
                             const pgpool_snapshot *all)
{
    const char *name = apr_pstrcat(r->pool, histogram->key, "_seconds", NULL), *help;
    int i;

    family_head(r, name, "histogram", histogram->help);
    family_unit_seconds(r, name);
    for (i = 0; i < all->pools->nelts; i++)
        histogram_samples(r, histogram, view_of(all, i));
    help = apr_pstrcat(r->pool, "The longest time of pgpool_", name, NULL);
    name = apr_pstrcat(r->pool, "longest_", name, NULL);
    family_head(r, name, "gauge", help);
    family_unit_seconds(r, name);
    for (i = 0; i < all->pools->nelts; i++)
        ap_rprintf(r, "pgpool_%s{pool=\"%s\"} %.6f\n", name, view_of(all, i)->label,
                   pgpool_histogram_longest(view_of(all, i), histogram) / 1e6);
}

void pgpool_print_openmetrics(request_rec *r, const pgpool_snapshot *all)
{
    const pgpool_metric *metric;
    const pgpool_histogram *histogram;
    int i;

    ap_rprintf(r,
               "# TYPE pgpool info\n# HELP pgpool The versions of mod_pgpool and of libpq.\n"
               "pgpool_info{version=\"%s\",libpq=\"%d.%d\"} 1\n",
               PGPOOL_VERSION, PQlibVersion() / 10000, PQlibVersion() % 10000);
    family_head(r, "children", "gauge", "Child processes of httpd that have pools");
    ap_rprintf(r, "pgpool_children %d\n", all->children->nelts);
    for (metric = pgpool_metrics; metric->key; metric++) {
        family_head(r, metric->key, metric->kind == PGPOOL_COUNTER ? "counter" : "gauge",
                    metric->help);
        for (i = 0; i < all->pools->nelts; i++)
            metric_samples(r, metric, view_of(all, i));
    }
    for (histogram = pgpool_histograms; histogram->key; histogram++)
        histogram_family(r, histogram, all);
    ap_rputs("# EOF\n", r);
}

/* --- Key: value ------------------------------------------------------------- */

static void metric_lines(request_rec *r, const pgpool_metric *metric,
                         const pgpool_pool_view *view)
{
    int i;

    if (!metric->dimension) {
        ap_rprintf(r, "PgPool.%s.%s: %" APR_INT64_T_FMT "\n", view->label, metric->key,
                   metric->get(view, metric->first));
        return;
    }
    for (i = metric->first; i < metric->end; i++)
        ap_rprintf(r, "PgPool.%s.%s.%s: %" APR_INT64_T_FMT "\n", view->label, metric->key,
                   metric->member(i), metric->get(view, i));
}

static void histogram_lines(request_rec *r, const pgpool_histogram *histogram,
                            const pgpool_pool_view *view)
{
    const pgpool_quantile *quantile;

    for (quantile = pgpool_quantiles; quantile->key; quantile++) {
        const apr_interval_time_t time = pgpool_histogram_quantile(view, histogram, quantile);

        if (time != APR_INT64_MAX)
            ap_rprintf(r, "PgPool.%s.%s.%s: %.6f\n", view->label, histogram->key, quantile->key,
                       time / 1e6);
    }
    ap_rprintf(r, "PgPool.%s.%s.max: %.6f\n", view->label, histogram->key,
               pgpool_histogram_longest(view, histogram) / 1e6);
}

static void pool_lines(request_rec *r, const pgpool_pool_view *view)
{
    const pgpool_metric *metric;
    const pgpool_histogram *histogram;

    ap_rprintf(r, "PgPool.%s.health: %s\n", view->label, pgpool_health_word(view->health));
    for (metric = pgpool_metrics; metric->key; metric++)
        metric_lines(r, metric, view);
    for (histogram = pgpool_histograms; histogram->key; histogram++)
        histogram_lines(r, histogram, view);
}

void pgpool_print_auto(request_rec *r, const pgpool_snapshot *all)
{
    int i;

    ap_rprintf(r, "PgPool.children: %d\n", all->children->nelts);
    for (i = 0; i < all->pools->nelts; i++)
        pool_lines(r, view_of(all, i));
}
