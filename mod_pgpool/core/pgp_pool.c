#include "pgp_pool.h"

#include <string.h>
#include <apr_strings.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>

#include "pgp_policy.h"

/* The keeper looks at a pool at least this often, so that nothing that only
 * ages (an idle connection) has to call it. */
#define LONGEST_NAP PGP_SEC(1)

/* An ask may be late by this much if its connection has still to be tested. */
#define LAST_MOMENT PGP_MS(50)

typedef enum { RUNNING, DRAINING, STOPPED } pool_phase;

/* A borrower that waits: on its stack, in the queue from wait_locked() until
 * waiter_end_locked(). */
typedef struct waiter {
    APR_RING_ENTRY(waiter) entry;
    apr_time_t until;
    apr_thread_cond_t *cond;
    int ended;
    pgp_outcome outcome;
    pgp_conn *conn; /* if PGP_GRANTED */
} waiter;

/* Attempts to connect have been failing, and why. */
typedef struct {
    int failures;     /* in a row; 0: all is well */
    apr_time_t since; /* of the first of them */
    apr_time_t retry_at;
    pgp_failure kind; /* of the last */
    pgp_error error;  /* of the last */
} outage;

struct pgp_pool {
    /* immutable */
    const char *name;
    const pgp_settings *settings;
    const pgp_env *env;
    pgp_waker waker;
    apr_thread_mutex_t *lock;

    /* guarded by lock */
    pgp_conn_list lists[PGP_STATES];
    APR_RING_HEAD(waiter_ring, waiter) queue;
    int waiting;
    apr_time_t unmet_since;   /* since when the queue has not been empty */
    apr_time_t suspect_since; /* what was idle before this may be dead as well */
    apr_time_t tend_at;       /* when the keeper comes next, as it last said */
    apr_uint64_t leases;
    outage down;
    int missed; /* somebody was refused who would not wait: grow for the next */
    int kept;   /* the keeper still looks after this pool */
    pool_phase phase;
};

/* One borrower's ask, over all its tries; on its stack. */
typedef struct {
    pgp_pool *pool;
    const pgp_vars *vars;
    apr_pool_t *scratch;
    pgp_ticket *ticket;
    apr_time_t start, until;
    pgp_conn *conn;
    int ping;  /* conn needs a round trip first */
    int again; /* one that was taken was unfit: this ask has been let in already */
} ask;

static void lock(pgp_pool *pool)
{
    apr_thread_mutex_lock(pool->lock);
}

static void unlock(pgp_pool *pool)
{
    apr_thread_mutex_unlock(pool->lock);
}

static apr_time_t now_of(const pgp_pool *pool)
{
    return pgp_now(pool->env);
}

static int count(const pgp_pool *pool, pgp_state state)
{
    return pool->lists[state].count;
}

/* Connections that serve somebody, or can. */
static int live_locked(const pgp_pool *pool)
{
    return count(pool, PGP_IDLE) + count(pool, PGP_LENT) + count(pool, PGP_CLEANING);
}

/* --- making it -------------------------------------------------------------- */

