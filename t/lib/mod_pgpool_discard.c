/* Two functions for mod_pgpool's hooks that discard all of a session's state.  The module has
 * no hook of httpd, which could change the way that httpd authenticates. */
#include <httpd.h>
#include <http_config.h>

#include "mod_pgpool.h"

module __attribute__((visibility("default"))) pgpool_discard_module;

static int discard(PGconn *conn)
{
    PQclear(PQexec(conn, "DISCARD ALL"));
    return OK;
}

static int on_connect(const char *pool, PGconn *conn)
{
    return discard(conn);
}

static int on_attach(request_rec *r, const char *pool, PGconn *conn)
{
    return discard(conn);
}

static void register_hooks(apr_pool_t *p)
{
    APR_OPTIONAL_HOOK(pgpool, connect, on_connect, NULL, NULL, APR_HOOK_MIDDLE);
    APR_OPTIONAL_HOOK(pgpool, attach, on_attach, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(pgpool_discard) = {STANDARD20_MODULE_STUFF, .register_hooks = register_hooks};
