/*
 * The borrowers' side of a pool: the queue, acquire, release (pgp_pool.h).
 */
#include "pgp_pool_private.h"

#include <apr_strings.h>

/* Callers get connections again if no failure was worth a line for this long. */
#define REFUSALS_OVER (PGP_LOG_PERIOD + PGP_SEC(10))

/* A caller may come back this much after its deadline if its connection was still to be
 * checked. */
#define LAST_MOMENT PGP_MS(50)

/* One call of pgp_pool_acquire(), over all its tries; on its stack. */
typedef struct {
    pgp_pool *pool;
    pgp_acquire_info *info;
    apr_time_t start, until;
    pgp_slot *slot;       /* the one that was taken, */
    bool needs_ping;      /* needs a round trip before it is given out, */
    bool has_waited;      /* and was waited for */
    bool is_retry;        /* a connection was unfit: PgPoolMaxWaiters has let it in already */
    bool wake_keeper;     /* the keeper does not know of the demand yet */
    apr_time_t probed_at; /* since when it awaits an attempt to connect; 0: it does not */
} acquire_request;

/* --- creation --------------------------------------------------------------- */

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
    pool->kept = 1;
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

void pgp_pool_count(pgp_pool *pool, pgp_counts *counts)
{
    int i;

    lock(pool);
    for (i = 0; i < PGP_STATES; i++)
        counts->state[i] = count(pool, i);
    counts->waiting = pool->waiting;
    unlock(pool);
}

/* --- the queue -------------------------------------------------------------- */

static void queue_insert_locked(pgp_pool *pool, waiter *w, apr_time_t now)
{
    PGP_LOCKED(pool);
    waiter *before = APR_RING_LAST(&pool->queue);

    if (pool->waiting++ == 0)
        pool->demand_since = now;
    while (before != APR_RING_SENTINEL(&pool->queue, waiter, entry) && before->until > w->until)
        before = APR_RING_PREV(before, entry);
    APR_RING_INSERT_AFTER(before, w, entry);
}

/* Each waiter leaves the queue here, and only once. */
static void waiter_leave_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_slot *slot)
{
    PGP_LOCKED(pool);
    APR_RING_REMOVE(w, entry);
    pool->waiting--;
    w->outcome = outcome;
    w->slot = slot;
    w->ended = 1;
    pgp_share_queue_changed_locked(pool);
}

void pgp_waiter_end_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_slot *slot)
{
    PGP_LOCKED(pool);
    waiter_leave_locked(pool, w, outcome, slot);
    w->ended_after = pool->ended;
    pool->ended = w;
}

waiter *pgp_queue_first_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return pool->waiting ? APR_RING_FIRST(&pool->queue) : NULL;
}

void pgp_queue_end_all_locked(pgp_pool *pool, pgp_outcome outcome)
{
    PGP_LOCKED(pool);
    waiter *w;

    while ((w = pgp_queue_first_locked(pool)) != NULL)
        pgp_waiter_end_locked(pool, w, outcome, NULL);
}

/* --- acquire ---------------------------------------------------------------- */

static void lend_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_slot_move(pool->lists, slot, PGP_IN_USE);
    slot->lease = ++pool->leases;
    slot->warned = 0;
    slot->holder.since = now;
    slot->holder.client[0] = slot->holder.what[0] = '\0';
}

void pgp_slot_hand_off_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(pool);
    waiter *w = pgp_queue_first_locked(pool);

    slot->idle_since = now;
    if (w) {
        lend_locked(pool, slot, now);
        pgp_waiter_end_locked(pool, w, PGP_GRANTED, slot);
    }
    else
        pgp_slot_move(pool->lists, slot, PGP_IDLE);
    pgp_share_idle_changed_locked(pool);
}

pgp_outcome pgp_shortage_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return live_locked(pool) > 0 || (pool->share.at_cap && !pool->outage.failures)
               ? PGP_EXHAUSTED
               : PGP_UNAVAILABLE;
}

