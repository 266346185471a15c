/* Checks idle connections, reads the data that they receive, and prepares them for use. */

#include "pgp_pq.h"

#include <string.h>

#include "pgp_conninfo.h"
#include "pgp_pq_reset.h"

#ifndef POLLRDHUP
#error "POLLRDHUP is needed to see a half-closed connection: Linux, or FreeBSD 13"
#endif

#define SOCKET_DEAD (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)

/* A look reads at most this many times; a connection that has more to say is never quiet. */
#define READS_A_LOOK 100

static const char closed_while_idle[] = "the connection was closed while idle";
static const char role_changed[] = "the server has changed its role";
static const char encoding_changed[] = "client_encoding is not UTF8 after a reset";

static int socket_events(const pgp_connection *connection)
{
    return pgp_pq_exchange_poll_now(PQsocket(connection->conn), POLLIN | POLLRDHUP);
}

bool pgp_pq_idle_is_alive(pgp_connection *connection)
{
    pgp_pq_assert_open(connection);
    return PQstatus(connection->conn) == CONNECTION_OK && !connection->is_terminated &&
           !(socket_events(connection) & SOCKET_DEAD);
}

/* --- the server's role ------------------------------------------------------ */

/* "on" or "off", by its second letter.  A proxy may tell nothing, or an empty text. */
static char parameter_read(const pgp_connection *connection, const char *name)
{
    const char *value = PQparameterStatus(connection->conn, name);

    return value && *value ? value[1] : '-';
}

void pgp_pq_idle_note_role(pgp_connection *connection)
{
    PQconninfoOption *options = PQconninfo(connection->conn);
    const char *wanted = pgp_conninfo_value(options, "target_session_attrs");

    connection->role.matters = wanted && strcmp(wanted, "any");
    PQconninfoFree(options);
    connection->role.hot_standby = parameter_read(connection, "in_hot_standby");
    connection->role.read_only = parameter_read(connection, "default_transaction_read_only");
}

/* Whether the server still has the role that it had at first, if target_session_attrs asks for
 * a role.  A borrower's variable may hide the server's own one; then nothing tells. */
static bool has_kept_role(const pgp_connection *connection)
{
    return !connection->role.matters || connection->vars.hide_role ||
           (connection->role.hot_standby == parameter_read(connection, "in_hot_standby") &&
            connection->role.read_only ==
                parameter_read(connection, "default_transaction_read_only"));
}

/* --- last words ------------------------------------------------------------- */

/* Take the answer to a reset, which is the driver's own.  Its last result may say why the
 * server ends the connection. */
static void results_take(pgp_connection *connection)
{
    PGresult *result;

    while (!PQisBusy(connection->conn) && (result = PQgetResult(connection->conn)) != NULL) {
        pgp_pq_exchange_judge(connection, result);
        PQclear(result);
    }
}

/* An error that comes outside of a statement goes to the driver's notice receiver.  An error
 * that ends a borrower's statement stays in libpq as the borrower's result: this function only
 * copies its text. */
void pgp_pq_idle_last_words(pgp_connection *connection, pgp_error *error)
{
    PGVerbosity before;
    bool is_active, more = true;
    int n;

    pgp_pq_assert_open(connection);
    before = PQsetErrorVerbosity(connection->conn, PQERRORS_VERBOSE);
    is_active = PQtransactionStatus(connection->conn) == PQTRANS_ACTIVE;
    pgp_pq_callbacks_trap(connection, false); /* the pool closes it next */
    *error = (pgp_error){.sqlstate = ""};
    if (!connection->is_terminated)
        connection->exchange.failed = false;
    pgp_pq_callbacks_listen(connection);
    for (n = 0; n < READS_A_LOOK && more && !connection->is_terminated; n++) {
        more = pgp_pq_exchange_poll_now(PQsocket(connection->conn), POLLIN) & POLLIN &&
               PQconsumeInput(connection->conn);
        if (connection->reset_pending)
            results_take(connection);
        PQisBusy(connection->conn); /* libpq parses what it has read */
    }
    if (connection->shut_down && !connection->is_terminated)
        pgp_error_set_text(error, connection->shut_down);
    else if (connection->is_terminated || connection->exchange.failed)
        *error = connection->exchange.error;
    else if (is_active)
        pgp_pq_error_connection(error, connection);
    PQsetErrorVerbosity(connection->conn, before);
}

