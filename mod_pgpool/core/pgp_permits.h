/*
 * Permits: how the children of one httpd share a number of connections.
 *
 * Model.  A quota limits the connections of all children together: to PgPoolTotalMax for one
 * pool, or to PgPoolServerMax for all pools of one server.  A connection needs a permit of each
 * quota that applies to it, from before it is made until its backend has ended, or for one
 * second after the close.  Each child counts its permits in its own standing on the board,
 * which no other child writes.
 *
 *   take     A child adds a permit to its standing, and then counts the permits of all
 *            children.  If they are more than the quota, the child gives the permit
 *            back.  If two children do so at the same time, the later one counts both
 *            permits; so the children never exceed the quota.
 *   order    A child whose requests wait for a permit publishes since when the oldest of
 *            them has waited, and only then looks for a permit.  Free permits belong to
 *            the children that have waited longest: a child takes one only if more
 *            permits are free than children have waited longer.  So no child takes a
 *            permit that was given up for another child, and a child that gave a permit
 *            up takes none back before its own turn.
 *   idle     As soon as a child waits, a connection that has been idle for longer than a
 *            connect takes is closed, and so gives its permit up.  (A connection that is
 *            idle for a shorter time belongs to a busy child between two requests.)  A
 *            child that waits in vain looks for the child with the longest idle
 *            connection, and rings it.
 *   turn     While more children wait than permits are free or coming (a permit is
 *            coming while its connection is being closed), connections in use give way
 *            in turns: a child that gets its connection back at a turn closes it, and so
 *            passes the permit on.  That costs a connect.  Therefore a child keeps its
 *            connection for a request of its own, unless a request of another child has
 *            waited longer by one turn.
 *   pace     A turn lasts one step for each child that waits, but no longer than a quarter
 *            of PgPoolAcquireTimeout.  A step lasts 10 ms; less if three connects take
 *            less, or if many children wait; at least 2 ms.  One connection is passed on
 *            at each step.  Steps at which no connection came back are made up for if they
 *            are not older than 200 ms, because connections may come back in bunches.  No
 *            connection is passed on while two permits and a quarter of all are on the way
 *            (their connections are being closed or made): otherwise a busy machine would
 *            only connect.
 *   word     One word on the board holds the time of the next turn: requests that came at
 *            that time or later give way.  A request thread reads only this word, and the
 *            thread that swaps it passes its connection on.
 *   reserve  While some children have no permit, the last free one is kept for their
 *            requests, and for a request that has waited for a turn.  When it is taken,
 *            the longest idle connection is closed, so that the next such request finds
 *            a free permit again.
 *   bell     A child that has given a permit back, or whose wait has ended, rings the
 *            children to which the free permits belong (pgp_bells.h).
 *
 * No lock between processes.  Each step is an atomic operation on one word.  Only "add, then
 * count" keeps the quota.  Order, turns and bells may use a look that is a moment out of date;
 * then a child waits a little longer, since each child that waits looks again every 50 ms or
 * more often.  If a child dies while it waits or gives, nothing has to be repaired.  A lock
 * would have to be repaired, and a child that is stopped while it holds a lock would stop all
 * others.
 *
 * t/model/permits.pml checks all interleavings of three children, with a death, a time-out or a
 * failed connect at any point.
 *
 * Trust.  Each figure that is read is brought into its range (pgp_board.h).  A wait does not
 * count if it is older than a request may wait: the child that published it has been stopped.
 *
 * Threads.  turn() and pass(): any thread.  set_wait() and set_idle(): any thread, under
 * the pool's lock.  The rest: the keeper's thread.
 */
#ifndef PGP_PERMITS_H
#define PGP_PERMITS_H

#include "pgp_board.h"

/* One child's access to a quota. */
typedef struct {
    pgp_board *board;
    int seat; /* of the child; -1: it has none yet */
    int row;  /* pgp_board_pool_row() or pgp_board_server_row() */
    int cap;  /* how many permits there are; 0: no limit */
} pgp_quota;

/* The situation of a child among the others. */
typedef struct {
    int cap;
    int used;       /* permits of all children */
    int free;       /* permits that nobody has */
    int coming;     /* permits whose connections are being closed */
    int connecting; /* permits whose connections are being made */
    int holders;    /* children that have a permit */
    int without;    /* other children that have none and wait for none */
    int waiting;    /* children that wait for one, this one included */
    int ahead;      /* of these, the ones that have waited longer than this child */

    apr_time_t first_since; /* since when the first child has waited for which no permit is
                             * free or coming; 0: there is none */
    apr_time_t idle_since;  /* of the longest idle connection of another child; 0: none */
    int idlest;             /* the seat of that child; -1: none */
    apr_time_t turn;        /* pgp_permits_turn() before the look */
} pgp_outlook;

/* Look at all children.  patience: the longest time that a request waits, in microseconds. */
void pgp_permits_look(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience,
                      pgp_outlook *look);

/* Take a permit, or give one back.  The caller has asked pgp_policy_may_take() whether it is
 * its turn.  take() returns false if the quota is used up: then the caller has to ring, because
 * its attempt may have turned another child away. */
bool pgp_permits_take(const pgp_quota *quota, apr_time_t now);
void pgp_permits_give(const pgp_quota *quota);

/* Publish since when the child's oldest request has waited for a permit, or since when its
 * longest idle connection has been idle; 0: there is none. */
void pgp_permits_set_wait(const pgp_quota *quota, apr_time_t since);
void pgp_permits_set_idle(const pgp_quota *quota, apr_time_t since);

/* Publish how many of the child's connections are being closed, and how many made.  The numbers
 * count for two seconds: a connection takes no longer to close, unless its child is stopped. */
void pgp_permits_set_moving(const pgp_quota *quota, int closing, int connecting,
                            apr_time_t now);

/* Ring the children to which the free permits belong. */
void pgp_permits_ring(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience);

/* The next turn.  A connection gives way to another child if the request that would get it came
 * at this time or later; or, if no request waits for it, from this time on.  INT64_MAX: none
 * has to give way. */
apr_time_t pgp_permits_turn(const pgp_quota *quota);

/* Returns true to exactly one of the threads that have read this turn: it has to pass its
 * connection on. */
bool pgp_permits_pass(const pgp_quota *quota, apr_time_t turn, apr_time_t now);

/* The time at which the last turn was due; 0: there was none. */
apr_time_t pgp_permits_last_turn(const pgp_quota *quota, apr_time_t now);

/* Publish that the server took no more than n connections at this time; read what was published
 * less than `age` microseconds ago, 0: nothing. */
void pgp_permits_set_full(const pgp_quota *quota, int n, apr_time_t now);
int pgp_permits_full(const pgp_quota *quota, apr_time_t now, apr_interval_time_t age);

/* Publish the time of the next turn, unless a connection has been passed on since the look. */
void pgp_permits_set_turn(const pgp_quota *quota, const pgp_outlook *look, apr_time_t turn);

#endif
