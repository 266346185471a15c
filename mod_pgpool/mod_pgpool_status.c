/*
 * Answers SetHandler pgpool-status, and adds a section to mod_status.
 *
 *     ?refresh=2     the page, which the browser loads again after so many seconds (1 to 3600)
 *     ?json  ?openmetrics  ?auto
 */
#include "mod_pgpool_status.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_protocol.h>
#include <http_request.h>
#include <mod_status.h>

#include "mod_pgpool_argument.h"
#include "mod_pgpool_baseline.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_snapshot.h"

#define REFRESH_MAX 3600

/* --- the query string ------------------------------------------------------- */

/* In seconds; 0: the page is not to be loaded again. */
static int refresh_of(request_rec *r)
{
    const char *text = pgpool_argument_find(r, "refresh");
    const apr_int64_t seconds = text && apr_isdigit(*text) ? apr_atoi64(text) : 0;

    return seconds < REFRESH_MAX ? (int)seconds : REFRESH_MAX;
}

/* --- formats ---------------------------------------------------------------- */

static void page_headers(request_rec *r, const pgpool_snapshot *all, int refresh)
{
    apr_table_setn(r->headers_out, "Content-Security-Policy",
                   "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    if (refresh)
        apr_table_setn(r->headers_out, "Refresh",
                       apr_psprintf(r->pool, "%d; url=?refresh=%d&since=%s", refresh, refresh,
                                    pgpool_baseline_text(r->pool, all)));
}

static void print_page(request_rec *r, const pgpool_snapshot *all)
{
    const char *since = pgpool_argument_find(r, "since");
    const int refresh = refresh_of(r);

    page_headers(r, all, refresh);
    pgpool_print_html(r, all, since ? pgpool_baseline_read(r->pool, all, since) : NULL,
                      refresh);
}

/* The last format is the default. */
static const struct {
    const char *argument, *type;
    void (*print)(request_rec *r, const pgpool_snapshot *all);
} formats[] = {
    {"json", "application/json", pgpool_print_json},
    {"openmetrics", "application/openmetrics-text; version=1.0.0; charset=utf-8",
     pgpool_print_openmetrics},
    {"auto", "text/plain; charset=utf-8", pgpool_print_auto},
    {NULL, "text/html; charset=utf-8", print_page},
};

static int print_answer(request_rec *r)
{
    int i = 0;

    while (formats[i].argument && !pgpool_argument_find(r, formats[i].argument))
        i++;
    ap_set_content_type(r, formats[i].type);
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->headers_out, "X-Content-Type-Options", "nosniff");
    formats[i].print(r, pgpool_snapshot_take(r->pool));
    return OK;
}

/* --- hooks ------------------------------------------------------------------ */

static int status_handler(request_rec *r)
{
    int status;

    if (strcmp(r->handler, "pgpool-status") != 0)
        return DECLINED;
    ap_allow_standard_methods(r, REPLACE_ALLOW, M_GET, -1);
    if (r->method_number != M_GET)
        return HTTP_METHOD_NOT_ALLOWED;
    status = ap_discard_request_body(r);
    return status == OK ? print_answer(r) : status;
}

static int status_section(request_rec *r, int flags)
{
    const pgpool_snapshot *all = pgpool_snapshot_take(r->pool);

    if (flags & AP_STATUS_SHORT)
        pgpool_print_auto(r, all);
    else
        pgpool_print_section(r, all);
    return OK;
}

void pgpool_status_register(void)
{
    ap_hook_handler(status_handler, NULL, NULL, APR_HOOK_MIDDLE);
    /* Without mod_status nobody runs this hook. */
    APR_OPTIONAL_HOOK(ap, status_hook, status_section, NULL, NULL, APR_HOOK_MIDDLE);
}
