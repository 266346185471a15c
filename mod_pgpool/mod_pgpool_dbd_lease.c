/*
 * mod_dbd's functions: open, close, acquire, cacquire, and the hook post_connect
 * (mod_pgpool_dbd.h).
 */
#include "mod_pgpool_dbd_driver.h"

#include <stdatomic.h>
#include <apr_hooks.h>
#include <apr_strings.h>
#include <http_log.h>
#include <libpq-events.h>

APLOG_USE_MODULE(dbd);

#pragma GCC visibility push(default)
APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(dbd, DBD, apr_status_t, post_connect,
                                    (apr_pool_t * p, dbd_cfg_t *conf, ap_dbd_t *dbd),
                                    (p, conf, dbd), OK, DECLINED)
#pragma GCC visibility pop

/* --- connections ------------------------------------------------------------ */

/* Instance data of a PGconn.  A handle may have its statements for longer than the PGconn
 * lives: a request keeps what ap_dbd_acquire() gave after its connection has gone back. */
typedef struct {
    apr_pool_t *p;
    apr_hash_t *prepared; /* pgpool_dbd_conf * -> its statements by label */
    _Atomic int users;    /* the PGconn, and each handle that has statements of it */
} connection_data;

static apr_status_t connection_unref(void *data)
{
    connection_data *here = data;

    if (atomic_fetch_sub(&here->users, 1) == 1)
        apr_pool_destroy(here->p);
    return APR_SUCCESS;
}

static int connection_event(PGEventId id, void *info, void *unused)
{
    if (id == PGEVT_CONNDESTROY) {
        const PGEventConnDestroy *event = info;
        connection_data *ended = PQinstanceData(event->conn, connection_event);

        if (ended)
            connection_unref(ended);
    }
    return 1;
}

/* NULL: there is no memory for it. */
static connection_data *connection_of(PGconn *conn)
{
    connection_data *found = PQinstanceData(conn, connection_event), *made;
    apr_pool_t *p;

    if (found)
        return found;
    if (!PQregisterEventProc(conn, connection_event, "mod_pgpool_dbd", NULL) ||
        apr_pool_create_unmanaged_ex(&p, NULL, NULL) != APR_SUCCESS)
        return NULL;
    apr_pool_tag(p, "pgpool dbd connection");
    made = apr_palloc(p, sizeof(*made));
    *made = (connection_data){.p = p, .prepared = apr_hash_make(p), .users = 1};
    PQsetInstanceData(conn, connection_event, made);
    return made;
}

static void handle_set(apr_dbd_t *handle, server_rec *s, PGconn *conn, apr_pool_t *p,
                       apr_hash_t *prepared)
{
    handle->conn = conn;
    handle->s = s;
    handle->shown = (ap_dbd_t){
        .handle = handle, .driver = &pgpool_dbd_driver, .prepared = prepared, .pool = p};
}

/* The statements of a server on a connection, for as long as p lives. */
static apr_hash_t *prepared_of(server_rec *s, PGconn *conn, apr_pool_t *p)
{
    const pgpool_dbd_conf *conf = pgpool_dbd_conf_of(s);
    connection_data *here = connection_of(conn);
    apr_hash_t *prepared = here ? apr_hash_get(here->prepared, &conf, sizeof conf) : NULL;

    if (!prepared)
        return conf->prepared;
    atomic_fetch_add(&here->users, 1);
    apr_pool_cleanup_register(p, here, connection_unref, apr_pool_cleanup_null);
    return prepared;
}

/* The first time that a server uses a connection, the post_connect hooks run: they may add
 * statements.  Returns whether they ran now. */
static bool post_connect_run(server_rec *s, PGconn *conn)
{
    pgpool_dbd_conf *conf = pgpool_dbd_conf_of(s);
    connection_data *here = connection_of(conn);
    apr_hash_t *prepared;
    apr_dbd_t *handle;

    if (!here || apr_hash_get(here->prepared, &conf, sizeof conf))
        return false;
    prepared = apr_hash_copy(here->p, conf->prepared);
    handle = apr_pcalloc(here->p, sizeof(*handle));
    handle_set(handle, s, conn, here->p, prepared);
    dbd_run_post_connect(here->p, &conf->shown, &handle->shown);
    apr_hash_set(here->prepared, apr_pmemdup(here->p, &conf, sizeof conf), sizeof conf,
                 prepared);
    return true;
}

/* --- handles ---------------------------------------------------------------- */

bool pgpool_dbd_handle_is_held(const apr_dbd_t *handle)
{
    if (!handle->conn || !handle->initial)
        return handle->conn != NULL;
    return pgpool_dbd_api.lease_number(handle->initial,
                                       pgpool_dbd_pool_name(pgpool_dbd_conf_of(handle->s))) ==
           handle->lease;
}

/* A transaction must not outlive the lease that it was begun in. */
static void transaction_forget(apr_dbd_t *handle)
{
    if (handle->trans) {
        handle->trans->handle = NULL;
        handle->trans->failed = true;
    }
    handle->trans = NULL;
}

static apr_status_t caller_cleanup(void *data)
{
    apr_dbd_t *handle = data;

    handle->caller = NULL;
    pgpool_dbd_handle_close(handle);
    return APR_SUCCESS;
}

