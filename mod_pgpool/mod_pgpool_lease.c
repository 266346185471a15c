/*
 * Borrows connections and runs the modules' hooks on them (mod_pgpool_lease.h).
 */
#include "mod_pgpool_lease.h"

#include <apr_strings.h>

#include "mod_pgpool.h"
#include "mod_pgpool_identity.h"
#include "mod_pgpool_outcome.h"

APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(pgpool, PGPOOL, int, connect,
                                    (const char *pool, PGconn *conn), (pool, conn), OK,
                                    DECLINED)
APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(pgpool, PGPOOL, int, attach,
                                    (request_rec * r, const char *pool, PGconn *conn),
                                    (r, pool, conn), OK, DECLINED)

/* Run the hooks that a connection is due before its borrower gets it.  Returns NULL, or the
 * name of the hook that failed. */
static const char *hooks_run(request_rec *initial, pgp_conn *conn)
{
    const char *pool = pgp_pool_name(pgp_conn_pool(conn));
    PGconn *handle = pgp_conn_handle(conn);

    if (!pgp_conn_is_greeted(conn) && pgpool_run_connect(pool, handle) != OK)
        return "connect";
    pgp_conn_set_greeted(conn);
    if (initial && pgpool_run_attach(initial, pool, handle) != OK)
        return "attach";
    return NULL;
}

/* The variables are set after the hooks, which may undo them. */
apr_status_t pgpool_lease_take(request_rec *r, request_rec *initial, pgp_pool *pool,
                               const pgp_vars *vars, pgp_conn **conn, pgp_ticket *info,
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

    *info = (pgp_ticket){.client = r ? r->useragent_ip : NULL, .what = what};
    *denied = false;
    for (;;) {
        const pgp_outcome outcome = pgp_pool_acquire(pool, conn, info);
        const char *failed_hook;

        if (outcome != PGP_GRANTED)
            return pgpool_outcome_status(outcome);
        failed_hook = hooks_run(initial, *conn);
        if (failed_hook) {
            info->error.sqlstate[0] = '\0';
            apr_snprintf(info->error.message, sizeof info->error.message,
                         "the %s hook of a module refused backend %u", failed_hook,
                         pgp_conn_backend(*conn));
            pgp_pool_discard(conn, PGP_REASON_HOOK);
            return PGPOOL_EUNAVAIL;
        }
        switch (pgpool_lease_set(r, *conn, vars, info->until, &info->error)) {
        case PGP_SET_DONE:
            return APR_SUCCESS;
        case PGP_SET_DENIED:
            pgp_pool_release(conn);
            *denied = true;
            return PGPOOL_EUNAVAIL;
        case PGP_SET_FAILED: /* replace the connection, within the same deadline */
            pgp_pool_unfit(conn, &info->error);
            break;
        }
    }
}

pgp_set_outcome pgpool_lease_set(request_rec *r, pgp_conn *conn, const pgp_vars *vars,
                                 apr_time_t until, pgp_error *error)
{
    const char *login = PQuser(pgp_conn_handle(conn));
    const char *forbidden = r ? pgpool_identity_forbidden(r, vars, login) : NULL;

    if (!forbidden)
        return pgp_conn_set(conn, vars, until, error);
    *error = (pgp_error){.sqlstate = ""};
    apr_cpystrn(error->message, forbidden, sizeof error->message);
    return PGP_SET_DENIED;
}

/* Every request pays for this text, and a format would cost it twice the time. */
const char *pgpool_lease_text(apr_pool_t *p, const pgp_conn *conn)
{
    return apr_pstrcat(p, pgp_pool_name(pgp_conn_pool(conn)), "/",
                       apr_off_t_toa(p, pgp_conn_backend(conn)), "/",
                       apr_off_t_toa(p, (apr_off_t)pgp_conn_lease_id(conn)), NULL);
}
