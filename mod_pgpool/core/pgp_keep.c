#include "pgp_pool_private.h"

#include <poll.h>
#include <apr_strings.h>

/* The keeper looks at a pool at least this often, so that nothing that only
 * ages (an idle connection) has to call it, and another child that lacks a
 * connection has it within a second. */
#define LONGEST_NAP PGP_MS(500)

/* How long a closed connection's process may take to end at the server before its
 * place is given to another. */
#define LINGER PGP_SEC(1)

/* How often the idle connections are looked at. */
#define WATCH_STEP PGP_SEC(1)

/* And again, if something was read: the server may have had to wait until there was room. */
#define WATCH_AGAIN PGP_MS(20)

/* A first host that did not answer is tried again after so long: sooner would cost
 * each new connection PgPoolConnectTimeout. */
#define FIRST_HOST_AGAIN PGP_SEC(60)

/* --- the keeper: time ------------------------------------------------------- */

/* While no other can be made, an old one is better than none. */
static void retire_idle_locked(pgp_pool *pool, apr_time_t now)
{
    int spare = live_locked(pool) - (pool->phase == RUNNING ? pool->settings->min : 0);
    pgp_conn *conn = APR_RING_LAST(&pool->lists[PGP_IDLE].ring), *newer;
    pgp_reason reason;

    if (pool->phase == RUNNING && pool->outage.failures)
        return;
    for (; conn != APR_RING_SENTINEL(&pool->lists[PGP_IDLE].ring, pgp_conn, entry);
         conn = newer) {
        newer = APR_RING_PREV(conn, entry);
        reason = pool->phase == RUNNING ? pgp_policy_retire(conn, pool->settings, spare, now)
                                        : PGP_REASON_STOP;
        if (reason == PGP_REASON_NONE)
            continue;
        pgp_doom_locked(conn, reason);
        spare--;
    }
}

static void connect_reserve_locked(pgp_pool *pool)
{
    pgp_conn *conn = APR_RING_FIRST(&pool->lists[PGP_FREE].ring);

    conn->link = NULL;
    pgp_conn_move(pool->lists, conn, PGP_CONNECTING);
}

static void reserve_locked(pgp_pool *pool, apr_time_t now)
{
    const pgp_demand demand = {
        .min = pool->phase == RUNNING ? pool->settings->min : 0,
        .live = live_locked(pool),
        .connecting = count(pool, PGP_CONNECTING),
        .free = count(pool, PGP_FREE),
        .waiting = pool->waiting ? pool->waiting : pool->missed,
        .unmet = pool->waiting ? now - pool->unmet_since : 0,
        .down = pool->outage.failures > 0,
    };
    const int resting = pool->phase == STOPPED || now < pool->outage.retry_at;
    int start = resting ? 0 : pgp_policy_growth(&demand);
    int asked = demand.waiting - demand.connecting; /* for requests; more are for Min */

    pgp_share_look_locked(pool, start > 0 && asked > 0, now);
    for (; start > 0 && pgp_share_take_locked(pool, asked > 0, now); start--, asked--)
        connect_reserve_locked(pool);
    pgp_share_settle_locked(pool, start > 0 && asked > 0, now);
    /* What is being closed, or given up by others, makes room for it in a later turn. */
    if (!resting && start <= 0 && (demand.free > 0 || count(pool, PGP_CLOSING) == 0))
        pool->missed = 0;
}

/* When something is due that nobody will call for. */
static apr_time_t next_locked(pgp_pool *pool, apr_time_t now)
{
    apr_time_t next = now + LONGEST_NAP;

    if (pool->waiting && count(pool, PGP_FREE) > 0 && now + PGP_GROWTH_STEP < next)
        next = now + PGP_GROWTH_STEP;
    if (now < pool->outage.retry_at && pool->outage.retry_at < next)
        next = pool->outage.retry_at;
    if (pgp_share_is_capped(pool) && now < pool->share.look_at && pool->share.look_at < next)
        next = pool->share.look_at;
    return next;
}

