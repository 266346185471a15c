#include "pgp_pool_private.h"

#include <apr_strings.h>

/* Refusals are over when no line of theirs was due for so long. */
#define REFUSALS_OVER (PGP_LOG_PERIOD + PGP_SEC(10))

/* An ask may be late by this much if its connection has still to be tested. */
#define LAST_MOMENT PGP_MS(50)

/* One borrower's ask, over all its tries; on its stack. */
typedef struct {
    pgp_pool *pool;
    pgp_ticket *ticket;
    apr_time_t start, until;
    pgp_conn *conn;
    int ping;             /* conn needs a round trip first */
    int again;            /* one that was taken was unfit: this ask has been let in already */
    int call;             /* the keeper is to be told of missed demand */
    apr_time_t probed_at; /* since when it awaits an attempt to connect; 0: it does not */
} ask;

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
    pool->context = (pgp_context){.env = env, .pool = name, .settings = settings};
    pool->waker = waker;
    pool->kept = 1;
    pool->share.quota.slot = pool->share.ring_one = -1;
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
    waiter *before = APR_RING_LAST(&pool->queue);

    if (pool->waiting++ == 0)
        pool->unmet_since = now;
    while (before != APR_RING_SENTINEL(&pool->queue, waiter, entry) && before->until > w->until)
        before = APR_RING_PREV(before, entry);
    APR_RING_INSERT_AFTER(before, w, entry);
}

/* The only way out of the queue. */
static void waiter_leave_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_conn *conn)
{
    APR_RING_REMOVE(w, entry);
    pool->waiting--;
    w->outcome = outcome;
    w->conn = conn;
    w->ended = 1;
    pgp_share_queue_changed_locked(pool);
}

void pgp_waiter_end_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_conn *conn)
{
    waiter_leave_locked(pool, w, outcome, conn);
    w->ended_after = pool->ended;
    pool->ended = w;
}

waiter *pgp_queue_first_locked(pgp_pool *pool)
{
    return pool->waiting ? APR_RING_FIRST(&pool->queue) : NULL;
}

void pgp_queue_end_all_locked(pgp_pool *pool, pgp_outcome outcome)
{
    waiter *w;

    while ((w = pgp_queue_first_locked(pool)) != NULL)
        pgp_waiter_end_locked(pool, w, outcome, NULL);
}

/* --- taking ----------------------------------------------------------------- */

static void lend_locked(pgp_pool *pool, pgp_conn *conn, apr_time_t now)
{
    pgp_conn_move(pool->lists, conn, PGP_LENT);
    conn->lease = ++pool->leases;
    pool->stats.n[PGP_N_LENT]++;
    conn->warned = 0;
    atomic_store(&conn->testing, 1);
    conn->holder.since = now;
    conn->holder.client[0] = conn->holder.what[0] = '\0';
}

void pgp_place_locked(pgp_pool *pool, pgp_conn *conn, apr_time_t now)
{
    waiter *w = pgp_queue_first_locked(pool);

    conn->idle_since = now;
    if (w) {
        lend_locked(pool, conn, now);
        pgp_waiter_end_locked(pool, w, PGP_GRANTED, conn);
    }
    else
        pgp_conn_move(pool->lists, conn, PGP_IDLE);
    pgp_share_idle_changed_locked(pool);
}

pgp_outcome pgp_shortage_locked(const pgp_pool *pool)
{
    return live_locked(pool) > 0 || (pool->share.at_cap && !pool->outage.failures)
               ? PGP_EXHAUSTED
               : PGP_UNAVAILABLE;
}

bool pgp_pool_is_futile_locked(const pgp_pool *pool, apr_time_t now)
{
    return live_locked(pool) == 0 &&
           pgp_outage_is_futile(&pool->outage, now, pool->settings->acquire_timeout);
}

/* Say it in words; the cause is the last connect's, if connects fail. */
static void explain_locked(const pgp_pool *pool, pgp_outcome outcome, pgp_error *error)
{
    if (outcome == PGP_STOPPING)
        *error = (pgp_error){.message = "this child is stopping"};
    else if (pool->outage.failures)
        *error = pool->outage.error;
    else if (error->message[0])
        return; /* what made the last one unfit says more than the shortage */
    else if (pool->board && pool->share.quota.slot < 0)
        *error = (pgp_error){
            .message = "this child has no slot in the memory that all children "
                       "share, see PGP1017"};
    else if (pool->share.at_cap && outcome == PGP_EXHAUSTED)
        apr_snprintf(error->message, sizeof error->message,
                     "all %d connections that PgPoolTotalMax allows are taken, %d of them lent "
                     "by this child, %d more are waiting",
                     pool->settings->total_max, count(pool, PGP_LENT), pool->waiting);
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
    if (outcome == PGP_EXHAUSTED)
        a->pool->stats.n[PGP_N_EXHAUSTED]++;
    else if (outcome == PGP_UNAVAILABLE)
        a->pool->stats.n[PGP_N_UNAVAILABLE]++;
    explain_locked(a->pool, outcome, &a->ticket->error);
    return outcome;
}

