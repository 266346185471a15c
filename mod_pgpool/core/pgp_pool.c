/* Makes a pool, and lends its connections: the algorithm of acquire (pgp_pool.h). */
#include "pgp_pool_private.h"

#include <apr_strings.h>

/* A caller may come back this much after its deadline if its connection was still to be
 * checked. */
#define LAST_MOMENT PGP_MS(50)

/* One call of pgp_pool_acquire(), over all its tries; on its stack. */
typedef struct {
    pgp_pool *pool;
    pgp_acquire_info *info;
    apr_time_t start;
    pgp_slot *slot;       /* the one that was taken */
    bool needs_ping;      /* the slot needs a round trip before it is given out */
    bool has_waited;      /* in one of the tries */
    bool is_retry;        /* PgPoolMaxWaiters has let this caller in before */
    bool wake_keeper;     /* the keeper does not know of the demand yet */
    apr_time_t probed_at; /* when the caller began to await an attempt to connect; 0: never */
} acquire_request;

static void slots_make(pgp_pool *pool, apr_pool_t *p)
{
    pgp_slot *slots = apr_pcalloc(p, pool->settings->max * sizeof(*slots));
    int i;

    for (i = 0; i < PGP_STATES; i++)
        APR_RING_INIT(&pool->lists[i].ring, pgp_slot, entry);
    for (i = 0; i < pool->settings->max; i++) {
        slots[i].pool = pool;
        APR_RING_INSERT_TAIL(&pool->lists[PGP_FREE].ring, &slots[i], pgp_slot, entry);
    }
    pool->lists[PGP_FREE].count = pool->settings->max;
}

apr_status_t pgp_pool_create(pgp_pool **created, apr_pool_t *p, const char *name,
                             const pgp_settings *settings, const pgp_env *env, pgp_waker waker)
{
    pgp_pool *pool = apr_pcalloc(p, sizeof(*pool));
    apr_status_t rv = apr_thread_mutex_create(&pool->lock, APR_THREAD_MUTEX_UNNESTED, p);

    if (rv != APR_SUCCESS)
        return rv;
    pool->name = name;
    pool->settings = settings;
    pool->env = env;
    pool->context = (pgp_context){.env = env, .pool = name, .settings = settings};
    pool->waker = waker;
    pool->has_keeper = true;
    pool->share.quota.seat = pool->share.ring_one = -1;
    APR_RING_INIT(&pool->queue, waiter, entry);
    slots_make(pool, p);
    *created = pool;
    return APR_SUCCESS;
}

const char *pgp_pool_name(const pgp_pool *pool)
{
    return pool->name;
}

const pgp_settings *pgp_pool_settings(const pgp_pool *pool)
{
    return pool->settings;
}

/* --- acquire ---------------------------------------------------------------- */

/* Whether this caller may await one attempt to connect, although waiting is futile. */
static bool may_probe_locked(acquire_request *req, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    pgp_pool *pool = req->pool;

    if (req->probed_at)
        return !pgp_outage_has_failed_since(&pool->outage, req->probed_at);
    /* One at a time; and without a permit no attempt can be made. */
    if (pool->waiting || pool->share.at_cap ||
        !pgp_outage_may_probe(&pool->outage, now, &pool->settings->retry,
                              pgp_pool_count(pool, PGP_CONNECTING) > 0))
        return false;
    req->probed_at = now;
    return true;
}

/* With PgPoolAcquireTimeout 0 a caller still waits while the keeper reads from a connection,
 * since that one is as good as idle. */
static bool may_wait_locked(const acquire_request *req, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    const pgp_pool *pool = req->pool;
    const int most = pool->settings->max_waiters;

    return (pool->settings->acquire_timeout || pool->reading) && now < req->info->until &&
           (!most || req->is_retry || pool->waiting < most);
}

/* The pool grows for a caller that cannot wait, so that the next one finds a connection. */
static void demand_note_locked(acquire_request *req)
{
    PGP_LOCKED(req->pool);
    req->wake_keeper = !req->pool->refused_demand;
    req->pool->refused_demand = true;
}

