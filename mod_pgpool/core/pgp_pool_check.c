/* Checks the invariants of pgp_pool.h. */
#include "pgp_pool_private.h"

/* How many slots a state's list holds that are in that state; -1 if another one is there. */
static int list_length(const pgp_slot_list *list, pgp_state state)
{
    const pgp_slot *slot;
    int n = 0;

    APR_RING_FOREACH (slot, &list->ring, pgp_slot, entry) {
        if (slot->state != state)
            return -1;
        n++;
    }
    return n;
}

static const char *slots_broken(const pgp_pool *pool)
{
    const pgp_slot *slot;
    int state, sum = 0;

    for (state = 0; state < PGP_STATES; state++) {
        if (list_length(&pool->lists[state], state) != pool->lists[state].count)
            return "a slot is not on the list of its state";
        sum += pool->lists[state].count;
    }
    if (sum != pool->settings->max)
        return "a slot is on no list";
    APR_RING_FOREACH (slot, &pool->lists[PGP_IDLE].ring, pgp_slot, entry)
        if (!slot->connection)
            return "an idle slot has no connection";
    return NULL;
}

static const char *queue_broken(const pgp_pool *pool)
{
    const waiter *w, *before = NULL;
    int n = 0;

    APR_RING_FOREACH (w, &pool->queue, waiter, entry) {
        if (w->ended)
            return "a wait that has ended is in the queue";
        if (before && before->until > w->until)
            return "the queue is not sorted by deadline";
        before = w;
        n++;
    }
    return n == pool->waiting ? NULL : "the number of waiters is wrong";
}

const char *pgp_pool_broken_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    const char *broken = slots_broken(pool);

    if (!broken)
        broken = queue_broken(pool);
    if (!broken && pool->waiting && pgp_pool_count(pool, PGP_IDLE) > 0)
        broken = "a request waits while a connection is idle";
    if (!broken && pool->waiting && pool->phase == PGP_STOPPED)
        broken = "a request waits for a stopped pool";
    return broken;
}
