/* Compares and copies lists of session variables. */

#include "pgp_vars.h"

#include <string.h>
#include <strings.h>

#include "pgp_alloc.h"

const char *pgp_vars_find(const pgp_vars *vars, const char *name)
{
    int i;

    for (i = 0; vars && i < vars->n; i++)
        if (!strcasecmp(vars->names[i], name))
            return vars->values[i];
    return NULL;
}

bool pgp_vars_within(const pgp_vars *vars, const pgp_vars *all)
{
    int i;

    for (i = 0; vars && i < vars->n; i++)
        if (!pgp_vars_find(all, vars->names[i]))
            return false;
    return true;
}

bool pgp_vars_equal(const pgp_vars *a, const pgp_vars *b)
{
    int i;

    if ((a ? a->n : 0) != (b ? b->n : 0))
        return false;
    for (i = 0; b && i < b->n; i++) {
        const char *value = pgp_vars_find(a, b->names[i]);

        if (!value || strcmp(value, b->values[i]))
            return false;
    }
    return true;
}

/* One block holds the list, its pointers and the texts. */
pgp_vars *pgp_vars_copy(const pgp_vars *vars)
{
    size_t size = sizeof(*vars) + 2 * vars->n * sizeof(char *);
    const char **pointers;
    pgp_vars *copy;
    char *text;
    int i;

    for (i = 0; i < vars->n; i++)
        size += strlen(vars->names[i]) + strlen(vars->values[i]) + 2;
    copy = pgp_alloc(size);
    pointers = (const char **)(copy + 1);
    text = (char *)(pointers + 2 * vars->n);
    *copy = (pgp_vars){.n = vars->n, .names = pointers, .values = pointers + vars->n};
    for (i = 0; i < 2 * vars->n; i++) {
        pointers[i] = strcpy(text, i < vars->n ? vars->names[i] : vars->values[i - vars->n]);
        text += strlen(text) + 1;
    }
    return copy;
}
