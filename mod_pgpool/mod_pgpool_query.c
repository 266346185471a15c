/**
 * mod_pgpool_query: a location that answers the rows of an SQL statement as JSON.
 *
 *     <LocationMatch "^/accounts/(?<aid>[0-9]+)$">
 *         SetHandler pgpool-query
 *         PgPoolQuery "SELECT aid, abalance FROM pgbench_accounts WHERE aid = $1" \
 *                     "%{env:MATCH_AID}"
 *     </LocationMatch>
 *
 * The body is an array with one object a row, `[]` for no row, always in UTF-8.
 * PostgreSQL itself builds it, so numbers keep all their digits, and booleans,
 * nulls, arrays and json stay what they are.  Every expression after the SQL is
 * an ap_expr string, evaluated for the request and passed as $1, $2, ...: a
 * value, never a piece of SQL.  An unset variable is an empty string; say
 * nullif($1, '') for a null.
 *
 * GET and POST run the statement alike: keep one that writes to POST with
 * <LimitExcept POST>.  HEAD runs it in a read-only transaction and answers 405
 * if it would write.  When the statement fails, the client gets a bare 500 and
 * the error log SQLSTATE and message.
 *
 * Limits.  One statement: SELECT, VALUES, TABLE, or INSERT, UPDATE, DELETE with
 * RETURNING; without it the server refuses ("does not have a RETURNING
 * clause").  WITH is fine, but not with a part that writes.  The body is built
 * in memory, 1 GB at most.
 *
 * It is the worked example for authors of handlers as well.  What a handler
 * does with mod_pgpool is all in answer() and connection_lost(), and in
 * count_pin(), which tells the handler whether a connection is its own.
 */
#include <httpd.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <ap_expr.h>
#include <apr_strings.h>

#include "mod_pgpool.h"
#include "mod_pgpool_companion.h"
#include "mod_pgpool_query_sql.h"

module AP_MODULE_DECLARE_DATA pgpool_query_module;

static APR_OPTIONAL_FN_TYPE(pgpool_acquire) *acquire;
static APR_OPTIONAL_FN_TYPE(pgpool_release) *release;
static APR_OPTIONAL_FN_TYPE(pgpool_http_status) *http_status;
static APR_OPTIONAL_FN_TYPE(pgpool_note_error) *note_error;
static APR_OPTIONAL_FN_TYPE(pgpool_expr_value) *expr_value;

/* One PgPoolQuery, immutable once the configuration has been read. */
typedef struct {
    const char *statement;   /* the SQL, wrapped so that its one value is the body */
    ap_expr_info_t **params; /* $1 is params[0] */
    int nparams;
    const char *where; /* file:line of the directive, for the log */
} query_t;

/* A section has a PgPoolQuery of its own, or its parent's, or none. */
typedef struct {
    const query_t *query;
} query_dir_conf;

/* The body is a bytea, which only the binary format hands over as it is. */
enum { BINARY_FORMAT = 1 };

/* The SQLSTATE of a statement that would write where nothing may be written. */
#define READ_ONLY_SQL_TRANSACTION "25006"

/*
 * Configuration
 */

static void *create_dir_conf(apr_pool_t *p, char *path)
{
    return apr_pcalloc(p, sizeof(query_dir_conf));
}

static void *merge_dir_conf(apr_pool_t *p, void *parent, void *child)
{
    const query_dir_conf *section = child;

    return section->query ? child : parent;
}

/* The SQL stands at the top level of WITH, where PostgreSQL allows it to write.  `.*` makes
 * the name the row even if there is a column named pgpool_query.  Every other name says that it
 * is PostgreSQL's own: search_path may put a schema first in which anybody may create. */
static const char *as_json(apr_pool_t *p, const char *sql, apr_size_t length)
{
    return apr_pstrcat(p, "WITH pgpool_query AS (\n", apr_pstrmemdup(p, sql, length),
                       "\n) SELECT pg_catalog.convert_to(coalesce("
                       "pg_catalog.json_agg(pgpool_query.*)::pg_catalog.text, '[]'), 'UTF8') "
                       "FROM pgpool_query",
                       NULL);
}

