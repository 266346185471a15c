/* Takes connections back: lends them again, cleans them up, or closes them. */
#include "pgp_pool_private.h"

void pgp_slot_close_begin(pgp_slot *slot)
{
    const pgp_pool *pool = slot->pool;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLOSED, pool->name, pgp_slot_backend(slot),
            "closed (%s)", pgp_reason_name(slot->reason));
    if (slot->connection)
        pool->env->driver->close(slot->connection);
}

void pgp_slot_close_end(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;

    if (slot->connection)
        pool->env->driver->destroy(slot->connection);
    slot->connection = NULL;
    pgp_pool_lock(pool);
    pgp_slot_move(pool->lists, slot, PGP_FREE);
    pgp_share_give_locked(pool);
    pgp_pool_unlock(pool);
    pgp_share_ring(pool);
}

void pgp_slot_retire(pgp_slot *slot, pgp_reason reason)
{
    pgp_pool *pool = slot->pool;
    const apr_time_t now = pgp_pool_now(pool);
    bool kept;

    pgp_pool_lock(pool);
    if (slot->state == PGP_IN_USE)
        pgp_slot_count_lease_locked(slot, now);
    if (reason == PGP_REASON_LOST || reason == PGP_REASON_PING)
        pool->suspect_since = now;
    pgp_slot_retire_locked(slot, reason);
    kept = pool->has_keeper;
    pgp_pool_unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else {
        pgp_slot_close_begin(slot);
        pgp_slot_close_end(slot);
    }
}

void pgp_slot_log_reset_failure(pgp_slot *slot, const pgp_error *error)
{
    pgp_pool *pool = slot->pool;
    pgp_gate_count count;

    if (!*error->sqlstate)
        return; /* the server has said nothing: the answer was late */
    if (pgp_gate_pass(pgp_share_gate(pool, PGP_GATE_RESET), pgp_pool_now(pool), PGP_LOG_PERIOD,
                      &count))
        pgp_log(
            pool->env, PGP_LOG_WARNING, PGP_MSG_RESET, pool->name, pgp_slot_backend(slot),
            "the server refuses the reset of the session, which costs a new connection each "
            "time (%" APR_UINT64_T_FMT " since the last warning): %s (SQLSTATE %s)",
            count.events, error->message, error->sqlstate);
}

static void slot_give_back(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const apr_time_t now = pgp_pool_now(pool);
    pgp_reason reason = PGP_REASON_NONE;

    pgp_pool_lock(pool);
    if (pool->phase == PGP_STOPPED || (pool->phase == PGP_DRAINING && !pool->waiting))
        reason = PGP_REASON_STOP;
    else if (pool->settings->reset == PGP_RESET_CLOSE)
        reason = PGP_REASON_RESET;
    else if (pgp_slot_is_ordered_away_locked(slot, now))
        reason = PGP_REASON_ORDER;
    else if (!pool->outage.failures && slot->expires != PGP_NEVER && now >= slot->expires)
        reason = PGP_REASON_LIFETIME;
    else {
        if (slot->state == PGP_IN_USE)
            pgp_slot_count_lease_locked(slot, now);
        pgp_slot_hand_off_locked(pool, slot, now, now);
    }
    pgp_pool_unlock(pool);
    if (reason != PGP_REASON_NONE)
        pgp_slot_retire(slot, reason);
}

static void slot_clean_up(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    apr_time_t now;
    bool kept;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLEANING, pool->name, pgp_slot_backend(slot),
            "came back with work open, is being cleaned up");
    if (pool->env->driver->cleanup(slot->connection) && slot->cancel == PGP_CANCEL_NONE)
        slot->cancel = PGP_CANCEL_RETURN;
    now = pgp_pool_now(pool);
    slot->deadline = now + pool->settings->check_timeout;
    pgp_pool_lock(pool);
    kept = pool->has_keeper;
    if (kept) {
        pgp_slot_count_lease_locked(slot, now);
        pgp_slot_move(pool->lists, slot, PGP_CLEANING);
    }
    pgp_pool_unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else
        pgp_slot_retire(slot, PGP_REASON_STOP);
}

/* Log why the server ended a connection, since its borrower may not log that. */
static void loss_log(const pgp_slot *slot)
{
    const pgp_pool *pool = slot->pool;
    char words[PGP_ERROR_WORDS];
    pgp_error error;

    pgp_slot_last_words(slot, &error);
    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_slot_backend(slot),
            "was lost while it was in use%s%s", *error.message ? ": " : "",
            pgp_error_print(words, &error));
}

void pgp_slot_finish(pgp_slot *slot)
{
    switch (slot->pool->env->driver->finish_lease(slot->connection)) {
    case PGP_RETURN_CLEAN:
        slot_give_back(slot);
        break;
    case PGP_RETURN_DIRTY:
        if (slot->state == PGP_IN_USE)
            slot_clean_up(slot);
        else
            pgp_slot_retire(slot, PGP_REASON_UNCLEAN);
        break;
    case PGP_RETURN_LARGE:
        pgp_slot_retire(slot, PGP_REASON_LARGE);
        break;
    case PGP_RETURN_BROKEN:
        loss_log(slot);
        pgp_slot_retire(slot, PGP_REASON_LOST);
        break;
    case PGP_RETURN_UNKNOWN:
        pgp_slot_retire(slot, PGP_REASON_UNKNOWN);
        break;
    }
}

/* Whether a connection that comes back has to be passed on to another child, whose turn has
 * come.  Its session is not reset: that would only keep the server's process busy. */
static bool turn_pass(pgp_pool *pool)
{
    bool passed;

    if (!pgp_share_is_turn(pool))
        return false;
    pgp_pool_lock(pool);
    passed = pool->phase == PGP_RUNNING && pgp_share_pass_locked(pool, pgp_pool_now(pool));
    pgp_pool_unlock(pool);
    return passed;
}

void pgp_pool_release(pgp_slot **released)
{
    pgp_slot *slot = *released;
    pgp_pool *pool = slot->pool;

    *released = NULL;
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_RETURNED, pool->name, pgp_slot_backend(slot),
            "returned, lease %" APR_UINT64_T_FMT, slot->lease);
    if (turn_pass(pool))
        pgp_slot_retire(slot, PGP_REASON_SHARED);
    else
        pgp_slot_finish(slot);
}

void pgp_pool_discard(pgp_slot **discarded, pgp_reason reason)
{
    pgp_slot *slot = *discarded;

    *discarded = NULL;
    pgp_slot_retire(slot, reason);
}

pgp_connection *pgp_pool_detach(pgp_slot **detached)
{
    pgp_slot *slot = *detached;
    pgp_connection *connection = slot->connection;

    *detached = NULL;
    slot->connection = NULL;
    pgp_slot_retire(slot, PGP_REASON_LOST);
    return connection;
}

void pgp_pool_destroy_detached(const pgp_pool *pool, pgp_connection **connection)
{
    pool->env->driver->destroy(*connection);
    *connection = NULL;
}