static void taken_locked(ask *a, pgp_conn *conn, apr_time_t now)
{
    a->conn = conn;
    a->ping = pgp_policy_ping_due(conn, a->pool->settings, a->pool->suspect_since, now);
}

/* Whether this caller may wait although waiting is futile, for one attempt to connect. */
static bool may_probe_locked(ask *a, apr_time_t now)
{
    pgp_pool *pool = a->pool;

    if (a->probed_at)
        return !pgp_outage_has_failed_since(&pool->outage, a->probed_at);
    /* One at a time; and without a permit no attempt can be made. */
    if (pool->waiting || pool->share.at_cap ||
        !pgp_outage_may_probe(&pool->outage, now, &pool->settings->retry,
                              count(pool, PGP_CONNECTING) > 0))
        return false;
    a->probed_at = now;
    return true;
}

/* The next one is to find a connection: the keeper grows for who was refused, too. */
static void missed_locked(ask *a)
{
    a->call = !a->pool->missed;
    a->pool->missed = 1;
}

/* Settle an ask without a wait.  Returns 0 if it has to wait, else 1 with its
 * outcome. */
static int take_locked(ask *a, apr_time_t now, pgp_outcome *outcome)
{
    pgp_pool *pool = a->pool;

    if (pool->phase == STOPPED) {
        *outcome = refuse_locked(a, PGP_STOPPING);
        return 1;
    }
    if (count(pool, PGP_IDLE) > 0 && now <= a->until) {
        lend_locked(pool, APR_RING_FIRST(&pool->lists[PGP_IDLE].ring), now);
        taken_locked(a, APR_RING_FIRST(&pool->lists[PGP_LENT].ring), now);
        pgp_stats_time(&pool->stats, PGP_N_WAIT, 0);
        pgp_share_idle_changed_locked(pool);
        *outcome = PGP_GRANTED;
        return 1;
    }
    if (pgp_pool_is_futile_locked(pool, now) && !may_probe_locked(a, now)) {
        if (pool->share.at_cap)
            missed_locked(a); /* it is the other children who have them all */
        *outcome = refuse_locked(a, PGP_UNAVAILABLE);
        return 1;
    }
    return 0;
}

/* Also where nobody is to wait: what the keeper reads from is as good as idle. */
static int may_wait_locked(const ask *a, apr_time_t now)
{
    const pgp_settings *settings = a->pool->settings;

    return (settings->acquire_timeout || a->pool->reading) && now < a->until &&
           (!settings->max_waiters || a->again || a->pool->waiting < settings->max_waiters);
}

static void count_wait_locked(pgp_pool *pool, apr_interval_time_t waited)
{
    pool->stats.n[PGP_N_WAITS]++;
    pool->stats.n[PGP_N_WAIT_US] += waited;
    pgp_stats_time(&pool->stats, PGP_N_WAIT, waited);
    if (waited > pool->stats.longest_wait)
        pool->stats.longest_wait = waited;
}

/* Whether to wake the keeper for a new waiter: it can open a connection.  If several lack
 * permits, the first of them tells the other children. */
