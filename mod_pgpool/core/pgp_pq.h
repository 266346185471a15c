/*
 * A connection on libpq: what the files of this driver share.
 *
 *   pgp_pq_driver.c     the driver's table, and what a connection tells of itself
 *   pgp_pq_connect.c    from the hosts' names to a ready session
 *   pgp_pq_hosts.c      names and order of hosts
 *   pgp_pq_idle.c       checking an idle connection, preparing it for a borrower
 *   pgp_pq_vars.c       session variables: set for a borrower, undone after it
 *   pgp_pq_reset.c      the end of a lease, and the message that undoes what it has changed
 *   pgp_pq_effects.c    what a lease has done, as far as its results tell
 *   pgp_pq_cleanup.c    ending what a borrower left running
 *   pgp_pq_close.c      closing
 *   pgp_pq_exchange.c   one question, one answer
 *   pgp_pq_statements.c the prepared statements that the session has
 *   pgp_pq_run.c        one statement for a borrower
 *   pgp_pq_callbacks.c  what libpq calls: results and notices
 *   pgp_pq_error.c      libpq's errors
 *
 * Phases.  A new connection goes LOOKING_UP (its hosts' names), CONNECTING, INITIALISING
 * (PgPoolInitSQL), SURVEYING (the first one of a pool), READY.  A connection that came back
 * with work open goes CANCELLING (cancel and drain), ABSORBING (a round trip, which a late
 * cancel hits), ROLLING_BACK, READY.  Any of them may go CLOSING: it has no PGconn then, but a
 * descriptor that tells when the server has ended its side.
 *
 * Blocking.  libpq's nonblocking mode is on whenever the driver works with the connection, and
 * off while a borrower has it.  A READY connection is in blocking mode, except while the answer
 * to its reset is pending.
 *
 * Ownership and threads: see pgp_driver.h.  Only is_unused is read on another thread: the one
 * of a borrower who uses the connection after its release.
 */
#ifndef PGP_PQ_H
#define PGP_PQ_H

#include <assert.h>
#include <libpq-fe.h>

#include "pgp_driver.h"
#include "pgp_password.h"
#include "pgp_pq_hosts.h"
#include "pgp_pq_statements.h"
#include "pgp_task.h"

#define PGP_PQ_MAGIC 0x50475051u

typedef enum {
    PGP_PQ_LOOKING_UP,
    PGP_PQ_CONNECTING,
    PGP_PQ_INITIALISING,
    PGP_PQ_SURVEYING,
    PGP_PQ_CANCELLING,
    PGP_PQ_ABSORBING,
    PGP_PQ_ROLLING_BACK,
    PGP_PQ_READY,
    PGP_PQ_CLOSING
} pgp_pq_phase;

/* The look-ups of an attempt to connect, before it logs in. */
typedef struct {
    pgp_pq_hosts *hosts;
    pgp_password *password; /* NULL: the connection string, or libpq, has it */
} pgp_pq_lookup;

struct pgp_connection {
    unsigned magic; /* PGP_PQ_MAGIC; wiped by destroy() */

    /* immutable */
    const pgp_context *context;
    const pgp_settings *settings; /* the context's */
    void *owner;

    PGconn *conn; /* NULL in LOOKING_UP and CLOSING */
    pgp_pq_phase phase;
    pgp_task *task; /* in LOOKING_UP the look-up; else a cancel that is on its way; or NULL */
    int closing_fd; /* in CLOSING: reads end of file when the server's process ends; or -1 */

    /* of the session; written when it is connected */
    unsigned backend; /* kept here, since libpq forgets it when the connection is lost */
    int encoding;     /* libpq's number of UTF8: each borrower gets the connection with it */
    int capacity;     /* of the server; 0: not known */
    struct {
        bool matters; /* target_session_attrs asks for one */
        char hot_standby, read_only;
    } role;

    bool reset_pending;    /* a reset was sent, and its answer has not been collected */
    bool is_terminated;    /* the server has said that it ends the connection: exchange.error */
    const char *shut_down; /* why the driver has shut the socket down; NULL: it has not */
    _Atomic bool is_unused; /* nobody has it, see pgp_pq_callbacks_trap() */

