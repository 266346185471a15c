/* Refuses callers: tells them why they get no connection, counts, and logs. */
#include "pgp_pool_private.h"

#include <apr_strings.h>

/* If no refusal was logged for this long, callers get connections again. */
#define REFUSALS_OVER (PGP_LOG_PERIOD + PGP_SEC(10))

pgp_outcome pgp_pool_shortage_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return pgp_pool_live_locked(pool) > 0 || (pool->share.at_cap && !pool->outage.failures)
               ? PGP_EXHAUSTED
               : PGP_UNAVAILABLE;
}

bool pgp_pool_is_futile_locked(const pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    return pgp_pool_live_locked(pool) == 0 &&
           pgp_outage_is_futile(&pool->outage, now, pool->settings->acquire_timeout);
}

/* Say how many permits this child and the others hold, as the keeper has last seen it. */
static void cap_explain_locked(const pgp_pool *pool, pgp_error *error)
{
    PGP_LOCKED(pool);
    const pgp_outlook *look = &pool->share.look;
    const int mine = pool->settings->max - pgp_pool_count(pool, PGP_FREE);

    apr_snprintf(error->message, sizeof error->message,
                 "all %d connections that PgPoolTotalMax allows are taken: %d by this child, "
                 "%d of them in use, and %d by %d other children; %d more requests wait here",
                 pool->settings->total_max, mine, pgp_pool_count(pool, PGP_IN_USE),
                 look->used > mine ? look->used - mine : 0, look->holders - (mine > 0),
                 pool->waiting);
}

/* While connects fail, the last one's error is the cause. */
void pgp_pool_count_refusal_locked(pgp_pool *pool, pgp_outcome outcome, pgp_error *error)
{
    PGP_LOCKED(pool);
    if (outcome == PGP_EXHAUSTED)
        pool->stats.n[PGP_N_EXHAUSTED]++;
    else if (outcome == PGP_UNAVAILABLE)
        pool->stats.n[PGP_N_UNAVAILABLE]++;
    if (outcome == PGP_STOPPING)
        *error = (pgp_error){.message = "this child is stopping"};
    else if (pgp_pool_is_suspended_locked(pool, pgp_pool_now(pool)))
        *error = (pgp_error){.message = "an operator has suspended the pool"};
    else if (pool->outage.failures)
        *error = pool->outage.error;
    else if (error->message[0])
        return; /* why the last connection was unfit: that says more than the shortage */
    else if (pool->board && pool->share.quota.seat < 0)
        *error = (pgp_error){
            .message = "this child has no seat in the memory that all children "
                       "share, see PGP1017"};
    else if (pool->share.at_cap && outcome == PGP_EXHAUSTED)
        cap_explain_locked(pool, error);
    else if (outcome == PGP_UNAVAILABLE)
        *error = (pgp_error){.message = "no connection could be made in time"};
    else {
        error->sqlstate[0] = '\0';
        apr_snprintf(error->message, sizeof error->message,
                     "all %d connections are in use (PgPoolMax %d), %d more are waiting",
                     pgp_pool_count(pool, PGP_IN_USE), pool->settings->max, pool->waiting);
    }
}

static pgp_gate *refusal_gate(pgp_pool *pool, pgp_outcome outcome)
{
    return pgp_share_gate(pool,
                          outcome == PGP_EXHAUSTED ? PGP_GATE_EXHAUSTED : PGP_GATE_UNAVAILABLE);
}

bool pgp_pool_may_log(pgp_pool *pool, pgp_outcome outcome, apr_uint64_t *unlogged)
{
    pgp_gate_count count = {.events = 1};
    const bool may = pgp_gate_pass(refusal_gate(pool, outcome), pgp_pool_now(pool),
                                   PGP_LOG_PERIOD, &count);

    *unlogged = count.events ? count.events - 1 : 0;
    return may;
}

void pgp_pool_end_refusals(pgp_pool *pool, apr_time_t now)
{
    static const pgp_outcome outcomes[] = {PGP_EXHAUSTED, PGP_UNAVAILABLE};
    pgp_gate_count count;
    int i;

    for (i = 0; i < 2; i++)
        if (pgp_gate_close(refusal_gate(pool, outcomes[i]), now, REFUSALS_OVER, &count) &&
            count.events)
            pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_NO_CONNECTION, pool->name, 0,
                    "%" APR_UINT64_T_FMT " more requests got no connection (%s) since the last "
                    "line; now requests get connections again",
                    count.events, i ? "unavailable" : "exhausted");
}
