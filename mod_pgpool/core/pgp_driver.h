/*
 * The driver: all that the pool wants from a physical connection.
 *
 * Model.  A pgp_connection is one physical connection.  The pool connects it, lends it to one
 * borrower after another, and closes it.  Connecting, cleaning up and closing take time: one
 * call starts them, and step() drives them until they are done.  step() may be called at any
 * moment; it does what can be done at once and says what it waits for.  The caller enforces
 * deadlines.
 *
 *     connect()  --step()-->  ready: lent to a borrower  --finish_lease()-->
 *         clean:   ready for the next borrower
 *         dirty:   cleanup()  --step()-->  finish_lease() again
 *         others:  close()
 *     close(), in any phase  --step()-->  destroy()
 *
 * Between two leases a connection is idle: check_idle() or read_idle() looks at it, and
 * prepare() makes it ready for its borrower if check_idle() says so or a ping is due.
 *
 * Ownership.  A connection has one owner at a time (pgp_slot.h says who that is), and belongs
 * to the driver's user from connect() until destroy().
 *
 * Threads.  Only the owner's thread calls these functions on a connection, so a connection has
 * no lock.  Nothing here blocks but prepare() and set_vars(), which have a deadline.
 *
 * Errors.  A function that returns bool returns true for success.  It sets *error only if it
 * fails.  A driver asserts that it is called in the order above.
 *
 * pgp_pq_driver.h is the real driver; the unit tests have a fake one.
 */
#ifndef PGP_DRIVER_H
#define PGP_DRIVER_H

#include <poll.h>
#include <stdbool.h>
#include <apr_time.h>

#include "pgp_env.h"
#include "pgp_error.h"
#include "pgp_settings.h"
#include "pgp_vars.h"

typedef struct pgp_connection pgp_connection;

/* The pool that connections belong to.  It lives as long as the process, since a borrower's
 * result may call back after its connection has been destroyed. */
typedef struct {
    const pgp_env *env;
    const char *pool;
    const pgp_settings *settings;
} pgp_context;

typedef enum {
    PGP_STEP_AGAIN, /* it waits for the event in *await */
    PGP_STEP_DONE,  /* ready and clean; after close(): its backend is gone */
    PGP_STEP_FAILED /* *error says why; only close() and destroy() may follow */
} pgp_step;

/* The state of an idle connection. */
typedef enum {
    PGP_IDLE_DEAD,         /* closed, half closed, or no longer what it was made for */
    PGP_IDLE_QUIET,        /* nothing has come */
    PGP_IDLE_HEARD,        /* the server has sent something unasked: ping it before use */
    PGP_IDLE_RESET_PENDING /* prepare() has to collect the answer to its reset */
} pgp_idle_state;

typedef enum {
    PGP_SET_DONE,
    PGP_SET_DENIED, /* the server refuses, or cannot set it now; nothing has changed */
    PGP_SET_FAILED  /* lost or too late: the variables may be set or not, so close it */
} pgp_set_outcome;

/* The state of a connection at the end of a lease. */
typedef enum {
    PGP_RETURN_CLEAN,  /* fit for the next borrower */
    PGP_RETURN_DIRTY,  /* cleanup() can mend it */
    PGP_RETURN_BROKEN, /* the connection is lost */
    PGP_RETURN_LARGE,  /* a result has swollen its library's buffers, which never shrink */
    PGP_RETURN_UNKNOWN /* in a state that nothing can mend */
} pgp_return;

typedef struct pgp_driver {
    /* Start to connect.  first_host: the entry of the hosts to begin with (modulo their
     * number).  survey: also ask the server for its capacity.  owner: kept for callers that
     * have only the handle.  Returns NULL if the attempt has failed already. */
    pgp_connection *(*connect)(const pgp_context *context, unsigned first_host, bool survey,
                               void *owner, pgp_error *error);
    /* Go on with connecting, cleaning up or closing. */
    pgp_step (*step)(pgp_connection *connection, struct pollfd *await, pgp_error *error);
    /* Whether the connection still stands.  Reads nothing, so that it is safe in the middle of
     * a borrower's query. */
    bool (*is_alive)(pgp_connection *connection);
    /* Look at an idle connection: read what has come unasked (notices, changed parameters) and
     * drop notifications meant for earlier borrowers.  If DEAD, *error says why, in the
     * server's last words if there are any. */
    pgp_idle_state (*check_idle)(pgp_connection *connection, pgp_error *error);
    /* Read what an idle connection has received, up to a bound, the answer to its reset
     * included, and drop it.  false: the connection is unfit. */
    bool (*read_idle)(pgp_connection *connection, pgp_error *error);
    /* Shut the connection's socket down.  why: a literal, for the last words. */
    void (*shutdown)(pgp_connection *connection, const char *why);
    /* Set *error to the server's reason for the end of a lost connection, or to the reason for
     * its shutdown(), or to an empty message.  A borrower's own results stay. */
    void (*last_words)(pgp_connection *connection, pgp_error *error);
    /* Make an idle connection ready for a borrower, until `until` (the env's clock): collect
     * the answer to its reset; if `ping`, make a round trip.  false: the connection is unfit.
     */
    bool (*prepare)(pgp_connection *connection, bool ping, apr_time_t until, pgp_error *error);
    /* Whether a borrowed connection's session has these variables and no others of ours, and no
     * result tells that the borrower has undone any.  Costs nothing. */
    bool (*has_vars)(const pgp_connection *connection, const pgp_vars *vars);
    /* Other code has used the borrowed connection, and may have changed its variables without a
     * result that tells: the next set_vars() sends them again. */
    void (*doubt_vars)(pgp_connection *connection);
    /* Give a borrowed connection's session these variables and no others of ours, until
     * `until`. */
    pgp_set_outcome (*set_vars)(pgp_connection *connection, const pgp_vars *vars,
                                apr_time_t until, pgp_error *error);
    /* End a lease: restore what a borrower may have changed in the client's library, send the
     * reset if one is due, and say in what state the connection is.  Waits for nothing.  To be
     * called again when the clean-up of a DIRTY connection is done. */
    pgp_return (*finish_lease)(pgp_connection *connection);
    /* Start to clean up a DIRTY connection: end whatever still runs, roll back.  Returns
     * whether something still runs, which step() cancels unless it ends first. */
    bool (*cleanup)(pgp_connection *connection);
    /* Start to close, in any phase: tell the server, and wait for nothing.  The handle is gone
     * afterwards; step() is DONE when the server's process has ended, and never FAILED. */
    void (*close)(pgp_connection *connection);
    /* Free the connection at once; closes it first if close() has not. */
    void (*destroy)(pgp_connection *connection);
    /* How many connections the server takes from users like ours; 0: not known. */
    int (*capacity)(const pgp_connection *connection);
    /* The version of TLS ("TLSv1.3") that encrypts the connection, or NULL. */
    const char *(*tls)(const pgp_connection *connection);
    /* The number that the server gives its process: PostgreSQL's pid.  A proxy gives a number
     * of its own, PgBouncer any of 32 bits. */
    unsigned (*backend)(const pgp_connection *connection);
    /* The descriptor of a ready connection; it stays the same until close(). */
    int (*socket)(const pgp_connection *connection);
    /* The handle that the borrower works with: a PGconn. */
    void *(*handle)(const pgp_connection *connection);
} pgp_driver;

#endif
