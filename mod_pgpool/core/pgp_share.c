/*
 * A pool's dealings with the other children: takes and gives its permits (pgp_permits.h), and
 * publishes its figures on the board (pgp_board.h).
 *
 * The keeper publishes and looks when it maintains the pool.  A request thread does less: it
 * reads the one word that tells whether its connection has to give way, and keeps two published
 * times up to date (the oldest wait, the longest idle connection).
 */
#include "pgp_pool_private.h"

#include <string.h>

#include "pgp_pool_keeper.h"

/* A child that waits looks again after this time if no bell rings.  The first child in the
 * order looks more often, for idle connections. */
#define LOOK_STEP PGP_MS(50)

/* A child that does not wait looks again after this time if no bell rings. */
#define QUIET_STEP PGP_MS(500)

/* The time of a connect: a guess until one was measured, and the bounds of a measured one. */
#define CONNECT_GUESS PGP_MS(3)
#define CONNECT_LEAST PGP_MS(1)
#define CONNECT_MOST PGP_MS(500)

/* A published wait is out of date if it exceeds PgPoolAcquireTimeout by this. */
#define WAIT_STALE PGP_SEC(1)

static bool is_attached(const pgp_pool *pool)
{
    return pool->board && pool->share.quota.seat >= 0;
}

bool pgp_share_has_own_cap(const pgp_pool *pool)
{
    return pool->share.quota.cap > 0;
}

static bool is_sharing(const pgp_pool *pool)
{
    return is_attached(pool) && pgp_share_has_own_cap(pool);
}

void pgp_pool_attach_board(pgp_pool *pool, pgp_board *board, int place)
{
    pool->board = board;
    pool->place = place;
    pool->share.quota = (pgp_quota){.board = board,
                                    .seat = -1,
                                    .row = pgp_board_pool_row(board, place),
                                    .cap = pool->settings->total_max};
}

/* Leave the counters with the seat, whose figures will be added to the totals.  The next seat
 * begins at 0. */
static void counters_leave_locked(pgp_pool *pool, pgp_stats *stats)
{
    PGP_LOCKED(pool);
    pgp_pool_take_stats_locked(pool, stats);
    memset(pool->stats.n, 0, sizeof pool->stats.n);
    memset(pool->stats.longest, 0, sizeof pool->stats.longest);
}

void pgp_pool_set_seat(pgp_pool *pool, int seat)
{
    const int left = pool->share.quota.seat; /* only the keeper sets it */
    pgp_stats stats;

    pgp_pool_lock(pool);
    if (left >= 0 && pool->board)
        counters_leave_locked(pool, &stats);
    pool->share.quota.seat = seat;
    pool->share.waits_since = pool->share.idle_since = 0; /* a new standing is empty */
    pool->share.closing = pool->share.connecting = 0;
    pgp_pool_unlock(pool);
    if (left >= 0 && pool->board)
        pgp_board_publish(pool->board, left, pool->place, &stats);
}

bool pgp_pool_is_used(pgp_pool *pool)
{
    int state, used;

    pgp_pool_lock(pool);
    used = pool->waiting + pool->refused_demand;
    for (state = PGP_FREE + 1; state < PGP_STATES; state++)
        used += pgp_pool_count(pool, state);
    pgp_pool_unlock(pool);
    return used > 0;
}

apr_interval_time_t pgp_share_patience(const pgp_pool *pool)
{
    return pool->settings->acquire_timeout + WAIT_STALE;
}

apr_interval_time_t pgp_share_connect_time(const pgp_pool *pool)
{
    const apr_interval_time_t time = pool->share.connect_time;

    if (!time)
        return CONNECT_GUESS;
    return time < CONNECT_LEAST ? CONNECT_LEAST : time > CONNECT_MOST ? CONNECT_MOST : time;
}

void pgp_share_connected_locked(pgp_pool *pool, apr_interval_time_t took)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;

    share->connect_time = share->connect_time ? (7 * share->connect_time + took) / 8 : took;
}

/* --- publishing ------------------------------------------------------------- */

/* Since when the oldest request of this child has waited, but no earlier than the child's last
 * permit: otherwise a child with many old requests would take all permits before any other
 * child. */
static apr_time_t oldest_wait_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const waiter *w = pgp_queue_first_locked(pool);
    const pgp_pool_share *share = &pool->share;
    apr_time_t since = 0;

    if (w)
        since = w->until - pool->settings->acquire_timeout;
    else if (pool->refused_demand)
        since = share->waits_since ? share->waits_since : now;
    return since && since < share->gained_at ? share->gained_at : since;
}

static void wait_publish_locked(pgp_pool *pool, apr_time_t since)
{
    PGP_LOCKED(pool);
    if (since == pool->share.waits_since)
        return;
    pool->share.waits_since = since;
    pgp_permits_set_wait(&pool->share.quota, since);
}

