/*
 * Answers SetHandler pgpool-control: an operator suspends a pool, resumes it, or lets it
 * reconnect.
 *
 *     GET        a page with a form for each pool; ?nonce: the nonce alone, for curl
 *     POST       action=suspend|resume|reconnect pool=NAME for=TIME nonce=NONCE
 *
 * The orders stand on the board, so all children obey, also those that start later.
 *
 * Require decides about access.  A browser may be made to send an operator's POST from another
 * page: hence the nonce, which only a reader of our own page knows, and the check of Origin.
 * The parent makes a new nonce at each start and restart.
 */
#include <stdbool.h>
#include <httpd.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_script.h>

#include "mod_pgpool_argument.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_definition.h"
#include "mod_pgpool_health.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_snapshot.h"

APLOG_USE_MODULE(pgpool);

#define SUSPENSION_DEFAULT PGP_SEC(60)
#define MOST_FIELDS 16
#define LONGEST_FIELD 256

static char nonce[33];

static int nonce_make(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    unsigned char random[16];

    if (apr_generate_random_bytes(random, sizeof random) != APR_SUCCESS)
        return HTTP_INTERNAL_SERVER_ERROR;
    ap_bin2hex(random, sizeof random, nonce);
    return OK;
}

/* --- the form --------------------------------------------------------------- */

typedef struct {
    const char *action, *pool, *time, *nonce; /* "" if the request has none */
} order_form;

static const char *field_text(apr_pool_t *p, const ap_form_pair_t *pair)
{
    char *text = apr_palloc(p, LONGEST_FIELD + 1);
    apr_size_t length = LONGEST_FIELD;

    if (apr_brigade_flatten(pair->value, text, &length) != APR_SUCCESS)
        return "";
    text[length] = '\0';
    return text;
}

static int form_read(request_rec *r, order_form *form)
{
    apr_array_header_t *pairs = NULL;
    const int status = ap_parse_form_data(r, NULL, &pairs, MOST_FIELDS, LONGEST_FIELD);

    *form = (order_form){.action = "", .pool = "", .time = "", .nonce = ""};
    if (status != OK)
        return status;
    while (pairs && !apr_is_empty_array(pairs)) {
        const ap_form_pair_t *pair = apr_array_pop(pairs);
        const char *text = field_text(r->pool, pair);

        if (!strcmp(pair->name, "action"))
            form->action = text;
        else if (!strcmp(pair->name, "pool"))
            form->pool = text;
        else if (!strcmp(pair->name, "for"))
            form->time = text;
        else if (!strcmp(pair->name, "nonce"))
            form->nonce = text;
    }
    return OK;
}

/* Whether the browser says that the form stood on a page of another host. */
static bool origin_is_foreign(request_rec *r)
{
    const char *origin = apr_table_get(r->headers_in, "Origin");
    const char *host = apr_table_get(r->headers_in, "Host");
    const char *begin = origin ? strstr(origin, "://") : NULL;

    return origin && (!begin || !host || strcasecmp(begin + 3, host) != 0);
}

static bool suspension_read(const char *text, apr_interval_time_t *time)
{
    *time = SUSPENSION_DEFAULT;
    return !*text ||
           (apr_isdigit(*text) && ap_timeout_parameter_parse(text, time, "s") == APR_SUCCESS &&
            *time > 0 && *time <= PGP_SUSPENSION_MOST);
}

/* --- the order -------------------------------------------------------------- */

/* Answer in a line of text; curl's user reads it. */
static int text_answer(request_rec *r, int status, const char *text)
{
    r->status = status;
    ap_set_content_type(r, "text/plain; charset=utf-8");
    ap_rprintf(r, "%s\n", text);
    return OK;
}

static int order_refuse(request_rec *r, int status, const char *why)
{
    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "PGP%d: an order was refused: %s",
                  PGP_MSG_ORDER, why);
    return text_answer(r, status, why);
}

static int order_report(request_rec *r, const pgpool_definition *definition, const char *done)
{
    const char *accept = apr_table_get(r->headers_in, "Accept");

    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "PGP%d: pool %s: %s, by order of %s at %s",
                  PGP_MSG_ORDER, definition->label, done, r->user ? r->user : "somebody",
                  r->useragent_ip);
    if (accept && strstr(accept, "text/html")) {
        /* A reload must not repeat it. */
        apr_table_setn(r->headers_out, "Location", ap_escape_uri(r->pool, r->uri));
        return HTTP_SEE_OTHER;
    }
    return text_answer(r, HTTP_OK, apr_pstrcat(r->pool, definition->label, ": ", done, NULL));
}

