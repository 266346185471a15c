/*
 * Shares the permits of a server among all pools that use it: for PgPoolServerMax, and while
 * the server takes no more connections (SQLSTATE 53300).
 *
 * A server has a quota, as a pool has (pgp_permits.h).  Its cap is the least PgPoolServerMax of
 * its pools.  After a 53300 the cap is for 30 s the number of connections that the server was
 * found to take, if that is less.  At the cap the longest idle connection gives way to a
 * request, whichever pools and children the two belong to.
 *
 * Threads.  The keeper's; request threads only read the turn.
 */
#include "pgp_pool_keeper.h"
#include "pgp_pool_private.h"

/* The number of connections that was found at a 53300 counts for this time. */
#define FULL_FOR PGP_SEC(30)

/* A child that has this many attempts to connect to a server under way, over all of its pools,
 * begins none for PgPoolMin.  If hundreds of pools began theirs at once, a request's attempt
 * would have to wait at the server. */
#define WARMING_MOST 4

/* A child whose requests wait looks again after this time if no bell rings. */
#define SERVER_LOOK_STEP PGP_MS(20)

/* The child with the longest idle connection gives way first.  But if a request has waited for
 * this time, that child may be stopped, and another one gives way. */
#define IDLEST_PATIENCE PGP_MS(200)

static bool is_attached(const pgp_server *server)
{
    return server && server->quota.board && server->quota.seat >= 0;
}

static bool has_cap(const pgp_server *server)
{
    return server && server->quota.cap > 0;
}

static void cap_update(pgp_server *server, apr_time_t now)
{
    const int full = pgp_permits_full(&server->quota, now, FULL_FOR);

    server->quota.cap = server->max && (!full || server->max < full) ? server->max : full;
}

void pgp_pool_attach_server(pgp_pool *pool, pgp_server *server)
{
    const int max = pool->settings->server_max;

    pool->server = server;
    if (max && (!server->max || max < server->max))
        server->max = max;
    if (!pool->board)
        return;
    server->quota.board = pool->board;
    server->quota.row = pgp_board_server_row(pool->board, pool->place);
    server->quota.seat = -1;
}

/* --- for one pool ----------------------------------------------------------- */

static bool server_take_locked(pgp_pool *pool, bool for_wait, apr_time_t now)
{
    PGP_LOCKED(pool);
    pgp_server *server = pool->server;
    pgp_outlook look;

    pool->share.lacks_server = false;
    if (!is_attached(server))
        return true;
    if (!for_wait && server->pools > 1 && server->connecting >= WARMING_MOST)
        return false;
    server->connecting++;
    cap_update(server, now);
    if (!server->quota.cap)
        return pgp_permits_take(&server->quota, now);
    pgp_permits_look(&server->quota, now, pgp_share_patience(pool), &look);
    look.without = 0;
    if (pgp_policy_may_take(&look, for_wait, 1) && pgp_permits_take(&server->quota, now))
        return true;
    pool->share.lacks_server = for_wait;
    if (for_wait)
        pool->share.last_short_at = now;
    server->ring = true;
    return false;
}

static void server_give_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    pgp_server *server = pool->server;

    if (!is_attached(server))
        return;
    pgp_permits_give(&server->quota);
    server->ring = true;
}

bool pgp_server_found_full(pgp_pool *pool, apr_time_t now)
{
    pgp_server *server = pool->server;
    pgp_outlook look;
    int taken, known;

    if (!is_attached(server))
        return false;
    pgp_permits_look(&server->quota, now, pgp_share_patience(pool), &look);
    /* This attempt holds a permit, too.  Other attempts that fail in the same way do as well,
     * so the least number that is found is right. */
    taken = look.used - 1;
    known = pgp_permits_full(&server->quota, now, FULL_FOR);
    if (taken < 1)
        return false;
    pgp_permits_set_full(&server->quota, known && known < taken ? known : taken, now);
    cap_update(server, now);
    return true;
}

/* --- both quotas ------------------------------------------------------------ */

bool pgp_share_has_cap(const pgp_pool *pool)
{
    return pgp_share_has_own_cap(pool) || has_cap(pool->server);
}

bool pgp_share_take_locked(pgp_pool *pool, bool for_wait, apr_time_t now)
{
    PGP_LOCKED(pool);
    if (!pgp_share_take_own_locked(pool, for_wait, now))
        return false;
    if (!server_take_locked(pool, for_wait, now)) {
        pgp_share_give_own_locked(pool);
        return false;
    }
    pgp_share_gained_locked(pool, for_wait, now);
    return true;
}

/* Without the keeper nothing is given back: the seat may be another child's by then.  A pool
 * without a place on the board still has permits of the server's quota. */
void pgp_share_give_locked(pgp_pool *pool)
{
    PGP_LOCKED(pool);
    if (!pool->has_keeper)
        return;
    pgp_share_give_own_locked(pool);
    server_give_locked(pool);
}

/* --- the pools of a server together ------------------------------------------ */

typedef struct {
    apr_time_t waits_since, idle_since;
    int closing, connecting;
    pgp_pool *idlest; /* it has the longest idle connection */
} server_state;

static apr_time_t earlier(apr_time_t a, apr_time_t b)
{
    return !a || (b && b < a) ? b : a;
}

/* Since when a request of this pool has lacked a permit of the server's; 0: none lacks one.  A
 * request that could not wait counts as well (refused_demand). */
static apr_time_t lacks_since_locked(pgp_pool *pool, apr_time_t now)
{
    PGP_LOCKED(pool);
    const apr_time_t published = pool->server->waits_since;

    if (!pool->share.lacks_server)
        return 0;
    if (pool->waiting)
        return pgp_queue_first_locked(pool)->until - pool->settings->acquire_timeout;
    if (!pool->refused_demand)
        return 0;
    return published && now - published < pgp_share_patience(pool) ? published : now;
}

