/*
 * The pool: who has which connection, and who waits for one.
 *
 * Model.  A pool is a monitor: one mutex, a fixed number of slots in the states
 * of pgp_conn.h, and one queue of waiters.  Borrowers (any thread) take and give
 * back; the keeper (one thread a process, pgp_keeper.h) does everything slow:
 * it connects, cleans, closes, and keeps the time.
 *
 *   acquire   Nobody waits and one is idle: take the newest.  Else queue up and
 *             sleep until somebody ends the wait: a borrower or the keeper hands
 *             a connection over, or the keeper says that the time is up.  What
 *             was taken is tested outside the lock; an unfit one goes to the
 *             keeper and the ask goes on, in its old place in the queue.
 *   outage    While connects fail, who asks waits.  Once that has been in vain for longer
 *             than anybody may wait, all are refused at once; but where the server says
 *             nothing, one at a time waits for an attempt, which is made for him if none
 *             is under way.
 *   release   Clean: to the oldest waiter, else to the front of the idle ones.
 *             Anything else: to the keeper.
 *
 * Whoever waits is ended by exactly one other thread, under the lock
 * (pgp_waiter_end_locked), so there is no race between a time-out and a hand-off:
 * what is handed over is taken, and what timed out was given nothing.  It also
 * means that a wait needs no clock: the keeper looks at the queue, which is in
 * order of the deadlines, on the core's monotonic clock.  (Only if the keeper is held up
 * a waiter takes itself out of the queue, a moment after its deadline.)  Who is
 * ended is woken when the lock is free again.
 *
 * Invariants, whenever the lock is free:
 *   - each slot is in the list of its state, and in no other;
 *   - somebody waits => nothing is idle;
 *   - the queue is in order of the deadlines, equal ones in order of arrival.
 *
 * Lock.  pool->lock guards the lists, the queue, the outage and the phase.  Under
 * it there is no libpq, no log, no allocation, no system call: reserve, unlock,
 * act, commit.  It is never held together with another lock.
 *
 * Phases.  RUNNING; DRAINING (the child lives only for the requests that it
 * has: nothing is kept idle); STOPPED (waiters and callers are answered
 * PGP_STOPPING, what is lent is closed on return).  A stopped pool stays a valid
 * object for as long as the process lives, since a late thread may still come.
 *
 * Ownership.  A pgp_conn from pgp_pool_acquire() is the caller's until release or
 * discard, which set the caller's pointer to NULL.
 */
#ifndef PGP_POOL_H
#define PGP_POOL_H

#include <apr_errno.h>

#include "pgp_board.h"

/* How an ask ended. */
typedef enum {
    PGP_GRANTED,
    PGP_EXHAUSTED,   /* all connections stayed lent until the deadline */
    PGP_UNAVAILABLE, /* there is no connection to be had from the server */
    PGP_STOPPING     /* the pool is stopped */
} pgp_outcome;

/* What an ask cost, and why it failed. */
typedef struct {
    apr_interval_time_t waited; /* microseconds in the queue */
    pgp_error error;            /* set only if the outcome is not PGP_GRANTED */
    int refused;                /* it is vars that the server will not have */
} pgp_ticket;

/* Wakes the keeper; async-signal safe. */
typedef struct {
    void (*wake)(void *baton);
    void *baton;
} pgp_waker;

/*
 * Make a pool that has no connection yet.  Name, settings, env and waker must
 * live as long as the pool; max slots are made here and never more.
 * Returns APR_SUCCESS, or APR's error from making a mutex.
 */
apr_status_t pgp_pool_create(pgp_pool **pool, apr_pool_t *p, const char *name,
                             const pgp_settings *settings, const pgp_env *env, pgp_waker waker);

const char *pgp_pool_name(const pgp_pool *pool);
const pgp_settings *pgp_pool_settings(const pgp_pool *pool);

/* Put the pool on a board that it shares with other children, as its board_pool-th.
 * Before the keeper starts. */
void pgp_pool_post(pgp_pool *pool, pgp_board *board, int board_pool);

