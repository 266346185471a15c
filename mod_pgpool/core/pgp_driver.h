/*
 * The driver: all that the pool wants from a physical connection.
 *
 * Model.  A pgp_link is one physical connection.  It has one owner at a time,
 * who alone calls these functions on it (pgp_conn.h says who that is), so a
 * link needs no lock.  Nothing here blocks, but ping(), which has a deadline.
 *
 * Slow work (connecting, cleaning) is started, then driven by step() until it
 * is done.  step() may be called at any moment: it does what can be done now
 * and says what it waits for.  Deadlines are the caller's affair.
 *
 * pgp_libpq.c is the real driver; the unit tests have a fake one.
 */
#ifndef PGP_DRIVER_H
#define PGP_DRIVER_H

#include <poll.h>
#include <apr_time.h>

#include "pgp_env.h"
#include "pgp_settings.h"

typedef struct pgp_link pgp_link;

/* What went wrong: the server's words or libpq's; never a password. */
typedef struct {
    char sqlstate[6]; /* "" where there is none, e.g. connection refused */
    char message[250];
} pgp_error;

typedef enum {
    PGP_STEP_AGAIN, /* waits for what *await says */
    PGP_STEP_DONE,  /* the link is ready and clean */
    PGP_STEP_FAILED /* *error says why; the link is good for close() only */
} pgp_step;

/* What the socket of an idle link says. */
typedef enum {
    PGP_PROBE_DEAD,  /* closed, or half closed */
    PGP_PROBE_QUIET, /* nothing has come */
    PGP_PROBE_HEARD  /* something has come and was taken in: a round trip will tell */
} pgp_probe;

/* What a link looks like when its borrower is done with it. */
typedef enum {
    PGP_RETURN_CLEAN,  /* fit for the next borrower */
    PGP_RETURN_DIRTY,  /* clean() can mend it */
    PGP_RETURN_BROKEN, /* the connection is lost */
    PGP_RETURN_UNKNOWN /* in a state that cannot be mended */
} pgp_return;

typedef struct pgp_driver {
    /* Start to connect.  The driver keeps owner for whoever has only the handle.
     * NULL: failed at once, *error says why. */
    pgp_link *(*connect)(const pgp_env *env, const char *pool, const pgp_settings *settings,
                         void *owner, pgp_error *error);
    /* Go on with connecting or cleaning. */
    pgp_step (*step)(pgp_link *link, struct pollfd *await, pgp_error *error);
    /* Whether the link still stands, without touching what it has received:
     * safe in the middle of a borrower's query. */
    int (*alive)(pgp_link *link);
    /* The same for an idle link: takes in what has come (notices, changed
     * parameters) and drops notifications meant for earlier borrowers. */
    pgp_probe (*probe)(pgp_link *link);
    /* A round trip before `until` (the env's clock).  0: failed or too late,
     * *error says why. */
    int (*ping)(pgp_link *link, apr_time_t until, pgp_error *error);
    /* Undo what a borrower may have changed in the client's library and say in
     * what state the link is.  Sends nothing and waits for nothing. */
    pgp_return (*settle)(pgp_link *link);
    /* Start to clean up a DIRTY link. */
    void (*clean)(pgp_link *link);
    /* End the connection; frees the link. */
    void (*close)(pgp_link *link);
    /* The pid of the server's process. */
    int (*backend)(const pgp_link *link);
    /* What the borrower gets: a PGconn. */
    void *(*handle)(const pgp_link *link);
} pgp_driver;

#endif
