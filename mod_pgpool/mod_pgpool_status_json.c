/*
 * Prints the status as JSON (mod_pgpool_status.h).
 *
 *     { "health", "uptime_seconds",
 *       "pools": { LABEL: { METRICS, "health", "why", HISTOGRAMS, "last_error", "holders" } },
 *       "children": [ { "pid", "pools": { LABEL: { METRICS } } } ],
 *       "ended": { "pools": { LABEL: { METRICS } } } }
 */
#include "mod_pgpool_status.h"

#include <jansson.h>
#include <stdlib.h>
#include <http_protocol.h>

#include "mod_pgpool_health.h"
#include "mod_pgpool_metrics.h"

static json_t *seconds_json(apr_interval_time_t time)
{
    return json_real(time / 1e6);
}

static json_t *metric_json(const pgpool_pool_view *view, const pgpool_metric *metric)
{
    json_t *members;
    int i;

    if (!metric->dimension)
        return json_integer(metric->get(view, metric->first));
    members = json_object();
    for (i = metric->first; i < metric->end; i++)
        json_object_set_new(members, metric->member(i), json_integer(metric->get(view, i)));
    return members;
}

static json_t *metrics_json(const pgpool_pool_view *view, bool with_limits)
{
    json_t *metrics = json_object();
    const pgpool_metric *metric;

    for (metric = pgpool_metrics; metric->key; metric++)
        if (with_limits || metric->kind != PGPOOL_LIMIT)
            json_object_set_new(metrics, metric->key, metric_json(view, metric));
    return metrics;
}

/* A quantile beyond the last bound is null. */
static json_t *histogram_json(const pgpool_pool_view *view, const pgpool_histogram *histogram)
{
    json_t *times = json_object();
    const pgpool_quantile *quantile;

    json_object_set_new(times, "count", json_integer(pgpool_histogram_count(view, histogram)));
    json_object_set_new(times, "sum_seconds",
                        seconds_json(pgpool_histogram_sum(view, histogram)));
    for (quantile = pgpool_quantiles; quantile->key; quantile++) {
        const apr_interval_time_t time = pgpool_histogram_quantile(view, histogram, quantile);

        json_object_set_new(times, quantile->key,
                            time == APR_INT64_MAX ? json_null() : seconds_json(time));
    }
    json_object_set_new(times, "max", seconds_json(pgpool_histogram_longest(view, histogram)));
    return times;
}

static json_t *error_json(const pgp_stats *stats, apr_time_t now)
{
    json_t *error = json_object();

    if (!stats->error_at)
        return json_decref(error), json_null();
    json_object_set_new(error, "message", json_string(stats->error.message));
    json_object_set_new(error, "sqlstate", json_string(stats->error.sqlstate));
    json_object_set_new(error, "age_seconds", seconds_json(now - stats->error_at));
    return error;
}

static json_t *borrower_json(const pgp_borrower *borrower, apr_time_t now)
{
    json_t *one = json_object();

    json_object_set_new(one, "seconds", seconds_json(now - borrower->since));
    json_object_set_new(one, "request", json_string(borrower->what));
    json_object_set_new(one, "client", json_string(borrower->client));
    json_object_set_new(one, "backend", json_integer(borrower->backend));
    return one;
}

static json_t *borrowers_json(const pgp_stats *stats, apr_time_t now)
{
    json_t *borrowers = json_array();
    int i;

    for (i = 0; i < PGP_BORROWERS && stats->borrowers[i].since; i++)
        json_array_append_new(borrowers, borrower_json(&stats->borrowers[i], now));
    return borrowers;
}

static json_t *pool_json(const pgpool_pool_view *view, apr_time_t now)
{
    json_t *pool = metrics_json(view, true);
    const pgpool_histogram *histogram;

    json_object_set_new(pool, "health", json_string(pgpool_health_word(view->health)));
    json_object_set_new(pool, "why", json_string(view->why));
    for (histogram = pgpool_histograms; histogram->key; histogram++)
        json_object_set_new(pool, histogram->key, histogram_json(view, histogram));
    json_object_set_new(pool, "last_error", error_json(&view->stats, now));
    json_object_set_new(pool, "holders", borrowers_json(&view->stats, now));
    return pool;
}

static json_t *pools_json(const pgpool_snapshot *all)
{
    json_t *pools = json_object();
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_pool_view *view = &APR_ARRAY_IDX(all->pools, i, pgpool_pool_view);

        json_object_set_new(pools, view->label, pool_json(view, all->now));
    }
    return pools;
}

static json_t *child_json(const pgpool_child_view *child, int pools)
{
    json_t *one = json_object(), *mine = json_object();
    int i;

    if (child->pid)
        json_object_set_new(one, "pid", json_integer(child->pid));
    for (i = 0; i < pools; i++)
        json_object_set_new(mine, child->pools[i].label, metrics_json(&child->pools[i], false));
    json_object_set_new(one, "pools", mine);
    return one;
}

void pgpool_print_json(request_rec *r, const pgpool_snapshot *all)
{
    json_t *status = json_object(), *children = json_array();
    char *text;
    int i;

    for (i = 0; i < all->children->nelts; i++)
        json_array_append_new(
            children,
            child_json(&APR_ARRAY_IDX(all->children, i, pgpool_child_view), all->pools->nelts));
    json_object_set_new(status, "health",
                        json_string(pgpool_health_word(pgpool_health_worst(all))));
    json_object_set_new(status, "uptime_seconds", seconds_json(all->now - all->start));
    json_object_set_new(status, "pools", pools_json(all));
    json_object_set_new(status, "children", children);
    json_object_set_new(status, "ended", child_json(&all->ended, all->pools->nelts));
    text = json_dumps(status, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(status);
    ap_rputs(text, r);
    ap_rputs("\n", r);
    free(text);
}