/* Returns NULL, or what a look at the SQL finds wrong. */
static const char *check_sql(apr_pool_t *p, const pgpool_sql *sql, int nparams)
{
    if (sql->wrong)
        return apr_psprintf(p, "PgPoolQuery takes one SQL statement; %s: %.40s", sql->wrong,
                            sql->at);
    if (!sql->length)
        return "PgPoolQuery: the SQL is empty";
    if (sql->params != nparams)
        return apr_psprintf(
            p, "PgPoolQuery: the SQL has %d parameters, but %d expressions follow it",
            sql->params, nparams);
    return NULL;
}

static const char *parse_params(cmd_parms *cmd, query_t *query, const char *const exprs[])
{
    query->params = apr_palloc(cmd->pool, query->nparams * sizeof(*query->params));
    for (int i = 0; i < query->nparams; i++) {
        const char *error;

        query->params[i] = ap_expr_parse_cmd(cmd, exprs[i], AP_EXPR_FLAG_STRING_RESULT, &error,
                                             NULL);
        if (error)
            return apr_psprintf(cmd->pool, "PgPoolQuery: cannot parse \"%s\" ($%d): %s",
                                exprs[i], i + 1, error);
    }
    return NULL;
}

/* httpd would stop at 64 words without saying so. */
static const apr_array_header_t *words_of(apr_pool_t *p, const char *args)
{
    apr_array_header_t *words = apr_array_make(p, 4, sizeof(const char *));

    while (*args)
        APR_ARRAY_PUSH(words, const char *) = ap_getword_conf(p, &args);
    return words;
}

/* The server judges the SQL, at the first request; here only its form can be wrong. */
static const char *set_query(cmd_parms *cmd, void *dir_conf, const char *args)
{
    query_dir_conf *conf = dir_conf;
    const apr_array_header_t *words = words_of(cmd->pool, args);
    const char *const *word = (const char *const *)words->elts;
    APR_OPTIONAL_FN_TYPE(pgpool_config_needs_pool) *needs_pool;
    query_t *query = apr_pcalloc(cmd->pool, sizeof(*query));
    const char *wrong = ap_check_cmd_context(cmd, NOT_IN_HTACCESS | NOT_IN_LIMIT);
    pgpool_sql sql;

    if (wrong)
        return wrong;
    needs_pool = APR_RETRIEVE_OPTIONAL_FN(pgpool_config_needs_pool);
    if (!needs_pool)
        return "PgPoolQuery needs mod_pgpool: LoadModule pgpool_module is missing";
    needs_pool(cmd);

    sql = pgpool_sql_scan(words->nelts ? word[0] : "");
    query->nparams = words->nelts ? words->nelts - 1 : 0;
    if ((wrong = check_sql(cmd->pool, &sql, query->nparams)))
        return wrong;
    query->statement = as_json(cmd->pool, word[0], sql.length);
    query->where = apr_psprintf(cmd->pool, "%s:%d", cmd->directive->filename,
                                cmd->directive->line_num);
    conf->query = query;
    return parse_params(cmd, query, word + 1);
}

/*
 * Request
 */

/* The values for $1, $2, ...; NULL after an error, which httpd has logged. */
static const char **evaluate_params(request_rec *r, const query_t *query)
{
    const char **values = apr_palloc(r->pool, query->nparams * sizeof(*values));

    for (int i = 0; i < query->nparams; i++) {
        const char *error;

        values[i] = expr_value(r, query->params[i], &error);
        if (error)
            return NULL;
    }
    return values;
}

