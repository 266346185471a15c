/*
 * The functions that libpq calls: an event procedure for results, a receiver for notices.
 *
 * A result has copies of its PGconn's notice receiver, notice processor and their batons, and
 * may outlive the connection.  But it calls them only with notices of libpq's own, so the
 * receiver uses its baton only for an error.  A borrower that replaces these functions, and
 * later puts back the ones that it found, gives them NULL batons: libpq does not tell theirs.
 */
#include "pgp_pq.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libpq-events.h>

#include "pgp_pq_effects.h"

/* --- results ---------------------------------------------------------------- */

void pgp_pq_callbacks_trap(pgp_connection *connection, bool is_unused)
{
#ifdef PGP_CHECKED
    connection->is_unused = is_unused;
#else
    (void)connection;
    (void)is_unused;
#endif
}

static void abort_if_unused(const pgp_connection *connection)
{
#ifdef PGP_CHECKED
    if (!connection->is_unused)
        return;
    fprintf(stderr,
            "mod_pgpool: pool %s, backend %u: a result has come while nobody had the "
            "connection: its last borrower uses it after it has gone back\n",
            connection->context->pool, connection->backend);
    abort();
#else
    (void)connection;
#endif
}

/* libpq's event procedure.  Its address is also the key of the connection in its PGconn. */
static int event_receive(PGEventId event, void *info, void *baton)
{
    const PGEventResultCreate *created = info;
    pgp_connection *connection;

    (void)baton;
    if (event != PGEVT_RESULTCREATE)
        return 1;
    connection = PQinstanceData(created->conn, event_receive);
    if (connection) {
        abort_if_unused(connection);
        if (!connection->is_preparing)
            pgp_pq_effects_note(connection, created->result);
    }
    return 1;
}

pgp_connection *pgp_pq_callbacks_connection(const PGconn *conn)
{
    return PQinstanceData(conn, event_receive);
}

/* --- notices ---------------------------------------------------------------- */

/* The driver's notice processor. */
static void notice_log(void *baton, const char *text)
{
    const pgp_context *context = baton;
    pgp_error line;

    if (!context)
        return;
    pgp_error_set_text(&line, text);
    pgp_log(context->env, PGP_LOG_DEBUG, PGP_MSG_NOTICE, context->pool, 0,
            "the server says: %s", line.message);
}

/* Hand a notice to the processor of its result, which may be a borrower's.  Only libpq's own
 * receiver can do that, and only a PGconn tells its address.  So this makes a PGconn that never
 * connects: the address cannot be kept with a connection that the result may have outlived. */
static void notice_pass_on(const PGresult *result)
{
    PGconn *none = PQconnectStart("?");
    const PQnoticeReceiver libpqs = PQsetNoticeReceiver(none, NULL, NULL);

    if (libpqs)
        libpqs(NULL, result);
    PQfinish(none);
}

static bool is_error(const char *severity)
{
    return !strcmp(severity, "ERROR") || !strcmp(severity, "FATAL") ||
           !strcmp(severity, "PANIC");
}

/* The driver's notice receiver.  To libpq an error that comes while nothing runs is a notice.
 * It says why the server ends the connection; the end itself may come later. */
static void notice_receive(void *baton, const PGresult *result)
{
    pgp_connection *connection = baton;

    if (connection && is_error(pgp_pq_error_severity(result)))
        pgp_pq_error_note_end(connection, result);
    notice_pass_on(result);
}

void pgp_pq_callbacks_listen(pgp_connection *connection)
{
    PQsetNoticeReceiver(connection->conn, notice_receive, connection);
    PQsetNoticeProcessor(connection->conn, notice_log, (void *)connection->context);
}

/* --- the client's library --------------------------------------------------- */

bool pgp_pq_callbacks_register(pgp_connection *connection)
{
    pgp_pq_callbacks_restore(connection);
    return PQregisterEventProc(connection->conn, event_receive, "mod_pgpool", NULL) &&
           PQsetInstanceData(connection->conn, event_receive, connection);
}

void pgp_pq_callbacks_restore(pgp_connection *connection)
{
    pgp_pq_callbacks_listen(connection);
    PQsetErrorVerbosity(connection->conn, PQERRORS_DEFAULT);
    PQsetErrorContextVisibility(connection->conn, PQSHOW_CONTEXT_ERRORS);
    PQuntrace(connection->conn);
}