/* Record the borrower, for the page and PgPoolHoldWarning. */
static void borrower_describe_locked(pgp_slot *slot, const pgp_acquire_info *info)
{
    PGP_LOCKED(slot->pool);
    pgp_borrower *borrower = &slot->borrower;
    const char *const *what = info->what;
    char *at = borrower->what, *const end = at + sizeof borrower->what;

    if (!info->client)
        return;
    apr_cpystrn(borrower->client, info->client, sizeof borrower->client);
    for (; *what; what++)
        at = apr_cpystrn(at, *what, end - at);
}

/* A connection was taken: record on its slot how long the acquire has waited and for what, and
 * whether the connection needs a ping.  The thread that handed it over may have read the clock
 * before the wait began. */
static void request_note_locked(acquire_request *req, apr_time_t idle_at)
{
    PGP_LOCKED(req->pool);
    pgp_pool *pool = req->pool;
    pgp_slot *slot = req->slot;
    apr_interval_time_t waited = 0;

    assert(slot);
    if (req->has_waited && slot->borrower.since > req->start)
        waited = slot->borrower.since - req->start;
    req->needs_ping = pgp_policy_ping_due(slot, pool->settings, pool->suspect_since, idle_at);
    slot->was_awaited = req->has_waited;
    slot->waited = waited;
    slot->lacked_permit = req->has_waited && pgp_share_was_short_locked(pool, req->start);
    borrower_describe_locked(slot, req->info);
}

/* The deadline of a check: PgPoolCheckTimeout, but within the caller's deadline.  A connection
 * that was handed over at the last moment still gets the time of one round trip: it may be
 * sound. */
static apr_time_t check_deadline(const pgp_pool *pool, apr_time_t until)
{
    const apr_time_t now = pgp_pool_now(pool);
    const apr_time_t check = now + pool->settings->check_timeout, least = now + LAST_MOMENT;

    if (until != PGP_NEVER && until < least)
        until = least;
    return until == PGP_NEVER || check < until ? check : until;
}

static void discard_unfit(pgp_slot **unfit, pgp_reason reason, const pgp_error *error)
{
    pgp_pool *pool = (*unfit)->pool;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_slot_backend(*unfit),
            "found unfit before it was given out (%s): %s", pgp_reason_name(reason),
            pgp_error_print(words, error));
    if (reason == PGP_REASON_UNCLEAN)
        pgp_slot_log_reset_failure(*unfit, error);
    pgp_pool_lock(pool);
    pool->stats.n[PGP_N_UNFIT]++;
    pgp_pool_unlock(pool);
    pgp_pool_discard(unfit, reason);
}

/* Take an idle connection, or wait for one. */
static pgp_outcome request_take(acquire_request *req, apr_time_t now)
{
    pgp_pool *pool = req->pool;
    const apr_time_t until = req->info->until;
    apr_time_t idle_at = now; /* the end of its idle time; after a hand-off it has none */
    pgp_outcome outcome = PGP_GRANTED;

    pgp_pool_lock(pool);
    if (pool->phase == PGP_STOPPED)
        outcome = PGP_STOPPING;
    else if (pgp_pool_count(pool, PGP_IDLE) > 0 && now <= until) {
        req->slot = APR_RING_FIRST(&pool->lists[PGP_IDLE].ring);
        pgp_slot_lend_locked(pool, req->slot, now);
        pgp_share_idle_changed_locked(pool);
    }
    else if (pgp_pool_is_futile_locked(pool, now) && !may_probe_locked(req, now)) {
        if (pool->share.at_cap)
            demand_note_locked(req); /* the other children have all the permits */
        outcome = PGP_UNAVAILABLE;
    }
    else if (!may_wait_locked(req, now)) {
        demand_note_locked(req);
        outcome = pgp_pool_shortage_locked(pool);
    }
    else {
        outcome = pgp_queue_wait_locked(pool, until, now, &req->slot);
        req->has_waited = true;
        req->info->waited = pgp_pool_now(pool) - req->start;
        if (outcome == PGP_GRANTED)
            idle_at = req->slot->idle_since;
    }
    if (outcome == PGP_GRANTED)
        request_note_locked(req, idle_at);
    else
        pgp_pool_count_refusal_locked(pool, outcome, &req->info->error);
    pgp_pool_unlock(pool);
    if (req->wake_keeper)
        pool->waker.wake(pool->waker.baton);
    return outcome;
}

