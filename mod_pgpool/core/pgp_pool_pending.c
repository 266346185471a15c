/* Goes on with the slots in the keeper's hands, step by step: connects, cleans up, closes; and
 * takes a pool from phase to phase. */
#include "pgp_pool_private.h"

#include <apr_strings.h>

#include "pgp_pool_keeper.h"

/* A closed connection's slot and permit wait this long for the server's process to end. */
#define LINGER PGP_SEC(1)

int pgp_pool_list_locked(const pgp_pool *pool, pgp_state state, pgp_slot **slots)
{
    PGP_LOCKED(pool);
    pgp_slot *slot;
    int n = 0;

    APR_RING_FOREACH (slot, &pool->lists[state].ring, pgp_slot, entry)
        slots[n++] = slot;
    return n;
}

int pgp_pool_list_pending(pgp_pool *pool, pgp_slot **slots)
{
    int n = 0;

    pgp_pool_lock(pool);
    if (pool->has_keeper) { /* else borrowers close the connections that they return */
        n = pgp_pool_list_locked(pool, PGP_CLOSING, slots);
        n += pgp_pool_list_locked(pool, PGP_CLEANING, slots + n);
        n += pgp_pool_list_locked(pool, PGP_CONNECTING, slots + n);
    }
    pgp_pool_unlock(pool);
    return n;
}

static void clean_failed(pgp_slot *slot, const pgp_error *error)
{
    pgp_pool *pool = slot->pool;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_slot_backend(slot),
            "could not be cleaned up: %s", pgp_error_print(words, error));
    pgp_slot_retire(slot, PGP_REASON_UNCLEAN);
}

static void step_late(const pgp_slot *slot, pgp_error *error)
{
    const pgp_settings *settings = slot->pool->settings;
    const bool connecting = slot->state == PGP_CONNECTING;

    error->sqlstate[0] = '\0';
    apr_snprintf(error->message, sizeof error->message,
                 "no answer from the server within %s (%" APR_TIME_T_FMT " ms)",
                 connecting ? "PgPoolConnectTimeout" : "PgPoolCheckTimeout",
                 (connecting ? settings->connect_timeout : settings->check_timeout) / 1000);
}

bool pgp_slot_step(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const bool connecting = slot->state == PGP_CONNECTING;
    pgp_error error = {.sqlstate = ""};
    pgp_step step = pool->env->driver->step(slot->connection, &slot->await, &error);

    if (step == PGP_STEP_AGAIN && pgp_pool_now(pool) < slot->deadline)
        return false;
    if (step == PGP_STEP_AGAIN)
        step_late(slot, &error);
    if (step == PGP_STEP_DONE && connecting)
        pgp_pool_grow_done(slot);
    else if (step == PGP_STEP_DONE)
        pgp_slot_finish(slot);
    else if (connecting)
        pgp_pool_grow_failed(slot, &error);
    else
        clean_failed(slot, &error);
    return true;
}

/* --- closing ----------------------------------------------------------------- */

/* Without a cap the slot is free as soon as the driver has told the server.  With a cap the
 * connection counts as long as the server's process lives, up to LINGER. */
bool pgp_slot_close(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    pgp_error unsaid;

    if (!slot->deadline) {
        pgp_slot_close_begin(slot);
        slot->deadline = pgp_pool_now(pool) + LINGER;
    }
    if (slot->connection && pgp_share_has_cap(pool) && pgp_pool_now(pool) < slot->deadline &&
        pool->env->driver->step(slot->connection, &slot->await, &unsaid) == PGP_STEP_AGAIN)
        return false;
    pgp_slot_close_end(slot);
    return true;
}

/* --- phases ------------------------------------------------------------------ */

void pgp_pool_enter_phase(pgp_pool *pool, pgp_phase phase)
{
    pgp_pool_lock(pool);
    if (phase > pool->phase)
        pool->phase = phase;
    if (pool->phase == PGP_STOPPED) {
        pgp_queue_end_all_locked(pool, PGP_STOPPING);
        pgp_pool_retire_all_locked(pool, PGP_IDLE, PGP_REASON_STOP);
        pgp_pool_retire_all_locked(pool, PGP_CONNECTING, PGP_REASON_STOP);
        pgp_pool_retire_all_locked(pool, PGP_CLEANING, PGP_REASON_STOP);
    }
    pgp_pool_unlock(pool);
}

bool pgp_pool_leave(pgp_pool *pool)
{
    pgp_stats stats;
    bool has_left;

    pgp_pool_lock(pool);
    has_left = pool->phase == PGP_STOPPED && pgp_pool_count(pool, PGP_CLOSING) == 0 &&
               pgp_pool_count(pool, PGP_CLEANING) == 0;
    pgp_pool_take_stats_locked(pool, &stats);
    if (has_left)
        pool->has_keeper = false;
    pgp_pool_unlock(pool);
    if (has_left)
        pgp_share_publish(pool, &stats);
    return has_left;
}
