/*
 * The functions that a module calls: acquire and release for a request, open and close without
 * one.
 *
 * acquire
 *   1. Find the pool and the family's pin on it.
 *   2. If the pin's connection has died, report the loss.  If the last acquire failed less
 *      than a second ago, fail with the same status, without a wait.
 *   3. Evaluate the request's session variables.
 *   4. If the pin holds a connection, set them on it.  Otherwise borrow a connection
 *      (mod_pgpool_lease.h), with a wait up to PgPoolAcquireTimeout.
 *   5. The request is listed as a borrower of the pin.
 */
#include "mod_pgpool_api.h"

#include <apr_strings.h>
#include <http_log.h>

#include "core/pgp_pq_driver.h"
#include "mod_pgpool.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_identity.h"
#include "mod_pgpool_lease.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_outcome.h"
#include "mod_pgpool_pin.h"
#include "mod_pgpool_release.h"
#include "mod_pgpool_request.h"

APLOG_USE_MODULE(pgpool);

/* For so long after a failed acquire, the next one fails at once with the same status. */
#define FAILURE_REMEMBERED PGP_SEC(1)

/* The name of the pool that a caller means. */
static const char *pool_name_or_default(const char *name, ap_conf_vector_t *per_dir)
{
    const pgpool_dir_conf *dir = ap_get_module_config(per_dir, &pgpool_module);

    if (name)
        return name;
    return dir && dir->use ? dir->use : PGPOOL_DEFAULT_NAME;
}

/* --- acquire ---------------------------------------------------------------- */

/* A lost connection, as long as an outer handler may still have its PGconn. */
typedef struct {
    const pgp_pool *pool;
    pgp_connection *connection;
} lost_connection;

static apr_status_t lost_cleanup(void *data)
{
    lost_connection *lost = data;

    if (!pgpool_child_is_aborted())
        pgp_pool_destroy_detached(lost->pool, &lost->connection);
    return APR_SUCCESS;
}

/* The loss is reported once: the next acquire borrows another connection. */
apr_status_t pgpool_pin_report_loss(request_rec *r, pgpool_pin *pin)
{
    request_rec *initial = pgpool_request_initial(r);
    pgp_pool *pool = pin->pool->core;
    lost_connection *lost = apr_palloc(initial->pool, sizeof(*lost));
    char words[PGP_ERROR_WORDS];
    pgp_error error;
    const char *text;

    pgp_slot_last_words(pin->slot, &error);
    text = apr_psprintf(r->pool,
                        "pool %s: backend %u, pinned to this request, is gone%s%s; uncommitted "
                        "work is lost",
                        pgp_pool_name(pool), pgp_slot_backend(pin->slot),
                        *error.message ? ": " : "", pgp_error_print(words, &error));
    *lost = (lost_connection){.pool = pool, .connection = pgp_pool_detach(&pin->slot)};
    apr_pool_cleanup_register(initial->pool, lost, lost_cleanup, apr_pool_cleanup_null);
    return pgpool_fail(r, PGP_MSG_LOST, PGPOOL_ELOST, text);
}

/* Whether a value has characters that are no UTF-8, or that the database cannot hold. */
static bool is_encoding_error(const pgp_error *error)
{
    return !strcmp(error->sqlstate, "22021") || !strcmp(error->sqlstate, "22P05");
}

/* Text comes from the client, whose mistakes must not fill the log. */
static apr_status_t pin_fail_denied(request_rec *r, request_rec *initial, const pgpool_pin *pin,
                                    const pgp_error *error)
{
    char words[PGP_ERROR_WORDS];
    const char *text = apr_psprintf(r->pool, "pool %s: PgPoolSet: %s",
                                    pgp_pool_name(pin->pool->core),
                                    pgp_error_print(words, error));

    if (!is_encoding_error(error))
        return pgpool_fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL, text);
    pgpool_request_of(initial)->has_bad_value = true;
    pgpool_note_error(r, text);
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "PGP%d: %s", PGP_MSG_IDENTITY, text);
    return PGPOOL_EUNAVAIL;
}

static apr_status_t pin_fail_in_use(request_rec *r, const pgpool_pin *pin,
                                    const request_rec *inner)
{
    return pgpool_fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL,
                       apr_psprintf(r->pool,
                                    "pool %s: PgPoolSet: the connection is in use by %s, which "
                                    "runs inside this request with other settings",
                                    pgp_pool_name(pin->pool->core), inner->uri));
}

