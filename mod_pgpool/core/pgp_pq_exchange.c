/* Exchanges one question and its answer, in libpq's nonblocking mode. */

#include "pgp_pq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* --- the socket ------------------------------------------------------------- */

short pgp_pq_exchange_poll_now(int fd, short events)
{
    struct pollfd polled = {.fd = fd, .events = events};
    int n;

    do
        n = poll(&polled, 1, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? POLLERR : polled.revents;
}

/* Outside pipeline mode an idle connection has nothing to send: libpq sends all that it has, a
 * COPY's end included, before it waits for the answer that makes it idle. */
static bool is_all_sent(const pgp_connection *connection)
{
    return PQtransactionStatus(connection->conn) == PQTRANS_IDLE &&
           PQpipelineStatus(connection->conn) == PQ_PIPELINE_OFF;
}

bool pgp_pq_exchange_is_blocked(const pgp_connection *connection)
{
    if (PQisnonblocking(connection->conn) || is_all_sent(connection))
        return false;
    return !(pgp_pq_exchange_poll_now(PQsocket(connection->conn), POLLOUT) & POLLOUT);
}

void pgp_pq_exchange_shutdown(pgp_connection *connection, const char *why)
{
    if (!connection->shut_down)
        connection->shut_down = why;
    shutdown(PQsocket(connection->conn), SHUT_RDWR);
}

bool pgp_pq_exchange_set_nonblocking(pgp_connection *connection)
{
    if (pgp_pq_exchange_is_blocked(connection))
        pgp_pq_exchange_shutdown(connection, "the server does not take what is left to send");
    return PQsetnonblocking(connection->conn, 1) == 0;
}

struct pollfd pgp_pq_exchange_await(const pgp_connection *connection, bool unsent)
{
    return (struct pollfd){.fd = PQsocket(connection->conn),
                           .events = unsent ? POLLIN | POLLOUT : POLLIN};
}

/* --- the question ----------------------------------------------------------- */

bool pgp_pq_exchange_send(pgp_connection *connection, const char *sql, pgp_error *error)
{
    connection->exchange.failed = false;
    if (PQsendQuery(connection->conn, sql))
        return true;
    pgp_pq_error_last(error, connection);
    return false;
}

/* --- the answer ------------------------------------------------------------- */

/* A proxy may answer with no row, or with a null. */
static int capacity_read(const PGresult *result)
{
    const bool is_told = PQntuples(result) == 1 && PQnfields(result) == 1 &&
                         !PQgetisnull(result, 0, 0);
    const int capacity = is_told ? atoi(PQgetvalue(result, 0, 0)) : 0;

    return capacity > 0 ? capacity : 0;
}

/* An exchange fails by its first error. */
bool pgp_pq_exchange_judge(pgp_connection *connection, const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_EMPTY_QUERY:
    case PGRES_COMMAND_OK:
        return false;
    case PGRES_TUPLES_OK:
        if (connection->phase == PGP_PQ_SURVEYING)
            connection->capacity = capacity_read(result);
        return false;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        connection->exchange.failed = true;
        connection->exchange.rejected = false;
        connection->exchange.error = (pgp_error){.message = "a COPY has no place here"};
        return true;
    default:
        if (!connection->exchange.failed) {
            connection->exchange.error.sqlstate[0] = '\0';
            pgp_pq_error_result(&connection->exchange.error, connection, result);
            connection->exchange.rejected = !strcmp(pgp_pq_error_severity(result), "ERROR");
        }
        connection->exchange.failed = true;
        return false;
    }
}

pgp_step pgp_pq_exchange_receive(pgp_connection *connection, struct pollfd *await,
                                 pgp_error *error)
{
    const int unsent = PQflush(connection->conn);

    if (unsent < 0 || !PQconsumeInput(connection->conn)) {
        pgp_pq_error_last(error, connection);
        return PGP_STEP_FAILED;
    }
    while (!PQisBusy(connection->conn)) {
        PGresult *result = PQgetResult(connection->conn);
        const bool is_over = !result || pgp_pq_exchange_judge(connection, result);

        PQclear(result);
        if (is_over && connection->exchange.failed)
            *error = connection->exchange.error;
        if (is_over)
            return connection->exchange.failed ? PGP_STEP_FAILED : PGP_STEP_DONE;
    }
    *await = pgp_pq_exchange_await(connection, unsent);
    return PGP_STEP_AGAIN;
}

/* Sleep until the connection may go on.  false: the time is up. */
static bool sleep_until(const pgp_connection *connection, struct pollfd *await,
                        apr_time_t until)
{
    const apr_time_t left = until - pgp_now(connection->context->env);

    return left > 0 && (poll(await, 1, (int)((left + 999) / 1000)) >= 0 || errno == EINTR);
}

bool pgp_pq_exchange_receive_until(pgp_connection *connection, apr_time_t until,
                                   pgp_error *error)
{
    struct pollfd await;
    pgp_step step;

    do
        step = pgp_pq_exchange_receive(connection, &await, error);
    while (step == PGP_STEP_AGAIN && sleep_until(connection, &await, until));
    if (step == PGP_STEP_AGAIN)
        pgp_error_set_text(error, "no answer from the server before the deadline");
    return step == PGP_STEP_DONE;
}

void pgp_pq_exchange_drop_notifies(pgp_connection *connection)
{
    PGnotify *notify;

    while ((notify = PQnotifies(connection->conn)) != NULL)
        PQfreemem(notify);
}
