/* Maintains a pool as time passes: retires connections, warns of long leases, and looks at idle
 * connections. */
#include "pgp_pool_private.h"

#include <poll.h>

#include "pgp_pool_keeper.h"

/* The keeper maintains a pool at least this often, so it needs no timer for each connection
 * that grows old. */
#define MAINTAIN_STEP PGP_MS(500)

/* The keeper looks at the idle connections this often. */
#define WATCH_STEP PGP_SEC(1)

/* If the keeper has read something, it looks again this soon: the server may have waited for
 * room in the socket, and go on sending. */
#define WATCH_AGAIN PGP_MS(20)

/* --- time -------------------------------------------------------------------- */

/* Retire idle connections that are due.  During an outage none is retired: an old connection is
 * better than none. */
static void idle_retire_due_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    int spare = pgp_pool_live_locked(pool) -
                (pool->phase == PGP_RUNNING ? pool->settings->min : 0);
    pgp_slot *slot = APR_RING_LAST(&pool->lists[PGP_IDLE].ring), *newer;
    pgp_reason reason;

    if (pool->phase == PGP_RUNNING && pool->outage.failures)
        return;
    for (; slot != APR_RING_SENTINEL(&pool->lists[PGP_IDLE].ring, pgp_slot, entry);
         slot = newer) {
        newer = APR_RING_PREV(slot, entry);
        reason = pool->phase == PGP_RUNNING
                     ? pgp_policy_retire(slot, pool->settings, spare, now)
                     : PGP_REASON_STOP;
        if (reason == PGP_REASON_NONE)
            continue;
        pgp_slot_retire_locked(slot, reason);
        spare--;
    }
}

/* Apply the operator's orders.  During a suspension the server may be restarted: so the pool
 * keeps no idle connection and makes none, and forgets the outage and the server's capacity. */
static void orders_apply_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_slot *slot, *newer;

    if (pool->board)
        pool->orders = pgp_board_orders(pool->board, pool->place, now);
    if (pool->phase == PGP_STOPPED ||
        !(pool->orders.suspended_until | pool->orders.reconnect_before))
        return;
    if (pgp_pool_is_suspended_locked(pool, now)) {
        pgp_pool_retire_all_locked(pool, PGP_IDLE, PGP_REASON_ORDER);
        pgp_pool_retire_all_locked(pool, PGP_CONNECTING, PGP_REASON_ORDER);
        pool->outage = (pgp_outage){.failures = 0};
        pool->surveyed = false;
        return;
    }
    for (slot = APR_RING_LAST(&pool->lists[PGP_IDLE].ring);
         slot != APR_RING_SENTINEL(&pool->lists[PGP_IDLE].ring, pgp_slot, entry);
         slot = newer) {
        newer = APR_RING_PREV(slot, entry);
        if (pgp_slot_is_ordered_away_locked(slot, now))
            pgp_slot_retire_locked(slot, PGP_REASON_ORDER);
    }
}

/* The time at which the keeper has to maintain the pool again although nobody wakes it. */
static apr_time_t next_round_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    apr_time_t next = now + MAINTAIN_STEP;

    if (pool->waiting && pgp_pool_count(pool, PGP_FREE) > 0 && now + PGP_GROWTH_STEP < next)
        next = now + PGP_GROWTH_STEP;
    if (now < pool->outage.retry_at && pool->outage.retry_at < next)
        next = pool->outage.retry_at;
    if (now < pool->orders.suspended_until && pool->orders.suspended_until < next)
        next = pool->orders.suspended_until;
    if (pgp_share_has_own_cap(pool) && now < pool->share.look_at && pool->share.look_at < next)
        next = pool->share.look_at;
    return next;
}

/* A connection that has been in use for longer than PgPoolHoldWarning without a warning yet,
 * with a copy of its borrower's description; NULL: there is none. */
static pgp_slot *lease_overlong_locked(pgp_pool *pool, apr_time_t now, pgp_borrower *borrower)
{
    PGP_LOCKED(pool);
    const apr_interval_time_t limit = pool->settings->hold_warning;
    pgp_slot *slot;

    APR_RING_FOREACH (slot, &pool->lists[PGP_IN_USE].ring, pgp_slot, entry)
        if (limit != PGP_NEVER && !slot->warned && now - slot->borrower.since >= limit) {
            slot->warned = true;
            *borrower = slot->borrower;
            return slot;
        }
    return NULL;
}

static void long_leases_warn(pgp_pool *pool, apr_time_t now)
{
    pgp_borrower borrower;
    pgp_slot *overlong;

    do {
        pgp_pool_lock(pool);
        overlong = lease_overlong_locked(pool, now, &borrower);
        pgp_pool_unlock(pool);
        if (overlong)
            pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_HELD, pool->name, borrower.backend,
                    "has been held for %" APR_TIME_T_FMT " s by %s%s%s",
                    (now - borrower.since) / 1000000,
                    *borrower.what ? borrower.what : "a module, without a request",
                    *borrower.client ? " for " : "", borrower.client);
    } while (overlong);
}