/* Check the connection that was taken: look at its socket, collect the answer to its reset,
 * ping it if that is due.  Returns why it is unfit, or PGP_REASON_NONE. */
static pgp_reason request_check(acquire_request *req)
{
    const pgp_driver *driver = req->pool->env->driver;
    pgp_error *error = &req->info->error;
    const pgp_idle_state idle = driver->check_idle(req->slot->connection, error);
    const bool ping = req->needs_ping || idle == PGP_IDLE_HEARD;

    if (idle == PGP_IDLE_DEAD)
        return PGP_REASON_LOST;
    if ((idle == PGP_IDLE_QUIET && !ping) ||
        driver->prepare(req->slot->connection, ping,
                        check_deadline(req->pool, req->info->until), error))
        return PGP_REASON_NONE;
    if (!pgp_slot_is_alive(req->slot))
        return PGP_REASON_LOST;
    return idle == PGP_IDLE_RESET_PENDING ? PGP_REASON_UNCLEAN : PGP_REASON_PING;
}

/* With PgPoolAcquireTimeout 0 the deadline is that of a check. */
pgp_outcome pgp_pool_acquire(pgp_pool *pool, pgp_slot **slot, pgp_acquire_info *info)
{
    const pgp_settings *settings = pool->settings;
    apr_time_t now = pgp_pool_now(pool);
    acquire_request req = {
        .pool = pool, .info = info, .start = now, .is_retry = info->until != 0};
    pgp_outcome outcome;
    pgp_reason unfit;

    if (!info->until)
        info->until = now + (settings->acquire_timeout ? settings->acquire_timeout
                                                       : settings->check_timeout);
    info->waited = 0;
    info->error.sqlstate[0] = info->error.message[0] = '\0';
    while ((outcome = request_take(&req, now)) == PGP_GRANTED &&
           (unfit = request_check(&req)) != PGP_REASON_NONE) {
        discard_unfit(&req.slot, unfit, &info->error);
        req.is_retry = true;
        now = pgp_pool_now(pool);
    }
    if (outcome != PGP_GRANTED)
        return outcome;
    info->error.sqlstate[0] = info->error.message[0] = '\0';
    atomic_store_explicit(&req.slot->is_uncounted, true, memory_order_release);
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_LEASED, pool->name, pgp_slot_backend(req.slot),
            "lent, lease %" APR_UINT64_T_FMT ", waited %" APR_TIME_T_FMT " us", req.slot->lease,
            info->waited);
    *slot = req.slot;
    return PGP_GRANTED;
}

/* --- a borrowed connection --------------------------------------------------- */

pgp_set_outcome pgp_slot_set_vars(pgp_slot *slot, const pgp_vars *vars, apr_time_t until,
                                  pgp_error *error)
{
    const pgp_driver *driver = slot->pool->env->driver;

    if (driver->has_vars(slot->connection, vars))
        return PGP_SET_DONE;
    *error = (pgp_error){.message = ""};
    return driver->set_vars(slot->connection, vars, check_deadline(slot->pool, until), error);
}

void pgp_slot_doubt_vars(pgp_slot *slot)
{
    slot->pool->env->driver->doubt_vars(slot->connection);
}

void pgp_pool_discard_unfit(pgp_slot **slot, const pgp_error *error)
{
    discard_unfit(slot, pgp_slot_is_alive(*slot) ? PGP_REASON_PING : PGP_REASON_LOST, error);
}
