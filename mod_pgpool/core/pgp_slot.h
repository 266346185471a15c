/*
 * A slot of a pool, and the states that it goes through.
 *
 * Model.  A pool makes PgPoolMax slots when it is made, and none later, so it can never have
 * more connections than that.  A slot (pgp_slot) holds at most one connection
 * (pgp_connection) and is in exactly one state; the pool has one list of slots for each state.
 * Only pgp_slot_move() changes a state, and it asserts that the table allows the change:
 *
 *     state       owner of the connection   goes to
 *     FREE        none: no connection       CONNECTING
 *     CONNECTING  the keeper                IDLE, IN_USE, CLOSING
 *     IDLE        the pool (1)              IN_USE, CLEANING, CLOSING
 *     IN_USE      the borrower (2)          IDLE, IN_USE (3), CLEANING, CLOSING
 *     CLEANING    the keeper                IDLE, IN_USE, CLOSING
 *     CLOSING     the keeper (4)            FREE
 *
 *     (1) Nobody touches an idle connection.  The keeper only polls its socket.  To read
 *         what has arrived, the keeper moves the slot to CLEANING for a moment.
 *     (2) A borrower checks a connection before use.  The slot is IN_USE during the check.
 *     (3) The connection is handed to a waiter.
 *     (4) After the keeper has ended: the thread that moved the slot to CLOSING.
 *
 * Ownership.  A "guarded" field may be used only under the pool's lock.  An "owner" field
 * belongs to the owner of the connection, who needs no lock.  A thread becomes the owner when
 * it takes the slot from a list, under the lock.
 */
#ifndef PGP_SLOT_H
#define PGP_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <apr_ring.h>

#include "pgp_driver.h"
#include "pgp_types.h"

struct pgp_slot {
    /* immutable */
    pgp_pool *pool;

    /* guarded */
    APR_RING_ENTRY(pgp_slot) entry;
    pgp_state state;
    pgp_reason reason;     /* in CLOSING: why it is closed */
    pgp_borrower borrower; /* in IN_USE; its backend as long as there is a connection */
    bool warned;           /* in IN_USE: PgPoolHoldWarning was logged */
    apr_time_t idle_since; /* in IDLE, and while it is checked or read from */
    bool is_tls;           /* the connection is encrypted; written only in CONNECTING */

    /* guarded; in IN_USE: the acquire that took the connection */
    apr_interval_time_t waited; /* in the queue */
    bool was_awaited;           /* the request had to wait */
    bool lacked_permit;         /* the request had to wait for a permit */

    /* atomic */
    atomic_bool is_uncounted; /* in IN_USE: the acquire has succeeded, and is not counted yet */

    /* the keeper's thread only */
    int socket; /* of the connection */

    /* owner */
    pgp_connection *connection; /* NULL in FREE, and in CONNECTING before the attempt starts */
    apr_time_t born;       /* when it was connected; in CONNECTING: when the attempt began */
    unsigned first_host;   /* the entry of the hosts that the attempt began with */
    apr_time_t expires;    /* when PgPoolMaxLifetime, less its jitter, ends; or PGP_NEVER */
    apr_time_t deadline;   /* of the keeper's work on it; 0: closing has not begun */
    struct pollfd await;   /* in the keeper's hands: the event that it waits for */
    apr_uint64_t lease;    /* in IN_USE: the lease's number, in this pool */
    bool has_run_hooks;    /* the hooks for a new connection have run */
    pgp_cancel cancel;     /* in IN_USE: why its statement was given up, or NONE */
    unsigned hits, misses; /* in IN_USE: statements that were prepared already, and others */
    void *baton;           /* in IN_USE: for the borrower's own use; NULL at first */
};

/* The slots in one state.  Only pgp_slot_move() changes the count. */
typedef struct {
    APR_RING_HEAD(pgp_slot_ring, pgp_slot) ring;
    int count;
} pgp_slot_list;

/* Move a slot to the front of another state's list, so that each list has the newest first.
 * lists: one for each state.  The caller holds the pool's lock. */
void pgp_slot_move(pgp_slot_list *lists, pgp_slot *slot, pgp_state to);

#endif