apr_time_t pgp_pool_maintain(pgp_pool *pool)
{
    const apr_time_t now = pgp_pool_now(pool);
    pgp_stats stats;
    apr_time_t next;

    pgp_pool_lock(pool);
    orders_apply_locked(pool, now);
    idle_retire_due_locked(pool, now);
    pgp_pool_grow_locked(pool, now);
    pgp_pool_take_stats_locked(pool, &stats);
    next = next_round_locked(pool, now);
    pgp_pool_unlock(pool);
    pgp_share_ring(pool);
    pgp_share_publish(pool, &stats);
    long_leases_warn(pool, now);
    pgp_pool_end_refusals(pool, now);
    return next;
}

/* --- idle connections -------------------------------------------------------- */

/* Retire an idle connection that the server has closed.  If a borrower has taken it since the
 * poll(), the borrower finds out. */
static void idle_found_ended(pgp_slot *slot, apr_time_t seen)
{
    pgp_pool *pool = slot->pool;
    char words[PGP_ERROR_WORDS];
    pgp_error error;
    bool ended;

    pgp_pool_lock(pool);
    ended = slot->state == PGP_IDLE && slot->idle_since < seen;
    if (ended) {
        pool->suspect_since = seen;
        pgp_slot_retire_locked(slot, PGP_REASON_LOST);
    }
    pgp_pool_unlock(pool);
    if (!ended)
        return;
    pgp_slot_last_words(slot, &error); /* the keeper owns the connection now */
    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_slot_backend(slot),
            "was closed by the server while idle%s%s", *error.message ? ": " : "",
            pgp_error_print(words, &error));
}

/* Take an idle connection into the keeper's hands.  A connection that came back a moment ago
 * stays idle: a request is likely to want it soon, and reads from it then. */
static bool idle_take(pgp_slot *slot, apr_time_t seen)
{
    pgp_pool *pool = slot->pool;

    pgp_pool_lock(pool);
    pool->reading = slot->state == PGP_IDLE && slot->idle_since <= seen - WATCH_STEP;
    if (pool->reading)
        pgp_slot_move(pool->lists, slot, PGP_CLEANING);
    pgp_pool_unlock(pool);
    return pool->reading;
}

/* Park the connection again, or hand it to a waiter.  It has been idle all the time. */
static void idle_give_back(pgp_slot *slot, apr_time_t now)
{
    pgp_pool *pool = slot->pool;

    pgp_pool_lock(pool);
    pool->reading = false;
    pgp_slot_hand_off_locked(pool, slot, slot->idle_since, now);
    pgp_pool_unlock(pool);
}

static void idle_retire(pgp_slot *slot, const pgp_error *error)
{
    pgp_pool *pool = slot->pool;
    const pgp_reason reason = pgp_slot_is_alive(slot) ? PGP_REASON_UNCLEAN : PGP_REASON_LOST;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_slot_backend(slot),
            "found unfit while idle (%s): %s", pgp_reason_name(reason),
            pgp_error_print(words, error));
    if (reason == PGP_REASON_UNCLEAN)
        pgp_slot_log_reset_failure(slot, error);
    pgp_slot_retire(slot, reason);
    pgp_pool_lock(pool);
    pool->reading = false;
    if (!pool->settings->acquire_timeout) /* callers have waited for this connection only */
        pgp_queue_end_all_locked(pool, pgp_pool_shortage_locked(pool));
    pgp_pool_unlock(pool);
}

/* Read what the server has sent.  If nobody reads, its process blocks as soon as the socket is
 * full, in the middle of its work, with a transaction open. */
static bool idle_read(pgp_slot *slot, apr_time_t seen)
{
    pgp_error error = {.sqlstate = ""};

    if (!idle_take(slot, seen))
        return false;
    if (slot->pool->env->driver->read_idle(slot->connection, &error))
        idle_give_back(slot, seen);
    else
        idle_retire(slot, &error);
    return true;
}

/* A listed connection may be borrowed and closed before the poll(), and its descriptor may
 * belong to another connection by then.  So the functions above look again under the lock: that
 * slot is not idle any more, or has not been idle for long enough.  The oldest connection is
 * read first, so that the newest is in front again afterwards. */
apr_time_t pgp_pool_watch_idle(pgp_pool *pool, pgp_slot **slots, struct pollfd *fds)
{
    const apr_time_t now = pgp_pool_now(pool);
    bool any_read = false;
    int i, n;

    if (now < pool->watch_at)
        return pool->watch_at;
    pool->watch_at = now + WATCH_STEP;
    pgp_pool_lock(pool);
    n = pgp_pool_list_locked(pool, PGP_IDLE, slots);
    pgp_pool_unlock(pool);
    for (i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = slots[i]->socket, .events = POLLIN | POLLRDHUP};
    if (poll(fds, n, 0) <= 0)
        return pool->watch_at;
    for (i = n - 1; i >= 0; i--)
        if (fds[i].revents & ~POLLIN)
            idle_found_ended(slots[i], now);
        else if (fds[i].revents)
            any_read |= idle_read(slots[i], now);
    if (any_read)
        pool->watch_at = now + WATCH_AGAIN;
    return pool->watch_at;
}
