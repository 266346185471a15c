/*
 * The keeper's half of a pool (pgp_pool.h): the functions that the keeper calls in its rounds.
 *
 * Threads.  The keeper's thread only; in unit tests the test's thread instead.
 */
#ifndef PGP_POOL_KEEPER_H
#define PGP_POOL_KEEPER_H

#include "pgp_pool.h"

/* Retire idle connections that are due, and reserve slots for new ones.  Returns the time by
 * which the keeper has to call this again. */
apr_time_t pgp_pool_maintain(pgp_pool *pool);

/* Look at the idle connections, once a second.  Retire those that the server has closed, before
 * a request gets them.  Read and drop the data that the server has sent, so that it need not
 * wait for room.
 * slots, fds: room for PgPoolMax entries.  Returns the time of the next look. */
apr_time_t pgp_pool_watch_idle(pgp_pool *pool, pgp_slot **slots, struct pollfd *fds);

/* List the slots in the keeper's hands (CONNECTING, CLEANING, CLOSING).  slots: room for
 * PgPoolMax entries.  Returns their number. */
int pgp_pool_list_pending(pgp_pool *pool, pgp_slot **slots);

/* Start an attempt to connect, for a slot that is CONNECTING and has no connection yet. */
void pgp_pool_grow_begin(pgp_slot *slot);

/* Go on with a slot that is CONNECTING or CLEANING.  Returns true if the slot has left that
 * state; false if it waits for slot->await, until slot->deadline at most. */
bool pgp_slot_step(pgp_slot *slot);

/* Go on with a slot that is CLOSING.  Returns true if the slot is FREE now; false if it waits
 * until the backend has ended (slot->await), or until slot->deadline. */
bool pgp_slot_close(pgp_slot *slot);

/* Tell the pool the child's seat on the board.  Without a seat the pool makes no connection.
 * -1: the child is about to leave its seat, and the pool leaves its counters there. */
void pgp_pool_set_seat(pgp_pool *pool, int seat);

/* Whether the pool has a connection, or a request wants one. */
bool pgp_pool_is_used(pgp_pool *pool);

/* Share the permits of each server among the child's pools.  The keeper calls this at the end
 * of each round, with all of its pools.  Returns the time by which to call again; PGP_NEVER:
 * there is none; 0: at once. */
apr_time_t pgp_pool_settle_servers(pgp_pool **pools, int n, apr_time_t now);

/* Tell the servers of these pools the child's seat (see pgp_pool_set_seat()). */
void pgp_pool_set_servers_seat(pgp_pool **pools, int n, int seat);

/* Tell the pool that another child has rung: a permit is free, or the child waits for one. */
void pgp_pool_hear_bell(pgp_pool *pool);

/* Enter a phase, unless the pool is in a later one. */
void pgp_pool_enter_phase(pgp_pool *pool, pgp_phase phase);

/* Leave a stopped pool for good.  Returns false if a connection is still to be closed. */
bool pgp_pool_leave(pgp_pool *pool);

#endif