bool pgp_pool_is_futile_locked(const pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    return live_locked(pool) == 0 &&
           pgp_outage_is_futile(&pool->outage, now, pool->settings->acquire_timeout);
}

/* Which children hold how many of the permits, as the keeper has last seen it. */
static void explain_cap_locked(const pgp_pool *pool, pgp_error *error)
{
    PGP_LOCKED(pool);
    const pgp_outlook *look = &pool->share.look;
    const int mine = pool->settings->max - count(pool, PGP_FREE);

    apr_snprintf(error->message, sizeof error->message,
                 "all %d connections that PgPoolTotalMax allows are taken: %d by this child, "
                 "%d of them in use, and %d by %d others; %d more requests wait here",
                 pool->settings->total_max, mine, count(pool, PGP_IN_USE),
                 look->used > mine ? look->used - mine : 0, look->holders - (mine > 0),
                 pool->waiting);
}

/* Explain a failure to the caller.  While connects fail, the last one's error is the cause. */
static void explain_locked(const pgp_pool *pool, pgp_outcome outcome, pgp_error *error)
{
    PGP_LOCKED(pool);
    if (outcome == PGP_STOPPING)
        *error = (pgp_error){.message = "this child is stopping"};
    else if (pool->outage.failures)
        *error = pool->outage.error;
    else if (error->message[0])
        return; /* what made the last one unfit says more than the shortage */
    else if (pool->board && pool->share.quota.seat < 0)
        *error = (pgp_error){
            .message = "this child has no seat in the memory that all children "
                       "share, see PGP1017"};
    else if (pool->share.at_cap && outcome == PGP_EXHAUSTED)
        explain_cap_locked(pool, error);
    else if (outcome == PGP_UNAVAILABLE)
        *error = (pgp_error){.message = "no connection could be made in time"};
    else {
        error->sqlstate[0] = '\0';
        apr_snprintf(error->message, sizeof error->message,
                     "all %d connections are in use (PgPoolMax %d), %d more are waiting",
                     count(pool, PGP_IN_USE), pool->settings->max, pool->waiting);
    }
}

/* Count a failure, and explain it to the caller. */
static void request_fail_locked(acquire_request *req, pgp_outcome outcome)
{
    PGP_LOCKED(req->pool);
    pgp_pool *pool = req->pool;

    if (outcome == PGP_EXHAUSTED)
        pool->stats.n[PGP_N_EXHAUSTED]++;
    else if (outcome == PGP_UNAVAILABLE)
        pool->stats.n[PGP_N_UNAVAILABLE]++;
    explain_locked(pool, outcome, &req->info->error);
}

/* Whether this caller may wait although waiting is futile, for one attempt to connect. */
static bool may_probe_locked(acquire_request *req, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    pgp_pool *pool = req->pool;

    if (req->probed_at)
        return !pgp_outage_has_failed_since(&pool->outage, req->probed_at);
    /* One at a time; and without a permit no attempt can be made. */
    if (pool->waiting || pool->share.at_cap ||
        !pgp_outage_may_probe(&pool->outage, now, &pool->settings->retry,
                              count(pool, PGP_CONNECTING) > 0))
        return false;
    req->probed_at = now;
    return true;
}

/* With PgPoolAcquireTimeout 0 a caller still waits for a connection that the keeper reads from:
 * it is as good as idle. */
static bool may_wait_locked(const acquire_request *req, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    const pgp_pool *pool = req->pool;
    const int most = pool->settings->max_waiters;

    return (pool->settings->acquire_timeout || pool->reading) && now < req->until &&
           (!most || req->is_retry || pool->waiting < most);
}

/* The pool grows for a caller that cannot wait, so that the next one finds a connection. */
static void demand_note_locked(acquire_request *req)
{
    PGP_LOCKED(req->pool);
    req->wake_keeper = !req->pool->refused_demand;
    req->pool->refused_demand = 1;
}

