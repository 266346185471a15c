/**
 * mod_pgpool_query: a location that answers with the rows of an SQL statement.
 *
 *     <LocationMatch "^/accounts/(?<aid>[0-9]+)$">
 *         SetHandler pgpool-query
 *         PgPoolQuery "SELECT aid, abalance FROM pgbench_accounts WHERE aid = $1" \
 *                     "%{env:MATCH_AID}"
 *     </LocationMatch>
 *
 * The body is an array with one object a row, `[]` for no row, always in UTF-8, or one of the
 * other formats of mod_pgpool_query_output.h.  Every expression after the SQL is an ap_expr
 * string, evaluated for the request and passed as $1, $2, ...: a value, never a piece of SQL.
 * mod_pgpool_query_input.h tells of the values of query string and body.
 *
 * A statement runs for the methods of its <Limit>, or else for GET and POST.  HEAD runs GET's
 * in a read-only transaction and answers 405 if it would write.  When the server refuses
 * the statement, the client gets a status by SQLSTATE, and mod_pgpool logs the server's words.
 *
 * Limits.  One statement: SELECT, VALUES, TABLE, or INSERT, UPDATE, DELETE with RETURNING;
 * without it the server refuses ("does not have a RETURNING clause").  WITH is fine, but not
 * with a part that writes.
 *
 * It is the worked example for authors of handlers as well: answer_give() and the functions
 * that it calls use mod_pgpool, and pin_count() tells them whether a connection is their own.
 */
#include <httpd.h>
#include <http_config.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <mod_core.h>
#include <apr_strings.h>

#include "mod_pgpool.h"
#include "mod_pgpool_companion.h"
#include "mod_pgpool_query_config.h"
#include "mod_pgpool_query_input.h"
#include "mod_pgpool_query_output.h"
#include "mod_pgpool_query_request.h"
#include "mod_pgpool_query_status.h"

#define api pgpool_query_api

/* The SQLSTATE of a statement that would write where nothing may be written. */
#define READ_ONLY_SQL_TRANSACTION "25006"

/* The SQLSTATEs of a prepared statement that is gone, or whose rows have another shape now. */
#define INVALID_SQL_STATEMENT_NAME "26000"
#define FEATURE_NOT_SUPPORTED "0A000"

/* Seconds, for a statement that may succeed when it is tried again. */
#define RETRY_AFTER "1"

/* The answer to a request, in the making. */
typedef struct {
    const pgpool_query_conf *conf;
    const pgpool_query_definition *query;
    const char **values; /* for $1, $2, ... */
    const char *type;    /* the Content-Type; NULL: the format's */
    pgpool_output *output;
    const char *sqlstate; /* if the server has refused the statement */
    int refusal;          /* the status for that */
} answer;

/* The cause is for the log and the note, not for the client: it may quote SQL or data. */
static int answer_fail(request_rec *r, const answer *answer, int status, const char *cause)
{
    api.note_error(r, apr_pstrcat(r->pool, "PgPoolQuery: ", cause, NULL));
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP2002: PgPoolQuery at %s: %s",
                  answer->query->where, cause);
    return status;
}

/*
 * Method and input
 */

static void methods_allow(request_rec *r, apr_int64_t methods)
{
    ap_allow_standard_methods(r, REPLACE_ALLOW, M_OPTIONS, -1);
    r->allowed_methods->method_mask |= methods;
}

/* A value that the client has spoilt is 400, any other failure 500. */
static int answer_fail_value(request_rec *r, const answer *answer, const char *what,
                             const char *error)
{
    if (!pgpool_input_error(r))
        return answer_fail(r, answer, HTTP_INTERNAL_SERVER_ERROR,
                           apr_psprintf(r->pool, "%s: %s", what, error));
    api.note_error(r, apr_psprintf(r->pool, "PgPoolQuery: %s: %s", what, error));
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "PGP2004: PgPoolQuery at %s: %s: %s",
                  answer->query->where, what, error);
    return HTTP_BAD_REQUEST;
}

static int values_evaluate(request_rec *r, answer *answer)
{
    const pgpool_query_definition *query = answer->query;
    const char *error = NULL;

    /* An <If> that could not be evaluated may have been there to forbid something. */
    if (pgpool_input_error(r))
        return answer_fail_value(r, answer, "an expression", pgpool_input_error(r));
    answer->values = apr_palloc(r->pool, query->nparams * sizeof(*answer->values));
    for (int i = 0; i < query->nparams; i++) {
        answer->values[i] = pgpool_input_value(r, &query->params[i], &error);
        if (error)
            return answer_fail_value(r, answer, apr_psprintf(r->pool, "$%d", i + 1), error);
    }
    answer->type = answer->conf->type ? api.expr_value(r, answer->conf->type, &error) : NULL;
    return error ? answer_fail_value(r, answer, "the type", error) : OK;
}