    /* from connect() to READY */
    struct {
        unsigned first_host;
        bool survey;                     /* ask for the capacity after PgPoolInitSQL */
        pgp_pq_lookup *lookup;           /* the task's while it runs */
        bool is_second;                  /* the server has rejected the first password */
        PostgresPollingStatusType wants; /* in CONNECTING: the event that libpq waits for */
        int init_started;                /* in INITIALISING: statements sent so far */
    } connecting;

    /* one question and its answer */
    struct {
        bool failed;
        bool rejected;   /* failed by an error of the server's that the connection outlives */
        pgp_error error; /* why it failed */
    } exchange;

    /* from cleanup() to READY */
    struct {
        bool pipeline_closed, copy_ended, drained;
        bool cancelled; /* at least once */
        bool answered;  /* a result has come since the last cancel */
        apr_time_t cancelled_at;
    } cleanup;

    /* what results have told since the lease began */
    struct {
        unsigned effects; /* pgp_effect */
        bool read_only;   /* a statement failed because the server is read-only */
        bool large;       /* a message has swollen libpq's buffers */
        bool unsynced;    /* the last result was a pipeline's, and not its sync: its work is not
                           * committed yet, though libpq may call the transaction idle */
    } lease;

    pgp_pq_statements statements;
    bool is_preparing; /* a run prepares or drops a statement: no effect of the lease */

    /* session variables: see pgp_pq_vars.h */
    struct {
        pgp_vars *applied;  /* or NULL */
        unsigned disturbed; /* what has happened since that may have changed them */
        bool hide_role;     /* default_transaction_read_only is one of them */
    } vars;
};

/* Each function of the driver's table asserts one of these first: that the connection has not
 * been destroyed, and that its phase allows the call. */
static inline void pgp_pq_assert(const pgp_connection *connection)
{
    assert(connection->magic == PGP_PQ_MAGIC);
}

static inline void pgp_pq_assert_open(const pgp_connection *connection)
{
    pgp_pq_assert(connection);
    assert(connection->phase != PGP_PQ_CLOSING);
}

static inline void pgp_pq_assert_ready(const pgp_connection *connection)
{
    pgp_pq_assert(connection);
    assert(connection->phase == PGP_PQ_READY);
}

/* Whether the connection still speaks the encoding that it was made with. */
static inline bool pgp_pq_has_kept_encoding(const pgp_connection *connection)
{
    return PQclientEncoding(connection->conn) == connection->encoding;
}

/* --- pgp_pq_error.c --------------------------------------------------------- */

/* Set *error to what libpq has said last; its SQLSTATE stays. */
void pgp_pq_error_last(pgp_error *error, const pgp_connection *connection);
/* Set *error to why the connection failed, with the SQLSTATE if the verbosity was verbose. */
void pgp_pq_error_connection(pgp_error *error, const pgp_connection *connection);
/* Set *error to the error that a result holds. */
void pgp_pq_error_result(pgp_error *error, const pgp_connection *connection,
                         const PGresult *result);
/* Note that the server ends the connection, and why: the error that a result holds. */
void pgp_pq_error_note_end(pgp_connection *connection, const PGresult *result);
/* Whether a field of the error that a result holds (PG_DIAG_...) has this value. */
bool pgp_pq_error_has_field(const PGresult *result, int field, const char *value);
/* A result's severity in English, "" if it has none. */
const char *pgp_pq_error_severity(const PGresult *result);

/* --- pgp_pq_callbacks.c ----------------------------------------------------- */

/* Register the connection with its new PGconn, connected or not: from now on its results and
 * notices come to the driver.  false: libpq has no memory for that; give the connection up. */