static void slot_take_locked(acquire_request *req, pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    req->slot = slot;
    req->needs_ping = pgp_policy_ping_due(slot, req->pool->settings, req->pool->suspect_since,
                                          now);
}

static void slot_take_idle_locked(acquire_request *req, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    pgp_pool *pool = req->pool;
    pgp_slot *newest = APR_RING_FIRST(&pool->lists[PGP_IDLE].ring);

    lend_locked(pool, newest, now);
    slot_take_locked(req, newest, now);
    pgp_share_idle_changed_locked(pool);
}

/* Whether to wake the keeper for a new waiter: it can open a connection.  If several lack
 * permits, the first of them tells the other children. */
static int keeper_needed_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return count(pool, PGP_FREE) > 0 && (!pool->share.waits_since || pool->waiting == 1);
}

/* Sleep until another thread ends the wait or its deadline passes.  A waiter that was handed
 * a connection at the last moment takes it, and so awaits the wake-up that is on its way. */
static void waiter_sleep(pgp_pool *pool, waiter *w)
{
    const pgp_env *env = pool->env;
    int ended;

    if (env->wait(env->baton, &w->woken, w->until))
        return;
    lock(pool);
    ended = w->ended;
    if (!ended)
        waiter_leave_locked(pool, w, pgp_shortage_locked(pool), NULL);
    unlock(pool);
    while (ended && sem_wait(&w->woken) != 0)
        ; /* a signal */
}

/* Join the queue and sleep until the wait ends; the lock is free meanwhile.  The waiter stands
 * on the stack, not in memory of the request: in prefork a signal handler may destroy that in
 * the middle of a wait. */
static pgp_outcome wait_locked(acquire_request *req, apr_time_t now)
{
    PGP_LOCKED(req->pool);
    pgp_pool *pool = req->pool;
    waiter w = {.until = req->until};
    int call;

    sem_init(&w.woken, 0, 0);
    queue_insert_locked(pool, &w, now);
    pgp_outage_hasten(&pool->outage, now, &pool->settings->retry);
    call = keeper_needed_locked(pool);
    unlock(pool);
    if (call)
        pool->waker.wake(pool->waker.baton);
    waiter_sleep(pool, &w);
    sem_destroy(&w.woken);
    lock(pool);
    req->has_waited = true;
    req->info->waited = now_of(pool) - req->start;
    if (w.outcome == PGP_GRANTED)
        slot_take_locked(req, w.slot, w.slot->idle_since);
    return w.outcome;
}

/* Take an idle connection, or wait for one. */
static pgp_outcome request_take(acquire_request *req)
{
    pgp_pool *pool = req->pool;
    const apr_time_t now = now_of(pool);
    pgp_outcome outcome = PGP_GRANTED;

    lock(pool);
    if (pool->phase == STOPPED)
        outcome = PGP_STOPPING;
    else if (count(pool, PGP_IDLE) > 0 && now <= req->until)
        slot_take_idle_locked(req, now);
    else if (pgp_pool_is_futile_locked(pool, now) && !may_probe_locked(req, now)) {
        if (pool->share.at_cap)
            demand_note_locked(req); /* the other children have all the permits */
        outcome = PGP_UNAVAILABLE;
    }
    else if (!may_wait_locked(req, now)) {
        demand_note_locked(req);
        outcome = pgp_shortage_locked(pool);
    }
    else
        outcome = wait_locked(req, now);
    if (outcome != PGP_GRANTED)
        request_fail_locked(req, outcome);
    unlock(pool);
    if (req->wake_keeper)
        pool->waker.wake(pool->waker.baton);
    return outcome;
}

static apr_time_t check_deadline(const pgp_pool *pool)
{
    return now_of(pool) + pool->settings->check_timeout;
}

/* The deadline of a check: PgPoolCheckTimeout, but within the caller's deadline.  A connection
 * that was handed over at the last moment still gets the time of one round trip: it may be
 * sound. */
