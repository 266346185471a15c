/* An authentication provider, `pgpool`, that uses the request's own connection, as providers
 * like mod_authn_dbd do.  A user's password is "NAME secret".  The provider fails (500) if the
 * session has a user's name before the password is verified. */
#include <httpd.h>
#include <ap_provider.h>
#include <http_config.h>
#include <http_request.h>
#include <mod_auth.h>
#include <apr_strings.h>

#include "mod_pgpool.h"

module __attribute__((visibility("default"))) pgpool_authn_module;

static APR_OPTIONAL_FN_TYPE(pgpool_acquire) *acquire;

/* Whether the session has no user's name yet. */
static int session_is_nobodys(request_rec *r)
{
    PGconn *conn;
    PGresult *result;
    int nobodys;

    if (acquire(r, NULL, &conn) != APR_SUCCESS)
        return 0;
    result = PQexec(conn, "SELECT current_setting('app.user')");
    nobodys = PQresultStatus(result) == PGRES_TUPLES_OK && !*PQgetvalue(result, 0, 0);
    PQclear(result);
    return nobodys;
}

static authn_status check_password(request_rec *r, const char *user, const char *password)
{
    if (!session_is_nobodys(r))
        return AUTH_GENERAL_ERROR;
    return strcmp(password, apr_pstrcat(r->pool, user, " secret", NULL)) ? AUTH_DENIED
                                                                         : AUTH_GRANTED;
}

static const authn_provider provider = {.check_password = check_password};

static void retrieve_optional_fns(void)
{
    acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire);
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_optional_fn_retrieve(retrieve_optional_fns, NULL, NULL, APR_HOOK_MIDDLE);
    ap_register_auth_provider(p, AUTHN_PROVIDER_GROUP, "pgpool", AUTHN_PROVIDER_VERSION,
                              &provider, AP_AUTH_INTERNAL_PER_CONF);
}

AP_DECLARE_MODULE(pgpool_authn) = {STANDARD20_MODULE_STUFF, .register_hooks = register_hooks};
