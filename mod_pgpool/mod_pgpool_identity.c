/*
 * PgPoolSet: something of the request, e.g. its user, as a setting of its session.
 *
 * The expressions are evaluated at each acquire, with the request that asks, and what
 * has changed since the last one is set: the user's name is another after
 * authentication.  What another directory has set and this one does not is taken back.  If a
 * value cannot be had or set, the acquire fails: a query must
 * never run as somebody else.
 */
#include "mod_pgpool_private.h"

#include <apr_strings.h>

static int is_set_here(const apr_array_header_t *sets, const char *name)
{
    int i;

    for (i = 0; sets && i < sets->nelts; i++)
        if (!strcasecmp(APR_ARRAY_IDX(sets, i, pgpool_set).name, name))
            return 1;
    return 0;
}

/* NULL: the setting's default. */
static void change(pgp_vars *changed, const char **names, const char **values, const char *name,
                   const char *value)
{
    names[changed->n] = name;
    values[changed->n++] = value;
}

const char *pgpool_identity_changed(request_rec *r, apr_table_t *applied, pgp_vars *changed)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);
    const apr_array_header_t *sets = dir->sets, *old = apr_table_elts(applied);
    const int most = (sets ? sets->nelts : 0) + old->nelts;
    const char **names, **values;
    int i;

    *changed = (pgp_vars){.n = 0};
    if (!most)
        return NULL;
    names = apr_palloc(r->pool, most * sizeof(*names));
    values = apr_palloc(r->pool, most * sizeof(*values));
    for (i = 0; i < old->nelts; i++) {
        const char *name = APR_ARRAY_IDX(old, i, apr_table_entry_t).key;

        if (!is_set_here(sets, name))
            change(changed, names, values, name, NULL);
    }
    for (i = 0; sets && i < sets->nelts; i++) {
        const pgpool_set *set = &APR_ARRAY_IDX(sets, i, pgpool_set);
        const char *wrong = NULL, *value = ap_expr_str_exec(r, set->value, &wrong), *before;

        if (wrong)
            return apr_psprintf(r->pool, "PgPoolSet %s: %s", set->name, wrong);
        before = apr_table_get(applied, set->name);
        if (before && !strcmp(before, value))
            continue;
        change(changed, names, values, set->name, value);
    }
    changed->names = names;
    changed->values = values;
    return NULL;
}

void pgpool_identity_applied(apr_table_t *applied, const pgp_vars *changed)
{
    int i;

    for (i = 0; i < changed->n; i++)
        if (changed->values[i])
            apr_table_set(applied, changed->names[i], changed->values[i]);
        else
            apr_table_unset(applied, changed->names[i]);
}