bool pgp_pq_callbacks_register(pgp_connection *connection);
/* The connection of a PGconn; NULL if the PGconn is not of this driver. */
pgp_connection *pgp_pq_callbacks_connection(const PGconn *conn);
/* Direct notices to the driver again, even if a borrower has redirected them. */
void pgp_pq_callbacks_listen(pgp_connection *connection);
/* Take back what a borrower may have set in the client's library. */
void pgp_pq_callbacks_restore(pgp_connection *connection);
/* Say whether the connection is unused from now on.  A build with a sanitizer aborts if a
 * result comes while it is unused: a borrower uses a connection that it has given back.  Other
 * builds do nothing here. */
void pgp_pq_callbacks_trap(pgp_connection *connection, bool is_unused);

/* --- pgp_pq_exchange.c: in nonblocking mode --------------------------------- */

/* The events that poll() reports of a descriptor at this moment; POLLERR if poll() itself
 * fails. */
short pgp_pq_exchange_poll_now(int fd, short events);
/* Whether libpq would block until the server takes data that may be unsent: the connection is
 * in blocking mode, and its socket has no room. */
bool pgp_pq_exchange_is_blocked(const pgp_connection *connection);
/* Enter nonblocking mode.  PQsetnonblocking() first sends all unsent data, and waits for that;
 * if the socket has no room, this shuts it down instead.  false: the connection is lost. */
bool pgp_pq_exchange_set_nonblocking(pgp_connection *connection);
/* Shut the socket down: whatever anyone tries next with the PGconn fails.  why: a literal, for
 * the last words. */
void pgp_pq_exchange_shutdown(pgp_connection *connection, const char *why);
/* Start an exchange.  false: *error says why. */
bool pgp_pq_exchange_send(pgp_connection *connection, const char *sql, pgp_error *error);
/* Note in connection->exchange whether a result is an error.  Returns true if the exchange ends
 * here, without libpq's NULL: at a COPY, which the driver does not take part in. */
bool pgp_pq_exchange_judge(pgp_connection *connection, const PGresult *result);
/* Go on with an exchange as far as the answer has come. */
pgp_step pgp_pq_exchange_receive(pgp_connection *connection, struct pollfd *await,
                                 pgp_error *error);
/* The same, waiting for the answer until `until`.  false: *error says why. */
bool pgp_pq_exchange_receive_until(pgp_connection *connection, apr_time_t until,
                                   pgp_error *error);
/* The descriptor and the events to poll for while an answer is to come. */
struct pollfd pgp_pq_exchange_await(const pgp_connection *connection, bool unsent);
void pgp_pq_exchange_drop_notifies(pgp_connection *connection);

/* --- pgp_pq_idle.c: the driver's is_alive(), check_idle() and so on ----------- */

bool pgp_pq_idle_is_alive(pgp_connection *connection);
pgp_idle_state pgp_pq_idle_check(pgp_connection *connection, pgp_error *error);
bool pgp_pq_idle_read(pgp_connection *connection, pgp_error *error);
bool pgp_pq_idle_prepare(pgp_connection *connection, bool ping, apr_time_t until,
                         pgp_error *error);
void pgp_pq_idle_last_words(pgp_connection *connection, pgp_error *error);
/* Read the answer to a reset as far as it has come.  false: the reset failed, *error says why.
 */
bool pgp_pq_idle_take_answer(pgp_connection *connection, pgp_error *error);
/* Remember the role that the server has when the session is set up. */
void pgp_pq_idle_note_role(pgp_connection *connection);

/* --- pgp_pq_cleanup.c -------------------------------------------------------- */

/* The driver's cleanup(), and its step(). */
bool pgp_pq_cleanup_start(pgp_connection *connection);
pgp_step pgp_pq_cleanup_step(pgp_connection *connection, struct pollfd *await,
                             pgp_error *error);
/* Before the connection is closed: send a cancel for what still runs, and do not wait for it.
 */
void pgp_pq_cleanup_abandon(pgp_connection *connection);

/* --- pgp_pq_close.c: the driver's close(), its step(), and destroy() ----------- */

void pgp_pq_close_start(pgp_connection *connection);
pgp_step pgp_pq_close_step(pgp_connection *connection, struct pollfd *await);
void pgp_pq_close_destroy(pgp_connection *connection);

#endif