static void slots_make(pgp_pool *pool, apr_pool_t *p)
{
    pgp_conn *slots = apr_pcalloc(p, pool->settings->max * sizeof(*slots));
    int i;

    for (i = 0; i < PGP_STATES; i++)
        APR_RING_INIT(&pool->lists[i].ring, pgp_conn, entry);
    for (i = 0; i < pool->settings->max; i++) {
        slots[i].pool = pool;
        APR_RING_INSERT_TAIL(&pool->lists[PGP_FREE].ring, &slots[i], pgp_conn, entry);
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
    pool->waker = waker;
    pool->kept = 1;
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

static void queue_insert_locked(pgp_pool *pool, waiter *w)
{
    waiter *before = APR_RING_LAST(&pool->queue);

    if (pool->waiting++ == 0)
        pool->unmet_since = now_of(pool);
    while (before != APR_RING_SENTINEL(&pool->queue, waiter, entry) && before->until > w->until)
        before = APR_RING_PREV(before, entry);
    APR_RING_INSERT_AFTER(before, w, entry);
}

/* The only way out of the queue. */
static void waiter_end_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_conn *conn)
{
    APR_RING_REMOVE(w, entry);
    pool->waiting--;
    w->outcome = outcome;
    w->conn = conn;
    w->ended = 1;
    apr_thread_cond_signal(w->cond);
}

static waiter *queue_first_locked(pgp_pool *pool)
{
    return pool->waiting ? APR_RING_FIRST(&pool->queue) : NULL;
}

static void queue_end_all_locked(pgp_pool *pool, pgp_outcome outcome)
{
    waiter *w;

    while ((w = queue_first_locked(pool)) != NULL)
        waiter_end_locked(pool, w, outcome, NULL);
}

/* --- taking ----------------------------------------------------------------- */

static void lend_locked(pgp_pool *pool, pgp_conn *conn)
{
    pgp_conn_move(pool->lists, conn, PGP_LENT);
    conn->lease = ++pool->leases;
}

/* A fit connection goes to whoever has waited longest, else it is idle. */
static void place_locked(pgp_pool *pool, pgp_conn *conn, apr_time_t now)
{
    waiter *w = queue_first_locked(pool);

    conn->idle_since = now;
    if (w) {
        lend_locked(pool, conn);
        waiter_end_locked(pool, w, PGP_GRANTED, conn);
    }
    else
        pgp_conn_move(pool->lists, conn, PGP_IDLE);
}

/* Why somebody who got nothing got nothing. */
static pgp_outcome shortage_locked(const pgp_pool *pool)
{
    return live_locked(pool) > 0 ? PGP_EXHAUSTED : PGP_UNAVAILABLE;
}

/* Waiting is no use: there is no connection, and there was none for longer than
 * anybody may wait, or the server will not have us. */
static int hopeless_locked(const pgp_pool *pool, apr_time_t now)
{
    const outage *down = &pool->down;

    return down->failures && live_locked(pool) == 0 &&
           (down->kind == PGP_FAILURE_REFUSED ||
            now - down->since > pool->settings->acquire_timeout);
}

/* Say it in words; the cause is the last connect's, if connects fail. */
static void explain_locked(const pgp_pool *pool, pgp_outcome outcome, pgp_error *error)
{
    if (outcome == PGP_STOPPING)
        *error = (pgp_error){.message = "this child is stopping"};
    else if (pool->down.failures)
        *error = pool->down.error;
    else if (error->message[0])
        return; /* what made the last one unfit says more than the shortage */
    else if (outcome == PGP_UNAVAILABLE)
        *error = (pgp_error){.message = "no connection could be made in time"};
    else {
        error->sqlstate[0] = '\0';
        apr_snprintf(error->message, sizeof error->message,
                     "all %d connections are lent (PgPoolMax %d), %d more are waiting",
                     count(pool, PGP_LENT), pool->settings->max, pool->waiting);
    }
}

static pgp_outcome refuse_locked(ask *a, pgp_outcome outcome)
{
    explain_locked(a->pool, outcome, &a->ticket->error);
    return outcome;
}

static void taken_locked(ask *a, pgp_conn *conn, apr_time_t now)
{
    a->conn = conn;
    a->ping = pgp_policy_ping_due(conn, a->pool->settings, a->pool->suspect_since, now);
}

/* Settle an ask without a wait.  Returns 0 if it has to wait, else 1 with its
 * outcome. */
static int take_locked(ask *a, apr_time_t now, pgp_outcome *outcome)
{
    pgp_pool *pool = a->pool;
    const pgp_settings *settings = pool->settings;

    if (pool->phase == STOPPED) {
        *outcome = refuse_locked(a, PGP_STOPPING);
        return 1;
    }
    if (count(pool, PGP_IDLE) > 0 && now <= a->until) {
        lend_locked(pool, APR_RING_FIRST(&pool->lists[PGP_IDLE].ring));
        taken_locked(a, APR_RING_FIRST(&pool->lists[PGP_LENT].ring), now);
        *outcome = PGP_GRANTED;
        return 1;
    }
    if (hopeless_locked(pool, now)) {
        *outcome = refuse_locked(a, PGP_UNAVAILABLE);
        return 1;
    }
    if (settings->acquire_timeout == 0 || now >= a->until ||
        (settings->max_waiters && !a->again && pool->waiting >= settings->max_waiters)) {
        pool->missed = 1;
        *outcome = refuse_locked(a, shortage_locked(pool));
        return 1;
    }
    return 0;
}

/* Queue up and sleep until somebody ends the wait.  The keeper is called if it
 * could connect or would come too late. */
static pgp_outcome wait_locked(ask *a, waiter *w)
{
    pgp_pool *pool = a->pool;

    queue_insert_locked(pool, w);
    if (count(pool, PGP_FREE) > 0 || w->until < pool->tend_at) {
        pool->tend_at = 0;
        unlock(pool);
        pool->waker.wake(pool->waker.baton);
        lock(pool);
    }
    while (!w->ended)
        apr_thread_cond_wait(w->cond, pool->lock);
    if (w->outcome != PGP_GRANTED)
        return refuse_locked(a, w->outcome);
    taken_locked(a, w->conn, w->conn->idle_since);
    return PGP_GRANTED;
}

static pgp_outcome take_waiting(ask *a)
{
    pgp_pool *pool = a->pool;
    waiter w = {.until = a->until};
    apr_pool_t *p;
    pgp_outcome outcome;
    apr_time_t now = now_of(pool);

    apr_pool_create(&p, a->scratch);
    if (apr_thread_cond_create(&w.cond, p) != APR_SUCCESS)
        a->until = 0; /* cannot wait, so be refused */
    lock(pool);
    if (!take_locked(a, now, &outcome))
        outcome = wait_locked(a, &w);
    unlock(pool);
    apr_pool_destroy(p);
    a->ticket->waited = now_of(pool) - a->start;
    return outcome;
}

static pgp_outcome take(ask *a, apr_time_t now)
{
    pgp_pool *pool = a->pool;
    pgp_outcome outcome;
    int settled, missed;

    lock(pool);
    missed = pool->missed;
    settled = take_locked(a, now, &outcome);
    missed = pool->missed && !missed;
    unlock(pool);
    if (missed)
        pool->waker.wake(pool->waker.baton);
    return settled ? outcome : take_waiting(a);
}

static apr_time_t check_deadline(const pgp_pool *pool)
{
    return now_of(pool) + pool->settings->check_timeout;
}

/* Within the ask's deadline; but what was handed over at the last moment is not to be
 * closed because its borrower has no time to hear that it is well. */
static apr_time_t test_deadline(const ask *a)
{
    const apr_time_t now = now_of(a->pool);
    const apr_time_t check = now + a->pool->settings->check_timeout, least = now + LAST_MOMENT;
    const apr_time_t until = a->until > least ? a->until : least;

    return check < until ? check : until;
}

/* Test what was taken, by a look at its socket, and greet it if it owes anything.
 * Returns why it is unfit, or PGP_REASON_NONE with *greeting. */
static pgp_reason unfit_reason(ask *a, pgp_greeting *greeting)
{
    const pgp_driver *driver = a->pool->env->driver;
    const pgp_probe probe = driver->probe(a->conn->link);
    const int ping = a->ping || probe == PGP_PROBE_HEARD;

    *greeting = PGP_GREET_GOOD;
    if (probe == PGP_PROBE_DEAD) {
        a->ticket->error = (pgp_error){.message = "the connection was closed while idle"};
        return PGP_REASON_LOST;
    }
    if (probe == PGP_PROBE_QUIET && !ping && !a->vars)
        return PGP_REASON_NONE;
    *greeting = driver->greet(a->conn->link, a->vars, ping, test_deadline(a),
                              &a->ticket->error);
    if (*greeting != PGP_GREET_BAD)
        return PGP_REASON_NONE;
    return probe == PGP_PROBE_OWING ? PGP_REASON_UNCLEAN : PGP_REASON_PING;
}

typedef enum { FIT, UNFIT, REFUSED } fitness;

/* An unfit one is on its way to the keeper afterwards, one that the server refused
 * to set up is given back. */
static fitness examine(ask *a)
{
    const pgp_pool *pool = a->pool;
    pgp_greeting greeting;
    const pgp_reason reason = unfit_reason(a, &greeting);

    if (reason != PGP_REASON_NONE) {
        pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(a->conn),
                "found unfit before it was given out (%s): %s", pgp_reason_name(reason),
                a->ticket->error.message);
        pgp_pool_discard(&a->conn, reason);
        a->again = 1;
        return UNFIT;
    }
    if (greeting == PGP_GREET_GOOD)
        return FIT;
    pgp_pool_release(&a->conn);
    return REFUSED;
}

