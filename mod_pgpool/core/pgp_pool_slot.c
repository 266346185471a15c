/* Serves the borrower of a slot, and retires slots. */
#include "pgp_pool_private.h"

/* If this was the last usable connection, waiting may be futile from now on. */
void pgp_slot_retire_locked(pgp_slot *slot, pgp_reason reason)
{
    PGP_LOCKED(slot->pool);
    pgp_pool *pool = slot->pool;
    const int lived = pgp_pool_live_locked(pool);

    slot->reason = slot->state == PGP_CONNECTING ? PGP_REASON_CONNECT : reason;
    slot->deadline = 0;
    pool->stats.n[PGP_N_CLOSES + slot->reason]++;
    pgp_slot_move(pool->lists, slot, PGP_CLOSING);
    if (lived && !pgp_pool_live_locked(pool))
        pgp_outage_note_none_left(&pool->outage, pgp_pool_now(pool));
}

void pgp_pool_retire_all_locked(pgp_pool *pool, pgp_state state, pgp_reason reason)
{
    PGP_LOCKED(pool);
    while (pgp_pool_count(pool, state) > 0)
        pgp_slot_retire_locked(APR_RING_FIRST(&pool->lists[state].ring), reason);
}

bool pgp_pool_is_suspended_locked(const pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    return now < pool->orders.suspended_until;
}

/* During an outage an old connection is better than none. */
bool pgp_slot_is_ordered_away_locked(const pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(slot->pool);
    const pgp_pool *pool = slot->pool;

    return pgp_pool_is_suspended_locked(pool, now) ||
           (!pool->outage.failures && slot->born < pool->orders.reconnect_before);
}

pgp_pool *pgp_slot_pool(const pgp_slot *slot)
{
    return slot->pool;
}

apr_uint64_t pgp_slot_lease_id(const pgp_slot *slot)
{
    return slot->lease;
}

void *pgp_slot_handle(const pgp_slot *slot)
{
    return slot->pool->env->driver->handle(slot->connection);
}

unsigned pgp_slot_backend(const pgp_slot *slot)
{
    return slot->borrower.backend;
}

bool pgp_slot_is_alive(const pgp_slot *slot)
{
    return slot->pool->env->driver->is_alive(slot->connection);
}

void pgp_slot_shutdown(const pgp_slot *slot, const char *why)
{
    slot->pool->env->driver->shutdown(slot->connection, why);
}

void pgp_slot_last_words(const pgp_slot *slot, pgp_error *error)
{
    slot->pool->env->driver->last_words(slot->connection, error);
}

bool pgp_slot_has_run_hooks(const pgp_slot *slot)
{
    return slot->has_run_hooks;
}

void pgp_slot_set_hooks_run(pgp_slot *slot)
{
    slot->has_run_hooks = true;
}

void *pgp_slot_baton(const pgp_slot *slot)
{
    return slot->baton;
}

void pgp_slot_set_baton(pgp_slot *slot, void *baton)
{
    slot->baton = baton;
}

void pgp_slot_set_cancel(pgp_slot *slot, pgp_cancel cause)
{
    slot->cancel = cause;
}

void pgp_slot_count_statement(pgp_slot *slot, bool was_prepared)
{
    if (was_prepared)
        slot->hits++;
    else
        slot->misses++;
}
