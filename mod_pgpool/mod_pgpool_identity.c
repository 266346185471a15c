/*
 * Evaluates PgPoolSet for a request, with verified users only (mod_pgpool_identity.h).
 */
#include "mod_pgpool_identity.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_request.h>

#include "mod_pgpool_config.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_request.h"

#ifndef AP_GET_BASIC_AUTH_PW_NOTE /* older versions of httpd do not set it */
#define AP_GET_BASIC_AUTH_PW_NOTE "AP_GET_BASIC_AUTH_PW_NOTE"
#endif

/* --- users ------------------------------------------------------------------ */

/* Our hook runs before the hooks that authenticate. */
static int authn_begins(request_rec *r)
{
    pgpool_request_of(r)->authn = PGPOOL_AUTHN_BEGUN;
    return DECLINED;
}

/* httpd calls this hook when authentication has succeeded. */
static int authn_ends(request_rec *r)
{
    pgpool_request_of(r)->authn = PGPOOL_AUTHN_DONE;
    return DECLINED;
}

/* Whether the user's name of this request is only a claim.  It is if authentication has not
 * succeeded; if the name was read from the header without authentication; and in
 * mod_auth_form's handler of logins, which authenticates while it runs. */
static bool user_is_claim(const request_rec *r)
{
    const pgpool_request *kept = pgpool_request_find(r);
    const pgpool_authn authn = kept ? kept->authn : PGPOOL_AUTHN_NONE;

    if (r->status == HTTP_UNAUTHORIZED || r->status == HTTP_PROXY_AUTHENTICATION_REQUIRED)
        return true;
    if (r->handler && !strcmp(r->handler, "form-login-handler"))
        return true;
    if (authn == PGPOOL_AUTHN_NONE)
        return apr_table_get(r->notes, AP_GET_BASIC_AUTH_PW_NOTE) != NULL;
    return authn == PGPOOL_AUTHN_BEGUN;
}

/* httpd may have copied the name from the outer request, so that request's authentication has
 * to be good as well. */
static bool user_counts(const request_rec *r)
{
    while (r && !user_is_claim(r))
        r = pgpool_request_outer(r);
    return r == NULL;
}

/* --- values ----------------------------------------------------------------- */

static const apr_array_header_t *sets_of(const request_rec *r)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);

    return dir->sets;
}

int pgpool_is_personal(const request_rec *r)
{
    return sets_of(r) != NULL;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), n = strlen(end);

    return length >= n && !strcmp(text + length - n, end);
}

static bool variable_is_of_user(const char *variable)
{
    static const char *const endings[] = {"REMOTE_USER", "AUTH_TYPE"};
    size_t i;

    for (i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
        if (ends_with(variable, endings[i]))
            return true;
    return false;
}

/* The environment without the user.  mod_include and CGI have put the name into the outer
 * request's, and a redirect has put REDIRECT_ before it. */
static apr_table_t *env_without_user(const request_rec *r)
{
    const apr_array_header_t *all = apr_table_elts(r->subprocess_env);
    apr_table_t *env = apr_table_make(r->pool, all->nelts);
    int i;

    for (i = 0; i < all->nelts; i++) {
        const apr_table_entry_t *entry = &APR_ARRAY_IDX(all, i, apr_table_entry_t);

        if (!variable_is_of_user(entry->key))
            apr_table_addn(env, entry->key, entry->val);
    }
    return env;
}

const char *pgpool_expr_value(request_rec *r, const ap_expr_info_t *expr, const char **error)
{
    char *const user = r->user, *const type = r->ap_auth_type;
    apr_table_t *const env = r->subprocess_env;
    const char *value;

    if (!user_counts(r)) {
        r->user = r->ap_auth_type = NULL;
        r->subprocess_env = env_without_user(r);
    }
    *error = NULL;
    value = ap_expr_str_exec(r, expr, error);
    r->user = user;
    r->ap_auth_type = type;
    r->subprocess_env = env;
    return value;
}

const char *pgpool_identity_evaluate(request_rec *r, pgp_vars *vars)
{
    const apr_array_header_t *sets = sets_of(r);
    const char **names, **values;
    int i;

    *vars = (pgp_vars){.n = 0};
    if (!sets)
        return NULL;
    names = apr_palloc(r->pool, sets->nelts * sizeof(*names));
    values = apr_palloc(r->pool, sets->nelts * sizeof(*values));
    for (i = 0; i < sets->nelts; i++) {
        const pgpool_set *set = &APR_ARRAY_IDX(sets, i, pgpool_set);
        const char *wrong;

        names[i] = set->name;
        values[i] = pgpool_expr_value(r, set->value, &wrong);
        if (wrong)
            return apr_psprintf(r->pool, "PgPoolSet %s: %s", set->name, wrong);
    }
    *vars = (pgp_vars){.n = sets->nelts, .names = names, .values = values};
    return NULL;
}

static bool is_named(const char *role, const char *value)
{
    return role && !strcmp(role, value);
}

/* The role that the server has logged in, which PQuser() does not know where a proxy has chosen
 * it; NULL if PgPoolSet sets another one.  The server tells libpq at each change. */
static const char *server_login(const pgp_vars *vars, const PGconn *conn)
{
    return pgp_vars_find(vars, "session_authorization")
               ? NULL
               : PQparameterStatus(conn, "session_authorization");
}

/* Whether this value of the variable gives the session the rights of the login role: SET ROLE
 * NONE does, and so does that role's own name. */
static bool is_login_role(const pgp_vars *vars, int i, const PGconn *conn)
{
    const char *name = vars->names[i], *value = vars->values[i];

    if (!strcasecmp(name, "role"))
        return !strcasecmp(value, "none") || is_named(PQuser(conn), value) ||
               is_named(server_login(vars, conn), value);
    return !strcasecmp(name, "session_authorization") && is_named(PQuser(conn), value);
}

const char *pgpool_identity_forbidden(request_rec *r, const pgp_vars *vars, const PGconn *conn)
{
    const apr_array_header_t *sets = sets_of(r);
    int i;

    for (i = 0; i < vars->n; i++)
        if (!APR_ARRAY_IDX(sets, i, pgpool_set).constant && is_login_role(vars, i, conn))
            return apr_psprintf(r->pool,
                                "%s: \"%.63s\" is the pool's own role, which only a constant "
                                "may name",
                                vars->names[i], vars->values[i]);
    return NULL;
}

void pgpool_identity_register(void)
{
    /* PER_CONF: httpd would otherwise authenticate each subrequest and redirect anew. */
    ap_hook_check_authn(authn_begins, NULL, NULL, APR_HOOK_REALLY_FIRST,
                        AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_check_authz(authn_ends, NULL, NULL, APR_HOOK_REALLY_FIRST,
                        AP_AUTH_INTERNAL_PER_CONF);
}
