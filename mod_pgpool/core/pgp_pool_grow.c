/* Grows a pool: reserves slots for demand, connects them, and hands them out. */
#include "pgp_pool_private.h"

#include <string.h>

#include <apr_strings.h>

#include "pgp_pool_keeper.h"

/* Attempts return to the first host after this time.  If they returned sooner while it is down,
 * each new connection would cost PgPoolConnectTimeout. */
#define FIRST_HOST_AGAIN PGP_SEC(60)

/* --- demand ----------------------------------------------------------------- */

static void connect_reserve_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    pgp_slot *slot = APR_RING_FIRST(&pool->lists[PGP_FREE].ring);

    slot->connection = NULL;
    pgp_slot_move(pool->lists, slot, PGP_CONNECTING);
}

void pgp_pool_grow_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const pgp_demand demand = {
        .min = pool->phase == PGP_RUNNING ? pool->settings->min : 0,
        .live = pgp_pool_live_locked(pool),
        .connecting = pgp_pool_count(pool, PGP_CONNECTING),
        .free = pgp_pool_count(pool, PGP_FREE),
        .waiting = pool->waiting ? pool->waiting : pool->refused_demand,
        .demand_age = pool->waiting ? now - pool->demand_since : 0,
        .is_outage = pool->outage.failures > 0,
    };
    const bool resting = pool->phase == PGP_STOPPED || now < pool->outage.retry_at ||
                         pgp_pool_is_suspended_locked(pool, now);
    int start = resting ? 0 : pgp_policy_growth(&demand);
    int asked = demand.waiting - demand.connecting; /* for requests; others are for PgPoolMin */

    pgp_share_look_locked(pool, start > 0 && asked > 0, now);
    for (; start > 0 && pgp_share_take_locked(pool, asked > 0, now); start--, asked--)
        connect_reserve_locked(pool);
    pgp_share_settle_locked(pool, start > 0 && asked > 0, now);
    /* Otherwise the demand stays: a connection that is closing, or that another child gives up,
     * makes room in a later round. */
    if (!resting && start <= 0 && (demand.free > 0 || pgp_pool_count(pool, PGP_CLOSING) == 0))
        pool->refused_demand = false;
}

/* --- success ---------------------------------------------------------------- */

/* Hand the new connection to a waiter, or park it.  Retire it if the pool has been stopped
 * meanwhile, or an operator wants it closed. */
static void slot_admit(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const apr_time_t now = pgp_pool_now(pool);

    pgp_pool_lock(pool);
    if (pool->phase == PGP_STOPPED)
        pgp_slot_retire_locked(slot, PGP_REASON_STOP);
    else if (pgp_slot_is_ordered_away_locked(slot, now))
        pgp_slot_retire_locked(slot, PGP_REASON_ORDER);
    else
        pgp_slot_hand_off_locked(pool, slot, now, now);
    pgp_pool_unlock(pool);
}

apr_int64_t pgp_pool_max_over_children(const pgp_pool *pool)
{
    const pgp_settings *settings = pool->settings;
    const apr_int64_t most = (apr_int64_t)pool->env->children * settings->max;

    return settings->total_max && settings->total_max < most ? settings->total_max : most;
}

/* Warn, once for all children and pools, if they may ask for more connections than the server
 * takes. */
static void capacity_check(const pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const pgp_settings *settings = pool->settings;
    const pgp_server *server = pool->server;
    const int capacity = pool->env->driver->capacity(slot->connection);
    const apr_int64_t most = server ? server->max_over_children
                                    : pgp_pool_max_over_children(pool);
    pgp_gate_count count;

    if (capacity <= 0 || most <= capacity ||
        !pgp_gate_pass(pgp_share_gate(pool, PGP_GATE_CAPACITY), pgp_pool_now(pool), PGP_NEVER,
                       &count))
        return;
    if (server && server->pools > 1)
        pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_CAPACITY, pool->name, 0,
                "the %d pools of %s may ask for %" APR_INT64_T_FMT
                " connections together (%d children x PgPoolMax each, PgPoolTotalMax at most), "
                "but the server takes only %d (max_connections less the reserved ones)",
                server->pools, server->name, most, pool->env->children, capacity);
    else
        pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_CAPACITY, pool->name, 0,
                "may ask for %" APR_INT64_T_FMT
                " connections (%d children x PgPoolMax %d, PgPoolTotalMax %d), but the server "
                "takes only %d (max_connections less the reserved ones)",
                most, pool->env->children, settings->max, settings->total_max, capacity);
}

