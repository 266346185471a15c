/*
 * A slot of a pool, and the states that it goes through.
 *
 * A pool makes PgPoolMax slots (pgp_conn) when it is made and none later: that
 * is how it never has more connections.  A slot holds at most one physical
 * connection (its link), and is in exactly one state; each state is one list of
 * the pool.  Only pgp_conn_move() changes a state, and it asserts the edge:
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
 * has received.  LENT to LENT is the hand-off to a waiter.  A link that is being tested before
 * it is given out is LENT already: the borrower does the testing.
 *
 * Ownership.  The fields are in three groups.  "Guarded": only under the pool's
 * lock.  "Owner": only by the link's owner, without the lock; taking a slot from
 * a list under the lock is what passes it on.
 */
#ifndef PGP_CONN_H
#define PGP_CONN_H

#include <stdatomic.h>
#include <apr_ring.h>

#include "pgp_driver.h"

typedef enum {
    PGP_FREE,
    PGP_CONNECTING,
    PGP_IDLE,
    PGP_LENT,
    PGP_CLEANING,
    PGP_CLOSING,
    PGP_STATES
} pgp_state;

/* Why a connection was closed: the log's word and the metric's label. */
typedef enum {
    PGP_REASON_NONE,
    PGP_REASON_CONNECT,  /* connecting failed or took too long */
    PGP_REASON_IDLE,     /* idle longer than PgPoolIdleTimeout, above PgPoolMin */
    PGP_REASON_LIFETIME, /* older than PgPoolMaxLifetime */
    PGP_REASON_LOST,     /* the server or the network ended it */
    PGP_REASON_PING,     /* no good answer to a ping */
    PGP_REASON_UNCLEAN,  /* cleaning up failed or took too long */
    PGP_REASON_UNKNOWN,  /* came back in a state that cannot be mended */
    PGP_REASON_RESET,    /* PgPoolReset close: came back */
    PGP_REASON_LARGE,    /* a large result has swollen libpq's buffers */
    PGP_REASON_HOOK,     /* a hook refused it */
    PGP_REASON_SHARED,   /* given up to another child (PgPoolTotalMax) */
    PGP_REASON_STOP,     /* the child or its generation ends */
    PGP_REASONS
} pgp_reason;

/* Who has a lent connection, and since when. */
typedef struct {
    apr_time_t since; /* the env's clock; 0: nobody */
    unsigned backend;
    char client[46], what[100]; /* "" where it is not a request */
} pgp_holder;

typedef struct pgp_conn pgp_conn;
typedef struct pgp_pool pgp_pool;

struct pgp_conn {
    /* immutable */
    pgp_pool *pool;

    /* guarded */
    APR_RING_ENTRY(pgp_conn) entry;
    pgp_state state;
    pgp_reason reason;     /* in CLOSING: why */
    pgp_holder holder;     /* in LENT */
    int warned;            /* in LENT: PgPoolHoldWarning was given */
    apr_time_t idle_since; /* in IDLE, and for a borrower who tests it */
    int is_tls;            /* encrypted; written in CONNECTING, before any other state */

    /* atomic */
    _Atomic int testing; /* in LENT: its borrower has not got it yet */

    /* the keeper's thread only */
    int socket; /* of the link */

    /* owner */
    pgp_link *link;      /* NULL in FREE, and in CONNECTING before the start */
    apr_time_t born;     /* when it was connected; in CONNECTING: when that began */
    unsigned first_host; /* with which entry of the hosts it began */
    apr_time_t expires;  /* PgPoolMaxLifetime less its jitter, or PGP_NEVER */
    apr_time_t overdue;  /* in the keeper's hands: the deadline */
    struct pollfd await; /* what the keeper waits for */
    int linger;          /* in CLOSING: the socket until the server ends it, or -1 */
    int closing;         /* in CLOSING: the link is closed */
    apr_uint64_t lease;  /* in LENT: the lease's number, in this pool */
    int greeted;         /* has been given out before */
    void *borrower;      /* in LENT: the borrower's own, NULL at the start */
};

/* One list a state; the count is kept by the mover alone. */
typedef struct {
    APR_RING_HEAD(pgp_conn_ring, pgp_conn) ring;
    int count;
} pgp_conn_list;

/* Move a slot to another state's list, to its front (newest first).  lists: one for each
 * state.  Guarded by the pool's lock. */
void pgp_conn_move(pgp_conn_list *lists, pgp_conn *conn, pgp_state to);

/* The words for a state and for a reason. */
const char *pgp_state_name(pgp_state state);
const char *pgp_reason_name(pgp_reason reason);

#endif
