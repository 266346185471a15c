/*
 * The record that mod_pgpool_query keeps of a request, and the functions of mod_pgpool that it
 * calls.
 */
#include "mod_pgpool_query_request.h"

#include <apr_optional_hooks.h>

pgpool_query_functions pgpool_query_api;

const pgpool_query_request *pgpool_query_request_find(const request_rec *r)
{
    return ap_get_module_config(r->request_config, &pgpool_query_module);
}

pgpool_query_request *pgpool_query_request_of(request_rec *r)
{
    pgpool_query_request *kept = ap_get_module_config(r->request_config, &pgpool_query_module);

    if (!kept) {
        kept = apr_pcalloc(r->pool, sizeof(*kept));
        ap_set_module_config(r->request_config, &pgpool_query_module, kept);
    }
    return kept;
}

static void retrieve_optional_fns(void)
{
    pgpool_query_api = (pgpool_query_functions){
        .acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire),
        .release = APR_RETRIEVE_OPTIONAL_FN(pgpool_release),
        .query = APR_RETRIEVE_OPTIONAL_FN(pgpool_query),
        .query_rows = APR_RETRIEVE_OPTIONAL_FN(pgpool_query_rows),
        .http_status = APR_RETRIEVE_OPTIONAL_FN(pgpool_http_status),
        .note_error = APR_RETRIEVE_OPTIONAL_FN(pgpool_note_error),
        .expr_value = APR_RETRIEVE_OPTIONAL_FN(pgpool_expr_value),
        .is_personal = APR_RETRIEVE_OPTIONAL_FN(pgpool_is_personal),
        .sqlstate = APR_RETRIEVE_OPTIONAL_FN(pgpool_statement_sqlstate),
    };
}

void pgpool_query_request_register(void)
{
    ap_hook_optional_fn_retrieve(retrieve_optional_fns, NULL, NULL, APR_HOOK_MIDDLE);
}