/* The gate for a failed attempt.  Each kind of cause has its own. */
static pgp_gate_id failure_gate(const pgp_error *error)
{
    switch (pgp_policy_failure(error->sqlstate)) {
    case PGP_FAILURE_STARTING:
        return PGP_GATE_STARTING;
    case PGP_FAILURE_REJECTED:
        return PGP_GATE_REJECTED;
    default:
        return *error->sqlstate ? PGP_GATE_FAILED : PGP_GATE_CONNECT;
    }
}

/* Log the end of an outage, once for all children and all causes.  A child without a failure of
 * its own closes the gates once, with its first connection: a child that has died may have left
 * them open.  It does not close them again, since another child may still be failing. */
static void outage_end(pgp_pool *pool, apr_time_t now)
{
    apr_interval_time_t lasted = 0;
    pgp_gate_count count;
    int id;

    for (id = PGP_GATE_CONNECT; id <= PGP_GATE_FAILED; id++)
        if (pgp_gate_close(pgp_share_gate(pool, id), now, 0, &count) && count.lasted > lasted)
            lasted = count.lasted;
    if (lasted)
        pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_RECOVERED, pool->name, 0,
                "the server answers again after %" APR_TIME_T_FMT " ms", lasted / 1000);
}

void pgp_pool_grow_done(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const pgp_env *env = pool->env;
    const char *tls = env->driver->tls(slot->connection);
    const apr_time_t began = slot->born;
    bool may_end_outage = !pool->surveyed;

    slot->born = pgp_pool_now(pool);
    slot->expires = pgp_policy_expiry(pool->settings, slot->born, env->random(env->baton));
    slot->has_run_hooks = false;
    slot->socket = env->driver->socket(slot->connection);
    slot->borrower.backend = env->driver->backend(slot->connection);
    slot->is_tls = tls != NULL;
    pgp_pool_lock(pool);
    may_end_outage |= pool->outage.failures > 0;
    pool->outage = (pgp_outage){.failures = 0};
    pool->stats.n[PGP_N_CONNECTS]++;
    pgp_stats_time(&pool->stats, PGP_TIME_CONNECT, slot->born - began);
    pgp_share_connected_locked(pool, slot->born - began);
    pgp_pool_unlock(pool);
    if (may_end_outage)
        outage_end(pool, slot->born);
    pgp_log(env, PGP_LOG_INFO, PGP_MSG_CONNECTED, pool->name, pgp_slot_backend(slot),
            "connected, %s", tls ? tls : "no TLS");
    pool->surveyed = true;
    capacity_check(slot);
    slot_admit(slot);
}

/* An attempt has failed: the next one begins with the host after its first host. */
static void first_host_leave(pgp_pool *pool, const pgp_slot *slot, apr_time_t now)
{
    if (slot->first_host != pool->first_host)
        return; /* another attempt has moved on already */
    pool->first_host++;
    pool->first_left = now;
}

/* Begin with the last host that worked; return to the first one every FIRST_HOST_AGAIN. */
static unsigned first_host_choose(pgp_pool *pool, apr_time_t now)
{
    if (!pool->outage.failures && now - pool->first_left > FIRST_HOST_AGAIN)
        pool->first_host = 0;
    return pool->first_host;
}

/* Whether a child has connected since this attempt began, so that the attempt's failure says
 * nothing new.  That child has closed the gates of all causes, and the one of this failure may
 * never have been open; so this function asks all of them. */
