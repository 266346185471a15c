/*
 * Borrows connections and runs the modules' hooks on them (mod_pgpool_lease.h).
 */
#include "mod_pgpool_lease.h"

#include <apr_strings.h>

#include "core/pgp_pq_driver.h"
#include "mod_pgpool.h"
#include "mod_pgpool_identity.h"
#include "mod_pgpool_outcome.h"

APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(pgpool, PGPOOL, int, connect,
                                    (const char *pool, PGconn *conn), (pool, conn), OK,
                                    DECLINED)
APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(pgpool, PGPOOL, int, attach,
                                    (request_rec * r, const char *pool, PGconn *conn),
                                    (r, pool, conn), OK, DECLINED)

/* Whether a hook has accepted the connection, and left it as its borrower expects it: in UTF-8,
 * and not in a transaction, which would take in the borrower's own statements. */
static bool hook_has_accepted(const char *hook, int status, const pgp_slot *slot,
                              pgp_error *error)
{
    const PGconn *handle = pgp_slot_handle(slot);
    const char *fault;

    if (status != OK)
        fault = "refused";
    else if (PQtransactionStatus(handle) != PQTRANS_IDLE ||
             PQpipelineStatus(handle) != PQ_PIPELINE_OFF)
        fault = "has left a transaction or a query open on";
    else if (!pgp_pq_driver_speaks_utf8(handle))
        fault = "has changed client_encoding on";
    else
        return true;
    error->sqlstate[0] = '\0';
    apr_snprintf(error->message, sizeof error->message, "the %s hook of a module %s backend %u",
                 hook, fault, pgp_slot_backend(slot));
    return false;
}

/* Run the hooks that are due before the borrower gets the connection.  Returns whether they
 * have accepted it; if not, *error says why. */
static bool hooks_run(request_rec *initial, pgp_slot *slot, pgp_error *error)
{
    const char *pool = pgp_pool_name(pgp_slot_pool(slot));
    PGconn *handle = pgp_slot_handle(slot);

    if (!pgp_slot_has_run_hooks(slot) &&
        !hook_has_accepted("connect", pgpool_run_connect(pool, handle), slot, error))
        return false;
    pgp_slot_set_hooks_run(slot);
    return !initial ||
           hook_has_accepted("attach", pgpool_run_attach(initial, pool, handle), slot, error);
}

/* Give up a connection that was lost while the hooks ran. */
static void slot_discard_lost(pgp_slot **slot, pgp_error *error)
{
    pgp_slot_last_words(*slot, error);
    if (!*error->message)
        apr_cpystrn(error->message, "it was lost in a hook of a module", sizeof error->message);
    pgp_pool_discard_unfit(slot, error);
}

/* A connection that is lost on the way is replaced, within the same deadline.  The variables
 * are set after the hooks, which may undo them. */
apr_status_t pgpool_lease_take(request_rec *r, request_rec *initial, pgp_pool *pool,
                               const pgp_vars *vars, pgp_slot **slot, pgp_acquire_info *info,
                               bool *denied)
{
    /* The status page and PgPoolHoldWarning print this. */
    const char *const what[] = {r ? r->method : NULL,
                                " ",
                                r ? r->uri : NULL,
                                " (",
                                r && r->handler ? r->handler : "no handler",
                                ")",
                                NULL};

    *info = (pgp_acquire_info){.client = r ? r->useragent_ip : NULL, .what = what};
    *denied = false;
    for (;;) {
        const pgp_outcome outcome = pgp_pool_acquire(pool, slot, info);
        bool is_accepted;

        if (outcome != PGP_GRANTED)
            return pgpool_outcome_status(outcome);
        is_accepted = hooks_run(initial, *slot, &info->error);
        if (PQstatus(pgp_slot_handle(*slot)) != CONNECTION_OK) {
            slot_discard_lost(slot, &info->error);
            continue;
        }
        if (!is_accepted) {
            pgp_pool_discard(slot, PGP_REASON_HOOK);
            return PGPOOL_EUNAVAIL;
        }
        switch (pgpool_lease_set(r, *slot, vars, info->until, &info->error)) {
        case PGP_SET_DONE:
            return APR_SUCCESS;
        case PGP_SET_DENIED:
            pgp_pool_release(slot);
            *denied = true;
            return PGPOOL_EUNAVAIL;
        case PGP_SET_FAILED:
            pgp_pool_discard_unfit(slot, &info->error);
            break;
        }
    }
}

pgp_set_outcome pgpool_lease_set(request_rec *r, pgp_slot *slot, const pgp_vars *vars,
                                 apr_time_t until, pgp_error *error)
{
    const char *forbidden = r ? pgpool_identity_forbidden(r, vars, pgp_slot_handle(slot))
                              : NULL;

    if (!forbidden)
        return pgp_slot_set_vars(slot, vars, until, error);
    *error = (pgp_error){.sqlstate = ""};
    apr_cpystrn(error->message, forbidden, sizeof error->message);
    return PGP_SET_DENIED;
}

/* Every request pays for this text, and a format would cost it twice the time. */
const char *pgpool_lease_text(apr_pool_t *p, const pgp_slot *slot)
{
    return apr_pstrcat(p, pgp_pool_name(pgp_slot_pool(slot)), "/",
                       apr_off_t_toa(p, pgp_slot_backend(slot)), "/",
                       apr_off_t_toa(p, (apr_off_t)pgp_slot_lease_id(slot)), NULL);
}