pgp_outcome pgp_pool_acquire(pgp_pool *pool, const pgp_vars *vars, apr_pool_t *scratch,
                             pgp_conn **conn, pgp_ticket *ticket)
{
    const pgp_settings *settings = pool->settings;
    const apr_time_t start = now_of(pool);
    ask a = {.pool = pool, .vars = vars, .scratch = scratch, .ticket = ticket, .start = start};
    pgp_outcome outcome;
    fitness found = UNFIT;

    /* Who will not wait for a connection still gives a test its time. */
    a.until = start +
              (settings->acquire_timeout ? settings->acquire_timeout : settings->check_timeout);
    ticket->waited = 0;
    ticket->error.sqlstate[0] = ticket->error.message[0] = '\0';
    outcome = take(&a, start);
    while (outcome == PGP_GRANTED && (found = examine(&a)) == UNFIT)
        outcome = take(&a, now_of(pool));
    if (outcome != PGP_GRANTED)
        return outcome;
    if (found == REFUSED)
        return PGP_UNAVAILABLE;
    ticket->error.sqlstate[0] = ticket->error.message[0] = '\0';
    *conn = a.conn;
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_LENT, pool->name, pgp_conn_backend(a.conn),
            "lent, lease %" APR_UINT64_T_FMT ", waited %" APR_TIME_T_FMT " us", a.conn->lease,
            ticket->waited);
    return PGP_GRANTED;
}

