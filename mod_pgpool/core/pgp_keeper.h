/*
 * The keeper: the one thread of a child that does everything slow.
 *
 * Model.  A keeper looks after several pools, in rounds.  In each round it does what time
 * brings for each pool (pgp_pool_maintain), and goes on with each slot that is in its hands:
 * one step of connecting or cleaning up (pgp_slot_step) or of closing (pgp_slot_close).  Then
 * it sleeps in one poll() until a socket is ready, a deadline comes, or another thread wakes
 * it.  Nothing in a round blocks, so a slow server delays no other.
 *
 * Life.  create(), add() for each pool, start(); later enter_phase(); then join().  The keeper
 * takes its pools with it into each phase.  STOPPED ends all waits, closes all connections that
 * are not in use, and ends the thread.  After that a borrower closes its connection itself when
 * it returns it.
 *
 * Threads.  wake() and enter_phase() may be called on any thread and in a signal handler; add()
 * only before start().  A test calls round() instead of start().
 *
 * Ownership.  The keeper's memory must live as long as the process: a late thread may still
 * call wake().
 */
#ifndef PGP_KEEPER_H
#define PGP_KEEPER_H

#include "pgp_board.h"
#include "pgp_pool.h"

typedef struct pgp_keeper pgp_keeper;

/* Make a keeper in the memory of p.  env must live as long as the keeper.  Returns APR_SUCCESS
 * or the system's error (no descriptor left). */
apr_status_t pgp_keeper_create(pgp_keeper **keeper, apr_pool_t *p, const pgp_env *env);

/* The waker with which to make a pool that this keeper will look after. */
pgp_waker pgp_keeper_waker(pgp_keeper *keeper);

void pgp_keeper_add(pgp_keeper *keeper, pgp_pool *pool);

/* Hold a seat on the board to which the pools are attached (pgp_pool_attach_board).  Before
 * start(). */
void pgp_keeper_attach_board(pgp_keeper *keeper, pgp_board *board);

/* Start the thread with all signals blocked: httpd's threads handle them.  Returns APR_SUCCESS
 * or the system's error. */
apr_status_t pgp_keeper_start(pgp_keeper *keeper);

void pgp_keeper_wake(pgp_keeper *keeper);

/* Enter a phase, unless the keeper is in a later one. */
void pgp_keeper_enter_phase(pgp_keeper *keeper, pgp_phase phase);

/* Enter STOPPED and wait for the end of the thread, for `patience` microseconds at most.
 * Returns APR_SUCCESS; or APR_TIMEUP if the thread still runs: then its memory must stay. */
apr_status_t pgp_keeper_join(pgp_keeper *keeper, apr_interval_time_t patience);

/* One round, without the sleep.  Returns the time of the next one; 0: at once. */
apr_time_t pgp_keeper_round(pgp_keeper *keeper);

#endif
