/*
 * Finds a request's family, and what we keep of a request (mod_pgpool_request.h).
 */
#include "mod_pgpool_request.h"

#include "mod_pgpool_module.h"

const pgpool_request *pgpool_request_find(const request_rec *r)
{
    return ap_get_module_config(r->request_config, &pgpool_module);
}

pgpool_request *pgpool_request_of(request_rec *r)
{
    pgpool_request *kept = ap_get_module_config(r->request_config, &pgpool_module);

    if (!kept) {
        kept = apr_pcalloc(r->pool, sizeof(*kept));
        ap_set_module_config(r->request_config, &pgpool_module, kept);
    }
    return kept;
}

request_rec *pgpool_request_outer(const request_rec *r)
{
    return r->prev ? r->prev : r->main;
}

request_rec *pgpool_request_initial(request_rec *r)
{
    request_rec *outer;

    while ((outer = pgpool_request_outer(r)))
        r = outer;
    return r;
}

bool pgpool_request_is_subrequest(const request_rec *r)
{
    while (r && !r->main)
        r = r->prev;
    return r != NULL;
}

bool pgpool_request_is_within(const request_rec *r, const request_rec *outer)
{
    while (r && r != outer)
        r = pgpool_request_outer(r);
    return r != NULL;
}

bool pgpool_request_is_bracketed(const request_rec *r, const request_rec *outer)
{
    for (; r != outer; r = pgpool_request_outer(r)) {
        const pgpool_request *kept = pgpool_request_find(r);

        if (kept && kept->bracketed)
            return true;
    }
    return false;
}