/*
 * Statement
 */

/* How many connections the request with its subrequests and redirects has been given. */
static int *pins_of(request_rec *r)
{
    while (r->prev || r->main)
        r = r->prev ? r->prev : r->main;
    return &pgpool_query_request_of(r)->pins;
}

/* mod_pgpool's hook "attach". */
static int pin_count(request_rec *r, const char *pool, PGconn *conn)
{
    ++*pins_of(r);
    return OK;
}

/* Set the headers that belong to a status, and its status line: httpd has one for the statuses
 * that it knows, and would write 500 for any other.  Returns the status. */
static int status_prepare(request_rec *r, int status)
{
    if (status == HTTP_SERVICE_UNAVAILABLE)
        apr_table_setn(r->err_headers_out, "Retry-After", RETRY_AFTER);
    if (status != HTTP_INTERNAL_SERVER_ERROR &&
        ap_index_of_response(status) == ap_index_of_response(HTTP_INTERNAL_SERVER_ERROR))
        r->status_line = apr_psprintf(r->pool, "%d Status %d", status, status);
    return status;
}

/* Whether the request serves a HEAD.  httpd calls a subrequest GET, whatever its outer request
 * is. */
static bool is_head(const request_rec *r)
{
    while (r && !r->header_only)
        r = r->main ? r->main : r->prev;
    return r != NULL;
}

/* A HEAD that would write is not allowed here, and Allow leaves out GET. */
static int refusal_status(request_rec *r, const answer *answer, const char *sqlstate)
{
    const int status = pgpool_query_status_find(answer->conf->status_rules, sqlstate);

    if (is_head(r) && !strcmp(sqlstate, READ_ONLY_SQL_TRANSACTION)) {
        methods_allow(r, pgpool_query_methods(answer->conf) & ~(AP_METHOD_BIT << M_GET));
        return HTTP_METHOD_NOT_ALLOWED;
    }
    return status_prepare(r, status ? status : api.http_status(r, PGPOOL_ESTATEMENT));
}

/* Keep why the server has refused a statement, and the status for that. */
static apr_status_t refusal_note(request_rec *r, answer *answer)
{
    answer->sqlstate = apr_pstrdup(r->pool, api.sqlstate(r));
    answer->refusal = refusal_status(r, answer, answer->sqlstate);
    return PGPOOL_ESTATEMENT;
}

static apr_status_t statement_run(request_rec *r, answer *answer)
{
    const pgpool_statement *st = &answer->query->statements[pgpool_query_format(answer->conf)];
    const pgpool_params params = {.values = answer->values};
    const apr_status_t rv = api.query_rows(r, NULL, st, &params, pgpool_output_rows,
                                           answer->output);

    return rv == PGPOOL_ESTATEMENT ? refusal_note(r, answer) : rv;
}

/* In a transaction mod_pgpool does not repeat a statement whose prepared form the server has
 * lost or finds outdated.  Ours may be repeated: nothing else has happened in it. */
static bool is_stale(const char *sqlstate)
{
    return !strcmp(sqlstate, INVALID_SQL_STATEMENT_NAME) ||
           !strcmp(sqlstate, FEATURE_NOT_SUPPORTED);
}

/* HEAD is a safe method and must not write: a client may send it only to see whether the
 * location exists. */
static apr_status_t statement_run_read_only(request_rec *r, answer *answer)
{
    static const pgpool_statement begin = {.sql = "BEGIN READ ONLY"};
    static const pgpool_statement rollback = {.sql = "ROLLBACK"};
    int attempts = 2;
    apr_status_t rv;

    do {
        PGresult *result;

        rv = api.query(r, NULL, &begin, NULL, &result);
        if (rv != APR_SUCCESS)
            return rv == PGPOOL_ESTATEMENT ? refusal_note(r, answer) : rv;
        rv = statement_run(r, answer);
        /* After any other status the connection is shut down. */
        if (rv == APR_SUCCESS || rv == PGPOOL_ESTATEMENT)
            api.query(r, NULL, &rollback, NULL, &result);
    } while (rv == PGPOOL_ESTATEMENT && is_stale(answer->sqlstate) && --attempts);
    return rv;
}