void pgp_share_queue_changed_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    if (pool->share.waits_since && !pool->refused_demand)
        wait_publish_locked(pool, oldest_wait_locked(pool, 0));
}

void pgp_share_idle_changed_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    const apr_time_t since = pgp_pool_idle_since_locked(pool);

    if (!is_sharing(pool) || since == pool->share.idle_since)
        return;
    pool->share.idle_since = since;
    pgp_permits_set_idle(&pool->share.quota, since);
}

/* Returns whether the counts have changed. */
static bool moving_publish_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const int closing = pgp_pool_count(pool, PGP_CLOSING),
              connecting = pgp_pool_count(pool, PGP_CONNECTING);
    const bool changed = closing != pool->share.closing || connecting != pool->share.connecting;

    if (changed || closing || connecting)
        pgp_permits_set_moving(&pool->share.quota, closing, connecting, now);
    pool->share.closing = closing;
    pool->share.connecting = connecting;
    return changed;
}

/* --- taking ----------------------------------------------------------------- */

pgp_pace pgp_share_pace(const pgp_pool *pool, const pgp_outlook *look)
{
    return pgp_policy_pace(look->waiting, pgp_share_connect_time(pool),
                           pool->settings->acquire_timeout);
}

/* Whether the oldest request has waited for a turn. */
static bool is_turn_over(const pgp_pool *pool, apr_time_t now)
{
    const pgp_pool_share *share = &pool->share;

    return share->waits_since &&
           now - share->waits_since >= pgp_share_pace(pool, &share->look).turn;
}

static void look_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;

    pgp_permits_look(&share->quota, now, pgp_share_patience(pool), &share->look);
    share->at_cap = share->look.free <= share->look.ahead;
    share->looked = true;
}

void pgp_share_look_locked(pgp_pool *pool, bool wants, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;
    bool moved;

    share->looked = share->lacks_server = false;
    if (!is_sharing(pool))
        return;
    if (share->is_waiting && !wants)
        share->ring = true; /* a permit kept for this child is free for others */
    share->is_waiting = wants;
    /* Publish the wait before the look: a child that gives a permit back after the look will
     * then ring this one. */
    wait_publish_locked(pool, wants ? oldest_wait_locked(pool, now) : 0);
    moved = moving_publish_locked(pool, now);
    pgp_share_idle_changed_locked(pool);
    if (!wants && !moved && !share->ring && !share->rung && now < share->look_at)
        return;
    share->rung = false;
    share->look_at = now + QUIET_STEP;
    look_locked(pool, now);
}

bool pgp_share_take_own_locked(pgp_pool *pool, bool for_wait, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;

    if (!pool->board)
        return true;
    if (!is_attached(pool))
        return false;
    if (!share->quota.cap)
        return pgp_permits_take(&share->quota, now);
    if (!share->looked)
        look_locked(pool, now);
    if (!pgp_policy_may_take(&share->look, for_wait,
                             pgp_pool_live_locked(pool) == 0 || is_turn_over(pool, now)))
        return false;
    if (!pgp_permits_take(&share->quota, now)) {
        share->ring = true; /* the attempt may have turned another child away */
        return false;
    }
    return true;
}

void pgp_share_gained_locked(pgp_pool *pool, bool for_wait, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;

    if (!is_sharing(pool))
        return;
    share->look.free--;
    share->look.connecting++;
    if (for_wait) {
        share->gained_at = now;
        share->look.ahead = share->look.waiting > 1 ? share->look.waiting - 1 : 0;
    }
    if (for_wait && share->look.free <= 0 && share->look.without > 0)
        share->ring_one = share->look.idlest;
}

void pgp_share_give_own_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    if (!is_attached(pool))
        return;
    pgp_permits_give(&pool->share.quota);
    pool->share.ring = pgp_share_has_own_cap(pool);
}

/* --- giving up -------------------------------------------------------------- */

pgp_slot *pgp_share_long_idle_locked(const pgp_pool *pool, apr_time_t now,
                                     apr_interval_time_t time)
{
    PGP_LOCKED(pool);
    pgp_slot *slot = APR_RING_LAST(&pool->lists[PGP_IDLE].ring);

    return pgp_pool_count(pool, PGP_IDLE) > 0 && now - slot->idle_since >= time ? slot : NULL;
}

/* Close an idle connection in favour of another child.  Publish the close before the
 * idle time: a child that looks in between then counts the connection twice, and not zero
 * times. */
static void idle_give_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_slot_retire_locked(slot, PGP_REASON_SHARED);
    pool->share.look.coming++;
    moving_publish_locked(pool, now);
    pgp_share_idle_changed_locked(pool);
}

/* Close idle connections in favour of the children that wait. */
static void idle_pass_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const pgp_outlook *look = &pool->share.look;
    pgp_slot *slot;

    while (look->waiting > look->free + look->coming &&
           (slot = pgp_share_long_idle_locked(pool, now, pgp_share_connect_time(pool))) != NULL)
        idle_give_locked(pool, slot, now);
}