/* --- borrowers: any thread -------------------------------------------------- */

/*
 * Borrow a connection, within PgPoolAcquireTimeout.
 *
 * vars: settings of the session for this borrower, or NULL; undone at release.  If
 * the server will not have one of them, the ask ends as PGP_UNAVAILABLE.
 * *conn and ticket->waited are set if PGP_GRANTED; all of the ticket if not.
 */
pgp_outcome pgp_pool_acquire(pgp_pool *pool, const pgp_vars *vars, pgp_conn **conn,
                             pgp_ticket *ticket);

/* Give a connection back in whatever state it is.  Never blocks. */
void pgp_pool_release(pgp_conn **conn);

/* Give a connection back to be closed. */
void pgp_pool_discard(pgp_conn **conn, pgp_reason reason);

/* Give back the place of a connection that is lost, but not what its borrower may still
 * hold of it: that is to be buried when nobody uses the handle any more. */
pgp_link *pgp_pool_part(pgp_conn **conn);
void pgp_pool_bury(const pgp_pool *pool, pgp_link **link);

/* Whether a borrowed connection still stands; does not touch what it has
 * received. */
int pgp_conn_alive(const pgp_conn *conn);

/* Set further settings of the session on a borrowed connection, within
 * PgPoolCheckTimeout; undone at release.  If not GOOD, *error says why: REFUSED, and all
 * is as before; BAD, and they may be set or not: it must not be used any more. */
pgp_greeting pgp_conn_set(pgp_conn *conn, const pgp_vars *vars, pgp_error *error);

/* What the borrower works with (a PGconn), and the server's process. */
void *pgp_conn_handle(const pgp_conn *conn);
int pgp_conn_backend(const pgp_conn *conn);

/* How many slots are in each state, and how many borrowers wait. */
typedef struct {
    int state[PGP_STATES];
    int waiting;
} pgp_counts;

void pgp_pool_count(pgp_pool *pool, pgp_counts *counts);

/* Whether one more refusal is worth a line in the log: ten in a second are.  Then
 * *unlogged is how many were not since the last one that was. */
int pgp_pool_may_log(pgp_pool *pool, int *unlogged);

/* Say who holds it, for the page and PgPoolHoldWarning.  what: in parts, NULL ends them. */
void pgp_conn_describe(pgp_conn *conn, const char *client, const char *const *what);

/* --- the keeper's thread only ----------------------------------------------- */

/* What time has brought: ends overdue waits, retires idle connections, reserves
 * slots for new ones.  Returns when to come again at the latest. */
apr_time_t pgp_keep_tend(pgp_pool *pool);

/* Have a look at the idle connections, each second: what the server has closed is on its
 * way out afterwards, before somebody asks for it.  conns and fds: room for PgPoolMax. */
void pgp_keep_watch(pgp_pool *pool, pgp_conn **conns, struct pollfd *fds);

/* The slots in the keeper's hands (CONNECTING, CLEANING, CLOSING); room for
 * PgPoolMax of them.  Returns their number. */
int pgp_keep_list(pgp_pool *pool, pgp_conn **conns);

/* Start to connect a slot that is CONNECTING and has no link. */
void pgp_keep_connect(pgp_conn *conn);

/* Go on with one that is CONNECTING or CLEANING.  Returns 1 if it is no longer,
 * 0 if it waits for conn->await until conn->overdue. */
int pgp_keep_step(pgp_conn *conn);

/* Close one that is CLOSING.  Returns 1 if it is FREE, 0 if it waits for conn->await
 * until conn->overdue: for the server's process to end. */
int pgp_keep_close(pgp_conn *conn);

/* The child's slot on the board; connections need one. */
void pgp_keep_slot(pgp_pool *pool, int slot);

/* Enter a later phase. */
void pgp_keep_drain(pgp_pool *pool);
void pgp_keep_stop(pgp_pool *pool);

/* Leave a stopped pool for good: 1, or 0 if there is still something to close. */
int pgp_keep_leave(pgp_pool *pool);

#endif
