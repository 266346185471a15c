/*
 * The status for other programs: OpenMetrics, and lines of "Key: value"
 * (mod_pgpool_status.h).
 *
 * Labels are pools' labels (pgpool_plan), states and reasons: there is nothing to escape.
 */
#include "mod_pgpool_status.h"

#include <apr_strings.h>
#include <http_protocol.h>

static const pgpool_view *view_of(const pgpool_snapshot *all, int n)
{
    return &APR_ARRAY_IDX(all->pools, n, pgpool_view);
}

/* --- OpenMetrics ------------------------------------------------------------ */

static void family(request_rec *r, const char *name, const char *type, const char *help)
{
    ap_rprintf(r, "# TYPE pgpool_%s %s\n# HELP pgpool_%s %s.\n", name, type, name, help);
}

static void unit_seconds(request_rec *r, const char *name)
{
    ap_rprintf(r, "# UNIT pgpool_%s seconds\n", name);
}

static void figure_samples(request_rec *r, const pgpool_figure *figure, const pgpool_view *view)
{
    const char *total = figure->kind == PGPOOL_COUNTER ? "_total" : "";
    int i;

    if (!figure->dimension) {
        ap_rprintf(r, "pgpool_%s%s{pool=\"%s\"} %" APR_INT64_T_FMT "\n", figure->key, total,
                   view->label, figure->get(view, figure->first));
        return;
    }
    for (i = figure->first; i < figure->end; i++)
        ap_rprintf(r, "pgpool_%s%s{pool=\"%s\",%s=\"%s\"} %" APR_INT64_T_FMT "\n", figure->key,
                   total, view->label, figure->dimension, figure->member(i),
                   figure->get(view, i));
}

static void bucket_samples(request_rec *r, const pgpool_timing *timing, const pgpool_view *view)
{
    apr_uint64_t below = 0;
    int b;

    for (b = 0; b < PGP_BUCKETS - 1; b++) {
        below += view->stats.n[timing->histogram + b];
        ap_rprintf(r,
                   "pgpool_%s_seconds_bucket{pool=\"%s\",le=\"%.6f\"} %" APR_UINT64_T_FMT "\n",
                   timing->key, view->label, pgp_stats_bound(b) / 1e6, below);
    }
    ap_rprintf(r, "pgpool_%s_seconds_bucket{pool=\"%s\",le=\"+Inf\"} %" APR_UINT64_T_FMT "\n",
               timing->key, view->label, below + view->stats.n[timing->histogram + b]);
}

static void timing_samples(request_rec *r, const pgpool_timing *timing, const pgpool_view *view)
{
    bucket_samples(r, timing, view);
    ap_rprintf(r, "pgpool_%s_seconds_count{pool=\"%s\"} %" APR_UINT64_T_FMT "\n", timing->key,
               view->label, pgpool_timing_count(view, timing));
    ap_rprintf(r, "pgpool_%s_seconds_sum{pool=\"%s\"} %.6f\n", timing->key, view->label,
               pgpool_timing_sum(view, timing) / 1e6);
}

static void timing_family(request_rec *r, const pgpool_timing *timing,
                          const pgpool_snapshot *all)
{
    const char *name = apr_pstrcat(r->pool, timing->key, "_seconds", NULL);
    int i;

    family(r, name, "histogram", timing->help);
    unit_seconds(r, name);
    for (i = 0; i < all->pools->nelts; i++)
        timing_samples(r, timing, view_of(all, i));
    name = apr_pstrcat(r->pool, "longest_", name, NULL);
    family(r, name, "gauge", "The longest of them");
    unit_seconds(r, name);
    for (i = 0; i < all->pools->nelts; i++)
        ap_rprintf(r, "pgpool_%s{pool=\"%s\"} %.6f\n", name, view_of(all, i)->label,
                   pgpool_timing_longest(view_of(all, i), timing) / 1e6);
}

void pgpool_print_openmetrics(request_rec *r, const pgpool_snapshot *all)
{
    const pgpool_figure *figure;
    const pgpool_timing *timing;
    int i;

    family(r, "children", "gauge", "Child processes of httpd that have pools");
    ap_rprintf(r, "pgpool_children %d\n", all->children->nelts);
    for (figure = pgpool_figures; figure->key; figure++) {
        family(r, figure->key, figure->kind == PGPOOL_COUNTER ? "counter" : "gauge",
               figure->help);
        for (i = 0; i < all->pools->nelts; i++)
            figure_samples(r, figure, view_of(all, i));
    }
    for (timing = pgpool_timings; timing->key; timing++)
        timing_family(r, timing, all);
    ap_rputs("# EOF\n", r);
}

/* --- Key: value ------------------------------------------------------------- */

static void figure_lines(request_rec *r, const pgpool_figure *figure, const pgpool_view *view)
{
    int i;

    if (!figure->dimension) {
        ap_rprintf(r, "PgPool.%s.%s: %" APR_INT64_T_FMT "\n", view->label, figure->key,
                   figure->get(view, figure->first));
        return;
    }
    for (i = figure->first; i < figure->end; i++)
        ap_rprintf(r, "PgPool.%s.%s.%s: %" APR_INT64_T_FMT "\n", view->label, figure->key,
                   figure->member(i), figure->get(view, i));
}

static void timing_lines(request_rec *r, const pgpool_timing *timing, const pgpool_view *view)
{
    const pgpool_quantile *quantile;

    for (quantile = pgpool_quantiles; quantile->key; quantile++) {
        const apr_interval_time_t time = pgpool_timing_quantile(view, timing, quantile);

        if (time != APR_INT64_MAX)
            ap_rprintf(r, "PgPool.%s.%s.%s: %.6f\n", view->label, timing->key, quantile->key,
                       time / 1e6);
    }
    ap_rprintf(r, "PgPool.%s.%s.max: %.6f\n", view->label, timing->key,
               pgpool_timing_longest(view, timing) / 1e6);
}

static void pool_lines(request_rec *r, const pgpool_view *view)
{
    const pgpool_figure *figure;
    const pgpool_timing *timing;

    ap_rprintf(r, "PgPool.%s.health: %s\n", view->label, pgpool_health_word(view->health));
    for (figure = pgpool_figures; figure->key; figure++)
        figure_lines(r, figure, view);
    for (timing = pgpool_timings; timing->key; timing++)
        timing_lines(r, timing, view);
}

void pgpool_print_auto(request_rec *r, const pgpool_snapshot *all)
{
    int i;

    ap_rprintf(r, "PgPool.children: %d\n", all->children->nelts);
    for (i = 0; i < all->pools->nelts; i++)
        pool_lines(r, view_of(all, i));
}