static int keeper_needed_locked(const pgp_pool *pool)
{
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

/* Queue up and sleep until somebody ends the wait.  What it sleeps on is not in memory of the
 * request's: in prefork a child may be told to stop, and destroy that, in a signal handler in
 * the middle of a wait. */
static pgp_outcome wait_locked(ask *a)
{
    pgp_pool *pool = a->pool;
    const apr_time_t now = now_of(pool);
    waiter w = {.until = a->until};
    int call;

    if (!may_wait_locked(a, now)) {
        missed_locked(a);
        return refuse_locked(a, pgp_shortage_locked(pool));
    }
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
    a->ticket->waited = now_of(pool) - a->start;
    if (w.outcome != PGP_GRANTED)
        return refuse_locked(a, w.outcome);
    count_wait_locked(pool, w.conn->holder.since - a->start);
    taken_locked(a, w.conn, w.conn->idle_since);
    return PGP_GRANTED;
}

static pgp_outcome take(ask *a, apr_time_t now)
{
    pgp_pool *pool = a->pool;
    pgp_outcome outcome;

    lock(pool);
    if (!take_locked(a, now, &outcome))
        outcome = wait_locked(a);
    unlock(pool);
    if (a->call)
        pool->waker.wake(pool->waker.baton);
    return outcome;
}

static apr_time_t check_deadline(const pgp_pool *pool)
{
    return now_of(pool) + pool->settings->check_timeout;
}

/* Within a deadline; but what was handed over at the last moment is not to be closed because
 * its borrower has no time to hear that it is well. */
static apr_time_t test_deadline(const pgp_pool *pool, apr_time_t until)
{
    const apr_time_t now = now_of(pool);
    const apr_time_t check = now + pool->settings->check_timeout, least = now + LAST_MOMENT;

    if (until != PGP_NEVER && until < least)
        until = least;
    return until == PGP_NEVER || check < until ? check : until;
}

/* Test what was taken, by a look at its socket, and greet it if it owes anything. */
static pgp_reason unfit_reason(ask *a)
{
    const pgp_driver *driver = a->pool->env->driver;
    const pgp_probe probe = driver->probe(a->conn->link, &a->ticket->error);
    const int ping = a->ping || probe == PGP_PROBE_HEARD;

    if (probe == PGP_PROBE_DEAD)
        return PGP_REASON_LOST;
    if ((probe == PGP_PROBE_QUIET && !ping) ||
        driver->greet(a->conn->link, ping, test_deadline(a->pool, a->until), &a->ticket->error))
        return PGP_REASON_NONE;
    if (!pgp_conn_alive(a->conn))
        return PGP_REASON_LOST;
    return probe == PGP_PROBE_OWING ? PGP_REASON_UNCLEAN : PGP_REASON_PING;
}

void pgp_reset_failed(pgp_conn *conn, const pgp_error *error)
{
    pgp_pool *pool = conn->pool;
    pgp_gate_count count;

    if (!*error->sqlstate)
        return; /* no word of the server's: it was too late */
    if (pgp_gate_pass(pgp_share_gate(pool, PGP_GATE_RESET), now_of(pool), PGP_LOG_PERIOD,
                      &count))
        pgp_log(
            pool->env, PGP_LOG_WARNING, PGP_MSG_RESET, pool->name, pgp_conn_backend(conn),
            "the server refuses the reset of the session, which costs a new connection each "
            "time (%" APR_UINT64_T_FMT " since the last warning): %s (SQLSTATE %s)",
            count.events, error->message, error->sqlstate);
}

static void discard_unfit(pgp_conn **unfit, pgp_reason reason, const pgp_error *error)
{
    pgp_pool *pool = (*unfit)->pool;
    char words[PGP_ERROR_WORDS];

    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(*unfit),
            "found unfit before it was given out (%s): %s", pgp_reason_name(reason),
            pgp_error_print(words, error));
    if (reason == PGP_REASON_UNCLEAN)
        pgp_reset_failed(*unfit, error);
    lock(pool);
    pool->stats.n[PGP_N_UNFIT]++;
    atomic_store(&(*unfit)->testing, 0);
    unlock(pool);
    pgp_pool_discard(unfit, reason);
}

/* 0: it was unfit, and is on its way to the keeper. */
static int examine(ask *a)
{
    pgp_reason reason;

    assert(a->conn);
    reason = unfit_reason(a);
    if (reason == PGP_REASON_NONE)
        return 1;
    discard_unfit(&a->conn, reason, &a->ticket->error);
    a->again = 1;
    return 0;
}

pgp_outcome pgp_pool_acquire(pgp_pool *pool, pgp_conn **conn, pgp_ticket *ticket)
{
    const pgp_settings *settings = pool->settings;
    const apr_time_t start = now_of(pool);
    ask a = {.pool = pool, .ticket = ticket, .start = start};
    pgp_outcome outcome;

    a.again = ticket->until != 0;
    /* Who will not wait for a connection still gives a test its time. */
    if (!a.again)
        ticket->until = start + (settings->acquire_timeout ? settings->acquire_timeout
                                                           : settings->check_timeout);
    a.until = ticket->until;
    ticket->waited = 0;
    ticket->error.sqlstate[0] = ticket->error.message[0] = '\0';
    outcome = take(&a, start);
    while (outcome == PGP_GRANTED && !examine(&a))
        outcome = take(&a, now_of(pool));
    if (outcome != PGP_GRANTED)
        return outcome;
    ticket->error.sqlstate[0] = ticket->error.message[0] = '\0';
    *conn = a.conn;
    atomic_store(&a.conn->testing, 0);
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_LENT, pool->name, pgp_conn_backend(a.conn),
            "lent, lease %" APR_UINT64_T_FMT ", waited %" APR_TIME_T_FMT " us", a.conn->lease,
            ticket->waited);
    return PGP_GRANTED;
}

