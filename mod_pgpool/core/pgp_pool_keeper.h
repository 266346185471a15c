/*
 * The keeper's half of a pool (pgp_pool.h): what one thread a process does for it.
 *
 * Threads.  The keeper's thread only, or a test in its place.
 */
#ifndef PGP_POOL_KEEPER_H
#define PGP_POOL_KEEPER_H

#include "pgp_pool.h"

/* Retire idle connections that are due and reserve slots for new ones.  Returns the time by
 * which the keeper has to call again. */
apr_time_t pgp_pool_maintain(pgp_pool *pool);

/* Have a look at the idle connections, each second: what the server has closed is on its
 * way out afterwards, before somebody asks for it, and what it has sent has been read, so that
 * it need not wait.  slots and fds: room for PgPoolMax.  Returns when to look again. */
apr_time_t pgp_pool_watch_idle(pgp_pool *pool, pgp_slot **slots, struct pollfd *fds);

/* The slots in the keeper's hands (CONNECTING, CLEANING, CLOSING); room for
 * PgPoolMax of them.  Returns their number. */
int pgp_pool_list_pending(pgp_pool *pool, pgp_slot **slots);

/* Start to connect a slot that is CONNECTING and has no link. */
void pgp_pool_grow_begin(pgp_slot *slot);

/* Go on with one that is CONNECTING or CLEANING.  Returns 1 if it is no longer,
 * 0 if it waits for slot->await until slot->overdue. */
int pgp_pool_step(pgp_slot *slot);

/* Close one that is CLOSING.  Returns 1 if it is FREE, 0 if it waits for slot->await
 * until slot->overdue: for the server's process to end. */
int pgp_pool_close(pgp_slot *slot);

/* The child's seat on the board; connections need one.  -1: the child is about to leave its
 * seat, and the pool's counters stay with that. */
void pgp_pool_set_child(pgp_pool *pool, int seat);

/* Whether the pool has a connection, or a request wants one. */
int pgp_pool_is_used(pgp_pool *pool);

/* After each turn of the keeper's, with all of its pools: what the pools of a server settle
 * together.  Returns when to call again at the latest, PGP_NEVER, or 0: at once. */
apr_time_t pgp_pool_settle_servers(pgp_pool **pools, int n, apr_time_t now);

/* The same as pgp_pool_set_child() for their servers. */
void pgp_pool_set_servers_child(pgp_pool **pools, int n, int seat);

/* Another child has rung: permits are free, or it waits for one. */
void pgp_pool_hear_bell(pgp_pool *pool);

/* Enter a later phase. */
void pgp_pool_drain(pgp_pool *pool);
void pgp_pool_stop(pgp_pool *pool);

/* Leave a stopped pool for good: 1, or 0 if there is still something to close. */
int pgp_pool_leave(pgp_pool *pool);

#endif
