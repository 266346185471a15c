/*
 * A pool among the pools of the other children: PgPoolTotalMax, and its figures on the
 * board (pgp_board.h).
 *
 * Each connection from CONNECTING to the end of CLOSING has a permit.  While a child
 * lacks permits, the others give up what is idle, who can spare one of those in use gives
 * it up when it comes back, and what is free is left to whoever is shortest of its part.
 */
#include "pgp_pool_private.h"

#include <string.h>

/* At most one connection that is in use is given up in each of these: to make another
 * costs more than a query. */
#define SHED_STEP PGP_MS(100)

/* Whoever lacks some looks every PGP_GROWTH_STEP. */
#define DEFER_TIME (3 * PGP_GROWTH_STEP)

/* What was idle for less will be asked for again in a moment. */
#define SPARE_AFTER PGP_MS(50)

static int is_posted(const pgp_pool *pool)
{
    return pool->board && pool->slot >= 0;
}

int pgp_share_is_capped(const pgp_pool *pool)
{
    return pool->board && pool->settings->total_max;
}

void pgp_pool_post(pgp_pool *pool, pgp_board *board, int board_pool)
{
    pool->board = board;
    pool->board_pool = board_pool;
}

/* What was counted goes with the slot, and the next one begins at 0: counters of a slot that
 * is left are added to the totals. */
static void counters_leave_locked(pgp_pool *pool, pgp_stats *stats)
{
    pgp_stats_take_locked(pool, stats);
    memset(pool->stats.n, 0, sizeof pool->stats.n);
    pool->stats.longest_wait = pool->stats.longest_hold = 0;
}

void pgp_keep_slot(pgp_pool *pool, int slot)
{
    const int left = pool->slot; /* the keeper alone sets it */
    pgp_stats stats;

    lock(pool);
    if (left >= 0 && pool->board)
        counters_leave_locked(pool, &stats);
    pool->slot = slot;
    unlock(pool);
    if (left >= 0 && pool->board)
        pgp_board_publish(pool->board, left, pool->board_pool, &stats);
}

int pgp_keep_is_used(pgp_pool *pool)
{
    int state, used;

    lock(pool);
    used = pool->waiting + pool->missed;
    for (state = PGP_FREE + 1; state < PGP_STATES; state++)
        used += count(pool, state);
    unlock(pool);
    return used > 0;
}

int pgp_share_take_locked(pgp_pool *pool, apr_time_t now)
{
    if (!pool->board)
        return 1;
    return pool->slot >= 0 && !pool->share.defers &&
           pgp_board_take(pool->board, pool->slot, pool->board_pool, pool->settings->total_max,
                          now);
}

/* After the keeper has left, the slot may be another child's. */
void pgp_share_give_locked(pgp_pool *pool)
{
    if (is_posted(pool) && pool->kept)
        pgp_board_give(pool->board, pool->slot, pool->board_pool);
}

int pgp_share_first(const pgp_pool *pool)
{
    pgp_gate_count count;

    return !pool->board || pgp_board_gate(pool->board, pool->board_pool, PGP_GATE_CAPACITY,
                                          pgp_now(pool->env), PGP_NEVER, &count);
}

/* Smoothed over a few looks: connections that go to and fro with every fluctuation of
 * the demand cost more than they are worth. */
void pgp_share_want_locked(pgp_pool *pool, int lacking)
{
    const int demand = count(pool, PGP_LENT) + pool->waiting;
    const int asked = pool->waiting ? pool->waiting : pool->missed;
    const int wanted = lacking < asked ? lacking : asked;

    pool->share.lacking = lacking;
    pool->demand += 16 * demand - (pool->demand + 15) / 16; /* down to 0 */
    if (is_posted(pool))
        pgp_board_want(pool->board, pool->slot, pool->board_pool, wanted, pool->demand);
}

/* Who gave one up would take it back at once.  But if nobody fetches it, anybody may have
 * it. */
static int defers_locked(pool_share *share, const pgp_standing *standing, apr_time_t now)
{
    if (share->tight || !pgp_policy_yield(standing))
        share->deferred_at = 0;
    else if (!share->deferred_at)
        share->deferred_at = now;
    return share->deferred_at && now - share->deferred_at < DEFER_TIME;
}

static int has_spare_locked(const pgp_pool *pool, apr_time_t now)
{
    return count(pool, PGP_IDLE) > 0 &&
           now - APR_RING_LAST(&pool->lists[PGP_IDLE].ring)->idle_since >= SPARE_AFTER;
}

void pgp_share_look_locked(pgp_pool *pool, apr_time_t now)
{
    pgp_standing standing;
    int n;

    pool->share.tight = pool->share.others = pool->share.shed = pool->share.defers = 0;
    if (!is_posted(pool) || !pool->settings->total_max)
        return;
    pgp_board_standing(pool->board, pool->slot, pool->board_pool, pool->settings->total_max,
                       now, &standing);
    pool->share.tight = standing.used >= pool->settings->total_max;
    pool->share.defers = defers_locked(&pool->share, &standing, now);
    pool->share.others = standing.lacking; /* what becomes free is theirs */
    if (!pool->share.tight || !standing.lacking)
        return;
    /* What is being closed will be free in a moment. */
    for (n = standing.lacking - count(pool, PGP_CLOSING); n > 0 && has_spare_locked(pool, now);
         n--)
        pgp_doom_locked(APR_RING_LAST(&pool->lists[PGP_IDLE].ring), PGP_REASON_SHARED);
    pool->share.shed = n > 0 && now - pool->share.shed_at >= SHED_STEP &&
                       pgp_policy_spare(&standing);
}

void pgp_share_publish(pgp_pool *pool, const pgp_stats *stats)
{
    if (is_posted(pool)) /* the keeper's own slot: only it writes it */
        pgp_board_publish(pool->board, pool->slot, pool->board_pool, stats);
}

/* --- figures ---------------------------------------------------------------- */

void pgp_stats_take_locked(pgp_pool *pool, pgp_stats *stats)
{
    static const pgp_state established[] = {PGP_IDLE, PGP_LENT, PGP_CLEANING};
    const pgp_conn *conn;
    int i;

    *stats = pool->stats;
    for (i = 0; i < 3; i++)
        APR_RING_FOREACH (conn, &pool->lists[established[i]].ring, pgp_conn, entry)
            stats->tls += conn->is_tls;
    for (i = 0; i < PGP_STATES; i++)
        stats->state[i] = count(pool, i);
    stats->waiting = pool->waiting;
    stats->down = pool->down.failures;
    APR_RING_FOREACH (conn, &pool->lists[PGP_LENT].ring, pgp_conn, entry) {
        pgp_stats_add_holder(stats, &conn->holder);
        stats->n[PGP_N_LENT] -= atomic_load(&conn->testing); /* it may yet be unfit */
    }
}
