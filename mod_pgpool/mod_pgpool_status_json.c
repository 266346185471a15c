/*
 * The status as JSON (mod_pgpool_status.h).
 *
 *     { "pools": { NAME: { FIGURES, "health", "why", "wait", "hold",
 *                          "last_error", "holders" } },
 *       "children": [ { "pid", "pools": { NAME: { FIGURES } } } ],
 *       "ended": { "pools": { NAME: { FIGURES } } }, "uptime_seconds" }
 */
#include "mod_pgpool_status.h"

#include <jansson.h>
#include <stdlib.h>
#include <http_protocol.h>

static json_t *seconds(apr_interval_time_t time)
{
    return json_real(time / 1e6);
}

static json_t *figure_json(const pgpool_view *view, const pgpool_figure *figure)
{
    json_t *members;
    int i;

    if (!figure->dimension)
        return json_integer(figure->get(view, figure->first));
    members = json_object();
    for (i = figure->first; i < figure->end; i++)
        json_object_set_new(members, figure->member(i), json_integer(figure->get(view, i)));
    return members;
}

static json_t *figures_json(const pgpool_view *view, int limits)
{
    json_t *figures = json_object();
    const pgpool_figure *figure;

    for (figure = pgpool_figures; figure->key; figure++)
        if (limits || figure->kind != PGPOOL_LIMIT)
            json_object_set_new(figures, figure->key, figure_json(view, figure));
    return figures;
}

/* A quantile beyond the last bound is null. */
static json_t *timing_json(const pgpool_view *view, const pgpool_timing *timing)
{
    json_t *times = json_object();
    const pgpool_quantile *quantile;

    json_object_set_new(times, "count", json_integer(pgpool_timing_count(view, timing)));
    json_object_set_new(times, "sum_seconds", seconds(pgpool_timing_sum(view, timing)));
    for (quantile = pgpool_quantiles; quantile->key; quantile++) {
        const apr_interval_time_t time = pgpool_timing_quantile(view, timing, quantile);

        json_object_set_new(times, quantile->key,
                            time == APR_INT64_MAX ? json_null() : seconds(time));
    }
    json_object_set_new(times, "max", seconds(pgpool_timing_longest(view, timing)));
    return times;
}

static json_t *error_json(const pgp_stats *stats, apr_time_t now)
{
    json_t *error = json_object();

    if (!stats->error_at)
        return json_decref(error), json_null();
    json_object_set_new(error, "message", json_string(stats->error.message));
    json_object_set_new(error, "sqlstate", json_string(stats->error.sqlstate));
    json_object_set_new(error, "age_seconds", seconds(now - stats->error_at));
    return error;
}

static json_t *holder_json(const pgp_holder *holder, apr_time_t now)
{
    json_t *one = json_object();

    json_object_set_new(one, "seconds", seconds(now - holder->since));
    json_object_set_new(one, "request", json_string(holder->what));
    json_object_set_new(one, "client", json_string(holder->client));
    json_object_set_new(one, "backend", json_integer(holder->backend));
    return one;
}

static json_t *holders_json(const pgp_stats *stats, apr_time_t now)
{
    json_t *holders = json_array();
    int i;

    for (i = 0; i < PGP_HOLDERS && stats->holders[i].since; i++)
        json_array_append_new(holders, holder_json(&stats->holders[i], now));
    return holders;
}

static json_t *pool_json(const pgpool_view *view, apr_time_t now)
{
    json_t *pool = figures_json(view, 1);
    const pgpool_timing *timing;

    json_object_set_new(pool, "health", json_string(pgpool_health_word(view->health)));
    json_object_set_new(pool, "why", json_string(view->why));
    for (timing = pgpool_timings; timing->key; timing++)
        json_object_set_new(pool, timing->key, timing_json(view, timing));
    json_object_set_new(pool, "last_error", error_json(&view->stats, now));
    json_object_set_new(pool, "holders", holders_json(&view->stats, now));
    return pool;
}

static json_t *pools_json(const pgpool_snapshot *all)
{
    json_t *pools = json_object();
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_view *view = &APR_ARRAY_IDX(all->pools, i, pgpool_view);

        json_object_set_new(pools, view->label, pool_json(view, all->now));
    }
    return pools;
}

static json_t *part_json(const pgpool_part *part, int pools)
{
    json_t *one = json_object(), *mine = json_object();
    int i;

    if (part->pid)
        json_object_set_new(one, "pid", json_integer(part->pid));
    for (i = 0; i < pools; i++)
        json_object_set_new(mine, part->pools[i].label, figures_json(&part->pools[i], 0));
    json_object_set_new(one, "pools", mine);
    return one;
}

void pgpool_print_json(request_rec *r, const pgpool_snapshot *all)
{
    json_t *status = json_object(), *children = json_array();
    char *text;
    int i;

    for (i = 0; i < all->children->nelts; i++)
        json_array_append_new(children, part_json(&APR_ARRAY_IDX(all->children, i, pgpool_part),
                                                  all->pools->nelts));
    json_object_set_new(status, "health",
                        json_string(pgpool_health_word(pgpool_snapshot_health(all))));
    json_object_set_new(status, "uptime_seconds", seconds(all->now - all->start));
    json_object_set_new(status, "pools", pools_json(all));
    json_object_set_new(status, "children", children);
    json_object_set_new(status, "ended", part_json(&all->ended, all->pools->nelts));
    text = json_dumps(status, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(status);
    ap_rputs(text, r);
    ap_rputs("\n", r);
    free(text);
}
