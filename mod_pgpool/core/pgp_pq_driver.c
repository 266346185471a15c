/* The driver on libpq: its table, and the facts that a connection knows about itself. */

#include "pgp_pq_driver.h"

#include "pgp_alloc.h"
#include "pgp_pq.h"
#include "pgp_pq_connect.h"
#include "pgp_pq_reset.h"
#include "pgp_pq_vars.h"

static pgp_connection *driver_connect(const pgp_context *context, unsigned first_host,
                                      bool survey, void *owner, pgp_error *error)
{
    pgp_connection *connection = pgp_alloc(sizeof(*connection));

    connection->magic = PGP_PQ_MAGIC;
    connection->context = context;
    connection->settings = context->settings;
    connection->owner = owner;
    connection->connecting.first_host = first_host;
    connection->connecting.survey = survey;
    pgp_pq_statements_init(&connection->statements);
    if (pgp_pq_connect_start(connection, error))
        return connection;
    pgp_pq_close_destroy(connection);
    return NULL;
}

static pgp_step driver_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    pgp_step step = PGP_STEP_DONE;

    pgp_pq_assert(connection);
    switch (connection->phase) {
    case PGP_PQ_LOOKING_UP:
    case PGP_PQ_CONNECTING:
    case PGP_PQ_INITIALISING:
    case PGP_PQ_SURVEYING:
        step = pgp_pq_connect_step(connection, await, error);
        break;
    case PGP_PQ_CANCELLING:
    case PGP_PQ_ABSORBING:
    case PGP_PQ_ROLLING_BACK:
        step = pgp_pq_cleanup_step(connection, await, error);
        break;
    case PGP_PQ_CLOSING:
        return pgp_pq_close_step(connection, await);
    case PGP_PQ_READY:
        assert(!"step() has something to do");
    }
    pgp_pq_callbacks_trap(connection, step == PGP_STEP_DONE);
    return step;
}

static int driver_capacity(const pgp_connection *connection)
{
    pgp_pq_assert_ready(connection);
    return connection->capacity;
}

static const char *driver_tls(const pgp_connection *connection)
{
    pgp_pq_assert_ready(connection);
    return PQsslInUse(connection->conn) ? PQsslAttribute(connection->conn, "protocol") : NULL;
}

static unsigned driver_backend(const pgp_connection *connection)
{
    pgp_pq_assert(connection);
    return connection->backend;
}

static int driver_socket(const pgp_connection *connection)
{
    pgp_pq_assert_ready(connection);
    return PQsocket(connection->conn);
}

static void *driver_handle(const pgp_connection *connection)
{
    pgp_pq_assert_ready(connection);
    return connection->conn;
}

void *pgp_pq_driver_owner(const PGconn *conn)
{
    const pgp_connection *connection = pgp_pq_callbacks_connection(conn);

    return connection ? connection->owner : NULL;
}

bool pgp_pq_driver_speaks_utf8(const PGconn *conn)
{
    return pgp_pq_has_kept_encoding(pgp_pq_callbacks_connection(conn));
}

const pgp_driver pgp_pq_driver = {
    .connect = driver_connect,
    .step = driver_step,
    .is_alive = pgp_pq_idle_is_alive,
    .check_idle = pgp_pq_idle_check,
    .read_idle = pgp_pq_idle_read,
    .shutdown = pgp_pq_exchange_shutdown,
    .last_words = pgp_pq_idle_last_words,
    .prepare = pgp_pq_idle_prepare,
    .has_vars = pgp_pq_vars_are_set,
    .doubt_vars = pgp_pq_vars_doubt,
    .set_vars = pgp_pq_vars_set,
    .finish_lease = pgp_pq_reset_finish_lease,
    .cleanup = pgp_pq_cleanup_start,
    .close = pgp_pq_close_start,
    .destroy = pgp_pq_close_destroy,
    .capacity = driver_capacity,
    .tls = driver_tls,
    .backend = driver_backend,
    .socket = driver_socket,
    .handle = driver_handle,
};