static apr_time_t test_deadline(const pgp_pool *pool, apr_time_t until)
{
    const apr_time_t now = now_of(pool);
    const apr_time_t check = now + pool->settings->check_timeout, least = now + LAST_MOMENT;

    if (until != PGP_NEVER && until < least)
        until = least;
    return until == PGP_NEVER || check < until ? check : until;
}

/* Check the connection that was taken: look at its socket, and do what it owes.  Returns why it
 * is unfit, or PGP_REASON_NONE. */
static pgp_reason request_check(acquire_request *req)
{
    const pgp_driver *driver = req->pool->env->driver;
    pgp_error *error = &req->info->error;
    const pgp_idle_state idle = driver->check_idle(req->slot->connection, error);
    const int ping = req->needs_ping || idle == PGP_IDLE_HEARD;

    if (idle == PGP_IDLE_DEAD)
        return PGP_REASON_LOST;
    if ((idle == PGP_IDLE_QUIET && !ping) ||
        driver->prepare(req->slot->connection, ping, test_deadline(req->pool, req->until),
                        error))
        return PGP_REASON_NONE;
    if (!pgp_slot_is_alive(req->slot))
        return PGP_REASON_LOST;
    return idle == PGP_IDLE_RESET_PENDING ? PGP_REASON_UNCLEAN : PGP_REASON_PING;
}

void pgp_reset_failed(pgp_slot *slot, const pgp_error *error)
{
    pgp_pool *pool = slot->pool;
    pgp_gate_count count;

    if (!*error->sqlstate)
        return; /* no word of the server's: it was too late */
    if (pgp_gate_pass(pgp_share_gate(pool, PGP_GATE_RESET), now_of(pool), PGP_LOG_PERIOD,
                      &count))
        pgp_log(
            pool->env, PGP_LOG_WARNING, PGP_MSG_RESET, pool->name, pgp_slot_backend(slot),
            "the server refuses the reset of the session, which costs a new connection each "
            "time (%" APR_UINT64_T_FMT " since the last warning): %s (SQLSTATE %s)",
            count.events, error->message, error->sqlstate);
}

static void discard_unfit(pgp_slot **unfit, pgp_reason reason, const pgp_error *error)
{
    pgp_pool *pool = (*unfit)->pool;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_slot_backend(*unfit),
            "found unfit before it was given out (%s): %s", pgp_reason_name(reason),
            pgp_error_print(words, error));
    if (reason == PGP_REASON_UNCLEAN)
        pgp_reset_failed(*unfit, error);
    lock(pool);
    pool->stats.n[PGP_N_UNFIT]++;
    unlock(pool);
    pgp_pool_discard(unfit, reason);
}

/* Record the borrower, for the page and PgPoolHoldWarning. */
static void borrower_describe_locked(pgp_slot *slot, const pgp_acquire_info *info)
{
    PGP_LOCKED(slot->pool);
    pgp_borrower *borrower = &slot->holder;
    const char *const *what = info->what;
    char *at = borrower->what, *const end = at + sizeof borrower->what;

    if (!info->client)
        return;
    apr_cpystrn(borrower->client, info->client, sizeof borrower->client);
    for (; *what; what++)
        at = apr_cpystrn(at, *what, end - at);
}

/* Waits at the cap are counted apart as well. */
static void permit_wait_count(pgp_stats *stats, apr_interval_time_t waited)
{
    stats->n[PGP_N_PERMIT_US] += waited;
    pgp_stats_time(stats, PGP_N_PERMIT, waited);
    if (waited > stats->longest_permit)
        stats->longest_permit = waited;
}

