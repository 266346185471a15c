/*
 * States, reasons for a close, causes of a cancel, phases and borrowers: the types that the
 * pool shares with the keeper, the board and the printers of the status page.  pgp_slot.h has
 * the rest of a slot, for the pool's own files.
 */
#ifndef PGP_TYPES_H
#define PGP_TYPES_H

#include <apr_time.h>

typedef struct pgp_slot pgp_slot;
typedef struct pgp_pool pgp_pool;

/* The states of a slot.  pgp_slot.h has the changes that are allowed. */
typedef enum {
    PGP_FREE,
    PGP_CONNECTING,
    PGP_IDLE,
    PGP_IN_USE,
    PGP_CLEANING,
    PGP_CLOSING,
    PGP_STATES
} pgp_state;

/* The reason why a connection was closed.  Its word appears in the log and as a label of
 * the metric. */
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
    PGP_REASON_LARGE,    /* a large message has swollen libpq's buffers */
    PGP_REASON_HOOK,     /* a hook refused it */
    PGP_REASON_SHARED,   /* it gave way to another child or pool at a cap */
    PGP_REASON_ORDER,    /* an operator has suspended the pool, or lets it reconnect */
    PGP_REASON_STOP,     /* the child or its generation ends */
    PGP_REASON_KILLED,   /* its child was killed, or ended before the borrower returned it */
    PGP_REASONS
} pgp_reason;

/* The cause of a cancelled statement.  Its word is a label of the metric. */
typedef enum {
    PGP_CANCEL_NONE,
    PGP_CANCEL_RETURN,   /* its borrower gave the connection back */
    PGP_CANCEL_DEADLINE, /* PgPoolStatementTimeout had passed */
    PGP_CANCEL_HANG_UP,  /* its client had gone */
    PGP_CANCELS
} pgp_cancel;

/* The phases of a keeper and of its pools.  They only go forward. */
typedef enum {
    PGP_RUNNING,
    PGP_DRAINING, /* serve the requests that the child has, and keep nothing idle */
    PGP_STOPPED   /* close all, and answer every acquire with PGP_STOPPING */
} pgp_phase;

/* The borrower of a connection in use. */
typedef struct {
    apr_time_t since; /* on the env's clock; 0: there is no borrower */
    unsigned backend;
    char client[46], what[100]; /* "" if the borrower is not a request */
} pgp_borrower;

/* The words for a state, a reason and a cause. */
const char *pgp_state_name(pgp_state state);
const char *pgp_reason_name(pgp_reason reason);
const char *pgp_cancel_name(pgp_cancel cause);

#endif