static void state_add(server_state *state, pgp_pool *pool, apr_time_t now)
{
    apr_time_t since;

    pgp_pool_lock(pool);
    state->waits_since = earlier(state->waits_since, lacks_since_locked(pool, now));
    since = pgp_pool_idle_since_locked(pool);
    if (since && earlier(state->idle_since, since) == since) {
        state->idle_since = since;
        state->idlest = pool;
    }
    state->closing += pgp_pool_count(pool, PGP_CLOSING);
    state->connecting += pgp_pool_count(pool, PGP_CONNECTING);
    pgp_pool_unlock(pool);
}

static server_state state_of(const pgp_server *server, pgp_pool **pools, int n, apr_time_t now)
{
    server_state state = {0};
    int i;

    for (i = 0; i < n; i++)
        if (pools[i]->server == server)
            state_add(&state, pools[i], now);
    return state;
}

static void server_publish(pgp_server *server, const server_state *state, apr_time_t now)
{
    if (server->waits_since && !state->waits_since)
        server->ring = true;
    if (server->waits_since != state->waits_since)
        pgp_permits_set_wait(&server->quota, state->waits_since);
    server->waits_since = state->waits_since;
    pgp_permits_set_moving(&server->quota, state->closing, state->connecting, now);
    pgp_permits_set_idle(&server->quota, state->idle_since);
}

/* Close the longest idle connection of this child, if it has been idle for longer than a
 * connect takes.  Returns whether it has closed one. */
static bool idle_give(const server_state *state, apr_time_t now)
{
    pgp_pool *pool = state->idlest;
    pgp_slot *slot;

    if (!pool)
        return false;
    pgp_pool_lock(pool);
    slot = pgp_share_long_idle_locked(pool, now, pgp_share_connect_time(pool));
    if (slot) {
        pgp_slot_retire_locked(slot, PGP_REASON_SHARED);
        pgp_share_idle_changed_locked(pool);
    }
    pgp_pool_unlock(pool);
    return slot != NULL;
}

/* Whether this child's longest idle connection is the one that gives way. */
static bool is_idlest(const server_state *state, const pgp_outlook *look, apr_time_t now)
{
    return !look->idle_since || state->idle_since <= look->idle_since ||
           now - look->first_since >= IDLEST_PATIENCE;
}

/* Ring the child with the longest idle connection.  Only a child that waits rings, and no more
 * often than it looks: otherwise two children whose connections have not been idle for long
 * enough would wake each other without an end. */
static void idlest_ring(pgp_server *server, const pgp_outlook *look, apr_time_t now)
{
    if (look->idlest < 0 || !server->waits_since || now - server->rung_at < SERVER_LOOK_STEP)
        return;
    server->rung_at = now;
    pgp_board_ring(server->quota.board, look->idlest);
}

static apr_time_t server_settle(pgp_server *server, pgp_pool **pools, int n, apr_time_t now)
{
    const pgp_pool *any = pools[server->first];
    server_state state = state_of(server, pools, n, now);
    pgp_outlook look;
    pgp_pace pace;
    int uncovered, given = 0;

    server_publish(server, &state, now);
    pgp_permits_look(&server->quota, now, pgp_share_patience(any), &look);
    uncovered = look.waiting - look.free - look.coming;
    for (; uncovered > 0 && is_idlest(&state, &look, now) && idle_give(&state, now);
         uncovered--, given++)
        state = state_of(server, pools, n, now);
    if (given)
        server_publish(server, &state, now);
    if (uncovered > 0 && !given)
        idlest_ring(server, &look, now);
    pace = pgp_share_pace(any, &look);
    pgp_permits_set_turn(
        &server->quota, &look,
        pgp_policy_turn(&look, &pace, pgp_permits_last_turn(&server->quota, now)));
    if (server->ring)
        pgp_permits_ring(&server->quota, now, pgp_share_patience(any));
    server->ring = false;
    /* If a permit has become free since a pool asked in vain, a round takes it at once. */
    if (given || (state.waits_since && look.free > look.ahead))
        return 0;
    return state.waits_since ? now + SERVER_LOOK_STEP : PGP_NEVER;
}

/* Count the attempts under way anew, since a pool that asks for a permit counts also
 * those that then get none. */
static void connecting_count(pgp_pool **pools, int n)
{
    int i;

    for (i = 0; i < n; i++)
        if (pools[i]->server)
            pools[i]->server->connecting = 0;
    for (i = 0; i < n; i++)
        if (pools[i]->server && pools[i]->server->pools > 1) {
            pgp_pool_lock(pools[i]);
            pools[i]->server->connecting += pgp_pool_count(pools[i], PGP_CONNECTING);
            pgp_pool_unlock(pools[i]);
        }
}

apr_time_t pgp_pool_settle_servers(pgp_pool **pools, int n, apr_time_t now)
{
    apr_time_t next = PGP_NEVER;
    int i;

    connecting_count(pools, n);
    for (i = 0; i < n; i++) {
        pgp_server *server = pools[i]->server;
        apr_time_t due;

        if (!is_attached(server) || server->first != i)
            continue;
        cap_update(server, now);
        if (!has_cap(server))
            continue;
        due = server_settle(server, pools, n, now);
        if (due != PGP_NEVER && (next == PGP_NEVER || due < next))
            next = due;
    }
    return next;
}

void pgp_pool_set_servers_seat(pgp_pool **pools, int n, int seat)
{
    int i;

    for (i = 0; i < n; i++)
        if (pools[i]->server)
            pools[i]->server->quota.seat = seat;
    for (i = n - 1; i >= 0; i--)
        if (pools[i]->server)
            pools[i]->server->first = i;
}
