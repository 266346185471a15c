/*
 * The rules of PgPoolQueryStatus (mod_pgpool_query_status.h).
 */
#include "mod_pgpool_query_status.h"

#include <string.h>
#include <strings.h>
#include <apr_strings.h>

typedef struct {
    const char *prefix;
    apr_size_t length;
    int status;
} rule;

#define UPPER "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
enum { SQLSTATE_LENGTH = 5, NO_CONTENT = 204 };

apr_array_header_t *pgpool_query_status_rules(apr_pool_t *p)
{
    return apr_array_make(p, 4, sizeof(rule));
}

const char *pgpool_query_status_add(apr_array_header_t *rules, const char *condition,
                                    const char *status)
{
    const apr_size_t length = strspn(condition, UPPER), stars = strspn(condition + length, "*");
    const int none = !strcasecmp(condition, PGPOOL_QUERY_NONE);
    const apr_int64_t number = apr_atoi64(status);
    rule new = {.prefix = condition, .length = length, .status = (int)number};

    if (none)
        new = (rule){PGPOOL_QUERY_NONE, strlen(PGPOOL_QUERY_NONE), (int)number};
    else if (!length || condition[length + stars] ||
             (stars ? length >= SQLSTATE_LENGTH : length != SQLSTATE_LENGTH))
        return apr_psprintf(rules->pool,
                            "PgPoolQueryStatus takes none, an SQLSTATE such as 23505, or its "
                            "beginning such as 23*, not \"%s\"",
                            condition);
    if (status[strspn(status, "0123456789")] ||
        !((number >= 400 && number <= 599) || (none && number == NO_CONTENT)))
        return apr_psprintf(
            rules->pool,
            "PgPoolQueryStatus takes a status from 400 to 599 (or 204 for none), "
            "not \"%s\"",
            status);
    APR_ARRAY_PUSH(rules, rule) = new;
    return NULL;
}

int pgpool_query_status_find(const apr_array_header_t *rules, const char *sqlstate)
{
    rule best = {.length = 0};

    for (int i = 0; rules && i < rules->nelts; i++) {
        const rule candidate = APR_ARRAY_IDX(rules, i, rule);

        if (candidate.length >= best.length &&
            !strncmp(sqlstate, candidate.prefix, candidate.length))
            best = candidate;
    }
    return best.status;
}