/* An acquire counts when it has succeeded, and so does its wait. */
static void request_succeed(acquire_request *req)
{
    pgp_pool *pool = req->pool;
    pgp_stats *stats = &pool->stats;
    /* The thread that handed the connection over may have read the clock before the wait began.
     */
    const apr_interval_time_t since_start = req->slot->holder.since - req->start;
    const apr_interval_time_t waited = req->has_waited && since_start > 0 ? since_start : 0;

    req->info->error.sqlstate[0] = req->info->error.message[0] = '\0';
    lock(pool);
    stats->n[PGP_N_ACQUIRES]++;
    stats->n[PGP_N_WAITS] += req->has_waited;
    stats->n[PGP_N_WAIT_US] += waited;
    pgp_stats_time(stats, PGP_N_WAIT, waited);
    if (waited > stats->longest_wait)
        stats->longest_wait = waited;
    if (req->has_waited && pgp_share_was_short_locked(pool, req->start))
        permit_wait_count(stats, waited);
    borrower_describe_locked(req->slot, req->info);
    unlock(pool);
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_LEASED, pool->name, pgp_slot_backend(req->slot),
            "lent, lease %" APR_UINT64_T_FMT ", waited %" APR_TIME_T_FMT " us",
            req->slot->lease, req->info->waited);
}

/* A caller that does not wait for a connection still gives a check its time. */
static acquire_request request_begin(pgp_pool *pool, pgp_acquire_info *info)
{
    const pgp_settings *settings = pool->settings;
    acquire_request req = {.pool = pool, .info = info, .start = now_of(pool)};

    req.is_retry = info->until != 0;
    if (!req.is_retry)
        info->until = req.start + (settings->acquire_timeout ? settings->acquire_timeout
                                                             : settings->check_timeout);
    req.until = info->until;
    info->waited = 0;
    info->error.sqlstate[0] = info->error.message[0] = '\0';
    return req;
}

pgp_outcome pgp_pool_acquire(pgp_pool *pool, pgp_slot **slot, pgp_acquire_info *info)
{
    acquire_request req = request_begin(pool, info);

    for (;;) {
        const pgp_outcome outcome = request_take(&req);
        pgp_reason unfit;

        if (outcome != PGP_GRANTED)
            return outcome;
        unfit = request_check(&req);
        if (unfit == PGP_REASON_NONE)
            break;
        discard_unfit(&req.slot, unfit, &info->error);
        req.is_retry = true;
    }
    request_succeed(&req);
    *slot = req.slot;
    return PGP_GRANTED;
}

pgp_set_outcome pgp_slot_set_vars(pgp_slot *slot, const pgp_vars *vars, apr_time_t until,
                                  pgp_error *error)
{
    const pgp_driver *driver = slot->pool->env->driver;

    if (driver->is_set(slot->connection, vars))
        return PGP_SET_DONE;
    *error = (pgp_error){.message = ""};
    return driver->set(slot->connection, vars, test_deadline(slot->pool, until), error);
}

void pgp_pool_unfit(pgp_slot **slot, const pgp_error *error)
{
    discard_unfit(slot, pgp_slot_is_alive(*slot) ? PGP_REASON_PING : PGP_REASON_LOST, error);
}

static pgp_gate *refusal_gate(pgp_pool *pool, pgp_outcome outcome)
{
    return pgp_share_gate(pool,
                          outcome == PGP_EXHAUSTED ? PGP_GATE_EXHAUSTED : PGP_GATE_UNAVAILABLE);
}

int pgp_pool_may_log(pgp_pool *pool, pgp_outcome outcome, apr_uint64_t *unlogged)
{
    pgp_gate_count count = {.events = 1};
    const int may = pgp_gate_pass(refusal_gate(pool, outcome), now_of(pool), PGP_LOG_PERIOD,
                                  &count);

    *unlogged = count.events ? count.events - 1 : 0;
    return may;
}

void pgp_refusals_end(pgp_pool *pool, apr_time_t now)
{
    static const pgp_outcome outcomes[] = {PGP_EXHAUSTED, PGP_UNAVAILABLE};
    pgp_gate_count count;
    int i;

    for (i = 0; i < 2; i++)
        if (pgp_gate_close(refusal_gate(pool, outcomes[i]), now, REFUSALS_OVER, &count) &&
            count.events)
            pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_NO_CONNECTION, pool->name, 0,
                    "%" APR_UINT64_T_FMT " more requests got no connection (%s) since the last "
                    "line, and none for a while",
                    count.events, i ? "unavailable" : "exhausted");
}

