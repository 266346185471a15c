/*
 * Permits: how the children of one httpd share a number of connections.
 *
 * Model.  A quota is how many connections all children together may have: of one pool
 * (PgPoolTotalMax), or to one server (PgPoolServerMax).  A connection needs a permit of
 * each quota that it falls under, from before it is made until the server's process has
 * ended.  A child's permits stand in its own standing, which only its keeper writes.
 *
 *   take     A child adds a permit to its standing and then counts those of all children.
 *            If they are too many, it gives the permit back.  Of two children that do so at
 *            once the later one counts both, so the quota is never exceeded.
 *   order    A child whose requests wait for a permit publishes since when its oldest one
 *            waits, and looks for a permit after that.  Free permits belong to the children
 *            that have waited longest: a child takes one only if more permits are free than
 *            children have waited longer.  So nobody takes a permit that was given up for
 *            another, and a child that gave one up takes none back before its own turn.
 *   turn     While more children wait than permits are free or coming (their connections
 *            are being closed), a connection in use is passed on from time to time: a child
 *            that gets it back closes it.  Since that costs a connect, a request of another
 *            child counts as younger by a turn: the connection is passed on if that request
 *            has waited for a turn longer than the oldest one here.  A turn is a step for
 *            each child that waits, and there is one turn a step; connections may come back in
 *            bunches, so those that were missed for up to 200 ms are made up for.  A step is
 *            10 ms, or the time of three connects if that is shorter; a turn is no longer
 *            than a quarter of PgPoolAcquireTimeout, but a step no shorter than 2 ms.  No turn
 *            comes while two permits and a quarter of all are on the way (their connections
 *            are closing or being made), which keeps a busy machine from doing nothing but
 *            connect.  One word of the quota says which requests have to let the next turn
 *            pass (those that came later than that).  A request thread reads this word alone,
 *            and the one that swaps it passes its connection on.
 *   idle     A connection that is idle for longer than a connect takes is given up as soon as
 *            a child waits; a shorter time is a busy child's pause between two requests.  The
 *            first child that waits in vain looks for the longest idle connection and rings
 *            its child.
 *   reserve  While some children have no permit, the last free one is kept for a request of
 *            theirs, and for one that has waited for a turn.  When it is taken, the longest
 *            idle connection is closed, so that the next such request finds one again.
 *   bell     A child that gave a permit back, or whose wait has ended, rings the children to
 *            which the free permits belong (pgp_bells.h).
 *
 * No lock over processes.  Each step is an atomic operation on one word.  The quota rests on
 * "add, then count" alone.  Order, turns and bells may be based on a look that is out of date
 * by a moment; then a child waits a little longer, for each child that waits looks again
 * every 50 ms.  A child that dies while it waits or gives leaves nothing to be repaired; a
 * lock would, and a child that is stopped while it holds one would stop all of them.
 *
 * t/model/permits.pml has all interleavings of three children, with a death, a time-out or a
 * failed connect anywhere.
 *
 * Trust.  Whatever is read is brought into its range (pgp_board.h).  A wait that is older than
 * a request may wait is that of a child that does not look any more, and does not count.
 *
 * Threads.  turn(), pass() and wait() (under the lock of the pool): any thread.  The rest: the
 * keeper's.
 */
#ifndef PGP_PERMITS_H
#define PGP_PERMITS_H

#include "pgp_board.h"

/* One child's part in a quota.  cap 0: there is none, and nothing here does anything. */
typedef struct {
    pgp_board *board;
    int seat; /* the child's; -1: it has none yet */
    int row;  /* pgp_board_place(), or pgp_board_server() */
    int cap;
} pgp_quota;

/* How a child stands among the others. */
typedef struct {
    int cap;
    int used;       /* permits of all children */
    int free;       /* permits that nobody has */
    int coming;     /* permits that will be free in a moment: their connections are closing */
    int connecting; /* permits whose connections are being made */
    int holders;    /* children that have any */
    int without;    /* other children that have none and wait for none */
    int waiting;    /* children that wait for one, this one included */
    int ahead;      /* of them, those that have waited longer than this one */

    apr_time_t first_since; /* of the first one for which none is free or coming; 0: none */
    apr_time_t idle_since;  /* of the longest idle connection of another child; 0: none */
    int idlest;             /* its seat */
    apr_time_t turn;        /* as turn() was before */
} pgp_outlook;

/* Look at all children.  patience: longer no request waits. */
void pgp_permits_look(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience,
                      pgp_outlook *look);

/* 1: there is one more permit in the child's standing; 0: there are enough already.  The
 * order is the caller's affair (pgp_policy_may_take).  After a 0 the caller has to ring. */
int pgp_permits_take(const pgp_quota *quota, apr_time_t now);
void pgp_permits_give(const pgp_quota *quota);

/* Since when the child's oldest request waits for a permit, or its oldest idle connection is
 * idle; 0: none does. */
void pgp_permits_wait(const pgp_quota *quota, apr_time_t since);
void pgp_permits_idle(const pgp_quota *quota, apr_time_t since);

/* How many of the child's connections are being closed, and how many made. */
void pgp_permits_moving(const pgp_quota *quota, int closing, int connecting);

/* Ring the children to which the free permits belong; or one. */
void pgp_permits_ring(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience);
void pgp_permits_ring_one(const pgp_quota *quota, int seat);

/* A request that came at this time or later has to let another child's turn pass; so does a
 * connection for which no request waits, from then on.  INT64_MAX: there is no turn. */
apr_time_t pgp_permits_turn(const pgp_quota *quota);

/* Of all that have seen this turn one gets 1: it has to pass a connection on. */
int pgp_permits_pass(const pgp_quota *quota, apr_time_t turn, apr_time_t now);

/* For when the last turn was due; 0: there was none. */
apr_time_t pgp_permits_passed(const pgp_quota *quota, apr_time_t now);

/* The server took no more than n connections at that time; and what was said of it less than
 * `age` ago, 0: nothing. */
void pgp_permits_set_full(const pgp_quota *quota, int n, apr_time_t now);
int pgp_permits_full(const pgp_quota *quota, apr_time_t now, apr_interval_time_t age);

/* Say when the next turn comes, unless somebody has passed a connection on since the look. */
void pgp_permits_settle(const pgp_quota *quota, const pgp_outlook *look, apr_time_t turn);

#endif
