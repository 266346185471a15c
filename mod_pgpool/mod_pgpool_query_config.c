/*
 * The directives of mod_pgpool_query (mod_pgpool_query_config.h).
 */
#include "mod_pgpool_query_config.h"

#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <http_log.h>

#include "core/pgp_text.h"
#include "mod_pgpool_companion.h"
#include "mod_pgpool_query_request.h"
#include "mod_pgpool_query_sql.h"
#include "mod_pgpool_query_status.h"

APLOG_USE_MODULE(pgpool_query);

#define BODY_MOST ((apr_off_t)1 << 20)
enum { UNSET = -1 };

/* --- sections --------------------------------------------------------------- */

void *pgpool_query_conf_create(apr_pool_t *p, char *path)
{
    pgpool_query_conf *conf = apr_pcalloc(p, sizeof(*conf));

    conf->format = PGPOOL_FORMATS;
    conf->body_most = conf->result_most = conf->etag = UNSET;
    return conf;
}

/* In one section the statement of a <Limit> goes before the plain one, wherever it stands. */
const pgpool_query_definition *pgpool_query_for(const pgpool_query_conf *conf, int method)
{
    if (conf->by_method[method])
        return conf->by_method[method];
    return method == M_GET || method == M_POST ? conf->plain : NULL;
}

void *pgpool_query_conf_merge(apr_pool_t *p, void *parent, void *child)
{
    const pgpool_query_conf *outer = parent, *inner = child;
    pgpool_query_conf *conf = apr_pmemdup(p, inner, sizeof(*inner));

    for (int method = 0; method < METHODS; method++) {
        const pgpool_query_definition *query = pgpool_query_for(inner, method);

        conf->by_method[method] = query ? query : pgpool_query_for(outer, method);
    }
    if (inner->format == PGPOOL_FORMATS) {
        conf->format = outer->format;
        conf->type = outer->type;
    }
    if (!inner->status_rules)
        conf->status_rules = outer->status_rules;
    else if (outer->status_rules)
        conf->status_rules = apr_array_append(p, outer->status_rules, inner->status_rules);
    if (inner->body_most == UNSET)
        conf->body_most = outer->body_most;
    if (inner->result_most == UNSET)
        conf->result_most = outer->result_most;
    if (inner->etag == UNSET)
        conf->etag = outer->etag;
    return conf;
}

const pgpool_query_conf *pgpool_query_conf_of(const request_rec *r)
{
    return ap_get_module_config(r->per_dir_config, &pgpool_query_module);
}

apr_int64_t pgpool_query_methods(const pgpool_query_conf *conf)
{
    apr_int64_t methods = 0;

    for (int method = 0; method < METHODS; method++)
        if (pgpool_query_for(conf, method))
            methods |= AP_METHOD_BIT << method;
    return methods;
}

pgpool_format pgpool_query_format(const pgpool_query_conf *conf)
{
    return conf->format == PGPOOL_FORMATS ? PGPOOL_FORMAT_ARRAY : conf->format;
}

apr_off_t pgpool_query_body_most(const pgpool_query_conf *conf)
{
    return conf->body_most == UNSET ? BODY_MOST : conf->body_most;
}

apr_off_t pgpool_query_result_most(const pgpool_query_conf *conf)
{
    return conf->result_most == UNSET ? 0 : conf->result_most;
}

bool pgpool_query_etag(const pgpool_query_conf *conf)
{
    return conf->etag > 0;
}

/* --- PgPoolQuery ------------------------------------------------------------ */

/* Returns NULL, or what the scan has found wrong. */
static const char *sql_check(apr_pool_t *p, const pgpool_sql *sql, int nparams)
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

static const char *params_parse(cmd_parms *cmd, pgpool_query_definition *query,
                                const char *const exprs[])
{
    pgpool_input *params = apr_pcalloc(cmd->pool, query->nparams * sizeof(*params));

    for (int i = 0; i < query->nparams; i++) {
        const char *error = pgpool_input_parse(cmd, exprs[i], &params[i], &query->uses);

        if (error)
            return apr_psprintf(cmd->pool, "PgPoolQuery: cannot parse \"%s\" ($%d): %s",
                                exprs[i], i + 1, error);
    }
    query->params = params;
    return NULL;
}

/* Each statement begins with the directive's place in a comment, which the logs of httpd and of
 * the server show, and pg_stat_activity. */
static void sql_embed(apr_pool_t *p, pgpool_query_definition *query, const char *sql,
                      apr_size_t length)
{
    char *place = apr_pstrdup(p, query->where);

    pgp_text_clean(place);
    for (char *star = place; (star = strchr(star, '*'));)
        *star = '?';
    for (pgpool_format format = 0; format < PGPOOL_FORMATS; format++)
        query->statements[format] = (pgpool_statement){
            .sql = apr_pstrcat(p, "/* ", place, " */ ",
                               pgpool_output_sql(p, format, sql, length), NULL),
            .nparams = query->nparams,
        };
}

/* httpd would stop at 64 words without saying so. */
static const apr_array_header_t *words_of(apr_pool_t *p, const char *args)
{
    apr_array_header_t *words = apr_array_make(p, 4, sizeof(const char *));

    while (*args)
        APR_ARRAY_PUSH(words, const char *) = ap_getword_conf(p, &args);
    return words;
}

/* limited: the bits of the methods of the <Limit> or <LimitExcept> around it; -1: none. */
static void query_put(pgpool_query_conf *conf, const pgpool_query_definition *query,
                      apr_int64_t limited)
{
    if (limited == -1)
        conf->plain = query;
    for (int method = 0; limited != -1 && method < METHODS; method++)
        if (limited & (AP_METHOD_BIT << method))
            conf->by_method[method] = query;
}

