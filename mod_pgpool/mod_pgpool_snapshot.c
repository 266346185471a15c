/*
 * The snapshot of the board, and the tables of its figures (mod_pgpool_status.h).
 */
#include "mod_pgpool_status.h"

#include <stddef.h>
#include <stdlib.h>
#include <apr_strings.h>

#include "core/pgp_text.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_definition.h"

/* --- the tables ------------------------------------------------------------- */

static apr_int64_t setting_of(const pgpool_view *view, int offset)
{
    return *(const int *)((const char *)view->settings + offset);
}

static apr_int64_t state_of(const pgpool_view *view, int state)
{
    return view->stats.state[state];
}

enum { ENCRYPTION_TLS, ENCRYPTION_NONE, ENCRYPTIONS };

static apr_int64_t open_of(const pgpool_view *view, int encryption)
{
    const int *state = view->stats.state;
    const int open = state[PGP_IDLE] + state[PGP_LENT] + state[PGP_CLEANING];

    return encryption == ENCRYPTION_TLS ? view->stats.tls : open - view->stats.tls;
}

static apr_int64_t waiting_of(const pgpool_view *view, int member)
{
    return view->stats.waiting;
}

static apr_int64_t failures_of(const pgpool_view *view, int member)
{
    return view->stats.down;
}

static apr_int64_t acquires_of(const pgpool_view *view, int member)
{
    return view->stats.n[PGP_N_ACQUIRES];
}

static apr_int64_t counter_of(const pgpool_view *view, int counter)
{
    return view->stats.n[counter];
}

static apr_int64_t closes_of(const pgpool_view *view, int reason)
{
    return view->stats.n[PGP_N_CLOSES + reason];
}

const char *pgpool_state_member(int state)
{
    return pgp_state_name(state);
}

static const char *encryption_name(int encryption)
{
    return encryption == ENCRYPTION_TLS ? "tls" : "plain";
}

static const char *reason_name(int reason)
{
    return pgp_reason_name(reason);
}

#define LIMIT(field, label, help)                                                              \
    {                                                                                          \
#field, label, help, PGPOOL_LIMIT, setting_of, NULL, offsetof(pgp_settings, field)     \
    }
#define COUNTER(key, label, help, get, id)                                                     \
    {                                                                                          \
        key, label, help, PGPOOL_COUNTER, get, NULL, id                                        \
    }

const pgpool_figure pgpool_figures[] = {
    LIMIT(min, "min", "PgPoolMin, connections kept open in each child"),
    LIMIT(max, "max", "PgPoolMax, connections at most in each child"),
    LIMIT(total_max, "total max",
          "PgPoolTotalMax, connections at most over all children, 0 for no such cap"),
    {"connections", "connections", "connections by state", PGPOOL_GAUGE, state_of, "state",
     PGP_FREE + 1, PGP_STATES, pgpool_state_member},
    {"open", "open", "established connections by encryption; plain over a Unix socket, too",
     PGPOOL_GAUGE, open_of, "encryption", ENCRYPTION_TLS, ENCRYPTIONS, encryption_name},
    {"waiting", "waiting", "requests that wait for a connection", PGPOOL_GAUGE, waiting_of},
    {"connect_failures", "failing",
     "attempts to connect that failed in a row, where they are most", PGPOOL_GAUGE,
     failures_of},
    COUNTER("acquires", "acquires", "connections given to requests", acquires_of, 0),
    COUNTER("waits", "waited", "of these, those that had to wait", counter_of, PGP_N_WAITS),
    COUNTER("exhausted", "exhausted", "refused: all connections stayed in use", counter_of,
            PGP_N_EXHAUSTED),
    COUNTER("unavailable", "unavailable", "refused: no connection to the server", counter_of,
            PGP_N_UNAVAILABLE),
    COUNTER("connects", "connects", "connections made", counter_of, PGP_N_CONNECTS),
    COUNTER("unfit", "unfit", "connections found dead before use, replaced", counter_of,
            PGP_N_UNFIT),
    {"closes", "closed", "connections closed and attempts given up, by reason", PGPOOL_COUNTER,
     closes_of, "reason", PGP_REASON_NONE + 1, PGP_REASONS, reason_name},
    {NULL},
};

const pgpool_timing pgpool_timings[] = {
    {"wait", "waited", "how long requests waited for a connection", PGP_N_WAIT, PGP_N_WAIT_US,
     offsetof(pgp_stats, longest_wait)},
    {"hold", "held", "how long requests had a connection", PGP_N_HOLD, PGP_N_HOLD_US,
     offsetof(pgp_stats, longest_hold)},
    {NULL},
};

const pgpool_quantile pgpool_quantiles[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {NULL}};

apr_uint64_t pgpool_timing_count(const pgpool_view *view, const pgpool_timing *timing)
{
    apr_uint64_t count = 0;
    int b;

    for (b = 0; b < PGP_BUCKETS; b++)
        count += view->stats.n[timing->histogram + b];
    return count;
}