/* To borrow another connection would run the hook again, and one of the two would be lost. */
static apr_status_t pin_fail_hook(request_rec *r, const pgpool_pin *pin)
{
    return pgpool_fail(r, PGP_MSG_NO_CONNECTION, PGPOOL_EUNAVAIL,
                       apr_psprintf(r->pool,
                                    "pool %s: a hook of a module has acquired again; it has to "
                                    "use the connection that it is called with",
                                    pgp_pool_name(pin->pool->core)));
}

/* Set the variables of r on the pinned connection.  If that fails half-way, the statements of r
 * must not run with those of an outer request: the connection is shut down. */
static apr_status_t pin_set_vars(request_rec *r, request_rec *initial, pgpool_pin *pin,
                                 const pgp_vars *vars)
{
    const pgpool_pin_borrower *outer = pgpool_pin_outer(pin, r);
    pgp_error error;

    if (outer && !pgp_vars_equal(&outer->vars, vars) &&
        !pgpool_request_is_bracketed(r, outer->r))
        return pgpool_fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL,
                           apr_psprintf(r->pool,
                                        "pool %s: PgPoolSet: %s has the connection, and its "
                                        "settings cannot be changed for a request whose end is "
                                        "not seen: one that is only looked up, or whose "
                                        "handler has finished",
                                        pgp_pool_name(pin->pool->core), outer->r->uri));
    switch (pgpool_lease_set(r, pin->slot, vars, PGP_NEVER, &error)) {
    case PGP_SET_DONE:
        return APR_SUCCESS;
    case PGP_SET_DENIED:
        return pin_fail_denied(r, initial, pin, &error);
    case PGP_SET_FAILED:
        break;
    }
    pgp_slot_shutdown(pin->slot, "PgPoolSet could not be set");
    return pgpool_pin_report_loss(r, pin);
}

static bool releases_at_response(const request_rec *r)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);

    return dir->when == PGPOOL_RELEASE_RESPONSE;
}

static apr_status_t pin_borrow(request_rec *r, request_rec *initial, pgpool_pin *pin,
                               const pgp_vars *vars)
{
    pgp_pool *pool = pin->pool->core;
    pgpool_request *kept = pgpool_request_of(initial);
    pgp_acquire_info info;
    pgp_slot *slot;
    bool denied;
    apr_status_t rv;

    pin->is_borrowing = true;
    rv = pgpool_lease_take(r, initial, pool, vars, &slot, &info, &denied);
    pin->is_borrowing = false;
    pgpool_note(r, pin->pool->wait_note, apr_off_t_toa(initial->pool, info.waited));
    pin->failure.rv = APR_SUCCESS;
    if (denied)
        return pin_fail_denied(r, initial, pin, &info.error);
    if (rv != APR_SUCCESS) {
        pin->failure.rv = rv;
        pin->failure.text = pgpool_outcome_text(initial->pool, pgp_pool_name(pool), rv, &info);
        pin->failure.until = pgp_now(pgpool_child_env()) + FAILURE_REMEMBERED;
        return pgpool_fail_often(r, pool, rv, pin->failure.text);
    }
    pin->slot = slot;
    pin->lease_text = pgpool_lease_text(initial->pool, slot);
    if (releases_at_response(r)) {
        pin->at_response = true;
        if (!kept->at_response)
            pgpool_release_at_response_end(r, initial);
        kept->at_response = true;
    }
    return APR_SUCCESS;
}

static pgpool_pin *pin_find_or_make(request_rec *initial, const pgpool_child_pool *pool)
{
    pgpool_pin *pin = pgpool_pin_find(initial, pool);

    if (pin)
        return pin;
    if (!pgpool_request_of(initial)->pins)
        pgpool_release_at_request_end(initial);
    return pgpool_pin_make(initial, pool);
}

