/*
 * One statement on a borrowed connection, run without blocking: prepared once a session, its
 * rows as they come.
 *
 * Model.  The caller begins a run and drives it with step() until it is DONE; between two steps
 * it waits for the event that step() names, with whatever else it has to watch.  A run has
 * these phases, each one message and its answer:
 *
 *     MAKING_ROOM   drops an outdated statement, or the one not used for longest: the session
 *                   has PgPoolStatements prepared statements already
 *     PREPARING     prepares a statement that is new to the session
 *     EXECUTING     executes it
 *
 * A run begins at the first phase that it needs, usually EXECUTING.  It prepares nothing if
 * PgPoolStatements is 0; nor if it would have to make room inside of a transaction, since the
 * message for that may fail, and would fail the transaction.
 *
 * Made again.  A session may have lost a statement (a DISCARD ALL that no result told of, a
 * proxy with another session behind it), or the shape of its result may have changed.  The
 * server then refuses to execute it before it has done anything.  Outside of a transaction the
 * run prepares it again and executes it, once; inside, the transaction has failed, and its
 * owner has to repeat it.  Nothing else is ever executed twice.
 *
 * Effects.  To prepare or to drop a statement is not an effect of the lease: PgPoolReset auto
 * need not undo it.
 *
 * Ownership and threads.  The run belongs to the connection's borrower, on one thread.  Its
 * query lives as long as the run.  From begin() to the end the PGconn is in nonblocking mode;
 * the end puts it back.  A borrower that gives up in the middle leaves it so: the connection
 * must then go back or be shut down, and nobody may use the PGconn any more.
 */
#ifndef PGP_PQ_RUN_H
#define PGP_PQ_RUN_H

#include <poll.h>
#include <stdbool.h>

#include "pgp_pq_statements.h"

typedef struct {
    pgp_pq_statement_key key;
    const char *const *values; /* key.nparams; NULL entries are nulls */
    const int *lengths;        /* of binary values; or NULL */
    const int *formats;        /* or NULL: all are text */
    int result_format;         /* 0 text, 1 binary */
    bool by_rows;              /* hand out the rows as they come */
} pgp_pq_query;

typedef enum {
    PGP_RUN_WAIT, /* for the event in *await */
    PGP_RUN_ROWS, /* *result has some rows; more may come */
    PGP_RUN_COPY, /* the statement is a COPY: give up */
    PGP_RUN_DONE  /* *result is the last one; NULL: the connection is lost */
} pgp_pq_run_state;

typedef struct {
    /* for the caller */
    bool was_prepared; /* the session had the statement already */

    /* the run's own */
    struct pgp_connection *connection;
    const pgp_pq_query *query;
    enum { PGP_RUN_MAKING_ROOM, PGP_RUN_PREPARING, PGP_RUN_EXECUTING } phase;
    bool was_nonblocking;
    bool has_waited;  /* step() has named an event */
    bool is_prepared; /* what executes is a prepared statement */
    bool may_repeat;  /* it may be made again and executed once more */
    PGresult *last;   /* of the phase: its first error, or its last result */
} pgp_pq_run;

/* Begin a run on a PGconn of the driver's.  false: its borrower has a query under way, or it is
 * in pipeline mode. */
bool pgp_pq_run_begin(pgp_pq_run *run, PGconn *conn, const pgp_pq_query *query);

/* Go on as far as the answer has come.  *result is the caller's to clear. */
pgp_pq_run_state pgp_pq_run_step(pgp_pq_run *run, PGresult **result, struct pollfd *await);

/* Abandon a run in the middle; the borrower's return then cancels the statement.  shutdown() is
 * for a PGconn that others still have: it asks the server to cancel the statement, without
 * waiting, and shuts the socket down.  why: a literal, for the connection's last words. */
void pgp_pq_run_abandon(pgp_pq_run *run);
void pgp_pq_run_shutdown(pgp_pq_run *run, const char *why);

/* Free what the run itself holds.  For a caller that has lost its connection meanwhile: another
 * borrower may have it. */
void pgp_pq_run_forget(pgp_pq_run *run);

#endif
