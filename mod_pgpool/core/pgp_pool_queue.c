/* Queues callers that wait, and hands connections off to them. */
#include "pgp_pool_private.h"

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

/* Take a waiter out of the queue.  No other function does. */
static void waiter_leave_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_slot *slot)
{
    PGP_LOCKED(pool);
    APR_RING_REMOVE(w, entry);
    pool->waiting--;
    w->outcome = outcome;
    w->slot = slot;
    w->ended = true;
    pgp_share_queue_changed_locked(pool);
}

void pgp_waiter_end_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_slot *slot)
{
    PGP_LOCKED(pool);
    waiter_leave_locked(pool, w, outcome, slot);
    w->next_ended = pool->ended;
    pool->ended = w;
}

void pgp_queue_end_all_locked(pgp_pool *pool, pgp_outcome outcome)
{
    PGP_LOCKED(pool);
    waiter *w;

    while ((w = pgp_queue_first_locked(pool)) != NULL)
        pgp_waiter_end_locked(pool, w, outcome, NULL);
}

void pgp_slot_lend_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_slot_move(pool->lists, slot, PGP_IN_USE);
    slot->lease = ++pool->leases;
    slot->warned = false;
    slot->borrower.since = now;
    slot->borrower.client[0] = slot->borrower.what[0] = '\0';
}

void pgp_slot_hand_off_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t idle_since,
                              apr_time_t now)
{
    PGP_LOCKED(pool);
    waiter *w = pgp_queue_first_locked(pool);

    slot->idle_since = idle_since;
    if (w) {
        pgp_slot_lend_locked(pool, slot, now);
        pgp_waiter_end_locked(pool, w, PGP_GRANTED, slot);
    }
    else
        pgp_slot_move(pool->lists, slot, PGP_IDLE);
    pgp_share_idle_changed_locked(pool);
}

/* Whether to wake the keeper for a new waiter, because it can open a connection.  Once requests
 * lack a permit, only the first waiter wakes it, to tell the other children. */
static bool needs_keeper_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return pgp_pool_count(pool, PGP_FREE) > 0 &&
           (!pool->share.waits_since || pool->waiting == 1);
}

/* Sleep until another thread ends the wait or its deadline passes.  A waiter that was handed
 * a connection at the last moment takes it, and so awaits the wake-up that is on its way. */
static void waiter_sleep(pgp_pool *pool, waiter *w)
{
    const pgp_env *env = pool->env;
    bool ended;

    if (env->wait(env->baton, &w->woken, w->until))
        return;
    pgp_pool_lock(pool);
    ended = w->ended;
    if (!ended)
        waiter_leave_locked(pool, w, pgp_pool_shortage_locked(pool), NULL);
    pgp_pool_unlock(pool);
    while (ended && sem_wait(&w->woken) != 0)
        ; /* a signal */
}

/* The waiter stands on the stack, not in memory of the request: in prefork a signal handler may
 * destroy that in the middle of a wait. */
pgp_outcome pgp_queue_wait_locked(pgp_pool *pool, apr_time_t until, apr_time_t now,
                                  pgp_slot **slot)
{
    PGP_LOCKED(pool);
    waiter w = {.until = until};
    bool wake;

    sem_init(&w.woken, 0, 0);
    queue_insert_locked(pool, &w, now);
    pgp_outage_hasten(&pool->outage, now, &pool->settings->retry);
    wake = needs_keeper_locked(pool);
    pgp_pool_unlock(pool);
    if (wake)
        pool->waker.wake(pool->waker.baton);
    waiter_sleep(pool, &w);
    sem_destroy(&w.woken);
    pgp_pool_lock(pool);
    *slot = w.slot;
    return w.outcome;
}