pgp_set_outcome pgp_conn_set(pgp_conn *conn, const pgp_vars *vars, apr_time_t until,
                             pgp_error *error)
{
    const pgp_driver *driver = conn->pool->env->driver;

    if (driver->is_set(conn->link, vars))
        return PGP_SET_DONE;
    *error = (pgp_error){.message = ""};
    return driver->set(conn->link, vars, test_deadline(conn->pool, until), error);
}

void pgp_pool_unfit(pgp_conn **conn, const pgp_error *error)
{
    discard_unfit(conn, pgp_conn_alive(*conn) ? PGP_REASON_PING : PGP_REASON_LOST, error);
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
            pgp_log(pool->env, PGP_LOG_WARNING, PGP_MSG_REFUSED, pool->name, 0,
                    "%" APR_UINT64_T_FMT " more requests got no connection (%s) since the last "
                    "line, and none for a while",
                    count.events, i ? "unavailable" : "exhausted");
}

void pgp_conn_describe(pgp_conn *conn, const char *client, const char *const *what)
{
    pgp_holder *holder = &conn->holder;
    char *at = holder->what, *const end = at + sizeof holder->what;

    lock(conn->pool);
    apr_cpystrn(holder->client, client, sizeof holder->client);
    for (; *what; what++)
        at = apr_cpystrn(at, *what, end - at);
    unlock(conn->pool);
}

int pgp_conn_alive(const pgp_conn *conn)
{
    return conn->pool->env->driver->alive(conn->link);
}

void pgp_conn_last_words(const pgp_conn *conn, pgp_error *error)
{
    conn->pool->env->driver->last_words(conn->link, error);
}

void *pgp_conn_handle(const pgp_conn *conn)
{
    return conn->pool->env->driver->handle(conn->link);
}

unsigned pgp_conn_backend(const pgp_conn *conn)
{
    return conn->holder.backend;
}

/* --- giving back ------------------------------------------------------------ */

/* How long its borrower had it. */
static void count_hold_locked(pgp_conn *conn, apr_time_t now)
{
    pgp_stats *stats = &conn->pool->stats;
    const apr_interval_time_t held = now - conn->holder.since;

    stats->n[PGP_N_HOLD_US] += held;
    pgp_stats_time(stats, PGP_N_HOLD, held);
    if (held > stats->longest_hold)
        stats->longest_hold = held;
}

/* If this was the last usable connection, waiting may be futile from now on. */
void pgp_doom_locked(pgp_conn *conn, pgp_reason reason)
{
    pgp_pool *pool = conn->pool;
    const int lived = live_locked(pool);

    conn->reason = reason;
    conn->overdue = 0;
    pgp_conn_move(pool->lists, conn, PGP_CLOSING);
    if (lived && !live_locked(pool))
        pgp_outage_deprive(&pool->outage, now_of(pool));
}

void pgp_close_begin(pgp_conn *conn)
{
    const pgp_pool *pool = conn->pool;

    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_CLOSED, pool->name, pgp_conn_backend(conn),
            "closed (%s)", pgp_reason_name(conn->reason));
    if (conn->link)
        pool->env->driver->close(conn->link);
}

void pgp_close_end(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;

    if (conn->link)
        pool->env->driver->destroy(conn->link);
    conn->link = NULL;
    lock(pool);
    pool->stats.n[PGP_N_CLOSES + conn->reason]++;
    pgp_conn_move(pool->lists, conn, PGP_FREE);
    pgp_share_give_locked(pool);
    unlock(pool);
    pgp_share_ring(pool);
}

/* To the keeper to be closed; without a keeper here and now. */
void pgp_doom(pgp_conn *conn, pgp_reason reason)
{
    pgp_pool *pool = conn->pool;
    const apr_time_t now = now_of(pool);
    int kept;

    lock(pool);
    if (conn->state == PGP_LENT)
        count_hold_locked(conn, now);
    if (reason == PGP_REASON_LOST || reason == PGP_REASON_PING)
        pool->suspect_since = now;
    pgp_doom_locked(conn, reason);
    kept = pool->kept;
    unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else {
        pgp_close_begin(conn);
        pgp_close_end(conn);
    }
}

