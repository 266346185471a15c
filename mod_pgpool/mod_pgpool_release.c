/*
 * Gives connections back at the end of a request or of its response (mod_pgpool_release.h).
 */
#include "mod_pgpool_release.h"

#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>

#include "mod_pgpool_config.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_pin.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_request.h"

/* In a client connection's conn_config: the request whose end the filter waits for; NULL: none.
 * On an HTTP/1.1 connection one request at a time has pins, since its end-of-request bucket
 * comes before httpd reads the next request.  In HTTP/2 each request has a connection of its
 * own. */
typedef struct {
    request_rec *watched;
} connection_watch;

static const char eor_filter_name[] = "PGPOOL_END_OF_REQUEST";
static const char eos_filter_name[] = "PGPOOL_END_OF_RESPONSE";

static apr_status_t eor_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    connection_watch *watch = f->ctx;
    apr_bucket *b;

    for (b = APR_BRIGADE_FIRST(bb); watch->watched && b != APR_BRIGADE_SENTINEL(bb);
         b = APR_BUCKET_NEXT(b))
        if (AP_BUCKET_IS_EOR(b)) {
            pgpool_pins_release(watch->watched);
            watch->watched = NULL;
        }
    return ap_pass_brigade(f->next, bb);
}

static apr_status_t eos_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    apr_bucket *b;

    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = APR_BUCKET_NEXT(b))
        if (APR_BUCKET_IS_EOS(b)) {
            pgpool_pins_release_at_response(f->ctx);
            ap_remove_output_filter(f);
            break;
        }
    return ap_pass_brigade(f->next, bb);
}

static apr_status_t watch_cleanup(void *data)
{
    request_rec *initial = data;
    connection_watch *watch = ap_get_module_config(initial->connection->conn_config,
                                                   &pgpool_module);

    if (watch->watched == initial)
        watch->watched = NULL;
    return APR_SUCCESS;
}

void pgpool_release_at_request_end(request_rec *initial)
{
    conn_rec *c = initial->connection;
    connection_watch *watch = ap_get_module_config(c->conn_config, &pgpool_module);

    if (!watch) {
        watch = apr_pcalloc(c->pool, sizeof(*watch));
        ap_set_module_config(c->conn_config, &pgpool_module, watch);
        ap_add_output_filter(eor_filter_name, watch, NULL, c);
    }
    watch->watched = initial;
    apr_pool_cleanup_register(initial->pool, initial, watch_cleanup, apr_pool_cleanup_null);
}

/* The end of a subrequest is not the end of the response, so the filter goes to the main
 * request. */
void pgpool_release_at_response_end(request_rec *r, request_rec *initial)
{
    while (r->main)
        r = r->main;
    ap_add_output_filter(eos_filter_name, initial, r, r->connection);
}

/* --- PgPoolRelease auth ----------------------------------------------------- */

/* Give back what the family of r has acquired, if none of its handlers has begun: a handler
 * may go on with its connection after an inner request.  A subrequest gives back nothing,
 * since the hook that runs it goes on. */
static void release_before_handlers(request_rec *r)
{
    request_rec *initial = pgpool_request_initial(r);
    const pgpool_dir_conf *dir = ap_get_module_config(initial->per_dir_config, &pgpool_module);

    if (dir && dir->when == PGPOOL_RELEASE_AUTH && !pgpool_request_is_subrequest(r) &&
        !pgpool_request_of(initial)->has_handler)
        pgpool_pins_release(initial);
}

/* Runs before every handler. */
static int handler_begins(request_rec *r)
{
    release_before_handlers(r);
    if (!pgpool_request_is_subrequest(r))
        pgpool_request_of(pgpool_request_initial(r))->has_handler = true;
    return DECLINED;
}

/* Runs before httpd writes an error.  httpd first reads the client's body to its end; meanwhile
 * the connection that has looked up a wrong password must not be held. */
static void error_begins(request_rec *r)
{
    release_before_handlers(r);
}

void pgpool_release_register(void)
{
    ap_hook_insert_error_filter(error_begins, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(handler_begins, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_register_output_filter(eor_filter_name, eor_filter, NULL, AP_FTYPE_CONNECTION);
    ap_register_output_filter(eos_filter_name, eos_filter, NULL, AP_FTYPE_PROTOCOL);
}