/* Who has held a connection for longer than PgPoolHoldWarning and was not told of
 * yet, or NULL. */
static pgp_conn *overlong_locked(pgp_pool *pool, apr_time_t now, pgp_holder *holder)
{
    const apr_interval_time_t limit = pool->settings->hold_warning;
    pgp_conn *conn;

    APR_RING_FOREACH (conn, &pool->lists[PGP_LENT].ring, pgp_conn, entry)
        if (limit != PGP_NEVER && !conn->warned && now - conn->holder.since >= limit) {
            conn->warned = 1;
            *holder = conn->holder;
            return conn;
        }
    return NULL;
}

static void warn_of_holders(pgp_pool *pool, apr_time_t now)
{
    pgp_holder holder;
    pgp_conn *overlong;

    do {
        lock(pool);
        overlong = overlong_locked(pool, now, &holder);
        unlock(pool);
        if (overlong)
            pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_HELD, pool->name, holder.backend,
                    "has been held for %" APR_TIME_T_FMT " s by %s%s%s",
                    (now - holder.since) / 1000000,
                    *holder.what ? holder.what : "a module, without a request",
                    *holder.client ? " for " : "", holder.client);
    } while (overlong);
}

apr_time_t pgp_keep_tend(pgp_pool *pool)
{
    const apr_time_t now = now_of(pool);
    pgp_stats stats;
    apr_time_t next;

    lock(pool);
    retire_idle_locked(pool, now);
    reserve_locked(pool, now);
    pgp_stats_take_locked(pool, &stats);
    next = next_locked(pool, now);
    unlock(pool);
    pgp_share_ring(pool);
    pgp_share_publish(pool, &stats);
    warn_of_holders(pool, now);
    pgp_refusals_end(pool, now);
    return next;
}

/* --- the keeper: connections ------------------------------------------------ */

static int list_state_locked(pgp_pool *pool, pgp_state state, pgp_conn **conns)
{
    pgp_conn *conn;
    int n = 0;

    APR_RING_FOREACH (conn, &pool->lists[state].ring, pgp_conn, entry)
        conns[n++] = conn;
    return n;
}

int pgp_keep_list(pgp_pool *pool, pgp_conn **conns)
{
    int n = 0;

    lock(pool);
    if (pool->kept) { /* else borrowers close what they return */
        n = list_state_locked(pool, PGP_CLOSING, conns);
        n += list_state_locked(pool, PGP_CLEANING, conns + n);
        n += list_state_locked(pool, PGP_CONNECTING, conns + n);
    }
    unlock(pool);
    return n;
}

/* The link is ready: for a waiter, or idle; or it came too late. */
static void admit(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const apr_time_t now = now_of(pool);

    lock(pool);
    if (pool->phase == STOPPED)
        pgp_doom_locked(conn, PGP_REASON_STOP);
    else
        pgp_place_locked(pool, conn, now);
    unlock(pool);
}

apr_int64_t pgp_pool_most(const pgp_pool *pool)
{
    const pgp_settings *settings = pool->settings;
    const apr_int64_t most = (apr_int64_t)pool->env->children * settings->max;

    return settings->total_max && settings->total_max < most ? settings->total_max : most;
}