int pgp_conn_set(pgp_conn *conn, const pgp_vars *vars, pgp_error *error)
{
    *error = (pgp_error){.message = ""};
    return conn->pool->env->driver->greet(conn->link, vars, 0, check_deadline(conn->pool),
                                          error) == PGP_GREET_GOOD;
}

int pgp_conn_alive(const pgp_conn *conn)
{
    return conn->pool->env->driver->alive(conn->link);
}

void *pgp_conn_handle(const pgp_conn *conn)
{
    return conn->pool->env->driver->handle(conn->link);
}

int pgp_conn_backend(const pgp_conn *conn)
{
    return conn->link ? conn->pool->env->driver->backend(conn->link) : 0;
}

/* --- giving back ------------------------------------------------------------ */

static void close_link(pgp_conn *conn, pgp_reason reason)
{
    pgp_pool *pool = conn->pool;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLOSED, pool->name, pgp_conn_backend(conn),
            "closed (%s)", pgp_reason_name(reason));
    if (conn->link)
        pool->env->driver->close(conn->link);
    conn->link = NULL;
    lock(pool);
    pgp_conn_move(pool->lists, conn, PGP_FREE);
    unlock(pool);
}

static void doom_locked(pgp_conn *conn, pgp_reason reason)
{
    conn->reason = reason;
    pgp_conn_move(conn->pool->lists, conn, PGP_CLOSING);
}

/* To the keeper to be closed; without a keeper here and now. */
static void doom(pgp_conn *conn, pgp_reason reason)
{
    pgp_pool *pool = conn->pool;
    int kept;

    lock(pool);
    if (reason == PGP_REASON_LOST || reason == PGP_REASON_PING)
        pool->suspect_since = now_of(pool);
    doom_locked(conn, reason);
    kept = pool->kept;
    unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else
        close_link(conn, reason);
}

static void give_back(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const apr_time_t now = now_of(pool);
    pgp_reason reason = PGP_REASON_NONE;

    lock(pool);
    if (pool->phase == STOPPED || (pool->phase == DRAINING && !pool->waiting))
        reason = PGP_REASON_STOP;
    else if (!pool->down.failures && conn->expires != PGP_NEVER && now >= conn->expires)
        reason = PGP_REASON_LIFETIME;
    else
        place_locked(pool, conn, now);
    unlock(pool);
    if (reason != PGP_REASON_NONE)
        doom(conn, reason);
}