/* How many connections the request with its subrequests and redirects has been given. */
static int *pins_of(request_rec *r)
{
    int *pins;

    while (r->prev || r->main)
        r = r->prev ? r->prev : r->main;
    pins = ap_get_module_config(r->request_config, &pgpool_query_module);
    if (!pins) {
        pins = apr_pcalloc(r->pool, sizeof(*pins));
        ap_set_module_config(r->request_config, &pgpool_query_module, pins);
    }
    return pins;
}

/* mod_pgpool's hook "attach". */
static int count_pin(request_rec *r, const char *pool, PGconn *conn)
{
    ++*pins_of(r);
    return OK;
}

/* HEAD is a safe method and must not write: a client may send it only to see whether the
 * location exists.  In a transaction that is open already, its owner decides what may write. */
static PGresult *run_statement(const request_rec *r, const query_t *query,
                               const char *const *values, PGconn *conn)
{
    const int guarded = r->header_only && PQtransactionStatus(conn) == PQTRANS_IDLE;
    PGresult *result;

    if (guarded) {
        result = PQexec(conn, "BEGIN READ ONLY");
        if (PQresultStatus(result) != PGRES_COMMAND_OK)
            return result;
        PQclear(result);
    }
    result = PQexecParams(conn, query->statement, query->nparams, NULL, values, NULL, NULL,
                          BINARY_FORMAT);
    if (guarded)
        PQclear(PQexec(conn, "ROLLBACK"));
    return result;
}

/* The cause is for the log and the note, not for the client: it may quote SQL or data. */
static int statement_failed(request_rec *r, const query_t *query, const PGconn *conn,
                            const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *cause = apr_pstrcat(r->pool, "SQLSTATE ", sqlstate ? sqlstate : "none", ": ",
                                    message ? message : PQerrorMessage(conn), NULL);

    if (r->header_only && sqlstate && !strcmp(sqlstate, READ_ONLY_SQL_TRANSACTION)) {
        ap_allow_standard_methods(r, REPLACE_ALLOW, M_POST, -1);
        return HTTP_METHOD_NOT_ALLOWED;
    }
    note_error(r, apr_pstrcat(r->pool, "PgPoolQuery: ", cause, NULL));
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP2002: PgPoolQuery at %s: %s (backend %u)",
                  query->where, cause, (unsigned)PQbackendPID(conn));
    /* Class 22, data exception: a value that is none of its type, or a character that the
     * database's encoding has not. */
    return sqlstate && !strncmp(sqlstate, "22", 2) ? HTTP_BAD_REQUEST
                                                   : HTTP_INTERNAL_SERVER_ERROR;
}

/* The next acquire tells mod_pgpool, and gets the status that says so.  The statement
 * may have been committed, so it is not for us to repeat it. */
static int connection_lost(request_rec *r, const query_t *query, PGconn *conn)
{
    const char *message = PQerrorMessage(conn);

    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                  "PGP2003: PgPoolQuery at %s: the connection died: %.*s", query->where,
                  (int)strcspn(message, "\n"), message);
    return http_status(r, acquire(r, NULL, &conn));
}

static apr_status_t clear_result(void *result)
{
    PQclear(result);
    return APR_SUCCESS;
}

/* A pool bucket sends the result's memory without a copy, and copies it only if
 * the request ends first, as a subrequest does. */
static int send_json(request_rec *r, const PGresult *result)
{
    apr_bucket_alloc_t *alloc = r->connection->bucket_alloc;
    apr_bucket_brigade *brigade = apr_brigade_create(r->pool, alloc);
    apr_size_t len = PQgetlength(result, 0, 0);
    apr_bucket *body = apr_bucket_pool_create(PQgetvalue(result, 0, 0), len, r->pool, alloc);
    apr_status_t rv;

    APR_BRIGADE_INSERT_TAIL(brigade, body);
    APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_eos_create(alloc));
    ap_set_content_type(r, "application/json");
    ap_set_content_length(r, len);
    rv = ap_pass_brigade(r->output_filters, brigade);
    return rv == APR_SUCCESS || r->connection->aborted ? OK : AP_FILTER_ERROR;
}