apr_status_t pgpool_acquire(request_rec *r, const char *name, PGconn **conn)
{
    request_rec *initial = pgpool_request_initial(r);
    const pgpool_pin_borrower *inner;
    const pgpool_child_pool *pool;
    const char *wrong;
    pgpool_pin *pin;
    pgp_vars vars;
    apr_status_t rv;

    if (!pgpool_child_is_here())
        return PGPOOL_ESTOPPING;
    name = pool_name_or_default(name, r->per_dir_config);
    pool = pgpool_child_pool_find(r->server, name);
    if (!pool)
        return pgpool_fail(r, PGP_MSG_NO_CONNECTION, PGPOOL_ENOPOOL,
                           apr_psprintf(r->pool,
                                        "pool %s: there is no such pool in this server; write "
                                        "PgPoolConninfo or <PgPool %s> in its configuration",
                                        name, name));
    pin = pin_find_or_make(initial, pool);
    if (pin->is_borrowing)
        return pin_fail_hook(r, pin);
    pgpool_request_of(initial)->has_bad_value = false;

    if (pin->slot && !pgp_slot_is_alive(pin->slot))
        return pgpool_pin_report_loss(r, pin);
    if (!pin->slot && pin->failure.rv && pgp_now(pgpool_child_env()) < pin->failure.until) {
        pgpool_note_error(r, pin->failure.text);
        return pin->failure.rv;
    }
    wrong = pgpool_identity_evaluate(r, &vars);
    if (wrong)
        return pgpool_fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL, wrong);
    inner = pin->slot ? pgpool_pin_inner(pin, r) : NULL;
    if (inner && !pgp_vars_equal(&inner->vars, &vars))
        return pin_fail_in_use(r, pin, inner->r);
    if (!inner)
        pgpool_pin_prune(pin, r);
    rv = pin->slot ? pin_set_vars(r, initial, pin, &vars) : pin_borrow(r, initial, pin, &vars);
    if (rv != APR_SUCCESS)
        return rv;
    pgpool_pin_enter(pin, r, &vars);
    /* This handler may use the connection after the response, even if another pinned it. */
    if (!releases_at_response(r))
        pin->at_response = false;
    pgpool_note(r, pool->lease_note, pin->lease_text);
    *conn = pgp_slot_handle(pin->slot);
    return APR_SUCCESS;
}

pgpool_pin *pgpool_pin_of(request_rec *r, const char *name)
{
    const pgpool_child_pool *pool = pgpool_child_pool_find(
        r->server, pool_name_or_default(name, r->per_dir_config));

    return pool ? pgpool_pin_find(pgpool_request_initial(r), pool) : NULL;
}

uint64_t pgpool_lease_number(request_rec *r, const char *name)
{
    const pgpool_pin *pin = pgpool_pin_of(r, name);

    return pin && pin->slot ? pgp_slot_lease_id(pin->slot) : 0;
}

void pgpool_lease_doubt(request_rec *r, const char *name)
{
    const pgpool_pin *pin = pgpool_pin_of(r, name);

    if (pin && pin->slot && pgp_slot_is_alive(pin->slot))
        pgp_slot_doubt_vars(pin->slot);
}

void pgpool_release(request_rec *r, const char *name)
{
    pgpool_pin *pin = pgpool_pin_of(r, name);

    if (!pin || !pgpool_child_is_here())
        return;
    pgpool_pin_leave(pin, r);
    pgpool_pin_release(pin);
}

/* --- without a request ------------------------------------------------------ */

/* A lease of pgpool_open(), in memory of its caller's pool. */
typedef struct {
    pgp_slot *slot;
    apr_pool_t *p;
} open_lease;

static apr_status_t open_cleanup(void *data)
{
    open_lease *lease = data;

    if (pgpool_child_is_aborted())
        return APR_SUCCESS;
    pgp_slot_set_baton(lease->slot, NULL);
    pgp_pool_release(&lease->slot);
    return APR_SUCCESS;
}

apr_status_t pgpool_open(server_rec *s, const char *name, apr_pool_t *p, PGconn **conn)
{
    static const pgp_vars no_vars = {.n = 0};
    const pgpool_child_pool *pool;
    open_lease *lease;
    pgp_slot *slot;
    pgp_acquire_info info;
    bool denied;
    apr_status_t rv;

    if (!pgpool_child_is_here())
        return PGPOOL_ESTOPPING;
    name = pool_name_or_default(name, s->lookup_defaults);
    pool = pgpool_child_pool_find(s, name);
    if (!pool) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, "PGP%d: pool %s: %s", PGP_MSG_NO_CONNECTION,
                     name, pgpool_strerror(PGPOOL_ENOPOOL));
        return PGPOOL_ENOPOOL;
    }
    rv = pgpool_lease_take(NULL, NULL, pool->core, &no_vars, &slot, &info, &denied);
    if (rv != APR_SUCCESS)
        return pgpool_fail_often_in_server(s, p, pool->core, rv,
                                           pgpool_outcome_text(p, name, rv, &info));
    lease = apr_palloc(p, sizeof(*lease));
    *lease = (open_lease){.slot = slot, .p = p};
    pgp_slot_set_baton(slot, lease);
    apr_pool_cleanup_register(p, lease, open_cleanup, apr_pool_cleanup_null);
    *conn = pgp_slot_handle(slot);
    return APR_SUCCESS;
}

void pgpool_close(PGconn *conn)
{
    const pgp_slot *slot = conn && pgpool_child_is_here() ? pgp_pq_driver_owner(conn) : NULL;
    open_lease *lease = slot ? pgp_slot_baton(slot) : NULL;

    if (lease)
        apr_pool_cleanup_run(lease->p, lease, open_cleanup);
}
