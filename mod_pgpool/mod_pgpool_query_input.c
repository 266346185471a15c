/*
 * Reads the body, and gives expressions the values of query string and body
 * (mod_pgpool_query_input.h).
 */
#include "mod_pgpool_query_input.h"

#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>

#include "core/pgp_text.h"
#include "mod_pgpool_companion.h"
#include "mod_pgpool_query_form.h"
#include "mod_pgpool_query_request.h"

APLOG_USE_MODULE(pgpool_query);

#define FORM_TYPE "application/x-www-form-urlencoded"

/* --- values ----------------------------------------------------------------- */

/* The body that r sees: its own, or that of a request around it; or NULL. */
static const char *body_of(const request_rec *r)
{
    const pgpool_query_request *kept = pgpool_query_request_find(r);
    const request_rec *outer = r->prev ? r->prev : r->main;

    if (kept && kept->body)
        return kept->body;
    return outer ? body_of(outer) : NULL;
}

/* The value of a name; NULL if it is absent, or, with *error, if it is malformed. */
static const char *find_value(request_rec *r, const char *form, const char *kind,
                              const char *name, const char **error)
{
    const char *value = NULL;

    if (pgpool_form_find(r->pool, form, name, &value) == PGPOOL_FORM_MALFORMED) {
        *error = apr_psprintf(
            r->pool, "%s:%s has a bad escape or a NUL, or is not encoded as UTF-8", kind, name);
        pgpool_query_request_of(r)->input_error = *error;
    }
    return value;
}

static const char *arg_value(request_rec *r, const char *name, const char **error)
{
    return find_value(r, r->args, "arg", name, error);
}

static const char *form_value(request_rec *r, const char *name, const char **error)
{
    return find_value(r, body_of(r), "form", name, error);
}

/* --- expressions ------------------------------------------------------------ */

/* The uses of the body in the expression that this thread parses. */
static __thread int uses_found;

static const char *evaluate_arg(ap_expr_eval_ctx_t *ctx, const void *data, const char *name)
{
    const char *value = arg_value(ctx->r, name, ctx->err);

    return value ? value : "";
}

static const char *evaluate_form(ap_expr_eval_ctx_t *ctx, const void *data, const char *name)
{
    const char *value = form_value(ctx->r, name, ctx->err);

    return value ? value : "";
}

static const char *evaluate_body(ap_expr_eval_ctx_t *ctx, const void *data)
{
    const char *body = body_of(ctx->r);

    return body ? body : "";
}

/* A hook of httpd: find our functions and variables for an expression. */
static int expression_lookup(ap_expr_lookup_parms *parms)
{
    *parms->data = NULL;
    if (parms->type == AP_EXPR_FUNC_STRING && !strcasecmp(parms->name, "arg")) {
        *parms->func = evaluate_arg;
        return OK;
    }
    if (parms->type == AP_EXPR_FUNC_STRING && !strcasecmp(parms->name, "form")) {
        *parms->func = evaluate_form;
        uses_found |= PGPOOL_USES_FORM;
        return OK;
    }
    if (parms->type == AP_EXPR_FUNC_VAR && !strcasecmp(parms->name, "REQUEST_BODY")) {
        *parms->func = evaluate_body;
        uses_found |= PGPOOL_USES_BODY;
        return OK;
    }
    return DECLINED;
}

/* The name in %{function:name} if that is all of the text; else NULL. */
static const char *sole_name(apr_pool_t *p, const char *text, const char *function)
{
    const apr_size_t begin = strlen(function), length = strlen(text);

    if (length <= begin || strncasecmp(text, function, begin) != 0 ||
        text + strcspn(text, "}") != text + length - 1)
        return NULL;
    return apr_pstrmemdup(p, text + begin, length - begin - 1);
}

const char *pgpool_input_parse(cmd_parms *cmd, const char *text, pgpool_input *input, int *uses)
{
    const char *error;

    uses_found = 0;
    input->expr = ap_expr_parse_cmd(cmd, text, AP_EXPR_FLAG_STRING_RESULT, &error, NULL);
    input->arg = sole_name(cmd->pool, text, "%{arg:");
    input->form = sole_name(cmd->pool, text, "%{form:");
    *uses |= uses_found;
    return error;
}

const char *pgpool_input_value(request_rec *r, const pgpool_input *input, const char **error)
{
    const char *value;

    *error = NULL;
    if (input->arg)
        return arg_value(r, input->arg, error);
    if (input->form)
        return form_value(r, input->form, error);
    value = pgpool_query_api.expr_value(r, input->expr, error);
    if (!*error && !pgp_text_is_utf8(value)) {
        *error = "its bytes are not UTF-8";
        pgpool_query_request_of(r)->input_error = *error;
    }
    return value;
}

const char *pgpool_input_error(const request_rec *r)
{
    const pgpool_query_request *kept = pgpool_query_request_find(r);

    return kept ? kept->input_error : NULL;
}

