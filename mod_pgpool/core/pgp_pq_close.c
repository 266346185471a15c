/* Closes a connection without waiting for the server, and tells when the server's process has
 * ended. */

#include "pgp_pq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pgp_pq_connect.h"

/* The server may still send.  A step reads at most CLOSING_READS times CLOSING_READ bytes of
 * that and drops them, so that an endless stream does not keep the keeper from other
 * connections. */
#define CLOSING_READS 8
#define CLOSING_READ 4096

/* Free the PGconn.  In nonblocking mode PQfinish() sends its good-bye if the socket takes it,
 * and does not wait; a connection that cannot be put into that mode is shut down.  Returns a
 * second descriptor, which keeps the socket until the server has ended its side, or -1. */
static int conn_finish(pgp_connection *connection)
{
    const int fd = PQsocket(connection->conn);
    const int second = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

    if (fd >= 0 && !pgp_pq_exchange_set_nonblocking(connection))
        shutdown(fd, SHUT_RDWR);
    PQfinish(connection->conn);
    connection->conn = NULL;
    if (second >= 0)
        shutdown(second, SHUT_WR);
    return second;
}

void pgp_pq_close_start(pgp_connection *connection)
{
    pgp_error unsaid;

    pgp_pq_assert_open(connection);
    pgp_pq_callbacks_trap(connection, false);
    /* A reset that has ended need not be cancelled. */
    if (connection->conn && connection->reset_pending)
        pgp_pq_idle_take_answer(connection, &unsaid);
    if (connection->conn && PQtransactionStatus(connection->conn) == PQTRANS_ACTIVE) {
        pgp_pq_cleanup_abandon(connection);
        /* Otherwise PQfinish() would send statements that the borrower has queued. */
        shutdown(PQsocket(connection->conn), SHUT_WR);
    }
    connection->closing_fd = connection->conn ? conn_finish(connection) : -1;
    pgp_pq_connect_abandon(connection);
    if (connection->task)
        pgp_task_leave(&connection->task);
    connection->phase = PGP_PQ_CLOSING;
}

pgp_step pgp_pq_close_step(pgp_connection *connection, struct pollfd *await)
{
    char dropped[CLOSING_READ];
    ssize_t got = 1;
    int n;

    if (connection->closing_fd < 0)
        return PGP_STEP_DONE;
    for (n = 0; n < CLOSING_READS && got > 0; n++)
        got = recv(connection->closing_fd, dropped, sizeof dropped, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        return PGP_STEP_DONE;
    *await = (struct pollfd){.fd = connection->closing_fd, .events = POLLIN};
    return PGP_STEP_AGAIN;
}

void pgp_pq_close_destroy(pgp_connection *connection)
{
    pgp_pq_assert(connection);
    if (connection->phase != PGP_PQ_CLOSING)
        pgp_pq_close_start(connection);
    if (connection->closing_fd >= 0)
        close(connection->closing_fd);
    free(connection->vars.applied);
    pgp_pq_statements_forget(&connection->statements);
    connection->magic = 0;
    free(connection);
}