/* Once for all children and pools, if they may ask for more than the server has. */
static void capacity_check(const pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const pgp_settings *settings = pool->settings;
    const pgp_server *server = pool->server;
    const int capacity = pool->env->driver->capacity(conn->link);
    const apr_int64_t most = server ? server->most : pgp_pool_most(pool);
    pgp_gate_count count;

    if (capacity <= 0 || most <= capacity ||
        !pgp_gate_pass(pgp_share_gate(pool, PGP_GATE_CAPACITY), now_of(pool), PGP_NEVER,
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

/* The gate for what the server said of a failed attempt. */
static pgp_gate_id failure_gate(const pgp_error *error)
{
    switch (pgp_policy_failure(error->sqlstate)) {
    case PGP_FAILURE_STARTING:
        return PGP_GATE_STARTING;
    case PGP_FAILURE_REFUSED:
        return PGP_GATE_REJECTED;
    default:
        return *error->sqlstate ? PGP_GATE_FAILED : PGP_GATE_CONNECT;
    }
}

/* Once for all children and all causes.  A child that has had no failure of its own ends the
 * outage of a child that lives no more, but with its first connection only: it may well have a
 * connection where others get none. */
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

static void connected(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const pgp_env *env = pool->env;
    const char *tls = env->driver->tls(conn->link);
    const apr_time_t began = conn->born;
    int may_end_outage = !pool->surveyed;

    conn->born = now_of(pool);
    conn->expires = pgp_policy_expiry(pool->settings, conn->born, env->random(env->baton));
    conn->greeted = 0;
    conn->socket = env->driver->socket(conn->link);
    conn->holder.backend = env->driver->backend(conn->link);
    conn->is_tls = tls != NULL;
    lock(pool);
    may_end_outage |= pool->outage.failures > 0;
    pool->outage = (pgp_outage){.failures = 0};
    pool->stats.n[PGP_N_CONNECTS]++;
    pgp_share_connected_locked(pool, conn->born - began);
    unlock(pool);
    if (may_end_outage)
        outage_end(pool, conn->born);
    pgp_log(env, PGP_LOG_INFO, PGP_MSG_CONNECTED, pool->name, pgp_conn_backend(conn),
            "connected, %s", tls ? tls : "no TLS");
    pool->surveyed = 1;
    capacity_check(conn);
    admit(conn);
}

/* The host that an attempt began with has had its chance. */
static void first_host_leave(pgp_pool *pool, const pgp_conn *conn, apr_time_t now)
{
    if (conn->first_host != pool->first_host)
        return; /* another attempt has said so */
    pool->first_host++;
    pool->first_left = now;
}

/* With one that has answered, but from time to time with the operator's first. */
static unsigned first_host_choose(pgp_pool *pool, apr_time_t now)
{
    if (!pool->outage.failures && now - pool->first_left > FIRST_HOST_AGAIN)
        pool->first_host = 0;
    return pool->first_host;
}

/* An attempt that is not worth a line is told at level debug. */
static void log_failure(pgp_pool *pool, const pgp_error *error, apr_interval_time_t wait,
                        apr_time_t now)
{
    pgp_gate_count count = {.lasted = 0};
    const int may = pgp_gate_pass(pgp_share_gate(pool, failure_gate(error)), now,
                                  PGP_LOG_PERIOD, &count);
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

static void connect_failed(pgp_conn *conn, const pgp_error *error)
{
    pgp_pool *pool = conn->pool;
    const pgp_env *env = pool->env;
    const apr_uint32_t random = env->random(env->baton);
    const apr_time_t now = now_of(pool);
    apr_interval_time_t wait;

    lock(pool);
    wait = pgp_outage_fail(&pool->outage,
                           &(pgp_failed_attempt){.error = error,
                                                 .began = conn->born,
                                                 .ended = now,
                                                 .awaited = pool->waiting > 0,
                                                 .random = random},
                           &pool->settings->retry);
    pool->stats.error = pool->outage.error;
    pool->stats.error_at = pool->outage.last;
    pgp_doom_locked(conn, PGP_REASON_CONNECT);
    if (pgp_pool_is_futile_locked(pool, now))
        pgp_queue_end_all_locked(pool, PGP_UNAVAILABLE);
    unlock(pool);
    first_host_leave(pool, conn, now);
    log_failure(pool, error, wait, now);
}

void pgp_keep_connect(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const pgp_env *env = pool->env;
    pgp_error error = {.sqlstate = ""};

    conn->born = now_of(pool);
    conn->overdue = conn->born + pool->settings->connect_timeout;
    conn->holder.backend = 0;
    /* Only the keeper writes outage.failures, so it may read it without the lock. */
    conn->first_host = first_host_choose(pool, conn->born);
    conn->link = env->driver->connect(&pool->context, conn->first_host, !pool->surveyed, conn,
                                      &error);
    if (!conn->link)
        connect_failed(conn, &error);
}

static void clean_failed(pgp_conn *conn, const pgp_error *error)
{
    pgp_pool *pool = conn->pool;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(conn),
            "could not be cleaned up: %s", pgp_error_print(words, error));
    pgp_doom(conn, PGP_REASON_UNCLEAN);
}

static void step_late(const pgp_conn *conn, pgp_error *error)
{
    const pgp_settings *settings = conn->pool->settings;
    const int connecting = conn->state == PGP_CONNECTING;

    error->sqlstate[0] = '\0';
    apr_snprintf(error->message, sizeof error->message,
                 "no answer from the server within %s (%" APR_TIME_T_FMT " ms)",
                 connecting ? "PgPoolConnectTimeout" : "PgPoolCheckTimeout",
                 (connecting ? settings->connect_timeout : settings->check_timeout) / 1000);
}

int pgp_keep_step(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const int connecting = conn->state == PGP_CONNECTING;
    pgp_error error = {.sqlstate = ""};
    pgp_step step = pool->env->driver->step(conn->link, &conn->await, &error);

    if (step == PGP_STEP_AGAIN && now_of(pool) < conn->overdue)
        return 0;
    if (step == PGP_STEP_AGAIN)
        step_late(conn, &error);
    if (step == PGP_STEP_DONE && connecting)
        connected(conn);
    else if (step == PGP_STEP_DONE)
        pgp_settle(conn);
    else if (connecting)
        connect_failed(conn, &error);
    else
        clean_failed(conn, &error);
    return 1;
}

/* --- the keeper: idle connections ------------------------------------------- */

/* Not if a borrower has had it meanwhile: then he has seen to it. */
static void ended_while_idle(pgp_conn *conn, apr_time_t seen)
{
    pgp_pool *pool = conn->pool;
    char words[PGP_ERROR_WORDS];
    pgp_error error;
    int ended;

    lock(pool);
    ended = conn->state == PGP_IDLE && conn->idle_since < seen;
    if (ended) {
        pool->suspect_since = seen;
        pgp_doom_locked(conn, PGP_REASON_LOST);
    }
    unlock(pool);
    if (!ended)
        return;
    pgp_conn_last_words(conn, &error); /* it is the keeper's now */
    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(conn),
            "was closed by the server while idle%s%s", *error.message ? ": " : "",
            pgp_error_print(words, &error));
}

/* Make an idle connection the keeper's.  Not one that has just come back: it may be wanted
 * at any moment, and its next borrower reads from it. */
static int idle_take(pgp_conn *conn, apr_time_t seen)
{
    pgp_pool *pool = conn->pool;

    lock(pool);
    pool->reading = conn->state == PGP_IDLE && conn->idle_since <= seen - WATCH_STEP;
    if (pool->reading)
        pgp_conn_move(pool->lists, conn, PGP_CLEANING);
    unlock(pool);
    return pool->reading;
}

/* That it was read from makes it no younger. */
static void idle_give_back(pgp_conn *conn, apr_time_t now)
{
    pgp_pool *pool = conn->pool;
    const apr_time_t since = conn->idle_since;

    lock(pool);
    pool->reading = 0;
    pgp_place_locked(pool, conn, now);
    if (conn->state == PGP_IDLE)
        conn->idle_since = since;
    unlock(pool);
}

static void idle_retire(pgp_conn *conn, const pgp_error *error)
{
    pgp_pool *pool = conn->pool;
    const pgp_reason reason = pgp_conn_alive(conn) ? PGP_REASON_UNCLEAN : PGP_REASON_LOST;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(conn),
            "found unfit while idle (%s): %s", pgp_reason_name(reason),
            pgp_error_print(words, error));
    if (reason == PGP_REASON_UNCLEAN)
        pgp_reset_failed(conn, error);
    pgp_doom(conn, reason);
    lock(pool);
    pool->reading = 0;
    if (!pool->settings->acquire_timeout) /* nobody waits but for what was read from */
        pgp_queue_end_all_locked(pool, pgp_shortage_locked(pool));
    unlock(pool);
}

/* A server's process that has more to say than its socket takes stands still in the middle of
 * what it does, with a transaction open. */
static int read_while_idle(pgp_conn *conn, apr_time_t seen)
{
    pgp_error error = {.sqlstate = ""};

    if (!idle_take(conn, seen))
        return 0;
    if (conn->pool->env->driver->take_in(conn->link, &error))
        idle_give_back(conn, seen);
    else
        idle_retire(conn, &error);
    return 1;
}

/* What has been lent meanwhile may be closed, and its descriptor be another's: but then it
 * is not idle, or not since so long.  The oldest is read first, and the newest is in front
 * again afterwards. */
apr_time_t pgp_keep_watch(pgp_pool *pool, pgp_conn **conns, struct pollfd *fds)
{
    const apr_time_t now = now_of(pool);
    int i, n, any_read = 0;

    if (now < pool->watch_at)
        return pool->watch_at;
    pool->watch_at = now + WATCH_STEP;
    lock(pool);
    n = list_state_locked(pool, PGP_IDLE, conns);
    unlock(pool);
    for (i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = conns[i]->socket, .events = POLLIN | POLLRDHUP};
    if (poll(fds, n, 0) <= 0)
        return pool->watch_at;
    for (i = n - 1; i >= 0; i--)
        if (fds[i].revents & ~POLLIN)
            ended_while_idle(conns[i], now);
        else if (fds[i].revents)
            any_read |= read_while_idle(conns[i], now);
    if (any_read)
        pool->watch_at = now + WATCH_AGAIN;
    return pool->watch_at;
}

/* --- the keeper: closing ---------------------------------------------------- */

/* A slot without a cap is free as soon as the server has been told; with one, the server's
 * process counts as long as it lives, up to a second. */
int pgp_keep_close(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    pgp_error unsaid;

    if (!conn->overdue) {
        pgp_close_begin(conn);
        conn->overdue = now_of(pool) + LINGER;
    }
    if (conn->link && pgp_share_is_capped(pool) && now_of(pool) < conn->overdue &&
        pool->env->driver->step(conn->link, &conn->await, &unsaid) == PGP_STEP_AGAIN)
        return 0;
    pgp_close_end(conn);
    return 1;
}

/* --- the keeper: phases ----------------------------------------------------- */

void pgp_keep_drain(pgp_pool *pool)
{
    lock(pool);
    if (pool->phase == RUNNING)
        pool->phase = DRAINING;
    unlock(pool);
}

static void doom_all_locked(pgp_pool *pool, pgp_state state)
{
    while (count(pool, state) > 0)
        pgp_doom_locked(APR_RING_FIRST(&pool->lists[state].ring), PGP_REASON_STOP);
}

void pgp_keep_stop(pgp_pool *pool)
{
    lock(pool);
    pool->phase = STOPPED;
    pgp_queue_end_all_locked(pool, PGP_STOPPING);
    doom_all_locked(pool, PGP_IDLE);
    doom_all_locked(pool, PGP_CONNECTING);
    doom_all_locked(pool, PGP_CLEANING);
    unlock(pool);
}

int pgp_keep_leave(pgp_pool *pool)
{
    pgp_stats stats;
    int left;

    lock(pool);
    left = pool->phase == STOPPED && count(pool, PGP_CLOSING) == 0 &&
           count(pool, PGP_CLEANING) == 0;
    pgp_stats_take_locked(pool, &stats);
    if (left)
        pool->kept = 0;
    unlock(pool);
    if (left)
        pgp_share_publish(pool, &stats);
    return left;
}
