/*
 * The driver: all that the pool wants from a physical connection.
 *
 * Model.  A pgp_link is one physical connection.  It has one owner at a time,
 * who alone calls these functions on it (pgp_conn.h says who that is), so a
 * link needs no lock.  Nothing here blocks, but greet() and set(), which have a deadline.
 *
 * Slow work (connecting, cleaning, closing) is started, then driven by step() until it
 * is done.  step() may be called at any moment: it does what can be done now
 * and says what it waits for.  Deadlines are the caller's affair.
 *
 * pgp_pq.c is the real driver; the unit tests have a fake one.
 */
#ifndef PGP_DRIVER_H
#define PGP_DRIVER_H

#include <poll.h>
#include <apr_time.h>

#include "pgp_env.h"
#include "pgp_settings.h"
#include "pgp_vars.h"

typedef struct pgp_link pgp_link;

/* Whose links they are; lives as long as the process, since a result may call back
 * after its link is gone. */
typedef struct {
    const pgp_env *env;
    const char *pool;
    const pgp_settings *settings;
} pgp_context;

/* Room for an error in words, with its SQLSTATE. */
#define PGP_ERROR_WORDS 280

/* What went wrong: the server's words or libpq's; clean (pgp_text.h); never a password. */
typedef struct {
    char sqlstate[6]; /* "" where there is none, e.g. connection refused */
    char message[250];
    int absent; /* nobody listens where the server should be */
} pgp_error;

/* "words (SQLSTATE 57P01)", or the words alone where there is no SQLSTATE.  Returns words. */
const char *pgp_error_print(char words[PGP_ERROR_WORDS], const pgp_error *error);

typedef enum {
    PGP_STEP_AGAIN, /* waits for what *await says */
    PGP_STEP_DONE,  /* the link is ready and clean; after close(): its server's process is gone
                     */
    PGP_STEP_FAILED /* *error says why; the link is good for close() only */
} pgp_step;

/* What an idle link looks like before it is given out. */
typedef enum {
    PGP_PROBE_DEAD,  /* closed, half closed, or no longer what it was made for */
    PGP_PROBE_QUIET, /* nothing has come */
    PGP_PROBE_HEARD, /* something came unasked and was taken in: a ping will tell */
    PGP_PROBE_OWING  /* the answer to its reset is to be collected: by greet() */
} pgp_probe;

/* What came of set(). */
typedef enum {
    PGP_SET_DONE,
    PGP_SET_DENIED, /* the server would not set a variable, or cannot now; all is as before */
    PGP_SET_FAILED  /* lost or too late: they may be set or not, so close it */
} pgp_set_outcome;

/* What a link looks like when its borrower is done with it. */
typedef enum {
    PGP_RETURN_CLEAN,  /* fit for the next borrower */
    PGP_RETURN_DIRTY,  /* clean() can mend it */
    PGP_RETURN_BROKEN, /* the connection is lost */
    PGP_RETURN_LARGE,  /* its library's buffers have grown, and keep their memory */
    PGP_RETURN_UNKNOWN /* in a state that cannot be mended */
} pgp_return;

typedef struct pgp_driver {
    /* Start to connect.  first_host: with which entry of the hosts to begin (modulo
     * their number); survey: ask the server for its capacity, too.  The driver keeps owner for
     * whoever has only the handle.  NULL: failed at once, *error says why. */
    pgp_link *(*connect)(const pgp_context *context, unsigned first_host, int survey,
                         void *owner, pgp_error *error);
    /* Go on with connecting, cleaning or closing. */
    pgp_step (*step)(pgp_link *link, struct pollfd *await, pgp_error *error);
    /* Whether the link still stands, without touching what it has received:
     * safe in the middle of a borrower's query. */
    int (*alive)(pgp_link *link);
    /* The same for an idle link: takes in what has come (notices, changed
     * parameters) and drops notifications meant for earlier borrowers.  If DEAD, *error
     * says why, in the server's last words if there are any. */
    pgp_probe (*probe)(pgp_link *link, pgp_error *error);
    /* Read what an idle link has received, up to a bound, and drop it, as probe() does; what
     * has come of the answer to its reset, too.  0: it is of no use any more, *error says why.
     */
    int (*take_in)(pgp_link *link, pgp_error *error);
    /* What the server has said of the end of a lost connection, as far as it has come: *error,
     * or an empty message.  What else has come for a borrower stays for him. */
    void (*last_words)(pgp_link *link, pgp_error *error);
    /* All that a link owes before a borrower gets it, until `until` (the env's
     * clock): collect the answer to its reset; a round trip, if ping is not 0.  0: it is of no
     * use, *error says why. */
    int (*greet)(pgp_link *link, int ping, apr_time_t until, pgp_error *error);
    /* Whether the session of a borrower's link has these variables and no others of ours, and
     * nothing tells that the borrower has undone any.  Costs nothing. */
    int (*is_set)(const pgp_link *link, const pgp_vars *vars);
    /* Make it so, until `until`.  If not DONE, *error says why. */
    pgp_set_outcome (*set)(pgp_link *link, const pgp_vars *vars, apr_time_t until,
                           pgp_error *error);
    /* Undo what a borrower may have changed in the client's library, send the reset
     * if one is due, and say in what state the link is.  Waits for nothing.  Once more after
     * clean(). */
    pgp_return (*settle)(pgp_link *link);
    /* Start to clean up a DIRTY link: end what still runs, roll back. */
    void (*clean)(pgp_link *link);
    /* Start to close, in any phase: tell the server, and wait for nothing.  The handle is gone
     * afterwards; step() is DONE when the server's process has ended, and never FAILED. */
    void (*close)(pgp_link *link);
    /* Free the link at once; closes it first if close() has not. */
    void (*destroy)(pgp_link *link);
    /* How many connections the server takes from users like ours; 0: not known. */
    int (*capacity)(const pgp_link *link);
    /* The version of TLS ("TLSv1.3") that encrypts the connection, or NULL. */
    const char *(*tls)(const pgp_link *link);
    /* The server's process as the server calls it: PostgreSQL's pid.  A proxy gives a number of
     * its own, PgBouncer any of 32 bits. */
    unsigned (*backend)(const pgp_link *link);
    /* The descriptor of a link that is ready; the same for as long as the link is. */
    int (*socket)(const pgp_link *link);
    /* What the borrower gets: a PGconn. */
    void *(*handle)(const pgp_link *link);
} pgp_driver;

#endif
