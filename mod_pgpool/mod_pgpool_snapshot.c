/*
 * Reads the board into a snapshot (mod_pgpool_snapshot.h).
 */
#include "mod_pgpool_snapshot.h"

#include <stdlib.h>
#include <apr_strings.h>

#include "core/pgp_text.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_definition.h"
#include "mod_pgpool_health.h"

/* A snapshot is taken at most so often if counters move to the totals meanwhile. */
#define TRIES 5

/* The seat of the board that stands for the totals of the ended children. */
#define TOTALS (-1)

static int label_compare(const void *a, const void *b)
{
    return strcmp(((const pgpool_pool_view *)a)->label, ((const pgpool_pool_view *)b)->label);
}

/* only: the one pool that is wanted; NULL: all. */
static apr_array_header_t *pools_list(apr_pool_t *p, const pgpool_definition *only)
{
    const apr_array_header_t *definitions = pgpool_child_definitions();
    apr_array_header_t *pools = apr_array_make(p, 4, sizeof(pgpool_pool_view));
    int i;

    for (i = 0; i < definitions->nelts; i++) {
        const pgpool_definition *definition = APR_ARRAY_IDX(definitions, i,
                                                            const pgpool_definition *);

        if (only && definition != only)
            continue;
        APR_ARRAY_PUSH(pools,
                       pgpool_pool_view) = (pgpool_pool_view){.place = definition->place,
                                                              .label = definition->label,
                                                              .settings = definition->settings};
    }
    qsort(pools->elts, pools->nelts, sizeof(pgpool_pool_view), label_compare);
    return pools;
}

/* A view of no child yet: all numbers are 0. */
static pgpool_child_view child_view_make(apr_pool_t *p, const pgpool_snapshot *all)
{
    pgpool_child_view child = {
        .pools = apr_pcalloc(p, all->pools->nelts * sizeof(*child.pools))};
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        const pgpool_pool_view *pool = &APR_ARRAY_IDX(all->pools, i, pgpool_pool_view);

        child.pools[i] = (pgpool_pool_view){.place = pool->place,
                                            .label = pool->label,
                                            .settings = pool->settings,
                                            .suspended = pool->suspended};
    }
    return child;
}

static void texts_clean(pgp_stats *stats)
{
    int i;

    pgp_text_clean(stats->error.message);
    pgp_text_clean(stats->error.sqlstate);
    for (i = 0; i < PGP_BORROWERS; i++) {
        pgp_text_clean(stats->borrowers[i].client);
        pgp_text_clean(stats->borrowers[i].what);
    }
}

static void orders_read(pgpool_snapshot *all, apr_time_t now)
{
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        pgpool_pool_view *pool = &APR_ARRAY_IDX(all->pools, i, pgpool_pool_view);
        pgp_orders orders = {.suspended_until = 0};

        if (pool->place >= 0)
            orders = pgp_board_orders(pgpool_child_board()->core, pool->place, now);
        pool->suspended = orders.suspended_until ? orders.suspended_until - now : 0;
    }
}

/* Add the statistics that a seat of the board has of each pool to a child's view and to the
 * pools' views. */
static void seat_add(pgpool_child_view *child, pgpool_snapshot *all, int seat, apr_time_t now)
{
    pgp_stats stats;
    int i;

    for (i = 0; i < all->pools->nelts; i++) {
        pgpool_pool_view *pool = &APR_ARRAY_IDX(all->pools, i, pgpool_pool_view);

        if (pool->place < 0)
            continue;
        pgp_board_read(pgpool_child_board()->core, seat, pool->place, now, &stats);
        texts_clean(&stats);
        pgp_stats_add(&child->pools[i].stats, &stats);
        pgp_stats_add(&pool->stats, &stats);
        pgp_stats_confine(&pool->stats, now); /* the next addition must not overflow */
    }
}

/* A dead child whose counters are not in the totals yet counts with those that have ended. */
static void board_read(apr_pool_t *p, const pgpool_definition *only, pgpool_snapshot *all)
{
    const pgp_board *board = pgpool_child_board()->core;
    const apr_time_t now = pgp_now(pgpool_child_env());
    int seat, pid;

    all->pools = pools_list(p, only);
    orders_read(all, now);
    all->children = apr_array_make(p, 4, sizeof(pgpool_child_view));
    all->ended = child_view_make(p, all);
    seat_add(&all->ended, all, TOTALS, now);
    for (seat = 0; seat < pgp_board_seats(board); seat++) {
        pgpool_child_view *child = &all->ended;

        if (!pgp_board_counts(board, seat, &pid))
            continue;
        if (pid) {
            child = apr_array_push(all->children);
            *child = child_view_make(p, all);
            child->pid = pid;
        }
        seat_add(child, all, seat, now);
    }
    all->now = pgp_now(pgpool_child_env()); /* no time that was read is later */
}

/* Counters that move from a seat to the totals during the reading would count twice or not at
 * all; pgp_board_flips() tells whether some have moved. */
static pgpool_snapshot *snapshot_take(apr_pool_t *p, const pgpool_definition *only)
{
    const pgpool_board *board = pgpool_child_board();
    pgpool_snapshot *all = apr_pcalloc(p, sizeof(*all));
    unsigned flips;
    int tries = TRIES, i;

    do {
        flips = pgp_board_flips(board->core);
        board_read(p, only, all);
    } while (pgp_board_flips(board->core) != flips && --tries);
    all->start = board->start;
    for (i = 0; i < all->pools->nelts; i++)
        pgpool_health_judge(p, all, i);
    return all;
}

pgpool_snapshot *pgpool_snapshot_take(apr_pool_t *p)
{
    return snapshot_take(p, NULL);
}

pgpool_pool_view pgpool_snapshot_pool(apr_pool_t *p, const pgpool_definition *pool)
{
    return APR_ARRAY_IDX(snapshot_take(p, pool)->pools, 0, pgpool_pool_view);
}
