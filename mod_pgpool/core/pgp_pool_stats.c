/* Counts what the borrowers of a pool do, and copies its figures. */
#include "pgp_pool_private.h"

/* Count a successful acquire once.  Its borrower has marked the slot without the lock; a thread
 * that holds the lock anyway counts. */
static void grant_count_locked(pgp_slot *slot)
{
    PGP_LOCKED(slot->pool);
    pgp_stats *stats = &slot->pool->stats;

    if (!atomic_load(&slot->is_uncounted))
        return;
    atomic_store(&slot->is_uncounted, false);
    stats->n[PGP_N_ACQUIRES]++;
    stats->n[PGP_N_WAITS] += slot->was_awaited;
    pgp_stats_time(stats, PGP_TIME_WAIT, slot->waited);
    if (slot->lacked_permit)
        pgp_stats_time(stats, PGP_TIME_PERMIT, slot->waited);
}

void pgp_slot_count_lease_locked(pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(slot->pool);
    pgp_stats *stats = &slot->pool->stats;

    grant_count_locked(slot);
    stats->n[PGP_N_STATEMENT_HITS] += slot->hits;
    stats->n[PGP_N_STATEMENT_MISSES] += slot->misses;
    slot->hits = slot->misses = 0;
    if (slot->cancel != PGP_CANCEL_NONE)
        stats->n[PGP_N_CANCELS + slot->cancel]++;
    slot->cancel = PGP_CANCEL_NONE;
    pgp_stats_time(stats, PGP_TIME_HOLD, now - slot->borrower.since);
}

void pgp_pool_take_stats_locked(pgp_pool *pool, pgp_stats *stats)
{
    PGP_LOCKED(pool);
    static const pgp_state established[] = {PGP_IDLE, PGP_IN_USE, PGP_CLEANING};
    pgp_slot *slot;
    int i;

    APR_RING_FOREACH (slot, &pool->lists[PGP_IN_USE].ring, pgp_slot, entry)
        grant_count_locked(slot);
    *stats = pool->stats;
    for (i = 0; i < 3; i++)
        APR_RING_FOREACH (slot, &pool->lists[established[i]].ring, pgp_slot, entry)
            stats->tls += slot->is_tls;
    for (i = 0; i < PGP_STATES; i++)
        stats->state[i] = pgp_pool_count(pool, i);
    stats->waiting = pool->waiting;
    stats->failures = pool->outage.failures;
    APR_RING_FOREACH (slot, &pool->lists[PGP_IN_USE].ring, pgp_slot, entry)
        pgp_stats_add_borrower(stats, &slot->borrower);
}

void pgp_pool_read_stats(pgp_pool *pool, pgp_stats *stats)
{
    pgp_pool_lock(pool);
    pgp_pool_take_stats_locked(pool, stats);
    pgp_pool_unlock(pool);
}