/* The server judges the SQL, at the first request; here only its form can be wrong. */
static const char *set_query(cmd_parms *cmd, void *dir_conf, const char *args)
{
    const apr_array_header_t *words = words_of(cmd->pool, args);
    const char *const *word = (const char *const *)words->elts;
    APR_OPTIONAL_FN_TYPE(pgpool_config_needs_pool) *needs_pool;
    pgpool_query_definition *query = apr_pcalloc(cmd->pool, sizeof(*query));
    const char *wrong = ap_check_cmd_context(cmd, NOT_IN_HTACCESS);
    pgpool_sql sql;

    if (wrong)
        return wrong;
    needs_pool = APR_RETRIEVE_OPTIONAL_FN(pgpool_config_needs_pool);
    if (!needs_pool)
        return "PgPoolQuery needs mod_pgpool: LoadModule pgpool_module is missing";
    needs_pool(cmd);

    sql = pgpool_sql_scan(words->nelts ? word[0] : "");
    query->nparams = words->nelts ? words->nelts - 1 : 0;
    if ((wrong = sql_check(cmd->pool, &sql, query->nparams)))
        return wrong;
    query->where = apr_psprintf(cmd->pool, "%s:%d", cmd->directive->filename,
                                cmd->directive->line_num);
    sql_embed(cmd->pool, query, word[0], sql.length);
    query_put(dir_conf, query, cmd->limited);
    return params_parse(cmd, query, word + 1);
}

/* --- the others ------------------------------------------------------------- */

static const char *context_check(cmd_parms *cmd)
{
    return ap_check_cmd_context(cmd, NOT_IN_HTACCESS | NOT_IN_LIMIT);
}

static const char *set_format(cmd_parms *cmd, void *dir_conf, const char *name,
                              const char *type)
{
    pgpool_query_conf *conf = dir_conf;
    const char *wrong = context_check(cmd);

    if (wrong)
        return wrong;
    conf->format = pgpool_format_find(name);
    if (conf->format == PGPOOL_FORMATS)
        return apr_psprintf(cmd->pool,
                            "PgPoolQueryFormat takes array, object, value, lines or csv, not "
                            "\"%s\"",
                            name);
    conf->type = type ? ap_expr_parse_cmd(cmd, type, AP_EXPR_FLAG_STRING_RESULT, &wrong, NULL)
                      : NULL;
    if (wrong)
        return apr_psprintf(cmd->pool, "PgPoolQueryFormat: cannot parse \"%s\": %s", type,
                            wrong);
    return NULL;
}

static const char *set_status(cmd_parms *cmd, void *dir_conf, const char *condition,
                              const char *status)
{
    pgpool_query_conf *conf = dir_conf;
    const char *wrong = context_check(cmd);
    apr_array_header_t *rules;

    if (wrong)
        return wrong;
    rules = conf->status_rules ? apr_array_copy(cmd->pool, conf->status_rules)
                               : pgpool_query_status_rules(cmd->pool);
    conf->status_rules = rules;
    return pgpool_query_status_add(rules, condition, status);
}

/* A number of bytes, or of the unit that follows it: K, M or G.  false: the text is neither. */
static bool size_parse(const char *text, apr_off_t *size)
{
    static const char units[] = "KMG";
    const char *unit;
    char *end;
    int shift = 0;

    if (!apr_isdigit(*text) || apr_strtoff(size, text, &end, 10) != APR_SUCCESS)
        return false;
    if (*end && (unit = strchr(units, apr_toupper(*end)))) {
        shift = 10 * (int)(unit - units + 1);
        end++;
    }
    if (*end || *size > APR_INT64_MAX >> shift)
        return false;
    *size <<= shift;
    return true;
}

/* The offset of the field is the directive's data. */
static const char *set_size(cmd_parms *cmd, void *dir_conf, const char *text)
{
    apr_off_t *size = (apr_off_t *)((char *)dir_conf + (apr_size_t)cmd->info);
    const char *wrong = context_check(cmd);

    if (!wrong && !size_parse(text, size))
        wrong = apr_psprintf(cmd->pool,
                             "%s takes a number of bytes, or of K, M or G of them, not \"%s\"",
                             cmd->cmd->name, text);
    return wrong;
}

static const char *set_etag(cmd_parms *cmd, void *dir_conf, int on)
{
    pgpool_query_conf *conf = dir_conf;

    conf->etag = on;
    return context_check(cmd);
}

const command_rec pgpool_query_directives[] = {
    AP_INIT_RAW_ARGS("PgPoolQuery", set_query, NULL, ACCESS_CONF,
                     "an SQL statement, and an expression for each of its parameters"),
    AP_INIT_TAKE12("PgPoolQueryFormat", set_format, NULL, ACCESS_CONF,
                   "array, object, value, lines or csv; an expression for the Content-Type"),
    AP_INIT_TAKE2("PgPoolQueryStatus", set_status, NULL, ACCESS_CONF,
                  "none, an SQLSTATE or the beginning of one, and the status for it"),
    AP_INIT_TAKE1("PgPoolQueryBody", set_size,
                  (void *)APR_OFFSETOF(pgpool_query_conf, body_most), ACCESS_CONF,
                  "the greatest length of a body that a statement uses"),
    AP_INIT_TAKE1("PgPoolQueryMaxSize", set_size,
                  (void *)APR_OFFSETOF(pgpool_query_conf, result_most), ACCESS_CONF,
                  "the greatest length of a result"),
    AP_INIT_FLAG("PgPoolQueryETag", set_etag, NULL, ACCESS_CONF,
                 "whether the answer has an ETag, made from the body"),
    {.name = NULL},
};