static int order_write(request_rec *r, const order_form *form,
                       const pgpool_definition *definition, apr_interval_time_t time)
{
    pgp_board *board = pgpool_child_board()->core;
    const apr_time_t now = pgp_now(pgpool_child_env());
    const char *done;

    if (!strcmp(form->action, "suspend")) {
        pgp_board_suspend(board, definition->place, now + time);
        done = apr_psprintf(r->pool, "suspended for %" APR_TIME_T_FMT " s", apr_time_sec(time));
    }
    else if (!strcmp(form->action, "resume")) {
        pgp_board_suspend(board, definition->place, 0);
        done = "resumed";
    }
    else if (!strcmp(form->action, "reconnect")) {
        pgp_board_reconnect(board, definition->place, now);
        done = "reconnects";
    }
    else
        return order_refuse(r, HTTP_BAD_REQUEST, "action is suspend, resume or reconnect");
    return order_report(r, definition, done);
}

static int order_handle(request_rec *r)
{
    const pgpool_definition *definition;
    apr_interval_time_t time;
    order_form form;
    const int status = form_read(r, &form);

    if (status != OK)
        return status;
    if (origin_is_foreign(r))
        return order_refuse(r, HTTP_FORBIDDEN, "the Origin of the request is another host");
    if (!*nonce || strcmp(form.nonce, nonce) != 0)
        return order_refuse(r, HTTP_FORBIDDEN,
                            "the nonce is wrong; GET ?nonce tells the right one");
    definition = apr_hash_get(pgpool_config_of(r->server)->pools, form.pool,
                              APR_HASH_KEY_STRING);
    if (!definition)
        return order_refuse(r, HTTP_NOT_FOUND, "this server has no pool of that name");
    if (definition->place < 0)
        return order_refuse(r, HTTP_CONFLICT,
                            "the pool has no place in shared memory (see PGP1017)");
    if (!suspension_read(form.time, &time))
        return order_refuse(r, HTTP_BAD_REQUEST,
                            "for takes a time up to 1h such as 30s or 5min");
    return order_write(r, &form, definition, time);
}

/* --- the page --------------------------------------------------------------- */

static const char page_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>PostgreSQL pools: control</title>\n<style>:root{color-scheme:light dark}"
    "body{max-width:48rem;margin:0 auto;padding:1rem;font:15px/1.45 system-ui,sans-serif}"
    "form{display:flex;flex-wrap:wrap;gap:.5rem;margin:.5rem 0 1.5rem}"
    "input{width:6rem}</style>\n</head>\n<body>\n<h1>PostgreSQL pools: control</h1>\n"
    "<p>Suspended: requests wait, for PgPoolAcquireTimeout at most; work that runs goes on; "
    "idle connections are closed.  Reconnect: each connection is replaced as soon as nobody "
    "uses it.</p>\n";

/* A name has no character that HTML must escape. */
static void pool_print(request_rec *r, const char *name, const pgpool_definition *definition)
{
    pgpool_pool_view view = pgpool_snapshot_pool(r->pool, definition);

    ap_rprintf(r,
               "<h2>%s: %s</h2>\n<p>%s</p>\n<form method=\"post\">\n"
               "<input type=\"hidden\" name=\"nonce\" value=\"%s\">\n"
               "<input type=\"hidden\" name=\"pool\" value=\"%s\">\n"
               "<button name=\"action\" value=\"suspend\">Suspend</button>\n"
               "<label>for <input name=\"for\" value=\"1min\"></label>\n"
               "<button name=\"action\" value=\"resume\">Resume</button>\n"
               "<button name=\"action\" value=\"reconnect\">Reconnect</button>\n</form>\n",
               name, pgpool_health_word(view.health),
               ap_escape_html(r->pool, view.why ? view.why : ""), nonce, name);
}

static int page_print(request_rec *r)
{
    apr_hash_index_t *i;

    if (pgpool_argument_find(r, "nonce"))
        return text_answer(r, HTTP_OK, nonce);
    ap_set_content_type(r, "text/html; charset=utf-8");
    apr_table_setn(r->headers_out, "Content-Security-Policy",
                   "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
                   "frame-ancestors 'none'");
    ap_rputs(page_head, r);
    for (i = apr_hash_first(r->pool, pgpool_config_of(r->server)->pools); i;
         i = apr_hash_next(i))
        pool_print(r, apr_hash_this_key(i), apr_hash_this_val(i));
    ap_rputs("</body>\n</html>\n", r);
    return OK;
}

static int control_handler(request_rec *r)
{
    int status;

    if (strcmp(r->handler, "pgpool-control") != 0)
        return DECLINED;
    ap_allow_standard_methods(r, REPLACE_ALLOW, M_GET, M_POST, -1);
    if (r->method_number != M_GET && r->method_number != M_POST)
        return HTTP_METHOD_NOT_ALLOWED;
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->headers_out, "X-Content-Type-Options", "nosniff");
    if (r->method_number == M_POST)
        return order_handle(r);
    status = ap_discard_request_body(r);
    return status == OK ? page_print(r) : status;
}

void pgpool_control_register(void)
{
    ap_hook_post_config(nonce_make, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(control_handler, NULL, NULL, APR_HOOK_MIDDLE);
}
