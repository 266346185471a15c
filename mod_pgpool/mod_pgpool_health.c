/*
 * Judges the health of pools (mod_pgpool_health.h).
 */
#include "mod_pgpool_health.h"

#include <stdbool.h>
#include <apr_strings.h>

#include "mod_pgpool_metrics.h"

const char *pgpool_health_word(pgpool_health health)
{
    static const char *const words[] = {
        [PGPOOL_OK] = "ok",           [PGPOOL_BUSY] = "busy",
        [PGPOOL_UNKNOWN] = "unknown", [PGPOOL_EXHAUSTED] = "exhausted",
        [PGPOOL_DOWN] = "down",       [PGPOOL_SUSPENDED] = "suspended",
    };

    return words[health];
}

pgpool_health pgpool_health_worst(const pgpool_snapshot *all)
{
    pgpool_health worst = PGPOOL_OK;
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_health health = APR_ARRAY_IDX(all->pools, i, pgpool_pool_view).health;

        worst = health > worst ? health : worst;
    }
    return worst;
}

static const pgpool_pool_view *child_pool(const pgpool_snapshot *all, int child, int pool)
{
    return &APR_ARRAY_IDX(all->children, child, pgpool_child_view).pools[pool];
}

/* Whether a request waits in a child that may not have more connections. */
static bool is_exhausted(const pgpool_snapshot *all, int pool, const pgpool_pool_view *view)
{
    const bool is_full = pgpool_metric_connections(view) >= view->limit;
    int i;

    for (i = 0; i < all->children->nelts; i++) {
        const pgpool_pool_view *in_child = child_pool(all, i, pool);

        if (in_child->stats.waiting &&
            (is_full || pgpool_metric_connections(in_child) >= in_child->settings->max))
            return true;
    }
    return false;
}

/* Whether four fifths of the limit are in use. */
static bool is_busy(const pgpool_pool_view *view)
{
    const int in_use = view->stats.state[PGP_IN_USE];

    return in_use > 0 && in_use * 5 >= view->limit * 4;
}

static int count_starved(const pgpool_snapshot *all, int pool)
{
    int i, starved = 0;

    for (i = 0; i < all->children->nelts; i++) {
        const pgp_stats *stats = &child_pool(all, i, pool)->stats;

        starved += stats->failures > 0 && !pgp_stats_open(stats);
    }
    return starved;
}

static pgpool_health judge_health(const pgpool_snapshot *all, int pool,
                                  const pgpool_pool_view *view)
{
    const bool is_failing = view->stats.failures > 0;
    const bool has_waiters = view->stats.waiting > 0;

    if (view->place < 0 || !view->children)
        return PGPOOL_UNKNOWN;
    if (view->suspended)
        return PGPOOL_SUSPENDED;
    if (view->starved)
        return PGPOOL_DOWN;
    if (has_waiters && (is_failing || is_exhausted(all, pool, view)))
        return PGPOOL_EXHAUSTED;
    return has_waiters || is_failing || is_busy(view) ? PGPOOL_BUSY : PGPOOL_OK;
}

static const char *waiters_text(apr_pool_t *p, int n)
{
    if (n == 0)
        return "nobody waits";
    return n == 1 ? "1 request waits" : apr_psprintf(p, "%d requests wait", n);
}

static const char *judge_why(apr_pool_t *p, const pgpool_pool_view *view)
{
    const pgp_stats *stats = &view->stats;
    const int in_use = stats->state[PGP_IN_USE];
    const char *waiters = waiters_text(p, stats->waiting);

    if (view->place < 0)
        return "This pool is new since the start and has no place in shared memory: nothing is "
               "known of it, and no PgPoolTotalMax holds for it, until a graceful restart "
               "finds a free place, or httpd is stopped and started.";
    if (!view->children)
        return "No child publishes its metrics in shared memory: nothing is known (see PGP1017 "
               "in the error log).";
    if (view->suspended)
        return apr_psprintf(p,
                            "Suspended by an operator, for %" APR_TIME_T_FMT
                            " s more: no connection is lent; %d are still in use; %s.",
                            apr_time_sec(view->suspended) + 1, in_use, waiters);
    if (view->starved)
        return apr_psprintf(p,
                            "No connection to the server: %d of %d children have none, can "
                            "make none (%d failures in a row) and answer 503; %s.",
                            view->starved, view->children, stats->failures, waiters);
    if (stats->failures)
        return apr_psprintf(p,
                            "No new connection can be made (%d failures in a row); %d of those "
                            "that are open are in use; %s.",
                            stats->failures, in_use, waiters);
    if (view->health == PGPOOL_EXHAUSTED)
        return apr_psprintf(p,
                            "%d of at most %d connections are in use; %s. A request that has "
                            "waited for %s (PgPoolAcquireTimeout) gets 503.",
                            in_use, view->limit, waiters,
                            pgp_option_text(view->settings, p, PGP_OPTION_ACQUIRE_TIMEOUT));
    return apr_psprintf(p, "%d of at most %d connections are in use; %s.", in_use, view->limit,
                        waiters);
}

void pgpool_health_judge(apr_pool_t *p, const pgpool_snapshot *all, int pool)
{
    pgpool_pool_view *view = &APR_ARRAY_IDX(all->pools, pool, pgpool_pool_view);
    const int total_max = view->settings->total_max;

    view->children = all->children->nelts;
    view->limit = view->children * view->settings->max;
    if (total_max && total_max < view->limit)
        view->limit = total_max;
    view->starved = count_starved(all, pool);
    view->health = judge_health(all, pool, view);
    view->why = judge_why(p, view);
}
