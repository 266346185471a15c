/*
 * Tells load balancers, and expressions, whether a pool is ready for requests.
 *
 *     SetHandler pgpool-ready   200 "ready", or 503 and the word for the pool's health
 *     ?pool=NAME                another pool than the directory's
 *     ?headroom                 an exhausted pool is not ready either
 *
 *     %{pgpool:NAME}            the word, in any expression
 *
 * The answer is read from the board, so it speaks for all children, whichever of them gives it;
 * it costs no query and no connection.
 */
#include <stdbool.h>
#include <ap_expr.h>
#include <apr_hash.h>
#include <http_protocol.h>
#include <http_request.h>

#include "mod_pgpool_argument.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_definition.h"
#include "mod_pgpool_health.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_snapshot.h"

/* The health of a server's pool; false: the server has none of that name, or this process is
 * not a child. */
static bool health_find(apr_pool_t *p, const server_rec *s, const char *name,
                        pgpool_health *health)
{
    const pgpool_definition *definition;

    if (!pgpool_child_is_here())
        return false;
    definition = apr_hash_get(pgpool_config_of(s)->pools, name, APR_HASH_KEY_STRING);
    if (!definition)
        return false;
    *health = pgpool_snapshot_pool(p, definition).health;
    return true;
}

/* --- the handler ------------------------------------------------------------ */

static const char *pool_asked(request_rec *r)
{
    const pgpool_dir_conf *here = ap_get_module_config(r->per_dir_config, &pgpool_module);
    const char *name = pgpool_argument_find(r, "pool");

    if (name)
        return name;
    return here->use ? here->use : PGPOOL_DEFAULT_NAME;
}

/* A pool that cannot be seen is not known to be ready. */
static bool is_ready(pgpool_health health, bool wants_headroom)
{
    return health == PGPOOL_OK || health == PGPOOL_BUSY ||
           (health == PGPOOL_EXHAUSTED && !wants_headroom);
}

static int print_ready(request_rec *r)
{
    const bool wants_headroom = pgpool_argument_find(r, "headroom") != NULL;
    pgpool_health health;
    bool ready;

    if (!health_find(r->pool, r->server, pool_asked(r), &health))
        return HTTP_NOT_FOUND;
    ready = is_ready(health, wants_headroom);
    if (!ready)
        r->status = HTTP_SERVICE_UNAVAILABLE;
    ap_set_content_type(r, "text/plain; charset=utf-8");
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    ap_rputs(ready ? "ready" : pgpool_health_word(health), r);
    ap_rputs("\n", r);
    return OK;
}

static int ready_handler(request_rec *r)
{
    int status;

    if (strcmp(r->handler, "pgpool-ready") != 0)
        return DECLINED;
    ap_allow_standard_methods(r, REPLACE_ALLOW, M_GET, -1);
    if (r->method_number != M_GET)
        return HTTP_METHOD_NOT_ALLOWED;
    status = ap_discard_request_body(r);
    return status == OK ? print_ready(r) : status;
}

/* --- expressions ------------------------------------------------------------ */

/* An unknown pool has an empty word, as an unknown variable has. */
static const char *evaluate_health(ap_expr_eval_ctx_t *ctx, const void *data, const char *name)
{
    pgpool_health health;

    return health_find(ctx->p, ctx->s, name, &health) ? pgpool_health_word(health) : "";
}

static int expression_lookup(ap_expr_lookup_parms *parms)
{
    if (parms->type != AP_EXPR_FUNC_STRING || strcasecmp(parms->name, "pgpool") != 0)
        return DECLINED;
    *parms->func = evaluate_health;
    *parms->data = NULL;
    return OK;
}

void pgpool_ready_register(void)
{
    ap_hook_handler(ready_handler, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_expr_lookup(expression_lookup, NULL, NULL, APR_HOOK_MIDDLE);
}
