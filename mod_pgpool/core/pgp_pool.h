/*
 * A pool lends PostgreSQL connections to the request threads of one process.
 *
 * Model.  A pool has one mutex, a fixed number of slots (pgp_slot.h gives their states), and
 * one queue of waiters.  Request threads borrow and return.  The keeper, one thread a process
 * (pgp_keeper.h), does everything slow: it connects, cleans up and closes.
 *
 *   acquire   If nobody waits and a connection is idle, the caller takes the one that was
 *             returned last.  Otherwise the caller joins the queue and sleeps until another
 *             thread hands it a connection or its deadline passes.  The caller checks the
 *             connection without holding the mutex; if the check fails, it gives the
 *             connection to the keeper and tries again, keeping its place in the queue.
 *   release   A clean connection goes to the first waiter, or becomes idle.  The keeper cleans
 *             up any other connection, or closes it.
 *   outage    While the server cannot be reached, callers wait.  They fail at once if the
 *             server rejects us, or if no connection has been usable for
 *             PgPoolAcquireTimeout; then, if the server gives no answer at all (no SQLSTATE)
 *             or says that it starts up, one caller at a time may trigger an attempt to
 *             connect and await it.
 *
 * End of a wait.  Each waiter enforces its own deadline.  Another thread ends a wait under the
 * mutex (pgp_waiter_end_locked), a waiter whose deadline has passed leaves the queue under the
 * mutex, and `ended` says which came first: a connection that was handed over is always taken.
 * pgp_pool_unlock() wakes the waiters after it has released the mutex.
 *
 * Invariants, whenever the mutex is free:
 *   - each slot is on the list of its state, and on no other;
 *   - if a request waits, no connection is idle;
 *   - the queue is sorted by deadline, then by arrival;
 *   - if the pool is stopped, nobody waits.
 *
 * Locks.  pool->lock guards the lists, the queue, the outage and the phase.  No thread calls
 * libpq, the log, the allocator or the system while it holds the lock: it reserves, unlocks,
 * acts, and commits.  No thread holds this lock together with another one.
 *
 * Phases (pgp_types.h).  A stopped pool closes each connection as soon as nobody uses it.  It
 * stays a valid object for the rest of the process's life, since a thread may come late.
 *
 * Ownership.  A pgp_slot from pgp_pool_acquire() is the caller's until release or
 * discard, which set the caller's pointer to NULL.
 */
#ifndef PGP_POOL_H
#define PGP_POOL_H

#include <stdbool.h>
#include <apr_errno.h>

#include "pgp_permits.h"
#include "pgp_types.h"

/* How an acquire ended. */
typedef enum {
    PGP_GRANTED,
    PGP_EXHAUSTED,   /* all connections stayed in use until the deadline */
    PGP_UNAVAILABLE, /* there is no connection to be had from the server */
    PGP_STOPPING     /* the pool is stopped */
} pgp_outcome;

/* An acquire: what the caller tells the pool, and what the pool tells the caller. */
typedef struct {
    /* by the caller */
    const char *client;      /* for the page and PgPoolHoldWarning; NULL: it is not a request */
    const char *const *what; /* what the client wants, in parts; NULL ends them */

    /* by the pool */
    apr_time_t until; /* the deadline, on the env's clock.  0 at first; if the caller acquires
                       * again with the same info, this deadline still holds */
    apr_interval_time_t waited; /* microseconds in the queue */
    pgp_error error;            /* set only if the outcome is not PGP_GRANTED */
} pgp_acquire_info;

/* Wakes the keeper; async-signal safe. */
typedef struct {
    void (*wake)(void *baton);
    void *baton;
} pgp_waker;

/* Make a pool that has no connection yet.  Name, settings, env and waker must live as long as
 * the pool.  Returns APR_SUCCESS, or APR's error from making a mutex. */
apr_status_t pgp_pool_create(pgp_pool **pool, apr_pool_t *p, const char *name,
                             const pgp_settings *settings, const pgp_env *env, pgp_waker waker);

const char *pgp_pool_name(const pgp_pool *pool);
const pgp_settings *pgp_pool_settings(const pgp_pool *pool);

/* Give the pool a place on the board that it shares with other children.  Before the keeper
 * starts. */
void pgp_pool_attach_board(pgp_pool *pool, pgp_board *board, int place);

/* The server that some of a child's pools connect to. */
typedef struct {
    /* immutable once the keeper runs */
    const char *name; /* pgp_conninfo_server() */
    int pools;        /* how many of the child's pools connect to it */
    int place;        /* the place of one of these pools: its gates serve them all; -1: none */
    int max;          /* the least PgPoolServerMax of these pools; 0: none has one */
    apr_int64_t max_over_children; /* connections that all children may ask for, for all of
                                    * these pools */

    /* the core's own (pgp_share_server.c); 0 at the beginning */
    pgp_quota quota;
    int first;              /* the index of the first of these pools among the keeper's */
    int connecting;         /* attempts under way in this round of the keeper */
    apr_time_t waits_since; /* as published */
    apr_time_t rung_at; /* when this child last rang the one with the longest idle connection */
    bool ring;          /* ring the children that the free permits belong to */
} pgp_server;