static void give_back(pgp_conn *conn)
{
    pgp_pool *pool = conn->pool;
    const apr_time_t now = now_of(pool);
    pgp_reason reason = PGP_REASON_NONE;

    lock(pool);
    if (pool->phase == STOPPED || (pool->phase == DRAINING && !pool->waiting))
        reason = PGP_REASON_STOP;
    else if (pool->settings->reset == PGP_RESET_CLOSE)
        reason = PGP_REASON_RESET;
    else if (!pool->outage.failures && conn->expires != PGP_NEVER && now >= conn->expires)
        reason = PGP_REASON_LIFETIME;
    else {
        if (conn->state == PGP_LENT)
            count_hold_locked(conn, now);
        pgp_place_locked(pool, conn, now);
    }
    unlock(pool);
    if (reason != PGP_REASON_NONE)
        pgp_doom(conn, reason);
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
    if (kept) {
        count_hold_locked(conn, conn->overdue - pool->settings->check_timeout);
        pgp_conn_move(pool->lists, conn, PGP_CLEANING);
    }
    unlock(pool);
    if (kept)
        pool->waker.wake(pool->waker.baton);
    else
        pgp_doom(conn, PGP_REASON_STOP);
}

/* Its borrower may not have told why. */
static void log_lost(const pgp_conn *conn)
{
    const pgp_pool *pool = conn->pool;
    char words[PGP_ERROR_WORDS];
    pgp_error error;

    pgp_conn_last_words(conn, &error);
    pgp_log(pool->env, PGP_LOG_INFO, PGP_MSG_UNFIT, pool->name, pgp_conn_backend(conn),
            "was lost while it was lent%s%s", *error.message ? ": " : "",
            pgp_error_print(words, &error));
}

void pgp_settle(pgp_conn *conn)
{
    switch (conn->pool->env->driver->settle(conn->link)) {
    case PGP_RETURN_CLEAN:
        give_back(conn);
        break;
    case PGP_RETURN_DIRTY:
        if (conn->state == PGP_LENT)
            send_to_cleaning(conn);
        else
            pgp_doom(conn, PGP_REASON_UNCLEAN);
        break;
    case PGP_RETURN_LARGE:
        pgp_doom(conn, PGP_REASON_LARGE);
        break;
    case PGP_RETURN_BROKEN:
        log_lost(conn);
        pgp_doom(conn, PGP_REASON_LOST);
        break;
    case PGP_RETURN_UNKNOWN:
        pgp_doom(conn, PGP_REASON_UNKNOWN);
        break;
    }
}

/* Whether the turn of another child has come.  The connection is closed then as it is: to reset
 * it would only keep the server's process busy. */
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

void pgp_pool_release(pgp_conn **released)
{
    pgp_conn *conn = *released;
    pgp_pool *pool = conn->pool;

    *released = NULL;
    pgp_log(pool->env, PGP_LOG_DEBUG, PGP_MSG_RETURNED, pool->name, pgp_conn_backend(conn),
            "returned, lease %" APR_UINT64_T_FMT, conn->lease);
    if (is_passed_on(pool))
        pgp_doom(conn, PGP_REASON_SHARED);
    else
        pgp_settle(conn);
}

void pgp_pool_discard(pgp_conn **discarded, pgp_reason reason)
{
    pgp_conn *conn = *discarded;

    *discarded = NULL;
    pgp_doom(conn, reason);
}

pgp_link *pgp_pool_part(pgp_conn **parted)
{
    pgp_conn *conn = *parted;
    pgp_link *link = conn->link;

    *parted = NULL;
    conn->link = NULL;
    pgp_doom(conn, PGP_REASON_LOST);
    return link;
}

void pgp_pool_bury(const pgp_pool *pool, pgp_link **link)
{
    pool->env->driver->destroy(*link);
    *link = NULL;
}

/* --- a borrowed connection, seen by its borrower ---------------------------- */

pgp_pool *pgp_conn_pool(const pgp_conn *conn)
{
    return conn->pool;
}

apr_uint64_t pgp_conn_lease_id(const pgp_conn *conn)
{
    return conn->lease;
}

bool pgp_conn_is_greeted(const pgp_conn *conn)
{
    return conn->greeted;
}

void pgp_conn_set_greeted(pgp_conn *conn)
{
    conn->greeted = 1;
}

void *pgp_conn_baton(const pgp_conn *conn)
{
    return conn->borrower;
}

void pgp_conn_set_baton(pgp_conn *conn, void *baton)
{
    conn->borrower = baton;
}
