/*
 * The keeper: the one thread of a process that does all that is slow.
 *
 * Model.  A keeper looks after several pools.  It takes turns: each turn it tends
 * each pool (pgp_pool_maintain: time), works on each slot that is in its hands
 * (pgp_pool_step: connect, clean; pgp_pool_close), and then sleeps in one poll()
 * until a socket is ready, a deadline comes, or somebody wakes it.  Nothing in a
 * turn blocks, so no server, however slow, delays another.
 *
 * Life.  create, add pools, start; later order() DRAIN or STOP; join().  STOP
 * ends all waits, closes all that is not lent and ends the thread; what is lent
 * then is closed by its borrower.
 *
 * Threads.  wake() and order() may be called on any thread and in a signal
 * handler; add() only before start(); turn() by a test without start().
 *
 * Ownership.  The keeper's memory must live as long as the process: late threads
 * still call wake().
 */
#ifndef PGP_KEEPER_H
#define PGP_KEEPER_H

#include "pgp_board.h"
#include "pgp_pool.h"

typedef struct pgp_keeper pgp_keeper;

typedef enum {
    PGP_ORDER_RUN,
    PGP_ORDER_DRAIN, /* serve on, but keep nothing idle */
    PGP_ORDER_STOP   /* close all, answer PGP_STOPPING, end */
} pgp_order;

/* Returns APR_SUCCESS or the system's error (no descriptor left). */
apr_status_t pgp_keeper_create(pgp_keeper **keeper, apr_pool_t *p, const pgp_env *env);

/* What a pool that this keeper shall look after is to be made with. */
pgp_waker pgp_keeper_waker(pgp_keeper *keeper);

void pgp_keeper_add(pgp_keeper *keeper, pgp_pool *pool);

/* Take part in a board, on which the pools were posted (pgp_pool_attach_board). */
void pgp_keeper_attach_board(pgp_keeper *keeper, pgp_board *board);

/* Start the thread, with all signals blocked: a process's handlers belong to its
 * own threads.  Returns APR_SUCCESS or the system's error. */
apr_status_t pgp_keeper_start(pgp_keeper *keeper);

void pgp_keeper_wake(pgp_keeper *keeper);

/* Orders only go forward; a lesser one than before is ignored. */
void pgp_keeper_order(pgp_keeper *keeper, pgp_order order);

/* Order STOP and wait for the thread's end, but not longer than patience
 * (microseconds).  Returns APR_SUCCESS, or APR_TIMEUP: it still runs and must be
 * left alone. */
apr_status_t pgp_keeper_join(pgp_keeper *keeper, apr_interval_time_t patience);

/* One turn without the sleep.  Returns when the next is due; 0: at once. */
apr_time_t pgp_keeper_turn(pgp_keeper *keeper);

#endif