static bool failure_is_stale(pgp_pool *pool, apr_time_t began, apr_time_t now)
{
    int id;

    for (id = PGP_GATE_CONNECT; id <= PGP_GATE_FAILED; id++)
        if (pgp_gate_is_stale(pgp_share_gate(pool, id), began, now))
            return true;
    return false;
}

/* Log a failed attempt: at level error if the gate lets it pass, else at level debug. */
static void failure_log(const pgp_slot *slot, const pgp_error *error, apr_interval_time_t wait,
                        apr_time_t now)
{
    pgp_pool *pool = slot->pool;
    pgp_gate *gate = pgp_share_gate(pool, failure_gate(error));
    pgp_gate_count count = {.lasted = 0};
    const bool may = !failure_is_stale(pool, slot->born, now) &&
                     pgp_gate_pass(gate, now, PGP_LOG_PERIOD, &count);
    char more[80] = "";

    if (count.lasted)
        apr_snprintf(more, sizeof more,
                     "; %" APR_UINT64_T_FMT
                     " attempts failed like this one since the last line",
                     count.events);
    pgp_log(pool->env, may ? PGP_LOG_ERR : PGP_LOG_DEBUG, PGP_MSG_CONNECT_FAILED, pool->name, 0,
            "cannot connect: %s; trying again in %" APR_TIME_T_FMT " ms%s", error->message,
            wait / 1000, more);
}

/* The server takes no more connections, but some of those that it has are this httpd's: idle
 * ones give way, and the keeper makes the next attempt when a permit is free.  That is no
 * outage. */
static bool full_server_handle(pgp_slot *slot, const pgp_error *error, apr_time_t now)
{
    pgp_pool *pool = slot->pool;
    bool ours;

    if (strcmp(error->sqlstate, "53300") != 0 || error->own_limit)
        return false;
    pgp_pool_lock(pool);
    ours = pgp_server_found_full(pool, now);
    if (ours) {
        pool->stats.error = *error;
        pool->stats.error_at = now;
        pgp_slot_retire_locked(slot, PGP_REASON_CONNECT);
    }
    pgp_pool_unlock(pool);
    if (ours)
        pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_CONNECT_FAILED, pool->name, 0,
                "the server has no place left, idle connections give way: %s", error->message);
    return ours;
}

void pgp_pool_grow_failed(pgp_slot *slot, const pgp_error *error)
{
    pgp_pool *pool = slot->pool;
    const pgp_env *env = pool->env;
    const apr_uint32_t random = env->random(env->baton);
    const apr_time_t now = pgp_pool_now(pool);
    apr_interval_time_t wait;

    if (full_server_handle(slot, error, now))
        return;
    pgp_pool_lock(pool);
    wait = pgp_outage_fail(&pool->outage,
                           &(pgp_failed_attempt){.error = error,
                                                 .began = slot->born,
                                                 .ended = now,
                                                 .awaited = pool->waiting > 0,
                                                 .random = random},
                           &pool->settings->retry);
    pool->stats.error = pool->outage.error;
    pool->stats.error_at = pool->outage.last;
    pgp_slot_retire_locked(slot, PGP_REASON_CONNECT);
    if (pgp_pool_is_futile_locked(pool, now))
        pgp_queue_end_all_locked(pool, PGP_UNAVAILABLE);
    pgp_pool_unlock(pool);
    first_host_leave(pool, slot, now);
    failure_log(slot, error, wait, now);
}

void pgp_pool_grow_begin(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const pgp_env *env = pool->env;
    pgp_error error = {.sqlstate = ""};

    slot->born = pgp_pool_now(pool);
    slot->deadline = slot->born + pool->settings->connect_timeout;
    slot->borrower.backend = 0;
    /* Only the keeper writes outage.failures, so it may read it without the lock. */
    slot->first_host = first_host_choose(pool, slot->born);
    slot->connection = env->driver->connect(&pool->context, slot->first_host, !pool->surveyed,
                                            slot, &error);
    if (!slot->connection)
        pgp_pool_grow_failed(slot, &error);
}