/* --- checking --------------------------------------------------------------- */

/* Returns why the connection is dead, or NULL with its state in *state. */
static const char *socket_check(pgp_connection *connection, pgp_idle_state *state)
{
    int events = socket_events(connection), n;

    *state = connection->reset_pending ? PGP_IDLE_RESET_PENDING : PGP_IDLE_QUIET;
    if (events & SOCKET_DEAD)
        return closed_while_idle;
    if (!events || connection->reset_pending)
        return NULL;
    *state = PGP_IDLE_HEARD;
    for (n = 0; n < READS_A_LOOK && events; n++) {
        if (events & SOCKET_DEAD || !PQconsumeInput(connection->conn))
            return closed_while_idle;
        pgp_pq_exchange_drop_notifies(connection);
        events = socket_events(connection);
    }
    if (events)
        return "the connection does not become quiet";
    return has_kept_role(connection) ? NULL : role_changed;
}

pgp_idle_state pgp_pq_idle_check(pgp_connection *connection, pgp_error *error)
{
    const char *why;
    pgp_idle_state state;

    pgp_pq_assert_ready(connection);
    pgp_pq_callbacks_trap(connection, false);
    why = socket_check(connection, &state);
    if (!why && !connection->is_terminated)
        return state;
    pgp_pq_idle_last_words(connection, error);
    if (!*error->message)
        pgp_error_set_text(error, why ? why : closed_while_idle);
    return PGP_IDLE_DEAD;
}

/* --- preparing -------------------------------------------------------------- */

/* The answer to a reset has come.  false: the session is not what a borrower may expect. */
static bool reset_done(pgp_connection *connection, pgp_error *error)
{
    if (pgp_pq_reset_set_blocking(connection) && has_kept_role(connection))
        return true;
    pgp_error_set_text(error,
                       pgp_pq_has_kept_encoding(connection) ? role_changed : encoding_changed);
    return false;
}

bool pgp_pq_idle_prepare(pgp_connection *connection, bool ping, apr_time_t until,
                         pgp_error *error)
{
    const unsigned effects = connection->lease.effects;

    pgp_pq_assert_ready(connection);
    if (!pgp_pq_exchange_set_nonblocking(connection)) {
        pgp_pq_error_last(error, connection);
        return false;
    }
    if (connection->reset_pending) {
        if (!pgp_pq_exchange_receive_until(connection, until, error))
            return false;
        pgp_pq_exchange_drop_notifies(connection);
    }
    if (ping && (!pgp_pq_exchange_send(connection, "", error) ||
                 !pgp_pq_exchange_receive_until(connection, until, error)))
        return false;
    connection->lease.effects = effects; /* the driver's own do not count */
    return reset_done(connection, error);
}

bool pgp_pq_idle_take_answer(pgp_connection *connection, pgp_error *error)
{
    const unsigned effects = connection->lease.effects;
    struct pollfd await;
    pgp_step step = PGP_STEP_AGAIN;
    int n;

    for (n = 0; n < READS_A_LOOK && step == PGP_STEP_AGAIN && socket_events(connection); n++)
        step = pgp_pq_exchange_receive(connection, &await, error);
    connection->lease.effects = effects; /* the driver's own do not count */
    if (step == PGP_STEP_AGAIN)
        return true; /* prepare() collects what is still to come */
    pgp_pq_exchange_drop_notifies(connection);
    return step == PGP_STEP_DONE && reset_done(connection, error);
}

bool pgp_pq_idle_read(pgp_connection *connection, pgp_error *error)
{
    bool is_fit;

    pgp_pq_assert_ready(connection);
    pgp_pq_callbacks_trap(connection, false);
    is_fit = (!connection->reset_pending || pgp_pq_idle_take_answer(connection, error)) &&
             pgp_pq_idle_check(connection, error) != PGP_IDLE_DEAD;
    pgp_pq_callbacks_trap(connection, is_fit);
    return is_fit;
}
