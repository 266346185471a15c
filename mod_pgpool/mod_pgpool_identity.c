/*
 * Identity: which session variables (PgPoolSet) a request's statements run with.
 *
 * Rule.  A statement on a pinned connection runs with the variables of the innermost running
 * request that acquired it.  The expressions are evaluated at each acquire, with the request
 * that acquires, and its variables are set then; if a value cannot be had or set, the acquire
 * fails.
 *
 * Ends.  When a subrequest or redirected request ends, the variables of the outer request are
 * back before the outer handler goes on.  So that its end is seen we bracket it, if its family
 * holds a connection: our hook comes first, runs the hooks that it is one of once more (and
 * declines among them), and then restores.  The brackets are
 *
 *   handler         the handler of any subrequest or redirected request
 *   quick handler   the other phases as well: those of a subrequest's look-up, and a whole
 *                   redirected request
 *
 * A look-up that httpd begins without its quick handlers (of a file, or with no filter) has no
 * bracket: there an acquire that would change the outer request's variables is refused.
 *
 * Users.  A user's name counts only if authentication has verified it, or if it was set without
 * one (mod_ssl's SSLUserName).  While expressions are evaluated, the companion's as well, any
 * other name is hidden.
 */
#include "mod_pgpool_private.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <http_request.h>

#ifndef AP_GET_BASIC_AUTH_PW_NOTE /* older versions of httpd do not set it */
#define AP_GET_BASIC_AUTH_PW_NOTE "AP_GET_BASIC_AUTH_PW_NOTE"
#endif

/* --- users ------------------------------------------------------------------ */

/* Our hook comes first of those that authenticate. */
static int authn_begins(request_rec *r)
{
    pgpool_request_of(r)->authn = PGPOOL_AUTHN_BEGUN;
    return DECLINED;
}

/* httpd asks whether a user may enter when it knows who the user is. */
static int authn_is_done(request_rec *r)
{
    pgpool_request_of(r)->authn = PGPOOL_AUTHN_DONE;
    return DECLINED;
}

/* Whether this request has a user's name that nobody has verified: authentication has not
 * succeeded, or the name was read from the header without one, or by mod_auth_form's handler of
 * logins, which authenticates as it runs. */
static int has_claim(const request_rec *r)
{
    const pgpool_request *of = ap_get_module_config(r->request_config, &pgpool_module);
    const pgpool_authn authn = of ? of->authn : PGPOOL_AUTHN_NONE;

    if (r->status == HTTP_UNAUTHORIZED || r->status == HTTP_PROXY_AUTHENTICATION_REQUIRED)
        return 1;
    if (r->handler && !strcmp(r->handler, "form-login-handler"))
        return 1;
    if (authn == PGPOOL_AUTHN_NONE)
        return apr_table_get(r->notes, AP_GET_BASIC_AUTH_PW_NOTE) != NULL;
    return authn == PGPOOL_AUTHN_BEGUN;
}

/* httpd may have copied the name from the outer request. */
static int user_counts(const request_rec *r)
{
    while (r && !has_claim(r))
        r = pgpool_request_outer(r);
    return r == NULL;
}

/* --- values ----------------------------------------------------------------- */

static const apr_array_header_t *sets_of(const request_rec *r)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);

    return dir->sets;
}

const char *pgpool_expr_value(request_rec *r, const ap_expr_info_t *expr, const char **error)
{
    char *const user = r->user, *const type = r->ap_auth_type;
    const char *value;

    if (user && !user_counts(r))
        r->user = r->ap_auth_type = NULL;
    *error = NULL;
    value = ap_expr_str_exec(r, expr, error);
    r->user = user;
    r->ap_auth_type = type;
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

/* Whether a value for this variable makes the session the login role's: SET ROLE NONE does, and
 * so does that role's own name. */
static int is_login_role(const char *name, const char *value, const char *login)
{
    if (!strcasecmp(name, "role"))
        return !strcasecmp(value, "none") || (login && !strcmp(value, login));
    return !strcasecmp(name, "session_authorization") && login && !strcmp(value, login);
}

const char *pgpool_identity_forbidden(request_rec *r, const pgp_vars *vars, const char *login)
{
    const apr_array_header_t *sets = sets_of(r);
    int i;

    for (i = 0; i < vars->n; i++)
        if (!APR_ARRAY_IDX(sets, i, pgpool_set).constant &&
            is_login_role(vars->names[i], vars->values[i], login))
            return apr_psprintf(r->pool,
                                "%s: \"%.63s\" is the pool's own role, which only a constant "
                                "may name",
                                vars->names[i], vars->values[i]);
    return NULL;
}

/* --- ends ------------------------------------------------------------------- */

static int may_bracket(request_rec *r)
{
    return pgpool_request_outer(r) && pgpool_pins_are_held(r) &&
           !pgpool_request_of(r)->bracketed;
}

static int bracket(request_rec *r, int (*run)(request_rec *r))
{
    int status;

    pgpool_request_of(r)->bracketed = 1;
    status = run(r);
    pgpool_request_of(r)->bracketed = 0;
    pgpool_pins_restore(r);
    return status;
}

static int handler(request_rec *r)
{
    return may_bracket(r) ? bracket(r, ap_run_handler) : DECLINED;
}

/* As httpd would go on after its quick handlers. */
static int run_lookup(request_rec *r)
{
    const int status = ap_run_quick_handler(r, 1);

    return status == DECLINED ? ap_process_request_internal(r) : status;
}

static int run_redirected(request_rec *r)
{
    int status = ap_run_quick_handler(r, 0);

    if (status != DECLINED)
        return status;
    status = ap_process_request_internal(r);
    return status == OK ? ap_invoke_handler(r) : status;
}

/* A look-up's status goes where httpd would put it: some of its versions begin anew after a
 * quick handler that failed. */
static int quick_handler(request_rec *r, int lookup)
{
    int status;

    if (!(r->prev || lookup) || !may_bracket(r))
        return DECLINED;
    if (r->prev)
        return bracket(r, run_redirected);
    status = bracket(r, run_lookup);
    if (status != OK)
        r->status = status;
    return OK;
}

void pgpool_identity_register(void)
{
    ap_hook_quick_handler(quick_handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
    /* Of this kind, or httpd would authenticate each subrequest and redirect anew. */
    ap_hook_check_authn(authn_begins, NULL, NULL, APR_HOOK_REALLY_FIRST,
                        AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_check_authz(authn_is_done, NULL, NULL, APR_HOOK_REALLY_FIRST,
                        AP_AUTH_INTERNAL_PER_CONF);
}
