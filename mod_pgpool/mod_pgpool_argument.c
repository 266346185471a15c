/*
 * Finds an argument in a query string (mod_pgpool_argument.h).
 */
#include "mod_pgpool_argument.h"

const char *pgpool_argument_find(request_rec *r, const char *name)
{
    const apr_size_t length = strlen(name);
    const char *rest = r->args ? r->args : "";

    while (*rest) {
        const char *word = ap_getword(r->pool, &rest, '&');

        if (!strncmp(word, name, length) && (!word[length] || word[length] == '='))
            return word[length] ? word + length + 1 : "";
    }
    return NULL;
}