/* pgpool_open() has tied the connection to the handle's own memory. */
void pgpool_dbd_handle_close(apr_dbd_t *handle)
{
    if (handle->initial || !handle->own)
        return;
    transaction_forget(handle);
    if (handle->client)
        ap_set_module_config(handle->client->conn_config, &dbd_module, NULL);
    if (handle->caller)
        apr_pool_cleanup_kill(handle->caller, handle, caller_cleanup);
    apr_pool_destroy(handle->own);
}

/* --- without a request ------------------------------------------------------ */

/* Threads share the pools of the process, and nobody clears them. */
static bool lives_as_long_as_process(const apr_pool_t *p, const server_rec *s)
{
    return p == s->process->pool || p == s->process->pconf;
}

ap_dbd_t *ap_dbd_open(apr_pool_t *p, server_rec *s)
{
    const char *name = pgpool_dbd_pool_name(pgpool_dbd_conf_of(s));
    apr_dbd_t *handle;
    apr_pool_t *own;
    PGconn *conn;

    if (!pgpool_dbd_api.open || apr_pool_create_unmanaged_ex(&own, NULL, NULL) != APR_SUCCESS)
        return NULL;
    apr_pool_tag(own, "pgpool dbd lease");
    if (pgpool_dbd_api.open(s, name, own, &conn) != APR_SUCCESS) {
        apr_pool_destroy(own);
        return NULL;
    }
    handle = apr_pcalloc(own, sizeof(*handle));
    handle->own = own;
    post_connect_run(s, conn);
    handle->caller = lives_as_long_as_process(p, s) ? NULL : p;
    handle_set(handle, s, conn, own, prepared_of(s, conn, own));
    if (handle->caller)
        apr_pool_cleanup_register(p, handle, caller_cleanup, apr_pool_cleanup_null);
    return &handle->shown;
}

void ap_dbd_close(server_rec *s, ap_dbd_t *dbd)
{
    if (dbd)
        pgpool_dbd_handle_close(dbd->handle);
}

ap_dbd_t *ap_dbd_cacquire(conn_rec *c)
{
    ap_dbd_t *kept = ap_get_module_config(c->conn_config, &dbd_module);

    if (kept && apr_dbd_check_conn(kept->driver, c->pool, kept->handle) == APR_SUCCESS)
        return kept;
    ap_dbd_close(c->base_server, kept);
    kept = ap_dbd_open(c->pool, c->base_server);
    if (kept)
        kept->handle->client = c;
    ap_set_module_config(c->conn_config, &dbd_module, kept);
    return kept;
}

/* --- for a request ---------------------------------------------------------- */

static request_rec *initial_of(request_rec *r)
{
    while (r->main || r->prev)
        r = r->main ? r->main : r->prev;
    return r;
}

/* A connection that has died since the request's last consumer used it is replaced, as mod_dbd
 * does: consumers keep nothing in the session from one call to the next. */
static apr_status_t conn_acquire(request_rec *r, const char *name, PGconn **conn)
{
    apr_status_t rv = pgpool_dbd_api.acquire(r, name, conn);

    return rv == PGPOOL_ELOST ? pgpool_dbd_api.acquire(r, name, conn) : rv;
}

static apr_dbd_t *handle_of(request_rec *initial)
{
    apr_dbd_t *handle = ap_get_module_config(initial->request_config, &dbd_module);

    if (!handle) {
        handle = apr_pcalloc(initial->pool, sizeof(*handle));
        handle->initial = initial;
        ap_set_module_config(initial->request_config, &dbd_module, handle);
    }
    return handle;
}

static apr_status_t running_cleanup(void *data)
{
    apr_dbd_t *handle = data;

    handle->running = handle->initial;
    return APR_SUCCESS;
}

/* PgPoolStatementTimeout is that of the request that runs the statement. */
static void running_set(apr_dbd_t *handle, request_rec *r)
{
    if (handle->running != r && r != handle->initial)
        apr_pool_cleanup_register(r->pool, handle, running_cleanup, apr_pool_cleanup_null);
    handle->running = r;
}

ap_dbd_t *ap_dbd_acquire(request_rec *r)
{
    const char *name = pgpool_dbd_pool_name(pgpool_dbd_conf_of(r->server));
    request_rec *initial = initial_of(r);
    apr_dbd_t *handle;
    uint64_t lease;
    PGconn *conn;

    if (!pgpool_dbd_api.acquire)
        return NULL;
    if (conn_acquire(r, name, &conn) != APR_SUCCESS)
        return NULL;
    /* A hook may have undone what PgPoolSet sets, by set_config() even unseen.  If a hook has
     * cost the connection, no other is tried, whose hooks would do the same. */
    if (post_connect_run(r->server, conn)) {
        pgpool_dbd_api.lease_doubt(r, name);
        if (pgpool_dbd_api.acquire(r, name, &conn) != APR_SUCCESS)
            return NULL;
    }
    handle = handle_of(initial);
    running_set(handle, r);
    lease = pgpool_dbd_api.lease_number(initial, name);
    if (handle->lease != lease) {
        transaction_forget(handle);
        handle->lease = lease;
        handle_set(handle, r->server, conn, initial->pool,
                   prepared_of(r->server, conn, initial->pool));
    }
    return &handle->shown;
}