/* A shared cache must not give one user's rows to another.  httpd's own cache answers before
 * httpd authenticates. */
static void cache_keep_private(request_rec *r, apr_table_t *headers)
{
    if (api.is_personal(r) || r->user)
        apr_table_mergen(headers, "Cache-Control", "private");
}

/* Run the statement.  In a transaction that is open already, the handler that began it decides
 * whether a HEAD may write. */
static int answer_collect(request_rec *r, answer *answer)
{
    bool read_only = false;
    apr_status_t rv = APR_SUCCESS;

    if (is_head(r)) {
        PGconn *conn;

        rv = api.acquire(r, NULL, &conn);
        read_only = rv == APR_SUCCESS && PQtransactionStatus(conn) == PQTRANS_IDLE;
    }
    if (rv == APR_SUCCESS)
        rv = read_only ? statement_run_read_only(r, answer) : statement_run(r, answer);
    if (rv == APR_SUCCESS)
        rv = pgpool_output_finish(answer->output);
    if (rv == APR_SUCCESS)
        return OK;
    if (rv == PGPOOL_ESTATEMENT)
        return answer->refusal;
    if (pgpool_output_error(answer->output))
        return answer_fail(r, answer, HTTP_INTERNAL_SERVER_ERROR,
                           pgpool_output_error(answer->output));
    return pgpool_input_error(r) ? HTTP_BAD_REQUEST : api.http_status(r, rv);
}

/* Run the statement, give the connection back, write the response. */
static int answer_give(request_rec *r, answer *answer)
{
    const pgpool_query_conf *conf = answer->conf;
    const int *pins = pins_of(r), before = *pins;
    int status;

    answer->output = pgpool_output_make(r, pgpool_query_format(conf),
                                        pgpool_query_result_most(conf),
                                        pgpool_query_etag(conf) && r->method_number == M_GET);
    status = answer_collect(r, answer);

    /* A client that reads slowly must not hold a connection while it does.  But a connection
     * that the request had already belongs to another handler or phase of it, perhaps in the
     * middle of a transaction: only what this handler has pinned is this handler's to release.
     * After a subrequest the main request goes on, and is to have the same connection. */
    if (*pins != before && !r->main)
        api.release(r, NULL);
    if (status == OK && pgpool_output_is_none(answer->output)) {
        status = pgpool_query_status_find(conf->status_rules, PGPOOL_QUERY_NONE);
        status = status ? status_prepare(r, status) : HTTP_NOT_FOUND;
    }
    cache_keep_private(r, status == OK ? r->headers_out : r->err_headers_out);
    return status == OK ? pgpool_output_send(answer->output, answer->type) : status;
}

static int query_handler(request_rec *r)
{
    answer answer = {.conf = pgpool_query_conf_of(r)};
    apr_int64_t methods;
    int status;

    if (strcmp(r->handler, "pgpool-query") != 0)
        return DECLINED;
    methods = pgpool_query_methods(answer.conf);
    if (!methods) {
        api.note_error(r, "PgPoolQuery: there is none for this location");
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP2001: no PgPoolQuery for %s", r->uri);
        return HTTP_INTERNAL_SERVER_ERROR;
    }

    methods_allow(r, methods);
    if (r->method_number == M_OPTIONS)
        return ap_send_http_options(r);
    answer.query = pgpool_query_for(answer.conf, r->method_number);
    if (!answer.query)
        return HTTP_METHOD_NOT_ALLOWED;

    /* Everything that may wait for the client comes before the connection is borrowed or after
     * it was given back. */
    status = pgpool_input_read(r, answer.query->uses, pgpool_query_body_most(answer.conf));
    if (status == OK)
        status = values_evaluate(r, &answer);
    return status == OK ? answer_give(r, &answer) : status;
}

static void register_hooks(apr_pool_t *p)
{
    pgpool_query_request_register();
    pgpool_input_register();
    ap_hook_handler(query_handler, NULL, NULL, APR_HOOK_MIDDLE);
    APR_OPTIONAL_HOOK(pgpool, attach, pin_count, NULL, NULL, APR_HOOK_MIDDLE);
}

__attribute__((visibility("default"))) AP_DECLARE_MODULE(pgpool_query) = {
    STANDARD20_MODULE_STUFF,
    .create_dir_config = pgpool_query_conf_create,
    .merge_dir_config = pgpool_query_conf_merge,
    .cmds = pgpool_query_directives,
    .register_hooks = register_hooks,
};