/* Keep a permit free for the children that have none: if none is free, the child that has the
 * longest idle connection closes it. */
static void reserve_make_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const apr_interval_time_t enough = 2 * pgp_share_connect_time(pool);
    const pgp_outlook *look = &pool->share.look;
    pgp_slot *slot = pgp_share_long_idle_locked(pool, now, 0);

    if (look->waiting || look->free + look->coming > 0 || !look->without || !slot ||
        (look->idle_since && look->idle_since < slot->idle_since))
        return;
    if (now - slot->idle_since >= enough)
        idle_give_locked(pool, slot, now);
    else if (slot->idle_since + enough < pool->share.look_at)
        pool->share.look_at = slot->idle_since + enough;
}

/* A request lacks a permit: choose the child to ring, and when to look at the others again. */
static void wait_settle_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;
    const pgp_outlook *look = &share->look;
    const apr_time_t turn_over = share->waits_since + pgp_share_pace(pool, look).turn;
    apr_time_t again = now + LOOK_STEP;

    share->last_short_at = now;
    if (look->first_since == share->waits_since)
        again = now + pgp_share_connect_time(pool);
    if (look->free > look->ahead && turn_over > now && turn_over < again)
        again = turn_over;
    if (look->first_since && look->idle_since &&
        now - look->idle_since >= pgp_share_connect_time(pool))
        share->ring_one = look->idlest;
    share->look_at = again;
}

void pgp_share_settle_locked(pgp_pool *pool, bool lacks, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_pool_share *share = &pool->share;
    pgp_pace pace;

    if (!is_sharing(pool))
        return;
    if (lacks)
        wait_publish_locked(pool, oldest_wait_locked(pool, now));
    if (share->is_waiting && !lacks) {
        wait_publish_locked(pool, 0);
        share->ring = true;
        share->last_short_at = now;
    }
    share->is_waiting = lacks;
    if (!share->looked)
        return;
    if (lacks)
        wait_settle_locked(pool, now);
    idle_pass_locked(pool, now);
    reserve_make_locked(pool, now);
    pace = pgp_share_pace(pool, &share->look);
    pgp_permits_set_turn(
        &share->quota, &share->look,
        pgp_policy_turn(&share->look, &pace, pgp_permits_last_turn(&share->quota, now)));
}

bool pgp_share_was_short_locked(const pgp_pool *pool, apr_time_t since)
{
    PGP_LOCKED(pool);
    return pool->share.last_short_at > since;
}

bool pgp_share_is_turn(const pgp_pool *pool)
{
    return (pgp_share_has_own_cap(pool) && pgp_permits_turn(&pool->share.quota) != INT64_MAX) ||
           (pool->server && pool->server->quota.board &&
            pgp_permits_turn(&pool->server->quota) != INT64_MAX);
}

static bool quota_passes(const pgp_quota *quota, apr_time_t since, apr_time_t now)
{
    const apr_time_t turn = pgp_permits_turn(quota);

    return since >= turn && pgp_permits_pass(quota, turn, now);
}

bool pgp_share_pass_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const waiter *w = pgp_queue_first_locked(pool);
    const apr_time_t since = w ? w->until - pool->settings->acquire_timeout : now;

    return (is_sharing(pool) && quota_passes(&pool->share.quota, since, now)) ||
           (is_attached(pool) && pool->server && pool->server->quota.board &&
            quota_passes(&pool->server->quota, since, now));
}

void pgp_share_ring(pgp_pool *pool)
{
    pgp_pool_share *share = &pool->share;
    int ring, one;

    pgp_pool_lock(pool);
    ring = share->ring;
    one = share->ring_one;
    share->ring = false;
    share->ring_one = -1;
    pgp_pool_unlock(pool);
    if (ring && is_sharing(pool))
        pgp_permits_ring(&share->quota, pgp_pool_now(pool), pgp_share_patience(pool));
    if (one >= 0 && is_sharing(pool))
        pgp_board_ring(share->quota.board, one);
}

void pgp_pool_hear_bell(pgp_pool *pool)
{
    pgp_pool_lock(pool);
    pool->share.rung = true;
    pgp_pool_unlock(pool);
}

/* --- figures ---------------------------------------------------------------- */

pgp_gate *pgp_share_gate(pgp_pool *pool, pgp_gate_id id)
{
    const bool is_of_server = id == PGP_GATE_CAPACITY && pool->server;
    const int place = is_of_server ? pool->server->place : pool->place;

    return pool->board && place >= 0 ? pgp_board_gate(pool->board, place, id)
                                     : &pool->gates[id];
}

void pgp_share_publish(pgp_pool *pool, const pgp_stats *stats)
{
    if (is_attached(pool)) /* only the keeper of a seat writes there */
        pgp_board_publish(pool->board, pool->share.quota.seat, pool->place, stats);
}