static void send_to_cleaning(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    int kept;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLEANING, pool->name, pgp_conn_backend(conn),
            "came back with work open, is being cleaned up");
    pool->env->driver->clean(conn->link);
    conn->overdue = check_deadline(pool);
    lock(pool);
    kept = pool->kept;
    if (kept)
        pgp_conn_move(pool->lists, conn, PGP_CLEANING);
    unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else
        doom(conn, PGP_REASON_STOP);
}

void pgp_pool_release(pgp_conn **released)
{
    pgp_conn *conn = *released;
    pgp_pool *pool = conn->pool;

    *released = NULL;
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_RETURNED, pool->name, pgp_conn_backend(conn),
            "returned, lease %" APR_UINT64_T_FMT, conn->lease);
    conn->greeted = 1;
    switch (pool->env->driver->settle(conn->link)) {
    case PGP_RETURN_CLEAN:
        give_back(conn);
        break;
    case PGP_RETURN_DIRTY:
        send_to_cleaning(conn);
        break;
    case PGP_RETURN_BROKEN:
        doom(conn, PGP_REASON_LOST);
        break;
    case PGP_RETURN_UNKNOWN:
        doom(conn, PGP_REASON_UNKNOWN);
        break;
    }
}

void pgp_pool_discard(pgp_conn **discarded, pgp_reason reason)
{
    pgp_conn *conn = *discarded;

    *discarded = NULL;
    doom(conn, reason);
}

/* --- the keeper: time ------------------------------------------------------- */

static void end_overdue_locked(pgp_pool *pool, apr_time_t now)
{
    const pgp_outcome outcome = shortage_locked(pool);
    waiter *w;

    while ((w = queue_first_locked(pool)) != NULL && w->until <= now)
        waiter_end_locked(pool, w, outcome, NULL);
}

static void retire_idle_locked(pgp_pool *pool, apr_time_t now)
{
    int spare = live_locked(pool) - (pool->phase == RUNNING ? pool->settings->min : 0);
    pgp_conn *conn = APR_RING_LAST(&pool->lists[PGP_IDLE].ring), *newer;
    pgp_reason reason;

    for (; conn != APR_RING_SENTINEL(&pool->lists[PGP_IDLE].ring, pgp_conn, entry);
         conn = newer) {
        newer = APR_RING_PREV(conn, entry);
        reason = pool->phase == RUNNING ? pgp_policy_retire(conn, pool->settings, spare, now)
                                        : PGP_REASON_STOP;
        if (reason == PGP_REASON_NONE)
            continue;
        doom_locked(conn, reason);
        spare--;
    }
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
        .down = pool->down.failures > 0,
    };
    int start;

    if (pool->phase == STOPPED || now < pool->down.retry_at)
        return;
    for (start = pgp_policy_growth(&demand); start > 0; start--) {
        pgp_conn *conn = APR_RING_FIRST(&pool->lists[PGP_FREE].ring);

        conn->link = NULL;
        pgp_conn_move(pool->lists, conn, PGP_CONNECTING);
    }
    pool->missed = 0;
}

/* When something is due that nobody will call for. */
static apr_time_t next_locked(pgp_pool *pool, apr_time_t now)
{
    apr_time_t next = now + LONGEST_NAP;
    waiter *w = queue_first_locked(pool);

    if (w && w->until < next)
        next = w->until;
    if (w && count(pool, PGP_FREE) > 0 && now + PGP_GROWTH_STEP < next)
        next = now + PGP_GROWTH_STEP;
    if (now < pool->down.retry_at && pool->down.retry_at < next)
        next = pool->down.retry_at;
    return next;
}

apr_time_t pgp_keep_tend(pgp_pool *pool)
{
    const apr_time_t now = now_of(pool);
    apr_time_t next;

    lock(pool);
    end_overdue_locked(pool, now);
    retire_idle_locked(pool, now);
    reserve_locked(pool, now);
    next = pool->tend_at = next_locked(pool, now);
    unlock(pool);
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
    int n;

    lock(pool);
    n = list_state_locked(pool, PGP_CLOSING, conns);
    n += list_state_locked(pool, PGP_CLEANING, conns + n);
    n += list_state_locked(pool, PGP_CONNECTING, conns + n);
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
        doom_locked(conn, PGP_REASON_STOP);
    else
        place_locked(pool, conn, now);
    unlock(pool);
}