void pgpool_input_register(void)
{
    ap_hook_expr_lookup(expression_lookup, NULL, NULL, APR_HOOK_MIDDLE);
}

/* --- body ------------------------------------------------------------------- */

static int body_refuse(request_rec *r, int status, const char *why)
{
    pgpool_query_api.note_error(r, apr_pstrcat(r->pool, "PgPoolQuery: ", why, NULL));
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "PGP2004: %d: %s", status, why);
    return status;
}

static bool is_form(const request_rec *r)
{
    const char *type = apr_table_get(r->headers_in, "Content-Type");
    const apr_size_t length = strlen(FORM_TYPE);

    return type && !strncasecmp(type, FORM_TYPE, length) &&
           (!type[length] || strchr("; \t", type[length]));
}

/* Refuses early.  The bytes that arrive are counted in any case. */
static bool is_announced_longer(const request_rec *r, apr_off_t most)
{
    const char *text = apr_table_get(r->headers_in, "Content-Length");
    apr_off_t length;

    return text && (apr_strtoff(&length, text, NULL, 10) != APR_SUCCESS || length > most);
}

/* A growing text. */
typedef struct {
    char *text;
    apr_size_t length, capacity;
} buffer;

static void buffer_append(apr_pool_t *p, buffer *body, const char *data, apr_size_t length)
{
    if (body->length + length >= body->capacity) {
        char *text = apr_palloc(p, body->capacity = 2 * (body->length + length) + 8000);

        if (body->length)
            memcpy(text, body->text, body->length);
        body->text = text;
    }
    memcpy(body->text + body->length, data, length);
    body->length += length;
    body->text[body->length] = '\0';
}

/* Append the data of a brigade to the body.  Returns OK, DONE after the body's end, or a
 * status.
 */
static int buffer_append_brigade(request_rec *r, buffer *body, apr_bucket_brigade *brigade,
                                 apr_off_t most)
{
    for (apr_bucket *b = APR_BRIGADE_FIRST(brigade); b != APR_BRIGADE_SENTINEL(brigade);
         b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t length;

        if (APR_BUCKET_IS_EOS(b))
            return DONE;
        if (APR_BUCKET_IS_METADATA(b))
            continue;
        if (apr_bucket_read(b, &data, &length, APR_BLOCK_READ) != APR_SUCCESS)
            return HTTP_BAD_REQUEST;
        if ((apr_off_t)(body->length + length) > most)
            return HTTP_REQUEST_ENTITY_TOO_LARGE;
        buffer_append(r->pool, body, data, length);
    }
    return OK;
}

/* The body's end may never come: the client goes away, or lets httpd's Timeout pass. */
static int body_read(request_rec *r, buffer *body, apr_off_t most)
{
    apr_bucket_brigade *brigade = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    int status = OK;

    buffer_append(r->pool, body, "", 0);
    while (status == OK) {
        const apr_status_t rv = ap_get_brigade(r->input_filters, brigade, AP_MODE_READBYTES,
                                               APR_BLOCK_READ, HUGE_STRING_LEN);

        status = rv == APR_SUCCESS ? buffer_append_brigade(r, body, brigade, most)
                                   : ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
        apr_brigade_cleanup(brigade);
    }
    apr_brigade_destroy(brigade);
    return status == DONE ? OK : status;
}

static int body_refuse_length(request_rec *r, apr_off_t most)
{
    return body_refuse(r, HTTP_REQUEST_ENTITY_TOO_LARGE,
                       apr_psprintf(r->pool,
                                    "the body is longer than PgPoolQueryBody (%" APR_OFF_T_FMT
                                    " bytes)",
                                    most));
}

int pgpool_input_read(request_rec *r, int uses, apr_off_t most)
{
    buffer body = {.text = NULL};
    int status;

    if (!uses)
        return ap_discard_request_body(r);
    /* A subrequest has no body of its own, and a body can be read only once. */
    if (r->main || body_of(r) || !ap_request_has_body(r))
        return OK;
    if ((uses & PGPOOL_USES_FORM) && !is_form(r))
        return body_refuse(r, HTTP_UNSUPPORTED_MEDIA_TYPE, "the body is no " FORM_TYPE);
    if (is_announced_longer(r, most))
        return body_refuse_length(r, most);
    status = body_read(r, &body, most);
    if (status == HTTP_REQUEST_ENTITY_TOO_LARGE)
        return body_refuse_length(r, most);
    if (status != OK)
        return body_refuse(r, status, "the body cannot be read to its end");
    if (strlen(body.text) != body.length)
        return body_refuse(r, HTTP_BAD_REQUEST, "the body contains a NUL");
    if (!pgp_text_is_utf8(body.text))
        return body_refuse(r, HTTP_BAD_REQUEST, "the body is not encoded as UTF-8");
    pgpool_query_request_of(r)->body = body.text;
    return OK;
}