/* How many connections all children may ask for, for one pool. */
apr_int64_t pgp_pool_max_over_children(const pgp_pool *pool);

/* Tell the pool its server, which its other pools have in common with it.  Before the keeper
 * starts, after pgp_pool_attach_board().  The struct must live as long as the pool.  A pool
 * without it is the server's only one. */
void pgp_pool_attach_server(pgp_pool *pool, pgp_server *server);

/* --- borrowers: any thread -------------------------------------------------- */

/* Borrow a connection, within PgPoolAcquireTimeout.  Sets *slot and info->waited if the outcome
 * is PGP_GRANTED, otherwise all of the info. */
pgp_outcome pgp_pool_acquire(pgp_pool *pool, pgp_slot **slot, pgp_acquire_info *info);

/* Give up a connection that has failed before its borrower did anything with it. */
void pgp_pool_discard_unfit(pgp_slot **slot, const pgp_error *error);

/* Give a connection back in whatever state it is.  Never blocks. */
void pgp_pool_release(pgp_slot **slot);

/* Give a connection back to be closed. */
void pgp_pool_discard(pgp_slot **slot, pgp_reason reason);

/* Free the slot of a lost connection, but keep the connection itself, whose PGconn the borrower
 * may still use.  The caller destroys the connection when nobody uses the PGconn any more. */
pgp_connection *pgp_pool_detach(pgp_slot **slot);
void pgp_pool_destroy_detached(const pgp_pool *pool, pgp_connection **connection);

/* Whether a borrowed connection is still open.  Reads nothing that it has received. */
bool pgp_slot_is_alive(const pgp_slot *slot);

/* Shut the socket of a borrowed connection down: whatever its borrower tries on it next fails.
 * why: a literal, for the last words. */
void pgp_slot_shutdown(const pgp_slot *slot, const char *why);

/* Set *error to the server's last words on a lost connection, or to why we have shut it down;
 * the message is empty if neither is known.  The borrower's results stay. */
void pgp_slot_last_words(const pgp_slot *slot, pgp_error *error);

/* Set these session variables on a borrowed connection, and undo those of an earlier call.  The
 * release undoes them.  The call lasts PgPoolCheckTimeout at most, and ends at `until`
 * (PGP_NEVER: no such deadline); it costs nothing if the variables are set already.
 * If the result is not DONE, *error tells the cause.  DENIED: the session is as it was before.
 * FAILED: its state is unknown, and the connection must not be used any more. */
pgp_set_outcome pgp_slot_set_vars(pgp_slot *slot, const pgp_vars *vars, apr_time_t until,
                                  pgp_error *error);

/* Other code than the borrower's has used the connection, and may have changed the variables:
 * the next call of pgp_slot_set_vars() sends them again, even if it has the same ones. */
void pgp_slot_doubt_vars(pgp_slot *slot);

/* The PGconn of a connection, and the pid of its backend. */
void *pgp_slot_handle(const pgp_slot *slot);
unsigned pgp_slot_backend(const pgp_slot *slot);

/* The figures of this moment. */
void pgp_pool_read_stats(pgp_pool *pool, pgp_stats *stats);

/* Whether to log one more refusal (an outcome other than GRANTED): the first of its kind in all
 * children, and one a minute while refusals go on.  If so, *unlogged is the number of refusals
 * that were not logged since the last line. */
bool pgp_pool_may_log(pgp_pool *pool, pgp_outcome outcome, apr_uint64_t *unlogged);

/* --- a borrowed connection: its borrower's thread ---------------------------- */

/* The pool that lends it, and the number of the lease in that pool. */
pgp_pool *pgp_slot_pool(const pgp_slot *slot);
apr_uint64_t pgp_slot_lease_id(const pgp_slot *slot);

/* Whether the hooks for a new connection have run.  The first borrower sets this, and it stays
 * with the connection from lease to lease. */
bool pgp_slot_has_run_hooks(const pgp_slot *slot);
void pgp_slot_set_hooks_run(pgp_slot *slot);

/* Count a statement that its session had prepared already, or had not. */
void pgp_slot_count_statement(pgp_slot *slot, bool was_prepared);

/* Say why its statement is given up, before the release. */
void pgp_slot_set_cancel(pgp_slot *slot, pgp_cancel cause);

/* A pointer for the borrower's own use.  The borrower sets it to NULL before the release. */
void *pgp_slot_baton(const pgp_slot *slot);
void pgp_slot_set_baton(pgp_slot *slot, void *baton);

#endif
