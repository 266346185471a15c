/*
 * PgPoolSet: something of the request, e.g. its user, as a setting of its session.
 *
 * The expressions are evaluated at each acquire, with the request that asks, and what
 * has changed since the last one is set: the user's name is another after
 * authentication.  If a value cannot be had or set, the acquire fails: a query must
 * never run as somebody else.
 */
#include "mod_pgpool_private.h"

#include <apr_strings.h>

const char *pgpool_identity_changed(request_rec *r, apr_table_t *applied, pgp_vars *changed)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);
    const apr_array_header_t *sets = dir->sets;
    const char **names, **values;
    int i;

    *changed = (pgp_vars){.n = 0};
    if (!sets)
        return NULL;
    names = apr_palloc(r->pool, sets->nelts * sizeof(*names));
    values = apr_palloc(r->pool, sets->nelts * sizeof(*values));
    for (i = 0; i < sets->nelts; i++) {
        const pgpool_set *set = &APR_ARRAY_IDX(sets, i, pgpool_set);
        const char *wrong = NULL, *value = ap_expr_str_exec(r, set->value, &wrong), *before;

        if (wrong)
            return apr_psprintf(r->pool, "PgPoolSet %s: %s", set->name, wrong);
        before = apr_table_get(applied, set->name);
        if (before && !strcmp(before, value))
            continue;
        names[changed->n] = set->name;
        values[changed->n++] = value;
    }
    changed->names = names;
    changed->values = values;
    return NULL;
}

void pgpool_identity_applied(apr_table_t *applied, const pgp_vars *changed)
{
    int i;

    for (i = 0; i < changed->n; i++)
        apr_table_set(applied, changed->names[i], changed->values[i]);
}