static void connected(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const pgp_env *env = pool->env;
    apr_interval_time_t outage_time = 0;

    conn->born = now_of(pool);
    conn->expires = pgp_policy_expiry(pool->settings, conn->born, env->random(env->baton));
    conn->greeted = 0;
    lock(pool);
    if (pool->down.failures)
        outage_time = conn->born - pool->down.since;
    pool->down = (outage){0};
    unlock(pool);
    if (outage_time)
        pgp_log(env, PGP_LOG_WARNING, PGP_MSG_RECOVERED, pool->name, 0,
                "the server answers again after %" APR_TIME_T_FMT " ms", outage_time / 1000);
    pgp_log(env, PGP_LOG_INFO, PGP_MSG_CONNECTED, pool->name, pgp_conn_backend(conn),
            "connected");
    admit(conn);
}

/* Remember the failure for those who ask meanwhile, and when to try again. */
static apr_interval_time_t outage_note_locked(pgp_pool *pool, const pgp_error *error,
                                              apr_time_t now, apr_uint32_t random)
{
    outage *down = &pool->down;
    apr_interval_time_t wait;

    if (down->failures++ == 0)
        down->since = now;
    down->kind = pgp_policy_failure(error->sqlstate);
    down->error = *error;
    wait = pgp_policy_backoff(&pool->settings->retry, down->kind, down->failures, random);
    down->retry_at = now + wait;
    return wait;
}

static void connect_failed(pgp_conn *conn, const pgp_error *error)
{
    pgp_pool *pool = conn->pool;
    const pgp_env *env = pool->env;
    const apr_uint32_t random = env->random(env->baton);
    const apr_time_t now = now_of(pool);
    apr_interval_time_t wait;

    lock(pool);
    wait = outage_note_locked(pool, error, now, random);
    doom_locked(conn, PGP_REASON_CONNECT);
    if (hopeless_locked(pool, now))
        queue_end_all_locked(pool, PGP_UNAVAILABLE);
    unlock(pool);
    pgp_log(env, PGP_LOG_ERR, PGP_MSG_CONNECT_FAILED, pool->name, 0,
            "cannot connect: %s; trying again in %" APR_TIME_T_FMT " ms", error->message,
            wait / 1000);
}

void pgp_keep_connect(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const pgp_env *env = pool->env;
    pgp_error error = {.sqlstate = ""};

    conn->overdue = now_of(pool) + pool->settings->connect_timeout;
    /* Only the keeper writes pool->down, so it may read it without the lock. */
    conn->link = env->driver->connect(env, pool->name, pool->settings, pool->down.failures,
                                      conn, &error);
    if (!conn->link)
        connect_failed(conn, &error);
}

static void clean_failed(pgp_conn *conn, const pgp_error *error)
{
    pgp_pool *pool = conn->pool;

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(conn),
            "could not be cleaned up: %s", error->message);
    doom(conn, PGP_REASON_UNCLEAN);
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
        admit(conn);
    else if (connecting)
        connect_failed(conn, &error);
    else
        clean_failed(conn, &error);
    return 1;
}

void pgp_keep_close(pgp_conn *conn)
{
    close_link(conn, conn->reason);
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
        doom_locked(APR_RING_FIRST(&pool->lists[state].ring), PGP_REASON_STOP);
}

void pgp_keep_stop(pgp_pool *pool)
{
    lock(pool);
    pool->phase = STOPPED;
    queue_end_all_locked(pool, PGP_STOPPING);
    doom_all_locked(pool, PGP_IDLE);
    doom_all_locked(pool, PGP_CONNECTING);
    doom_all_locked(pool, PGP_CLEANING);
    unlock(pool);
}

int pgp_keep_leave(pgp_pool *pool)
{
    int left;

    lock(pool);
    left = pool->phase == STOPPED && count(pool, PGP_CLOSING) == 0 &&
           count(pool, PGP_CLEANING) == 0;
    if (left)
        pool->kept = 0;
    unlock(pool);
    return left;
}