apr_interval_time_t pgpool_timing_sum(const pgpool_view *view, const pgpool_timing *timing)
{
    return view->stats.n[timing->sum];
}

apr_interval_time_t pgpool_timing_longest(const pgpool_view *view, const pgpool_timing *timing)
{
    return *(const apr_interval_time_t *)((const char *)&view->stats + timing->longest);
}

apr_interval_time_t pgpool_timing_quantile(const pgpool_view *view, const pgpool_timing *timing,
                                           const pgpool_quantile *quantile)
{
    const apr_interval_time_t bound = pgp_stats_quantile(&view->stats.n[timing->histogram],
                                                         quantile->share);

    return bound < pgp_stats_bound(PGP_BUCKETS - 1) ? bound : APR_INT64_MAX;
}

/* --- texts ------------------------------------------------------------------ */

static void texts_mend(pgp_stats *stats)
{
    int i;

    pgp_text_clean(stats->error.message);
    pgp_text_clean(stats->error.sqlstate);
    for (i = 0; i < PGP_HOLDERS; i++) {
        pgp_text_clean(stats->holders[i].client);
        pgp_text_clean(stats->holders[i].what);
    }
}

/* --- health ----------------------------------------------------------------- */

const char *pgpool_health_word(pgpool_health health)
{
    static const char *const words[] = {
        [PGPOOL_OK] = "ok",           [PGPOOL_BUSY] = "busy",
        [PGPOOL_UNKNOWN] = "unknown", [PGPOOL_EXHAUSTED] = "exhausted",
        [PGPOOL_DOWN] = "down",
    };

    return words[health];
}

pgpool_health pgpool_snapshot_health(const pgpool_snapshot *all)
{
    pgpool_health worst = PGPOOL_OK;
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_health health = APR_ARRAY_IDX(all->pools, i, pgpool_view).health;

        worst = health > worst ? health : worst;
    }
    return worst;
}

int pgpool_view_open(const pgpool_view *view)
{
    int state, open = 0;

    for (state = PGP_FREE + 1; state < PGP_STATES; state++)
        open += view->stats.state[state];
    return open;
}

/* Whether somebody waits in a child that may have no more connections. */
static int is_stuck(const pgpool_snapshot *all, int n, const pgpool_view *view)
{
    const int full = pgpool_view_open(view) >= view->limit;
    int i;

    for (i = 0; i < all->children->nelts; i++) {
        const pgpool_view *part = &APR_ARRAY_IDX(all->children, i, pgpool_part).pools[n];

        if (part->stats.waiting && (full || pgpool_view_open(part) >= view->settings->max))
            return 1;
    }
    return 0;
}

/* Four fifths of what may be are in use. */
static int is_tight(const pgpool_view *view)
{
    return view->stats.state[PGP_LENT] > 0 &&
           view->stats.state[PGP_LENT] * 5 >= view->limit * 4;
}

/* How many children have no connection and can make none. */
static int children_cut_off(const pgpool_snapshot *all, int n)
{
    int i, cut_off = 0;

    for (i = 0; i < all->children->nelts; i++) {
        const pgp_stats *stats = &APR_ARRAY_IDX(all->children, i, pgpool_part).pools[n].stats;

        cut_off += stats->down > 0 && stats->state[PGP_IDLE] + stats->state[PGP_LENT] +
                                              stats->state[PGP_CLEANING] ==
                                          0;
    }
    return cut_off;
}

static pgpool_health health_of(const pgpool_snapshot *all, int n, const pgpool_view *view)
{
    const int down = view->stats.down;

    if (view->place < 0 || !view->children)
        return PGPOOL_UNKNOWN;
    if (view->cut_off)
        return PGPOOL_DOWN;
    if (view->stats.waiting && (down || is_stuck(all, n, view)))
        return PGPOOL_EXHAUSTED;
    return view->stats.waiting || down || is_tight(view) ? PGPOOL_BUSY : PGPOOL_OK;
}

static const char *waiters(apr_pool_t *p, int n)
{
    return n == 0   ? "nobody waits"
           : n == 1 ? "1 request waits"
                    : apr_psprintf(p, "%d requests wait", n);
}