int pgp_slot_is_alive(const pgp_slot *slot)
{
    return slot->pool->env->driver->is_alive(slot->connection);
}

void pgp_slot_last_words(const pgp_slot *slot, pgp_error *error)
{
    slot->pool->env->driver->last_words(slot->connection, error);
}

void *pgp_slot_handle(const pgp_slot *slot)
{
    return slot->pool->env->driver->handle(slot->connection);
}

unsigned pgp_slot_backend(const pgp_slot *slot)
{
    return slot->holder.backend;
}

/* --- release ---------------------------------------------------------------- */

/* Count how long the borrower has had the connection, and its statements. */
static void count_hold_locked(pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(slot->pool);
    pgp_stats *stats = &slot->pool->stats;
    const apr_interval_time_t held = now - slot->holder.since;

    stats->n[PGP_N_STATEMENT_HITS] += slot->hits;
    stats->n[PGP_N_STATEMENT_MISSES] += slot->misses;
    slot->hits = slot->misses = 0;
    stats->n[PGP_N_HOLD_US] += held;
    pgp_stats_time(stats, PGP_N_HOLD, held);
    if (held > stats->longest_hold)
        stats->longest_hold = held;
}

/* If this was the last usable connection, waiting may be futile from now on. */
void pgp_slot_retire_locked(pgp_slot *slot, pgp_reason reason)
{
    PGP_LOCKED(slot->pool);
    pgp_pool *pool = slot->pool;
    const int lived = live_locked(pool);

    slot->reason = slot->state == PGP_CONNECTING ? PGP_REASON_CONNECT : reason;
    slot->overdue = 0;
    pool->stats.n[PGP_N_CLOSES + slot->reason]++;
    pgp_slot_move(pool->lists, slot, PGP_CLOSING);
    if (lived && !live_locked(pool))
        pgp_outage_deprive(&pool->outage, now_of(pool));
}

void pgp_close_begin(pgp_slot *slot)
{
    const pgp_pool *pool = slot->pool;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLOSED, pool->name, pgp_slot_backend(slot),
            "closed (%s)", pgp_reason_name(slot->reason));
    if (slot->connection)
        pool->env->driver->close(slot->connection);
}

void pgp_close_end(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;

    if (slot->connection)
        pool->env->driver->destroy(slot->connection);
    slot->connection = NULL;
    lock(pool);
    pgp_slot_move(pool->lists, slot, PGP_FREE);
    pgp_share_give_locked(pool);
    unlock(pool);
    pgp_share_ring(pool);
}

/* Retire a connection: the keeper closes it.  Without a keeper it is closed at once. */
void pgp_slot_retire(pgp_slot *slot, pgp_reason reason)
{
    pgp_pool *pool = slot->pool;
    const apr_time_t now = now_of(pool);
    int kept;

    lock(pool);
    if (slot->state == PGP_IN_USE)
        count_hold_locked(slot, now);
    if (reason == PGP_REASON_LOST || reason == PGP_REASON_PING)
        pool->suspect_since = now;
    pgp_slot_retire_locked(slot, reason);
    kept = pool->kept;
    unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else {
        pgp_close_begin(slot);
        pgp_close_end(slot);
    }
}

static void give_back(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    const apr_time_t now = now_of(pool);
    pgp_reason reason = PGP_REASON_NONE;

    lock(pool);
    if (pool->phase == STOPPED || (pool->phase == DRAINING && !pool->waiting))
        reason = PGP_REASON_STOP;
    else if (pool->settings->reset == PGP_RESET_CLOSE)
        reason = PGP_REASON_RESET;
    else if (!pool->outage.failures && slot->expires != PGP_NEVER && now >= slot->expires)
        reason = PGP_REASON_LIFETIME;
    else {
        if (slot->state == PGP_IN_USE)
            count_hold_locked(slot, now);
        pgp_slot_hand_off_locked(pool, slot, now);
    }
    unlock(pool);
    if (reason != PGP_REASON_NONE)
        pgp_slot_retire(slot, reason);
}