/* Borrow a connection, run the statement, give the connection back, write. */
static int answer(request_rec *r, const query_t *query, const char *const *values)
{
    const int *pins = pins_of(r), before = *pins;
    int status = OK;
    const char *encoding;
    PGresult *result;
    PGconn *conn;
    apr_status_t rv = acquire(r, NULL, &conn);

    if (rv != APR_SUCCESS)
        return http_status(r, rv);

    encoding = PQparameterStatus(conn, "client_encoding");
    if (encoding && strcmp(encoding, "UTF8") != 0) {
        note_error(r, "PgPoolQuery: another handler of this request has set client_encoding");
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "PGP2002: PgPoolQuery at %s: another handler of this request has set "
                      "client_encoding to %s, so that its values would be misread",
                      query->where, encoding);
        return HTTP_INTERNAL_SERVER_ERROR;
    }

    result = run_statement(r, query, values, conn);
    apr_pool_cleanup_register(r->pool, result, clear_result, apr_pool_cleanup_null);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        if (PQstatus(conn) != CONNECTION_OK)
            return connection_lost(r, query, conn);
        status = statement_failed(r, query, conn, result);
    }

    /* A client that reads slowly must not hold a connection while it does.  But a connection
     * that the request had already belongs to another handler or phase of it, perhaps in the
     * middle of a transaction: only what this handler has pinned is this handler's to release.
     * After a subrequest the main request goes on, and its next part is to have the same. */
    if (*pins != before && !r->main)
        release(r, NULL);
    return status == OK ? send_json(r, result) : status;
}

static int query_handler(request_rec *r)
{
    const query_dir_conf *conf = ap_get_module_config(r->per_dir_config, &pgpool_query_module);
    const query_t *query = conf->query;
    const char **values;
    int status;

    if (strcmp(r->handler, "pgpool-query") != 0)
        return DECLINED;
    if (!query) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP2001: no PgPoolQuery for %s", r->uri);
        return HTTP_INTERNAL_SERVER_ERROR;
    }

    ap_allow_standard_methods(r, REPLACE_ALLOW, M_GET, M_POST, -1);
    if (r->method_number != M_GET && r->method_number != M_POST)
        return HTTP_METHOD_NOT_ALLOWED;

    /* Everything that may wait for the client comes before the connection is
     * borrowed or after it was given back. */
    if ((status = ap_discard_request_body(r)) != OK)
        return status;
    if (!(values = evaluate_params(r, query)))
        return HTTP_INTERNAL_SERVER_ERROR;
    return answer(r, query, values);
}

/*
 * Module
 */

static void retrieve_optional_fns(void)
{
    acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire);
    release = APR_RETRIEVE_OPTIONAL_FN(pgpool_release);
    http_status = APR_RETRIEVE_OPTIONAL_FN(pgpool_http_status);
    note_error = APR_RETRIEVE_OPTIONAL_FN(pgpool_note_error);
    expr_value = APR_RETRIEVE_OPTIONAL_FN(pgpool_expr_value);
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_optional_fn_retrieve(retrieve_optional_fns, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(query_handler, NULL, NULL, APR_HOOK_MIDDLE);
    APR_OPTIONAL_HOOK(pgpool, attach, count_pin, NULL, NULL, APR_HOOK_MIDDLE);
}

static const command_rec directives[] = {
    AP_INIT_RAW_ARGS("PgPoolQuery", set_query, NULL, ACCESS_CONF,
                     "an SQL statement, and an expression for each of its parameters"),
    {.name = NULL},
};

__attribute__((visibility("default"))) AP_DECLARE_MODULE(pgpool_query) = {
    STANDARD20_MODULE_STUFF,
    .create_dir_config = create_dir_conf,
    .merge_dir_config = merge_dir_conf,
    .cmds = directives,
    .register_hooks = register_hooks,
};