static const char *why_of(apr_pool_t *p, const pgpool_view *view)
{
    const pgp_stats *stats = &view->stats;
    const int lent = stats->state[PGP_LENT];
    const char *waiting = waiters(p, stats->waiting);

    if (view->place < 0)
        return "This pool is new since the start and has no place in shared memory: nothing is "
               "known of it, and no PgPoolTotalMax holds for it, until httpd is stopped and "
               "started.";
    if (!view->children)
        return "No child tells its figures in shared memory: nothing is known (see PGP1017 in "
               "the error log).";
    if (view->cut_off)
        return apr_psprintf(p,
                            "No connection to the server: %d of %d children have none and can "
                            "make none (%d failures in a row); %s. They answer 503.",
                            view->cut_off, view->children, stats->down, waiting);
    if (stats->down)
        return apr_psprintf(p,
                            "No new connection can be made (%d failures in a row); %d of those "
                            "that are open are in use; %s.",
                            stats->down, lent, waiting);
    if (view->health == PGPOOL_EXHAUSTED)
        return apr_psprintf(p,
                            "%d of at most %d connections are in use; %s. Who has waited for "
                            "%s (PgPoolAcquireTimeout) gets 503.",
                            lent, view->limit, waiting,
                            pgp_option_text(view->settings, p, PGP_OPTION_ACQUIRE_TIMEOUT));
    return apr_psprintf(p, "%d of at most %d connections are in use; %s.", lent, view->limit,
                        waiting);
}

/* --- taking it -------------------------------------------------------------- */

static int label_compare(const void *a, const void *b)
{
    return strcmp(((const pgpool_view *)a)->label, ((const pgpool_view *)b)->label);
}

/* Plans have an order of their own in each child. */
static apr_array_header_t *pools_list(apr_pool_t *p)
{
    const apr_array_header_t *plans = pgpool_child_definitions();
    apr_array_header_t *pools = apr_array_make(p, 4, sizeof(pgpool_view));
    int i;

    for (i = 0; i < plans->nelts; i++) {
        const pgpool_definition *plan = APR_ARRAY_IDX(plans, i, pgpool_definition *);
        const pgpool_view view = {
            .place = plan->place, .label = plan->label, .settings = plan->settings};

        APR_ARRAY_PUSH(pools, pgpool_view) = view;
    }
    qsort(pools->elts, pools->nelts, sizeof(pgpool_view), label_compare);
    return pools;
}

/* The figures of no process yet. */
static pgpool_part part_make(apr_pool_t *p, const pgpool_snapshot *all)
{
    pgpool_part part = {.pools = apr_pcalloc(p, all->pools->nelts * sizeof(*part.pools))};
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_view *sum = &APR_ARRAY_IDX(all->pools, i, pgpool_view);

        part.pools[i] = (pgpool_view){
            .place = sum->place, .label = sum->label, .settings = sum->settings};
    }
    return part;
}

/* Add what a slot of the board has of each pool (-1: the totals of the ended) to a process
 * and to the sums. */
static void part_read(pgpool_part *part, pgpool_snapshot *all, int slot, apr_time_t now)
{
    pgp_stats stats;
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        pgpool_view *sum = &APR_ARRAY_IDX(all->pools, i, pgpool_view);

        if (sum->place < 0)
            continue;
        pgp_board_read(pgpool_child_board()->core, slot, sum->place, now, &stats);
        texts_mend(&stats);
        pgp_stats_add(&part->pools[i].stats, &stats);
        pgp_stats_add(&sum->stats, &stats);
        pgp_stats_confine(&sum->stats, now); /* before the next could overflow it */
    }
}

static void board_read(apr_pool_t *p, pgpool_snapshot *all)
{
    const pgp_board *board = pgpool_child_board()->core;
    const apr_time_t now = pgp_now(pgpool_child_env());
    int slot, pid;

    all->pools = pools_list(p);
    all->children = apr_array_make(p, 4, sizeof(pgpool_part));
    all->ended = part_make(p, all);
    part_read(&all->ended, all, -1, now);
    for (slot = 0; slot < pgp_board_slots(board); slot++) {
        pgpool_part *part = &all->ended;

        if (!pgp_board_counts(board, slot, &pid))
            continue;
        if (pid) {
            part = apr_array_push(all->children);
            *part = part_make(p, all);
            part->pid = pid;
        }
        part_read(part, all, slot, now);
    }
    all->now = pgp_now(pgpool_child_env()); /* no earlier than what was read */
}

static void pool_judge(apr_pool_t *p, const pgpool_snapshot *all, int n)
{
    pgpool_view *view = &APR_ARRAY_IDX(all->pools, n, pgpool_view);
    const int total_max = view->settings->total_max;

    view->children = all->children->nelts;
    view->limit = view->children * view->settings->max;
    if (total_max && total_max < view->limit)
        view->limit = total_max;
    view->cut_off = children_cut_off(all, n);
    view->health = health_of(all, n, view);
    view->why = why_of(p, view);
}

pgpool_snapshot *pgpool_snapshot_take(apr_pool_t *p)
{
    pgpool_snapshot *all = apr_pcalloc(p, sizeof(*all));
    unsigned flips;
    int tries = 5, i;

    /* Figures that move to the totals meanwhile would count twice or not at all. */
    do {
        flips = pgp_board_flips(pgpool_child_board()->core);
        board_read(p, all);
    } while (pgp_board_flips(pgpool_child_board()->core) != flips && --tries);
    all->start = pgpool_child_board()->start;
    for (i = 0; i < all->pools->nelts; i++)
        pool_judge(p, all, i);
    return all;
}
