/* The driver on libpq: its table, and what a connection tells of itself. */

#include "pgp_pq_driver.h"

#include "pgp_alloc.h"
#include "pgp_pq.h"
#include "pgp_pq_connect.h"
#include "pgp_pq_reset.h"
#include "pgp_pq_vars.h"

static pgp_connection *link_connect(const pgp_context *context, unsigned first_host,
                                    bool survey, void *owner, pgp_error *error)
{
    pgp_connection *link = pgp_alloc(sizeof(*link));

    link->magic = PGP_PQ_MAGIC;
    link->context = context;
    link->settings = context->settings;
    link->owner = owner;
    link->connecting.first_host = first_host;
    link->connecting.survey = survey;
    if (pgp_pq_connect_start(link, error))
        return link;
    pgp_pq_close_destroy(link);
    return NULL;
}

static pgp_step link_step(pgp_connection *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = PGP_STEP_DONE;

    pgp_pq_assert(link);
    switch (link->phase) {
    case LOOKING_UP:
    case CONNECTING:
    case INITIALISING:
    case SURVEYING:
        step = pgp_pq_connect_step(link, await, error);
        break;
    case CANCELLING:
    case ABSORBING:
    case ROLLING_BACK:
        step = pgp_pq_cleanup_step(link, await, error);
        break;
    case CLOSING:
        return pgp_pq_close_step(link, await);
    case READY:
        assert(!"step() has something to do");
    }
    pgp_pq_callbacks_trap(link, step == PGP_STEP_DONE);
    return step;
}

static int link_capacity(const pgp_connection *link)
{
    pgp_pq_assert_ready(link);
    return link->capacity;
}

static const char *link_tls(const pgp_connection *link)
{
    pgp_pq_assert_ready(link);
    return PQsslInUse(link->conn) ? PQsslAttribute(link->conn, "protocol") : NULL;
}

static unsigned link_backend(const pgp_connection *link)
{
    pgp_pq_assert(link);
    return link->backend;
}

static int link_socket(const pgp_connection *link)
{
    pgp_pq_assert_ready(link);
    return PQsocket(link->conn);
}

static void *link_handle(const pgp_connection *link)
{
    pgp_pq_assert_ready(link);
    return link->conn;
}

void *pgp_pq_driver_owner(const PGconn *conn)
{
    const pgp_connection *link = pgp_pq_callbacks_link(conn);

    return link ? link->owner : NULL;
}

const pgp_driver pgp_pq_driver = {
    .connect = link_connect,
    .step = link_step,
    .is_alive = pgp_pq_idle_is_alive,
    .check_idle = pgp_pq_idle_check,
    .take_in = pgp_pq_idle_take_in,
    .last_words = pgp_pq_idle_last_words,
    .prepare = pgp_pq_idle_prepare,
    .is_set = pgp_pq_vars_are_set,
    .set = pgp_pq_vars_set,
    .finish_lease = pgp_pq_reset_finish_lease,
    .cleanup = pgp_pq_cleanup_start,
    .close = pgp_pq_close_start,
    .destroy = pgp_pq_close_destroy,
    .capacity = link_capacity,
    .tls = link_tls,
    .backend = link_backend,
    .socket = link_socket,
    .handle = link_handle,
};
