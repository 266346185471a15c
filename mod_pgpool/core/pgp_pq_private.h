/*
 * A link on libpq: what the files of the real driver share.
 *
 *   pgp_pq.c       the driver: testing, coming back, closing
 *   pgp_pq_connect.c  connecting
 *   pgp_pq_vars.c     session variables
 *   pgp_pq_exchange.c        what went wrong; the client's side; one question, one answer
 *   pgp_pq_cleanup.c      ending what a borrower left running
 *
 * Phases.  A new link goes LOOKING_UP (its hosts' names), CONNECTING, INITIALISING
 * (PgPoolInitSQL), SURVEYING (the first of a pool), READY.  One that came back with work open
 * goes WINDING_UP (cancel and drain), ABSORBING (a round trip that takes in a late cancel),
 * ROLLING_BACK, READY.  A READY link may owe the answer to its reset.  Any link goes CLOSING:
 * it has no PGconn then, but a descriptor that tells when the server has ended its side.
 *
 * libpq's nonblocking mode is on whenever a borrower does not have the link, except
 * when it is READY and owes nothing.
 */
#ifndef PGP_PQ_PRIVATE_H
#define PGP_PQ_PRIVATE_H

#include <stdbool.h>
#include <libpq-fe.h>

#include "pgp_driver.h"
#include "pgp_pq_hosts.h"
#include "pgp_task.h"

typedef enum {
    LOOKING_UP,
    CONNECTING,
    INITIALISING,
    SURVEYING,
    WINDING_UP,
    ABSORBING,
    ROLLING_BACK,
    READY,
    CLOSING
} link_phase;

struct pgp_link {
    /* immutable */
    const pgp_context *context;
    const pgp_settings *settings; /* the context's */
    void *owner;

    /* owner */
    PGconn *conn;     /* NULL in LOOKING_UP and CLOSING */
    int closing_fd;   /* in CLOSING: reaches its end with the server's process; or -1 */
    unsigned backend; /* libpq forgets it when the connection is lost */
    int ended;        /* its server has said unasked why it ends it: error */
    link_phase phase;
    unsigned deeds;     /* pgp_deed, of this lease */
    int owes;           /* the answer to a reset has not been collected */
    pgp_vars *applied;  /* what set() has set, or NULL; see pgp_pq_vars.h */
    unsigned disturbed; /* what has happened since that may have changed it */
    int large;          /* libpq's buffers have grown for a result, and never shrink */
    int encoding;       /* libpq's number of UTF8: every borrower gets the connection with it */
    _Atomic bool idle;  /* nobody has it, so that no result may come; see pgp_pq_mark() */
    int met_read_only;
    int unsynced; /* the last result was a pipeline's, and not its sync: what is done by then is
                   * not committed, though libpq may call that idle */

    /* connecting */
    pgp_pq_hosts *hosts; /* the lookup's while it runs */
    unsigned first_host;
    pgp_task *task;                  /* the lookup, or the cancel */
    PostgresPollingStatusType wants; /* in CONNECTING */
    int init_done;                   /* in INITIALISING: statements begun so far */

    /* the exchange under way, or winding up */
    int failed, refused; /* refused: by an error that the connection outlives */
    pgp_error error;     /* why */
    int synced, copy_ended, drained;
    apr_time_t cancelled_at;
    int cancelled, answered; /* ever; since the last cancel */

    int survey;   /* ask for the capacity after the init SQL */
    int capacity; /* 0: not known */

    /* the server's role when the link was made, if target_session_attrs wants one */
    int role_matters;
    int role_set; /* set() has set default_transaction_read_only */
    char hot_standby, read_only;
};

/* --- what went wrong -------------------------------------------------------- */

/* libpq's text in one line, clean (pgp_text.h). */
void pgp_error_text(pgp_error *error, const char *text);
/* Of a connection; with the SQLSTATE if it is still being made. */
void pgp_error_connection(pgp_error *error, const pgp_link *link);
void pgp_error_result(pgp_error *error, const pgp_link *link, const PGresult *result);

/* --- the client's side ------------------------------------------------------ */

/* Register the link with its new PGconn, connected or not: from now on its results and notices
 * come to us.  0: libpq has no memory for that, and the link is no good. */
int pgp_pq_adopt(pgp_link *link);
/* Notices come to us again, whoever had them. */
void pgp_pq_listen(pgp_link *link);
/* Take back what a borrower may have set in the client's library. */
void pgp_pq_restore(pgp_link *link);
void pgp_pq_drop_notifies(pgp_link *link);
/* Say whether nobody has the link from now on.  Builds with a sanitizer abort when a result
 * comes then: somebody uses a connection that has gone back.  In other builds it does nothing.
 */
void pgp_pq_mark(pgp_link *link, bool idle);
/* Forget what was done on the link so far. */
void pgp_pq_forget_deeds(pgp_link *link);

/* --- one question, one answer, in nonblocking mode -------------------------- */

/* What poll() says of a descriptor at this moment; POLLERR if poll() itself fails. */
short pgp_poll_now(int fd, short events);
/* Whether libpq would wait for the server to take in what may be left to send: the link is in
 * blocking mode, and there is no room. */
int pgp_pq_blocked(const pgp_link *link);
/* PQsetnonblocking() sends what is unsent, and waits until it can; what cannot be sent
 * at once is cut off here instead.  0: the connection is no good. */
int pgp_pq_nonblocking(pgp_link *link);
/* 0: *error says why. */
int pgp_pq_ask(pgp_link *link, const char *sql, pgp_error *error);
/* Note what a result says: whether and why the exchange fails, or the server's capacity.
 * Returns 1 if the exchange has no end of its own after it. */
int pgp_pq_judge(pgp_link *link, const PGresult *result);
pgp_step pgp_pq_answer(pgp_link *link, struct pollfd *await, pgp_error *error);
/* The same, waiting for it, but no longer than until; 0: *error says why. */
int pgp_pq_answer_until(pgp_link *link, apr_time_t until, pgp_error *error);
struct pollfd pgp_pq_await(const pgp_link *link, int unsent);

/* --- pgp_pq_cleanup.c ----------------------------------------------------------- */

void pgp_pq_cleanup_start(pgp_link *link);
/* DONE: nothing runs any more, pipeline mode is off, no cancel is on its way. */
pgp_step pgp_pq_cleanup_step(pgp_link *link, struct pollfd *await, pgp_error *error);
/* Before a link is closed that still works: stop that, by a cancel that nobody waits
 * for. */
void pgp_pq_cleanup_abandon(pgp_link *link);

#endif
