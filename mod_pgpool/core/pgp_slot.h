/*
 * A slot of a pool, and the states that it goes through.
 *
 * A pool makes PgPoolMax slots (pgp_slot) when it is made and none later: that
 * is how it never has more connections.  A slot holds at most one physical
 * connection (its link), and is in exactly one state; each state is one list of
 * the pool.  Only pgp_slot_move() changes a state, and it asserts the edge:
 *
 *     state       who owns the link       goes to
 *     FREE        nobody, there is none   CONNECTING
 *     CONNECTING  the keeper              IDLE, LENT, CLOSING
 *     IDLE        the pool; untouched (+) LENT, CLEANING, CLOSING
 *     LENT        the borrower            IDLE, LENT, CLEANING, CLOSING
 *     CLEANING    the keeper              IDLE, LENT, CLOSING
 *     CLOSING     the keeper (*)          FREE
 *
 *     (*) or, when the keeper has ended, whoever moved it there.
 *     (+) but that the keeper polls its socket.
 *
 * IDLE to CLEANING is the keeper's, for the moment in which it reads what an idle connection
 * has received.  LENT to LENT is the hand-off to a waiter.  A connection that is checked before
 * it is given out is LENT already: its borrower checks it.
 *
 * Ownership.  The fields are in three groups.  "Guarded": only under the pool's
 * lock.  "Owner": only by the link's owner, without the lock; taking a slot from
 * a list under the lock is what passes it on.
 */
#ifndef PGP_SLOT_H
#define PGP_SLOT_H

#include <apr_ring.h>

#include "pgp_driver.h"
#include "pgp_types.h"

struct pgp_slot {
    /* immutable */
    pgp_pool *pool;

    /* guarded */
    APR_RING_ENTRY(pgp_slot) entry;
    pgp_state state;
    pgp_reason reason;     /* in CLOSING: why */
    pgp_borrower holder;   /* in LENT */
    int warned;            /* in LENT: PgPoolHoldWarning was given */
    apr_time_t idle_since; /* in IDLE, and for a borrower who tests it */
    int is_tls;            /* encrypted; written in CONNECTING, before any other state */

    /* the keeper's thread only */
    int socket; /* of the link */

    /* owner */
    pgp_connection *link; /* NULL in FREE, and in CONNECTING before the start */
    apr_time_t born;      /* when it was connected; in CONNECTING: when that began */
    unsigned first_host;  /* with which entry of the hosts it began */
    apr_time_t expires;   /* PgPoolMaxLifetime less its jitter, or PGP_NEVER */
    apr_time_t overdue;   /* in the keeper's hands: the deadline; 0: closing has not begun */
    struct pollfd await;  /* what the keeper waits for */
    apr_uint64_t lease;   /* in LENT: the lease's number, in this pool */
    int greeted;          /* has been given out before */
    void *borrower;       /* in LENT: the borrower's own, NULL at the start */
};

/* One list a state; the count is kept by the mover alone. */
typedef struct {
    APR_RING_HEAD(pgp_slot_ring, pgp_slot) ring;
    int count;
} pgp_slot_list;

/* Move a slot to another state's list, to its front (newest first).  lists: one for each
 * state.  Guarded by the pool's lock. */
void pgp_slot_move(pgp_slot_list *lists, pgp_slot *conn, pgp_state to);

#endif