static void send_to_cleaning(pgp_slot *slot)
{
    pgp_pool *pool = slot->pool;
    int kept;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLEANING, pool->name, pgp_slot_backend(slot),
            "came back with work open, is being cleaned up");
    pool->env->driver->cleanup(slot->connection);
    slot->overdue = check_deadline(pool);
    lock(pool);
    kept = pool->kept;
    if (kept) {
        count_hold_locked(slot, slot->overdue - pool->settings->check_timeout);
        pgp_slot_move(pool->lists, slot, PGP_CLEANING);
    }
    unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else
        pgp_slot_retire(slot, PGP_REASON_STOP);
}

/* Log why the server ended a connection: its borrower may not have done so. */
static void log_lost(const pgp_slot *slot)
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
        give_back(slot);
        break;
    case PGP_RETURN_DIRTY:
        if (slot->state == PGP_IN_USE)
            send_to_cleaning(slot);
        else
            pgp_slot_retire(slot, PGP_REASON_UNCLEAN);
        break;
    case PGP_RETURN_LARGE:
        pgp_slot_retire(slot, PGP_REASON_LARGE);
        break;
    case PGP_RETURN_BROKEN:
        log_lost(slot);
        pgp_slot_retire(slot, PGP_REASON_LOST);
        break;
    case PGP_RETURN_UNKNOWN:
        pgp_slot_retire(slot, PGP_REASON_UNKNOWN);
        break;
    }
}

/* Whether another child's turn has come.  Then the connection is closed without a reset, which
 * would only keep the server's process busy. */
static int is_passed_on(pgp_pool *pool)
{
    int passed;

    if (!pgp_share_is_turn(pool))
        return 0;
    lock(pool);
    passed = pool->phase == RUNNING && pgp_share_pass_locked(pool, now_of(pool));
    unlock(pool);
    return passed;
}

void pgp_pool_release(pgp_slot **released)
{
    pgp_slot *slot = *released;
    pgp_pool *pool = slot->pool;

    *released = NULL;
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_RETURNED, pool->name, pgp_slot_backend(slot),
            "returned, lease %" APR_UINT64_T_FMT, slot->lease);
    if (is_passed_on(pool))
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

pgp_connection *pgp_pool_detach(pgp_slot **parted)
{
    pgp_slot *slot = *parted;
    pgp_connection *connection = slot->connection;

    *parted = NULL;
    slot->connection = NULL;
    pgp_slot_retire(slot, PGP_REASON_LOST);
    return connection;
}

void pgp_pool_destroy_detached(const pgp_pool *pool, pgp_connection **connection)
{
    pool->env->driver->destroy(*connection);
    *connection = NULL;
}

/* --- a borrowed connection, seen by its borrower ---------------------------- */

pgp_pool *pgp_slot_pool(const pgp_slot *slot)
{
    return slot->pool;
}

apr_uint64_t pgp_slot_lease_id(const pgp_slot *slot)
{
    return slot->lease;
}

bool pgp_slot_is_prepared(const pgp_slot *slot)
{
    return slot->greeted;
}

void pgp_slot_set_prepared(pgp_slot *slot)
{
    slot->greeted = 1;
}

void *pgp_slot_baton(const pgp_slot *slot)
{
    return slot->borrower;
}

void pgp_slot_set_baton(pgp_slot *slot, void *baton)
{
    slot->borrower = baton;
}

void pgp_slot_count_statement(pgp_slot *slot, bool was_prepared)
{
    if (was_prepared)
        slot->hits++;
    else
        slot->misses++;
}
